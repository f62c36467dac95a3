//! What the worker of a log directory can be asked, and what can have happened then.
//!
//! Called by: everything that steps the worker. Calls: nothing.
//! Invariant: each produce that is handed in is handed back once: placed, or refused. Does not know
//! what a produce is to whoever waits for it.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use broker_core::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use broker_core::partition::{Appended, Durability, Loaded, Truncated};
use broker_core::purgatory::ProduceWait;
use broker_core::refusals::Sequenced;
use broker_log::{
    BatchMeta, Cleaned, CleaningPlan, Log, LogConfig, LogError, LogView, OpenOptions, SyncTicket,
};
use bytes::{Bytes, BytesMut};
use client_protocol::{ErrorCode, ProducerEpoch, ProducerId};

/// Whose log it is: handed back with what happened to it.
pub trait Owner: Clone {
    /// Which partition.
    fn key(&self) -> TopicPartition;
    /// Name of its topic.
    fn topic(&self) -> &str;
}

/// One batch of a client. `P` is what it is known by to whoever waits.
pub struct ProduceJob<P> {
    /// Permitted under this epoch.
    pub leader_epoch: LeaderEpoch,
    /// -1 waits for the in-sync replicas.
    pub acks: i16,
    /// How long it waits then.
    pub deadline: Millis,
    /// The batch's header.
    pub meta: BatchMeta,
    /// The batch, checked.
    pub records: BytesMut,
    /// What is answered instead, should something be missing before it.
    pub behind: Option<ErrorCode>,
    /// The time it was given, on a topic with LogAppendTime.
    pub log_append_time_ms: Option<i64>,
    /// Who waits.
    pub produce: P,
}

/// The place of a batch among others of its producer; none if that is not idempotent.
pub fn sequenced(meta: &BatchMeta) -> Option<Sequenced> {
    meta.has_producer().then(|| Sequenced {
        producer: ProducerId::new(meta.producer_id),
        epoch: ProducerEpoch::new(meta.producer_epoch),
        base_sequence: meta.base_sequence,
    })
}

impl<P> ProduceJob<P> {
    /// The news that it was not appended.
    pub fn refuse<O>(self, of: O, error: ErrorCode) -> Happened<O, P> {
        Happened::Refused { of, batch: sequenced(&self.meta), error, produce: self.produce }
    }
}

/// Something else to do with one log. What names an epoch is refused under any other than the one
/// adopted last.
pub enum LogJob {
    /// Open it, creating it if need be.
    Open(OpenOptions, Durability),
    /// Refuse from here on what was decided under another epoch.
    Adopt {
        /// The epoch.
        leader_epoch: LeaderEpoch,
        /// This replica is to lead under it: what it cannot read is given up.
        leads: bool,
    },
    /// Append what a leader sent.
    AppendFetched(LeaderEpoch, Bytes),
    /// Cut it to end at the offset.
    Truncate(LeaderEpoch, Offset),
    /// Empty it and begin at the offset.
    RestartAt(LeaderEpoch, Offset),
    /// Drop what is below the offset.
    DropBelow(Offset),
    /// The note of lost durable records can go.
    CutRepaired,
    /// Obey new settings.
    Configure(LogConfig, Durability),
    /// Remove what is too old or too much, below this high watermark.
    Retain(Offset),
    /// Take the files of removed segments out of the folder; the log start is durable.
    Discard(Vec<i64>),
    /// Say what to compact, if it is worth while, below this high watermark.
    Clean(Offset),
    /// Put what a step of a cleaning wrote in place, and give the next step to whoever waits for it; a job that is dropped
    /// tells by that that there is none.
    SwapCleaned(Box<Cleaned>, SyncSender<Option<Box<CleaningPlan>>>),
    /// A cleaning came to nothing.
    GiveUpCleaning {
        /// And would again.
        for_good: bool,
    },
    /// Sync what no round syncs: a memory topic's log.
    Flush,
    /// Delete it with its folder.
    Delete,
}

/// What the worker is asked to do.
pub enum Job<O, P> {
    /// Append a client's batch.
    Produce(O, ProduceJob<P>),
    /// Anything else.
    Log(O, LogJob),
    /// Take over a log that was recovered at the start.
    Adopted(O, Box<Log>, Durability),
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record; of a duplicate, that of the first time.
    pub base_offset: Offset,
    /// The time it got, on a topic with LogAppendTime.
    pub log_append_time_ms: Option<i64>,
    /// First offset of the log.
    pub log_start: Offset,
}

/// A produce that stands in the log.
#[derive(Clone, Debug)]
pub struct Stored<P> {
    /// Where.
    pub placed: Placed,
    /// Who waits.
    pub produce: P,
}

/// What happened; to be carried out in order.
pub enum Happened<O, P> {
    /// The log is open.
    Opened(O, LogView, Loaded),
    /// [`broker_core::partition::Partition::epoch_adopted`]
    EpochAdopted(O, LeaderEpoch),
    /// Batches were appended, or stand there already and are not in `appended`.
    Appended {
        /// Where.
        of: O,
        /// For the core, before anybody is answered.
        appended: Appended,
        /// What waits for the in-sync replicas.
        waits: Vec<ProduceWait<Stored<P>>>,
        /// What waits for nothing more.
        done: Vec<Stored<P>>,
    },
    /// A produce was not appended.
    Refused {
        /// Where.
        of: O,
        /// Its place among others of its producer, if that is idempotent.
        batch: Option<Sequenced>,
        /// Why not.
        error: ErrorCode,
        /// Who waits.
        produce: P,
    },
    /// [`broker_core::partition::Partition::append_refused`]
    AppendRefused(O, LeaderEpoch),
    /// [`broker_core::partition::Partition::truncated`]
    Truncated(O, Truncated),
    /// [`broker_core::partition::Partition::log_start_moved`]
    LogStartMoved(O, Offset),
    /// Segments with these base offsets were taken out. Once the log start is durable in its
    /// checkpoint, [`LogJob::Discard`] is due.
    Removed(O, Vec<i64>),
    /// A log to compact: [`CleaningPlan::run`] does it, on any thread. With what comes of it
    /// [`LogJob::SwapCleaned`] is due, step by step, or [`LogJob::GiveUpCleaning`].
    ToClean(O, Box<CleaningPlan>),
    /// Something to sync.
    ToSync(O, SyncTicket),
    /// Files and folders that nothing names any more, to be unlinked in this order, at any time.
    ToUnlink(Vec<PathBuf>),
    /// A disk error: the directory is to be fenced.
    Failed(LogError),
}
