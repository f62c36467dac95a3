//! One log, and the batches that wait to be written to it.
//!
//! Called by: `appender`. Calls: `broker-log`. Invariant: the batches of a run go to the file in
//! one write, in the order in which they were admitted; what was permitted under another epoch than
//! the log adopted last is refused. Does not know the other logs.

use std::io::IoSlice;

use broker_core::ids::{LeaderEpoch, Offset};
use broker_core::partition::{Appended, Durability, Truncated};
use broker_core::purgatory::ProduceWait;
use broker_log::{
    Admission, BatchMeta, Cleaned, CleaningPlan, Log, LogError, Removed, SequenceError,
};
use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::records::{Batches, assign_offsets};

use super::folder::Folder;
use super::job::{Happened, LogJob, Owner, Placed, ProduceJob, Stored};

/// A log and what waits to be written to it.
pub(super) struct Slot<O, P> {
    pub of: O,
    pub log: Log,
    pub durability: Durability,
    epoch: Option<LeaderEpoch>,
    run: Vec<Admitted<P>>,
    /// End of the log before the run.
    run_base: i64,
}

/// A batch that has its place.
struct Admitted<P> {
    job: ProduceJob<P>,
    base_offset: i64,
    /// The high watermark that acks=all waits for.
    needed: i64,
    /// It stands in the log already: nothing is written.
    duplicate: bool,
}

/// What a step of a slot may use.
pub(super) struct Step<'a, O, P> {
    pub folder: &'a Folder,
    /// Milliseconds since 1970 UTC.
    pub wall_ms: i64,
    pub out: &'a mut Vec<Happened<O, P>>,
}

impl<O: Owner, P> Slot<O, P> {
    pub fn new(of: O, log: Log, durability: Durability) -> Self {
        let run_base = log.end_offset();
        Self { of, log, durability, epoch: None, run: Vec::new(), run_base }
    }

    /// Whether nothing waits to be written.
    pub fn is_written(&self) -> bool {
        self.run.is_empty()
    }

    /// Gives a client's batch its place, or refuses it.
    pub fn admit(
        &mut self,
        mut job: ProduceJob<P>,
        step: &mut Step<'_, O, P>,
    ) -> Result<(), LogError> {
        let epoch = job.leader_epoch;
        if self.epoch != Some(epoch) {
            step.out.push(job.refuse(self.of.clone(), ErrorCode::NotLeaderOrFollower));
            return Ok(());
        }
        // What is missing was refused for a reason that passes, and comes again: no gap yet.
        if let Some(error) = job.behind.filter(|_| self.log.leaves_gap(&job.meta)) {
            step.out.push(job.refuse(self.of.clone(), error));
            return Ok(());
        }
        if self.run.is_empty() {
            self.run_base = self.log.end_offset();
        }
        let admission = match self.log.admit_client(&mut job.meta, epoch.get(), step.wall_ms) {
            Ok(Admission::WriteFirst) => match self.flush(step) {
                Ok(()) => self.log.admit_client(&mut job.meta, epoch.get(), step.wall_ms),
                Err(error) => Err(error),
            },
            other => other,
        };
        let refused = match admission {
            Ok(Admission::Assigned { base_offset }) => {
                // The batch was read with a whole header when it was submitted.
                let _ = assign_offsets(&mut job.records, Offset::new(base_offset), epoch);
                let needed = job.meta.next_offset();
                self.run.push(Admitted { job, base_offset, needed, duplicate: false });
                return Ok(());
            }
            Ok(Admission::Duplicate(first)) => {
                let needed = first.last_offset.saturating_add(1);
                job.log_append_time_ms = job.log_append_time_ms.map(|_| first.timestamp);
                let base_offset = first.base_offset;
                self.run.push(Admitted { job, base_offset, needed, duplicate: true });
                return Ok(());
            }
            Ok(Admission::Rejected(error)) => sequence_code(&error),
            Ok(Admission::WriteFirst) => ErrorCode::UnknownServerError,
            Err(error) => {
                step.out.push(job.refuse(self.of.clone(), code_of(&error)));
                return if error.is_fatal() { Err(error) } else { Ok(()) };
            }
        };
        step.out.push(job.refuse(self.of.clone(), refused));
        Ok(())
    }

