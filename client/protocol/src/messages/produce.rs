//! Produce (key 0): append one record batch to each of some partitions.
//!
//! *Called by* producers and the broker. The batches stay where they are in the frame ([`Records`]).

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::field::Records;
use crate::ids::{Offset, PartitionId};
use crate::messages::{LeaderIdAndEpoch, NodeEndpoint, exchange};

exchange!(Produce, ProduceRequest, ProduceResponse);

wire_structs! {
    /// Versions 3-11. 7 allows zstd, 9 is flexible, 10 brings the current leader along with errors.
    pub struct ProduceRequest {
        /// Set by transactional producers.
        transactional_id: Option<String> [3.., nullable 3..],
        /// 0: no answer at all; 1: the leader has it; -1: all in-sync replicas have it.
        acks: i16 [0..],
        /// How long the broker may wait for the replicas.
        timeout_ms: i32 [0..],
        /// By topic.
        topics: Vec<ProduceTopic> [0..],
    }

    /// The batches for one topic.
    pub struct ProduceTopic {
        /// The topic's name.
        name: String [0..],
        /// By partition.
        partitions: Vec<ProducePartition> [0..],
    }

    /// The batch for one partition.
    pub struct ProducePartition {
        /// The partition.
        index: PartitionId [0..],
        /// Exactly one batch, says the protocol; validate it ([`crate::records::validate_produced`]).
        records: Option<Records> [0.., nullable 0..],
    }

    /// Not sent at all for acks=0.
    pub struct ProduceResponse {
        /// By topic, as asked.
        topics: Vec<ProduceTopicResponse> [0..],
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// Addresses of the leaders that the partitions name.
        node_endpoints: Vec<NodeEndpoint> [10.., tag 0],
    }

    /// What became of one topic's batches.
    pub struct ProduceTopicResponse {
        /// The topic's name.
        name: String [0..],
        /// By partition, as asked.
        partitions: Vec<ProducePartitionResponse> [0..],
    }

    /// What became of one batch.
    pub struct ProducePartitionResponse {
        /// The partition.
        index: PartitionId [0..],
        /// Whether it was appended.
        error_code: ErrorCode [0..],
        /// The offset of the batch's first record; `None` on error.
        base_offset: Option<Offset> [0..],
        /// When the broker appended it, for topics that keep that time, else -1.
        log_append_time_ms: i64 [2.., default -1],
        /// The first offset of the partition's log.
        log_start_offset: Option<Offset> [5..],
        /// Which records made the batch fail.
        record_errors: Vec<ProduceRecordError> [8..],
        /// Why the batch failed, in words.
        error_message: Option<String> [8.., nullable 8..],
        /// The leader, when this broker is not.
        current_leader: LeaderIdAndEpoch [10.., tag 0],
    }

    /// One record that made its batch fail.
    pub struct ProduceRecordError {
        /// Its place in the batch, from 0.
        batch_index: i32 [8..],
        /// What is wrong with it.
        batch_index_error_message: Option<String> [8.., nullable 8..],
    }
}
