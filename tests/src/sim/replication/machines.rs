//! Machines and their processes: starting, dying, pausing, losing power or disks.
//!
//! Called by: `world`, `nemesis`. Calls: `process`, the disks. Invariant: a process dies whole; what its disk keeps is what that kind of death leaves.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use broker_core::ids::BrokerId;

use super::coordination::{Strings, puppet};
use super::message::{Address, Message, Outbox};
use super::native::NativeEvent;
use super::process::Process;
use super::reader::ReaderEvent;
use super::world::{Clock, Doom, Event, Machine, World};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// More operations on the disk than most things take that a process does.
const OPERATIONS: u64 = 60;

impl World {
    pub(super) fn start(&mut self, id: BrokerId, life: u64) {
        let seed = self.seeds.number() >> 16;
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.life != life || machine.process.is_some() {
            return;
        }
        if machine.suspect || self.settings.power_cuts || self.settings.wipes {
            self.ledger.forgotten(id);
        }
        machine.life += 1;
        machine.strings = Strings::default();
        machine.paused_until = 0;
        machine.held.clear();
        let life = machine.life;
        let mut out = Outbox::default();
        let settings = Rc::clone(&self.settings);
        let disk = machine.disk.clone();
        let ends = !self.calm && self.faults.chance(1, 12);
        let count = self.faults.below(OPERATIONS);
        if ends && self.arsenal.is_on(Fault::KillWithin) {
            disk.die_after(count);
        }
        let started = Process::start(id, settings, &disk, seed, &mut out);
        if disk.is_dying() {
            drop(started);
            machine.had_durable.clear();
            self.leave_disk(&disk);
            let time = self.faults.below(2 * SECOND);
            self.schedule.after(time, Event::Start { id, life });
            return;
        }
        disk.live_on();
        let machine = self.machines.get_mut(&id).expect("there");
        match started {
            Ok(process) => {
                let damaged = process.directory.damage();
                assert!(
                    machine.suspect || damaged.is_empty(),
                    "{id}: a sound disk is called damaged: {damaged:?}"
                );
                let now = self.schedule.now();
                self.trace.say(now, || format!("{id} starts with {}", process.logs_in_words()));
                machine.process = Some(process);
                machine.check_kept();
                machine.look_at_torn();
                machine.check_tails();
                self.ensemble.awaken(puppet(id));
                self.sent(id, life, out);
            }
            Err(why) => self.not_started(id, &why),
        }
    }

    /// A process could not start: whoever looks after it tries again, and when nothing else is wrong any more replaces the disk.
    fn not_started(&mut self, id: BrokerId, why: &str) {
        let now = self.schedule.now();
        self.trace.say(now, || format!("{id} does not start: {why}"));
        let calm = self.calm;
        let machine = self.machines.get_mut(&id).expect("there");
        let is_bad = !machine.disk.has_refused();
        machine.disk.kill();
        assert!(machine.suspect || !is_bad, "{id} does not start on a sound disk: {why}");
        machine.starts_failed += 1;
        if is_bad && (calm || machine.starts_failed > 3) {
            machine.replace_disk();
        }
        let life = machine.life;
        self.schedule.after(SECOND, Event::Start { id, life });
    }

    /// A process whose disk failed ends, as far in order as that lets it.
    pub(super) fn failed_end(&mut self, id: BrokerId, life: u64) {
        let time = SECOND + self.faults.below(2 * SECOND);
        self.shut_down_end(id, life, time);
    }

