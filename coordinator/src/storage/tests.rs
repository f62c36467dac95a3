use coordinator_core::consensus::{EntryKind, HardState, LogEntry};
use coordinator_core::state::State;
use coordinator_disk::{OpenMode, RealDisk};

use super::*;

mod beginning;
mod faulty;

fn owner() -> Owner {
    Owner { cluster_id: "test".into(), server_id: 1 }
}

fn reopen(folder: &Path) -> (Opened, Restored) {
    open(Arc::new(RealDisk), folder, owner()).unwrap()
}

fn entry(index: u64, term: u64, bytes: usize) -> LogEntry {
    let byte = u8::try_from(index % 251).unwrap();
    LogEntry { index, term, kind: EntryKind::Normal, data: vec![byte; bytes].into() }
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> PersistWrite {
    let entries = range.map(|index| entry(index, term, 10)).collect();
    PersistWrite { entries, sync: true, ..PersistWrite::default() }
}

fn image(index: u64, term: u64) -> SnapshotImage {
    SnapshotImage { index, term, data: vec![7; 3 << 20].into() }
}

fn indexes(restored: &Restored) -> Vec<(u64, u64)> {
    restored.entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

#[test]
fn new_folder_is_empty_and_what_was_written_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, restored) = reopen(folder.path());
    assert_eq!(restored.hard_state, HardState::default());
    assert!(restored.entries.is_empty() && restored.snapshot.is_none());
    let hard_state = HardState { term: 3, vote: 2, commit: 1 };
    let voted = PersistWrite { hard_state: Some(hard_state), ..PersistWrite::default() };
    storage.write(vec![voted, entries(1..=3, 1), entries(4..=4, 3)]).unwrap();
    drop(storage);
    let (_, restored) = reopen(folder.path());
    assert_eq!(restored.hard_state, hard_state);
    assert_eq!(indexes(&restored), [(1, 1), (2, 1), (3, 1), (4, 3)]);
    assert_eq!(restored.entries[2], entry(3, 1, 10));
}

#[test]
fn later_write_at_a_lower_index_replaces_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=5, 1), entries(3..=4, 2)]).unwrap();
    drop(storage);
    assert_eq!(indexes(&reopen(folder.path()).1), [(1, 1), (2, 1), (3, 2), (4, 2)]);
}

#[test]
fn folder_in_use_or_of_another_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let held = reopen(folder.path());
    let again = open(Arc::new(RealDisk), folder.path(), owner());
    assert!(matches!(again.err(), Some(StorageError::InUse { .. })));
    drop(held);
    let stranger = Owner { server_id: 2, ..owner() };
    let foreign = open(Arc::new(RealDisk), folder.path(), stranger);
    let error = foreign.err().unwrap().to_string();
    assert!(error.contains("coordinator 1") && error.contains("coordinator 2"), "{error}");
}

#[test]
fn segments_roll_and_go_when_a_snapshot_covers_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = reopen(folder.path()).0.with_segments_of(16 << 20);
    for index in 1..=40 {
        let entries = vec![entry(index, 1, 1 << 20)];
        storage
            .write(vec![PersistWrite { entries, sync: true, ..PersistWrite::default() }])
            .unwrap();
    }
    let segments = |folder: &Path| RealDisk.list(&folder.join("log")).unwrap().len();
    let before = segments(folder.path());
    assert!(before >= 3, "{before}");
    storage.save(&image(38, 1)).unwrap();
    let discard = PersistWrite { discard_to: Some(38), ..PersistWrite::default() };
    storage.write(vec![discard]).unwrap();
    assert!(segments(folder.path()) < before);
    drop(storage);
    let (_, restored) = reopen(folder.path());
    assert_eq!(restored.snapshot, Some(image(38, 1)));
    assert_eq!(restored.entries.last().map(|entry| entry.index), Some(40));
    assert!(restored.entries.first().is_some_and(|entry| entry.index <= 39));
}

