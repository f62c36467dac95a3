//! Commands on their way to the leader, whoever that is at the moment.
//!
//! Called by whatever makes commands; flushed at the end of each step. Calls `proposals` when this
//! server leads, `peer` otherwise. Invariant (safety.md A4): commands of a session are sent in
//! order over one ordered stream; when the leader or the stream changes, when the log shows a gap,
//! a later command is answered before an earlier one or the leader had no room, all unanswered ones are sent again in order. The leader drops those
//! that it has queued already, the state machine those that it has applied. It does not know what
//! commands do.

use super::limits::FORWARD_BYTES_MAX;
use super::peer::PeerMessage;
use super::step::Server;
use super::weight::command_bytes;
use crate::state::Command;
use crate::{Millis, ServerId};

/// Unanswered commands are sent again when one is this old and no write of this server was answered
/// since, whatever of others was applied...
const STUCK_MS: u64 = 1_500;
/// ...then after twice that pause and so on, up to this one. One that is so old is sent again even
/// while others of this server are answered.
const STUCK_MS_MAX: u64 = 24_000;
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
    /// The log showed a gap since.
    gap_seen: bool,
    /// Writes were given these places, up to here...
    numbered: u64,
    /// ...of which this is the last that was answered...
    answered: u64,
    /// ...and this the last one when everything unanswered was last sent again.
    numbered_at_resending: u64,
    /// `answered` when it was last seen to move, and when that was.
    moved: (u64, Millis),
    /// How long it must stand still before the next repetition; 0 is taken for the least.
    patience_ms: u64,
    last_session: u64,
}

impl Link {
    /// A new command of this server.
    pub(super) fn push(&mut self, command: Command) {
        self.outbox.push(command);
    }

    /// The place of a write that is sent now.
    pub(super) fn number(&mut self) -> u64 {
        self.numbered = self.numbered.saturating_add(1);
        self.numbered
    }

    /// A write was answered, which had this place.
    pub(super) fn answered(&mut self, place: Option<u64>) {
        self.answered = self.answered.max(place.unwrap_or(0));
    }

    /// Whether a write that was sent later is answered and this one is not, though the leader takes them in order: it did not arrive.
    fn is_overtaken(&self, oldest: u64) -> bool {
        self.answered > oldest.max(self.numbered_at_resending)
    }

    /// The log showed a gap.
    pub(super) fn ask_to_resend(&mut self, now: Millis) {
        self.gap_seen = true;
        self.resend_after_gap(now);
    }

    /// The leader asks for it.
    pub(super) fn resend_at_once(&mut self) {
        self.resend_wanted = true;
    }

    fn resend_after_gap(&mut self, now: Millis) {
        self.resend_wanted |= self.gap_seen && now.since(self.resent) >= GAP_PAUSE_MS;
    }

    /// Whether it is time to think that something dropped commands without a sign, given when the
    /// oldest unanswered one came.
    fn is_stuck(&mut self, oldest: Millis, now: Millis) -> bool {
        if self.moved.0 != self.answered {
            self.moved = (self.answered, now);
            self.patience_ms = STUCK_MS;
        }
        let patience_ms = self.patience_ms.max(STUCK_MS);
        let waited_ms = now.since(self.resent.max(oldest));
        let stuck = waited_ms >= patience_ms && now.since(self.moved.1) >= patience_ms;
        if stuck {
            self.patience_ms = patience_ms.saturating_mul(2).min(STUCK_MS_MAX);
        }
        stuck || waited_ms >= STUCK_MS_MAX
    }

    /// What was sent over the stream to this peer may be lost.
    pub(super) fn broke(&mut self, peer: ServerId) {
        if self.sent_to.is_some_and(|(leader, _)| leader == peer) {
            self.sent_to = None;
        }
    }

    /// Whether nobody is there to whom a command could go.
    pub(super) fn has_no_end(&self) -> bool {
        self.sent_to.is_none()
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
        self.link.gap_seen = false;
        if target != self.link.sent_to {
            self.link.patience_ms = 0;
        }
        self.link.sent_to = target;
        if target.is_none() {
            return;
        }
        self.link.resent = self.now.mono;
        self.link.numbered_at_resending = self.link.numbered;
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
                self.queue_command(leader, command);
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
        let oldest = self.connections.iter().filter_map(|(_, held)| held.oldest_place()).min();
        self.link.gap_seen |= oldest.is_some_and(|oldest| self.link.is_overtaken(oldest));
        self.link.resend_after_gap(now);
        if self.link.has_no_end() {
            return;
        }
        let oldest = self.connections.iter().filter_map(|(_, held)| held.oldest_command()).min();
        match oldest {
            Some(oldest) => self.link.resend_wanted |= self.link.is_stuck(oldest, now),
            None => self.link.patience_ms = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_nothing_is_answered_and_only_then_is_anything_sent_again() {
        let mut link = Link::default();
        let mut resent = Vec::new();
        for at in (0..=60_000).step_by(50) {
            let now = Millis::new(at);
            if link.is_stuck(Millis::ZERO, now) {
                link.resent = now;
                resent.push(at);
            }
        }
        assert_eq!(resent, [1_500, 4_500, 10_500, 22_500, 46_500]);
        resent.clear();
        for at in (60_050..=120_000).step_by(50) {
            let now = Millis::new(at);
            link.answered(Some(at));
            if link.is_stuck(Millis::new(60_050), now) {
                link.resent = now;
                resent.push(at);
            }
        }
        assert_eq!(resent, [84_050, 108_050], "others are answered, but never this command");
    }
}
