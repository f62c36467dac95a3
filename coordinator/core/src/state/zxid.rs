//! How zxids are given out: epoch << 32 | counter, when an entry is applied.
//!
//! Called by: `machine`. Calls: nothing.
//! Invariant: every zxid is greater than all before it, on every server the same one.
//! It does not know elections: it only sees the term of each entry.

use coordinator_protocol::Zxid;
use serde::{Deserialize, Serialize};

/// The highest epoch: a zxid is positive on the wire.
const EPOCH_MAX: u32 = i32::MAX as u32;
/// More elections than a history sees between its last backup and its end.
const EPOCHS_APART: u32 = 1_000;

/// The last zxid given, and the term it was given in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ZxidClock {
    term: u64,
    epoch: u32,
    counter: u32,
}

impl ZxidClock {
    /// Goes on behind `last`, which another system gave, in term 1. `None` when no epoch is left.
    pub(super) fn continuing(last: Zxid) -> Option<Self> {
        let epoch = u32::try_from(last.get() >> 32).ok()?;
        Self { term: 1, epoch, counter: 0 }.apart()
    }

    /// Behind everything that the history of this zxid can have come to: another one begins here, and nobody may take
    /// a zxid of the one for a zxid of the other. `None` when no epoch is left, and where nothing was ever written.
    pub(super) fn apart(self) -> Option<Self> {
        let epoch = self.epoch.checked_add(EPOCHS_APART).filter(|epoch| *epoch < EPOCH_MAX)?;
        Some(Self { epoch, counter: 0, ..self }).filter(|clock| clock.is_sound())
    }

    /// Takes note of an entry's term; a higher one begins an epoch.
    pub(super) fn enter_term(&mut self, term: u64) {
        assert!(term >= self.term, "term went back from {} to {term}", self.term);
        if term > self.term {
            self.term = term;
            self.begin_epoch();
        }
    }

    /// Gives the next zxid. The counter does not wrap: a new epoch begins before it would.
    pub(super) fn advance(&mut self) -> Zxid {
        if self.counter == u32::MAX {
            self.begin_epoch();
        }
        self.counter += 1;
        self.last()
    }

    /// The last zxid given; that of the epoch's start when none was given in it.
    pub(super) fn last(self) -> Zxid {
        Zxid::new((i64::from(self.epoch) << 32) | i64::from(self.counter))
    }

    /// The zxid that `advance` would give.
    pub(super) fn peek(mut self) -> Zxid {
        self.advance()
    }

    /// The highest term seen.
    pub(super) fn term(self) -> u64 {
        self.term
    }

    /// Whether `enter_term` and `advance` can have led here.
    pub(super) fn is_sound(self) -> bool {
        self.epoch <= EPOCH_MAX
            && (self.epoch > 0 || self.counter == 0)
            && (self.epoch > 0) == (self.term > 0)
    }

    fn begin_epoch(&mut self) {
        assert!(self.epoch < EPOCH_MAX, "epochs are used up");
        self.epoch += 1;
        self.counter = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_entry_of_a_higher_term_begins_an_epoch() {
        let mut clock = ZxidClock::default();
        assert_eq!(clock.last(), Zxid::new(0));
        clock.enter_term(1);
        assert_eq!(clock.last(), Zxid::new(0x1_0000_0000));
        assert_eq!(clock.advance(), Zxid::new(0x1_0000_0001));
        clock.enter_term(1);
        assert_eq!(clock.advance(), Zxid::new(0x1_0000_0002));
        clock.enter_term(7);
        assert_eq!(clock.advance(), Zxid::new(0x2_0000_0001));
        assert!(clock.is_sound());
    }

    #[test]
    fn goes_on_behind_what_another_system_gave() {
        for (last, next) in [(0x17, 1_001), (0x5_0000_0009, 1_006)] {
            let mut clock = ZxidClock::continuing(Zxid::new(last)).expect("there is an epoch left");
            assert!(clock.is_sound());
            assert!(clock.last() >= Zxid::new(last));
            clock.enter_term(2);
            assert_eq!(clock.advance(), Zxid::new((next << 32) + 1));
        }
        assert_eq!(ZxidClock::continuing(Zxid::new(i64::MAX)), None);
        assert_eq!(ZxidClock::continuing(Zxid::new(-1)), None);
        // An epoch without a term is no state that anybody takes.
        assert_eq!(ZxidClock::default().apart(), None);
    }

    #[test]
    fn epoch_begins_before_the_counter_overflows() {
        let mut clock = ZxidClock { term: 3, epoch: 2, counter: u32::MAX - 1 };
        assert_eq!(clock.advance(), Zxid::new(0x2_ffff_ffff));
        assert_eq!(clock.peek(), Zxid::new(0x3_0000_0001));
        assert_eq!(clock.advance(), Zxid::new(0x3_0000_0001));
        clock.enter_term(3);
        assert_eq!(clock.advance(), Zxid::new(0x3_0000_0002));
    }

    #[test]
    #[should_panic(expected = "term went back from 3 to 2")]
    fn term_never_goes_back() {
        let mut clock = ZxidClock::default();
        clock.enter_term(3);
        clock.enter_term(2);
    }
}
