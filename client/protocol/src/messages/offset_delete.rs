//! OffsetDelete (key 47): forget how far a group has read in some partitions.
//!
//! *Called by* tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::PartitionId;
use crate::messages::exchange;

exchange!(OffsetDelete, OffsetDeleteRequest, OffsetDeleteResponse);

wire_structs! {
    /// Version 0.
    pub struct OffsetDeleteRequest {
        /// The group.
        group_id: String [0..],
        /// By topic.
        topics: Vec<OffsetDeleteTopic> [0..],
    }

    /// Partitions of one topic.
    pub struct OffsetDeleteTopic {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<OffsetDeletePartition> [0..],
    }

    /// One partition.
    pub struct OffsetDeletePartition {
        /// The partition.
        partition_index: PartitionId [0..],
    }

    /// By topic and partition.
    pub struct OffsetDeleteResponse {
        /// An error of the whole request.
        error_code: ErrorCode [0..],
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// By topic, as asked.
        topics: Vec<OffsetDeleteTopicResponse> [0..],
    }

    /// What became of one topic's offsets.
    pub struct OffsetDeleteTopicResponse {
        /// The topic's name.
        name: String [0..],
        /// By partition, as asked.
        partitions: Vec<OffsetDeletePartitionResponse> [0..],
    }

    /// What became of one offset.
    pub struct OffsetDeletePartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Whether it is forgotten.
        error_code: ErrorCode [0..],
    }
}
