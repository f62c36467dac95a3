//! How far the others are.
//!
//! Called by `server/`, for metrics and for servers that join. Calls the engine. Invariant: only a leader knows of anybody. It decides
//! nothing.

use std::collections::BTreeSet;

use super::engine::Consensus;
use crate::ServerId;

/// How far one is on its way to have everything; what is more is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reached {
    /// It has the log up to here.
    pub matched: u64,
    /// And of the snapshot at this index, which it is sent...
    pub snapshot_index: u64,
    /// ...so many bytes.
    pub snapshot_bytes: u64,
}

impl Consensus {
    /// What this server has, as far as a leader knows.
    #[must_use]
    pub fn reached(&self, id: ServerId) -> Reached {
        let matched = self.matched(id).unwrap_or(0);
        let transfer = self.outgoing.iter().find(|transfer| transfer.to == id);
        let (snapshot_index, snapshot_bytes) =
            transfer.map_or((0, 0), |transfer| (transfer.index(), transfer.received_bytes()));
        Reached { matched, snapshot_index, snapshot_bytes }
    }

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
