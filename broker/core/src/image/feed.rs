//! The subscription's events in, an image and what changed out.
//!
//! *Called by* the shell's subscription task and the simulator. One subscription at the cluster's root feeds it. Invariant: the image is the
//! state as of its zxid at every moment; a snapshot under way shows only when it is whole. An event at or below that zxid changes nothing, so
//! that a resumed subscription may repeat itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{BrokerEpoch, BrokerId, PartitionEpoch, PartitionId, Zxid};

use super::change::Change;
use super::json::{self, BrokerRegistration, Identity, MalformedNode, PartitionState, TopicNode};
use super::metadata::{Broker, ControllerNode, Entry, Image, StoredIdentity, StoredState, Topic};
use super::path::{self, Node};

/// What happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemKind {
    /// It is there (snapshot).
    Present,
    /// It was created.
    Created,
    /// Its data changed.
    Changed,
    /// It was deleted.
    Deleted,
}

/// What the image needs of a node's Stat.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// zxid of the creation.
    pub czxid: Zxid,
    /// zxid of the last write.
    pub mzxid: Zxid,
    /// Version of the data.
    pub version: i32,
}

/// One node in an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What happened.
    pub kind: ItemKind,
    /// Path below the cluster's root.
    pub path: String,
    /// Its data; empty when it has none or was deleted.
    pub data: Vec<u8>,
    /// Its Stat after the change.
    pub stat: Stat,
}

/// One event of the subscription (safety.md A9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedEvent {
    /// A snapshot begins; it will be complete as of this zxid.
    SnapshotBegin {
        /// Its zxid.
        zxid: Zxid,
    },
    /// Some of the snapshot's nodes.
    SnapshotChunk {
        /// The nodes.
        items: Vec<Item>,
    },
    /// The snapshot is whole.
    SnapshotEnd {
        /// Its zxid.
        zxid: Zxid,
    },
    /// All changes of one zxid.
    Changes {
        /// The zxid.
        zxid: Zxid,
        /// The changes in order.
        items: Vec<Item>,
    },
    /// Nothing else happened up to and including this zxid.
    Bookmark {
        /// The zxid.
        zxid: Zxid,
    },
}

/// The image after an event and what that event changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The new image.
    pub image: Image,
    /// What changed, without order between parts; empty for a bookmark.
    pub changes: Vec<Change>,
}

/// Turns events into images.
#[derive(Clone, Debug, Default)]
pub struct ImageFeed {
    image: Image,
    complete: bool,
    /// A snapshot that is not whole yet, with what in it could not be read.
    loading: Option<(Image, Vec<Change>)>,
}

impl ImageFeed {
    /// The image as of its zxid; empty before the first snapshot is whole.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// From which zxid to resume the subscription; none: from nothing.
    #[must_use]
    pub fn resume_from(&self) -> Option<Zxid> {
        self.complete.then_some(self.image.complete_to)
    }

    /// Applies one event; none when the image is as it was.
    pub fn apply(&mut self, event: FeedEvent) -> Option<Applied> {
        match event {
            FeedEvent::SnapshotBegin { .. } => {
                self.loading = Some((Image::default(), Vec::new()));
                None
            }
            FeedEvent::SnapshotChunk { items } => {
                let (image, changes) = self.loading.as_mut()?;
                for item in &items {
                    apply_item(image, item, changes);
                }
                None
            }
            FeedEvent::SnapshotEnd { zxid } => self.end_snapshot(zxid),
            FeedEvent::Changes { zxid, items } => self.apply_changes(zxid, &items),
            FeedEvent::Bookmark { zxid } => self.apply_changes(zxid, &[]),
        }
    }

    fn end_snapshot(&mut self, zxid: Zxid) -> Option<Applied> {
        let (mut image, mut changes) = self.loading.take()?;
        // A server that is behind may send a snapshot from before what is known: the future is not unlearnt.
        if self.complete && zxid < self.image.complete_to {
            return None;
        }
        changes.retain(|change| matches!(change, Change::Unreadable { .. }));
        image.complete_to = zxid;
        keep_unreadable(&self.image, &mut image, &changes);
        diff(&self.image, &image, &mut changes);
        self.image = image;
        self.complete = true;
        Some(Applied { image: self.image.clone(), changes })
    }

