//! The replicated log and the hard state as record files, one after another.
//!
//! Called by: the storage's thread, and `restore` at start. Calls: record files, `snapshot`.
//! Invariant: reading the segments in order and applying each record gives the log; a record that begins at or below
//! the last index replaces what was there. Each segment begins with the hard state, so that older ones can go.
//! Does not know: ids of writes, threads.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use coordinator_core::consensus::{EntryKind, HardState, LogEntry, PersistWrite, SnapshotImage};
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use coordinator_disk::record_file::{RecordFile, RecordFileError};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Beginnings, Place, StorageError, SyncTimes, snapshot};

/// A segment is followed by the next when it has grown to this many bytes. Each change of segments costs the filesystem's
/// journal a few commits, which everything that is being written then waits for.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A segment with no more than this and nothing reserved is not worth another where room is little.
const SPARED_BYTES: u64 = 1 << 20;
/// Zeros written ahead, as a part of a segment.
const FILL_PART: u64 = 256;
/// Entries in one record: data up to this many bytes, and one entry at least.
const RECORD_BYTES: usize = 8 << 20;

const RECORD_SCHEMA: Schema = Schema { kind: 0x0101, version: 1 };
/// The form that has changes of the members among its entries, and is otherwise the same. Only records with some are
/// written in it: the build before reads all others.
const RECORD_SCHEMA_2: Schema = Schema { kind: 0x0101, version: 2 };

/// What one frame of the log holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogRecord {
    /// Replaces the hard state.
    HardState(HardState),
    /// Replaces everything from the first index on.
    Entries(Vec<LogEntry>),
    /// A received snapshot is durable: the log before is void and goes on behind it.
    Installed {
        /// The snapshot's last index.
        index: u64,
    },
}

/// The same as [`LogRecord`], in the same order, without owning the entries.
#[derive(Serialize)]
enum LogRecordView<'a> {
    HardState(&'a HardState),
    Entries(&'a [LogEntry]),
    Installed { index: u64 },
}

impl LogRecord {
    /// Reads a frame.
    pub fn decode(bytes: &[u8]) -> Result<LogRecord, String> {
        let decoded = match envelope::decode(RECORD_SCHEMA, bytes) {
            Err(EnvelopeError::Schema { found: RECORD_SCHEMA_2, .. }) => {
                envelope::decode(RECORD_SCHEMA_2, bytes)
            }
            decoded => decoded,
        };
        decoded.map_err(|error| error.to_string())
    }
}

/// A segment that is written no more.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    /// Its number.
    pub number: u64,
    /// The greatest index of any entry in it, 0 without any.
    pub last_index: u64,
}

/// The log, open for writing.
pub struct Log {
    place: Place,
    sealed: VecDeque<Sealed>,
    active: RecordFile,
    active_info: Sealed,
    hard_state: HardState,
    segment_bytes: u64,
    /// Bytes that the segment in use reserves, as far as is known.
    reserved: u64,
    /// Whether a later frame says of everything written that it was synced.
    is_marked: bool,
    times: Arc<SyncTimes>,
    beginnings: Arc<Beginnings>,
}

impl Log {
    /// Goes on with what was read back.
    pub fn resume(
        place: Place,
        sealed: VecDeque<Sealed>,
        active: (RecordFile, Sealed),
        hard_state: HardState,
    ) -> Log {
        let (active, active_info) = active;
        let mut log = Log {
            place,
            sealed,
            active,
            active_info,
            hard_state,
            segment_bytes: SEGMENT_BYTES,
            // Found by a start, it has what the life before gave it.
            reserved: SEGMENT_BYTES,
            is_marked: false,
            times: Arc::default(),
            beginnings: Arc::default(),
        };
        log.fill_ahead();
        log
    }

