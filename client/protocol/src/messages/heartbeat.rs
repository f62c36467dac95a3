//! Heartbeat (key 12): a member lives.
//!
//! *Called by* consumers, workers and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(Heartbeat, HeartbeatRequest, HeartbeatResponse);

wire_structs! {
    /// Versions 0-4. 3 has static members, 4 is flexible.
    pub struct HeartbeatRequest {
        /// The group.
        group_id: String [0..],
        /// The generation.
        generation_id: i32 [0..],
        /// The member.
        member_id: String [0..],
        /// Set by a static member.
        group_instance_id: Option<String> [3.., nullable 3..],
    }

    /// Whether it is still a member.
    pub struct HeartbeatResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// REBALANCE_IN_PROGRESS asks to join again.
        error_code: ErrorCode [0..],
    }
}
