//! What only a leader does: it measures the silence of sessions and ends those that are over.
//!
//! Called by the end of each step, `session` (sessions begin and end) and `peer` (reports). Calls
//! `timers`; proposes through `proposals`. Invariant (safety.md A5, A6): the timers of all live
//! sessions start anew in full, and graces from nothing, when this server takes office, which is
//! when the first entry of its term is applied; an expiry names the generation whose silence was
//! measured. It does not know connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator_protocol::SessionId;

use super::limits::{LOOKED_AT_PER_STEP_MAX, LOSSES_MAX, REMOVED_PER_CHECK_MAX};
use super::step::Server;
use super::timers::Timers;
use crate::Millis;
use crate::state::Command;
use crate::tree::Look;

/// A silent session ends so much later than its time-out: what a follower answered just before is
/// reported at once, and has this time to arrive. With the time of the expiry's own way through the
/// log it stays below 100 ms.
pub(super) const EXPIRY_MARGIN_MS: u64 = 50;
/// A grace that is over while writes of its session are on their way is looked at again after this time.
const LOOK_AGAIN_MS: u64 = 10;
/// A proposed expiry that did not come to anything is proposed again after this time.
const EXPIRE_AGAIN_MS: u64 = 1_000;
/// Between two parts of a look for containers and TTL nodes.
const LOOK_PAUSE_MS: u64 = 100;
/// Later than this after a due tick, the process was not slow but stalled.
const STALL_MS_MIN: u64 = 50;

/// The leader's part; empty on others.
#[derive(Debug, Default)]
pub(super) struct Office {
    /// The term in which this server took office, if it is in it.
    term: Option<u64>,
    /// When that was.
    since: Option<Millis>,
    /// Time-outs of all live sessions.
    silences: Timers,
    /// Graces of sessions whose socket was lost.
    graces: Timers,
    /// When to look for containers and TTL nodes to be removed.
    check_at: Option<Millis>,
    /// Where the last look ended.
    looked_to: Option<Arc<str>>,
    /// Found since a look began anew.
    found_due: usize,
    /// Losses reported between the election and taking office: generation by session.
    early_losses: BTreeMap<SessionId, u64>,
}

impl Office {
    fn is_held(&self) -> bool {
        self.term.is_some()
    }

    /// A session was created or moved: it is alive. Said again of the same generation, it is only a
    /// repetition in the log and says nothing of now: a grace that was begun since goes on.
    pub(super) fn begin_session(
        &mut self,
        id: SessionId,
        generation: u64,
        timeout_ms: u32,
        now: Millis,
    ) {
        let known = self.silences.get(id).map(|timer| timer.generation);
        if self.is_held() && known != Some(generation) {
            self.graces.remove(id);
            self.silences.start(id, generation, silence_ms(timeout_ms), now);
        }
    }

    /// The mistake of an office that does not see a session move: its silence goes on, and ends the new generation.
    pub(super) fn keep_counting(&mut self, id: SessionId, generation: u64) {
        self.silences.rename(id, generation);
        self.graces.rename(id, generation);
    }

    pub(super) fn end_session(&mut self, id: SessionId) {
        self.graces.remove(id);
        self.silences.remove(id);
    }

    /// A proposed expiry came to nothing: the session moved while it was on its way.
    pub(super) fn expiry_refused(&mut self, id: SessionId, now: Millis) {
        if let Some(timer) = self.silences.get(id) {
            self.silences.start(id, timer.generation, timer.length_ms, now);
        }
    }

    /// The session was heard `age_ms` ago.
    pub(super) fn touch(&mut self, id: SessionId, age_ms: u64, now: Millis) {
        self.silences.touch(id, age_ms, now);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let times = [self.silences.next_deadline(), self.graces.next_deadline(), self.check_at];
        times.into_iter().flatten().min()
    }

    pub(super) fn check(&self) {
        self.silences.check();
        self.graces.check();
        assert!(self.is_held() || self.silences.len() == 0, "timers without an office");
    }

    fn leave(&mut self) {
        self.term = None;
        self.since = None;
        self.check_at = None;
        self.looked_to = None;
        self.found_due = 0;
        self.silences.clear();
        self.graces.clear();
        self.early_losses.clear();
    }
}

/// The silence after which a session ends.
fn silence_ms(timeout_ms: u32) -> u64 {
    u64::from(timeout_ms).saturating_add(EXPIRY_MARGIN_MS)
}

impl Server {
    /// Whether this server leads, and has applied what its predecessors left.
    pub(super) fn is_in_office(&self) -> bool {
        self.consensus.is_leader() && self.office.term == Some(self.consensus.term())
    }

    /// How long it has been in office; nothing where it is not.
    pub(super) fn office_ms(&self) -> Option<u64> {
        let since = self.office.since.filter(|_| self.is_in_office())?;
        Some(self.now.mono.since(since))
    }

    /// Until this session ends if nothing more is heard; only who is in office knows.
    pub(super) fn session_left_ms(&self, id: SessionId) -> Option<u64> {
        self.office.silences.left_ms(id, self.now.mono)
    }

