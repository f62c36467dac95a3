//! The log and the snapshots of one server, on a thread of their own.
//!
//! ```text
//! <data folder>/.lock
//!               .begun                        a log was begun: one that is missing is not none; with what, see `beginning`
//!               log/0000000000000001.log      record files; a higher number follows a lower one
//!               snapshots/<index>.snapshot    one record file each, the two latest
//! ```
//!
//! Called by: the core's task. Calls: `log`, `snapshot`, through [`Disk`].
//! Invariant: a write is reported as persisted after its sync and after all earlier ones; all writes that wait become
//! one write and one sync. After a failure nothing is reported as persisted any more.
//! Does not know: what entries mean, sockets, the core's reasons.

mod beginning;
mod found;
mod inspect;
mod log;
mod pace;
mod repair;
mod restore;
mod room;
mod salvage;
mod saving;
mod snapshot;
mod snapshot_file;
#[cfg(test)]
mod tests;
mod tidy;
mod times;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coordinator_core::consensus::{PersistId, PersistWrite, Restored, SnapshotImage};
use coordinator_core::server::Event;
use coordinator_core::state::FrozenState;
use coordinator_disk::record_file::RecordFileError;
use coordinator_disk::{Disk, Lock, create_durable_folder, error_at};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};

use log::Log;
use pace::Hurry;
use saving::Saver;

pub use beginning::{Beginning, Beginnings};
pub use found::{found, found_from, may_found, members_in};
pub use inspect::{Inspection, inspect};
pub use repair::{Plan, Way, act, plan};
pub use room::RoomGauge;
pub use saving::{SnapshotSettings, Wish};
pub use snapshot_file::Packing;
pub use tidy::Findings;
pub use times::{SYNC_BOUNDS_US, SnapshotCounts, SnapshotTimes, SyncTimes};

/// How long nothing is written before the log says of its end that it was synced.
const MARK_AFTER: Duration = Duration::from_millis(500);
/// A write, with its sync, that takes longer is worth a line in the log.
const WRITE_SLOW: Duration = Duration::from_millis(500);

/// Why the folder cannot be used or no longer be written. A person has to look.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk failed.
    #[error("{}", error_at(path, error))]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The disk's words.
        error: io::Error,
    },
    /// Another process has the folder.
    #[error("{path}: another coordinator is running in this folder")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file is damaged, foreign, or failed.
    #[error(transparent)]
    File(#[from] RecordFileError),
    /// Files are missing between others.
    #[error("{path}: {reason}")]
    Gap {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A folder that is to be made holds something.
    #[error("{path}: this folder is in use already; name an empty one (dataDir)")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A snapshot of another ensemble.
    #[error(
        "{path} is a {found}, and this is cluster {cluster_id}: set clusterId to the cluster that it is to be again"
    )]
    Foreign {
        /// The snapshot's file.
        path: PathBuf,
        /// What its header says.
        found: String,
        /// What the settings say.
        cluster_id: String,
    },
    /// A value is too large for a file.
    #[error("cannot be encoded: {reason}")]
    Encoding {
        /// The encoder's words.
        reason: String,
    },
}

impl StorageError {
    /// Whether files are there, can be looked at, and are not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            StorageError::File(RecordFileError::Damaged { .. }) | StorageError::Gap { .. } => true,
            StorageError::Io { error, .. } => error.kind() == io::ErrorKind::InvalidData,
            _ => false,
        }
    }

    /// Whether room on the disk is all that is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            StorageError::Io { error, .. }
            | StorageError::File(RecordFileError::Io { error, .. }) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

/// What the files belong to; stands in each of them.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The ensemble.
    pub cluster_id: String,
    /// The member.
    pub server_id: u64,
}

impl Owner {
    fn identity(&self, what: &str) -> Vec<u8> {
        let Owner { cluster_id, server_id } = self;
        format!("{what} of coordinator {server_id} in cluster {cluster_id}").into_bytes()
    }
}

/// The folders of one server.
#[derive(Clone)]
struct Place {
    disk: Arc<dyn Disk>,
    owner: Owner,
    folder: PathBuf,
    log: PathBuf,
    snapshots: PathBuf,
}

