//! What kind of run it is.
//!
//! Called by: `run`. Calls: nothing.
//! Invariant: everything is drawn from the seed, so that a seed alone names a run.

use std::collections::BTreeSet;

use broker_core::controller::ControllerConfig;
use broker_core::partition::Durability;
use broker_log::LogConfig;
use client_core::consumer::read::Position;
use client_core::consumer::{Reset, Start};
use client_protocol::Offset;

use super::client::PRODUCE_TIMEOUT;
use crate::sim::ensemble;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::fault::Fault;
use crate::sim::random::Random;

/// How a topic is compacted.
#[derive(Debug, Clone)]
pub struct Compaction {
    pub(crate) min_cleanable_dirty_millionths: u32,
    pub(crate) max_compaction_lag_ms: i64,
    pub(crate) delete_retention_ms: i64,
    /// Keys that a cleaning has room for.
    pub(crate) keys_max: usize,
}

impl Compaction {
    fn new(random: &mut Random) -> Self {
        Self {
            min_cleanable_dirty_millionths: [0, 200_000, 500_000][random.below(3) as usize],
            max_compaction_lag_ms: if random.chance(1, 2) { i64::MAX } else { 1_000 },
            delete_retention_ms: [0, 500, 3_000, 60_000][random.below(4) as usize],
            keys_max: if random.chance(1, 4) { 3 } else { 1_000 },
        }
    }
}

/// How the native client produces.
#[derive(Debug, Clone)]
pub struct NativeSettings {
    pub(crate) linger_ms: u64,
    pub(crate) delivery_timeout_ms: u64,
}

impl NativeSettings {
    fn new(random: &mut Random) -> Self {
        Self {
            linger_ms: 5 * random.below(2),
            delivery_timeout_ms: [1_500, 5_000, 120_000][random.below(3) as usize],
        }
    }
}

/// How the native client consumes.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    pub(crate) start: Start,
    pub(crate) reset: Reset,
    pub(crate) fetch_wait_ms: i32,
    pub(crate) fetch_bytes_max: i32,
    pub(crate) partition_bytes_max: i32,
    pub(crate) buffer_bytes_max: usize,
    pub(crate) retry_backoff_ms: u64,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub(crate) planted: Option<client_core::planted::Planted>,
}

impl ReaderSettings {
    fn new(random: &mut Random) -> Self {
        let from_start = Start::At(Position { offset: Offset::ZERO, epoch: None });
        Self {
            start: [Start::Earliest, Start::Earliest, Start::Latest, from_start]
                [random.below(4) as usize],
            reset: [Reset::Earliest, Reset::Latest, Reset::Error][random.below(3) as usize],
            fetch_wait_ms: [100, 500][random.below(2) as usize],
            fetch_bytes_max: [1, 1_000, 50 << 20][random.below(3) as usize],
            partition_bytes_max: [1, 500, 4_000][random.below(3) as usize],
            buffer_bytes_max: [500, 64 << 20][random.below(2) as usize],
            retry_backoff_ms: [5, 20, 100][random.below(3) as usize],
            #[cfg(planted)]
            planted: None,
        }
    }
}

