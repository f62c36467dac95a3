//! How far the others are.
//!
//! Called by `server/`, for metrics. Calls the engine. Invariant: only a leader knows of anybody. It decides nothing.

use std::collections::BTreeSet;

use super::engine::Consensus;
use crate::ServerId;

impl Consensus {
    /// Of a leader: other members with a vote that are known to have everything that is committed. 0 on others.
    #[must_use]
    pub fn synced_followers(&self) -> usize {
        self.synced_among(&self.members().voters)
    }

    /// The same of members without a vote.
    #[must_use]
    pub fn synced_observers(&self) -> usize {
        self.synced_among(&self.members().learners)
    }

    fn synced_among(&self, members: &BTreeSet<ServerId>) -> usize {
        if !self.is_leader() {
            return 0;
        }
        let committed = self.commit_index();
        let is_synced = |member: &&ServerId| {
            let progress = self.node.raft.prs().get(member.get());
            **member != self.id && progress.is_some_and(|progress| progress.matched >= committed)
        };
        members.iter().filter(is_synced).count()
    }
}
