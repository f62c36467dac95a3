//! One server process and the machine it runs on.
//!
//! Called by: `world`. Calls: the real `Server`.
//! Invariant: a paused process handles nothing; what comes meanwhile waits in order.
//! It does not know the network.

use std::collections::BTreeSet;

use coordinator_core::server::{Config, Event, Server};
use coordinator_core::{Millis, Now};

use super::schedule::{MS, Time};
use super::storage::Storage;
use crate::sim::random::Random;

const PPM: u64 = 1_000_000;

/// A member of the ensemble.
pub struct Member {
    /// Its settings.
    pub config: Config,
    /// The machine is there.
    pub is_placed: bool,
    /// Since when its log is not empty.
    pub filled: Option<Time>,
    /// The servers, from 0, that its process dials.
    pub knows: BTreeSet<usize>,
    /// `None` while it is down.
    pub server: Option<Server>,
    /// Counts starts: what is meant for a former life is dropped.
    pub life: u64,
    /// Its disk.
    pub storage: Storage,
    /// Its disk takes long.
    pub slow_disk: bool,
    /// Its disk completes nothing that the process asks for.
    pub disk_held: bool,
    /// What was being written would be done by now.
    pub write_due: bool,
    /// Its process is stopped.
    pub paused: bool,
    /// What came while it was.
    pub inbox: Vec<Event>,
    /// The tick that is scheduled, if any: its number and time.
    pub tick: Option<(u64, Time)>,
    /// When its disk has last written.
    pub wrote_at: Time,
    /// It will be looked at whether its disk has nothing to do.
    pub idles: bool,
    /// By how many millionths its clock is fast.
    pub drift_ppm: u64,
    mono_start: Time,
    wall_start_ms: i64,
}

impl Member {
    /// A member that is down, with a clock of its own.
    pub fn new(config: Config, segment_bytes: u64, random: &mut Random) -> Self {
        Self {
            storage: Storage::new(config.id.get(), segment_bytes),
            config,
            is_placed: true,
            filled: None,
            knows: BTreeSet::new(),
            server: None,
            life: 0,
            slow_disk: false,
            disk_held: false,
            write_due: false,
            paused: false,
            inbox: Vec::new(),
            tick: None,
            wrote_at: 0,
            idles: false,
            drift_ppm: 0,
            mono_start: random.below(1_000_000_000_000),
            wall_start_ms: 1_700_000_000_000 + i64::try_from(random.below(10_000)).expect("small"),
        }
    }

    /// Starts the process; false when it cannot yet.
    pub fn start(&mut self, random: &mut Random) -> bool {
        assert!(self.server.is_none());
        self.life += 1;
        self.mono_start = random.below(1_000_000_000_000);
        self.config.seed = random.number();
        let Some(restored) = self.storage.open() else { return false };
        let server = Server::new(self.config.clone(), restored);
        self.server = Some(server.expect("what storage promised can be continued"));
        true
    }

    /// The process is gone.
    pub fn stop(&mut self) {
        self.server = None;
        self.life += 1;
        self.inbox.clear();
        self.tick = None;
        self.paused = false;
        self.slow_disk = false;
        self.disk_held = false;
        self.write_due = false;
        self.idles = false;
    }

    /// Its clocks.
    pub fn now(&self, time: Time) -> Now {
        let passed_ms = i64::try_from(time / MS).expect("short runs");
        let mono = Millis::new((self.mono_start + self.lived(time)) / MS);
        Now { mono, wall_ms: self.wall_start_ms + passed_ms }
    }

    /// The first time at which its monotonic clock shows `at`.
    pub fn time_of(&self, at: Millis) -> Time {
        let lived = (at.get() * MS).saturating_sub(self.mono_start);
        let mut time = lived * PPM / (PPM + self.drift_ppm);
        while self.lived(time) > lived && time > 0 {
            time -= 1;
        }
        while self.lived(time) < lived {
            time += 1;
        }
        time
    }

    /// What its clock counts while `time` passes.
    fn lived(&self, time: Time) -> Time {
        time + time * self.drift_ppm / PPM
    }

    /// Its wall clock is set to another time.
    pub fn jump(&mut self, random: &mut Random) {
        let hour_ms = 3_600_000;
        let by = i64::try_from(random.below(2 * hour_ms)).expect("small");
        self.wall_start_ms += by - i64::try_from(hour_ms).expect("small");
    }

    /// Whether events are handled at once.
    pub fn is_running(&self) -> bool {
        self.server.is_some() && !self.paused
    }
}
