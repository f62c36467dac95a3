//! The work of a cleaning: reads the dirty part, then writes what stays under new names.
//!
//! Called by: a cleaner's thread. Calls: `keys`, `filter`, `scan`, `segment`, the disk.
//! Invariant: the log's own files are only read, every checksum is compared before a record is taken
//! for what it says, no batch goes but by the rules, and what was written is synced when it is handed
//! over. Memory is bounded by the keys of [`crate::LogConfig`] and by one batch, as it is packed,
//! unpacked and written anew; it does not grow with the number of records. What is written and not in
//! place is bounded too: by two segments, whatever the log's size.
//!
//! A cleaning is done in steps, from the log's start on, and each is put in place before the next one
//! begins. So what a tombstone deletes is gone for good before the tombstone goes.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use client_protocol::records::{Batch, RecordsIter};
use coordinator_disk::{Disk, File, OpenMode};

use super::filter::{Retained, Rules, WholeBatch};
use super::keys::KeyOffsets;
use super::plan::{CleaningPlan, LastBatches};
use super::swap::cleaned_path;
use crate::batch::BatchMeta;
use crate::config::LogConfig;
use crate::error::{LogError, at};
use crate::log::{Writer, seal_contents};
use crate::scan::HeaderWalk;
use crate::segment::{FileKind, SealedSegment, remove_file};
use crate::view::{ActiveView, LogView};

/// Bytes that are gathered for one write.
const WRITE_BYTES: usize = 1 << 20;

/// Most bytes of a segment: where batches begin is told in 31 bits.
const SEGMENT_BYTES_MAX: u64 = i32::MAX.cast_unsigned() as u64;

/// Why a cleaning came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The disk refused. It may be tried again.
    #[error(transparent)]
    Disk(#[from] LogError),
    /// What was written could not be synced: the log directory is to be fenced. What else was written
    /// to that disk is as unknown, and a second sync might report nothing of it.
    #[error("not synced: {0}")]
    Sync(LogError),
    /// The log was cut meanwhile, and with it what was to be read.
    #[error("the log was cut meanwhile")]
    Cut,
    /// A sealed segment is not what was written there. Trying again is in vain, unless the log is cut.
    #[error("segment {segment} is damaged at byte {position}")]
    Damaged {
        /// Base offset of the segment.
        segment: i64,
        /// Where in its log file.
        position: u64,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// The names of new files too, before a note speaks of them.
///
/// A partition that is deleted meanwhile takes its folder away: that is no fault of the disk.
pub(crate) fn sync_names(disk: &dyn Disk, directory: &Path) -> Result<(), CleanError> {
    match disk.sync_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CleanError::Stopped),
        synced => synced.map_err(at(directory)).map_err(CleanError::Sync),
    }
}

/// What was done, for the log and the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// And after.
    pub bytes_after: u64,
    /// Distinct keys of the dirty part.
    pub keys: usize,
}

/// Everything that a cleaning needs to know.
pub(super) struct Work {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub view: LogView,
    /// Truncations so far; the result counts only under the same number.
    pub generation: u64,
    pub first_dirty: i64,
    pub segments: Vec<Arc<SealedSegment>>,
    pub last_batches: Arc<LastBatches>,
    pub config: LogConfig,
    pub now_ms: i64,
    pub stop: Arc<AtomicBool>,
    /// What the steps before this one found and did; none before the first.
    pub so_far: Option<SoFar>,
}

/// What one step of a cleaning hands to the next.
#[derive(Clone)]
pub(super) struct SoFar {
    keys: Arc<KeyOffsets>,
    mapped_to: i64,
    /// Segments that go into one, in order, as far as they are not cleaned.
    groups: VecDeque<Vec<Arc<SealedSegment>>>,
    /// Leader epoch of the last batch that was looked at.
    epoch: Option<i32>,
    met_opaque: bool,
    report: Report,
}

/// One segment that is to stand in the place of some.
pub(super) struct CleanedGroup {
    pub replaced: Vec<Arc<SealedSegment>>,
    pub size_bytes: u64,
    pub max_timestamp: Option<(i64, i64)>,
}

/// Segments written anew, to be put in place by [`crate::Log::swap_cleaned`].
pub struct Cleaned {
    pub(super) generation: u64,
    pub(super) groups: Vec<CleanedGroup>,
    /// Everything below is clean then; none while there is a rest.
    pub(super) first_dirty: Option<i64>,
    /// What is to be done once this is in place.
    pub(super) rest: Option<CleaningPlan>,
    /// What was done, all steps so far together.
    pub report: Report,
}

