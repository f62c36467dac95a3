//! AlterPartition: a leader asks for another ISR.
//!
//! *Called by* the shell through [`Controller`]. Invariant: what is granted is a versioned write of the controller; the answer carries an error code
//! only (C3). Validation in Kafka's order (kafka.md section 2). One deviation: a request that equals the present state at the present version is
//! written again, because by that a leader makes everything void that it asked for at this version before.

use std::collections::VecDeque;

use client_protocol::ErrorCode;

use crate::ids::{BrokerEpoch, BrokerId, TopicPartition};
use crate::image::{Image, PartitionState, StoredState};

use super::message::{AlterItem, AlterPartitions, AlteredPartition, Answer, Effect, RequestId};
use super::tenure::{Controller, Leaving, Office};

/// An item that waits for its partition's turn.
#[derive(Clone, Debug)]
pub(super) struct WaitingAlter {
    pub(super) request: RequestId,
    pub(super) broker: BrokerId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) item: AlterItem,
}

/// A request whose items are not all answered.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenAlter {
    open: usize,
    answered: Vec<AlteredPartition>,
}

/// Queue of waiting items of one partition.
pub(super) type AlterQueue = VecDeque<WaitingAlter>;

/// What to do with an item.
pub(super) enum Verdict {
    Answer(ErrorCode),
    Write(PartitionState),
}

/// What an item is judged by.
pub(super) struct AlterFacts<'a> {
    pub(super) image: &'a Image,
    pub(super) leaving: &'a Leaving,
    pub(super) stored: &'a StoredState,
    pub(super) replicas: &'a [BrokerId],
}

impl AlterFacts<'_> {
    /// Judges one item in Kafka's order.
    pub(super) fn judge(&self, waiting: &WaitingAlter) -> Verdict {
        let item = &waiting.item;
        let current = &self.stored.state;
        let epoch_now = self.stored.partition_epoch;
        if self.image.broker(waiting.broker).map(|b| b.epoch) != Some(waiting.broker_epoch) {
            return Verdict::Answer(ErrorCode::StaleBrokerEpoch);
        }
        if item.partition_epoch > epoch_now || item.leader_epoch > current.leader_epoch {
            return Verdict::Answer(ErrorCode::NotController);
        }
        if item.leader_epoch < current.leader_epoch {
            return Verdict::Answer(ErrorCode::FencedLeaderEpoch);
        }
        if current.leader != Some(waiting.broker) {
            return Verdict::Answer(ErrorCode::InvalidRequest);
        }
        let same = item.isr.len() == current.isr.len()
            && item.isr.iter().all(|(id, _)| current.isr.contains(id))
            && item.recovering == current.recovering;
        if same && item.partition_epoch < epoch_now {
            return Verdict::Answer(ErrorCode::None);
        }
        if item.partition_epoch < epoch_now {
            return Verdict::Answer(ErrorCode::InvalidUpdateVersion);
        }
        if let Some(error) = self.members_refused(waiting) {
            return Verdict::Answer(error);
        }
        let isr = item.isr.iter().map(|&(id, _)| id).collect();
        Verdict::Write(PartitionState { isr, recovering: item.recovering, ..current.clone() })
    }

    fn members_refused(&self, waiting: &WaitingAlter) -> Option<ErrorCode> {
        let item = &waiting.item;
        let turns_recovering = item.recovering && !self.stored.state.recovering;
        if turns_recovering || (item.recovering && item.isr.len() > 1) {
            return Some(ErrorCode::InvalidRequest);
        }
        let mut seen = Vec::with_capacity(item.isr.len());
        for &(id, _) in &item.isr {
            if !self.replicas.contains(&id) || seen.contains(&id) {
                return Some(ErrorCode::InvalidRequest);
            }
            seen.push(id);
        }
        if !seen.contains(&waiting.broker) {
            return Some(ErrorCode::InvalidRequest);
        }
        let ineligible = |&(id, epoch): &(BrokerId, BrokerEpoch)| {
            let registered = self.image.broker(id).map(|broker| broker.epoch);
            let leaves = id != waiting.broker && self.leaving.get(&id) == Some(&epoch);
            registered != Some(epoch) || leaves || self.image.identity(id).is_none()
        };
        item.isr.iter().any(ineligible).then_some(ErrorCode::IneligibleReplica)
    }
}

impl Office {
    /// One item is answered; the request when it was the last.
    pub(super) fn answer_alter(
        &mut self,
        alter: &WaitingAlter,
        error: ErrorCode,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_alters.get_mut(&alter.request) else { return };
        open.answered.push(AlteredPartition { partition: alter.item.partition, error });
        open.open = open.open.saturating_sub(1);
        if open.open == 0
            && let Some(open) = self.open_alters.remove(&alter.request)
        {
            let answer = Answer::Altered(Ok(open.answered));
            effects.push(Effect::Answer { request: alter.request, answer });
        }
    }

    /// Why the partition of an item cannot be decided on at all.
    fn unknown_partition(image: &Image, key: TopicPartition) -> Option<ErrorCode> {
        let Some(topic) = image.topic_by_id(key.topic) else {
            return Some(ErrorCode::UnknownTopicId);
        };
        let known = image.state(&topic.name, key.partition).is_some();
        (!known).then_some(ErrorCode::UnknownTopicOrPartition)
    }
}

impl Controller {
    /// A leader asks for other ISRs.
    pub fn alter_partitions(
        &mut self,
        request: RequestId,
        alter: AlterPartitions,
        effects: &mut Vec<Effect>,
    ) {
        let refused = |error| Effect::Answer { request, answer: Answer::Altered(Err(error)) };
        let registered = self.image.broker(alter.broker).map(|broker| broker.epoch);
        let Some(office) = self.office.as_mut().filter(|office| office.complete) else {
            effects.push(refused(ErrorCode::NotController));
            return;
        };
        if registered != Some(alter.broker_epoch) {
            effects.push(refused(ErrorCode::StaleBrokerEpoch));
            return;
        }
        if alter.items.is_empty() {
            effects.push(Effect::Answer { request, answer: Answer::Altered(Ok(Vec::new())) });
            return;
        }
        let open = OpenAlter { open: alter.items.len(), answered: Vec::new() };
        office.open_alters.insert(request, open);
        for item in alter.items {
            let key = item.partition;
            let waiting = WaitingAlter {
                request,
                broker: alter.broker,
                broker_epoch: alter.broker_epoch,
                item,
            };
            match Office::unknown_partition(&self.image, key) {
                Some(error) => office.answer_alter(&waiting, error, effects),
                None => {
                    office.alters.entry(key).or_default().push_back(waiting);
                    office.dirty.insert(key);
                }
            }
        }
        self.work(effects);
    }
}