#[test]
fn what_is_in_use_goes_too_where_room_is_little_and_the_log_goes_on_behind_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    let voted = HardState { term: 3, vote: 2, commit: 7 };
    let hard_state = Some(voted);
    storage.write(vec![PersistWrite { hard_state, ..entries(1..=9, 1) }]).unwrap();
    let used = |storage: &Opened| storage.gauges().0.free_bytes().unwrap().unwrap();
    let discard = |index, makes_room| {
        let discard_to = Some(index);
        vec![PersistWrite { discard_to, makes_room, ..PersistWrite::default() }]
    };
    let segments = || -> Vec<String> {
        let found = RealDisk.list(&folder.path().join("log")).unwrap();
        found.into_iter().map(|entry| entry.name).collect()
    };
    storage.save(&image(9, 1)).unwrap();
    assert!(used(&storage) > 0);
    storage.write(discard(9, false)).unwrap();
    storage.write(discard(8, true)).unwrap();
    assert_eq!(segments(), ["0000000000000001.log"], "there is more in it");
    storage.write(discard(9, true)).unwrap();
    storage.write(discard(9, true)).unwrap();
    assert_eq!(segments(), ["0000000000000002.log"], "once, because nothing is reserved then");
    let path = folder.path().join("log/0000000000000002.log");
    let reserved = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap()) * 512;
    assert!(reserved < 1 << 20, "{reserved}");
    storage.write(vec![entries(10..=10, 3)]).unwrap();
    drop(storage);
    let (_, restored) = reopen(folder.path());
    assert_eq!((restored.snapshot, restored.hard_state), (Some(image(9, 1)), voted));
    assert_eq!(restored.entries.len(), 1);
}

#[test]
fn installed_snapshot_voids_the_log_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=9, 1)]).unwrap();
    let hard_state = HardState { term: 4, vote: 0, commit: 100 };
    let install = PersistWrite {
        install: Some(image(100, 4)),
        hard_state: Some(hard_state),
        entries: vec![entry(101, 4, 1)],
        sync: true,
        ..PersistWrite::default()
    };
    storage.write(vec![install]).unwrap();
    drop(storage);
    let (_, restored) = reopen(folder.path());
    assert_eq!(restored.snapshot, Some(image(100, 4)));
    assert_eq!(restored.hard_state, hard_state);
    assert_eq!(indexes(&restored), [(101, 4)]);
}

#[test]
fn snapshot_received_before_a_crash_voids_a_log_that_disagrees() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=9, 1)]).unwrap();
    storage.save(&image(5, 2)).unwrap();
    drop(storage);
    assert_eq!(indexes(&reopen(folder.path()).1), []);
}

#[test]
fn damaged_snapshot_falls_back_to_the_one_before_while_the_log_reaches_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=20, 1)]).unwrap();
    for index in [3, 10, 15] {
        storage.save(&image(index, 1)).unwrap();
    }
    drop(storage);
    let snapshots = folder.path().join("snapshots");
    let names = RealDisk.list(&snapshots).unwrap();
    assert_eq!(names.len(), 2, "only the latest two are kept");
    let damage = |name: &str| {
        let file = RealDisk.open(&snapshots.join(name), OpenMode::ReadWrite).unwrap();
        file.write_at(1 << 20, &[io::IoSlice::new(b"rotten")]).unwrap();
    };
    damage(&names[1].name);
    let (opened, restored) = reopen(folder.path());
    assert_eq!(restored.snapshot, Some(image(10, 1)));
    assert_eq!(restored.entries.len(), 20);
    drop(opened);
    damage(&names[0].name);
    assert!(open(Arc::new(RealDisk), folder.path(), owner()).is_err());
}

/// The byte in the middle of the only segment's last entries.
fn rot_last_entries(folder: &Path) {
    let path = folder.join("log").join("0000000000000001.log");
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(10).rposition(|data| data == [9; 10]).unwrap();
    let file = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_at(at as u64 + 3, &[io::IoSlice::new(b"!")]).unwrap();
}

#[test]
fn rot_in_what_was_synced_last_is_reported_once_that_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=9, 1)]).unwrap();
    storage.mark_synced().unwrap();
    drop(storage);
    rot_last_entries(folder.path());
    let outcome = open(Arc::new(RealDisk), folder.path(), owner());
    let error = outcome.err().unwrap().to_string();
    assert!(error.contains("damaged at byte") && error.contains("was synced"), "{error}");
}

#[tokio::test]
async fn thread_marks_what_it_wrote_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path());
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut storage = Storage::start(opened, SnapshotSettings::default(), events).unwrap();
    storage.persist(PersistId(1), entries(1..=9, 1));
    storage.submit();
    assert!(matches!(told.recv().await, Some(Event::Persisted { id: PersistId(1) })));
    storage.stop();
    rot_last_entries(folder.path());
    assert!(open(Arc::new(RealDisk), folder.path(), owner()).is_err());
}

