//! Fetch (key 1): read record batches, as a consumer or as a follower.
//!
//! *Called by* consumers, followers and the broker. A response's batches are splice points when it is encoded and
//! byte ranges of the frame when it is decoded ([`Records`]).
//!
//! Versions 4-12 are Kafka's. 13 (topic ids) is spoken between our brokers only, with tagged fields of our own from
//! number 10000 on: where the follower's log ends, how much of it is on disk, and the follower's broker epoch.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::field::Records;
use crate::ids::{BrokerId, LeaderEpoch, Offset, PartitionId, ProducerId, TopicId};
use crate::messages::{LeaderIdAndEpoch, exchange};

exchange!(Fetch, FetchRequest, FetchResponse);

wire_structs! {
    /// 7 has sessions, 9 the current leader epoch, 10 zstd, 11 racks, 12 the last fetched epoch.
    pub struct FetchRequest {
        /// The cluster the sender believes in.
        cluster_id: Option<String> [12.., nullable 12.., tag 0],
        /// The follower; `None` for a consumer.
        replica_id: Option<BrokerId> [0..],
        /// How long the broker may wait for `min_bytes`.
        max_wait_ms: i32 [0..],
        /// Answer as soon as that many bytes of records are there.
        min_bytes: i32 [0..],
        /// At most that many bytes of records, but at least one whole batch.
        max_bytes: i32 [3.., default i32::MAX],
        /// 0: up to the high watermark; 1: up to the last stable offset.
        isolation_level: i8 [4..],
        /// 0 without a session.
        session_id: i32 [7..],
        /// -1: no session; 0: make one.
        session_epoch: i32 [7.., default -1],
        /// In order of priority.
        topics: Vec<FetchTopic> [0..],
        /// What to take out of the session.
        forgotten_topics_data: Vec<ForgottenTopic> [7..],
        /// The consumer's rack, empty if it has none.
        rack_id: String [11..],
        /// Ours: the czxid of the follower's registration; -1 when absent.
        replica_broker_epoch: i64 [13.., tag 10000, default -1],
    }

    /// What to read of one topic.
    pub struct FetchTopic {
        /// The topic's name.
        topic: String [0..=12],
        /// The topic's id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Vec<FetchPartition> [0..],
    }

    /// What to read of one partition.
    pub struct FetchPartition {
        /// The partition.
        partition: PartitionId [0..],
        /// The leader epoch the sender knows of.
        current_leader_epoch: Option<LeaderEpoch> [9..],
        /// The first offset wanted.
        fetch_offset: Offset [0..],
        /// The epoch of the last record the follower has.
        last_fetched_epoch: Option<LeaderEpoch> [12..],
        /// The first offset of the follower's log; `None` from a consumer.
        log_start_offset: Option<Offset> [5..],
        /// At most that many bytes of this partition.
        partition_max_bytes: i32 [0..],
        /// Ours: where the follower's log ends (exclusive).
        replica_end_offset: Option<Offset> [13.., tag 10000],
        /// Ours: up to where the follower's log is on disk (exclusive), `<= replica_end_offset`.
        replica_durable_end_offset: Option<Offset> [13.., tag 10001],
    }

    /// Partitions to take out of the session.
    pub struct ForgottenTopic {
        /// The topic's name.
        topic: String [7..=12],
        /// The topic's id.
        topic_id: TopicId [13..],
        /// Its partitions.
        partitions: Vec<PartitionId> [7..],
    }

    /// By topic and partition; in a session only those that changed.
    pub struct FetchResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// An error of the whole request (session, parsing).
        error_code: ErrorCode [7..],
        /// 0 without a session.
        session_id: i32 [7..],
        /// By topic.
        responses: Vec<FetchTopicResponse> [0..],
    }

    /// What was read of one topic.
    pub struct FetchTopicResponse {
        /// The topic's name.
        topic: String [0..=12],
        /// The topic's id.
        topic_id: TopicId [13..],
        /// By partition.
        partitions: Vec<FetchPartitionResponse> [0..],
    }

    /// What was read of one partition. `log_start_offset <= last_stable_offset <= high_watermark`.
    pub struct FetchPartitionResponse {
        /// The partition.
        partition_index: PartitionId [0..],
        /// Whether it could be read.
        error_code: ErrorCode [0..],
        /// Up to where records are committed (exclusive); `None` on error.
        high_watermark: Option<Offset> [0..],
        /// Up to where no transaction is open (exclusive).
        last_stable_offset: Option<Offset> [4..],
        /// The first offset of the log.
        log_start_offset: Option<Offset> [5..],
        /// Where the follower's log leaves the leader's: truncate to it.
        diverging_epoch: EpochEndOffset [12.., tag 0],
        /// The leader, when this broker is not.
        current_leader: LeaderIdAndEpoch [12.., tag 1],
        /// The snapshot to fetch instead (of Kafka's own consensus; we never send it).
        snapshot_id: SnapshotId [12.., tag 2],
        /// Aborted transactions in the range, for read_committed; `None` for read_uncommitted.
        aborted_transactions: Option<Vec<AbortedTransaction>> [4.., nullable 4..],
        /// The replica the consumer should read from instead.
        preferred_read_replica: Option<BrokerId> [11..],
        /// Whole batches, the first of which may begin before the offset asked for.
        records: Option<Records> [0.., nullable 0..],
    }

    /// The end (exclusive) of the largest epoch that is not beyond the one asked for.
    pub struct EpochEndOffset {
        /// That epoch; `None` when the field is absent.
        epoch: Option<LeaderEpoch> [12..],
        /// Its end.
        end_offset: Option<Offset> [12..],
    }

    /// A snapshot of Kafka's own consensus.
    pub struct SnapshotId {
        /// Its end.
        end_offset: Option<Offset> [0..],
        /// Its epoch.
        epoch: Option<LeaderEpoch> [0..],
    }

    /// A transaction whose records a read_committed consumer drops.
    pub struct AbortedTransaction {
        /// Its producer.
        producer_id: ProducerId [4..],
        /// Its first offset.
        first_offset: Offset [4..],
    }
}
