//! Heartbeat and LeaveGroup: who still is a member.
//!
//! *Called by* the shard. *Calls* `rebalance`, `state`, `turn`. Does not know sockets: a connection
//! that ends says nothing, only silence and leaving count.

use client_protocol::ErrorCode;
use client_protocol::messages::leave_group::{MemberIdentity, MemberResponse};
use client_protocol::messages::{HeartbeatRequest, LeaveGroupRequest, LeaveGroupResponse};

use super::rebalance::{after_removal, complete_if_all_joined, remove};
use super::state::{Group, Phase};
use super::turn::Turn;

/// A member says that it lives; the code is the answer.
pub(super) fn heartbeat(
    group: &mut Group,
    request: &HeartbeatRequest,
    turn: &Turn<'_>,
) -> ErrorCode {
    if let Err(error) = group.identify(&request.member_id, request.group_instance_id.as_deref()) {
        return error;
    }
    if request.generation_id != group.generation {
        return ErrorCode::IllegalGeneration;
    }
    if let Some(member) = group.members.get_mut(&request.member_id) {
        member.heard(turn.mono());
    }
    match group.phase {
        Phase::Empty => ErrorCode::UnknownMemberId,
        Phase::Preparing { .. } => ErrorCode::RebalanceInProgress,
        Phase::Completing { .. } | Phase::Stable => ErrorCode::None,
    }
}

/// Members go.
pub(super) fn leave(
    group: &mut Group,
    request: &LeaveGroupRequest,
    turn: &mut Turn<'_>,
) -> LeaveGroupResponse {
    let before = group.members.len();
    let mut members = Vec::new();
    for who in &request.members {
        let error_code = leave_one(group, who, turn);
        members.push(MemberResponse {
            member_id: who.member_id.clone(),
            group_instance_id: who.group_instance_id.clone(),
            error_code,
        });
    }
    if group.members.len() < before {
        after_removal(group, turn);
    } else {
        // An id that was given out may have gone: nobody worked under it, and nobody waits for it.
        complete_if_all_joined(group, turn);
    }
    LeaveGroupResponse { members, ..Default::default() }
}

fn leave_one(group: &mut Group, who: &MemberIdentity, turn: &mut Turn<'_>) -> ErrorCode {
    let instance = who.group_instance_id.as_deref();
    // A tool takes a static member out by its name alone.
    let id = match instance.filter(|_| who.member_id.is_empty()) {
        Some(name) => match group.statics.get(name) {
            Some(id) => id.clone(),
            None => return ErrorCode::UnknownMemberId,
        },
        None => who.member_id.clone(),
    };
    if instance.is_none() && group.pending.remove(&id).is_some() {
        return ErrorCode::None;
    }
    if let Err(error) = group.identify(&id, instance) {
        return error;
    }
    remove(group, &id, turn);
    ErrorCode::None
}
