//! One broker's time in office: what is known, what is under way, what must be looked at.
//!
//! *Called by* the shell's controller loop and the simulator. *Calls* election, alter, topic, preferred, shutdown and write. Invariants: nothing is decided
//! before the image is complete up to the election (C4); a partition has at most one write under way, and is decided on from an image that
//! shows the last one; every request is answered once. Losing the office loses nothing but unanswered requests: all that counts is in znodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::image::{Applied, Change, ControllerNode, Image, PartitionState, StoredState};
use crate::partition::ReplicaReport;

use super::alter::{AlterFacts, AlterQueue, OpenAlter, Verdict, WaitingAlter};
use super::election::{Decision, Facts};
use super::message::{Answer, Effect, Election, PartitionReport, RequestId, WriteId};
use super::preferred::OpenElection;
use super::topic::{OpenTopics, TopicWork};
use super::write::{Busy, Pending, StateWrite};

/// Defaults that the controller applies to new topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerConfig {
    /// `num.partitions`
    pub partitions: i32,
    /// `default.replication.factor`, bounded by the number of registered brokers.
    pub replication_factor: i16,
    /// `unclean.leader.election.enable` of topics that do not say themselves.
    pub unclean: bool,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

/// Brokers that are shutting down, with the life that is.
pub(super) type Leaving = BTreeMap<BrokerId, BrokerEpoch>;

/// What one life of a broker was asked and answered.
#[derive(Clone, Debug, Default)]
struct BrokerReports {
    asked: BTreeSet<TopicPartition>,
    answered: BTreeMap<TopicPartition, Option<ReplicaReport>>,
}

/// Answers to DescribeReplicas by broker and life.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    brokers: BTreeMap<(BrokerId, BrokerEpoch), BrokerReports>,
}

impl Reports {
    /// What a life of a broker said of a partition; the inner none: it holds no such replica.
    #[must_use]
    pub fn get(
        &self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        key: TopicPartition,
    ) -> Option<Option<ReplicaReport>> {
        self.brokers.get(&(broker, epoch))?.answered.get(&key).copied()
    }

    /// Notes that a partition is asked about; true when it was not before.
    fn ask(&mut self, broker: BrokerId, epoch: BrokerEpoch, key: TopicPartition) -> bool {
        self.brokers.entry((broker, epoch)).or_default().asked.insert(key)
    }

    fn note(&mut self, broker: BrokerId, epoch: BrokerEpoch, report: PartitionReport) {
        // What was not asked, or not since the last election, may be old.
        let asked = self.brokers.get_mut(&(broker, epoch));
        if let Some(reports) = asked.filter(|reports| reports.asked.contains(&report.partition)) {
            reports.answered.insert(report.partition, report.report);
        }
    }

    /// Logs change from now on: what they held says nothing at the next election.
    fn forget(&mut self, key: TopicPartition) {
        for reports in self.brokers.values_mut() {
            reports.asked.remove(&key);
            reports.answered.remove(&key);
        }
    }

    /// Forgets lives that are over.
    fn retain_live(&mut self, image: &Image) {
        self.brokers.retain(|(id, epoch), _| image.broker(*id).map(|b| b.epoch) == Some(*epoch));
    }
}

/// The time in office.
#[derive(Clone, Debug)]
pub(super) struct Office {
    pub(super) election: Election,
    /// The image is complete up to the election.
    pub(super) complete: bool,
    pub(super) last_write: WriteId,
    pub(super) pending: BTreeMap<WriteId, Pending>,
    pub(super) busy: BTreeMap<TopicPartition, Busy>,
    /// Partitions to look at.
    pub(super) dirty: BTreeSet<TopicPartition>,
    pub(super) alters: BTreeMap<TopicPartition, AlterQueue>,
    pub(super) open_alters: BTreeMap<RequestId, OpenAlter>,
    pub(super) open_topics: BTreeMap<RequestId, OpenTopics>,
    /// Creations and deletions that wait until the image shows what became of them.
    pub(super) settling_topics: Vec<(crate::ids::Zxid, TopicWork)>,
    pub(super) leaving: Leaving,
    pub(super) shutdowns: Vec<(RequestId, BrokerId)>,
    /// Topics that do not say themselves may elect uncleanly.
    pub(super) unclean: bool,
    /// Partitions whose first replica is to lead again, when nothing else is to be done.
    pub(super) preferred: BTreeSet<TopicPartition>,
    /// Partitions that may elect uncleanly once, on an operator's word.
    pub(super) unclean_once: BTreeSet<TopicPartition>,
    pub(super) elections: BTreeMap<RequestId, OpenElection>,
    pub(super) reports: Reports,
    #[cfg(planted)]
    pub(super) planted: Option<crate::planted::Planted>,
}

