//! Removing what is too old or too much, and moving the log start.
//!
//! Called by: the append thread on the retention ticker and for DeleteRecords. Calls: `log`.
//! Invariant: only whole segments below the caller's limit go, oldest first, and the log start
//! never falls. Does not know the clock or the high watermark; both are passed in.
//!
//! ```text
//! out of the log, log start moved -> log start durable (the caller) -> files discarded -> unlinked
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{LogError, at};
use crate::log::Log;
use crate::segment::{DISCARDED, FileKind, SealedSegment, file_path};

/// What a removal took out of the log. The files still stand: the log start has to be durable
/// before [`Log::discard`] may have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Base offsets of the segments taken out.
    pub segments: Vec<i64>,
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
        self.note_timeless(now_ms);
        if !self.config.delete || !self.pending.is_empty() {
            return Ok(Removed { log_start: self.view.ends().log_start, ..Removed::default() });
        }
        if self.active_is_expired(now_ms, limit) {
            self.roll()?;
        }
        let count = self.count_expired(now_ms, limit).max(self.count_excess(limit));
        Ok(self.remove_first(count))
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

    /// Segments without any timestamp are as old as it is since they were first seen here: a restart
    /// keeps them longer, nothing makes them go earlier.
    fn note_timeless(&mut self, now_ms: i64) {
        let state = self.view.read();
        let without = state.sealed.iter().filter(|segment| segment.max_timestamp.is_none());
        let mut timeless = std::collections::BTreeMap::new();
        for segment in without {
            let base = segment.base_offset;
            timeless.insert(base, self.timeless.get(&base).copied().unwrap_or(now_ms));
        }
        drop(state);
        self.timeless = timeless;
        if self.view.read().active.size_bytes > 0 {
            self.writer.last_append_ms.get_or_insert(now_ms);
        }
    }

    fn active_is_expired(&self, now_ms: i64, limit: i64) -> bool {
        let state = self.view.read();
        let all_below = state.end <= limit && state.durable_end == state.end;
        let newest = match state.active.max_timestamp {
            Some((newest, _)) => Some(newest),
            None => self.writer.last_append_ms,
        };
        let expired = match (self.config.retention_ms, newest) {
            (Some(retention_ms), Some(newest)) => now_ms.saturating_sub(newest) > retention_ms,
            (_, _) => false,
        };
        drop(state);
        let sealed = self.view.read().sealed.len();
        all_below && expired && self.count_expired(now_ms, limit) == sealed
    }

    fn count_expired(&self, now_ms: i64, limit: i64) -> usize {
        let Some(retention_ms) = self.config.retention_ms else { return 0 };
        let expired = |segment: &Arc<SealedSegment>| {
            let known = segment.max_timestamp.map(|(newest, _)| newest);
            let newest = known.or_else(|| self.timeless.get(&segment.base_offset).copied());
            let newest = newest.unwrap_or(i64::MAX);
            segment.end_offset <= limit && now_ms.saturating_sub(newest) > retention_ms
        };
        self.view.read().sealed.iter().take_while(|segment| expired(segment)).count()
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
        Removed { segments: gone.iter().map(|segment| segment.base_offset).collect(), log_start }
    }

    /// Takes the files of segments that were removed out of the way, so that their names are free:
    /// returns the paths under which they can be unlinked whenever there is time. Readers may have
    /// them open. To be called once the log start is durable: a machine that loses power has then
    /// either all of them or knows that what is missing was below it.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn discard(&mut self, segments: &[i64]) -> Result<Vec<PathBuf>, LogError> {
        let outcome = self.discard_files(segments);
        self.note(outcome)
    }

    fn discard_files(&self, segments: &[i64]) -> Result<Vec<PathBuf>, LogError> {
        let first = {
            let state = self.view.read();
            state.sealed.first().map_or(state.active.base_offset, |s| s.base_offset)
        };
        let mut discarded = Vec::new();
        // A log that was begun anew at a lower offset meanwhile may use the names again.
        for base_offset in segments.iter().filter(|base_offset| **base_offset < first) {
            for kind in FileKind::ALL {
                let from = file_path(&self.context.directory, *base_offset, kind);
                let mut to = from.clone().into_os_string();
                to.push(DISCARDED);
                match self.context.disk.rename(&from, to.as_ref()) {
                    // Not every segment has every file.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(at(&from)(error)),
                    Ok(()) => discarded.push(to.into()),
                }
            }
        }
        Ok(discarded)
    }
}