    /// Takes or leaves office, then ends the sessions whose time has come.
    pub(super) fn office_duties(&mut self) {
        let term = self.consensus.term();
        if !self.consensus.is_leader() {
            self.office.leave();
            self.forget_wanted_snapshot();
            return;
        }
        if self.office.term != Some(term) {
            if self.state.applied_term() != term {
                return;
            }
            self.take_office(term);
        }
        self.expire_due();
        self.remove_due();
    }

    fn take_office(&mut self, term: u64) {
        let early_losses = std::mem::take(&mut self.office.early_losses);
        self.office.leave();
        self.office.term = Some(term);
        self.office.since = Some(self.now.mono);
        self.office.check_at = Some(self.now.mono.plus_ms(self.config.container_check_ms));
        for session in self.state.sessions() {
            let length_ms = silence_ms(session.timeout_ms);
            self.office.silences.start(session.id, session.generation, length_ms, self.now.mono);
        }
        for (session, generation) in early_losses {
            self.begin_grace(session, generation);
        }
        self.report_all_losses();
    }

    fn expire_due(&mut self) {
        let now = self.now.mono;
        while let Some(session) = self.office.silences.first_due(now) {
            let Some(timer) = self.office.silences.get(session) else { break };
            self.expire(session, timer.generation);
        }
        while let Some(session) = self.office.graces.first_due(now) {
            let Some(timer) = self.office.graces.get(session) else { break };
            // What it has written before its socket was lost may choose another grace, and comes first.
            let applied = self.state.session(session).map_or(0, |found| found.sequence);
            if self.proposals.has_more(session, timer.generation, applied) {
                self.office.graces.defer(session, LOOK_AGAIN_MS, now);
                continue;
            }
            self.office.graces.remove(session);
            self.expire(session, timer.generation);
        }
    }

    /// Looks for containers and TTL nodes that nothing keeps any more, some at a time; whether they go is decided
    /// when that is applied.
    fn remove_due(&mut self) {
        let now = self.now;
        if self.office.check_at.is_none_or(|at| at > now.mono) {
            return;
        }
        let due_max = REMOVED_PER_CHECK_MAX.saturating_sub(self.office.found_due);
        let look = Look { count_max: LOOKED_AT_PER_STEP_MAX, due_max };
        let due = self.state.tree().due_to_go(now.wall_ms, self.office.looked_to.as_deref(), look);
        self.office.found_due = self.office.found_due.saturating_add(due.paths.len());
        let goes_on = due.go_on_behind.is_some() && self.office.found_due < REMOVED_PER_CHECK_MAX;
        self.office.looked_to = due.go_on_behind;
        let pause_ms = match goes_on {
            true => LOOK_PAUSE_MS.min(self.config.container_check_ms),
            false => self.config.container_check_ms,
        };
        if !goes_on {
            self.office.found_due = 0;
        }
        self.office.check_at = Some(now.mono.plus_ms(pause_ms));
        for path in due.paths {
            self.queue_command(self.config.id, Command::RemoveDue { path: path.to_string() });
        }
    }

    fn expire(&mut self, session: SessionId, generation: u64) {
        self.office.silences.defer(session, EXPIRE_AGAIN_MS, self.now.mono);
        self.queue_command(self.config.id, Command::Expire { session, generation });
    }

    /// A session's socket was closed by its client's side: it has its grace to come back.
    pub(super) fn begin_grace(&mut self, session: SessionId, generation: u64) {
        if !self.consensus.is_leader() || self.office.graces.get(session).is_some() {
            return;
        }
        if self.office.term != Some(self.consensus.term()) {
            if self.office.early_losses.len() < LOSSES_MAX {
                self.office.early_losses.insert(session, generation);
            }
            return;
        }
        let Some(record) = self.state.session(session) else { return };
        if let Some(grace_ms) = record.fast_death_grace_ms
            && record.generation == generation
        {
            let grace_ms = u64::from(grace_ms);
            self.office.graces.start(session, generation, grace_ms, self.now.mono);
        }
    }

    /// The session has chosen another grace, or none: one that is under way gives way to it.
    pub(super) fn change_grace(&mut self, session: SessionId) {
        if let Some(generation) = self.office.graces.get(session).map(|timer| timer.generation) {
            self.office.graces.remove(session);
            self.begin_grace(session, generation);
        }
    }

    /// A leader that was stalled heard nobody meanwhile: all sessions get that time back.
    pub(super) fn measure_stall(&mut self) {
        let Some(last) = self.last_step else { return };
        let asleep_ms = self.now.mono.since(last);
        let expected_ms = self.config.tick_ms;
        if asleep_ms >= expected_ms.saturating_add(STALL_MS_MIN) {
            let stall_ms = asleep_ms.saturating_sub(expected_ms);
            self.office.silences.extend_all(stall_ms);
            self.office.graces.extend_all(stall_ms);
            self.stalled_ms = self.stalled_ms.saturating_add(stall_ms);
        }
    }
}
