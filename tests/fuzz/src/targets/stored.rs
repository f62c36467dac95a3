//! What the coordinator has in files, and what its servers send one another: changed under sound checksums.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator::storage::{self, Owner};
use coordinator_core::consensus::SnapshotImage;
use coordinator_core::state::{Entry, State, members_of_snapshot};
use coordinator_disk::envelope;
use coordinator_disk::record_file::{self, RecordFile, Tail};

use super::server::LIVED;
use crate::budget::{Budget, within};
use crate::memory_disk::MemoryDisk;
use crate::parts::{joined, opened, sealed, split};
use crate::target::Target;

/// The envelope's own bounds: texts as long as they say within 256 times the bytes at hand, and 1 MiB for each sequence within a
/// sequence.
const BUDGET: Budget = Budget { fixed: 4 << 20, per_byte: 512 };
const ENTRY: u16 = 0x01;
const SNAPSHOT_HEAD: u16 = 0x02;
const SNAPSHOT_CHUNK: u16 = 0x03;
const LOG_RECORD: u16 = 0x0101;
const FOLDER: &str = "/data";
const SEGMENT: &str = "/data/log/0000000000000001.log";
const SEGMENT_IDENTITY: &[u8] = b"log segment 1 of coordinator 1 in cluster fuzz";

pub const TARGETS: [Target; 7] = [
    Target {
        name: "envelope",
        what: "the envelope around our own values, and values inside it",
        run: value,
        seeds: values,
    },
    Target {
        name: "log-entry",
        what: "one entry of the ensemble's log, applied to a state",
        run: entry,
        seeds: entries,
    },
    Target {
        name: "state-snapshot",
        what: "the ensemble's state as a snapshot holds it",
        run: snapshot,
        seeds: snapshots,
    },
    Target {
        name: "log-file",
        what: "a data folder whose log has these records",
        run: log_file,
        seeds: log_files,
    },
    Target {
        name: "snapshot-file",
        what: "a snapshot's file, and a data folder that is made from it",
        run: snapshot_file,
        seeds: snapshots,
    },
    Target {
        name: "record-file",
        what: "the bytes of a record file",
        run: record_file,
        seeds: record_files,
    },
    Target {
        name: "record-file-damage",
        what: "a record file, written and then damaged as the input says",
        run: damage,
        seeds: || vec![vec![3, 9, 1, 0, 20, 2, 0, 30, 1, 0, 1, 200], vec![1, 200, 3, 0, 9]],
    },
];

fn owner() -> Owner {
    Owner { cluster_id: "fuzz".to_owned(), server_id: 1 }
}

type Value = Vec<(i64, String, Option<Vec<u8>>)>;
const VALUE: envelope::Schema = envelope::Schema { kind: 9, version: 1 };

fn values() -> Vec<Vec<u8>> {
    let value: Value = vec![(-3, "tide".to_owned(), None), (1 << 40, String::new(), Some(vec![1]))];
    let whole = envelope::encode(VALUE, &value).expect("small");
    vec![opened(&whole), whole]
}

fn value(input: &[u8]) -> bool {
    let _ = within(input.len(), BUDGET, || envelope::decode::<Value>(VALUE, input));
    let sealed = sealed(VALUE.kind, input);
    let decoded = within(input.len(), BUDGET, || envelope::decode::<Value>(VALUE, &sealed));
    let Ok(value) = decoded else { return false };
    let again = envelope::encode(VALUE, &value).expect("it was decoded");
    assert_eq!(envelope::decode::<Value>(VALUE, &again), Ok(value));
    true
}

fn entries() -> Vec<Vec<u8>> {
    let whole = LIVED.writes.iter().flat_map(|write| &write.entries);
    whole.filter(|entry| entry.data.starts_with(b"TGEV")).map(|entry| opened(&entry.data)).collect()
}

