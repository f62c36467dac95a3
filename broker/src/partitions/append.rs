//! The append thread of a log directory: the only one that changes its logs.
//!
//! Called by: submissions, which push jobs; the thread runs [`run`]. Calls: `broker-log`,
//! `partition`, the commit queue.
//! Invariant: jobs are done in the order in which they were pushed; all batches for one partition
//! that were waiting go to its file in one write; what was permitted under another leader epoch
//! than the log adopted last is refused. Does not know the wire, and never waits for a sync.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use broker_core::ids::{LeaderEpoch, Millis, Offset, TopicPartition};
use broker_core::partition::{Appended, Durability};
use broker_log::{Admission, BatchMeta, Log, LogConfig, LogError, OpenOptions, SequenceError};
use bytes::{Bytes, BytesMut};
use client_protocol::ErrorCode;
use client_protocol::records::{Batches, assign_offsets};

use super::directory::Directory;
use super::partition::Partition;
use super::produce::Produced;
use super::waiting::{Ticket, WaitingProduce};

/// One batch of a client.
pub(super) struct ProduceJob {
    pub partition: Arc<Partition>,
    pub leader_epoch: LeaderEpoch,
    pub acks: i16,
    pub deadline: Millis,
    pub meta: BatchMeta,
    pub records: BytesMut,
    pub log_append_time_ms: Option<i64>,
    pub ticket: Ticket,
}

/// Something else to do with one log.
pub(super) enum LogJob {
    /// Open it, creating it if need be.
    Open(OpenOptions),
    /// Refuse from here on what was decided under another epoch.
    Adopt(LeaderEpoch),
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
    Configure(LogConfig),
    /// Remove what is too old or too much.
    Retain,
    /// Sync what no round syncs: a memory topic's log.
    Flush,
    /// Delete it with its folder.
    Delete,
}

/// What the append thread is asked to do.
pub(super) enum Job {
    Produce(ProduceJob),
    Log(Arc<Partition>, LogJob),
    /// A log that was recovered at the start.
    Adopted(Arc<Partition>, Box<Log>),
    /// Close all logs and end.
    Close,
}

/// Jobs that wait for the thread. Bounded by what the listeners admit: each produce holds part of
/// its connection's frame budget, each fetched append that of one fetch.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Jobs>,
    ready: Condvar,
}

#[derive(Default)]
struct Jobs {
    jobs: Vec<Job>,
    sleeping: bool,
    ended: bool,
}

impl Queue {
    /// Adds a job; gives it back when the thread has ended.
    pub fn push(&self, job: Job) -> Option<Job> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ended {
            return Some(job);
        }
        inner.jobs.push(job);
        let wake = std::mem::take(&mut inner.sleeping);
        drop(inner);
        if wake {
            self.ready.notify_one();
        }
        None
    }

    /// Waits for jobs and takes all of them, in exchange for an empty list.
    fn take(&self, into: &mut Vec<Job>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.jobs.is_empty() {
            inner.sleeping = true;
            inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.sleeping = false;
        std::mem::swap(&mut inner.jobs, into);
    }

    /// Refuses jobs from here on and takes those that wait.
    pub fn end(&self) -> Vec<Job> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ended = true;
        std::mem::take(&mut inner.jobs)
    }
}

impl Job {
    /// Answers a job that will not be done.
    pub fn refuse(self, error: ErrorCode) {
        match self {
            Self::Produce(job) => job.ticket.refuse(error),
            Self::Log(..) | Self::Adopted(..) | Self::Close => {}
        }
    }
}

/// A log and what waits to be written to it.
struct Slot {
    partition: Arc<Partition>,
    log: Log,
    epoch: Option<LeaderEpoch>,
    run: Vec<Admitted>,
    /// End of the log before the run.
    run_base: i64,
}

/// A batch that has its place.
struct Admitted {
    job: ProduceJob,
    base_offset: i64,
    /// The high watermark that acks=all waits for.
    needed: i64,
    /// It stands in the log already: nothing is written.
    duplicate: bool,
}

/// Runs the thread until it is asked to close.
pub(super) fn run(directory: &Arc<Directory>) {
    let mut appender =
        Appender { directory: Arc::clone(directory), slots: HashMap::new(), touched: Vec::new() };
    let mut jobs = Vec::new();
    loop {
        directory.queue.take(&mut jobs);
        let mut close = false;
        for job in jobs.drain(..) {
            match job {
                Job::Produce(job) => appender.produce(job),
                Job::Log(partition, job) => appender.log_job(&partition, job),
                Job::Adopted(partition, log) => appender.insert(partition, *log),
                Job::Close => close = true,
            }
        }
        appender.finish_drain();
        if close {
            appender.close();
            return;
        }
    }
}

