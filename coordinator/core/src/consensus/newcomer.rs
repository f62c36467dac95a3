//! A server whose disk had nothing when it started: founded together with the others, come later, or wiped.
//!
//! Called by the engine's inputs. Calls: nothing. Invariant: what a wiped server had acknowledged stays on a majority of those
//! who vote. It may have made up that majority with one that is still there, and with its vote somebody could lead who
//! never had it. So until it has all of that again, it gives no vote to anybody who has a log, and asks for none as soon as
//! it has a part of one itself; other servers that have nothing, who found an ensemble with it, it votes for. It does not know
//! what was acknowledged.
//!
//! ```text
//! had nothing at its start -> votes only to found -> all up to an entry of the term of a leader elected without it -> votes
//! ```

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::engine::Consensus;
use super::record::Restored;

/// A vote that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    by: u64,
    term: u64,
    /// Where the candidate's log ends.
    last: u64,
}

/// Whether storage found a server that has not caught up.
pub(super) fn is_new(restored: &Restored) -> bool {
    let has_nothing = restored.snapshot.is_none() && restored.entries.is_empty();
    restored.hard_state.is_new || (has_nothing && restored.hard_state.term == 0)
}

impl Asked {
    /// What the message asks for, if it is a vote.
    pub(super) fn in_message(message: &Message) -> Option<Self> {
        let asks = message.msg_type == MessageType::MsgRequestVote;
        asks.then_some(Self { by: message.from, term: message.term, last: message.index })
    }
}

impl Consensus {
    /// Whether to refuse this server's vote to a candidate whose log ends at `last`.
    pub(super) fn withholds_vote(&self, last: u64) -> bool {
        if planted!(self.planted, LendVote) {
            return false;
        }
        let has_nothing = self.is_new || (self.changes_members && self.last_index() == 0);
        has_nothing && (last > 0 || self.joins)
    }

    /// Whether this server has a part of what others have, and perhaps not all that it had itself.
    pub(super) fn is_catching_up(&self) -> bool {
        self.is_new && self.last_index() > 0
    }

    /// Whether this server had nothing at its start, and has not caught up since.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// After a vote was asked for. Who helps to found an ensemble has a part in it from then on.
    pub(super) fn note_asked(&mut self, asked: Asked) {
        let raft = &self.node.raft;
        if asked.last == 0 && (raft.term, raft.vote) == (asked.term, asked.by) {
            self.is_new = false;
        }
    }

    /// Takes note of having caught up. An entry of the leader's own term comes behind all that was agreed on before the
    /// term, and the leader was elected without this server's vote; what is not durable here may be lost once more.
    pub(super) fn settle_in(&mut self) {
        if !self.is_new {
            return;
        }
        let raft = &self.node.raft;
        let committed = raft.raft_log.committed;
        let is_of_term = raft.raft_log.term(committed).is_ok_and(|term| term == raft.term);
        let follows = raft.state == StateRole::Follower && raft.leader_id != raft::INVALID_ID;
        let has_all = follows && is_of_term && committed <= raft.raft_log.persisted;
        if has_all || raft.state == StateRole::Leader {
            self.is_new = false;
        }
    }
}
