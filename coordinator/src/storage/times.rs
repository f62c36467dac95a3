//! How long syncs of the log take, and snapshots.
//!
//! Called by: the log's and the snapshot's thread, which count, and metrics. Calls: nothing.
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

/// Of snapshots of this server's own, since start.
#[derive(Debug, Default)]
pub struct SnapshotTimes {
    count: AtomicU64,
    sum_ms: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// What [`SnapshotTimes`] counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotCounts {
    /// How many were written.
    pub count: u64,
    /// How long all of them took, from the first byte to the last sync.
    pub sum_ms: u64,
    /// The last one's file.
    pub bytes: u64,
    /// How many could not be written.
    pub failures: u64,
}

impl SnapshotTimes {
    /// One of so many bytes took so long.
    pub fn add(&self, took: Duration, bytes: u64) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.sum_ms.fetch_add(took_ms, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One could not be written.
    pub fn add_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts.
    pub fn read(&self) -> SnapshotCounts {
        SnapshotCounts {
            count: self.count.load(Ordering::Relaxed),
            sum_ms: self.sum_ms.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
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
