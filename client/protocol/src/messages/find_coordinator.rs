//! FindCoordinator (key 10): which broker is a group's or transaction's coordinator.
//!
//! *Called by* clients and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::BrokerId;
use crate::messages::exchange;

exchange!(FindCoordinator, FindCoordinatorRequest, FindCoordinatorResponse);

/// `key_type` of a group id.
pub const KEY_TYPE_GROUP: i8 = 0;
/// `key_type` of a transactional id.
pub const KEY_TYPE_TRANSACTION: i8 = 1;

wire_structs! {
    /// Versions 0-4. 3 is flexible, 4 asks for many keys.
    pub struct FindCoordinatorRequest {
        /// The group or transactional id.
        key: String [0..=3],
        /// [`KEY_TYPE_GROUP`] or [`KEY_TYPE_TRANSACTION`].
        key_type: i8 [1..],
        /// The group or transactional ids.
        coordinator_keys: Vec<String> [4..],
    }

    /// One coordinator, or from version 4 many.
    pub struct FindCoordinatorResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [1..],
        /// Whether it is known.
        error_code: ErrorCode [0..=3],
        /// Why not, in words.
        error_message: Option<String> [1..=3, nullable 1..=3],
        /// The coordinator.
        node_id: Option<BrokerId> [0..=3],
        /// Its host name or address.
        host: String [0..=3],
        /// Its port; -1 on error.
        port: i32 [0..=3],
        /// By key, as asked.
        coordinators: Vec<Coordinator> [4..],
    }

    /// The coordinator of one key.
    pub struct Coordinator {
        /// The group or transactional id.
        key: String [4..],
        /// The coordinator.
        node_id: Option<BrokerId> [4..],
        /// Its host name or address.
        host: String [4..],
        /// Its port; -1 on error.
        port: i32 [4..],
        /// Whether it is known.
        error_code: ErrorCode [4..],
        /// Why not, in words.
        error_message: Option<String> [4.., nullable 4..],
    }
}
