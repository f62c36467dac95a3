//! What a cleaning takes of memory, whatever the log holds. Alone in its file, which is a process of
//! its own: the kernel counts for whole processes.

#![cfg(target_os = "linux")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use broker_log::{Admission, BatchMeta, Log, LogConfig, LogContext, Marks, OpenOptions};
use bytes::Bytes;
use client_protocol::pack::pack;
use client_protocol::records::{BatchBuilder, Compression, Record, assign_offsets};
use client_protocol::{LeaderEpoch, Offset};
use coordinator_disk::{Disk, RealDisk};

const RECORDS: u32 = 250_000;
/// The records take some 4 MB when they are unpacked.
const GROWTH_KB_MAX: u64 = 32 << 10;

/// The most memory this process ever had, kB.
fn peak_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A batch of as many different keys as there are records, packed into little.
fn packed_batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 30);
    for number in 0..RECORDS {
        let key = Some(Bytes::copy_from_slice(&number.to_be_bytes()));
        let record = Record { timestamp_ms: 1_000, key, ..Record::default() };
        assert!(builder.push(&record));
    }
    let sealed = builder.seal().unwrap();
    let (codec, payload) = pack(Compression::Lz4, sealed.records());
    let sealed = sealed.packed(codec, payload);
    let mut bytes = sealed.header(None).unwrap().to_vec();
    bytes.extend_from_slice(sealed.records());
    bytes
}

fn append(log: &mut Log, mut bytes: Vec<u8>) {
    let mut meta = BatchMeta::parse(&bytes).unwrap();
    let admission = log.admit_client(&mut meta, 0, 1_000).unwrap();
    let Admission::Assigned { base_offset } = admission else { panic!("{admission:?}") };
    assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(0)).unwrap();
    log.write(&[IoSlice::new(&bytes)]).unwrap();
}

fn open(folder: &Path) -> Log {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let marks = Arc::new(Marks::open(Arc::clone(&disk), folder, b"memory").unwrap());
    let directory = folder.join("orders-0");
    let context = LogContext { disk, marks, directory };
    let config =
        LogConfig { compact: true, delete: false, cleaner_keys_max: 1_000, ..LogConfig::default() };
    let options = OpenOptions { config, clean: false, log_start: None };
    let (log, _) = Log::open(context, &options).unwrap();
    log
}

#[test]
fn cleaning_a_batch_of_many_records_takes_little_more_than_its_bytes() {
    let folder = std::env::temp_dir().join(format!("cleaner-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut log = open(&folder);
    append(&mut log, packed_batch());
    log.sync().unwrap();
    log.roll().unwrap();
    log.sync().unwrap();
    let plan = log.plan_cleaning(2_000, log.end_offset()).unwrap().expect("due");
    // From here on the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_kb();
    let cleaned = plan.run().unwrap();
    let growth = peak_kb().saturating_sub(before);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(cleaned.report.keys, 1_000);
    assert!(growth < GROWTH_KB_MAX, "{growth} kB more");
}
