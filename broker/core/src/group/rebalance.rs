//! From one generation to the next: who starts it, who is waited for, who is left behind.
//!
//! *Called by* `join`, `session`, `sync`, the shard's timers. *Calls* `group`, `turn`. Invariant: a
//! generation is numbered above all before it, and everybody in it knows its protocol. Does not
//! know what the work is.

use client_protocol::ErrorCode;

use super::message::{Response, join_refused, sync_refused};
use super::state::{Group, Initial, Phase};
use super::turn::Turn;
use super::writes::Then;
use crate::ids::Millis;

/// Everybody has to join again.
pub(super) fn prepare(group: &mut Group, turn: &mut Turn<'_>) {
    if matches!(group.phase, Phase::Preparing { .. }) {
        return complete_if_all_joined(group, turn);
    }
    if matches!(group.phase, Phase::Completing { .. }) {
        // The work of this generation will never be handed out.
        refuse_syncs(group, ErrorCode::RebalanceInProgress, turn);
    }
    let timeout_ms = group.rebalance_timeout_ms();
    let (wait_ms, initial) = match group.phase {
        Phase::Empty => {
            let delay_ms = turn.settings.initial_rebalance_delay_ms;
            let remaining_ms = timeout_ms.saturating_sub(delay_ms);
            (delay_ms, Some(Initial { remaining_ms, newcomer: false }))
        }
        Phase::Preparing { .. } | Phase::Completing { .. } | Phase::Stable => (timeout_ms, None),
    };
    group.phase = Phase::Preparing { deadline: turn.mono().plus(wait_ms), initial };
    group.since_ms = turn.now.wall_ms;
    complete_if_all_joined(group, turn);
}

/// Answers everybody who waits for work, and takes back what was handed in.
pub(super) fn refuse_syncs(group: &mut Group, error: ErrorCode, turn: &mut Turn<'_>) {
    let now = turn.mono();
    for member in group.members.values_mut() {
        member.assignment.clear();
        if let Some(ticket) = member.sync.take() {
            member.heard(now);
            turn.respond(ticket, Response::Sync(sync_refused(error)));
        }
    }
}

/// Begins the generation when nobody is missing.
pub(super) fn complete_if_all_joined(group: &mut Group, turn: &mut Turn<'_>) {
    let Phase::Preparing { initial, .. } = group.phase else { return };
    let all = group.members.values().all(|member| member.join.is_some());
    if all && group.pending.is_empty() && initial.is_none() {
        complete(group, turn);
    }
}

/// Begins the next generation with those who have joined.
fn complete(group: &mut Group, turn: &mut Turn<'_>) {
    let joined = |group: &Group| group.members.values().any(|member| member.join.is_some());
    // Static members keep their place until their session ends.
    let late = group.members.values().filter(|m| m.join.is_none() && m.instance_id.is_none());
    for id in late.map(|member| member.id.clone()).collect::<Vec<_>>() {
        remove(group, &id, turn);
    }
    if !group.members.is_empty() && !joined(group) {
        // Only static members are left and none is back yet.
        let deadline = turn.mono().plus(group.rebalance_timeout_ms());
        group.phase = Phase::Preparing { deadline, initial: None };
        return;
    }
    group.generation = group.generation.saturating_add(1);
    group.since_ms = turn.now.wall_ms;
    if group.members.is_empty() {
        return become_empty(group, turn);
    }
    let leads = |id: &String| group.members.get(id).is_some_and(|member| member.join.is_some());
    if !group.leader.as_ref().is_some_and(leads) {
        let first = group.members.values().find(|member| member.join.is_some());
        group.leader = first.map(|member| member.id.clone());
    }
    group.protocol = group.chosen_protocol();
    let deadline = turn.mono().plus(group.rebalance_timeout_ms());
    group.phase = Phase::Completing { deadline, write: None };
    answer_joins(group, turn);
}

