//! The replica: its log's positions, its role, and how metadata changes the role.
//!
//! *Called by* the shell (under the partition's lock) and the simulator: events in, effects out. *Calls* the leader's and follower's parts.
//! Invariants: `log start <= high watermark <= end offset`; the high watermark falls only with a truncation below it, which no clean election
//! causes; a state is adopted only when its partition epoch is above the adopted one (C3); the replica never leads under an epoch granted
//! before its process started (B5). It does not know topics' names, requests or files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{
    BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset, PartitionEpoch, TopicPartition, Zxid,
};
use crate::image::StoredState;

use super::effect::Effect;
use super::follower::Follower;
use super::leader::Leader;
use super::positions::{Appended, LogPositions, Synced, Truncated};

/// What acknowledged means for a topic (`durability`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// On the disks of the in-sync replicas.
    #[default]
    Disk,
    /// In the memory of the in-sync replicas, Kafka's way.
    Memory,
}

/// Settings of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What acknowledged means.
    pub durability: Durability,
    /// `min.insync.replicas`
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub lag_time_max_ms: u64,
    /// An unanswered AlterPartition is sent again after this; a refused one is tried again after it.
    pub alter_retry_ms: u64,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

/// What the log said when it was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Positions after recovery.
    pub positions: LogPositions,
    /// From the checkpoint; bounded by the log on loading.
    pub high_watermark: Offset,
    /// The log has lost something below the durable mark (D6).
    pub cut_below_mark: bool,
}

/// What the metadata image says of a partition.
#[derive(Clone, Copy, Debug)]
pub struct StateUpdate<'a> {
    /// The state node.
    pub stored: &'a StoredState,
    /// The assigned replicas.
    pub replicas: &'a [BrokerId],
}

/// Answer to DescribeReplicas for one partition (C5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaReport {
    /// Epoch of the last record.
    pub last_epoch: Option<LeaderEpoch>,
    /// Log end offset.
    pub end_offset: Offset,
    /// Durable end.
    pub durable_end: Offset,
    /// The log was cut below the durable mark because it could not be read there, and the replica was not in sync since.
    pub cut_below_mark: bool,
}

/// What the replica is at present.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Neither leads nor follows: no leader, not a replica, or an epoch from before the start.
    Idle,
    Leader(Leader),
    Follower(Follower),
}

/// The state that was adopted last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Adopted {
    pub(super) partition_epoch: PartitionEpoch,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) leader: Option<BrokerId>,
    pub(super) isr: Vec<BrokerId>,
    pub(super) replicas: Vec<BrokerId>,
}

/// One replica of one partition on this broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    pub(super) me: BrokerId,
    pub(super) key: TopicPartition,
    /// Leaderships written at or before this zxid are of a former process.
    started: Zxid,
    pub(super) settings: Settings,
    pub(super) log: LogPositions,
    pub(super) high_watermark: Offset,
    pub(super) cut_below_mark: bool,
    pub(super) adopted: Option<Adopted>,
    /// An epoch of this broker's lead that was granted before its start.
    unleadable: Option<LeaderEpoch>,
    /// Lives of all registered brokers, shared with every partition.
    pub(super) live: Arc<BTreeMap<BrokerId, BrokerEpoch>>,
    pub(super) role: Role,
}

impl Partition {
    /// `started`: czxid of the first registration of this process.
    #[must_use]
    pub fn new(
        me: BrokerId,
        key: TopicPartition,
        started: Zxid,
        loaded: Loaded,
        settings: Settings,
    ) -> Self {
        #[cfg(planted)]
        std::hint::black_box(crate::planted::MARK);
        let Loaded { positions: log, high_watermark, cut_below_mark } = loaded;
        let high_watermark = high_watermark.clamp(log.start, log.end);
        Self {
            me,
            key,
            started,
            settings,
            log,
            high_watermark,
            cut_below_mark,
            adopted: None,
            unleadable: None,
            live: Arc::default(),
            role: Role::Idle,
        }
    }

    /// Which partition.
    #[must_use]
    pub fn key(&self) -> TopicPartition {
        self.key
    }

    /// The log's positions as last reported.
    #[must_use]
    pub fn positions(&self) -> &LogPositions {
        &self.log
    }

    /// Everything below is committed.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The epoch that this replica leads under and may append under now.
    #[must_use]
    pub fn leading(&self) -> Option<LeaderEpoch> {
        match &self.role {
            Role::Leader(leader) => leader.ready.then_some(leader.epoch),
            Role::Idle | Role::Follower(_) => None,
        }
    }

