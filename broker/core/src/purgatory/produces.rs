//! acks=all produces that wait for the high watermark of one partition.
//!
//! *Called by* the hosted partition after an append and when its high watermark moves, its lead is lost, or time passes. Invariant: each
//! parked batch is released exactly once, by the high watermark, the loss of the lead, or the deadline; those that the high watermark
//! releases, by rising offset.

use std::collections::VecDeque;

use client_protocol::ErrorCode;

use crate::ids::{Millis, Offset};

use super::Released;

/// A batch that stands in the log and waits until it is committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceWait<P> {
    /// The high watermark that is needed: the exclusive end of the batch.
    pub needed: Offset,
    /// Answered with REQUEST_TIMED_OUT from then on.
    pub deadline: Millis,
    /// Who waits.
    pub produce: P,
}

/// The produces that wait on one partition. The shell bounds them by the bytes that it admits.
#[derive(Clone, Debug)]
pub struct ParkedProduces<P> {
    queue: VecDeque<ProduceWait<P>>,
}

impl<P> Default for ParkedProduces<P> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<P> ParkedProduces<P> {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Parks a batch.
    pub fn park(&mut self, wait: ProduceWait<P>) {
        // Nearly always the last: only a duplicate waits for an offset below those it comes after.
        let at = match self.queue.back() {
            Some(last) if last.needed > wait.needed => {
                self.queue.partition_point(|other| other.needed <= wait.needed)
            }
            Some(_) | None => self.queue.len(),
        };
        self.queue.insert(at, wait);
    }

    /// The high watermark moved: releases what it covers.
    pub fn committed<F>(&mut self, high_watermark: Offset, released: &mut Vec<Released<P, F>>) {
        while self.queue.front().is_some_and(|first| first.needed <= high_watermark) {
            if let Some(wait) = self.queue.pop_front() {
                released.push(Released::Settled(wait.produce, Ok(())));
            }
        }
    }

    /// Releases all with an error.
    pub fn refuse_all<F>(&mut self, error: ErrorCode, released: &mut Vec<Released<P, F>>) {
        released.extend(self.queue.drain(..).map(|w| Released::Settled(w.produce, Err(error))));
    }

    /// Time passed: releases what is over its deadline (inclusive).
    pub fn expire<F>(&mut self, now: Millis, released: &mut Vec<Released<P, F>>) {
        if self.queue.iter().all(|wait| wait.deadline > now) {
            return;
        }
        for wait in std::mem::take(&mut self.queue) {
            if wait.deadline > now {
                self.queue.push_back(wait);
            } else {
                released.push(Released::Settled(wait.produce, Err(ErrorCode::RequestTimedOut)));
            }
        }
    }

    /// Panics when the order is broken.
    pub fn check(&self) {
        let rising = self.queue.iter().zip(self.queue.iter().skip(1));
        assert!(rising.into_iter().all(|(a, b)| a.needed <= b.needed), "produces out of order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Out = Vec<Released<u8, ()>>;

    fn wait(produce: u8, needed: i64, deadline: u64) -> ProduceWait<u8> {
        ProduceWait { needed: Offset::new(needed), deadline: Millis::new(deadline), produce }
    }

    fn three() -> ParkedProduces<u8> {
        let mut parked = ParkedProduces::default();
        parked.park(wait(1, 10, 100));
        parked.park(wait(2, 20, 50));
        parked.park(wait(3, 12, 100));
        parked.check();
        parked
    }

    fn settled(produce: u8, result: Result<(), ErrorCode>) -> Released<u8, ()> {
        Released::Settled(produce, result)
    }

    #[test]
    fn the_high_watermark_releases_what_it_covers_by_offset() {
        let (mut parked, mut out) = (three(), Out::new());
        parked.committed(Offset::new(9), &mut out);
        assert_eq!(out, []);
        parked.committed(Offset::new(12), &mut out);
        assert_eq!(out, [settled(1, Ok(())), settled(3, Ok(()))]);
        parked.check();
        assert_eq!(parked.len(), 1);
    }

    #[test]
    fn a_lost_lead_and_the_deadline_release_the_rest_once() {
        let (mut parked, mut out) = (three(), Out::new());
        parked.expire(Millis::new(49), &mut out);
        assert_eq!(out, []);
        parked.expire(Millis::new(50), &mut out);
        let over = settled(2, Err(ErrorCode::RequestTimedOut));
        assert_eq!(out, std::slice::from_ref(&over));
        parked.check();
        parked.refuse_all(ErrorCode::NotLeaderOrFollower, &mut out);
        let lost = |produce| settled(produce, Err(ErrorCode::NotLeaderOrFollower));
        assert_eq!(out, [over, lost(1), lost(3)]);
        assert!(parked.is_empty());
    }
}
