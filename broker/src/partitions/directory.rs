//! One log directory: its identity, its lock, its logs on disk, and the handles of its threads.
//!
//! Called by: `registry` (opening), both threads, submissions. Calls: `broker-log`, the disk.
//! Invariant: a directory is used by one process at a time; after a disk error it is fenced: it
//! takes nothing any more and its partitions stop. Does not know the metadata.
//!
//! ```text
//! <log dir>/.lock  directory  durable-marks  clean-shutdown  high-watermarks  log-start-offsets
//!           orders-0/partition  orders-0/00000000000000000000.log ...
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use broker_core::ids::{DirectoryId, Incarnation, LeaderEpoch, Offset, TopicPartition};
use broker_core::partition::{EpochHistory, Loaded, LogPositions};
use broker_core::registration::DirectoryRecord;
use broker_log::checkpoint::{self, HIGH_WATERMARK_FILE, LOG_START_FILE, Offsets};
use broker_log::{Log, LogContext, LogError, MarkId, Marks, MarksError, OpenOptions};
use client_protocol::{ErrorCode, PartitionId, TopicId};
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, Entry, EntryKind, Lock, OpenMode, small_file};
use serde::{Deserialize, Serialize};

use super::append::{Job, Queue};
use super::commit::Round;
use super::partition::Partition;
use super::registry::Hub;

const IDENTITY: Schema = Schema { kind: 0x4201, version: 1 };
const PARTITION: Schema = Schema { kind: 0x4202, version: 1 };
const IDENTITY_FILE: &str = "directory";
const PARTITION_FILE: &str = "partition";
const LOCK_FILE: &str = ".lock";
/// Files that wait to be unlinked.
const REMOVALS_MAX: usize = 100_000;

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
    /// A log could not be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The marks could not be read.
    #[error(transparent)]
    Marks(#[from] MarksError),
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

/// What the file in a partition's folder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartitionFile {
    pub topic_id: [u8; 16],
    pub topic: String,
    pub partition: i32,
    /// The topic was compacted when the log was created: gaps between batches are no damage.
    pub compact: bool,
}

