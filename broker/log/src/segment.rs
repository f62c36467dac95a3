//! The files of one segment, and what is known of a sealed one.
//!
//! Called by: `log`, `view`, `recovery`, `truncate`. Calls: `index`, `sum`, `scan`, the disk.
//! Invariant: a sealed segment never changes; reopening one for writing (truncation) makes a new
//! active segment on the same file. Does not know which segment is the last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use coordinator_disk::{Disk, File, OpenMode, small_file};

use crate::error::{LogError, at};
use crate::index::{OffsetEntry, OffsetIndex, TimeEntry, TimeIndex};
use crate::scan::HeaderWalk;
use crate::sum::{self, SegmentSum};

/// Digits of a base offset in a file name.
const NAME_DIGITS: usize = 20;

/// The files that a segment consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Raw batches.
    Log,
    /// Offset to position.
    Index,
    /// Timestamp to offset.
    TimeIndex,
    /// Producer state below the base offset.
    Snapshot,
    /// Checksums of what the batches' own CRCs leave out.
    Sum,
}

impl FileKind {
    /// All kinds, the log last: a segment exists as long as its log does.
    pub const ALL: [Self; 5] = [Self::Index, Self::TimeIndex, Self::Snapshot, Self::Sum, Self::Log];

    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
            Self::Snapshot => "snapshot",
            Self::Sum => "sum",
        }
    }
}

/// Ends the name of a file that nothing names any more and that waits to be unlinked.
pub const DISCARDED: &str = ".deleted";

/// Path of one file of the segment with the base offset.
pub fn file_path(directory: &Path, base_offset: i64, kind: FileKind) -> PathBuf {
    directory.join(format!("{base_offset:0width$}.{}", kind.suffix(), width = NAME_DIGITS))
}

/// Base offset and kind in a file name; `None` for names that are not a segment's.
pub fn parse_name(name: &str) -> Option<(i64, FileKind)> {
    let (digits, suffix) = name.split_at_checked(NAME_DIGITS)?;
    let kind =
        FileKind::ALL.into_iter().find(|kind| suffix.strip_prefix('.') == Some(kind.suffix()))?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map(|base_offset| (base_offset, kind))
}

/// Both indexes of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// Offset to position.
    pub offsets: OffsetIndex,
    /// Timestamp to offset.
    pub times: TimeIndex,
}

/// Builds both indexes batch by batch, by Kafka's rule: an entry for the first batch after each
/// `interval_bytes`.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    base_offset: i64,
    interval_bytes: u32,
    bytes_since_entry: u32,
    max_timestamp: Option<TimeEntry>,
}

/// The entries that one batch adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEntries {
    /// For the offset index.
    pub offset: OffsetEntry,
    /// For the time index, unless no batch had a timestamp yet.
    pub time: Option<TimeEntry>,
}

impl IndexBuilder {
    /// For an empty segment.
    pub fn new(base_offset: i64, interval_bytes: u32) -> Self {
        Self { base_offset, interval_bytes, bytes_since_entry: 0, max_timestamp: None }
    }

    /// For a segment that goes on: its greatest timestamp and that batch's last offset are known.
    pub fn resume(
        base_offset: i64,
        interval_bytes: u32,
        max_timestamp: Option<(i64, i64)>,
    ) -> Self {
        let mut builder = Self::new(base_offset, interval_bytes);
        builder.max_timestamp = max_timestamp.map(|(timestamp, offset)| TimeEntry {
            timestamp,
            last_offset_delta: builder.delta_of(offset),
        });
        builder
    }

    /// Takes the next batch, at `position`; returns the entries due before it counts.
    pub fn push(&mut self, meta: &crate::batch::BatchMeta, position: u32) -> Option<NewEntries> {
        let delta = self.delta_of(meta.last_offset());
        if meta.max_timestamp >= 0
            && self.max_timestamp.is_none_or(|max| max.timestamp < meta.max_timestamp)
        {
            self.max_timestamp =
                Some(TimeEntry { timestamp: meta.max_timestamp, last_offset_delta: delta });
        }
        let due = self.bytes_since_entry > self.interval_bytes;
        if due {
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(meta.size_bytes);
        due.then_some(NewEntries {
            offset: OffsetEntry { last_offset_delta: delta, position },
            time: self.max_timestamp,
        })
    }

    /// Greatest timestamp so far and the last offset of its batch.
    pub fn max_timestamp(&self) -> Option<TimeEntry> {
        self.max_timestamp
    }

    /// Offset relative to the segment.
    pub fn delta_of(&self, offset: i64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base_offset)).unwrap_or(u32::MAX)
    }
}

