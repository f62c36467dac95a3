//! The image itself and its look-ups.
//!
//! *Called by* everything that asks who leads, who lives, what a topic is. Clones share all parts; a change copies the part it touches
//! (for a topic: that topic and the map of pointers). Invariant: all of it is the state as of one zxid.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{
    BrokerEpoch, BrokerId, ControllerEpoch, PartitionEpoch, PartitionId, TopicId, TopicPartition,
    Zxid,
};

use super::json::{BrokerRegistration, Identity, PartitionState, TopicNode};
use super::settings::ReplicationSettings;

/// A registered broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// czxid of the registration: which life.
    pub epoch: BrokerEpoch,
    /// zxid of the last write of the registration.
    pub mzxid: Zxid,
    /// What it registered.
    pub registration: BrokerRegistration,
}

/// A broker's identity node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredIdentity {
    /// What the node says.
    pub identity: Identity,
    /// Version of the node: what a decision that rests on this identity checks.
    pub version: i32,
    /// When it was written.
    pub mzxid: Zxid,
}

impl StoredIdentity {
    /// In-sync memberships granted at or before this zxid say nothing about what the broker holds now (B3).
    #[must_use]
    pub fn lost_at(&self) -> Zxid {
        if self.identity.lost { self.mzxid } else { self.identity.lost_zxid }
    }

    /// The same for topics whose records may live in memory only (B4, D6).
    #[must_use]
    pub fn memory_lost_at(&self) -> Zxid {
        let boot =
            if self.identity.boot_changed { self.mzxid } else { self.identity.boot_changed_zxid };
        boot.max(self.lost_at())
    }
}

/// A partition's state znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredState {
    /// What the node says.
    pub state: PartitionState,
    /// Version of the node.
    pub partition_epoch: PartitionEpoch,
    /// When it was written (mzxid).
    pub written: Zxid,
}

/// A topic and all that stands below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Id and assignment.
    pub node: TopicNode,
    /// Version of the topic node.
    pub version: i32,
}

/// `/controller`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerNode {
    /// Who holds it.
    pub broker: BrokerId,
    /// Its election.
    pub czxid: Zxid,
}

/// All that is known below one topic name; parts may be there without the others while nodes come and go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    pub(super) topic: Option<Topic>,
    pub(super) states: BTreeMap<PartitionId, StoredState>,
    pub(super) config: Option<Arc<BTreeMap<String, String>>>,
    pub(super) deleting: bool,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.topic.is_none() && self.states.is_empty() && self.config.is_none() && !self.deleting
    }
}

/// The cluster's metadata as of one zxid.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Image {
    pub(super) complete_to: Zxid,
    pub(super) cluster_id: Option<Arc<str>>,
    pub(super) controller: Option<ControllerNode>,
    pub(super) controller_epoch: Option<(ControllerEpoch, i32)>,
    pub(super) brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    pub(super) identities: Arc<BTreeMap<BrokerId, Arc<StoredIdentity>>>,
    pub(super) topics: Arc<BTreeMap<Arc<str>, Arc<Entry>>>,
    pub(super) names: Arc<BTreeMap<TopicId, Arc<str>>>,
}

impl Image {
    /// Everything up to and including this zxid is in the image.
    #[must_use]
    pub fn complete_to(&self) -> Zxid {
        self.complete_to
    }

    /// The cluster's id, once the first broker wrote it.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Who is controller.
    #[must_use]
    pub fn controller(&self) -> Option<ControllerNode> {
        self.controller
    }

    /// The controllers' epoch and the version of its node, which is the fencing token.
    #[must_use]
    pub fn controller_epoch(&self) -> Option<(ControllerEpoch, i32)> {
        self.controller_epoch
    }