    /// Writes the run in one piece and publishes it.
    pub fn flush(&mut self, step: &mut Step<'_, O, P>) -> Result<(), LogError> {
        if self.run.is_empty() {
            return Ok(());
        }
        let parts: Vec<IoSlice<'_>> = self
            .run
            .iter()
            .filter(|admitted| !admitted.duplicate)
            .map(|admitted| IoSlice::new(&admitted.job.records))
            .collect();
        let written = self.log.write(&parts);
        drop(parts);
        if let Err(error) = written {
            let of = &self.of;
            let refuse = |a: Admitted<P>| a.job.refuse(of.clone(), ErrorCode::KafkaStorageError);
            step.out.extend(self.run.drain(..).map(refuse));
            return Err(error);
        }
        let first = self.run.iter().find(|admitted| !admitted.duplicate);
        let epochs = first.map(|first| (first.job.leader_epoch, Offset::new(first.base_offset)));
        let appended = Appended {
            base_offset: Offset::new(self.run_base),
            end_offset: Offset::new(self.log.end_offset()),
            epochs: epochs.into_iter().collect(),
        };
        self.run_base = self.log.end_offset();
        self.place_run(appended, step);
        Ok(())
    }

    fn place_run(&mut self, appended: Appended, step: &mut Step<'_, O, P>) {
        let log_start = Offset::new(self.log.view().ends().log_start);
        let (mut waits, mut done) = (Vec::new(), Vec::new());
        for Admitted { job, base_offset, needed, .. } in self.run.drain(..) {
            let log_append_time_ms = job.log_append_time_ms;
            let base_offset = Offset::new(base_offset);
            let placed = Placed { base_offset, log_append_time_ms, log_start };
            let produce = Stored { placed, produce: job.produce };
            if job.acks == -1 {
                let needed = Offset::new(needed);
                waits.push(ProduceWait { needed, deadline: job.deadline, produce });
            } else {
                done.push(produce);
            }
        }
        step.out.push(Happened::Appended { of: self.of.clone(), appended, waits, done });
    }

    /// Does what is neither opening nor deleting.
    pub fn act(&mut self, job: LogJob, step: &mut Step<'_, O, P>) -> Result<(), LogError> {
        match job {
            LogJob::Open(..) | LogJob::Delete => {}
            LogJob::Adopt { leader_epoch, leads } => {
                self.epoch = Some(leader_epoch);
                if leads {
                    // Elected all the same, so what cannot be read is given up.
                    self.repair(step)?;
                }
                step.out.push(Happened::EpochAdopted(self.of.clone(), leader_epoch));
            }
            LogJob::AppendFetched(epoch, records) => self.append_fetched(epoch, &records, step)?,
            LogJob::Truncate(epoch, to) => {
                if self.is_current(epoch, step) {
                    self.repair(step)?;
                    self.log.truncate_to(to.get())?;
                    self.truncated(step);
                }
            }
            LogJob::RestartAt(epoch, start) => {
                if self.is_current(epoch, step) {
                    self.repair(step)?;
                    let (key, start) = (self.of.key(), start.get());
                    step.folder
                        .restart_log(key, &mut self.log, start, |log| log.restart_at(start))?;
                    self.truncated(step);
                }
            }
            LogJob::DropBelow(start) => {
                let removed = self.log.advance_log_start(start.get(), i64::MAX);
                self.removed(removed, step);
            }
            LogJob::CutRepaired => self.log.set_caught_up()?,
            LogJob::Configure(config, durability) => {
                self.log.set_config(config);
                self.durability = durability;
            }
            LogJob::Retain(limit) => match self.log.apply_retention(step.wall_ms, limit.get()) {
                Ok(removed) => self.removed(removed, step),
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => {}
            },
            LogJob::Discard(segments) => {
                let files = self.log.discard(&segments)?;
                step.out.push(Happened::ToUnlink(files));
            }
            LogJob::Clean(limit) => match self.log.plan_cleaning(step.wall_ms, limit.get()) {
                Ok(Some(plan)) => {
                    step.out.push(Happened::ToClean(self.of.clone(), Box::new(plan)));
                }
                Ok(None) => {}
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => {}
            },
            LogJob::SwapCleaned(cleaned, swapped) => {
                let rest = self.swap_cleaned(*cleaned, step)?;
                // Whoever waited may have ended meanwhile, and with it all cleaning.
                swapped.try_send(rest.map(Box::new)).ok();
            }
            LogJob::GiveUpCleaning { for_good } => self.log.give_up_cleaning(for_good),
            LogJob::Flush => self.ask_for_sync(step),
        }
        Ok(())
    }

