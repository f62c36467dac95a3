//! What the group coordinator's answers mean.
//!
//! *Called by* the shell through [`Member::answered`]. *Calls* `request`.
//!
//! Invariant: an answer counts only while it is waited for; what a former attempt brings late is left aside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client_protocol::messages::consumer_protocol::Assignment;
use client_protocol::messages::join_group::JoinGroupMember;
use client_protocol::messages::offset_fetch::OffsetFetchTopicResponse;
use client_protocol::messages::{
    FindCoordinatorResponse, JoinGroupResponse, OffsetCommitResponse, OffsetFetchResponse,
    SyncGroupResponse,
};
use client_protocol::{ErrorCode, PartitionId};

use super::note::Note;
use super::request::subscription_of;
use super::wait::setback_of;
use super::{
    Answer, Ask, Assignor, Commit, Coordinator, Effect, Failure, Kind, Known, Member, Notice,
    Phase, assign,
};
use crate::consumer::read::Position;
use crate::metadata::TopicPartition;

impl Member {
    /// The answer to [`Effect::Ask`].
    pub fn answered(
        &mut self,
        number: u64,
        answer: Result<Answer, Failure>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(kind) = self.waiting.remove(&number) else { return };
        self.note_setback(&answer);
        if answer.as_ref().is_ok_and(|answer| kind != Kind::Find && !is_elsewhere(answer)) {
            self.coordinator_failures = 0;
        }
        match (kind, answer) {
            (Kind::Find, Ok(Answer::Find(answer))) => self.found(answer, now_ms),
            (Kind::Join, Ok(Answer::Join(answer))) => self.joined(answer, now_ms, effects),
            (Kind::Sync, Ok(Answer::Sync(answer))) => self.synced(answer, now_ms, effects),
            (Kind::Heartbeat, Ok(Answer::Heartbeat(answer))) => {
                self.heard(answer.error_code, now_ms, effects);
            }
            (Kind::Leave, _) => {}
            (Kind::Commit(commit), Ok(Answer::Commit(answer))) => {
                self.committed(commit, &answer, now_ms, effects);
            }
            (Kind::Committed(wanted), Ok(Answer::Committed(answer))) => {
                self.fetched(wanted, answer, now_ms, effects);
            }
            (Kind::Find, _) => self.not_found(now_ms),
            (Kind::Join | Kind::Sync, failed) => {
                self.phase = Phase::Unjoined;
                self.failed(failed, now_ms);
            }
            (Kind::Heartbeat, failed) => self.failed(failed, now_ms),
            (Kind::Commit(commit), failed) => {
                let reason = match &failed {
                    Ok(_) => "an answer to something else".to_owned(),
                    Err(failure) => failure.reason.clone(),
                };
                self.failed(failed, now_ms);
                self.commit_again(commit, reason, now_ms);
            }
            (Kind::Committed(wanted), failed) => {
                self.wanted.extend(wanted);
                self.failed(failed, now_ms);
            }
        }
    }

    /// The coordinator could not be asked: perhaps it is another one by now.
    fn failed(&mut self, _answer: Result<Answer, Failure>, now_ms: u64) {
        self.blame_coordinator();
        self.lose_coordinator(now_ms);
    }

    /// Several questions that fail together count once.
    fn blame_coordinator(&mut self) {
        if matches!(self.coordinator, Known::Yes(_)) {
            self.coordinator_failures = self.coordinator_failures.saturating_add(1);
        }
    }

    fn found(&mut self, answer: FindCoordinatorResponse, now_ms: u64) {
        let (code, broker, host, port) = match answer.coordinators.into_iter().next() {
            Some(found) => (found.error_code, found.node_id, found.host, found.port),
            None => (answer.error_code, answer.node_id, answer.host, answer.port),
        };
        let broker = broker.filter(|_| code.is_none());
        let Some(broker) = broker else { return self.not_found(now_ms) };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        self.coordinator = Known::Yes(Coordinator { broker, address: format!("{host}:{port}") });
    }

