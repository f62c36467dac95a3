//! Folders with more, or less, in them than a server wrote.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use coordinator_core::consensus::{EntryKind, LogEntry, PersistWrite, SnapshotImage};
use coordinator_core::state::{Entry, State};
use coordinator_disk::RealDisk;

use super::*;
use crate::storage::{Opened, Owner, Plan, Way, act, inspect, open, plan};

fn owner() -> Owner {
    Owner { cluster_id: "test".into(), server_id: 1 }
}

fn reopen(folder: &Path) -> Result<Opened, StorageError> {
    open(Arc::new(RealDisk), folder, owner()).map(|(opened, _)| opened)
}

/// A folder with an entry.
fn used() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut opened = reopen(folder.path()).unwrap();
    let data = Entry::default().encode().unwrap();
    let entry = LogEntry { index: 1, term: 1, kind: EntryKind::Normal, data };
    let write = PersistWrite { entries: vec![entry], sync: true, ..PersistWrite::default() };
    opened.write(vec![write]).unwrap();
    opened.mark_synced().unwrap();
    folder
}

#[test]
fn start_removes_what_a_stop_left_and_nothing_else() {
    let folder = used();
    let path = |name: &str| folder.path().join(name);
    let ours = [
        "snapshots/0000000000000007.snapshot.unfinished",
        "snapshots/0000000000000008.snapshot.unfinished.tmp",
        "log/0000000000000002.log.tmp",
    ];
    let foreign = [
        "snapshots/7.snapshot",
        "snapshots/backup-before-upgrade.bin",
        "snapshots/copy.snapshot.unfinished",
        "log/0000000000000001.log.bak",
        "log/9.log",
        "log/notes.tmp",
        "log/old",
    ];
    fs::create_dir(path("log/old")).unwrap();
    for name in ours.iter().chain(&foreign[..6]) {
        fs::write(path(name), b"kept?").unwrap();
    }
    let found = inspect(Arc::new(RealDisk), folder.path(), owner()).unwrap();
    let removals = ours.map(|name| format!("remove {}", path(name).display()));
    assert!(removals.iter().all(|removal| found.changes.contains(removal)), "{:?}", found.changes);
    assert_eq!(found.changes.len(), ours.len(), "{:?}", found.changes);
    assert_eq!(found.foreign, foreign.map(path));
    assert!(ours.iter().all(|name| path(name).exists()), "only looked at");
    let opened = reopen(folder.path()).unwrap();
    assert_eq!(opened.findings().removed, ours.map(path));
    assert_eq!(opened.findings().foreign, foreign.map(path));
    assert!(ours.iter().all(|name| !path(name).exists()));
    assert!(foreign.iter().all(|name| path(name).exists()));
}

#[test]
fn log_that_is_gone_is_missed_and_one_that_never_was_is_begun() {
    let folder = used();
    fs::remove_file(folder.path().join("log/0000000000000001.log")).unwrap();
    let missed = |folder: &Path| {
        let refused = reopen(folder).err().expect("refused").to_string();
        assert!(refused.contains("is missing"), "{refused}");
        let checked = inspect(Arc::new(RealDisk), folder, owner()).unwrap_err();
        assert!(checked.is_damage() && checked.to_string() == refused, "{checked}");
        let Plan { damage, way } = plan(Arc::new(RealDisk), folder, owner(), false).unwrap();
        assert_eq!((damage, way), (Some(refused), Way::Hopeless));
    };
    missed(folder.path());
    fs::remove_dir(folder.path().join("log")).unwrap();
    missed(folder.path());
    fs::remove_dir(folder.path().join("snapshots")).unwrap();
    missed(folder.path());
    // As a first start that was killed leaves it.
    fs::remove_file(folder.path().join(".begun")).unwrap();
    assert!(inspect(Arc::new(RealDisk), folder.path(), owner()).unwrap().begins);
    assert!(reopen(folder.path()).unwrap().findings().begins);
    assert!(!reopen(folder.path()).unwrap().findings().begins);
}

#[test]
fn folder_of_an_older_build_gets_the_mark_with_a_start() {
    let folder = used();
    let mark = folder.path().join(".begun");
    fs::remove_file(&mark).unwrap();
    drop(reopen(folder.path()).unwrap());
    assert!(mark.exists());
}

#[test]
fn repaired_folder_is_whole_with_its_mark() {
    let folder = used();
    let segment = folder.path().join("log/0000000000000001.log");
    let opened = reopen(folder.path()).unwrap();
    let mut state = State::new();
    state.apply(1, 1, &Entry::default());
    let data = state.encode_snapshot();
    opened.save(&SnapshotImage { index: 1, term: 1, data }).unwrap();
    drop(opened);
    fs::remove_file(segment).unwrap();
    let disk = Arc::new(RealDisk);
    let plan = plan(disk.clone(), folder.path(), owner(), false).unwrap();
    act(disk, folder.path(), owner(), &plan.way).unwrap().expect("something was done");
    assert!(!reopen(folder.path()).unwrap().findings().begins);
    assert!(folder.path().join(".begun").exists() && !folder.path().join("repaired").exists());
}
