//! Which records of a batch stay, by Kafka's rules.
//!
//! Called by: `pass`. Calls: `keys`, the codecs.
//! Invariant: a batch of which anything is not understood stays whole, and from then on no tombstone
//! goes, for what it deletes might stand in that batch. Does not know files.

use bytes::Bytes;
use client_protocol::pack::{pack, unpack};
use client_protocol::records::{Batch, RecordRef, RecordsIter, retain_records};

use super::keys::KeyOffsets;

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
    /// What is left of `batch`. One that is to be `kept` stands even without records: it is the last
    /// of its producer, the first of its epoch, or the last of what is cleaned.
    pub fn judge(&mut self, batch: &Batch<'_>, kept: bool) -> Retained {
        let header = &batch.header;
        if header.is_control() {
            return Retained::Whole;
        }
        let payload = Bytes::copy_from_slice(batch.payload());
        let records = unpack(header.compression(), &payload).ok().and_then(|payload| {
            // Two steps, for records borrow from what was unpacked.
            let readable = RecordsIter::new(header, &payload).all(|record| record.is_ok());
            readable.then_some(payload)
        });
        let Some(payload) = records else {
            self.met_opaque = true;
            return Retained::Whole;
        };
        let records: Vec<RecordRef<'_>> = RecordsIter::new(header, &payload).flatten().collect();
        let horizon_ms = header.has_delete_horizon().then_some(header.base_timestamp);
        let mut stay = Vec::with_capacity(records.len());
        stay.extend(records.iter().filter(|record| self.stays(record, horizon_ms)).copied());
        let has_tombstones = stay.iter().any(|record| record.value.is_none());
        let is_new_horizon = has_tombstones && horizon_ms.is_none();
        if stay.len() == records.len() && !is_new_horizon && (kept || !records.is_empty()) {
            return Retained::Whole;
        }
        if stay.is_empty() && !kept {
            return Retained::Nothing;
        }
        let horizon_ms = match is_new_horizon {
            true => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            false => horizon_ms,
        };
        retain_records(header, &stay, horizon_ms, |codec, bytes| pack(codec, &bytes))
            .map_or(Retained::Whole, Retained::Anew)
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
