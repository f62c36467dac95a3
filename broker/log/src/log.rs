//! One partition's log: the owner's side, through which everything is changed.
//!
//! Called by: the append thread of the log directory, which owns it. Calls: `append`, `truncate`,
//! `retention`, `clean`, `recovery` (each a further part of [`Log`]), `view`.
//! Invariant: files and published view agree after each call that succeeds; after one that fails
//! with a disk error the log takes nothing any more. Knows no replica, no group and no socket.
//!
//! ```text
//! segments  |00..000|00..120|00..310 (active)            |
//! offsets   ^log start        ^durable end          ^end (exclusive)
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator_disk::{Disk, File, OpenMode};

use crate::batch::BatchMeta;
use crate::clean::{Cleaning, Progress};
use crate::config::LogConfig;
use crate::dense::DenseTail;
use crate::error::{LogError, at};
use crate::marks::{MarkId, Marks};
use crate::producer::ProducerStates;
use crate::recent::{PRODUCERS_FILE, RecentProducers};
use crate::segment::{
    FileKind, IndexBuilder, Indexes, SealedSegment, file_path, open_log, write_file,
};
use crate::snapshot;
use crate::sum::{self, SegmentSum, SumBuilder};
use crate::view::{ActiveView, LogView, ViewState, indexes_at_hand};

/// What a log needs from its log directory.
#[derive(Clone)]
pub struct LogContext {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The marks of the log directory.
    pub marks: Arc<Marks>,
    /// The partition's folder; its last name is the log's name in the marks.
    pub directory: PathBuf,
}

/// Part of a log that cannot be read although it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First offset that cannot be trusted; the log ends here until it is repaired.
    pub from_offset: i64,
    /// Base offset of the segment that holds it.
    pub segment: i64,
    /// Byte in that segment's log file.
    pub position: u64,
    /// The mark below which the damage lies.
    pub durable_end: i64,
}

/// See the module.
pub struct Log {
    pub(crate) context: LogContext,
    pub(crate) config: LogConfig,
    pub(crate) view: LogView,
    pub(crate) mark_id: MarkId,
    pub(crate) writer: Writer,
    pub(crate) producers: ProducerStates,
    /// Batches admitted and not yet written.
    pub(crate) pending: Vec<BatchMeta>,
    pub(crate) pending_bytes: u32,
    /// Offset that the next admitted batch gets.
    pub(crate) next_offset: i64,
    pub(crate) dirty: Dirty,
    pub(crate) failed: bool,
    /// Nothing was written since the log was opened by what its last close had left.
    pub(crate) is_as_sealed: bool,
    pub(crate) damage: Option<Damage>,
    /// When segments sealed here got their last batch, and others without a timestamp were first
    /// seen by retention, milliseconds; asked of those without a timestamp.
    pub(crate) timeless: BTreeMap<i64, i64>,
    /// How far it is clean; none when it never was. With one, batches may have gaps between them.
    pub(crate) progress: Option<Progress>,
    /// Whether one is under way, or is not to be tried again.
    pub(crate) cleaning: Cleaning,
}

/// What accumulates about the active segment for its seal.
pub(crate) struct Writer {
    pub base_offset: i64,
    pub file: Arc<dyn File>,
    pub index: IndexBuilder,
    pub sum: SumBuilder,
    /// When the segment got its first batch, by the caller's clock; milliseconds.
    pub first_append_ms: Option<i64>,
    /// When it got its last one, or was first seen with some; the age of what has no timestamp.
    pub last_append_ms: Option<i64>,
}

/// What a commit round has to sync for this log.
#[derive(Default)]
pub(crate) struct Dirty {
    /// Files beside the active segment's.
    pub files: Vec<Arc<dyn File>>,
    pub active: bool,
    pub directory: bool,
    /// The partition's folder itself is new.
    pub parent: bool,
    pub epochs: bool,
}

