//! The files of a log directory and of its logs' folders.
//!
//! Called by: the appender, rounds, the start, the ticker's checkpoints. Calls: `broker-log`, the
//! disk. Invariant: a folder is a partition's only if its file says so; what another topic of the
//! name left is never read as this one's. Does not know leaders, threads or who waits.
//!
//! ```text
//! <log dir>/durable-marks  clean-shutdown  high-watermarks  log-start-offsets
//!           orders-0/partition  orders-0/00000000000000000000.log ...
//!           orders-0.0-delete/  on its way out      orders-0.0-stray/  not ours, left for somebody to look at
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use broker_core::ids::{LeaderEpoch, Offset, TopicPartition};
use broker_core::partition::{EpochHistory, Loaded, LogPositions};
use broker_log::checkpoint::{self, HIGH_WATERMARK_FILE, LOG_START_FILE, Offsets};
use broker_log::{Log, LogContext, LogError, MARKS_FILE, MarkId, Marks, MarksError, OpenOptions};
use client_protocol::{PartitionId, TopicId};
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, Entry, EntryKind, File, OpenMode, small_file};
use serde::{Deserialize, Serialize};

const PARTITION: Schema = Schema { kind: 0x4202, version: 1 };
const PARTITION_FILE: &str = "partition";
/// Ends the name of a folder that is on its way out.
const DELETED: &str = "-delete";
/// Ends the name of a folder that stood where a partition's had to, and whose owner is unknown.
const STRAY: &str = "-stray";

/// What the file in a partition's folder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFile {
    /// Id of its topic.
    pub topic_id: [u8; 16],
    /// Name of its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The topic was compacted when the log was created: gaps between batches are no damage.
    pub compact: bool,
}

/// What the checkpoints say.
#[derive(Clone, Default, PartialEq, Eq)]
struct Checkpoints {
    high_watermarks: Offsets,
    log_starts: Offsets,
}

/// The marks are made before the first partition. Without them nothing tells what was durable, nor
/// which log was cut and has yet to catch up: each would pass for whole, and lead.
fn refuse_without_marks(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    let marks = path.join(MARKS_FILE);
    if disk.exists(&marks).map_err(in_file(&marks))? {
        return Ok(());
    }
    let entries = disk.list(path).map_err(in_file(path))?;
    // Whatever else may lie there, `lost+found` for one, says nothing.
    let is_ours = |entry: &Entry| {
        let is_partition = is_folder_name(&entry.name) || entry.name.ends_with(STRAY);
        entry.kind == EntryKind::Folder && is_partition
    };
    if entries.iter().any(is_ours) {
        let why = "is gone, and with it what of the partitions beside it was durable; restore it, or \
                   empty the log directory for the broker to fetch everything from other replicas";
        return Err(in_file(&marks)(std::io::Error::other(why)));
    }
    Ok(())
}

/// A log directory, as far as its files go.
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Where that is.
    pub disk: Arc<dyn Disk>,
    /// How far its logs are durable.
    pub marks: Arc<Marks>,
    /// It was closed in order the last time.
    pub clean: bool,
    /// As they were at the start.
    found: Checkpoints,
    /// As they are on the disk, but for what was deleted since. Held while they are gathered and written, so that a log that begins
    /// anew below its checkpoint is never overtaken by an older one.
    written: Mutex<Checkpoints>,
}

