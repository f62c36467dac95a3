//! What waits for one partition, what is under way there, and under which sequence numbers.
//!
//! *Called by* `producer`. *Calls* nothing.
//!
//! ```text
//! unsettled (in order of sequence):  [sent] [sent] [waiting again] | ready: [closed] [closed] | open
//! ```
//!
//! Invariants: a batch is sent only when all before it are under way, so that they arrive in order; a batch that is sent
//! again has the numbers it had, unless it is certain that no former attempt can be written any more; until the broker has
//! acknowledged the first batch under an identity, no second one is under way, because a broker that knows nothing of a
//! producer takes any number from it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use client_protocol::records::{BatchBuilder, Producer as Identity, Record, SealedBatch};
use client_protocol::{ProducerEpoch, ProducerId};

use super::settings::{RequestId, Settings};

/// Sequence numbers wrap from `i32::MAX` to 0.
const SEQUENCE_MASK: i32 = i32::MAX;

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// To be sent, or to be sent again.
    Waiting,
    /// Under way.
    Sent(RequestId),
}

/// A closed batch.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub(super) content: Arc<SealedBatch>,
    pub(super) token: T,
    pub(super) created_ms: u64,
    /// What it takes of the buffer.
    pub(super) bytes: usize,
    pub(super) identity: Option<Identity>,
    pub(super) progress: Progress,
    /// An attempt ended in a way that leaves open whether it was written.
    pub(super) may_be_written: bool,
    /// A batch of a lower number under the same identity is certainly not written and never will be, so this one, under
    /// its present number, cannot be either.
    pub(super) is_behind_gap: bool,
    pub(super) failures: u32,
    pub(super) last_failure: Option<String>,
}

/// The batch that takes records.
#[derive(Debug)]
pub(super) struct Open<T> {
    pub(super) builder: BatchBuilder,
    pub(super) token: T,
    pub(super) created_ms: u64,
    pub(super) is_urgent: bool,
}

/// Under which numbers the next batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbering {
    id: ProducerId,
    epoch: ProducerEpoch,
    next_sequence: i32,
    /// The broker has acknowledged a batch under this id and epoch.
    is_established: bool,
    has_gap: bool,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) open: Option<Open<T>>,
    pub(super) ready: VecDeque<Batch<T>>,
    pub(super) unsettled: VecDeque<Batch<T>>,
    pub(super) retry_at_ms: u64,
    numbering: Option<Numbering>,
    /// The next number is the first one of a higher epoch.
    must_raise_epoch: bool,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            open: None,
            ready: VecDeque::new(),
            unsettled: VecDeque::new(),
            retry_at_ms: 0,
            numbering: None,
            must_raise_epoch: false,
        }
    }
}

