//! OffsetForLeaderEpoch (key 23): where an epoch ends in the leader's log.
//!
//! *Called by* followers and consumers that look for the point of divergence, and by the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId};
use crate::messages::exchange;

exchange!(OffsetForLeaderEpoch, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse);

/// `replica_id` of a consumer.
pub const CONSUMER: BrokerId = BrokerId::new(-1);

wire_structs! {
    /// Versions 2-4. 3 names the follower, 4 is flexible.
    pub struct OffsetForLeaderEpochRequest {
        /// The follower; [`CONSUMER`] for a consumer, -2 in version 2, which does not say.
        replica_id: BrokerId [3.., default BrokerId::new(-2)],
        /// By topic.
        topics: Vec<OffsetForLeaderTopic> [0..],
    }

    /// Partitions of one topic.
    pub struct OffsetForLeaderTopic {
        /// The topic's name.
        topic: String [0..],
        /// By partition.
        partitions: Vec<OffsetForLeaderPartition> [0..],
    }

    /// One partition and an epoch.
    pub struct OffsetForLeaderPartition {
        /// The partition.
        partition: PartitionId [0..],
        /// The leader epoch the sender knows of.
        current_leader_epoch: Option<LeaderEpoch> [2..],
        /// The epoch whose end is asked for.
        leader_epoch: LeaderEpoch [0..],
    }

    /// By topic and partition.
    pub struct OffsetForLeaderEpochResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [2..],
        /// By topic, as asked.
        topics: Vec<OffsetForLeaderTopicResult> [0..],
    }

    /// The ends in one topic.
    pub struct OffsetForLeaderTopicResult {
        /// The topic's name.
        topic: String [0..],
        /// By partition, as asked.
        partitions: Vec<OffsetForLeaderPartitionResult> [0..],
    }

    /// The end of the largest epoch that is not beyond the one asked for.
    pub struct OffsetForLeaderPartitionResult {
        /// Whether it could be looked up.
        error_code: ErrorCode [0..],
        /// The partition.
        partition: PartitionId [0..],
        /// That epoch; `None` when the log knows none.
        leader_epoch: Option<LeaderEpoch> [1..],
        /// Its end (exclusive).
        end_offset: Option<Offset> [0..],
    }
}