impl Folder {
    /// Reads a log directory that is there and used by nobody else. No log is opened yet.
    ///
    /// # Errors
    /// [`LogError::Disk`]; marks that cannot be believed, or are gone while there are partitions, are
    /// one too.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, identity: &[u8]) -> Result<Self, LogError> {
        refuse_without_marks(&*disk, path)?;
        // A former life may have ended behind a rename that is not durable: what is done by what it says, as segments are
        // unlinked below a log's start, must not be on the disk without it.
        disk.sync_dir(path).map_err(in_file(path))?;
        let clean = checkpoint::take_clean_shutdown(&*disk, path)?;
        let marks = Marks::open(Arc::clone(&disk), path, identity);
        let marks = Arc::new(marks.map_err(|error| in_marks(path, &error))?);
        let offsets = |name| checkpoint::read_offsets(&*disk, &path.join(name));
        let found = Checkpoints {
            high_watermarks: offsets(HIGH_WATERMARK_FILE)?.unwrap_or_default(),
            log_starts: offsets(LOG_START_FILE)?.unwrap_or_default(),
        };
        let written = Mutex::new(found.clone());
        Ok(Self { path: path.to_owned(), disk, marks, clean, found, written })
    }

    /// Folders of partitions, with what their file says. Folders without one that can be understood
    /// are left alone, but for those that were on their way out: all that is in them is to be
    /// unlinked, in the order of the second list.
    ///
    /// # Errors
    /// [`LogError::Disk`]; a file that the disk does not give is one too, as a log that is there must
    /// not be missing from a start that goes on.
    pub fn list(&self) -> Result<(Vec<PartitionFile>, Vec<PathBuf>), LogError> {
        let (mut found, mut leftover) = (Vec::new(), Vec::new());
        for entry in self.disk.list(&self.path).map_err(in_file(&self.path))? {
            let folder = self.path.join(&entry.name);
            if entry.kind != EntryKind::Folder {
                continue;
            }
            if entry.name.ends_with(DELETED) {
                leftover.extend(self.contents(&folder)?);
                continue;
            }
            // In `lost+found` not even the owner of what lies beside it may look.
            let file = match is_folder_name(&entry.name) {
                true => self.read_partition_file(&folder)?,
                false => None,
            };
            match file {
                Some(file) if entry.name == folder_name(&file.topic, file.partition) => {
                    found.push(file);
                }
                Some(_) | None => {
                    tracing::warn!(folder = %folder.display(), "not a partition of ours: left alone");
                }
            }
        }
        Ok((found, leftover))
    }

    /// What is in a folder, and then the folder.
    fn contents(&self, folder: &Path) -> Result<Vec<PathBuf>, LogError> {
        let entries = self.disk.list(folder).map_err(in_file(folder))?;
        let mut paths: Vec<_> = entries.iter().map(|entry| folder.join(&entry.name)).collect();
        paths.push(folder.to_owned());
        Ok(paths)
    }

    /// `Ok(None)`: there is none that can be understood.
    fn read_partition_file(&self, folder: &Path) -> Result<Option<PartitionFile>, LogError> {
        let path = folder.join(PARTITION_FILE);
        let bytes = small_file::read(&*self.disk, &path).map_err(in_file(&path))?;
        Ok(bytes.and_then(|bytes| envelope::decode(PARTITION, &bytes).ok()))
    }

    /// Opens the log of a partition, creating it when there is none. What was kept of it has to be
    /// synced by the caller. Besides, what a former topic of the name left, to be unlinked.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn open_log(
        &self,
        key: TopicPartition,
        topic: &str,
        options: &OpenOptions,
    ) -> Result<(Log, Vec<PathBuf>), LogError> {
        let name = folder_name(topic, key.partition.get());
        let directory = self.path.join(&name);
        let context = LogContext {
            disk: Arc::clone(&self.disk),
            marks: Arc::clone(&self.marks),
            directory: directory.clone(),
        };
        let held = self.read_partition_file(&directory)?;
        let is_new = held.as_ref().is_none_or(|file| file.key() != key);
        let mut leftover = Vec::new();
        if is_new {
            // What another topic of the name held says nothing of this one. Without a file, a mark
            // tells of a log that was lost: it stays, and the log opens as damaged (D6). A stop in
            // between must leave the file, so the mark goes first.
            if held.is_some() {
                self.forget_mark(&name)?;
            }
            leftover = self.put_aside_foreign(&directory, held.is_some())?;
        }
        // A log of ours that no checkpoint names has never removed anything.
        let log_start = self.found.log_starts.get(&checkpoint_name(key)).copied().unwrap_or(0);
        let options = OpenOptions {
            clean: self.clean,
            log_start: (!is_new).then_some(log_start),
            ..options.clone()
        };
        let (mut log, recovery) = Log::open(context, &options)?;
        let begins_at = log.view().ends().log_start;
        if !is_new && begins_at > log_start {
            // A stop came while it began anew. Before a mark tells that something is durable there, or the next
            // start would miss what is below.
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            self.raise_log_start(&mut written, checkpoint_name(key), begins_at)?;
        }
        if is_new {
            let compact = options.config.compact;
            log.also_sync(self.write_partition_file(&directory, topic, key, compact)?);
        } else if !self.clean {
            // A process that was killed left it to the machine, like the records. What is kept of them
            // is durable only together with what says whose they are.
            let path = directory.join(PARTITION_FILE);
            log.also_sync(self.disk.open(&path, OpenMode::Read).map_err(in_file(&path))?);
        }
        if let Some(damage) = recovery.damage {
            tracing::error!(partition = name, ?damage, "damaged below what was durable");
        } else if recovery.cut_bytes > 0 {
            tracing::info!(partition = name, bytes = recovery.cut_bytes, "cut a torn tail");
        }
        Ok((log, leftover))
    }

    /// What the core has to know of a log that was opened.
    pub fn loaded(&self, key: TopicPartition, log: &Log) -> Loaded {
        let high_watermark = self.found.high_watermarks.get(&checkpoint_name(key)).copied();
        let ends = log.view().ends();
        let epochs = log.view().epochs();
        let start = |start: &broker_log::EpochStart| {
            (LeaderEpoch::new(start.epoch), Offset::new(start.start_offset))
        };
        let epochs: Vec<_> = epochs.starts().iter().map(start).collect();
        Loaded {
            positions: LogPositions {
                start: Offset::new(ends.log_start),
                end: Offset::new(ends.end),
                durable_end: Offset::new(ends.durable_end),
                generation: log.view().generation(),
                epochs: EpochHistory::new(&epochs),
            },
            high_watermark: Offset::new(high_watermark.unwrap_or(0)),
            cut_below_mark: log.cut_below_mark(),
        }
    }

    /// A folder that has our name but no file of this partition is not ours to use. When the file
    /// names another topic, that one is gone, for names are unique: its folder goes the way of all
    /// deleted ones. When nothing tells whose it is, somebody has to look.
    fn put_aside_foreign(&self, folder: &Path, is_known: bool) -> Result<Vec<PathBuf>, LogError> {
        if !self.disk.exists(folder).map_err(in_file(folder))? {
            return Ok(Vec::new());
        }
        let entries = self.disk.list(folder).map_err(in_file(folder))?;
        let is_used = |entry: &Entry| entry.name == PARTITION_FILE || entry.name.ends_with(".log");
        if !entries.iter().any(is_used) {
            return Ok(Vec::new());
        }
        if is_known {
            return self.contents(&self.set_aside(folder, DELETED)?);
        }
        let aside = self.set_aside(folder, STRAY)?;
        tracing::error!(folder = %aside.display(), "stood in a partition's place, owner unknown");
        Ok(Vec::new())
    }

    /// A mark of a former log of the name says nothing of a new one.
    fn forget_mark(&self, name: &str) -> Result<(), LogError> {
        if self.marks.get(name).is_none() {
            return Ok(());
        }
        let forgotten = self.marks.register(name).and_then(|id| self.marks.forget(id));
        forgotten.map_err(|error| self.marks_failed(&error))
    }

    pub(super) fn marks_failed(&self, error: &MarksError) -> LogError {
        in_marks(&self.path, error)
    }

    /// Makes the noted marks durable.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn sync_marks(&self) -> Result<(), LogError> {
        self.marks.sync().map_err(|error| self.marks_failed(&error))
    }

    fn write_partition_file(
        &self,
        folder: &Path,
        topic: &str,
        key: TopicPartition,
        compact: bool,
    ) -> Result<Arc<dyn File>, LogError> {
        let contents = PartitionFile {
            topic_id: *key.topic.as_bytes(),
            topic: topic.to_owned(),
            partition: key.partition.get(),
            compact,
        };
        let path = folder.join(PARTITION_FILE);
        let bytes = envelope::encode(PARTITION, &contents).expect("a name and two numbers");
        let file = self.disk.open(&path, OpenMode::Create).map_err(in_file(&path))?;
        file.write_at(0, &[std::io::IoSlice::new(&bytes)]).map_err(in_file(&path))?;
        Ok(file)
    }

    /// Takes a log's folder out of use; what is left of it is to be unlinked.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn delete_log(
        &self,
        key: TopicPartition,
        topic: &str,
        mark_id: MarkId,
    ) -> Result<Vec<PathBuf>, LogError> {
        let name = folder_name(topic, key.partition.get());
        self.marks.forget(mark_id).map_err(|error| self.marks_failed(&error))?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.high_watermarks.remove(&checkpoint_name(key));
        written.log_starts.remove(&checkpoint_name(key));
        drop(written);
        self.contents(&self.set_aside(&self.path.join(name), DELETED)?)
    }

    /// Renames a folder so that it is no partition's any more.
    fn set_aside(&self, folder: &Path, why: &str) -> Result<PathBuf, LogError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let mut number = 0_u32;
        let aside = loop {
            let aside = self.path.join(format!("{name}.{number}{why}"));
            if !self.disk.exists(&aside).map_err(in_file(&aside))? {
                break aside;
            }
            number = number.saturating_add(1);
        };
        self.disk.rename(folder, &aside).map_err(in_file(folder))?;
        self.disk.sync_dir(&self.path).map_err(in_file(&self.path))?;
        Ok(aside)
    }

    /// Unlinks a file or an empty folder that nothing names any more.
    pub fn unlink(&self, path: &Path) {
        let removed = match self.disk.remove(path) {
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                self.disk.remove_dir(path)
            }
            other => other,
        };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), "not removed: {error}");
        }
    }

    /// Replaces the checkpoints where they changed; `gather` yields the high watermark and the log
    /// start of each open log. Others keep what was noted of them until they are deleted: a log that is
    /// not in use yet has a start all the same. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn checkpoint(
        &self,
        gather: impl FnOnce() -> Vec<(TopicPartition, i64, i64)>,
    ) -> Result<(), LogError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = written.clone();
        for (key, high_watermark, log_start) in gather() {
            now.high_watermarks.insert(checkpoint_name(key), high_watermark);
            now.log_starts.insert(checkpoint_name(key), log_start);
        }
        self.write_checkpoints(&mut written, now)
    }

    /// A log begins anew at `start`, by `restart`: below its checkpointed start, that is lowered
    /// first, or the next start would take what is written there for left behind; above it, that is
    /// raised behind it, or the next start would miss what is not there any more. The mark is lowered
    /// before all, or the next start would miss what never was below the former start.
    ///
    /// # Errors
    /// [`LogError::Disk`], and what `restart` returns.
    pub(super) fn restart_log(
        &self,
        key: TopicPartition,
        log: &mut Log,
        start: i64,
        restart: impl FnOnce(&mut Log) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        log.prepare_restart()?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let name = checkpoint_name(key);
        if written.log_starts.get(&name).is_some_and(|written| *written > start) {
            let mut now = written.clone();
            now.log_starts.insert(name.clone(), start);
            self.write_checkpoints(&mut written, now)?;
        }
        restart(log)?;
        self.raise_log_start(&mut written, name, start)
    }

    /// Durable when it returns; a start that is not above the one checkpointed changes nothing.
    fn raise_log_start(
        &self,
        written: &mut Checkpoints,
        name: String,
        start: i64,
    ) -> Result<(), LogError> {
        if written.log_starts.get(&name).copied().unwrap_or(0) >= start {
            return Ok(());
        }
        let mut now = written.clone();
        now.log_starts.insert(name, start);
        self.write_checkpoints(written, now)
    }

    fn write_checkpoints(
        &self,
        written: &mut Checkpoints,
        now: Checkpoints,
    ) -> Result<(), LogError> {
        // The log starts first: they may say that records are gone, and a high watermark nothing
        // that the log does not bound.
        if written.log_starts != now.log_starts {
            let path = self.path.join(LOG_START_FILE);
            checkpoint::write_offsets(&*self.disk, &path, &now.log_starts)?;
            written.log_starts = now.log_starts;
        }
        if written.high_watermarks != now.high_watermarks {
            let path = self.path.join(HIGH_WATERMARK_FILE);
            checkpoint::write_offsets(&*self.disk, &path, &now.high_watermarks)?;
            written.high_watermarks = now.high_watermarks;
        }
        Ok(())
    }

    /// Notes that every log is closed and synced.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn note_clean_shutdown(&self) -> Result<(), LogError> {
        checkpoint::write_clean_shutdown(&*self.disk, &self.path)
    }
}

