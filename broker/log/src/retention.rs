//! Removing what is too old or too much, and moving the log start.
//!
//! Called by: the append thread on the retention ticker and for DeleteRecords. Calls: `log`.
//! Invariant: only whole segments below the caller's limit go, oldest first, and the log start
//! never falls. Does not know the clock or the high watermark; both are passed in.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::LogError;
use crate::log::Log;
use crate::segment::{FileKind, SealedSegment, file_path};

/// What a removal took out of the log. The files still stand: readers may have them open, and
/// unlinking a large one takes a while, so the caller removes them where nobody waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files to unlink, in this order.
    pub files: Vec<PathBuf>,
    /// Segments taken out.
    pub segments: usize,
    /// The log start now in force.
    pub log_start: i64,
}

impl Log {
    /// Takes out segments that are older than `retention.ms` or beyond `retention.bytes`, none of
    /// which reaches above `limit` (the high watermark). When everything is too old, the active
    /// segment is sealed first and goes too.
    ///
    /// # Errors
    /// [`LogError`] from sealing.
    pub fn apply_retention(&mut self, now_ms: i64, limit: i64) -> Result<Removed, LogError> {
        self.refuse_unusable()?;
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms);
        if !self.config.delete || !self.pending.is_empty() {
            return Ok(Removed { log_start: self.view.ends().log_start, ..Removed::default() });
        }
        if self.active_is_expired(now_ms, limit) {
            self.roll()?;
        }
        let count = self.count_expired(now_ms, limit).max(self.count_excess(limit));
        Ok(self.remove_first(count.max(self.count_below_start())))
    }

    /// Moves the log start to `offset` (at most `limit`, the high watermark), and takes out the
    /// segments that lie whole below it.
    pub fn advance_log_start(&mut self, offset: i64, limit: i64) -> Removed {
        let count = {
            let mut state = self.view.write();
            let offset = offset.min(limit).min(state.durable_end);
            state.log_start = state.log_start.max(offset);
            let log_start = state.log_start;
            state.epochs.truncate_from_start(log_start);
            state.sealed.partition_point(|segment| segment.end_offset <= log_start)
        };
        self.dirty.epochs = true;
        self.remove_first(count)
    }

    fn active_is_expired(&self, now_ms: i64, limit: i64) -> bool {
        let state = self.view.read();
        let all_below = state.end <= limit && state.durable_end == state.end;
        let expired = match (self.config.retention_ms, state.active.max_timestamp) {
            (Some(retention_ms), Some((newest, _))) => now_ms.saturating_sub(newest) > retention_ms,
            (_, _) => false,
        };
        drop(state);
        let sealed = self.view.read().sealed.len();
        all_below && expired && self.count_expired(now_ms, limit) == sealed
    }

    fn count_expired(&self, now_ms: i64, limit: i64) -> usize {
        let Some(retention_ms) = self.config.retention_ms else { return 0 };
        let expired = |segment: &Arc<SealedSegment>| {
            let newest = segment.max_timestamp.map_or(i64::MAX, |(newest, _)| newest);
            segment.end_offset <= limit && now_ms.saturating_sub(newest) > retention_ms
        };
        self.view.read().sealed.iter().take_while(|segment| expired(segment)).count()
    }

    /// Segments that the log start had left behind when the files were still there at the last stop.
    fn count_below_start(&self) -> usize {
        let state = self.view.read();
        state.sealed.partition_point(|segment| segment.end_offset <= state.log_start)
    }

    fn count_excess(&self, limit: i64) -> usize {
        let Some(retention_bytes) = self.config.retention_bytes else { return 0 };
        let mut excess = self.view.size_bytes().saturating_sub(retention_bytes);
        let state = self.view.read();
        let mut count = 0_usize;
        for segment in &state.sealed {
            if segment.size_bytes > excess || segment.end_offset > limit {
                break;
            }
            excess = excess.saturating_sub(segment.size_bytes);
            count = count.saturating_add(1);
        }
        count
    }

    fn remove_first(&mut self, count: usize) -> Removed {
        let mut state = self.view.write();
        let durable = state.durable_end;
        let below = state.sealed.partition_point(|segment| segment.end_offset <= durable);
        let count = count.min(below);
        let gone: Vec<_> = state.sealed.drain(..count).collect();
        let first = state.sealed.first().map_or(state.active.base_offset, |s| s.base_offset);
        state.log_start = state.log_start.max(first.min(durable));
        let log_start = state.log_start;
        state.epochs.truncate_from_start(log_start);
        state.check();
        drop(state);
        self.dirty.epochs |= count > 0;
        let directory = &self.context.directory;
        let files = gone.iter().flat_map(|segment| {
            FileKind::ALL.map(|kind| file_path(directory, segment.base_offset, kind))
        });
        Removed { files: files.collect(), segments: count, log_start }
    }
}
