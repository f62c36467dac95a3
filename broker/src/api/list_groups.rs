//! ListGroups (key 16, versions 0-5): the groups that this broker coordinates.
//!
//! 4: filter by state; 5: filter by type, of which `classic` is the only one here. While a part of the
//! groups is being loaded the rest is listed with an error, so that tools ask again.

use broker_core::group::{Request, Response};
use client_protocol::ErrorCode;
use client_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: ListGroupsRequest) -> Dispatch {
    if !shared.cluster.may_serve() {
        let error_code = ErrorCode::CoordinatorNotAvailable;
        return call.respond(&ListGroupsResponse { error_code, ..Default::default() });
    }
    let asked = shared.groups.ask_all(&Request::List(request));
    call.respond_later(async move {
        let mut response = ListGroupsResponse::default();
        for asked in asked {
            match asked.await {
                Response::List(Ok(groups)) => response.groups.extend(groups),
                // Whoever coordinates those now lists them.
                Response::List(Err(ErrorCode::NotCoordinator)) => {}
                Response::List(Err(error)) => response.error_code = error,
                other => unreachable!("a ListGroups is answered as such, not with {other:?}"),
            }
        }
        response
    })
}
