//! The step: one event in, effects out.
//!
//! Called by the shell and the simulator. Calls every other file of `server/`. Invariant: an event
//! is handled by one function; what many events have in common (due timers, commands to send,
//! subscriptions) is done once at the end of a step. It does not know what an event is about.

use std::collections::BTreeSet;

use crate::consensus::{Consensus, Output, RestoreError, Restored};
use crate::state::{State, members_of_snapshot};
use crate::subscription::Subscriptions;
use crate::watch::Watches;
use crate::{ConnectionId, Millis, Now, ServerId};

use super::alike::Alike;
use super::claims::Claims;
use super::config::Config;
use super::connection::Connections;
use super::effect::Effect;
use super::event::Event;
use super::identity;
use super::link::Link;
use super::measures::Counted;
use super::members::Changing;
use super::notices::Notices;
use super::office::Office;
use super::presence::Presence;
use super::proposals::Proposals;
use super::read_only::ReadOnly;
use super::room::Room;
use super::set_watches::Rearming;
use super::snapshot::SnapshotPlan;
use super::status::{Mode, Status};
use super::sync::Syncs;
use super::traffic::{Sizes, Traffic};
use super::transfer::Transfers;

/// One member of an ensemble.
pub struct Server {
    pub(super) config: Config,
    /// As of the current step.
    pub(super) now: Now,
    /// The end of the last step; `None` before the first.
    pub(super) last_step: Option<Millis>,
    pub(super) consensus: Consensus,
    /// What consensus wants, not yet done.
    pub(super) outputs: Vec<Output>,
    /// What this step came to so far.
    pub(super) effects: Vec<Effect>,
    pub(super) state: State,
    pub(super) watches: Watches,
    pub(super) subscriptions: Subscriptions,
    /// Time that this process did not live through.
    pub(super) stalled_ms: u64,
    /// Counts steps.
    pub(super) step_number: u64,
    /// Connections whose answers go on in the next step.
    pub(super) unfinished: BTreeSet<ConnectionId>,
    pub(super) rearming: Rearming,
    pub(super) connections: Connections,
    pub(super) proposals: Proposals,
    pub(super) link: Link,
    pub(super) office: Office,
    pub(super) presence: Presence,
    pub(super) room: Room,
    pub(super) alike: Alike,
    pub(super) read_only: ReadOnly,
    pub(super) syncs: Syncs,
    pub(super) transfers: Transfers,
    pub(super) changing: Changing,
    pub(super) snapshots: SnapshotPlan,
    pub(super) counters: Counters,
    pub(super) notices: Notices,
    pub(super) claims: Claims,
    /// Last index of the log that this process found, and its term.
    pub(super) found_log: (u64, u64),
}

/// What is counted since start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) latency_ms_min: Option<u64>,
    pub(super) latency_ms_max: u64,
    pub(super) latency_ms_sum: u64,
    pub(super) latency_count: u64,
    /// Weight of unanswered requests of all connections.
    pub(super) pending_bytes: usize,
    /// Records that the audit log was not told for want of room.
    pub(super) audit_left_out: u64,
    pub(super) counted: Counted,
    /// Since the last reset.
    pub(super) traffic: Traffic,
    /// The same, of answers...
    pub(super) answer_sizes: Sizes,
    /// ...and of log entries that this server has proposed.
    pub(super) proposal_sizes: Sizes,
}

impl Server {
    /// A member that goes on from what storage found. `config` must have passed
    /// [`Config::validate`]. The first effects come with the first step, which should follow at
    /// once ([`Event::Tick`] will do).
    ///
    /// # Errors
    /// [`RestoreError`] when what was found cannot be continued safely; a person must look.
    pub fn new(config: Config, restored: Restored) -> Result<Self, RestoreError> {
        let state = match &restored.snapshot {
            Some(image) => State::decode_snapshot(&image.data)
                .map_err(|error| RestoreError::Snapshot(error.to_string()))?,
            None => State::new(),
        };
        #[cfg(planted)]
        let state = {
            std::hint::black_box(crate::planted::MARK);
            state.planted_with(config.planted)
        };
        let snapshot_index = restored.snapshot.as_ref().map_or(0, |image| image.index);
        let snapshot_bytes = restored.snapshot.as_ref().map_or(0, |image| image.data.len() as u64);
        if state.applied_index() != snapshot_index {
            return Err(RestoreError::Log("the snapshot is of another index than it says"));
        }
        let found_log = restored.entries.last().map_or((0, 0), |entry| (entry.index, entry.term));
        let consensus = Consensus::new(&config, &restored, members_of_snapshot)?;
        Ok(Self {
            subscriptions: Subscriptions::new(state.last_zxid(), config.subscription_history_max),
            watches: Watches::within(config.watch_limits),
            stalled_ms: 0,
            step_number: 0,
            unfinished: BTreeSet::new(),
            rearming: Rearming::default(),
            snapshots: SnapshotPlan::new((snapshot_index, snapshot_bytes), state.last_zxid()),
            config,
            now: Now::default(),
            last_step: None,
            consensus,
            outputs: Vec::new(),
            effects: Vec::new(),
            state,
            connections: Connections::default(),
            proposals: Proposals::default(),
            link: Link::default(),
            office: Office::default(),
            presence: Presence::default(),
            room: Room::default(),
            alike: Alike::default(),
            read_only: ReadOnly::default(),
            syncs: Syncs::default(),
            transfers: Transfers::default(),
            changing: Changing::new(),
            counters: Counters::default(),
            notices: Notices::default(),
            claims: Claims::default(),
            found_log,
        })
    }

