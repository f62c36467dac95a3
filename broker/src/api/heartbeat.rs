//! Heartbeat (key 12, versions 0-4): a member lives, and hears whether it has to join again.
//!
//! 3: static members.

use broker_core::group::{Request, Response};
use client_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: HeartbeatRequest) -> Dispatch {
    let asked = shared.ask_group(Request::Heartbeat(request));
    call.respond_later(async move {
        match asked.await {
            Response::Heartbeat(error_code) => {
                HeartbeatResponse { error_code, ..Default::default() }
            }
            other => unreachable!("a Heartbeat is answered as such, not with {other:?}"),
        }
    })
}
