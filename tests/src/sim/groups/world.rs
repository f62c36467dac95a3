//! Virtual time, the network between members and brokers, and brokers that take over from each other.
//!
//! Called by: the test. Calls: `log`, `member`, `natives`, `audit`, the shard. Invariant: whatever happens is an event
//! with a time, taken in order of time and then of number; random numbers are drawn in that order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use broker_core::group::{
    Effect, GroupRecord, Now, Request, Response, Settings, Shard, Ticket, WriteId,
};
use broker_core::ids::Millis;
use client_core::group::Settings as MemberSettings;
use client_protocol::messages::offset_fetch::OffsetFetchGroup;
use client_protocol::{ErrorCode, Offset};

use super::audit::Audit;
use super::cast::Cast;
use super::log::Log;
use super::member::{Aim, GROUP, JOIN_TIMEOUT_MS, Member, REQUEST_TIMEOUT_MS};
use super::natives::{self, NativeEvent, Natives};
use crate::sim::decisions::Decisions;
use crate::sim::random::Random;

/// How long things break, and how long they then have to come to rest.
pub(super) const BREAKING_MS: u64 = 120_000;
const RESTING_MS: u64 = 60_000;
/// Longest way of a message through the network.
pub(super) const DELAY_MAX_MS: u64 = 200;

/// What one run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Things that happened.
    pub events: u64,
    /// Simulated time, in microseconds.
    pub simulated: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// How often work was handed out.
    pub handed_out: u64,
    /// How often another broker took over.
    pub failovers: u64,
    /// Writes that the log did not take.
    pub refused: u64,
    /// What native members told their callers.
    pub decisions: Decisions,
    /// A number that two runs share only if they are the same.
    pub digest: u64,
}

/// What happens at a time.
pub(super) enum Event {
    /// A member does what it is about to do.
    Act { member: usize },
    /// A request arrives at a broker.
    Arrive { number: u64, from: usize, epoch: u32, request: Request },
    /// An answer arrives at a member.
    Answer { number: u64, to: usize, response: Response },
    /// A member gives a request up.
    GiveUp { member: usize, number: u64 },
    /// Replicas fetch.
    Replicate,
    /// The log did not take a write: too few replicas were in sync.
    Refused { epoch: u32, write: WriteId },
    /// Time passes for a shard.
    Tick,
    /// Something breaks.
    Break,
    /// Something happens to a native member.
    Native { who: usize, event: NativeEvent },
    /// A native member's request arrives at a broker, by a connection.
    ArriveFromNative { number: u64, who: usize, link: u64, broker: i32, request: Request },
    /// Something is done to a native member.
    BreakNative,
    /// The topic gets more partitions.
    Grow,
}

/// A shard, and what it owes.
pub(super) struct Coordinator {
    shard: Shard,
    owed: BTreeMap<Ticket, (u64, usize, Request)>,
}

/// Times at which too few replicas are in sync, in a third of the runs.
struct Shortage {
    random: Random,
    occurs: bool,
    until_ms: u64,
}

impl Shortage {
    fn new(mut random: Random) -> Self {
        let occurs = random.chance(1, 3);
        Self { random, occurs, until_ms: 0 }
    }

    fn maybe_begin(&mut self, now_ms: u64) {
        if self.occurs && self.random.chance(1, 4) {
            self.until_ms = (now_ms + self.random.below(3_000)).min(BREAKING_MS);
        }
    }

    /// After how long a write is refused, if it is.
    fn refuses(&mut self, now_ms: u64) -> Option<u64> {
        (now_ms < self.until_ms).then(|| 1 + self.random.below(20))
    }
}

pub(super) struct World {
    pub(super) now_ms: u64,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<Event>>,
    random: Random,
    faults: Random,
    shortage: Shortage,
    settings: Settings,
    pub(super) log: Log,
    /// By leader epoch: the newest leads, an older one has not heard that its time is over.
    pub(super) coordinators: BTreeMap<u32, Coordinator>,
    members: Vec<Member>,
    pub(super) natives: Natives,
    pub(super) audit: Audit,
    pub(super) next_number: u64,
    pub(super) next_offset: i64,
    report: Report,
    pub(super) trace: bool,
}