    /// Handles one event and appends to `effects` what is to be done, in order. `now.mono` must
    /// not go back.
    pub fn step(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        self.step_all([event], now, effects);
    }

    /// Handles events that came together, as many [`Self::step`]s at the same time would, but
    /// requests among them share log entries and messages. The way to step a busy server.
    pub fn step_all(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.begin(now);
        for event in events {
            self.handle(event);
        }
        self.finish();
        effects.append(&mut self.effects);
    }

    /// When an [`Event::Tick`] is due; `None` once the server has halted.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let goes_on = !self.unfinished.is_empty() || !self.rearming.is_empty();
        if self.has_undelivered_events() || goes_on {
            return Some(self.now.mono);
        }
        let consensus = self.consensus.next_deadline()?;
        let times = [
            self.office.next_deadline(),
            self.presence.next_deadline(),
            self.transfers.next_deadline(),
        ];
        Some(times.into_iter().flatten().fold(consensus, Millis::min))
    }

    /// A reading of all gauges and counters. Walks the connections.
    #[must_use]
    pub fn status(&self) -> Status {
        let counters = &self.counters;
        Status {
            id: self.config.id,
            mode: self.mode(),
            leader: self.consensus.leader(),
            confirmed: self.is_confirmed(),
            lack: self.lack(),
            member: self.is_member(),
            term: self.consensus.term(),
            commit_index: self.consensus.commit_index(),
            applied_index: self.state.applied_index(),
            last_index: self.consensus.last_index(),
            unsynced_bytes: self.consensus.unsynced_bytes(),
            snapshot_index: self.snapshots.last_index(),
            zxid: self.state.last_zxid(),
            connections: self.connections.len(),
            outstanding: self.connections.iter().map(|(_, held)| held.pipeline.len()).sum(),
            sessions: self.state.sessions().len(),
            nodes: self.state.tree().node_count(),
            ephemerals: self.state.tree().ephemeral_count(),
            data_bytes: self.state.tree().bytes(),
            watches: self.watches.count(),
            subscriptions: self.subscriptions.count(),
            received: counters.received,
            sent: counters.sent,
            latency_ms_min: counters.latency_ms_min.unwrap_or(0),
            latency_ms_max: counters.latency_ms_max,
            latency_ms_sum: counters.latency_ms_sum,
            latency_count: counters.latency_count,
            peers_up: self.consensus.peers_up(),
            links: self.links(),
            disk: self.disk_room(),
            read_only: self.is_read_only(),
            local_sessions: self.local_session_count(),
            since_reset: counters.traffic,
            answer_sizes: counters.answer_sizes,
            proposal_sizes: counters.proposal_sizes,
            office_ms: self.office_ms(),
            pending_syncs: self.syncs.len(),
            snapshot_zxid: self.snapshots.last_zxid(),
        }
    }

    /// Whose votes count now, as far as this server knows.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<ServerId> {
        &self.consensus.members().voters
    }

    /// The replicated state, to be read only.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Asserts what always holds. Walks connections and queues, not the tree.
    pub fn check(&self) {
        self.consensus.check();
        self.connections.check();
        self.office.check();
        self.claims.check();
        assert_eq!(self.state.applied_index(), self.consensus.applied_index());
        assert!(self.outputs.is_empty() && self.effects.is_empty(), "a step left work behind");
        let pending: usize = self.connections.iter().map(|(_, held)| held.pending_bytes).sum();
        assert_eq!(pending, self.counters.pending_bytes);
    }

    /// Asserts what always holds of the tables that [`Server::check`] leaves out. Walks everything.
    pub fn check_tables(&self) {
        self.state.check();
        self.watches.check();
        self.subscriptions.check();
    }

    pub(super) fn mode(&self) -> Mode {
        if self.consensus.is_halted() {
            Mode::Halted
        } else if self.consensus.is_leader() {
            let members = self.consensus.members();
            let alone = members.voters.len() == 1 && members.learners.is_empty();
            if alone { Mode::Standalone } else { Mode::Leader }
        } else if self.consensus.leader().is_some() && self.is_member() {
            if self.is_observer() { Mode::Observer } else { Mode::Follower }
        } else {
            Mode::Looking
        }
    }

    fn begin(&mut self, now: Now) {
        assert!(now.mono >= self.now.mono, "time went back: {} after {}", now.mono, self.now.mono);
        self.now = now;
        self.step_number = self.step_number.wrapping_add(1);
        self.measure_stall();
        // Before anything that waited in a socket is answered.
        self.close_unconfirmed();
        self.settle();
    }

    fn handle(&mut self, event: Event) {
        if self.consensus.is_halted() {
            return;
        }
        let now = self.now.mono;
        match event {
            Event::Connect { connection, address, certificate, request, entropy } => {
                let skip_acl = self.config.skip_acl;
                let shown = identity::of_socket(&address, certificate, skip_acl);
                self.on_connect((connection, shown), request, &entropy);
            }
            Event::Request { connection, header, request } => {
                self.on_request(connection, header, request);
            }
            Event::Disconnected { connection, by_peer } => {
                self.on_disconnected(connection, by_peer);
            }
            Event::Backlogged { connection, backlogged } => {
                self.on_backlogged(connection, backlogged);
            }
            Event::PeerMessage { from, bytes } => self.on_peer_message(from, &bytes),
            Event::PeerUp { peer } => self.on_peer_up(peer),
            Event::PeerLost { peer } => self.on_peer_lost(peer),
            Event::Persisted { id } => self.consensus.on_persisted(id, now, &mut self.outputs),
            #[cfg(planted)]
            Event::PersistFailed { id } if planted!(self.config.planted, GoOnAfterFailedSync) => {
                self.consensus.on_persisted(id, now, &mut self.outputs);
            }
            Event::PersistFailed { .. } => self.consensus.on_persist_failed(&mut self.outputs),
            Event::SnapshotSaved { index, image } => self.on_snapshot_saved(index, image),
            Event::SnapshotFailed { index } => self.on_snapshot_failed(index),
            Event::DiskRoom { free_bytes } => self.on_disk_room(free_bytes),
            Event::TakeSnapshot => self.on_take_snapshot(),
            Event::Tick => {}
            Event::Resign => self.consensus.hand_over(None, now, &mut self.outputs),
        }
        self.settle();
    }

    fn finish(&mut self) {
        if !self.consensus.is_halted() {
            let now = self.now.mono;
            self.finish_answers();
            self.set_more_watches();
            if self.consensus.next_deadline().is_some_and(|at| at <= now) {
                self.consensus.tick(now, &mut self.outputs);
                self.settle();
                self.on_tick();
            }
            // Answers that this lets go may send writes.
            self.deliver_subscriptions();
            self.follow_members();
            self.follow_leader();
            self.follow_transfers();
            // What was heard in this step counts before anything expires.
            self.flush_presence();
            self.office_duties();
            self.drive_members();
            self.flush_link();
            self.flush_proposals();
        }
        self.last_step = Some(self.now.mono);
    }

    /// Things done once per consensus tick.
    fn on_tick(&mut self) {
        self.tend_read_only();
        self.close_late_handshakes();
        self.resend_if_stuck();
        self.tend_room();
        self.tend_alike();
        self.deliver_bookmarks();
    }

    /// Does what consensus wants, in order.
    pub(super) fn settle(&mut self) {
        let mut turns = 0u32;
        while !self.outputs.is_empty() {
            turns = turns.saturating_add(1);
            assert!(turns < 10_000, "consensus does not come to rest");
            for output in std::mem::take(&mut self.outputs) {
                self.on_output(output);
            }
        }
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.send_consensus(to, message),
            Output::Persist { id, write } => self.effects.push(Effect::Persist { id, write }),
            Output::Apply { index, term, data } => self.apply_entry(index, term, &data),
            Output::ApplyMembers { index, term, ids } => self.apply_members(index, term, ids),
            Output::Install { image } => self.install_snapshot(&image),
            Output::ReadReady { id, index } => self.on_read_ready(id, index),
            Output::SnapshotWanted => self.offer_snapshot(),
            Output::Halt { reason } => self.halt(reason),
        }
    }
}
