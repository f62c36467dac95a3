//! Metadata (key 3): brokers, controller, topics and their leaders.
//!
//! *Called by* every client and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, LeaderEpoch, PartitionId, TopicId};
use crate::messages::{AUTHORIZED_OPERATIONS_OMITTED, exchange};

exchange!(Metadata, MetadataRequest, MetadataResponse);

wire_structs! {
    /// Versions 0-12. 4 says whether topics may be created, 9 is flexible, 10 has topic ids, 12 asks by id.
    pub struct MetadataRequest {
        /// Null: all topics. Empty: none, but all in version 0 (see [`MetadataRequest::wants_all_topics`]).
        topics: Option<Vec<MetadataRequestTopic>> [0.., nullable 1..],
        /// Create missing topics, if the broker is configured to.
        allow_auto_topic_creation: bool [4.., default true],
        /// Fill in the cluster's authorized operations.
        include_cluster_authorized_operations: bool [8..=10],
        /// Fill in each topic's authorized operations.
        include_topic_authorized_operations: bool [8..],
    }

    /// A topic asked for, by name or by id.
    pub struct MetadataRequestTopic {
        /// Its id.
        topic_id: Option<TopicId> [10..],
        /// Its name; null when asked by id.
        name: Option<String> [0.., nullable 10..],
    }

    /// A picture of the cluster.
    pub struct MetadataResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [3..],
        /// The live brokers.
        brokers: Vec<MetadataBroker> [0..],
        /// The cluster's id.
        cluster_id: Option<String> [2.., nullable 2..],
        /// A broker that takes controller requests.
        controller_id: Option<BrokerId> [1..],
        /// By topic.
        topics: Vec<MetadataTopic> [0..],
        /// A bit set.
        cluster_authorized_operations: i32 [8..=10, default AUTHORIZED_OPERATIONS_OMITTED],
    }

    /// A live broker.
    pub struct MetadataBroker {
        /// Its number.
        node_id: BrokerId [0..],
        /// Its host name or address.
        host: String [0..],
        /// Its port.
        port: i32 [0..],
        /// Its rack, if it has one.
        rack: Option<String> [1.., nullable 1..],
    }

    /// One topic.
    pub struct MetadataTopic {
        /// Whether it is known.
        error_code: ErrorCode [0..],
        /// Its name; null when it was asked for by an id that is not known.
        name: Option<String> [0.., nullable 12..],
        /// Its id.
        topic_id: Option<TopicId> [10..],
        /// One of the broker's own topics.
        is_internal: bool [1..],
        /// By partition.
        partitions: Vec<MetadataPartition> [0..],
        /// A bit set.
        topic_authorized_operations: i32 [8.., default AUTHORIZED_OPERATIONS_OMITTED],
    }

    /// One partition.
    pub struct MetadataPartition {
        /// Whether it can be used.
        error_code: ErrorCode [0..],
        /// The partition.
        partition_index: PartitionId [0..],
        /// Its leader; `None` while it has none.
        leader_id: Option<BrokerId> [0..],
        /// The leader's epoch.
        leader_epoch: Option<LeaderEpoch> [7..],
        /// Its replicas, the preferred leader first.
        replica_nodes: Vec<BrokerId> [0..],
        /// Those in sync.
        isr_nodes: Vec<BrokerId> [0..],
        /// Those whose broker or log directory is down.
        offline_replicas: Vec<BrokerId> [5..],
    }
}

impl MetadataRequest {
    /// Whether all topics are asked for, at the version the request came in.
    #[must_use]
    pub fn wants_all_topics(&self, version: i16) -> bool {
        self.topics.as_ref().is_none_or(|topics| version == 0 && topics.is_empty())
    }
}