impl Cleaned {
    /// Nothing is left to be done once it is in place.
    pub fn is_last(&self) -> bool {
        self.rest.is_none()
    }
}

impl CleaningPlan {
    /// Set to true, it ends a run at the next batch.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.work.stop)
    }

    /// Does one step of it. Files that were begun are removed when it fails.
    ///
    /// # Errors
    /// [`CleanError`]; the log is as it was.
    pub fn run(&self) -> Result<Cleaned, CleanError> {
        let work = &self.work;
        let is_cut = || work.view.generation() != work.generation;
        let outcome = match work.run() {
            Err(CleanError::Damaged { .. }) if is_cut() => Err(CleanError::Cut),
            outcome => outcome,
        };
        if outcome.is_err() {
            for segment in &work.segments {
                // What cannot be removed now is removed at the next start.
                work.remove_begun(segment.base_offset).ok();
            }
        }
        outcome
    }
}

impl Work {
    fn run(&self) -> Result<Cleaned, CleanError> {
        let mut so_far = match &self.so_far {
            Some(so_far) => so_far.clone(),
            None => self.begin()?,
        };
        let keys = Arc::clone(&so_far.keys);
        let mut rules = Rules {
            keys: &keys,
            mapped_to: so_far.mapped_to,
            now_ms: self.now_ms,
            delete_retention_ms: match planted!(self.config.planted, ForgetDeleteRetention) {
                true => 0,
                false => self.config.delete_retention_ms,
            },
            met_opaque: so_far.met_opaque,
        };
        let (mut cleaned, mut written_bytes) = (Vec::new(), 0_u64);
        while written_bytes < u64::from(self.config.segment_bytes)
            && let Some(group) = so_far.groups.pop_front()
        {
            let is_last = so_far.groups.is_empty();
            let (written, is_changed) =
                self.clean_group(group, is_last, &mut rules, &mut so_far.epoch)?;
            let bytes_after = &mut so_far.report.bytes_after;
            *bytes_after = bytes_after.saturating_add(written.size_bytes);
            if is_changed {
                written_bytes = written_bytes.saturating_add(written.size_bytes);
                cleaned.push(written);
            } else {
                self.remove_begun(written.base_offset())?;
            }
        }
        if !cleaned.is_empty() {
            sync_names(&*self.disk, &self.directory)?;
        }
        so_far.met_opaque = rules.met_opaque;
        Ok(self.hand_over(cleaned, so_far))
    }

    fn begin(&self) -> Result<SoFar, CleanError> {
        let (keys, mapped_to) = self.map_keys()?;
        let report = Report {
            bytes_before: self.bytes_below(mapped_to),
            keys: keys.len(),
            ..Report::default()
        };
        let groups = self.groups(mapped_to).into();
        let keys = Arc::new(keys);
        Ok(SoFar { keys, mapped_to, groups, epoch: None, met_opaque: false, report })
    }

    fn hand_over(&self, groups: Vec<CleanedGroup>, so_far: SoFar) -> Cleaned {
        let (generation, report) = (self.generation, so_far.report);
        let is_done = so_far.groups.is_empty();
        let first_dirty = is_done.then_some(so_far.mapped_to);
        let rest = (!is_done).then(|| {
            let work = Work {
                disk: Arc::clone(&self.disk),
                directory: self.directory.clone(),
                view: self.view.clone(),
                generation,
                first_dirty: self.first_dirty,
                // Only what is to be read: files that were replaced are to be closed, or they take room.
                segments: so_far.groups.iter().flatten().cloned().collect(),
                last_batches: Arc::clone(&self.last_batches),
                config: self.config.clone(),
                now_ms: self.now_ms,
                stop: Arc::clone(&self.stop),
                so_far: Some(so_far),
            };
            CleaningPlan { work }
        });
        Cleaned { generation, groups, first_dirty, rest, report }
    }

    fn clean_group(
        &self,
        group: Vec<Arc<SealedSegment>>,
        is_last: bool,
        rules: &mut Rules<'_>,
        epoch: &mut Option<i32>,
    ) -> Result<(CleanedGroup, bool), CleanError> {
        let mut output = Output::new(self, &group)?;
        let last_base = group.last().map(|last| last.base_offset);
        for segment in &group {
            let ends_all = is_last && Some(segment.base_offset) == last_base;
            self.clean_segment(segment, ends_all, (rules, epoch), &mut output)?;
        }
        output.finish(self, group)
    }

