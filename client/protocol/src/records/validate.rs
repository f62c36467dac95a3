//! What a leader asks of a produced batch, and a follower of fetched ones.
//!
//! *Called by* the broker before it appends. *Calls* `batch`, `record`.
//!
//! Invariant: of a batch that passes, header, checksum and (unless compressed) every record agree, so that no
//! consumer meets a batch it cannot read.

use std::ops::RangeInclusive;

use super::batch::{Batch, BatchHeader, Batches, Compression};
use super::record::pass;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset};

/// What is wrong with a batch. [`BatchError::error_code`] is the answer to the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not all of it is there.
    #[error("batch needs {needed} bytes, {available} are there")]
    Truncated {
        /// Bytes it needs.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// A length that no batch can have.
    #[error("no batch has length {0}")]
    Length(i32),
    /// Records of an older layout, or no records at all.
    #[error("magic {0}, only 2 is accepted")]
    Magic(i8),
    /// The checksum does not match.
    #[error("checksum {computed:#010x} computed, {stored:#010x} stored")]
    Crc {
        /// As it stands in the batch.
        stored: u32,
        /// As it should be.
        computed: u32,
    },
    /// No batch, or more than one, where the protocol wants exactly one.
    #[error("a produce request carries exactly one batch for each partition")]
    NotOneBatch,
    /// Larger than the topic's `max.message.bytes`.
    #[error("batch of {size} bytes, the topic takes {max}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// What the topic takes.
        max: usize,
    },
    /// Larger than a segment.
    #[error("batch of {size} bytes does not fit a segment of {max}")]
    LargerThanSegment {
        /// Its size.
        size: usize,
        /// The topic's `segment.bytes`.
        max: usize,
    },
    /// Count and last offset delta disagree, or there are none.
    #[error("{count} records declared with last offset delta {last_offset_delta}")]
    Count {
        /// Declared records.
        count: i32,
        /// Declared last offset minus base offset.
        last_offset_delta: i32,
    },
    /// A control batch from a client.
    #[error("clients may not write control batches")]
    Control,
    /// A batch that says from when on its tombstones may go, which only the cleaner knows.
    #[error("clients may not set a batch's delete horizon")]
    DeleteHorizon,
    /// A transactional batch in a request without a transactional id.
    #[error("transactional batch without a transactional id")]
    Transactional,
    /// A producer id without epoch or sequence.
    #[error("producer id without epoch or sequence number")]
    ProducerState,
    /// A compression of no known number, or newer than the request's version.
    #[error("compression {0} is not supported here")]
    Compression(i16),
    /// A timestamp outside the topic's window.
    #[error("timestamp {timestamp_ms} is outside the topic's window")]
    Timestamp {
        /// The timestamp.
        timestamp_ms: i64,
    },
    /// A record without a key in a compacted topic.
    #[error("record {index} has no key, which a compacted topic requires")]
    NoKey {
        /// Its place in the batch.
        index: i32,
    },
    /// A record that cannot be read, or out of order, or bytes after the last one.
    #[error("malformed record")]
    Record,
    /// The records are packed; unpack them first.
    #[error("records are compressed")]
    Compressed,
    /// A follower was sent a batch that does not continue its log.
    #[error("batch begins at offset {found}, expected at least {expected}")]
    OffsetGap {
        /// Where it begins.
        found: Offset,
        /// Where the log ends.
        expected: Offset,
    },
    /// A follower was sent a batch of an older epoch than the one before it.
    #[error("leader epoch falls from {before} to {found}")]
    EpochFalls {
        /// Of the batch before.
        before: LeaderEpoch,
        /// Of this batch.
        found: LeaderEpoch,
    },
}

impl BatchError {
    /// What to answer the producer.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. } | Self::Length(_) | Self::Crc { .. } => {
                ErrorCode::CorruptMessage
            }
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Self::Compression(_) => ErrorCode::UnsupportedCompressionType,
            Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::Magic(_)
            | Self::NotOneBatch
            | Self::Count { .. }
            | Self::Control
            | Self::DeleteHorizon
            | Self::Transactional
            | Self::ProducerState
            | Self::NoKey { .. }
            | Self::Record
            | Self::Compressed => ErrorCode::InvalidRecord,
            Self::OffsetGap { .. } | Self::EpochFalls { .. } => ErrorCode::CorruptMessage,
        }
    }
}

/// What one topic and one request allow.
#[derive(Clone, Debug)]
pub struct ProduceRules {
    /// The topic's `max.message.bytes`, inclusive.
    pub batch_bytes_max: usize,
    /// The topic's `segment.bytes`, inclusive.
    pub segment_bytes_max: usize,
    /// The topic is compacted.
    pub keys_required: bool,
    /// The request names a transactional id.
    pub transactional_allowed: bool,
    /// Produce version 7 and later.
    pub zstd_allowed: bool,
    /// Timestamps accepted, inclusive, for a topic that keeps the producer's; -1 (none) always is.
    pub timestamps_ms: Option<RangeInclusive<i64>>,
}

impl Default for ProduceRules {
    /// Kafka's defaults for a topic, and a request of version 7 or later.
    fn default() -> Self {
        Self {
            batch_bytes_max: 1_048_588,
            segment_bytes_max: 1 << 30,
            keys_required: false,
            transactional_allowed: false,
            zstd_allowed: true,
            timestamps_ms: None,
        }
    }
}

