//! A broker's log directory on a disk that loses what was not synced.

use std::path::Path;
use std::sync::Arc;

use broker::partitions::worker::Folder;
use broker_core::ids::TopicPartition;
use broker_log::{MARKS_FILE, OpenOptions};
use client_protocol::{PartitionId, TopicId};
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
    TopicPartition { topic: TopicId::from_bytes([7; 16]), partition: PartitionId::new(0) }
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
