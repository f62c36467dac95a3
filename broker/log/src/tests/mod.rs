//! Whole logs on the real disk.

mod appending;
mod cleaning;
mod cleaning_odd;
mod cleaning_steps;
mod model;
mod reading;
mod recovering;
mod retaining;
mod truncating;

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use client_protocol::records::assign_offsets;
use client_protocol::{LeaderEpoch, Offset};
use coordinator_disk::{Disk, RealDisk};

use crate::sample::SampleBatch;
use crate::testing::Folder;
use crate::{
    Admission, BatchMeta, FileSlice, Log, LogConfig, LogContext, LogError, Lookup, Marks,
    OpenOptions, ReadRequest, Recovery,
};

pub const NOW_MS: i64 = 1_000_000;

/// A log directory with one partition's log in it.
pub struct Bench {
    pub folder: Folder,
    pub marks: Arc<Marks>,
    pub config: LogConfig,
}

impl Bench {
    pub fn new(config: LogConfig) -> Self {
        let folder = Folder::new();
        let marks = Self::open_marks(&folder);
        Self { folder, marks, config }
    }

    fn open_marks(folder: &Folder) -> Arc<Marks> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        Arc::new(Marks::open(disk, folder.path(), b"bench").unwrap())
    }

    pub fn directory(&self) -> PathBuf {
        self.folder.path().join("orders-0")
    }

    pub fn file(&self, base_offset: i64, suffix: &str) -> PathBuf {
        self.directory().join(format!("{base_offset:020}.{suffix}"))
    }

    pub fn try_open(&mut self, clean: bool) -> (Log, Recovery) {
        self.try_open_with(clean, None)
    }

    /// Opens after an unclean stop, with this start in the checkpoint.
    pub fn try_open_at(&mut self, log_start: Option<i64>) -> (Log, Recovery) {
        self.try_open_with(false, log_start)
    }

    /// Opens with this start in the checkpoint.
    pub fn try_open_with(&mut self, clean: bool, log_start: Option<i64>) -> (Log, Recovery) {
        self.marks = Self::open_marks(&self.folder);
        let context = LogContext {
            disk: Arc::new(RealDisk),
            marks: Arc::clone(&self.marks),
            directory: self.directory(),
        };
        let options = OpenOptions { config: self.config.clone(), clean, log_start };
        let (mut log, recovery) = Log::open(context, &options).unwrap();
        log.sync().unwrap();
        (log, recovery)
    }

    /// Opens after an unclean stop; nothing may be damaged.
    pub fn open(&mut self) -> Log {
        let (log, recovery) = self.try_open(false);
        assert_eq!(recovery.damage, None);
        log
    }
}

pub fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

/// Appends one batch as a leader would; returns its base offset.
pub fn append(log: &mut Log, batch: SampleBatch) -> i64 {
    match try_append(log, batch) {
        Admission::Assigned { base_offset } => base_offset,
        other => panic!("not appended: {other:?}"),
    }
}

pub fn try_append(log: &mut Log, batch: SampleBatch) -> Admission {
    let epoch = batch.leader_epoch;
    let mut bytes = batch.encode();
    let mut meta = BatchMeta::parse(&bytes).unwrap();
    let admission = log.admit_client(&mut meta, epoch, NOW_MS).unwrap();
    if let Admission::Assigned { base_offset } = admission {
        let (offset, epoch) = (Offset::new(base_offset), LeaderEpoch::new(epoch));
        assign_offsets(&mut bytes, offset, epoch).unwrap();
        log.write(&[IoSlice::new(&bytes)]).unwrap();
        log.check();
    }
    admission
}

/// Appends `count` batches of three records each.
pub fn append_many(log: &mut Log, count: usize) {
    for number in 0..count {
        let timestamp = 1_000 + number as i64;
        append(log, SampleBatch { records: 3, timestamp, ..SampleBatch::default() });
    }
}

/// All batches of the log as fetches of `bytes_max` give them, both ways.
pub fn read_all(log: &Log, bytes_max: u32) -> Vec<BatchMeta> {
    let view = log.view();
    let ends = view.ends();
    let mut offset = ends.log_start;
    let mut found: Vec<BatchMeta> = Vec::new();
    while offset < ends.end {
        let request = ReadRequest { offset, limit: ends.end, bytes_max, at_least_one: true };
        let slice = expect_slice(view.lookup(&request).unwrap());
        let metas = metas_of(&slice);
        let last = metas.last().expect("at least one").next_offset();
        assert!(last > offset, "{last} {offset}");
        found.extend(metas.iter().filter(|meta| meta.last_offset() >= offset));
        offset = last;
    }
    found
}

pub fn expect_slice(lookup: Lookup) -> FileSlice {
    match lookup {
        Lookup::Slice(slice) => slice,
        Lookup::Empty => panic!("empty"),
        Lookup::OutOfRange(ends) => panic!("out of range: {ends:?}"),
    }
}

pub fn metas_of(slice: &FileSlice) -> Vec<BatchMeta> {
    let mut bytes = vec![0; slice.length as usize];
    slice.file.read_exact_at(slice.position, &mut bytes).unwrap();
    let mut metas = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let meta = BatchMeta::parse(rest).unwrap();
        rest = &rest[meta.size_bytes as usize..];
        metas.push(meta);
    }
    metas
}
