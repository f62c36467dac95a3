//! AlterPartition (key 56): a leader asks the controller to change an ISR. Inter-broker.
//!
//! *Called by* the broker at both ends. The response says only whether; leaders adopt state by notification.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch, PartitionId, TopicId};
use crate::messages::exchange;

exchange!(AlterPartition, AlterPartitionRequest, AlterPartitionResponse);

wire_structs! {
    /// Versions 2-3. 3 names each member's broker epoch.
    pub struct AlterPartitionRequest {
        /// The leader that asks.
        broker_id: BrokerId [0..],
        /// The czxid of its registration; -1 when unknown.
        broker_epoch: i64 [0.., default -1],
        /// By topic.
        topics: Vec<AlterPartitionTopic> [0..],
    }

    /// Partitions of one topic.
    pub struct AlterPartitionTopic {
        /// The topic's id.
        topic_id: TopicId [2..],
        /// By partition.
        partitions: Vec<AlterPartitionPartition> [0..],
    }

    /// A change to one partition.
    pub struct AlterPartitionPartition {
        /// The partition.
        partition_index: PartitionId [0..],
        /// The epoch under which the sender leads.
        leader_epoch: LeaderEpoch [0..],
        /// The ISR wanted.
        new_isr: Vec<BrokerId> [0..=2],
        /// The ISR wanted, with broker epochs.
        new_isr_with_epochs: Vec<BrokerState> [3..],
        /// 1 while recovering from an unclean election.
        leader_recovery_state: i8 [1..],
        /// The version of the state that the change is based on.
        partition_epoch: i32 [0..],
    }

    /// A member of the ISR wanted.
    pub struct BrokerState {
        /// The broker.
        broker_id: BrokerId [3..],
        /// The czxid of its registration; -1 to skip the check.
        broker_epoch: i64 [3.., default -1],
    }

    /// By topic and partition.
    pub struct AlterPartitionResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// An error of the whole request (not the controller, stale broker epoch).
        error_code: ErrorCode [0..],
        /// By topic, as asked.
        topics: Vec<AlterPartitionTopicResponse> [0..],
    }

    /// What became of one topic's changes.
    pub struct AlterPartitionTopicResponse {
        /// The topic's id.
        topic_id: TopicId [2..],
        /// By partition, as asked.
        partitions: Vec<AlterPartitionPartitionResponse> [0..],
    }

    /// What became of one change.
    pub struct AlterPartitionPartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Whether it was made.
        error_code: ErrorCode [0..],
        /// The leader now.
        leader_id: Option<BrokerId> [0..],
        /// Its epoch.
        leader_epoch: Option<LeaderEpoch> [0..],
        /// The ISR now.
        isr: Vec<BrokerId> [0..],
        /// 1 while recovering from an unclean election.
        leader_recovery_state: i8 [1..],
        /// The version of the state now.
        partition_epoch: i32 [0..],
    }
}
