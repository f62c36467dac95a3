//! What can go wrong with a log, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on a log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused. The log directory is to be fenced: what the failed call left behind is
    /// unknown, and nothing here tries again.
    #[error("{path}: {source}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An earlier call failed, so this log takes nothing any more.
    #[error("{path}: the log failed before and takes no more writes")]
    Failed {
        /// The partition's folder.
        path: PathBuf,
    },
    /// A part of the log that was durable cannot be read; it must be repaired from a replica.
    #[error("{path}: damaged from offset {from_offset} on, below the durable mark")]
    Damaged {
        /// The partition's folder.
        path: PathBuf,
        /// First offset that cannot be trusted.
        from_offset: i64,
    },
    /// A replicated batch begins below the log's end.
    #[error("batch begins at offset {found}, below the log's end {end_offset}")]
    OffsetsFell {
        /// Base offset of the batch.
        found: i64,
        /// The log's end (exclusive).
        end_offset: i64,
    },
    /// A batch carries an epoch older than the log's last one.
    #[error("batch of leader epoch {found} behind epoch {latest}")]
    EpochFell {
        /// Epoch of the batch.
        found: i32,
        /// The log's latest epoch.
        latest: i32,
    },
    /// The batch is larger than a whole segment may be.
    #[error("batch of {size_bytes} bytes, a segment holds {segment_bytes}")]
    BatchTooLarge {
        /// Size of the batch.
        size_bytes: u32,
        /// The limit.
        segment_bytes: u32,
    },
}

impl LogError {
    /// Whether the log directory has to be fenced.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Disk { .. } | Self::Failed { .. })
    }
}

/// Names the file in an error of the disk.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> LogError + '_ {
    move |source| LogError::Disk { path: path.to_owned(), source }
}
