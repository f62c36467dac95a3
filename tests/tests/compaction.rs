//! Compaction on a disk that loses power at any operation: the log is the old one or the new one.
//!
//! Whatever happens in between, whoever replays the log ends in the same state, offsets keep their places, and what
//! was durable is there. Seeds: `COMPACTION_SEEDS` (how many, default 12).

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_log::{
    Admission, BatchMeta, Log, LogConfig, LogContext, Lookup, Marks, OpenOptions, ReadRequest,
};
use bytes::Bytes;
use client_protocol::records::{BatchBuilder, Batches, Record, assign_offsets};
use client_protocol::{LeaderEpoch, Offset};
use coordinator_disk::Disk;
use tests::sim::disk::SimulatedDisk;
use tests::sim::random::Random;

const FOLDER: &str = "/logs";
const PARTITION: &str = "/logs/t-0";
/// Operations on the disk that one cleaning and its swap take, about; later deaths come too late to matter.
const OPERATIONS: u64 = 250;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 500,
        index_interval_bytes: 150,
        compact: true,
        delete: false,
        min_cleanable_dirty_millionths: 0,
        delete_retention_ms: 5,
        ..LogConfig::default()
    }
}

fn open(disk: &SimulatedDisk) -> Log {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    shared.create_dir(Path::new(FOLDER)).expect("a folder");
    shared.sync_dir(Path::new("/")).expect("synced");
    let marks = Marks::open(Arc::clone(&shared), Path::new(FOLDER), b"compaction").expect("marks");
    let context =
        LogContext { disk: shared, marks: Arc::new(marks), directory: PathBuf::from(PARTITION) };
    let options = OpenOptions { config: config(), clean: false, log_start: None };
    let (mut log, recovery) = Log::open(context, &options).expect("opens");
    assert_eq!(recovery.damage, None, "nothing durable is damaged");
    log.sync().expect("synced");
    log.check();
    log
}

/// One record: a few keys, now and then a tombstone, now and then a new epoch.
fn append(log: &mut Log, random: &mut Random, epoch: &mut i32) {
    let key = Bytes::from(format!("key-{}", random.below(6)));
    let number = log.end_offset();
    let value = (random.below(5) > 0).then(|| Bytes::from(format!("value-{number}")));
    let mut builder = BatchBuilder::new(1 << 16);
    let timestamp_ms = 1_000;
    assert!(builder.push(&Record { timestamp_ms, key: Some(key), value, headers: Vec::new() }));
    let mut bytes = builder.build(None).expect("one record").to_vec();
    let mut meta = BatchMeta::parse(&bytes).expect("a header");
    *epoch += i32::from(random.below(20) == 0);
    let admission = log.admit_client(&mut meta, *epoch, 1_000).expect("usable");
    let Admission::Assigned { base_offset } = admission else { panic!("{admission:?}") };
    assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(*epoch)).expect("whole");
    log.write(&[IoSlice::new(&bytes)]).expect("the disk works");
}

type Records = BTreeMap<i64, (Bytes, Option<Bytes>)>;

fn records(log: &Log) -> Records {
    let ends = log.view().ends();
    let (mut offset, mut found) = (ends.log_start, Records::new());
    while offset < ends.end {
        let request = ReadRequest { offset, limit: ends.end, bytes_max: 300, at_least_one: true };
        let Lookup::Slice(slice) = log.view().lookup(&request).expect("the disk works") else {
            panic!("nothing at {offset} of {ends:?}")
        };
        let mut bytes = vec![0; slice.length as usize];
        slice.file.read_exact_at(slice.position, &mut bytes).expect("published");
        for batch in Batches::new(&bytes) {
            let batch = batch.expect("whole");
            batch.check_crc().expect("sound");
            for record in batch.records().expect("not packed") {
                let record = record.expect("readable").to_record();
                let at = batch.header.base_offset.get();
                found.insert(at, (record.key.expect("a key"), record.value));
            }
            offset = batch.header.end_offset().expect("in range").get();
        }
    }
    found
}

fn replayed(records: &Records) -> BTreeMap<Bytes, Bytes> {
    let mut state = BTreeMap::new();
    for (key, value) in records.values() {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
    state
}

/// Cleans until the disk dies or it is done. What is left counts, not how it ended.
fn clean(log: &mut Log, now_ms: i64, limit: i64) {
    let Ok(mut next) = log.plan_cleaning(now_ms, limit) else { return };
    while let Some(plan) = next {
        let Ok(cleaned) = plan.run() else { return };
        let Ok(swapped) = log.swap_cleaned(cleaned) else { return };
        log.check();
        next = swapped.rest;
    }
}

struct World {
    disk: SimulatedDisk,
    random: Random,
    /// All that was ever appended and not cut.
    written: Records,
    epoch: i32,
    cleanings: u64,
    /// Swaps that a start had to complete.
    completed: u64,
}

impl World {
    fn round(&mut self, now_ms: i64) {
        let mut log = open(&self.disk);
        let from = log.end_offset();
        for _ in 0..self.random.below(40) {
            append(&mut log, &mut self.random, &mut self.epoch);
        }
        log.sync().expect("the disk works");
        let before = records(&log);
        self.written.extend(before.range(from..).map(|(at, record)| (*at, record.clone())));
        let (ends, epochs) = (log.view().ends(), log.view().epochs());
        let bytes = log.view().size_bytes();
        let limit = ends.end - i64::try_from(self.random.below(10)).expect("small");
        self.disk.die_after(self.random.below(OPERATIONS));
        clean(&mut log, now_ms, limit);
        drop(log);
        match self.random.below(3) {
            0 => self.disk.kill(),
            _ => self.disk.crash(self.random.number()),
        }
        let is_noted = self.disk.exists(Path::new("/logs/t-0/swap")).expect("the disk works");
        self.completed += u64::from(is_noted);
        let log = open(&self.disk);
        let after = records(&log);
        assert_eq!(log.view().ends(), ends, "offsets keep their places");
        assert_eq!(log.view().epochs(), epochs, "epochs begin where they began");
        assert!(after.iter().all(|(at, record)| self.written.get(at) == Some(record)));
        assert_eq!(replayed(&after), replayed(&self.written));
        let untouched = |all: &Records| {
            all.range(limit..).map(|(at, record)| (*at, record.clone())).collect::<Records>()
        };
        assert_eq!(untouched(&after), untouched(&before), "not above the limit");
        self.cleanings += u64::from(log.view().size_bytes() < bytes);
    }
}

#[test]
fn a_death_at_any_operation_leaves_a_whole_log() {
    let seeds: u64 =
        std::env::var("COMPACTION_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let (mut cleanings, mut completed) = (0, 0);
    for seed in 0..seeds {
        println!("seed {seed}");
        let mut world = World {
            disk: SimulatedDisk::new(),
            random: Random::new(seed),
            written: Records::new(),
            epoch: 0,
            cleanings: 0,
            completed: 0,
        };
        for round in 0..12 {
            world.round(10_000 + round * 3);
        }
        cleanings += world.cleanings;
        completed += world.completed;
    }
    println!("{seeds} seeds: {cleanings} cleanings took effect, {completed} swaps were completed");
    assert!(cleanings > 2 * seeds && completed > 0, "the test does not test");
}
