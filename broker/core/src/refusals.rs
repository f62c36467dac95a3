//! Batches that were refused for a reason that passes, so that what their producers sent behind them is not taken for a gap.
//!
//! *Called by* the hosted partition. Invariant: per producer one note, of the first batch that it has to send again; no more than
//! [`NOTES_MAX`] notes, none older than [`KEPT_MS`]; a batch behind it is told of it once. It does not know the log: whether there is a gap at all is said there.
//!
//! A producer with many requests on the way hears of a refusal when the next ones are sent already. When the reason passes in between, those
//! find the place of the refused one empty. OUT_OF_ORDER_SEQUENCE_NUMBER would be true, but means that records are lost: librdkafka then raises
//! its epoch and sends all that is not answered again, of every partition, also what stands in a log already. The answer that the first one got
//! makes it send them again in order, under the sequences that they have. A batch that comes a second time, and the one that it was told
//! to wait for has not come before it, waits for one that was given up: then OUT_OF_ORDER_SEQUENCE_NUMBER is what helps its producer.

use std::collections::VecDeque;

use client_protocol::{ErrorCode, ProducerEpoch, ProducerId};

use crate::ids::Millis;

/// Producers remembered per partition; beyond it the oldest note goes, and its producer hears what it would hear without.
pub const NOTES_MAX: usize = 1_000;
/// Batches that may have been under way behind a refused one: more than any client keeps open. Beyond it the next ones hear what they would
/// hear without a note.
pub const FOLLOWERS_MAX: usize = 16;
/// A note counts for less than this: as long as clients wait for an answer by default, so that all that was on the way behind it has come.
pub const KEPT_MS: u64 = 30_000;

/// The place of an idempotent producer's batch among its others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequenced {
    /// Who sent it.
    pub producer: ProducerId,
    /// In which of its lives.
    pub epoch: ProducerEpoch,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

impl Sequenced {
    /// Whether it belongs behind another of the same life. Sequence numbers begin anew after `i32::MAX`.
    fn is_behind(&self, other: &Sequenced) -> bool {
        let ahead = self.base_sequence.wrapping_sub(other.base_sequence) & i32::MAX;
        self.is_of(other) && ahead != 0 && ahead <= i32::MAX / 2
    }

