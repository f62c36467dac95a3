//! LeaveGroup (key 13, versions 0-5): members go.
//!
//! Up to version 2 one member goes, and its outcome is that of the request; 3: many, each with an
//! outcome of its own, static ones by their name; 5: why.

use broker_core::group::{Request, Response};
use client_protocol::messages::leave_group::MemberIdentity;
use client_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

/// First version in which many members go at once.
const MANY_FROM: i16 = 3;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, mut request: LeaveGroupRequest) -> Dispatch {
    let many = call.version >= MANY_FROM;
    if !many {
        let member_id = std::mem::take(&mut request.member_id);
        request.members = vec![MemberIdentity { member_id, ..Default::default() }];
    }
    let asked = shared.ask_group(Request::Leave(request));
    call.respond_later(async move {
        match asked.await {
            Response::Leave(response) if many => response,
            Response::Leave(response) => {
                let of_member = response.members.first().map(|member| member.error_code);
                let error_code = match response.error_code.is_none() {
                    true => of_member.unwrap_or_default(),
                    false => response.error_code,
                };
                LeaveGroupResponse { error_code, ..Default::default() }
            }
            other => unreachable!("a LeaveGroup is answered as such, not with {other:?}"),
        }
    })
}
