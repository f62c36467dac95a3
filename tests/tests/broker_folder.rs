//! A broker's log directory on a disk that loses what was not synced.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use broker::partitions::worker::Folder;
use broker_core::ids::TopicPartition;
use broker_log::{BatchMeta, Log, MARKS_FILE, OpenOptions};
use bytes::Bytes;
use client_protocol::records::{BatchBuilder, Record, assign_offsets};
use client_protocol::{LeaderEpoch, Offset, PartitionId, TopicId};
use coordinator_disk::Disk;
use tests::sim::disk::SimulatedDisk;

const SEEDS: u64 = 40;
const TOPIC: &str = "orders";

fn open(disk: &SimulatedDisk) -> Folder {
    let path = Path::new("/logs");
    disk.create_dir(path).expect("created");
    disk.sync_dir(Path::new("/")).expect("synced");
    Folder::open(Arc::new(disk.clone()), path, b"directory").expect("opens")
}

fn key() -> TopicPartition {
    key_of(7)
}

fn key_of(topic: u8) -> TopicPartition {
    TopicPartition { topic: TopicId::from_bytes([topic; 16]), partition: PartitionId::new(0) }
}

/// One record.
fn append_some(log: &mut Log) {
    let mut builder = BatchBuilder::new(1 << 10);
    let value = Some(Bytes::from_static(b"value"));
    assert!(builder.push(&Record { timestamp_ms: 1_000, key: None, value, headers: Vec::new() }));
    let mut bytes = builder.build(None).expect("one record").to_vec();
    let mut meta = BatchMeta::parse(&bytes).expect("a header");
    log.admit_client(&mut meta, 1, 1_000).expect("usable");
    assign_offsets(&mut bytes, Offset::new(0), LeaderEpoch::new(1)).expect("whole");
    log.write(&[IoSlice::new(&bytes)]).expect("the disk works");
    log.sync().expect("the disk works");
}

fn is_known(folder: &Folder) -> bool {
    let (found, _) = folder.list().expect("listed");
    found.iter().any(|file| file.key() == key())
}

/// A process that is killed leaves what it wrote to the machine. What the next one calls durable is so with the file that
/// says whose it is: without it the log would stand there and belong to nobody.
#[test]
fn log_that_is_synced_after_a_kill_belongs_to_its_partition_after_a_power_cut() {
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new();
        let folder = open(&disk);
        folder.sync_marks().expect("synced");
        folder.open_log(key(), TOPIC, &OpenOptions::default()).expect("created");
        drop(folder);
        disk.kill();
        let folder = open(&disk);
        assert!(is_known(&folder), "seed {seed}: a kill loses nothing");
        let (mut log, _) = folder.open_log(key(), TOPIC, &OpenOptions::default()).expect("opened");
        log.sync().expect("synced");
        drop((log, folder));
        disk.crash(seed);
        assert!(is_known(&open(&disk)), "seed {seed}: the log was synced");
    }
}

/// What was durable, and which log was cut and has not caught up, is told by one file. Without it every log would pass for whole.
#[test]
fn folder_with_partitions_and_without_marks_is_refused() {
    let disk = SimulatedDisk::new();
    let marks = Path::new("/logs").join(MARKS_FILE);
    disk.create_dir(Path::new("/logs/lost+found")).expect("as a new file system has it");
    let folder = open(&disk);
    drop(folder);
    disk.lose_file(&marks).expect("there");
    let folder = open(&disk);
    folder.open_log(key(), TOPIC, &OpenOptions::default()).expect("created");
    drop(folder);
    disk.lose_file(&marks).expect("there");
    let refused = Folder::open(Arc::new(disk.clone()), Path::new("/logs"), b"directory");
    let why = refused.err().expect("refused").to_string();
    assert!(
        why.contains("/logs/durable-marks") && why.contains("empty the log directory"),
        "{why}"
    );
}

/// What a deleted topic left is no loss of the next one of its name, wherever the process ends that puts it aside.
#[test]
fn log_of_a_former_topic_is_no_damage_of_the_next_one() {
    for operations in 0..40 {
        let disk = SimulatedDisk::new();
        let folder = open(&disk);
        let (mut log, _) = folder.open_log(key(), TOPIC, &OpenOptions::default()).expect("created");
        append_some(&mut log);
        drop((log, folder));
        disk.kill();
        let folder = open(&disk);
        disk.die_after(operations);
        let interrupted = folder.open_log(key_of(8), TOPIC, &OpenOptions::default());
        drop((interrupted, folder));
        disk.kill();
        let folder = open(&disk);
        let (log, _) = folder.open_log(key_of(8), TOPIC, &OpenOptions::default()).expect("opened");
        assert_eq!(log.damage(), None, "killed after {operations} operations");
        assert!(!log.cut_below_mark() && log.view().ends().end == 0);
    }
}
