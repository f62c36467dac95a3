//! What answers mean for the partitions they are about.
//!
//! *Called by* the shell. *Calls* `partition`.
//!
//! Invariant: an answer counts only for a partition that still waits for that very request.

use std::collections::BTreeMap;

use client_protocol::messages::list_offsets::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartitionResponse,
};
use client_protocol::messages::offset_for_leader_epoch::OffsetForLeaderPartitionResult;
use client_protocol::messages::{ListOffsetsResponse, OffsetForLeaderEpochResponse};
use client_protocol::{ErrorCode, Offset, PartitionId};

use super::epochs::Parting;
use super::partition::{Partition, Phase};
use super::read::{PartitionAnswer, Position};
use super::{Buffered, Consumer, Failure, Fetched, RequestId, Reset, Trouble, is_buffered};
use crate::metadata::TopicPartition;

impl Consumer {
    /// The answer to [`super::Effect::Fetch`], taken apart by [`super::read::read`].
    pub fn fetched(
        &mut self,
        request: RequestId,
        answer: Result<Vec<PartitionAnswer>, Failure>,
        now_ms: u64,
    ) {
        let waiting = self.finish(request, answer.as_ref().err(), now_ms);
        let Ok(answers) = answer else { return };
        let mut answers: BTreeMap<_, _> =
            answers.into_iter().map(|answer| (answer.partition.clone(), answer)).collect();
        for partition in waiting {
            match answers.remove(&partition) {
                Some(answer) => self.take_answer(&partition, answer, now_ms),
                None => self.retry(&partition, now_ms),
            }
        }
    }

    /// The partitions that wait for this request, and now do so no more.
    fn finish(
        &mut self,
        request: RequestId,
        failure: Option<&Failure>,
        now_ms: u64,
    ) -> Vec<TopicPartition> {
        let Some(sent) = self.requests.remove(&request) else { return Vec::new() };
        if failure.is_some() {
            self.links.down((sent.broker, sent.slot), now_ms);
            self.asking.is_stale = true;
        }
        let mut waiting = sent.partitions;
        waiting.retain(|partition| {
            let known = self.partitions.get_mut(partition);
            known.is_some_and(|known| {
                known.under_way.take_if(|of| *of == request).is_some()
                    || planted!(self.settings.planted, TakeAbandonedAnswer)
            })
        });
        if failure.is_some() {
            waiting.iter().for_each(|partition| self.retry(partition, now_ms));
        }
        waiting
    }

    /// Asks again later, perhaps another leader.
    fn retry(&mut self, partition: &TopicPartition, now_ms: u64) {
        self.asking.is_stale = true;
        let Some(known) = self.partitions.get_mut(partition) else { return };
        known.failures = known.failures.saturating_add(1);
        let failures = known.failures;
        let retry_at_ms = now_ms.saturating_add(self.backoff_ms(failures));
        if let Some(known) = self.partitions.get_mut(partition) {
            known.retry_at_ms = retry_at_ms;
        }
    }

    fn take_answer(&mut self, partition: &TopicPartition, answer: PartitionAnswer, now_ms: u64) {
        let Some(known) = self.partitions.get_mut(partition) else { return };
        let Some(position) = known.position else { return };
        match answer.code {
            ErrorCode::None | ErrorCode::OffsetOutOfRange
                if known.is_doubted && is_cut(&answer, position) =>
            {
                let end = answer.log_start.unwrap_or(Offset::ZERO);
                return self.cut(partition, (position.offset, end));
            }
            ErrorCode::None => (known.is_doubted, known.is_removed) = (false, false),
            ErrorCode::OffsetOutOfRange => {
                let offset = position.offset;
                known.is_removed = answer.log_start.is_some_and(|start| start > offset);
                if self.waits_for_caller(partition) {
                    return;
                }
                return self
                    .reset(partition, |partition| Trouble::OutOfRange { partition, offset });
            }
            code if code.is_retriable() || code == ErrorCode::UnknownLeaderEpoch => {
                self.retry(partition, now_ms);
                if self.metadata.adopt_hint(partition, &answer.leader, &[]) {
                    self.moved(partition);
                }
                return;
            }
            code => {
                let partition = partition.clone();
                return self.trouble(&partition.clone(), Trouble::Refused { partition, code });
            }
        }
        known.failures = 0;
        known.unanswered_since_ms = None;
        known.high_watermark = answer.high_watermark.or(known.high_watermark);
        if let Some(source) = answer.error {
            let offset = position.offset;
            let partition = partition.clone();
            let trouble = Trouble::Unreadable { partition: partition.clone(), offset, source };
            return self.trouble(&partition, trouble);
        }
        let Some(next) = answer.next else { return };
        let next = Position { epoch: next.epoch.or(position.epoch), ..next };
        known.position = Some(next);
        answer.epochs.iter().for_each(|&(epoch, from)| known.epochs.push(epoch, from));
        let chunks = answer.chunks;
        let bytes = chunks.iter().fold(0usize, |sum, chunk| sum.saturating_add(chunk.size()));
        known.buffered_bytes = known.buffered_bytes.saturating_add(bytes);
        self.buffered_bytes = self.buffered_bytes.saturating_add(bytes);
        let version = known.version;
        let high_watermark = known.high_watermark;
        let partition = partition.clone();
        let fetched = Fetched { partition, chunks, next, high_watermark };
        self.buffer.push_back(Buffered::Records { version, bytes, fetched });
    }

