//! Fetches that wait for bytes.
//!
//! *Called by* the shell when a fetch found too little, and when an end or a high watermark moves. Pure bookkeeping: a woken fetch is looked at
//! again as if it had just come. Invariant: a fetch is woken at most once; waking too early costs a look, never a wrong answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Millis, Offset};

use super::RequestId;

/// One partition of a waiting fetch: woken when the limit that it reads to is above `above`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchWait<P> {
    /// The partition.
    pub partition: P,
    /// What the fetch could read to when it was parked: the log end offset (follower) or the high watermark (consumer).
    pub above: Offset,
}

#[derive(Clone, Debug)]
struct Parked<P> {
    deadline: Millis,
    /// Bytes that are still missing to the fetch's min_bytes.
    missing: u64,
    waits: BTreeMap<P, Offset>,
}

/// All parked fetches of one kind; followers and consumers wait for different limits and are kept apart.
#[derive(Clone, Debug)]
pub struct ParkedFetches<P> {
    requests: BTreeMap<RequestId, Parked<P>>,
    by_partition: BTreeMap<P, BTreeSet<RequestId>>,
    deadlines: BTreeSet<(Millis, RequestId)>,
}

impl<P: Ord + Copy> Default for ParkedFetches<P> {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            by_partition: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<P: Ord + Copy> ParkedFetches<P> {
    /// How many fetches wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Parks a fetch that lacks `missing` bytes, at least 1, until `deadline`; with no partitions it waits for the deadline alone.
    pub fn park(
        &mut self,
        request: RequestId,
        waits: &[FetchWait<P>],
        missing: u64,
        deadline: Millis,
    ) {
        assert!(!self.requests.contains_key(&request), "request {request} is parked already");
        let waits: BTreeMap<P, Offset> = waits.iter().map(|w| (w.partition, w.above)).collect();
        for &partition in waits.keys() {
            self.by_partition.entry(partition).or_default().insert(request);
        }
        self.deadlines.insert((deadline, request));
        self.requests.insert(request, Parked { deadline, missing: missing.max(1), waits });
    }

    /// The limit of a partition moved to `limit`, by `bytes` since it was last told: returns the fetches that have enough now.
    pub fn advanced(&mut self, partition: P, limit: Offset, bytes: u64) -> Vec<RequestId> {
        let mut woken = Vec::new();
        for request in self.by_partition.get(&partition).into_iter().flatten() {
            if let Some(parked) = self.requests.get_mut(request)
                && parked.waits.get(&partition).is_some_and(|&above| limit > above)
            {
                parked.missing = parked.missing.saturating_sub(bytes);
                if parked.missing == 0 {
                    woken.push(*request);
                }
            }
        }
        for &request in &woken {
            self.forget(request);
        }
        woken
    }

    /// Something happened to a partition that its fetchers must hear at once (lead lost, truncation, deletion, a newer fetch of the same
    /// follower): returns all fetches that wait on it.
    pub fn wake(&mut self, partition: P) -> Vec<RequestId> {
        let woken: Vec<_> =
            self.by_partition.get(&partition).into_iter().flatten().copied().collect();
        for &request in &woken {
            self.forget(request);
        }
        woken
    }

    /// Time passed: returns what is over its deadline (inclusive).
    pub fn expire(&mut self, now: Millis) -> Vec<RequestId> {
        let mut woken = Vec::new();
        while let Some(&(deadline, request)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.forget(request);
            woken.push(request);
        }
        woken
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Takes a fetch out without waking it; false when it does not wait (any more).
    pub fn forget(&mut self, request: RequestId) -> bool {
        let Some(parked) = self.requests.remove(&request) else { return false };
        self.deadlines.remove(&(parked.deadline, request));
        for partition in parked.waits.keys() {
            if let Some(waiting) = self.by_partition.get_mut(partition) {
                waiting.remove(&request);
                if waiting.is_empty() {
                    self.by_partition.remove(partition);
                }
            }
        }
        true
    }

    /// Panics when the three indexes differ.
    pub fn check(&self) {
        let waits: usize = self.requests.values().map(|parked| parked.waits.len()).sum();
        let indexed: usize = self.by_partition.values().map(BTreeSet::len).sum();
        assert_eq!(waits, indexed, "waits and their index");
        assert_eq!(self.requests.len(), self.deadlines.len(), "requests and their deadlines");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(partition: u8, above: i64) -> FetchWait<u8> {
        FetchWait { partition, above: Offset::new(above) }
    }

    fn two() -> ParkedFetches<u8> {
        let mut parked = ParkedFetches::default();
        parked.park(1, &[wait(0, 10), wait(1, 5)], 100, Millis::new(500));
        parked.park(2, &[wait(0, 20)], 1, Millis::new(300));
        parked.check();
        parked
    }

    #[test]
    fn bytes_over_all_partitions_wake() {
        let mut parked = two();
        assert_eq!(parked.advanced(0, Offset::new(15), 60), Vec::<RequestId>::new());
        assert_eq!(parked.advanced(1, Offset::new(5), 60), Vec::<RequestId>::new());
        assert_eq!(parked.advanced(1, Offset::new(6), 40), vec![1]);
        parked.check();
        assert_eq!(parked.advanced(0, Offset::new(21), 1), vec![2]);
        assert!(parked.is_empty());
    }

    #[test]
    fn events_and_deadlines_wake() {
        let mut parked = two();
        assert_eq!(parked.expire(Millis::new(300)), vec![2]);
        assert_eq!(parked.wake(0), vec![1]);
        assert_eq!(parked.wake(0), Vec::<RequestId>::new());
        assert!(!parked.forget(1));
        parked.check();
        assert_eq!(parked.next_deadline(), None);
    }
}
