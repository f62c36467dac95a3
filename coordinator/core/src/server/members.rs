//! The members change: the leader brings about what a reconfig asked for, one server at a time.
//!
//! Called by `request` and the end of each step. Calls consensus, `proposals`. Invariant: votes are given only to
//! servers that have caught up, and only once all of them have; a leader that is to lose its vote hands over first; what
//! happened is in the log, and any leader goes on from there. It does not know how links come about.
//!
//! One server at a time, and not by joint consensus: each quorum of before meets each quorum of after by itself, in every
//! state there is one majority to count, and whoever is killed in between leaves a state like any other. Several servers
//! take several entries; the configuration that clients see changes once, at the end.

use std::collections::BTreeSet;

use coordinator_protocol::{ErrorCode, ReconfigRequest};

use super::effect::Effect;
use super::limits::{CATCH_UP_MS_MAX, CAUGHT_UP_ENTRIES, DEMOTED_WAIT_MS};
use super::step::Server;
use crate::consensus::MemberStep;
use crate::members::{MemberIds, Members, Role, to_text};
use crate::state::{AdvanceTo, ChangePhase, Command, Membership, MembershipChange, WriteOp};
use crate::{ConnectionId, Millis, ServerId};

/// A proposal that did not come to anything is made again after this time.
const AGAIN_MS: u64 = 1_000;
/// So long after an heir was chosen another is. The engine waits for it for an election time-out and takes no writes
/// meanwhile: an heir that does not answer must not keep it from them for good.
const NEXT_HEIR_MS: u64 = 5_000;

/// What this server knows of the members beside the log.
#[derive(Debug, Default)]
pub(super) struct Changing {
    /// The state's members may have changed since they were looked at.
    pub(super) stale: bool,
    /// Of the change under way: since when this leader has it.
    since: Option<(u64, Millis)>,
    /// Who has no vote any more and is still told of it.
    demoted: Option<(ServerId, Millis)>,
    /// What was proposed last, and when.
    proposed: Option<(Move, Millis)>,
    /// To whom this leader has tried to hand over.
    heirs: BTreeSet<ServerId>,
    /// What the shell was told last.
    told: Option<(Members, bool)>,
}

impl Changing {
    pub(super) fn new() -> Self {
        Self { stale: true, ..Self::default() }
    }
}

/// What the leader does next for the members.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    /// Names the servers that its settings name.
    Found,
    /// Changes one server's part.
    Step(MemberStep),
    /// Goes on with the change.
    Advance(u64, AdvanceTo),
    /// Hands its office to one of these.
    HandOver(BTreeSet<ServerId>),
}

impl Server {
    /// A reconfig as a write, if this server lets anybody change members.
    pub(super) fn sort_reconfig(&self, request: ReconfigRequest) -> Result<WriteOp, ErrorCode> {
        if !self.config.reconfig_enabled {
            return Err(ErrorCode::ReconfigDisabled);
        }
        if self.state.membership().is_none() && self.config.servers.is_empty() {
            // As ZooKeeper's that stands alone.
            return Err(ErrorCode::Unimplemented);
        }
        Ok(WriteOp::Reconfig(request))
    }

    /// Whether this server may serve clients as far as members go.
    pub(super) fn is_member(&self) -> bool {
        self.state.membership().is_none_or(|members| members.serves(self.config.id))
    }

    /// Who votes and who follows, by the log or by the settings.
    pub(super) fn member_ids(&self) -> MemberIds {
        let by_log = self.state.membership().map(|members| &members.ids);
        let ids = by_log.filter(|ids| !ids.voters.is_empty());
        ids.cloned().unwrap_or_else(|| self.consensus.members().clone())
    }