/// Runs `seed` to its end; panics when something does not hold. `trace` prints every event.
pub fn run(seed: u64, trace: bool) -> Report {
    run_with(seed, trace, |_| {})
}

/// As [`run`], with shards whose settings were changed.
pub fn run_with(seed: u64, trace: bool, change: impl FnOnce(&mut Settings)) -> Report {
    run_changed(seed, trace, change, &|_| {})
}

/// As [`run`], with shards, and native members, whose settings were changed.
pub fn run_changed(
    seed: u64,
    trace: bool,
    change: impl FnOnce(&mut Settings),
    change_native: &dyn Fn(&mut MemberSettings),
) -> Report {
    let mut settings = Settings {
        // The group outlives the run: a deleted one would number its generations anew.
        retention_check_ms: u64::MAX / 2,
        ..Settings::default()
    };
    change(&mut settings);
    let cast = Cast::draw(seed);
    let natives = Natives::new(&cast, change_native);
    let mut world = World::new(seed, settings, (cast.own, natives), trace);
    for member in 0..cast.own {
        world.later(1 + member as u64 * 100, Event::Act { member });
    }
    for event in [Event::Replicate, Event::Tick, Event::Break] {
        world.later(1, event);
    }
    world.natives_start(cast.grows_at_ms);
    world.until(BREAKING_MS);
    world.rest();
    world.report.simulated = 1_000 * world.now_ms;
    world.report.commits = world.audit.commits;
    world.report.handed_out = world.audit.handed_out;
    world.report.decisions = world.natives.decisions;
    world.report
}

impl World {
    fn new(seed: u64, settings: Settings, (own, natives): (usize, Natives), trace: bool) -> World {
        let is_mixed = !natives.all.is_empty();
        let mut streams = Random::new(seed);
        let (random, faults) = (Random::new(streams.number()), Random::new(streams.number()));
        let shortage = Shortage::new(Random::new(streams.number()));
        let mut world = World {
            now_ms: 0,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            random,
            faults,
            shortage,
            settings,
            log: Log::default(),
            coordinators: BTreeMap::new(),
            members: (0..own)
                .map(|number| Member::new(number, number % 2 == 1, is_mixed))
                .collect(),
            natives,
            audit: Audit::default(),
            next_number: 0,
            next_offset: 0,
            report: Report::default(),
            trace,
        };
        world.take_over();
        world.members.iter_mut().for_each(|member| member.aim = Aim::Join);
        world
    }

    fn now(&self) -> Now {
        let wall_ms = 1_700_000_000_000 + i64::try_from(self.now_ms).expect("a short run");
        Now { mono: Millis::new(self.now_ms), wall_ms }
    }

    pub(super) fn later(&mut self, ms: u64, event: Event) {
        let at = self.events.len();
        self.events.push(Some(event));
        self.heap.push(Reverse((self.now_ms + ms, at as u64, at)));
    }

    fn until(&mut self, end_ms: u64) {
        while let Some(Reverse((at_ms, _, place))) = self.heap.peek().copied() {
            if at_ms > end_ms {
                break;
            }
            self.heap.pop();
            self.now_ms = at_ms;
            let event = self.events[place].take().expect("happens once");
            self.report.events += 1;
            self.happen(event, end_ms > BREAKING_MS);
        }
        self.now_ms = end_ms;
    }

