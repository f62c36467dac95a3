//! ElectLeaders (key 43).
//!
//! *Called by* admin clients and the broker, which forwards it to the controller.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::PartitionId;
use crate::messages::exchange;

exchange!(ElectLeaders, ElectLeadersRequest, ElectLeadersResponse);

/// `election_type`: the first assigned replica, if it is in sync.
pub const ELECTION_PREFERRED: i8 = 0;
/// `election_type`: any replica, where nobody in sync is left.
pub const ELECTION_UNCLEAN: i8 = 1;

wire_structs! {
    /// Versions 0-2. 0 knows preferred elections only, 2 is flexible.
    pub struct ElectLeadersRequest {
        /// [`ELECTION_PREFERRED`] or [`ELECTION_UNCLEAN`].
        election_type: i8 [1..],
        /// By topic; none for all partitions.
        topic_partitions: Option<Vec<ElectTopic>> [0.., nullable 0.., default Some(Vec::new())],
        /// How long the broker may wait until the leaders are elected.
        timeout_ms: i32 [0.., default 60_000],
    }

    /// Partitions of one topic.
    pub struct ElectTopic {
        /// Its name.
        topic: String [0..],
        /// Its partitions.
        partitions: Vec<PartitionId> [0..],
    }

    /// By topic and partition.
    pub struct ElectLeadersResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// An error of the whole request.
        error_code: ErrorCode [1..],
        /// By topic; of a request for all, only partitions for which something was done.
        replica_election_results: Vec<ReplicaElectionResult> [0..],
    }

    /// Results of one topic.
    pub struct ReplicaElectionResult {
        /// Its name.
        topic: String [0..],
        /// By partition.
        partition_result: Vec<PartitionElectionResult> [0..],
    }

    /// What became of one partition.
    pub struct PartitionElectionResult {
        /// The partition.
        partition_id: PartitionId [0..],
        /// Whether it has the leader that was asked for.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [0.., nullable 0..],
    }
}
