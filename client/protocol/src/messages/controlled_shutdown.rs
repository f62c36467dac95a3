//! ControlledShutdown (key 7): a stopping broker asks the controller to move its leaders. Inter-broker.
//!
//! *Called by* the broker at both ends.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{BrokerId, PartitionId};
use crate::messages::exchange;

exchange!(ControlledShutdown, ControlledShutdownRequest, ControlledShutdownResponse);

wire_structs! {
    /// Version 3.
    pub struct ControlledShutdownRequest {
        /// The broker that stops.
        broker_id: BrokerId [0..],
        /// The czxid of its registration; -1 when unknown.
        broker_epoch: i64 [2.., default -1],
    }

    /// What it still leads.
    pub struct ControlledShutdownResponse {
        /// Whether leaders were moved.
        error_code: ErrorCode [0..],
        /// Those that could not be moved.
        remaining_partitions: Vec<RemainingPartition> [0..],
    }

    /// A partition that the broker still leads.
    pub struct RemainingPartition {
        /// The topic's name.
        topic_name: String [0..],
        /// The partition.
        partition_index: PartitionId [0..],
    }
}
