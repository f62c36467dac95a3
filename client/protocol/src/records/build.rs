//! Builds one batch of records.
//!
//! *Called by* producers, the broker's own topics, tests. *Calls* `batch`. Compression is the caller's.
//!
//! Invariant: what is built passes [`super::validate_produced`] with rules that allow its size and kind.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{BATCH_HEADER_BYTES, Compression, MAGIC, TRANSACTIONAL_BIT, write_split_crc};
use super::record::{Record, RecordHeader};
use crate::ids::{ProducerEpoch, ProducerId};

/// The idempotent producer a batch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence number of the batch's first record.
    pub base_sequence: i32,
    /// The batch belongs to a transaction.
    pub is_transactional: bool,
}

/// Collects records until the batch is full. A record is copied once, into the batch.
#[derive(Debug)]
pub struct BatchBuilder {
    payload: BytesMut,
    bytes_max: usize,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// A batch of at most `bytes_max` bytes, header included. A single record is taken even if it is larger: only the
    /// broker knows whether it accepts it.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self::with_buffer(BytesMut::new(), bytes_max)
    }

    /// As [`BatchBuilder::new`], into a buffer that was used before; what it held is gone.
    #[must_use]
    pub fn with_buffer(mut buffer: BytesMut, bytes_max: usize) -> Self {
        buffer.clear();
        Self { payload: buffer, bytes_max, count: 0, base_timestamp: 0, max_timestamp: -1 }
    }

    /// How many records are in it.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.count
    }

    /// No record is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes the batch takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len().saturating_add(BATCH_HEADER_BYTES)
    }

    /// Adds a record; `false` when the batch has no room for it, which is then as it was before. An empty batch takes
    /// any record up to 1 GiB.
    #[must_use]
    pub fn push(&mut self, record: &Record) -> bool {
        let base_timestamp =
            if self.is_empty() { record.timestamp_ms } else { self.base_timestamp };
        let Some(next_count) = self.count.checked_add(1) else { return false };
        let timestamp_delta = record.timestamp_ms.wrapping_sub(base_timestamp);
        let count = i64::from(self.count);
        let length = record_length(record, timestamp_delta, count);
        // Five bytes hold the length of any record that is allowed here.
        let size = self.size().saturating_add(length).saturating_add(5);
        if length > RECORD_BYTES_MAX || (!self.is_empty() && size > self.bytes_max) {
            return false;
        }
        self.payload.reserve(length.saturating_add(5));
        put_length(&mut self.payload, length);
        self.payload.put_i8(0);
        put_varlong(&mut self.payload, timestamp_delta);
        put_varlong(&mut self.payload, count);
        put_nullable(&mut self.payload, record.key.as_deref());
        put_nullable(&mut self.payload, record.value.as_deref());
        put_length(&mut self.payload, record.headers.len());
        for RecordHeader { key, value } in &record.headers {
            put_nullable(&mut self.payload, Some(key.as_bytes()));
            put_nullable(&mut self.payload, value.as_deref());
        }
        self.count = next_count;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        true
    }

    /// The batch, with base offset 0 and no leader epoch, as a producer sends it; `None` when no record is in it.
    #[must_use]
    pub fn build(self, producer: Option<Producer>) -> Option<Bytes> {
        let sealed = self.seal()?;
        let header = sealed.header(producer)?;
        let mut batch = BytesMut::with_capacity(sealed.size());
        batch.put_slice(&header);
        batch.put_slice(sealed.records());
        Some(batch.freeze())
    }

    /// What is in it, to be sent under whatever identity; `None` when no record is in it.
    #[must_use]
    pub fn seal(self) -> Option<SealedBatch> {
        (!self.is_empty()).then(|| SealedBatch {
            records: self.payload.freeze(),
            compression: Compression::None,
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
        })
    }
}

