//! CreatePartitions (key 37).
//!
//! *Called by* admin clients and the broker, which forwards it to the controller.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::BrokerId;
use crate::messages::exchange;

exchange!(CreatePartitions, CreatePartitionsRequest, CreatePartitionsResponse);

wire_structs! {
    /// Versions 0-3. 2 is flexible; 1 and 3 changed only what clients do when they are throttled.
    pub struct CreatePartitionsRequest {
        /// By topic.
        topics: Vec<CreatePartitionsTopic> [0..],
        /// How long the broker may wait until the partitions exist.
        timeout_ms: i32 [0..],
        /// Only say whether it would work.
        validate_only: bool [0..],
    }

    /// A topic that gets more partitions.
    pub struct CreatePartitionsTopic {
        /// Its name.
        name: String [0..],
        /// How many partitions it has afterwards, those that are there included.
        count: i32 [0..],
        /// The replicas of the new ones, in their order; none to let the controller choose.
        assignments: Option<Vec<CreatePartitionsAssignment>> [0.., nullable 0..],
    }

    /// The replicas of one new partition.
    pub struct CreatePartitionsAssignment {
        /// The preferred leader first.
        broker_ids: Vec<BrokerId> [0..],
    }

    /// By topic.
    pub struct CreatePartitionsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// By topic, as asked.
        results: Vec<CreatePartitionsTopicResult> [0..],
    }

    /// What became of one topic.
    pub struct CreatePartitionsTopicResult {
        /// Its name.
        name: String [0..],
        /// Whether it has the partitions.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [0.., nullable 0..],
    }
}