    fn apply_changes(&mut self, zxid: Zxid, items: &[Item]) -> Option<Applied> {
        if !self.complete || zxid <= self.image.complete_to {
            return None;
        }
        let mut changes = Vec::new();
        for item in items {
            apply_item(&mut self.image, item, &mut changes);
        }
        self.image.complete_to = zxid;
        Some(Applied { image: self.image.clone(), changes })
    }
}

/// What nobody can read in a snapshot stays as it was known, as it does after a change: it is not gone, and nothing of it may be deleted.
fn keep_unreadable(former: &Image, image: &mut Image, changes: &[Change]) {
    for change in changes {
        let Change::Unreadable { path, .. } = change else { continue };
        match path::parse(path) {
            Node::Topic(name) => {
                if let Some(topic) = former.topic(name) {
                    keep_topic(topic, image);
                }
            }
            Node::State(name, partition) => {
                if let Some(stored) = former.state(name, partition).cloned() {
                    with_entry(image, name, |entry| {
                        entry.states.insert(partition, stored);
                    });
                }
            }
            Node::TopicConfig(name) => {
                let config = former.topics.get(name).and_then(|entry| entry.config.clone());
                with_entry(image, name, |entry| entry.config = config);
            }
            Node::Broker(id) => {
                if let Some(broker) = former.brokers.get(&id) {
                    Arc::make_mut(&mut image.brokers).insert(id, Arc::clone(broker));
                }
            }
            Node::Identity(id) => {
                if let Some(identity) = former.identities.get(&id) {
                    Arc::make_mut(&mut image.identities).insert(id, Arc::clone(identity));
                }
            }
            Node::ClusterId => image.cluster_id.clone_from(&former.cluster_id),
            Node::Controller => image.controller = former.controller,
            Node::ControllerEpoch => image.controller_epoch = former.controller_epoch,
            Node::Deletion(_) | Node::Other => {}
        }
    }
}

/// Another node may show the topic's id meanwhile: who had it first keeps it.
fn keep_topic(topic: &Topic, image: &mut Image) {
    let (name, id) = (&topic.name, topic.node.id);
    if let Some(other) = image.names.get(&id).filter(|holder| *holder != name).cloned() {
        with_entry(image, &other, |entry| entry.topic = None);
    }
    with_entry(image, name, |entry| entry.topic = Some(topic.clone()));
    Arc::make_mut(&mut image.names).insert(id, Arc::clone(name));
}

fn apply_item(image: &mut Image, item: &Item, changes: &mut Vec<Change>) {
    let applied = match path::parse(&item.path) {
        Node::ClusterId => apply_cluster_id(image, item, changes),
        Node::Controller => apply_controller(image, item, changes),
        Node::ControllerEpoch => apply_controller_epoch(image, item, changes),
        Node::Broker(id) => apply_broker(image, id, item, changes),
        Node::Identity(id) => apply_identity(image, id, item, changes),
        Node::Topic(name) => apply_topic(image, name, item, changes),
        Node::State(name, partition) => apply_state(image, name, partition, item, changes),
        Node::TopicConfig(name) => apply_config(image, name, item, changes),
        Node::Deletion(name) => {
            apply_deletion(image, name, item, changes);
            Ok(())
        }
        Node::Other => Ok(()),
    };
    if let Err(MalformedNode(reason)) = applied {
        changes.push(Change::Unreadable { path: item.path.clone(), reason });
    }
}

fn gone(item: &Item) -> bool {
    item.kind == ItemKind::Deleted
}

type ItemResult = Result<(), MalformedNode>;

fn apply_cluster_id(image: &mut Image, item: &Item, changes: &mut Vec<Change>) -> ItemResult {
    if !gone(item) {
        image.cluster_id = Some(json::decode_cluster_id(&item.data)?.into());
        changes.push(Change::ClusterId);
    }
    Ok(())
}