    /// Whether the metadata lets this replica lead, its log being ready for that or not.
    #[must_use]
    pub fn is_elected(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader that this replica follows, with its epoch.
    #[must_use]
    pub fn following(&self) -> Option<(BrokerId, LeaderEpoch)> {
        match &self.role {
            Role::Follower(follower) => Some((follower.leader, follower.epoch)),
            Role::Idle | Role::Leader(_) => None,
        }
    }

    /// The in-sync replicas as adopted.
    #[must_use]
    pub fn isr(&self) -> &[BrokerId] {
        self.adopted.as_ref().map_or(&[], |adopted| adopted.isr.as_slice())
    }

    /// The leader epoch as adopted.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.adopted.as_ref().map(|adopted| adopted.leader_epoch)
    }

    /// The partition epoch as adopted.
    #[must_use]
    pub fn partition_epoch(&self) -> Option<PartitionEpoch> {
        self.adopted.as_ref().map(|adopted| adopted.partition_epoch)
    }

    /// Answers DescribeReplicas.
    #[must_use]
    pub fn report(&self) -> ReplicaReport {
        ReplicaReport {
            last_epoch: self.log.epochs.last(),
            end_offset: self.log.end,
            durable_end: self.log.durable_end,
            cut_below_mark: self.cut_below_mark,
        }
    }

    /// The metadata says this of the partition. A partition epoch not above the adopted one changes nothing.
    pub fn apply_state(&mut self, update: StateUpdate<'_>, now: Millis, effects: &mut Vec<Effect>) {
        let stored = update.stored;
        let former = self.adopted.as_ref();
        if former.is_some_and(|a| stored.partition_epoch <= a.partition_epoch)
            && !planted!(self.settings.planted, AdoptAnyState)
        {
            return;
        }
        let former_epoch = former.map(|adopted| adopted.leader_epoch);
        let former_isr = former.map(|adopted| adopted.isr.clone()).unwrap_or_default();
        self.adopted = Some(Adopted {
            partition_epoch: stored.partition_epoch,
            leader_epoch: stored.state.leader_epoch,
            leader: stored.state.leader,
            isr: stored.state.isr.clone(),
            replicas: update.replicas.to_vec(),
        });
        let granted =
            stored.written > self.started || planted!(self.settings.planted, LeadUnderOldEpoch);
        let has_leader = stored.state.leader.is_some();
        if granted && has_leader && self.cut_below_mark && stored.state.isr.contains(&self.me) {
            // Beside a leader, or as one, only a replica that caught up or was asked and answered stands in a state written after its start.
            // Without a leader the list names who is gone, of whom nothing is known: also a process whose session alone is.
            self.cut_below_mark = false;
            effects.push(Effect::CutRepaired);
        }
        let epoch = stored.state.leader_epoch;
        let same_leadership = former_epoch == Some(epoch) && !matches!(self.role, Role::Idle);
        match stored.state.leader {
            Some(leader) if leader == self.me => {
                if !granted {
                    self.unleadable = Some(epoch);
                }
                if self.unleadable == Some(epoch) {
                    self.become_idle(epoch, effects);
                } else if same_leadership {
                    self.isr_adopted(&former_isr, now, effects);
                } else {
                    self.become_leader(epoch, now, effects);
                }
            }
            Some(leader) if update.replicas.contains(&self.me) => {
                if !same_leadership {
                    self.become_follower(leader, epoch, effects);
                }
            }
            Some(_) | None => self.become_idle(epoch, effects),
        }
    }

    /// The registered brokers and their lives, whenever the image changes one.
    pub fn apply_brokers(
        &mut self,
        brokers: &Arc<BTreeMap<BrokerId, BrokerEpoch>>,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        self.live = Arc::clone(brokers);
        self.leader_progress(now, effects);
    }

    /// The topic's settings changed.
    pub fn apply_settings(&mut self, settings: Settings, now: Millis, effects: &mut Vec<Effect>) {
        self.settings = settings;
        self.leader_progress(now, effects);
    }

