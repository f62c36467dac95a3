//! What a member asks now, and when to look again.
//!
//! *Called by* the shell through [`Member::poll`]. *Calls* `assign`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use client_protocol::PartitionId;
use client_protocol::messages::consumer_protocol::{
    Assignment, PROTOCOL_TYPE, Subscription, TopicPartitions,
};
use client_protocol::messages::find_coordinator::KEY_TYPE_GROUP;
use client_protocol::messages::join_group::JoinGroupProtocol;
use client_protocol::messages::leave_group::MemberIdentity;
use client_protocol::messages::offset_commit::{OffsetCommitPartition, OffsetCommitTopic};
use client_protocol::messages::offset_fetch::{OffsetFetchGroup, OffsetFetchTopic};
use client_protocol::messages::sync_group::SyncGroupAssignment;
use client_protocol::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};

use super::assign::PartitionCounts;
use super::note::Note;
use super::{
    Ask, Assignor, Commit, Coordinator, Effect, GroupError, Kind, Known, Member, Notice, Phase,
};
use crate::metadata::{Metadata, TopicPartition};

#[derive(Default)]
struct Deadline(Option<u64>);

impl Deadline {
    fn at(&mut self, time_ms: u64) {
        self.0 = Some(self.0.map_or(time_ms, |next_ms| next_ms.min(time_ms)));
    }
}

impl Member {
    /// Says what to do now. Gives the time at which to look again, unless something happens before.
    pub fn poll(
        &mut self,
        metadata: &Metadata,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let mut deadline = Deadline::default();
        self.expire(now_ms, effects, &mut deadline);
        let has_work =
            self.phase != Phase::Away || !self.commits.is_empty() || !self.wanted.is_empty();
        match self.coordinator.clone() {
            Known::Yes(coordinator) => {
                self.advance(&coordinator, metadata, (now_ms, effects), &mut deadline);
                self.send_commits(&coordinator, now_ms, effects, &mut deadline);
                self.send_wanted(&coordinator, now_ms, effects, &mut deadline);
            }
            Known::No { ask_at_ms, failures } if has_work => {
                if ask_at_ms > now_ms {
                    deadline.at(ask_at_ms);
                } else {
                    self.coordinator = Known::Asking { failures };
                    let group = self.settings.group_id.clone();
                    let body = Ask::Find(FindCoordinatorRequest {
                        key: group.clone(),
                        key_type: KEY_TYPE_GROUP,
                        coordinator_keys: vec![group],
                    });
                    self.ask(None, body, Kind::Find, effects);
                }
            }
            Known::No { .. } | Known::Asking { .. } => {}
        }
        self.note_wait(now_ms);
        deadline.0
    }

    /// Gives up commits that take too long, and a membership whose caller does not look.
    fn expire(&mut self, now_ms: u64, effects: &mut Vec<Effect>, deadline: &mut Deadline) {
        for commit in std::mem::take(&mut self.commits) {
            if commit.until_ms <= now_ms {
                let group = self.settings.group_id.clone();
                let result = Err(GroupError::Late { group, reason: commit.reason });
                effects.push(Effect::CommitDone { token: commit.token, result });
            } else {
                deadline.at(commit.until_ms);
                self.commits.push_back(commit);
            }
        }
        if self.phase == Phase::Away {
            return;
        }
        let patience_ms = u64::try_from(self.settings.rebalance_timeout_ms).unwrap_or(0);
        let until_ms = self.caller_seen_ms.saturating_add(patience_ms);
        if until_ms > now_ms {
            deadline.at(until_ms);
            return;
        }
        let topics = std::mem::take(&mut self.topics);
        let owned = std::mem::take(&mut self.owned);
        self.leave(effects);
        self.topics = topics;
        if !owned.is_empty() {
            effects.push(Effect::Tell(Notice::Lost(owned)));
        }
    }

