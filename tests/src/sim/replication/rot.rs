//! Disks that lose or change what was durable, while nobody looks.
//!
//! Called by: `nemesis`. Calls: the disks. Invariant: it strikes while the process is down, so that what the start looks at is what there is;
//! a machine that was struck is suspect from then on. Left alone are the few bytes of a batch's header that no checksum covers while a
//! segment's sum is trusted: nobody claims to find what changes there.

use std::path::PathBuf;

use broker_core::ids::BrokerId;
use client_protocol::records::Batches;
use coordinator_disk::small_file;

use super::storage::DATA;
use super::world::{Machine, World};
use crate::sim::ensemble::schedule::Time;
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// Bytes of a batch that its own checksum does not cover.
const UNCOVERED_BYTES: u64 = 21;

impl World {
    /// The process is killed, and its disk is another when it comes back.
    pub(super) fn rot(&mut self, id: BrokerId, fault: Fault, time: Time) {
        let power = self.settings.power_cuts && self.faults.chance(1, 2);
        let mut where_to = None;
        self.die(id, (time, power), |machine, faults| {
            match power {
                true => machine.disk.crash(faults.number()),
                false => machine.disk.kill(),
            }
            where_to = machine.damage(fault, faults);
        });
        let now = self.schedule.now();
        self.trace.say(now, || format!("disk of {id}: {fault:?} {where_to:?}"));
    }

    /// Makes a copy of the disk, or puts back one that was made in a former life: since then an incarnation has been recorded (B3).
    pub(super) fn restore(&mut self, id: BrokerId, time: Time) {
        let now = self.schedule.now();
        let machine = self.machines.get_mut(&id).expect("there");
        let life = machine.life;
        let is_registered = machine.process.as_ref().is_some_and(|process| process.epoch.is_some());
        match &machine.backup {
            Some((former, _)) if *former < life && is_registered => {
                self.trace.say(now, || format!("disk of {id}: an older one, of life {former}"));
                self.die(id, (time, false), |machine, _| machine.restore());
            }
            Some(_) => {}
            None => machine.backup = Some((life, machine.disk.copy())),
        }
    }

    /// A file cannot be read for a while.
    pub(super) fn spoil_reads(&mut self, id: BrokerId) {
        let machine = &self.machines[&id];
        if let Some((path, _)) = some_file(machine, &mut self.faults) {
            machine.disk.forbid_reads(&path).expect("listed");
        }
    }
}

fn some_file(machine: &Machine, random: &mut Random) -> Option<(PathBuf, u64)> {
    let files = machine.disk.files();
    let which = random.below(files.len() as u64);
    let file = files.into_iter().nth(usize::try_from(which).expect("few"));
    file.filter(|(path, _)| path.starts_with(DATA))
}

impl Machine {
    /// The file that was struck and the place in it, if one was.
    fn damage(&mut self, fault: Fault, random: &mut Random) -> Option<(PathBuf, u64)> {
        let (path, length) = some_file(self, random)?;
        let position = random.below(length);
        let bit = u8::try_from(random.below(8)).expect("small");
        let struck = match fault {
            Fault::LoseFile => self.disk.lose_file(&path),
            _ if length == 0 => return None,
            Fault::LoseSector => self.disk.lose_sector(&path, position),
            _ => {
                let contents = small_file::read(&self.disk, &path);
                let contents = contents.ok().flatten().unwrap_or_default();
                let is_log = path.extension().is_some_and(|extension| extension == "log");
                if is_log && is_uncovered(&contents, position) {
                    return None;
                }
                self.disk.flip_bit(&path, position, bit)
            }
        };
        struck.expect("listed");
        self.suspect = true;
        Some((path, position))
    }

    fn restore(&mut self) {
        let Some((_, backup)) = self.backup.take() else { return };
        backup.boot_after(&self.disk);
        self.disk = backup;
        self.suspect = true;
    }
}

fn is_uncovered(log: &[u8], position: u64) -> bool {
    let mut from = 0;
    for batch in Batches::new(log).flatten() {
        let length = batch.bytes.len() as u64;
        if position < from + length {
            return position - from < UNCOVERED_BYTES;
        }
        from += length;
    }
    false
}
