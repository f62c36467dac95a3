//! Cutting a log's end, and beginning it anew elsewhere.
//!
//! Called by: the append thread when a follower's log diverged from its leader's, and to repair
//! damage. Calls: `marks`, `recovery` (rebuilding one segment), `view`.
//! Invariant: first the generation rises, so that rounds under way count no more; then the mark is
//! lowered and synced; only then is anything cut. Does not know why.

use std::io::IoSlice;

use bytes::Bytes;
use client_protocol::records::{BATCH_HEADER_BYTES, BatchHeader, retain_records};
use client_protocol::{LeaderEpoch, Offset};

use crate::batch::BatchMeta;
use crate::checkpoint;
use crate::epochs::LeaderEpochs;
use crate::error::{LogError, at};
use crate::log::{Log, Writer, fresh_state, marks_error};
use crate::rebuild::{self, Extent};
use crate::recent::PRODUCERS_FILE;
use crate::scan::HeaderWalk;
use crate::segment::{FileKind, file_path, parse_name, remove_file};

/// Where a cut is made.
struct CutPlace {
    /// The segment that will be the last one.
    segment: i64,
    /// The end that whole batches leave there.
    whole: i64,
    /// The log's new end: above `whole` where compaction took what was before it.
    end: i64,
    /// Whether something that cannot be read stands where batches were to be kept.
    is_damaged: bool,
}

/// A batch of no records and no producer.
fn empty_batch(
    base_offset: i64,
    last_offset_delta: i32,
    (epoch, timestamp): (i32, i64),
) -> Option<Bytes> {
    let header = BatchHeader {
        base_offset: Offset::new(base_offset),
        size: BATCH_HEADER_BYTES,
        leader_epoch: Some(LeaderEpoch::new(epoch)),
        crc: 0,
        attributes: 0,
        last_offset_delta,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: None,
        producer_epoch: None,
        base_sequence: -1,
        record_count: 0,
    };
    retain_records(&header, std::iter::empty(), None, |codec, bytes| (codec, bytes))
}

