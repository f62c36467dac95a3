//! Deadlines of sessions, soonest first.
//!
//! Called by `office`. Calls nothing. Invariant: `order` holds exactly the deadlines in
//! `deadlines`. Times are on a clock that stands still while this process did: a stall of the
//! leader extends every session by its length. It does not know why a session has a deadline.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_protocol::SessionId;

use crate::Millis;

/// One deadline for each of some sessions.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: BTreeMap<SessionId, Timer>,
    order: BTreeSet<(Millis, SessionId)>,
    /// Time that this process did not live through.
    stalled_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    /// The generation that the deadline is for.
    pub(super) generation: u64,
    /// From the last touch to the deadline.
    pub(super) length_ms: u64,
    deadline: Millis,
}

impl Timers {
    pub(super) fn clear(&mut self) {
        self.deadlines.clear();
        self.order.clear();
    }

    /// The process slept for this long: nobody could be heard.
    pub(super) fn extend_all(&mut self, stall_ms: u64) {
        self.stalled_ms = self.stalled_ms.saturating_add(stall_ms);
    }

    /// Starts or starts anew, `length_ms` from `now`.
    pub(super) fn start(&mut self, id: SessionId, generation: u64, length_ms: u64, now: Millis) {
        let deadline = self.lived(now).plus_ms(length_ms);
        self.set(id, Timer { generation, length_ms, deadline });
    }

    /// The session was heard `age_ms` ago; a deadline never comes nearer by that.
    pub(super) fn touch(&mut self, id: SessionId, age_ms: u64, now: Millis) {
        let Some(timer) = self.deadlines.get(&id).copied() else { return };
        let heard = Millis::new(self.lived(now).get().saturating_sub(age_ms));
        let deadline = heard.plus_ms(timer.length_ms).max(timer.deadline);
        self.set(id, Timer { deadline, ..timer });
    }

    /// Comes due again in `again_ms`, whatever the length of its time-out.
    pub(super) fn defer(&mut self, id: SessionId, again_ms: u64, now: Millis) {
        if let Some(timer) = self.deadlines.get(&id).copied() {
            let deadline = self.lived(now).plus_ms(again_ms);
            self.set(id, Timer { deadline, ..timer });
        }
    }

    pub(super) fn rename(&mut self, id: SessionId, generation: u64) {
        if let Some(timer) = self.deadlines.get_mut(&id) {
            timer.generation = generation;
        }
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(timer) = self.deadlines.remove(&id) {
            self.order.remove(&(timer.deadline, id));
        }
    }

    pub(super) fn get(&self, id: SessionId) -> Option<Timer> {
        self.deadlines.get(&id).copied()
    }

    /// Until the deadline, if nobody is heard.
    pub(super) fn left_ms(&self, id: SessionId, now: Millis) -> Option<u64> {
        Some(self.deadlines.get(&id)?.deadline.since(self.lived(now)))
    }

    /// The next session whose deadline is over. Clocks count whole milliseconds and round down, so
    /// only the one after the deadline proves that the whole time has passed.
    pub(super) fn first_due(&self, now: Millis) -> Option<SessionId> {
        let (deadline, id) = self.order.first()?;
        (*deadline < self.lived(now)).then_some(*id)
    }

    /// When `first_due` will have something, if nobody is heard.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.order.first().map(|(deadline, _)| deadline.plus_ms(self.stalled_ms).plus_ms(1))
    }

    pub(super) fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        assert_eq!(self.order.len(), self.deadlines.len());
        for (deadline, id) in &self.order {
            assert_eq!(self.deadlines.get(id).map(|timer| timer.deadline), Some(*deadline));
        }
    }

    fn lived(&self, now: Millis) -> Millis {
        Millis::new(now.get().saturating_sub(self.stalled_ms))
    }

    fn set(&mut self, id: SessionId, timer: Timer) {
        if let Some(old) = self.deadlines.insert(id, timer) {
            self.order.remove(&(old.deadline, id));
        }
        self.order.insert((timer.deadline, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId::new(1);
    const B: SessionId = SessionId::new(2);

    #[test]
    fn touch_moves_a_deadline_by_when_the_session_was_heard() {
        let mut timers = Timers::default();
        timers.start(A, 1, 1_000, Millis::new(0));
        timers.touch(A, 50, Millis::new(500));
        assert_eq!(timers.next_deadline(), Some(Millis::new(1_451)));
        timers.touch(A, 300, Millis::new(600));
        assert_eq!(timers.next_deadline(), Some(Millis::new(1_451)), "never nearer");
        assert_eq!(timers.first_due(Millis::new(1_450)), None);
        assert_eq!(timers.first_due(Millis::new(1_451)), Some(A));
        timers.check();
    }

    #[test]
    fn stall_extends_all_sessions() {
        let mut timers = Timers::default();
        timers.start(A, 1, 1_000, Millis::new(0));
        timers.start(B, 1, 2_000, Millis::new(0));
        timers.extend_all(5_000);
        assert_eq!(timers.first_due(Millis::new(6_000)), None);
        assert_eq!(timers.first_due(Millis::new(6_001)), Some(A));
        timers.remove(A);
        assert_eq!(timers.next_deadline(), Some(Millis::new(7_001)));
        timers.check();
    }
}
