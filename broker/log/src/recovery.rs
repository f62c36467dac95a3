//! Opening a log after a stop, clean or not.
//!
//! Called by: the owner of a log directory, at start and for new partitions. Calls: `rebuild`.
//! Invariant: only bytes above the durable mark are ever cut; what is kept is synced before the
//! log says that it has it. Does not know the other logs.
//!
//! ```text
//! |sealed, sum fits, below the mark|sealed or active, the rest       |torn tail|
//! |trusted                         |every CRC, offset and epoch      |cut      |
//!                                          ^mark: a fault before it is damage, reported, not cut
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use coordinator_disk::{Disk, EntryKind, OpenMode, small_file};

use crate::checkpoint::read_epochs;
use crate::clean::{Cleaning, Progress, finish_swap};
use crate::config::LogConfig;
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, at};
use crate::log::{
    Damage, Dirty, Log, LogContext, Writer, fresh_state, log_name, marks_error, seal,
};
use crate::producer::ProducerStates;
use crate::rebuild::{self, Expectation, Extent, Rebuilt};
use crate::segment::{
    DISCARDED, FileKind, SealedSegment, file_path, open_log, parse_name, remove_file,
};
use crate::sum::{self, SegmentSum};
use crate::view::{LogView, ViewState, indexes_at_hand};

/// What the owner knows when it opens a log.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The log's settings.
    pub config: LogConfig,
    /// Whether the log directory was closed in order.
    pub clean: bool,
    /// Log start offset from the checkpoint.
    pub log_start: Option<i64>,
}

/// What opening a log did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments whose every batch was checked.
    pub segments_checked: usize,
    /// Bytes of those.
    pub bytes_checked: u64,
    /// Bytes of torn tail that were cut.
    pub cut_bytes: u64,
    /// What cannot be read although it was durable.
    pub damage: Option<Damage>,
}

/// State of a recovery on its way through the segments.
struct Walk<'a> {
    context: &'a LogContext,
    options: &'a OpenOptions,
    durable_end: i64,
    /// From where on an earlier start could not read it. What is behind that was not cut, and is not part of the log.
    damaged_from: Option<i64>,
    stored_epochs: Option<LeaderEpochs>,
    epochs: LeaderEpochs,
    sealed: Vec<Arc<SealedSegment>>,
    /// The segment read last, as long as none follows.
    last: Option<Rebuilt>,
    dirty: Dirty,
    report: Recovery,
}

impl Log {
    /// Opens the log in the context's folder and recovers it, creating it when there is none. What
    /// was kept above the mark counts as durable only after the first ticket was synced, and so
    /// does a new folder; the owner syncs many logs together.
    ///
    /// # Errors
    /// [`LogError::Disk`]. Damage is no error: the log then ends before it and takes no appends.
    pub fn open(context: LogContext, options: &OpenOptions) -> Result<(Self, Recovery), LogError> {
        #[cfg(planted)]
        std::hint::black_box(crate::planted::MARK);
        let directory = context.directory.clone();
        let disk = Arc::clone(&context.disk);
        let name = log_name(&directory);
        let mark = context.marks.get(&name);
        let mark_id =
            context.marks.register(&name).map_err(|error| marks_error(&directory, error))?;
        finish_swap(&*disk, &directory)?;
        let progress = Progress::read(&*disk, &directory)?;
        let mut walked = options.clone();
        walked.config.compact |= progress.is_some();
        let bases = list_segments(&*disk, &directory)?;
        let bases = clear_removed(&*disk, &directory, bases, options.log_start)?;
        let mut walk = Walk {
            context: &context,
            options: &walked,
            durable_end: mark.map_or(0, |mark| mark.durable_end),
            damaged_from: mark.and_then(|mark| mark.damaged_from),
            stored_epochs: read_epochs(&*disk, &directory),
            epochs: LeaderEpochs::default(),
            sealed: Vec::new(),
            last: None,
            dirty: Dirty::default(),
            report: Recovery::default(),
        };
        let bases = walk.bases_since_start(bases);
        for base_offset in &bases {
            let is_last = Some(base_offset) == bases.last();
            if !walk.take_segment(*base_offset, is_last)? {
                break;
            }
        }
        let (state, writer, report, dirty) = walk.finish()?;
        let next_offset = state.end;
        let view = LogView::new(disk, directory, options.config.index_interval_bytes, state);
        let damage = report.damage;
        // Where none is found any more it was cut, by a process that ended before it had said so, or somebody put a file back.
        let noted = context.marks.set_damage(mark_id, damage.map(|damage| damage.from_offset));
        noted.map_err(|error| marks_error(&context.directory, error))?;
        let is_as_sealed = report.segments_checked == 0 && !bases.is_empty() && !dirty.epochs;
        let mut log = Self {
            context,
            config: options.config.clone(),
            view,
            mark_id,
            writer,
            producers: ProducerStates::default(),
            pending: Vec::new(),
            pending_bytes: 0,
            next_offset,
            dirty,
            failed: false,
            is_as_sealed,
            damage,
            timeless: BTreeMap::new(),
            progress,
            cleaning: Cleaning::default(),
        };
        if !planted!(log.config.planted, ForgetProducers) {
            log.producers = rebuild::producers(&log.context, &log.view)?;
        }
        log.check();
        Ok((log, report))
    }
}

