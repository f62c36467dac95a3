//! All groups of one partition of `__consumer_offsets`: what is asked, what is in the log, what time
//! does.
//!
//! *Called by* the broker's group room, for each partition that it leads, and the simulator.
//! *Calls* one file per kind of request. Invariant: [`Shard::check`]; the state of a new shard that
//! replays the log is the committed part of the state of the one that wrote it. A shard lives for
//! one leader epoch: it is dropped, with everybody who waits in it, when that ends.
//! Does not know the log, connections, or other partitions.

use std::collections::{BTreeMap, BTreeSet};

use client_protocol::ErrorCode;
use client_protocol::messages::OffsetCommitRequest;

use super::message::{Effect, Now, Request, Response, Ticket, WriteId};
use super::record::GroupRecord;
use super::settings::{GROUPS_MAX, MEMBER_BYTES_MAX, NAME_BYTES_MAX, Settings};
use super::state::{Group, Phase};
use super::turn::{Turn, error_of_write};
use super::writes::{Then, Write, Writes};
use super::{describe, figures, join, offsets, rebalance, session, sync};
use crate::ids::Millis;

/// See the module.
#[derive(Clone, Debug)]
pub struct Shard {
    settings: Settings,
    groups: BTreeMap<String, Group>,
    /// When to look at which group. An entry may be too early, never too late.
    timers: BTreeSet<(Millis, String)>,
    writes: Writes,
    offset_bytes: usize,
    member_bytes: usize,
    cleanup: Millis,
}