    /// A registered broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Broker> {
        self.brokers.get(&id).map(AsRef::as_ref)
    }

    /// All registered brokers by number.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().map(AsRef::as_ref)
    }

    /// The lives of all registered brokers.
    #[must_use]
    pub fn broker_epochs(&self) -> BTreeMap<BrokerId, BrokerEpoch> {
        self.brokers.iter().map(|(&id, broker)| (id, broker.epoch)).collect()
    }

    /// A broker's identity node, registered or not.
    #[must_use]
    pub fn identity(&self, id: BrokerId) -> Option<&StoredIdentity> {
        self.identities.get(&id).map(AsRef::as_ref)
    }

    /// The brokers that ever registered, by number.
    pub fn identities(&self) -> impl Iterator<Item = BrokerId> {
        self.identities.keys().copied()
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)?.topic.as_ref()
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Topic> {
        self.topic(self.names.get(&id)?)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values().filter_map(|entry| entry.topic.as_ref())
    }

    /// The settings of a topic that differ from the defaults; empty when there are none.
    #[must_use]
    pub fn topic_config(&self, name: &str) -> Arc<BTreeMap<String, String>> {
        self.topics.get(name).and_then(|entry| entry.config.clone()).unwrap_or_default()
    }

    /// The topic has a settings node, perhaps an empty one.
    #[must_use]
    pub fn has_topic_config(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|entry| entry.config.is_some())
    }

    /// What the topic's settings mean for replication.
    #[must_use]
    pub fn replication_settings(&self, name: &str) -> ReplicationSettings {
        let replicas = self.topic(name).and_then(|topic| topic.node.partitions.values().next());
        ReplicationSettings::of(&self.topic_config(name), replicas.map_or(1, Vec::len))
    }

    /// The topic is marked for deletion.
    #[must_use]
    pub fn is_deleting(&self, name: &str) -> bool {
        self.topics.get(name).is_some_and(|entry| entry.deleting)
    }

    /// Names that are marked for deletion, whether the topic is there or not.
    pub fn deletions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.iter().filter(|(_, entry)| entry.deleting).map(|(name, _)| name)
    }

    /// The state of a partition.
    #[must_use]
    pub fn state(&self, topic: &str, partition: PartitionId) -> Option<&StoredState> {
        self.topics.get(topic)?.states.get(&partition)
    }

    /// The states of a topic's partitions; also of partitions whose topic node is gone already.
    pub fn states(&self, topic: &str) -> impl Iterator<Item = (PartitionId, &StoredState)> {
        self.topics
            .get(topic)
            .into_iter()
            .flat_map(|entry| entry.states.iter().map(|(&partition, state)| (partition, state)))
    }

    /// The assigned replicas of a partition, the preferred leader first.
    #[must_use]
    pub fn replicas(&self, topic: &str, partition: PartitionId) -> Option<&[BrokerId]> {
        self.topic(topic)?.node.partitions.get(&partition).map(Vec::as_slice)
    }

    /// Topic name and state of a partition by its lasting name.
    #[must_use]
    pub fn partition(&self, key: TopicPartition) -> Option<(&Topic, &StoredState)> {
        let topic = self.topic_by_id(key.topic)?;
        Some((topic, self.state(&topic.name, key.partition)?))
    }

    /// Who leads a partition as a client should hear it: a registered broker whose leadership is not older than its life (B5).
    #[must_use]
    pub fn leader(&self, topic: &str, partition: PartitionId) -> Option<&Broker> {
        let stored = self.state(topic, partition)?;
        let broker = self.broker(stored.state.leader?)?;
        (broker.epoch.zxid() < stored.written).then_some(broker)
    }

    /// Panics when the invariant is broken.
    pub fn check(&self) {
        for (id, name) in self.names.iter() {
            let topic = self.topic(name);
            assert_eq!(topic.map(|t| t.node.id), Some(*id), "{name} has another id than its index");
        }
        assert_eq!(self.names.len(), self.topics().count(), "each topic has one id");
        for (id, broker) in self.brokers.iter() {
            assert_eq!(*id, broker.id, "a broker under another number");
            assert!(broker.epoch.zxid() <= self.complete_to, "a broker from beyond the image");
        }
    }
}
