//! Who has a part in consensus: the engine's members, and one change of them at a time.
//!
//! Called by `server/` (the leader changes members, an applied entry names them), by the engine's draining and by
//! transfers of snapshots. Calls the engine. Invariant: what is counted here is what the engine counts; a change
//! gives or takes the vote of one server, so that every quorum of before has a member in every quorum of after it,
//! and takes effect where it is applied; none is proposed while another is not applied. It does not know why members
//! change, and not where they are.

use std::collections::BTreeSet;

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use super::engine::Consensus;
use super::log_store::member_ids;
use super::output::{Output, ProposeError};
use super::record::{EntryKind, SnapshotImage};
use crate::members::MemberIds;
use crate::{Millis, ServerId};

/// One server's part changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberStep {
    /// These are the members, whoever settings have named.
    Found(MemberIds),
    /// It gets the log and has no vote, or has none any more.
    Learner(ServerId),
    /// It votes.
    Voter(ServerId),
    /// It has no part.
    Gone(ServerId),
}

/// The members that `ids` become by a log entry of kind [`EntryKind::Members`] with this data; `None` when it is none.
#[must_use]
pub fn members_after(mut ids: MemberIds, data: &[u8]) -> Option<MemberIds> {
    let step = MemberStep::from_bytes(data)?;
    if let MemberStep::Learner(id) | MemberStep::Voter(id) | MemberStep::Gone(id) = &step {
        ids.voters.remove(id);
        ids.learners.remove(id);
    }
    match step {
        MemberStep::Found(founded) => return Some(founded),
        MemberStep::Learner(id) => drop(ids.learners.insert(id)),
        MemberStep::Voter(id) => drop(ids.voters.insert(id)),
        MemberStep::Gone(_) => {}
    }
    Some(ids)
}

/// Position among the voters, 0 for the lowest id.
pub(super) fn rank_of(id: ServerId, members: &MemberIds) -> u64 {
    members.voters.iter().take_while(|voter| **voter < id).count() as u64
}

impl MemberStep {
    /// As it stands in a log entry: what, and whose.
    fn to_bytes(&self) -> Vec<u8> {
        let byte = |id: &ServerId| u8::try_from(id.get()).unwrap_or(0);
        match self {
            Self::Found(ids) => {
                let count = u8::try_from(ids.voters.len()).unwrap_or(0);
                let all = ids.voters.iter().chain(&ids.learners).map(byte);
                [0, count].into_iter().chain(all).collect()
            }
            Self::Learner(id) => vec![1, byte(id)],
            Self::Voter(id) => vec![2, byte(id)],
            Self::Gone(id) => vec![3, byte(id)],
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = |byte: &u8| ServerId::new(u64::from(*byte));
        match bytes {
            [0, count, all @ ..] => {
                let (voters, learners) = all.split_at_checked(usize::from(*count))?;
                let read = |part: &[u8]| part.iter().map(id).collect::<Option<_>>();
                let ids = MemberIds { voters: read(voters)?, learners: read(learners)? };
                let apart = ids.voters.is_disjoint(&ids.learners) && !ids.voters.is_empty();
                apart.then_some(Self::Found(ids))
            }
            [1, one] => id(one).map(Self::Learner),
            [2, one] => id(one).map(Self::Voter),
            [3, one] => id(one).map(Self::Gone),
            _ => None,
        }
    }

    /// In the engine's words. What founds is told step by step where it is applied, and changes nothing here.
    fn change(&self) -> Option<ConfChangeV2> {
        let (id, kind) = match self {
            Self::Found(ids) => (ids.voters.first()?, ConfChangeType::AddNode),
            Self::Learner(id) => (id, ConfChangeType::AddLearnerNode),
            Self::Voter(id) => (id, ConfChangeType::AddNode),
            Self::Gone(id) => (id, ConfChangeType::RemoveNode),
        };
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id.get();
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![single].into());
        Some(change)
    }
}

impl Consensus {
    /// Who has a part in consensus.
    #[must_use]
    pub fn members(&self) -> &MemberIds {
        &self.members
    }

    /// Whether messages of this server are taken.
    #[must_use]
    pub fn is_acquainted_with(&self, id: ServerId) -> bool {
        self.acquainted.contains(&id) || self.members.contains(id)
    }

    /// Takes messages of these, too.
    pub fn acquaint(&mut self, others: BTreeSet<ServerId>) {
        self.acquainted = others;
    }

    /// Replicates a change of one server's part; it comes back as [`Output::ApplyMembers`].
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was done then.
    pub fn change_members(
        &mut self,
        step: &MemberStep,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> Result<(), ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        if self.node.raft.has_pending_conf() {
            return Err(ProposeError::Changing);
        }
        // The engine reads its own form here and never again: ours, beside it, is what is stored and sent.
        let change = step.change().ok_or(ProposeError::Changing)?;
        let proposed = self.node.propose_conf_change(step.to_bytes(), change);
        proposed.map_err(|_| ProposeError::HandingOver)?;
        self.after_input(now, out);
        Ok(())
    }