    /// The topic is gone, or the log directory failed: serve nothing any more.
    pub fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.leave_role(effects);
        self.role = Role::Idle;
    }

    /// Tells what ends when the present role ends.
    fn leave_role(&mut self, effects: &mut Vec<Effect>) {
        match &self.role {
            Role::Idle => {}
            Role::Leader(_) => effects.push(Effect::LeadershipLost),
            Role::Follower(_) => effects.push(Effect::StopFetching),
        }
    }

    fn become_idle(&mut self, epoch: LeaderEpoch, effects: &mut Vec<Effect>) {
        self.leave_role(effects);
        self.role = Role::Idle;
        // What a former leadership still has queued must not reach the log.
        effects.push(Effect::AdoptEpoch { leader_epoch: epoch });
    }

    fn become_leader(&mut self, epoch: LeaderEpoch, now: Millis, effects: &mut Vec<Effect>) {
        self.leave_role(effects);
        self.role = Role::Leader(Leader::new(epoch, self.log.end, now));
        effects.push(Effect::AdoptEpoch { leader_epoch: epoch });
    }

    fn become_follower(&mut self, leader: BrokerId, epoch: LeaderEpoch, effects: &mut Vec<Effect>) {
        self.leave_role(effects);
        self.role = Role::Follower(Follower::new(leader, epoch));
        effects.push(Effect::AdoptEpoch { leader_epoch: epoch });
    }

    /// The log refuses older epochs now and finished what was queued before; its positions are known.
    pub fn epoch_adopted(
        &mut self,
        leader_epoch: LeaderEpoch,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        match &mut self.role {
            Role::Leader(leader) if leader.epoch == leader_epoch && !leader.ready => {
                leader.begin(self.log.end, now);
                self.leader_progress(now, effects);
            }
            Role::Follower(follower) if follower.epoch == leader_epoch => {
                if follower.begin() {
                    let leader = follower.leader;
                    effects.push(Effect::FetchFrom { leader, leader_epoch });
                    if planted!(self.settings.planted, TruncateToHighWatermark) {
                        effects.push(follower.cut_at(self.high_watermark));
                    }
                }
            }
            Role::Idle | Role::Leader(_) | Role::Follower(_) => {}
        }
    }

    /// Records were appended, by the lead or by following; reported in log order.
    pub fn appended(&mut self, appended: &Appended, now: Millis, effects: &mut Vec<Effect>) {
        let moved = self.log.append(appended);
        if planted!(self.settings.planted, AcknowledgeBeforeSync) {
            self.log.durable_end = self.log.end;
        }
        match &mut self.role {
            Role::Leader(_) => {
                if moved {
                    effects.push(Effect::EndMoved { end_offset: self.log.end });
                }
                self.leader_progress(now, effects);
            }
            Role::Follower(_) => self.follower_appended(effects),
            Role::Idle => {}
        }
    }

    /// A commit round ended; one that began before the last truncation does not count (D5).
    pub fn synced(&mut self, synced: Synced, now: Millis, effects: &mut Vec<Effect>) {
        if !self.log.sync(synced) {
            return;
        }
        match &self.role {
            Role::Leader(_) => self.leader_progress(now, effects),
            Role::Follower(follower) => {
                if follower.may_fetch() && self.settings.durability == Durability::Disk {
                    effects.push(Effect::ReportProgress);
                }
            }
            Role::Idle => {}
        }
    }

    /// The log was cut or restarted.
    pub fn truncated(&mut self, truncated: Truncated, effects: &mut Vec<Effect>) {
        self.log.truncate(truncated);
        self.cut_below_mark |= truncated.cut_below_mark;
        let bounded = self.high_watermark.clamp(self.log.start, self.log.end);
        if bounded < self.high_watermark {
            let (high_watermark, end_offset) = (self.high_watermark, self.log.end);
            effects.push(Effect::CommittedCut { high_watermark, end_offset });
        }
        if bounded != self.high_watermark {
            self.high_watermark = bounded;
            effects.push(Effect::HighWatermark { high_watermark: bounded });
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.log_changed();
        }
    }

    /// Retention, DeleteRecords or the leader moved the log start up. The log never moves it past the high watermark.
    pub fn log_start_moved(&mut self, start: Offset, effects: &mut Vec<Effect>) {
        self.log.trim(start);
        if self.high_watermark < start {
            self.high_watermark = start;
            effects.push(Effect::HighWatermark { high_watermark: start });
        }
    }

    /// Time passed: lag, unanswered requests.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.leader_progress(now, effects);
    }

    /// Panics when an invariant is broken.
    pub fn check(&self) {
        self.log.check();
        let (start, hw, end) = (self.log.start, self.high_watermark, self.log.end);
        assert!(start <= hw, "{:?}: log start {start} above high watermark {hw}", self.key);
        assert!(hw <= end, "{:?}: high watermark {hw} above end {end}", self.key);
        match (&self.role, &self.adopted) {
            (Role::Idle, _) => {}
            (Role::Leader(leader), Some(adopted)) => {
                assert_eq!(adopted.leader, Some(self.me), "leads without being leader");
                assert_eq!(adopted.leader_epoch, leader.epoch, "leads under another epoch");
                assert_ne!(self.unleadable, Some(leader.epoch), "leads under an old epoch");
                leader.check(end);
            }
            (Role::Follower(follower), Some(adopted)) => {
                assert_eq!(adopted.leader, Some(follower.leader), "follows another leader");
                assert_eq!(adopted.leader_epoch, follower.epoch, "follows another epoch");
                assert_ne!(follower.leader, self.me, "follows itself");
            }
            (Role::Leader(_) | Role::Follower(_), None) => panic!("a role without a state"),
        }
    }
}
