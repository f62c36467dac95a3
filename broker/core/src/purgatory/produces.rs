//! acks=all produces that wait for the high watermark.
//!
//! *Called by* the shell after an append and when a high watermark moves, a lead is lost, or time passes. Pure bookkeeping: it answers nothing
//! itself. Invariant: each wait of a parked request is settled exactly once, by the high watermark, the loss of the lead, or the deadline.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Millis, Offset};

use super::RequestId;

/// One partition of a produce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceWait<P> {
    /// The partition.
    pub partition: P,
    /// The high watermark that is needed: the exclusive end of the appended records.
    pub needed: Offset,
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Committed.
    Committed,
    /// The replica does not lead any more: NOT_LEADER_OR_FOLLOWER.
    LeadershipLost,
    /// The deadline passed: REQUEST_TIMED_OUT.
    TimedOut,
}

/// One wait that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled<P> {
    /// The request.
    pub request: RequestId,
    /// The partition.
    pub partition: P,
    /// How.
    pub outcome: Outcome,
    /// It was the request's last wait: answer it.
    pub last: bool,
}

#[derive(Clone, Debug)]
struct Parked<P> {
    deadline: Millis,
    waits: BTreeMap<P, Offset>,
}

/// All parked produces.
#[derive(Clone, Debug)]
pub struct ParkedProduces<P> {
    requests: BTreeMap<RequestId, Parked<P>>,
    by_partition: BTreeMap<P, BTreeSet<(Offset, RequestId)>>,
    deadlines: BTreeSet<(Millis, RequestId)>,
}

impl<P: Ord + Copy> Default for ParkedProduces<P> {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            by_partition: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<P: Ord + Copy> ParkedProduces<P> {
    /// How many requests wait. The shell bounds it by the bytes that it admits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Parks a request with its waits, at least one; a partition named twice waits for the greater offset.
    pub fn park(&mut self, request: RequestId, waits: &[ProduceWait<P>], deadline: Millis) {
        assert!(!waits.is_empty(), "request {request} waits for nothing");
        assert!(!self.requests.contains_key(&request), "request {request} is parked already");
        let mut parked = Parked { deadline, waits: BTreeMap::new() };
        for wait in waits {
            let needed = parked.waits.entry(wait.partition).or_insert(wait.needed);
            *needed = (*needed).max(wait.needed);
        }
        for (&partition, &needed) in &parked.waits {
            self.by_partition.entry(partition).or_default().insert((needed, request));
        }
        self.deadlines.insert((deadline, request));
        self.requests.insert(request, parked);
    }

    /// The high watermark of a partition moved.
    pub fn high_watermark(&mut self, partition: P, high_watermark: Offset) -> Vec<Settled<P>> {
        let mut settled = Vec::new();
        while let Some(&(needed, request)) =
            self.by_partition.get(&partition).and_then(BTreeSet::first)
        {
            if needed > high_watermark {
                break;
            }
            settled.push(self.settle(request, partition, Outcome::Committed));
        }
        settled
    }

    /// The replica does not lead a partition any more.
    pub fn leadership_lost(&mut self, partition: P) -> Vec<Settled<P>> {
        let mut settled = Vec::new();
        while let Some(&(_, request)) = self.by_partition.get(&partition).and_then(BTreeSet::first)
        {
            settled.push(self.settle(request, partition, Outcome::LeadershipLost));
        }
        settled
    }

