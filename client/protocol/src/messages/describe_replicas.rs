//! DescribeReplicas (key 10000, ours): what a broker's replicas hold. Inter-broker, never advertised.
//!
//! *Called by* the controller before it elects a replica that came back, or when none is eligible; answered by the
//! broker that holds the replicas.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{LeaderEpoch, Offset, PartitionId, TopicId};
use crate::messages::exchange;

exchange!(DescribeReplicas, DescribeReplicasRequest, DescribeReplicasResponse);

wire_structs! {
    /// Version 0.
    pub struct DescribeReplicasRequest {
        /// The asking controller's epoch; a broker that knows a higher one answers STALE_CONTROLLER_EPOCH.
        controller_epoch: i32 [0..],
        /// By topic.
        topics: Vec<DescribeReplicasTopic> [0..],
    }

    /// Partitions of one topic.
    pub struct DescribeReplicasTopic {
        /// The topic's id.
        topic_id: TopicId [0..],
        /// Its partitions.
        partitions: Vec<PartitionId> [0..],
    }

    /// By topic and partition.
    pub struct DescribeReplicasResponse {
        /// An error of the whole request.
        error_code: ErrorCode [0..],
        /// The czxid of the answering broker's registration.
        broker_epoch: i64 [0.., default -1],
        /// By topic, as asked.
        topics: Vec<DescribeReplicasTopicResponse> [0..],
    }

    /// The replicas of one topic.
    pub struct DescribeReplicasTopicResponse {
        /// The topic's id.
        topic_id: TopicId [0..],
        /// By partition, as asked.
        partitions: Vec<ReplicaDescription> [0..],
    }

    /// One replica. `durable_end_offset <= end_offset`.
    pub struct ReplicaDescription {
        /// The partition.
        partition_index: PartitionId [0..],
        /// UNKNOWN_TOPIC_OR_PARTITION when the broker has no such replica.
        error_code: ErrorCode [0..],
        /// The epoch of its last record; `None` for an empty log.
        last_epoch: Option<LeaderEpoch> [0..],
        /// Where its log ends (exclusive).
        end_offset: Option<Offset> [0..],
        /// Up to where its log is on disk (exclusive).
        durable_end_offset: Option<Offset> [0..],
        /// Recovery had to cut below what the durable mark promised: records that were acknowledged may be missing.
        cut_below_mark: bool [0..],
    }
}