    fn fill_ahead(&mut self) {
        let bytes = self.segment_bytes / FILL_PART;
        self.active.fill_ahead(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Begins an empty log with segment 1.
    pub fn create(place: Place) -> Result<Log, StorageError> {
        let info = Sealed { number: 1, last_index: 0 };
        let hard_state = HardState::default();
        let active = create_segment(&place, (info.number, SEGMENT_BYTES), &hard_state)?;
        Ok(Log::resume(place, VecDeque::new(), (active, info), hard_state))
    }

    /// Begins the next segment when one has `bytes`.
    pub fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
        self.fill_ahead();
    }

    /// Says what the log began with.
    pub fn set_beginnings(&mut self, beginnings: Beginnings) {
        self.beginnings = Arc::new(beginnings);
    }

    /// What it began with.
    pub fn beginnings(&self) -> Arc<Beginnings> {
        Arc::clone(&self.beginnings)
    }

    /// What tells how long syncs took.
    pub fn sync_times(&self) -> Arc<SyncTimes> {
        Arc::clone(&self.times)
    }

    /// Whether [`Log::mark_synced`] would tell anything new.
    pub fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// Appends a frame that says that all before it was synced, and syncs it. Damage to what was written
    /// last could not be told from a torn tail otherwise, and would be cut.
    pub fn mark_synced(&mut self) -> Result<(), StorageError> {
        let mut frames = Vec::new();
        encode(&LogRecordView::HardState(&self.hard_state), &mut frames)?;
        self.append(&mut frames, true)?;
        self.is_marked = true;
        Ok(())
    }

    /// Writes all of `writes` in order; durable when it returns, where a write asks for it.
    pub fn write(&mut self, writes: Vec<PersistWrite>) -> Result<(), StorageError> {
        let mut frames = Vec::new();
        let mut sync = false;
        let mut discard_to = 0;
        let mut makes_room = false;
        if writes.iter().all(|write| write.install.is_none()) {
            // First, for whatever follows may want room: what a durable snapshot covers is of no use by then.
            self.discard(writes.iter().filter_map(|write| write.discard_to).max().unwrap_or(0))?;
        }
        for write in writes {
            if let Some(image) = &write.install {
                // Until the snapshot is durable the old log must stay.
                self.append(&mut frames, true)?;
                // First: a mark that tells of something else would keep this member from the others.
                self.beginnings.forget(&self.place)?;
                self.install(image)?;
                discard_to = discard_to.max(image.index);
            }
            if let Some(hard_state) = &write.hard_state {
                encode(&LogRecordView::HardState(hard_state), &mut frames)?;
                self.hard_state = *hard_state;
            }
            for entries in chunks(&write.entries) {
                encode(&LogRecordView::Entries(entries), &mut frames)?;
                let last = entries.last().map_or(0, |entry| entry.index);
                self.active_info.last_index = self.active_info.last_index.max(last);
            }
            sync |= write.sync;
            makes_room |= write.makes_room;
            discard_to = discard_to.max(write.discard_to.unwrap_or(0));
        }
        self.append(&mut frames, sync)?;
        if self.active.end() >= self.segment_bytes {
            self.roll()?;
        }
        if makes_room && self.active_info.last_index <= discard_to && self.holds_much() {
            // What is in use goes too: it may be most of what there is, and reserves more.
            self.begin_next(0)?;
        }
        self.discard(discard_to)
    }

    /// Goes on behind `image`, whatever was there; durable when it returns.
    pub fn install(&mut self, image: &SnapshotImage) -> Result<(), StorageError> {
        snapshot::save(&self.place, image)?;
        self.mark_installed(image.index)?;
        self.discard(image.index)?;
        self.roll()
    }

    /// Says that the log before is void and goes on behind a snapshot's `index`; durable when it returns.
    pub fn mark_installed(&mut self, index: u64) -> Result<(), StorageError> {
        let mut frames = Vec::new();
        encode(&LogRecordView::Installed { index }, &mut frames)?;
        self.append(&mut frames, true)
    }

    fn append(&mut self, frames: &mut Vec<Vec<u8>>, sync: bool) -> Result<(), StorageError> {
        if !frames.is_empty() {
            let payloads: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            self.active.append(&payloads)?;
            self.is_marked = false;
            frames.clear();
        }
        if sync {
            let began = Instant::now();
            self.active.sync()?;
            self.times.add(began.elapsed());
        }
        Ok(())
    }

    /// Seals the active segment, synced whole, and begins the next.
    fn roll(&mut self) -> Result<(), StorageError> {
        self.begin_next(SEGMENT_BYTES)
    }

    /// Whether the segment in use has more than its first few frames, or room that is reserved.
    fn holds_much(&self) -> bool {
        self.reserved > 0 || self.active.end() > SPARED_BYTES
    }

    /// The same, with so many bytes reserved.
    fn begin_next(&mut self, reserved: u64) -> Result<(), StorageError> {
        self.active.seal()?;
        let next = Sealed { number: self.active_info.number + 1, last_index: 0 };
        self.active = create_segment(&self.place, (next.number, reserved), &self.hard_state)?;
        self.reserved = reserved;
        self.fill_ahead();
        self.sealed.push_back(std::mem::replace(&mut self.active_info, next));
        Ok(())
    }

    /// Removes the oldest segments as long as all their entries are at or below `index`.
    fn discard(&mut self, index: u64) -> Result<(), StorageError> {
        let mut removed = false;
        while let Some(oldest) = self.sealed.front()
            && oldest.last_index <= index
            && index > 0
        {
            let path = segment_path(&self.place, oldest.number);
            self.place.disk.remove(&path).map_err(|error| super::io_error(&path, error))?;
            self.sealed.pop_front();
            removed = true;
        }
        if removed {
            let sync = self.place.disk.sync_dir(&self.place.log);
            sync.map_err(|error| super::io_error(&self.place.log, error))?;
        }
        Ok(())
    }
}

/// Where a segment is.
pub fn segment_path(place: &Place, number: u64) -> PathBuf {
    place.log.join(segment_name(number))
}

fn segment_name(number: u64) -> String {
    format!("{number:016}.log")
}

/// The number in a segment's file name.
pub fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// What stands in a segment's header.
pub fn segment_identity(place: &Place, number: u64) -> Vec<u8> {
    place.owner.identity(&format!("log segment {number}"))
}

fn create_segment(
    place: &Place,
    (number, reserved): (u64, u64),
    hard_state: &HardState,
) -> Result<RecordFile, StorageError> {
    let path = segment_path(place, number);
    let identity = segment_identity(place, number);
    let mut file = RecordFile::create(&*place.disk, &path, &identity)?;
    match file.preallocate(reserved) {
        // Entries may still fit, and those that end sessions or delete nodes are how room comes back.
        Err(RecordFileError::Io { error, .. }) if error.kind() == ErrorKind::StorageFull => {
            warn!(path = %path.display(), "the disk has no room for a whole segment");
        }
        outcome => outcome?,
    }
    let mut frames = Vec::new();
    encode(&LogRecordView::HardState(hard_state), &mut frames)?;
    for frame in &frames {
        file.append(&[frame])?;
    }
    file.sync()?;
    Ok(file)
}

fn encode(record: &LogRecordView<'_>, frames: &mut Vec<Vec<u8>>) -> Result<(), StorageError> {
    let of_members =
        |entries: &[LogEntry]| entries.iter().any(|entry| entry.kind == EntryKind::Members);
    let schema = match record {
        LogRecordView::Entries(entries) if of_members(entries) => RECORD_SCHEMA_2,
        LogRecordView::Entries(_)
        | LogRecordView::HardState(_)
        | LogRecordView::Installed { .. } => RECORD_SCHEMA,
    };
    let bytes = envelope::encode(schema, record)
        .map_err(|error| StorageError::Encoding { reason: error.to_string() })?;
    frames.push(bytes);
    Ok(())
}

/// Cuts `entries` into runs for one record each.
fn chunks(entries: &[LogEntry]) -> Vec<&[LogEntry]> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, entry) in entries.iter().enumerate() {
        if at > start && bytes + entry.data.len() > RECORD_BYTES {
            runs.push(&entries[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += entry.data.len();
    }
    if start < entries.len() {
        runs.push(&entries[start..]);
    }
    runs
}
