//! What each idempotent producer wrote last, so that a retry is not written twice.
//!
//! Called by: `append` (check, then record), `recovery` and `truncate` (rebuilding from headers),
//! `snapshot`. Calls: nothing.
//! Invariant: per producer the batches kept are its last ones under its greatest epoch, at most
//! five, in order. Does not know files, or who the producers are.

use std::collections::{HashMap, VecDeque};

use crate::batch::{BatchMeta, sequence_plus};

/// Batches remembered per producer: a client has at most five requests in flight.
pub const BATCHES_KEPT: usize = 5;
/// Producers remembered per partition; beyond it the longest silent quarter is forgotten.
pub const PRODUCERS_MAX: usize = 100_000;

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record (inclusive).
    pub last_offset: i64,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// Its greatest timestamp, milliseconds.
    pub timestamp: i64,
}

impl ProducerBatch {
    /// Sequence number of its first record.
    pub fn first_sequence(&self) -> i32 {
        sequence_plus(self.last_sequence, self.offset_delta.wrapping_neg())
    }

    /// Offset of its first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset.saturating_sub(i64::from(self.offset_delta))
    }
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its epoch; -1 before it wrote anything.
    pub epoch: i16,
    /// Its last batches under that epoch, oldest first.
    pub batches: VecDeque<ProducerBatch>,
    /// Timestamp of its last batch or marker; decides when it is forgotten.
    pub last_timestamp: i64,
    /// Epoch of the transaction coordinator that wrote its last marker; -1 for none.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_first_offset: Option<i64>,
}

/// A batch that is in the log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Where its first record stands.
    pub base_offset: i64,
    /// Where its last record stands (inclusive).
    pub last_offset: i64,
    /// Its greatest timestamp.
    pub timestamp: i64,
}

/// Why a producer's batch must not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer instance of the producer has written.
    #[error("producer {producer_id} epoch {epoch} is older than {known}")]
    EpochFenced {
        /// The producer.
        producer_id: i64,
        /// Its epoch in the batch.
        epoch: i16,
        /// The greatest one seen.
        known: i16,
    },
    /// A batch is missing before this one, or it is an older one than those remembered.
    #[error("producer {producer_id} sends sequence {found} where {expected} belongs")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// First sequence of the batch.
        found: i32,
        /// The one that would fit.
        expected: i32,
    },
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: HashMap<i64, ProducerState>,
}

impl ProducerStates {
    /// Whether a batch from a client may be appended now: `Ok(None)` yes, `Ok(Some)` it is there
    /// already and is answered as then.
    ///
    /// # Errors
    /// [`SequenceError`], which the client hears as INVALID_PRODUCER_EPOCH or
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    pub fn check(&self, meta: &BatchMeta) -> Result<Option<Duplicate>, SequenceError> {
        if !meta.has_producer() {
            return Ok(None);
        }
        let Some(state) = self.producers.get(&meta.producer_id) else { return Ok(None) };
        if meta.producer_epoch == state.epoch
            && let Some(batch) = state.batches.iter().find(|batch| {
                batch.first_sequence() == meta.base_sequence
                    && batch.last_sequence == meta.last_sequence()
            })
        {
            return Ok(Some(Duplicate {
                base_offset: batch.base_offset(),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            }));
        }
        if meta.producer_epoch < state.epoch {
            return Err(SequenceError::EpochFenced {
                producer_id: meta.producer_id,
                epoch: meta.producer_epoch,
                known: state.epoch,
            });
        }
        let expected = match state.batches.back() {
            Some(last) if meta.producer_epoch == state.epoch => {
                sequence_plus(last.last_sequence, 1)
            }
            Some(_) | None => 0,
        };
        if meta.base_sequence != expected {
            return Err(SequenceError::OutOfOrder {
                producer_id: meta.producer_id,
                found: meta.base_sequence,
                expected,
            });
        }
        Ok(None)
    }

    /// Whether a batch from a client is in order only because nothing is known of its producer, or is not in order at all: something is
    /// missing before it.
    pub fn leaves_gap(&self, meta: &BatchMeta) -> bool {
        match self.check(meta) {
            Ok(Some(_)) | Err(SequenceError::EpochFenced { .. }) => false,
            Ok(None) => {
                let is_known = self.producers.contains_key(&meta.producer_id);
                meta.has_producer() && !is_known && meta.base_sequence != 0
            }
            Err(SequenceError::OutOfOrder { .. }) => true,
        }
    }