/// The controller of a broker, in office or not.
#[derive(Clone, Debug)]
pub struct Controller {
    pub(super) config: ControllerConfig,
    pub(super) image: Image,
    pub(super) office: Option<Office>,
}

impl Controller {
    /// Not in office.
    #[must_use]
    pub fn new(config: ControllerConfig) -> Self {
        Self { config, image: Image::default(), office: None }
    }

    /// In office; perhaps not yet able to decide.
    #[must_use]
    pub fn is_elected(&self) -> bool {
        self.office.is_some()
    }

    /// In office and deciding.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.office.as_ref().is_some_and(|office| office.complete)
    }

    /// Takes office.
    pub fn elected(&mut self, election: Election, effects: &mut Vec<Effect>) {
        self.leave_office(effects);
        self.office = Some(Office {
            election,
            complete: false,
            last_write: 0,
            #[cfg(planted)]
            planted: self.config.planted,
            pending: BTreeMap::new(),
            busy: BTreeMap::new(),
            dirty: BTreeSet::new(),
            alters: BTreeMap::new(),
            open_alters: BTreeMap::new(),
            open_topics: BTreeMap::new(),
            settling_topics: Vec::new(),
            leaving: Leaving::new(),
            shutdowns: Vec::new(),
            unclean: self.config.unclean,
            preferred: BTreeSet::new(),
            unclean_once: BTreeSet::new(),
            elections: BTreeMap::new(),
            reports: Reports::default(),
        });
        self.check_complete();
        self.work(effects);
    }

    /// The office is lost: `/controller` or the session is gone. Answers everything that is open: with NOT_CONTROLLER, but where doing it
    /// twice is not doing it once and some of it may be done, with REQUEST_TIMED_OUT.
    pub fn deposed(&mut self, effects: &mut Vec<Effect>) {
        self.leave_office(effects);
    }

    /// Found out by a write: another controller is in office.
    pub(super) fn resign(&mut self, effects: &mut Vec<Effect>) {
        self.leave_office(effects);
        effects.push(Effect::Resign);
    }

    fn leave_office(&mut self, effects: &mut Vec<Effect>) {
        let Some(office) = self.office.take() else { return };
        let begun = office.begun_requests();
        let refused = Err(ErrorCode::NotController);
        for request in office.open_alters.into_keys() {
            let answer = Answer::Altered(refused.clone());
            effects.push(Effect::Answer { request, answer });
        }
        for (request, open) in office.open_topics {
            let answer = open.abandon(begun.contains(&request));
            effects.push(Effect::Answer { request, answer });
        }
        for request in office.elections.into_keys() {
            let answer = Answer::Elected(Err(ErrorCode::NotController));
            effects.push(Effect::Answer { request, answer });
        }
        for (request, _) in office.shutdowns {
            let answer = Answer::ShutDown(Err(ErrorCode::NotController));
            effects.push(Effect::Answer { request, answer });
        }
    }

    /// The image moved on.
    pub fn image_applied(&mut self, applied: &Applied, effects: &mut Vec<Effect>) {
        self.image = applied.image.clone();
        let Some(office) = &mut self.office else { return };
        let newer = |node: &ControllerNode| node.czxid > office.election.zxid;
        let raised = self
            .image
            .controller_epoch()
            .is_some_and(|(_, version)| version > office.election.epoch_version);
        if raised || self.image.controller().as_ref().is_some_and(newer) {
            self.resign(effects);
            return;
        }
        if office.complete {
            office.reports.retain_live(&self.image);
            let live = |id: &BrokerId, epoch: &mut BrokerEpoch| {
                self.image.broker(*id).map(|broker| broker.epoch) == Some(*epoch)
            };
            office.leaving.retain(live);
            self.note_changes(&applied.changes);
        } else {
            self.check_complete();
        }
        self.work(effects);
    }

    /// C4: once the image reaches the election, everything is looked at.
    fn check_complete(&mut self) {
        let Some(office) = &mut self.office else { return };
        if office.complete || self.image.complete_to() < office.election.zxid {
            return;
        }
        office.complete = true;
        for topic in self.image.topics() {
            for (partition, _) in self.image.states(&topic.name) {
                office.dirty.insert(TopicPartition { topic: topic.node.id, partition });
            }
        }
        let marked: Vec<Arc<str>> = self.image.deletions().cloned().collect();
        for name in marked {
            self.delete_marked(&name);
        }
    }

    fn note_changes(&mut self, changes: &[Change]) {
        let mut brokers = BTreeSet::new();
        for change in changes {
            match change {
                Change::BrokerRegistered { broker, .. }
                | Change::BrokerGone { broker, .. }
                | Change::Identity { broker } => {
                    brokers.insert(*broker);
                }
                Change::Partition { topic, partition } => {
                    self.mark_dirty(topic, *partition);
                }
                Change::TopicDeletion { topic } => self.delete_marked(topic),
                // Its settings decide whether a partition without an eligible replica waits.
                Change::Topic { topic, .. } | Change::TopicConfig { topic } => {
                    let partitions: Vec<_> = self.image.states(topic).map(|(p, _)| p).collect();
                    for partition in partitions {
                        self.mark_dirty(topic, partition);
                    }
                }
                Change::ClusterId
                | Change::Controller
                | Change::ControllerEpoch
                | Change::BrokerChanged { .. }
                | Change::TopicGone { .. }
                | Change::Unreadable { .. } => {}
            }
        }
        if !brokers.is_empty() {
            self.mark_brokers_dirty(&brokers);
        }
    }

    fn mark_dirty(&mut self, topic: &str, partition: crate::ids::PartitionId) {
        let Some(topic) = self.image.topic(topic) else { return };
        let key = TopicPartition { topic: topic.node.id, partition };
        if let Some(office) = &mut self.office {
            office.dirty.insert(key);
        }
    }

    /// Looks at all partitions that have one of these brokers as replica.
    pub(super) fn mark_brokers_dirty(&mut self, brokers: &BTreeSet<BrokerId>) {
        let Some(office) = &mut self.office else { return };
        for topic in self.image.topics() {
            for (&partition, replicas) in &topic.node.partitions {
                if replicas.iter().any(|id| brokers.contains(id)) {
                    office.dirty.insert(TopicPartition { topic: topic.node.id, partition });
                }
            }
        }
    }

    /// A broker answered DescribeReplicas.
    pub fn described(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
        reports: &[PartitionReport],
        effects: &mut Vec<Effect>,
    ) {
        if self.image.broker(broker).map(|b| b.epoch) != Some(epoch) {
            return;
        }
        if let Some(office) = &mut self.office {
            for &report in reports {
                office.reports.note(broker, epoch, report);
                office.dirty.insert(report.partition);
            }
        }
        self.work(effects);
    }

    /// Decides on everything that can be decided on, and sends it.
    pub(super) fn work(&mut self, effects: &mut Vec<Effect>) {
        let image = self.image.clone();
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else { return };
        let complete_to = image.complete_to();
        office.busy.retain(|_, busy| match busy {
            Busy::Sent => true,
            Busy::Until(zxid) => *zxid > complete_to,
        });
        let mut writes = Vec::new();
        let mut asks = BTreeMap::new();
        for key in std::mem::take(&mut office.dirty) {
            if office.busy.contains_key(&key) {
                office.dirty.insert(key);
            } else if let Some(write) = office.look(&image, key, &mut asks, effects) {
                writes.push(write);
            }
        }
        office.send_states(writes, effects);
        for ((broker, epoch), partitions) in asks {
            effects.push(Effect::Describe { broker, epoch, partitions });
        }
        self.work_topics(effects);
        self.answer_shutdowns(effects);
        self.answer_elections(effects);
    }
}

