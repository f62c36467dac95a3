//! One log directory: its identity, its lock, and the handles of its threads.
//!
//! Called by: `registry` (opening), both threads, submissions. Calls: the worker's folder, the disk.
//! Invariant: a directory is used by one process at a time; after a disk error it is fenced: it
//! takes nothing any more and its partitions stop. Does not know the metadata.
//!
//! ```text
//! <log dir>/.lock  directory  cluster  and what the folder of the worker keeps
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use broker_core::ids::{DirectoryId, Incarnation};
use broker_core::registration::DirectoryRecord;
use broker_log::LogError;
use client_protocol::ErrorCode;
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, Lock, small_file};
use serde::{Deserialize, Serialize};

use super::append::{Command, Queue};
use super::cleaner::Cleaner;
use super::commit::Tickets;
use super::partition::Partition;
use super::registry::Hub;
use super::worker::Folder;

const IDENTITY: Schema = Schema { kind: 0x4201, version: 1 };
const CLUSTER: Schema = Schema { kind: 0x4203, version: 1 };
const IDENTITY_FILE: &str = "directory";
const CLUSTER_FILE: &str = "cluster";
const LOCK_FILE: &str = ".lock";
/// Files that wait to be unlinked; what is beyond goes at the next start.
const UNLINKS_MAX: usize = 100_000;

/// Why a log directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another process holds it.
    #[error("{0}: in use by another broker")]
    Locked(PathBuf),
    /// The disk failed.
    #[error("{path}: {source}")]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Its identity or its marks are damaged: what it may be trusted with is unknown.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It holds the logs of another cluster, which this one would take for left behind.
    #[error("{path}: holds the logs of cluster {holds}, and this is cluster {here}")]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster that it was used in.
        holds: String,
        /// The cluster that the coordinator is of.
        here: String,
    },
    /// A log could not be opened.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What the directories of this broker are and remember, for its registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Each directory with what it remembers of incarnations; a new one nothing.
    pub directories: BTreeMap<DirectoryId, Option<DirectoryRecord>>,
    /// The machine was started since one of them was last used, and it was not closed in order.
    pub boot_changed: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Identity {
    id: [u8; 16],
    /// Confirmed and intended incarnation, once there was one.
    incarnations: Option<(u64, u64)>,
    boot_id: String,
}