#[test]
fn missing_segment_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = reopen(folder.path()).0.with_segments_of(16 << 20);
    for index in 1..=40 {
        let entries = vec![entry(index, 1, 1 << 20)];
        storage.write(vec![PersistWrite { entries, ..PersistWrite::default() }]).unwrap();
    }
    drop(storage);
    RealDisk.remove(&folder.path().join("log").join("0000000000000002.log")).unwrap();
    let outcome = open(Arc::new(RealDisk), folder.path(), owner());
    assert!(outcome.err().unwrap().to_string().contains("segment 2 is missing"));
}

#[test]
fn snapshots_without_a_log_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(1..=9, 1)]).unwrap();
    storage.save(&image(5, 1)).unwrap();
    drop(storage);
    RealDisk.remove(&folder.path().join("log").join("0000000000000001.log")).unwrap();
    let outcome = open(Arc::new(RealDisk), folder.path(), owner());
    assert!(outcome.err().unwrap().to_string().contains("the log is missing"));
}

#[test]
fn snapshots_saved_at_once_do_not_stumble_over_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, _) = reopen(folder.path());
    let place = &storage.place;
    std::thread::scope(|scope| {
        for thread in 0..2 {
            scope.spawn(move || {
                for round in 1..=8 {
                    let data = vec![7; 10].into();
                    let image = SnapshotImage { index: 2 * round + thread, term: 1, data };
                    snapshot::save(place, &image).unwrap();
                }
            });
        }
    });
    assert_eq!(snapshot::list(place).unwrap(), [16, 17]);
}

#[test]
fn snapshot_that_fails_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, _) = reopen(folder.path());
    let snapshots = folder.path().join("snapshots");
    let names = || {
        let entries = std::fs::read_dir(&snapshots).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    // No file can be given the name of a folder.
    let name = "0000000000000005.snapshot";
    std::fs::create_dir(snapshots.join(name)).unwrap();
    assert!(storage.save(&image(5, 1)).is_err());
    assert_eq!(names(), [name]);
    // Nor that of what is being written; what is to get it is there by then.
    std::fs::remove_dir(snapshots.join(name)).unwrap();
    let unfinished = "0000000000000005.snapshot.unfinished";
    std::fs::create_dir(snapshots.join(unfinished)).unwrap();
    assert!(storage.save(&image(5, 1)).is_err());
    assert_eq!(names(), [unfinished]);
}

#[tokio::test]
async fn waiting_writes_are_reported_by_the_last_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path());
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut storage = Storage::start(opened, SnapshotSettings::default(), events).unwrap();
    for index in 1..=3 {
        storage.persist(PersistId(index), entries(index..=index, 1));
    }
    storage.submit();
    assert!(matches!(told.recv().await, Some(Event::Persisted { id: PersistId(3) })));
    let state = State::new();
    storage.save_snapshot(state.freeze(), Wish { keep_image: true, makes_room: false });
    let Some(Event::SnapshotSaved { index: 0, image: Some(image) }) = told.recv().await else {
        panic!("its bytes were asked for");
    };
    assert_eq!(image.data, state.encode_snapshot());
    storage.stop();
    let (_, restored) = reopen(folder.path());
    assert_eq!(indexes(&restored), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(restored.snapshot.map(|image| image.data), Some(state.encode_snapshot()));
}

#[tokio::test]
async fn slow_packed_snapshot_is_whole_and_nobody_waits_for_it_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path());
    let settings = SnapshotSettings { bytes_per_second: 1, packing: Packing::Zstd };
    let (_, _, times) = opened.gauges();
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut storage = Storage::start(opened, settings, events).unwrap();
    let state = State::new();
    let began = Instant::now();
    storage.save_snapshot(state.freeze(), Wish::default());
    storage.stop();
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(matches!(told.recv().await, Some(Event::SnapshotSaved { index: 0, image: None })));
    let SnapshotCounts { count, bytes, failures, .. } = times.read();
    let (path, length) = snapshot::found(&reopen(folder.path()).0.place, 0).unwrap();
    assert_eq!((count, bytes, failures), (1, length, 0), "{path:?}");
    let (_, restored) = reopen(folder.path());
    assert_eq!(restored.snapshot.map(|image| image.data), Some(state.encode_snapshot()));
}

#[tokio::test]
async fn slow_snapshot_is_written_at_once_when_somebody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path());
    // It would take minutes.
    let settings = SnapshotSettings { bytes_per_second: 1, ..SnapshotSettings::default() };
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut storage = Storage::start(opened, settings, events).unwrap();
    storage.hurry_snapshot();
    storage.save_snapshot(State::new().freeze(), Wish::default());
    let early = tokio::time::timeout(Duration::from_millis(200), told.recv()).await;
    assert!(early.is_err(), "haste that was over before it began");
    storage.hurry_snapshot();
    let saved = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
    assert!(matches!(saved, Ok(Some(Event::SnapshotSaved { index: 0, image: None }))));
    storage.stop();
}