impl<T: Clone> Lane<T> {
    /// Nothing waits and nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.ready.is_empty() && self.unsettled.is_empty()
    }

    /// Adds a record to the open batch; its place there, `None` when it has no room.
    pub(super) fn append(&mut self, record: &Record) -> Option<u32> {
        let open = self.open.as_mut()?;
        let index = u32::try_from(open.builder.count()).ok()?;
        open.builder.push(record).then_some(index)
    }

    /// Closes the open batch. What it takes of the buffer was counted while it was filled.
    pub(super) fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let bytes = open.builder.size();
        let Some(content) = open.builder.seal() else { return };
        self.ready.push_back(Batch {
            content: Arc::new(content),
            token: open.token,
            created_ms: open.created_ms,
            bytes,
            identity: None,
            progress: Progress::Waiting,
            may_be_written: false,
            is_behind_gap: false,
            failures: 0,
            last_failure: None,
        });
    }

    /// When the open batch is to be sent although it is not full; `None` without one.
    pub(super) fn open_due_ms(&self, settings: &Settings) -> Option<u64> {
        let open = self.open.as_ref()?;
        let linger_ms = if open.is_urgent { 0 } else { settings.linger_ms };
        Some(open.created_ms.saturating_add(linger_ms))
    }

    /// The place in `unsettled` of the batch to be sent next, taken from `ready` where need be. `identity` is what the
    /// producer has.
    pub(super) fn next_to_send(
        &mut self,
        now_ms: u64,
        settings: &Settings,
        identity: Option<(ProducerId, ProducerEpoch)>,
    ) -> Option<usize> {
        if now_ms < self.retry_at_ms || (settings.idempotent && identity.is_none()) {
            return None;
        }
        let waiting = self.unsettled.iter().position(|b| b.progress == Progress::Waiting);
        let index = match waiting {
            Some(index) => index,
            None => {
                let in_flight_max = match self.numbering {
                    Some(numbering) if numbering.is_established => settings.in_flight_max,
                    None if !settings.idempotent => settings.in_flight_max,
                    Some(_) | None => 1,
                };
                if self.unsettled.len() >= in_flight_max {
                    return None;
                }
                if self.ready.is_empty() && self.open_due_ms(settings)? <= now_ms {
                    self.close();
                }
                self.unsettled.push_back(self.ready.pop_front()?);
                self.unsettled.len().checked_sub(1)?
            }
        };
        if settings.idempotent && !self.number(index, identity?) {
            return None;
        }
        Some(index)
    }

    /// Gives the batch its number, unless it has one; `false` while it cannot have one.
    fn number(&mut self, index: usize, identity: (ProducerId, ProducerEpoch)) -> bool {
        let Some(batch) = self.unsettled.get(index) else { return false };
        if batch.identity.is_some() {
            return true;
        }
        let count = batch.content.count();
        if index == 0 && self.numbering.is_some_and(|numbering| numbering.has_gap) {
            self.must_raise_epoch = true;
        }
        if self.must_raise_epoch || self.numbering.is_none() {
            // A higher epoch shuts out all that is under way with the former one.
            if index != 0 {
                return false;
            }
            let raised = self.numbering.filter(|_| self.must_raise_epoch);
            let (id, epoch) = match raised.map(|n| (n.id, n.epoch.next())) {
                Some((id, Some(epoch))) => (id, epoch),
                Some((_, None)) | None => identity,
            };
            self.numbering = Some(Numbering {
                id,
                epoch,
                next_sequence: 0,
                is_established: false,
                has_gap: false,
            });
            self.must_raise_epoch = false;
        } else if index > 0 && self.numbering.is_some_and(|numbering| !numbering.is_established) {
            return false;
        }
        let Some(numbering) = self.numbering.as_mut() else { return false };
        let base_sequence = numbering.next_sequence;
        numbering.next_sequence = base_sequence.wrapping_add(count) & SEQUENCE_MASK;
        let Some(batch) = self.unsettled.get_mut(index) else { return false };
        batch.is_behind_gap = numbering.has_gap;
        batch.identity = Some(Identity {
            id: numbering.id,
            epoch: numbering.epoch,
            base_sequence,
            is_transactional: false,
        });
        true
    }

    /// The place of the batch that is under way with a request.
    pub(super) fn index_of(&self, request: RequestId) -> Option<usize> {
        self.unsettled.iter().position(|batch| batch.progress == Progress::Sent(request))
    }

    /// The broker acknowledged a batch: it knows the producer.
    pub(super) fn acknowledge(&mut self, batch: &Batch<T>) {
        if let (Some(numbering), Some(identity)) = (self.numbering.as_mut(), batch.identity)
            && (numbering.id, numbering.epoch) == (identity.id, identity.epoch)
        {
            numbering.is_established = true;
        }
    }

    /// A batch with a number is certainly not written and was given up: what comes after it under the same identity
    /// will be refused, or already was.
    pub(super) fn leave_gap(&mut self, index: usize) {
        if let Some(numbering) = self.numbering.as_mut() {
            numbering.has_gap = true;
        }
        self.unsettled.iter_mut().skip(index).for_each(|batch| batch.is_behind_gap = true);
    }

    /// Takes all numbers back, so that everything not settled goes under a higher epoch; only where no former attempt
    /// of any can be written any more.
    pub(super) fn number_anew(&mut self) {
        self.must_raise_epoch = true;
        for batch in &mut self.unsettled {
            batch.identity = None;
            batch.progress = Progress::Waiting;
            batch.may_be_written = false;
            batch.is_behind_gap = false;
        }
    }

    /// Forgets the identity itself; the next batch goes under what the producer has then.
    pub(super) fn forget_identity(&mut self) {
        self.number_anew();
        self.must_raise_epoch = false;
        self.numbering = None;
    }

    /// What is under way went to a leader that leads no more: send it again, as it is.
    pub(super) fn reroute(&mut self) {
        for batch in &mut self.unsettled {
            if batch.progress != Progress::Waiting {
                batch.progress = Progress::Waiting;
                batch.may_be_written = true;
            }
        }
        self.retry_at_ms = 0;
    }

    /// Begins a batch in `buffer`.
    pub(super) fn begin(&mut self, buffer: BytesMut, (token, now_ms): (T, u64), bytes_max: usize) {
        self.open = Some(Open {
            builder: BatchBuilder::with_buffer(buffer, bytes_max),
            token,
            created_ms: now_ms,
            is_urgent: false,
        });
    }

    /// Bytes that this lane takes of the buffer.
    pub(super) fn buffered_bytes(&self) -> usize {
        let closed = self.ready.iter().chain(&self.unsettled).map(|batch| batch.bytes);
        let open = self.open.as_ref().map(|open| open.builder.size());
        closed.chain(open).fold(0, usize::saturating_add)
    }

    /// Panics where the lane contradicts itself.
    pub(super) fn check(&self, settings: &Settings) {
        assert!(self.unsettled.len() <= settings.in_flight_max, "too many batches under way");
        assert!(self.ready.iter().all(|b| b.identity.is_none()), "numbered before its turn");
        let first_waiting = self.unsettled.iter().position(|b| b.progress == Progress::Waiting);
        // Whatever is under way behind a waiting batch was sent before that one came back.
        if settings.idempotent
            && let Some(index) = first_waiting
        {
            let mut behind = self.unsettled.iter().skip(index);
            assert!(
                behind.all(|b| b.progress == Progress::Waiting || b.identity.is_some()),
                "sent without a number"
            );
        }
    }
}
