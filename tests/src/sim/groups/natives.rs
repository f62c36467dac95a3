//! The native members in the world: their events, their network, what is done to them.
//!
//! Called by: `world`. Calls: `native`, `audit`. Invariant: a connection gives what was asked on it in order, and answers in that order,
//! until it breaks; what was under way then may still arrive and is not answered. Draws from a stream of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_core::group::{Request, Response};
use client_core::group::{Answer, Ask, Coordinator, Effect, Failure, Notice};
use client_core::{Leader, Route, TopicPartition};
use client_protocol::messages::{FindCoordinatorResponse, find_coordinator};
use client_protocol::{BrokerId, ErrorCode};

use super::cast::Cast;
use super::member::{PARTITIONS, REQUEST_TIMEOUT_MS};
use super::native::{Key, Link, Native, REBALANCE_TIMEOUT_MS, Sent, answer, request};
use super::world::{BREAKING_MS, DELAY_MAX_MS, Event, World};
use crate::sim::decisions::Decisions;
use crate::sim::random::Random;

/// Requests from here on are the native members'.
pub const FIRST: usize = 100;
/// Brokers that take over from each other.
const BROKERS: u32 = 3;
/// A rebalance may take so much longer than its time-out.
const GRACE_MS: u64 = 5_000;
/// A core that wants more at once, without time or news, would never come to an end.
const TURNS_MAX: u32 = 100;
/// The longest that a commit may take beyond its own time-out once nothing breaks.
const COMMIT_GRACE_MS: u64 = 1_000;

/// Something that happens to one of them.
pub enum NativeEvent {
    /// It looks at its clock.
    Wake,
    /// Its caller looks.
    Look,
    /// A broker is asked who coordinates the group.
    Find { number: u64 },
    /// An answer arrives.
    Answered { number: u64, response: Response },
    /// A request has waited for too long, or there was nobody to be asked.
    Unanswered { number: u64 },
    /// A connection ends.
    LinkEnds { id: u64 },
    /// A notification arrives.
    Told(Route),
    /// It hears how many partitions the topic has.
    Topic,
}

/// All of them, and what only concerns them.
pub struct Natives {
    pub all: Vec<Native>,
    pub random: Random,
    /// What they were told, and how often.
    pub decisions: Decisions,
    /// Brokers whose process is gone, and until when.
    down: BTreeMap<i32, u64>,
    /// Connections that broke with all that was under way.
    lost: BTreeSet<u64>,
    last_link: u64,
    /// How many partitions the topic has.
    partitions: i32,
}

fn broker_of(epoch: u32) -> i32 {
    i32::try_from(epoch % BROKERS).expect("small")
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), may_be_done: true, is_final: false }
}

impl Natives {
    pub fn new(cast: &Cast, change: &dyn Fn(&mut client_core::group::Settings)) -> Natives {
        let all = cast.native.iter().enumerate();
        let all = all.map(|(number, part)| Native::new(number, part.clone(), change));
        Natives {
            all: all.collect(),
            random: Random::new(cast.seed),
            decisions: Decisions::default(),
            down: BTreeMap::new(),
            lost: BTreeSet::new(),
            last_link: 0,
            partitions: cast.partitions,
        }
    }

    /// Mostly quick.
    fn delay(&mut self) -> u64 {
        let most = if self.random.chance(1, 8) { DELAY_MAX_MS } else { 20 };
        1 + self.random.below(most)
    }

    fn pick(&mut self) -> usize {
        usize::try_from(self.random.below(self.all.len() as u64)).expect("small")
    }
}

impl World {
    /// They start, and things begin to be done to them.
    pub(super) fn natives_start(&mut self, grows_at_ms: u64) {
        for who in 0..self.natives.all.len() {
            self.later(1 + who as u64 * 100, Event::Native { who, event: NativeEvent::Look });
        }
        if !self.natives.all.is_empty() {
            self.later(1_000, Event::BreakNative);
            self.later(grows_at_ms, Event::Grow);
        }
    }

