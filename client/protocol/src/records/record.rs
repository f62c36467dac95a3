//! The records inside a batch: varints, deltas, and headers as an ordered multimap.
//!
//! *Called by* consumers, `validate`, `build`. *Calls* nothing.
//!
//! Invariant: a record is read within its own declared length, and uses all of it.

use bytes::Bytes;

use super::batch::BatchHeader;
use super::validate::BatchError;
use crate::ids::Offset;

/// A record to be sent, or received and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// Chooses the partition, and what compaction keeps.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order; a key may stand there many times.
    pub headers: Vec<RecordHeader>,
}

/// One header of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Option<Bytes>,
}

/// A record that lies in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its place in the batch: offset minus base offset.
    pub offset_delta: i32,
    /// Milliseconds since 1970 UTC; the time of the append, if the batch has that.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub(super) header_count: i32,
    pub(super) headers: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Its headers in order, duplicates included. Checked when the record was read.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor(self.headers);
        (0..self.header_count).map_while(move |_| cursor.header())
    }

    /// A copy to keep.
    #[must_use]
    pub fn to_record(&self) -> Record {
        let headers = self.headers().map(|(key, value)| RecordHeader {
            key: key.to_owned(),
            value: value.map(Bytes::copy_from_slice),
        });
        Record {
            timestamp_ms: self.timestamp_ms,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: headers.collect(),
        }
    }
}

/// Iterates over the records of one batch; ends after the first error, and reports a count that does not match.
#[derive(Clone, Debug)]
pub struct RecordsIter<'a> {
    rest: Cursor<'a>,
    base_offset: Offset,
    base_timestamp: i64,
    append_time: Option<i64>,
    left: i32,
}

impl<'a> RecordsIter<'a> {
    /// Iterates over `payload`, the unpacked records after `header`.
    #[must_use]
    pub fn new(header: &BatchHeader, payload: &'a [u8]) -> Self {
        Self {
            rest: Cursor(payload),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: header.has_log_append_time().then_some(header.max_timestamp),
            left: header.record_count,
        }
    }

    fn read(&mut self) -> Option<RecordRef<'a>> {
        let mut record = self.rest.sized()?;
        record.take(1)?;
        let timestamp_delta = record.varlong()?;
        let offset_delta = record.varint()?;
        let key = record.nullable_bytes()?;
        let value = record.nullable_bytes()?;
        let header_count = record.varint()?;
        let headers = record.0;
        record.pass_headers(header_count)?;
        let timestamp_ms = match self.append_time {
            Some(time) => time,
            None => self.base_timestamp.checked_add(timestamp_delta)?,
        };
        Some(RecordRef {
            offset: self.base_offset.plus_count(u32::try_from(offset_delta).ok()?)?,
            offset_delta,
            timestamp_ms,
            key,
            value,
            header_count,
            headers,
        })
    }
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            // Bytes after the last record are reported once.
            let rest = std::mem::take(&mut self.rest.0);
            return (!rest.is_empty()).then_some(Err(BatchError::Record));
        }
        let record = self.read().ok_or(BatchError::Record);
        self.left = match record {
            Ok(_) => self.left.saturating_sub(1),
            Err(_) => {
                self.rest.0 = &[];
                0
            }
        };
        Some(record)
    }
}

/// What [`pass`] tells of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) has_key: bool,
}

/// Passes the record that `payload` begins with: all that a leader checks of it, at a few nanoseconds a record.
/// `None` for one that [`RecordsIter`] could not read.
#[inline]
pub(super) fn pass(payload: &mut &[u8]) -> Option<Passed> {
    let mut rest = Cursor(payload);
    let mut record = rest.sized()?;
    record.take(1)?;
    let timestamp_delta = record.varlong()?;
    let offset_delta = record.varint()?;
    let has_key = record.nullable_bytes()?.is_some();
    record.nullable_bytes()?;
    let header_count = record.varint()?;
    record.pass_headers(header_count)?;
    *payload = rest.0;
    Some(Passed { timestamp_delta, offset_delta, has_key })
}

/// Reads varints and lengths from a record; `None` is a malformed one.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A zigzag varint. Nearly all of them take one byte or two.
    #[inline]
    fn varlong(&mut self) -> Option<i64> {
        let bits = match *self.0 {
            [byte @ 0..0x80, ref rest @ ..] => {
                self.0 = rest;
                u64::from(byte)
            }
            [low, high @ 0..0x80, ref rest @ ..] => {
                self.0 = rest;
                u64::from(low & 0x7f) | (u64::from(high) << 7)
            }
            _ => self.long_varlong()?,
        };
        Some((bits >> 1).cast_signed() ^ (bits & 1).cast_signed().wrapping_neg())
    }

    /// The bits of a varint of up to ten bytes.
    fn long_varlong(&mut self) -> Option<u64> {
        let mut bits = 0u64;
        for shift in (0u32..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if shift == 63 && *byte > 1 {
                return None;
            }
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(bits);
            }
        }
        None
    }

    #[inline]
    fn varint(&mut self) -> Option<i32> {
        i32::try_from(self.varlong()?).ok()
    }

    #[inline]
    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.varint()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    /// The bytes of a record after its length.
    #[inline]
    fn sized(&mut self) -> Option<Self> {
        self.nullable_bytes()?.map(Self)
    }

    /// The headers, which must be the rest of the record.
    #[inline]
    fn pass_headers(&mut self, count: i32) -> Option<()> {
        for _ in 0..count {
            self.header()?;
        }
        (count >= 0 && self.0.is_empty()).then_some(())
    }

    fn header(&mut self) -> Option<(&'a str, Option<&'a [u8]>)> {
        let key = std::str::from_utf8(self.nullable_bytes()??).ok()?;
        Some((key, self.nullable_bytes()?))
    }
}
