//! The consensus engine behind our own inputs and outputs.
//!
//! Called by `server/`. Calls the `raft` crate and the rest of this module. Invariant: after each
//! input every Ready of the engine is drained: entries are in the log store and on their way to
//! the disk, messages that promise durability wait in the persist queue, and the engine's own
//! draw of election jitter is replaced by ours. It does not know what entries mean.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};

use super::contact::{Contact, Proof};
use super::election::{self, Election, Phase};
use super::log_store::{LogStore, member_ids};
use super::membership::rank_of;
use super::message::{self, RaftMessage};
use super::output::{Body, ConsensusMessage, Output, ProposeError};
use super::persist_queue::PersistQueue;
use super::progress::HeardCommits;
use super::read_index::{ReadId, ReadRounds};
use super::record::{HardState, PersistId, Restored, SnapshotImage};
use super::retention::HeldLog;
use super::transfer::{Incoming, Outgoing};
use crate::members::MemberIds;
use crate::server::Config;
use crate::{Millis, ServerId};

/// Largest total of entries in one message.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Messages on their way to one follower.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Uncommitted bytes after which the engine refuses proposals.
const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;
/// How long a leader's own disk may keep back what a quorum has, before it hands over its office.
const LAGGING_MS: u64 = 1_000;
/// Between two times that a leader does that.
const GIVE_UP_PAUSE_MS: u64 = 60_000;
/// Bytes of entries that wait for the disk; a follower takes no more then. Its leader, which hears
/// from it all the time, would send on for as long as a sync takes.
pub const HELD_BYTES_MAX: u64 = 64 << 20;

/// Why a server cannot start from what storage found. A person must look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The log, the hard state and the snapshot contradict one another.
    #[error("storage is inconsistent: {0}")]
    Log(&'static str),
    /// The engine refused its settings.
    #[error("consensus refuses to start: {0}")]
    Engine(String),
    /// The snapshot's bytes are not a state.
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(String),
}

/// One member's consensus.
pub struct Consensus {
    pub(super) id: ServerId,
    /// Who has a part in consensus, as the engine counts.
    pub(super) members: MemberIds,
    /// Whose messages are taken beside those of members: who is about to join, or was named by settings.
    pub(super) acquainted: BTreeSet<ServerId>,
    /// Stands in the log, there, and is not applied: who the members are.
    pub(super) founding: Option<(u64, MemberIds)>,
    /// Whether members may change, and who was one may come again with nothing.
    pub(super) changes_members: bool,
    /// Others have an ensemble that this server may have no log of yet.
    pub(super) joins: bool,
    /// Finds the members in a snapshot's data.
    pub(super) members_of: fn(&[u8]) -> Option<MemberIds>,
    pub(super) node: RawNode<LogStore>,
    pub(super) tick_ms: u64,
    pub(super) next_tick: Option<Millis>,
    pub(super) chunk_bytes: usize,
    /// Entries kept behind a snapshot.
    pub(super) entries_kept: u64,
    /// And their data's bytes.
    pub(super) bytes_kept: u64,
    /// And of those since the snapshot.
    pub(super) bytes_kept_since: u64,
    /// What a follower will need behind the snapshot that it gets.
    pub(super) held_log: Option<HeldLog>,
    pub(super) queue: PersistQueue,
    pub(super) hard: HardState,
    /// Entries up to here may be dropped from the disk too; told with the next write.
    pub(super) discard_to: Option<u64>,
    pub(super) applied: u64,
    pub(super) election: Election,
    /// The last term of which a leader was known here: its election is over.
    pub(super) led_term: u64,
    /// The term in which this life began: elections lost before it do not count.
    pub(super) first_term: u64,
    /// Since when a term or vote is on its way to the disk. Until it is there, another would only
    /// add to what the disk has to do.
    pub(super) vote_pending_since: Option<Millis>,
    /// On a leader: the index that is durable here, since when, while others have more.
    lagging: Option<(u64, Millis)>,
    /// When it last gave up its office because of that.
    gave_up_at: Option<Millis>,
    pub(super) contact: Contact,
    /// What leaders said to be committed.
    pub(super) heard: HeardCommits,
    pub(super) reads: ReadRounds,
    pub(super) peers_up: BTreeSet<ServerId>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) incoming: Option<Incoming>,
    /// A whole snapshot that the engine is about to take.
    pub(super) received: Option<SnapshotImage>,
    pub(super) halted: bool,
    #[cfg(planted)]
    pub(super) planted: Option<crate::planted::Planted>,
}

#[cfg(planted)]
fn forget_vote(config: &Config, restored: &Restored) -> Restored {
    let mut restored = restored.clone();
    if planted!(config.planted, ForgetVote) {
        restored.hard_state.vote = 0;
    }
    restored
}