    fn bytes_below(&self, offset: i64) -> u64 {
        let below = self.segments.iter().filter(|segment| segment.base_offset < offset);
        below.map(|segment| segment.size_bytes).sum()
    }

    /// The last offset of each key from the first dirty offset on, and where that had to end: at the
    /// end of what can be cleaned, or where the room for keys did.
    fn map_keys(&self) -> Result<(KeyOffsets, i64), CleanError> {
        let mut keys = KeyOffsets::new(self.config.cleaner_keys_max);
        let mut mapped_to = self.first_dirty;
        for segment in &self.segments {
            if segment.end_offset <= self.first_dirty {
                continue;
            }
            let mut batches = Reading::new(segment);
            while let Some(batch) = batches.next(self)? {
                if batch.meta.last_offset() < self.first_dirty || batch.meta.is_control() {
                    continue;
                }
                if let Some(full_at) = note_keys(&batch, self.first_dirty, &mut keys) {
                    return Ok((keys, full_at));
                }
            }
            mapped_to = segment.end_offset;
        }
        Ok((keys, mapped_to))
    }

    fn clean_segment(
        &self,
        segment: &SealedSegment,
        is_last: bool,
        (rules, epoch): (&mut Rules<'_>, &mut Option<i32>),
        output: &mut Output,
    ) -> Result<(), CleanError> {
        let mut batches = Reading::new(segment);
        while let Some(batch) = batches.next(self)? {
            let meta = &batch.meta;
            // Where an epoch begins decides what replicas cut: its first batch marks that for every
            // replica that will ever copy this log.
            let begins_epoch = epoch.is_none_or(|epoch| epoch < meta.leader_epoch);
            *epoch = Some(meta.leader_epoch);
            let last_batch = self.last_batches.get(&meta.producer_id);
            let ends_producer = meta.has_producer()
                && last_batch
                    .is_some_and(|last| last.is_none_or(|last| last == meta.last_offset()));
            // A follower that is behind must find the way to the end, even if all else is gone.
            let ends_all = is_last && batches.is_at_end();
            let retained = rules.judge(&batch, begins_epoch || ends_producer || ends_all);
            output.left_bytes = output.left_bytes.saturating_sub(batch.bytes.len() as u64);
            let anew = match &retained {
                Retained::Anew(bytes) => BatchMeta::parse(bytes).filter(|meta| output.takes(meta)),
                Retained::Whole | Retained::Nothing => None,
            };
            match (retained, anew) {
                (Retained::Nothing, _) => output.is_changed = true,
                (Retained::Anew(bytes), Some(meta)) => {
                    output.is_changed = true;
                    output.push(self, &meta, &bytes)?;
                }
                (Retained::Anew(_), None) => {
                    // It would be more than the log reads back.
                    rules.leave_whole();
                    output.push(self, meta, &batch.bytes)?;
                }
                (Retained::Whole, _) => output.push(self, meta, &batch.bytes)?,
            }
        }
        Ok(())
    }

    fn remove_begun(&self, base_offset: i64) -> Result<(), LogError> {
        for kind in FileKind::ALL {
            remove_file(&*self.disk, &cleaned_path(&self.directory, base_offset, kind))?;
        }
        Ok(())
    }
}

/// Notes the keys of a batch; one that is not understood has none that could be noted. Returns the
/// offset of the first record whose key there was no room for.
fn note_keys(batch: &WholeBatch, from: i64, keys: &mut KeyOffsets) -> Option<i64> {
    let payload = batch.understood()?;
    RecordsIter::new(&batch.header, &payload).flatten().find_map(|record| {
        let offset = record.offset.get();
        let key = record.key.filter(|_| offset >= from)?;
        (!keys.note(key, offset)).then_some(offset)
    })
}

/// A walk over the whole batches of a sealed segment.
struct Reading<'a> {
    segment: &'a SealedSegment,
    walk: HeaderWalk<'a>,
    position: u64,
}

