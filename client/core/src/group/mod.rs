//! Membership in a consumer group: who reads what, and how far it was read.
//!
//! *Called by* the client's consumer shell and simulations. *Calls* `assign`.
//!
//! [`Member`] is one member's state machine for Kafka's classic group protocol:
//!
//! ```text
//! Away -> Unjoined -> Joining -> [Sharing, the leader] -> Syncing -> Stable
//!            ^                                                        |
//!            +--------------------- Revoking <------------------------+  (a rebalance; or, cooperative, after Syncing)
//! ```
//!
//! Invariant: a partition is given up (told as [`Notice::Revoked`] and acknowledged by [`Member::let_go`]) before this
//! member says anything by which another one could get it; when membership is lost without that chance, it is told as
//! [`Notice::Lost`]. Knows no record and no socket.

mod answer;
pub mod assign;
mod note;
mod request;
mod settings;
#[cfg(test)]
mod tests;
mod wait;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use client_protocol::{BrokerId, ErrorCode};

use crate::consumer::read::Position;
use crate::metadata::{Metadata, Route, TopicPartition};
use assign::PartitionCounts;

pub use crate::producer::Failure;
pub use assign::Assignor;
pub use settings::Settings;
pub use wait::{Setback, Step, Wait};
pub use words::{Answer, Ask, Coordinator, Effect, GroupError, Notice};

/// The topic in which brokers keep what groups commit.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Subscribed to nothing, or out.
    Away,
    /// To join.
    Unjoined,
    Joining,
    /// Leads the generation and waits to know the topics' partitions.
    Sharing {
        assignor: Assignor,
        members: Vec<assign::Member>,
    },
    Syncing,
    Stable,
    /// In the generation still; joins again when the caller has let go.
    Revoking,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    No { ask_at_ms: u64, failures: u32 },
    Asking { failures: u32 },
    Yes(Coordinator),
}