    fn not_found(&mut self, now_ms: u64) {
        let failures = match self.coordinator {
            Known::Asking { failures } | Known::No { failures, .. } => failures.saturating_add(1),
            Known::Yes(_) => return,
        };
        let ask_at_ms = now_ms.saturating_add(self.backoff_ms(failures));
        self.coordinator = Known::No { ask_at_ms, failures };
    }

    fn join_later(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = now_ms.saturating_add(self.backoff_ms(self.failures));
        self.phase = Phase::Unjoined;
    }

    /// What every answer may say. `false` when it is none of that.
    fn is_settled(&mut self, code: ErrorCode, now_ms: u64, effects: &mut Vec<Effect>) -> bool {
        match code {
            ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable => {
                self.blame_coordinator();
                self.lose_coordinator(now_ms);
                // Asked at once, the brokers may not know more than the one that refused.
                let soon_ms = now_ms.saturating_add(self.settings.retry_backoff_ms);
                if let Known::No { ask_at_ms, .. } = &mut self.coordinator {
                    *ask_at_ms = soon_ms.max(*ask_at_ms);
                }
                true
            }
            ErrorCode::UnknownMemberId if planted!(self.settings.planted, KeepShareWhenUnknown) => {
                self.forget_membership(effects);
                self.member_id.clear();
                self.phase = Phase::Unjoined;
                true
            }
            ErrorCode::UnknownMemberId => {
                self.lose_membership(effects);
                self.member_id.clear();
                true
            }
            ErrorCode::IllegalGeneration => {
                self.lose_membership(effects);
                true
            }
            ErrorCode::FencedInstanceId
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::InvalidGroupId => {
                self.out(code, effects);
                true
            }
            _ => false,
        }
    }

