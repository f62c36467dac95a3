//! Appending: admit batch by batch, then write them all at once.
//!
//! Called by: the append thread. Calls: `producer`, `view`, the disk.
//! Invariant: admitted batches rise from the log's end, a leader's without gaps, and what is written is
//! exactly what was admitted. Does not know acknowledgements.
//!
//! ```text
//! admit_client(batch 1) -> offset 40     the caller patches offset and epoch into its buffer
//! admit_client(batch 2) -> offset 43
//! write([buffer 1, buffer 2])            one vectored write, then published
//! ```

use std::io::IoSlice;

use crate::batch::BatchMeta;
use crate::error::LogError;
use crate::log::Log;
use crate::producer::{Duplicate, SequenceError};

/// What became of a client's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It gets this base offset; patch it in and hand the buffer to [`Log::write`].
    Assigned {
        /// Offset of its first record.
        base_offset: i64,
    },
    /// It is in the log already: answer as then, write nothing.
    Duplicate(Duplicate),
    /// Write what was admitted so far, then ask again: this batch begins a new segment.
    WriteFirst,
    /// The producer's epoch or sequence forbids it.
    Rejected(SequenceError),
}

impl Log {
    /// Asks for a place for a client's batch; `meta`'s offset and epoch are set to those it gets.
    ///
    /// # Errors
    /// [`LogError::BatchTooLarge`], [`LogError::Damaged`], [`LogError::Failed`], and
    /// [`LogError::Disk`] from a roll.
    pub fn admit_client(
        &mut self,
        meta: &mut BatchMeta,
        leader_epoch: i32,
        now_ms: i64,
    ) -> Result<Admission, LogError> {
        self.refuse_unusable()?;
        self.refuse_too_large(meta)?;
        match self.producers.check(meta) {
            Ok(None) => {}
            Ok(Some(duplicate)) => return Ok(Admission::Duplicate(duplicate)),
            Err(error) => return Ok(Admission::Rejected(error)),
        }
        meta.base_offset = self.next_offset;
        meta.leader_epoch = leader_epoch;
        if self.must_roll(meta, now_ms) {
            if !self.pending.is_empty() {
                return Ok(Admission::WriteFirst);
            }
            self.roll()?;
        }
        self.admit(meta, now_ms);
        Ok(Admission::Assigned { base_offset: meta.base_offset })
    }

    /// Whether something of its producer is missing before a client's batch, or may be as nothing is known of that producer.
    #[must_use]
    pub fn leaves_gap(&self, meta: &BatchMeta) -> bool {
        self.producers.leaves_gap(meta)
    }

    /// Takes a batch fetched from the leader, its offset and epoch given. `Ok(false)` means: write
    /// what was admitted so far, then ask again.
    ///
    /// One that begins above the log's end is taken whatever the settings say: what compaction left
    /// out at the leader stays out though the topic is not compacted any more. That there are gaps is
    /// durable before the first is taken, for the next start would else see damage in it.
    ///
    /// # Errors
    /// [`LogError::OffsetsFell`] and [`LogError::EpochFell`] when it does not continue the log;
    /// otherwise as [`Log::admit_client`].
    pub fn admit_replicated(&mut self, meta: &BatchMeta, now_ms: i64) -> Result<bool, LogError> {
        // Whatever its size: the leader took it, perhaps under other settings.
        self.refuse_unusable()?;
        let end_offset = self.next_offset;
        if meta.base_offset < end_offset {
            return Err(LogError::OffsetsFell { found: meta.base_offset, end_offset });
        }
        let latest = self.pending.last().map(|last| last.leader_epoch);
        let latest = latest.or_else(|| self.view.latest_epoch()).unwrap_or(-1);
        if meta.leader_epoch < latest {
            return Err(LogError::EpochFell { found: meta.leader_epoch, latest });
        }
        if meta.base_offset > end_offset && self.progress.is_none() {
            let noted = self.set_progress(0);
            self.note(noted)?;
        }
        if self.must_roll(meta, now_ms) {
            if !self.pending.is_empty() {
                return Ok(false);
            }
            self.roll()?;
        }
        self.admit(meta, now_ms);
        Ok(true)
    }

    /// Writes the admitted batches, whose bytes `parts` are in order, and publishes them to
    /// readers. Durable only after a sync.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more and what was admitted is lost.
    pub fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<(), LogError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let given: usize = parts.iter().map(|part| part.len()).sum();
        assert_eq!(given, self.pending_bytes as usize, "bytes written are not those admitted");
        let outcome = self.write_pending(parts);
        self.note(outcome)
    }

    fn write_pending(&mut self, parts: &[IoSlice<'_>]) -> Result<(), LogError> {
        let position = self.view.read().active.size_bytes;
        let written = self.writer.file.write_at(u64::from(position), parts);
        written.map_err(crate::error::at(&self.context.directory))?;
        self.dirty.active = true;
        self.is_as_sealed = false;
        let mut state = self.view.write();
        let epoch_before = state.epochs.latest();
        state.publish(&self.pending, &mut self.writer.index);
        self.dirty.epochs |= state.epochs.latest() != epoch_before;
        drop(state);
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    fn admit(&mut self, meta: &BatchMeta, now_ms: i64) {
        self.producers.record(meta);
        self.writer.sum.push(meta);
        self.writer.first_append_ms.get_or_insert(now_ms);
        self.writer.last_append_ms = Some(now_ms);
        self.pending.push(*meta);
        self.pending_bytes = self.pending_bytes.saturating_add(meta.size_bytes);
        self.next_offset = meta.next_offset();
    }

    fn refuse_too_large(&self, meta: &BatchMeta) -> Result<(), LogError> {
        let (size_bytes, segment_bytes) = (meta.size_bytes, self.config.segment_bytes);
        if size_bytes > segment_bytes {
            return Err(LogError::BatchTooLarge { size_bytes, segment_bytes });
        }
        Ok(())
    }

    /// Whether the active segment must be sealed before `meta`.
    fn must_roll(&self, meta: &BatchMeta, now_ms: i64) -> bool {
        let (size_bytes, index_entries) = {
            let state = self.view.read();
            (state.active.size_bytes, state.active.indexes.offsets.len())
        };
        let used = u64::from(size_bytes).saturating_add(u64::from(self.pending_bytes));
        let grown = used.saturating_add(u64::from(meta.size_bytes));
        let span = meta.last_offset().saturating_sub(self.writer.base_offset);
        let index_bytes = index_entries.saturating_mul(crate::index::OFFSET_ENTRY_BYTES);
        used > 0
            && (grown > u64::from(self.config.segment_bytes)
                || span > i64::from(i32::MAX)
                || index_bytes >= self.config.segment_index_bytes as usize
                || self.is_aged(meta, now_ms))
    }

    fn is_aged(&self, meta: &BatchMeta, now_ms: i64) -> bool {
        let age_ms = match self.writer.sum.first_timestamp() {
            Some(first) if first >= 0 && meta.max_timestamp >= 0 => {
                meta.max_timestamp.saturating_sub(first)
            }
            Some(_) | None => now_ms.saturating_sub(self.writer.first_append_ms.unwrap_or(now_ms)),
        };
        age_ms > self.config.segment_ms
    }
}
