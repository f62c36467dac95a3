//! Everything on one clock: brokers on their machines, the network, the coordinator, clients.
//!
//! Called by: `run`. Calls: everything here. Invariant: one event at a time, in the order of (time, number); after each the touched process is
//! checked and the ledger with it. A paused process gets everything later, in order; a dead one nothing.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use broker_core::ids::{BrokerId, Offset, PartitionId, TopicId, TopicPartition};
use broker_core::partition::Durability;

use super::chronicle::Chronicle;
use super::client::{Consumer, Producer};
use super::coordination::{Strings, puppet};
use super::ledger::Ledger;
use super::message::{Address, Alarm, Outbox};
use super::native::{Native, NativeEvent};
use super::process::Process;
use super::reader::{Reader, ReaderEvent};
use super::rot::Torn;
use super::settings::Settings;
use super::wire::Frame;
use crate::sim::decisions::Decisions;
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, SECOND, Schedule, Time};
use crate::sim::ensemble::trace::Trace;
use crate::sim::ensemble::{self, Heard};
use crate::sim::fault::{Faults, Struck};
use crate::sim::random::Random;

pub const TOPIC: &str = "simulated";
pub(super) const FAST_DEATH: Time = 200 * MS;

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    Frame {
        from: Address,
        to: Address,
        frame: Frame,
    },
    /// A connection broke within what it carried.
    Cut {
        to: Address,
    },
    Alarm {
        id: BrokerId,
        life: u64,
        alarm: Alarm,
    },
    Heard {
        id: BrokerId,
        life: u64,
        heard: Heard,
    },
    Resume(BrokerId),
    Start {
        id: BrokerId,
        life: u64,
    },
    ShutDownEnd {
        id: BrokerId,
        life: u64,
        time: Time,
    },
    FailedEnd {
        id: BrokerId,
        life: u64,
    },
    FreeDisk(BrokerId),
    LookAfterDisks,
    BreakElection(BrokerId),
    Grow,
    CreateTopic,
    Administer,
    ComeOrGo,
    SendFleeting,
    Native(NativeEvent),
    Reader(ReaderEvent),
    Produce(usize),
    Consume(usize),
    Nemesis,
}

/// Where a process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// Between two operations on its disk.
    Disk,
    /// When only some of its messages have been sent.
    Messages,
}

/// What a machine takes for the time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) ahead: Time,
    /// Of a million microseconds it makes so many more.
    pub(super) drift: u64,
}

impl Clock {
    pub(super) fn at(self, time: Time) -> Time {
        self.ahead
            + time
            + time / 1_000_000 * self.drift
            + time % 1_000_000 * self.drift / 1_000_000
    }
}

/// A broker's machine.
pub struct Machine {
    pub disk: SimulatedDisk,
    pub process: Option<Process>,
    pub life: u64,
    pub(super) paused_until: Time,
    /// What came while it stood still, in order.
    pub(super) held: VecDeque<Event>,
    pub(super) strings: Strings,
    /// Its disk lost or changed what was durable: only one machine's ever does in a run, so that what was committed is still somewhere.
    pub suspect: bool,
    pub(super) clock: Clock,
    /// Its disk stands still for so long.
    pub(super) stalled_until: Time,
    /// It stands still for so long, whatever else is mended.
    pub(super) long_pause: Time,
    /// Its process is to end within what it does.
    pub(super) doom: Option<Doom>,
    /// How often it did not start since its process ended.
    pub(super) starts_failed: u64,
    /// How often readers found damage in what it sent.
    pub(super) complaints: u64,
    /// Its disk as it was in a former life.
    pub(super) backup: Option<(u64, SimulatedDisk)>,
    /// That one is to take the place of the present one.
    pub(super) wants_old_disk: bool,
    /// What its logs had durable when one of them went bad, until its next start has looked at them.
    pub(super) had_durable: Vec<(TopicPartition, Offset)>,
    /// Whether the power went with it.
    pub(super) had_no_power: bool,
    /// The log that went bad with the power, until its next start has looked at it.
    pub(super) torn: Option<Torn>,
    /// Logs that lost what was durable and could not tell, with where that ended, until they lead or have it again.
    pub(super) lacking: Vec<(TopicPartition, Offset)>,
}

