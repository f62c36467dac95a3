use coordinator_disk::record_file::{self, RecordFile, RecordFileError, Tail};
use coordinator_disk::small_file;

use super::*;

const SEEDS: u64 = 300;

fn write(disk: &SimulatedDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    file.append(&[IoSlice::new(bytes)]).unwrap();
    file
}

fn read(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
    small_file::read(disk, Path::new(path)).unwrap()
}

#[test]
fn simulated_disk_conforms() {
    let disk = SimulatedDisk::new();
    coordinator_disk::conformance::check(&disk, Path::new("/root"));
}

#[test]
fn crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new();
        let file = write(&disk, "/a", &[1; 1000]);
        file.sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.append(&[IoSlice::new(&[2; 2000])]).unwrap();
        disk.crash(seed);
        let bytes = read(&disk, "/a").expect("its name was synced");
        assert!(bytes[..1000].iter().all(|byte| *byte == 1), "seed {seed}");
        assert!(bytes[1000..].iter().all(|byte| *byte == 2 || *byte == 0), "seed {seed}");
        lengths.insert(bytes.len());
        let dead = file.append(&[IoSlice::new(b"x")]);
        assert!(dead.is_err(), "a handle does not outlive the crash");
    }
    assert!(lengths.contains(&1000) && lengths.contains(&3000) && lengths.len() > 20);
}