fn entry(input: &[u8]) -> bool {
    let sealed = sealed(ENTRY, input);
    let Ok(entry) = within(input.len(), BUDGET, || Entry::decode(&sealed)) else { return false };
    let again = entry.encode().expect("it was decoded");
    assert_eq!(Entry::decode(&again).as_ref(), Ok(&entry));
    let mut state = LIVED.state.clone();
    state.apply(state.applied_term(), state.applied_index() + 1, &entry);
    state.check();
    let bytes = state.encode_snapshot();
    let restored = State::decode_snapshot(&bytes).expect("the snapshot of a sound state");
    assert_eq!(restored.encode_snapshot(), bytes);
    true
}

fn snapshots() -> Vec<Vec<u8>> {
    let of = |state: &State| {
        let bytes = state.encode_snapshot();
        let parts: Vec<Vec<u8>> = split(&bytes).into_iter().map(opened).collect();
        joined(parts.iter().map(Vec::as_slice))
    };
    vec![of(&LIVED.state), of(&State::new())]
}

/// The bytes of a snapshot with these parts.
fn snapshot_of(input: &[u8]) -> Vec<u8> {
    let kind = |number: usize| if number == 0 { SNAPSHOT_HEAD } else { SNAPSHOT_CHUNK };
    let parts = split(input).into_iter().enumerate();
    let parts: Vec<Vec<u8>> = parts.map(|(number, part)| sealed(kind(number), part)).collect();
    joined(parts.iter().map(Vec::as_slice))
}

fn snapshot(input: &[u8]) -> bool {
    let bytes = snapshot_of(input);
    let _ = members_of_snapshot(&bytes);
    let _ = members_of_snapshot(input);
    let _ = State::decode_snapshot(input);
    let decoded = within(bytes.len(), BUDGET, || State::decode_snapshot(&bytes));
    let Ok(state) = decoded else { return false };
    state.check();
    let again = state.encode_snapshot();
    let restored = State::decode_snapshot(&again).expect("its own snapshot");
    assert_eq!(restored.encode_snapshot(), again);
    true
}

/// The frames of the log that a server wrote.
fn log_files() -> Vec<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::default());
    let (mut log, _) = storage::open(disk.clone(), Path::new(FOLDER), owner()).expect("a folder");
    log.write(LIVED.writes.clone()).expect("written");
    drop(log);
    let mut frames = Vec::new();
    let visit = &mut |_, frame: &[u8]| {
        frames.push(opened(frame));
        Ok(())
    };
    record_file::recover(&*disk, Path::new(SEGMENT), SEGMENT_IDENTITY, Tail::MayBeTorn, visit)
        .expect("a segment");
    let few: Vec<&[u8]> = frames.iter().map(Vec::as_slice).take(6).collect();
    vec![joined(frames.iter().map(Vec::as_slice)), joined(few)]
}

fn log_file(input: &[u8]) -> bool {
    let disk = Arc::new(MemoryDisk::default());
    let mut file =
        RecordFile::create(&*disk, Path::new(SEGMENT), SEGMENT_IDENTITY).expect("a file");
    for part in split(input) {
        file.append(&[&sealed(LOG_RECORD, part)]).expect("appended");
    }
    drop(file);
    let before = storage::inspect(disk.clone(), Path::new(FOLDER), owner());
    // A start after it finds the same.
    let Ok((log, _)) = storage::open(disk.clone(), Path::new(FOLDER), owner()) else {
        return false;
    };
    drop(log);
    let after = storage::inspect(disk, Path::new(FOLDER), owner());
    assert_eq!(before.is_ok(), after.is_ok(), "{before:?} and {after:?}");
    let (Ok(before), Ok(after)) = (before, after) else { return false };
    assert_eq!((before.last_index, before.zxid), (after.last_index, after.zxid));
    true
}

