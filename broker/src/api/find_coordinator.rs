//! FindCoordinator (key 10, versions 0-4): which broker coordinates a group or a transaction.
//!
//! This broker keeps no groups and no transactions yet. A group is answered with
//! COORDINATOR_NOT_AVAILABLE, which clients take as "not now"; a transactional id with an error
//! that clients report at once, as waiting would not help. Version 4 asks for many keys.

use client_protocol::ErrorCode;
use client_protocol::messages::find_coordinator::{Coordinator, KEY_TYPE_TRANSACTION};
use client_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::call::Call;
use crate::response::Dispatch;

/// First version that asks for many keys.
const MANY_KEYS_FROM: i16 = 4;
/// "No port", where there is no coordinator.
const NO_PORT: i32 = -1;

pub(super) fn handle(call: &Call<'_>, request: &FindCoordinatorRequest) -> Dispatch {
    let error_code = match request.key_type {
        KEY_TYPE_TRANSACTION => ErrorCode::TransactionalIdAuthorizationFailed,
        _ => ErrorCode::CoordinatorNotAvailable,
    };
    let error_message = Some(error_code.message().to_owned());
    if call.version < MANY_KEYS_FROM {
        return call.respond(&FindCoordinatorResponse {
            error_code,
            error_message,
            port: NO_PORT,
            ..Default::default()
        });
    }
    let coordinator = |key: &String| Coordinator {
        key: key.clone(),
        port: NO_PORT,
        error_code,
        error_message: error_message.clone(),
        ..Default::default()
    };
    let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
    call.respond(&FindCoordinatorResponse { coordinators, ..Default::default() })
}