/// A segment that takes no more writes.
pub struct SealedSegment {
    /// Its files' name.
    pub base_offset: i64,
    /// Offset behind its last batch.
    pub end_offset: i64,
    /// Bytes of the log file.
    pub size_bytes: u64,
    /// Greatest timestamp, milliseconds, and the last offset of its batch; `None` when no batch
    /// has one.
    pub max_timestamp: Option<(i64, i64)>,
    /// The log file.
    pub file: Arc<dyn File>,
    /// Read when first needed.
    pub indexes: OnceLock<Arc<Indexes>>,
}

impl SealedSegment {
    /// A copy that reads its indexes again when needed, to free the memory of those at hand.
    pub fn without_indexes(&self) -> Self {
        Self {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            size_bytes: self.size_bytes,
            max_timestamp: self.max_timestamp,
            file: Arc::clone(&self.file),
            indexes: OnceLock::new(),
        }
    }

    /// The indexes: at hand, from their files if those agree with the sum, or rebuilt from the
    /// batches' headers.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the log itself cannot be read.
    pub fn indexes(
        &self,
        disk: &dyn Disk,
        directory: &Path,
        interval_bytes: u32,
    ) -> Result<Arc<Indexes>, LogError> {
        if let Some(indexes) = self.indexes.get() {
            return Ok(Arc::clone(indexes));
        }
        let loaded = match load_indexes(disk, directory, self.base_offset, self.size_bytes) {
            Some(indexes) => indexes,
            None => {
                let path = file_path(directory, self.base_offset, FileKind::Log);
                rebuild_indexes(&*self.file, self.base_offset, self.size_bytes, interval_bytes)
                    .map_err(at(&path))?
            }
        };
        Ok(Arc::clone(self.indexes.get_or_init(|| Arc::new(loaded))))
    }
}

/// The indexes as stored, if they are there, their checksums are those of the sum, and the sum is of a log file of
/// `log_bytes`: whoever has a file open that compaction replaced finds those of its successor under its names.
pub fn load_indexes(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: i64,
    log_bytes: u64,
) -> Option<Indexes> {
    let read = |kind| small_file::read(disk, &file_path(directory, base_offset, kind)).ok()?;
    let sum: SegmentSum = sum::decode(&read(FileKind::Sum)?, base_offset)?;
    if sum.log_bytes != log_bytes {
        return None;
    }
    let (offsets, times) = (read(FileKind::Index)?, read(FileKind::TimeIndex)?);
    if crc32fast::hash(&offsets) != sum.index_crc || crc32fast::hash(&times) != sum.time_index_crc {
        return None;
    }
    Some(Indexes {
        offsets: OffsetIndex::decode(&offsets).ok()?,
        times: TimeIndex::decode(&times).ok()?,
    })
}

fn rebuild_indexes(
    file: &dyn File,
    base_offset: i64,
    size_bytes: u64,
    interval_bytes: u32,
) -> std::io::Result<Indexes> {
    let mut indexes = Indexes::default();
    let mut builder = IndexBuilder::new(base_offset, interval_bytes);
    let mut walk = HeaderWalk::new(file, 0, size_bytes);
    while let Some(found) = walk.next_batch()? {
        let position = u32::try_from(found.position).unwrap_or(u32::MAX);
        if let Some(entries) = builder.push(&found.meta, position) {
            indexes.offsets.push(entries.offset);
            entries.time.into_iter().for_each(|entry| indexes.times.push(entry));
        }
    }
    builder.max_timestamp().into_iter().for_each(|entry| indexes.times.push(entry));
    Ok(indexes)
}

/// Opens the log file of a segment for writing.
///
/// # Errors
/// [`LogError::Disk`].
pub fn open_log(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: i64,
    mode: OpenMode,
) -> Result<Arc<dyn File>, LogError> {
    let path = file_path(directory, base_offset, FileKind::Log);
    disk.open(&path, mode).map_err(at(&path))
}

/// Writes one of the small files of a segment, whole; not synced.
///
/// # Errors
/// [`LogError::Disk`].
pub fn write_file(
    disk: &dyn Disk,
    path: &Path,
    contents: &[u8],
) -> Result<Arc<dyn File>, LogError> {
    let file = disk.open(path, OpenMode::Create).map_err(at(path))?;
    file.truncate(0).map_err(at(path))?;
    file.write_at(0, &[std::io::IoSlice::new(contents)]).map_err(at(path))?;
    Ok(file)
}

/// Removes one of a segment's files if it is there.
///
/// # Errors
/// [`LogError::Disk`].
pub fn remove_file(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(at(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_twenty_digits() {
        let path = file_path(Path::new("/d"), 42, FileKind::TimeIndex);
        assert_eq!(path, Path::new("/d/00000000000000000042.timeindex"));
        assert_eq!(parse_name("00000000000000000042.timeindex"), Some((42, FileKind::TimeIndex)));
        for name in ["42.log", "00000000000000000042.logs", "+0000000000000000042.log", "x"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
