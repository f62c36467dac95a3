//! What a change of the metadata means for the partitions here.
//!
//! Called by: membership, one change after the other, in their order. Calls: `partition`,
//! the append queue. Invariant: a log is created only for a partition that the image assigns to
//! this broker, and deleted only when its topic is said to be gone. Does not know znodes.

use std::collections::HashMap;
use std::sync::Arc;

use broker_core::ids::{TopicPartition, Zxid};
use broker_core::image::{Change, Image, Topic};
use broker_log::OpenOptions;
use client_protocol::{ErrorCode, PartitionId, TopicId};

use super::directory::Directory;
use super::partition::Partition;
use super::registry::Partitions;
use super::settings::TopicSettings;
use super::worker::LogJob;

type Map = HashMap<TopicPartition, Arc<Partition>>;

impl Partitions {
    /// The process is registered (czxid `started`), and `image` is complete up to that zxid at
    /// least: from here on partitions lead and follow. Called again after a new registration of
    /// the same process, and whenever the image was loaded anew as a whole.
    pub fn begin(&self, started: Zxid, image: &Image) {
        self.hub.set_started(started);
        self.hub.set_live(image.broker_epochs());
        for partition in self.partitions.load().values() {
            partition.apply_brokers();
        }
        let mut map = Map::clone(&self.partitions.load());
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
        self.partitions.store(Arc::new(map));
    }

    /// Takes in what changed; `image` is the one after the changes.
    pub fn apply(&self, image: &Image, changes: &[Change]) {
        let mut map = Map::clone(&self.partitions.load());
        // First what goes: a topic of its name may come with the same changes, to the same folder.
        for change in changes {
            if let Change::TopicGone { id, .. } = change {
                take_topic(&mut map, *id).iter().for_each(delete);
            }
        }
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
        self.partitions.store(Arc::new(map));
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

fn delete(partition: &Arc<Partition>) {
    partition.stop(ErrorCode::UnknownTopicOrPartition);
    partition.push(LogJob::Delete);
}

/// Takes all partitions of a topic out of the map.
fn take_topic(map: &mut Map, id: TopicId) -> Vec<Arc<Partition>> {
    map.extract_if(|key, _| key.topic == id).map(|(_, partition)| partition).collect()
}
