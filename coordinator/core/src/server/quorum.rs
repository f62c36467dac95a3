//! No quorum, no answers: a server that may be cut off lets its clients go.
//!
//! Called by `request`, `pipeline` and once per step. Calls consensus. Invariant (safety.md A7): a session is
//! answered only while a leader with a quorum was heard of within min(2 s, a third of its
//! time-out). It does not know why there is no quorum.

use super::step::Server;
use crate::ConnectionId;

impl Server {
    /// Whether a session with this time-out may be answered at this moment.
    pub(super) fn may_answer(&self, timeout_ms: u32) -> bool {
        if planted!(self.config.planted, AnswerWithoutQuorum) {
            return true;
        }
        self.is_confirmed_within(self.unconfirmed_limit_ms(timeout_ms))
    }

    pub(super) fn is_confirmed_within(&self, limit_ms: u64) -> bool {
        let now = self.now.mono;
        self.consensus.confirmed_at(now).is_some_and(|at| now.since(at) < limit_ms)
    }

    /// Whether a leader with a quorum was heard of within the bound, and this server is a member.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_confirmed_within(self.config.unconfirmed_ms_max) && self.is_member()
    }

    /// Closes connections that may not be answered any more.
    pub(super) fn close_unconfirmed(&mut self) {
        if self.may_answer(self.config.session_timeout_ms_min) {
            return;
        }
        let refused: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, held)| {
                held.session().is_some_and(|session| {
                    !session.is_read_only() && !self.may_answer(session.timeout_ms)
                })
            })
            .map(|(id, _)| id)
            .collect();
        for id in refused {
            self.close(id);
        }
    }

    /// This server can never answer again.
    pub(super) fn halt(&mut self, reason: &'static str) {
        let all: Vec<ConnectionId> = self.connections.iter().map(|(id, _)| id).collect();
        for id in all {
            self.close(id);
        }
        self.consensus.stop();
        self.outputs.clear();
        self.effects.push(super::effect::Effect::Halt { reason });
    }

    fn unconfirmed_limit_ms(&self, timeout_ms: u32) -> u64 {
        self.config.unconfirmed_ms_max.min(u64::from(timeout_ms) / 3)
    }
}
