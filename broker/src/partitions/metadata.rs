//! What a change of the metadata means for the partitions here, carried out.
//!
//! Called by: membership, one change after the other, in their order. Calls: `partition`,
//! the append queue; `broker_core::hosting` decides which are hosted. Invariant: tasks are done in
//! the order in which the core gives them. Does not know znodes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use broker_core::hosting::{Hosting, Task};
use broker_core::ids::{TopicPartition, Zxid};
use broker_core::image::{Applied, Image, Topic};
use broker_log::OpenOptions;
use client_protocol::ErrorCode;

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
        self.host(image, |hosting, tasks| hosting.begin(image, tasks));
    }

    /// Ends and deletes what is gone, and takes nothing else of the changes in: what is not known
    /// to be gone goes on as it is until [`Partitions::begin`].
    pub fn drop_gone(&self, applied: &Applied) {
        self.host(&applied.image, |hosting, tasks| hosting.drop_gone(applied, tasks));
    }

    /// Takes in what changed.
    pub fn apply(&self, applied: &Applied) {
        self.host(&applied.image, |hosting, tasks| hosting.apply(applied, tasks));
    }

    fn host(&self, image: &Image, decide: impl FnOnce(&mut Hosting, &mut Vec<Task>)) {
        let mut hosting = self.hosting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tasks = Vec::new();
        decide(&mut hosting, &mut tasks);
        let mut map = Map::clone(&self.partitions.load());
        let mut settings = None;
        for task in tasks {
            self.carry_out(task, &mut map, image, &mut settings);
        }
        self.partitions.store(Arc::new(map));
    }

    /// `settings`: those of the topic that was last asked for, as its partitions come one after the other.
    fn carry_out(
        &self,
        task: Task,
        map: &mut Map,
        image: &Image,
        settings: &mut Option<(Arc<str>, Arc<TopicSettings>)>,
    ) {
        match task {
            Task::Brokers => {
                self.hub.set_live(image.broker_epochs());
                map.values().for_each(Partition::apply_brokers);
            }
            Task::Delete(key) => {
                if let Some(gone) = map.remove(&key) {
                    gone.stop(ErrorCode::UnknownTopicOrPartition);
                    gone.push(LogJob::Delete);
                }
            }
            Task::Create(key) => {
                let Some(topic) = image.topic_by_id(key.topic) else { return };
                let settings = self.settings_of(image, topic, settings);
                let partition = self.create(map, topic, key, settings);
                map.insert(key, partition);
            }
            Task::Settings(key) => {
                let topic = image.topic_by_id(key.topic);
                if let (Some(topic), Some(partition)) = (topic, map.get(&key)) {
                    partition.apply_settings(self.settings_of(image, topic, settings));
                }
            }
            Task::State(key) => {
                if let (Some((topic, stored)), Some(held)) = (image.partition(key), map.get(&key)) {
                    let replicas = image.replicas(&topic.name, key.partition).unwrap_or_default();
                    held.apply_state(stored, replicas);
                }
            }
            Task::Unknown(key) => {
                let topic = map.get(&key).map(|partition| Arc::clone(&partition.topic));
                let topic = topic.as_deref().unwrap_or_default();
                tracing::warn!(topic, number = %key.partition, "no topic of this id: its log is kept and not served");
            }
        }
    }

    /// Begins a partition here; its log is created by the append thread.
    fn create(
        &self,
        map: &Map,
        topic: &Topic,
        key: TopicPartition,
        settings: Arc<TopicSettings>,
    ) -> Arc<Partition> {
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

    fn settings_of(
        &self,
        image: &Image,
        topic: &Topic,
        known: &mut Option<(Arc<str>, Arc<TopicSettings>)>,
    ) -> Arc<TopicSettings> {
        if let Some((name, settings)) = known
            && *name == topic.name
        {
            return Arc::clone(settings);
        }
        let overrides = image.topic_config(&topic.name);
        let replicas = topic.node.partitions.values().map(Vec::len).max().unwrap_or(1);
        let settings = Arc::new(TopicSettings::resolve(&self.config, &overrides, replicas));
        *known = Some((Arc::clone(&topic.name), Arc::clone(&settings)));
        settings
    }
}