    /// Whether the caller has yet to get what was read before; until then nothing more is asked of the partition.
    fn waits_for_caller(&mut self, partition: &TopicPartition) -> bool {
        let is_buffered = is_buffered(&self.buffer, partition);
        if let Some(known) = self.partitions.get_mut(partition) {
            known.waits_for_caller = is_buffered;
            known.unanswered_since_ms = None;
        }
        is_buffered
    }

    /// Begins anew where `reset` says, or tells the caller.
    fn reset(&mut self, partition: &TopicPartition, tell: impl FnOnce(TopicPartition) -> Trouble) {
        let timestamp = match self.settings.reset {
            Reset::Earliest => EARLIEST_TIMESTAMP,
            Reset::Latest => LATEST_TIMESTAMP,
            Reset::Error => return self.trouble(partition, tell(partition.clone())),
        };
        if let Some(known) = self.partitions.get_mut(partition) {
            known.phase = Phase::Find(timestamp);
        }
    }

    /// The answer to [`super::Effect::ListOffsets`].
    pub fn offsets_answered(
        &mut self,
        request: RequestId,
        answer: Result<ListOffsetsResponse, Failure>,
        now_ms: u64,
    ) {
        let waiting = self.finish(request, answer.as_ref().err(), now_ms);
        let Ok(answer) = answer else { return };
        let mut answers: BTreeMap<(String, PartitionId), ListOffsetsPartitionResponse> =
            BTreeMap::new();
        for topic in answer.topics {
            for found in topic.partitions {
                answers.insert((topic.name.clone(), found.partition_index), found);
            }
        }
        for partition in waiting {
            let found = answers.remove(&(partition.topic.to_string(), partition.partition));
            let Some(found) = found else {
                self.retry(&partition, now_ms);
                continue;
            };
            match found.error_code {
                ErrorCode::None => self.found(&partition, &found),
                code if code.is_retriable() || code == ErrorCode::UnknownLeaderEpoch => {
                    self.retry(&partition, now_ms);
                }
                code => {
                    let trouble = Trouble::Refused { partition: partition.clone(), code };
                    self.trouble(&partition, trouble);
                }
            }
        }
    }

    fn found(&mut self, partition: &TopicPartition, found: &ListOffsetsPartitionResponse) {
        let Some(known) = self.partitions.get_mut(partition) else { return };
        let Phase::Find(timestamp) = known.phase else { return };
        known.failures = 0;
        known.unanswered_since_ms = None;
        let Some(offset) = found.offset else {
            // No record is that young: begin after the last one.
            known.phase = Phase::Find(LATEST_TIMESTAMP);
            return;
        };
        if timestamp == LATEST_TIMESTAMP {
            known.high_watermark = Some(offset);
        }
        // Another leader may not have removed as much: nobody is sent back to what was read already.
        let read = known.position.filter(|at| known.is_removed && at.offset > offset);
        known.place(read.unwrap_or(Position { offset, epoch: None }));
    }

