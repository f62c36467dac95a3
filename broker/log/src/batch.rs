//! The header of one record batch (format v2) as the log needs it.
//!
//! Called by: everything here, and the append thread, which passes one per batch. Calls: the
//! wire's batch header.
//! Invariant: a parsed header has plausible numbers (magic 2, a size that holds the header, a
//! delta that is not negative), so that arithmetic on it cannot overflow. Does not know records.
//!
//! ```text
//! 0           8       12     16 17   21    23     27        35        43     51    53      57     61
//! |base offset|length |epoch |2 |crc |attr |delta |base time|max time |pid   |epoch|seq    |count |records
//!              length counts from 12            the CRC-32C covers 21 to the end
//! ```

use client_protocol::records::BatchHeader;
use client_protocol::{LeaderEpoch, ProducerEpoch, ProducerId};

/// The CRC covers everything from here.
pub const CRC_COVERED_FROM: usize = 21;
/// Largest batch that the log takes or believes in.
pub const BATCH_BYTES_MAX: u32 = 128 << 20;

/// Bytes before those that the length field counts.
const LENGTH_FREE_BYTES: u32 = 12;
const MAGIC: u8 = 2;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// What the log keeps of a batch's header while it handles the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Bytes of the whole batch, header and length field included.
    pub size_bytes: u32,
    /// Epoch of the leader that took it.
    pub leader_epoch: i32,
    /// CRC-32C as stored.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: i16,
    /// Greatest record timestamp, milliseconds; -1 when there is none.
    pub max_timestamp: i64,
    /// Producer id; -1 when the producer is not idempotent.
    pub producer_id: i64,
    /// Producer epoch; -1 without a producer id.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 without a producer id and in control batches.
    pub base_sequence: i32,
}

impl BatchMeta {
    /// Reads the header at the start of `bytes`; `None` when they are too few or no such header.
    /// The CRC is not looked at.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = BatchHeader::decode(bytes).ok()?;
        let meta = Self {
            base_offset: header.base_offset.get(),
            last_offset_delta: header.last_offset_delta,
            size_bytes: u32::try_from(header.size).ok()?,
            leader_epoch: header.leader_epoch.map_or(-1, LeaderEpoch::get),
            crc: header.crc,
            attributes: header.attributes,
            max_timestamp: header.max_timestamp,
            producer_id: header.producer_id.map_or(-1, ProducerId::get),
            producer_epoch: header.producer_epoch.map_or(-1, ProducerEpoch::get),
            base_sequence: header.base_sequence,
        };
        let plausible = meta.size_bytes <= BATCH_BYTES_MAX
            && meta.last_offset_delta >= 0
            && meta.base_offset >= 0
            && meta.base_offset < i64::MAX - i64::from(i32::MAX) - 1;
        plausible.then_some(meta)
    }

    /// Offset of the last record (inclusive).
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset behind the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Whether an idempotent producer wrote it.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether it is a marker and not data.
    pub fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Sequence number of the last record.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        sequence_plus(self.base_sequence, self.last_offset_delta)
    }

    /// The header bytes that the batch's own CRC leaves out, as they stand in the file.
    pub fn uncovered_bytes(&self) -> [u8; CRC_COVERED_FROM] {
        let mut bytes = [0; CRC_COVERED_FROM];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..12]
            .copy_from_slice(&self.size_bytes.saturating_sub(LENGTH_FREE_BYTES).to_be_bytes());
        bytes[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        bytes[16] = MAGIC;
        bytes[17..21].copy_from_slice(&self.crc.to_be_bytes());
        bytes
    }
}

/// `sequence + count`, wrapping from i32::MAX to 0 as producers do.
pub fn sequence_plus(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleBatch;
    use client_protocol::Offset;
    use client_protocol::records::assign_offsets;

    #[test]
    fn parsed_header_gives_its_uncovered_bytes_back() {
        let mut batch = SampleBatch { records: 3, ..SampleBatch::default() }.encode();
        let (offset, epoch) = (Offset::new(77), LeaderEpoch::new(5));
        assign_offsets(&mut batch, offset, epoch).unwrap();
        let meta = BatchMeta::parse(&batch).unwrap();
        assert_eq!((meta.base_offset, meta.next_offset(), meta.leader_epoch), (77, 80, 5));
        assert_eq!(meta.size_bytes as usize, batch.len());
        assert_eq!(meta.uncovered_bytes(), batch[..CRC_COVERED_FROM]);
    }

    #[test]
    fn implausible_headers_are_refused() {
        let batch = SampleBatch::default().encode();
        assert!(BatchMeta::parse(&batch[..60]).is_none());
        for (at, byte) in [(0, 0x80), (0, 0x7f), (8, 0xff), (16, 1), (23, 0x80)] {
            let mut bad = batch.clone();
            bad[at] = byte;
            if at == 0 && byte == 0x7f {
                bad[1..8].fill(0xff);
            }
            assert!(BatchMeta::parse(&bad).is_none(), "byte {at}");
        }
        assert!(BatchMeta::parse(&[0; 61]).is_none());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_plus(4, 3), 7);
    }
}
