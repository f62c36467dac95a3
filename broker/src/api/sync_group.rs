//! SyncGroup (key 14, versions 0-5): hand out, or get, the work of a generation.
//!
//! 3: static members; 5: the protocol is repeated, both ways. The answer comes when the leader has
//! handed in the work and it is in the log.

use broker_core::group::{Request, Response};
use client_protocol::messages::SyncGroupRequest;

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: SyncGroupRequest) -> Dispatch {
    let asked = shared.ask_group(Request::Sync(request));
    call.respond_later(async move {
        match asked.await {
            Response::Sync(response) => response,
            other => unreachable!("a SyncGroup is answered as such, not with {other:?}"),
        }
    })
}
