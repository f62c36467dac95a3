//! The producer's decisions: which batch goes where and when, under which numbers, and what its answer means.
//!
//! *Called by* the client's producer shell and simulations. *Calls* `lane`, `topic`, `metadata`.
//!
//! A record goes into the open batch of its partition ([`Producer::push`]); [`Producer::poll`] says what to send now, and
//! the answers come back by [`Producer::answered`]. Every batch is settled exactly once, by [`Effect::Settled`].
//! The order of one partition's records is kept, and with `idempotent` none is written twice: see `lane`. Knows no clock,
//! socket or task; compression and checksums are the shell's.

mod answer;
mod dispatch;
mod lane;
mod settings;
mod standstill;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::BytesMut;
use client_protocol::messages::MetadataResponse;
use client_protocol::records::{BATCH_HEADER_BYTES, Record};
use client_protocol::{BrokerId, ErrorCode, PartitionId, ProducerEpoch, ProducerId};

use crate::metadata::{Metadata, Route, TopicPartition};
use topic::Topic;

pub use settings::{
    Cause, Effect, Failure, Outgoing, Refusal, RequestId, Settings, Ticket, Undelivered, Written,
};
pub use standstill::Standstill;

/// Buffers kept for later batches.
const SPARE_BUFFERS_MAX: usize = 64;

/// What a batch's buffer begins with.
const BUFFER_BYTES_MIN: usize = 16 << 10;

/// Bytes that a record takes beside key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { retry_at_ms: u64, failures: u32 },
    Connecting { failures: u32 },
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdentityState {
    Missing { retry_at_ms: u64 },
    Asked,
    Known(ProducerId, ProducerEpoch),
}

#[derive(Clone, Copy, Debug, Default)]
struct Asking {
    is_under_way: bool,
    is_stale: bool,
    failures: u32,
    not_before_ms: u64,
    refreshed_at_ms: u64,
}

/// What is under way at a broker.
#[derive(Debug)]
struct Request {
    broker: BrokerId,
    partitions: Vec<TopicPartition>,
}

/// The producer's state. `T` is what the shell wants to be given back with a batch.
#[derive(Debug)]
pub struct Producer<T> {
    settings: Settings,
    metadata: Metadata,
    topics: BTreeMap<Arc<str>, Topic<T>>,
    wanted: BTreeSet<Arc<str>>,
    links: BTreeMap<BrokerId, Link>,
    requests: BTreeMap<RequestId, Request>,
    next_request: RequestId,
    identity: IdentityState,
    asking: Asking,
    buffered_bytes: usize,
    /// Somebody was refused for want of room.
    is_pressed: bool,
    spare_buffers: Vec<BytesMut>,
    random: u64,
}