    /// Looks at the state's members after they may have changed.
    pub(super) fn follow_members(&mut self) {
        if !std::mem::take(&mut self.changing.stale) {
            return;
        }
        let Some(membership) = self.state.membership() else { return };
        let servers = membership.known();
        // Settings of a server that is about to join name those who will have it.
        let named = match membership.ids.contains(self.config.id) {
            true => [].as_slice(),
            false => self.config.members.as_slice(),
        };
        let acquainted = servers.keys().chain(named).copied().collect();
        let serves = membership.serves(self.config.id);
        self.consensus.acquaint(acquainted);
        if !serves {
            let all: Vec<ConnectionId> = self.connections.iter().map(|(id, _)| id).collect();
            for id in all {
                self.close(id);
            }
        }
        let told = (servers, serves);
        if self.changing.told.as_ref() != Some(&told) {
            self.changing.told = Some(told.clone());
            let (servers, serves) = told;
            self.effects.push(Effect::Members { servers, serves });
        }
    }

    /// Brings the change under way one step further, if this server is in office.
    pub(super) fn drive_members(&mut self) {
        if !self.is_in_office() {
            self.changing.since = None;
            self.changing.proposed = None;
            self.changing.demoted = None;
            self.changing.heirs.clear();
            return;
        }
        let Some(next) = self.next_move() else { return };
        let now = self.now.mono;
        let pause = if matches!(next, Move::HandOver(_)) { NEXT_HEIR_MS } else { AGAIN_MS };
        let is_next = |(proposed, at): &(Move, Millis)| *proposed == next && now.since(*at) < pause;
        if self.changing.proposed.as_ref().is_some_and(is_next) {
            return;
        }
        self.changing.proposed = Some((next.clone(), now));
        match next {
            Move::Found => {
                let servers = self.config.servers.clone();
                self.queue_command(self.config.id, Command::FoundMembers { servers });
            }
            Move::Advance(change, to) => {
                self.queue_command(self.config.id, Command::AdvanceMembers { change, to });
            }
            Move::Step(step) => {
                let proposed = self.consensus.change_members(&step, now, &mut self.outputs);
                if proposed.is_err() {
                    self.changing.proposed = None;
                }
                self.settle();
            }
            Move::HandOver(heirs) => self.hand_over_to_one_of(&heirs),
        }
    }

    /// To one that has the log, and not to the same again before all had their turn.
    fn hand_over_to_one_of(&mut self, heirs: &BTreeSet<ServerId>) {
        let fit: Vec<ServerId> =
            heirs.iter().copied().filter(|id| self.has_caught_up(*id)).collect();
        if fit.iter().all(|id| self.changing.heirs.contains(id)) {
            self.changing.heirs.clear();
        }
        let untried = fit.into_iter().filter(|id| !self.changing.heirs.contains(id));
        let Some(heir) = untried.max_by_key(|id| self.consensus.matched(*id)) else {
            self.changing.proposed = None;
            return;
        };
        self.changing.heirs.insert(heir);
        self.consensus.hand_over(Some(heir), self.now.mono, &mut self.outputs);
        self.settle();
    }

    fn next_move(&mut self) -> Option<Move> {
        let Some(membership) = self.state.membership() else {
            let founds = self.config.reconfig_enabled && !self.config.servers.is_empty();
            return founds.then_some(Move::Found);
        };
        if membership.ids.voters.is_empty() {
            let ids = MemberIds::of(&membership.servers);
            return Some(Move::Step(MemberStep::Found(ids)));
        }
        let ids = membership.ids.clone();
        if !ids.voters.contains(&self.config.id) {
            // It was elected with the entry that takes its vote. Nothing else is done before another leads: a leader that
            // takes itself out of the members leads on and can write nothing.
            let wanted = membership.change.as_ref().map(|change| MemberIds::of(&change.target));
            let stay: BTreeSet<_> =
                wanted.into_iter().flat_map(|wanted| &ids.voters & &wanted.voters).collect();
            return Some(Move::HandOver(if stay.is_empty() { ids.voters } else { stay }));
        }
        let change = membership.change.clone()?;
        let since = match self.changing.since {
            Some((id, since)) if id == change.id => since,
            _ => self.now.mono,
        };
        self.changing.since = Some((change.id, since));
        let wanted = MemberIds::of(&change.target);
        match change.phase {
            ChangePhase::CatchUp => self.catch_up(&change, (&ids, &wanted), since),
            ChangePhase::Exchange | ChangePhase::GivenUp => {
                let step = self.exchange_votes(&ids, &wanted);
                step.or_else(|| self.arrival(&change))
            }
        }
    }