    /// Applies a committed change. `None` when it is no change that a leader of good faith proposed.
    pub(super) fn apply_change(&mut self, data: &[u8]) -> Option<MemberIds> {
        let step = MemberStep::from_bytes(data)?;
        match &step {
            MemberStep::Found(ids) => self.found_members(ids)?,
            step => drop(self.node.apply_conf_change(&step.change()?).ok()?),
        }
        self.founding = None;
        if self.is_leader() && self.node.raft.prs().get(self.id.get()).is_none() {
            // The engine would go on leading, and looks its own progress up with the next entry.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        }
        debug_assert!(!matches!(&step, MemberStep::Found(ids) if *ids != self.engine_members()));
        self.follow_members();
        Some(self.members.clone())
    }

    /// The log says who the members are, whoever settings have named. Where both agree nothing changes; a server that is
    /// about to join has named itself.
    fn found_members(&mut self, ids: &MemberIds) -> Option<()> {
        let now = self.members.clone();
        let voters = ids.voters.difference(&now.voters).map(|id| MemberStep::Voter(*id));
        let learners = ids.learners.difference(&now.learners).map(|id| MemberStep::Learner(*id));
        let gone = now.voters.union(&now.learners).filter(|id| !ids.contains(**id));
        let steps: Vec<_> =
            voters.chain(learners).chain(gone.map(|id| MemberStep::Gone(*id))).collect();
        for step in steps {
            self.node.apply_conf_change(&step.change()?).ok()?;
        }
        Some(())
    }

    /// Takes note of what is appended: who the members are may stand there before it is known to be committed.
    pub(super) fn note_appended(&mut self, (index, kind): (u64, EntryKind), data: &[u8]) {
        // Another leader's log has something else there.
        if self.founding.as_ref().is_some_and(|(at, _)| *at >= index) {
            self.founding = None;
        }
        if kind == EntryKind::Members
            && let Some(MemberStep::Found(ids)) = MemberStep::from_bytes(data)
        {
            self.founding = Some((index, ids));
        }
    }

    /// Whether this server may ask for votes. Whom settings have named only to join may not, and has learned here that it
    /// was: several of them could elect one another.
    pub(super) fn may_campaign(&self) -> bool {
        !self.is_to_join() && self.members.voters.contains(&self.id)
    }

    /// Whether the log, as far as it is here, has other members than this server has begun with.
    pub(super) fn is_to_join(&self) -> bool {
        let other = self.founding.as_ref().is_some_and(|(_, ids)| *ids != self.members);
        other || (self.joins && self.last_index() == 0)
    }

    /// There is an ensemble: a server that has nothing of it founds no other.
    pub fn found_nothing(&mut self) {
        self.joins = true;
    }

    /// Whether to refuse this server's vote to a candidate whose log ends at `last`. A server without a log may be
    /// one that had a vote, acknowledged what the candidate lacks, and was wiped: it only helps to found.
    pub(super) fn withholds_vote(&self, last: u64) -> bool {
        self.changes_members && self.last_index() == 0 && (last > 0 || self.joins)
    }

    fn engine_members(&self) -> MemberIds {
        member_ids(&self.node.raft.prs().conf().to_conf_state())
    }

    /// Counts as the engine does.
    pub(super) fn follow_members(&mut self) {
        let members = self.engine_members();
        if members == self.members {
            return;
        }
        self.contact.set_voters(members.voters.clone());
        self.election.set_rank(rank_of(self.id, &members));
        self.outgoing.retain(|transfer| members.contains(transfer.to));
        self.members = members;
    }

    /// The members as of a snapshot; those of now when it does not say.
    pub(super) fn members_in(&self, image: Option<&SnapshotImage>) -> MemberIds {
        let stored = image.and_then(|image| (self.members_of)(&image.data));
        stored.unwrap_or_else(|| self.members.clone())
    }

    /// How far a member has the log; `None` on others than the leader, and of others than members.
    #[must_use]
    pub fn matched(&self, id: ServerId) -> Option<u64> {
        let progress = self.node.raft.prs().get(id.get()).filter(|_| self.is_leader())?;
        Some(progress.matched)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Restored;
    use super::*;
    use crate::server::Config;

    #[test]
    fn members_that_another_leaders_log_overwrites_keep_nobody_from_campaigning() {
        let ids: Vec<ServerId> = (1..=3).filter_map(ServerId::new).collect();
        let (own, other) = (ids[0], ServerId::new(9).unwrap());
        let config = Config::new(own, ids);
        let mut consensus = Consensus::new(&config, &Restored::default(), |_| None).unwrap();
        let founds = MemberStep::Found(MemberIds::of_voters([own, other])).to_bytes();
        consensus.note_appended((5, EntryKind::Members), &founds);
        consensus.note_appended((6, EntryKind::Normal), b"");
        assert!(!consensus.may_campaign());
        consensus.note_appended((5, EntryKind::Normal), b"");
        assert!(consensus.may_campaign());
    }

    /// Logs hold these bytes, and members of different versions exchange them.
    #[test]
    fn golden_bytes_stay() {
        let id = ServerId::new(200).unwrap();
        let (one, two) = (ServerId::new(1).unwrap(), ServerId::new(2).unwrap());
        let ids = MemberIds { voters: [one, two].into(), learners: [id].into() };
        for (step, bytes) in [
            (MemberStep::Found(ids), &[0, 2, 1, 2, 200][..]),
            (MemberStep::Learner(id), &[1, 200]),
            (MemberStep::Voter(id), &[2, 200]),
            (MemberStep::Gone(id), &[3, 200]),
        ] {
            assert_eq!(step.to_bytes(), bytes);
            assert_eq!(MemberStep::from_bytes(bytes), Some(step));
            assert!(members_after(MemberIds::default(), bytes).is_some());
        }
        let bad = [&[][..], &[1], &[0, 0], &[0, 1], &[0, 1, 7, 7], &[4, 1], &[1, 0], &[1, 255]];
        for bad in bad {
            assert_eq!(MemberStep::from_bytes(bad), None, "{bad:?}");
        }
    }
}
