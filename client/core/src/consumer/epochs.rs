//! The epochs of what was read, by which it can be told how much of that a log still has.
//!
//! *Called by* `answer` and `mod`. Decides nothing but where two logs part.
//!
//! Invariant: epochs and offsets ascend; each entry stands for what was read from its offset on, up to the next one's.

use std::cmp::Ordering;
use std::collections::VecDeque;

use client_protocol::{LeaderEpoch, Offset};

use super::read::Position;

/// Changes of leader that are remembered; of older ones it cannot be told where their records were cut.
const EPOCHS_MAX: usize = 256;

/// Where what was read and a leader's log part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// Here: all before it is in the log, as far as is known.
    At(Position),
    /// Here or before it: where this epoch ends in the log has to be asked.
    Before(Position),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Epochs(VecDeque<(LeaderEpoch, Offset)>);

impl Epochs {
    /// Records of an epoch were read, from an offset on.
    pub(super) fn push(&mut self, epoch: LeaderEpoch, from: Offset) {
        if self.0.back().is_none_or(|(last, _)| *last < epoch) {
            if self.0.len() == EPOCHS_MAX {
                self.0.pop_front();
            }
            self.0.push_back((epoch, from));
        }
    }

    /// Keeps what was read before a position. Nothing, if what stands before that is of another epoch, or nobody knows of which.
    pub(super) fn keep_before(&mut self, position: Position) {
        while self.0.back().is_some_and(|(_, from)| *from >= position.offset) {
            self.0.pop_back();
        }
        if self.0.back().map(|(last, _)| *last) != position.epoch {
            self.0.clear();
        }
    }

    /// The log that is read from now on knows nothing above this epoch before the position: what was read of later ones is not part of it, or was
    /// compacted away there. If nothing was read of this one, nobody knows where it begins.
    pub(super) fn keep_up_to(&mut self, epoch: LeaderEpoch) {
        while self.0.back().is_some_and(|(last, _)| *last > epoch) {
            self.0.pop_back();
        }
        if self.0.back().is_some_and(|(last, _)| *last < epoch) {
            self.0.clear();
        }
    }

    /// Where the two part when the log knows, of the epochs that were read before `end`, this one at most.
    pub(super) fn parting(&self, epoch: LeaderEpoch, mut end: Offset) -> Parting {
        for &(of, from) in self.0.iter().rev() {
            match of.cmp(&epoch) {
                _ if from >= end => {}
                Ordering::Less => {
                    return Parting::Before(Position { offset: end, epoch: Some(of) });
                }
                Ordering::Equal => break,
                // The log has nothing of this epoch.
                Ordering::Greater => end = from,
            }
        }
        Parting::At(Position { offset: end, epoch: Some(epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(of: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for &(epoch, from) in of {
            epochs.push(LeaderEpoch::new(epoch), Offset::new(from));
        }
        epochs
    }

    fn position(epoch: i32, offset: i64) -> Position {
        Position { offset: Offset::new(offset), epoch: Some(LeaderEpoch::new(epoch)) }
    }

    fn parting(of: &[(i32, i64)], epoch: i32, end: i64) -> Parting {
        epochs(of).parting(LeaderEpoch::new(epoch), Offset::new(end))
    }

    #[test]
    fn logs_part_where_the_last_common_epoch_ends() {
        let read = [(3, 217), (5, 280)];
        assert_eq!(parting(&read, 5, 300), Parting::At(position(5, 300)));
        assert_eq!(parting(&read, 4, 260), Parting::Before(position(3, 260)), "3 may end before");
        assert_eq!(parting(&read, 3, 252), Parting::At(position(3, 252)));
        assert_eq!(parting(&read, 3, 290), Parting::At(position(3, 280)), "all of 5 is gone");
        assert_eq!(parting(&read, 2, 290), Parting::At(position(2, 217)), "nothing older is known");
        assert_eq!(parting(&read, 4, 290), Parting::Before(position(3, 280)));
        assert_eq!(parting(&[], 4, 290), Parting::At(position(4, 290)));
    }

    #[test]
    fn what_is_not_read_any_more_is_forgotten() {
        let mut read = epochs(&[(3, 217), (3, 230), (5, 280), (6, 290)]);
        read.keep_before(position(5, 290));
        assert_eq!(read.0, epochs(&[(3, 217), (5, 280)]).0);
        read.keep_before(position(3, 280));
        assert_eq!(read.0, epochs(&[(3, 217)]).0);
        read.keep_before(position(2, 240));
        assert!(read.0.is_empty(), "of another epoch than was read there");
        read = epochs(&[(3, 217)]);
        read.keep_before(Position { epoch: None, ..position(3, 240) });
        assert!(read.0.is_empty(), "anything may stand before it");
    }

    #[test]
    fn what_another_log_has_in_place_of_later_epochs_is_remembered_as_that() {
        for known in [0, 1] {
            let mut read = epochs(&[(known, 0), (3, 209)]);
            read.keep_up_to(LeaderEpoch::new(1));
            assert_eq!(read.0.is_empty(), known == 0, "where 1 begins is known when it was read");
            read.push(LeaderEpoch::new(1), Offset::new(230));
            read.push(LeaderEpoch::new(5), Offset::new(293));
            let at = read.parting(LeaderEpoch::new(3), Offset::new(240));
            assert_eq!(at, Parting::Before(position(1, 240)));
        }
    }

    #[test]
    fn so_many_are_remembered() {
        let mut read = Epochs::default();
        for epoch in 0..=256 {
            read.push(LeaderEpoch::new(epoch), Offset::new(epoch.into()));
        }
        assert_eq!(read.0.len(), EPOCHS_MAX);
        assert_eq!(read.0.front(), Some(&(LeaderEpoch::new(1), Offset::new(1))));
    }
}
