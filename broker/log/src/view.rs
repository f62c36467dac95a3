//! What readers see of a log: its published ends, and where an offset's bytes lie.
//!
//! Called by: any thread that reads; the writer publishes. Calls: `dense`, `segment`, `scan`.
//! Invariant: `log_start <= durable_end <= end`, and everything below `end` is in the files; the
//! lock is held for memory look-ups only, never during I/O. Does not know the high watermark: its
//! caller passes the offset below which it may read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use coordinator_disk::{Disk, File};

use crate::batch::BatchMeta;
use crate::dense::DenseTail;
use crate::epochs::{EpochEnd, LeaderEpochs};
use crate::error::{LogError, at};
use crate::scan::{CheckedWalk, Found, HeaderWalk, Step};
use crate::segment::{FileKind, IndexBuilder, Indexes, NewEntries, SealedSegment, file_path};

/// A shared handle for readers; clones are cheap and see the log as it goes on.
#[derive(Clone)]
pub struct LogView {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    interval_bytes: u32,
    /// Raised by every truncation; a commit round's result counts only under its own.
    generation: AtomicU64,
    /// The folder is not this log's any more; held while a round writes there by path.
    retired: Mutex<bool>,
    state: RwLock<ViewState>,
}

/// What the writer publishes.
pub(crate) struct ViewState {
    /// Oldest first, without gaps in between.
    pub sealed: Vec<Arc<SealedSegment>>,
    pub active: ActiveView,
    pub log_start: i64,
    pub durable_end: i64,
    pub end: i64,
    pub epochs: LeaderEpochs,
}

/// The segment that is being written.
pub(crate) struct ActiveView {
    pub base_offset: i64,
    pub file: Arc<dyn File>,
    pub size_bytes: u32,
    pub indexes: Indexes,
    pub dense: DenseTail,
    pub max_timestamp: Option<(i64, i64)>,
}

/// The ends of a log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    /// First offset that may be read (inclusive).
    pub log_start: i64,
    /// Everything below it survives a power cut.
    pub durable_end: i64,
    /// Offset that the next record gets.
    pub end: i64,
}

/// What a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// First offset wanted.
    pub offset: i64,
    /// Only batches that lie whole below this offset are given: the high watermark for consumers,
    /// the log's end for followers.
    pub limit: i64,
    /// Bytes at most.
    pub bytes_max: u32,
    /// Whether the first batch is given even when it alone is larger than `bytes_max`.
    pub at_least_one: bool,
}

/// Whole batches in a file, to be sent as they are.
#[derive(Clone)]
pub struct FileSlice {
    /// The `.log` file.
    pub file: Arc<dyn File>,
    /// First byte: the start of the batch that holds the offset asked for.
    pub position: u64,
    /// Number of bytes; ends behind a batch.
    pub length: u32,
    /// Whether batches behind these, below the limit, were left out because the segment ends here
    /// or the bytes were used up.
    pub more: bool,
}

/// Answer to a [`ReadRequest`].
#[derive(Clone)]
pub enum Lookup {
    /// These bytes.
    Slice(FileSlice),
    /// Nothing below the limit yet, or not within `bytes_max`.
    Empty,
    /// The offset is not in the log.
    OutOfRange(LogEnds),
}

/// A batch found by timestamp, and where to read it.
#[derive(Clone)]
pub struct TimestampMatch {
    /// First batch whose greatest timestamp is at least the one asked for.
    pub batch: BatchMeta,
    /// The batch's bytes, for finding the record inside.
    pub slice: FileSlice,
}

/// Bounds that a cold look-up works between, taken under the lock.
struct ColdRange {
    base_offset: i64,
    /// Behind the last offset that a batch in it can have.
    end_offset: i64,
    file: Arc<dyn File>,
    size_bytes: u64,
    /// Where to begin scanning.
    from: u64,
    /// A batch boundary known to end the answer well, if one is known.
    known_end: Option<u64>,
    /// Whether more follows in a later segment.
    more: bool,
}

