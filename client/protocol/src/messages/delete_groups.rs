//! DeleteGroups (key 42): forget groups and how far they have read.
//!
//! *Called by* tools and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::messages::exchange;

exchange!(DeleteGroups, DeleteGroupsRequest, DeleteGroupsResponse);

wire_structs! {
    /// Versions 0-2. 2 is flexible.
    pub struct DeleteGroupsRequest {
        /// Their ids.
        groups_names: Vec<String> [0..],
    }

    /// By group.
    pub struct DeleteGroupsResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// As asked.
        results: Vec<DeletableGroupResult> [0..],
    }

    /// What became of one group.
    pub struct DeletableGroupResult {
        /// Its id.
        group_id: String [0..],
        /// Whether it is gone.
        error_code: ErrorCode [0..],
    }
}
