//! Builds one batch of uncompressed records.
//!
//! *Called by* producers, the broker's own topics, tests. *Calls* `batch`.
//!
//! Invariant: what is built passes [`super::validate_produced`] with rules that allow its size and kind.

use bytes::{BufMut, Bytes, BytesMut};

use super::batch::{BATCH_HEADER_BYTES, MAGIC, TRANSACTIONAL_BIT, write_crc};
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

/// Collects records until the batch is full.
#[derive(Debug)]
pub struct BatchBuilder {
    payload: BytesMut,
    record: BytesMut,
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
        Self {
            payload: BytesMut::new(),
            record: BytesMut::new(),
            bytes_max,
            count: 0,
            base_timestamp: 0,
            max_timestamp: -1,
        }
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
        self.record.clear();
        self.record.put_i8(0);
        put_varlong(&mut self.record, record.timestamp_ms.wrapping_sub(base_timestamp));
        put_varlong(&mut self.record, i64::from(self.count));
        put_nullable(&mut self.record, record.key.as_deref());
        put_nullable(&mut self.record, record.value.as_deref());
        put_length(&mut self.record, record.headers.len());
        for RecordHeader { key, value } in &record.headers {
            put_nullable(&mut self.record, Some(key.as_bytes()));
            put_nullable(&mut self.record, value.as_deref());
        }
        let length = self.record.len();
        // Five bytes hold the length of any record that is allowed here.
        let size = self.size().saturating_add(length).saturating_add(5);
        if length > RECORD_BYTES_MAX || (!self.is_empty() && size > self.bytes_max) {
            return false;
        }
        put_length(&mut self.payload, length);
        self.payload.put_slice(&self.record);
        self.count = next_count;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(record.timestamp_ms);
        true
    }

    /// The batch, with base offset 0 and no leader epoch, as a producer sends it; `None` when no record is in it.
    #[must_use]
    pub fn build(self, producer: Option<Producer>) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let size = self.size();
        let length = i32::try_from(size.checked_sub(super::BATCH_PREFIX_BYTES)?).ok()?;
        let is_transactional = producer.is_some_and(|producer| producer.is_transactional);
        let mut batch = BytesMut::with_capacity(size);
        batch.put_i64(0);
        batch.put_i32(length);
        batch.put_i32(-1);
        batch.put_i8(MAGIC);
        batch.put_u32(0);
        batch.put_i16(if is_transactional { TRANSACTIONAL_BIT } else { 0 });
        batch.put_i32(self.count.checked_sub(1)?);
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp);
        batch.put_i64(producer.map_or(-1, |producer| producer.id.get()));
        batch.put_i16(producer.map_or(-1, |producer| producer.epoch.get()));
        batch.put_i32(producer.map_or(-1, |producer| producer.base_sequence));
        batch.put_i32(self.count);
        batch.put_slice(&self.payload);
        write_crc(&mut batch)?;
        Some(batch.freeze())
    }
}

/// The largest record a builder takes: no broker accepts one near it.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

fn put_length(buffer: &mut BytesMut, length: usize) {
    put_varlong(buffer, i64::try_from(length).unwrap_or(i64::MAX));
}

fn put_nullable(buffer: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            put_length(buffer, bytes.len());
            buffer.put_slice(bytes);
        }
        None => put_varlong(buffer, -1),
    }
}

/// Zigzag, seven bits at a time; the same bytes as Kafka's varint where the value fits 32 bits.
fn put_varlong(buffer: &mut BytesMut, value: i64) {
    let mut bits = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while bits > 0x7f {
        buffer.put_u8(u8::try_from(bits & 0x7f).unwrap_or_default() | 0x80);
        bits >>= 7;
    }
    buffer.put_u8(u8::try_from(bits).unwrap_or_default());
}
