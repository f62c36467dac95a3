//! Reading a segment back into what the writer knows of it: indexes, sum, producers.
//!
//! Called by: `recovery` (checking CRCs), `truncate` (headers only). Calls: `scan`, `segment`.
//! Invariant: what comes out is what appending the same batches would have left; nothing is cut.

use coordinator_disk::{OpenMode, small_file};

use crate::batch::BatchMeta;
use crate::config::LogConfig;
use crate::dense::DenseTail;
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, at};
use crate::log::{LogContext, Writer};
use crate::producer::ProducerStates;
use crate::recent::{PRODUCERS_FILE, RecentProducers};
use crate::scan::{CheckedWalk, Found, HeaderWalk, Step};
use crate::segment::{
    FileKind, IndexBuilder, Indexes, file_path, load_indexes, open_log, parse_name,
};
use crate::snapshot;
use crate::sum::{SegmentSum, SumBuilder};
use crate::view::{ActiveView, LogView};

/// A segment read back as the active one.
pub(crate) struct Rebuilt {
    pub active: ActiveView,
    pub writer: Writer,
    /// Offset behind the last good batch.
    pub end: i64,
    /// Bytes that are no good batch, from `active.size_bytes` on.
    pub bad_bytes: u64,
}

/// Which part of which segment to read.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub base_offset: i64,
    /// Batches that reach to or above this offset are left out.
    pub limit: i64,
}

/// What batches must agree with beside their own CRC.
pub(crate) struct Expectation<'a> {
    /// Whether offsets may have gaps.
    pub compact: bool,
    /// Epoch of the batch before the segment.
    pub epoch_before: i32,
    /// The stored epochs, if any.
    pub epochs: Option<&'a LeaderEpochs>,
    /// The epochs of everything below this were stored before it was counted as durable.
    pub durable_end: i64,
}

/// Reads headers up to the limit. The file keeps its length.
pub(crate) fn by_headers(
    context: &LogContext,
    config: &LogConfig,
    extent: Extent,
) -> Result<Rebuilt, LogError> {
    let mut rebuilt = Rebuilt::empty(context, config, extent.base_offset)?;
    let path = file_path(&context.directory, extent.base_offset, FileKind::Log);
    let file = rebuilt.active.file.clone();
    let length = file.len().map_err(at(&path))?;
    let mut walk = HeaderWalk::new(&*file, 0, length);
    while let Some(found) = walk.next_batch().map_err(at(&path))? {
        if found.meta.last_offset() >= extent.limit {
            break;
        }
        rebuilt.push(&found);
    }
    Ok(rebuilt)
}

/// Reads and checks every batch; stops at the first that is not good.
pub(crate) fn by_checking(
    context: &LogContext,
    config: &LogConfig,
    base_offset: i64,
    expectation: &Expectation<'_>,
) -> Result<Rebuilt, LogError> {
    let mut rebuilt = Rebuilt::empty(context, config, base_offset)?;
    let path = file_path(&context.directory, base_offset, FileKind::Log);
    let file = rebuilt.active.file.clone();
    let length = file.len().map_err(at(&path))?;
    let mut walk = CheckedWalk::new(&*file, 0, length);
    let mut epoch = expectation.epoch_before;
    while let Step::Batch(found) = walk.next_step().map_err(at(&path))? {
        if !expectation.is_met(&found.meta, rebuilt.end, epoch) {
            break;
        }
        epoch = found.meta.leader_epoch;
        rebuilt.push(&found);
    }
    rebuilt.bad_bytes = length.saturating_sub(u64::from(rebuilt.active.size_bytes));
    Ok(rebuilt)
}

/// Takes a segment as its sum describes it. The indexes are only read for one that goes on
/// (`active`); `None` when they cannot be.
pub(crate) fn by_sum(
    context: &LogContext,
    config: &LogConfig,
    sum: &SegmentSum,
    active: bool,
) -> Result<Option<Rebuilt>, LogError> {
    let mut rebuilt = Rebuilt::empty(context, config, sum.base_offset)?;
    let loaded = match active {
        true => load_indexes(&*context.disk, &context.directory, sum.base_offset, sum.log_bytes),
        false => Some(Indexes::default()),
    };
    let (Some(indexes), Ok(size_bytes)) = (loaded, u32::try_from(sum.log_bytes)) else {
        return Ok(None);
    };
    let last_delta = (sum.log_bytes > 0)
        .then(|| rebuilt.writer.index.delta_of(sum.end_offset.saturating_sub(1)));
    rebuilt.active.dense = DenseTail::starting_behind(last_delta, size_bytes);
    rebuilt.writer.index =
        IndexBuilder::resume(sum.base_offset, config.index_interval_bytes, sum.max_timestamp);
    rebuilt.writer.sum = SumBuilder::resume(sum);
    rebuilt.active.indexes = indexes;
    rebuilt.active.size_bytes = size_bytes;
    rebuilt.active.max_timestamp = sum.max_timestamp;
    rebuilt.end = sum.end_offset;
    Ok(Some(rebuilt))
}