    fn swap_cleaned(
        &mut self,
        cleaned: Cleaned,
        step: &mut Step<'_, O, P>,
    ) -> Result<Option<CleaningPlan>, LogError> {
        match self.log.swap_cleaned(cleaned) {
            Ok(swapped) => {
                step.out.push(Happened::ToUnlink(swapped.discarded));
                Ok(swapped.rest)
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Asks for a round when there is something to sync.
    pub fn ask_for_sync(&mut self, step: &mut Step<'_, O, P>) {
        if let Some(ticket) = self.log.take_sync_ticket() {
            step.out.push(Happened::ToSync(self.of.clone(), ticket));
        }
    }

    fn is_current(&self, epoch: LeaderEpoch, step: &mut Step<'_, O, P>) -> bool {
        let current = self.epoch == Some(epoch);
        if !current {
            step.out.push(Happened::AppendRefused(self.of.clone(), epoch));
        }
        current
    }

    /// What cannot be read is cut; to a follower it comes again from its leader.
    fn repair(&mut self, step: &mut Step<'_, O, P>) -> Result<(), LogError> {
        if self.log.damage().is_some() {
            self.log.cut_damage()?;
            self.truncated(step);
        }
        Ok(())
    }

    fn truncated(&self, step: &mut Step<'_, O, P>) {
        let ends = self.log.view().ends();
        let truncated = Truncated {
            start: Offset::new(ends.log_start),
            end_offset: Offset::new(ends.end),
            durable_end: Offset::new(ends.durable_end),
            generation: self.log.view().generation(),
            cut_below_mark: self.log.cut_below_mark(),
        };
        step.out.push(Happened::Truncated(self.of.clone(), truncated));
    }

    fn append_fetched(
        &mut self,
        epoch: LeaderEpoch,
        records: &Bytes,
        step: &mut Step<'_, O, P>,
    ) -> Result<(), LogError> {
        if !self.is_current(epoch, step) {
            return Ok(());
        }
        let asked = self.log.end_offset();
        self.repair(step)?;
        let base = self.log.end_offset();
        // What the repair took besides would be a gap before these, and a gap passes for compaction.
        let taken = if base < asked { 0 } else { self.admit_fetched(records, step.wall_ms)? };
        if taken == 0 {
            step.out.push(Happened::AppendRefused(self.of.clone(), epoch));
            return Ok(());
        }
        let appended = Appended {
            base_offset: Offset::new(base),
            end_offset: Offset::new(self.log.end_offset()),
            epochs: fetched_epochs(records.get(..taken).unwrap_or_default()),
        };
        let of = self.of.clone();
        let (waits, done) = (Vec::new(), Vec::new());
        step.out.push(Happened::Appended { of, appended, waits, done });
        Ok(())
    }

    /// Writes the whole batches of a leader's answer; returns how many bytes those were. They were
    /// checked, checksums and order, by whoever fetched them.
    fn admit_fetched(&mut self, records: &Bytes, wall_ms: i64) -> Result<usize, LogError> {
        let (mut written, mut admitted) = (0_usize, 0_usize);
        for batch in Batches::new(records) {
            let Some(meta) = batch.ok().and_then(|batch| BatchMeta::parse(batch.bytes)) else {
                break;
            };
            let admission = match self.log.admit_replicated(&meta, wall_ms) {
                Ok(false) => {
                    self.write_fetched(records, written, admitted)?;
                    written = admitted;
                    self.log.admit_replicated(&meta, wall_ms)
                }
                other => other,
            };
            match admission {
                Ok(_) => admitted = admitted.saturating_add(meta.size_bytes as usize),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    let topic = self.of.topic();
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

    /// The log start moved. The files go when that is durable: a machine that loses power between
    /// two of them would else find a hole.
    fn removed(&self, removed: Removed, step: &mut Step<'_, O, P>) {
        let start = Offset::new(removed.log_start);
        step.out.push(Happened::LogStartMoved(self.of.clone(), start));
        if !removed.segments.is_empty() {
            step.out.push(Happened::Removed(self.of.clone(), removed.segments));
        }
    }
}

/// Epochs of batches, with the first offset of each.
fn fetched_epochs(records: &[u8]) -> Vec<(LeaderEpoch, Offset)> {
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for batch in Batches::new(records).flatten() {
        let Some(epoch) = batch.header.leader_epoch else { continue };
        if epochs.last().is_none_or(|(last, _)| *last < epoch) {
            epochs.push((epoch, batch.header.base_offset));
        }
    }
    epochs
}

fn code_of(error: &LogError) -> ErrorCode {
    match error {
        LogError::BatchTooLarge { .. } => ErrorCode::RecordListTooLarge,
        LogError::Disk { .. } | LogError::Failed { .. } | LogError::Damaged { .. } => {
            ErrorCode::KafkaStorageError
        }
        LogError::OffsetsFell { .. } | LogError::EpochFell { .. } => ErrorCode::UnknownServerError,
    }
}

fn sequence_code(error: &SequenceError) -> ErrorCode {
    match error {
        SequenceError::EpochFenced { .. } => ErrorCode::InvalidProducerEpoch,
        SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
    }
}
