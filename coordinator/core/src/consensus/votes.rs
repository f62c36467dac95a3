//! Votes that were asked for and not heard of are asked for again.
//!
//! Called by the engine's tick. Calls `election`, the engine. Invariant (safety.md A1): it is the question that the engine
//! asked, in the same term and with the same log, and only once this server's own vote is on its disk. Who voted for this
//! server says so again and writes nothing for it. It does not know whose answers have come.
//!
//! The engine asks once. An answer may be lost with the stream that carried it, and only its sender is told of that; who
//! waits for slow disks after many lost elections would wait for it in vain, and may be the only one who can win.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::engine::Consensus;
use super::output::Output;
use crate::Millis;

impl Consensus {
    /// Asks everybody whose stream works, if this server is a candidate and it is time.
    pub(super) fn ask_again_if_due(&mut self, now: Millis, out: &mut Vec<Output>) {
        let raft = &self.node.raft;
        // Before its own vote is on the disk nobody was asked at all.
        let has_asked = raft.state == StateRole::Candidate && self.vote_pending_since.is_none();
        if !has_asked || !self.election.take_due_to_ask(now) {
            return;
        }
        let (commit, commit_term) = raft.raft_log.commit_info();
        let mut question = Message {
            from: self.id.get(),
            term: raft.term,
            index: raft.raft_log.last_index(),
            log_term: raft.raft_log.last_term(),
            commit,
            commit_term,
            ..Message::default()
        };
        question.set_msg_type(MessageType::MsgRequestVote);
        let voters = self.members.voters.intersection(&self.peers_up);
        let asked: Vec<u64> = voters.map(|id| id.get()).collect();
        for to in asked {
            self.send(Message { to, ..question.clone() }, now, out);
        }
    }
}
