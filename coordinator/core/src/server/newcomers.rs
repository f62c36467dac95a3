//! Whether servers that are about to vote still come nearer, or are waited for in vain.
//!
//! Called by `members`. Calls nothing. Invariant: who advances is waited for, and who is silent or stands still is not, each
//! for a bounded time; all together are, whatever they do. A large state on slow disks is no reason to give anybody up. It does not know
//! how a server is brought up.

use std::collections::BTreeMap;

use super::limits::{CATCH_UP_MS_MAX, STANDSTILL_MS_MAX};
use crate::consensus::Reached;
use crate::{Millis, ServerId};

/// A disk that writes fewer bytes of a snapshot in a millisecond is none that an ensemble can have.
const DISK_BYTES_PER_MS_MIN: u64 = 8 << 10;

/// Those whom one leader brings up for one change of the members.
#[derive(Debug)]
pub(super) struct Newcomers {
    /// The change.
    pub(super) change: u64,
    since: Millis,
    seen: BTreeMap<ServerId, Newcomer>,
}

#[derive(Debug)]
struct Newcomer {
    /// The most that it had.
    reached: Reached,
    /// When that became more, or it had all that it needs.
    advanced: Millis,
    /// When its stream worked.
    there: Millis,
}

/// What is known of one at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) reached: Reached,
    pub(super) is_up: bool,
    pub(super) has_caught_up: bool,
}

impl Newcomers {
    pub(super) fn of(change: u64, now: Millis) -> Self {
        Self { change, since: now, seen: BTreeMap::new() }
    }

    pub(super) fn look(&mut self, id: ServerId, sight: Sight, now: Millis) {
        let begun = Newcomer { reached: sight.reached, advanced: self.since, there: self.since };
        let newcomer = self.seen.entry(id).or_insert(begun);
        if sight.reached > newcomer.reached {
            newcomer.reached = sight.reached;
            newcomer.advanced = now;
        }
        if sight.has_caught_up {
            newcomer.advanced = now;
        }
        if sight.is_up {
            newcomer.there = now;
        }
    }

    /// Whether one of them is waited for in vain. Nothing is heard of it while a snapshot of so many bytes is written, here
    /// before it is sent and there before it counts.
    pub(super) fn is_late(&self, snapshot_bytes: u64, now: Millis) -> bool {
        let writes_ms = snapshot_bytes.saturating_div(DISK_BYTES_PER_MS_MIN);
        let patience_ms = STANDSTILL_MS_MAX.saturating_add(writes_ms);
        let is_late = |one: &Newcomer| {
            now.since(one.there) >= STANDSTILL_MS_MAX || now.since(one.advanced) >= patience_ms
        };
        now.since(self.since) >= CATCH_UP_MS_MAX || self.seen.values().any(is_late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ServerId = ServerId::new(4).unwrap();

    fn sight(matched: u64, bytes: u64) -> Sight {
        let reached = Reached { matched, snapshot_index: 7, snapshot_bytes: bytes };
        Sight { reached, is_up: true, has_caught_up: false }
    }

    /// The first millisecond at which it is late, when it is looked at each 100 ms.
    fn late_at(snapshot_bytes: u64, sight_at: impl Fn(u64) -> Sight) -> u64 {
        let mut newcomers = Newcomers::of(1, Millis::ZERO);
        let times = (0..=2 * CATCH_UP_MS_MAX).step_by(100);
        let mut late = times.skip_while(|ms| {
            let now = Millis::new(*ms);
            newcomers.look(ID, sight_at(*ms), now);
            !newcomers.is_late(snapshot_bytes, now)
        });
        late.next().expect("it is given up some time")
    }

    #[test]
    fn who_advances_is_waited_for_and_not_for_ever() {
        assert_eq!(late_at(0, |_| sight(0, 0)), STANDSTILL_MS_MAX);
        let until = |end_ms: u64| move |ms: u64| sight(0, ms.min(end_ms));
        assert_eq!(late_at(0, until(100_000)), 100_000 + STANDSTILL_MS_MAX);
        assert_eq!(late_at(0, |ms| sight(ms.min(90_000), 0)), 90_000 + STANDSTILL_MS_MAX);
        assert_eq!(late_at(0, |ms| sight(0, ms)), CATCH_UP_MS_MAX);
        // The same bytes again are none more.
        assert_eq!(late_at(0, |ms| sight(0, ms % 10_000)), 9_900 + STANDSTILL_MS_MAX);
    }

    #[test]
    fn who_has_caught_up_is_waited_with_for_the_others() {
        let caught_up = |ms| Sight { has_caught_up: ms < 200_000, ..sight(5, 0) };
        assert_eq!(late_at(0, caught_up), 199_900 + STANDSTILL_MS_MAX);
    }

    #[test]
    fn disk_has_the_time_to_write_a_large_snapshot_and_who_is_gone_has_not() {
        let bytes = 900 << 20;
        assert_eq!(late_at(bytes, |_| sight(0, 0)), STANDSTILL_MS_MAX + 115_200);
        let gone = |ms| Sight { is_up: ms < 10_000, ..sight(0, 0) };
        assert_eq!(late_at(bytes, gone), 9_900 + STANDSTILL_MS_MAX);
        let away = |ms| Sight { is_up: !(10_000..30_000).contains(&ms), ..sight(0, 0) };
        assert_eq!(late_at(bytes, away), STANDSTILL_MS_MAX + 115_200);
    }
}