/// See the module.
pub struct World {
    pub settings: Rc<Settings>,
    pub schedule: Schedule<Event>,
    pub trace: Trace,
    pub machines: BTreeMap<BrokerId, Machine>,
    pub ensemble: ensemble::World,
    /// The znodes that brokers expect are there.
    pub(super) founded: bool,
    /// How far members were compared with what is committed.
    pub(super) agreed_to: coordinator_protocol::Zxid,
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub native: Option<Native>,
    pub reader: Option<Reader>,
    pub ledger: Ledger,
    pub(super) chronicle: Chronicle,
    pub(super) arsenal: Faults,
    decided: Decisions,
    pub(super) network: Random,
    pub(super) clients: Random,
    pub(super) faults: Random,
    pub(super) seeds: Random,
    pub(super) topics: Random,
    pub(super) offices: Random,
    pub(super) isolated: BTreeMap<(Address, Address), Time>,
    /// The one whose disk loses what was durable, when one does.
    pub(super) lossy: BrokerId,
    pub(super) calm: bool,
    /// Partitions that the topic got and nobody uses.
    pub(super) grown: i32,
}

impl World {
    pub fn new(seed: u64, settings: Settings, print: bool) -> Self {
        let settings = Rc::new(settings);
        let mut world = Self {
            schedule: Schedule::new(),
            trace: Trace::new(print),
            machines: BTreeMap::new(),
            ensemble: ensemble::World::new(seed, settings.ensemble(), print),
            founded: false,
            agreed_to: coordinator_protocol::Zxid::ZERO,
            producers: Vec::new(),
            consumers: Vec::new(),
            native: settings.native.as_ref().map(|native| {
                Native::new(native, settings.compaction.is_some(), seed ^ 0x6e61_7469)
            }),
            reader: settings
                .reader
                .as_ref()
                .map(|reader| Reader::new(reader, settings.partitions, seed ^ 0x7265_6164)),
            ledger: match &settings.compaction {
                Some(compaction) => Ledger::compacted(compaction.delete_retention_ms),
                None => Ledger::default(),
            },
            chronicle: Chronicle::default(),
            network: Random::new(seed ^ 0x6e65_7477),
            clients: Random::new(seed ^ 0x636c_6965),
            faults: Random::new(seed ^ 0x6661_756c),
            seeds: Random::new(seed ^ 0x7365_6564),
            topics: Random::new(seed ^ 0x746f_7069),
            offices: Random::new(seed ^ 0x6f66_6669),
            arsenal: Faults::without(&settings.without),
            decided: Decisions::default(),
            isolated: BTreeMap::new(),
            lossy: BrokerId::new(1 + i32::try_from(seed % 3).expect("small")),
            calm: false,
            grown: 0,
            settings,
        };
        let mut clocks = Random::new(seed ^ 0x636c_6f63);
        for id in 1..=world.settings.brokers {
            let id = BrokerId::new(id);
            let mut machine = Machine::new();
            if world.settings.clocks {
                machine.clock.ahead = clocks.below(3_600 * SECOND);
                machine.clock.drift = clocks.below(20_000);
            }
            world.machines.insert(id, machine);
        }
        world.ensemble.awaken(world.machines.len());
        world.make_clients();
        world.schedule.after(SECOND, Event::CreateTopic);
        world.schedule.after(2 * SECOND, Event::Native(NativeEvent::Tick));
        world.begin_reading();
        world.schedule.after(2 * SECOND, Event::Administer);
        world.schedule.after(2 * SECOND, Event::ComeOrGo);
        world.schedule.after(2 * SECOND, Event::SendFleeting);
        world
    }

    pub(super) fn make_clients(&mut self) {
        let keys: Vec<_> = (0..self.settings.partitions).map(key).collect();
        let is_keyed = self.settings.compaction.is_some();
        for index in 0..self.settings.producers {
            let key = keys[index % keys.len()];
            let (acks, idempotent) =
                [(-1, true), (-1, true), (-1, false), (1, false), (0, false)][index.min(4)];
            self.producers.push(Producer::new(index, key, (acks, idempotent, is_keyed)));
            self.schedule.after(2 * SECOND, Event::Produce(index));
        }
        for (index, &key) in keys.iter().enumerate() {
            self.consumers.push(Consumer { key, position: Offset::ZERO, number: 0 });
            self.chronicle.assigned(index);
            self.schedule.after(2 * SECOND, Event::Consume(index));
        }
    }

    /// Lets things go wrong.
    pub fn unleash(&mut self) {
        self.schedule.after(3 * SECOND, Event::Nemesis);
        self.ensemble.unleash();
    }