    /// Notes a batch that is (about to be) in the log, its offsets given.
    pub fn record(&mut self, meta: &BatchMeta) {
        if !meta.has_producer() {
            return;
        }
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&meta.producer_id)
        {
            self.forget_silent_quarter();
        }
        let state = self.producers.entry(meta.producer_id).or_insert_with(|| ProducerState {
            epoch: meta.producer_epoch,
            batches: VecDeque::with_capacity(BATCHES_KEPT),
            last_timestamp: meta.max_timestamp,
            coordinator_epoch: -1,
            transaction_first_offset: None,
        });
        if state.epoch != meta.producer_epoch {
            state.epoch = meta.producer_epoch;
            state.batches.clear();
        }
        state.last_timestamp = meta.max_timestamp;
        if meta.is_control() {
            state.transaction_first_offset = None;
            return;
        }
        if state.batches.len() >= BATCHES_KEPT {
            state.batches.pop_front();
        }
        state.batches.push_back(ProducerBatch {
            last_sequence: meta.last_sequence(),
            last_offset: meta.last_offset(),
            offset_delta: meta.last_offset_delta,
            timestamp: meta.max_timestamp,
        });
        if meta.is_transactional() && state.transaction_first_offset.is_none() {
            state.transaction_first_offset = Some(meta.base_offset);
        }
    }

    /// Puts a producer read from a snapshot in place.
    pub fn restore(&mut self, producer_id: i64, state: ProducerState) {
        self.producers.insert(producer_id, state);
    }

    /// Forgets producers without an open transaction whose last batch is older than `expiry_ms`.
    pub fn expire(&mut self, now_ms: i64, expiry_ms: i64) {
        self.producers.retain(|_, state| {
            state.transaction_first_offset.is_some()
                || now_ms.saturating_sub(state.last_timestamp) < expiry_ms
        });
    }

    /// First offset of the earliest open transaction, which bounds the last stable offset.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.producers.values().filter_map(|state| state.transaction_first_offset).min()
    }

    /// Number of producers known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// All producers, by id.
    pub fn sorted(&self) -> Vec<(i64, &ProducerState)> {
        let mut all: Vec<_> = self.producers.iter().map(|(id, state)| (*id, state)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn forget_silent_quarter(&mut self) {
        let mut silent: Vec<(i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, state)| state.transaction_first_offset.is_none())
            .map(|(id, state)| (state.last_timestamp, *id))
            .collect();
        silent.sort_unstable();
        for (_, id) in silent.iter().take(PRODUCERS_MAX / 4) {
            self.producers.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleBatch;

    fn batch(epoch: i16, sequence: i32, records: i32, base_offset: i64) -> BatchMeta {
        let sample = SampleBatch {
            base_offset,
            records,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence: sequence,
            ..SampleBatch::default()
        };
        BatchMeta::parse(&sample.encode()).unwrap()
    }

    fn with_batches(count: i32) -> ProducerStates {
        let mut states = ProducerStates::default();
        for number in 0..count {
            let meta = batch(2, number * 3, 3, 100 + i64::from(number) * 3);
            assert_eq!(states.check(&meta), Ok(None));
            states.record(&meta);
        }
        states
    }

    #[test]
    fn unknown_producer_may_begin_anywhere() {
        assert_eq!(ProducerStates::default().check(&batch(2, 55, 1, 0)), Ok(None));
    }

    #[test]
    fn each_of_the_last_five_is_answered_with_its_offset() {
        let states = with_batches(7);
        for number in 2..7 {
            let found = states.check(&batch(2, number * 3, 3, 0)).unwrap().unwrap();
            assert_eq!(found.base_offset, 100 + i64::from(number) * 3);
            assert_eq!(found.last_offset, found.base_offset + 2);
        }
        let older = states.check(&batch(2, 3, 3, 0));
        assert_eq!(
            older,
            Err(SequenceError::OutOfOrder { producer_id: 9, found: 3, expected: 21 })
        );
    }

    #[test]
    fn part_of_a_known_batch_is_no_duplicate() {
        let states = with_batches(2);
        assert!(states.check(&batch(2, 3, 2, 0)).is_err());
        assert!(states.check(&batch(2, 7, 1, 0)).is_err());
        assert_eq!(states.check(&batch(2, 6, 1, 0)), Ok(None));
    }

    #[test]
    fn gap_is_what_no_known_batch_comes_before() {
        let states = with_batches(2);
        assert!(states.leaves_gap(&batch(2, 9, 1, 0)));
        assert!(states.leaves_gap(&batch(3, 6, 1, 0)), "a new epoch begins at 0");
        for fits in [batch(2, 6, 1, 0), batch(2, 3, 3, 0), batch(1, 9, 1, 0), batch(3, 0, 1, 0)] {
            assert!(!states.leaves_gap(&fits), "{fits:?}");
        }
        let nobody = ProducerStates::default();
        assert!(nobody.leaves_gap(&batch(2, 1, 1, 0)), "it may be one, as far as is known");
        assert!(!nobody.leaves_gap(&batch(2, 0, 1, 0)));
        assert!(!nobody.leaves_gap(&BatchMeta { producer_id: -1, ..batch(2, 1, 1, 0) }));
    }

    #[test]
    fn new_epoch_begins_at_zero_and_fences_the_old() {
        let mut states = with_batches(2);
        assert_eq!(
            states.check(&batch(3, 6, 1, 0)),
            Err(SequenceError::OutOfOrder { producer_id: 9, found: 6, expected: 0 })
        );
        let first = batch(3, 0, 1, 106);
        assert_eq!(states.check(&first), Ok(None));
        states.record(&first);
        assert_eq!(
            states.check(&batch(2, 6, 1, 0)),
            Err(SequenceError::EpochFenced { producer_id: 9, epoch: 2, known: 3 })
        );
    }

    #[test]
    fn sequence_wraps_to_zero() {
        let mut states = ProducerStates::default();
        states.record(&batch(0, i32::MAX - 1, 2, 0));
        assert_eq!(states.check(&batch(0, 0, 1, 2)), Ok(None));
        states.record(&batch(0, 0, 2, 2));
        let across = batch(0, i32::MAX - 1, 2, 0);
        assert_eq!(states.check(&across).unwrap().map(|d| d.base_offset), Some(0));
    }

    #[test]
    fn producers_are_bounded_and_expire() {
        let mut states = ProducerStates::default();
        for id in 0..=PRODUCERS_MAX as i64 {
            let meta = BatchMeta { producer_id: id, max_timestamp: id, ..batch(0, 0, 1, 0) };
            states.record(&meta);
        }
        assert_eq!(states.len(), PRODUCERS_MAX - PRODUCERS_MAX / 4 + 1);
        states.expire(PRODUCERS_MAX as i64 + 10, 11);
        assert_eq!(states.len(), 1);
    }
}