/// What one log needs synced, as of one moment.
pub struct SyncTicket {
    /// Where the result is published.
    pub view: LogView,
    /// The log's id in the marks.
    pub mark_id: MarkId,
    /// Truncations so far; the result counts only under the same number.
    pub generation: u64,
    /// What is durable once everything named here is synced (exclusive).
    pub end: i64,
    /// Files to sync.
    pub files: Vec<Arc<dyn File>>,
    /// Whether names in the partition's folder changed, so that it must be synced too.
    pub directory: bool,
    /// Whether the partition's folder is new, so that the one above must be synced too; left to
    /// the caller, who has many such logs under one folder.
    pub parent: bool,
    /// New contents of the leader-epoch file, to be replaced durably before the result counts.
    pub epochs: Option<Vec<u8>>,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Log {
    /// Handle for readers.
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// The settings in force.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Takes new settings; they hold from the next append on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// Offset that the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.next_offset
    }

    /// What cannot be read, if anything.
    pub fn damage(&self) -> Option<Damage> {
        self.damage
    }

    /// Id in the marks.
    pub fn mark_id(&self) -> MarkId {
        self.mark_id
    }

    /// Producers, for status and for the last stable offset.
    pub fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    /// Whether a disk error ended this log's writing.
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// What has to be synced for everything written so far to be durable, or `None` when nothing
    /// changed since the last ticket. The caller syncs all of a ticket and then publishes it. A
    /// damaged log has none: its mark must stay above the damage.
    pub fn take_sync_ticket(&mut self) -> Option<SyncTicket> {
        if self.damage.is_some() {
            return None;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let nothing = dirty.files.is_empty() && !dirty.directory && !dirty.parent;
        if nothing && !dirty.active && !dirty.epochs {
            return None;
        }
        let mut files = dirty.files;
        if dirty.active {
            files.push(Arc::clone(&self.writer.file));
        }
        let state = self.view.read();
        let epochs = dirty.epochs.then(|| crate::checkpoint::encode_epochs(&state.epochs));
        Some(SyncTicket {
            view: self.view.clone(),
            mark_id: self.mark_id,
            generation: self.view.generation(),
            end: state.end,
            files,
            directory: dirty.directory,
            parent: dirty.parent,
            epochs,
            #[cfg(planted)]
            planted: self.config.planted,
        })
    }

    /// Puts a file of the owner's, in the partition's folder, among what is to be synced.
    pub fn also_sync(&mut self, file: Arc<dyn File>) {
        self.dirty.files.push(file);
        self.dirty.directory = true;
    }

    /// Seals the active segment and begins an empty one at the log's end.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn roll(&mut self) -> Result<(), LogError> {
        assert!(self.pending.is_empty(), "{} batches admitted at a roll", self.pending.len());
        let outcome = self.roll_files();
        self.note(outcome)
    }

    fn roll_files(&mut self) -> Result<(), LogError> {
        self.is_as_sealed = false;
        let directory = self.context.directory.clone();
        let disk = Arc::clone(&self.context.disk);
        let end = self.next_offset;
        let indexes = self.seal_files()?;
        let file = open_log(&*disk, &directory, end, OpenMode::Create)?;
        let snapshot_path = file_path(&directory, end, FileKind::Snapshot);
        let snapshot = write_file(&*disk, &snapshot_path, &snapshot::encode(&self.producers))?;
        self.dirty.files.push(snapshot);
        if self.dirty.active {
            self.dirty.files.push(Arc::clone(&self.writer.file));
        }
        self.dirty.active = true;
        self.dirty.directory = true;
        let interval_bytes = self.config.index_interval_bytes;
        let former = std::mem::replace(
            &mut self.writer,
            Writer::new(end, Arc::clone(&file), interval_bytes),
        );
        if let Some(last_append_ms) = former.last_append_ms {
            self.timeless.insert(former.base_offset, last_append_ms);
        }
        let mut state = self.view.write();
        let active = std::mem::replace(&mut state.active, ActiveView::new(end, file));
        // Only the segment sealed last keeps its indexes in memory.
        if let Some(last) = state.sealed.last_mut() {
            *last = Arc::new(last.without_indexes());
        }
        state.sealed.push(Arc::new(SealedSegment {
            base_offset: active.base_offset,
            end_offset: end,
            size_bytes: u64::from(active.size_bytes),
            max_timestamp: active.max_timestamp,
            file: active.file,
            indexes: indexes_at_hand(indexes),
        }));
        Ok(())
    }

