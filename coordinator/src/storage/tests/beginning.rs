//! The mark of what a member began with, through kills, repairs and a leader's snapshots.

use std::fs;

use super::*;
use crate::storage::repair::{Way, act};

fn state(data: &'static [u8]) -> SnapshotImage {
    SnapshotImage { index: 1, term: 1, data: data.into() }
}

fn began(folder: &Path) -> Option<Beginning> {
    reopen(folder).0.beginnings().own()
}

/// A folder that was made from `image`.
fn folder_with(image: SnapshotImage) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let beginning = Beginning::of(&image);
    assert_eq!(found(Arc::new(RealDisk), folder.path(), owner(), image).unwrap(), beginning);
    assert_eq!(began(folder.path()), Some(beginning));
    folder
}

#[test]
fn folder_keeps_what_it_began_with_and_one_that_began_with_nothing_has_no_mark() {
    let folder = folder_with(state(b"one"));
    let (mut storage, _) = reopen(folder.path());
    storage.write(vec![entries(2..=9, 1)]).unwrap();
    drop(storage);
    assert_eq!(began(folder.path()), Some(Beginning::of(&state(b"one"))));
    let later = SnapshotImage { index: 2, ..state(b"one") };
    assert!(
        ![state(b"other"), later]
            .map(|other| Beginning::of(&other))
            .contains(&Beginning::of(&state(b"one")))
    );
    let nothing = tempfile::tempdir().unwrap();
    assert_eq!([began(nothing.path()), began(nothing.path())], [None, None]);
}

#[test]
fn mark_is_there_before_the_state_and_another_attempt_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut storage, _) = reopen(folder.path());
    let hard_state = Some(HardState { term: 1, vote: 0, commit: 1 });
    storage
        .write(vec![PersistWrite { hard_state, sync: true, ..PersistWrite::default() }])
        .unwrap();
    // No snapshot can be written: as killed at that moment.
    let snapshots = folder.path().join("snapshots");
    fs::remove_dir(&snapshots).unwrap();
    assert!(storage.begin(&state(b"one")).is_err());
    drop(storage);
    assert_eq!(began(folder.path()), Some(Beginning::of(&state(b"one"))));
    found(Arc::new(RealDisk), folder.path(), owner(), state(b"other")).unwrap();
    assert_eq!(began(folder.path()), Some(Beginning::of(&state(b"other"))));
}

#[test]
fn snapshot_of_the_leader_takes_the_mark_away() {
    let folder = folder_with(state(b"one"));
    let (mut storage, _) = reopen(folder.path());
    let beginnings = storage.beginnings();
    let install = Some(SnapshotImage { index: 70, term: 3, data: b"theirs"[..].into() });
    storage.write(vec![PersistWrite { install, sync: true, ..PersistWrite::default() }]).unwrap();
    assert_eq!(beginnings.own(), None);
    drop(storage);
    assert_eq!(began(folder.path()), None);
    assert_eq!(fs::read(folder.path().join(".begun")).unwrap(), b"");
}

#[test]
fn folder_that_is_refilled_from_the_others_has_no_mark() {
    let folder = folder_with(state(b"one"));
    let hard_state = HardState { term: 3, vote: 1, commit: 0 };
    act(Arc::new(RealDisk), folder.path(), owner(), &Way::Refill { hard_state }).unwrap();
    assert_eq!(began(folder.path()), None);
}

#[test]
fn mark_that_cannot_be_read_or_is_anothers_counts_as_none() {
    let folder = folder_with(state(b"one"));
    let path = folder.path().join(".begun");
    let mut bytes = fs::read(&path).unwrap();
    let sound = bytes.clone();
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(began(folder.path()), None, "byte {at}");
        bytes[at] ^= 1;
    }
    let second = tempfile::tempdir().unwrap();
    let other = Owner { server_id: 2, ..owner() };
    found(Arc::new(RealDisk), second.path(), other, state(b"one")).unwrap();
    fs::copy(second.path().join(".begun"), &path).unwrap();
    assert_eq!(began(folder.path()), None);
    fs::write(&path, &sound).unwrap();
    assert_eq!(began(folder.path()), Some(Beginning::of(&state(b"one"))));
    // What a kill has left of a replacement.
    fs::write(folder.path().join(".begun.tmp"), b"half").unwrap();
    assert_eq!(began(folder.path()), Some(Beginning::of(&state(b"one"))));
    assert!(!folder.path().join(".begun.tmp").exists());
}

/// Folders hold these bytes: a change is a new schema version.
#[test]
fn mark_stays_what_it_is() {
    let folder = folder_with(state(b"one"));
    let bytes = fs::read(folder.path().join(".begun")).unwrap();
    assert_eq!(&bytes[..8], b"TGEV\x04\x01\x01\x00");
    let sum = Beginning::of(&state(b"one")).bytes();
    let owner = b"\x2abeginning of coordinator 1 in cluster test";
    assert_eq!(bytes[coordinator_disk::envelope::HEADER_BYTES..], [&owner[..], &sum].concat());
}