/// The dimensions of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) brokers: i32,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: usize,
    pub(crate) durability: Durability,
    pub(crate) lag_time_max_ms: u64,
    pub(crate) alter_retry_ms: u64,
    pub(crate) session_timeout: Time,
    pub(crate) segment_bytes: u32,
    pub(crate) retention_bytes: Option<u64>,
    /// The file of durable marks is written anew when it grows beyond this.
    pub(crate) marks_bytes_max: Option<u64>,
    pub(crate) fetch_bytes_max: u32,
    /// Of a thousand messages between brokers and clients, so many are lost, doubled, late.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// Clients pause so many times longer.
    pub(crate) pace: u64,
    /// Mean time between faults.
    pub(crate) fault_every: Time,
    pub(crate) ensemble_seed: u64,
    pub(crate) power_cuts: bool,
    pub(crate) wipes: bool,
    /// Disks fail, fill up and stand still.
    pub(crate) disk_errors: bool,
    /// One machine's disk loses or changes what was durable.
    pub(crate) rot: bool,
    /// The topic would rather lose records than wait (D6).
    pub(crate) unclean: bool,
    /// Beside the topic that is judged there is one that comes and goes.
    pub(crate) fleeting: bool,
    /// Somebody moves leaders.
    pub(crate) moves_leaders: bool,
    /// With how many partitions the topic begins; it gets the others after that time.
    pub(crate) partitions_first: i32,
    pub(crate) grows_after: Time,
    /// So many partitions more come later, which nobody uses: each when a leader has just asked for another in-sync set.
    pub(crate) grows_by: i32,
    /// Of a key only the last record stays, as these say.
    pub(crate) compaction: Option<Compaction>,
    /// Brokers' clocks begin at different times, and some run faster than others.
    pub(crate) clocks: bool,
    /// One producer more is the native client's.
    pub(crate) native: Option<NativeSettings>,
    /// One consumer more is the native client's.
    pub(crate) reader: Option<ReaderSettings>,
    /// Brokers give out producer ids, one after the other.
    pub(crate) gives_ids: bool,
    pub(crate) slow_log: bool,
    pub(crate) producers: usize,
    /// Kinds of faults that do not happen.
    pub(crate) without: BTreeSet<Fault>,
    pub(crate) work: Time,
    /// A bug put in on purpose, in a core...
    #[cfg(planted)]
    pub(crate) planted: Option<broker_core::planted::Planted>,
    /// ...or in the log.
    #[cfg(planted)]
    pub(crate) planted_in_log: Option<broker_log::planted::Planted>,
}

impl Settings {
    pub(crate) fn new(random: &mut Random) -> Self {
        let memory = random.chance(1, 6);
        let harsh = random.chance(1, 2);
        let mut settings = Self {
            brokers: 3,
            partitions: 1 + i32::try_from(random.below(3)).expect("small"),
            replication_factor: if random.chance(1, 8) { 2 } else { 3 },
            durability: if memory { Durability::Memory } else { Durability::Disk },
            lag_time_max_ms: [300, 1_000, 3_000, 10_000][random.below(4) as usize],
            alter_retry_ms: 100 + random.below(400),
            session_timeout: SECOND + random.below(5 * SECOND),
            segment_bytes: [300, 1_000, 10_000, 1 << 20][random.below(4) as usize],
            marks_bytes_max: None,
            retention_bytes: random.chance(1, 5).then(|| 2_000 + random.below(8_000)),
            fetch_bytes_max: [1, 500, 4_000, 1 << 20][random.below(4) as usize],
            lost: if harsh { random.below(60) } else { 0 },
            doubled: if harsh { random.below(60) } else { 0 },
            late: random.below(100),
            pace: 1,
            fault_every: 300 * MS + random.below(2 * SECOND),
            ensemble_seed: random.number(),
            power_cuts: !memory && random.chance(4, 5),
            wipes: !memory && random.chance(1, 2),
            disk_errors: random.chance(1, 2),
            rot: !memory && random.chance(1, 3),
            unclean: random.chance(1, 6),
            fleeting: random.chance(1, 3),
            moves_leaders: false,
            partitions_first: 0,
            grows_after: 0,
            grows_by: 0,
            compaction: None,
            clocks: false,
            native: None,
            reader: None,
            gives_ids: false,
            slow_log: random.chance(1, 2),
            producers: 2 + random.below(4) as usize,
            without: BTreeSet::new(),
            work: 8 * SECOND + random.below(12 * SECOND),
            #[cfg(planted)]
            planted: None,
            #[cfg(planted)]
            planted_in_log: None,
        };
        settings.draw_apart();
        settings.partitions_first = settings.partitions;
        // Drawn last: what was drawn before stays as it was.
        settings.moves_leaders = random.chance(1, 2);
        if random.chance(1, 4) {
            let some = random.below(settings.partitions.unsigned_abs().into());
            settings.partitions_first = 1 + i32::try_from(some).expect("few");
            settings.grows_after = random.below(settings.work);
        }
        if random.chance(1, 4) {
            settings.compaction = Some(Compaction::new(random));
            settings.segment_bytes = [300, 1_000, 4_000][random.below(3) as usize];
        }
        // For how long tombstones stay is a matter of clocks that agree.
        settings.clocks = random.chance(1, 2) && settings.compaction.is_none();
        if random.chance(1, 2) {
            settings.native = Some(NativeSettings::new(random));
        }
        settings
    }