struct Appender {
    directory: Arc<Directory>,
    slots: HashMap<TopicPartition, Slot>,
    /// Logs with something to write or to sync, since the last drain.
    touched: Vec<TopicPartition>,
}

impl Appender {
    fn insert(&mut self, partition: Arc<Partition>, log: Log) {
        let key = partition.key;
        let run_base = log.end_offset();
        self.slots.insert(key, Slot { partition, log, epoch: None, run: Vec::new(), run_base });
        self.touched.push(key);
    }

    fn produce(&mut self, job: ProduceJob) {
        if self.directory.is_failed() {
            return job.ticket.refuse(ErrorCode::KafkaStorageError);
        }
        let key = job.partition.key;
        let Some(slot) = self.slots.get_mut(&key) else {
            return job.ticket.refuse(ErrorCode::NotLeaderOrFollower);
        };
        if slot.epoch != Some(job.leader_epoch) {
            return job.ticket.refuse(ErrorCode::NotLeaderOrFollower);
        }
        if slot.run.is_empty() {
            self.touched.push(key);
            slot.run_base = slot.log.end_offset();
        }
        if let Err(error) = slot.admit(job) {
            self.directory.fail(&error.to_string());
        }
    }

    fn log_job(&mut self, partition: &Arc<Partition>, job: LogJob) {
        if let LogJob::Open(options) = job {
            return self.open(partition, &options);
        }
        let Some(slot) = self.slots.get_mut(&partition.key) else { return };
        self.touched.push(partition.key);
        let done = slot.flush().and_then(|()| match job {
            LogJob::Delete => Ok(()),
            ref job => slot.act(job, &self.directory),
        });
        match (done, job) {
            (Err(error), _) => self.directory.fail(&error.to_string()),
            (Ok(()), LogJob::Delete) => self.delete(partition),
            (Ok(()), _) => {}
        }
    }

    fn open(&mut self, partition: &Arc<Partition>, options: &OpenOptions) {
        self.retire_namesakes(partition);
        match self.directory.open_log(partition, options) {
            Ok(log) => {
                self.directory.announce(partition, &log);
                self.insert(Arc::clone(partition), log);
            }
            Err(error) => self.directory.fail(&error.to_string()),
        }
    }

    /// A former topic of the same name, whose end was not heard of: the folder is not its log's any
    /// more, so nothing of it is written by that path.
    fn retire_namesakes(&mut self, partition: &Partition) {
        let number = partition.key.partition;
        let is_namesake = |(key, slot): &(&TopicPartition, &Slot)| {
            key.partition == number
                && **key != partition.key
                && slot.partition.topic == partition.topic
        };
        let former: Vec<_> = self.slots.iter().filter(is_namesake).map(|(key, _)| *key).collect();
        for key in former {
            let Some(mut slot) = self.slots.remove(&key) else { continue };
            if let Err(error) = slot.flush() {
                self.directory.fail(&error.to_string());
            }
            slot.log.retire();
        }
    }

    fn delete(&mut self, partition: &Arc<Partition>) {
        let Some(slot) = self.slots.remove(&partition.key) else { return };
        let mark_id = slot.log.mark_id();
        slot.log.retire();
        drop(slot);
        if let Err(error) = self.directory.delete_log(partition, mark_id) {
            self.directory.fail(&error.to_string());
        }
    }

    /// Writes what waits, and asks for a round where there is something to sync.
    fn finish_drain(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if let Err(error) = slot.flush() {
                self.directory.fail(&error.to_string());
            }
            let durability = slot.partition.settings().core.durability;
            if durability == Durability::Disk
                && let Some(ticket) = slot.log.take_sync_ticket()
            {
                self.directory.round.submit(&slot.partition, ticket);
            }
        }
        self.touched = touched;
    }

    /// Closes all logs, so that the next start can trust their files; the last round syncs them.
    fn close(mut self) {
        for job in self.directory.queue.end() {
            job.refuse(ErrorCode::NotLeaderOrFollower);
        }
        if self.directory.is_failed() {
            return;
        }
        let mut in_order = true;
        for slot in self.slots.values_mut() {
            if let Err(error) = slot.log.prepare_close() {
                tracing::warn!(topic = %slot.partition.topic, "not closed in order: {error}");
                in_order = false;
            }
            if let Some(ticket) = slot.log.take_sync_ticket() {
                self.directory.round.submit(&slot.partition, ticket);
            }
        }
        self.directory.set_closed(in_order);
    }
}