fn apply_controller(image: &mut Image, item: &Item, changes: &mut Vec<Change>) -> ItemResult {
    image.controller = if gone(item) {
        None
    } else {
        let broker = json::decode_controller(&item.data)?;
        Some(ControllerNode { broker, czxid: item.stat.czxid })
    };
    changes.push(Change::Controller);
    Ok(())
}

fn apply_controller_epoch(image: &mut Image, item: &Item, changes: &mut Vec<Change>) -> ItemResult {
    image.controller_epoch = if gone(item) {
        None
    } else {
        Some((json::decode_controller_epoch(&item.data)?, item.stat.version))
    };
    changes.push(Change::ControllerEpoch);
    Ok(())
}

fn apply_broker(
    image: &mut Image,
    id: BrokerId,
    item: &Item,
    changes: &mut Vec<Change>,
) -> ItemResult {
    let former = image.brokers.get(&id).map(|broker| broker.epoch);
    if gone(item) {
        if let Some(epoch) = former {
            Arc::make_mut(&mut image.brokers).remove(&id);
            changes.push(Change::BrokerGone { broker: id, epoch });
        }
        return Ok(());
    }
    // Kafka creates the node empty and fills it in the same transaction; the second item says what it is.
    if item.data.is_empty() {
        return Ok(());
    }
    let registration = BrokerRegistration::decode(&item.data)?;
    let epoch = BrokerEpoch::new(item.stat.czxid.get());
    let broker = Broker { id, epoch, mzxid: item.stat.mzxid, registration };
    Arc::make_mut(&mut image.brokers).insert(id, Arc::new(broker));
    changes.push(if former == Some(epoch) {
        Change::BrokerChanged { broker: id }
    } else {
        Change::BrokerRegistered { broker: id, epoch }
    });
    Ok(())
}

fn apply_identity(
    image: &mut Image,
    id: BrokerId,
    item: &Item,
    changes: &mut Vec<Change>,
) -> ItemResult {
    if gone(item) {
        Arc::make_mut(&mut image.identities).remove(&id);
    } else {
        let identity = Identity::decode(&item.data)?;
        let stored =
            StoredIdentity { identity, version: item.stat.version, mzxid: item.stat.mzxid };
        Arc::make_mut(&mut image.identities).insert(id, Arc::new(stored));
    }
    changes.push(Change::Identity { broker: id });
    Ok(())
}

/// Changes one topic's entry; an entry with nothing in it is dropped.
fn with_entry(image: &mut Image, name: &str, change: impl FnOnce(&mut Entry)) -> Arc<str> {
    let topics = Arc::make_mut(&mut image.topics);
    let name: Arc<str> =
        topics.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
    let entry = Arc::make_mut(topics.entry(Arc::clone(&name)).or_default());
    change(entry);
    if entry.is_empty() {
        topics.remove(&name);
    }
    name
}

fn apply_topic(
    image: &mut Image,
    name: &str,
    item: &Item,
    changes: &mut Vec<Change>,
) -> ItemResult {
    let former = image.topic(name).map(|topic| topic.node.id);
    let node = if gone(item) { None } else { Some(TopicNode::decode(&item.data)?) };
    let id = node.as_ref().map(|node| node.id);
    if id.and_then(|id| image.names.get(&id)).is_some_and(|holder| **holder != *name) {
        return Err(MalformedNode("another topic has this topic_id".to_owned()));
    }
    if let Some(former) = former.filter(|&former| id != Some(former)) {
        Arc::make_mut(&mut image.names).remove(&former);
        let name = with_entry(image, name, |entry| entry.topic = None);
        changes.push(Change::TopicGone { topic: name, id: former });
    }
    if let Some(node) = node {
        let id = node.id;
        let version = item.stat.version;
        let topic = Topic { name: name.into(), node, version };
        let name = with_entry(image, name, |entry| entry.topic = Some(topic));
        Arc::make_mut(&mut image.names).insert(id, Arc::clone(&name));
        changes.push(Change::Topic { topic: name, id });
    }
    Ok(())
}

