//! Read-index rounds: up to which log position a read must wait to be linearizable.
//!
//! Called by `consensus/mod.rs`. Calls: nothing. Invariant: one round is on its way at a time; a
//! request is answered only by a round that began after it came. The engine loses rounds without
//! a word (no leader, or the leader's term has no commit yet), so rounds have ids of ours and are
//! begun again. It does not know what is read.

use std::collections::VecDeque;

use crate::Millis;

/// Before a round is taken for lost.
const ROUND_MS_MAX: u64 = 150;

/// Name of one request for a read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadId(pub u64);

#[derive(Debug)]
struct Round {
    context: Vec<u8>,
    /// Requests up to and including this one are answered by the round.
    upto: ReadId,
    lost_at: Millis,
}

/// All requests that wait.
#[derive(Debug)]
pub(super) struct ReadRounds {
    /// Makes contexts differ between servers and lives.
    origin: [u8; 16],
    last_round: u64,
    last_read: u64,
    waiting: VecDeque<ReadId>,
    round: Option<Round>,
}

impl ReadRounds {
    pub(super) fn new(server: u64, seed: u64) -> Self {
        let mut origin = [0; 16];
        let (head, tail) = origin.split_at_mut(8);
        head.copy_from_slice(&server.to_be_bytes());
        tail.copy_from_slice(&seed.to_be_bytes());
        Self { origin, last_round: 0, last_read: 0, waiting: VecDeque::new(), round: None }
    }

    /// A new request. It waits until [`Self::begin`] is called.
    pub(super) fn request(&mut self) -> ReadId {
        self.last_read = self.last_read.saturating_add(1);
        let id = ReadId(self.last_read);
        self.waiting.push_back(id);
        id
    }

    /// The context of a round to start now, if one should be.
    pub(super) fn begin(&mut self, now: Millis) -> Option<Vec<u8>> {
        let upto = *self.waiting.back()?;
        if self.round.as_ref().is_some_and(|round| now < round.lost_at) {
            return None;
        }
        self.last_round = self.last_round.saturating_add(1);
        let mut context = self.origin.to_vec();
        context.extend_from_slice(&self.last_round.to_be_bytes());
        self.round =
            Some(Round { context: context.clone(), upto, lost_at: now.plus_ms(ROUND_MS_MAX) });
        Some(context)
    }

    /// The leader changed or came into office: a round on its way may be lost, begin again.
    pub(super) fn forget_round(&mut self) {
        self.round = None;
    }

    /// The engine confirmed a round: the requests it answers.
    pub(super) fn confirm(&mut self, context: &[u8]) -> Vec<ReadId> {
        let Some(round) = self.round.take_if(|round| round.context == context) else {
            return Vec::new();
        };
        let count = self.waiting.iter().take_while(|id| **id <= round.upto).count();
        self.waiting.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_during_a_round_waits_for_the_next() {
        let mut reads = ReadRounds::new(1, 9);
        let now = Millis::new(10);
        let first = reads.request();
        let context = reads.begin(now).unwrap();
        let second = reads.request();
        assert_eq!(reads.begin(now), None);
        assert_eq!(reads.confirm(&context), vec![first]);
        let next = reads.begin(now).unwrap();
        assert_ne!(next, context);
        assert_eq!(reads.confirm(&context), vec![], "an old answer proves nothing");
        assert_eq!(reads.confirm(&next), vec![second]);
        assert_eq!(reads.begin(now), None);
    }

    #[test]
    fn lost_round_is_begun_again() {
        let mut reads = ReadRounds::new(1, 9);
        let now = Millis::new(10);
        let id = reads.request();
        let lost = reads.begin(now).unwrap();
        let again = reads.begin(now.plus_ms(ROUND_MS_MAX)).unwrap();
        assert_eq!(reads.confirm(&lost), vec![]);
        assert_eq!(reads.confirm(&again), vec![id]);
    }
}
