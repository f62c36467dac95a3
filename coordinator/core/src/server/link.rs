//! Commands on their way to the leader, whoever that is at the moment.
//!
//! Called by whatever makes commands; flushed at the end of each step. Calls `proposals` when this
//! server leads, `peer` otherwise. Invariant (safety.md A4): commands of a session are sent in
//! order over one ordered stream; when the leader or the stream changes, or an answer is overdue,
//! all unanswered ones are sent again in order, and the state machine drops repetitions. It does
//! not know what commands do.

use super::limits::FORWARD_BYTES_MAX;
use super::peer::PeerMessage;
use super::step::Server;
use super::weight::command_bytes;
use crate::state::Command;
use crate::{Millis, ServerId};

/// Unanswered commands are sent again when one is older than this.
const STUCK_MS: u64 = 1_500;
/// Between two repetitions because of a gap: those already on their way show the same gap.
const GAP_PAUSE_MS: u64 = 100;

/// To whom commands go.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Made in this step.
    outbox: Vec<Command>,
    /// The leader and its term to whom everything unanswered was sent.
    sent_to: Option<(ServerId, u64)>,
    /// When everything unanswered was last sent again.
    resent: Millis,
    resend_wanted: bool,
    last_session: u64,
}

impl Link {
    /// A new command of this server.
    pub(super) fn push(&mut self, command: Command) {
        self.outbox.push(command);
    }

    /// The log showed a gap.
    pub(super) fn ask_to_resend(&mut self, now: Millis) {
        self.resend_wanted |= now.since(self.resent) >= GAP_PAUSE_MS;
    }

    /// What was sent over the stream to this peer may be lost.
    pub(super) fn broke(&mut self, peer: ServerId) {
        if self.sent_to.is_some_and(|(leader, _)| leader == peer) {
            self.sent_to = None;
        }
    }

    /// Draws a number for a new session, different from all before.
    pub(super) fn next_session(&mut self, choose: impl FnOnce(u64) -> u64) -> u64 {
        self.last_session = choose(self.last_session);
        self.last_session
    }
}

impl Server {
    /// Sends everything unanswered to a new leader, or again over a new stream.
    pub(super) fn follow_leader(&mut self) {
        let leader = self.consensus.leader();
        let reachable =
            |leader: &ServerId| *leader == self.config.id || self.consensus.is_peer_up(*leader);
        let target = leader.filter(reachable).map(|leader| (leader, self.consensus.term()));
        if target == self.link.sent_to && !self.link.resend_wanted {
            return;
        }
        self.link.resend_wanted = false;
        self.link.sent_to = target;
        if target.is_none() {
            return;
        }
        self.link.resent = self.now.mono;
        // The outbox is among what is unanswered.
        self.link.outbox =
            self.connections.iter().flat_map(|(_, held)| held.unacknowledged()).collect();
        self.report_all_losses();
    }

    /// Sends what this step made.
    pub(super) fn flush_link(&mut self) {
        let Some((leader, _)) = self.link.sent_to else {
            // It stays unanswered, and is sent when a leader is known.
            self.link.outbox.clear();
            return;
        };
        if self.link.outbox.is_empty() {
            return;
        }
        let commands = std::mem::take(&mut self.link.outbox);
        if leader == self.config.id {
            for command in commands {
                self.proposals.push(command);
            }
            return;
        }
        let mut bytes = 0usize;
        let mut batch = Vec::new();
        for command in commands {
            bytes = bytes.saturating_add(command_bytes(&command));
            if !batch.is_empty() && bytes > FORWARD_BYTES_MAX {
                self.send_peer(leader, &PeerMessage::Forward(std::mem::take(&mut batch)));
                bytes = command_bytes(&command);
            }
            batch.push(command);
        }
        self.send_peer(leader, &PeerMessage::Forward(batch));
    }

    /// A last resort: something dropped a command without a sign.
    pub(super) fn resend_if_stuck(&mut self) {
        let now = self.now.mono;
        if self.link.sent_to.is_some() && now.since(self.link.resent) >= STUCK_MS {
            let overdue = |sent: Millis| now.since(sent) >= STUCK_MS;
            self.link.resend_wanted |=
                self.connections.iter().any(|(_, held)| held.oldest_command().is_some_and(overdue));
        }
    }
}
