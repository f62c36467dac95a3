//! What the producer's core is told, what it says, and how a batch may end.
//!
//! *Called by* `producer` and its shell. Decides nothing.

use std::sync::Arc;

use client_protocol::records::{Producer as Identity, SealedBatch};
use client_protocol::{BrokerId, ErrorCode, Offset, PartitionId};

use crate::metadata::TopicPartition;

/// How to produce. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest batch built; a larger record goes into a batch of its own.
    pub batch_bytes_max: usize,
    /// The largest request, batches together; one batch always fits.
    pub request_bytes_max: usize,
    /// What may wait or be under way, before [`Refusal::NoRoom`].
    pub buffer_bytes_max: usize,
    /// How long a batch that is not full waits for more records.
    pub linger_ms: u64,
    /// Requests under way at one broker, and batches of one partition.
    pub in_flight_max: usize,
    /// Requests are answered; with acks=0 they are not.
    pub is_acknowledged: bool,
    /// Records are written once whatever happens. Without it, a batch that is sent again may be written again.
    pub idempotent: bool,
    /// How long after it was begun a batch is given up.
    pub delivery_timeout_ms: u64,
    /// The first wait before something is tried again; later ones are longer.
    pub retry_backoff_ms: u64,
    /// The longest wait before something is tried again.
    pub retry_backoff_max_ms: u64,
    /// After how long metadata is asked for anew although nothing is wrong.
    pub metadata_age_max_ms: u64,
    /// Where the choice of partitions for records without a key begins.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_bytes_max: 512 << 10,
            request_bytes_max: 8 << 20,
            buffer_bytes_max: 64 << 20,
            linger_ms: 5,
            in_flight_max: 5,
            is_acknowledged: true,
            idempotent: true,
            delivery_timeout_ms: 120_000,
            retry_backoff_ms: 20,
            retry_backoff_max_ms: 1000,
            metadata_age_max_ms: 300_000,
            seed: 1,
        }
    }
}

impl Settings {
    /// The wait before the attempt after `failures` failed ones.
    pub(crate) fn backoff_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(16);
        self.retry_backoff_ms.saturating_mul(1 << doublings).min(self.retry_backoff_max_ms)
    }
}

/// Names a request of this core, never twice.
pub type RequestId = u64;

/// One batch of a request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where it goes.
    pub partition: TopicPartition,
    /// What is in it. To be packed once: the next attempt brings the same value.
    pub batch: Arc<SealedBatch>,
    /// What its header says of the producer.
    pub identity: Option<Identity>,
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Effect<T> {
    /// Open a connection, then say [`super::Producer::connected`] or [`super::Producer::connect_failed`].
    Connect {
        /// The broker.
        broker: BrokerId,
        /// `host:port`.
        address: String,
    },
    /// Close the connection to a broker that is known to be gone; requests under way there fail.
    Disconnect(BrokerId),
    /// Send a request, in the order of these effects, then say [`super::Producer::answered`].
    Send {
        /// Names it.
        request: RequestId,
        /// The broker, which is connected.
        broker: BrokerId,
        /// At most one for each partition.
        batches: Vec<Outgoing>,
    },
    /// Ask any broker about these topics, then say [`super::Producer::metadata_answered`].
    AskMetadata(Vec<Arc<str>>),
    /// Ask any broker for a producer id, then say [`super::Producer::identified`].
    AskIdentity,
    /// A batch has come to its end.
    Settled {
        /// What the caller gave the batch.
        token: T,
        /// How it ended.
        result: Result<Written, Undelivered>,
    },
}

/// A batch that is where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The offset of its first record; `None` without acknowledgement, or when the broker only knows that it has the
    /// batch already.
    pub base_offset: Option<Offset>,
}

/// A batch that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// Where it was to go.
    pub partition: TopicPartition,
    /// Why.
    pub cause: Cause,
    /// Its records are certainly not there. Otherwise they may be there, once.
    pub is_absent: bool,
}

/// Why a batch was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The broker said no.
    Refused(ErrorCode, Option<String>),
    /// Time ran out; what stood in the way last, if anything did.
    Expired {
        /// How long it was tried.
        after_ms: u64,
        /// What went wrong last.
        last: Option<String>,
    },
    /// The request cannot be made.
    Unusable(String),
    /// The producer itself was ended.
    ShutDown,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The buffer is full: again when something has been settled.
    NoRoom,
    /// The topic is being looked up: again when an answer came.
    TopicUnknown,
    /// The cluster will not have the topic used, as the last answer said.
    TopicRefused(ErrorCode),
    /// The topic has no such partition.
    NoSuchPartition,
    /// The record fits neither the buffer nor a batch, ever.
    TooLarge {
        /// What it takes, about.
        bytes: usize,
        /// The most that is taken.
        bytes_max: usize,
    },
}

/// Where a record went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket<T> {
    /// The batch's token.
    pub token: T,
    /// The record's place in the batch, from 0.
    pub index: u32,
    /// The partition.
    pub partition: PartitionId,
    /// The shell should look at the core now, not at the last deadline.
    pub is_news: bool,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// The broker may have done what was asked. `false` for a request that was never sent.
    pub may_be_done: bool,
    /// It would fail again.
    pub is_final: bool,
}
