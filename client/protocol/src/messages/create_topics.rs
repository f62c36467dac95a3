//! CreateTopics (key 19).
//!
//! *Called by* admin clients and the broker, which forwards it to the controller.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, PartitionId, TopicId};
use crate::messages::exchange;

exchange!(CreateTopics, CreateTopicsRequest, CreateTopicsResponse);

wire_structs! {
    /// Versions 2-7. 4 allows defaults (-1), 5 is flexible and answers with settings, 7 answers with ids.
    pub struct CreateTopicsRequest {
        /// By topic.
        topics: Vec<CreatableTopic> [0..],
        /// How long the broker may wait until the topics exist.
        timeout_ms: i32 [0.., default 60_000],
        /// Only say whether it would work.
        validate_only: bool [1..],
    }

    /// A topic to create.
    pub struct CreatableTopic {
        /// Its name.
        name: String [0..],
        /// How many partitions; -1 for the broker's default or with an assignment.
        num_partitions: i32 [0..],
        /// How many replicas of each; -1 for the broker's default or with an assignment.
        replication_factor: i16 [0..],
        /// Which brokers hold which partition; empty to let the controller choose.
        assignments: Vec<CreatableReplicaAssignment> [0..],
        /// Settings.
        configs: Vec<CreatableTopicConfig> [0..],
    }

    /// The replicas of one partition.
    pub struct CreatableReplicaAssignment {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Its replicas, the preferred leader first.
        broker_ids: Vec<BrokerId> [0..],
    }

    /// One setting.
    pub struct CreatableTopicConfig {
        /// Its name.
        name: String [0..],
        /// Its value.
        value: Option<String> [0.., nullable 0..],
    }

    /// By topic.
    pub struct CreateTopicsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [2..],
        /// By topic, as asked.
        topics: Vec<CreatableTopicResult> [0..],
    }

    /// What became of one topic.
    pub struct CreatableTopicResult {
        /// Its name.
        name: String [0..],
        /// Its id.
        topic_id: Option<TopicId> [7..],
        /// Whether it was created.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [1.., nullable 1..],
        /// Why the settings are not shown.
        topic_config_error_code: ErrorCode [5.., tag 0],
        /// How many partitions; -1 when unknown.
        num_partitions: i32 [5.., default -1],
        /// How many replicas of each; -1 when unknown.
        replication_factor: i16 [5.., default -1],
        /// All its settings, defaults included.
        configs: Option<Vec<CreatableTopicConfigs>> [5.., nullable 5.., default Some(Vec::new())],
    }

    /// One setting of a created topic.
    pub struct CreatableTopicConfigs {
        /// Its name.
        name: String [5..],
        /// Its value.
        value: Option<String> [5.., nullable 5..],
        /// Cannot be changed.
        read_only: bool [5..],
        /// Where it comes from (see DescribeConfigs); -1 when unknown.
        config_source: i8 [5.., default -1],
        /// Its value is not shown.
        is_sensitive: bool [5..],
    }
}
