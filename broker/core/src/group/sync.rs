//! SyncGroup: the leader hands in everybody's work, everybody gets theirs.
//!
//! *Called by* the shard. *Calls* `rebalance`, `state`, `turn`. Invariant: nobody gets work that is
//! not in the log of all in-sync replicas, and only members of the generation that it is for. Does
//! not know what the work is.

use std::collections::BTreeMap;

use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::message::{Response, Ticket, sync_refused};
use super::rebalance::{prepare, refuse_syncs};
use super::state::{Group, Phase};
use super::turn::{Turn, error_of_write};
use super::writes::Then;

/// Handles a request.
pub(super) fn sync(
    group: &mut Group,
    request: &SyncGroupRequest,
    ticket: Ticket,
    turn: &mut Turn<'_>,
) {
    match admit(group, request) {
        Err(ErrorCode::IllegalGeneration)
            if planted!(turn.settings.planted, HandWorkToAnyGeneration) =>
        {
            take_in(group, request, ticket, turn);
        }
        Err(error) => turn.respond(ticket, Response::Sync(sync_refused(error))),
        Ok(()) => take_in(group, request, ticket, turn),
    }
}

fn admit(group: &Group, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
    group.identify(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation_id != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol)
    {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    Ok(())
}

fn take_in(group: &mut Group, request: &SyncGroupRequest, ticket: Ticket, turn: &mut Turn<'_>) {
    let id = request.member_id.as_str();
    let now = turn.mono();
    let Some(member) = group.members.get_mut(id) else { return };
    member.must_sync = false;
    match group.phase {
        Phase::Empty => {
            let error = ErrorCode::UnknownMemberId;
            turn.respond(ticket, Response::Sync(sync_refused(error)));
        }
        Phase::Preparing { .. } => {
            let error = ErrorCode::RebalanceInProgress;
            turn.respond(ticket, Response::Sync(sync_refused(error)));
        }
        Phase::Stable => {
            member.heard(now);
            let response = work(group, id);
            turn.respond(ticket, Response::Sync(response));
        }
        Phase::Completing { write, .. } => {
            if let Some(older) = member.sync.replace(ticket) {
                let error = ErrorCode::RebalanceInProgress;
                turn.respond(older, Response::Sync(sync_refused(error)));
            }
            if group.leader.as_deref() == Some(id) && write.is_none() {
                store(group, request, turn);
            }
        }
    }
}

/// Everybody's work goes into the log.
fn store(group: &mut Group, request: &SyncGroupRequest, turn: &mut Turn<'_>) {
    let work: BTreeMap<&str, &Bytes> =
        request.assignments.iter().map(|one| (one.member_id.as_str(), &one.assignment)).collect();
    for member in group.members.values_mut() {
        let own = work.get(member.id.as_str()).map_or(&[][..], |work| work.as_ref());
        // A copy, so that the frame in which it came can go.
        member.assignment = Bytes::copy_from_slice(own);
    }
    let work = group.members.values().map(|member| member.assignment.len());
    if work.fold(0, usize::saturating_add) > turn.member_room {
        return fail(group, ErrorCode::GroupMaxSizeReached, turn);
    }
    let then = Then::Sync { generation: group.generation };
    match turn.write(&group.id, vec![group.to_record()], then, None) {
        Ok(id) => {
            group.stored = true;
            if let Phase::Completing { write, .. } = &mut group.phase {
                *write = Some(id);
            }
        }
        Err(ErrorCode::MessageTooLarge) => fail(group, ErrorCode::GroupMaxSizeReached, turn),
        Err(error) => fail(group, error_of_write(error), turn),
    }
}

/// The work of `generation` is in the log, or not.
pub(super) fn stored(
    group: &mut Group,
    generation: i32,
    result: Result<(), ErrorCode>,
    turn: &mut Turn<'_>,
) {
    if group.generation != generation || !matches!(group.phase, Phase::Completing { .. }) {
        // Somebody came or went meanwhile: this work is handed out to nobody.
        return;
    }
    if let Err(error) = result {
        return fail(group, error_of_write(error), turn);
    }
    group.phase = Phase::Stable;
    let now = turn.mono();
    let mut waiting = Vec::new();
    for member in group.members.values_mut() {
        if let Some(ticket) = member.sync.take() {
            member.heard(now);
            waiting.push((ticket, member.id.clone()));
        }
    }
    for (ticket, id) in waiting {
        let response = work(group, &id);
        turn.respond(ticket, Response::Sync(response));
    }
}

fn fail(group: &mut Group, error: ErrorCode, turn: &mut Turn<'_>) {
    refuse_syncs(group, error, turn);
    prepare(group, turn);
}

fn work(group: &Group, id: &str) -> SyncGroupResponse {
    SyncGroupResponse {
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol.clone(),
        assignment: group.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
        ..Default::default()
    }
}
