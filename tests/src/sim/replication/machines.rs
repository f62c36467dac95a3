//! Machines and their processes: starting, dying, pausing, losing power or disks.
//!
//! Called by: `world`, `nemesis`. Calls: `process`, the disks. Invariant: a process dies whole; what its disk keeps is what that kind of death leaves.

use std::collections::BTreeSet;
use std::rc::Rc;

use broker_core::ids::BrokerId;

use super::message::{Address, Message, Outbox};
use super::process::Process;
use super::world::{Event, FAST_DEATH, Machine, World};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

impl World {
    pub(super) fn start(&mut self, id: BrokerId, life: u64) {
        let seed = self.seeds.number() >> 16;
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.life != life || machine.process.is_some() {
            return;
        }
        machine.life += 1;
        machine.connection += 1;
        machine.link_is_up = true;
        machine.cursor = None;
        machine.paused_until = 0;
        let life = machine.life;
        let mut out = Outbox::default();
        let process = Process::start(id, Rc::clone(&self.settings), &machine.disk, seed, &mut out);
        machine.process = Some(process);
        self.sent(id, life, out);
    }

    /// The process is gone; `disk` says what became of its disk. It starts again after `time`.
    pub(super) fn die(
        &mut self,
        id: BrokerId,
        time: Time,
        disk: impl FnOnce(&mut Machine, &mut Random),
    ) {
        let machine = self.machines.get_mut(&id).expect("there");
        let Some(process) = machine.process.take() else { return };
        let session = process.session.id;
        drop(process);
        disk(machine, &mut self.faults);
        machine.connection += 1;
        machine.cursor = None;
        let life = machine.life;
        self.trace.note(self.schedule.now(), "die", &[id.get().unsigned_abs().into(), life], &[]);
        if let Some(session) = session {
            let grace = FAST_DEATH + self.network.below(50 * MS);
            self.schedule.after(grace, Event::FastDeath(session));
        }
        self.schedule.after(time, Event::Start { id, life });
    }

    pub fn kill(&mut self, id: BrokerId, time: Time) {
        self.die(id, time, |machine, _| machine.disk.kill());
    }

    pub fn cut_power(&mut self, id: BrokerId, time: Time) {
        self.die(id, time, |machine, faults| machine.disk.crash(faults.number()));
    }

    pub fn wipe(&mut self, id: BrokerId, time: Time) {
        self.wiped_any = true;
        self.die(id, time, |machine, _| {
            machine.disk = SimulatedDisk::new();
            machine.wiped = true;
        });
    }

    pub fn pause(&mut self, id: BrokerId, time: Time) {
        let until = self.schedule.now() + time;
        let machine = self.machines.get_mut(&id).expect("there");
        machine.paused_until = machine.paused_until.max(until);
    }

    pub fn cut_link(&mut self, id: BrokerId, time: Time) {
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.process.is_none() || !machine.link_is_up {
            return;
        }
        machine.link_is_up = false;
        machine.connection += 1;
        machine.cursor = None;
        let (life, connection) = (machine.life, machine.connection);
        self.schedule.after(time, Event::LinkUp { id, life, connection });
    }

    pub(super) fn link_up(&mut self, id: BrokerId, life: u64, connection: u64) {
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.life != life || machine.connection != connection || machine.link_is_up {
            return;
        }
        machine.link_is_up = true;
        self.step(id, life, |process, _, out| process.reconnect(out));
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

    pub fn expire_session(&mut self, id: BrokerId) {
        let session = self.machines[&id].process.as_ref().and_then(|process| process.session.id);
        if let Some(session) = session {
            self.coordinator.expire(session);
            self.announce();
        }
    }

    /// Hands over and stops in order.
    pub fn shut_down(&mut self, id: BrokerId, time: Time) {
        let machine = &self.machines[&id];
        let life = machine.life;
        let Some(process) = &machine.process else { return };
        if let (Some(controller), Some(epoch)) = (process.image.controller(), process.epoch) {
            let to = Address::Broker(controller.broker);
            self.send(Address::Broker(id), to, Message::ShutDown { epoch });
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
        let session = process.session.id;
        let disk = process.close_logs(self.schedule.now());
        disk.kill();
        machine.connection += 1;
        machine.cursor = None;
        if let Some(session) = session {
            self.coordinator.expire(session);
            self.announce();
        }
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
            connection: 0,
            link_is_up: true,
            cursor: None,
            last_asked: 0,
            last_replied: 0,
            wiped: false,
        }
    }
}

impl Event {
    /// The broker that must be awake for it.
    pub(super) fn broker(&self) -> Option<BrokerId> {
        match self {
            Self::Message { to: Address::Broker(id), .. }
            | Self::Alarm { id, .. }
            | Self::Replied { id, .. }
            | Self::Feed { id, .. }
            | Self::LinkUp { id, .. }
            | Self::ShutDownEnd { id, .. } => Some(*id),
            Self::Message { .. }
            | Self::Asked { .. }
            | Self::FastDeath(_)
            | Self::Bookmarks
            | Self::Start { .. }
            | Self::CreateTopic
            | Self::Produce(_)
            | Self::Consume(_)
            | Self::Nemesis => None,
        }
    }
}
