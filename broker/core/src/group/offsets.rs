//! Committed offsets: kept, committed, told, forgotten, expired.
//!
//! *Called by* the shard. *Calls* `group`, `turn`. Invariant: [`Offsets`] changes only by what is in
//! the log of all in-sync replicas, so that no answer shows what a failover could take back.
//! Does not know topics' existence: the API checks that.

use std::collections::BTreeMap;

use client_protocol::messages::offset_commit::OffsetCommitPartition;
use client_protocol::messages::offset_fetch::{
    OffsetFetchGroup, OffsetFetchGroupResponse, OffsetFetchPartitionResponse,
    OffsetFetchTopicResponse,
};
use client_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};
use client_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionId};

use super::message::{Response, Ticket, commit_answer, delete_answer};
use super::record::{GroupRecord, OffsetValue};
use super::settings::{NAME_BYTES_MAX, OFFSET_BYTES_MAX, Settings};
use super::state::{Group, Phase};
use super::subscription;
use super::turn::{Turn, error_of_write};
use super::writes::Then;

/// The committed offsets of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, OffsetValue>>,
    bytes: usize,
}

/// What keeping an offset costs besides its texts.
const ENTRY_BYTES: usize = 96;

fn cost(topic: &str, value: &OffsetValue) -> usize {
    ENTRY_BYTES.saturating_add(topic.len()).saturating_add(value.metadata.len())
}

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The committed offset of one partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.topics.get(topic)?.get(&partition)
    }

    /// Takes what the log says of one partition.
    pub fn apply(&mut self, topic: &str, partition: i32, value: Option<OffsetValue>) {
        let before = self.get(topic, partition).map_or(0, |value| cost(topic, value));
        let after = value.as_ref().map_or(0, |value| cost(topic, value));
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        match value {
            Some(value) => {
                self.topics.entry(topic.to_owned()).or_default().insert(partition, value);
            }
            None => {
                if let Some(partitions) = self.topics.get_mut(topic) {
                    partitions.remove(&partition);
                    if partitions.is_empty() {
                        self.topics.remove(topic);
                    }
                }
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &OffsetValue)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(number, value)| (topic.as_str(), *number, value))
        })
    }

    /// Panics when the invariant is broken.
    pub fn check(&self) {
        let bytes: usize = self.iter().map(|(topic, _, value)| cost(topic, value)).sum();
        assert_eq!(bytes, self.bytes, "the bytes of the offsets are miscounted");
        assert!(self.topics.values().all(|topic| !topic.is_empty()), "a topic without offsets");
    }
}

/// Whether the sender may commit.
fn admit(
    group: &mut Group,
    request: &OffsetCommitRequest,
    turn: &Turn<'_>,
) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    if generation < 0 && group.phase == Phase::Empty {
        // Offsets are all that the group is used for.
        return Ok(());
    }
    group.identify(&request.member_id, request.group_instance_id.as_deref())?;
    if generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    if let Some(member) = group.members.get_mut(&request.member_id) {
        member.heard(turn.mono());
    }
    match group.phase {
        Phase::Completing { .. } => Err(ErrorCode::RebalanceInProgress),
        Phase::Stable | Phase::Preparing { .. } => Ok(()),
        Phase::Empty => Err(ErrorCode::UnknownMemberId),
    }
}

fn check_one(settings: &Settings, topic: &str, one: &OffsetCommitPartition) -> ErrorCode {
    let note = one.committed_metadata.as_deref().unwrap_or_default();
    if note.len() > settings.offset_metadata_bytes_max {
        ErrorCode::OffsetMetadataTooLarge
    } else if topic.is_empty() || topic.len() > NAME_BYTES_MAX {
        ErrorCode::InvalidTopicException
    } else {
        ErrorCode::None
    }
}

