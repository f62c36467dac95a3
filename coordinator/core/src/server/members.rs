//! The members change: the leader brings about what a reconfig asked for, one server at a time.
//!
//! Called by `request` and the end of each step. Calls consensus, `proposals`. Invariant: votes are given only to
//! servers that have caught up, the first once all of them have, and given and taken only where a majority of those who
//! vote afterwards is there; a leader that is to lose its vote hands over first; what
//! happened is in the log, and any leader goes on from there. It does not know how links come about.
//!
//! One server at a time, and not by joint consensus: each quorum of before meets each quorum of after by itself, in every
//! state there is one majority to count, and whoever is killed in between leaves a state like any other. Several servers
//! take several entries; the configuration that clients see changes once, at the end.

use std::collections::BTreeSet;

use coordinator_protocol::{ErrorCode, ReconfigRequest};

use super::effect::Effect;
use super::limits::{CAUGHT_UP_ENTRIES, DEMOTED_WAIT_MS, STANDSTILL_MS_MAX};
use super::newcomers::{Newcomers, Sight};
use super::peer::PeerMessage;
use super::step::Server;
use crate::consensus::MemberStep;
use crate::members::{MemberIds, Members, Role, SERVERS_MAX, to_text};
use crate::state::{AdvanceTo, ChangePhase, Command, Membership, MembershipChange, WriteOp};
use crate::{ConnectionId, Millis, ServerId};

/// A proposal that did not come to anything is made again after this time.
const AGAIN_MS: u64 = 1_000;
/// So long after an heir was chosen another is. The engine waits for it for an election time-out and takes no writes
/// meanwhile: an heir that does not answer must not keep it from them for good.
const NEXT_HEIR_MS: u64 = 5_000;

/// Without a leader for so long, a server looks for those that its settings name as well.
const ASTRAY_MS: u64 = 3_000;
/// More servers than are there before and after a change together are not taken from anybody.
const TOLD_SERVERS_MAX: usize = 2 * SERVERS_MAX;

/// What this server knows of the members beside the log.
#[derive(Debug, Default)]
pub(super) struct Changing {
    /// The state's members may have changed since they were looked at.
    pub(super) stale: bool,
    /// Of the change under way: how those get on who are to vote after it, under this leader.
    newcomers: Option<Newcomers>,
    /// Told by a peer that knows a later entry than this server: that entry, and the servers as of it.
    heard: Option<(u64, Members)>,
    /// Since when nobody leads.
    leaderless: Option<Millis>,
    /// That is for long, and whom settings name is looked for, too.
    astray: bool,
    /// Who has no vote any more and is still told of it.
    demoted: Option<(ServerId, Millis)>,
    /// What was proposed last, and when.
    proposed: Option<(Move, Millis)>,
    /// With which members the exchange has come to nothing more, and since when.
    stood_still: Option<(MemberIds, Millis)>,
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

    /// Tells a peer who the members are, as far as this server knows.
    pub(super) fn greet_with_members(&mut self, peer: ServerId) {
        let Some(membership) = self.state.membership() else { return };
        let message = PeerMessage::Members(self.state.applied_index(), membership.known());
        self.send_peer(peer, &message);
    }

    /// A peer says who the members are. Whoever missed changes learns here whom to link up with; whoever has nothing yet,
    /// that there is an ensemble.
    pub(super) fn on_members_told(&mut self, index: u64, servers: Members) {
        let known = self.changing.heard.as_ref().map_or(0, |(index, _)| *index);
        if servers.len() > TOLD_SERVERS_MAX || index <= known.max(self.state.applied_index()) {
            return;
        }
        self.consensus.found_nothing();
        self.changing.heard = Some((index, servers));
        self.changing.stale = true;
    }