    fn arrival(&self, change: &MembershipChange) -> Option<Move> {
        let arrived = self.state.membership().is_some_and(Membership::has_arrived);
        arrived.then_some(Move::Advance(change.id, AdvanceTo::Finished))
    }

    /// New servers get the log, without a vote; on when all that are to vote have it.
    fn catch_up(
        &self,
        change: &MembershipChange,
        (ids, wanted): (&MemberIds, &MemberIds),
        since: Millis,
    ) -> Option<Move> {
        let joins = |id: &&ServerId| !ids.contains(**id);
        if let Some(id) = change.target.keys().find(joins) {
            return Some(Move::Step(MemberStep::Learner(*id)));
        }
        let behind = wanted.voters.difference(&ids.voters).any(|id| !self.has_caught_up(*id));
        if !behind {
            return Some(Move::Advance(change.id, AdvanceTo::Exchange));
        }
        let late = self.now.mono.since(since) >= CATCH_UP_MS_MAX;
        late.then_some(Move::Advance(change.id, AdvanceTo::GivenUp))
    }

    fn has_caught_up(&self, id: ServerId) -> bool {
        let needed = self.consensus.commit_index().saturating_sub(CAUGHT_UP_ENTRIES);
        let matched = self.consensus.matched(id);
        self.consensus.is_peer_up(id) && matched.is_some_and(|matched| matched >= needed.max(1))
    }

    /// Votes are given first, then taken: the fewer servers would have to be up for the next step, the worse.
    fn exchange_votes(&mut self, ids: &MemberIds, wanted: &MemberIds) -> Option<Move> {
        if let Some(id) = wanted.voters.difference(&ids.voters).next() {
            return Some(Move::Step(MemberStep::Voter(*id)));
        }
        let mut losing = ids.voters.difference(&wanted.voters);
        if let Some(id) = losing.clone().find(|id| **id != self.config.id) {
            return Some(Move::Step(MemberStep::Learner(*id)));
        }
        if losing.next().is_some() {
            return Some(Move::HandOver(wanted.voters.clone()));
        }
        let id = *ids.learners.iter().find(|id| !wanted.contains(**id))?;
        self.is_told(id).then_some(Move::Step(MemberStep::Gone(id)))
    }

    /// Whether a server that has lost its vote knows so, or has had the time to.
    fn is_told(&mut self, id: ServerId) -> bool {
        let now = self.now.mono;
        let since = match self.changing.demoted {
            Some((known, since)) if known == id => since,
            _ => now,
        };
        self.changing.demoted = Some((id, since));
        let knows = self.consensus.matched(id) >= Some(self.state.applied_index());
        let late = now.since(since) >= DEMOTED_WAIT_MS;
        knows || late || !self.consensus.is_peer_up(id)
    }

    /// The configuration by this server's settings, where the log does not hold any.
    pub(super) fn named_members(&self) -> Option<String> {
        let shows = self.state.membership().is_none() && !self.config.servers.is_empty();
        shows.then(|| to_text(&self.config.servers, 0))
    }

    /// The role of a server that has no vote.
    pub(super) fn is_observer(&self) -> bool {
        let by_log = self.state.membership().map(|membership| &membership.servers);
        let own = by_log.unwrap_or(&self.config.servers).get(&self.config.id);
        own.is_some_and(|member| member.role() == Role::Observer)
    }
}
