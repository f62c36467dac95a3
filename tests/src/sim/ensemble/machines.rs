//! Machines beside the first members: they come with empty disks, and come again so when they have no part any more.
//!
//! Called by: `world` and `nemesis`, where a run has operators. Calls: `world`, `links`.
//! Invariant: a disk is emptied only on a machine that has no part and is to have none, as the log says; and never are so many
//! disks empty that servers that have nothing could be a quorum of those whom one of them names: README tells people not to.

use std::collections::BTreeSet;

use coordinator_core::ServerId;
use coordinator_core::members::Members;
use coordinator_core::server::{CAUGHT_UP_ENTRIES, Config};

use super::member::Member;
use super::nemesis::Deed;
use super::operator;
use super::schedule::{MS, SECOND, Time};
use super::settings::Settings;
use super::storage::Crash;
use super::world::{Happening, World};
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// From one look for a machine that could be made anew to the next.
const MUSTER_EVERY: Time = SECOND;

/// A request for a vote is no older than this when the vote is on the disk.
const UNDER_WAY_MAX: Time = 8 * SECOND;

/// Position of a server, from 0.
pub(super) fn position(id: ServerId) -> usize {
    usize::try_from(id.get() - 1).expect("small")
}

fn server_id(position: usize) -> ServerId {
    ServerId::new(position as u64 + 1).expect("small")
}

/// The first members, and the machines beside them, which are not there yet.
pub(super) fn all(settings: &Settings, births: &mut Random) -> Vec<Member> {
    let founders: Vec<ServerId> = (0..settings.servers).map(server_id).collect();
    let mut machine = |id: ServerId| {
        let is_first = founders.contains(&id);
        let joins = Some(id).filter(|_| !is_first);
        let named = founders.iter().copied().chain(joins).collect();
        let config = settings.configure(Config::new(id, named));
        let mut member = Member::new(config, settings.segment_bytes, births);
        member.is_placed = is_first;
        member
    };
    (0..settings.machines()).map(|position| machine(server_id(position))).collect()
}

/// Whom a server's settings name.
fn named_by(config: &Config) -> BTreeSet<usize> {
    let all = config.members.iter().chain(config.servers.keys());
    all.map(|id| position(*id)).collect()
}

impl World {
    /// The servers beside it that a process knows by its settings.
    pub(super) fn know_by_settings(&mut self, server: usize) {
        let mut named = named_by(&self.members[server].config);
        named.remove(&server);
        self.members[server].knows = named;
    }

    /// A server tells its shell who is in the ensemble.
    pub(super) fn know(&mut self, server: usize, servers: &Members) {
        let others = servers.keys().map(|id| position(*id)).filter(|other| *other != server);
        self.members[server].knows = others.collect();
        self.schedule.after(MS, Happening::Introduce { server });
    }

    /// Where a client dials: mostly one of those that the log names, and now and then any machine.
    pub(super) fn lead_to_member(&mut self, chosen: usize) -> usize {
        if self.settings.operators == 0 || (self.settings.faults && self.muster.chance(1, 16)) {
            return chosen;
        }
        let have_part = (0..self.members.len()).filter(|server| self.ledger.has_part(*server));
        let have_part: Vec<usize> = have_part.collect();
        have_part[self.muster.below(have_part.len() as u64) as usize]
    }

    /// One of the machines that have no part gets an empty disk and settings that name the servers of now.
    pub(super) fn muster(&mut self) {
        if !self.settings.faults {
            return;
        }
        let server = self.muster.below(self.members.len() as u64) as usize;
        let pause = self.muster.below(MUSTER_EVERY);
        self.schedule.after(pause, Happening::Nemesis(Deed::Muster));
        let members = self.ledger.members();
        let id = server as u64 + 1;
        let is_new = !self.members[server].is_placed;
        // Whose server was asked for before it was there comes late.
        let is_free =
            self.ledger.is_founded() && (is_new || !members.has(id) && !members.names(id));
        if !is_free || !(is_new || self.arsenal.is_on(Fault::Wipe)) {
            return;
        }
        let is_named = |other: &usize| *other == server || self.ledger.has_vote(*other);
        let named: Vec<ServerId> =
            (0..self.members.len()).filter(is_named).map(server_id).collect();
        if !self.may_be_empty(server, &named) {
            return;
        }
        self.go_down(server, Crash::Power);
        if !is_new {
            self.arsenal.note(Fault::Wipe);
            self.ledger.wipe(server);
        }
        self.members[server].storage.wipe();
        self.members[server].filled = None;
        self.name(server, named);
        self.trace.note(self.schedule.now(), "muster", &[id], &[]);
        let start = 10 * MS + self.muster.below(SECOND / 2);
        self.schedule.after(start, Happening::Nemesis(Deed::Start(server)));
    }