    fn happen(&mut self, event: Event, resting: bool) {
        match event {
            Event::Act { member } => self.act(member, resting),
            Event::Arrive { number, from, epoch, request } => {
                self.arrive(number, from, epoch, request);
            }
            Event::Answer { number, to, response } => self.answer(number, to, &response),
            Event::GiveUp { member, number } => {
                let member = &mut self.members[member];
                if member.waits_for == Some(number) {
                    member.waits_for = None;
                }
            }
            Event::Replicate => {
                let delay = 1 + self.random.below(60);
                self.later(delay, Event::Replicate);
                self.replicate();
            }
            Event::Refused { epoch, write } => {
                let (now, too_few) = (self.now(), Err(ErrorCode::NotEnoughReplicas));
                self.with_shard(epoch, |shard, out| shard.settled(write, too_few, now, out));
            }
            Event::Tick => {
                self.later(100, Event::Tick);
                for epoch in self.coordinators.keys().copied().collect::<Vec<_>>() {
                    let now = self.now();
                    self.with_shard(epoch, |shard, out| shard.tick(now, out));
                }
            }
            Event::Native { who, event } => self.native_event(who, event, resting),
            Event::ArriveFromNative { number, who, link, broker, request } => {
                self.arrive_from_native((number, who, link), broker, request);
            }
            Event::BreakNative => self.break_native(),
            Event::Grow => self.grow(),
            Event::Break => {
                let delay = 1 + self.faults.below(4_000);
                self.later(delay, Event::Break);
                if !resting {
                    self.shortage.maybe_begin(self.now_ms);
                    self.break_something();
                }
            }
        }
    }

    /// Half of the faults are a member's, half the coordinator's.
    fn break_something(&mut self) {
        let members = self.members.len() as u64;
        let who = usize::try_from(self.faults.below(members)).expect("a small number");
        match self.faults.below(10) {
            0..=2 => self.take_over(),
            3 => self.drop_coordinators(|epoch, newest| epoch != newest),
            _ if members == 0 => {}
            4 => {
                let goodbye = self.members[who].goodbye();
                self.members[who].forget();
                if let Some(request) = goodbye {
                    self.send(who, request, false);
                }
            }
            5 | 6 => self.members[who].forget(),
            _ => {
                let member = &mut self.members[who];
                if member.aim == Aim::Out {
                    member.aim = Aim::Join;
                }
            }
        }
    }

    /// Another broker leads and replays what it has.
    fn take_over(&mut self) {
        let epoch = self.log.fail_over(&mut self.faults);
        // Most leaders hear at once that their time is over, some go on for a while.
        let hears = self.faults.chance(2, 3);
        if hears {
            self.drop_coordinators(|_, _| true);
        }
        let mut shard = Shard::new(self.settings.clone());
        for record in self.log.committed().iter().flat_map(|entry| &entry.records) {
            let record = GroupRecord::decode(&record.key, record.value.as_deref());
            shard.replay(record.expect("a shard wrote it"));
        }
        shard.loaded(self.now());
        shard.check();
        self.report.failovers += 1;
        self.coordinators.insert(epoch, Coordinator { shard, owed: BTreeMap::new() });
        self.natives_hear_of_failover(hears);
        if self.trace {
            println!("{} epoch {epoch} begins", self.now_ms);
        }
    }

    /// Those of which this is true, by their epoch and the newest, know that their time is over.
    fn drop_coordinators(&mut self, is_over: impl Fn(u32, u32) -> bool) {
        let newest = self.log.epoch();
        let (over, others): (BTreeMap<_, _>, _) = std::mem::take(&mut self.coordinators)
            .into_iter()
            .partition(|(epoch, _)| is_over(*epoch, newest));
        self.coordinators = others;
        let owed = over.into_values().flat_map(|coordinator| coordinator.owed.into_values());
        self.natives_are_refused(owed.collect());
    }

    fn act(&mut self, who: usize, resting: bool) {
        let delay = 50 + self.random.below(500);
        self.later(delay, Event::Act { member: who });
        let member = &mut self.members[who];
        if resting && member.aim == Aim::Out && who < 2 {
            member.aim = Aim::Join;
        }
        if member.waits_for.is_some() {
            return;
        }
        if let Some(request) = member.request(&mut self.random, &mut self.next_offset) {
            self.send(who, request, true);
        }
    }

