//! What a change of the metadata means for the partitions here.
//!
//! Called by: membership, one change after the other, in their order. Calls: `partition`,
//! the append queue. Invariant: a log is created only for a partition that the image assigns to
//! this broker, and deleted only when its topic is gone: said to be, or named by a former image and
//! not by the next. What no image of this process has named stays. Does not know znodes.

use std::collections::HashMap;
use std::sync::Arc;

use broker_core::ids::{TopicPartition, Zxid};
use broker_core::image::{Change, Image, Topic};
use broker_log::OpenOptions;
use client_protocol::{ErrorCode, PartitionId};

use super::directory::Directory;
use super::partition::Partition;
use super::registry::Partitions;
use super::settings::TopicSettings;
use super::worker::LogJob;

type Map = HashMap<TopicPartition, Arc<Partition>>;

impl Partitions {
    /// The process is registered (czxid `started`), and `image` is complete up to that zxid at
    /// least: from here on partitions lead and follow. Called again after a new registration of
    /// the same process, which may not have been told of changes in between.
    pub fn begin(&self, started: Zxid, image: &Image) {
        self.hub.set_started(started);
        self.hub.set_live(image.broker_epochs());
        for partition in self.partitions.load().values() {
            partition.apply_brokers();
        }
        let mut map = Map::clone(&self.partitions.load());
        // First what goes: a topic of its name may be there by now, in the same folder.
        let former = self.told.load();
        let missed = |key: &TopicPartition| {
            former.topic_by_id(key.topic).is_some() && image.topic_by_id(key.topic).is_none()
        };
        map.extract_if(|key, _| missed(key)).for_each(|(_, partition)| delete(&partition));
        for topic in image.topics() {
            self.apply_settings(&map, image, topic);
            for (partition, _) in image.states(&topic.name) {
                self.apply_partition(&mut map, image, topic, partition);
            }
        }
        for partition in map.values() {
            if image.topic_by_id(partition.key.topic).is_none() {
                let (topic, number) = (&partition.topic, partition.key.partition);
                tracing::warn!(%topic, %number, "no topic of this id: its log is kept and not served");
            }
        }
        self.store(map, image);
    }

    /// Ends and deletes what is gone, and takes nothing else of the changes in: what is not known
    /// to be gone goes on as it is until [`Partitions::begin`]. `image` is the one after them.
    pub fn drop_gone(&self, image: &Image, changes: &[Change]) {
        let mut map = Map::clone(&self.partitions.load());
        delete_gone(&mut map, changes);
        self.store(map, image);
    }

    /// Takes in what changed; `image` is the one after the changes.
    pub fn apply(&self, image: &Image, changes: &[Change]) {
        let mut map = Map::clone(&self.partitions.load());
        // First what goes: a topic of its name may come with the same changes, to the same folder.
        delete_gone(&mut map, changes);
        let brokers_changed = changes.iter().any(|change| {
            matches!(change, Change::BrokerRegistered { .. } | Change::BrokerGone { .. })
        });
        if brokers_changed {
            self.hub.set_live(image.broker_epochs());
            map.values().for_each(|partition| partition.apply_brokers());
        }
        for change in changes {
            match change {
                Change::Topic { topic, .. } => self.apply_topic(&mut map, image, topic),
                Change::Partition { topic, partition } => {
                    if let Some(topic) = image.topic(topic) {
                        self.apply_partition(&mut map, image, topic, *partition);
                    }
                }
                Change::TopicConfig { topic } => {
                    if let Some(topic) = image.topic(topic) {
                        self.apply_settings(&map, image, topic);
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
        self.store(map, image);
    }

    fn store(&self, map: Map, told: &Image) {
        self.partitions.store(Arc::new(map));
        self.told.store(Arc::new(told.clone()));
    }

    fn apply_topic(&self, map: &mut Map, image: &Image, name: &str) {
        let Some(topic) = image.topic(name) else { return };
        for (partition, _) in image.states(name) {
            self.apply_partition(map, image, topic, partition);
        }
    }

    fn apply_partition(&self, map: &mut Map, image: &Image, topic: &Topic, number: PartitionId) {
        let key = TopicPartition { topic: topic.node.id, partition: number };
        let Some(stored) = image.state(&topic.name, number) else { return };
        let replicas = image.replicas(&topic.name, number).unwrap_or_default();
        let held = map.get(&key).cloned();
        let partition = match held {
            Some(partition) => partition,
            None if replicas.contains(&self.hub.broker_id) => {
                let partition = self.create(map, image, topic, key);
                map.insert(key, Arc::clone(&partition));
                partition
            }
            None => return,
        };
        partition.apply_state(stored, replicas);
    }

    /// Begins a partition here; its log is created by the append thread.
    fn create(
        &self,
        map: &Map,
        image: &Image,
        topic: &Topic,
        key: TopicPartition,
    ) -> Arc<Partition> {
        let settings = Arc::new(self.settings_of(image, topic));
        let options = OpenOptions { config: settings.log.clone(), ..OpenOptions::default() };
        let durability = settings.core.durability;
        let partition = Partition::new(
            key,
            Arc::clone(&topic.name),
            Arc::clone(&self.hub),
            self.emptiest_directory(map),
            settings,
        );
        partition.push(LogJob::Open(options, durability));
        partition
    }

    fn emptiest_directory(&self, map: &Map) -> Arc<Directory> {
        let count = |directory: &Arc<Directory>| {
            let held = |p: &&Arc<Partition>| Arc::ptr_eq(&p.directory(), directory);
            map.values().filter(held).count()
        };
        let usable = self.directories.iter().filter(|directory| !directory.is_failed());
        let chosen = match self.directories.as_slice() {
            [only] => Some(only),
            _ => usable.min_by_key(|directory| count(directory)),
        };
        Arc::clone(chosen.unwrap_or(&self.directories[0]))
    }

    fn apply_settings(&self, map: &Map, image: &Image, topic: &Topic) {
        let settings = Arc::new(self.settings_of(image, topic));
        for partition in topic.node.partitions.keys() {
            let key = TopicPartition { topic: topic.node.id, partition: *partition };
            if let Some(partition) = map.get(&key) {
                partition.apply_settings(Arc::clone(&settings));
            }
        }
    }

    fn settings_of(&self, image: &Image, topic: &Topic) -> TopicSettings {
        let overrides = image.topic_config(&topic.name);
        let replicas = topic.node.partitions.values().map(Vec::len).max().unwrap_or(1);
        TopicSettings::resolve(&self.config, &overrides, replicas)
    }
}

fn delete_gone(map: &mut Map, changes: &[Change]) {
    for change in changes {
        if let Change::TopicGone { id, .. } = change {
            map.extract_if(|key, _| key.topic == *id).for_each(|(_, gone)| delete(&gone));
        }
    }
}

fn delete(partition: &Arc<Partition>) {
    partition.stop(ErrorCode::UnknownTopicOrPartition);
    partition.push(LogJob::Delete);
}