impl Shard {
    /// A shard without groups.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            writes: Writes::default(),
            offset_bytes: 0,
            member_bytes: 0,
            cleanup: Millis::new(0),
        }
    }

    /// Takes in a record of the log, in its order, before anything is asked.
    pub fn replay(&mut self, record: GroupRecord) {
        match record {
            GroupRecord::Offset { group, topic, partition, value } => {
                self.apply_offset(&group, &topic, partition, value);
            }
            GroupRecord::Group { group: id, value: Some(value) } => {
                let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(&id, -1));
                group.restore(value, Millis::new(0));
                if planted!(self.settings.planted, ForgetGeneration) {
                    group.generation = 0;
                }
                recount(group, &mut self.member_bytes);
            }
            GroupRecord::Group { group: id, value: None } => {
                if let Some(group) = self.groups.get_mut(&id) {
                    let offsets = std::mem::take(&mut group.offsets);
                    *group = Group { offsets, counted: group.counted, ..Group::new(&id, -1) };
                    recount(group, &mut self.member_bytes);
                }
                self.drop_if_void(&id);
            }
        }
    }

    /// The log was replayed to its end: from here on the shard answers. Every member's session
    /// begins in full, as nobody heard them meanwhile.
    pub fn loaded(&mut self, now: Now) {
        self.cleanup = now.mono.plus(self.settings.retention_check_ms);
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            if let Some(group) = self.groups.get_mut(&id) {
                group.members.values_mut().for_each(|member| member.heard(now.mono));
            }
            self.set_timer(&id);
        }
    }

    /// Handles a request.
    pub fn handle(&mut self, ticket: Ticket, request: &Request, now: Now, out: &mut Vec<Effect>) {
        let refuse = |out: &mut Vec<Effect>, error| {
            out.push(Effect::Respond { ticket, response: request.refused(error) });
        };
        if let Some(group) = request.group() {
            let stores_only = matches!(
                request,
                Request::OffsetCommit(_) | Request::OffsetFetch(_) | Request::OffsetDelete(_)
            );
            if group.is_empty() && !stores_only || group.len() > NAME_BYTES_MAX {
                return refuse(out, ErrorCode::InvalidGroupId);
            }
            if self.groups.get(group).is_some_and(|group| group.deleting) {
                return refuse(out, ErrorCode::CoordinatorNotAvailable);
            }
            if let Err(error) = self.make_room(group, request, now) {
                return refuse(out, error);
            }
        }
        match request {
            Request::OffsetFetch(fetch) => {
                let response = offsets::fetch(self.groups.get(&fetch.group_id), fetch);
                out.push(Effect::Respond { ticket, response: Response::OffsetFetch(response) });
            }
            Request::List(filter) => {
                let listed = self.groups.values().filter_map(|group| describe::list(group, filter));
                let response = Response::List(Ok(listed.collect()));
                out.push(Effect::Respond { ticket, response });
            }
            Request::Describe(id) => {
                let response = Response::Describe(describe::describe(id, self.groups.get(id)));
                out.push(Effect::Respond { ticket, response });
            }
            Request::Join(_)
            | Request::Sync(_)
            | Request::Heartbeat(_)
            | Request::Leave(_)
            | Request::OffsetCommit(_)
            | Request::OffsetDelete(_)
            | Request::Delete(_) => self.handle_in_group(ticket, request, now, out),
        }
    }

    /// What is asked of a group that is there. One that has just been made for the request is
    /// dropped again when nothing came of it.
    fn handle_in_group(
        &mut self,
        ticket: Ticket,
        request: &Request,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let shard_bytes = self.offset_bytes;
        let id = request.group().unwrap_or_default().to_owned();
        let handled = self.with_group(&id, now, out, |group, turn| match request {
            Request::Join(one) => join::join(group, one, ticket, turn),
            Request::Sync(one) => sync::sync(group, one, ticket, turn),
            Request::Heartbeat(one) => {
                let response = Response::Heartbeat(session::heartbeat(group, one, turn));
                turn.respond(ticket, response);
            }
            Request::Leave(one) => {
                let response = Response::Leave(session::leave(group, one, turn));
                turn.respond(ticket, response);
            }
            Request::OffsetCommit(one) => offsets::commit(group, one, ticket, shard_bytes, turn),
            Request::OffsetDelete(one) => offsets::delete(group, one, ticket, turn),
            Request::Delete(_) => describe::delete(group, ticket, turn),
            // Answered without a group.
            Request::OffsetFetch(_) | Request::List(_) | Request::Describe(_) => {}
        });
        if handled.is_none() {
            let response = refused_without_group(request);
            out.push(Effect::Respond { ticket, response });
        }
    }

    /// Checks what can be checked without the group, and makes it if the request may.
    fn make_room(&mut self, id: &str, request: &Request, now: Now) -> Result<(), ErrorCode> {
        let may_create = match request {
            Request::Join(one) => {
                join::check(&one.request, &self.settings)?;
                one.request.member_id.is_empty()
            }
            Request::OffsetCommit(one) => stores_offsets_only(one),
            Request::Sync(_)
            | Request::Heartbeat(_)
            | Request::Leave(_)
            | Request::OffsetFetch(_)
            | Request::OffsetDelete(_)
            | Request::List(_)
            | Request::Describe(_)
            | Request::Delete(_) => false,
        };
        if may_create && !self.groups.contains_key(id) {
            if self.groups.len() >= GROUPS_MAX {
                return Err(ErrorCode::GroupMaxSizeReached);
            }
            self.groups.insert(id.to_owned(), Group::new(id, now.wall_ms));
        }
        Ok(())
    }

    /// The log has the records of a write on all in-sync replicas, or it never will as far as this
    /// shard can tell.
    pub fn settled(
        &mut self,
        write: WriteId,
        result: Result<(), ErrorCode>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.writes.settle(write, result);
        while let Some((write, result)) = self.writes.pop_settled() {
            self.finish(write, result, now, out);
        }
    }

    fn finish(
        &mut self,
        write: Write,
        result: Result<(), ErrorCode>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Write { group: id, records, then, .. } = write;
        if result.is_ok() {
            for record in records {
                // What the group's members are is ahead of its record.
                if let GroupRecord::Offset { group, topic, partition, value } = record {
                    self.apply_offset(&group, &topic, partition, value);
                }
            }
        }
        let error = result.map_err(error_of_write).err();
        let _gone = self.with_group(&id, now, out, |group, turn| match then {
            Then::Nothing => {}
            Then::Commit { ticket, response } => {
                group.commits = group.commits.saturating_sub(1);
                let response = match error {
                    None => response,
                    Some(error) => with_error(response, error),
                };
                if let Some(ticket) = ticket {
                    turn.respond(ticket, Response::OffsetCommit(response));
                }
            }
            Then::Sync { generation } => sync::stored(group, generation, result, turn),
            Then::Rejoined { member, knows_skip_assignment, former } => {
                join::rejoined(group, (&member, knows_skip_assignment, &former), result, turn);
            }
            Then::OffsetDelete { ticket, mut response } => {
                group.commits = group.commits.saturating_sub(1);
                response.error_code = error.unwrap_or(response.error_code);
                turn.respond(ticket, Response::OffsetDelete(response));
            }
            Then::Delete { ticket } => {
                group.deleting = false;
                if error.is_none() {
                    let offsets = std::mem::take(&mut group.offsets);
                    let Group { timer, counted, .. } = *group;
                    *group = Group { offsets, timer, counted, ..Group::new(&group.id, -1) };
                }
                if let Some(ticket) = ticket {
                    turn.respond(ticket, Response::Delete(error.unwrap_or(ErrorCode::None)));
                }
            }
        });
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.writes.deadline()).chain([self.cleanup]).min()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        for (ticket, response) in self.writes.overdue(now.mono) {
            let response = with_error(response, ErrorCode::RequestTimedOut);
            out.push(Effect::Respond { ticket, response: Response::OffsetCommit(response) });
        }
        let later = self.timers.split_off(&(now.mono.plus(1), String::new()));
        for (_, id) in std::mem::replace(&mut self.timers, later) {
            self.with_group(&id, now, out, |group, turn| {
                group.timer = None;
                rebalance::tick(group, turn);
            });
        }
        if self.cleanup <= now.mono {
            self.cleanup = now.mono.plus(self.settings.retention_check_ms.max(1));
            self.clean_up(now, out);
        }
    }

    /// Forgets offsets that were kept long enough, and groups of which nothing is left.
    fn clean_up(&mut self, now: Now, out: &mut Vec<Effect>) {
        let idle = self.groups.values().filter(|group| group.commits == 0 && !group.deleting);
        let idle: Vec<String> = idle.map(|group| group.id.clone()).collect();
        for id in idle {
            self.with_group(&id, now, out, |group, turn| {
                let expired = offsets::expired(group, turn.settings, now.wall_ms);
                let all = expired.len() == group.offsets.iter().count();
                // What cannot be written now is found again next time.
                let _retried = match group.phase == Phase::Empty && group.pending.is_empty() && all
                {
                    true => describe::forget(group, Vec::new(), None, turn),
                    false if expired.is_empty() => Ok(()),
                    false => {
                        let tombstones = expired.iter();
                        let tombstones = tombstones.map(|(t, p)| offsets::tombstone(&id, t, *p));
                        let written = turn.write_split(&id, tombstones.collect(), Then::Nothing);
                        written.map(|_| ())
                    }
                };
            });
        }
    }

    /// Topics are deleted: how far groups had read in them says nothing about topics that may come
    /// to be called the same.
    pub fn forget_topics(&mut self, topics: &BTreeSet<String>, now: Now, out: &mut Vec<Effect>) {
        let concerned = self.groups.values().filter(|group| {
            !group.deleting && group.offsets.iter().any(|(topic, _, _)| topics.contains(topic))
        });
        let concerned: Vec<String> = concerned.map(|group| group.id.clone()).collect();
        for id in concerned {
            self.with_group(&id, now, out, |group, turn| {
                let gone = group.offsets.iter().filter(|(topic, _, _)| topics.contains(*topic));
                let gone = gone.map(|(topic, p, _)| offsets::tombstone(&group.id, topic, p));
                // What cannot be written stays until it expires.
                let _left = turn.write_split(&group.id, gone.collect(), Then::Nothing);
            });
        }
    }

    fn apply_offset(
        &mut self,
        id: &str,
        topic: &str,
        partition: i32,
        value: Option<super::record::OffsetValue>,
    ) {
        if value.is_some() && !self.groups.contains_key(id) {
            self.groups.insert(id.to_owned(), Group::new(id, -1));
        }
        let Some(group) = self.groups.get_mut(id) else { return };
        let before = group.offsets.bytes();
        group.offsets.apply(topic, partition, value);
        let after = group.offsets.bytes();
        self.offset_bytes = self.offset_bytes.saturating_sub(before).saturating_add(after);
        self.drop_if_void(id);
    }

    fn with_group<R>(
        &mut self,
        id: &str,
        now: Now,
        effects: &mut Vec<Effect>,
        change: impl FnOnce(&mut Group, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let Self { groups, settings, writes, member_bytes, .. } = self;
        let member_room = MEMBER_BYTES_MAX.saturating_sub(*member_bytes);
        let group = groups.get_mut(id)?;
        let changed = change(group, &mut Turn { now, settings, member_room, writes, effects });
        recount(group, member_bytes);
        self.set_timer(id);
        self.drop_if_void(id);
        Some(changed)
    }

    fn set_timer(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(next) = group.next_deadline() else { return };
        // One that is too early is looked at in vain and set anew: heartbeats cost nothing here.
        if group.timer.is_none_or(|set| set > next) {
            if let Some(set) = group.timer.replace(next) {
                self.timers.remove(&(set, id.to_owned()));
            }
            self.timers.insert((next, id.to_owned()));
        }
    }

    fn drop_if_void(&mut self, id: &str) {
        if let Some(group) = self.groups.get(id)
            && group.is_void()
            && !group.deleting
        {
            if let Some(set) = group.timer {
                self.timers.remove(&(set, id.to_owned()));
            }
            self.groups.remove(id);
        }
    }

    /// Every group in figures, ordered by id.
    #[must_use]
    pub fn figures(&self) -> Vec<figures::GroupFigures> {
        self.groups.values().filter_map(figures::of).collect()
    }

    /// How many groups there are, and writes on their way.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.groups.len(), self.writes.len())
    }

    /// Panics when the invariant is broken.
    pub fn check(&self) {
        let (mut bytes, mut held) = (0usize, 0usize);
        for (id, group) in &self.groups {
            assert_eq!(id, &group.id, "a group under another id");
            group.check();
            bytes = bytes.saturating_add(group.offsets.bytes());
            held = held.saturating_add(group.counted);
            assert_eq!(group.counted, group.held_bytes(), "{id}: its bytes are not counted");
            if let Some(next) = group.next_deadline() {
                let set = group.timer.expect("a group with a deadline has a timer");
                assert!(set <= next, "{id}: looked at too late");
                assert!(self.timers.contains(&(set, id.clone())), "{id}: a timer that never fires");
            }
        }
        assert_eq!(bytes, self.offset_bytes, "the bytes of all offsets are miscounted");
        assert_eq!(held, self.member_bytes, "the bytes of all members are miscounted");
    }
}