    fn joined(&mut self, answer: JoinGroupResponse, now_ms: u64, effects: &mut Vec<Effect>) {
        match answer.error_code {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.member_id = answer.member_id;
                self.phase = Phase::Unjoined;
                return;
            }
            ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::RebalanceInProgress
            | ErrorCode::RequestTimedOut => return self.join_later(now_ms),
            code => {
                self.phase = Phase::Unjoined;
                if !self.is_settled(code, now_ms, effects) {
                    self.out(code, effects);
                }
                return;
            }
        }
        let name = answer.protocol_name.unwrap_or_default();
        let chosen = Assignor::from_name(&name);
        let Some(chosen) = chosen.filter(|chosen| self.settings.assignors.contains(chosen)) else {
            return self.out(ErrorCode::InconsistentGroupProtocol, effects);
        };
        self.failures = 0;
        self.heartbeat_at_ms = now_ms.saturating_add(self.settings.heartbeat_ms);
        self.generation = answer.generation_id;
        self.member_id = answer.member_id;
        self.assignor = Some(chosen);
        self.shared_by = None;
        self.leads = answer.leader == self.member_id;
        let members: Vec<_> = answer.members.iter().map(member_of).collect();
        if self.leads {
            let of_members = members.iter().flat_map(|member| &member.topics);
            let topics: BTreeSet<_> = of_members.chain(&self.topics).cloned().collect();
            effects.push(Effect::WatchTopics(topics.into_iter().collect()));
        }
        if self.leads && !answer.skip_assignment {
            self.phase = Phase::Sharing { assignor: chosen, members };
        } else if let Known::Yes(coordinator) = &self.coordinator {
            let to = Some(coordinator.clone());
            self.phase = Phase::Syncing;
            let body = Ask::Sync(self.sync_request(&BTreeMap::new(), false));
            self.ask(to, body, Kind::Sync, effects);
        } else {
            self.phase = Phase::Unjoined;
        }
    }

    fn synced(&mut self, answer: SyncGroupResponse, now_ms: u64, effects: &mut Vec<Effect>) {
        match answer.error_code {
            ErrorCode::None => {}
            ErrorCode::RebalanceInProgress | ErrorCode::CoordinatorLoadInProgress => {
                return self.join_later(now_ms);
            }
            code => {
                self.phase = Phase::Unjoined;
                if !self.is_settled(code, now_ms, effects) {
                    self.out(code, effects);
                }
                return;
            }
        }
        let Ok(assignment) = Assignment::decode(&answer.assignment) else {
            return self.out(ErrorCode::InconsistentGroupProtocol, effects);
        };
        let mut share: Vec<TopicPartition> = Vec::new();
        for topic in assignment.assigned_partitions {
            let name: Arc<str> = topic.topic.into();
            let of = topic.partitions.into_iter();
            share.extend(of.map(|partition| TopicPartition { topic: name.clone(), partition }));
        }
        share.sort();
        share.dedup();
        self.heartbeat_at_ms = now_ms.saturating_add(self.settings.heartbeat_ms);
        self.adopt(share, effects);
        let note = Note::decode(&assignment.user_data.unwrap_or_default());
        // It may be its own former self that was to join again.
        let mut is_owed = note.is_partial && self.comes_back;
        if self.leads && self.shared_by.is_none() {
            // It came back to lead, and sees to it that topics which grow meanwhile or later are shared out.
            is_owed |= note.shared_by.is_none();
            self.shared_by = note.shared_by;
        }
        if is_owed && self.phase == Phase::Stable {
            self.rebalance(effects);
        }
    }

    fn adopt(&mut self, share: Vec<TopicPartition>, effects: &mut Vec<Effect>) {
        let revoked: Vec<_> =
            self.owned.iter().filter(|partition| !share.contains(partition)).cloned().collect();
        let added: Vec<_> =
            share.iter().filter(|partition| !self.owned.contains(partition)).cloned().collect();
        self.owned.extend(added.iter().cloned());
        self.phase = Phase::Stable;
        if !revoked.is_empty() {
            // Let go first, then join again, so that others may have them.
            self.revoke(revoked, effects);
        }
        effects.push(Effect::Tell(Notice::Assigned(added)));
    }

    fn heard(&mut self, code: ErrorCode, now_ms: u64, effects: &mut Vec<Effect>) {
        self.heartbeat_at_ms = now_ms.saturating_add(self.settings.heartbeat_ms);
        match code {
            ErrorCode::RebalanceInProgress if self.phase == Phase::Stable => {
                self.rebalance(effects);
            }
            ErrorCode::None | ErrorCode::RebalanceInProgress => {}
            code => {
                // Anything else passes, or shows again at the next one.
                self.is_settled(code, now_ms, effects);
            }
        }
    }

    fn committed(
        &mut self,
        mut commit: Commit,
        answer: &OffsetCommitResponse,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let code = commit_code(answer);
        if code == ErrorCode::UnknownTopicOrPartition {
            commit.keep_refused(answer);
        }
        let is_missing =
            code == ErrorCode::UnknownTopicOrPartition && commit.failures >= MISSING_TOPIC_TRIES;
        let is_passing = !is_missing
            && matches!(
                code,
                ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::RequestTimedOut
                    | ErrorCode::UnknownTopicOrPartition
            );
        if is_passing {
            self.is_settled(code, now_ms, effects);
            return self.commit_again(commit, code.to_string(), now_ms);
        }
        let result = code.into_result().map_err(|code| self.refused(code));
        effects.push(Effect::CommitDone { token: commit.token, result });
        // What is said of a former generation is no news.
        if self.generation < 0 || commit.generation != self.generation {
            return;
        }
        if code == ErrorCode::RebalanceInProgress {
            if self.phase == Phase::Stable {
                self.heartbeat_at_ms = now_ms;
            }
        } else {
            self.is_settled(code, now_ms, effects);
        }
    }

    fn commit_again(&mut self, mut commit: Commit, reason: String, now_ms: u64) {
        if planted!(self.settings.planted, CommitAsOfNow) {
            commit.generation = self.generation;
        }
        commit.failures = commit.failures.saturating_add(1);
        commit.retry_at_ms = now_ms.saturating_add(self.backoff_ms(commit.failures));
        commit.reason = reason;
        self.commits.push_front(commit);
    }

    fn fetched(
        &mut self,
        wanted: Vec<TopicPartition>,
        answer: OffsetFetchResponse,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let (code, topics) = match answer.groups.into_iter().next() {
            Some(group) => (group.error_code, group.topics),
            None => (answer.error_code, answer.topics),
        };
        if !code.is_none() {
            self.wanted.extend(wanted);
            self.wanted_at_ms = now_ms.saturating_add(self.backoff_ms(3));
            self.is_settled(code, now_ms, effects);
            return;
        }
        let mut found = positions(topics);
        let mut placed = Vec::new();
        for partition in wanted {
            match found.remove(&(partition.topic.to_string(), partition.partition)) {
                Some(Ok(position)) => placed.push((partition, position)),
                Some(Err(_)) | None => {
                    self.wanted.insert(partition);
                    self.wanted_at_ms = now_ms.saturating_add(self.backoff_ms(3));
                }
            }
        }
        effects.push(Effect::Committed(placed));
    }
}