/// Checks the records of one partition in a Produce request: one batch, sound, and within `rules`. The checksum is
/// computed once. Compressed records are not unpacked, so they are checked by header and checksum only.
///
/// Sequences are the log's business, not asked here.
///
/// # Errors
/// [`BatchError`]; nothing may be appended then.
pub fn validate_produced(bytes: &[u8], rules: &ProduceRules) -> Result<BatchHeader, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::NotOneBatch);
    }
    let batch = Batch::first(bytes)?;
    check_size(batch.header.size, rules)?;
    if batch.bytes.len() != bytes.len() {
        return Err(BatchError::NotOneBatch);
    }
    batch.check_crc()?;
    check_header(&batch.header, rules)?;
    match batch.header.compression() {
        Some(Compression::None) => check_records(&batch, rules)?,
        _ => check_timestamp(batch.header.max_timestamp, rules)?,
    }
    Ok(batch.header)
}

fn check_size(size: usize, rules: &ProduceRules) -> Result<(), BatchError> {
    if size > rules.batch_bytes_max {
        return Err(BatchError::TooLarge { size, max: rules.batch_bytes_max });
    }
    if size > rules.segment_bytes_max {
        return Err(BatchError::LargerThanSegment { size, max: rules.segment_bytes_max });
    }
    Ok(())
}

fn check_header(header: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchError> {
    let count = header.record_count;
    let last_offset_delta = header.last_offset_delta;
    if count <= 0 || last_offset_delta.checked_add(1) != Some(count) {
        return Err(BatchError::Count { count, last_offset_delta });
    }
    match header.compression() {
        Some(Compression::Zstd) if !rules.zstd_allowed => return Err(BatchError::Compression(4)),
        Some(_) => {}
        None => return Err(BatchError::Compression(header.attributes & 0b111)),
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_delete_horizon() {
        return Err(BatchError::DeleteHorizon);
    }
    if header.is_transactional() && !rules.transactional_allowed {
        return Err(BatchError::Transactional);
    }
    let numbered =
        header.producer_epoch.is_some_and(|epoch| epoch.get() >= 0) && header.base_sequence >= 0;
    match header.producer_id {
        Some(id) if id.get() < 0 || !numbered => Err(BatchError::ProducerState),
        None if header.is_transactional() => Err(BatchError::ProducerState),
        Some(_) | None => Ok(()),
    }
}

fn check_timestamp(timestamp_ms: i64, rules: &ProduceRules) -> Result<(), BatchError> {
    match &rules.timestamps_ms {
        Some(window) if timestamp_ms != -1 && !window.contains(&timestamp_ms) => {
            Err(BatchError::Timestamp { timestamp_ms })
        }
        Some(_) | None => Ok(()),
    }
}

/// Every record in place: offsets from 0 on, no byte over, keys and timestamps as the topic wants them.
fn check_records(batch: &Batch<'_>, rules: &ProduceRules) -> Result<(), BatchError> {
    let header = &batch.header;
    if header.has_log_append_time() {
        check_timestamp(header.max_timestamp, rules)?;
    }
    let mut payload = batch.payload();
    for index in 0..header.record_count {
        let record = pass(&mut payload).ok_or(BatchError::Record)?;
        if record.offset_delta != index {
            return Err(BatchError::Record);
        }
        if rules.keys_required && !record.has_key {
            return Err(BatchError::NoKey { index });
        }
        let timestamp_ms = header.base_timestamp.checked_add(record.timestamp_delta);
        if !header.has_log_append_time() {
            check_timestamp(timestamp_ms.ok_or(BatchError::Record)?, rules)?;
        }
    }
    if payload.is_empty() { Ok(()) } else { Err(BatchError::Record) }
}

/// Checks what a leader sent to a follower whose log ends at `end_offset` with `last_epoch`: whole batches with sound
/// checksums, offsets that rise from the log's end (gaps are what compaction leaves) and epochs that never fall.
///
/// Returns how many bytes of `bytes` are whole batches (a fetch may cut the last one short), and where the log ends
/// once they are appended.
///
/// # Errors
/// [`BatchError`]; nothing may be appended then.
pub fn validate_fetched(
    bytes: &[u8],
    end_offset: Offset,
    last_epoch: Option<LeaderEpoch>,
) -> Result<(usize, Offset), BatchError> {
    let mut batches = Batches::new(bytes);
    let mut expected = end_offset;
    let mut epoch = last_epoch;
    for batch in &mut batches {
        let batch = batch?;
        batch.check_crc()?;
        let found = batch.header.base_offset;
        if found < expected {
            return Err(BatchError::OffsetGap { found, expected });
        }
        if let (Some(before), Some(found)) = (epoch, batch.header.leader_epoch)
            && found < before
        {
            return Err(BatchError::EpochFalls { before, found });
        }
        epoch = batch.header.leader_epoch.or(epoch);
        expected = batch.header.end_offset().ok_or(BatchError::Count {
            count: batch.header.record_count,
            last_offset_delta: batch.header.last_offset_delta,
        })?;
    }
    Ok((bytes.len().saturating_sub(batches.remainder().len()), expected))
}
