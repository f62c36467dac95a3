//! Controlled shutdown: a broker that is about to stop hands its leaderships over first.
//!
//! *Called by* the shell through [`Controller`]. Invariant: a broker that is shutting down is elected for nothing that another can lead, leaves the
//! ISRs that others lead, and hears how much it still leads when that is written.

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::image::Image;

use super::message::{Answer, Effect, RequestId};
use super::tenure::{Controller, Office};

impl Controller {
    /// A broker is about to stop. The answer lists what it still leads though others hold replicas; it may ask again.
    pub fn controlled_shutdown(
        &mut self,
        request: RequestId,
        broker: BrokerId,
        epoch: BrokerEpoch,
        effects: &mut Vec<Effect>,
    ) {
        let registered = self.image.broker(broker).map(|b| b.epoch);
        let refused = |error| Effect::Answer { request, answer: Answer::ShutDown(Err(error)) };
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            effects.push(refused(ErrorCode::NotController));
            return;
        };
        if registered != Some(epoch) {
            effects.push(refused(ErrorCode::StaleBrokerEpoch));
            return;
        }
        office.leaving.insert(broker, epoch);
        office.shutdowns.push((request, broker));
        self.mark_brokers_dirty(&[broker].into());
        self.work(effects);
    }

    /// Answers each shutdown whose partitions are all written and seen.
    pub(super) fn answer_shutdowns(&mut self, effects: &mut Vec<Effect>) {
        let image = &self.image;
        let Some(office) = &mut self.office else { return };
        let waiting = std::mem::take(&mut office.shutdowns);
        for (request, broker) in waiting {
            if office.concerns(image, broker) {
                office.shutdowns.push((request, broker));
                continue;
            }
            let mut remaining = Vec::new();
            for topic in image.topics() {
                for (partition, stored) in image.states(&topic.name) {
                    let replicas = topic.node.partitions.get(&partition).map_or(0, Vec::len);
                    if stored.state.leader == Some(broker) && replicas > 1 {
                        remaining.push((topic.name.clone(), partition));
                    }
                }
            }
            let answer = Answer::ShutDown(Ok(remaining));
            effects.push(Effect::Answer { request, answer });
        }
    }
}

impl Office {
    /// Something that is under way or to be looked at has this broker as replica.
    fn concerns(&self, image: &Image, broker: BrokerId) -> bool {
        let replica_of = |key: &TopicPartition| {
            image
                .topic_by_id(key.topic)
                .and_then(|topic| topic.node.partitions.get(&key.partition))
                .is_some_and(|replicas| replicas.contains(&broker))
        };
        self.busy.keys().any(replica_of) || self.dirty.iter().any(replica_of)
    }
}