    /// Whether there was no leader for so long that the members may be others than this server knows.
    fn watch_for_leader(&mut self) {
        let now = self.now.mono;
        let since = match self.consensus.leader() {
            Some(_) => None,
            None => Some(self.changing.leaderless.unwrap_or(now)),
        };
        self.changing.leaderless = since;
        let leader = self.consensus.leader();
        let knows = |id| self.state.membership().is_some_and(|all| all.known().contains_key(&id));
        if self.changing.astray && leader.is_some_and(knows) {
            self.changing.astray = false;
            self.changing.stale = true;
        } else if !self.changing.astray && since.is_some_and(|since| now.since(since) >= ASTRAY_MS)
        {
            self.changing.astray = true;
            self.changing.stale = true;
        }
    }

    /// Looks at the state's members after they may have changed.
    pub(super) fn follow_members(&mut self) {
        self.watch_for_leader();
        let applied = self.state.applied_index();
        if self.changing.heard.as_ref().is_some_and(|(index, _)| *index <= applied) {
            self.changing.heard = None;
            self.changing.stale = true;
        }
        if !std::mem::take(&mut self.changing.stale) {
            return;
        }
        let membership = self.state.membership();
        let heard = self.changing.heard.as_ref().map(|(_, servers)| servers);
        if membership.is_none() && heard.is_none() {
            return;
        }
        let mut servers = membership.map(Membership::known).unwrap_or_default();
        servers.extend(heard.into_iter().flatten().map(|(id, member)| (*id, member.clone())));
        let mut acquainted: BTreeSet<ServerId> = servers.keys().copied().collect();
        // Settings of a server that is about to join name those who will have it: also while it goes through what was
        // before them. And a person may mend by settings what a server that finds nobody cannot know.
        let is_in = membership.is_some_and(|all| all.ids.contains(self.config.id));
        if !is_in || self.changing.astray {
            acquainted.extend(&self.config.members);
            for (id, member) in &self.config.servers {
                acquainted.insert(*id);
                servers.entry(*id).or_insert_with(|| member.clone());
            }
        }
        let serves = self.is_member();
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
            self.changing.newcomers = None;
            self.changing.proposed = None;
            self.changing.demoted = None;
            self.changing.heirs.clear();
            self.changing.stood_still = None;
            return;
        }
        let Some(next) = self.next_move() else { return };
        self.changing.stood_still = None;
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
            let stay = &ids.voters & &membership.wanted().voters;
            return Some(Move::HandOver(if stay.is_empty() { ids.voters } else { stay }));
        }
        let change = membership.change.clone()?;
        let wanted = membership.wanted();
        match change.phase {
            ChangePhase::CatchUp => self.catch_up(&change, (&ids, &wanted)),
            ChangePhase::Exchange | ChangePhase::GivenUp | ChangePhase::TurnedBack => {
                let step = self.exchange_votes(&ids, &wanted);
                let next = step.or_else(|| self.arrival(&change));
                next.or_else(|| self.turn_back(&change, &ids))
            }
        }
    }

    /// Back to the servers of before, when the exchange has stood still for long and they would let it go on.
    fn turn_back(&mut self, change: &MembershipChange, ids: &MemberIds) -> Option<Move> {
        let now = self.now.mono;
        let since = match self.changing.stood_still.take() {
            Some((known, since)) if known == *ids => since,
            _ => now,
        };
        self.changing.stood_still = Some((ids.clone(), since));
        let is_late = now.since(since) >= STANDSTILL_MS_MAX;
        if change.phase != ChangePhase::Exchange || !is_late {
            return None;
        }
        let before = MemberIds::of(&self.state.membership()?.servers);
        self.exchange_votes(ids, &before)?;
        Some(Move::Advance(change.id, AdvanceTo::TurnedBack))
    }

    fn arrival(&self, change: &MembershipChange) -> Option<Move> {
        let arrived = self.state.membership().is_some_and(Membership::has_arrived);
        let arrived = arrived || planted!(self.config.planted, FinishHalfWay);
        arrived.then_some(Move::Advance(change.id, AdvanceTo::Finished))
    }

    /// New servers get the log, without a vote; on when all that are to vote have it.
    fn catch_up(
        &mut self,
        change: &MembershipChange,
        (ids, wanted): (&MemberIds, &MemberIds),
    ) -> Option<Move> {
        let now = self.now.mono;
        let known = self.changing.newcomers.take().filter(|known| known.change == change.id);
        let mut newcomers = known.unwrap_or_else(|| Newcomers::of(change.id, now));
        let mut behind = false;
        for id in wanted.voters.difference(&ids.voters) {
            let sight = self.sight_of(*id);
            newcomers.look(*id, sight, now);
            behind |= !sight.has_caught_up;
        }
        let is_late = newcomers.is_late(self.snapshots.image_bytes(), now);
        self.changing.newcomers = Some(newcomers);
        let joins = |id: &&ServerId| !ids.contains(**id);
        if let Some(id) = change.target.keys().find(joins) {
            return Some(Move::Step(MemberStep::Learner(*id)));
        }
        if !behind {
            return Some(Move::Advance(change.id, AdvanceTo::Exchange));
        }
        is_late.then_some(Move::Advance(change.id, AdvanceTo::GivenUp))
    }

    fn sight_of(&self, id: ServerId) -> Sight {
        Sight {
            reached: self.consensus.reached(id),
            is_up: self.consensus.is_peer_up(id),
            has_caught_up: self.has_caught_up(id),
        }
    }

    fn has_caught_up(&self, id: ServerId) -> bool {
        if planted!(self.config.planted, GiveVoteUnprepared) {
            return true;
        }
        let needed = self.consensus.commit_index().saturating_sub(CAUGHT_UP_ENTRIES);
        let matched = self.consensus.matched(id);
        self.consensus.is_peer_up(id) && matched.is_some_and(|matched| matched >= needed.max(1))
    }

    /// One step towards `wanted` that leaves those who are up able to go on, if there is one. Who is down and is to leave
    /// does so first; then votes are given, to who is up and has the log; then others lose theirs.
    fn exchange_votes(&mut self, ids: &MemberIds, wanted: &MemberIds) -> Option<Move> {
        let own = self.config.id;
        let gaining: Vec<_> = wanted.voters.difference(&ids.voters).copied().collect();
        if let Some(id) = gaining.iter().find(|id| !ids.contains(**id)) {
            return Some(Move::Step(MemberStep::Learner(*id)));
        }
        let losing = ids.voters.difference(&wanted.voters).copied().filter(|id| *id != own);
        let (up, down): (Vec<_>, Vec<_>) = losing.partition(|id| self.consensus.is_peer_up(*id));
        let takes = |ids: Vec<ServerId>| ids.into_iter().map(MemberStep::Learner);
        let gives = gaining.iter().copied().filter(|id| self.has_caught_up(*id));
        let is_left = !up.is_empty() || !down.is_empty();
        let last = if gaining.is_empty() { up } else { Vec::new() };
        let mut steps = takes(down).chain(gives.map(MemberStep::Voter)).chain(takes(last));
        if let Some(step) = steps.find(|step| self.leaves_a_quorum(ids, step)) {
            return Some(Move::Step(step));
        }
        if is_left || !gaining.is_empty() {
            return None;
        }
        if !wanted.voters.contains(&own) {
            return Some(Move::HandOver(wanted.voters.clone()));
        }
        let id = *ids.learners.iter().find(|id| !wanted.contains(**id))?;
        self.is_told(id).then_some(Move::Step(MemberStep::Gone(id)))
    }

    /// Whether a majority of those who vote after it is up and has the log.
    fn leaves_a_quorum(&self, ids: &MemberIds, step: &MemberStep) -> bool {
        let mut voters = ids.voters.clone();
        match step {
            MemberStep::Voter(id) => drop(voters.insert(*id)),
            MemberStep::Learner(id) | MemberStep::Gone(id) => drop(voters.remove(id)),
            MemberStep::Found(_) => {}
        }
        let is_there = |id: &&ServerId| **id == self.config.id || self.has_caught_up(**id);
        // One alone would have to wait for nobody, and could not tell that others had gone on.
        voters.len() > 1 && voters.iter().filter(is_there).count() > voters.len() / 2
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
