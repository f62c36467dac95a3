//! What kind of run it is.
//!
//! Called by: `run`, `world`. Calls: nothing.
//! Invariant: everything is drawn from the seed, so that a seed alone names a run.

use std::collections::BTreeSet;

use coordinator_core::server::Config;
use coordinator_core::state::State;

use super::network::Disorder;
use super::operator;
use super::schedule::{MS, SECOND, Time};
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// The dimensions of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Members of the ensemble.
    pub servers: usize,
    /// Clients.
    pub clients: usize,
    /// Of them, from the first on, those that are pulled from outside, and the time-out that they ask for.
    pub puppets: usize,
    /// More clients, who take a lock in turn.
    pub lockers: usize,
    /// More clients, who change the members; none where members stay who they are.
    pub operators: usize,
    /// Of all clients, the first so many can do with reads alone, where servers serve them without a quorum.
    pub readers: usize,
    /// Machines beside the first members.
    pub spares: usize,
    /// See `puppets`.
    pub puppet_timeout: Time,
    /// Whether things break.
    pub faults: bool,
    /// Whether messages are sometimes slow.
    pub slow_network: bool,
    /// Whether servers often die with their vote just given.
    pub voters_die: bool,
    /// Whether disks have little room now and then.
    pub low_disks: bool,
    /// What becomes of messages between servers.
    pub disorder: Disorder,
    /// Kinds of faults that do not happen.
    pub without: BTreeSet<Fault>,
    /// Clients think so many times longer before they ask.
    pub pace: u64,
    /// How long clients work before everything is mended.
    pub work: Time,
    /// The bug that is put in.
    #[cfg(planted)]
    pub planted: Option<coordinator_core::planted::Planted>,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    snapshot_entries: u64,
    log_entries_kept: u64,
    snapshot_chunk_bytes: usize,
    history: usize,
    proposals_in_flight_max: usize,
}

impl Settings {
    /// Three servers (sometimes one or five), everything breaks.
    pub fn chaos(random: &mut Random) -> Self {
        let small = random.chance(2, 3);
        Self {
            servers: [3, 3, 3, 3, 3, 3, 3, 5, 5, 1][random.below(10) as usize],
            clients: 3 + random.below(4) as usize,
            puppets: 0,
            lockers: 0,
            operators: 0,
            readers: 0,
            spares: 0,
            puppet_timeout: 0,
            faults: true,
            slow_network: random.chance(2, 3),
            voters_die: random.chance(1, 2),
            low_disks: false,
            disorder: match random.chance(1, 2) {
                true => Disorder {
                    lost: random.below(60),
                    doubled: random.below(100),
                    reordered: random.below(100),
                },
                false => Disorder::default(),
            },
            without: BTreeSet::new(),
            pace: 1,
            work: 10 * SECOND + random.below(15 * SECOND),
            #[cfg(planted)]
            planted: None,
            segment_bytes: if small { 500 + random.below(20_000) } else { 16 << 20 },
            snapshot_entries: if small { 20 + random.below(200) } else { 100_000 },
            log_entries_kept: if small { random.below(50) } else { 10_000 },
            snapshot_chunk_bytes: if small { 64 + random.below(4000) as usize } else { 256 << 10 },
            history: if random.chance(1, 2) { 1 + random.below(100) as usize } else { 100_000 },
            proposals_in_flight_max: 1 + random.below(4) as usize,
        }
    }

    /// The same, but no server, wire or disk ever fails.
    pub fn calm(random: &mut Random) -> Self {
        let (faults, slow_network, disorder) = (false, false, Disorder::default());
        Self { faults, slow_network, disorder, servers: 3, ..Self::chaos(random) }
    }

    /// Three servers, one puppet for each of them, and nothing goes wrong by itself: what does is in a script.
    pub fn scripted() -> Self {
        Self {
            servers: 3,
            clients: 3,
            puppets: 3,
            lockers: 0,
            operators: 0,
            readers: 0,
            spares: 0,
            puppet_timeout: 6 * SECOND,
            faults: false,
            slow_network: false,
            voters_die: false,
            low_disks: false,
            disorder: Disorder::default(),
            without: BTreeSet::new(),
            pace: 1,
            work: 0,
            #[cfg(planted)]
            planted: None,
            segment_bytes: 16 << 20,
            snapshot_entries: 100_000,
            log_entries_kept: 10_000,
            snapshot_chunk_bytes: 256 << 10,
            history: 100_000,
            proposals_in_flight_max: 2,
        }
    }

    /// The same, but servers take snapshots of so many entries, keep a few before them, and send them in small chunks.
    pub fn with_snapshots_of(self, snapshot_entries: u64) -> Self {
        let (log_entries_kept, snapshot_chunk_bytes) = (snapshot_entries / 4, 512);
        Self { snapshot_entries, log_entries_kept, snapshot_chunk_bytes, ..self }
    }

    /// All machines.
    pub(super) fn machines(&self) -> usize {
        self.servers + self.spares
    }

    /// A server's settings.
    pub(super) fn configure(&self, config: Config) -> Config {
        let servers = config.members.iter().copied().map(operator::member).collect();
        let config = match self.operators {
            0 => config,
            _ => Config {
                servers,
                reconfig_enabled: true,
                super_digest: Some(operator::SUPER_DIGEST.to_owned()),
                ..config
            },
        };
        Config {
            read_only_mode: self.readers > 0,
            session_timeout_ms_min: 1_000,
            session_timeout_ms_max: 10_000,
            snapshot_entries: self.snapshot_entries,
            log_entries_kept: self.log_entries_kept,
            snapshot_chunk_bytes: self.snapshot_chunk_bytes,
            subscription_history_max: self.history,
            proposals_in_flight_max: self.proposals_in_flight_max,
            // Where all else is small, containers that are empty again go while clients work.
            container_check_ms: if self.log_entries_kept < 10_000 { 1_000 } else { 60_000 },
            #[cfg(planted)]
            planted: self.planted,
            ..config
        }
    }

    /// A state before its first entry, with the servers' own bugs: what they do wrong all alike must be seen by its
    /// consequences.
    pub(super) fn state(&self) -> State {
        let state = State::new();
        #[cfg(planted)]
        let state = state.planted_with(self.planted);
        state
    }

    /// A client's time-out.
    pub(super) fn timeout(&self, random: &mut Random) -> Time {
        SECOND + random.below(30) * 100 * MS
    }
}
