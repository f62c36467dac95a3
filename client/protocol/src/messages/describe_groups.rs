//! DescribeGroups (key 15): state and members of groups.
//!
//! *Called by* tools and the broker. Metadata and assignments are opaque to the broker.

use bytes::Bytes;

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::{AUTHORIZED_OPERATIONS_OMITTED, exchange};

exchange!(DescribeGroups, DescribeGroupsRequest, DescribeGroupsResponse);

wire_structs! {
    /// Versions 0-5. 3 can ask for operations, 4 has static members, 5 is flexible.
    pub struct DescribeGroupsRequest {
        /// Their ids.
        groups: Vec<String> [0..],
        /// Tell which operations the client may do.
        include_authorized_operations: bool [3..],
    }

    /// By group.
    pub struct DescribeGroupsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// As asked.
        groups: Vec<DescribedGroup> [0..],
    }

    /// One group.
    pub struct DescribedGroup {
        /// Whether it could be described.
        error_code: ErrorCode [0..],
        /// Its id.
        group_id: String [0..],
        /// `Stable`, `Empty` and so on; `Dead` for one that is not known.
        group_state: String [0..],
        /// `consumer`, `connect` and the like.
        protocol_type: String [0..],
        /// The protocol that its members chose.
        protocol_data: String [0..],
        /// Its members.
        members: Vec<DescribedGroupMember> [0..],
        /// Bits of the operations that the client may do.
        authorized_operations: i32 [3.., default AUTHORIZED_OPERATIONS_OMITTED],
    }

    /// One member.
    pub struct DescribedGroupMember {
        /// Its id.
        member_id: String [0..],
        /// Set by a static member.
        group_instance_id: Option<String> [4.., nullable 4..],
        /// What the client calls itself.
        client_id: String [0..],
        /// Where it connects from.
        client_host: String [0..],
        /// What the leader must know of it.
        member_metadata: Bytes [0..],
        /// Its work.
        member_assignment: Bytes [0..],
    }
}
