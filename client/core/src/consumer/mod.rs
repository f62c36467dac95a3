//! The consumer's decisions: where to read on, from whom, how far ahead, and what a failover means for a position.
//!
//! *Called by* the client's consumer shell and simulations. *Calls* `partition`, `read`, `links`, `metadata`.
//!
//! Invariant: the records of a partition are given out once and in order from its position on, whatever answers are lost,
//! late or repeated; after a change of leaders a position is checked against the new leader's epochs before it is read on
//! from. Knows no group: who assigns partitions is `group`'s matter.

mod answer;
mod dispatch;
mod epochs;
mod partition;
pub mod read;
mod settings;
mod standstill;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use client_protocol::messages::list_offsets::{EARLIEST_TIMESTAMP, LATEST_TIMESTAMP};
use client_protocol::messages::{
    FetchRequest, ListOffsetsRequest, MetadataResponse, OffsetForLeaderEpochRequest,
};
use client_protocol::records::RecordRef;
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};

use crate::links::Links;
use crate::metadata::{Metadata, Route, TopicPartition};
use partition::{Partition, Phase};
use read::{Chunk, Position, ReadError};

pub use crate::producer::Failure;
pub use settings::{Reset, Settings};
pub use standstill::{Cause, Standstill};

/// Connections to one broker: two for fetches, so that partitions that move there need not wait for one that is held back,
/// and one for what is answered at once.
pub const FETCH_SLOTS: u8 = 2;
/// The connection for what is answered at once.
pub const QUERY_SLOT: u8 = 2;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// The first record with this timestamp (milliseconds since 1970 UTC) or a later one.
    Timestamp(i64),
    /// This offset; with the epoch of the record before it, where known, it is checked.
    At(Position),
    /// Where somebody else will say: [`Consumer::place`].
    Elsewhere,
}

/// After so many answers in a row that leave out an announced partition, a few seconds, it is believed not to exist.
const ANNOUNCED_TRIES: u32 = 9;

/// Names a request, never twice.
pub type RequestId = u64;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Open a connection, then say [`Consumer::connected`] or [`Consumer::connect_failed`].
    Connect {
        /// The broker.
        broker: BrokerId,
        /// Which of the connections there.
        slot: u8,
        /// `host:port`.
        address: String,
    },
    /// Close all connections to a broker that is known to be gone.
    Disconnect(BrokerId),
    /// Fetch, then say [`Consumer::fetched`].
    Fetch {
        /// Names it.
        request: RequestId,
        /// The broker and connection.
        to: (BrokerId, u8),
        /// What to send.
        body: FetchRequest,
    },
    /// Ask for offsets, then say [`Consumer::offsets_answered`].
    ListOffsets {
        /// Names it.
        request: RequestId,
        /// The broker.
        broker: BrokerId,
        /// What to send.
        body: ListOffsetsRequest,
    },
    /// Ask where epochs end, then say [`Consumer::epochs_answered`].
    CheckEpochs {
        /// Names it.
        request: RequestId,
        /// The broker.
        broker: BrokerId,
        /// What to send.
        body: OffsetForLeaderEpochRequest,
    },
    /// Ask any broker about these topics, then say [`Consumer::metadata_answered`].
    AskMetadata(Vec<Arc<str>>),
}

/// Records of one partition, in order, for the caller.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The records.
    pub chunks: Vec<Chunk>,
    /// Where reading goes on.
    pub next: Position,
    /// Up to where records can be read now (exclusive), as of the answer.
    pub high_watermark: Option<Offset>,
}

impl Fetched {
    /// The records in order. A record borrows from the answer it came in: [`RecordRef::to_record`] makes a copy to keep.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.chunks.iter().flat_map(Chunk::records)
    }
}

/// Something that the caller must know; the partition stands still until it is given a place by [`Consumer::seek`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The offset is not in the log, and `reset` says to tell.
    #[error("offset {offset} of {partition} is out of range")]
    OutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: Offset,
    },
    /// There is no committed offset, and `reset` says to tell.
    #[error("no committed offset of {0}")]
    NoPosition(TopicPartition),
    /// The log was cut below the position: records that were read are gone; `reset` says to tell.
    #[error("{partition} was cut to {end}, read was up to {position}")]
    Truncated {
        /// The partition.
        partition: TopicPartition,
        /// Where reading would have gone on.
        position: Offset,
        /// Where the log has what was read (exclusive); its start, if nothing is known to be left of it.
        end: Offset,
    },
    /// The broker says no.
    #[error("{partition}: {code}")]
    Refused {
        /// The partition.
        partition: TopicPartition,
        /// Its answer.
        code: ErrorCode,
    },
    /// A batch cannot be read.
    #[error("batch at {offset} of {partition}: {source}")]
    Unreadable {
        /// The partition.
        partition: TopicPartition,
        /// The position at which it was met.
        offset: Offset,
        /// What is wrong.
        source: ReadError,
    },
}