/// One log directory.
pub(super) struct Directory {
    pub folder: Arc<Folder>,
    pub queue: Queue,
    pub rounds: Tickets,
    pub cleaner: Cleaner,
    pub hub: Arc<Hub>,
    pub boot_changed: bool,
    identity: Mutex<Identity>,
    /// The machine's boot that this process runs in.
    boot_id: String,
    failed: AtomicBool,
    /// The append thread closed every log in order.
    closed: AtomicBool,
    /// The commit thread came to its end, with all that was submitted before.
    committed: AtomicBool,
    /// Segments that were taken out of logs, whose start is not durable yet.
    discards: Mutex<Vec<(Arc<Partition>, Vec<i64>)>>,
    unlinks: Mutex<Vec<PathBuf>>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Directory {
    /// Locks and reads a directory, creating it when there is none. No log is opened yet.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        hub: Arc<Hub>,
    ) -> Result<Arc<Self>, DirectoryError> {
        let failed = |source| DirectoryError::Disk { path: path.to_owned(), source };
        disk.create_dir(path).map_err(failed)?;
        let lock = disk.lock(&path.join(LOCK_FILE)).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => DirectoryError::Locked(path.to_owned()),
            _ => failed(error),
        })?;
        let boot_id = disk.boot_id().map_err(failed)?;
        let mut identity = read_identity(&*disk, path)?;
        let folder = Arc::new(Folder::open(Arc::clone(&disk), path, &identity.id)?);
        let boot_changed = identity.boot_id != boot_id && !folder.clean;
        if !boot_changed {
            // Else the former one stays until a registration has told of the change: a process that
            // ends before that must not hide it from the next.
            identity.boot_id.clone_from(&boot_id);
        }
        write_identity(&*disk, path, &identity)?;
        Ok(Arc::new(Self {
            folder,
            queue: Queue::default(),
            rounds: Tickets::default(),
            cleaner: Cleaner::default(),
            hub,
            boot_changed,
            identity: Mutex::new(identity),
            boot_id,
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            committed: AtomicBool::new(false),
            discards: Mutex::default(),
            unlinks: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Its id, and what it remembers of incarnations.
    pub fn identity(&self) -> (DirectoryId, Option<DirectoryRecord>) {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let record = identity.incarnations.map(|(confirmed, intended)| DirectoryRecord {
            confirmed: Incarnation::new(confirmed),
            intended: Incarnation::new(intended),
        });
        (DirectoryId::new(identity.id), record)
    }

    /// Which cluster the directory was used in, if it was.
    pub fn cluster(&self) -> Result<Option<String>, DirectoryError> {
        let path = self.folder.path.join(CLUSTER_FILE);
        let failed = |source| DirectoryError::Disk { path: path.clone(), source };
        let Some(bytes) = small_file::read(&*self.folder.disk, &path).map_err(failed)? else {
            return Ok(None);
        };
        let reason = |error: envelope::EnvelopeError| error.to_string();
        envelope::decode(CLUSTER, &bytes)
            .map(Some)
            .map_err(|error| DirectoryError::Damaged { path: path.clone(), reason: reason(error) })
    }

    /// Remembers the cluster; durable when it returns.
    pub fn set_cluster(&self, cluster: &str) -> Result<(), DirectoryError> {
        let path = self.folder.path.join(CLUSTER_FILE);
        let bytes = envelope::encode(CLUSTER, &cluster.to_owned()).expect("a short text");
        let written = small_file::replace(&*self.folder.disk, &path, &bytes);
        let written = written.map_err(|source| DirectoryError::Disk { path, source });
        written.inspect_err(|error| self.fail(&error.to_string()))
    }

    /// Remembers incarnations; durable when it returns.
    pub fn record(&self, record: DirectoryRecord) -> Result<(), DirectoryError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.incarnations = Some((record.confirmed.get(), record.intended.get()));
        if record.confirmed == record.intended {
            identity.boot_id.clone_from(&self.boot_id);
        }
        let written = write_identity(&*self.folder.disk, &self.folder.path, &identity);
        written.inspect_err(|error| self.fail(&error.to_string()))
    }

    fn has_told_of_boot(&self) -> bool {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).boot_id == self.boot_id
    }

    /// Hands a job to the append thread; when that has ended, or the directory is fenced, whoever
    /// waits for the job is told.
    pub fn push(&self, command: Command) {
        if let Some(command) = self.queue.push(command) {
            command.refuse(ErrorCode::NotLeaderOrFollower);
        }
    }

    /// Whether a disk error fenced it.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Fences the directory: what its files hold since the last sync is unknown.
    pub fn fail(&self, reason: &str) {
        if self.failed.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(directory = %self.folder.path.display(), "log directory fenced: {reason}");
        self.hub.outlet.directory_failed(&self.folder.path, reason);
    }

    /// Lets another process have it; its threads have ended.
    pub fn unlock(&self) {
        // They hold partitions, which hold this.
        self.take_discards();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Writes nothing any more, as if the process had been killed.
    #[cfg(test)]
    pub fn abandon(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Segments that a log does not need any more, to be discarded behind the next checkpoint.
    pub fn discard_later(&self, partition: Arc<Partition>, segments: Vec<i64>) {
        let mut discards = self.discards.lock().unwrap_or_else(PoisonError::into_inner);
        discards.push((partition, segments));
    }

    /// What is to be discarded once a checkpoint that begins after this is durable.
    pub fn take_discards(&self) -> Vec<(Arc<Partition>, Vec<i64>)> {
        std::mem::take(&mut *self.discards.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts files and folders on the list of what the ticker unlinks.
    pub fn unlink_later(&self, paths: Vec<PathBuf>) {
        let mut unlinks = self.unlinks.lock().unwrap_or_else(PoisonError::into_inner);
        let room = UNLINKS_MAX.saturating_sub(unlinks.len());
        unlinks.extend(paths.into_iter().take(room));
    }

    /// Unlinks what was put on the list.
    pub fn unlink_now(&self) {
        let paths =
            std::mem::take(&mut *self.unlinks.lock().unwrap_or_else(PoisonError::into_inner));
        paths.iter().for_each(|path| self.folder.unlink(path));
    }

    /// The append thread has ended, and closed every log in order or not.
    pub fn set_closed(&self, in_order: bool) {
        self.closed.store(in_order, Ordering::Release);
    }

    /// The commit thread ends by itself. One that panicked never says so, and what it had taken is not synced.
    pub fn set_committed(&self) {
        self.committed.store(true, Ordering::Release);
    }

    /// Both threads have ended: notes it if everything is closed and synced. Not while no registration
    /// has told that the boot changed: what the process before this one lost was not closed in order, and
    /// the next start would take the marker for a word on that too.
    pub fn note_clean_shutdown(&self) {
        let ended = self.closed.load(Ordering::Acquire) && self.committed.load(Ordering::Acquire);
        if !ended || self.is_failed() || !self.has_told_of_boot() {
            return;
        }
        if let Err(error) = self.folder.note_clean_shutdown() {
            tracing::warn!(directory = %self.folder.path.display(), "no clean shutdown: {error}");
        }
    }
}

fn read_identity(disk: &dyn Disk, directory: &Path) -> Result<Identity, DirectoryError> {
    let path = directory.join(IDENTITY_FILE);
    let failed = |source| DirectoryError::Disk { path: path.clone(), source };
    match small_file::read(disk, &path).map_err(failed)? {
        Some(bytes) => envelope::decode(IDENTITY, &bytes).map_err(|error| {
            DirectoryError::Damaged { path: path.clone(), reason: error.to_string() }
        }),
        None => {
            let mut id = [0; 16];
            let filled =
                rustix::rand::getrandom(&mut id[..], rustix::rand::GetRandomFlags::empty());
            filled.map_err(|error| failed(error.into()))?;
            let boot_id = disk.boot_id().map_err(failed)?;
            Ok(Identity { id, incarnations: None, boot_id })
        }
    }
}

fn write_identity(
    disk: &dyn Disk,
    directory: &Path,
    identity: &Identity,
) -> Result<(), DirectoryError> {
    let path = directory.join(IDENTITY_FILE);
    let bytes = envelope::encode(IDENTITY, identity).expect("an id, numbers and a short text");
    small_file::replace(disk, &path, &bytes).map_err(|source| DirectoryError::Disk { path, source })
}