    /// The answer to [`super::Effect::CheckEpochs`].
    pub fn epochs_answered(
        &mut self,
        request: RequestId,
        answer: Result<OffsetForLeaderEpochResponse, Failure>,
        now_ms: u64,
    ) {
        // A broker that does not know the question cannot be asked; then nothing is checked.
        let is_unknown = answer.as_ref().is_err_and(|failure| failure.is_final);
        let failure = answer.as_ref().err().filter(|_| !is_unknown);
        let waiting = self.finish(request, failure, now_ms);
        let answers = match answer {
            Ok(answer) => answer.topics,
            Err(_) if is_unknown => {
                waiting.iter().for_each(|partition| self.checked(partition));
                return;
            }
            Err(_) => return,
        };
        let mut by_name: BTreeMap<(String, PartitionId), OffsetForLeaderPartitionResult> =
            BTreeMap::new();
        for topic in answers {
            for end in topic.partitions {
                by_name.insert((topic.topic.clone(), end.partition), end);
            }
        }
        for partition in waiting {
            match by_name.remove(&(partition.topic.to_string(), partition.partition)) {
                Some(end) if end.error_code.is_none() => {
                    if !self.compare(&partition, &end) {
                        self.retry(&partition, now_ms);
                    }
                }
                Some(_) | None => self.retry(&partition, now_ms),
            }
        }
    }

    fn checked(&mut self, partition: &TopicPartition) {
        let epoch = self.metadata.leader(partition).epoch;
        if let Some(known) = self.partitions.get_mut(partition) {
            known.failures = 0;
            known.checked = epoch.max(known.checked);
            known.is_doubted = false;
            known.narrowed = None;
        }
    }

    /// Compares a position with where its epoch ends in the new leader's log. Whether the answer told anything.
    fn compare(
        &mut self,
        partition: &TopicPartition,
        end: &OffsetForLeaderPartitionResult,
    ) -> bool {
        let Some(known) = self.partitions.get_mut(partition) else { return true };
        let Some(position) = known.position else { return true };
        if end.leader_epoch > known.narrowed.unwrap_or(position).epoch {
            // An epoch above the one that was asked for is no answer.
            return false;
        }
        let end_offset = end.end_offset.unwrap_or(Offset::ZERO);
        let parting = match (end.leader_epoch, known.narrowed) {
            (Some(epoch), None) if end_offset >= position.offset => {
                known.epochs.keep_up_to(epoch);
                self.checked(partition);
                return true;
            }
            (Some(epoch), Some(at)) if at.epoch == Some(epoch) && end_offset >= at.offset => {
                Parting::At(at)
            }
            (Some(epoch), at) => {
                known.epochs.parting(epoch, end_offset.min(at.unwrap_or(position).offset))
            }
            (None, None) => {
                self.checked(partition);
                if let Some(known) = self.partitions.get_mut(partition) {
                    known.is_doubted = true;
                }
                return true;
            }
            (None, Some(at)) => Parting::At(at),
        };
        match parting {
            Parting::Before(at) => known.narrowed = Some(at),
            Parting::At(_) if planted!(self.settings.planted, IgnoreCut) => self.checked(partition),
            Parting::At(at) if self.settings.reset == Reset::Error => {
                self.cut(partition, (position.offset, at.offset));
            }
            Parting::At(at) => {
                let is_doubted = end.leader_epoch.is_none();
                self.go_back(partition, at, is_doubted);
            }
        }
        true
    }

    /// What was read from `end` on is not what the log holds now. Where the caller is behind it nothing is lost to it.
    fn go_back(&mut self, partition: &TopicPartition, end: Position, is_doubted: bool) {
        self.drop_buffered(partition);
        self.next_version = self.next_version.saturating_add(1);
        let version = self.next_version;
        self.checked(partition);
        if let Some(known) = self.partitions.get_mut(partition) {
            known.version = version;
            known.buffered_bytes = 0;
            // Buffered records before the cut are read again.
            let consumed = known.consumed.filter(|at| at.offset <= end.offset);
            known.place(consumed.unwrap_or(end));
            known.is_doubted = is_doubted;
        }
    }

    /// What was read is not in the log any more, from `end` on.
    fn cut(&mut self, partition: &TopicPartition, (position, end): (Offset, Offset)) {
        if self.waits_for_caller(partition) {
            return;
        }
        if let Some(known) = self.partitions.get_mut(partition) {
            known.is_removed = false;
        }
        self.reset(partition, |partition| Trouble::Truncated { partition, position, end });
    }
}

/// Whether a log that knows nothing as old as what was read should have it: then it has other records in its place, or none.
/// One that starts at the position or behind it has removed it, as it may. Who does not say where it starts is not believed.
fn is_cut(answer: &PartitionAnswer, position: Position) -> bool {
    answer.log_start.is_none_or(|start| start < position.offset)
}

impl Partition {
    fn place(&mut self, position: Position) {
        self.phase = Phase::Reading;
        self.epochs.keep_before(position);
        self.narrowed = None;
        self.is_doubted = false;
        self.is_removed = false;
        self.position = Some(position);
        self.consumed = Some(position);
    }
}
