//! OffsetDelete (key 47, version 0): forget how far a group has read in some partitions.
//!
//! Topics that do not exist any more may be named: their offsets are what people want to be rid of.

use broker_core::group::{Request, Response};
use client_protocol::messages::OffsetDeleteRequest;

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: OffsetDeleteRequest) -> Dispatch {
    let asked = shared.ask_group(Request::OffsetDelete(request));
    call.respond_later(async move {
        match asked.await {
            Response::OffsetDelete(response) => response,
            other => unreachable!("an OffsetDelete is answered as such, not with {other:?}"),
        }
    })
}