type Asks = BTreeMap<(BrokerId, BrokerEpoch), Vec<TopicPartition>>;

impl Office {
    /// Looks at one partition: an election first, then what leaders ask for.
    fn look(
        &mut self,
        image: &Image,
        key: TopicPartition,
        asks: &mut Asks,
        effects: &mut Vec<Effect>,
    ) -> Option<StateWrite> {
        let known = image.partition(key).and_then(|(topic, stored)| {
            Some((topic, stored, topic.node.partitions.get(&key.partition)?))
        });
        let Some((topic, stored, replicas)) = known else {
            self.preferred.remove(&key);
            self.unclean_once.remove(&key);
            for alter in self.alters.remove(&key).unwrap_or_default() {
                self.answer_alter(&alter, ErrorCode::UnknownTopicId, effects);
            }
            return None;
        };
        let (mut state, alter) = match self.decide(image, key, stored, replicas) {
            Decision::Write(state) => {
                if state.leader.is_some() {
                    self.reports.forget(key);
                }
                (state, None)
            }
            Decision::WriteUnclean(state, report) => {
                self.reports.forget(key);
                let topic = Arc::clone(&topic.name);
                effects.push(unclean_election(topic, key, &state, report));
                (state, None)
            }
            Decision::Keep => {
                let (state, alter) = self.next_alter(image, key, effects)?;
                (state, Some(alter))
            }
            Decision::Ask(brokers) => {
                for (broker, epoch) in brokers {
                    if self.reports.ask(broker, epoch, key) {
                        asks.entry((broker, epoch)).or_default().push(key);
                    }
                }
                let (state, alter) = self.next_alter(image, key, effects)?;
                (state, Some(alter))
            }
        };
        state.controller_epoch = self.election.epoch;
        let version = |&id: &BrokerId| image.identity(id).map(|stored| (id, stored.version));
        Some(StateWrite {
            key,
            topic: Arc::clone(&topic.name),
            partition: key.partition,
            expected: stored.partition_epoch,
            rests_on: state.isr.iter().filter_map(version).collect(),
            state,
            alter,
        })
    }

