//! DeleteGroups (key 42, versions 0-2): forget groups without members, and how far they have read.

use broker_core::group::{Request, Response};
use client_protocol::messages::delete_groups::DeletableGroupResult;
use client_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: DeleteGroupsRequest) -> Dispatch {
    let names = request.groups_names;
    let asked = shared.ask_groups(names.iter().cloned().map(Request::Delete));
    call.respond_later(async move {
        let mut results = Vec::with_capacity(asked.len());
        for (group_id, asked) in names.into_iter().zip(asked) {
            let error_code = match asked.await {
                Response::Delete(error_code) => error_code,
                other => unreachable!("a DeleteGroups is answered as such, not with {other:?}"),
            };
            results.push(DeletableGroupResult { group_id, error_code });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    })
}