fn become_empty(group: &mut Group, turn: &mut Turn<'_>) {
    group.protocol = None;
    group.leader = None;
    group.phase = Phase::Empty;
    let record = group.to_record();
    // Not stored, a failover would bring the members back, and time would take them out again.
    if turn.write(&group.id, vec![record], Then::Nothing, None).is_ok() {
        group.stored = true;
    }
}

fn answer_joins(group: &mut Group, turn: &mut Turn<'_>) {
    let now = turn.mono();
    let mut waiting = Vec::new();
    for member in group.members.values_mut() {
        member.assignment.clear();
        if let Some(ticket) = member.join.take() {
            member.newcomer = false;
            member.must_sync = true;
            member.heard(now);
            waiting.push((ticket, member.id.clone()));
        }
    }
    for (ticket, id) in waiting {
        let response = group.join_response(&id);
        turn.respond(ticket, Response::Join(response));
    }
}

/// Takes a member out. What follows for the group is up to the caller: [`after_removal`].
pub(super) fn remove(group: &mut Group, id: &str, turn: &mut Turn<'_>) {
    let Some(member) = group.members.remove(id) else { return };
    if let Some(instance) = &member.instance_id
        && group.statics.get(instance).is_some_and(|holder| holder == id)
    {
        group.statics.remove(instance);
    }
    if group.leader.as_deref() == Some(id) {
        group.leader = None;
    }
    let error = ErrorCode::UnknownMemberId;
    if let Some(ticket) = member.join {
        turn.respond(ticket, Response::Join(join_refused(error, id.to_owned())));
    }
    if let Some(ticket) = member.sync {
        turn.respond(ticket, Response::Sync(sync_refused(error)));
    }
}

/// Members are gone: the others share the work anew.
pub(super) fn after_removal(group: &mut Group, turn: &mut Turn<'_>) {
    match group.phase {
        Phase::Stable | Phase::Completing { .. } => prepare(group, turn),
        Phase::Preparing { .. } => complete_if_all_joined(group, turn),
        Phase::Empty => {}
    }
}

/// Time passed.
pub(super) fn tick(group: &mut Group, turn: &mut Turn<'_>) {
    let now = turn.mono();
    let pending = group.pending.len();
    group.pending.retain(|_, until| *until > now);
    let silent = group.members.values().filter(|m| m.deadline().is_some_and(|at| at <= now));
    let silent: Vec<String> = silent.map(|member| member.id.clone()).collect();
    for id in &silent {
        remove(group, id, turn);
    }
    if !silent.is_empty() {
        after_removal(group, turn);
    } else if group.pending.len() < pending {
        complete_if_all_joined(group, turn);
    }
    match group.phase {
        Phase::Preparing { deadline, initial } if deadline <= now => match initial {
            Some(initial) if initial.newcomer && initial.remaining_ms > 0 => {
                wait_on(group, initial, now, turn);
            }
            Some(_) | None => complete(group, turn),
        },
        Phase::Completing { deadline, write: None } if deadline <= now => {
            let idle = group.members.values().filter(|member| member.must_sync);
            for id in idle.map(|member| member.id.clone()).collect::<Vec<_>>() {
                remove(group, &id, turn);
            }
            prepare(group, turn);
        }
        Phase::Preparing { .. } | Phase::Completing { .. } | Phase::Empty | Phase::Stable => {}
    }
}

/// Somebody came while an empty group waited: perhaps more are coming.
fn wait_on(group: &mut Group, initial: Initial, now: Millis, turn: &Turn<'_>) {
    let delay_ms = turn.settings.initial_rebalance_delay_ms.clamp(1, initial.remaining_ms);
    let remaining_ms = initial.remaining_ms.saturating_sub(delay_ms);
    let initial = Some(Initial { remaining_ms, newcomer: false });
    group.phase = Phase::Preparing { deadline: now.plus(delay_ms), initial };
}