impl LogView {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        interval_bytes: u32,
        state: ViewState,
    ) -> Self {
        let generation = AtomicU64::new(0);
        let state = RwLock::new(state);
        let retired = Mutex::new(false);
        let shared = Shared { disk, directory, interval_bytes, generation, retired, state };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, ViewState> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, ViewState> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition's folder.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// The ends, all of one moment.
    pub fn ends(&self) -> LogEnds {
        self.read().ends()
    }

    /// Number of truncations since the log was opened.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        let state = self.read();
        let sealed: u64 = state.sealed.iter().map(|segment| segment.size_bytes).sum();
        sealed.saturating_add(u64::from(state.active.size_bytes))
    }

    /// The latest leader epoch of the records here.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.read().epochs.latest().map(|start| start.epoch)
    }

    /// All leader epochs.
    pub fn epochs(&self) -> LeaderEpochs {
        self.read().epochs.clone()
    }

    /// Where the greatest epoch at or below `epoch` ends (KIP-279); `None` when it is not known.
    pub fn end_of_epoch(&self, epoch: i32) -> Option<EpochEnd> {
        let state = self.read();
        state.epochs.end_offset_of(epoch, state.end)
    }

    /// The epoch that the record at `offset` was written under.
    pub fn epoch_of(&self, offset: i64) -> Option<i32> {
        self.read().epochs.epoch_of(offset)
    }

    /// First offset of an epoch.
    pub fn start_of_epoch(&self, epoch: i32) -> Option<i64> {
        let state = self.read();
        state.epochs.starts().iter().find(|start| start.epoch == epoch).map(|s| s.start_offset)
    }

    /// Raises the durable end after a sync, unless the log was truncated since `generation`.
    /// Returns the durable end now in force, or `None` when the result does not count.
    pub fn publish_durable(&self, generation: u64, durable_end: i64) -> Option<i64> {
        let mut state = self.write();
        if self.generation() != generation {
            return None;
        }
        state.durable_end = state.durable_end.max(durable_end);
        state.check();
        Some(state.durable_end)
    }

    pub(crate) fn retired(&self) -> MutexGuard<'_, bool> {
        self.shared.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn raise_generation(&self) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Answers from memory, without any I/O; `None` when only [`LogView::lookup`] can tell.
    pub fn lookup_hot(&self, request: &ReadRequest) -> Option<Lookup> {
        let state = self.read();
        match state.beyond(request) {
            Some(answer) => Some(answer),
            None => state.dense_slice(request),
        }
    }

    /// Answers from memory or by reading indexes and headers, which may block on the disk.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the files cannot be read, [`LogError::Damaged`] where no batch can be found in them, or
    /// where a batch's end cannot be believed.
    pub fn lookup(&self, request: &ReadRequest) -> Result<Lookup, LogError> {
        if let Some(answer) = self.lookup_hot(request) {
            return Ok(answer);
        }
        let mut from = request.offset;
        loop {
            let (segment, active) = {
                let state = self.read();
                if let Some(answer) = state.beyond(request) {
                    return Ok(answer);
                }
                match state.segment_of(from) {
                    Some(segment) => (Some(segment), None),
                    None => (None, Some(state.active_range(request))),
                }
            };
            let (range, end_offset) = match (segment, active) {
                (Some(segment), _) => {
                    (self.sealed_range(&segment, request)?, Some(segment.end_offset))
                }
                (None, Some(active)) => (active, None),
                (None, None) => return Ok(Lookup::Empty),
            };
            let path = file_path(&self.shared.directory, range.base_offset, FileKind::Log);
            match (scan_slice(&range, request).map_err(at(&path))?, end_offset) {
                (Scanned::Answer(answer), _) => return Ok(answer),
                (Scanned::NothingBehind, None) => return Ok(Lookup::Empty),
                // Compaction left nothing there at the end of the segment.
                (Scanned::NothingBehind, Some(end_offset)) => from = end_offset,
                // Whoever went on would never hear of what stands there.
                (Scanned::Unreadable, _) => {
                    return Err(LogError::Damaged { path, from_offset: request.offset });
                }
            }
        }
    }

    fn sealed_range(
        &self,
        segment: &SealedSegment,
        request: &ReadRequest,
    ) -> Result<ColdRange, LogError> {
        let indexes = segment.indexes(
            &*self.shared.disk,
            &self.shared.directory,
            self.shared.interval_bytes,
        )?;
        let whole = segment.end_offset <= request.limit;
        let mut range = ColdRange {
            base_offset: segment.base_offset,
            end_offset: segment.end_offset,
            file: Arc::clone(&segment.file),
            size_bytes: segment.size_bytes,
            from: 0,
            known_end: None,
            more: segment.end_offset < request.limit,
        };
        range.bound(&indexes, request, whole);
        Ok(range)
    }

    /// First batch at or after the log's start whose greatest timestamp is at least `timestamp`.
    /// May block on the disk.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the files cannot be read.
    pub fn find_by_timestamp(&self, timestamp: i64) -> Result<Option<TimestampMatch>, LogError> {
        let (sealed, active) = {
            let state = self.read();
            let sealed = state.sealed.iter().find(|segment| {
                segment.max_timestamp.is_some_and(|(max, _)| max >= timestamp)
                    && segment.end_offset > state.log_start
            });
            let active = &state.active;
            let delta = active.indexes.times.floor_by_timestamp(timestamp);
            let from = active.indexes.offsets.floor_by_offset(delta);
            let active = (active.base_offset, Arc::clone(&active.file), from, active.size_bytes);
            (sealed.cloned(), active)
        };
        let (base_offset, file, from, size_bytes) = match &sealed {
            Some(segment) => {
                let shared = &self.shared;
                let indexes =
                    segment.indexes(&*shared.disk, &shared.directory, shared.interval_bytes)?;
                let delta = indexes.times.floor_by_timestamp(timestamp);
                let from = indexes.offsets.floor_by_offset(delta);
                (segment.base_offset, Arc::clone(&segment.file), from, segment.size_bytes)
            }
            None => (active.0, active.1, active.2, u64::from(active.3)),
        };
        let log_start = self.ends().log_start;
        let path = file_path(&self.shared.directory, base_offset, FileKind::Log);
        let mut walk = HeaderWalk::new(&*file, u64::from(from), size_bytes);
        while let Some(found) = walk.next_batch().map_err(at(&path))? {
            if found.meta.max_timestamp >= timestamp && found.meta.last_offset() >= log_start {
                let slice = FileSlice {
                    file: Arc::clone(&file),
                    position: found.position,
                    length: found.meta.size_bytes,
                    more: false,
                };
                return Ok(Some(TimestampMatch { batch: found.meta, slice }));
            }
        }
        Ok(None)
    }

    /// Greatest timestamp in the log and the last offset of its batch.
    pub fn max_timestamp(&self) -> Option<(i64, i64)> {
        let state = self.read();
        let sealed = state.sealed.iter().filter_map(|segment| segment.max_timestamp);
        // Of equal timestamps the first counts, as in Kafka.
        sealed.chain(state.active.max_timestamp).reduce(|a, b| if b.0 > a.0 { b } else { a })
    }

    /// Header of the last batch whose last offset is at least `offset`; reads the disk.
    ///
    /// # Errors
    /// [`LogError::Disk`] when the files cannot be read.
    pub fn batch_at(&self, offset: i64) -> Result<Option<BatchMeta>, LogError> {
        let request = ReadRequest { offset, limit: i64::MAX, bytes_max: 0, at_least_one: true };
        let Lookup::Slice(slice) = self.lookup(&request)? else { return Ok(None) };
        let end = slice.position.saturating_add(u64::from(slice.length));
        let found = HeaderWalk::new(&*slice.file, slice.position, end).next_batch();
        Ok(found.map_err(at(&self.shared.directory))?.map(|found| found.meta))
    }
}

