//! JoinGroup (key 11): become a member of a group's next generation.
//!
//! *Called by* consumers, workers and the broker. Metadata is opaque to the broker.

use bytes::Bytes;

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(JoinGroup, JoinGroupRequest, JoinGroupResponse);

wire_structs! {
    /// Versions 0-9. 1 has the rebalance time-out, 4 wants a member id of the broker's, 5 static members, 6 is flexible.
    pub struct JoinGroupRequest {
        /// The group.
        group_id: String [0..],
        /// How long the member may be silent.
        session_timeout_ms: i32 [0..],
        /// How long the group waits for the member to join again; -1 for the session time-out.
        rebalance_timeout_ms: i32 [1.., default -1],
        /// Empty for a new member.
        member_id: String [0..],
        /// Set by a static member.
        group_instance_id: Option<String> [5.., nullable 5..],
        /// `consumer`, `connect` and the like.
        protocol_type: String [0..],
        /// What the member can do, preferred first.
        protocols: Vec<JoinGroupProtocol> [0..],
        /// Why it joins.
        reason: Option<String> [8.., nullable 8..],
    }

    /// One way of sharing work.
    pub struct JoinGroupProtocol {
        /// Its name.
        name: String [0..],
        /// What the leader must know of the member.
        metadata: Bytes [0..],
    }

    /// The generation that the member is part of.
    pub struct JoinGroupResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [2..],
        /// Whether it is a member.
        error_code: ErrorCode [0..],
        /// The generation.
        generation_id: i32 [0.., default -1],
        /// As the members said.
        protocol_type: Option<String> [7.., nullable 7..],
        /// The protocol that all of them can do.
        protocol_name: Option<String> [0.., nullable 7..],
        /// The member that shares the work out.
        leader: String [0..],
        /// The leader is to leave the assignment as it is.
        skip_assignment: bool [9..],
        /// The member's id.
        member_id: String [0..],
        /// For the leader: all members.
        members: Vec<JoinGroupMember> [0..],
    }

    /// One member.
    pub struct JoinGroupMember {
        /// Its id.
        member_id: String [0..],
        /// Set by a static member.
        group_instance_id: Option<String> [5.., nullable 5..],
        /// What the leader must know of it.
        metadata: Bytes [0..],
    }
}