/// One log directory.
pub(super) struct Directory {
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub marks: Arc<Marks>,
    pub queue: Queue,
    pub round: Round,
    pub hub: Arc<Hub>,
    /// It was closed in order the last time.
    pub clean: bool,
    pub boot_changed: bool,
    identity: Mutex<Identity>,
    /// The machine's boot that this process runs in.
    boot_id: String,
    failed: AtomicBool,
    /// The append thread closed every log in order.
    closed: AtomicBool,
    removals: Mutex<Vec<PathBuf>>,
    high_watermarks: Offsets,
    log_starts: Offsets,
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
        let clean = checkpoint::take_clean_shutdown(&*disk, path)?;
        let mut identity = read_identity(&*disk, path)?;
        let boot_changed = identity.boot_id != boot_id && !clean;
        if !boot_changed {
            // Else the former one stays until a registration has told of the change: a process that
            // ends before that must not hide it from the next.
            identity.boot_id.clone_from(&boot_id);
        }
        write_identity(&*disk, path, &identity)?;
        let marks = Arc::new(Marks::open(Arc::clone(&disk), path, &identity.id)?);
        let offsets = |name| checkpoint::read_offsets(&*disk, &path.join(name));
        let high_watermarks = offsets(HIGH_WATERMARK_FILE)?.unwrap_or_default();
        let log_starts = offsets(LOG_START_FILE)?.unwrap_or_default();
        Ok(Arc::new(Self {
            path: path.to_owned(),
            disk,
            marks,
            queue: Queue::default(),
            round: Round::default(),
            hub,
            clean,
            boot_changed,
            identity: Mutex::new(identity),
            boot_id,
            failed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            removals: Mutex::new(Vec::new()),
            high_watermarks,
            log_starts,
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

    /// Remembers incarnations; durable when it returns.
    pub fn record(&self, record: DirectoryRecord) -> Result<(), DirectoryError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.incarnations = Some((record.confirmed.get(), record.intended.get()));
        if record.confirmed == record.intended {
            identity.boot_id.clone_from(&self.boot_id);
        }
        write_identity(&*self.disk, &self.path, &identity)
    }

    /// Hands a job to the append thread; when that has ended, or the directory is fenced, whoever
    /// waits for the job is told.
    pub fn push(&self, job: Job) {
        if let Some(job) = self.queue.push(job) {
            job.refuse(ErrorCode::NotLeaderOrFollower);
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
        tracing::error!(directory = %self.path.display(), "log directory fenced: {reason}");
        self.hub.outlet.directory_failed(&self.path, reason);
    }

    /// Lets another process have it; its threads have ended.
    pub fn unlock(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Writes nothing any more, as if the process had been killed.
    #[cfg(test)]
    pub fn abandon(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Folders of partitions, with what their file says; folders without a readable one are left
    /// alone.
    pub fn list(&self) -> Result<Vec<(PathBuf, PartitionFile)>, DirectoryError> {
        let failed = |source| DirectoryError::Disk { path: self.path.clone(), source };
        let mut found = Vec::new();
        for entry in self.disk.list(&self.path).map_err(failed)? {
            let folder = self.path.join(&entry.name);
            if entry.kind != EntryKind::Folder {
                continue;
            }
            match self.read_partition_file(&folder).ok().flatten() {
                Some(file) if entry.name == folder_name(&file.topic, file.partition) => {
                    found.push((folder, file));
                }
                Some(_) | None => {
                    tracing::warn!(folder = %folder.display(), "not a partition of ours: left alone");
                }
            }
        }
        Ok(found)
    }

    /// `Ok(None)`: there is none that can be understood.
    fn read_partition_file(&self, folder: &Path) -> Result<Option<PartitionFile>, LogError> {
        let path = folder.join(PARTITION_FILE);
        let bytes = small_file::read(&*self.disk, &path).map_err(in_file(&path))?;
        Ok(bytes.and_then(|bytes| envelope::decode(PARTITION, &bytes).ok()))
    }

    /// Opens the log of a partition, creating it when there is none. What was kept of it has to be
    /// synced by the caller.
    pub fn open_log(
        &self,
        partition: &Arc<Partition>,
        options: &OpenOptions,
    ) -> Result<Log, LogError> {
        let name = folder_name(&partition.topic, partition.key.partition.get());
        let folder = self.path.join(&name);
        let context = LogContext {
            disk: Arc::clone(&self.disk),
            marks: Arc::clone(&self.marks),
            directory: folder.clone(),
        };
        let held = self.read_partition_file(&folder)?;
        let is_new = held.as_ref().is_none_or(|file| file.key() != partition.key);
        if is_new {
            self.put_aside_foreign(&folder)?;
            // What another topic of the name held says nothing of this one. Without a file, a mark
            // tells of a log that was lost: it stays, and the log opens as damaged (D6).
            if held.is_some() {
                self.forget_mark(&name)?;
            }
        }
        let log_start = self.log_starts.get(&checkpoint_name(partition.key)).copied();
        let options = OpenOptions {
            clean: self.clean,
            log_start: log_start.filter(|_| !is_new),
            ..options.clone()
        };
        let (mut log, recovery) = Log::open(context, &options)?;
        if is_new {
            let file = self.write_partition_file(&folder, partition)?;
            log.also_sync(file);
        }
        if let Some(damage) = recovery.damage {
            tracing::error!(partition = name, ?damage, "damaged below what was durable");
        } else if recovery.cut_bytes > 0 {
            tracing::info!(partition = name, bytes = recovery.cut_bytes, "cut a torn tail");
        }
        Ok(log)
    }

    /// Tells a partition that its log is open, and what is in it.
    pub fn announce(&self, partition: &Arc<Partition>, log: &Log) {
        let name = checkpoint_name(partition.key);
        let high_watermark = self.high_watermarks.get(&name).copied().unwrap_or(0);
        partition.log_opened(log.view().clone(), loaded(log, high_watermark));
    }

    /// A folder that has our name but no file of this partition is not ours to use.
    fn put_aside_foreign(&self, folder: &Path) -> Result<(), LogError> {
        if !self.disk.exists(folder).map_err(in_file(folder))? {
            return Ok(());
        }
        let entries = self.disk.list(folder).map_err(in_file(folder))?;
        let is_used = |entry: &Entry| entry.name == PARTITION_FILE || entry.name.ends_with(".log");
        if entries.iter().any(is_used) {
            self.set_aside(folder, "stray")?;
        }
        Ok(())
    }

    /// A mark of a former log of the name says nothing of a new one.
    fn forget_mark(&self, name: &str) -> Result<(), LogError> {
        if self.marks.get(name).is_none() {
            return Ok(());
        }
        let forgotten = self.marks.register(name).and_then(|id| self.marks.forget(id));
        forgotten.map_err(|error| self.marks_failed(&error))
    }

    fn marks_failed(&self, error: &MarksError) -> LogError {
        let source = std::io::Error::other(error.to_string());
        LogError::Disk { path: self.path.clone(), source }
    }

    fn write_partition_file(
        &self,
        folder: &Path,
        partition: &Partition,
    ) -> Result<Arc<dyn coordinator_disk::File>, LogError> {
        let contents = PartitionFile {
            topic_id: *partition.key.topic.as_bytes(),
            topic: partition.topic.to_string(),
            partition: partition.key.partition.get(),
            compact: partition.settings().log.compact,
        };
        let path = folder.join(PARTITION_FILE);
        let bytes = envelope::encode(PARTITION, &contents).expect("a name and two numbers");
        let file = self.disk.open(&path, OpenMode::Create).map_err(in_file(&path))?;
        file.write_at(0, &[std::io::IoSlice::new(&bytes)]).map_err(in_file(&path))?;
        Ok(file)
    }

    /// Takes a log's folder out of use and removes it with its files.
    pub fn delete_log(&self, partition: &Partition, mark_id: MarkId) -> Result<(), LogError> {
        let name = folder_name(&partition.topic, partition.key.partition.get());
        self.marks.forget(mark_id).map_err(|error| self.marks_failed(&error))?;
        let aside = self.set_aside(&self.path.join(name), "delete")?;
        let entries = self.disk.list(&aside).map_err(in_file(&aside))?;
        self.remove_later(entries.iter().map(|entry| aside.join(&entry.name)).collect());
        self.remove_later(vec![aside]);
        Ok(())
    }

    /// Renames a folder so that it is no partition's any more.
    pub fn set_aside(&self, folder: &Path, why: &str) -> Result<PathBuf, LogError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let mut number = 0_u32;
        let aside = loop {
            let aside = self.path.join(format!("{name}.{number}-{why}"));
            if !self.disk.exists(&aside).map_err(in_file(&aside))? {
                break aside;
            }
            number = number.saturating_add(1);
        };
        self.disk.rename(folder, &aside).map_err(in_file(folder))?;
        self.disk.sync_dir(&self.path).map_err(in_file(&self.path))?;
        Ok(aside)
    }

    /// Puts files and folders on the list of what the ticker unlinks.
    pub fn remove_later(&self, files: Vec<PathBuf>) {
        let mut removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        let room = REMOVALS_MAX.saturating_sub(removals.len());
        removals.extend(files.into_iter().take(room));
    }

    /// Unlinks what was put on the list.
    pub fn remove_now(&self) {
        let paths =
            std::mem::take(&mut *self.removals.lock().unwrap_or_else(PoisonError::into_inner));
        for path in paths {
            let removed = match self.disk.remove(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                    self.disk.remove_dir(&path)
                }
                other => other,
            };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(path = %path.display(), "not removed: {error}");
            }
        }
    }

    /// The append thread has ended, and closed every log in order or not.
    pub fn set_closed(&self, in_order: bool) {
        self.closed.store(in_order, Ordering::Release);
    }

    /// Both threads have ended: notes it if everything is closed and synced.
    pub fn note_clean_shutdown(&self) {
        if !self.closed.load(Ordering::Acquire) || self.is_failed() {
            return;
        }
        if let Err(error) = checkpoint::write_clean_shutdown(&*self.disk, &self.path) {
            tracing::warn!(directory = %self.path.display(), "no clean shutdown: {error}");
        }
    }

    /// Replaces both checkpoints.
    pub fn checkpoint(&self, high_watermarks: &Offsets, log_starts: &Offsets) {
        if self.is_failed() {
            return;
        }
        for (name, offsets) in
            [(HIGH_WATERMARK_FILE, high_watermarks), (LOG_START_FILE, log_starts)]
        {
            if let Err(error) =
                checkpoint::write_offsets(&*self.disk, &self.path.join(name), offsets)
            {
                self.fail(&error.to_string());
            }
        }
    }
}

/// Name of a partition's folder.
pub(super) fn folder_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Name of a partition in the checkpoints: a later topic of the same name is another one.
pub(super) fn checkpoint_name(key: TopicPartition) -> String {
    format!("{}-{}", key.topic, key.partition)
}

impl PartitionFile {
    pub fn key(&self) -> TopicPartition {
        TopicPartition {
            topic: TopicId::from_bytes(self.topic_id),
            partition: PartitionId::new(self.partition),
        }
    }
}

/// What the core has to know of a log that was opened.
fn loaded(log: &Log, high_watermark: i64) -> Loaded {
    let ends = log.view().ends();
    let epochs: Vec<_> = log
        .view()
        .epochs()
        .starts()
        .iter()
        .map(|start| (LeaderEpoch::new(start.epoch), Offset::new(start.start_offset)))
        .collect();
    Loaded {
        positions: LogPositions {
            start: Offset::new(ends.log_start),
            end: Offset::new(ends.end),
            durable_end: Offset::new(ends.durable_end),
            generation: log.view().generation(),
            epochs: EpochHistory::new(&epochs),
        },
        high_watermark: Offset::new(high_watermark),
        cut_below_mark: log.cut_below_mark(),
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

fn in_file(path: &Path) -> impl FnOnce(std::io::Error) -> LogError + '_ {
    move |source| LogError::Disk { path: path.to_owned(), source }
}
