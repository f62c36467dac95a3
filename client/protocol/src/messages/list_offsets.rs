//! ListOffsets (key 2): the offset at a timestamp, or at either end of the log.
//!
//! *Called by* consumers, tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId};
use crate::messages::exchange;

exchange!(ListOffsets, ListOffsetsRequest, ListOffsetsResponse);

/// Ask for the end of what the isolation level lets a consumer read (exclusive).
pub const LATEST_TIMESTAMP: i64 = -1;
/// Ask for the first offset of the log.
pub const EARLIEST_TIMESTAMP: i64 = -2;
/// Ask for the record with the largest timestamp (version 7).
pub const MAX_TIMESTAMP: i64 = -3;

wire_structs! {
    /// Versions 1-7. 2 has isolation levels, 4 leader epochs, 6 is flexible, 7 has [`MAX_TIMESTAMP`].
    pub struct ListOffsetsRequest {
        /// The follower; `None` for a consumer.
        replica_id: Option<BrokerId> [0..],
        /// 0: up to the high watermark; 1: up to the last stable offset.
        isolation_level: i8 [2..],
        /// By topic.
        topics: Vec<ListOffsetsTopic> [0..],
    }

    /// Partitions of one topic.
    pub struct ListOffsetsTopic {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<ListOffsetsPartition> [0..],
    }

    /// One partition and a time.
    pub struct ListOffsetsPartition {
        /// The partition.
        partition_index: PartitionId [0..],
        /// The leader epoch the sender knows of.
        current_leader_epoch: Option<LeaderEpoch> [4..],
        /// The first record at or after this time, or one of the constants above.
        timestamp: i64 [0..],
    }

    /// By topic and partition.
    pub struct ListOffsetsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [2..],
        /// By topic.
        topics: Vec<ListOffsetsTopicResponse> [0..],
    }

    /// The offsets of one topic.
    pub struct ListOffsetsTopicResponse {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<ListOffsetsPartitionResponse> [0..],
    }

    /// The offset found in one partition.
    pub struct ListOffsetsPartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Whether it could be looked up.
        error_code: ErrorCode [0..],
        /// The timestamp of the record found; -1 at either end of the log.
        timestamp: i64 [1.., default -1],
        /// The offset; `None` when no record is that young.
        offset: Option<Offset> [1..],
        /// The epoch of the record found.
        leader_epoch: Option<LeaderEpoch> [4..],
    }
}
