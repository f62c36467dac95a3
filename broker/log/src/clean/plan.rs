//! Whether a log is to be cleaned, and what of it.
//!
//! Called by: the append thread. Calls: `scan`.
//! Invariant: only sealed segments that lie whole below the limit are touched, from the log's first
//! one on, and one cleaning of a log is under way at a time: two would write files of the same names,
//! so a cut does not end one, it only makes it come to nothing. Reads no more of files than the first header of one.

use std::collections::HashMap;
use std::sync::Arc;

use super::pass::Work;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::Log;
use crate::producer::ProducerState;
use crate::scan::HeaderWalk;
use crate::segment::SealedSegment;

/// Work for a cleaner: [`CleaningPlan::run`] does a step of it, on any thread, and [`Log::swap_cleaned`]
/// takes what comes out, and gives what is left to be done.
pub struct CleaningPlan {
    pub(super) work: Work,
}

/// Where the cleaning of a log stands. Each state but the first names the log's truncations when it
/// was planned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// None is under way.
    #[default]
    Idle,
    /// One is, until its outcome is told.
    UnderWay(u64),
    /// It came to nothing and would again, as long as the log stands as it did then.
    InVain(u64),
}

/// What of a log can be cleaned now.
struct Cleanable {
    segments: Vec<Arc<SealedSegment>>,
    clean_bytes: u64,
    dirty_bytes: u64,
    /// A record waited longer than `max.compaction.lag.ms`.
    is_overdue: bool,
}

impl Log {
    /// What to clean now, if it is worth while: when more than `min.cleanable.dirty.ratio` of what can
    /// be cleaned is dirty, or something has waited for longer than `max.compaction.lag.ms`. Nothing at
    /// or above `limit` (the high watermark) is touched. Until [`Log::swap_cleaned`] gives no rest or
    /// [`Log::give_up_cleaning`] is called there is no other.
    ///
    /// # Errors
    /// [`LogError`] from sealing a segment whose records waited too long.
    pub fn plan_cleaning(
        &mut self,
        now_ms: i64,
        limit: i64,
    ) -> Result<Option<CleaningPlan>, LogError> {
        self.refuse_unusable()?;
        if !self.config.compact || !self.may_clean() || !self.pending.is_empty() {
            return Ok(None);
        }
        self.roll_if_overdue(now_ms)?;
        let cleanable = self.cleanable(now_ms, limit);
        if !cleanable.is_due(&self.config) {
            return Ok(None);
        }
        self.cleaning = Cleaning::UnderWay(self.view.generation());
        let context = &self.context;
        let producers = self.producers.sorted().into_iter();
        let last_batches = producers.map(|(id, state)| (id, last_below(limit, state)));
        let work = Work {
            disk: Arc::clone(&context.disk),
            directory: context.directory.clone(),
            view: self.view.clone(),
            generation: self.view.generation(),
            first_dirty: self.first_dirty(),
            segments: cleanable.segments,
            last_batches: Arc::new(last_batches.collect()),
            config: self.config.clone(),
            now_ms,
            stop: Arc::default(),
            so_far: None,
        };
        Ok(Some(CleaningPlan { work }))
    }

    /// The cleaning under way came to nothing, and will come to nothing again if `for_good`: then there
    /// is no other before the log was cut, which is how damage is repaired, or opened anew.
    pub fn give_up_cleaning(&mut self, for_good: bool) {
        self.cleaning = match self.cleaning {
            Cleaning::UnderWay(generation) if for_good => Cleaning::InVain(generation),
            Cleaning::UnderWay(_) | Cleaning::Idle => Cleaning::Idle,
            Cleaning::InVain(generation) => Cleaning::InVain(generation),
        };
    }

    fn may_clean(&self) -> bool {
        match self.cleaning {
            Cleaning::Idle => true,
            Cleaning::UnderWay(_) => false,
            Cleaning::InVain(generation) => generation != self.view.generation(),
        }
    }

    /// First offset that was never cleaned.
    fn first_dirty(&self) -> i64 {
        self.progress.map_or(0, |progress| progress.first_dirty)
    }

    fn roll_if_overdue(&mut self, now_ms: i64) -> Result<(), LogError> {
        let is_empty = self.view.read().active.size_bytes == 0;
        // What its first batch says outlives a restart; when it was appended does not.
        let first_ms = self.writer.sum.first_timestamp().filter(|first_ms| *first_ms >= 0);
        let first_ms = first_ms.or(self.writer.first_append_ms).unwrap_or(now_ms);
        if !is_empty && now_ms.saturating_sub(first_ms) > self.config.max_compaction_lag_ms {
            self.roll()?;
        }
        Ok(())
    }

