//! Which leader epoch wrote which part of the log.
//!
//! *Called by* the partition for divergence. Invariant: epochs and start offsets both rise strictly.
//! It does not know the epoch file; it is told at load, append, truncation and when the log start moves.
//!
//! ```text
//! epoch      1        4     5
//! offset  0 ........ 10 .. 14 ..... 20 = end offset (exclusive)
//! end of 1 = 10, of 2 or 3: answered as (1, 10), of 5 = 20
//! ```

use crate::ids::{LeaderEpoch, Offset};

/// Where the greatest epoch not above the asked one ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The greatest epoch in the log that is not above the asked one.
    pub leader_epoch: LeaderEpoch,
    /// Exclusive end of that epoch's records.
    pub end_offset: Offset,
}

/// The epochs of one log with their start offsets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochHistory {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochHistory {
    /// Takes the log's list; entries that do not rise are left out.
    #[must_use]
    pub fn new(entries: &[(LeaderEpoch, Offset)]) -> Self {
        let mut history = Self::default();
        for &(epoch, start) in entries {
            history.assign(epoch, start);
        }
        history
    }

    /// Epoch and start offset pairs, rising.
    #[must_use]
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// Epoch of the last record, none when the log never held one.
    #[must_use]
    pub fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    /// Records of `epoch` begin at `start`; no change when the log is in that epoch already.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        while self.entries.last().is_some_and(|&(last, at)| at >= start && last < epoch) {
            self.entries.pop();
        }
        if self.last().is_none_or(|last| last < epoch) {
            self.entries.push((epoch, start));
        }
    }

    /// Forgets what begins at or after the new end.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|&(_, start)| start < end);
    }

    /// Forgets what ended at or before the new log start; the epoch that covers it begins there now.
    pub fn trim(&mut self, log_start: Offset) {
        let covered = self.entries.iter().rev().find(|&&(_, start)| start <= log_start).copied();
        self.entries.retain(|&(_, start)| start > log_start);
        if let Some((epoch, _)) = covered {
            self.entries.insert(0, (epoch, log_start));
        }
    }

    /// Where the greatest epoch not above `asked` ends; none when every epoch is above.
    #[must_use]
    pub fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        let after = self.entries.iter().position(|&(epoch, _)| epoch > asked);
        let end_offset =
            after.and_then(|at| self.entries.get(at)).map_or(log_end, |&(_, start)| start);
        let before = after.unwrap_or(self.entries.len()).checked_sub(1)?;
        let &(leader_epoch, _) = self.entries.get(before)?;
        Some(EpochEnd { leader_epoch, end_offset })
    }

    /// Panics when the invariant is broken.
    pub fn check(&self, log_end: Offset) {
        for pair in self.entries.windows(2) {
            if let [(epoch, start), (next_epoch, next_start)] = pair {
                assert!(epoch < next_epoch, "epochs rise: {epoch} then {next_epoch}");
                assert!(start < next_start, "epoch starts rise: {start} then {next_start}");
            }
        }
        if let Some(&(epoch, start)) = self.entries.last() {
            assert!(start <= log_end, "epoch {epoch} starts at {start}, after the end {log_end}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        let entries: Vec<_> =
            entries.iter().map(|&(e, o)| (LeaderEpoch::new(e), Offset::new(o))).collect();
        EpochHistory::new(&entries)
    }

    fn end_of(history: &EpochHistory, epoch: i32, end: i64) -> Option<(i32, i64)> {
        history
            .end_of(LeaderEpoch::new(epoch), Offset::new(end))
            .map(|e| (e.leader_epoch.get(), e.end_offset.get()))
    }

    #[test]
    fn epoch_end_is_the_next_epochs_start() {
        let h = history(&[(1, 0), (4, 10), (5, 14)]);
        assert_eq!(end_of(&h, 0, 20), None);
        assert_eq!(end_of(&h, 1, 20), Some((1, 10)));
        assert_eq!(end_of(&h, 3, 20), Some((1, 10)));
        assert_eq!(end_of(&h, 4, 20), Some((4, 14)));
        assert_eq!(end_of(&h, 9, 20), Some((5, 20)));
        assert_eq!(end_of(&EpochHistory::default(), 9, 0), None);
    }

    #[test]
    fn truncation_forgets_epochs_from_the_end() {
        let mut h = history(&[(1, 0), (4, 10), (5, 14)]);
        h.truncate(Offset::new(10));
        assert_eq!(h, history(&[(1, 0)]));
        h.assign(LeaderEpoch::new(1), Offset::new(10));
        assert_eq!(h, history(&[(1, 0)]));
    }

    #[test]
    fn trim_keeps_the_epoch_that_covers_the_log_start() {
        let mut h = history(&[(1, 0), (4, 10), (5, 14)]);
        h.trim(Offset::new(12));
        assert_eq!(h, history(&[(4, 12), (5, 14)]));
        h.trim(Offset::new(14));
        assert_eq!(h, history(&[(5, 14)]));
    }

    #[test]
    fn an_epoch_without_records_is_replaced() {
        let mut h = history(&[(1, 0), (4, 10)]);
        h.assign(LeaderEpoch::new(6), Offset::new(10));
        assert_eq!(h, history(&[(1, 0), (6, 10)]));
    }
}
