//! What images mean for a process's partitions, carried out.
//!
//! Called by: `process`, `session`. Calls: broker-core's hosting, the log jobs. Invariant: tasks are done in the order in which they come.

use std::sync::Arc;

use broker::partitions::worker::LogJob;
use broker_core::hosting::{Task, Told};
use broker_core::ids::TopicPartition;
use broker_core::image::Applied;
use broker_core::partition::StateUpdate;
use client_protocol::ErrorCode;

use super::message::Outbox;
use super::process::Process;
use super::storage::{self, Of};
use crate::sim::ensemble::schedule::Time;

impl Process {
    /// The image moved on.
    pub(super) fn hear(&mut self, applied: &Applied, now: Time, out: &mut Outbox) {
        for told in self.telling.image_applied(applied) {
            let mut tasks = Vec::new();
            match told {
                Told::Gone => self.hosting.drop_gone(applied, &mut tasks),
                Told::Changes => self.hosting.apply(applied, &mut tasks),
                Told::Begin(_) => {
                    self.begin(now, out);
                    continue;
                }
            }
            self.do_tasks(tasks, now, out);
        }
    }

    /// The image shows this session's registration: partitions lead and follow from here on, and are served.
    pub(super) fn begin(&mut self, now: Time, out: &mut Outbox) {
        let mut tasks = Vec::new();
        self.hosting.begin(&self.image, &mut tasks);
        self.do_tasks(tasks, now, out);
        self.session.is_registered = true;
    }

    fn do_tasks(&mut self, tasks: Vec<Task>, now: Time, out: &mut Outbox) {
        for task in tasks {
            match task {
                Task::Brokers => self.hear_of_brokers(now, out),
                Task::Delete(key) => self.delete(key, now, out),
                Task::Create(key) => {
                    let topic = self.image.topic_by_id(key.topic).expect("it was just shown");
                    let of = Of { key, topic: Arc::clone(&topic.name) };
                    self.host(&of);
                    let options = storage::options(&self.settings);
                    self.push_log_job(key, LogJob::Open(options, self.settings.durability), out);
                }
                Task::State(key) => self.hear_of_state(key, now, out),
                // All topics have the settings that the run has.
                Task::Settings(_) | Task::Unknown(_) => {}
            }
        }
    }

    fn hear_of_brokers(&mut self, now: Time, out: &mut Outbox) {
        self.lives = Arc::new(self.image.broker_epochs());
        self.describes.retain(|&(id, epoch), _| self.lives.get(&id) == Some(&epoch));
        let moment = self.moment(now);
        let known: Vec<_> = self.replicas.keys().collect();
        for key in known {
            self.step_partition(key, now, out, |hosted, outcome| {
                hosted.apply_brokers(&moment, outcome);
            });
        }
    }

    fn hear_of_state(&mut self, key: TopicPartition, now: Time, out: &mut Outbox) {
        let image = self.image.clone();
        let Some((topic, stored)) = image.partition(key) else { return };
        let replicas = image.replicas(&topic.name, key.partition).unwrap_or_default();
        let moment = self.moment(now);
        self.step_partition(key, now, out, |hosted, outcome| {
            hosted.apply_state(StateUpdate { stored, replicas }, &moment, outcome);
        });
    }

    /// Lets go of a log of a topic that is gone, before another one of its name comes.
    fn delete(&mut self, key: TopicPartition, now: Time, out: &mut Outbox) {
        self.step_partition(key, now, out, |hosted, outcome| {
            hosted.end(ErrorCode::UnknownTopicOrPartition, outcome);
        });
        self.push_log_job(key, LogJob::Delete, out);
        self.forget_replica(key);
    }

    fn forget_replica(&mut self, key: TopicPartition) {
        self.stop_fetching(key);
        self.replicas.remove(key);
    }
}
