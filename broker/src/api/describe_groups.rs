//! DescribeGroups (key 15, versions 0-5): state and members of groups.
//!
//! 3: authorized operations, if asked for; 4: static members. A group that is not known is `Dead`.

use broker_core::group::{Request, Response};
use client_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use super::call::Call;
use super::shared::{GROUP_OPERATIONS, Shared};
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: DescribeGroupsRequest) -> Dispatch {
    let operations = request.include_authorized_operations.then_some(GROUP_OPERATIONS);
    let asked = shared.ask_groups(request.groups.into_iter().map(Request::Describe));
    call.respond_later(async move {
        let mut groups = Vec::with_capacity(asked.len());
        for asked in asked {
            let mut group = match asked.await {
                Response::Describe(group) => group,
                other => unreachable!("a DescribeGroups is answered as such, not with {other:?}"),
            };
            group.authorized_operations = operations.unwrap_or(group.authorized_operations);
            groups.push(group);
        }
        DescribeGroupsResponse { groups, ..Default::default() }
    })
}