impl<'a> Reading<'a> {
    fn new(segment: &'a SealedSegment) -> Self {
        let walk = HeaderWalk::new(&*segment.file, 0, segment.size_bytes);
        Self { segment, walk, position: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.position >= self.segment.size_bytes
    }

    fn next(&mut self, work: &Work) -> Result<Option<WholeBatch>, CleanError> {
        if self.is_at_end() {
            return Ok(None);
        }
        if work.stop.load(Ordering::Acquire) {
            return Err(CleanError::Stopped);
        }
        let (segment, position) = (self.segment.base_offset, self.position);
        let found = self.walk.next_batch().map_err(at(&work.directory))?;
        let found = found.ok_or(CleanError::Damaged { segment, position })?;
        // Bounded by the walk: it takes no batch that is longer than the file.
        let mut bytes = vec![0; found.meta.size_bytes as usize];
        let read = self.segment.file.read_exact_at(found.position, &mut bytes);
        read.map_err(at(&work.directory))?;
        let sound = Batch::first(&bytes).ok().filter(|batch| batch.check_crc().is_ok());
        let header = sound.ok_or(CleanError::Damaged { segment, position })?.header;
        self.position = found.end_position();
        Ok(Some(WholeBatch { meta: found.meta, header, bytes: Bytes::from(bytes) }))
    }
}

/// The segment that is being written.
struct Output {
    active: ActiveView,
    writer: Writer,
    gathered: Vec<u8>,
    written_bytes: u64,
    /// Of what it is made from, what was not looked at yet.
    left_bytes: u64,
    is_changed: bool,
}

impl Output {
    fn new(work: &Work, group: &[Arc<SealedSegment>]) -> Result<Self, CleanError> {
        let base_offset = group.first().map_or(0, |first| first.base_offset);
        let path = cleaned_path(&work.directory, base_offset, FileKind::Log);
        let file = work.disk.open(&path, OpenMode::Create).map_err(at(&path))?;
        file.truncate(0).map_err(at(&path))?;
        Ok(Self {
            active: ActiveView::new(base_offset, Arc::clone(&file)),
            writer: Writer::new(base_offset, file, work.config.index_interval_bytes),
            gathered: Vec::new(),
            written_bytes: 0,
            left_bytes: group.iter().map(|segment| segment.size_bytes).sum(),
            is_changed: group.len() > 1,
        })
    }

    /// Whether a batch written anew leaves room for all that may have to stay as it is. One may well
    /// be larger than it was: its times count from the delete horizon, and producers pack better.
    fn takes(&self, meta: &BatchMeta) -> bool {
        let before = u64::from(self.active.size_bytes).saturating_add(self.left_bytes);
        before.saturating_add(u64::from(meta.size_bytes)) <= SEGMENT_BYTES_MAX
    }

    fn push(&mut self, work: &Work, meta: &BatchMeta, bytes: &[u8]) -> Result<(), CleanError> {
        self.writer.sum.push(meta);
        self.active.push(meta, &mut self.writer.index);
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= WRITE_BYTES {
            self.write_out(work)?;
        }
        Ok(())
    }

    fn write_out(&mut self, work: &Work) -> Result<(), LogError> {
        let parts = [std::io::IoSlice::new(&self.gathered)];
        self.writer.file.write_at(self.written_bytes, &parts).map_err(at(&work.directory))?;
        self.written_bytes = self.written_bytes.saturating_add(self.gathered.len() as u64);
        self.gathered.clear();
        Ok(())
    }

    /// Writes and syncs all files; the names are as durable as the folder.
    fn finish(
        mut self,
        work: &Work,
        group: Vec<Arc<SealedSegment>>,
    ) -> Result<(CleanedGroup, bool), CleanError> {
        let end_offset = group.last().map_or(0, |last| last.end_offset);
        let base_offset = self.active.base_offset;
        if self.is_changed {
            self.write_out(work)?;
            let mut files: Vec<Arc<dyn File>> = vec![Arc::clone(&self.writer.file)];
            for (kind, contents) in seal_contents(&self.writer, &self.active, end_offset).contents {
                let path = cleaned_path(&work.directory, base_offset, kind);
                files.push(crate::segment::write_file(&*work.disk, &path, &contents)?);
            }
            let synced = work.disk.sync_many(&files).map_err(at(&work.directory));
            synced.map_err(CleanError::Sync)?;
        }
        let group = CleanedGroup {
            replaced: group,
            size_bytes: u64::from(self.active.size_bytes),
            max_timestamp: self.active.max_timestamp,
        };
        Ok((group, self.is_changed))
    }
}

impl CleanedGroup {
    /// The name of the new segment, which is that of the first one.
    pub(super) fn base_offset(&self) -> i64 {
        self.replaced.first().map_or(0, |first| first.base_offset)
    }

    /// Where it ends (exclusive), though its last batch may end before.
    pub(super) fn end_offset(&self) -> i64 {
        self.replaced.last().map_or(0, |last| last.end_offset)
    }
}
