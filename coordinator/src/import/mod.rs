//! A ZooKeeper server's data folder becomes a member's: snapshots and transaction logs of ZooKeeper 3.5 to 3.9.
//!
//! ```text
//! folder       which files there are, and which of them count
//! stream       numbers and buffers off a file, with ZooKeeper's checksum
//! unpack       snapshots that are gzip or snappy
//! snapshot     snapshot.<zxid>: sessions, access lists, znodes
//! transaction  one record of the log, decoded
//! log          log.<zxid>: transactions, one after the other
//! znodes       the tree as ZooKeeper has it; applies transactions as ZooKeeper does at its start
//! state        the tree as a member's first snapshot, after all sessions were ended
//! ```
//!
//! Called by: the binary. Calls: `storage`, for the folder that is made.
//! Invariant: the same files give the same state, so that each member of an ensemble can be made from a copy of them; a
//! folder that holds anything already is not touched, and a damaged or missing file is told, never jumped over.
//! Does not know: settings, flags, running servers.

mod folder;
mod log;
mod snapshot;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod transaction;
mod unpack;
mod znodes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator_core::consensus::SnapshotImage;
use coordinator_core::state::{FrozenState, State};
use coordinator_core::tree::PATH_COMPONENTS_MAX;
use coordinator_disk::{Disk, error_at};
use coordinator_protocol::{DecodeError, Zxid};

use crate::storage::{self, Beginning, Owner, StorageError};
use folder::Source;
use znodes::Znodes;

/// Where to look, and what to accept.
#[derive(Debug, Clone)]
pub struct Request {
    /// ZooKeeper's `dataDir`, or the `version-2` inside it.
    pub data_dir: PathBuf,
    /// Its `dataLogDir`, where that is another one.
    pub log_dir: Option<PathBuf>,
    /// Goes on where a zxid is missing between two transactions.
    pub allow_gaps: bool,
    /// Takes a snapshot alone, without any log beside it.
    pub without_log: bool,
}

/// What was read, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The snapshot that was taken; none when there were only logs.
    pub snapshot: Option<PathBuf>,
    /// Later snapshots that cannot be read, and why.
    pub skipped: Vec<String>,
    /// Logs that were read.
    pub logs: usize,
    /// Transactions after the snapshot.
    pub transactions: u64,
    /// Bytes at the ends of logs that are no whole transaction: ZooKeeper died while writing.
    pub torn_bytes: u64,
    /// The last zxid before the import.
    pub zxid: i64,
    /// Znodes that were taken over.
    pub znodes: u64,
    /// Bytes of their data.
    pub data_bytes: u64,
    /// Sessions that were ended.
    pub sessions: u64,
    /// Ephemerals that went with them.
    pub ephemerals: u64,
    /// Zxids that are missing between two transactions, as pairs; only with `allow_gaps`.
    pub gaps: Vec<(i64, i64)>,
}

/// Why nothing was imported. A person has to look.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The system's words about a file.
    #[error("{}", error_at(path, error))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what its name says, or is damaged.
    #[error("{path}: {reason} at byte {position}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, after unpacking.
        position: u64,
        /// What was found.
        reason: String,
    },
    /// There is nothing to import.
    #[error(
        "{path}: neither snapshot.<zxid> nor log.<zxid> is in it; give ZooKeeper's dataDir, and its dataLogDir by --log-dir"
    )]
    Nothing {
        /// The folder.
        path: PathBuf,
    },
    /// There is a snapshot and no log at all, which ZooKeeper has beside every snapshot.
    #[error(
        "{path}: no log.<zxid> is there, so that what came after this snapshot would be missing: has ZooKeeper a dataLogDir of its \
         own? Give it by --log-dir. --without-log takes the snapshot alone, which may be fuzzy: what changed while it was written \
         is in it in part"
    )]
    NoLog {
        /// The snapshot.
        path: PathBuf,
    },
    /// None of the snapshots can be read.
    #[error("none of the snapshots can be read:\n  {}", .0.join("\n  "))]
    NoSnapshot(Vec<String>),
    /// Transactions are missing.
    #[error(
        "the transactions between {0:#x} and {1:#x} are missing: is a log in another folder (--log-dir)? \
         --allow-gaps goes on without them"
    )]
    Gap(i64, i64),
    /// A path has more components than one may have here.
    #[error(
        "{path}... is deeper than {PATH_COMPONENTS_MAX} components, the most that a path may have here: delete what is below"
    )]
    TooDeep {
        /// How it begins.
        path: String,
    },
    /// What was read is no state that a member can have.
    #[error("the files contradict each other: {0}")]
    Contradiction(String),
    /// The folder cannot be made.
    #[error("data folder: {0}")]
    Storage(StorageError),
}

// As of a server: the words are in the text already.
impl From<StorageError> for ImportError {
    fn from(error: StorageError) -> ImportError {
        ImportError::Storage(error)
    }
}

impl ImportError {
    fn io(path: &Path, error: io::Error) -> ImportError {
        ImportError::Io { path: path.to_owned(), error }
    }
}

/// What is told while files are read: the file, and which one of how many it is.
pub type Progress<'a> = &'a mut dyn FnMut(&Path, usize, usize);

/// A state that was read and can be written.
#[derive(Debug)]
pub struct Imported {
    image: SnapshotImage,
    /// What was read.
    pub report: Report,
}