impl Trouble {
    /// The partition that stands still.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        match self {
            Self::NoPosition(partition)
            | Self::OutOfRange { partition, .. }
            | Self::Truncated { partition, .. }
            | Self::Refused { partition, .. }
            | Self::Unreadable { partition, .. } => partition,
        }
    }
}

/// What waits for the caller.
#[derive(Clone, Debug)]
enum Buffered {
    Records { version: u64, bytes: usize, fetched: Fetched },
    Trouble(Trouble),
}

/// What a request under way is about.
#[derive(Clone, Debug)]
struct Request {
    broker: BrokerId,
    slot: u8,
    partitions: Vec<TopicPartition>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asking {
    is_under_way: bool,
    is_stale: bool,
    failures: u32,
    not_before_ms: u64,
    refreshed_at_ms: u64,
}

/// The consumer's state.
#[derive(Debug)]
pub struct Consumer {
    settings: Settings,
    metadata: Metadata,
    partitions: BTreeMap<TopicPartition, Partition>,
    /// Topics that somebody wants to know of beside those of the partitions.
    watched: BTreeSet<Arc<str>>,
    /// How many partitions a topic has by notifications, where no answer has shown as many yet.
    announced: BTreeMap<Arc<str>, usize>,
    buffer: VecDeque<Buffered>,
    buffered_bytes: usize,
    links: Links<(BrokerId, u8)>,
    requests: BTreeMap<RequestId, Request>,
    next_request: RequestId,
    next_version: u64,
    asking: Asking,
}

impl Consumer {
    /// A consumer that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        #[cfg(planted)]
        std::hint::black_box(crate::planted::MARK);
        Self {
            links: Links::new(settings.retry_backoff_ms, settings.retry_backoff_max_ms),
            settings,
            metadata: Metadata::default(),
            partitions: BTreeMap::new(),
            watched: BTreeSet::new(),
            announced: BTreeMap::new(),
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            next_version: 0,
            asking: Asking::default(),
        }
    }

    /// What it knows of the cluster.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Keeps knowing these topics, though no partition of them may be read.
    pub fn watch(&mut self, topics: impl IntoIterator<Item = Arc<str>>) {
        for topic in topics {
            if self.watched.insert(topic) {
                self.asking.is_stale = true;
                self.asking.not_before_ms = 0;
            }
        }
    }

    /// Asks for metadata anew, as soon as the last answer is old enough.
    pub fn ask_again(&mut self) {
        self.asking.is_stale = true;
    }

    /// Reads a partition from `start` on; one that was read already begins there anew.
    pub fn seek(&mut self, partition: &TopicPartition, start: Start) {
        self.next_version = self.next_version.saturating_add(1);
        let version = self.next_version;
        let name = self.metadata.name(&partition.topic);
        let key = TopicPartition { topic: name, partition: partition.partition };
        let is_paused = self.partitions.get(&key).is_some_and(|known| known.is_paused);
        let phase = match start {
            Start::Earliest => Phase::Find(EARLIEST_TIMESTAMP),
            Start::Latest => Phase::Find(LATEST_TIMESTAMP),
            Start::Timestamp(time) => Phase::Find(time.max(0)),
            Start::At(_) => Phase::Reading,
            Start::Elsewhere => Phase::Elsewhere,
        };
        let position = match start {
            Start::At(position) => Some(position),
            _ => None,
        };
        self.drop_buffered(&key);
        if self.metadata.partitions(&key.topic).is_none() {
            self.asking.is_stale = true;
        }
        let mut state = Partition { is_paused, ..Partition::new(version, phase, position) };
        if let (Some(former), Some(position)) = (self.partitions.remove(&key), position) {
            state.epochs = former.epochs;
            state.epochs.keep_before(position);
        }
        self.partitions.insert(key, state);
    }

    /// Says where a partition begins that was to begin elsewhere; `None` means: as `reset` says.
    pub fn place(&mut self, partition: &TopicPartition, position: Option<Position>) {
        let is_waiting =
            self.partitions.get(partition).is_some_and(|known| known.phase == Phase::Elsewhere);
        if !is_waiting {
            return;
        }
        match (position, self.settings.reset) {
            (Some(position), _) => self.seek(partition, Start::At(position)),
            (None, Reset::Earliest) => self.seek(partition, Start::Earliest),
            (None, Reset::Latest) => self.seek(partition, Start::Latest),
            (None, Reset::Error) => {
                self.trouble(partition, Trouble::NoPosition(partition.clone()));
            }
        }
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.drop_buffered(partition);
        self.partitions.remove(partition);
    }

