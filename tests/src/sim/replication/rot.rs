//! Disks that lose or change what was durable, while nobody looks.
//!
//! Called by: `nemesis`. Calls: the disks. Invariant: it strikes while the process is down, so that what the start looks at is what there is;
//! a machine that was struck is suspect from then on. Left alone are the few bytes of a batch's header that no checksum covers while a
//! segment's sum is trusted: nobody claims to find what changes there.

use std::path::{Path, PathBuf};

use broker_core::ids::{BrokerId, Offset};
use client_protocol::records::Batches;
use coordinator_disk::small_file;

use super::ledger::read_all;
use super::process::Process;
use super::storage::DATA;
use super::world::{Machine, World};
use crate::sim::ensemble::schedule::Time;
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// Bytes of a batch that its own checksum does not cover.
const UNCOVERED_BYTES: u64 = 21;
/// So many records before its end a log is looked at after a start.
const TAIL_RECORDS: i64 = 24;

impl World {
    /// The process is killed, and its disk is another when it comes back.
    pub(super) fn rot(&mut self, id: BrokerId, fault: Fault, time: Time) {
        let power = self.settings.power_cuts && self.faults.chance(1, 2);
        let durable = self.machines[&id].process.as_ref().map(Process::durable_ends);
        let mut damaged = None;
        self.die(id, (time, power), |machine, faults| {
            match power {
                true => machine.disk.crash(faults.number()),
                false => machine.disk.kill(),
            }
            damaged = machine.damage(fault, faults);
            // With the power what the marks say may have gone, and a file that is not there says nothing.
            let is_told = !power && fault != Fault::LoseFile;
            if damaged.as_ref().is_some_and(|(path, _)| is_told && is_log(path)) {
                machine.had_durable = durable.unwrap_or_default();
            }
        });
        let now = self.schedule.now();
        self.trace.say(now, || format!("disk of {id}: {fault:?} {damaged:?}"));
        if damaged.is_some() {
            self.arsenal.note(fault);
        }
    }

    /// Makes a copy of the disk that may be put back, once a run, as early as there is something on it.
    pub(super) fn back_up(&mut self) {
        let rot = self.settings.rot;
        let machine = self.machines.get_mut(&self.lossy).expect("there");
        if rot && machine.backup.is_none() && machine.is_registered() {
            machine.backup = Some((machine.life, machine.disk.copy()));
        }
    }

    /// Puts the copy of the disk back, when the machine is down the next time in a later life: since the copy an incarnation has been recorded
    /// then (B3).
    pub(super) fn restore(&mut self, id: BrokerId, time: Time) {
        self.machines.get_mut(&id).expect("there").wants_old_disk = true;
        self.kill(id, time);
    }

    /// A file cannot be read for a while.
    pub(super) fn spoil_reads(&mut self, id: BrokerId) {
        let machine = &self.machines[&id];
        if let Some((path, _)) = some_file(machine, &mut self.faults, |_| true) {
            machine.disk.forbid_reads(&path).expect("listed");
        }
    }
}

fn some_file(
    machine: &Machine,
    random: &mut Random,
    wanted: fn(&Path) -> bool,
) -> Option<(PathBuf, u64)> {
    let files = machine.disk.files().into_iter().filter(|(path, _)| wanted(path));
    let files: Vec<_> = files.collect();
    let which = random.below(files.len().max(1) as u64);
    let file = files.into_iter().nth(usize::try_from(which).expect("few"));
    file.filter(|(path, _)| path.starts_with(DATA))
}

impl Machine {
    /// Below its mark a log is never cut: what it held before its file went bad it holds, or it says that it is damaged (E3).
    pub(super) fn check_kept(&mut self) {
        let Some(process) = &self.process else { return };
        for (key, durable_end) in std::mem::take(&mut self.had_durable) {
            let end = process.directory.log(key).map(|log| Offset::new(log.view().ends().end));
            let is_told = process.directory.damaged.contains(&key);
            assert!(
                is_told || end.is_some_and(|end| end >= durable_end),
                "{}: {key:?}: durable to {durable_end}, cut to {end:?} without a word",
                process.id
            );
        }
    }

    /// What a start keeps above the marks of a sound disk is whole: a torn tail is cut (E3).
    pub(super) fn check_tails(&self) {
        let Some(process) = self.process.as_ref().filter(|_| !self.suspect) else { return };
        for key in process.replicas.keys() {
            let Some(log) = process.directory.log(key) else { continue };
            let end = log.view().ends().end;
            let tail = (Offset::new((end - TAIL_RECORDS).max(0)), Offset::new(end));
            let read = process.directory.peek(|| read_all(process, key, tail.0, tail.1));
            let why = read.err();
            assert!(why.is_none(), "{}: {key:?}: a torn tail was kept: {why:?}", process.id);
        }
    }

    /// The file that was struck and the place in it, if one was: half of the time a log, which most files are not.
    fn damage(&mut self, fault: Fault, random: &mut Random) -> Option<(PathBuf, u64)> {
        let wanted: fn(&Path) -> bool = if random.chance(1, 2) { is_log } else { |_| true };
        let (path, length) = some_file(self, random, wanted)?;
        let position = random.below(length);
        let bit = u8::try_from(random.below(8)).expect("small");
        let struck = match fault {
            Fault::LoseFile => self.disk.lose_file(&path),
            _ if length == 0 => return None,
            Fault::LoseSector => self.disk.lose_sector(&path, position),
            _ => {
                let contents = small_file::read(&self.disk, &path);
                let contents = contents.ok().flatten().unwrap_or_default();
                if is_log(&path) && is_uncovered(&contents, position) {
                    return None;
                }
                self.disk.flip_bit(&path, position, bit)
            }
        };
        struck.expect("listed");
        self.suspect = true;
        Some((path, position))
    }

    /// Whether its process has registered, with an incarnation that its disk has recorded.
    pub(super) fn is_registered(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.epoch.is_some())
    }

    /// Whether its copy of the disk may be put back, and is to be.
    pub(super) fn may_restore(&self) -> bool {
        let is_older = self.backup.as_ref().is_some_and(|&(former, _)| former < self.life);
        self.wants_old_disk && is_older && self.is_registered()
    }

    pub(super) fn restore(&mut self) {
        let Some((_, backup)) = self.backup.take() else { return };
        self.wants_old_disk = false;
        backup.boot_after(&self.disk);
        self.disk = backup;
        self.had_durable.clear();
        self.suspect = true;
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
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
