//! OffsetCommit (key 8): remember how far a group has read.
//!
//! *Called by* consumers, tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::messages::exchange;

exchange!(OffsetCommit, OffsetCommitRequest, OffsetCommitResponse);

wire_structs! {
    /// Versions 2-9. 6 has leader epochs, 7 static members, 8 is flexible.
    pub struct OffsetCommitRequest {
        /// The group.
        group_id: String [0..],
        /// The generation, or the member's epoch in the new protocol; -1 from outside the group.
        generation_id_or_member_epoch: i32 [1.., default -1],
        /// The member; empty from outside the group.
        member_id: String [1..],
        /// Set by a static member.
        group_instance_id: Option<String> [7.., nullable 7..],
        /// How long to keep the offsets; -1 for the broker's default.
        retention_time_ms: i64 [2..=4, default -1],
        /// By topic.
        topics: Vec<OffsetCommitTopic> [0..],
    }

    /// Offsets in one topic.
    pub struct OffsetCommitTopic {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<OffsetCommitPartition> [0..],
    }

    /// The offset in one partition.
    pub struct OffsetCommitPartition {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Where the group will read on.
        committed_offset: Offset [0..],
        /// The epoch of the last record read.
        committed_leader_epoch: Option<LeaderEpoch> [6..],
        /// The group's own note.
        committed_metadata: Option<String> [0.., nullable 0..],
    }

    /// By topic and partition.
    pub struct OffsetCommitResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [3..],
        /// By topic, as asked.
        topics: Vec<OffsetCommitTopicResponse> [0..],
    }

    /// What became of one topic's offsets.
    pub struct OffsetCommitTopicResponse {
        /// The topic's name.
        name: String [0..],
        /// By partition, as asked.
        partitions: Vec<OffsetCommitPartitionResponse> [0..],
    }

    /// What became of one offset.
    pub struct OffsetCommitPartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Whether it is remembered.
        error_code: ErrorCode [0..],
    }
}
