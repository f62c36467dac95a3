//! How long syncs of the log take.
//!
//! Called by: the log's thread, which counts, and metrics. Calls: nothing.
//! Invariant: to count waits for nobody.
//! Does not know: files.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, in microseconds.
pub const SYNC_BOUNDS_US: [u64; 13] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000,
];

/// Counts since start.
#[derive(Debug, Default)]
pub struct SyncTimes {
    /// One for each bound, for what is not within the one before, and one for all beyond.
    counts: [AtomicU64; SYNC_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl SyncTimes {
    /// One took so long.
    pub fn add(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = SYNC_BOUNDS_US.iter().take_while(|bound| **bound < took_us).count();
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// The counts, and the microseconds of all together.
    pub fn read(&self) -> (Vec<u64>, u64) {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_counts_up_to_its_bound_and_beyond_the_last_one_too() {
        let times = SyncTimes::default();
        for us in [100, 101, 1_000_000, 1_000_001] {
            times.add(Duration::from_micros(us));
        }
        let (counts, sum_us) = times.read();
        assert_eq!(counts, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sum_us, 2_000_202);
    }
}