    fn advance(
        &mut self,
        coordinator: &Coordinator,
        metadata: &Metadata,
        (now_ms, effects): (u64, &mut Vec<Effect>),
        deadline: &mut Deadline,
    ) {
        // Also what was heard while the share was on its way.
        self.partitions_changed(metadata, effects);
        let to = Some(coordinator.clone());
        match &self.phase {
            Phase::Unjoined if self.retry_at_ms > now_ms => deadline.at(self.retry_at_ms),
            Phase::Unjoined => {
                self.phase = Phase::Joining;
                self.comes_back = self.member_id.is_empty() && self.settings.instance_id.is_some();
                // What a former generation was asked, or said, counts no more.
                self.waiting
                    .retain(|_, kind| !matches!(kind, Kind::Join | Kind::Sync | Kind::Heartbeat));
                let body = Ask::Join(self.join_request());
                self.ask(to, body, Kind::Join, effects);
            }
            Phase::Sharing { assignor, members } => {
                let assignor = *assignor;
                let topics = members.iter().flat_map(|member| &member.topics);
                let mut counts = PartitionCounts::new();
                for topic in topics {
                    match (metadata.partitions(topic), metadata.refusal(topic)) {
                        (Some(count), _) => {
                            counts.insert(topic.clone(), count);
                        }
                        // It does not exist: nothing of it is shared out until it does.
                        (None, Some(_)) => {
                            counts.insert(topic.clone(), 0);
                        }
                        // Until somebody says, the member lives.
                        (None, None) => return self.beat(to, now_ms, effects, deadline),
                    }
                }
                let shares = assignor.assign(members, &counts);
                let (given, all) = (shares.values().map(Vec::len), counts.values().copied());
                let is_partial = given.sum::<usize>() < all.sum::<usize>();
                self.shared_by = Some(counts);
                self.phase = Phase::Syncing;
                let body = Ask::Sync(self.sync_request(&shares, is_partial));
                self.ask(to, body, Kind::Sync, effects);
            }
            Phase::Stable | Phase::Revoking => {
                self.beat(to, now_ms, effects, deadline);
            }
            Phase::Away | Phase::Joining | Phase::Syncing => {}
        }
    }

    /// Says that the member lives, when it is time.
    fn beat(
        &mut self,
        to: Option<Coordinator>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
        deadline: &mut Deadline,
    ) {
        if self.is_waiting_for(|kind| *kind == Kind::Heartbeat) {
            return;
        }
        if self.heartbeat_at_ms > now_ms {
            return deadline.at(self.heartbeat_at_ms);
        }
        let body = Ask::Heartbeat(HeartbeatRequest {
            group_id: self.settings.group_id.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.settings.instance_id.clone(),
        });
        self.ask(to, body, Kind::Heartbeat, effects);
    }

    fn join_request(&self) -> JoinGroupRequest {
        let is_cooperative = self.is_cooperative();
        // Without cooperation everything was let go before.
        let owned = if is_cooperative { by_topic(&self.owned) } else { Vec::new() };
        let protocol = |assignor: &Assignor| {
            let mut generation = BytesMut::new();
            generation.put_i32(self.generation);
            let subscription = Subscription {
                topics: self.topics.iter().map(|topic| topic.to_string()).collect(),
                user_data: assignor.is_cooperative().then(|| generation.freeze()),
                owned_partitions: owned.clone(),
                generation_id: self.generation,
                rack_id: None,
            };
            // A topic's name always fits: brokers take no longer ones.
            let metadata = subscription.encode().unwrap_or_default();
            JoinGroupProtocol { name: assignor.name().to_owned(), metadata }
        };
        JoinGroupRequest {
            group_id: self.settings.group_id.clone(),
            session_timeout_ms: self.settings.session_timeout_ms,
            rebalance_timeout_ms: self.settings.rebalance_timeout_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.settings.instance_id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: self.settings.assignors.iter().map(protocol).collect(),
            reason: None,
        }
    }

    /// `shares` are empty unless this member leads; `is_partial` when they are not all that there is.
    pub(super) fn sync_request(
        &self,
        shares: &BTreeMap<String, Vec<TopicPartition>>,
        is_partial: bool,
    ) -> SyncGroupRequest {
        let assignment = |(member_id, share): (&String, &Vec<TopicPartition>)| {
            let assigned_partitions = by_topic(share);
            // Only a static leader can come back to it.
            let is_own = *member_id == self.member_id && self.settings.instance_id.is_some();
            let shared_by = self.shared_by.clone().filter(|_| is_own);
            let user_data = Note { is_partial, shared_by }.encode();
            let assignment = Assignment { assigned_partitions, user_data };
            let assignment = assignment.encode().unwrap_or_default();
            SyncGroupAssignment { member_id: member_id.clone(), assignment }
        };
        SyncGroupRequest {
            group_id: self.settings.group_id.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.settings.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: self.assignor.map(|assignor| assignor.name().to_owned()),
            assignments: shares.iter().map(assignment).collect(),
        }
    }