impl Slot {
    /// Gives a client's batch its place, or answers it.
    fn admit(&mut self, mut job: ProduceJob) -> Result<(), LogError> {
        let now_ms = self.partition.wall_ms();
        let epoch = job.leader_epoch;
        let admission = match self.log.admit_client(&mut job.meta, epoch.get(), now_ms) {
            Ok(Admission::WriteFirst) => {
                if let Err(error) = self.flush() {
                    job.ticket.refuse(ErrorCode::KafkaStorageError);
                    return Err(error);
                }
                self.log.admit_client(&mut job.meta, epoch.get(), now_ms)
            }
            other => other,
        };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => {
                job.ticket.refuse(code_of(&error));
                return if error.is_fatal() { Err(error) } else { Ok(()) };
            }
        };
        match admission {
            Admission::Assigned { base_offset } => {
                // The batch was read with a whole header when it was submitted.
                let _ = assign_offsets(&mut job.records, Offset::new(base_offset), epoch);
                let needed = job.meta.next_offset();
                self.run.push(Admitted { job, base_offset, needed, duplicate: false });
            }
            Admission::Duplicate(first) => {
                let needed = first.last_offset.saturating_add(1);
                job.log_append_time_ms = job.log_append_time_ms.map(|_| first.timestamp);
                let base_offset = first.base_offset;
                self.run.push(Admitted { job, base_offset, needed, duplicate: true });
            }
            Admission::Rejected(error) => job.ticket.refuse(sequence_code(&error)),
            Admission::WriteFirst => job.ticket.refuse(ErrorCode::UnknownServerError),
        }
        Ok(())
    }

    /// Writes the run in one piece, publishes it, and answers or parks its requests.
    fn flush(&mut self) -> Result<(), LogError> {
        if self.run.is_empty() {
            return Ok(());
        }
        let mut run = std::mem::take(&mut self.run);
        let parts: Vec<IoSlice<'_>> = run
            .iter()
            .filter(|admitted| !admitted.duplicate)
            .map(|admitted| IoSlice::new(&admitted.job.records))
            .collect();
        let written = self.log.write(&parts);
        drop(parts);
        if let Err(error) = written {
            run.drain(..).for_each(|a| a.job.ticket.refuse(ErrorCode::KafkaStorageError));
            return Err(error);
        }
        let epochs = run.iter().find(|admitted| !admitted.duplicate);
        let epochs = epochs.map(|first| (first.job.leader_epoch, Offset::new(first.base_offset)));
        let appended = Appended {
            base_offset: Offset::new(self.run_base),
            end_offset: Offset::new(self.log.end_offset()),
            epochs: epochs.into_iter().collect(),
        };
        self.run_base = self.log.end_offset();
        let log_start = Offset::new(self.log.view().ends().log_start);
        let (mut parked, mut done) = (Vec::new(), Vec::new());
        for Admitted { job, base_offset, needed, .. } in run.drain(..) {
            let produced = Produced {
                base_offset: Offset::new(base_offset),
                log_append_time_ms: job.log_append_time_ms,
                log_start,
            };
            if job.acks == -1 {
                let (deadline, ticket) = (job.deadline, job.ticket);
                parked.push(WaitingProduce { needed, deadline, produced, ticket });
            } else {
                done.push((job.ticket, produced));
            }
        }
        // Before any answer: who hears of a record may ask for it at once.
        self.partition.appended(&appended, parked);
        done.into_iter().for_each(|(ticket, produced)| ticket.settle(Ok(produced)));
        self.run = run;
        Ok(())
    }

    fn act(&mut self, job: &LogJob, directory: &Directory) -> Result<(), LogError> {
        let now = self.partition.now();
        match job {
            LogJob::Open(_) | LogJob::Delete => {}
            LogJob::Adopt(epoch) => {
                self.epoch = Some(*epoch);
                let leads = self.partition.with_core(None, |core, effects| {
                    core.epoch_adopted(*epoch, now, effects);
                    core.leading() == Some(*epoch)
                });
                if leads == Some(true) {
                    // Elected all the same, so what cannot be read is given up.
                    self.repair()?;
                }
            }
            LogJob::AppendFetched(epoch, records) => self.append_fetched(*epoch, records)?,
            LogJob::Truncate(epoch, to) => {
                if self.is_current(*epoch) {
                    self.repair()?;
                    self.log.truncate_to(to.get())?;
                    self.partition.truncated();
                }
            }
            LogJob::RestartAt(epoch, start) => {
                if self.is_current(*epoch) {
                    self.repair()?;
                    self.log.restart_at(start.get())?;
                    self.partition.truncated();
                }
            }
            LogJob::DropBelow(start) => {
                let removed = self.log.advance_log_start(start.get(), i64::MAX);
                self.log_start_moved(removed, directory);
            }
            LogJob::CutRepaired => self.log.set_caught_up()?,
            LogJob::Configure(config) => self.log.set_config(config.clone()),
            LogJob::Retain => {
                let high_watermark =
                    self.partition.read_core(|core| core.high_watermark().get()).unwrap_or(0);
                let removed = self.log.apply_retention(self.partition.wall_ms(), high_watermark);
                match removed {
                    Ok(removed) => self.log_start_moved(removed, directory),
                    Err(error) if error.is_fatal() => return Err(error),
                    Err(_) => {}
                }
            }
            LogJob::Flush => {
                if let Some(ticket) = self.log.take_sync_ticket() {
                    directory.round.submit(&self.partition, ticket);
                }
            }
        }
        Ok(())
    }

    fn is_current(&self, epoch: LeaderEpoch) -> bool {
        let current = self.epoch == Some(epoch);
        if !current {
            self.partition.with_core(None, |core, _| core.append_refused(epoch));
        }
        current
    }

    /// What cannot be read is cut; to a follower it comes again from its leader.
    fn repair(&mut self) -> Result<(), LogError> {
        if self.log.damage().is_some() {
            self.log.cut_damage()?;
            self.partition.truncated();
        }
        Ok(())
    }

    fn append_fetched(&mut self, epoch: LeaderEpoch, records: &Bytes) -> Result<(), LogError> {
        if !self.is_current(epoch) {
            return Ok(());
        }
        self.repair()?;
        let base = self.log.end_offset();
        let taken = self.admit_fetched(records)?;
        if taken == 0 {
            self.partition.with_core(None, |core, _| core.append_refused(epoch));
            return Ok(());
        }
        let epochs = std::mem::take(&mut self.fetched_epochs(records, taken));
        let appended = Appended {
            base_offset: Offset::new(base),
            end_offset: Offset::new(self.log.end_offset()),
            epochs,
        };
        self.partition.appended(&appended, None);
        Ok(())
    }

    /// Writes the whole batches of a leader's answer; returns how many bytes those were. They were
    /// checked, checksums and order, by whoever fetched them.
    fn admit_fetched(&mut self, records: &Bytes) -> Result<usize, LogError> {
        let now_ms = self.partition.wall_ms();
        let (mut written, mut admitted) = (0_usize, 0_usize);
        for batch in Batches::new(records) {
            let Some(meta) = batch.ok().and_then(|batch| BatchMeta::parse(batch.bytes)) else {
                break;
            };
            let admission = match self.log.admit_replicated(&meta, now_ms) {
                Ok(false) => {
                    self.write_fetched(records, written, admitted)?;
                    written = admitted;
                    self.log.admit_replicated(&meta, now_ms)
                }
                other => other,
            };
            match admission {
                Ok(_) => admitted = admitted.saturating_add(meta.size_bytes as usize),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    let topic = &self.partition.topic;
                    tracing::warn!(%topic, "fetched batch refused: {error}");
                    break;
                }
            }
        }
        self.write_fetched(records, written, admitted)?;
        Ok(admitted)
    }

    fn write_fetched(&mut self, records: &Bytes, from: usize, to: usize) -> Result<(), LogError> {
        match records.get(from..to) {
            Some(bytes) if !bytes.is_empty() => self.log.write(&[IoSlice::new(bytes)]),
            Some(_) | None => Ok(()),
        }
    }

    /// Epochs of the batches in the first `length` bytes, with the first offset of each.
    fn fetched_epochs(&self, records: &Bytes, length: usize) -> Vec<(LeaderEpoch, Offset)> {
        let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
        let taken = records.get(..length).unwrap_or_default();
        for batch in Batches::new(taken).flatten() {
            let Some(epoch) = batch.header.leader_epoch else { continue };
            if epochs.last().is_none_or(|(last, _)| *last < epoch) {
                epochs.push((epoch, batch.header.base_offset));
            }
        }
        epochs
    }

    fn log_start_moved(&self, removed: broker_log::Removed, directory: &Directory) {
        directory.remove_later(removed.files);
        let start = Offset::new(removed.log_start);
        self.partition.with_core(None, |core, effects| {
            if core.positions().start < start {
                core.log_start_moved(start, effects);
            }
        });
    }
}

fn code_of(error: &LogError) -> ErrorCode {
    match error {
        LogError::BatchTooLarge { .. } => ErrorCode::RecordListTooLarge,
        LogError::Disk { .. } | LogError::Failed { .. } | LogError::Damaged { .. } => {
            ErrorCode::KafkaStorageError
        }
        LogError::OffsetGap { .. } | LogError::EpochFell { .. } => ErrorCode::UnknownServerError,
    }
}

fn sequence_code(error: &SequenceError) -> ErrorCode {
    match error {
        SequenceError::EpochFenced { .. } => ErrorCode::InvalidProducerEpoch,
        SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
    }
}
