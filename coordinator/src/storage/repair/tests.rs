//! Folders with damage, and what becomes of them.

use std::fs;

use coordinator_core::consensus::{EntryKind, LogEntry, Restored};
use coordinator_core::state::Entry;
use coordinator_disk::RealDisk;

use super::*;
use crate::storage::Opened;

fn owner() -> Owner {
    Owner { cluster_id: "test".into(), server_id: 1 }
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn reopen(folder: &Path) -> Result<(Opened, Restored), StorageError> {
    open(disk(), folder, owner())
}

fn planned(folder: &Path, is_member: bool) -> Way {
    plan(disk(), folder, owner(), is_member).unwrap().way
}

/// One write for each entry, so that a later one tells that it was synced.
fn append(opened: &mut Opened, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        let entry = LogEntry { index, term: 3, kind: EntryKind::Normal, data: vec![].into() };
        let write = PersistWrite { entries: vec![entry], sync: true, ..PersistWrite::default() };
        opened.write(vec![write]).unwrap();
    }
}

fn promise(opened: &mut Opened, term: u64, vote: u64) {
    let hard_state = Some(HardState { term, vote, commit: 0 });
    opened.write(vec![PersistWrite { hard_state, sync: true, ..PersistWrite::default() }]).unwrap();
}

fn image(index: u64) -> SnapshotImage {
    let mut state = State::new();
    for index in 1..=index {
        state.apply(3, index, &Entry::default());
    }
    SnapshotImage { index, term: 3, data: state.encode_snapshot() }
}

fn segment(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("log/{number:016}.log"))
}

/// Flips a bit in the record that ends behind so many of the file's written bytes.
fn damage(path: &Path, part: f64) {
    let mut bytes = fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let at = (written as f64 * part) as usize;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn sound_folder_needs_nothing_and_one_of_another_server_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, _) = reopen(folder.path()).unwrap();
    append(&mut opened, 1..=5);
    assert!(matches!(plan(disk(), folder.path(), owner(), false), Err(StorageError::InUse { .. })));
    drop(opened);
    assert_eq!(planned(folder.path(), false), Way::Nothing);
    let other = Owner { server_id: 2, ..owner() };
    assert!(plan(disk(), folder.path(), other, false).is_err());
}

#[test]
fn damage_before_what_a_start_needs_is_set_aside_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path()).unwrap();
    let mut opened = opened.with_segments_of(4_000);
    promise(&mut opened, 3, 2);
    append(&mut opened, 1..=200);
    opened.save(&image(190)).unwrap();
    drop(opened);
    damage(&segment(folder.path(), 1), 0.5);
    assert!(reopen(folder.path()).is_err());
    for is_member in [false, true] {
        let way = planned(folder.path(), is_member);
        assert_eq!(way, Way::DropSegments { numbers: vec![1], snapshot_index: 190 });
    }
    let way = planned(folder.path(), true);
    let aside = act(disk(), folder.path(), owner(), &way).unwrap().unwrap();
    assert!(aside.join("0000000000000001.log").exists());
    let (_, restored) = reopen(folder.path()).unwrap();
    assert_eq!((restored.hard_state.term, restored.hard_state.vote), (3, 2));
    assert_eq!(restored.entries.last().unwrap().index, 200);
}

#[test]
fn segment_that_is_needed_is_not_set_aside_because_an_empty_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    let (opened, _) = reopen(folder.path()).unwrap();
    let mut opened = opened.with_segments_of(4_000);
    let mut index = 0;
    while !segment(folder.path(), 2).exists() {
        index += 1;
        append(&mut opened, index..=index);
    }
    opened.save(&image(5)).unwrap();
    drop(opened);
    damage(&segment(folder.path(), 1), 0.5);
    match planned(folder.path(), false) {
        Way::Cut { image, lost_to, .. } => {
            assert!((6..index).contains(&image.index), "{}", image.index);
            assert_eq!(lost_to, index);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(planned(folder.path(), true), Way::Refill { .. }));
}

#[test]
fn server_alone_goes_on_with_what_comes_before_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, _) = reopen(folder.path()).unwrap();
    append(&mut opened, 1..=50);
    drop(opened);
    damage(&segment(folder.path(), 1), 0.5);
    let way = planned(folder.path(), false);
    let Way::Cut { image, lost_to, .. } = &way else { panic!("{way:?}") };
    assert!((20..30).contains(&image.index), "{}", image.index);
    assert_eq!(*lost_to, 50);
    let aside = act(disk(), folder.path(), owner(), &way).unwrap().unwrap();
    assert!(aside.join("log/0000000000000001.log").exists());
    let (mut opened, restored) = reopen(folder.path()).unwrap();
    assert_eq!(restored.snapshot.as_ref(), Some(image));
    assert_eq!((restored.hard_state.commit, restored.entries.len()), (image.index, 0));
    append(&mut opened, image.index + 1..=image.index + 1);
    drop(opened);
    assert_eq!(planned(folder.path(), false), Way::Nothing);
}