/// Counts anew what a group's members take of the shard.
fn recount(group: &mut Group, member_bytes: &mut usize) {
    let held = group.held_bytes();
    let before = std::mem::replace(&mut group.counted, held);
    *member_bytes = member_bytes.saturating_sub(before).saturating_add(held);
}

/// The commit of a client that belongs to no generation. It may call itself something all the same.
fn stores_offsets_only(request: &OffsetCommitRequest) -> bool {
    request.generation_id_or_member_epoch < 0
}

fn refused_without_group(request: &Request) -> Response {
    let error = match request {
        Request::Delete(_) | Request::OffsetDelete(_) => ErrorCode::GroupIdNotFound,
        Request::OffsetCommit(_) => ErrorCode::IllegalGeneration,
        _ => ErrorCode::UnknownMemberId,
    };
    let mut response = request.refused(error);
    if let Response::Leave(leave) = &mut response {
        // It is not the request that fails, but each of its members.
        leave.error_code = ErrorCode::None;
        leave.members.iter_mut().for_each(|member| member.error_code = error);
    }
    response
}

/// A commit's answer in which what was accepted failed after all.
fn with_error(
    mut response: client_protocol::messages::OffsetCommitResponse,
    error: ErrorCode,
) -> client_protocol::messages::OffsetCommitResponse {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code.is_none()) {
        partition.error_code = error;
    }
    response
}
