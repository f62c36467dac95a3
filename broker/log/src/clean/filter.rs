//! Which records of a batch stay, by Kafka's rules.
//!
//! Called by: `pass`. Calls: `keys`, the codecs.
//! Invariant: a batch of which anything is not understood, or that cannot be written anew, stays
//! whole, and from then on no tombstone goes, for what it deletes might stand in that batch. Does not
//! know files.

use bytes::Bytes;
use client_protocol::pack::{pack, unpack};
use client_protocol::records::{
    BATCH_HEADER_BYTES, BatchHeader, RecordRef, RecordsIter, retain_records,
};

use super::keys::KeyOffsets;
use crate::batch::BatchMeta;

/// A batch of the log, all of it, with the right checksum.
pub struct WholeBatch {
    /// What the log keeps of its header.
    pub meta: BatchMeta,
    /// All of its header.
    pub header: BatchHeader,
    /// All bytes, header included.
    pub bytes: Bytes,
}

impl WholeBatch {
    /// Its records unpacked, if every one can be read and stands where no other does. What a producer
    /// packed was looked into by nobody when it was appended: count and offsets are what it claims.
    pub fn understood(&self) -> Option<Bytes> {
        let payload = self.bytes.slice(BATCH_HEADER_BYTES.min(self.bytes.len())..);
        let payload = unpack(self.header.compression(), &payload).ok()?;
        let mut last_delta = -1;
        for record in RecordsIter::new(&self.header, &payload) {
            let delta = record.ok()?.offset_delta;
            if delta <= last_delta || delta > self.header.last_offset_delta {
                return None;
            }
            last_delta = delta;
        }
        Some(payload)
    }
}

/// What is left of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Retained {
    /// All of it, as it stands.
    Whole,
    /// These bytes in its place.
    Anew(Bytes),
    /// Nothing.
    Nothing,
}

/// What decides over the records of a pass.
pub struct Rules<'a> {
    /// Last offset of each key below `mapped_to`.
    pub keys: &'a KeyOffsets,
    /// Records from here on stay: their keys were not looked at.
    pub mapped_to: i64,
    /// Milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// How long tombstones stay once their batch was cleaned, milliseconds.
    pub delete_retention_ms: i64,
    /// A batch was met that is not understood.
    pub met_opaque: bool,
}

impl Rules<'_> {
    /// What is left of a batch. One that is to be `kept` stands even without records: it is the last
    /// of its producer, the first of its epoch, or the last of what is cleaned.
    ///
    /// Takes no memory beside what the records unpack to and what is written of them.
    pub fn judge(&mut self, batch: &WholeBatch, kept: bool) -> Retained {
        let header = &batch.header;
        if header.is_control() {
            return Retained::Whole;
        }
        let Some(payload) = batch.understood() else {
            return self.leave_whole();
        };
        let horizon_ms = header.has_delete_horizon().then_some(header.base_timestamp);
        let (mut count, mut staying, mut has_tombstones) = (0_u64, 0_u64, false);
        for record in RecordsIter::new(header, &payload).flatten() {
            let stays = self.stays(&record, horizon_ms);
            count = count.saturating_add(1);
            staying = staying.saturating_add(u64::from(stays));
            has_tombstones |= stays && record.value.is_none();
        }
        let is_new_horizon = has_tombstones && horizon_ms.is_none();
        if staying == count && !is_new_horizon && (kept || count > 0) {
            return Retained::Whole;
        }
        if staying == 0 && !kept {
            return Retained::Nothing;
        }
        let new_horizon_ms = match is_new_horizon {
            true => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            false => horizon_ms,
        };
        let records = RecordsIter::new(header, &payload).flatten();
        let records = records.filter(|record| self.stays(record, horizon_ms));
        match retain_records(header, records, new_horizon_ms, |codec, bytes| pack(codec, &bytes)) {
            Some(bytes) => Retained::Anew(bytes),
            None => self.leave_whole(),
        }
    }

    /// A batch stays as it is though records of it might have to go.
    pub fn leave_whole(&mut self) -> Retained {
        self.met_opaque = true;
        Retained::Whole
    }

    fn stays(&self, record: &RecordRef<'_>, horizon_ms: Option<i64>) -> bool {
        let offset = record.offset.get();
        if offset >= self.mapped_to {
            return true;
        }
        // Without a key nobody could ever replace it: such records are from before the topic was
        // compacted.
        let Some(key) = record.key else { return false };
        let is_last = self.keys.latest(key).is_none_or(|latest| offset >= latest);
        let is_due = horizon_ms.is_some_and(|horizon_ms| self.now_ms >= horizon_ms);
        is_last && (record.value.is_some() || self.met_opaque || !is_due)
    }
}