    pub fn run_until(&mut self, end: Time) {
        loop {
            let (mine, theirs) = (self.schedule.next_time(), self.ensemble.next_time());
            let first = |time: Option<Time>| time.filter(|time| *time <= end);
            match (first(mine), first(theirs)) {
                (mine, Some(theirs)) if mine.is_none_or(|mine| theirs <= mine) => {
                    self.ensemble.step_to(theirs);
                    self.schedule.advance(theirs);
                    self.listen();
                }
                (Some(mine), _) => {
                    self.ensemble.advance(mine);
                    if let Some(event) = self.schedule.next_until(mine) {
                        self.happen(event);
                    }
                    self.listen();
                }
                (None, _) => break,
            }
        }
        self.ensemble.advance(end);
        self.schedule.advance(end);
    }

    /// Mends everything; nothing breaks any more and no new values are made.
    pub fn heal(&mut self) {
        self.calm = true;
        self.isolated.clear();
        let now = self.schedule.now();
        let ids: Vec<_> = self.machines.keys().copied().collect();
        for id in ids {
            let machine = self.machines.get_mut(&id).expect("there");
            machine.paused_until = machine.paused_until.min(now);
            machine.disk.mend();
            machine.doom = None;
            if !machine.disk.live_on() {
                self.kill(id, 0);
            }
            self.ensemble.thaw(puppet(id));
            self.resume(id);
            let machine = self.machines.get_mut(&id).expect("there");
            if machine.process.is_none() && self.founded {
                let life = machine.life;
                self.schedule.after(0, Event::Start { id, life });
            }
        }
        self.look_after_disks();
        self.ensemble.heal();
    }

    /// When the last disk that stands still goes on.
    pub fn last_stall(&self) -> Time {
        self.machines.values().map(|machine| machine.stalled_until).max().unwrap_or_default()
    }

    pub(super) fn happen(&mut self, event: Event) {
        if let Some(id) = event.broker() {
            let machine = &self.machines[&id];
            let stands_still =
                machine.paused_until > self.schedule.now() || !machine.held.is_empty();
            if stands_still && machine.process.is_some() {
                self.machines.get_mut(&id).expect("there").held.push_back(event);
                return;
            }
        }
        let now = self.schedule.now();
        self.trace.say(now, || format!("{event:?}"));
        match event {
            Event::Frame { from, to, frame } => self.deliver(from, to, &frame),
            Event::Cut { to } => self.is_cut(to),
            Event::Alarm { id, life, alarm } => {
                self.step(id, life, |process, now, out| process.alarm(alarm, now, out));
            }
            Event::Heard { id, life, heard } => self.heard(id, life, heard),
            Event::Resume(id) => self.resume(id),
            Event::Start { id, life } => self.start(id, life),
            Event::ShutDownEnd { id, life, time } => self.shut_down_end(id, life, time),
            Event::FailedEnd { id, life } => self.failed_end(id, life),
            Event::FreeDisk(id) => self.machines[&id].disk.mend(),
            Event::LookAfterDisks => self.look_after_disks(),
            Event::BreakElection(id) => self.break_election(id),
            Event::Grow => self.grow(),
            Event::CreateTopic => self.create_topic(),
            Event::Administer => self.move_leaders(),
            Event::ComeOrGo => self.come_or_go(),
            Event::SendFleeting => self.send_fleeting(),
            Event::Native(event) => self.native_event(event),
            Event::Reader(event) => self.reader_event(event),
            Event::Produce(index) => self.produce(index),
            Event::Consume(index) => self.consume(index),
            Event::Nemesis => {
                if !self.calm {
                    self.strike();
                }
            }
        }
    }

    /// Faults by kind, the ensemble's among them.
    pub fn struck(&self) -> Struck {
        let disks = self.machines.values().map(|machine| machine.disk.refusals());
        let mut struck = self.arsenal.struck(disks);
        for (fault, count) in self.ensemble.struck() {
            *struck.entry(fault).or_default() += count;
        }
        struck
    }

    /// What the deciding code did, the ensemble's too.
    pub fn decisions(&self) -> Decisions {
        let mut decisions = self.decided.clone();
        decisions.add(self.ensemble.decisions());
        decisions
    }