impl PartitionFile {
    /// Which partition.
    pub fn key(&self) -> TopicPartition {
        TopicPartition {
            topic: TopicId::from_bytes(self.topic_id),
            partition: PartitionId::new(self.partition),
        }
    }
}

/// Name of a partition's folder.
fn folder_name(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Whether a partition's folder could have this name.
fn is_folder_name(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// Name of a partition in the checkpoints: a later topic of the same name is another one.
fn checkpoint_name(key: TopicPartition) -> String {
    format!("{}-{}", key.topic, key.partition)
}

pub(super) fn in_file(path: &Path) -> impl FnOnce(std::io::Error) -> LogError + '_ {
    move |source| LogError::Disk { path: path.to_owned(), source }
}

fn in_marks(path: &Path, error: &MarksError) -> LogError {
    let source = std::io::Error::other(error.to_string());
    LogError::Disk { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coordinator_disk::RealDisk;

    fn open(folder: &Path) -> (Folder, Log) {
        let key =
            TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId::new(0) };
        let opened = Folder::open(Arc::new(RealDisk), folder, b"test").unwrap();
        let (log, _) = opened.open_log(key, "t", &OpenOptions::default()).unwrap();
        (opened, log)
    }

    /// The stop comes after the checkpoint says that the log starts at 0, and before its files are touched.
    #[test]
    fn a_log_whose_beginning_anew_at_an_earlier_offset_never_came_about_lacks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key =
            TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId::new(0) };
        let (opened, mut log) = open(folder.path());
        opened.restart_log(key, &mut log, 331, |log| log.restart_at(331)).unwrap();
        log.sync().unwrap();
        opened.sync_marks().unwrap();
        let stopped = |_: &mut Log| Err(LogError::Failed { path: PathBuf::new() });
        opened.restart_log(key, &mut log, 0, stopped).unwrap_err();
        drop((opened, log));
        let (_opened, log) = open(folder.path());
        assert_eq!(log.damage(), None);
        assert_eq!(log.view().ends().log_start, 331);
    }

    /// The stop comes after the log's own files were made anew and before the checkpoint says so.
    #[test]
    fn a_log_whose_beginning_anew_was_cut_short_is_not_called_damaged_later() {
        let folder = tempfile::tempdir().unwrap();
        let (opened, mut log) = open(folder.path());
        log.sync().unwrap();
        log.restart_at(331).unwrap();
        drop((opened, log));
        for _ in 0..3 {
            let (opened, mut log) = open(folder.path());
            assert_eq!(log.view().ends().log_start, 331);
            assert!(!log.cut_below_mark());
            log.sync().unwrap();
            opened.sync_marks().unwrap();
        }
    }
}