    fn send(&mut self, from: usize, request: Request, waits: bool) {
        let number = self.next_number;
        self.next_number += 1;
        if waits {
            let timeout = match request {
                Request::Join(_) => JOIN_TIMEOUT_MS,
                _ => REQUEST_TIMEOUT_MS,
            };
            self.members[from].waits_for = Some(number);
            self.later(timeout, Event::GiveUp { member: from, number });
        }
        // Some still know the former coordinator.
        let epochs: Vec<u32> = self.coordinators.keys().copied().collect();
        let newest = self.log.epoch();
        let epoch = match self.random.chance(1, 6) {
            true => epochs[usize::try_from(self.random.below(epochs.len() as u64)).expect("small")],
            false => newest,
        };
        if self.faults.chance(1, 50) && self.now_ms < BREAKING_MS {
            return;
        }
        let delay = 1 + self.random.below(DELAY_MAX_MS);
        self.later(delay, Event::Arrive { number, from, epoch, request });
    }

    pub(super) fn arrive(&mut self, number: u64, from: usize, epoch: u32, request: Request) {
        let now = self.now();
        if !self.coordinators.contains_key(&epoch) {
            let response = request.refused(ErrorCode::NotCoordinator);
            return self.later(1, Event::Answer { number, to: from, response });
        }
        if self.trace {
            println!("{} {epoch} <- {from}: {request:?}", self.now_ms);
        }
        let ticket = Ticket(number);
        if let Some(coordinator) = self.coordinators.get_mut(&epoch) {
            coordinator.owed.insert(ticket, (number, from, request.clone()));
        }
        self.with_shard(epoch, |shard, out| shard.handle(ticket, &request, now, out));
        let is_native = from >= natives::FIRST;
        let random = if is_native { &mut self.natives.random } else { &mut self.random };
        if random.chance(1, 20) {
            self.ask_offsets(self.log.epoch());
        }
    }

    /// Steps a shard, looks at it, and does what it wants.
    fn with_shard(&mut self, epoch: u32, step: impl FnOnce(&mut Shard, &mut Vec<Effect>)) {
        let Some(coordinator) = self.coordinators.get_mut(&epoch) else { return };
        let mut effects = Vec::new();
        step(&mut coordinator.shard, &mut effects);
        coordinator.shard.check();
        for effect in effects {
            match effect {
                Effect::Respond { ticket, response } => self.respond(epoch, ticket, response),
                Effect::Write { write, records } => {
                    self.look_at_write(epoch, &records);
                    let is_leader = epoch == self.log.epoch();
                    let refused = self.shortage.refuses(self.now_ms).filter(|_| is_leader);
                    if let Some(delay) = refused {
                        self.report.refused += 1;
                        self.later(delay, Event::Refused { epoch, write });
                        continue;
                    }
                    if !self.log.append(epoch, write, records) {
                        // Whoever may not write hears by that that its time is over.
                        return self.drop_coordinators(|of, _| of == epoch);
                    }
                }
            }
        }
    }

    /// A commit is written: may its sender still commit?
    fn look_at_write(&self, epoch: u32, records: &[broker_core::group::LogRecord]) {
        let Some(coordinator) = self.coordinators.get(&epoch) else { return };
        if epoch != self.log.epoch() {
            return;
        }
        for record in records {
            let Ok(GroupRecord::Offset { value: Some(value), .. }) =
                GroupRecord::decode(&record.key, record.value.as_deref())
            else {
                continue;
            };
            let commits = coordinator.owed.values().filter_map(|(_, _, request)| match request {
                Request::OffsetCommit(commit) => Some(commit),
                _ => None,
            });
            let it = commits.into_iter().find(|commit| {
                let mut partitions = commit.topics.iter().flat_map(|topic| &topic.partitions);
                partitions.any(|one| one.committed_offset == Offset::new(value.offset))
            });
            if let Some(commit) = it {
                self.audit.taken(commit);
            }
        }
    }

