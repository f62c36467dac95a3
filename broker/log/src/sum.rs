//! The `.sum` file of a segment: checksums of what the batches' own CRCs leave out.
//!
//! Called by: `segment`, `log` (roll, close), `recovery`. Calls: the envelope.
//! Invariant: a sum is only believed for a file of exactly its length. Does not know the disk.

use coordinator_disk::envelope::{self, Schema};
use serde::{Deserialize, Serialize};

use crate::batch::BatchMeta;
use crate::epochs::EpochStart;

const SCHEMA: Schema = Schema { kind: 0x4c01, version: 1 };

/// What a `.sum` file says of its segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSum {
    /// The segment it belongs to.
    pub base_offset: i64,
    /// Offset behind the last batch.
    pub end_offset: i64,
    /// Length of the `.log` file, bytes.
    pub log_bytes: u64,
    /// CRC-32 of the first 21 bytes of every batch, in order.
    pub header_crc: u32,
    /// CRC-32 of the `.index` file.
    pub index_crc: u32,
    /// CRC-32 of the `.timeindex` file.
    pub time_index_crc: u32,
    /// Greatest timestamp and the last offset of its batch.
    pub max_timestamp: Option<(i64, i64)>,
    /// Timestamp of the first batch, milliseconds; -1 for none.
    pub first_timestamp: i64,
    /// Leader epochs of the batches and the first offset of each in this segment.
    pub epochs: Vec<EpochStart>,
}

/// Encodes the file's bytes.
pub fn encode(sum: &SegmentSum) -> Vec<u8> {
    envelope::encode(SCHEMA, sum).expect("a sum has sized fields and few epochs")
}

/// Decodes a file's bytes; `None` when they are damaged or another segment's.
pub fn decode(bytes: &[u8], base_offset: i64) -> Option<SegmentSum> {
    envelope::decode::<SegmentSum>(SCHEMA, bytes).ok().filter(|sum| sum.base_offset == base_offset)
}

/// What accumulates over the batches of a segment for its sum.
#[derive(Clone, Debug, Default)]
pub struct SumBuilder {
    header_crc: crc32fast::Hasher,
    first_timestamp: Option<i64>,
    epochs: Vec<EpochStart>,
}

impl SumBuilder {
    /// Takes the next batch.
    pub fn push(&mut self, meta: &BatchMeta) {
        self.header_crc.update(&meta.uncovered_bytes());
        self.first_timestamp.get_or_insert(meta.max_timestamp);
        if self.epochs.last().is_none_or(|last| last.epoch < meta.leader_epoch) {
            self.epochs
                .push(EpochStart { epoch: meta.leader_epoch, start_offset: meta.base_offset });
        }
    }

    /// Goes on where a sum ended.
    pub fn resume(sum: &SegmentSum) -> Self {
        Self {
            header_crc: crc32fast::Hasher::new_with_initial(sum.header_crc),
            first_timestamp: (sum.log_bytes > 0).then_some(sum.first_timestamp),
            epochs: sum.epochs.clone(),
        }
    }

    /// Timestamp of the first batch.
    pub fn first_timestamp(&self) -> Option<i64> {
        self.first_timestamp
    }

    /// CRC-32 over the headers so far.
    pub fn header_crc(&self) -> u32 {
        self.header_crc.clone().finalize()
    }

    /// Epochs met so far.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleBatch;

    #[test]
    fn resumed_builder_goes_on_as_if_never_stopped() {
        let metas: Vec<BatchMeta> = (0..4)
            .map(|n| {
                let batch = SampleBatch { base_offset: n, ..SampleBatch::default() };
                BatchMeta::parse(&batch.encode()).unwrap()
            })
            .collect();
        let mut whole = SumBuilder::default();
        metas.iter().for_each(|meta| whole.push(meta));
        let mut half = SumBuilder::default();
        metas[..2].iter().for_each(|meta| half.push(meta));
        let sum = SegmentSum {
            base_offset: 0,
            end_offset: 2,
            log_bytes: 100,
            header_crc: half.header_crc(),
            index_crc: 0,
            time_index_crc: 0,
            max_timestamp: None,
            first_timestamp: half.first_timestamp().unwrap(),
            epochs: half.epochs().to_vec(),
        };
        let sum = decode(&encode(&sum), 0).unwrap();
        assert_eq!(decode(&encode(&sum), 1), None);
        let mut resumed = SumBuilder::resume(&sum);
        metas[2..].iter().for_each(|meta| resumed.push(meta));
        assert_eq!(resumed.header_crc(), whole.header_crc());
        assert_eq!(resumed.epochs(), whole.epochs());
    }
}