    pub(super) fn leave_request(&self) -> LeaveGroupRequest {
        LeaveGroupRequest {
            group_id: self.settings.group_id.clone(),
            member_id: self.member_id.clone(),
            members: vec![MemberIdentity {
                member_id: self.member_id.clone(),
                group_instance_id: None,
                reason: None,
            }],
        }
    }

    /// One at a time, so that a later commit is never overtaken by an earlier one.
    fn send_commits(
        &mut self,
        coordinator: &Coordinator,
        now_ms: u64,
        effects: &mut Vec<Effect>,
        deadline: &mut Deadline,
    ) {
        if self.is_waiting_for(|kind| matches!(kind, Kind::Commit(_))) {
            return;
        }
        let Some(commit) = self.commits.pop_front() else { return };
        if commit.retry_at_ms > now_ms {
            deadline.at(commit.retry_at_ms);
            self.commits.push_front(commit);
            return;
        }
        let body = Ask::Commit(self.commit_request(&commit));
        self.ask(Some(coordinator.clone()), body, Kind::Commit(commit), effects);
    }

    fn commit_request(&self, commit: &Commit) -> OffsetCommitRequest {
        let mut topics: BTreeMap<Arc<str>, Vec<OffsetCommitPartition>> = BTreeMap::new();
        for (partition, position) in &commit.offsets {
            topics.entry(partition.topic.clone()).or_default().push(OffsetCommitPartition {
                partition_index: partition.partition,
                committed_offset: position.offset,
                committed_leader_epoch: position.epoch,
                committed_metadata: Some(String::new()),
            });
        }
        let is_member = commit.generation >= 0;
        OffsetCommitRequest {
            group_id: self.settings.group_id.clone(),
            generation_id_or_member_epoch: commit.generation,
            member_id: if is_member { self.member_id.clone() } else { String::new() },
            group_instance_id: self.settings.instance_id.clone().filter(|_| is_member),
            retention_time_ms: -1,
            topics: topics
                .into_iter()
                .map(|(name, partitions)| OffsetCommitTopic { name: name.to_string(), partitions })
                .collect(),
        }
    }

    fn send_wanted(
        &mut self,
        coordinator: &Coordinator,
        now_ms: u64,
        effects: &mut Vec<Effect>,
        deadline: &mut Deadline,
    ) {
        let is_asked = self.is_waiting_for(|kind| matches!(kind, Kind::Committed(_)));
        if self.wanted.is_empty() || is_asked {
            return;
        }
        if self.wanted_at_ms > now_ms {
            deadline.at(self.wanted_at_ms);
            return;
        }
        let wanted: Vec<_> = std::mem::take(&mut self.wanted).into_iter().collect();
        let topics = by_topic(&wanted).into_iter().map(|topic| OffsetFetchTopic {
            name: topic.topic,
            partition_indexes: topic.partitions,
        });
        let topics: Vec<_> = topics.collect();
        let group_id = self.settings.group_id.clone();
        let body = Ask::Committed(OffsetFetchRequest {
            group_id: group_id.clone(),
            topics: Some(topics.clone()),
            groups: vec![OffsetFetchGroup {
                group_id,
                topics: Some(topics),
                ..OffsetFetchGroup::default()
            }],
            require_stable: true,
        });
        self.ask(Some(coordinator.clone()), body, Kind::Committed(wanted), effects);
    }
}

/// In the shape of the consumers' protocol.
fn by_topic(partitions: &[TopicPartition]) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<Arc<str>, Vec<PartitionId>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic.clone()).or_default().push(partition.partition);
    }
    let shape = |(topic, partitions): (Arc<str>, Vec<PartitionId>)| TopicPartitions {
        topic: topic.to_string(),
        partitions,
    };
    topics.into_iter().map(shape).collect()
}

/// Bytes of nothing, where a member's words cannot be read.
pub(super) fn subscription_of(bytes: &Bytes) -> Subscription {
    Subscription::decode(bytes).unwrap_or_default()
}