    pub(super) fn native_event(&mut self, who: usize, event: NativeEvent, resting: bool) {
        let paused_until_ms = self.natives.all[who].paused_until_ms;
        if paused_until_ms > self.now_ms {
            let wait_ms = paused_until_ms - self.now_ms;
            return self.later(wait_ms, Event::Native { who, event });
        }
        let (now_ms, native) = (self.now_ms, &mut self.natives.all[who]);
        let mut effects = Vec::new();
        let mut by_leader = false;
        match event {
            NativeEvent::Wake => {
                if native.wakes_at_ms <= now_ms {
                    native.wakes_at_ms = u64::MAX;
                }
            }
            NativeEvent::Look => self.native_looks(who, resting, &mut effects),
            NativeEvent::Find { number } => self.native_finds(who, number, &mut effects),
            NativeEvent::Answered { number, response } => {
                if let Some(sent) = native.sent.remove(&number) {
                    by_leader = sent.by_leader;
                    native.core.answered(sent.ask, Ok(answer(response)), now_ms, &mut effects);
                }
            }
            NativeEvent::Unanswered { number } => {
                let key = native.sent.get(&number).map(|sent| sent.key);
                match key {
                    Some(Some(key)) => self.break_link(who, key, &mut effects),
                    Some(None) => self.native_fails(who, number, &mut effects),
                    None => {}
                }
            }
            NativeEvent::LinkEnds { id } => {
                let key = native.links.iter().find(|(_, link)| link.id == id).map(|(key, _)| *key);
                if let Some(key) = key {
                    self.break_link(who, key, &mut effects);
                }
            }
            NativeEvent::Told(route) => native.core.route(&route, now_ms),
            NativeEvent::Topic => {
                native.hear_of_topic(self.natives.partitions);
                native.core.partitions_changed(&native.metadata, &mut effects);
            }
        }
        self.native_acts(who, effects, by_leader);
    }

