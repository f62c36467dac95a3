//! How far the others are, and how far this server is behind.
//!
//! Called by `server/`, for metrics, for servers that join and for who asks whether this one may serve. Calls the engine.
//! Invariant: only a leader knows of anybody else. It decides nothing.

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

/// What the leader of one term said to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeardCommits {
    term: u64,
    /// What it said first.
    pub first: u64,
    /// The most that it said.
    pub last: u64,
}

impl HeardCommits {
    /// The leader of this term says that what is up to there is committed.
    pub(super) fn hear(&mut self, term: u64, commit: u64) {
        if term > self.term {
            *self = Self { term, first: commit, last: commit };
        } else if term == self.term {
            self.last = self.last.max(commit);
        }
    }
}

impl Consensus {
    /// What the leader of the current term is known to have had committed; nothing before it said anything. A leader itself
    /// knows.
    #[must_use]
    pub fn commits_heard(&self) -> Option<HeardCommits> {
        let (term, commit) = (self.term(), self.commit_index());
        match self.is_leader() {
            true => Some(HeardCommits { term, first: commit, last: commit }),
            false => Some(self.heard).filter(|heard| heard.term == term),
        }
    }

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
