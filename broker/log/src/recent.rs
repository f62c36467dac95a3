//! The last batches of all producers at a clean close, which Kafka's snapshot does not hold: of each
//! producer it has only the last one, and a retry of one before would be taken for a gap.
//!
//! Called by: `log` (close), `rebuild`. Calls: the envelope, `producer`.
//! Invariant: believed only for a log that ends exactly where it did. Does not know the disk.

use coordinator_disk::envelope::{self, Schema};
use serde::{Deserialize, Serialize};

use crate::producer::{BATCHES_KEPT, ProducerBatch, ProducerState, ProducerStates};

/// Name of the file in a log's folder.
pub const PRODUCERS_FILE: &str = "producers";

const SCHEMA: Schema = Schema { kind: 0x4c05, version: 1 };

/// See the module.
#[derive(Serialize, Deserialize)]
pub struct RecentProducers {
    end_offset: i64,
    producers: Vec<Producer>,
}

#[derive(Serialize, Deserialize)]
struct Producer {
    id: i64,
    epoch: i16,
    last_timestamp: i64,
    coordinator_epoch: i32,
    transaction_first_offset: Option<i64>,
    /// Last sequence, last offset, offset delta, timestamp.
    batches: Vec<(i32, i64, i32, i64)>,
}

impl RecentProducers {
    /// Of a log that ends at `end_offset`.
    pub fn of(states: &ProducerStates, end_offset: i64) -> Self {
        let producer = |(id, state): (i64, &ProducerState)| Producer {
            id,
            epoch: state.epoch,
            last_timestamp: state.last_timestamp,
            coordinator_epoch: state.coordinator_epoch,
            transaction_first_offset: state.transaction_first_offset,
            batches: state
                .batches
                .iter()
                .map(|b| (b.last_sequence, b.last_offset, b.offset_delta, b.timestamp))
                .collect(),
        };
        Self { end_offset, producers: states.sorted().into_iter().map(producer).collect() }
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        envelope::encode(SCHEMA, self).expect("producers are sized and bounded")
    }

    /// The producers, if the bytes are sound and speak of a log that ends at `end_offset`.
    pub fn decode(bytes: &[u8], end_offset: i64) -> Option<ProducerStates> {
        let recent: Self = envelope::decode(SCHEMA, bytes).ok()?;
        if recent.end_offset != end_offset {
            return None;
        }
        let mut states = ProducerStates::default();
        for producer in recent.producers {
            let batches = producer.batches.into_iter().take(BATCHES_KEPT).map(
                |(last_sequence, last_offset, offset_delta, timestamp)| ProducerBatch {
                    last_sequence,
                    last_offset,
                    offset_delta,
                    timestamp,
                },
            );
            let state = ProducerState {
                epoch: producer.epoch,
                batches: batches.collect(),
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                transaction_first_offset: producer.transaction_first_offset,
            };
            states.restore(producer.id, state);
        }
        Some(states)
    }
}