#[test]
fn name_without_synced_folder_may_be_gone_and_a_rename_undone() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new();
        write(&disk, "/old", b"old").sync().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        write(&disk, "/new", b"new").sync().unwrap();
        disk.rename(Path::new("/new"), Path::new("/old")).unwrap();
        disk.crash(seed);
        let names: Vec<String> =
            disk.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
        seen.insert((names, read(&disk, "/old").unwrap()));
    }
    let expected = [
        (vec!["new".to_owned(), "old".to_owned()], b"old".to_vec()),
        (vec!["old".to_owned()], b"new".to_vec()),
        (vec!["old".to_owned()], b"old".to_vec()),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn same_seed_leaves_the_same_bytes() {
    let run = |seed| {
        let disk = SimulatedDisk::new();
        let file = write(&disk, "/a", &[1; 5000]);
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_at(700, &[IoSlice::new(&[2; 3000])]).unwrap();
        file.truncate(4000).unwrap();
        disk.crash(seed);
        read(&disk, "/a")
    };
    for seed in 0..SEEDS {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn kill_keeps_everything_and_frees_the_lock() {
    let disk = SimulatedDisk::new();
    write(&disk, "/a", b"unsynced");
    let lock = disk.lock(Path::new("/lock")).unwrap();
    let boot = disk.boot_id().unwrap();
    disk.kill();
    let next = disk.lock(Path::new("/lock")).unwrap();
    drop(lock);
    assert!(disk.lock(Path::new("/lock")).is_err(), "the dead holder cannot free the new lock");
    drop(next);
    assert_eq!(read(&disk, "/a").unwrap(), b"unsynced");
    assert_eq!(disk.boot_id().unwrap(), boot);
    disk.crash(0);
    assert_ne!(disk.boot_id().unwrap(), boot);
}

#[test]
fn failed_sync_keeps_failing_and_a_full_disk_says_so() {
    let disk = SimulatedDisk::new();
    let file = write(&disk, "/a", b"x");
    disk.fail_sync_after(1);
    file.sync().unwrap();
    assert!(file.sync().is_err());
    assert!(file.sync().is_err());
    assert_eq!(disk.sync_count(), 3);
    disk.limit_space(Some(3));
    assert!(file.append(&[IoSlice::new(b"abc")]).is_ok());
    let full = file.append(&[IoSlice::new(b"d")]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    disk.limit_space(Some(2));
    assert!(file.append(&[IoSlice::new(b"efg")]).is_err());
    assert_eq!(read(&disk, "/a").unwrap(), b"xabcef", "what fits is written");
}

#[test]
fn durable_copy_has_what_was_synced_under_a_synced_name() {
    let disk = SimulatedDisk::new();
    let file = write(&disk, "/a", b"synced");
    file.sync().unwrap();
    assert!(disk.durable_copy().files().is_empty(), "its name is not");
    disk.sync_dir(Path::new("/")).unwrap();
    file.append(&[IoSlice::new(b" or not")]).unwrap();
    drop(write(&disk, "/b", b"x"));
    let copy = disk.durable_copy();
    assert_eq!(copy.files(), [("/a".into(), 6)]);
    assert_eq!(read(&copy, "/a").unwrap(), b"synced");
    assert_eq!(read(&disk, "/a").unwrap(), b"synced or not");
}

#[test]
fn small_file_has_old_or_new_contents_after_a_crash_at_any_step() {
    for seed in 0..SEEDS {
        for failing in 0..4 {
            let disk = SimulatedDisk::new();
            small_file::replace(&disk, Path::new("/state"), &[1; 3000]).unwrap();
            disk.fail_sync_after(failing);
            let replaced = small_file::replace(&disk, Path::new("/state"), &[2; 700]);
            disk.crash(seed);
            let bytes = read(&disk, "/state").unwrap();
            let (old, new) = (bytes == [1; 3000], bytes == [2; 700]);
            assert!(new || (old && replaced.is_err()), "seed {seed}, sync {failing} failed");
        }
    }
}

#[test]
fn record_file_keeps_every_synced_frame_through_any_crash() {
    for seed in 0..SEEDS {
        let disk = SimulatedDisk::new();
        let path = Path::new("/records");
        let mut random = Random::new(seed);
        let mut file = RecordFile::create(&disk, path, b"owner").unwrap();
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut synced = 0;
        for round in 0..6u64 {
            for _ in 0..=random.below(20) {
                let length = usize::try_from(random.below(900)).unwrap();
                let payload = vec![u8::try_from(frames.len() % 251).unwrap(); length];
                file.append(&[&payload]).unwrap();
                frames.push(payload);
            }
            if random.chance(2, 3) {
                file.sync().unwrap();
                synced = frames.len();
            }
            if random.chance(1, 3) {
                disk.crash(seed * 100 + round);
                let mut seen = Vec::new();
                let recovered = record_file::recover(
                    &disk,
                    path,
                    b"owner",
                    Tail::MayBeTorn,
                    &mut |_, payload| {
                        seen.push(payload.to_vec());
                        Ok(())
                    },
                );
                file = recovered.unwrap_or_else(|e| panic!("seed {seed} round {round}: {e}")).file;
                assert!(seen.len() >= synced, "seed {seed} round {round} lost a synced frame");
                assert_eq!(seen, frames[..seen.len()], "seed {seed} round {round}");
                synced = seen.len();
                frames = seen;
            }
        }
    }
}

#[test]
fn rotten_bit_below_the_last_sync_is_reported_not_cut() {
    let disk = SimulatedDisk::new();
    let path = Path::new("/records");
    let mut file = RecordFile::create(&disk, path, b"owner").unwrap();
    let first = file.append(&[b"first"]).unwrap();
    file.sync().unwrap();
    file.append(&[b"second"]).unwrap();
    file.sync().unwrap();
    disk.flip_bit(path, first + 26, 3).unwrap();
    disk.crash(1);
    let outcome = record_file::recover(&disk, path, b"owner", Tail::MayBeTorn, &mut |_, _| Ok(()));
    assert!(matches!(
        outcome.err(),
        Some(RecordFileError::Damaged { offset, .. }) if offset == first
    ));
}

#[test]
fn pages_dropped_at_a_failed_sync_are_shown_until_the_power_goes() {
    let disk = SimulatedDisk::new();
    let path = Path::new("/file");
    let open = |mode| disk.open(path, mode).unwrap();
    let file = open(OpenMode::Create);
    disk.sync_dir(Path::new("/")).unwrap();
    file.append(&[IoSlice::new(b"durable ")]).unwrap();
    file.sync().unwrap();
    file.append(&[IoSlice::new(b"dropped")]).unwrap();
    disk.drop_unsynced_at_failure(true);
    disk.fail_sync_after(0);
    assert!(file.sync().is_err() && disk.has_refused());
    disk.kill();
    let file = open(OpenMode::ReadWrite);
    assert_eq!(file.len().unwrap(), 15);
    file.sync().unwrap();
    disk.crash(7);
    assert_eq!(open(OpenMode::Read).len().unwrap(), 8);
}

#[test]
fn a_lost_sector_a_lost_file_and_a_forbidden_one_are_found_by_reading_only() {
    let disk = SimulatedDisk::new();
    let path = Path::new("/file");
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.append(&[IoSlice::new(&[1; 1500])]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let copy = disk.copy();
    disk.lose_sector(path, 700).unwrap();
    let mut bytes = [9; 1500];
    file.read_exact_at(0, &mut bytes).unwrap();
    assert!(bytes[..512].iter().chain(&bytes[1024..]).all(|byte| *byte == 1));
    assert!(bytes[512..1024].iter().all(|byte| *byte == 0));
    disk.forbid_reads(path).unwrap();
    assert!(file.read_at(0, &mut bytes).is_err());
    assert!(disk.peek(|| file.read_at(0, &mut bytes)).is_ok());
    disk.mend();
    assert!(file.read_at(0, &mut bytes).is_ok());
    disk.lose_file(path).unwrap();
    disk.crash(3);
    assert!(disk.files().is_empty());
    copy.crash(3);
    assert_eq!(copy.files(), [(path.to_owned(), 1500)]);
    copy.open(path, OpenMode::Read).unwrap().read_exact_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 1500]);
}

#[test]
fn a_fault_counts_when_it_is_met_and_once() {
    let disk = SimulatedDisk::new();
    let file = write(&disk, "/a", b"first");
    disk.limit_space(Some(2));
    disk.fail_sync_after(1);
    disk.forbid_reads(Path::new("/a")).unwrap();
    assert_eq!(disk.refusals(), Refusals::default(), "nobody has met anything yet");
    file.sync().unwrap();
    assert!(file.append(&[IoSlice::new(b"too long")]).is_err());
    assert!(file.append(&[IoSlice::new(b"again")]).is_err());
    assert!(small_file::read(&disk, Path::new("/a")).is_err());
    assert!(small_file::read(&disk, Path::new("/a")).is_err());
    assert!(file.sync().is_err());
    assert!(file.sync().is_err(), "an earlier one failed");
    assert_eq!(disk.refusals(), Refusals { syncs: 1, drops: 0, room: 1, reads: 1 });
    disk.mend();
    disk.kill();
    disk.drop_unsynced_at_failure(true);
    disk.fail_sync_after(0);
    assert!(write(&disk, "/a", b"more").sync().is_err());
    let other = SimulatedDisk::new();
    other.boot_after(&disk);
    assert_eq!(other.refusals(), Refusals { syncs: 1, drops: 1, room: 1, reads: 1 });
}