/// A folder whose state has `count` znodes below the root, the last ones behind the snapshot.
fn folder_of(count: u64) -> tempfile::TempDir {
    use coordinator_core::state::{Entry, FrozenState};
    use coordinator_core::tree::Tree;
    let folder = tempfile::tempdir().unwrap();
    let nodes = Tree::new().freeze().records().collect();
    let state = FrozenState::imported(coordinator_protocol::Zxid::new(5), 0, nodes).unwrap();
    let image = SnapshotImage { index: 1, term: 1, data: state.encode() };
    found(Arc::new(RealDisk), folder.path(), owner(), image).unwrap();
    let (mut storage, _) = reopen(folder.path());
    let data = Entry::default().encode().unwrap();
    let entries = (2..2 + count)
        .map(|index| LogEntry { index, term: 1, kind: EntryKind::Normal, data: data.clone() })
        .collect();
    storage.write(vec![PersistWrite { entries, sync: true, ..PersistWrite::default() }]).unwrap();
    folder
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for below in ["log", "snapshots"] {
        for entry in std::fs::read_dir(folder.join(below)).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn inspection_tells_what_is_there_and_changes_nothing() {
    let folder = folder_of(3);
    std::fs::write(folder.path().join("snapshots/0000000000000009.snapshot.unfinished"), b"half")
        .unwrap();
    let before = files(folder.path());
    let found = inspect(Arc::new(RealDisk), folder.path(), owner()).unwrap();
    assert_eq!((found.snapshot_index, found.entries, found.last_index), (1, 3, 4));
    assert_eq!((found.znodes, found.sessions, found.term, found.commit), (4, 0, 1, 1));
    assert!(
        found.changes.iter().any(|change| change.contains("0000000000000009.snapshot.unfinished"))
    );
    assert_eq!(files(folder.path()), before);
    let held = reopen(folder.path());
    let in_use = inspect(Arc::new(RealDisk), folder.path(), owner());
    assert!(matches!(in_use, Err(StorageError::InUse { .. })));
    drop(held);
    let nothing = tempfile::tempdir().unwrap();
    assert!(inspect(Arc::new(RealDisk), nothing.path(), owner()).is_err());
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0);
}

#[test]
fn inspection_names_the_damaged_file() {
    let folder = folder_of(3);
    let (path, mut bytes) = files(folder.path()).pop().unwrap();
    assert!(path.ends_with("0000000000000001.snapshot"), "{path:?}");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = inspect(Arc::new(RealDisk), folder.path(), owner()).unwrap_err().to_string();
    assert!(error.contains("0000000000000001.snapshot") && error.contains("byte"), "{error}");
}

#[test]
fn snapshot_of_the_same_cluster_makes_a_folder_and_no_other_does() {
    let source = folder_of(0);
    let (file, _) = files(source.path()).pop().unwrap();
    let restore =
        |file: &Path, into: &Path, owner: Owner| found_from(Arc::new(RealDisk), file, into, owner);
    let folder = tempfile::tempdir().unwrap();
    let second = Owner { server_id: 2, ..owner() };
    assert_eq!(restore(&file, folder.path(), second.clone()).unwrap().0, 1);
    let found = inspect(Arc::new(RealDisk), folder.path(), second.clone()).unwrap();
    let before = inspect(Arc::new(RealDisk), source.path(), owner()).unwrap();
    assert!(found.zxid >> 32 > (before.zxid >> 32) + 999, "{:x} {:x}", found.zxid, before.zxid);
    assert_eq!((found.snapshot_index, found.last_index, found.znodes), (1, 1, 4));
    let again = restore(&file, folder.path(), second);
    assert!(matches!(again, Err(StorageError::NotEmpty { .. })));
    let empty = tempfile::tempdir().unwrap();
    let stranger = Owner { cluster_id: "other".into(), ..owner() };
    assert!(matches!(restore(&file, empty.path(), stranger), Err(StorageError::Foreign { .. })));
    let mut log = files(source.path());
    let (log, _) = log.swap_remove(0);
    assert!(matches!(restore(&log, empty.path(), owner()), Err(StorageError::Foreign { .. })));
    assert!(restore(Path::new("/no/such file"), empty.path(), owner()).is_err());
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
