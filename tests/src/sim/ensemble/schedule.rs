//! Virtual time: what happens next, and when.
//!
//! Called by: `world`. Calls: nothing.
//! Invariant: events come out in the order of (time, number of scheduling), so that the same seed
//! gives the same run. Time never goes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Microseconds since the start of the run.
pub type Time = u64;

/// One millisecond.
pub const MS: Time = 1_000;
/// One second.
pub const SECOND: Time = 1_000 * MS;

/// Events to come.
///
/// The heap orders small keys; the events, which are large, lie still until their turn.
#[derive(Debug)]
pub struct Schedule<T> {
    now: Time,
    scheduled: u64,
    /// By time, then by number of scheduling; last, where the event lies.
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Option<T>>,
    /// Places in `events` that are empty.
    free: Vec<usize>,
}

impl<T> Schedule<T> {
    /// Nothing to come, at time 0.
    pub fn new() -> Self {
        Self { now: 0, scheduled: 0, heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new() }
    }

    /// The time of the last event taken.
    pub fn now(&self) -> Time {
        self.now
    }

    /// When the next event is.
    pub fn next_time(&self) -> Option<Time> {
        self.heap.peek().map(|next| next.0.0)
    }

    /// Moves the clock on, not past any event.
    pub fn advance(&mut self, time: Time) {
        assert!(self.next_time().is_none_or(|next| next >= time), "an event was passed over");
        self.now = self.now.max(time);
    }

    /// Lets `event` happen at `time`, or now if that is past.
    pub fn at(&mut self, time: Time, event: T) {
        self.scheduled += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.heap.push(Reverse((time.max(self.now), self.scheduled, place)));
    }

    /// Lets `event` happen after `delay`.
    pub fn after(&mut self, delay: Time, event: T) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event at or before `end`.
    pub fn next_until(&mut self, end: Time) -> Option<T> {
        if self.heap.peek().is_none_or(|next| next.0.0 > end) {
            self.now = end;
            return None;
        }
        let Reverse((time, _, place)) = self.heap.pop()?;
        self.now = time;
        self.free.push(place);
        self.events[place].take()
    }
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_scheduling() {
        let mut schedule = Schedule::new();
        for (time, event) in [(5, 'c'), (3, 'a'), (5, 'd'), (4, 'b')] {
            schedule.at(time, event);
        }
        let order: Vec<char> = std::iter::from_fn(|| schedule.next_until(5)).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        schedule.at(1, 'e');
        assert_eq!((schedule.next_until(9), schedule.now()), (Some('e'), 5));
        assert_eq!((schedule.next_until(9), schedule.now()), (None, 9));
    }
}