    fn is_of(&self, other: &Sequenced) -> bool {
        (self.producer, self.epoch) == (other.producer, other.epoch)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Note {
    first: Sequenced,
    error: ErrorCode,
    at: Millis,
    /// Sequences of those that were refused since, because they are behind it.
    followers: Vec<i32>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// By rising time.
    notes: VecDeque<Note>,
}

impl Refusals {
    /// A batch was refused with an error that passes.
    pub fn note(&mut self, batch: Sequenced, error: ErrorCode, now: Millis) {
        self.forget(now);
        let place = self.notes.iter().position(|note| note.first.producer == batch.producer);
        let former = place.and_then(|place| self.notes.get_mut(place));
        if let Some(note) = former.filter(|note| batch.is_behind(&note.first)) {
            // It waits for the same, and not the longer for it.
            if note.followers.len() < FOLLOWERS_MAX {
                note.followers.push(batch.base_sequence);
            }
            return;
        }
        place.and_then(|place| self.notes.remove(place));
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { first: batch, error, at: now, followers: Vec::new() });
    }

    /// A batch may be appended: nobody waits for it any more.
    pub fn settle(&mut self, batch: Sequenced) {
        self.notes.retain(|note| note.first != batch);
    }

    /// What to answer to this batch should the log find a gap before it: the error of the refused one that is missing there. None when
    /// nothing is known to be missing.
    pub fn behind(&mut self, batch: Sequenced, now: Millis) -> Option<ErrorCode> {
        if self.notes.is_empty() {
            return None;
        }
        self.forget(now);
        let note = self.notes.iter().find(|note| batch.is_behind(&note.first))?;
        let is_new = !note.followers.contains(&batch.base_sequence);
        (is_new && note.followers.len() < FOLLOWERS_MAX).then_some(note.error)
    }

    fn forget(&mut self, now: Millis) {
        while self.notes.front().is_some_and(|note| now.since(note.at) >= KEPT_MS) {
            self.notes.pop_front();
        }
    }

    /// Panics when an invariant is broken.
    pub fn check(&self) {
        assert!(self.notes.len() <= NOTES_MAX, "{} notes", self.notes.len());
        let followers = self.notes.iter().map(|note| note.followers.len()).max().unwrap_or(0);
        assert!(followers <= FOLLOWERS_MAX, "{followers} batches behind one");
        let rising = self.notes.iter().zip(self.notes.iter().skip(1));
        assert!(rising.into_iter().all(|(a, b)| a.at <= b.at), "notes out of order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer: i64, epoch: i16, base_sequence: i32) -> Sequenced {
        let (producer, epoch) = (ProducerId::new(producer), ProducerEpoch::new(epoch));
        Sequenced { producer, epoch, base_sequence }
    }

    fn refused(batches: &[(Sequenced, u64)]) -> Refusals {
        let mut refusals = Refusals::default();
        for (batch, at) in batches {
            refusals.note(*batch, ErrorCode::NotEnoughReplicas, Millis::new(*at));
            refusals.check();
        }
        refusals
    }

    fn behind(refusals: &mut Refusals, batch: Sequenced, at: u64) -> bool {
        refusals.behind(batch, Millis::new(at)).is_some()
    }

    #[test]
    fn only_what_comes_behind_the_refused_batch_of_the_same_life_waits_for_it() {
        let mut refusals = refused(&[(batch(9, 1, 10), 0), (batch(9, 1, 15), 1)]);
        assert_eq!(
            refusals.behind(batch(9, 1, 20), Millis::new(2)),
            Some(ErrorCode::NotEnoughReplicas)
        );
        assert!(!behind(&mut refusals, batch(9, 1, 10), 2), "the one that is waited for");
        assert!(!behind(&mut refusals, batch(9, 1, 5), 2), "one before it, sent again");
        assert!(!behind(&mut refusals, batch(9, 2, 20), 2), "a later life");
        assert!(!behind(&mut refusals, batch(8, 1, 20), 2), "somebody else");
    }

    #[test]
    fn who_comes_again_without_the_one_before_it_waits_for_nobody() {
        let mut refusals = refused(&[(batch(9, 1, 10), 0), (batch(9, 1, 15), 1)]);
        assert!(!behind(&mut refusals, batch(9, 1, 15), 2), "10 was given up");
        // 10 came again before it, and was refused again.
        refusals.note(batch(9, 1, 10), ErrorCode::NotEnoughReplicas, Millis::new(3));
        assert!(behind(&mut refusals, batch(9, 1, 15), 4));
    }

    #[test]
    fn who_is_behind_does_not_make_a_note_last_longer() {
        let mut refusals = refused(&[(batch(9, 1, 10), 0), (batch(9, 1, 15), KEPT_MS - 1)]);
        assert!(!behind(&mut refusals, batch(9, 1, 20), KEPT_MS));
    }

    #[test]
    fn those_behind_one_are_bounded() {
        let mut refusals = refused(&[(batch(9, 1, 0), 0)]);
        let most = i32::try_from(FOLLOWERS_MAX).unwrap();
        for sequence in 1..=most {
            assert!(behind(&mut refusals, batch(9, 1, sequence), 0));
            refusals.note(batch(9, 1, sequence), ErrorCode::NotEnoughReplicas, Millis::new(0));
            refusals.check();
        }
        assert!(!behind(&mut refusals, batch(9, 1, most + 1), 0));
        refusals.note(batch(9, 1, most + 1), ErrorCode::NotEnoughReplicas, Millis::new(0));
        refusals.check();
    }

    #[test]
    fn an_earlier_refusal_and_a_later_life_take_the_place_of_the_note() {
        let mut refusals = refused(&[(batch(9, 1, 10), 0), (batch(9, 1, 5), 0)]);
        assert!(behind(&mut refusals, batch(9, 1, 10), 1));
        refusals.note(batch(9, 2, 0), ErrorCode::NotLeaderOrFollower, Millis::new(1));
        assert!(!behind(&mut refusals, batch(9, 1, 10), 1));
        assert!(behind(&mut refusals, batch(9, 2, 1), 1));
    }

    #[test]
    fn who_may_be_appended_is_waited_for_no_longer() {
        let mut refusals = refused(&[(batch(9, 1, 10), 0), (batch(8, 1, 10), 0)]);
        refusals.settle(batch(9, 1, 15));
        assert!(behind(&mut refusals, batch(9, 1, 20), 1));
        refusals.settle(batch(9, 1, 10));
        assert!(!behind(&mut refusals, batch(9, 1, 20), 1));
        assert!(behind(&mut refusals, batch(8, 1, 20), 1));
    }

    #[test]
    fn sequences_that_begin_anew_are_behind_those_before() {
        let mut refusals = refused(&[(batch(9, 1, i32::MAX - 1), 0)]);
        assert!(behind(&mut refusals, batch(9, 1, 0), 0));
        assert!(behind(&mut refusals, batch(9, 1, 3), 0));
        assert!(!behind(&mut refusals, batch(9, 1, i32::MAX - 2), 0));
    }

    #[test]
    fn a_note_counts_as_long_as_a_request_can_be_on_the_way() {
        let mut refusals = refused(&[(batch(9, 1, 10), 100)]);
        assert!(behind(&mut refusals, batch(9, 1, 20), 100 + KEPT_MS - 1));
        assert!(!behind(&mut refusals, batch(9, 1, 20), 100 + KEPT_MS));
    }

    #[test]
    fn notes_are_bounded_and_the_oldest_goes() {
        let count = i64::try_from(NOTES_MAX).unwrap();
        let mut refusals = refused(&[]);
        for producer in 0..count {
            refusals.note(batch(producer, 0, 0), ErrorCode::NotLeaderOrFollower, Millis::new(0));
        }
        assert!(behind(&mut refusals, batch(0, 0, 1), 0));
        refusals.note(batch(count, 0, 0), ErrorCode::NotLeaderOrFollower, Millis::new(0));
        refusals.check();
        assert!(!behind(&mut refusals, batch(0, 0, 1), 0));
        assert!(behind(&mut refusals, batch(1, 0, 1), 0));
        assert!(behind(&mut refusals, batch(count, 0, 1), 0));
    }
}