    /// Time passed: ends what is over its deadline (inclusive).
    pub fn expire(&mut self, now: Millis) -> Vec<Settled<P>> {
        let mut settled = Vec::new();
        while let Some(&(deadline, request)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let waits: Vec<P> = self
                .requests
                .get(&request)
                .map(|p| p.waits.keys().copied().collect())
                .unwrap_or_default();
            for partition in waits {
                settled.push(self.settle(request, partition, Outcome::TimedOut));
            }
        }
        settled
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// The requester is gone: forgets the request without settling it.
    pub fn forget(&mut self, request: RequestId) {
        if let Some(parked) = self.requests.remove(&request) {
            self.deadlines.remove(&(parked.deadline, request));
            for (partition, needed) in parked.waits {
                self.remove_wait(partition, needed, request);
            }
        }
    }

    fn settle(&mut self, request: RequestId, partition: P, outcome: Outcome) -> Settled<P> {
        let mut last = false;
        if let Some(parked) = self.requests.get_mut(&request) {
            let needed = parked.waits.remove(&partition);
            let deadline = parked.deadline;
            last = parked.waits.is_empty();
            if let Some(needed) = needed {
                self.remove_wait(partition, needed, request);
            }
            if last {
                self.requests.remove(&request);
                self.deadlines.remove(&(deadline, request));
            }
        }
        Settled { request, partition, outcome, last }
    }

    fn remove_wait(&mut self, partition: P, needed: Offset, request: RequestId) {
        if let Some(waits) = self.by_partition.get_mut(&partition) {
            waits.remove(&(needed, request));
            if waits.is_empty() {
                self.by_partition.remove(&partition);
            }
        }
    }

    /// Panics when the three indexes differ.
    pub fn check(&self) {
        let waits: usize = self.requests.values().map(|parked| parked.waits.len()).sum();
        let indexed: usize = self.by_partition.values().map(BTreeSet::len).sum();
        assert_eq!(waits, indexed, "waits and their index");
        assert_eq!(self.requests.len(), self.deadlines.len(), "requests and their deadlines");
        assert!(self.requests.values().all(|parked| !parked.waits.is_empty()), "waits for nothing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(partition: u8, needed: i64) -> ProduceWait<u8> {
        ProduceWait { partition, needed: Offset::new(needed) }
    }

    fn settled(request: RequestId, partition: u8, outcome: Outcome, last: bool) -> Settled<u8> {
        Settled { request, partition, outcome, last }
    }

    fn three() -> ParkedProduces<u8> {
        let mut parked = ParkedProduces::default();
        parked.park(1, &[wait(0, 10), wait(1, 5)], Millis::new(100));
        parked.park(2, &[wait(0, 12)], Millis::new(50));
        parked.park(3, &[wait(0, 20)], Millis::new(100));
        parked.check();
        parked
    }

    #[test]
    fn the_high_watermark_settles_what_it_covers() {
        let mut parked = three();
        assert_eq!(parked.high_watermark(0, Offset::new(9)), vec![]);
        assert_eq!(
            parked.high_watermark(0, Offset::new(12)),
            vec![settled(1, 0, Outcome::Committed, false), settled(2, 0, Outcome::Committed, true)]
        );
        assert_eq!(
            parked.high_watermark(1, Offset::new(5)),
            vec![settled(1, 1, Outcome::Committed, true)]
        );
        parked.check();
        assert_eq!(parked.len(), 1);
    }

    #[test]
    fn a_lost_lead_and_the_deadline_settle_the_rest() {
        let mut parked = three();
        assert_eq!(parked.next_deadline(), Some(Millis::new(50)));
        assert_eq!(parked.expire(Millis::new(50)), vec![settled(2, 0, Outcome::TimedOut, true)]);
        assert_eq!(
            parked.leadership_lost(0),
            vec![
                settled(1, 0, Outcome::LeadershipLost, false),
                settled(3, 0, Outcome::LeadershipLost, true)
            ]
        );
        assert_eq!(parked.expire(Millis::new(100)), vec![settled(1, 1, Outcome::TimedOut, true)]);
        parked.check();
        assert!(parked.is_empty());
    }

    #[test]
    fn a_forgotten_request_leaves_nothing_behind() {
        let mut parked = three();
        for request in 1..=3 {
            parked.forget(request);
            parked.check();
        }
        assert_eq!(parked.next_deadline(), None);
        assert_eq!(parked.high_watermark(0, Offset::new(99)), vec![]);
    }
}