    fn respond(&mut self, epoch: u32, ticket: Ticket, response: Response) {
        let owed = self.coordinators.get_mut(&epoch).and_then(|c| c.owed.remove(&ticket));
        let Some((number, to, request)) = owed else { panic!("{ticket:?} is answered twice") };
        if self.trace {
            println!("{} {epoch} -> {to}: {response:?}", self.now_ms);
        }
        match (&request, &response) {
            // A leader of the past may repeat what it handed out while it was one.
            (Request::Sync(request), Response::Sync(synced))
                if synced.error_code.is_none() && epoch == self.log.epoch() =>
            {
                self.audit.handed_out(request, &synced.assignment);
            }
            (Request::OffsetCommit(request), Response::OffsetCommit(response)) => {
                let asked = request.topics.iter().flat_map(|topic| &topic.partitions);
                let said = response.topics.iter().flat_map(|topic| &topic.partitions);
                for (asked, _) in asked.zip(said).filter(|(_, said)| said.error_code.is_none()) {
                    let offset = asked.committed_offset.get();
                    self.audit.acknowledged(&self.log, asked.partition_index.get(), offset);
                }
            }
            _ => {}
        }
        self.report.digest = (self.report.digest ^ self.now_ms ^ number).rotate_left(7);
        if let Some(who) = to.checked_sub(natives::FIRST) {
            let by_leader = epoch == self.log.epoch();
            return self.answer_native(number, who, (response, by_leader));
        }
        let lost = self.faults.chance(1, 50) && self.now_ms < BREAKING_MS;
        if !lost {
            let delay = 1 + self.random.below(DELAY_MAX_MS);
            self.later(delay, Event::Answer { number, to, response });
        }
    }

    fn answer(&mut self, number: u64, to: usize, response: &Response) {
        let member = &mut self.members[to];
        if member.waits_for == Some(number) {
            member.waits_for = None;
            member.hear(response);
        }
    }

    fn replicate(&mut self) {
        let epoch = self.log.epoch();
        let committed = self.log.replicate(&mut self.random);
        let writes: Vec<_> =
            committed.iter().filter(|e| e.epoch == epoch).map(|e| e.write).collect();
        let now = self.now();
        for write in writes {
            self.with_shard(epoch, |shard, out| shard.settled(write, Ok(()), now, out));
        }
    }

    /// What the leader tells of all offsets, now.
    fn ask_offsets(&mut self, epoch: u32) {
        let now = self.now();
        let fetch = OffsetFetchGroup { group_id: GROUP.to_owned(), ..Default::default() };
        let ticket = Ticket(u64::MAX);
        let mut effects = Vec::new();
        let Some(coordinator) = self.coordinators.get_mut(&epoch) else { return };
        coordinator.shard.handle(ticket, &Request::OffsetFetch(fetch), now, &mut effects);
        let Some(Effect::Respond { response: Response::OffsetFetch(told), .. }) = effects.pop()
        else {
            panic!("offsets are told at once");
        };
        let told: BTreeMap<i32, i64> = told
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter_map(|one| Some((one.partition_index.get(), one.committed_offset?.get())))
            .collect();
        for partition in 0..super::member::PARTITIONS {
            self.audit.told(&self.log, partition, told.get(&partition).copied());
        }
    }

    /// Nothing breaks any more: the group comes to rest.
    fn rest(&mut self) {
        self.drop_coordinators(|epoch, newest| epoch != newest);
        self.natives_rest();
        self.until(BREAKING_MS + RESTING_MS);
        while self.log.is_behind() {
            self.replicate();
        }
        self.ask_offsets(self.log.epoch());
        self.audit.at_rest(&self.members, &self.natives.all);
        self.natives_at_rest();
    }
}
