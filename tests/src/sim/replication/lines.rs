//! Connections of the native client's cores: they keep order, break with the process at the other end, and may be slow or silent.
//!
//! Called by: `native`, `reader`. Calls: nothing. Invariant: a connection gives what was sent on it in order, each at most once, until it breaks; what
//! was under way then may still reach the process that it was for, and nothing of it is answered. It does not know what is asked.

use std::collections::BTreeMap;

use broker_core::ids::BrokerId;
use client_protocol::ErrorCode;
use client_protocol::messages::MetadataResponse;
use client_protocol::messages::metadata::{MetadataBroker, MetadataPartition, MetadataTopic};

use super::world::{TOPIC, World};
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

/// A connection without an answer for so long is given up.
const ANSWER_TIMEOUT: Time = 2_000 * MS;

/// A connection.
#[derive(Debug)]
struct Line {
    life: u64,
    /// When the last of what was sent arrives, there and back.
    there: Time,
    back: Time,
}

/// A request that is not answered.
#[derive(Debug)]
pub struct Open<K, Q> {
    /// The connection.
    pub key: K,
    pub question: Q,
    deadline: Time,
}

/// A request that leaves.
#[derive(Debug)]
pub struct Sending {
    /// When it arrives, and in which life of the broker only.
    pub there: Time,
    pub life: u64,
}

/// All connections of one client.
#[derive(Debug)]
pub struct Lines<K, Q> {
    lines: BTreeMap<K, Line>,
    waiting: BTreeMap<u64, Open<K, Q>>,
    last_number: u64,
    pub random: Random,
}

impl<K: Ord + Copy, Q> Lines<K, Q> {
    pub fn new(seed: u64) -> Self {
        Self {
            lines: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last_number: 0,
            random: Random::new(seed),
        }
    }

    /// How long something takes.
    pub fn delay(&mut self) -> Time {
        let is_late = self.random.chance(1, 100);
        50 + self.random.below(if is_late { 500 * MS } else { 2 * MS })
    }

    pub fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A connection is open, to this life of a broker.
    pub fn opened(&mut self, key: K, life: u64, now: Time) {
        self.lines.insert(key, Line { life, there: now, back: now });
    }

    pub fn is_open(&self, key: K) -> bool {
        self.lines.contains_key(&key)
    }

    /// A connection is no more: what is open on it, which nobody will answer.
    pub fn broke(&mut self, key: K) -> Vec<Q> {
        self.lines.remove(&key);
        let waiting = std::mem::take(&mut self.waiting);
        let (open, others) = waiting.into_iter().partition(|(_, sent)| sent.key == key);
        self.waiting = others;
        let open: BTreeMap<u64, Open<K, Q>> = open;
        open.into_values().map(|sent| sent.question).collect()
    }

    /// A request leaves on a connection that is open, and takes so long.
    pub fn ask(
        &mut self,
        key: K,
        (number, question): (u64, Q),
        (now, delay): (Time, Time),
    ) -> Sending {
        let line = self.lines.get_mut(&key).expect("open");
        line.there = line.there.max(now + delay);
        let sending = Sending { there: line.there, life: line.life };
        let deadline = now + ANSWER_TIMEOUT;
        self.waiting.insert(number, Open { key, question, deadline });
        sending
    }

    /// The connection on which a request waits for its answer.
    pub fn line_of(&self, number: u64) -> Option<K> {
        self.waiting.get(&number).map(|sent| sent.key)
    }

    /// An answer leaves on a connection: when it arrives, if that is still open.
    pub fn answer(&mut self, key: K, (now, delay): (Time, Time)) -> Option<Time> {
        let line = self.lines.get_mut(&key)?;
        line.back = line.back.max(now + delay);
        Some(line.back)
    }

    /// An answer came: to what, if that is still asked.
    pub fn answered(&mut self, number: u64) -> Option<Open<K, Q>> {
        self.waiting.remove(&number)
    }

    /// The connections that are over: their process ended, or an answer is late.
    pub fn over(&self, world: &World, broker: impl Fn(&K) -> BrokerId) -> Vec<K> {
        let now = world.schedule.now();
        let is_over = |(key, line): (&K, &Line)| {
            let machine = &world.machines[&broker(key)];
            let is_late = self.waiting.values().any(|s| s.key == *key && s.deadline <= now);
            (machine.life != line.life || machine.process.is_none() || is_late).then_some(*key)
        };
        self.lines.iter().filter_map(is_over).collect()
    }
}

impl World {
    /// The cluster as some broker has heard of it.
    pub(super) fn metadata(&self, random: &mut Random) -> Option<MetadataResponse> {
        let processes: Vec<_> =
            self.machines.values().filter_map(|machine| machine.process.as_ref()).collect();
        let image = &processes.get(random.below(processes.len() as u64) as usize)?.image;
        let broker = |id: BrokerId| MetadataBroker {
            node_id: id,
            host: "simulated".to_owned(),
            port: 1,
            ..Default::default()
        };
        let partitions = image.states(TOPIC).map(|(partition, stored)| MetadataPartition {
            partition_index: partition,
            leader_id: stored.state.leader,
            leader_epoch: Some(stored.state.leader_epoch),
            ..Default::default()
        });
        let known = image.topic(TOPIC);
        let topic = MetadataTopic {
            name: Some(TOPIC.to_owned()),
            topic_id: known.map(|known| known.node.id),
            error_code: match known {
                Some(_) => ErrorCode::None,
                None => ErrorCode::LeaderNotAvailable,
            },
            partitions: partitions.collect(),
            ..Default::default()
        };
        Some(MetadataResponse {
            brokers: self.machines.keys().copied().map(broker).collect(),
            topics: vec![topic],
            ..Default::default()
        })
    }
}
