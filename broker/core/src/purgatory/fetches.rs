//! Fetches that wait for bytes of one partition, and when a fetch as a whole has waited enough.
//!
//! *Called by* the hosted partition when an end or a high watermark moves, and by the shell between two looks of a fetch. Invariant: a wait
//! is woken at most once; waking too early costs a look, never a wrong answer. A fetch of many partitions waits on each, is woken by the
//! first that has news, and is then taken off all.

use crate::ids::{BrokerId, Millis, Offset};

use super::Released;

/// One fetch's wait on one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchWait<F> {
    /// Who waits.
    pub fetch: F,
    /// The follower that fetches, which may read to the end; `None` for a consumer, who may read to the high watermark.
    pub replica: Option<BrokerId>,
    /// What could be read to when it was looked at.
    pub above: Offset,
}

/// The fetches that wait on one partition.
#[derive(Clone, Debug)]
pub struct ParkedFetches<F> {
    waits: Vec<FetchWait<F>>,
}

impl<F> Default for ParkedFetches<F> {
    fn default() -> Self {
        Self { waits: Vec::new() }
    }
}

impl<F> ParkedFetches<F> {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Waits until what the fetch may read ends above its `above`.
    pub fn park(&mut self, wait: FetchWait<F>) {
        self.waits.push(wait);
    }

    /// Takes a fetch off without waking it.
    pub fn forget(&mut self, is_it: impl Fn(&F) -> bool) {
        self.waits.retain(|wait| !is_it(&wait.fetch));
    }

    /// The high watermark moved: consumers may read on.
    pub fn high_watermark<P>(&mut self, limit: Offset, released: &mut Vec<Released<P, F>>) {
        self.wake(|wait| wait.replica.is_none() && limit > wait.above, released);
    }

    /// The log grew: followers may read on.
    pub fn end_moved<P>(&mut self, limit: Offset, released: &mut Vec<Released<P, F>>) {
        self.wake(|wait| wait.replica.is_some() && limit > wait.above, released);
    }

    /// A newer fetch of the same follower came: the older one is answered at once (D4).
    pub fn superseded<P>(&mut self, replica: BrokerId, released: &mut Vec<Released<P, F>>) {
        self.wake(|wait| wait.replica == Some(replica), released);
    }

    /// Something happened that all must hear: the lead lost, a truncation, the end of the partition.
    pub fn wake_all<P>(&mut self, released: &mut Vec<Released<P, F>>) {
        self.wake(|_| true, released);
    }

    fn wake<P>(
        &mut self,
        is_due: impl Fn(&FetchWait<F>) -> bool,
        released: &mut Vec<Released<P, F>>,
    ) {
        let due = self.waits.extract_if(.., |wait| is_due(wait));
        released.extend(due.map(|wait| Released::Woken(wait.fetch)));
    }
}

/// How long a whole fetch waits, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchTerms {
    /// The follower that fetches; `None` for a consumer.
    pub replica: Option<BrokerId>,
    /// Answer as soon as so many bytes of records are there.
    pub bytes_min: u64,
    /// Answer with what is there from then on.
    pub deadline: Millis,
}

/// What a look at all partitions of a fetch found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Bytes of records.
    pub bytes: u64,
    /// Something that must be told at once: an error, a divergence, the end of a segment.
    pub urgent: bool,
}

/// Why a fetch is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// It just came.
    First,
    /// A partition that it waited on had news.
    Woken,
    /// There was news before it could be parked.
    NotParked,
}

impl FetchTerms {
    /// Whether the fetch is answered with what was found, else it waits on.
    #[must_use]
    pub fn is_answered(&self, look: Look, found: Found, now: Millis) -> bool {
        // A follower is woken by bytes or by its own newer fetch, which waits for this answer.
        let served = self.replica.is_some() && look != Look::First;
        served || found.urgent || found.bytes >= self.bytes_min || now >= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Out = Vec<Released<(), u8>>;

    const FOLLOWER: Option<BrokerId> = Some(BrokerId::new(7));

    fn woken(fetches: &[u8]) -> Out {
        fetches.iter().map(|&fetch| Released::Woken(fetch)).collect()
    }

    fn three() -> ParkedFetches<u8> {
        let mut parked = ParkedFetches::default();
        for (fetch, replica, above) in [(1, None, 5), (2, FOLLOWER, 9), (3, None, 9)] {
            parked.park(FetchWait { fetch, replica, above: Offset::new(above) });
        }
        parked
    }

    #[test]
    fn each_is_woken_by_the_limit_that_it_reads_to() {
        let (mut parked, mut out) = (three(), Out::new());
        parked.high_watermark(Offset::new(5), &mut out);
        parked.end_moved(Offset::new(9), &mut out);
        assert_eq!(out, []);
        parked.end_moved(Offset::new(10), &mut out);
        parked.high_watermark(Offset::new(9), &mut out);
        assert_eq!(out, woken(&[2, 1]));
        assert_eq!(parked.len(), 1);
    }

    #[test]
    fn a_newer_fetch_and_great_events_wake_once() {
        let (mut parked, mut out) = (three(), Out::new());
        parked.superseded(BrokerId::new(8), &mut out);
        assert_eq!(out, []);
        parked.superseded(BrokerId::new(7), &mut out);
        parked.forget(|&fetch| fetch == 1);
        parked.wake_all(&mut out);
        parked.wake_all(&mut out);
        assert_eq!(out, woken(&[2, 3]));
        assert!(parked.is_empty());
    }

    #[test]
    fn a_fetch_is_answered_with_enough_or_something_urgent_or_in_time() {
        let consumer = FetchTerms { replica: None, bytes_min: 100, deadline: Millis::new(50) };
        let found = |bytes, urgent| Found { bytes, urgent };
        let early = Millis::new(49);
        assert!(!consumer.is_answered(Look::First, found(99, false), early));
        assert!(consumer.is_answered(Look::First, found(100, false), early));
        assert!(consumer.is_answered(Look::First, found(0, true), early));
        assert!(!consumer.is_answered(Look::Woken, found(99, false), early));
        assert!(consumer.is_answered(Look::Woken, found(0, false), Millis::new(50)));
        let follower = FetchTerms { replica: FOLLOWER, ..consumer };
        assert!(!follower.is_answered(Look::First, found(0, false), early));
        assert!(follower.is_answered(Look::Woken, found(0, false), early));
    }
}