    /// Writes index, time index and sum of the active segment; returns the finished indexes.
    fn seal_files(&mut self) -> Result<Indexes, LogError> {
        let sealed = {
            let state = self.view.read();
            let directory = &self.context.directory;
            seal(&*self.context.disk, directory, &self.writer, &state.active, self.next_offset)?
        };
        self.dirty.files.extend(sealed.files);
        self.dirty.directory = true;
        Ok(sealed.indexes)
    }

    /// Writes what lets the next start trust the files. With the ticket that follows synced, the
    /// log is at rest, and a clean-shutdown marker may follow.
    ///
    /// # Errors
    /// [`LogError`]; the next start then recovers as after a crash.
    pub fn prepare_close(&mut self) -> Result<(), LogError> {
        self.refuse_unusable()?;
        if self.is_as_sealed {
            return Ok(());
        }
        self.seal_files()?;
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        let path = file_path(directory, self.next_offset, FileKind::Snapshot);
        self.dirty.files.push(write_file(disk, &path, &snapshot::encode(&self.producers))?);
        let path = directory.join(PRODUCERS_FILE);
        let recent = RecentProducers::of(&self.producers, self.next_offset);
        self.dirty.files.push(write_file(disk, &path, &recent.encode())?);
        self.dirty.active = true;
        self.dirty.epochs = true;
        self.is_as_sealed = true;
        Ok(())
    }

    /// The folder is about to be renamed: a round under way writes nothing there by name from here
    /// on, least of all into the folder of a successor.
    pub fn retire(&self) {
        *self.view.retired() = true;
    }

    /// [`Log::prepare_close`] and a sync of its own, for a log that is alone.
    ///
    /// # Errors
    /// As [`Log::prepare_close`].
    pub fn close(mut self) -> Result<(), LogError> {
        self.prepare_close()?;
        self.sync()
    }

    /// Syncs everything here and now, for owners without rounds.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let Some(ticket) = self.take_sync_ticket() else { return Ok(()) };
        let synced = ticket.sync(&*self.context.disk);
        let synced = synced.and_then(|()| match self.context.directory.parent() {
            Some(parent) if ticket.parent => self.context.disk.sync_dir(parent).map_err(at(parent)),
            Some(_) | None => Ok(()),
        });
        self.note(synced)?;
        let marked = self.context.marks.append(&[(ticket.mark_id, ticket.end)]);
        let marked = marked.and_then(|()| self.context.marks.sync());
        let directory = self.context.directory.clone();
        self.note(marked.map_err(|error| marks_error(&directory, error)))?;
        ticket.view.publish_durable(ticket.generation, ticket.end);
        Ok(())
    }

    /// Remembers a disk error for good.
    pub(crate) fn note<T>(&mut self, outcome: Result<T, LogError>) -> Result<T, LogError> {
        self.failed |= outcome.as_ref().is_err_and(LogError::is_fatal);
        outcome
    }

    pub(crate) fn refuse_unusable(&self) -> Result<(), LogError> {
        let path = || self.context.directory.clone();
        if self.failed {
            return Err(LogError::Failed { path: path() });
        }
        match self.damage {
            Some(damage) => {
                Err(LogError::Damaged { path: path(), from_offset: damage.from_offset })
            }
            None => Ok(()),
        }
    }

    /// Checks the inequalities.
    pub fn check(&self) {
        let state = self.view.read();
        state.check();
        state.epochs.check();
        assert!(state.end <= self.next_offset, "{} {}", state.end, self.next_offset);
        assert_eq!(state.active.base_offset, self.writer.base_offset);
        let mut end = state.sealed.first().map_or(state.active.base_offset, |s| s.base_offset);
        for sealed in &state.sealed {
            assert!(end <= sealed.base_offset, "{end} {}", sealed.base_offset);
            end = sealed.end_offset;
        }
        assert!(end <= state.active.base_offset, "{end} {}", state.active.base_offset);
    }
}

impl SyncTicket {
    /// Adds a later ticket of the same log: what this one names, and what the later one does.
    pub fn merge(&mut self, later: Self) {
        for file in later.files {
            if !self.files.iter().any(|known| Arc::ptr_eq(known, &file)) {
                self.files.push(file);
            }
        }
        self.generation = later.generation;
        self.end = later.end;
        self.directory |= later.directory;
        self.parent |= later.parent;
        self.epochs = later.epochs.or_else(|| self.epochs.take());
    }