    /// Votes are given to servers that have the log.
    pub(super) fn check_gained(&mut self) {
        for (server, committed) in self.ledger.take_gained() {
            let last = self.members[server].storage.last_durable();
            assert!(
                last + CAUGHT_UP_ENTRIES >= committed,
                "server {server} has a vote, given when {committed} entries were committed, and {last}"
            );
        }
    }

    /// A server that has nothing may be one that was wiped, and acknowledged what the candidate lacks.
    pub(super) fn check_voter(&self, server: usize) {
        let (term, given) = self.members[server].storage.vote();
        let candidate = usize::try_from(given - 1).expect("small");
        let now = self.schedule.now();
        let is_old = self.members[candidate].filled.is_some_and(|at| at + UNDER_WAY_MAX <= now);
        let is_empty = self.members[server].storage.last_index() == 0;
        assert!(
            self.settings.operators == 0 || server == candidate || !is_empty || !is_old,
            "server {server} has nothing, and votes for {candidate} in term {term}"
        );
    }

    /// Where members change, some disks are slow from a start on, when a server's vote is under way; and an only voter often
    /// loses its power then.
    pub(super) fn begin_slowly(&mut self, server: usize) {
        if self.settings.operators == 0 || !self.settings.faults {
            return;
        }
        let is_alone = self.is_only_voter(server);
        let chances = if is_alone { 3 } else { 1 };
        if self.muster.chance(chances, 4) && self.arsenal.strikes(Fault::SlowDisk) {
            self.members[server].slow_disk = true;
            let mended = self.muster.below(2 * SECOND);
            self.schedule.after(mended, Happening::Nemesis(Deed::FastDisk(server)));
        }
        if is_alone && self.muster.chance(1, 2) {
            let cut = 20 * MS + self.muster.below(300 * MS);
            self.schedule.after(cut, Happening::Nemesis(Deed::Cut(server)));
        }
    }

    pub(super) fn cut_only_voter(&mut self, server: usize) {
        let runs = self.members[server].server.is_some() && self.is_only_voter(server);
        if runs && self.settings.faults && self.arsenal.strikes(Fault::PowerCut) {
            self.crash_server(server, Crash::Power);
        }
    }

    fn is_only_voter(&self, server: usize) -> bool {
        self.ledger.quorums()[0] == BTreeSet::from([server as u64 + 1])
    }

    /// A machine that was never there is: somebody may have asked for its server.
    pub(super) fn place(&mut self, server: usize) {
        if !self.members[server].is_placed {
            let is_named = |other: &usize| *other == server || self.ledger.has_vote(*other);
            let named = (0..self.members.len()).filter(is_named).map(server_id).collect();
            self.name(server, named);
        }
    }

    fn name(&mut self, server: usize, named: Vec<ServerId>) {
        let servers = named.iter().copied().map(operator::member).collect();
        let member = &mut self.members[server];
        member.is_placed = true;
        member.config = Config { members: named, servers, ..member.config.clone() };
    }

    /// Whether no server without a log could found an ensemble with others that have none, were this one empty.
    fn may_be_empty(&self, server: usize, named: &[ServerId]) -> bool {
        let is_empty = |other: &usize| {
            let member = &self.members[*other];
            *other == server || member.storage.last_index() == 0
        };
        let empty: BTreeSet<usize> = (0..self.members.len()).filter(is_empty).collect();
        empty.iter().all(|other| {
            let names = match *other == server {
                true => named.iter().map(|id| position(*id)).collect(),
                false => named_by(&self.members[*other].config),
            };
            names.intersection(&empty).count() <= names.len() / 2
        })
    }
}
