//! What the log said of itself: start, end, durable end, truncation generation, epochs.
//!
//! *Called by* the partition when the shell reports. Invariant: `start <= durable_end <= end`.
//!
//! ```text
//! log start <= high watermark <= end offset      durable end <= end offset (both exclusive)
//! ```

use crate::ids::{LeaderEpoch, Offset};

use super::epochs::EpochHistory;

/// Positions of one log; all offsets are exclusive ends but `start`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogPositions {
    /// First offset that the log keeps.
    pub start: Offset,
    /// Log end offset.
    pub end: Offset,
    /// End of what survives a power cut.
    pub durable_end: Offset,
    /// Grows with each truncation; a sync that began under an older one does not count.
    pub generation: u64,
    /// Epochs of the records.
    pub epochs: EpochHistory,
}

/// Records were appended: offsets `base_offset..end_offset`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// First offset appended.
    pub base_offset: Offset,
    /// Log end offset after the append.
    pub end_offset: Offset,
    /// Epochs of the appended batches with the first offset of each, rising.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// A commit round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Synced {
    /// Everything below is on disk.
    pub durable_end: Offset,
    /// The log's truncation generation when the round began.
    pub generation: u64,
}

/// The log was cut, or restarted at a later offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncated {
    /// Log start offset after it.
    pub start: Offset,
    /// Log end offset after it.
    pub end_offset: Offset,
    /// Durable end after it.
    pub durable_end: Offset,
    /// The new truncation generation.
    pub generation: u64,
    /// As [`super::Loaded::cut_below_mark`]: what was to be kept could not be read.
    pub cut_below_mark: bool,
}

impl LogPositions {
    /// Takes over an append; true when the end moved.
    pub(super) fn append(&mut self, appended: &Appended) -> bool {
        assert!(
            appended.base_offset >= self.end,
            "append at {} below the end {}",
            appended.base_offset,
            self.end
        );
        for &(epoch, start) in &appended.epochs {
            self.epochs.assign(epoch, start);
        }
        let moved = appended.end_offset > self.end;
        self.end = self.end.max(appended.end_offset);
        moved
    }

    /// Takes over a commit round; true when the durable end moved.
    pub(super) fn sync(&mut self, synced: Synced) -> bool {
        if synced.generation != self.generation || synced.durable_end <= self.durable_end {
            return false;
        }
        self.durable_end = synced.durable_end.min(self.end);
        true
    }

    /// Takes over a truncation.
    pub(super) fn truncate(&mut self, truncated: Truncated) {
        if truncated.start == truncated.end_offset {
            // Nothing is left. Where it begins anew above its former records, their epoch would be said to reach up to there.
            self.epochs = EpochHistory::default();
        } else {
            self.epochs.truncate(truncated.end_offset);
        }
        self.start = truncated.start;
        self.end = truncated.end_offset;
        self.durable_end = truncated.durable_end;
        self.generation = truncated.generation;
        self.epochs.trim(self.start);
    }

    /// The log start moved up.
    pub(super) fn trim(&mut self, start: Offset) {
        if start <= self.start {
            return;
        }
        self.start = start;
        self.end = self.end.max(start);
        self.durable_end = self.durable_end.max(start);
        self.epochs.trim(start);
    }

    /// Panics when the invariant is broken.
    pub(super) fn check(&self) {
        assert!(
            self.start <= self.durable_end,
            "start {} durable {}",
            self.start,
            self.durable_end
        );
        assert!(self.durable_end <= self.end, "durable {} end {}", self.durable_end, self.end);
        self.epochs.check(self.end);
    }
}
