//! Producer state in Kafka's `.snapshot` file format, version 1.
//!
//! Called by: `segment` files at roll and close, `recovery`. Calls: `producer`.
//! Invariant: a file named by offset N holds the state of everything below N; only the last batch
//! of each producer is in it, as in Kafka. Does not know where files lie.
//!
//! ```text
//! 0         2       6       10
//! | version | crc   | count | {producer id 8, epoch 2, last sequence 4, last offset 8, offset delta 4,
//!   i16       u32     i32      timestamp 8, coordinator epoch 4, transaction's first offset 8} ...
//!                   the CRC-32C covers 6 to the end
//! ```

use std::collections::VecDeque;

use crate::producer::{BATCHES_KEPT, ProducerBatch, ProducerState, ProducerStates};

const VERSION: i16 = 1;
const HEAD_BYTES: usize = 6;
const ENTRY_BYTES: usize = 46;

/// The bytes are not a snapshot of this format; the caller takes an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("producer snapshot is damaged")]
pub struct SnapshotDamage;

/// Encodes all producers.
pub fn encode(states: &ProducerStates) -> Vec<u8> {
    let all = states.sorted();
    let mut body = Vec::with_capacity(all.len().saturating_mul(ENTRY_BYTES).saturating_add(4));
    body.extend_from_slice(&u32::try_from(all.len()).unwrap_or(u32::MAX).to_be_bytes());
    for (producer_id, state) in all {
        let last = state.batches.back();
        body.extend_from_slice(&producer_id.to_be_bytes());
        body.extend_from_slice(&state.epoch.to_be_bytes());
        body.extend_from_slice(&last.map_or(-1, |b| b.last_sequence).to_be_bytes());
        body.extend_from_slice(&last.map_or(-1, |b| b.last_offset).to_be_bytes());
        body.extend_from_slice(&last.map_or(0, |b| b.offset_delta).to_be_bytes());
        body.extend_from_slice(&state.last_timestamp.to_be_bytes());
        body.extend_from_slice(&state.coordinator_epoch.to_be_bytes());
        body.extend_from_slice(&state.transaction_first_offset.unwrap_or(-1).to_be_bytes());
    }
    let mut bytes = Vec::with_capacity(body.len().saturating_add(HEAD_BYTES));
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Decodes a whole snapshot file.
///
/// # Errors
/// [`SnapshotDamage`] for anything that [`encode`] does not write.
pub fn decode(bytes: &[u8]) -> Result<ProducerStates, SnapshotDamage> {
    let mut rest = Fields(bytes);
    let version = i16::from_be_bytes(rest.take()?);
    let crc = u32::from_be_bytes(rest.take()?);
    if version != VERSION || crc != crc32c::crc32c(rest.0) {
        return Err(SnapshotDamage);
    }
    let count = u32::from_be_bytes(rest.take()?);
    let mut states = ProducerStates::default();
    for _ in 0..count {
        let (producer_id, state) = decode_entry(&mut rest)?;
        states.restore(producer_id, state);
    }
    if rest.0.is_empty() { Ok(states) } else { Err(SnapshotDamage) }
}

fn decode_entry(rest: &mut Fields<'_>) -> Result<(i64, ProducerState), SnapshotDamage> {
    let producer_id = i64::from_be_bytes(rest.take()?);
    let epoch = i16::from_be_bytes(rest.take()?);
    let last_sequence = i32::from_be_bytes(rest.take()?);
    let last_offset = i64::from_be_bytes(rest.take()?);
    let offset_delta = i32::from_be_bytes(rest.take()?);
    let timestamp = i64::from_be_bytes(rest.take()?);
    let coordinator_epoch = i32::from_be_bytes(rest.take()?);
    let first_offset = i64::from_be_bytes(rest.take()?);
    let mut batches = VecDeque::with_capacity(BATCHES_KEPT);
    if last_offset >= 0 && last_sequence >= 0 {
        batches.push_back(ProducerBatch { last_sequence, last_offset, offset_delta, timestamp });
    }
    let state = ProducerState {
        epoch,
        batches,
        last_timestamp: timestamp,
        coordinator_epoch,
        transaction_first_offset: (first_offset >= 0).then_some(first_offset),
    };
    Ok((producer_id, state))
}

/// Bytes not yet read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotDamage> {
        let (field, rest) = self.0.split_first_chunk().ok_or(SnapshotDamage)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchMeta;
    use crate::sample::SampleBatch;

    fn sample() -> ProducerStates {
        let mut states = ProducerStates::default();
        for producer_id in [7, 3] {
            let batch = SampleBatch {
                base_offset: 40,
                records: 2,
                producer_id,
                producer_epoch: 1,
                base_sequence: 12,
                ..SampleBatch::default()
            };
            states.record(&BatchMeta::parse(&batch.encode()).unwrap());
        }
        states
    }

    #[test]
    fn snapshot_survives_the_round_trip() {
        for states in [ProducerStates::default(), sample()] {
            assert_eq!(decode(&encode(&states)), Ok(states));
        }
    }

    #[test]
    fn every_flipped_bit_and_cut_is_refused() {
        let bytes = encode(&sample());
        assert_eq!(bytes.len(), 10 + 2 * ENTRY_BYTES);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode(&bad), Err(SnapshotDamage), "bit {bit} of byte {at}");
            }
            assert_eq!(decode(&bytes[..at]), Err(SnapshotDamage), "cut at {at}");
        }
    }
}