/// A folder that was made from it can be read: a server starts in it.
fn snapshot_file(input: &[u8]) -> bool {
    let disk = Arc::new(MemoryDisk::default());
    let (log, _) = storage::open(disk.clone(), Path::new(FOLDER), owner()).expect("a folder");
    let image = SnapshotImage { index: 9, term: 1, data: snapshot_of(input).into() };
    log.save(&image).expect("saved");
    drop(log);
    let file = Path::new(FOLDER).join("snapshots/0000000000000009.snapshot");
    let members = storage::members_in(&*disk, &file, owner());
    let made = Path::new("/made");
    let founded = storage::found_from(disk.clone(), &file, made, owner());
    // Of a last zxid there may be no next one.
    assert!(members.is_ok() || founded.is_err(), "{members:?} and {founded:?}");
    if founded.is_err() {
        return false;
    }
    let (log, restored) = storage::open(disk.clone(), made, owner()).expect("a folder just made");
    drop(log);
    let found = restored.snapshot.expect("what it was made from");
    let state = State::decode_snapshot(&found.data).expect("what was checked");
    state.check();
    true
}

fn record_files() -> Vec<Vec<u8>> {
    let path = Path::new("/file");
    let disk = MemoryDisk::default();
    let mut file = RecordFile::create(&disk, path, b"x").expect("a file");
    file.append(&[b"one", b"", b"three"]).expect("appended");
    file.sync().expect("synced");
    file.append(&[&[7; 50]]).expect("appended");
    vec![disk.content(path)]
}

/// The payloads that are found, where reading comes to an end.
fn recovered(disk: &MemoryDisk, path: &Path, identity: &[u8], tail: Tail) -> Option<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let visit = &mut |_, frame: &[u8]| {
        frames.push(frame.to_vec());
        Ok(())
    };
    let found = record_file::recover(disk, path, identity, tail, visit).ok()?;
    assert_eq!(found.frames, frames.len() as u64);
    Some(frames)
}

fn record_file(input: &[u8]) -> bool {
    let path = PathBuf::from("/file");
    let disk = MemoryDisk::with(&path, input);
    let _ = record_file::identity_of(&disk, &path);
    let sealed = recovered(&disk, &path, b"x", Tail::Sealed);
    assert_eq!(disk.content(&path), input, "a sealed file was changed");
    let Some(frames) = recovered(&disk, &path, b"x", Tail::MayBeTorn) else { return false };
    assert!(sealed.is_none_or(|sealed| sealed == frames));
    let again = recovered(&disk, &path, b"x", Tail::Sealed);
    assert_eq!(again, Some(frames), "what was cut is not whole");
    true
}

/// Whatever happens to a file's end or middle, what is handed out is a prefix of what was appended.
fn damage(input: &[u8]) -> bool {
    let path = Path::new("/file");
    let disk = MemoryDisk::default();
    let mut file = RecordFile::create(&disk, path, b"x").expect("a file");
    let mut bytes = input.iter().copied();
    let mut next = || bytes.next();
    let mut appended = Vec::new();
    for number in 0..next().unwrap_or_default() % 16 {
        let Some(what) = next() else { break };
        if what >= 0xc0 {
            file.sync().expect("synced");
        }
        let payload = vec![number; usize::from(what)];
        file.append(&[&payload]).expect("appended");
        appended.push(payload);
    }
    drop(file);
    let mut content = disk.content(path);
    let whole = content.clone();
    while let (Some(how), Some(high), Some(low)) = (next(), next(), next()) {
        let at = usize::from(u16::from_be_bytes([high, low])) % content.len().max(1);
        match how % 4 {
            0 => content.truncate(at),
            1 => content.extend_from_slice(&[low, high, how, 0, 0]),
            2 => content.iter_mut().skip(at).take(usize::from(how)).for_each(|byte| *byte = 0),
            _ => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= how | 1),
        }
    }
    let disk = MemoryDisk::with(path, &content);
    let found = recovered(&disk, path, b"x", Tail::MayBeTorn);
    if content == whole {
        assert_eq!(found.as_ref(), Some(&appended));
    }
    let Some(found) = found else { return false };
    assert!(appended.starts_with(&found), "{} frames that were not appended", found.len());
    true
}
