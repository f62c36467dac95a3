//! What the broker does with a partition on its own account, as its group coordinator.
//!
//! Called by: `groups`. Calls: `produce`, `partition`. Invariant: a batch is appended under the
//! leader epoch that the caller names or not at all, so that somebody whose time is over cannot
//! write. Does not know what the records are.

use std::time::Duration;

use broker_core::ids::TopicPartition;
use bytes::BytesMut;
use client_protocol::{LeaderEpoch, Offset};

use super::produce::{PendingProduce, ProduceBatch, ProduceRequest};
use super::registry::Partitions;

impl Partitions {
    /// The epoch under which this broker leads the partition, and the end of its log (exclusive);
    /// `None` if it does not lead it.
    pub fn leading(&self, partition: TopicPartition) -> Option<(LeaderEpoch, Offset)> {
        let partition = self.partition(partition).ok()?;
        partition.read_core(|core| Some((core.leading()?, core.positions().end)))?
    }

    /// Appends one batch under `leader_epoch`. The outcome comes when all in-sync replicas have it,
    /// however long that takes, or when this broker leads under that epoch no more.
    pub fn append_own(
        &self,
        partition: TopicPartition,
        leader_epoch: LeaderEpoch,
        records: BytesMut,
    ) -> PendingProduce {
        let request = ProduceRequest {
            acks: -1,
            timeout: Duration::MAX,
            zstd_allowed: false,
            transactional: false,
            may_serve: true,
            batches: vec![ProduceBatch { partition, records }],
        };
        self.produce_under(Some(leader_epoch), request)
    }
}
