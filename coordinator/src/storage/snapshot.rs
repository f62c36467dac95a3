//! Snapshot files: the whole state as of one log index.
//!
//! Called by: the storage's threads, and `restore` at start. Calls: record files.
//! Invariant: a file under a snapshot's own name is whole and durable; the latest two are kept.
//! Does not know: what the state is.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coordinator_core::consensus::SnapshotImage;
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::record_file::{self, RecordFile, Tail};
use coordinator_disk::{Disk, OpenMode};
use serde::{Deserialize, Serialize};

use super::{Place, StorageError, io_error};

/// Snapshots kept: the one before the latest helps when the latest cannot be read.
const KEPT: usize = 2;
/// State bytes in one frame.
const CHUNK_BYTES: usize = 1 << 20;
/// Name of a snapshot that is being written.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

const HEAD_SCHEMA: Schema = Schema { kind: 0x0102, version: 1 };

/// The first frame; the state follows in chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Head {
    V1 { index: u64, term: u64, bytes: u64, crc32: u32 },
}

/// Writes a snapshot; durable when it returns.
pub fn save(place: &Place, image: &SnapshotImage) -> Result<(), StorageError> {
    let path = path(place, image.index);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    let mut file = RecordFile::create(&*place.disk, &unfinished, &identity(place, image.index))?;
    let head = Head::V1 {
        index: image.index,
        term: image.term,
        bytes: image.data.len() as u64,
        crc32: crc32fast::hash(&image.data),
    };
    let head = envelope::encode(HEAD_SCHEMA, &head)
        .map_err(|error| StorageError::Encoding { reason: error.to_string() })?;
    file.append(&[&head])?;
    for chunk in image.data.chunks(CHUNK_BYTES) {
        file.append(&[chunk])?;
    }
    file.sync()?;
    place.disk.rename(&unfinished, &path).map_err(|error| io_error(&path, error))?;
    place.disk.sync_dir(&place.snapshots).map_err(|error| io_error(&path, error))?;
    drop_old(place)
}

/// A snapshot's file, and its length.
pub fn found(place: &Place, index: u64) -> Result<(PathBuf, u64), StorageError> {
    let path = path(place, index);
    let length = place.disk.open(&path, OpenMode::Read).and_then(|file| file.len());
    let bytes = length.map_err(|error| io_error(&path, error))?;
    Ok((path, bytes))
}

/// Indexes of all whole snapshots, ascending.
pub fn list(place: &Place) -> Result<Vec<u64>, StorageError> {
    let folder = &place.snapshots;
    let entries = place.disk.list(folder).map_err(|error| io_error(folder, error))?;
    let mut indexes: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// The index in a snapshot's file name.
pub fn number(found: &str) -> Option<u64> {
    let index = found.strip_suffix(".snapshot")?.parse().ok()?;
    (name(index) == found).then_some(index)
}

/// Reads a snapshot back and checks all of it.
pub fn load(place: &Place, index: u64) -> Result<SnapshotImage, StorageError> {
    let path = path(place, index);
    let image = load_file(&*place.disk, &path, &identity(place, index))?;
    if image.index == index { Ok(image) } else { Err(damaged(&path)) }
}

/// Reads the snapshot in the file `path`, which has to belong to `identity`.
pub fn load_file(
    disk: &dyn Disk,
    path: &Path,
    identity: &[u8],
) -> Result<SnapshotImage, StorageError> {
    let mut head = None;
    let mut data = Vec::new();
    record_file::recover(disk, path, identity, Tail::Sealed, &mut |_, frame| {
        if head.is_some() {
            data.extend_from_slice(frame);
            return Ok(());
        }
        let decoded = envelope::decode::<Head>(HEAD_SCHEMA, frame);
        head = Some(decoded.map_err(|error| error.to_string())?);
        Ok(())
    })?;
    match head {
        Some(Head::V1 { index, term, bytes, crc32 })
            if bytes == data.len() as u64 && crc32 == crc32fast::hash(&data) =>
        {
            Ok(SnapshotImage { index, term, data: Bytes::from(data) })
        }
        Some(_) | None => Err(damaged(path)),
    }
}

fn damaged(path: &Path) -> StorageError {
    io_error(path, io::Error::new(io::ErrorKind::InvalidData, "the snapshot is not whole"))
}

fn drop_old(place: &Place) -> Result<(), StorageError> {
    let indexes = list(place)?;
    let surplus = indexes.len().saturating_sub(KEPT);
    for index in &indexes[..surplus] {
        let path = path(place, *index);
        match place.disk.remove(&path) {
            // A received snapshot and one of our own may be written at once, and both threads clean up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome.map_err(|error| io_error(&path, error))?,
        }
    }
    Ok(())
}

fn path(place: &Place, index: u64) -> PathBuf {
    place.snapshots.join(name(index))
}

fn name(index: u64) -> String {
    format!("{index:016}.snapshot")
}

fn identity(place: &Place, index: u64) -> Vec<u8> {
    place.owner.identity(&format!("snapshot {index}"))
}