    /// What has a stream of its own, so that it moves no other draw.
    fn draw_apart(&mut self) {
        let stream = |name| Random::new(self.ensemble_seed ^ name);
        let (mut power, mut marks) = (stream(0x0070_6f77), stream(0x006d_6172));
        let (mut growth, mut readers) = (stream(0x6772_6f77), stream(0x7265_6164));
        if self.durability == Durability::Memory {
            // What all members of an ISR lose together is lost, and said (D6); what one of them keeps is not.
            self.power_cuts = power.chance(1, 2);
        }
        self.marks_bytes_max = marks.chance(1, 2).then(|| 300 + marks.below(3_000));
        if growth.chance(1, 6) {
            self.grows_by = 1 + i32::try_from(growth.below(5)).expect("few");
        }
        self.gives_ids = stream(0x7069_6473).chance(1, 4);
        self.reader = readers.chance(1, 2).then(|| ReaderSettings::new(&mut readers));
    }

    /// How long everything has to come to rest after it was mended: ten seconds, and the longest time-out that is waited for.
    pub(crate) fn rest(&self) -> Time {
        let times = [self.session_timeout, self.lag_time_max_ms * MS, PRODUCE_TIMEOUT];
        10 * SECOND + times.into_iter().max().unwrap_or_default()
    }

    pub(crate) fn min_insync_replicas(&self) -> usize {
        self.replication_factor.min(2)
    }

    /// The ensemble that brokers talk to: every broker has a session, and so has who creates the first znodes.
    pub(crate) fn ensemble(&self) -> ensemble::Settings {
        let mut random = Random::new(self.ensemble_seed);
        let mut settings = match random.chance(1, 2) {
            true => ensemble::Settings::chaos(&mut random),
            false => ensemble::Settings::calm(&mut random),
        };
        let puppets = usize::try_from(self.brokers).expect("few") + 1;
        let others = if random.chance(1, 4) { 1 } else { 0 };
        settings.clients = puppets + others;
        settings.puppets = puppets;
        settings.pace = self.pace;
        settings.puppet_timeout = self.session_timeout;
        settings.without.clone_from(&self.without);
        settings
    }

    pub(crate) fn controller_config(&self) -> ControllerConfig {
        ControllerConfig {
            partitions: 1,
            replication_factor: 3,
            unclean: false,
            #[cfg(planted)]
            planted: self.planted,
        }
    }

    pub(crate) fn log_config(&self) -> LogConfig {
        let mut config = LogConfig {
            segment_bytes: self.segment_bytes,
            index_interval_bytes: 200,
            retention_ms: None,
            retention_bytes: self.retention_bytes,
            #[cfg(planted)]
            planted: self.planted_in_log,
            ..LogConfig::default()
        };
        if let Some(compaction) = &self.compaction {
            config.compact = true;
            config.delete = self.retention_bytes.is_some();
            config.min_cleanable_dirty_millionths = compaction.min_cleanable_dirty_millionths;
            config.max_compaction_lag_ms = compaction.max_compaction_lag_ms;
            config.delete_retention_ms = compaction.delete_retention_ms;
            config.cleaner_keys_max = compaction.keys_max;
        }
        config
    }
}