    /// Once everything is calm: whoever looks after the machines replaces a disk that readers complained of.
    pub(super) fn look_after_disks(&mut self) {
        self.schedule.after(3 * SECOND, Event::LookAfterDisks);
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            let machine = self.machines.get_mut(&id).expect("there");
            if std::mem::take(&mut machine.complaints) > 0 {
                self.die(id, (SECOND, false), |machine, _| machine.replace_disk());
            }
        }
    }

    /// Records from this machine were damaged when somebody read them.
    pub(super) fn complain(&mut self, id: BrokerId, why: &str) {
        let machine = self.machines.get_mut(&id).expect("there");
        assert!(machine.suspect, "{id} served damaged records from a sound disk: {why}");
        machine.complaints += 1;
    }

    /// These leaders told followers that they cannot read what is asked for. Before all is calm that may be a fault that passes.
    pub(super) fn complain_unread(&mut self, leaders: &[BrokerId]) {
        for &leader in leaders {
            if self.calm && self.machines[&leader].suspect {
                self.complain(leader, "told a follower so");
            }
        }
    }

    /// The process is gone, and with `power` its machine; `disk` says what became of its disk. It starts again after `time`.
    pub(super) fn die(
        &mut self,
        id: BrokerId,
        (time, power): (Time, bool),
        disk: impl FnOnce(&mut Machine, &mut Random),
    ) {
        let machine = self.machines.get_mut(&id).expect("there");
        let is_restored = !self.calm && machine.may_restore();
        let Some(process) = machine.process.take() else { return };
        drop(process);
        machine.doom = None;
        machine.starts_failed = 0;
        disk(machine, &mut self.faults);
        if is_restored {
            machine.restore();
            self.arsenal.note(Fault::OldDisk);
        }
        let life = machine.life;
        self.trace.note(self.schedule.now(), "die", &[id.get().unsigned_abs().into(), life], &[]);
        self.ensemble.fell(puppet(id), power);
        self.schedule.after(time, Event::Start { id, life });
    }

    pub fn kill(&mut self, id: BrokerId, time: Time) {
        self.die(id, (time, false), |machine, _| machine.disk.kill());
    }

    /// The process will end within what it does, soon.
    pub(super) fn doom(&mut self, id: BrokerId) {
        let on_disk = self.faults.chance(2, 3);
        let count = self.faults.below(OPERATIONS);
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.process.is_none() {
            return;
        }
        machine.doom = Some(if on_disk { Doom::Disk } else { Doom::Messages });
        if on_disk {
            machine.disk.die_after(count);
        }
    }

    /// That has come, with or without its machine.
    pub(super) fn end_within(&mut self, id: BrokerId) {
        self.arsenal.note(Fault::KillWithin);
        let time = self.faults.below(2 * SECOND);
        match self.settings.power_cuts && self.faults.chance(1, 2) {
            true => self.cut_power(id, time),
            false => self.kill(id, time),
        }
    }

    /// What a process leaves that ended while it started or stopped, as far as its disk had come.
    fn leave_disk(&mut self, disk: &SimulatedDisk) {
        if disk.is_dying() {
            self.arsenal.note(Fault::KillWithin);
        }
        match disk.is_dying() && self.settings.power_cuts && self.faults.chance(1, 2) {
            true => disk.crash(self.faults.number()),
            false => disk.kill(),
        }
    }

    pub fn cut_power(&mut self, id: BrokerId, time: Time) {
        self.die(id, (time, true), |machine, faults| machine.disk.crash(faults.number()));
    }

    pub fn wipe(&mut self, id: BrokerId, time: Time) {
        self.die(id, (time, false), |machine, _| machine.replace_disk());
    }

    pub fn pause(&mut self, id: BrokerId, time: Time) {
        let until = self.schedule.now() + time;
        let machine = self.machines.get_mut(&id).expect("there");
        machine.paused_until = machine.paused_until.max(until);
        self.schedule.at(until, Event::Resume(id));
        self.ensemble.freeze(puppet(id), until);
    }

    /// When the last of those that stand still for long go on.
    pub fn long_pauses_end(&self) -> Time {
        self.machines.values().map(|machine| machine.long_pause).max().unwrap_or(0)
    }

    /// A process goes on, with everything that came meanwhile.
    pub(super) fn resume(&mut self, id: BrokerId) {
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.paused_until > self.schedule.now() {
            return;
        }
        let held = std::mem::take(&mut machine.held);
        for event in held {
            self.happen(event);
        }
    }

    /// The network keeps a process from the ensemble.
    pub fn cut_link(&mut self, id: BrokerId, time: Time) {
        if self.machines[&id].process.is_some() {
            self.ensemble.keep_away(puppet(id), self.schedule.now() + time);
        }
    }

    /// It may stand for controller by now and not know.
    pub(super) fn break_election(&mut self, id: BrokerId) {
        let time = self.offices.below(SECOND);
        if !self.calm && self.arsenal.strikes(Fault::BreakElection) {
            self.cut_link(id, time);
        }
    }

    pub fn isolate(&mut self, id: BrokerId, time: Time) {
        let until = self.schedule.now() + time;
        let others: BTreeSet<_> = self.machines.keys().copied().filter(|&o| o != id).collect();
        let both_ways = self.faults.chance(1, 2);
        for other in others {
            if self.faults.chance(2, 3) {
                let (a, b) = (Address::Broker(id), Address::Broker(other));
                self.isolated.insert((a, b), until);
                if both_ways {
                    self.isolated.insert((b, a), until);
                }
            }
        }
    }

    /// The network keeps a process from the ensemble until its session is over.
    pub fn expire_session(&mut self, id: BrokerId) {
        let long = self.silence();
        self.cut_link(id, long);
    }

    /// Hands over and stops in order.
    pub fn shut_down(&mut self, id: BrokerId, time: Time) {
        let machine = &self.machines[&id];
        let life = machine.life;
        let Some(process) = &machine.process else { return };
        if let (Some(controller), Some(epoch)) = (process.image.controller(), process.epoch) {
            let to = Address::Broker(controller.broker);
            let number = self.faults.number() >> 34;
            self.send(Address::Broker(id), to, Message::ShutDown { number, broker: id, epoch });
        }
        let wait = self.faults.below(600 * MS);
        self.schedule.after(wait, Event::ShutDownEnd { id, life, time });
    }

    pub(super) fn shut_down_end(&mut self, id: BrokerId, life: u64, time: Time) {
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.life != life {
            return;
        }
        let Some(process) = machine.process.take() else { return };
        machine.doom = None;
        let now = machine.clock.at(self.schedule.now());
        let disk = process.close_logs(now);
        self.leave_disk(&disk);
        self.ensemble.dismiss(puppet(id));
        // What was stopped before everything was mended is started then.
        let time = if self.calm { 0 } else { time };
        self.schedule.after(time, Event::Start { id, life });
    }
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            disk: SimulatedDisk::new(),
            process: None,
            life: 0,
            paused_until: 0,
            held: VecDeque::new(),
            strings: Strings::default(),
            suspect: false,
            clock: Clock::default(),
            stalled_until: 0,
            long_pause: 0,
            doom: None,
            starts_failed: 0,
            complaints: 0,
            backup: None,
            wants_old_disk: false,
            had_durable: Vec::new(),
            had_no_power: false,
            torn: None,
            lacking: Vec::new(),
        }
    }

    /// An empty disk takes the place of the one that is there.
    pub(super) fn replace_disk(&mut self) {
        let disk = SimulatedDisk::new();
        disk.boot_after(&self.disk);
        self.disk = disk;
        self.suspect = true;
        self.forget_logs();
        self.complaints = 0;
    }

    /// Its logs are others now.
    pub(super) fn forget_logs(&mut self) {
        self.had_durable.clear();
        self.torn = None;
        self.lacking.clear();
    }
}

impl Event {
    /// The broker that must be awake for it.
    pub(super) fn broker(&self) -> Option<BrokerId> {
        match self {
            Self::Frame { to: Address::Broker(id), .. }
            | Self::Native(NativeEvent::Arrives { id, .. })
            | Self::Reader(ReaderEvent::Arrives { id, .. })
            | Self::Alarm { id, .. }
            | Self::Heard { id, .. }
            | Self::FailedEnd { id, .. }
            | Self::ShutDownEnd { id, .. } => Some(*id),
            Self::Frame { .. }
            | Self::Cut { .. }
            | Self::Resume(_)
            | Self::Start { .. }
            | Self::FreeDisk(_)
            | Self::LookAfterDisks
            | Self::BreakElection(_)
            | Self::Grow
            | Self::CreateTopic
            | Self::Administer
            | Self::ComeOrGo
            | Self::SendFleeting
            | Self::Native(_)
            | Self::Reader(_)
            | Self::Produce(_)
            | Self::Consume(_)
            | Self::Nemesis => None,
        }
    }
}