impl Place {
    fn new(disk: Arc<dyn Disk>, folder: &Path, owner: Owner) -> Place {
        let (log, snapshots) = (folder.join("log"), folder.join("snapshots"));
        Place { disk, owner, folder: folder.to_owned(), log, snapshots }
    }
}

/// An opened data folder whose thread does not run yet.
pub struct Opened {
    place: Place,
    log: Log,
    lock: Box<dyn Lock>,
    findings: Findings,
    snapshot_times: Arc<SnapshotTimes>,
}

impl Opened {
    /// Begins the next segment when one has `bytes`, in place of the usual number.
    #[must_use]
    pub fn with_segments_of(mut self, bytes: u64) -> Opened {
        self.log.set_segment_bytes(bytes);
        self
    }

    /// What tells how much room there is, how long syncs took, and snapshots.
    #[must_use]
    pub fn gauges(&self) -> (RoomGauge, Arc<SyncTimes>, Arc<SnapshotTimes>) {
        (RoomGauge(self.place.clone()), self.log.sync_times(), Arc::clone(&self.snapshot_times))
    }

    /// What this server began with.
    #[must_use]
    pub fn beginnings(&self) -> Arc<Beginnings> {
        self.log.beginnings()
    }

    /// What else was there.
    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Writes at once, on the caller's thread; durable when it returns, where a write asks for it.
    ///
    /// # Errors
    /// Every [`StorageError`]; the log is then of no more use.
    pub fn write(&mut self, writes: Vec<PersistWrite>) -> Result<(), StorageError> {
        self.log.write(writes)
    }

    /// Begins with `image`, and leaves the mark that tells others so; durable when it returns.
    fn begin(&mut self, image: &SnapshotImage) -> Result<Beginning, StorageError> {
        let beginning = Beginning::of(image);
        // First: a kill behind the state would leave a member of which nobody knows what it began with.
        self.log.beginnings().mark(&self.place, beginning)?;
        self.log.install(image)?;
        Ok(beginning)
    }

    /// Says in the log that all of it was synced, as the thread does when nothing is written for a while.
    ///
    /// # Errors
    /// Every [`StorageError`]; the log is then of no more use.
    pub fn mark_synced(&mut self) -> Result<(), StorageError> {
        self.log.mark_synced()
    }

    /// Writes a snapshot on the caller's thread; durable when it returns.
    ///
    /// # Errors
    /// Every [`StorageError`]; the log is not touched.
    pub fn save(&self, image: &SnapshotImage) -> Result<(), StorageError> {
        snapshot::save(&self.place, image)
    }
}

/// Opens the data folder, creating what is missing, and reads back everything in it.
///
/// # Errors
/// Every [`StorageError`]; nothing was changed then, but for a torn tail that was cut and files that a stop had left
/// unfinished.
pub fn open(
    disk: Arc<dyn Disk>,
    folder: &Path,
    owner: Owner,
) -> Result<(Opened, Restored), StorageError> {
    let place = Place::new(disk, folder, owner);
    let repaired = folder.join(repair::REPAIRED);
    if place.disk.exists(&repaired).map_err(|error| io_error(&repaired, error))? {
        let reason = "a repair was interrupted: give `coordinator repair --yes` again".to_owned();
        return Err(StorageError::Gap { path: folder.to_owned(), reason });
    }
    for path in [folder, &place.log, &place.snapshots] {
        create_durable_folder(&*place.disk, path).map_err(|error| io_error(path, error))?;
    }
    let lock = place.disk.lock(&folder.join(".lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StorageError::InUse { path: folder.to_owned() },
        _ => io_error(folder, error),
    })?;
    let (log, restored, findings) = restore::restore(&place)?;
    Ok((Opened { place, log, lock, findings, snapshot_times: Arc::default() }, restored))
}

/// What one round of the core wrote, in order.
type Group = Vec<(PersistId, PersistWrite)>;

/// The way to the storage's thread.
pub struct Storage {
    jobs: mpsc::Sender<Group>,
    round: Group,
    events: UnboundedSender<Event>,
    saver: Saver,
    thread: JoinHandle<()>,
    saving: Option<(JoinHandle<()>, Hurry)>,
    _lock: Box<dyn Lock>,
}