impl ColdRange {
    /// Narrows the range by the indexes; `whole` says that the limit lies behind the segment.
    fn bound(&mut self, indexes: &Indexes, request: &ReadRequest, whole: bool) {
        // Below the segment is at its beginning: a gap may end there.
        let delta = |offset: i64| {
            u32::try_from(offset.saturating_sub(self.base_offset).max(0)).unwrap_or(u32::MAX)
        };
        let from = indexes.offsets.floor_by_offset(delta(request.offset));
        let reach = from.saturating_add(request.bytes_max);
        let known_end = if whole && self.size_bytes <= u64::from(reach) {
            Some(self.size_bytes)
        } else {
            let limit = delta(request.limit);
            indexes.offsets.floor_by_position(reach, limit).map(u64::from)
        };
        self.from = u64::from(from);
        self.known_end = known_end;
    }
}

impl ActiveView {
    /// Takes a batch that stands in the file behind the last one.
    pub fn push(&mut self, meta: &BatchMeta, builder: &mut IndexBuilder) {
        let position = self.size_bytes;
        if let Some(NewEntries { offset, time }) = builder.push(meta, position) {
            self.indexes.offsets.push(offset);
            time.into_iter().for_each(|entry| self.indexes.times.push(entry));
        }
        self.dense.push(builder.delta_of(meta.last_offset()), position, meta.size_bytes);
        self.size_bytes = position.saturating_add(meta.size_bytes);
        self.max_timestamp = builder.max_timestamp().map(|max| {
            (max.timestamp, self.base_offset.saturating_add(i64::from(max.last_offset_delta)))
        });
    }
}

impl ViewState {
    pub fn ends(&self) -> LogEnds {
        LogEnds { log_start: self.log_start, durable_end: self.durable_end, end: self.end }
    }

    /// Publishes written batches; their bytes are in the file.
    pub fn publish(&mut self, metas: &[BatchMeta], builder: &mut IndexBuilder) {
        for meta in metas {
            self.active.push(meta, builder);
            self.epochs.assign(meta.leader_epoch, meta.base_offset);
            self.end = meta.next_offset();
        }
    }

    /// The answer when the offset is outside the log or at the limit.
    fn beyond(&self, request: &ReadRequest) -> Option<Lookup> {
        if request.offset < self.log_start || request.offset > self.end {
            return Some(Lookup::OutOfRange(self.ends()));
        }
        (request.offset >= request.limit.min(self.end)).then_some(Lookup::Empty)
    }

