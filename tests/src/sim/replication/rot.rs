//! Disks that lose or change what was durable, while nobody looks.
//!
//! Called by: `nemesis`. Calls: the disks. Invariant: it strikes while the process is down, so that what the start looks at is what there is;
//! a machine that was struck is suspect from then on. Left alone are the few bytes of a batch's header that no checksum covers while a
//! segment's sum is trusted: nobody claims to find what changes there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::ids::{BrokerId, Offset, TopicPartition};
use broker_log::Marks;
use client_protocol::records::Batches;
use coordinator_disk::small_file;

use super::ledger::read_all;
use super::process::Process;
use super::storage::{DATA, IDENTITY};
use super::world::{Machine, TOPIC, World, topic_id};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::Time;
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// Bytes of a batch that its own checksum does not cover.
const UNCOVERED_BYTES: u64 = 21;
/// So many records before its end a log is looked at after a start.
const TAIL_RECORDS: i64 = 24;

/// A log that went bad in the moment in which the power did.
#[derive(Debug, Clone, Copy)]
pub struct Torn {
    key: TopicPartition,
    durable_end: Offset,
    /// What its mark says after that.
    mark: Offset,
}

impl World {
    /// The process is killed, and its disk is another when it comes back.
    pub(super) fn rot(&mut self, id: BrokerId, fault: Fault, time: Time) {
        let power = self.settings.power_cuts && self.faults.chance(1, 2);
        let durable = self.machines[&id].process.as_ref().map(Process::durable_ends);
        let durable = durable.unwrap_or_default();
        let mut damaged = None;
        self.die(id, (time, power), |machine, faults| {
            match power {
                true => machine.disk.crash(faults.number()),
                false => machine.disk.kill(),
            }
            damaged = machine.damage(fault, faults);
            let Some((path, _)) = damaged.as_ref().filter(|(path, _)| is_log(path)) else { return };
            // With the power went what the marks said and was not synced.
            let kept = if power { marks_of(&machine.disk, &durable) } else { durable.clone() };
            machine.torn = torn(path, &durable, &kept).filter(|_| power);
            // A file that is not there says nothing.
            if fault != Fault::LoseFile {
                machine.had_durable = kept;
                machine.had_no_power = power;
            }
        });
        let now = self.schedule.now();
        self.trace.say(now, || format!("disk of {id}: {fault:?} {damaged:?}"));
        if damaged.is_some() {
            self.arsenal.note(fault);
        }
    }

    /// What a log lost with the power, to rot of that moment, where no mark said that it was durable, nobody can know: it leads without
    /// that, unless it gets it back from another leader before (E3). A log that is called damaged leads nothing.
    pub(super) fn see_who_lacks(&mut self, id: BrokerId) {
        let machine = self.machines.get_mut(&id).expect("there");
        let Some(process) = &machine.process else { return };
        let (ledger, mut lacking) = (&mut self.ledger, Vec::new());
        let (trace, now) = (&mut self.trace, self.schedule.now());
        for (key, durable_end) in std::mem::take(&mut machine.lacking) {
            match process.replicas.get(&key) {
                Some(core) if core.leading().is_some() => {
                    trace.say(now, || format!("{id} leads {key:?}, cut below {durable_end}"));
                    ledger.lost_unseen(key);
                }
                Some(core) if core.positions().end >= durable_end => {}
                Some(_) | None => lacking.push((key, durable_end)),
            }
        }
        machine.lacking = lacking;
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

/// How far logs are durable by the marks that are left on a disk; none of what has no mark.
fn marks_of(
    disk: &SimulatedDisk,
    logs: &[(TopicPartition, Offset)],
) -> Vec<(TopicPartition, Offset)> {
    let Ok(marks) = Marks::open(Arc::new(disk.copy()), Path::new(DATA), IDENTITY) else {
        return Vec::new();
    };
    let mark = |&(key, _): &(TopicPartition, Offset)| {
        let mark = marks.get(&folder_name(key)?)?;
        Some((key, Offset::new(mark.durable_end)))
    };
    logs.iter().filter_map(mark).collect()
}

fn folder_name(key: TopicPartition) -> Option<String> {
    (key.topic == topic_id()).then(|| format!("{TOPIC}-{}", key.partition))
}

/// The log that this file is of, with what it had durable, and what of that it cannot lose without knowing.
fn torn(
    path: &Path,
    durable: &[(TopicPartition, Offset)],
    kept: &[(TopicPartition, Offset)],
) -> Option<Torn> {
    let folder = path.parent()?.file_name()?.to_str()?;
    let is_of = |(key, _): &&(TopicPartition, Offset)| folder_name(*key).as_deref() == Some(folder);
    let &(key, durable_end) = durable.iter().find(is_of)?;
    let mark = kept.iter().find(is_of).map_or(Offset::ZERO, |&(_, mark)| mark);
    Some(Torn { key, durable_end, mark })
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
            // With the power may have gone what says whose a folder is, if rot had taken that before: its log is opened when its
            // topic is known, and called damaged then, for its mark is there.
            let is_to_be_told = end.is_none() && self.had_no_power;
            let is_told = process.directory.damaged.contains(&key) || is_to_be_told;
            assert!(
                is_told || end.is_some_and(|end| end >= durable_end),
                "{}: {key:?}: durable to {durable_end}, cut to {end:?} without a word",
                process.id
            );
        }
    }

    /// Whether the log that was struck with the power lost what was durable, above its mark, and could not tell.
    pub(super) fn look_at_torn(&mut self) {
        let Some(process) = &self.process else { return };
        let Some(Torn { key, durable_end, mark }) = self.torn.take() else { return };
        let Some(log) = process.directory.log(key) else { return };
        let end = Offset::new(log.view().ends().end);
        let is_told = log.cut_below_mark() || process.directory.damaged.contains(&key);
        if !is_told && mark <= end && end < durable_end {
            self.lacking.push((key, durable_end));
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
        self.forget_logs();
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