impl Walk<'_> {
    /// The segments, if the first of them is there, and else none. The checkpoint says where the log
    /// starts, and retention removes nothing before that is durable: a log that begins behind it has
    /// lost what was there, and must not be taken for one that starts later, as followers of it
    /// would drop theirs.
    fn bases_since_start(&self, bases: BTreeSet<i64>) -> BTreeSet<i64> {
        let is_missing = |start: i64| {
            start < self.durable_end && bases.first().is_some_and(|first| *first > start)
        };
        if self.options.log_start.is_some_and(is_missing) { BTreeSet::new() } else { bases }
    }

    /// Takes the next segment; `Ok(false)` when the log ends in it.
    fn take_segment(&mut self, base_offset: i64, is_last: bool) -> Result<bool, LogError> {
        let last_end = self.last.as_ref().map(|last| last.end);
        let is_damage = |from: i64| base_offset > from && last_end.is_none_or(|end| end <= from);
        let is_behind_damage = self.damaged_from.is_some_and(is_damage);
        let follows = match last_end {
            Some(_) if is_behind_damage => false,
            Some(end) if base_offset > end => self.is_compacted_before(base_offset)?,
            Some(end) => base_offset == end,
            None => true,
        };
        if !follows {
            self.reread_last()?;
            self.cut_or_report()?;
            return Ok(false);
        }
        if let Some(last) = &mut self.last {
            // Its sum goes on telling so, should it be written anew.
            last.end = base_offset;
        }
        self.seal_last()?;
        let rebuilt = match self.trusted(base_offset, is_last)? {
            Some(rebuilt) => rebuilt,
            None => self.check(base_offset)?,
        };
        for start in rebuilt.writer.sum.epochs() {
            self.epochs.assign(start.epoch, start.start_offset);
        }
        let whole = rebuilt.bad_bytes == 0;
        self.last = Some(rebuilt);
        if !whole {
            self.cut_or_report()?;
        }
        Ok(whole)
    }

    /// Whether compaction took what is missing between the segment read last and the one at
    /// `base_offset`. The sum says so, which a cleaning syncs with what it wrote: where it tells of
    /// another end, a file in between was lost, and must not pass for committed and cleaned. Without a
    /// sum nothing below the mark can have been torn off; above it a machine that lost power may have
    /// kept the next segment's name and not the end of this one.
    fn is_compacted_before(&self, base_offset: i64) -> Result<bool, LogError> {
        let Some(last) = self.last.as_ref().filter(|_| self.options.config.compact) else {
            return Ok(false);
        };
        let size_bytes = u64::from(last.active.size_bytes);
        Ok(match self.read_sum(last.active.base_offset)? {
            Some(sum) => sum.log_bytes == size_bytes && sum.end_offset == base_offset,
            None => base_offset <= self.durable_end,
        })
    }

    fn read_sum(&self, base_offset: i64) -> Result<Option<SegmentSum>, LogError> {
        let path = file_path(&self.context.directory, base_offset, FileKind::Sum);
        let bytes = small_file::read(&*self.context.disk, &path).map_err(at(&path))?;
        Ok(bytes.and_then(|bytes| sum::decode(&bytes, base_offset)))
    }

    /// The segment read last turns out to be the last one: its indexes are needed after all.
    fn reread_last(&mut self) -> Result<(), LogError> {
        if let Some(last) = &self.last {
            let extent = Extent { base_offset: last.active.base_offset, limit: i64::MAX };
            let config = &self.options.config;
            self.last = Some(rebuild::by_headers(self.context, config, extent)?);
        }
        Ok(())
    }

    /// The segment as its sum describes it, if that may be believed.
    fn trusted(&self, base_offset: i64, is_last: bool) -> Result<Option<Rebuilt>, LogError> {
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        let sum = self.read_sum(base_offset)?;
        let path = file_path(directory, base_offset, FileKind::Log);
        let log = open_log(disk, directory, base_offset, OpenMode::Read)?;
        let length = log.len().map_err(at(&path))?;
        let believed = sum.filter(|sum| {
            let is_synced = self.options.clean || sum.end_offset <= self.durable_end;
            let is_damaged = self.damaged_from.is_some_and(|from| from < sum.end_offset);
            sum.log_bytes == length
                && !is_damaged
                && (is_synced || planted!(self.options.config.planted, TrustSums))
        });
        match believed {
            Some(sum) => rebuild::by_sum(self.context, &self.options.config, &sum, is_last),
            None => Ok(None),
        }
    }

    fn check(&mut self, base_offset: i64) -> Result<Rebuilt, LogError> {
        let expectation = Expectation {
            compact: self.options.config.compact,
            epoch_before: self.epochs.latest().map_or(-1, |start| start.epoch),
            epochs: self.stored_epochs.as_ref(),
            durable_end: self.durable_end,
        };
        let config = &self.options.config;
        let rebuilt = if planted!(config.planted, IgnoreTornTail) {
            let all = Extent { base_offset, limit: i64::MAX };
            rebuild::by_headers(self.context, config, all)?
        } else {
            rebuild::by_checking(self.context, config, base_offset, &expectation)?
        };
        self.report.segments_checked = self.report.segments_checked.saturating_add(1);
        let bytes = u64::from(rebuilt.active.size_bytes).saturating_add(rebuilt.bad_bytes);
        self.report.bytes_checked = self.report.bytes_checked.saturating_add(bytes);
        // Its name, and even that of the folder, may be as new as the records: a process that was
        // killed left them to the machine, which may yet lose power.
        self.dirty.files.push(Arc::clone(&rebuilt.active.file));
        self.dirty.directory = true;
        self.dirty.parent = true;
        Ok(rebuilt)
    }

    /// The segment read last is followed by another one: it is sealed, and gets its sum if it was
    /// without.
    fn seal_last(&mut self) -> Result<(), LogError> {
        let Some(Rebuilt { active, writer, end, .. }) = self.last.take() else { return Ok(()) };
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        let checked = self.dirty.files.last().is_some_and(|file| Arc::ptr_eq(file, &active.file));
        let mut indexes = OnceLock::new();
        if checked {
            let sealed = seal(disk, directory, &writer, &active, end)?;
            self.dirty.files.extend(sealed.files);
            self.dirty.directory = true;
            indexes = indexes_at_hand(sealed.indexes);
        }
        self.sealed.push(Arc::new(SealedSegment {
            base_offset: active.base_offset,
            end_offset: end,
            size_bytes: u64::from(active.size_bytes),
            max_timestamp: active.max_timestamp,
            file: active.file,
            indexes,
        }));
        Ok(())
    }

    /// The log cannot go on behind the segment read last: below the mark that is damage, above it
    /// a torn tail.
    fn cut_or_report(&mut self) -> Result<(), LogError> {
        let Some(last) = &self.last else { return Ok(()) };
        let (end, segment, size) = (last.end, last.active.base_offset, last.active.size_bytes);
        if end < self.durable_end && !planted!(self.options.config.planted, CutDamagedMiddle) {
            return Ok(());
        }
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        last.active.file.truncate(u64::from(size)).map_err(at(directory))?;
        self.report.cut_bytes = self.report.cut_bytes.saturating_add(last.bad_bytes);
        self.dirty.files.push(Arc::clone(&last.active.file));
        self.dirty.directory = true;
        for base_offset in list_segments(disk, directory)?.range(segment.saturating_add(1)..) {
            let log = open_log(disk, directory, *base_offset, OpenMode::Read)?;
            let length = log.len().map_err(at(directory))?;
            self.report.cut_bytes = self.report.cut_bytes.saturating_add(length);
            for kind in FileKind::ALL {
                remove_file(disk, &file_path(directory, *base_offset, kind))?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(ViewState, Writer, Recovery, Dirty), LogError> {
        let Some(Rebuilt { active, writer, end, .. }) = self.last.take() else {
            return self.begin();
        };
        if end < self.durable_end && !planted!(self.options.config.planted, CutDamagedMiddle) {
            self.report.damage = Some(Damage {
                from_offset: end,
                segment: active.base_offset,
                position: u64::from(active.size_bytes),
                durable_end: self.durable_end,
            });
        }
        let first = self.sealed.first().map_or(active.base_offset, |s| s.base_offset);
        let log_start = self.options.log_start.unwrap_or(first).clamp(first.min(end), end);
        // A segment that was trusted by its sum may hold less, once it is read.
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(log_start);
        self.dirty.epochs = self.stored_epochs.as_ref() != Some(&self.epochs);
        let state = ViewState {
            sealed: self.sealed,
            active,
            log_start,
            durable_end: end.min(self.durable_end).max(log_start),
            end,
            epochs: self.epochs,
        };
        Ok((state, writer, self.report, self.dirty))
    }

    /// There is no segment at the start: a new log, or one whose files are gone.
    fn begin(mut self) -> Result<(ViewState, Writer, Recovery, Dirty), LogError> {
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        disk.create_dir(directory).map_err(at(directory))?;
        let base_offset = self.options.log_start.unwrap_or(0).max(0);
        let file = open_log(disk, directory, base_offset, OpenMode::Create)?;
        let interval_bytes = self.options.config.index_interval_bytes;
        let writer = Writer::new(base_offset, Arc::clone(&file), interval_bytes);
        self.dirty.active = true;
        self.dirty.directory = true;
        self.dirty.parent = true;
        if base_offset < self.durable_end {
            self.report.damage = Some(Damage {
                from_offset: base_offset,
                segment: base_offset,
                position: 0,
                durable_end: self.durable_end,
            });
        }
        Ok((fresh_state(base_offset, file), writer, self.report, self.dirty))
    }
}

/// Unlinks what retention had taken out of the log and a stop kept on the disk: segments that lie
/// whole below the log start, which was made durable first, and discarded files. A power cut may
/// have kept any of them and not the others, so that they would look like a hole.
fn clear_removed(
    disk: &dyn Disk,
    directory: &Path,
    mut bases: BTreeSet<i64>,
    log_start: Option<i64>,
) -> Result<BTreeSet<i64>, LogError> {
    let first = log_start.and_then(|start| bases.range(..=start).next_back().copied());
    if let Some(first) = first {
        let kept = bases.split_off(&first);
        for base_offset in std::mem::replace(&mut bases, kept) {
            for kind in FileKind::ALL {
                remove_file(disk, &file_path(directory, base_offset, kind))?;
            }
        }
    }
    if disk.exists(directory).map_err(at(directory))? {
        for entry in disk.list(directory).map_err(at(directory))? {
            if entry.kind == EntryKind::File && entry.name.ends_with(DISCARDED) {
                remove_file(disk, &directory.join(&entry.name))?;
            }
        }
    }
    Ok(bases)
}

/// Base offsets of the segments in a folder.
fn list_segments(disk: &dyn Disk, directory: &Path) -> Result<BTreeSet<i64>, LogError> {
    if !disk.exists(directory).map_err(at(directory))? {
        return Ok(BTreeSet::new());
    }
    let entries = disk.list(directory).map_err(at(directory))?;
    let logs = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let logs = logs.filter_map(|entry| parse_name(&entry.name));
    Ok(logs.filter(|(_, kind)| *kind == FileKind::Log).map(|(base, _)| base).collect())
}