/// The records of one batch, all but the header that goes before them.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    records: Bytes,
    compression: Compression,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl SealedBatch {
    /// How many records are in it.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.count
    }

    /// How many bytes the batch takes, header included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.len().saturating_add(BATCH_HEADER_BYTES)
    }

    /// What goes after the header.
    #[must_use]
    pub fn records(&self) -> &Bytes {
        &self.records
    }

    /// How the records are packed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The same batch with its records packed: `records` are the former ones, compressed.
    #[must_use]
    pub fn packed(&self, compression: Compression, records: Bytes) -> Self {
        Self { records, compression, ..*self }
    }

    /// Gives the memory back, if nobody else holds it any more.
    #[must_use]
    pub fn into_buffer(self) -> Option<BytesMut> {
        self.records.try_into_mut().ok()
    }

    /// What goes before the records, with base offset 0 and no leader epoch; `None` for a batch that no length can
    /// say (2 GiB).
    #[must_use]
    pub fn header(&self, producer: Option<Producer>) -> Option<[u8; BATCH_HEADER_BYTES]> {
        let length = i32::try_from(self.size().checked_sub(super::BATCH_PREFIX_BYTES)?).ok()?;
        let is_transactional = producer.is_some_and(|producer| producer.is_transactional);
        let transactional = if is_transactional { TRANSACTIONAL_BIT } else { 0 };
        let mut header = [0; BATCH_HEADER_BYTES];
        let mut to = &mut header[..];
        to.put_i64(0);
        to.put_i32(length);
        to.put_i32(-1);
        to.put_i8(MAGIC);
        to.put_u32(0);
        to.put_i16(transactional | self.compression.code());
        to.put_i32(self.count.checked_sub(1)?);
        to.put_i64(self.base_timestamp);
        to.put_i64(self.max_timestamp);
        to.put_i64(producer.map_or(-1, |producer| producer.id.get()));
        to.put_i16(producer.map_or(-1, |producer| producer.epoch.get()));
        to.put_i32(producer.map_or(-1, |producer| producer.base_sequence));
        to.put_i32(self.count);
        write_split_crc(&mut header, &self.records)?;
        Some(header)
    }
}

fn record_length(record: &Record, timestamp_delta: i64, offset_delta: i64) -> usize {
    let nullable = |value: Option<&[u8]>| match value {
        Some(bytes) => length_of(as_long(bytes.len())).saturating_add(bytes.len()),
        None => 1,
    };
    let headers = record.headers.iter().map(|header| {
        nullable(Some(header.key.as_bytes())).saturating_add(nullable(header.value.as_deref()))
    });
    [
        1,
        length_of(timestamp_delta),
        length_of(offset_delta),
        nullable(record.key.as_deref()),
        nullable(record.value.as_deref()),
        length_of(as_long(record.headers.len())),
    ]
    .into_iter()
    .chain(headers)
    .fold(0, usize::saturating_add)
}

/// How many bytes the varint of a value takes.
const fn length_of(value: i64) -> usize {
    let zigzag = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    match zigzag.leading_zeros() {
        57..=64 => 1,
        50..=56 => 2,
        43..=49 => 3,
        36..=42 => 4,
        29..=35 => 5,
        22..=28 => 6,
        15..=21 => 7,
        8..=14 => 8,
        1..=7 => 9,
        _ => 10,
    }
}

fn as_long(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The largest record a builder takes: no broker accepts one near it.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

pub(super) fn put_length(buffer: &mut BytesMut, length: usize) {
    put_varlong(buffer, as_long(length));
}

pub(super) fn put_nullable(buffer: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            put_length(buffer, bytes.len());
            buffer.put_slice(bytes);
        }
        None => put_varlong(buffer, -1),
    }
}

/// Zigzag, seven bits at a time; the same bytes as Kafka's varint where the value fits 32 bits.
pub(super) fn put_varlong(buffer: &mut BytesMut, value: i64) {
    let mut bits = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while bits > 0x7f {
        buffer.put_u8(u8::try_from(bits & 0x7f).unwrap_or_default() | 0x80);
        bits >>= 7;
    }
    buffer.put_u8(u8::try_from(bits).unwrap_or_default());
}