fn apply_state(
    image: &mut Image,
    name: &str,
    partition: PartitionId,
    item: &Item,
    changes: &mut Vec<Change>,
) -> ItemResult {
    let stored = if gone(item) {
        None
    } else {
        Some(StoredState {
            state: PartitionState::decode(&item.data)?,
            partition_epoch: PartitionEpoch::new(item.stat.version),
            written: item.stat.mzxid,
        })
    };
    let topic = with_entry(image, name, |entry| match stored {
        Some(stored) => {
            entry.states.insert(partition, stored);
        }
        None => {
            entry.states.remove(&partition);
        }
    });
    changes.push(Change::Partition { topic, partition });
    Ok(())
}

fn apply_config(
    image: &mut Image,
    name: &str,
    item: &Item,
    changes: &mut Vec<Change>,
) -> ItemResult {
    let config = if gone(item) { None } else { Some(Arc::new(json::decode_config(&item.data)?)) };
    let topic = with_entry(image, name, |entry| entry.config = config);
    changes.push(Change::TopicConfig { topic });
    Ok(())
}

fn apply_deletion(image: &mut Image, name: &str, item: &Item, changes: &mut Vec<Change>) {
    let deleting = !gone(item);
    let topic = with_entry(image, name, |entry| entry.deleting = deleting);
    changes.push(Change::TopicDeletion { topic });
}

/// What differs between two whole images.
fn diff(old: &Image, new: &Image, changes: &mut Vec<Change>) {
    if old.cluster_id != new.cluster_id {
        changes.push(Change::ClusterId);
    }
    if old.controller != new.controller {
        changes.push(Change::Controller);
    }
    if old.controller_epoch != new.controller_epoch {
        changes.push(Change::ControllerEpoch);
    }
    diff_brokers(old, new, changes);
    let topics: BTreeSet<_> = old.topics.keys().chain(new.topics.keys()).cloned().collect();
    let empty = Arc::new(Entry::default());
    for name in topics {
        let before = old.topics.get(&name).unwrap_or(&empty);
        let after = new.topics.get(&name).unwrap_or(&empty);
        if before != after {
            diff_topic(&name, before, after, changes);
        }
    }
}

fn diff_brokers(old: &Image, new: &Image, changes: &mut Vec<Change>) {
    for (&id, broker) in old.brokers.iter() {
        if !new.brokers.contains_key(&id) {
            changes.push(Change::BrokerGone { broker: id, epoch: broker.epoch });
        }
    }
    for (&id, broker) in new.brokers.iter() {
        match old.brokers.get(&id) {
            Some(former) if former == broker => {}
            Some(former) if former.epoch == broker.epoch => {
                changes.push(Change::BrokerChanged { broker: id });
            }
            Some(_) | None => {
                changes.push(Change::BrokerRegistered { broker: id, epoch: broker.epoch });
            }
        }
    }
    let ids: BTreeSet<_> = old.identities.keys().chain(new.identities.keys()).copied().collect();
    for broker in ids {
        if old.identities.get(&broker) != new.identities.get(&broker) {
            changes.push(Change::Identity { broker });
        }
    }
}

fn diff_topic(name: &Arc<str>, before: &Entry, after: &Entry, changes: &mut Vec<Change>) {
    let id = |entry: &Entry| entry.topic.as_ref().map(|topic| topic.node.id);
    if let Some(former) = id(before).filter(|&former| id(after) != Some(former)) {
        changes.push(Change::TopicGone { topic: Arc::clone(name), id: former });
    }
    if let Some(topic) = after.topic.as_ref().filter(|_| before.topic != after.topic) {
        changes.push(Change::Topic { topic: Arc::clone(name), id: topic.node.id });
    }
    if before.config != after.config {
        changes.push(Change::TopicConfig { topic: Arc::clone(name) });
    }
    if before.deleting != after.deleting {
        changes.push(Change::TopicDeletion { topic: Arc::clone(name) });
    }
    let partitions: BTreeSet<_> =
        before.states.keys().chain(after.states.keys()).copied().collect();
    for partition in partitions {
        if before.states.get(&partition) != after.states.get(&partition) {
            changes.push(Change::Partition { topic: Arc::clone(name), partition });
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
