//! How far the others are.
//!
//! Called by `server/`, for metrics. Calls the engine. Invariant: only a leader knows of anybody. It decides nothing.

use super::engine::Consensus;

impl Consensus {
    /// Of a leader: other members that are known to have everything that is committed. 0 on others.
    #[must_use]
    pub fn synced_followers(&self) -> usize {
        if !self.is_leader() {
            return 0;
        }
        let (own, committed) = (self.node.raft.id, self.commit_index());
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != own);
        others.filter(|(_, progress)| progress.matched >= committed).count()
    }
}
