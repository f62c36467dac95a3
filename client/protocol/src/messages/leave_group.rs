//! LeaveGroup (key 13): members go.
//!
//! *Called by* consumers, workers, tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(LeaveGroup, LeaveGroupRequest, LeaveGroupResponse);

wire_structs! {
    /// Versions 0-5. 3 lets many members go at once, 4 is flexible.
    pub struct LeaveGroupRequest {
        /// The group.
        group_id: String [0..],
        /// The member.
        member_id: String [0..=2],
        /// The members.
        members: Vec<MemberIdentity> [3..],
    }

    /// A member that goes.
    pub struct MemberIdentity {
        /// Its id.
        member_id: String [3..],
        /// Set for a static member.
        group_instance_id: Option<String> [3.., nullable 3..],
        /// Why it goes.
        reason: Option<String> [5.., nullable 5..],
    }

    /// By member.
    pub struct LeaveGroupResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// An error of the whole request.
        error_code: ErrorCode [0..],
        /// By member, as asked.
        members: Vec<MemberResponse> [3..],
    }

    /// What became of one member.
    pub struct MemberResponse {
        /// Its id.
        member_id: String [3..],
        /// Set for a static member.
        group_instance_id: Option<String> [3.., nullable 3..],
        /// Whether it is gone.
        error_code: ErrorCode [3..],
    }
}
