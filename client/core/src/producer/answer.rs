//! What an answer to a Produce request means for each batch in it.
//!
//! *Called by* the shell through [`Producer::answered`]. *Calls* `lane`.
//!
//! Invariant: a batch is called absent only when no attempt of it can have been written, now or later; a batch is given
//! other numbers only then.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::messages::ProduceResponse;
use client_protocol::messages::produce::ProducePartitionResponse;
use client_protocol::{ErrorCode, PartitionId};

use super::lane::{Batch, Progress};
use super::settings::{Cause, Effect, Failure, RequestId, Undelivered, Written};
use super::{IdentityState, Link, Producer, SPARE_BUFFERS_MAX};
use crate::metadata::TopicPartition;

/// What one attempt of a batch came to.
#[derive(Clone, Debug)]
enum Attempt {
    Written(Written),
    /// To be tried again.
    Again {
        reason: String,
        may_be_written: bool,
    },
    /// The broker expected another number.
    OutOfOrder(ErrorCode),
    /// The broker knows the producer under a higher epoch.
    ShutOut(ErrorCode),
    /// To be given up.
    Refused {
        cause: Cause,
        may_be_written: bool,
    },
}

impl<T: Clone> Producer<T> {
    /// The answer to [`Effect::Send`]: with acks=0, an empty one when the request was sent.
    pub fn answered(
        &mut self,
        request: RequestId,
        answer: Result<ProduceResponse, Failure>,
        now_ms: u64,
        effects: &mut Vec<Effect<T>>,
    ) {
        let Some(sent) = self.requests.remove(&request) else { return };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                if !failure.is_final && self.links.get(&sent.broker) == Some(&Link::Up) {
                    self.connect_failed(sent.broker, now_ms);
                }
                let attempt = without_answer(failure);
                for partition in sent.partitions {
                    self.attempted((request, &partition), attempt.clone(), now_ms, effects);
                }
                return;
            }
        };
        let endpoints = answer.node_endpoints;
        let mut answers: BTreeMap<(String, PartitionId), ProducePartitionResponse> =
            BTreeMap::new();
        for topic in answer.topics {
            for partition in topic.partitions {
                answers.insert((topic.name.clone(), partition.index), partition);
            }
        }
        for partition in sent.partitions {
            let answer = answers.remove(&(partition.topic.to_string(), partition.partition));
            let hint = answer.as_ref().map(|answer| answer.current_leader.clone());
            let attempt = self.attempt(answer);
            self.attempted((request, &partition), attempt, now_ms, effects);
            if let Some(hint) = hint
                && self.metadata.adopt_hint(&partition, &hint, &endpoints)
            {
                self.moved(&partition);
            }
        }
    }

    fn attempt(&self, answer: Option<ProducePartitionResponse>) -> Attempt {
        let Some(answer) = answer else {
            return if self.settings.is_acknowledged {
                let cause = Cause::Refused(
                    ErrorCode::UnknownServerError,
                    Some("the answer leaves the partition out".to_owned()),
                );
                Attempt::Refused { cause, may_be_written: true }
            } else {
                Attempt::Written(Written { base_offset: None })
            };
        };
        let may_be_written = !is_certainly_absent(answer.error_code);
        match answer.error_code {
            ErrorCode::None => Attempt::Written(Written { base_offset: answer.base_offset }),
            ErrorCode::DuplicateSequenceNumber => Attempt::Written(Written { base_offset: None }),
            code @ (ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId)
                if self.settings.idempotent =>
            {
                Attempt::OutOfOrder(code)
            }
            code @ (ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced)
                if self.settings.idempotent =>
            {
                Attempt::ShutOut(code)
            }
            code if code.is_retriable() => {
                Attempt::Again { reason: code.to_string(), may_be_written }
            }
            code => {
                let cause = Cause::Refused(code, answer.error_message);
                Attempt::Refused { cause, may_be_written }
            }
        }
    }

    fn attempted(
        &mut self,
        (request, partition): (RequestId, &TopicPartition),
        attempt: Attempt,
        now_ms: u64,
        effects: &mut Vec<Effect<T>>,
    ) {
        let settings = self.settings.clone();
        let Some(lane) = self.lane_mut(partition) else { return };
        // Settled meanwhile, or sent again elsewhere: then that attempt counts.
        let Some(index) = lane.index_of(request) else { return };
        let Some(batch) = lane.unsettled.get_mut(index) else { return };
        batch.progress = Progress::Waiting;
        let is_dead = !batch.may_be_written || batch.is_behind_gap;
        let refused =
            |cause, is_absent| Undelivered { partition: partition.clone(), cause, is_absent };
        let result = match attempt {
            Attempt::Written(written) => Ok(written),
            Attempt::Again { reason, may_be_written } => {
                batch.may_be_written |= may_be_written;
                batch.failures = batch.failures.saturating_add(1);
                batch.last_failure = Some(reason);
                lane.retry_at_ms = now_ms.saturating_add(settings.backoff_ms(batch.failures));
                self.asking.is_stale = true;
                return;
            }
            // Something before it is still to be written.
            Attempt::OutOfOrder(_) | Attempt::ShutOut(_) if index > 0 => return,
            Attempt::OutOfOrder(_) if is_dead => return lane.number_anew(),
            Attempt::ShutOut(_) if is_dead => {
                lane.forget_identity();
                self.identity = IdentityState::Missing { retry_at_ms: 0 };
                return;
            }
            Attempt::OutOfOrder(code) | Attempt::ShutOut(code) => {
                Err(refused(Cause::Refused(code, None), false))
            }
            Attempt::Refused { cause, may_be_written } => {
                let is_absent = is_dead && !may_be_written;
                if is_absent && batch.identity.is_some() {
                    lane.leave_gap(index);
                }
                Err(refused(cause, is_absent))
            }
        };
        let Some(batch) = lane.unsettled.remove(index) else { return };
        if result.is_ok() {
            lane.acknowledge(&batch);
        }
        self.settle(batch, result, effects);
    }

    /// Ends a batch that is in no lane any more.
    pub(super) fn settle(
        &mut self,
        batch: Batch<T>,
        result: Result<Written, Undelivered>,
        effects: &mut Vec<Effect<T>>,
    ) {
        self.buffered_bytes = self.buffered_bytes.saturating_sub(batch.bytes);
        effects.push(Effect::Settled { token: batch.token, result });
        // Unless the shell still holds it, or it is of a size that will not come again.
        let buffer = Arc::try_unwrap(batch.content).ok().and_then(|content| content.into_buffer());
        if let Some(buffer) = buffer
            && self.spare_buffers.len() < SPARE_BUFFERS_MAX
            && buffer.capacity() <= self.settings.batch_bytes_max.saturating_mul(2)
        {
            self.spare_buffers.push(buffer);
        }
    }
}

fn without_answer(failure: Failure) -> Attempt {
    let may_be_written = failure.may_be_done;
    if failure.is_final {
        Attempt::Refused { cause: Cause::Unusable(failure.reason), may_be_written }
    } else {
        Attempt::Again { reason: failure.reason, may_be_written }
    }
}

/// Brokers say so before they append anything.
fn is_certainly_absent(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotEnoughReplicas
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidTimestamp
            | ErrorCode::InvalidRequiredAcks
            | ErrorCode::InvalidTopicException
            | ErrorCode::UnsupportedCompressionType
            | ErrorCode::UnsupportedForMessageFormat
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::PolicyViolation
            | ErrorCode::UnknownTopicId
    )
}