/// Producer state at the log's end: as the last close left it, or from the latest snapshot and the
/// headers behind it.
pub(crate) fn producers(context: &LogContext, view: &LogView) -> Result<ProducerStates, LogError> {
    let directory = &context.directory;
    let (sealed, active, end) = {
        let state = view.read();
        let active = (state.active.base_offset, state.active.file.clone());
        (state.sealed.clone(), (active.0, active.1, state.active.size_bytes), state.end)
    };
    let path = directory.join(PRODUCERS_FILE);
    let closed = small_file::read(&*context.disk, &path).map_err(at(&path))?;
    if let Some(states) = closed.and_then(|bytes| RecentProducers::decode(&bytes, end)) {
        return Ok(states);
    }
    let (mut states, from) = latest_snapshot(context, end)?;
    let sealed = sealed
        .iter()
        .filter(|segment| segment.end_offset > from)
        .map(|segment| (segment.base_offset, segment.file.clone(), segment.size_bytes));
    let active = std::iter::once((active.0, active.1, u64::from(active.2)));
    for (base_offset, file, size_bytes) in sealed.chain(active.filter(|_| end > from)) {
        let path = file_path(directory, base_offset, FileKind::Log);
        let mut walk = HeaderWalk::new(&*file, 0, size_bytes);
        while let Some(found) = walk.next_batch().map_err(at(&path))? {
            if found.meta.base_offset >= from {
                states.record(&found.meta);
            }
        }
    }
    Ok(states)
}

/// The newest snapshot at or below `end` that can be read, and its offset.
fn latest_snapshot(context: &LogContext, end: i64) -> Result<(ProducerStates, i64), LogError> {
    let directory = &context.directory;
    let entries = context.disk.list(directory).map_err(at(directory))?;
    let snapshots = entries.iter().rev().filter_map(|entry| parse_name(&entry.name));
    for (offset, kind) in snapshots {
        if kind != FileKind::Snapshot || offset > end {
            continue;
        }
        let path = file_path(directory, offset, kind);
        let bytes = small_file::read(&*context.disk, &path).map_err(at(&path))?;
        if let Some(Ok(states)) = bytes.map(|bytes| snapshot::decode(&bytes)) {
            return Ok((states, offset));
        }
    }
    Ok((ProducerStates::default(), 0))
}

impl Rebuilt {
    fn empty(context: &LogContext, config: &LogConfig, base_offset: i64) -> Result<Self, LogError> {
        let directory = &context.directory;
        let file = open_log(&*context.disk, directory, base_offset, OpenMode::ReadWrite)?;
        let writer = Writer::new(base_offset, file.clone(), config.index_interval_bytes);
        let active = ActiveView::new(base_offset, file);
        Ok(Self { active, writer, end: base_offset, bad_bytes: 0 })
    }

    fn push(&mut self, found: &Found) {
        self.writer.sum.push(&found.meta);
        self.active.push(&found.meta, &mut self.writer.index);
        self.end = found.meta.next_offset();
    }
}

impl Expectation<'_> {
    /// Whether a batch fits behind one that ended at `end` under `epoch`.
    fn is_met(&self, meta: &BatchMeta, end: i64, epoch: i32) -> bool {
        let contiguous = meta.base_offset == end || (self.compact && meta.base_offset > end);
        let stored = self.epochs.and_then(|epochs| {
            let stored = epochs.epoch_of(meta.base_offset)?;
            // Behind the last stored epoch a later one may have begun that was not stored yet.
            let open = meta.base_offset >= self.durable_end
                && epochs.latest().is_some_and(|latest| latest.epoch == stored);
            Some((stored, open))
        });
        let agrees = stored.is_none_or(|(stored, open)| {
            meta.leader_epoch == stored || (open && meta.leader_epoch > stored)
        });
        contiguous && meta.leader_epoch >= epoch && agrees
    }
}
