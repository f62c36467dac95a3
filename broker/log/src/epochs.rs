//! The leader epochs of one log: which epoch began at which offset.
//!
//! Called by: `log` (each append, truncation, epoch look-up), `recovery`. Calls: nothing.
//! Invariant: epochs and start offsets both grow strictly; an epoch without records may stand last
//! only. Does not know who leads.
//!
//! ```text
//! offset  0        10       25        40 = log end offset (exclusive)
//! epoch   |---0----|---3----|----4-----|
//! end of  0 = 10, of 1 and 2 = 10 (answered as epoch 0), of 3 = 25, of 4 = 40
//! ```

use serde::{Deserialize, Serialize};

/// Entries one log keeps; beyond it the oldest goes, and followers that far back begin at the
/// start of the oldest epoch known.
pub const EPOCHS_MAX: usize = 100_000;

/// One epoch and where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// Leader epoch.
    pub epoch: i32,
    /// First offset written under it (inclusive).
    pub start_offset: i64,
}

/// Where an epoch ends in this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The greatest epoch of this log that is at most the one asked for.
    pub epoch: i32,
    /// Its end offset (exclusive).
    pub end_offset: i64,
}

/// All epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderEpochs {
    starts: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// Notes that `epoch` begins at `start_offset`, unless it is known already. Returns whether
    /// anything changed. An epoch below the last is ignored: epochs never fall.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.latest().is_some_and(|last| last.epoch >= epoch) {
            return false;
        }
        // An epoch that wrote nothing gives way to the next one at the same offset.
        while self.latest().is_some_and(|last| last.start_offset >= start_offset) {
            self.starts.pop();
        }
        if self.starts.len() >= EPOCHS_MAX {
            self.starts.remove(0);
        }
        self.starts.push(EpochStart { epoch, start_offset });
        true
    }

    /// The latest epoch and its start.
    pub fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// All of them, oldest first.
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        let after = self.starts.partition_point(|start| start.start_offset <= offset);
        after.checked_sub(1).and_then(|at| self.starts.get(at)).map(|start| start.epoch)
    }

    /// End offset of the greatest epoch that is at most `epoch` (KIP-279). An epoch older than all
    /// here ends, under its own number, where the first begins; for one later than all the answer
    /// is `None`.
    pub fn end_offset_of(&self, epoch: i32, log_end_offset: i64) -> Option<EpochEnd> {
        let after = self.starts.partition_point(|start| start.epoch <= epoch);
        let found = after.checked_sub(1).and_then(|at| self.starts.get(at)).map(|s| s.epoch);
        match (found, self.starts.get(after)) {
            (found, Some(next)) if epoch >= 0 => {
                Some(EpochEnd { epoch: found.unwrap_or(epoch), end_offset: next.start_offset })
            }
            (Some(found), None) if found == epoch => {
                Some(EpochEnd { epoch, end_offset: log_end_offset })
            }
            (_, _) => None,
        }
    }

    /// Forgets what began at or after `end_offset`.
    pub fn truncate_from_end(&mut self, end_offset: i64) {
        let kept = self.starts.partition_point(|start| start.start_offset < end_offset);
        self.starts.truncate(kept);
    }

    /// Forgets epochs that ended at or before the new log start; the one in force there begins at
    /// it.
    pub fn truncate_from_start(&mut self, start_offset: i64) {
        let after = self.starts.partition_point(|start| start.start_offset <= start_offset);
        let in_force = after.saturating_sub(1);
        self.starts.drain(..in_force);
        if let Some(first) = self.starts.first_mut()
            && first.start_offset < start_offset
        {
            first.start_offset = start_offset;
        }
    }

    /// Checks the inequalities.
    pub fn check(&self) {
        for pair in self.starts.windows(2) {
            if let [earlier, later] = pair {
                assert!(earlier.epoch < later.epoch, "epochs fall: {earlier:?} {later:?}");
                assert!(
                    earlier.start_offset < later.start_offset,
                    "epoch starts fall: {earlier:?} {later:?}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        assert!(epochs.assign(0, 0));
        assert!(epochs.assign(3, 10));
        assert!(epochs.assign(4, 25));
        assert!(!epochs.assign(4, 30));
        assert!(!epochs.assign(2, 30));
        epochs.check();
        epochs
    }

    #[test]
    fn end_offset_is_the_next_epochs_start() {
        let epochs = sample();
        let end = |epoch, end_offset| Some(EpochEnd { epoch, end_offset });
        assert_eq!(epochs.end_offset_of(0, 40), end(0, 10));
        assert_eq!(epochs.end_offset_of(1, 40), end(0, 10));
        assert_eq!(epochs.end_offset_of(3, 40), end(3, 25));
        assert_eq!(epochs.end_offset_of(4, 40), end(4, 40));
        assert_eq!(epochs.end_offset_of(5, 40), None);
        assert_eq!(epochs.end_offset_of(-1, 40), None);
        let mut later = LeaderEpochs::default();
        later.assign(7, 12);
        assert_eq!(later.end_offset_of(2, 40), end(2, 12));
    }

    #[test]
    fn empty_epoch_gives_way_to_the_next() {
        let mut epochs = sample();
        assert!(epochs.assign(5, 40));
        assert!(epochs.assign(6, 40));
        assert_eq!(epochs.end_offset_of(4, 50), Some(EpochEnd { epoch: 4, end_offset: 40 }));
        assert_eq!(epochs.end_offset_of(5, 50), Some(EpochEnd { epoch: 4, end_offset: 40 }));
        epochs.check();
    }

    #[test]
    fn truncation_keeps_the_epoch_in_force() {
        let mut epochs = sample();
        epochs.truncate_from_end(25);
        assert_eq!(epochs.latest(), Some(EpochStart { epoch: 3, start_offset: 10 }));
        let mut epochs = sample();
        epochs.truncate_from_start(12);
        assert_eq!(epochs.starts().first(), Some(&EpochStart { epoch: 3, start_offset: 12 }));
        assert_eq!(epochs.epoch_of(30), Some(4));
        assert_eq!(epochs.epoch_of(5), None);
    }
}
