//! What the models of clusters have in common against which the cores are tested: a random stream, and metadata as brokers
//! tell it.
//!
//! *Called by* the tests of `producer`, `consumer` and `group`. Knows no core.

use std::sync::Arc;

use client_protocol::messages::MetadataResponse;
use client_protocol::messages::metadata::{MetadataBroker, MetadataPartition, MetadataTopic};
use client_protocol::{BrokerId, LeaderEpoch, PartitionId};

/// The topic of all models.
pub(crate) const TOPIC: &str = "t";

/// xorshift64*: the same seed, the same run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The name of [`TOPIC`], as cores are given it.
pub(crate) fn topic() -> Arc<str> {
    TOPIC.into()
}

/// Three brokers, and of [`TOPIC`] as many partitions as there are leaders: a broker, or nobody, and its epoch.
pub(crate) fn metadata(leaders: impl IntoIterator<Item = (Option<i32>, i32)>) -> MetadataResponse {
    let broker = |id| MetadataBroker {
        node_id: BrokerId::new(id),
        host: "h".to_owned(),
        port: id,
        ..MetadataBroker::default()
    };
    let partition = |((leader, epoch), index): ((Option<i32>, i32), i32)| MetadataPartition {
        partition_index: PartitionId::new(index),
        leader_id: leader.map(BrokerId::new),
        leader_epoch: Some(LeaderEpoch::new(epoch)),
        ..MetadataPartition::default()
    };
    MetadataResponse {
        brokers: (1..=3).map(broker).collect(),
        topics: vec![MetadataTopic {
            name: Some(TOPIC.to_owned()),
            partitions: leaders.into_iter().zip(0..).map(partition).collect(),
            ..MetadataTopic::default()
        }],
        ..MetadataResponse::default()
    }
}