impl<T: Clone> Producer<T> {
    /// A producer that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            random: settings.seed | 1,
            settings,
            metadata: Metadata::default(),
            topics: BTreeMap::new(),
            wanted: BTreeSet::new(),
            links: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            identity: IdentityState::Missing { retry_at_ms: 0 },
            asking: Asking::default(),
            buffered_bytes: 0,
            is_pressed: false,
            spare_buffers: Vec::new(),
        }
    }

    /// What it knows of the cluster.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes that wait or are under way.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Takes a record. Without a partition it goes where its key says, or, without a key, to the partition whose batch
    /// is being filled. `new_token` is called when it begins a batch.
    ///
    /// # Errors
    /// [`Refusal`], and the record is not in.
    pub fn push(
        &mut self,
        (topic, partition): (&str, Option<PartitionId>),
        record: &Record,
        now_ms: u64,
        new_token: impl FnOnce(PartitionId) -> T,
    ) -> Result<Ticket<T>, Refusal> {
        let bytes = size_of_record(record);
        let bytes_max = self.settings.buffer_bytes_max;
        if bytes.saturating_add(BATCH_HEADER_BYTES) > bytes_max {
            return Err(Refusal::TooLarge { bytes, bytes_max });
        }
        if self.buffered_bytes.saturating_add(bytes) > bytes_max {
            self.is_pressed = true;
            return Err(Refusal::NoRoom);
        }
        let Some(known) = self.topics.get_mut(topic) else { return Err(self.want(topic)) };
        let sizes = (bytes, self.settings.batch_bytes_max);
        let chosen = known.choose(partition, record.key.as_deref(), sizes, &mut self.random);
        let chosen = chosen.ok_or(Refusal::NoSuchPartition)?;
        let Some(lane) = known.lane_mut(chosen) else { return Err(Refusal::NoSuchPartition) };
        let before = lane.open.as_ref().map_or(0, |open| open.builder.size());
        let mut is_news = false;
        let index = match lane.append(record) {
            Some(index) => index,
            None => {
                // Full, or none is open: the shell has something to send, or a new deadline.
                is_news = true;
                self.buffered_bytes = self.buffered_bytes.saturating_add(BATCH_HEADER_BYTES);
                lane.close();
                let buffer = self.spare_buffers.pop();
                let buffer = buffer.unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES_MIN));
                let token = new_token(chosen);
                lane.begin(buffer, (token, now_ms), self.settings.batch_bytes_max);
                let bytes_max = client_protocol::records::RECORD_BYTES_MAX;
                let too_large = Refusal::TooLarge { bytes, bytes_max };
                match lane.append(record) {
                    Some(index) => index,
                    None => {
                        lane.open = None;
                        self.buffered_bytes =
                            self.buffered_bytes.saturating_sub(BATCH_HEADER_BYTES);
                        return Err(too_large);
                    }
                }
            }
        };
        let before = if is_news { BATCH_HEADER_BYTES } else { before };
        let Some(open) = lane.open.as_ref() else { return Err(Refusal::NoRoom) };
        let grown = open.builder.size().saturating_sub(before);
        self.buffered_bytes = self.buffered_bytes.saturating_add(grown);
        let token = open.token.clone();
        Ok(Ticket { token, index, partition: chosen, is_news })
    }

    /// Asks for a topic, if it was not refused already.
    fn want(&mut self, topic: &str) -> Refusal {
        if let Some(code) = self.metadata.refusal(topic)
            && !may_come(code)
        {
            return Refusal::TopicRefused(code);
        }
        let name = self.metadata.name(topic);
        if self.wanted.insert(name) {
            self.asking.is_stale = true;
            self.asking.not_before_ms = 0;
        }
        Refusal::TopicUnknown
    }

    /// Asks for a topic again that was refused.
    pub fn ask_again(&mut self, topic: &str) {
        self.metadata.forget_refusal(topic);
        self.want(topic);
    }

    /// How many partitions a topic has; asked for when it is not known.
    ///
    /// # Errors
    /// [`Refusal::TopicUnknown`], [`Refusal::TopicRefused`].
    pub fn partitions(&mut self, topic: &str) -> Result<usize, Refusal> {
        match self.topics.get(topic) {
            Some(known) => Ok(known.partitions()),
            None => Err(self.want(topic)),
        }
    }

    /// Sends what waits as soon as may be. Gives the tokens of all batches that are not settled.
    pub fn flush(&mut self) -> Vec<T> {
        let mut tokens = Vec::new();
        for lane in self.topics.values_mut().flat_map(Topic::lanes_mut) {
            if let Some(open) = lane.open.as_mut() {
                open.is_urgent = true;
                tokens.push(open.token.clone());
            }
            let closed = lane.ready.iter().chain(&lane.unsettled);
            tokens.extend(closed.map(|batch| batch.token.clone()));
        }
        tokens
    }

    /// The answer to [`Effect::AskMetadata`].
    pub fn metadata_answered(
        &mut self,
        answer: Result<MetadataResponse, Failure>,
        asked: &[Arc<str>],
        now_ms: u64,
    ) {
        self.asking.is_under_way = false;
        let answer = match answer {
            Ok(answer) => answer,
            Err(_) => return self.ask_later(now_ms),
        };
        let moved = self.metadata.adopt(answer, asked);
        self.asking.refreshed_at_ms = now_ms;
        self.asking.is_stale = false;
        for name in asked {
            match self.metadata.partitions(name) {
                Some(partitions) => {
                    self.wanted.remove(name);
                    self.topics.entry(name.clone()).or_default().grow(partitions);
                }
                None if self.metadata.refusal(name).is_some_and(|c| !may_come(c)) => {
                    self.wanted.remove(name);
                }
                None => self.asking.is_stale = true,
            }
        }
        moved.iter().for_each(|partition| self.moved(partition));
        let leaderless = self.topics.iter().any(|(name, topic)| {
            topic.used_partitions().any(|partition| {
                let partition = TopicPartition { topic: name.clone(), partition };
                self.metadata.leader(&partition).broker.is_none()
            })
        });
        if self.asking.is_stale || leaderless {
            self.ask_later(now_ms);
        } else {
            self.asking.failures = 0;
            self.asking.not_before_ms = now_ms.saturating_add(self.settings.retry_backoff_ms);
        }
    }

    fn ask_later(&mut self, now_ms: u64) {
        self.asking.is_stale = true;
        self.asking.failures = self.asking.failures.saturating_add(1);
        self.asking.not_before_ms =
            now_ms.saturating_add(self.settings.backoff_ms(self.asking.failures));
    }

    /// Takes a notification, which is acted on at once.
    pub fn route(&mut self, route: &Route, effects: &mut Vec<Effect<T>>) {
        if let Route::BrokerDown(broker) = route
            && self.links.remove(broker).is_some()
        {
            effects.push(Effect::Disconnect(*broker));
        }
        if let Route::BrokerUp { broker, .. } = route
            && let Some(Link::Down { retry_at_ms, .. }) = self.links.get_mut(broker)
        {
            *retry_at_ms = 0;
        }
        if self.metadata.adopt_route(route)
            && let Route::Leader { partition, .. } = route
        {
            self.moved(partition);
        }
    }

    /// A partition has another leader. What is under way at the former one cannot be acknowledged there any more, and an
    /// idempotent producer may send it again without harm.
    fn moved(&mut self, partition: &TopicPartition) {
        let leader = self.metadata.leader(partition).broker;
        let under_way = self.requests.values().find(|request| {
            request.partitions.contains(partition) && Some(request.broker) != leader
        });
        let is_elsewhere = under_way.is_some();
        let idempotent = self.settings.idempotent;
        let Some(lane) = self.lane_mut(partition) else { return };
        if is_elsewhere && idempotent {
            lane.reroute();
        }
        lane.retry_at_ms = 0;
    }

    fn lane_mut(&mut self, partition: &TopicPartition) -> Option<&mut lane::Lane<T>> {
        self.topics.get_mut(&partition.topic)?.lane_mut(partition.partition)
    }

    /// A connection is open.
    pub fn connected(&mut self, broker: BrokerId) {
        self.links.insert(broker, Link::Up);
    }

    /// A connection could not be opened, or ended. Requests under way there are answered on their own.
    pub fn connect_failed(&mut self, broker: BrokerId, now_ms: u64) {
        let failures = match self.links.get(&broker) {
            Some(Link::Connecting { failures } | Link::Down { failures, .. }) => {
                failures.saturating_add(1)
            }
            Some(Link::Up) | None => 1,
        };
        let retry_at_ms = now_ms.saturating_add(self.settings.backoff_ms(failures));
        self.links.insert(broker, Link::Down { retry_at_ms, failures });
        self.asking.is_stale = true;
    }

    /// The answer to [`Effect::AskIdentity`]: an id and epoch; `Ok(None)` when the cluster gives none, which turns
    /// `idempotent` off.
    pub fn identified(
        &mut self,
        answer: Result<Option<(ProducerId, ProducerEpoch)>, Failure>,
        now_ms: u64,
    ) {
        self.identity = match answer {
            Ok(Some((id, epoch))) => IdentityState::Known(id, epoch),
            Ok(None) => {
                self.settings.idempotent = false;
                IdentityState::Missing { retry_at_ms: u64::MAX }
            }
            Err(_) => IdentityState::Missing {
                retry_at_ms: now_ms.saturating_add(self.settings.retry_backoff_max_ms.min(200)),
            },
        };
    }

    /// Panics where the state contradicts itself.
    pub fn check(&self) {
        let lanes = self.topics.values().flat_map(Topic::lanes);
        let mut bytes = 0usize;
        for lane in lanes {
            lane.check(&self.settings);
            bytes = bytes.saturating_add(lane.buffered_bytes());
        }
        assert_eq!(bytes, self.buffered_bytes, "buffered bytes");
        assert!(self.buffered_bytes <= self.settings.buffer_bytes_max.saturating_add(1 << 20));
    }
}

/// Whether a topic that was refused with this code may be there soon.
fn may_come(code: ErrorCode) -> bool {
    code.is_retriable() && code != ErrorCode::UnknownTopicOrPartition
}

fn size_of_record(record: &Record) -> usize {
    let optional = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers = record
        .headers
        .iter()
        .map(|header| header.key.len().saturating_add(optional(&header.value)).saturating_add(10));
    [optional(&record.key), optional(&record.value), RECORD_OVERHEAD_BYTES]
        .into_iter()
        .chain(headers)
        .fold(0, usize::saturating_add)
}
