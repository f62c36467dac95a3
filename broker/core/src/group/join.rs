//! JoinGroup: who may become, or stay, a member, and whether that starts a new generation.
//!
//! *Called by* the shard. *Calls* `rebalance`, `state`, `turn`. Invariant: every JoinGroup is answered
//! at once or by the generation that it leads to. Does not know versions.

use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::member::Member;
use super::message::{Join, Response, Ticket, join_refused};
use super::rebalance::{complete_if_all_joined, prepare};
use super::settings::{
    MEMBER_ENTRY_BYTES, NAME_BYTES_MAX, NEW_MEMBER_WAIT_MS, PROTOCOLS_MAX, Settings,
};
use super::state::{Group, Phase};
use super::subscription;
use super::turn::{Turn, error_of_write};
use super::writes::Then;

/// What is wrong with a request whatever the group.
pub(super) fn check(request: &JoinGroupRequest, settings: &Settings) -> Result<(), ErrorCode> {
    let timeouts = settings.session_timeout_min_ms..=settings.session_timeout_max_ms;
    if !timeouts.contains(&request.session_timeout_ms) {
        return Err(ErrorCode::InvalidSessionTimeout);
    }
    let instance = request.group_instance_id.as_deref();
    let names = request.protocols.iter().map(|protocol| protocol.name.as_str());
    let names = names.chain(instance).chain([request.member_id.as_str()]);
    let long = |name: &str| name.len() > NAME_BYTES_MAX;
    if names.chain([request.protocol_type.as_str()]).any(long) || instance == Some("") {
        return Err(ErrorCode::InvalidRequest);
    }
    if request.protocols.len() > PROTOCOLS_MAX {
        return Err(ErrorCode::InvalidRequest);
    }
    if request.protocols.is_empty() || request.protocol_type.is_empty() {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    Ok(())
}

/// Handles a request that [`check`] passed.
pub(super) fn join(group: &mut Group, join: &Join, ticket: Ticket, turn: &mut Turn<'_>) {
    let joined = match join.request.member_id.is_empty() {
        true => join_unknown(group, join, ticket, turn),
        false => join_known(group, join, ticket, turn),
    };
    if let Err(response) = joined {
        turn.respond(ticket, Response::Join(*response));
    }
}

/// `Err` is the answer; `Ok`: it was answered, or will be.
type Joined = Result<(), Box<JoinGroupResponse>>;

fn refused(join: &Join, error: ErrorCode) -> Joined {
    Err(Box::new(join_refused(error, join.request.member_id.clone())))
}

fn protocols(request: &JoinGroupRequest) -> Vec<(String, Bytes)> {
    let all = request.protocols.iter();
    // A copy, so that the frame in which it came can go.
    all.map(|one| (one.name.clone(), Bytes::copy_from_slice(&one.metadata))).collect()
}

fn new_member_id(join: &Join) -> String {
    let hex = join.entropy.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let uuid = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
    let prefix = join.request.group_instance_id.as_deref().unwrap_or(&join.client_id);
    let fits = |(at, c): (usize, char)| at.saturating_add(c.len_utf8()) <= NAME_BYTES_MAX / 2;
    let prefix: String = prefix.char_indices().take_while(|&c| fits(c)).map(|(_, c)| c).collect();
    format!("{prefix}-{uuid}")
}

/// A client without a member id.
fn join_unknown(group: &mut Group, join: &Join, ticket: Ticket, turn: &mut Turn<'_>) -> Joined {
    let request = &join.request;
    let former = request.group_instance_id.as_ref().and_then(|name| group.statics.get(name));
    let former = former.cloned();
    let brought = protocols(request);
    if !group.accepts(&request.protocol_type, &brought, former.as_deref()) {
        return refused(join, ErrorCode::InconsistentGroupProtocol);
    }
    let is_one_too_many = former.is_none() && is_full(group, turn.settings);
    let id = new_member_id(join);
    if is_one_too_many || !fits(group, join, &id, former.as_deref(), turn) {
        return refused(join, ErrorCode::GroupMaxSizeReached);
    }
    if let Some(former) = former {
        return replace_static(group, join, Arriving { ticket, id, former }, turn);
    }
    if request.group_instance_id.is_none() && join.member_id_required {
        let session_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
        group.pending.insert(id.clone(), turn.mono().plus(session_ms));
        return Err(Box::new(join_refused(ErrorCode::MemberIdRequired, id)));
    }
    add(group, join, ticket, id, turn);
    Ok(())
}

/// The group and the shard have room for a member `id` in place of `former`.
fn fits(group: &Group, join: &Join, id: &str, former: Option<&str>, turn: &Turn<'_>) -> bool {
    let request = &join.request;
    let protocols = request.protocols.iter();
    let protocols = protocols.map(|one| one.name.len().saturating_add(one.metadata.len()));
    let brought = protocols.fold(0, usize::saturating_add);
    let replaced = former.and_then(|id| group.members.get(id));
    let instance = replaced.and_then(|member| member.instance_id.as_ref());
    let instance = instance.or(request.group_instance_id.as_ref()).map_or(0, String::len);
    let names = [id.len(), instance, join.client_id.len(), join.client_host.len()];
    let held = names.into_iter().fold(brought, usize::saturating_add);
    let held = held.saturating_add(MEMBER_ENTRY_BYTES);
    let growth = held.saturating_sub(replaced.map_or(0, Member::held_bytes));
    group.has_room(brought, former) && growth <= turn.member_room
}

fn is_full(group: &Group, settings: &Settings) -> bool {
    group.members.len().saturating_add(group.pending.len()) >= settings.members_max
}

/// A client with a member id.
fn join_known(group: &mut Group, join: &Join, ticket: Ticket, turn: &mut Turn<'_>) -> Joined {
    let request = &join.request;
    let id = request.member_id.as_str();
    let brought = protocols(request);
    if group.pending.contains_key(id) {
        if request.group_instance_id.is_some() {
            return refused(join, ErrorCode::InvalidRequest);
        }
        if !group.accepts(&request.protocol_type, &brought, None) {
            return refused(join, ErrorCode::InconsistentGroupProtocol);
        }
        group.pending.remove(id);
        if !fits(group, join, id, None, turn) {
            complete_if_all_joined(group, turn);
            return refused(join, ErrorCode::GroupMaxSizeReached);
        }
        add(group, join, ticket, id.to_owned(), turn);
        return Ok(());
    }
    if let Err(error) = group.identify(id, request.group_instance_id.as_deref()) {
        return refused(join, error);
    }
    if !group.accepts(&request.protocol_type, &brought, Some(id)) {
        return refused(join, ErrorCode::InconsistentGroupProtocol);
    }
    let leads = group.leader.as_deref() == Some(id);
    let same = group.members.get(id).is_some_and(|member| member.protocols == brought);
    match group.phase {
        // The answer was lost: the generation stands as it is.
        Phase::Completing { .. } if same => Err(Box::new(group.join_response(id))),
        // A follower that only wants to know; a leader may want to share the work anew.
        Phase::Stable if same && !leads => {
            if let Some(member) = group.members.get_mut(id) {
                member.heard(turn.mono());
            }
            Err(Box::new(group.join_response(id)))
        }
        Phase::Preparing { .. } | Phase::Completing { .. } | Phase::Stable => {
            if !same && !fits(group, join, id, Some(id), turn) {
                return refused(join, ErrorCode::GroupMaxSizeReached);
            }
            update(group, join, id, ticket, turn);
            prepare(group, turn);
            Ok(())
        }
        Phase::Empty => refused(join, ErrorCode::UnknownMemberId),
    }
}

/// Takes over what a member says of itself, and lets its JoinGroup wait.
fn update(group: &mut Group, join: &Join, id: &str, ticket: Ticket, turn: &mut Turn<'_>) {
    let now = turn.mono();
    let Some(member) = group.members.get_mut(id) else { return };
    member.protocols = protocols(&join.request);
    member.session_timeout_ms = join.request.session_timeout_ms;
    member.rebalance_timeout_ms = rebalance_timeout_ms(&join.request);
    member.client_id.clone_from(&join.client_id);
    member.client_host.clone_from(&join.client_host);
    member.heard(now);
    if member.newcomer {
        // It waits as long as any newcomer, however often it has to ask.
        member.expires = now.plus(NEW_MEMBER_WAIT_MS);
    }
    // An older JoinGroup of the same member would hold up its connection.
    if let Some(older) = member.join.replace(ticket) {
        let error = ErrorCode::RebalanceInProgress;
        turn.respond(older, Response::Join(join_refused(error, id.to_owned())));
    }
}

fn rebalance_timeout_ms(request: &JoinGroupRequest) -> i32 {
    match request.rebalance_timeout_ms {
        given if given >= 0 => given,
        _ => request.session_timeout_ms,
    }
}

/// A new member; its JoinGroup waits.
fn add(group: &mut Group, join: &Join, ticket: Ticket, id: String, turn: &mut Turn<'_>) {
    let request = &join.request;
    if group.members.is_empty() {
        group.protocol_type = Some(request.protocol_type.clone());
    }
    let member = Member {
        id: id.clone(),
        instance_id: request.group_instance_id.clone(),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        rebalance_timeout_ms: rebalance_timeout_ms(request),
        session_timeout_ms: request.session_timeout_ms,
        protocols: protocols(request),
        assignment: Bytes::new(),
        join: Some(ticket),
        sync: None,
        expires: turn.mono().plus(NEW_MEMBER_WAIT_MS),
        must_sync: false,
        newcomer: true,
    };
    if let Some(instance) = &member.instance_id {
        group.statics.insert(instance.clone(), id.clone());
    }
    group.leader.get_or_insert_with(|| id.clone());
    group.members.insert(id, member);
    if let Phase::Preparing { initial: Some(initial), .. } = &mut group.phase {
        initial.newcomer = true;
    }
    prepare(group, turn);
}

/// A static member that came back without its id.
struct Arriving {
    ticket: Ticket,
    id: String,
    former: String,
}

fn replace_static(
    group: &mut Group,
    join: &Join,
    arriving: Arriving,
    turn: &mut Turn<'_>,
) -> Joined {
    let Arriving { ticket, id, former } = arriving;
    let Some(mut member) = group.members.remove(&former) else {
        return refused(join, ErrorCode::UnknownMemberId);
    };
    // Whoever used the former id is fenced.
    let error = ErrorCode::FencedInstanceId;
    if let Some(older) = member.join.take() {
        turn.respond(older, Response::Join(join_refused(error, former.clone())));
    }
    if let Some(older) = member.sync.take() {
        turn.respond(older, Response::Sync(super::message::sync_refused(error)));
    }
    let subscribed_before = subscribed(group, &member);
    member.id.clone_from(&id);
    if let Some(instance) = &member.instance_id {
        group.statics.insert(instance.clone(), id.clone());
    }
    group.members.insert(id.clone(), member);
    let leader = group.leader.clone().unwrap_or_default();
    if leader == former {
        group.leader = Some(id.clone());
    }
    update(group, join, &id, ticket, turn);
    let same_topics =
        group.members.get(&id).is_some_and(|member| subscribed(group, member) == subscribed_before);
    let goes_on =
        group.phase == Phase::Stable && same_topics && group.chosen_protocol() == group.protocol;
    if !goes_on {
        prepare(group, turn);
        return Ok(());
    }
    let record = group.to_record();
    let knows_skip_assignment = join.knows_skip_assignment;
    let then = Then::Rejoined { member: id.clone(), knows_skip_assignment, former: leader };
    match turn.write(&group.id, vec![record], then, None) {
        Ok(_) => Ok(()),
        Err(error) => {
            if let Some(member) = group.members.get_mut(&id) {
                member.join = None;
            }
            Err(Box::new(join_refused(error_of_write(error), String::new())))
        }
    }
}

/// The topics of a consumer, where they can be read.
fn subscribed(group: &Group, member: &Member) -> Option<std::collections::BTreeSet<String>> {
    if group.protocol_type.as_deref() != Some(subscription::CONSUMER) {
        return None;
    }
    subscription::topics(&member.metadata(group.protocol.as_deref()?))
}

/// A static member's new id is in the log, or not.
pub(super) fn rejoined(
    group: &mut Group,
    then: (&str, bool, &str),
    result: Result<(), ErrorCode>,
    turn: &mut Turn<'_>,
) {
    let (id, knows_skip_assignment, former_leader) = then;
    if group.phase != Phase::Stable {
        // Its JoinGroup is answered by the generation to come.
        return;
    }
    let now = turn.mono();
    let Some(member) = group.members.get_mut(id) else { return };
    let Some(ticket) = member.join.take() else { return };
    member.heard(now);
    member.newcomer = false;
    let response = match result {
        Err(error) => join_refused(error_of_write(error), id.to_owned()),
        Ok(()) => {
            let leads = group.leader.as_deref() == Some(id);
            let mut response = group.join_response(id);
            if leads && knows_skip_assignment {
                response.skip_assignment = true;
            } else if leads {
                // It would share the work anew: it is told that its former self leads.
                former_leader.clone_into(&mut response.leader);
                response.members = Vec::new();
            }
            response
        }
    };
    turn.respond(ticket, Response::Join(response));
}