    fn cleanable(&self, now_ms: i64, limit: i64) -> Cleanable {
        let first_dirty = self.first_dirty();
        let state = self.view.read();
        let limit = match planted!(self.config.planted, CleanAboveHighWatermark) {
            true => state.durable_end,
            false => limit.min(state.durable_end),
        };
        let mut cleanable =
            Cleanable { segments: Vec::new(), clean_bytes: 0, dirty_bytes: 0, is_overdue: false };
        for segment in &state.sealed {
            let is_dirty = segment.end_offset > first_dirty;
            let newest = segment.max_timestamp.map_or(i64::MIN, |(newest, _)| newest);
            let age_ms = now_ms.saturating_sub(newest);
            let is_young = is_dirty && age_ms < self.config.min_compaction_lag_ms;
            if segment.end_offset > limit || is_young {
                break;
            }
            let bytes = match is_dirty {
                true => &mut cleanable.dirty_bytes,
                false => &mut cleanable.clean_bytes,
            };
            *bytes = bytes.saturating_add(segment.size_bytes);
            cleanable.segments.push(Arc::clone(segment));
        }
        drop(state);
        let lag_ms = self.config.max_compaction_lag_ms;
        if lag_ms < i64::MAX {
            // The oldest record counts, not the newest: it would else wait for twice as long.
            let mut dirty = cleanable.segments.iter().filter(|one| one.end_offset > first_dirty);
            cleanable.is_overdue = dirty.next().is_some_and(|first| {
                let newest = || first.max_timestamp.map_or(i64::MIN, |(newest, _)| newest);
                let oldest = first_timestamp(first).unwrap_or_else(newest);
                now_ms.saturating_sub(oldest) > lag_ms
            });
        }
        cleanable
    }
}

/// Timestamp of a segment's first batch, milliseconds; `None` without one, or when it cannot be read.
fn first_timestamp(segment: &SealedSegment) -> Option<i64> {
    let mut walk = HeaderWalk::new(&*segment.file, 0, segment.size_bytes);
    let first = walk.next_batch().ok()??;
    Some(first.meta.max_timestamp).filter(|first_ms| *first_ms >= 0)
}

impl Cleanable {
    fn is_due(&self, config: &LogConfig) -> bool {
        let all = self.clean_bytes.saturating_add(self.dirty_bytes);
        let least = u128::from(all) * u128::from(config.min_cleanable_dirty_millionths);
        let is_dirty = u128::from(self.dirty_bytes) * 1_000_000 > least;
        self.dirty_bytes > 0 && (is_dirty || self.is_overdue)
    }
}

impl CleaningPlan {
    /// Bytes that are to be read, for whoever paces.
    pub fn bytes(&self) -> u64 {
        self.work.segments.iter().map(|segment| segment.size_bytes).sum()
    }
}

impl Work {
    /// Segments that go into one: neighbours, as many as fit into `segment.bytes`.
    pub(super) fn groups(&self, below: i64) -> Vec<Vec<Arc<SealedSegment>>> {
        let mut groups: Vec<Vec<Arc<SealedSegment>>> = Vec::new();
        let mut bytes = 0_u64;
        for segment in self.segments.iter().filter(|segment| segment.base_offset < below) {
            let grown = bytes.saturating_add(segment.size_bytes);
            let fits = groups.last().and_then(|group| group.first()).is_some_and(|first| {
                let span = segment.end_offset.saturating_sub(first.base_offset);
                grown <= u64::from(self.config.segment_bytes) && span <= i64::from(i32::MAX)
            });
            match groups.last_mut() {
                Some(group) if fits => {
                    group.push(Arc::clone(segment));
                    bytes = grown;
                }
                Some(_) | None => {
                    groups.push(vec![Arc::clone(segment)]);
                    bytes = segment.size_bytes;
                }
            }
        }
        groups
    }
}

/// Last offset of each producer's last batch that can be cleaned, by its id; none where that is not remembered.
pub(super) type LastBatches = HashMap<i64, Option<i64>>;

/// What lies at or above the limit may yet be cut: a later batch there does not stand for this one. Producers seldom have
/// more of them there than are remembered.
fn last_below(limit: i64, state: &ProducerState) -> Option<i64> {
    let mut offsets = state.batches.iter().rev().map(|batch| batch.last_offset);
    offsets.find(|last_offset| *last_offset < limit)
}
