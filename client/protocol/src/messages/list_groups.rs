//! ListGroups (key 16): the groups that a broker coordinates.
//!
//! *Called by* tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(ListGroups, ListGroupsRequest, ListGroupsResponse);

wire_structs! {
    /// Versions 0-5. 3 is flexible, 4 filters by state, 5 by type.
    pub struct ListGroupsRequest {
        /// Only groups in one of these states; empty for all.
        states_filter: Vec<String> [4..],
        /// Only groups of one of these types; empty for all.
        types_filter: Vec<String> [5..],
    }

    /// The groups of one broker.
    pub struct ListGroupsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// COORDINATOR_LOAD_IN_PROGRESS when some groups are not known yet.
        error_code: ErrorCode [0..],
        /// By id.
        groups: Vec<ListedGroup> [0..],
    }

    /// One group.
    pub struct ListedGroup {
        /// Its id.
        group_id: String [0..],
        /// `consumer`, `connect` and the like; empty for a group that never had members.
        protocol_type: String [0..],
        /// `Stable`, `Empty` and so on.
        group_state: String [4..],
        /// `classic` or `consumer`.
        group_type: String [5..],
    }
}