impl Log {
    /// Cuts everything from `end` (exclusive) on; a batch that reaches across goes whole. Returns
    /// the log's new end, at most `end`: below it only where a batch reached across, or where what was
    /// to be kept turns out to be damaged, though compaction may have left nothing right before it. Of damage it notes, as [`Log::cut_damage`],
    /// that the log lost part of what was durable. The cut itself is durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn truncate_to(&mut self, end: i64) -> Result<i64, LogError> {
        if self.failed {
            return Err(LogError::Failed { path: self.context.directory.clone() });
        }
        assert!(self.pending.is_empty(), "{} batches admitted at a cut", self.pending.len());
        if end >= self.next_offset && self.damage.is_none() {
            return Ok(self.next_offset);
        }
        let outcome = self.cut(end.min(self.next_offset));
        self.note(outcome)
    }

    /// Cuts what cannot be read, to be fetched again from the leader, and notes that the log lost
    /// part of what was durable until [`Log::set_caught_up`]. Returns the new end.
    ///
    /// # Errors
    /// As [`Log::truncate_to`].
    pub fn cut_damage(&mut self) -> Result<i64, LogError> {
        let Some(damage) = self.damage else { return Ok(self.next_offset) };
        let noted = self.note_loss();
        self.note(noted)?;
        self.truncate_to(damage.from_offset)
    }

    fn note_loss(&self) -> Result<(), LogError> {
        let noted = self.context.marks.set_cut_below(self.mark_id, true);
        noted.map_err(|error| marks_error(&self.context.directory, error))
    }

    /// Notes that the log has again all that it had lost.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn set_caught_up(&mut self) -> Result<(), LogError> {
        let noted = self.context.marks.set_cut_below(self.mark_id, false);
        let noted = noted.map_err(|error| marks_error(&self.context.directory, error));
        self.note(noted)
    }

    /// Whether the log lost part of what was durable and has not caught up.
    pub fn cut_below_mark(&self) -> bool {
        self.damage.is_some() || self.context.marks.cut_below(self.mark_id)
    }

    /// Lowers the log's mark as far as it goes, before anything says that the log starts elsewhere: whoever stops in between keeps all that is
    /// there, and nothing of it is missed. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn prepare_restart(&mut self) -> Result<(), LogError> {
        self.view.raise_generation();
        let lowered = self.context.marks.lower(self.mark_id, 0);
        let lowered = lowered.map_err(|error| marks_error(&self.context.directory, error));
        self.note(lowered)
    }

    /// Empties the log and begins it at `offset`: for a follower whose leader's log starts above
    /// its own end. Durable when it returns.
    ///
    /// # Errors
    /// As [`Log::truncate_to`].
    pub fn restart_at(&mut self, offset: i64) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed { path: self.context.directory.clone() });
        }
        assert!(self.pending.is_empty(), "{} batches admitted at a restart", self.pending.len());
        let outcome = self.restart_files(offset);
        self.note(outcome)
    }

    fn cut(&mut self, end: i64) -> Result<i64, LogError> {
        let directory = self.context.directory.clone();
        self.view.raise_generation();
        self.is_as_sealed = false;
        let place = self.cut_place(end)?;
        if place.is_damaged {
            self.note_loss()?;
        }
        let (keep, end) = (place.segment, place.whole);
        let former = self.view.ends();
        let epoch_before = self.view.epochs().epoch_of(place.end.saturating_sub(1));
        self.lower_progress(end)?;
        if !planted!(self.config.planted, KeepMarkWhenTruncating) {
            let lowered = self.context.marks.lower(self.mark_id, end);
            lowered.map_err(|error| marks_error(&directory, error))?;
        }
        // Before the log, so that what is appended next never disagrees with the stored epochs.
        let mut epochs = self.view.epochs();
        epochs.truncate_from_end(end);
        self.write_epochs(&epochs)?;
        self.remove_files(|base_offset, kind| match kind {
            // A producer snapshot holds what lies below its name.
            FileKind::Snapshot => base_offset > end,
            FileKind::Sum | FileKind::Index | FileKind::TimeIndex => base_offset >= keep,
            FileKind::Log => base_offset > keep,
        })?;
        self.reopen_segment(keep, end)?;
        let filled = match epoch_before {
            Some(epoch) if place.end > self.next_offset => self.fill_gap(place.end, epoch)?,
            Some(_) | None => false,
        };
        let disk = &self.context.disk;
        self.writer.file.sync().map_err(at(&directory))?;
        disk.sync_dir(&directory).map_err(at(&directory))?;
        if filled {
            // Nothing that was durable is gone below the new end, and what stands for the gap is synced.
            let mut state = self.view.write();
            state.durable_end = former.durable_end.min(place.end);
            state.log_start = former.log_start.min(place.end);
            // What fills the gap may begin below the start; no epoch does.
            let log_start = state.log_start;
            state.epochs.truncate_from_start(log_start);
            drop(state);
            self.dirty.epochs = true;
        }
        self.forget_damage()?;
        // A round that is under way tells nothing of this log any more: what is left above the durable end has to be asked for anew. Its
        // files were named by tickets before, which end before the next one does.
        self.dirty.active |= self.view.ends().durable_end < self.next_offset;
        self.check();
        Ok(self.next_offset)
    }

    /// What could not be read is cut.
    fn forget_damage(&mut self) -> Result<(), LogError> {
        self.damage = None;
        let noted = self.context.marks.set_damage(self.mark_id, None);
        noted.map_err(|error| marks_error(&self.context.directory, error))
    }

    /// Writes a batch without records behind the last one, up to `end` (exclusive). What compaction
    /// took there is not lost: the log must not end before it, for replicas hold it to be committed, and
    /// a follower that is behind has to find the way over it.
    fn fill_gap(&mut self, end: i64, epoch: i32) -> Result<bool, LogError> {
        let base_offset = self.next_offset;
        let newest = self.view.read().active.max_timestamp.map_or(-1, |(newest, _)| newest);
        let bytes = i32::try_from(end.saturating_sub(base_offset).saturating_sub(1))
            .ok()
            .and_then(|delta| empty_batch(base_offset, delta, (epoch, newest)));
        let meta = bytes.as_deref().and_then(BatchMeta::parse);
        let (Some(bytes), Some(meta)) = (bytes, meta) else { return Ok(false) };
        self.writer.sum.push(&meta);
        self.pending.push(meta);
        self.pending_bytes = meta.size_bytes;
        self.next_offset = meta.next_offset();
        self.write(&[IoSlice::new(&bytes)])?;
        Ok(true)
    }

    /// Where a cut at `end` is made.
    fn cut_place(&self, end: i64) -> Result<CutPlace, LogError> {
        let (base_offset, file, size_bytes) = {
            let state = self.view.read();
            let after = state.sealed.partition_point(|segment| segment.base_offset <= end);
            let last = after.checked_sub(1).and_then(|at| state.sealed.get(at));
            match last {
                Some(sealed) if end < state.active.base_offset => {
                    (sealed.base_offset, sealed.file.clone(), sealed.size_bytes)
                }
                _ => {
                    let active = &state.active;
                    (active.base_offset, active.file.clone(), u64::from(active.size_bytes))
                }
            }
        };
        let path = file_path(&self.context.directory, base_offset, FileKind::Log);
        let mut walk = HeaderWalk::new(&*file, 0, size_bytes);
        let (mut whole, mut place, mut is_met) = (base_offset, end, false);
        while let Some(found) = walk.next_batch().map_err(at(&path))? {
            if found.meta.last_offset() >= end {
                (place, is_met) = (found.meta.base_offset.min(end), true);
                break;
            }
            whole = found.meta.next_offset();
        }
        // What is damaged already was noted when it was found.
        let is_damaged = self.damage.is_none() && !is_met && !walk.is_at_end();
        // Elsewhere there are no gaps, and what lies behind damage is not known.
        let has_gaps = self.progress.is_some() && self.damage.is_none() && !is_damaged;
        let is_damaged = is_damaged || (self.damage.is_none() && !has_gaps && whole < place);
        let end = if has_gaps { place.max(whole) } else { whole };
        Ok(CutPlace { segment: base_offset, whole, end, is_damaged })
    }

    /// Makes the segment at `base_offset` the active one, cut at `end`.
    fn reopen_segment(&mut self, base_offset: i64, end: i64) -> Result<(), LogError> {
        let extent = Extent { base_offset, limit: end };
        let parts = rebuild::by_headers(&self.context, &self.config, extent)?;
        let new_end = parts.end;
        let size_bytes = u64::from(parts.active.size_bytes);
        parts.active.file.truncate(size_bytes).map_err(at(&self.context.directory))?;
        {
            let mut state = self.view.write();
            state.sealed.retain(|segment| segment.base_offset < base_offset);
            state.active = parts.active;
            state.epochs.truncate_from_end(new_end);
            state.end = new_end;
            state.durable_end = state.durable_end.min(new_end);
            state.log_start = state.log_start.min(new_end);
        }
        self.writer = parts.writer;
        self.next_offset = new_end;
        remove_file(&*self.context.disk, &self.context.directory.join(PRODUCERS_FILE))?;
        self.producers = rebuild::producers(&self.context, &self.view)?;
        Ok(())
    }

    fn restart_files(&mut self, offset: i64) -> Result<(), LogError> {
        let directory = self.context.directory.clone();
        self.prepare_restart()?;
        self.is_as_sealed = false;
        self.lower_progress(0)?;
        self.write_epochs(&LeaderEpochs::default())?;
        self.remove_files(|_, _| true)?;
        remove_file(&*self.context.disk, &directory.join(PRODUCERS_FILE))?;
        let disk = &self.context.disk;
        let mode = coordinator_disk::OpenMode::Create;
        let file = crate::segment::open_log(&**disk, &directory, offset, mode)?;
        disk.sync_dir(&directory).map_err(at(&directory))?;
        self.writer = Writer::new(offset, file.clone(), self.config.index_interval_bytes);
        self.producers = crate::producer::ProducerStates::default();
        self.next_offset = offset;
        self.forget_damage()?;
        *self.view.write() = fresh_state(offset, file);
        self.dirty.active = true;
        self.check();
        Ok(())
    }

    fn write_epochs(&mut self, epochs: &LeaderEpochs) -> Result<(), LogError> {
        self.dirty.epochs = false;
        let bytes = checkpoint::encode_epochs(epochs);
        checkpoint::write_epochs(&*self.context.disk, &self.context.directory, &bytes)
    }

    fn remove_files(&self, gone: impl Fn(i64, FileKind) -> bool) -> Result<(), LogError> {
        let directory = &self.context.directory;
        let disk = &*self.context.disk;
        let mut files: Vec<_> = disk
            .list(directory)
            .map_err(at(directory))?
            .iter()
            .filter_map(|entry| parse_name(&entry.name))
            .filter(|(base_offset, kind)| gone(*base_offset, *kind))
            .collect();
        // From the end on, so that a crash in between leaves a log without a hole.
        files.sort_by_key(|(base_offset, _)| std::cmp::Reverse(*base_offset));
        for (base_offset, kind) in files {
            remove_file(disk, &file_path(directory, base_offset, kind))?;
        }
        Ok(())
    }
}
