//! Which partitions a broker hosts, by what the metadata says of them and when it counts.
//!
//! *Called by* the shell, one change after the other, and the simulator. Invariants: a log is created only for a partition that the image
//! assigns to this broker, and deleted only when its topic is gone: said to be, or named by a former image and not by the next; what no
//! image of this process has named stays. Nothing but what is gone counts before the image shows this process's registration. It does not
//! know logs, threads or settings.

use std::collections::BTreeSet;

use crate::ids::{BrokerEpoch, BrokerId, PartitionId, TopicPartition, Zxid};
use crate::image::{Applied, Change, Image, Topic};

/// What an image means for the partitions here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// [`Hosting::drop_gone`].
    Gone,
    /// [`Hosting::apply`].
    Changes,
    /// [`Hosting::begin`], by this image as a whole; then the broker may serve.
    Begin(BrokerEpoch),
}

/// When partitions hear of images: one for each session.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    epoch: Option<BrokerEpoch>,
    complete_to: Option<Zxid>,
    begun: Option<BrokerEpoch>,
}

impl Telling {
    /// The image moved on; what its partitions are to be told, in order.
    pub fn image_applied(&mut self, applied: &Applied) -> Vec<Told> {
        self.complete_to = Some(applied.image.complete_to());
        let first = if self.begun.is_some() { Told::Changes } else { Told::Gone };
        std::iter::once(first).chain(self.begin()).collect()
    }

    /// This session has this registration now.
    pub fn registered(&mut self, epoch: BrokerEpoch) -> Option<Told> {
        self.epoch = Some(epoch);
        self.begin()
    }

    fn begin(&mut self) -> Option<Told> {
        let epoch = self.epoch.filter(|epoch| self.begun != Some(*epoch))?;
        let shown = self.complete_to.is_some_and(|complete_to| complete_to >= epoch.zxid());
        shown.then(|| {
            self.begun = Some(epoch);
            Told::Begin(epoch)
        })
    }
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// Brokers came and went: all partitions hear who lives by the image.
    Brokers,
    /// End the partition and delete its log.
    Delete(TopicPartition),
    /// Open the log of a partition, or make one.
    Create(TopicPartition),
    /// The settings of its topic may have changed.
    Settings(TopicPartition),
    /// Its state, as the image has it.
    State(TopicPartition),
    /// No topic of this id: the log is kept and not served. To be told to humans.
    Unknown(TopicPartition),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Hosting {
    me: BrokerId,
    hosted: BTreeSet<TopicPartition>,
    /// The image that was told last.
    told: Image,
}

impl Hosting {
    /// Of a process that found these logs.
    #[must_use]
    pub fn new(me: BrokerId, found: impl IntoIterator<Item = TopicPartition>) -> Self {
        Self { me, hosted: found.into_iter().collect(), told: Image::default() }
    }

    /// The process is registered, and the image shows it: from here on partitions lead and follow. Again after each new registration, as
    /// nothing but what is gone was told in between.
    pub fn begin(&mut self, image: &Image, tasks: &mut Vec<Task>) {
        tasks.push(Task::Brokers);
        // First what goes: a topic of its name may be there by now, in the same folder.
        let former = std::mem::replace(&mut self.told, image.clone());
        let missed = |key: &TopicPartition| {
            former.topic_by_id(key.topic).is_some() && image.topic_by_id(key.topic).is_none()
        };
        self.delete(missed, tasks);
        for topic in image.topics() {
            self.apply_settings(topic, tasks);
            for (partition, _) in image.states(&topic.name) {
                self.apply_partition(image, topic, partition, tasks);
            }
        }
        let unknown = self.hosted.iter().filter(|key| image.topic_by_id(key.topic).is_none());
        tasks.extend(unknown.map(|key| Task::Unknown(*key)));
    }

    /// Deletes what is gone, and takes nothing else of the changes in: what is not known to be gone goes on as it is until
    /// [`Hosting::begin`].
    pub fn drop_gone(&mut self, applied: &Applied, tasks: &mut Vec<Task>) {
        self.told = applied.image.clone();
        for change in &applied.changes {
            if let Change::TopicGone { id, .. } = change {
                self.delete(|key| key.topic == *id, tasks);
            }
        }
    }

    /// Takes in what changed.
    pub fn apply(&mut self, applied: &Applied, tasks: &mut Vec<Task>) {
        // First what goes: a topic of its name may come with the same changes, to the same folder.
        self.drop_gone(applied, tasks);
        let image = &applied.image;
        let of_brokers = |change: &Change| {
            matches!(change, Change::BrokerRegistered { .. } | Change::BrokerGone { .. })
        };
        if applied.changes.iter().any(of_brokers) {
            tasks.push(Task::Brokers);
        }
        for change in &applied.changes {
            match change {
                Change::Topic { topic, .. } => {
                    let Some(topic) = image.topic(topic) else { continue };
                    for (partition, _) in image.states(&topic.name) {
                        self.apply_partition(image, topic, partition, tasks);
                    }
                }
                Change::Partition { topic, partition } => {
                    if let Some(topic) = image.topic(topic) {
                        self.apply_partition(image, topic, *partition, tasks);
                    }
                }
                Change::TopicConfig { topic } => {
                    if let Some(topic) = image.topic(topic) {
                        self.apply_settings(topic, tasks);
                    }
                }
                Change::TopicGone { .. }
                | Change::BrokerRegistered { .. }
                | Change::BrokerGone { .. }
                | Change::BrokerChanged { .. }
                | Change::ClusterId
                | Change::Controller
                | Change::ControllerEpoch
                | Change::Identity { .. }
                | Change::TopicDeletion { .. }
                | Change::Unreadable { .. } => {}
            }
        }
    }

    fn apply_partition(
        &mut self,
        image: &Image,
        topic: &Topic,
        number: PartitionId,
        tasks: &mut Vec<Task>,
    ) {
        let key = TopicPartition { topic: topic.node.id, partition: number };
        if image.state(&topic.name, number).is_none() {
            return;
        }
        let replicas = image.replicas(&topic.name, number).unwrap_or_default();
        if !self.hosted.contains(&key) {
            if !replicas.contains(&self.me) {
                return;
            }
            self.hosted.insert(key);
            tasks.push(Task::Create(key));
        }
        tasks.push(Task::State(key));
    }

    fn apply_settings(&self, topic: &Topic, tasks: &mut Vec<Task>) {
        let keys = topic.node.partitions.keys();
        let keys = keys.map(|&partition| TopicPartition { topic: topic.node.id, partition });
        tasks.extend(keys.filter(|key| self.hosted.contains(key)).map(Task::Settings));
    }

    fn delete(&mut self, is_gone: impl Fn(&TopicPartition) -> bool, tasks: &mut Vec<Task>) {
        let gone: Vec<_> = self.hosted.iter().copied().filter(is_gone).collect();
        for key in gone {
            self.hosted.remove(&key);
            tasks.push(Task::Delete(key));
        }
    }
}

#[cfg(test)]
#[path = "hosting_tests.rs"]
mod tests;
