//! FindCoordinator (key 10, versions 0-4): which broker coordinates a group or a transaction.
//!
//! This broker keeps no groups and no transactions yet: every key is answered with
//! COORDINATOR_NOT_AVAILABLE, which clients take as "not now". Version 4 asks for many keys.

use client_protocol::ErrorCode;
use client_protocol::messages::find_coordinator::Coordinator;
use client_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::call::Call;
use crate::response::Dispatch;

/// First version that asks for many keys.
const MANY_KEYS_FROM: i16 = 4;
/// "No port", where there is no coordinator.
const NO_PORT: i32 = -1;

pub(super) fn handle(call: &Call<'_>, request: &FindCoordinatorRequest) -> Dispatch {
    let error_code = ErrorCode::CoordinatorNotAvailable;
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