    /// What to do about a partition, with what was asked for beside what has to be.
    fn decide(
        &mut self,
        image: &Image,
        key: TopicPartition,
        stored: &StoredState,
        replicas: &[BrokerId],
    ) -> Decision {
        let Some(topic) = image.topic_by_id(key.topic) else { return Decision::Keep };
        let settings = image.replication_settings(&topic.name);
        let facts = Facts {
            image,
            reports: &self.reports,
            leaving: &self.leaving,
            memory: settings.memory,
            unclean: settings.unclean.unwrap_or(self.unclean) || self.unclean_once.contains(&key),
            #[cfg(planted)]
            planted: self.planted,
        };
        let decision = facts.decide(key, stored, replicas);
        let wished = match decision {
            // Only when nothing is wrong with the partition.
            Decision::Keep if self.preferred.remove(&key) => facts.prefer(key, stored, replicas),
            _ => None,
        };
        if !matches!(decision, Decision::Ask(_)) {
            self.unclean_once.remove(&key);
        }
        wished.map_or(decision, Decision::Write)
    }

    /// Answers waiting items until one is granted.
    fn next_alter(
        &mut self,
        image: &Image,
        key: TopicPartition,
        effects: &mut Vec<Effect>,
    ) -> Option<(crate::image::PartitionState, WaitingAlter)> {
        let (topic, stored) = image.partition(key)?;
        let replicas = topic.node.partitions.get(&key.partition)?;
        while let Some(alter) = self.alters.get_mut(&key).and_then(AlterQueue::pop_front) {
            let facts = AlterFacts { image, leaving: &self.leaving, stored, replicas };
            match facts.judge(&alter) {
                Verdict::Answer(error) => self.answer_alter(&alter, error, effects),
                Verdict::Write(state) => {
                    // What else waits for this partition is looked at after the write.
                    self.dirty.insert(key);
                    return Some((state, alter));
                }
            }
        }
        self.alters.remove(&key);
        None
    }
}

fn unclean_election(
    topic: Arc<str>,
    key: TopicPartition,
    state: &PartitionState,
    report: ReplicaReport,
) -> Effect {
    let (leader, leader_epoch) = (state.leader, state.leader_epoch);
    Effect::UncleanElection { topic, partition: key.partition, leader, leader_epoch, report }
}

impl Controller {
    /// Panics when an invariant is broken.
    pub fn check(&self) {
        let Some(office) = &self.office else { return };
        assert!(
            office.complete || (office.pending.is_empty() && office.busy.is_empty()),
            "decided before the image reached the election"
        );
        let mut sent = BTreeSet::new();
        for pending in office.pending.values() {
            if let Pending::States { writes, .. } = pending {
                for write in writes {
                    assert!(sent.insert(write.key), "{:?} has two writes under way", write.key);
                    assert!(
                        matches!(office.busy.get(&write.key), Some(Busy::Sent)),
                        "{:?} is under way but not busy",
                        write.key
                    );
                }
            }
        }
    }
}