fn settings(config: &Config, applied: u64) -> raft::Config {
    raft::Config {
        id: config.id.get(),
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        // A bound that the engine checks; the draw is ours.
        max_election_tick: config.election_ticks.saturating_mul(election::TIMEOUT_SPREAD_MAX),
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    }
}

impl Consensus {
    /// A member that goes on from what storage found.
    ///
    /// # Errors
    /// [`RestoreError`] if what was found cannot be continued safely.
    pub fn new(
        config: &Config,
        restored: &Restored,
        members_of: fn(&[u8]) -> Option<MemberIds>,
    ) -> Result<Self, RestoreError> {
        let named = || {
            let learners = MemberIds::of(&config.servers).learners;
            MemberIds { learners, ..MemberIds::of_voters(config.members.iter().copied()) }
        };
        let stored = restored.snapshot.as_ref().and_then(|image| members_of(&image.data));
        let stored = stored.filter(|_| !planted!(config.planted, CountBySettings));
        let members = stored.unwrap_or_else(named);
        #[cfg(planted)]
        let restored = &forget_vote(config, restored);
        let store = LogStore::restore(members.clone(), restored).map_err(RestoreError::Log)?;
        let applied = restored.snapshot.as_ref().map_or(0, |image| image.index);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings(config, applied), store, &logger)
            .map_err(|error| RestoreError::Engine(error.to_string()))?;
        let mut consensus = Self {
            id: config.id,
            acquainted: config.members.iter().chain(config.servers.keys()).copied().collect(),
            members_of,
            changes_members: config.reconfig_enabled,
            joins: false,
            founding: None,
            hard: HardState {
                term: node.raft.term,
                vote: node.raft.vote,
                commit: node.raft.raft_log.committed,
            },
            node,
            tick_ms: config.tick_ms,
            next_tick: None,
            chunk_bytes: config.snapshot_chunk_bytes,
            entries_kept: config.log_entries_kept,
            bytes_kept: config.log_bytes_kept,
            bytes_kept_since: config.log_bytes_kept_since,
            held_log: None,
            queue: PersistQueue::new(restored.hard_state),
            discard_to: None,
            applied,
            election: Election::new(config.seed, rank_of(config.id, &members), config.tick_ms),
            led_term: 0,
            first_term: restored.hard_state.term,
            vote_pending_since: None,
            lagging: None,
            gave_up_at: None,
            contact: Contact::new(config.id, members.voters.clone(), config.seed),
            heard: HeardCommits::default(),
            reads: ReadRounds::new(config.id.get(), config.seed),
            peers_up: BTreeSet::new(),
            outgoing: Vec::new(),
            incoming: None,
            received: None,
            halted: false,
            members,
            #[cfg(planted)]
            planted: config.planted,
        };
        // The store does not keep those that an installed snapshot has taken the place of.
        let kept = (applied + 1)..=consensus.last_index();
        for entry in restored.entries.iter().filter(|entry| kept.contains(&entry.index)) {
            consensus.note_appended((entry.index, entry.kind), &entry.data);
        }
        consensus.set_jitter();
        Ok(consensus)
    }

    /// Who leads, as far as this member knows.
    #[must_use]
    pub fn leader(&self) -> Option<ServerId> {
        ServerId::new(self.node.raft.leader_id)
    }

    /// Whether this member is in office.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader && !self.halted
    }

    /// The consensus term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Last committed index known here.
    #[must_use]
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Last index given out by [`Output::Apply`] or [`Output::Install`].
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied
    }

    /// Last index of the log, durable or not.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Bytes of entries that wait for the disk.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.queue.held_bytes()
    }

    /// Bytes of the log in memory.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.node.store().entry_bytes()
    }

    /// Peers whose streams work.
    #[must_use]
    pub fn peers_up(&self) -> usize {
        self.peers_up.len()
    }

    /// Whether the stream with this peer works.
    #[must_use]
    pub fn is_peer_up(&self, peer: ServerId) -> bool {
        self.peers_up.contains(&peer)
    }

    /// When this member was last sure of a leader with a quorum, itself included.
    #[must_use]
    pub fn confirmed_at(&self, now: Millis) -> Option<Millis> {
        if self.halted { None } else { self.contact.confirmed_at(now) }
    }

    /// When [`Self::tick`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.halted {
            return None;
        }
        let tick = self.next_tick.unwrap_or(Millis::ZERO);
        if self.vote_pending_since.is_some() {
            return Some(tick);
        }
        Some(self.election.deadline().map_or(tick, |fast| fast.min(tick)))
    }

    /// Stops for good.
    pub fn stop(&mut self) {
        self.halted = true;
        self.outgoing.clear();
        self.incoming = None;
    }

    /// Whether this member stopped for good.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// Replicates `data`; it comes back as [`Output::Apply`], here and everywhere, or is lost with
    /// this leader's office.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was done then.
    pub fn propose(
        &mut self,
        data: Bytes,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> Result<u64, ProposeError> {
        if !self.is_leader() {
            return Err(ProposeError::NotLeader);
        }
        let entry = raft::eraftpb::Entry { data, ..raft::eraftpb::Entry::default() };
        let mut message = Message { from: self.id.get(), ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        self.node.raft.step(message).map_err(|_| ProposeError::HandingOver)?;
        self.after_input(now, out);
        Ok(self.last_index())
    }

    /// Asks up to where a linearizable read must wait; [`Output::ReadReady`] answers, if ever a
    /// leader can be asked.
    pub fn read_index(&mut self, now: Millis, out: &mut Vec<Output>) -> ReadId {
        let id = self.reads.request();
        self.begin_read_round(now);
        self.after_input(now, out);
        id
    }

    /// Takes another member's message.
    pub fn on_message(
        &mut self,
        from: ServerId,
        message: ConsensusMessage,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        if self.halted || !self.is_acquainted_with(from) || from == self.id {
            return;
        }
        match message.0 {
            Body::Raft { message, proof } => {
                self.on_raft_message(from, message, &proof, (now, out));
            }
            Body::Chunk(chunk) => self.on_chunk(from, chunk, out),
            Body::ChunkReceived(answer) => self.on_chunk_received(from, &answer, now, out),
        }
        self.after_input(now, out);
        // What the engine had no use for would stay in memory, as large as the state.
        self.received = None;
    }

    /// The stream with a peer works.
    pub fn on_peer_up(&mut self, peer: ServerId, now: Millis, out: &mut Vec<Output>) {
        self.peers_up.insert(peer);
        if self.halted {
            return;
        }
        // A follower that was away is probed with its answer to this heartbeat.
        self.node.ping();
        self.reads.forget_round();
        self.election.stir(now);
        self.campaign_if_due(now);
        self.after_input(now, out);
    }

    /// The stream with a peer is gone. If that was the leader, nobody waits for its lease.
    pub fn on_peer_lost(&mut self, peer: ServerId, now: Millis, out: &mut Vec<Output>) {
        self.peers_up.remove(&peer);
        if self.halted {
            return;
        }
        self.outgoing_failed(|transfer| transfer.to == peer);
        if self.is_leader() {
            self.node.report_unreachable(peer.get());
        } else if self.leader() == Some(peer) && self.node.raft.state == StateRole::Follower {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
            self.election.observe(self.phase(), now);
            self.election.stir(now);
            self.campaign_if_due(now);
        }
        self.after_input(now, out);
    }

    /// Writes up to `id` are durable: what waited for them goes out.
    pub fn on_persisted(&mut self, id: PersistId, now: Millis, out: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        self.queue.persisted(id);
        self.release(now, out);
        self.after_input(now, out);
    }

    /// A write failed: what it promised can never be promised. This member is no voter any more.
    pub fn on_persist_failed(&mut self, out: &mut Vec<Output>) {
        self.halt("a write to the log failed", out);
    }

    /// Lets time pass. One tick at most: after a stall of this process, messages that wait in its
    /// sockets come before conclusions from silence.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        if self.next_tick.is_none_or(|at| at <= now) {
            let first = self.next_tick.is_none();
            self.next_tick = Some(now.plus_ms(self.tick_ms));
            if first && self.members.voters.len() == 1 {
                self.campaign();
            }
            self.ask_again_if_due(now, out);
            let may_campaign = !self.queue.is_installing()
                && self.vote_pending_since.is_none()
                && !self.is_to_join();
            if (may_campaign || self.is_leader()) && self.node.tick() && !self.is_leader() {
                self.election.campaigned();
            }
            self.outgoing_failed(|transfer| transfer.has_failed(now));
            self.let_log_go_in_time(now);
            self.begin_read_round(now);
            if self.is_held_up_by_its_disk(now) {
                self.gave_up_at = Some(now);
                self.hand_over(None, now, out);
            }
        }
        self.campaign_if_due(now);
        self.after_input(now, out);
    }

    /// Whether a quorum has had for a while what this leader's own disk has not kept yet: nothing
    /// is answered before it has, and with another leader all would go on. Where all disks are
    /// slow nobody is far ahead, and there is a pause before the next hand-over in any case.
    fn is_held_up_by_its_disk(&mut self, now: Millis) -> bool {
        let log = &self.node.raft.raft_log;
        if !self.is_leader() || log.committed <= log.persisted {
            self.lagging = None;
            return false;
        }
        let since = match self.lagging {
            Some((index, since)) if index == log.persisted => since,
            _ => now,
        };
        self.lagging = Some((log.persisted, since));
        let paused = self.gave_up_at.is_none_or(|at| now.since(at) >= GIVE_UP_PAUSE_MS);
        paused && now.since(since) >= LAGGING_MS
    }

    /// Gives the snapshot that [`Output::SnapshotWanted`] asked for; it must be of what was applied
    /// after that. One that comes too late is of no use, and is asked for again.
    pub fn offer_snapshot(&mut self, image: SnapshotImage, now: Millis) {
        self.hold_log_offered(image.index, now);
        let members = self.members_in(Some(&image));
        self.node.mut_store().offer(image, members);
    }

    /// Term of the entry at `index`, for a snapshot that is to be made there.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok()
    }

    /// First index still in memory.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.node.store().first_kept()
    }

    /// Asserts what always holds.
    pub fn check(&self) {
        let log = &self.node.raft.raft_log;
        assert!(self.applied <= log.committed, "applied {} > {}", self.applied, log.committed);
        assert!(log.committed <= log.last_index(), "committed beyond the log");
        // A received snapshot takes the log's place before it is durable, and applied only then.
        let installing = self.queue.is_installing();
        assert!(installing || self.node.store().first_kept() <= self.applied.saturating_add(1));
        assert!(self.node.store().last_kept() <= log.last_index());
        assert!(self.hard.term <= self.node.raft.term, "the term fell");
        let is_member = |to: ServerId| self.members.contains(to);
        assert!(self.outgoing.iter().all(|one| is_member(one.to)), "transfers to nobody");
        assert_eq!(self.members, member_ids(&self.node.raft.prs().conf().to_conf_state()));
        assert!(self.received.is_none(), "a snapshot that nobody takes");
    }

    pub(super) fn phase(&self) -> Phase {
        let raft = &self.node.raft;
        if raft.leader_id != raft::INVALID_ID {
            Phase::Settled
        } else if raft.state == StateRole::Candidate
            || (raft.vote != raft::INVALID_ID && self.led_term < raft.term)
        {
            Phase::Voted
        } else {
            Phase::Open
        }
    }

    fn quorum_up(&self) -> bool {
        let voters = &self.members.voters;
        let up = self.peers_up.intersection(voters).count();
        voters.contains(&self.id) && up.saturating_add(1) > voters.len() / 2
    }

    fn campaign_if_due(&mut self, now: Millis) {
        if self.vote_pending_since.is_none() && self.election.take_due(self.quorum_up(), now) {
            self.campaign();
        }
    }

    fn campaign(&mut self) {
        // The engine looks at unapplied entries first, and those of a snapshot that is not durable
        // yet cannot be looked at.
        if self.may_campaign() && !self.queue.is_installing() && self.node.campaign().is_ok() {
            self.election.campaigned();
        }
    }

    pub(super) fn begin_read_round(&mut self, now: Millis) {
        if self.leader().is_some()
            && let Some(context) = self.reads.begin(now)
        {
            self.node.read_index(context);
        }
    }

    pub(super) fn halt(&mut self, reason: &'static str, out: &mut Vec<Output>) {
        if !self.halted {
            self.stop();
            out.push(Output::Halt { reason });
        }
    }

    fn on_raft_message(
        &mut self,
        from: ServerId,
        message: RaftMessage,
        proof: &Proof,
        (now, out): (Millis, &mut Vec<Output>),
    ) {
        self.contact.heard(from, proof, now);
        let commit = message.heartbeat_commit().unwrap_or(0);
        if commit > self.last_index() && message.term() >= self.term() {
            // The leader counts on entries that this member acknowledged and does not have: its
            // disk lost them. Taking part would be a lie.
            self.halt(super::hand_over::LOG_IS_LOST, out);
            return;
        }
        if message.brings_entries() && self.queue.held_bytes() >= HELD_BYTES_MAX {
            // As if it were lost: the leader sends it again once this disk has caught up.
            return;
        }
        let from_leader = message.comes_from_leader();
        let said = (message.term(), message.leaders_commit());
        let Some(message) = message::incoming(from.get(), self.id.get(), message) else { return };
        let may_campaign = self.may_campaign() && !self.queue.is_installing();
        if !may_campaign && message.msg_type == MessageType::MsgTimeoutNow {
            return;
        }
        let asks = matches!(
            message.msg_type,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
        );
        if asks && self.withholds_vote(message.index) {
            return;
        }
        let current = message.term == self.term();
        if self.node.step(message).is_err() {
            return;
        }
        if from_leader && self.leader() == Some(from) {
            self.contact.heard_leader(proof, now);
            self.heard.hear(said.0, said.1);
        } else if current && self.is_leader() {
            self.contact.heard_member(from, proof, now);
        }
    }
}