#[test]
fn member_keeps_its_latest_term_and_vote_also_from_behind_the_damage() {
    for (vote, kept) in [(3, 3), (0, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, _) = reopen(folder.path()).unwrap();
        promise(&mut opened, 3, 2);
        append(&mut opened, 1..=50);
        promise(&mut opened, 9, vote);
        opened.mark_synced().unwrap();
        drop(opened);
        damage(&segment(folder.path(), 1), 0.5);
        let way = planned(folder.path(), true);
        let hard_state = HardState { term: 9, vote: kept, commit: 0 };
        assert_eq!(way, Way::Refill { hard_state });
        act(disk(), folder.path(), owner(), &way).unwrap();
        let (_, restored) = reopen(folder.path()).unwrap();
        assert_eq!(restored.hard_state, hard_state);
        assert!(restored.entries.is_empty() && restored.snapshot.is_none());
    }
}

#[test]
fn member_whose_term_cannot_be_read_gets_no_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (mut opened, _) = reopen(folder.path()).unwrap();
    append(&mut opened, 1..=5);
    opened.save(&image(5)).unwrap();
    drop(opened);
    fs::remove_file(segment(folder.path(), 1)).unwrap();
    assert_eq!(planned(folder.path(), true), Way::Hopeless);
    assert!(matches!(planned(folder.path(), false), Way::Cut { image, .. } if image.index == 5));
}

#[test]
fn repair_that_was_interrupted_is_finished_and_no_server_starts_before() {
    for done in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let (mut opened, _) = reopen(path).unwrap();
        append(&mut opened, 1..=50);
        drop(opened);
        damage(&segment(path, 1), 0.5);
        // What an earlier try left goes.
        let place = Place::new(disk(), path, owner());
        found(disk(), &path.join(UNFINISHED), owner(), image(3)).unwrap();
        let unfinished = begin(&place, path).unwrap();
        found(disk(), &unfinished, owner(), image(7)).unwrap();
        fs::rename(&unfinished, path.join(REPAIRED)).unwrap();
        fs::create_dir(path.join("damaged-1")).unwrap();
        let steps = [
            ("log", "damaged-1/log"),
            ("repaired/log", "log"),
            ("snapshots", "damaged-1/snapshots"),
            ("repaired/snapshots", "snapshots"),
        ];
        for (from, to) in steps.iter().take(done) {
            fs::rename(path.join(from), path.join(to)).unwrap();
        }
        assert!(reopen(path).is_err_and(|error| error.to_string().contains("interrupted")));
        let way = planned(path, false);
        assert_eq!(way, Way::Finish);
        act(disk(), path, owner(), &way).unwrap();
        let (_, restored) = reopen(path).unwrap();
        assert_eq!(restored.snapshot, Some(image(7)), "after {done} steps");
    }
}

/// A change of the members, as the log has it.
fn change(opened: &mut Opened, index: u64, data: &'static [u8]) {
    let entry = LogEntry { index, term: 3, kind: EntryKind::Members, data: data.into() };
    let write = PersistWrite { entries: vec![entry], sync: true, ..PersistWrite::default() };
    opened.write(vec![write]).unwrap();
}

#[test]
fn server_that_has_members_by_its_log_alone_begins_no_ensemble_of_its_own() {
    for joined in [2, 45] {
        let folder = tempfile::tempdir().unwrap();
        let (mut opened, _) = reopen(folder.path()).unwrap();
        append(&mut opened, 1..=1);
        for index in 2..=50 {
            match joined == index {
                true => change(&mut opened, index, &[1, 2]),
                false => append(&mut opened, index..=index),
            }
        }
        drop(opened);
        assert_eq!(planned(folder.path(), false), Way::Nothing);
        damage(&segment(folder.path(), 1), 0.5);
        assert_eq!(planned(folder.path(), false), Way::Rejoin);
        assert_eq!(act(disk(), folder.path(), owner(), &Way::Rejoin).unwrap(), None);
        assert!(matches!(planned(folder.path(), true), Way::Refill { .. }));
    }
}