/// Reads ZooKeeper's files, and changes nothing.
///
/// # Errors
/// Every [`ImportError`] but `Storage`.
pub fn read(
    disk: &dyn Disk,
    request: &Request,
    progress: Progress<'_>,
) -> Result<Imported, ImportError> {
    let source = Source::find(disk, request)?;
    let mut report = Report::default();
    let mut znodes = load_snapshot(disk, &source, &mut report, progress)?;
    if let Some(path) = &report.snapshot
        && source.has_no_log()
        && znodes.last_zxid > 0
        && !request.without_log
    {
        return Err(ImportError::NoLog { path: path.clone() });
    }
    replay_logs(disk, &source, request, (&mut znodes, &mut report), progress)?;
    report.zxid = znodes.last_zxid;
    let state = state::freeze(znodes, &mut report)?;
    let image = verified(&state)?;
    Ok(Imported { image, report })
}

impl Imported {
    /// What tells this state from others: all members have to begin with the same.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        Beginning::of(&self.image)
    }

    /// Whether [`Imported::write`] may make the folder: nothing is written.
    ///
    /// # Errors
    /// `Storage`.
    pub fn check_target(
        &self,
        disk: Arc<dyn Disk>,
        folder: &Path,
        owner: Owner,
    ) -> Result<(), ImportError> {
        Ok(storage::may_found(disk, folder, owner, &self.image)?)
    }

    /// Makes the data folder of the member that `owner` names; durable when it returns.
    ///
    /// # Errors
    /// `Storage`.
    pub fn write(
        &self,
        disk: Arc<dyn Disk>,
        folder: &Path,
        owner: Owner,
    ) -> Result<(), ImportError> {
        Ok(storage::found(disk, folder, owner, self.image.clone()).map(drop)?)
    }
}

/// The latest snapshot that can be read, as ZooKeeper takes it.
fn load_snapshot(
    disk: &dyn Disk,
    source: &Source,
    report: &mut Report,
    progress: Progress<'_>,
) -> Result<Znodes, ImportError> {
    for (at, file) in source.snapshots.iter().rev().enumerate() {
        progress(&file.path, at + 1, source.snapshots.len());
        match snapshot::read(disk, file) {
            Ok(znodes) => {
                report.snapshot = Some(file.path.clone());
                return Ok(znodes);
            }
            Err(error) => report.skipped.push(error.to_string()),
        }
    }
    if source.snapshots.is_empty() {
        return Ok(Znodes::new());
    }
    Err(ImportError::NoSnapshot(std::mem::take(&mut report.skipped)))
}

/// Applies every transaction that the snapshot does not hold.
fn replay_logs(
    disk: &dyn Disk,
    source: &Source,
    request: &Request,
    into: (&mut Znodes, &mut Report),
    progress: Progress<'_>,
) -> Result<(), ImportError> {
    let (znodes, report) = into;
    let logs = source.logs_after(znodes.last_zxid);
    if let Some(first) = logs.first() {
        // Epochs without a transaction leave no trace, so that later ones may follow any other; but not when the log in
        // which this one went on is not there.
        let goes_on = first.zxid <= znodes.last_zxid + 1;
        let epochs = (first.zxid >> 32) - (znodes.last_zxid >> 32);
        if !goes_on && epochs > 1 && znodes.last_zxid > 0 {
            refuse_or_note((znodes.last_zxid, first.zxid), request, report)?;
        }
    }
    for (at, file) in logs.iter().enumerate() {
        progress(&file.path, at + 1, logs.len());
        let mut transactions = log::Transactions::open(disk, &file.path)?;
        while let Some(transaction) = transactions.next()? {
            if transaction.zxid <= znodes.last_zxid {
                continue;
            }
            note_gap(znodes.last_zxid, transaction.zxid, request, report)?;
            report.transactions += 1;
            znodes.apply(transaction);
        }
        report.logs += 1;
        report.torn_bytes += transactions.torn_bytes();
        // A log that gave nothing still tells by its name where it began.
        note_gap(znodes.last_zxid, file.zxid, request, report)?;
    }
    // And a snapshot that cannot be read, up to where it went.
    for skipped in source.snapshots.iter().filter(|file| file.zxid > znodes.last_zxid) {
        note_gap(znodes.last_zxid, skipped.zxid + 1, request, report)?;
    }
    Ok(())
}

/// Refuses, or notes, that something is missing between two zxids.
fn note_gap(
    before: i64,
    after: i64,
    request: &Request,
    report: &mut Report,
) -> Result<(), ImportError> {
    if after <= before || follows(before, after) {
        return Ok(());
    }
    refuse_or_note((before, after), request, report)
}

fn refuse_or_note(
    gap: (i64, i64),
    request: &Request,
    report: &mut Report,
) -> Result<(), ImportError> {
    if !request.allow_gaps {
        return Err(ImportError::Gap(gap.0, gap.1));
    }
    if !report.gaps.contains(&gap) {
        report.gaps.push(gap);
    }
    Ok(())
}

/// Whether nothing can lie between two zxids: a leader counts on, and a new one begins again with 1.
fn follows(before: i64, after: i64) -> bool {
    let counter = after & 0xffff_ffff;
    Some(after) == before.checked_add(1) || (after >> 32 > before >> 32 && counter <= 1)
}

/// The bytes of `state`, read back as a member would read them.
fn verified(state: &FrozenState) -> Result<SnapshotImage, ImportError> {
    let data = state.encode();
    let back = State::decode_snapshot(&data)
        .map_err(|error| ImportError::Contradiction(error.to_string()))?;
    back.check();
    Ok(SnapshotImage { index: state.index(), term: state.term(), data })
}

/// The zxid of this number.
fn zxid(number: i64) -> Zxid {
    Zxid::new(number)
}

/// Why the bytes at `position` of `path` are not what they should be.
fn damaged(path: &Path, position: u64, error: &DecodeError) -> ImportError {
    ImportError::Damaged { path: path.to_owned(), position, reason: error.to_string() }
}
