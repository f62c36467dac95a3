//! JoinGroup (key 11, versions 0-9): become a member of a group's next generation.
//!
//! 1: rebalance time-out; 4: a new member comes back with the id it is given; 5: static members;
//! 7: the answer repeats the protocol type; 9: a leader may be told to leave the assignment as it is.
//! The answer comes with the generation, which may take as long as the slowest member.

use broker_core::group::{Join, Request, Response};
use client_protocol::ErrorCode;
use client_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::call::Call;
use super::shared::Shared;
use crate::cluster::random;
use crate::response::Dispatch;

/// First version in which a new member has to come back with its id.
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// First version in which an answer may have no protocol.
const NO_PROTOCOL_FROM: i16 = 7;
/// First version that knows of leaving the assignment as it is.
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// Longest client id that a group keeps, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 256;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: JoinGroupRequest) -> Dispatch {
    let version = call.version;
    let Ok(entropy) = random::bytes() else {
        let error_code = ErrorCode::CoordinatorNotAvailable;
        return call
            .respond(&fitted(version, JoinGroupResponse { error_code, ..Default::default() }));
    };
    let client_id = call.client_id.unwrap_or_default();
    let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= CLIENT_ID_BYTES_MAX;
    let asked = shared.ask_group(Request::Join(Box::new(Join {
        request,
        client_id: client_id.char_indices().take_while(fits).map(|(_, c)| c).collect(),
        // As Java prints an address that was never looked up.
        client_host: format!("/{}", call.session.peer.ip()),
        entropy,
        member_id_required: version >= MEMBER_ID_REQUIRED_FROM,
        knows_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
    })));
    call.respond_later(async move {
        match asked.await {
            Response::Join(response) => fitted(version, response),
            other => unreachable!("a JoinGroup is answered as such, not with {other:?}"),
        }
    })
}

fn fitted(version: i16, mut response: JoinGroupResponse) -> JoinGroupResponse {
    if version < NO_PROTOCOL_FROM {
        response.protocol_name.get_or_insert_default();
    }
    response
}