impl Storage {
    /// Starts the thread; what becomes durable is told to `events`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        opened: Opened,
        settings: SnapshotSettings,
        events: UnboundedSender<Event>,
    ) -> io::Result<Storage> {
        let Opened { place, log, lock, snapshot_times, .. } = opened;
        let saver = Saver { place, settings, times: snapshot_times };
        let (jobs, waiting) = mpsc::channel();
        let told = events.clone();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .stack_size(256 << 10)
            .spawn(move || write_log(log, &waiting, &told))?;
        Ok(Storage { jobs, round: Vec::new(), events, saver, thread, saving: None, _lock: lock })
    }

    /// Adds a write to this round.
    pub fn persist(&mut self, id: PersistId, write: PersistWrite) {
        self.round.push((id, write));
    }

    /// Hands the round's writes to the thread.
    pub fn submit(&mut self) {
        if !self.round.is_empty() {
            // The thread only ends before us after a failure, which it reported.
            let _ = self.jobs.send(std::mem::take(&mut self.round));
        }
    }

    /// Writes a snapshot beside the core's task and the log's thread, and gives its bytes back where they are kept.
    pub fn save_snapshot(&mut self, state: FrozenState, wish: Wish) {
        if let Some((before, _)) = self.saving.take() {
            // The core saves one at a time: this one has reported and is about to end.
            let _ = before.join();
        }
        let hurry = Hurry::default();
        let thread = self.saver.start((state, wish), &hurry, &self.events);
        self.saving = thread.map(|thread| (thread, hurry));
    }

    /// The snapshot that is being written, if one is, keeps to no pace any more: somebody waits.
    pub fn hurry_snapshot(&self) {
        if let Some((_, hurry)) = &self.saving {
            hurry.begin();
        }
    }

    /// The file of a snapshot that was saved, and its length.
    pub fn snapshot_file(&self, index: u64) -> Result<(PathBuf, u64), String> {
        snapshot::found(&self.saver.place, index).map_err(|error| error.to_string())
    }

    /// Writes what was submitted, then ends the threads.
    pub fn stop(mut self) {
        self.submit();
        self.hurry_snapshot();
        drop(self.jobs);
        let saving = self.saving.map(|(thread, _)| thread);
        for thread in [Some(self.thread), saving].into_iter().flatten() {
            if thread.join().is_err() {
                error!("a storage thread ended by a panic");
            }
        }
    }
}

/// The thread: takes everything that waits, writes it at once, syncs once.
fn write_log(mut log: Log, waiting: &mpsc::Receiver<Group>, events: &UnboundedSender<Event>) {
    while let Some(mut group) = next_group(&mut log, waiting, events) {
        while let Ok(more) = waiting.try_recv() {
            group.extend(more);
        }
        let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else { continue };
        let (first, last) = (*first, *last);
        let writes = group.into_iter().map(|(_, write)| write).collect();
        let began = Instant::now();
        let outcome = log.write(writes);
        let took = began.elapsed();
        if took > WRITE_SLOW {
            warn!(?took, "the disk is slow: writes of clients waited for it");
        }
        let event = match outcome {
            Ok(()) => Event::Persisted { id: last },
            Err(error) => {
                tell_failure(&error);
                let _ = events.send(Event::PersistFailed { id: first });
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Waits for writes. When none come for a while, or none will come any more, what was written is marked.
fn next_group(
    log: &mut Log,
    waiting: &mpsc::Receiver<Group>,
    events: &UnboundedSender<Event>,
) -> Option<Group> {
    if log.is_marked() {
        return waiting.recv().ok();
    }
    let error = match waiting.recv_timeout(MARK_AFTER) {
        Ok(group) => return Some(group),
        Err(error) => error,
    };
    if let Err(error) = log.mark_synced() {
        tell_failure(&error);
        let _ = events.send(Event::PersistFailed { id: PersistId::default() });
        return None;
    }
    match error {
        mpsc::RecvTimeoutError::Timeout => waiting.recv().ok(),
        mpsc::RecvTimeoutError::Disconnected => None,
    }
}

fn tell_failure(error: &StorageError) {
    error!(%error, "the log cannot be written: this server stops being a voter");
    if error.is_full() {
        error!(
            "the disk is full: make room (dataDir), then start this server again; what it acknowledged is kept"
        );
    }
}

fn io_error(path: &Path, error: io::Error) -> StorageError {
    StorageError::Io { path: path.to_owned(), error }
}
