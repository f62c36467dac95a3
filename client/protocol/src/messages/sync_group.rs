//! SyncGroup (key 14): hand out, or get, the work of a generation.
//!
//! *Called by* consumers, workers and the broker. Assignments are opaque to the broker.

use bytes::Bytes;

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(SyncGroup, SyncGroupRequest, SyncGroupResponse);

wire_structs! {
    /// Versions 0-5. 3 has static members, 4 is flexible, 5 repeats the protocol.
    pub struct SyncGroupRequest {
        /// The group.
        group_id: String [0..],
        /// The generation.
        generation_id: i32 [0..],
        /// The member.
        member_id: String [0..],
        /// Set by a static member.
        group_instance_id: Option<String> [3.., nullable 3..],
        /// As in the answer to JoinGroup.
        protocol_type: Option<String> [5.., nullable 5..],
        /// As in the answer to JoinGroup.
        protocol_name: Option<String> [5.., nullable 5..],
        /// From the leader: everybody's work.
        assignments: Vec<SyncGroupAssignment> [0..],
    }

    /// One member's work.
    pub struct SyncGroupAssignment {
        /// The member.
        member_id: String [0..],
        /// Its work.
        assignment: Bytes [0..],
    }

    /// The member's own work.
    pub struct SyncGroupResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// Whether there is any.
        error_code: ErrorCode [0..],
        /// The group's protocol type.
        protocol_type: Option<String> [5.., nullable 5..],
        /// The group's protocol.
        protocol_name: Option<String> [5.., nullable 5..],
        /// The work.
        assignment: Bytes [0..],
    }
}