/// What a request under way is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Find,
    Join,
    Sync,
    Heartbeat,
    Leave,
    Commit(Commit),
    Committed(Vec<TopicPartition>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Commit {
    token: u64,
    offsets: Vec<(TopicPartition, Position)>,
    until_ms: u64,
    retry_at_ms: u64,
    failures: u32,
    reason: String,
    /// As whose member it is told.
    generation: i32,
}

/// A member's state.
#[derive(Debug)]
pub struct Member {
    settings: Settings,
    topics: BTreeSet<Arc<str>>,
    phase: Phase,
    coordinator: Known,
    /// How often in a row the coordinator that was named could not be asked, or was none.
    coordinator_failures: u32,
    member_id: String,
    generation: i32,
    /// Of the present generation.
    assignor: Option<Assignor>,
    owned: Vec<TopicPartition>,
    /// What the caller is to let go, by number.
    revocation: Option<(u64, Vec<TopicPartition>)>,
    /// The last attempt to join was a static member's that has no id (yet, or any more).
    comes_back: bool,
    /// Whether the coordinator named it the leader.
    leads: bool,
    /// What the leader shared out by; one that comes back learns it with its share.
    shared_by: Option<PartitionCounts>,
    waiting: BTreeMap<u64, Kind>,
    next_number: u64,
    retry_at_ms: u64,
    failures: u32,
    heartbeat_at_ms: u64,
    caller_seen_ms: u64,
    commits: VecDeque<Commit>,
    wanted: BTreeSet<TopicPartition>,
    wanted_at_ms: u64,
    /// Who leads the partitions of the offsets' topic, as far as notifications tell.
    offsets_leaders: BTreeMap<i32, Option<BrokerId>>,
    /// Since when it has wanted something that it does not have.
    waits_since_ms: Option<u64>,
    setback: Option<Setback>,
}

impl Member {
    /// A member of nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        #[cfg(planted)]
        std::hint::black_box(crate::planted::MARK);
        Self {
            settings,
            topics: BTreeSet::new(),
            phase: Phase::Away,
            coordinator: Known::No { ask_at_ms: 0, failures: 0 },
            coordinator_failures: 0,
            member_id: String::new(),
            generation: -1,
            assignor: None,
            owned: Vec::new(),
            revocation: None,
            comes_back: false,
            leads: false,
            shared_by: None,
            waiting: BTreeMap::new(),
            next_number: 0,
            retry_at_ms: 0,
            failures: 0,
            heartbeat_at_ms: 0,
            caller_seen_ms: 0,
            commits: VecDeque::new(),
            wanted: BTreeSet::new(),
            wanted_at_ms: 0,
            offsets_leaders: BTreeMap::new(),
            waits_since_ms: None,
            setback: None,
        }
    }

    /// What it is told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its share, as of now.
    #[must_use]
    pub fn owned(&self) -> &[TopicPartition] {
        &self.owned
    }

    /// Its id and generation, while it is in one.
    #[must_use]
    pub fn identity(&self) -> Option<(&str, i32)> {
        (self.generation >= 0).then_some((self.member_id.as_str(), self.generation))
    }

    /// Nothing is to be told, asked or waited for: the member has its share, or is away.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Stable | Phase::Away)
    }

    /// Wants a share of these topics, and joins, or joins again.
    pub fn subscribe(
        &mut self,
        topics: BTreeSet<Arc<str>>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.caller_seen_ms = now_ms;
        effects.push(Effect::WatchTopics(topics.iter().cloned().collect()));
        self.topics = topics;
        match self.phase {
            Phase::Away => {
                // Whoever was put out may have mended what was in the way.
                self.phase = Phase::Unjoined;
                self.retry_at_ms = 0;
                self.failures = 0;
            }
            Phase::Stable => self.rebalance(effects),
            // The subscription goes along with the next attempt.
            Phase::Unjoined | Phase::Revoking => {}
            Phase::Joining | Phase::Syncing | Phase::Sharing { .. } => {
                self.waiting.retain(|_, kind| !matches!(kind, Kind::Join | Kind::Sync));
                self.phase = Phase::Unjoined;
            }
        }
    }

    /// The caller is there, and will act on what it is told.
    pub fn caller_lives(&mut self, now_ms: u64) {
        self.caller_seen_ms = now_ms;
        // It was taken for dead, and left.
        if self.phase == Phase::Away && !self.topics.is_empty() && self.retry_at_ms != u64::MAX {
            self.phase = Phase::Unjoined;
        }
    }

    /// The caller has let go what [`Notice::Revoked`] of this number named. `None` when that revocation counts no more,
    /// because membership was lost meanwhile and perhaps regained; otherwise what it named.
    pub fn let_go(&mut self, number: u64) -> Option<Vec<TopicPartition>> {
        let (_, partitions) = self.revocation.take_if(|(current, _)| *current == number)?;
        self.owned.retain(|partition| !partitions.contains(partition));
        // Should they come back, others may have read on: an answer that is under way would be of before.
        self.wanted.retain(|partition| !partitions.contains(partition));
        for kind in self.waiting.values_mut() {
            if let Kind::Committed(wanted) = kind {
                wanted.retain(|partition| !partitions.contains(partition));
            }
        }
        if self.phase == Phase::Revoking {
            self.phase = Phase::Unjoined;
            self.retry_at_ms = 0;
        }
        Some(partitions)
    }

    /// Whether the revocation of this number still counts, as [`Member::let_go`] says.
    #[must_use]
    pub fn is_revoking(&self, number: u64) -> bool {
        self.revocation.as_ref().is_some_and(|(current, _)| *current == number)
    }

    /// Has the caller let these go.
    fn revoke(&mut self, partitions: Vec<TopicPartition>, effects: &mut Vec<Effect>) {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        self.phase = Phase::Revoking;
        if planted!(self.settings.planted, JoinBeforeLetGo) && self.is_cooperative() {
            self.owned.retain(|partition| !partitions.contains(partition));
            self.phase = Phase::Unjoined;
        }
        self.revocation = Some((number, partitions.clone()));
        effects.push(Effect::Tell(Notice::Revoked { number, partitions }));
    }

    /// Has the group remember where reading is to go on. [`Effect::CommitDone`] tells the end.
    pub fn commit(&mut self, token: u64, offsets: Vec<(TopicPartition, Position)>, now_ms: u64) {
        let until_ms = now_ms.saturating_add(self.settings.commit_timeout_ms);
        self.commits.push_back(Commit {
            token,
            offsets,
            until_ms,
            retry_at_ms: 0,
            failures: 0,
            reason: "the group coordinator was not found".to_owned(),
            generation: self.generation,
        });
    }

    /// Asks where reading of these partitions is to go on. [`Effect::Committed`] tells.
    pub fn want_committed(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.wanted.extend(partitions);
        self.wanted_at_ms = 0;
    }

    /// Leaves the group, unless it is a static member, which keeps its share for a while.
    pub fn leave(&mut self, effects: &mut Vec<Effect>) {
        if self.settings.instance_id.is_none()
            && !self.member_id.is_empty()
            && let Known::Yes(coordinator) = &self.coordinator
        {
            let to = Some(coordinator.clone());
            let body = Ask::Leave(self.leave_request());
            self.ask(to, body, Kind::Leave, effects);
        }
        self.forget_membership(effects);
        self.member_id.clear();
        self.topics.clear();
        self.owned.clear();
        self.phase = Phase::Away;
    }

    /// The group coordinator has not answered yet that the member leaves.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is_waiting_for(|kind| *kind == Kind::Leave)
    }

    /// Takes a notification.
    pub fn route(&mut self, route: &Route, now_ms: u64) {
        let Known::Yes(coordinator) = &self.coordinator else {
            if let Known::No { ask_at_ms, .. } = &mut self.coordinator {
                *ask_at_ms = (*ask_at_ms).min(now_ms);
            }
            return;
        };
        let is_gone = match route {
            Route::BrokerDown(broker) => *broker == coordinator.broker,
            Route::Leader { partition, leader } if &*partition.topic == OFFSETS_TOPIC => {
                let (number, ours) = (partition.partition.get(), Some(coordinator.broker));
                let led = self.offsets_leaders.insert(number, leader.broker).flatten();
                // How many there are is known when all were told of, one by one: until then it may be another's that is
                // taken for the group's. Only a coordinator that did lead it can have lost it; to join anew without need
                // leaves a member behind of which nobody knows, and for whom the group then waits.
                self.is_groups(number) && led == ours && leader.broker != ours
            }
            Route::Leader { .. } | Route::BrokerUp { .. } => false,
        };
        if is_gone {
            self.coordinator_failures = 0;
            self.lose_coordinator(now_ms);
            self.take_back();
        }
    }

    /// Whether the group's offsets are in this partition, if the partitions that were told of are all there are.
    fn is_groups(&self, partition: i32) -> bool {
        let last = self.offsets_leaders.last_key_value().map_or(-1, |(last, _)| *last);
        let hash = java_hash(&self.settings.group_id);
        hash.checked_rem(last.saturating_add(1)) == Some(partition)
    }

    /// What was asked of a coordinator that is none any more is asked of the next one: whoever takes over reads what the
    /// log holds, and nothing gets into it from the former one after that. Its connection may be silent for long.
    fn take_back(&mut self) {
        for (number, kind) in std::mem::take(&mut self.waiting) {
            match kind {
                Kind::Commit(commit) => self.commits.push_front(commit),
                Kind::Committed(wanted) => self.wanted.extend(wanted),
                Kind::Find | Kind::Join | Kind::Sync | Kind::Heartbeat | Kind::Leave => {
                    self.waiting.insert(number, kind);
                }
            }
        }
    }

    /// Topics have another number of partitions now: the leader shares out anew.
    pub fn partitions_changed(&mut self, metadata: &Metadata, effects: &mut Vec<Effect>) {
        let Some(shared_by) = &self.shared_by else { return };
        let is_new = |(topic, count): (&Arc<str>, &usize)| {
            metadata.partitions(topic).unwrap_or_default() > *count
        };
        if self.phase == Phase::Stable && shared_by.iter().any(is_new) {
            self.rebalance(effects);
        }
    }

    /// Joins again; without cooperation, the caller lets everything go first.
    fn rebalance(&mut self, effects: &mut Vec<Effect>) {
        self.retry_at_ms = 0;
        if self.is_cooperative() || self.owned.is_empty() {
            self.phase = Phase::Unjoined;
        } else {
            self.revoke(self.owned.clone(), effects);
        }
    }

    /// The group goes on without this member: its share is somebody else's by now.
    fn lose_membership(&mut self, effects: &mut Vec<Effect>) {
        let lost = std::mem::take(&mut self.owned);
        if !lost.is_empty() {
            effects.push(Effect::Tell(Notice::Lost(lost)));
        }
        self.forget_membership(effects);
        self.phase = if self.topics.is_empty() { Phase::Away } else { Phase::Unjoined };
    }

    /// What was asked or is to be asked as a member of this generation counts no more: whoever has the share now must not
    /// be overtaken by a commit of this member's.
    fn forget_membership(&mut self, effects: &mut Vec<Effect>) {
        let refused = Err(self.refused(ErrorCode::IllegalGeneration));
        let mut keeps = |commit: &Commit| {
            if commit.generation >= 0 {
                let (token, result) = (commit.token, refused.clone());
                effects.push(Effect::CommitDone { token, result });
            }
            commit.generation < 0
        };
        self.waiting.retain(|_, kind| match kind {
            Kind::Commit(commit) => keeps(commit),
            Kind::Join | Kind::Sync | Kind::Heartbeat | Kind::Committed(_) => false,
            Kind::Find | Kind::Leave => true,
        });
        self.commits.retain(keeps);
        self.wanted.clear();
        self.revocation = None;
        self.generation = -1;
        self.assignor = None;
        self.shared_by = None;
    }

    /// The member cannot be in the group as it is.
    fn out(&mut self, code: ErrorCode, effects: &mut Vec<Effect>) {
        self.lose_membership(effects);
        self.phase = Phase::Away;
        self.retry_at_ms = u64::MAX;
        effects.push(Effect::Tell(Notice::Out(self.refused(code))));
    }

    fn lose_coordinator(&mut self, now_ms: u64) {
        if matches!(self.coordinator, Known::Yes(_)) {
            // The first time others may know better at once; brokers that go on naming one that is gone are given time.
            let wait_ms = match self.coordinator_failures {
                0 | 1 => 0,
                more => self.backoff_ms(more.saturating_sub(1)),
            };
            let ask_at_ms = now_ms.saturating_add(wait_ms);
            self.coordinator = Known::No { ask_at_ms, failures: 0 };
        }
        // A commit that is waited for is tried again when its answer fails; joining begins anew.
        if matches!(self.phase, Phase::Joining | Phase::Syncing) {
            self.waiting.retain(|_, kind| !matches!(kind, Kind::Join | Kind::Sync));
            self.phase = Phase::Unjoined;
        }
        self.waiting.retain(|_, kind| *kind != Kind::Heartbeat);
        self.heartbeat_at_ms = now_ms;
    }

    fn is_cooperative(&self) -> bool {
        self.settings.assignors.iter().all(|assignor| assignor.is_cooperative())
    }

    fn refused(&self, code: ErrorCode) -> GroupError {
        GroupError::Refused { group: self.settings.group_id.clone(), code }
    }

    fn backoff_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1).min(16);
        let wait_ms = self.settings.retry_backoff_ms.saturating_mul(1 << doublings);
        wait_ms.min(self.settings.retry_backoff_max_ms)
    }

    fn ask(&mut self, to: Option<Coordinator>, body: Ask, kind: Kind, effects: &mut Vec<Effect>) {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        self.waiting.insert(number, kind);
        effects.push(Effect::Ask { number, to, body });
    }

    fn is_waiting_for(&self, kind: impl Fn(&Kind) -> bool) -> bool {
        self.waiting.values().any(kind)
    }
}

/// Java's hash of a string, without its sign: it says which partition a group's offsets are in.
fn java_hash(text: &str) -> i32 {
    let hash = text
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash & i32::MAX
}