    /// Has the core say all that it has to say, and does it.
    fn native_acts(&mut self, who: usize, mut effects: Vec<Effect>, by_leader: bool) {
        let now_ms = self.now_ms;
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "native {who} wants something for ever: {effects:?}");
            self.native_wants(who, std::mem::take(&mut effects), by_leader);
            let native = &mut self.natives.all[who];
            if native.stands_until_ms <= now_ms {
                native.core.caller_lives(now_ms);
            }
            let next_ms = native.core.poll(&native.metadata, now_ms, &mut effects);
            if !effects.is_empty() {
                continue;
            }
            if let Some(next_ms) = next_ms.map(|next_ms| next_ms.max(now_ms + 1))
                && next_ms < native.wakes_at_ms
            {
                native.wakes_at_ms = next_ms;
                let wait_ms = next_ms - now_ms;
                self.later(wait_ms, Event::Native { who, event: NativeEvent::Wake });
            }
            break;
        }
        self.audit.held(&self.natives.all);
    }

    /// What it tells comes before what it asks, as in the client's shell.
    fn native_wants(&mut self, who: usize, effects: Vec<Effect>, by_leader: bool) {
        let mut asks = Vec::new();
        for effect in effects {
            let trace = self.trace;
            let native = &mut self.natives.all[who];
            if trace && !matches!(effect, Effect::Ask { .. }) {
                println!("{} native {who}: {effect:?}", self.now_ms);
            }
            match effect {
                Effect::Ask { number, to, body } => asks.push((number, to, body)),
                Effect::WatchTopics(_) => {
                    self.natives.decisions.note("member WatchTopics");
                    let delay = self.natives.delay();
                    self.later(delay, Event::Native { who, event: NativeEvent::Topic });
                }
                Effect::Tell(notice) => {
                    self.natives.decisions.note(match &notice {
                        Notice::Assigned(_) => "member Assigned",
                        Notice::Revoked { .. } => "member Revoked",
                        Notice::Lost(_) => "member Lost",
                        Notice::Out(_) => "member Out",
                    });
                    native.told(notice, self.audit.newest());
                }
                Effect::Committed(placed) => {
                    self.natives.decisions.note("member Committed");
                    for (partition, position) in placed {
                        let number = partition.partition.get();
                        let reading = native.reads.get_mut(&number);
                        let Some(reading) = reading.filter(|r| r.position.is_none()) else {
                            continue;
                        };
                        let offset = position.map(|position| position.offset.get());
                        if by_leader {
                            self.audit.begins(&self.log, number, (offset, reading.since));
                        }
                        reading.position = Some(offset.unwrap_or(0));
                    }
                }
                Effect::CommitDone { token, result } => {
                    let commit = native.commits.remove(&token);
                    let commit = commit.expect("a commit ends once");
                    self.natives.decisions.note(match &result {
                        Ok(()) => "member CommitDone",
                        Err(_) => "member CommitFailed",
                    });
                    match result {
                        Ok(()) => self.audit.is_done(&self.log, &commit.offsets),
                        Err(_) => native.commit_failed(&commit),
                    }
                }
            }
        }
        for (number, to, body) in asks {
            self.native_asks(who, (number, to, body));
        }
    }

    fn native_asks(&mut self, who: usize, (ask, to, body): (u64, Option<Coordinator>, Ask)) {
        let number = self.next_number;
        self.next_number += 1;
        let delay = self.natives.delay();
        let native = &mut self.natives.all[who];
        if let Ask::Join(join) = &body {
            native.check_join(who, join);
        }
        native.sent.insert(number, Sent { ask, key: None, by_leader: false });
        let Some(to) = to else {
            return self.later(delay, Event::Native { who, event: NativeEvent::Find { number } });
        };
        let broker = to.broker.get();
        if self.natives.down.get(&broker).is_some_and(|until_ms| *until_ms > self.now_ms) {
            let event = NativeEvent::Unanswered { number };
            return self.later(delay, Event::Native { who, event });
        }
        let timeout_ms = match &body {
            Ask::Join(_) | Ask::Sync(_) => REBALANCE_TIMEOUT_MS + GRACE_MS,
            _ => REQUEST_TIMEOUT_MS,
        };
        let key = (broker, matches!(body, Ask::Commit(_) | Ask::Committed(_)));
        let request = request(body, format!("native-{who}"), &mut self.natives.random);
        let request = request.expect("it is for the group coordinator");
        let (link, there_ms) = self.put_on_link(who, key, number, delay);
        let wait_ms = there_ms - self.now_ms;
        let event = Event::ArriveFromNative { number, who, link, broker, request };
        self.later(wait_ms, event);
        self.later(timeout_ms, Event::Native { who, event: NativeEvent::Unanswered { number } });
        if self.now_ms < BREAKING_MS && self.natives.random.chance(1, 150) {
            self.later(delay / 2, Event::Native { who, event: NativeEvent::LinkEnds { id: link } });
        }
    }

    /// The connection by which a request goes, and when it arrives.
    fn put_on_link(&mut self, who: usize, key: Key, number: u64, delay: u64) -> (u64, u64) {
        let is_still = self.now_ms < BREAKING_MS && self.natives.random.chance(1, 250);
        let last = &mut self.natives.last_link;
        let native = &mut self.natives.all[who];
        let link = native.links.entry(key).or_insert_with(|| {
            *last += 1;
            Link {
                id: *last,
                there_ms: 0,
                back_ms: 0,
                queue: VecDeque::new(),
                ready: BTreeMap::new(),
                is_still: false,
            }
        });
        link.is_still |= is_still;
        link.queue.push_back(number);
        link.there_ms = link.there_ms.max(self.now_ms + delay);
        if let Some(sent) = native.sent.get_mut(&number) {
            sent.key = Some(key);
        }
        (link.id, link.there_ms)
    }

    /// A request reaches a broker.
    pub(super) fn arrive_from_native(
        &mut self,
        (number, who, link): (u64, usize, u64),
        broker: i32,
        request: Request,
    ) {
        if self.natives.lost.contains(&link) {
            return;
        }
        let mut epochs = self.coordinators.keys().rev().copied();
        match epochs.find(|epoch| broker_of(*epoch) == broker) {
            Some(epoch) => self.arrive(number, FIRST + who, epoch, request),
            None => {
                let response = request.refused(ErrorCode::NotCoordinator);
                self.answer_native(number, who, (response, false));
            }
        }
    }

    /// A broker answers, `by_leader` or by one of the past.
    pub(super) fn answer_native(
        &mut self,
        number: u64,
        who: usize,
        (response, by_leader): (Response, bool),
    ) {
        let delay = self.natives.delay();
        let native = &mut self.natives.all[who];
        let Some(sent) = native.sent.get_mut(&number) else { return };
        sent.by_leader = by_leader;
        let Some(link) = sent.key.and_then(|key| native.links.get_mut(&key)) else { return };
        link.ready.insert(number, response);
        let mut answers = Vec::new();
        while let Some(response) = link.queue.front().and_then(|first| link.ready.remove(first)) {
            let Some(number) = link.queue.pop_front() else { break };
            link.back_ms = link.back_ms.max(self.now_ms + delay);
            if !link.is_still {
                answers.push((link.back_ms - self.now_ms, number, response));
            }
        }
        for (wait_ms, number, response) in answers {
            let event = NativeEvent::Answered { number, response };
            self.later(wait_ms, Event::Native { who, event });
        }
    }

    fn native_fails(&mut self, who: usize, number: u64, effects: &mut Vec<Effect>) {
        let native = &mut self.natives.all[who];
        if let Some(sent) = native.sent.remove(&number) {
            native.core.answered(sent.ask, Err(failure("not reached")), self.now_ms, effects);
        }
    }

    /// Nothing that is open on it will be answered; half the time none of it has even arrived.
    fn break_link(&mut self, who: usize, key: Key, effects: &mut Vec<Effect>) {
        let native = &mut self.natives.all[who];
        if let Some(link) = native.links.remove(&key)
            && self.natives.random.chance(1, 2)
        {
            self.natives.lost.insert(link.id);
        }
        let open = native.sent.iter().filter(|(_, sent)| sent.key == Some(key));
        for number in open.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.native_fails(who, number, effects);
        }
    }

    fn native_finds(&mut self, who: usize, number: u64, effects: &mut Vec<Effect>) {
        let (newest, random) = (self.log.epoch(), &mut self.natives.random);
        let lot = if self.now_ms < BREAKING_MS { random.below(30) } else { u64::MAX };
        let epoch = if lot < 5 { newest.saturating_sub(1) } else { newest };
        let found = match lot {
            6 => find_coordinator::Coordinator {
                error_code: ErrorCode::CoordinatorNotAvailable,
                ..Default::default()
            },
            _ => find_coordinator::Coordinator {
                node_id: Some(BrokerId::new(broker_of(epoch))),
                host: "simulated".to_owned(),
                port: 1,
                ..Default::default()
            },
        };
        let found = FindCoordinatorResponse { coordinators: vec![found], ..Default::default() };
        let answer = if lot == 5 { Err(failure("nobody")) } else { Ok(Answer::Find(found)) };
        let native = &mut self.natives.all[who];
        if let Some(sent) = native.sent.remove(&number) {
            native.core.answered(sent.ask, answer, self.now_ms, effects);
        }
    }

    fn native_looks(&mut self, who: usize, resting: bool, effects: &mut Vec<Effect>) {
        let delay = 20 + self.natives.random.below(400);
        self.later(delay, Event::Native { who, event: NativeEvent::Look });
        let (now_ms, native) = (self.now_ms, &mut self.natives.all[who]);
        if native.stands_until_ms > now_ms {
            return;
        }
        if !native.is_in {
            let is_first = now_ms < 1_000;
            if is_first || resting && who < 2 {
                self.start_native(who, effects);
            }
            return;
        }
        let out = native.look(now_ms, &mut self.natives.random, &mut self.next_offset);
        if let Some(error) = out {
            // Another that had its name came later, perhaps its own former self.
            let is_fenced = error.code() == Some(ErrorCode::FencedInstanceId);
            assert!(is_fenced, "native {who} is put out: {error}");
            self.start_native(who, effects);
        }
    }

    fn start_native(&mut self, who: usize, effects: &mut Vec<Effect>) {
        self.natives.all[who].start(self.now_ms, effects);
        if self.natives.all[who].part.is_told {
            self.tell_native(who, leader(self.log.epoch()));
        }
    }

    /// Notifications come in order.
    fn tell_native(&mut self, who: usize, route: Route) {
        let delay = self.natives.delay();
        let native = &mut self.natives.all[who];
        native.told_at_ms = native.told_at_ms.max(self.now_ms + delay);
        let wait_ms = native.told_at_ms - self.now_ms;
        self.later(wait_ms, Event::Native { who, event: NativeEvent::Told(route) });
    }

    /// Another broker has taken over; the former one may be gone.
    pub(super) fn natives_hear_of_failover(&mut self, is_former_over: bool) {
        if self.natives.all.is_empty() {
            return;
        }
        let epoch = self.log.epoch();
        let former = broker_of(epoch.wrapping_sub(1));
        let dies = is_former_over && self.natives.random.chance(1, 2);
        if dies {
            let until_ms = self.now_ms + 500 + self.natives.random.below(5_000);
            self.natives.down.insert(former, until_ms);
        }
        self.natives.down.remove(&broker_of(epoch));
        for who in 0..self.natives.all.len() {
            if dies {
                let links = &self.natives.all[who].links;
                let to = links.iter().filter(|(key, _)| key.0 == former).map(|(_, link)| link.id);
                for id in to.collect::<Vec<_>>() {
                    let delay = self.natives.delay();
                    self.later(delay, Event::Native { who, event: NativeEvent::LinkEnds { id } });
                }
            }
            if self.natives.all[who].part.is_told && self.natives.all[who].is_in {
                if dies {
                    self.tell_native(who, Route::BrokerDown(BrokerId::new(former)));
                }
                self.tell_native(who, leader(epoch));
            }
        }
    }

    /// A shard is dropped with what it owes: mostly its broker says that it is none any more.
    pub(super) fn natives_are_refused(&mut self, owed: Vec<(u64, usize, Request)>) {
        for (number, from, request) in owed {
            let Some(who) = from.checked_sub(FIRST) else { continue };
            if self.natives.random.chance(3, 4) {
                let response = request.refused(ErrorCode::NotCoordinator);
                self.answer_native(number, who, (response, false));
            }
        }
    }

    /// The topic has all its partitions, and everybody hears of it within some seconds.
    pub(super) fn grow(&mut self) {
        self.natives.partitions = PARTITIONS;
        for who in 0..self.natives.all.len() {
            let delay = 1 + self.natives.random.below(5_000);
            self.later(delay, Event::Native { who, event: NativeEvent::Topic });
        }
    }

    pub(super) fn break_native(&mut self) {
        let delay = 1 + self.natives.random.below(4_000);
        self.later(delay, Event::BreakNative);
        if self.now_ms >= BREAKING_MS {
            return;
        }
        let (who, lot) = (self.natives.pick(), self.natives.random.below(12));
        let long_ms = 500 + self.natives.random.below(20_000);
        let (now_ms, native) = (self.now_ms, &mut self.natives.all[who]);
        let mut effects = Vec::new();
        if self.trace {
            println!("{now_ms} native {who} breaks: {lot}, {long_ms} ms");
        }
        match lot {
            0 if native.is_in && native.paused_until_ms <= now_ms => native.leave(&mut effects),
            1 | 2 => native.forget(),
            3 => native.stands_until_ms = now_ms + long_ms,
            4 => native.paused_until_ms = now_ms + long_ms,
            5 | 6 => {
                if let Some(key) = native.links.keys().next().copied() {
                    self.break_link(who, key, &mut effects);
                }
            }
            _ if !native.is_in && native.paused_until_ms <= now_ms => {
                self.start_native(who, &mut effects);
            }
            _ => {}
        }
        if self.natives.all[who].paused_until_ms <= now_ms {
            self.native_acts(who, effects, false);
        }
    }

    /// Nobody stands still any more.
    pub(super) fn natives_rest(&mut self) {
        for native in &mut self.natives.all {
            native.paused_until_ms = native.paused_until_ms.min(self.now_ms);
            native.stands_until_ms = native.stands_until_ms.min(self.now_ms);
        }
        self.natives.down.clear();
    }

    /// Whoever wants a share has it, knows where to begin, and has heard of its commits.
    pub(super) fn natives_at_rest(&self) {
        let newest = self.audit.newest_generation();
        for (who, native) in self.natives.all.iter().enumerate().filter(|(_, native)| native.is_in)
        {
            let name = native.name(who);
            let generation = native.core.identity().map(|(_, generation)| generation);
            assert_eq!(generation, Some(newest), "{name} at rest is not in the newest generation");
            let owned: BTreeSet<i32> =
                native.core.owned().iter().map(|partition| partition.partition.get()).collect();
            let reads: BTreeSet<i32> = native.reads.keys().copied().collect();
            assert_eq!(owned, reads, "{name} at rest reads something else than its own");
            let mut lost = native.reads.iter().filter(|(_, reading)| reading.position.is_none());
            assert!(
                lost.next().is_none(),
                "{name} at rest knows of no position: {:?}",
                native.reads
            );
            for commit in native.commits.values() {
                let is_late = commit.until_ms + COMMIT_GRACE_MS < self.now_ms;
                assert!(!is_late, "{name} at rest has not heard of {commit:?}");
            }
        }
    }
}

fn leader(epoch: u32) -> Route {
    Route::Leader {
        partition: TopicPartition::new("__consumer_offsets", 0),
        leader: Leader { broker: Some(BrokerId::new(broker_of(epoch))), epoch: None },
    }
}