    /// Lets a process do one thing, sends what it wants sent, and checks.
    pub(super) fn step(
        &mut self,
        id: BrokerId,
        life: u64,
        act: impl FnOnce(&mut Process, Time, &mut Outbox),
    ) {
        let now = self.schedule.now();
        let machine = self.machines.get_mut(&id).expect("there");
        if machine.life != life {
            return;
        }
        let Some(process) = &mut machine.process else { return };
        let mut out = Outbox::default();
        act(process, machine.clock.at(now), &mut out);
        let (doom, is_dying) = (machine.doom, machine.disk.is_dying());
        if !is_dying {
            process.check();
        }
        match doom {
            // Nothing of this step but what is on the disk has happened.
            Some(Doom::Disk) if is_dying => self.end_within(id),
            Some(Doom::Messages) if !(out.messages.is_empty() && out.requests.is_empty()) => {
                let count = (out.messages.len() + out.requests.len()) as u64;
                let left = usize::try_from(self.faults.below(count)).expect("few");
                out.requests.truncate(left.saturating_sub(out.messages.len()));
                out.messages.truncate(left);
                self.sent(id, life, out);
                self.end_within(id);
            }
            Some(_) | None => self.sent(id, life, out),
        }
    }

    pub(super) fn sent(&mut self, id: BrokerId, life: u64, out: Outbox) {
        self.see_who_lacks(id);
        out.producer_ids.iter().for_each(|&id| self.ledger.gave_id(id));
        let machine = &self.machines[&id];
        let process = machine.process.as_ref().expect("stepped");
        for &(key, elected) in &out.unclean {
            self.check_best(key, elected);
            self.ledger.elected_uncleanly(key);
        }
        for &(key, high_watermark, end) in &out.committed_cuts {
            let is_repair = machine.suspect && process.is_unsound(key);
            // Nothing of its log could be held against the leader's, which begins later: it has all from there anew. It is
            // not in sync, so that nobody counts on it.
            let ends = process.replicas.get(&key).map(|replica| replica.positions());
            let begins_anew = ends.is_some_and(|ends| ends.start == end && ends.end == end);
            let state = self.state(key.partition).map(|stored| stored.state);
            let is_counted_on = state.is_none_or(|state| state.isr.contains(&id));
            assert!(
                is_repair || self.ledger.is_unclean(key) || (begins_anew && !is_counted_on),
                "{id}: {key:?}: cut to {end}, below the high watermark {high_watermark}"
            );
            self.ledger.repaired((id, life), key, end);
        }
        self.reached(id, &out);
        let machine = &self.machines[&id];
        let process = machine.process.as_ref().expect("stepped");
        for &(key, start) in &out.trimmed {
            let may = self.settings.retention_bytes.is_some();
            assert!(
                may || start == Offset::ZERO
                    || self.machines[&id].suspect
                    || self.ledger.is_unclean(key),
                "{id}: {key:?}: records below {start} were removed"
            );
            self.ledger.trimmed(key, start);
        }
        self.ledger.check(process, life);
        let numbers = [
            id.get().unsigned_abs().into(),
            life,
            out.messages.len() as u64,
            out.requests.len() as u64,
            out.alarms.len() as u64,
            out.watermarks.iter().map(|w| w.2.get().unsigned_abs()).sum(),
        ];
        self.trace.note(self.schedule.now(), "step", &numbers, &[]);
        for (after, alarm) in out.alarms {
            self.schedule.after(after, Event::Alarm { id, life, alarm });
        }
        if out.failed {
            let after = self.faults.below(300 * MS);
            self.schedule.after(after, Event::FailedEnd { id, life });
        }
        out.decided.iter().for_each(|name| self.decided.note(name));
        for (leader, why) in out.complaints {
            self.complain(leader, &why);
        }
        self.complain_unread(&out.unread);
        if out.serves {
            self.check_contact(id);
        }
        for (to, message) in out.messages {
            self.send(Address::Broker(id), to, message);
        }
        for (number, request) in out.requests {
            self.ask_ensemble(id, number, request);
        }
    }