/// Commits offsets, in a shard whose offsets take `shard_bytes`; answers once they are in the log.
pub(super) fn commit(
    group: &mut Group,
    request: &OffsetCommitRequest,
    ticket: Ticket,
    shard_bytes: usize,
    turn: &mut Turn<'_>,
) {
    let refuse = |turn: &mut Turn<'_>, error| {
        let response = commit_answer(request, |_, _| error);
        turn.respond(ticket, Response::OffsetCommit(response));
    };
    if let Err(error) = admit(group, request, turn) {
        return refuse(turn, error);
    }
    if shard_bytes > OFFSET_BYTES_MAX {
        return refuse(turn, ErrorCode::InvalidCommitOffsetSize);
    }
    let mut outcomes = BTreeMap::new();
    let mut records = Vec::new();
    for topic in &request.topics {
        for one in &topic.partitions {
            let error = check_one(turn.settings, &topic.name, one);
            outcomes.insert((topic.name.as_str(), one.partition_index.get()), error);
            if error.is_none() {
                records.push(record(group, &topic.name, one, request.retention_time_ms, turn));
            }
        }
    }
    let outcome = |topic: &str, partition: i32| {
        outcomes.get(&(topic, partition)).copied().unwrap_or(ErrorCode::UnknownServerError)
    };
    let response = commit_answer(request, outcome);
    if records.is_empty() {
        return turn.respond(ticket, Response::OffsetCommit(response));
    }
    let deadline = turn.mono().plus(turn.settings.commit_timeout_ms);
    if planted!(turn.settings.planted, AcknowledgeUnreplicatedOffsets) {
        let then = Then::Commit { ticket: None, response: response.clone() };
        turn.respond(ticket, Response::OffsetCommit(response));
        if turn.write(&group.id, records, then, Some(deadline)).is_ok() {
            group.commits = group.commits.saturating_add(1);
        }
        return;
    }
    let then = Then::Commit { ticket: Some(ticket), response };
    match turn.write(&group.id, records, then, Some(deadline)) {
        Ok(_) => group.commits = group.commits.saturating_add(1),
        Err(error) => refuse(turn, error_of_write(error)),
    }
}

fn record(
    group: &Group,
    topic: &str,
    one: &OffsetCommitPartition,
    retention_ms: i64,
    turn: &Turn<'_>,
) -> GroupRecord {
    let wall_ms = turn.now.wall_ms;
    let expire_timestamp_ms = (retention_ms >= 0).then(|| wall_ms.saturating_add(retention_ms));
    GroupRecord::Offset {
        group: group.id.clone(),
        topic: topic.to_owned(),
        partition: one.partition_index.get(),
        value: Some(OffsetValue {
            offset: one.committed_offset.get(),
            leader_epoch: one.committed_leader_epoch.map_or(-1, LeaderEpoch::get),
            metadata: one.committed_metadata.clone().unwrap_or_default(),
            commit_timestamp_ms: wall_ms,
            expire_timestamp_ms,
        }),
    }
}

/// Tells what is committed; of a group that is not known, nothing.
pub(super) fn fetch(group: Option<&Group>, request: &OffsetFetchGroup) -> OffsetFetchGroupResponse {
    let none = Offsets::default();
    let offsets = group.map_or(&none, |group| &group.offsets);
    let topics = match &request.topics {
        None => offsets
            .topics
            .iter()
            .map(|(name, partitions)| OffsetFetchTopicResponse {
                name: name.clone(),
                partitions: partitions.iter().map(|(p, value)| told(*p, Some(value))).collect(),
            })
            .collect(),
        Some(asked) => asked
            .iter()
            .map(|topic| OffsetFetchTopicResponse {
                name: topic.name.clone(),
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|p| told(p.get(), offsets.get(&topic.name, p.get())))
                    .collect(),
            })
            .collect(),
    };
    OffsetFetchGroupResponse {
        group_id: request.group_id.clone(),
        topics,
        error_code: ErrorCode::None,
    }
}

fn told(partition: i32, value: Option<&OffsetValue>) -> OffsetFetchPartitionResponse {
    let partition_index = PartitionId::new(partition);
    let Some(value) = value else {
        let metadata = Some(String::new());
        return OffsetFetchPartitionResponse { partition_index, metadata, ..Default::default() };
    };
    OffsetFetchPartitionResponse {
        partition_index,
        committed_offset: Some(Offset::new(value.offset)).filter(|offset| offset.get() >= 0),
        committed_leader_epoch: Some(LeaderEpoch::new(value.leader_epoch)).filter(|e| e.get() >= 0),
        metadata: Some(value.metadata.clone()),
        error_code: ErrorCode::None,
    }
}