    /// Syncs all that the ticket names. For one log alone; rounds gather the files of many.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log directory is to be fenced.
    pub fn sync(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let directory = self.view.directory();
        disk.sync_many(&self.files).map_err(at(directory))?;
        self.finish(disk)
    }

    /// The part of the work that is not syncing files: the epoch file and the folder's names. To
    /// be called after the files were synced.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log directory is to be fenced.
    pub fn finish(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let directory = self.view.directory();
        let retired = self.view.retired();
        if *retired {
            return Ok(());
        }
        if let Some(epochs) = &self.epochs {
            crate::checkpoint::write_epochs(disk, directory, epochs)?;
        } else if self.directory {
            disk.sync_dir(directory).map_err(at(directory))?;
        }
        Ok(())
    }
}

impl Writer {
    pub fn new(base_offset: i64, file: Arc<dyn File>, interval_bytes: u32) -> Self {
        Self {
            base_offset,
            file,
            index: IndexBuilder::new(base_offset, interval_bytes),
            sum: SumBuilder::default(),
            first_append_ms: None,
            last_append_ms: None,
        }
    }
}

impl ActiveView {
    pub fn new(base_offset: i64, file: Arc<dyn File>) -> Self {
        Self {
            base_offset,
            file,
            size_bytes: 0,
            indexes: Indexes::default(),
            dense: DenseTail::default(),
            max_timestamp: None,
        }
    }
}

/// What sealing left behind.
pub(crate) struct Sealed {
    pub indexes: Indexes,
    /// Files written, not synced.
    pub files: Vec<Arc<dyn File>>,
}

/// What goes into the files beside a sealed segment's log.
pub(crate) struct SealContents {
    pub indexes: Indexes,
    pub contents: [(FileKind, Vec<u8>); 3],
}

/// Index, time index and sum of a segment that ends at `end_offset`.
pub(crate) fn seal_contents(writer: &Writer, active: &ActiveView, end_offset: i64) -> SealContents {
    let mut indexes = active.indexes.clone();
    // The last entry of a sealed time index is the greatest timestamp, as Kafka expects.
    writer.index.max_timestamp().into_iter().for_each(|entry| indexes.times.push(entry));
    let (offsets, times) = (indexes.offsets.encode(), indexes.times.encode());
    let sum = SegmentSum {
        base_offset: writer.base_offset,
        end_offset,
        log_bytes: u64::from(active.size_bytes),
        header_crc: writer.sum.header_crc(),
        index_crc: crc32fast::hash(&offsets),
        time_index_crc: crc32fast::hash(&times),
        max_timestamp: active.max_timestamp,
        first_timestamp: writer.sum.first_timestamp().unwrap_or(-1),
        epochs: writer.sum.epochs().to_vec(),
    };
    let contents = [
        (FileKind::Index, offsets),
        (FileKind::TimeIndex, times),
        (FileKind::Sum, sum::encode(&sum)),
    ];
    SealContents { indexes, contents }
}

/// Writes index, time index and sum of a segment that ends at `end_offset`.
pub(crate) fn seal(
    disk: &dyn Disk,
    directory: &Path,
    writer: &Writer,
    active: &ActiveView,
    end_offset: i64,
) -> Result<Sealed, LogError> {
    let SealContents { indexes, contents } = seal_contents(writer, active, end_offset);
    let mut files = Vec::with_capacity(contents.len());
    for (kind, contents) in contents {
        let path = file_path(directory, writer.base_offset, kind);
        files.push(write_file(disk, &path, &contents)?);
    }
    Ok(Sealed { indexes, files })
}

/// Folds an error of the marks into the log's.
pub(crate) fn marks_error(directory: &Path, error: crate::marks::MarksError) -> LogError {
    LogError::Disk { path: directory.to_owned(), source: std::io::Error::other(error.to_string()) }
}

/// The name of a log in the marks: that of its folder.
pub(crate) fn log_name(directory: &Path) -> String {
    directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(crate) fn fresh_state(base_offset: i64, file: Arc<dyn File>) -> ViewState {
    ViewState {
        sealed: Vec::new(),
        active: ActiveView::new(base_offset, file),
        log_start: base_offset,
        durable_end: base_offset,
        end: base_offset,
        epochs: crate::epochs::LeaderEpochs::default(),
    }
}
