//! Snapshot files: the whole state as of one log index.
//!
//! Called by: the storage's threads, and `restore` at start. Calls: `snapshot_file`.
//! Invariant: a file under a snapshot's own name is whole and durable; the latest two are kept, or where room is little the
//! latest, which was read back off the disk before.
//! Does not know: what the state is.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coordinator_core::consensus::SnapshotImage;
use coordinator_disk::record_file::RecordFile;
use coordinator_disk::small_file::REPLACEMENT_SUFFIX;
use coordinator_disk::{Disk, OpenMode};

use super::pace::Pace;
use super::snapshot_file::{self, PART_BYTES, Packing, Position, Writer};
use super::{Place, StorageError, io_error};

/// Snapshots kept: the one before the latest helps when the latest cannot be read.
const KEPT: usize = 2;
/// So much is written between two syncs: one at the end would have the log's wait behind all of it.
const SYNC_BYTES: u64 = 4 << 20;
/// Name of a snapshot that is being written.
pub const UNFINISHED_SUFFIX: &str = ".unfinished";

/// How the state is written.
pub struct Manner<'a> {
    /// How it is packed.
    pub packing: Packing,
    /// How fast, where nobody waits for it.
    pub pace: Option<&'a Pace>,
    /// The disk has little room: none before it stays.
    pub makes_room: bool,
}

/// Writes a snapshot as fast as it can be; durable when it returns.
pub fn save(place: &Place, image: &SnapshotImage) -> Result<(), StorageError> {
    let position = Position { index: image.index, term: image.term };
    let manner = Manner { packing: Packing::None, pace: None, makes_room: false };
    write(place, position, &mut std::iter::once(&image.data[..]), &manner).map(drop)
}

/// Writes a snapshot of the bytes that `pieces` are together; durable when it returns. Returns the file's length. Where it
/// fails, what was written is removed: it may be what filled the disk, and the log needs it.
pub fn write<P: AsRef<[u8]>>(
    place: &Place,
    position: Position,
    pieces: &mut dyn Iterator<Item = P>,
    manner: &Manner<'_>,
) -> Result<u64, StorageError> {
    let path = path(place, position.index);
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    let renamed = write_file(place, (position, &unfinished), pieces, manner).and_then(|bytes| {
        if manner.makes_room {
            read_back(place, (position, &unfinished), bytes, manner.pace)?;
        }
        let renamed = place.disk.rename(&unfinished, &path);
        renamed.map(|()| bytes).map_err(|error| io_error(&path, error))
    });
    if renamed.is_err() {
        // A disk that failed may fail here too; what stays is removed at the next start. What has no header yet has
        // another name.
        let _ = place.disk.remove(&unfinished);
        let mut begun = unfinished.into_os_string();
        begun.push(REPLACEMENT_SUFFIX);
        let _ = place.disk.remove(Path::new(&begun));
    }
    let bytes = renamed?;
    place.disk.sync_dir(&place.snapshots).map_err(|error| io_error(&path, error))?;
    // The log goes on behind the latest: an older one is rarely of use, and room is what lets clients write again.
    drop_old(place, if manner.makes_room { 1 } else { KEPT })?;
    Ok(bytes)
}

fn write_file<P: AsRef<[u8]>>(
    place: &Place,
    (position, path): (Position, &Path),
    pieces: &mut dyn Iterator<Item = P>,
    manner: &Manner<'_>,
) -> Result<u64, StorageError> {
    let file = RecordFile::create(&*place.disk, path, &identity(place, position.index))?;
    let mut file = Writer::begin(file, position, manner.packing)?;
    let mut synced = file.end();
    for piece in pieces {
        for part in piece.as_ref().chunks(PART_BYTES) {
            file.part(part)?;
            if let Some(pace) = manner.pace {
                if file.end() - synced >= SYNC_BYTES {
                    file.sync()?;
                    synced = file.end();
                }
                pace.wait(file.end());
            }
        }
    }
    file.finish()
}

/// Reads the `bytes` of what was just written off the disk, at the pace of writing: it is to be the only one.
fn read_back(
    place: &Place,
    (position, path): (Position, &Path),
    bytes: u64,
    pace: Option<&Pace>,
) -> Result<(), StorageError> {
    let file = place.disk.open(path, OpenMode::Read).map_err(|error| io_error(path, error))?;
    // What is in memory says nothing of the disk.
    file.forget_cached();
    let mut wait = |read: u64| {
        if let Some(pace) = pace {
            pace.wait(bytes.saturating_add(read));
        }
    };
    let found =
        snapshot_file::check(&*place.disk, path, &identity(place, position.index), &mut wait)?;
    match found == Some(position) {
        true => Ok(()),
        false => Err(damaged(path)),
    }
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
    let found = snapshot_file::read(disk, path, identity)?;
    let (Position { index, term }, data) = found.ok_or_else(|| damaged(path))?;
    Ok(SnapshotImage { index, term, data: Bytes::from(data) })
}

fn damaged(path: &Path) -> StorageError {
    io_error(path, io::Error::new(io::ErrorKind::InvalidData, "the snapshot is not whole"))
}

fn drop_old(place: &Place, kept: usize) -> Result<(), StorageError> {
    let indexes = list(place)?;
    let surplus = indexes.len().saturating_sub(kept);
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