/// After so many refusals in a row, about two seconds, a topic is taken for deleted: other commits wait behind this one.
const MISSING_TOPIC_TRIES: u32 = 7;

/// What is said against a commit; against topics that are missing only where there is nothing else.
fn commit_code(answer: &OffsetCommitResponse) -> ErrorCode {
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let bad = partitions.map(|partition| partition.error_code).filter(|code| !code.is_none());
    bad.min_by_key(|code| *code == ErrorCode::UnknownTopicOrPartition).unwrap_or_default()
}

impl Commit {
    /// The other partitions are remembered.
    fn keep_refused(&mut self, answer: &OffsetCommitResponse) {
        let is_refused = |of: &TopicPartition| {
            let mut topics = answer.topics.iter().filter(|topic| topic.name == *of.topic);
            topics.any(|topic| {
                let mut partitions = topic.partitions.iter();
                partitions
                    .any(|said| said.partition_index == of.partition && !said.error_code.is_none())
            })
        };
        self.offsets.retain(|(partition, _)| is_refused(partition));
    }
}

/// Whether the group's coordinator is another broker than the one that gave this answer.
fn is_elsewhere(answer: &Answer) -> bool {
    let is_meant =
        |code| matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable);
    match answer {
        Answer::Commit(answer) => {
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.any(|partition| is_meant(partition.error_code))
        }
        answer => setback_of(answer).and_then(|setback| setback.code).is_some_and(is_meant),
    }
}

type Found = BTreeMap<(String, PartitionId), Result<Option<Position>, ErrorCode>>;

fn positions(topics: Vec<OffsetFetchTopicResponse>) -> Found {
    let mut found = Found::new();
    for topic in topics {
        for partition in topic.partitions {
            let epoch = partition.committed_leader_epoch;
            let position = partition.committed_offset.map(|offset| Position { offset, epoch });
            let position = partition.error_code.into_result().map(|()| position);
            found.insert((topic.name.clone(), partition.partition_index), position);
        }
    }
    found
}

fn member_of(member: &JoinGroupMember) -> assign::Member {
    let subscription = subscription_of(&member.metadata);
    // Java's sticky members say their generation in the assignor's own words, too.
    let user_data = subscription.user_data.as_deref().and_then(<[u8]>::first_chunk::<4>);
    let said = user_data.map_or(-1, |generation| i32::from_be_bytes(*generation));
    let owned = subscription.owned_partitions.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.into();
        let partitions = topic.partitions.into_iter();
        partitions.map(move |partition| TopicPartition { topic: name.clone(), partition })
    });
    assign::Member {
        id: member.member_id.clone(),
        instance_id: member.group_instance_id.clone(),
        owned: owned.collect(),
        topics: subscription.topics.into_iter().map(Arc::from).collect(),
        generation: subscription.generation_id.max(said),
    }
}