    /// Gives out nothing of a partition, and reads no further ahead, until told otherwise.
    pub fn pause(&mut self, partition: &TopicPartition, is_paused: bool) {
        if let Some(known) = self.partitions.get_mut(partition) {
            known.is_paused = is_paused;
        }
    }

    /// The partitions that are read, and where the caller is.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, Option<Position>)> {
        self.partitions.iter().map(|(partition, known)| (partition, known.consumed))
    }

    /// Where the caller is in a partition; `None` while that is looked up.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Position> {
        self.partitions.get(partition)?.consumed
    }

    /// Whether a partition is read.
    #[must_use]
    pub fn is_assigned(&self, partition: &TopicPartition) -> bool {
        self.partitions.contains_key(partition)
    }

    /// Up to where a partition can be read (exclusive), as of the last answer.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.partitions.get(partition)?.high_watermark
    }

    /// The partitions that wait to be told where to begin.
    #[must_use]
    pub fn waiting_elsewhere(&self) -> Vec<TopicPartition> {
        let waiting = self.partitions.iter().filter(|(_, p)| p.phase == Phase::Elsewhere);
        waiting.map(|(partition, _)| partition.clone()).collect()
    }

    /// The next records or trouble for the caller, of a partition that is not paused. The caller's position moves behind
    /// the records.
    pub fn take(&mut self) -> Option<Result<Fetched, Trouble>> {
        let is_free = |buffered: &Buffered| match buffered {
            Buffered::Records { fetched, .. } => {
                self.partitions.get(&fetched.partition).is_some_and(|known| !known.is_paused)
            }
            Buffered::Trouble(_) => true,
        };
        let index = self.buffer.iter().position(is_free)?;
        match self.buffer.remove(index)? {
            Buffered::Records { version, bytes, fetched } => {
                self.buffered_bytes = self.buffered_bytes.saturating_sub(bytes);
                let known = self.partitions.get_mut(&fetched.partition)?;
                assert_eq!(known.version, version, "records of a former place in the buffer");
                known.buffered_bytes = known.buffered_bytes.saturating_sub(bytes);
                known.consumed = Some(fetched.next);
                Some(Ok(fetched))
            }
            Buffered::Trouble(trouble) => Some(Err(trouble)),
        }
    }

    fn drop_buffered(&mut self, partition: &TopicPartition) {
        let mut dropped = 0usize;
        self.buffer.retain(|buffered| match buffered {
            Buffered::Records { bytes, fetched, .. } if fetched.partition == *partition => {
                dropped = dropped.saturating_add(*bytes);
                false
            }
            Buffered::Records { .. } => true,
            // It was met at a place that is left now.
            Buffered::Trouble(trouble) => trouble.partition() != partition,
        });
        self.buffered_bytes = self.buffered_bytes.saturating_sub(dropped);
    }

    /// Stops a partition and tells the caller.
    fn trouble(&mut self, partition: &TopicPartition, trouble: Trouble) {
        if let Some(known) = self.partitions.get_mut(partition) {
            known.phase = Phase::Stopped;
            self.buffer.push_back(Buffered::Trouble(trouble));
        }
    }

    /// A connection is open.
    pub fn connected(&mut self, broker: BrokerId, slot: u8) {
        self.links.up((broker, slot));
    }

    /// A connection could not be opened.
    pub fn connect_failed(&mut self, broker: BrokerId, slot: u8, now_ms: u64) {
        self.links.down((broker, slot), now_ms);
        self.asking.is_stale = true;
    }

    /// Takes a notification, which is acted on at once.
    pub fn route(&mut self, route: &Route, effects: &mut Vec<Effect>) {
        if let Route::BrokerDown(gone) = route {
            self.links.forget(|(broker, _)| broker == gone);
            // Others than this core may have connections to it.
            effects.push(Effect::Disconnect(*gone));
        }
        if let Route::Leader { partition, .. } = route {
            self.announce(partition);
        }
        if let Route::BrokerUp { broker: back, .. } = route {
            self.links.hurry(|(broker, _)| broker == back);
        }
        if self.metadata.adopt_route(route)
            && let Route::Leader { partition, .. } = route
        {
            self.moved(partition);
        }
    }

    /// Asks for a partition that no answer has shown yet, of a topic that matters here.
    fn announce(&mut self, partition: &TopicPartition) {
        let topic = &partition.topic;
        let Ok(index) = usize::try_from(partition.partition.get()) else { return };
        let is_new = index >= self.metadata.partitions(topic).unwrap_or_default();
        let matters = || {
            self.watched.contains(topic)
                || self.partitions.keys().any(|known| known.topic == *topic)
        };
        if !is_new || !matters() {
            return;
        }
        if !self.announced.contains_key(topic) {
            self.asking.failures = 0;
            self.asking.not_before_ms = 0;
        }
        let count = self.announced.entry(topic.clone()).or_default();
        *count = index.saturating_add(1).max(*count);
        self.asking.is_stale = true;
    }

    /// Whether an answer leaves something out that is soon to be known: brokers hear of a change one after the other.
    fn is_incomplete(&mut self) -> bool {
        let metadata = &self.metadata;
        if self.asking.failures >= ANNOUNCED_TRIES {
            // It was made anew with fewer.
            self.announced.clear();
        }
        self.announced
            .retain(|topic, count| metadata.partitions(topic).unwrap_or_default() < *count);
        let is_missing = |topic: &Arc<str>| {
            metadata.partitions(topic).is_none()
                && metadata.refusal(topic).is_some_and(ErrorCode::is_retriable)
        };
        let is_leaderless =
            |partition: &TopicPartition| metadata.leader(partition).broker.is_none();
        !self.announced.is_empty()
            || self.watched.iter().any(is_missing)
            || self.partitions.keys().any(is_leaderless)
    }

    /// A partition has another leader: what is under way at the former one is waited for no more.
    fn moved(&mut self, partition: &TopicPartition) {
        if let Some(known) = self.partitions.get_mut(partition) {
            known.under_way = None;
            known.narrowed = None;
            known.retry_at_ms = 0;
        }
    }

    /// The answer to [`Effect::AskMetadata`]. Whether the number of partitions of a topic is another one now.
    pub fn metadata_answered(
        &mut self,
        answer: Result<MetadataResponse, Failure>,
        asked: &[Arc<str>],
        now_ms: u64,
    ) -> bool {
        self.asking.is_under_way = false;
        let Ok(answer) = answer else {
            self.ask_later(now_ms);
            return false;
        };
        let counts = |metadata: &Metadata| -> Vec<_> {
            asked.iter().map(|topic| metadata.partitions(topic)).collect()
        };
        let before = counts(&self.metadata);
        let moved = self.metadata.adopt(answer, asked);
        moved.iter().for_each(|partition| self.moved(partition));
        self.asking.refreshed_at_ms = now_ms;
        if self.is_incomplete() {
            self.ask_later(now_ms);
        } else {
            self.asking.is_stale = false;
            self.asking.failures = 0;
            self.asking.not_before_ms = now_ms.saturating_add(self.settings.retry_backoff_ms);
        }
        before != counts(&self.metadata)
    }

    fn ask_later(&mut self, now_ms: u64) {
        self.asking.is_stale = true;
        self.asking.failures = self.asking.failures.saturating_add(1);
        let wait_ms = self.backoff_ms(self.asking.failures);
        self.asking.not_before_ms = now_ms.saturating_add(wait_ms);
    }

    fn backoff_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(16);
        let wait_ms = self.settings.retry_backoff_ms.saturating_mul(1 << doublings);
        wait_ms.min(self.settings.retry_backoff_max_ms)
    }

    /// Panics where the state contradicts itself.
    pub fn check(&self) {
        let mut bytes = 0usize;
        for buffered in &self.buffer {
            let Buffered::Records { version, bytes: of_it, fetched } = buffered else { continue };
            bytes = bytes.saturating_add(*of_it);
            let known = self.partitions.get(&fetched.partition);
            assert!(known.is_some_and(|known| known.version == *version), "stale records buffered");
        }
        assert_eq!(bytes, self.buffered_bytes, "buffered bytes");
        for (partition, known) in &self.partitions {
            let (consumed, fetched) = (known.consumed, known.position);
            let is_behind = match (consumed, fetched) {
                (Some(consumed), Some(fetched)) => consumed.offset <= fetched.offset,
                (Some(_), None) => false,
                (None, _) => true,
            };
            assert!(is_behind, "{partition}: the caller is ahead of what was read");
        }
    }
}

/// Whether records of a partition wait for the caller.
fn is_buffered(buffer: &VecDeque<Buffered>, partition: &TopicPartition) -> bool {
    buffer.iter().any(|buffered| match buffered {
        Buffered::Records { fetched, .. } => fetched.partition == *partition,
        Buffered::Trouble(_) => false,
    })
}

/// Which epoch a leader was known under when a position was checked; nothing is older than anything.
type CheckedEpoch = Option<LeaderEpoch>;