/// Forgets offsets of topics that no member is subscribed to.
pub(super) fn delete(
    group: &mut Group,
    request: &OffsetDeleteRequest,
    ticket: Ticket,
    turn: &mut Turn<'_>,
) {
    let consumer = group.protocol_type.as_deref() == Some(subscription::CONSUMER);
    let subscribed = match group.phase {
        Phase::Empty => Some(std::collections::BTreeSet::new()),
        Phase::Stable | Phase::Preparing { .. } | Phase::Completing { .. } if consumer => {
            subscribed_topics(group)
        }
        // What its members read from cannot be known.
        Phase::Stable | Phase::Preparing { .. } | Phase::Completing { .. } => None,
    };
    let Some(subscribed) = subscribed else {
        let error_code = ErrorCode::NonEmptyGroup;
        let mut response = delete_answer(request, |_, _| error_code);
        response.error_code = error_code;
        return turn.respond(ticket, Response::OffsetDelete(response));
    };
    let response = delete_answer(request, |topic, _| match subscribed.contains(topic) {
        true => ErrorCode::GroupSubscribedToTopic,
        false => ErrorCode::None,
    });
    let asked = request.topics.iter().filter(|topic| !subscribed.contains(&topic.name));
    let named = asked.flat_map(|topic| topic.partitions.iter().map(move |one| (&topic.name, one)));
    let known =
        named.filter(|(topic, one)| group.offsets.get(topic, one.partition_index.get()).is_some());
    let records: Vec<_> =
        known.map(|(topic, one)| tombstone(&group.id, topic, one.partition_index.get())).collect();
    if records.is_empty() {
        return turn.respond(ticket, Response::OffsetDelete(response));
    }
    let then = Then::OffsetDelete { ticket, response };
    match turn.write_split(&group.id, records, then) {
        Ok(_) => group.commits = group.commits.saturating_add(1),
        Err(error) => {
            let error_code = error_of_write(error);
            let mut response = delete_answer(request, |_, _| error_code);
            response.error_code = error_code;
            turn.respond(ticket, Response::OffsetDelete(response));
        }
    }
}

pub(super) fn tombstone(group: &str, topic: &str, partition: i32) -> GroupRecord {
    let (group, topic) = (group.to_owned(), topic.to_owned());
    GroupRecord::Offset { group, topic, partition, value: None }
}

/// All topics that the members read; `None` when one member's metadata says nothing of topics.
fn subscribed_topics(group: &Group) -> Option<std::collections::BTreeSet<String>> {
    let mut all = std::collections::BTreeSet::new();
    for member in group.members.values() {
        for (_, metadata) in &member.protocols {
            all.extend(subscription::topics(metadata)?);
        }
    }
    Some(all)
}

/// The offsets that have been kept long enough.
pub(super) fn expired(group: &Group, settings: &Settings, wall_ms: i64) -> Vec<(String, i32)> {
    let past = |since_ms: i64| wall_ms.saturating_sub(since_ms) >= settings.retention_ms;
    let consumer = group.protocol_type.as_deref() == Some(subscription::CONSUMER);
    let subscribed = match group.phase {
        Phase::Stable if consumer => subscribed_topics(group),
        Phase::Stable | Phase::Empty | Phase::Preparing { .. } | Phase::Completing { .. } => None,
    };
    let is_expired = |topic: &str, value: &OffsetValue| {
        if let Some(at) = value.expire_timestamp_ms {
            return wall_ms >= at && group.phase == Phase::Empty;
        }
        match (&group.phase, &group.protocol_type) {
            // A group that only stores offsets: each by itself.
            (Phase::Empty, None) => past(value.commit_timestamp_ms),
            // The group's members are gone as long as that.
            (Phase::Empty, Some(_)) => past(group.since_ms.max(value.commit_timestamp_ms)),
            // Nobody in the group reads the topic any more.
            (Phase::Stable, _) => {
                let unread = subscribed.as_ref().is_some_and(|topics| !topics.contains(topic));
                unread && past(value.commit_timestamp_ms)
            }
            (Phase::Preparing { .. } | Phase::Completing { .. }, _) => false,
        }
    };
    let all = group.offsets.iter().filter(|(topic, _, value)| is_expired(topic, value));
    all.map(|(topic, partition, _)| (topic.to_owned(), partition)).collect()
}
