//! OffsetFetch (key 9): how far a group has read.
//!
//! *Called by* consumers, tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, PartitionId};
use crate::messages::exchange;

exchange!(OffsetFetch, OffsetFetchRequest, OffsetFetchResponse);

wire_structs! {
    /// Versions 1-9. 6 is flexible, 7 can wait for transactions, 8 asks for many groups, 9 names the member.
    pub struct OffsetFetchRequest {
        /// The group.
        group_id: String [0..=7],
        /// By topic; null for all that are remembered.
        topics: Option<Vec<OffsetFetchTopic>> [0..=7, nullable 2..=7, default Some(Vec::new())],
        /// The groups.
        groups: Vec<OffsetFetchGroup> [8..],
        /// Answer UNSTABLE_OFFSET_COMMIT while a transaction holds newer offsets.
        require_stable: bool [7..],
    }

    /// One group.
    pub struct OffsetFetchGroup {
        /// Its id.
        group_id: String [8..],
        /// The member that asks, in the new protocol.
        member_id: Option<String> [9.., nullable 9..],
        /// Its epoch; -1 from outside the group.
        member_epoch: i32 [9.., default -1],
        /// By topic; null for all that are remembered.
        topics: Option<Vec<OffsetFetchTopic>> [8.., nullable 8..],
    }

    /// Partitions of one topic.
    pub struct OffsetFetchTopic {
        /// The topic's name.
        name: String [0..],
        /// Its partitions.
        partition_indexes: Vec<PartitionId> [0..],
    }

    /// By topic and partition, from version 8 by group.
    pub struct OffsetFetchResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [3..],
        /// By topic.
        topics: Vec<OffsetFetchTopicResponse> [0..=7],
        /// An error of the whole request.
        error_code: ErrorCode [2..=7],
        /// By group, as asked.
        groups: Vec<OffsetFetchGroupResponse> [8..],
    }

    /// The offsets of one group.
    pub struct OffsetFetchGroupResponse {
        /// Its id.
        group_id: String [8..],
        /// By topic.
        topics: Vec<OffsetFetchTopicResponse> [8..],
        /// An error of the whole group.
        error_code: ErrorCode [8..],
    }

    /// The offsets in one topic.
    pub struct OffsetFetchTopicResponse {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<OffsetFetchPartitionResponse> [0..],
    }

    /// The offset in one partition.
    pub struct OffsetFetchPartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Where the group will read on; `None` when it never said.
        committed_offset: Option<Offset> [0..],
        /// The epoch of the last record read.
        committed_leader_epoch: Option<LeaderEpoch> [5..],
        /// The group's own note.
        metadata: Option<String> [0.., nullable 0..],
        /// Whether it could be looked up.
        error_code: ErrorCode [0..],
    }
}