    /// High watermarks moved: what is committed now.
    fn reached(&mut self, id: BrokerId, out: &Outbox) {
        for &(key, from, to, leads) in &out.watermarks {
            let is_cut = to < from && out.committed_cuts.contains(&(key, from, to));
            if is_cut || self.ledger.is_unclean(key) {
                continue;
            }
            self.committed(id, key, (from, to));
            let process = self.machines[&id].process.as_ref().expect("stepped");
            if let Some(core) = process.replicas.get(&key).filter(|_| leads) {
                let (isr, least) = (core.isr(), self.settings.min_insync_replicas());
                assert!(isr.len() >= least, "{id}: {key:?}: committed to {to} by {isr:?} alone");
            }
            let is_judged = key.topic == topic_id();
            if leads && is_judged && self.settings.durability == Durability::Disk {
                self.check_durable(key, to);
            }
        }
    }

    /// What is that: as its own disk has it, or, where that is damaged, as somebody has it who is in sync.
    fn committed(&mut self, id: BrokerId, key: TopicPartition, range: (Offset, Offset)) {
        let now = self.schedule.now();
        let machine = &self.machines[&id];
        let process = machine.process.as_ref().expect("stepped");
        if self.ledger.committed(process, key, range, (machine.suspect, now)) {
            return;
        }
        match self.sound_member(key, range.1) {
            Some(member) => {
                let process = self.machines[&member].process.as_ref().expect("a member runs");
                self.ledger.committed_elsewhere(process, key, range, now);
            }
            None => self.ledger.committed_unread(key, range.1),
        }
    }

    /// D2: whoever is in sync has everything committed on disk, from the moment at which that is written.
    pub(super) fn check_members(&self) {
        if self.settings.durability == Durability::Disk {
            for key in (0..self.settings.partitions).map(key) {
                self.check_durable(key, self.ledger.committed_end(key));
            }
        }
    }

    /// D6: of a topic in memory an unclean leader holds all that was committed, if any in-sync replica does.
    fn check_best(&self, key: TopicPartition, (leader, reported): (BrokerId, Offset)) {
        let is_judged = key.topic == topic_id() && !self.ledger.is_unclean(key);
        let may_lose = self.settings.unclean || !is_judged;
        let Some(stored) = self.state(key.partition).filter(|_| !may_lose) else { return };
        let Some((committed_end, epoch)) = self.ledger.last_committed(key) else { return };
        let log = |id: &BrokerId| {
            let process = self.machines[id].process.as_ref()?;
            let log = process.replicas.get(&key)?.positions();
            Some((log.epochs.last().map_or(-1, |epoch| epoch.get()), log.end))
        };
        let end = log(&leader).map_or(reported, |(_, end)| end.max(reported));
        for id in stored.state.isr {
            let has_all = log(&id).is_some_and(|(e, end)| e >= epoch && end >= committed_end);
            assert!(
                end >= committed_end || !has_all,
                "{key:?}: committed to {committed_end}, {leader} with {end} is elected and not {id}"
            );
        }
    }

    /// Who runs on a sound disk and is in sync, and so has on it what is committed up to there.
    fn sound_member(&self, key: TopicPartition, to: Offset) -> Option<BrokerId> {
        let is_judged = key.topic == topic_id() && self.settings.durability == Durability::Disk;
        let stored = self.state(key.partition).filter(|_| is_judged)?;
        let has_it = |id: &BrokerId| {
            let machine = &self.machines[id];
            let process = machine.process.as_ref().filter(|_| !machine.suspect);
            process.is_some_and(|process| {
                process.replicas.get(&key).is_some() && process.durable_end(key) >= to
            })
        };
        stored.state.isr.into_iter().find(has_it)
    }

    /// D1: what is committed is durable, by the log's own word, on every in-sync replica that runs; one whose disk lost something is found out
    /// by the controller.
    pub(super) fn check_durable(&self, key: TopicPartition, high_watermark: Offset) {
        let Some(stored) = self.state(key.partition) else { return };
        for id in stored.state.isr {
            let machine = &self.machines[&id];
            let core = machine.process.as_ref().and_then(|process| process.replicas.get(&key));
            if core.is_some() && !self.ledger.is_unclean(key) && !machine.suspect {
                let process = machine.process.as_ref().expect("has a core");
                let durable_end = process.durable_end(key);
                assert!(
                    durable_end >= high_watermark,
                    "{key:?}: committed to {high_watermark}, in-sync {id} has {durable_end}"
                );
            }
        }
    }
}

/// The topic that is judged.
pub(super) fn topic_id() -> TopicId {
    TopicId::from_bytes([7; 16])
}

/// Its partition of this number.
pub fn key(partition: i32) -> TopicPartition {
    TopicPartition { topic: topic_id(), partition: PartitionId::new(partition) }
}