    fn dense_slice(&self, request: &ReadRequest) -> Option<Lookup> {
        let active = &self.active;
        let offset = u32::try_from(request.offset.checked_sub(active.base_offset)?).ok()?;
        let limit = request.limit.min(self.end).saturating_sub(active.base_offset);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let span = active.dense.span(offset, limit, request.bytes_max, request.at_least_one)?;
        if span.length == 0 {
            return Some(Lookup::Empty);
        }
        Some(Lookup::Slice(FileSlice {
            file: Arc::clone(&active.file),
            position: u64::from(span.position),
            length: span.length,
            more: span.more,
        }))
    }

    /// The sealed segment that holds `offset`, if it is not the active one.
    fn segment_of(&self, offset: i64) -> Option<Arc<SealedSegment>> {
        let after = self.sealed.partition_point(|segment| segment.end_offset <= offset);
        self.sealed.get(after).cloned()
    }

    fn active_range(&self, request: &ReadRequest) -> ColdRange {
        let active = &self.active;
        let mut range = ColdRange {
            base_offset: active.base_offset,
            end_offset: self.end,
            file: Arc::clone(&active.file),
            size_bytes: u64::from(active.size_bytes),
            from: 0,
            known_end: None,
            more: false,
        };
        range.bound(&active.indexes, request, self.end <= request.limit);
        range
    }

    /// Checks the inequalities.
    pub fn check(&self) {
        assert!(self.log_start <= self.durable_end, "{} {}", self.log_start, self.durable_end);
        assert!(self.durable_end <= self.end, "{} {}", self.durable_end, self.end);
        assert!(self.active.base_offset <= self.end, "{} {}", self.active.base_offset, self.end);
    }
}

/// What a walk over a range found.
enum Scanned {
    Answer(Lookup),
    /// The range ends before the offset.
    NothingBehind,
    /// Bytes before it that are no batch, or a batch whose end cannot be believed.
    Unreadable,
}

/// Walks from the range's start to the batch that holds the offset, then to the end of the answer.
fn scan_slice(range: &ColdRange, request: &ReadRequest) -> std::io::Result<Scanned> {
    let mut walk = HeaderWalk::new(&*range.file, range.from, range.size_bytes);
    let mut before = None;
    let first = loop {
        match walk.next_batch()? {
            Some(found) if found.meta.last_offset() >= request.offset => break Some(found),
            Some(found) => before = Some(found),
            None if walk.is_at_end() => break None,
            None => return Ok(Scanned::Unreadable),
        }
    };
    // The offset is in a gap, which compaction leaves; or the batch before it only says that it ends there. Its own checksum
    // tells, but for the base offset, which it leaves out.
    let is_in_gap = first.is_none_or(|first| first.meta.base_offset > request.offset);
    if let Some(before) = before.filter(|_| is_in_gap)
        && !is_sound(range, &before)?
    {
        return Ok(Scanned::Unreadable);
    }
    let Some(first) = first else { return Ok(Scanned::NothingBehind) };
    if first.meta.next_offset() > range.end_offset {
        return Ok(Scanned::Unreadable);
    }
    let fits = |found: &Found| {
        let length = found.end_position().saturating_sub(first.position);
        length <= u64::from(request.bytes_max) && found.meta.next_offset() <= request.limit
    };
    if first.meta.next_offset() > request.limit || !(request.at_least_one || fits(&first)) {
        return Ok(Scanned::Answer(Lookup::Empty));
    }
    let mut end = first.end_position();
    match range.known_end {
        Some(known) if known > end => {
            let reach = first.position.saturating_add(u64::from(request.bytes_max));
            if known <= reach {
                end = known;
            }
        }
        Some(_) | None => {
            while let Some(found) = walk.next_batch()? {
                if !fits(&found) {
                    break;
                }
                end = found.end_position();
            }
        }
    }
    Ok(Scanned::Answer(Lookup::Slice(FileSlice {
        file: Arc::clone(&range.file),
        position: first.position,
        length: u32::try_from(end.saturating_sub(first.position)).unwrap_or(u32::MAX),
        more: range.more || end < range.size_bytes,
    })))
}

/// Reads a whole batch and compares its checksum.
fn is_sound(range: &ColdRange, batch: &Found) -> std::io::Result<bool> {
    let mut walk = CheckedWalk::new(&*range.file, batch.position, batch.end_position());
    Ok(walk.next_step()? == Step::Batch(*batch))
}

pub(crate) fn indexes_at_hand(indexes: Indexes) -> OnceLock<Arc<Indexes>> {
    let lock = OnceLock::new();
    lock.get_or_init(|| Arc::new(indexes));
    lock
}
