//! What to send, ask and open now, and when to look again.
//!
//! *Called by* the shell through [`Producer::poll`]. *Calls* `lane`.
//!
//! Invariant: a request carries at most one batch for each partition, and goes to a broker that is connected and has room
//! for another one under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::BrokerId;

use super::lane::Progress;
use super::settings::{Cause, Effect, Outgoing, Undelivered};
use super::{IdentityState, Link, Producer, Request};
use crate::metadata::TopicPartition;

impl<T: Clone> Producer<T> {
    /// Says what to do now. Gives the time at which to look again, unless something happens before.
    pub fn poll(&mut self, now_ms: u64, effects: &mut Vec<Effect<T>>) -> Option<u64> {
        self.expire(now_ms, effects);
        let mut deadline = Deadline { now_ms, next_ms: None };
        let by_leader = self.work(&mut deadline);
        self.ask_metadata(now_ms, effects, &mut deadline);
        if !by_leader.is_empty() {
            self.ask_identity(effects, &mut deadline);
        }
        for (leader, partitions) in by_leader {
            self.dispatch(leader, partitions, (now_ms, effects), &mut deadline);
        }
        if self.buffered_bytes < self.settings.buffer_bytes_max / 2 {
            self.is_pressed = false;
        }
        deadline.next_ms
    }

    /// Settles what was tried for too long.
    fn expire(&mut self, now_ms: u64, effects: &mut Vec<Effect<T>>) {
        let timeout_ms = self.settings.delivery_timeout_ms;
        let is_late = |created_ms: u64| created_ms.saturating_add(timeout_ms) <= now_ms;
        let mut late = Vec::new();
        for (name, topic) in &mut self.topics {
            for (lane, number) in topic.lanes_mut().zip(0i32..) {
                if lane.open.as_ref().is_some_and(|open| is_late(open.created_ms)) {
                    lane.close();
                }
                let partition = || TopicPartition {
                    topic: name.clone(),
                    partition: client_protocol::PartitionId::new(number),
                };
                while lane.unsettled.front().is_some_and(|batch| is_late(batch.created_ms)) {
                    late.extend(lane.unsettled.pop_front().map(|batch| (partition(), batch)));
                }
                if lane.unsettled.is_empty() {
                    while lane.ready.front().is_some_and(|batch| is_late(batch.created_ms)) {
                        late.extend(lane.ready.pop_front().map(|batch| (partition(), batch)));
                    }
                }
            }
        }
        for (partition, batch) in late {
            let is_under_way = batch.progress != Progress::Waiting;
            let after_ms = now_ms.saturating_sub(batch.created_ms);
            let undelivered = Undelivered {
                partition,
                cause: Cause::Expired { after_ms, last: batch.last_failure.clone() },
                is_absent: !batch.may_be_written && !is_under_way,
            };
            self.settle(batch, Err(undelivered), effects);
        }
    }

    /// Settles whatever is not: the shell sends nothing any more, and must push nothing.
    pub fn shut_down(&mut self, effects: &mut Vec<Effect<T>>) {
        let mut ended = Vec::new();
        for (name, topic) in &mut self.topics {
            for (lane, number) in topic.lanes_mut().zip(0i32..) {
                lane.close();
                let partition = TopicPartition {
                    topic: name.clone(),
                    partition: client_protocol::PartitionId::new(number),
                };
                let batches = lane.unsettled.drain(..).chain(lane.ready.drain(..));
                ended.extend(batches.map(|batch| (partition.clone(), batch)));
            }
        }
        for (partition, batch) in ended {
            let is_absent = !batch.may_be_written && batch.progress == Progress::Waiting;
            let undelivered = Undelivered { partition, cause: Cause::ShutDown, is_absent };
            self.settle(batch, Err(undelivered), effects);
        }
    }

    /// The partitions with something to send, by leader.
    fn work(&mut self, deadline: &mut Deadline) -> BTreeMap<BrokerId, Vec<TopicPartition>> {
        let mut by_leader: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        let timeout_ms = self.settings.delivery_timeout_ms;
        for (name, topic) in &mut self.topics {
            for (lane, number) in topic.lanes_mut().zip(0i32..) {
                let oldest = lane.unsettled.front().or(lane.ready.front());
                let oldest_ms = oldest.map(|batch| batch.created_ms);
                let open_due_ms = lane.open_due_ms(&self.settings);
                let Some(oldest_ms) = oldest_ms.or(lane.open.as_ref().map(|o| o.created_ms)) else {
                    continue;
                };
                deadline.at(oldest_ms.saturating_add(timeout_ms));
                let has_waiting = !lane.ready.is_empty()
                    || lane.unsettled.iter().any(|batch| batch.progress == Progress::Waiting);
                let is_due =
                    self.is_pressed || open_due_ms.is_some_and(|due| due <= deadline.now_ms);
                if is_due && let Some(open) = lane.open.as_mut() {
                    open.is_urgent = true;
                }
                if !has_waiting && !is_due {
                    open_due_ms.into_iter().for_each(|due_ms| deadline.at(due_ms));
                    continue;
                }
                let partition = TopicPartition {
                    topic: name.clone(),
                    partition: client_protocol::PartitionId::new(number),
                };
                if lane.retry_at_ms > deadline.now_ms {
                    deadline.at(lane.retry_at_ms);
                    continue;
                }
                match self.metadata.leader(&partition).broker {
                    Some(leader) => by_leader.entry(leader).or_default().push(partition),
                    None => self.asking.is_stale = true,
                }
            }
        }
        by_leader
    }

    fn dispatch(
        &mut self,
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
        (now_ms, effects): (u64, &mut Vec<Effect<T>>),
        deadline: &mut Deadline,
    ) {
        match self.links.get(&broker) {
            Some(Link::Up) => {}
            Some(Link::Connecting { .. }) => return,
            Some(Link::Down { retry_at_ms, .. }) if *retry_at_ms > now_ms => {
                deadline.at(*retry_at_ms);
                return;
            }
            link => {
                let failures = match link {
                    Some(Link::Down { failures, .. }) => *failures,
                    _ => 0,
                };
                match self.metadata.address(broker) {
                    Some(address) => {
                        effects.push(Effect::Connect { broker, address: address.to_owned() });
                        self.links.insert(broker, Link::Connecting { failures });
                    }
                    None => self.asking.is_stale = true,
                }
                return;
            }
        }
        let identity = match self.identity {
            IdentityState::Known(id, epoch) => Some((id, epoch)),
            IdentityState::Missing { .. } | IdentityState::Asked => None,
        };
        let under_way = self.requests.values().filter(|request| request.broker == broker).count();
        let mut partitions: std::collections::VecDeque<_> = partitions.into();
        // Whoever was left out of a full request comes first in the next one.
        let turn = usize::try_from(self.next_request).unwrap_or_default();
        let rotation = turn.checked_rem(partitions.len()).unwrap_or_default();
        partitions.rotate_left(rotation);
        for _ in under_way..self.settings.in_flight_max {
            let batches = self.collect(&mut partitions, now_ms, identity);
            if batches.is_empty() {
                break;
            }
            let request = self.next_request;
            self.next_request = request.saturating_add(1);
            let partitions = batches.iter().map(|batch| batch.partition.clone()).collect();
            self.requests.insert(request, Request { broker, partitions });
            effects.push(Effect::Send { request, broker, batches });
        }
    }

    /// One batch from each of the partitions, as many as fit a request. A partition with nothing more to send is taken
    /// out.
    fn collect(
        &mut self,
        partitions: &mut std::collections::VecDeque<TopicPartition>,
        now_ms: u64,
        identity: Option<(client_protocol::ProducerId, client_protocol::ProducerEpoch)>,
    ) -> Vec<Outgoing> {
        let mut batches = Vec::new();
        let mut bytes = 0usize;
        let request = self.next_request;
        for _ in 0..partitions.len() {
            let Some(partition) = partitions.pop_front() else { break };
            let settings = self.settings.clone();
            let Some(lane) = self.lane_mut(&partition) else { continue };
            let Some(index) = lane.next_to_send(now_ms, &settings, identity) else { continue };
            let Some(batch) = lane.unsettled.get_mut(index) else { continue };
            let size = batch.content.size();
            if !batches.is_empty() && bytes.saturating_add(size) > settings.request_bytes_max {
                partitions.push_front(partition);
                break;
            }
            bytes = bytes.saturating_add(size);
            batch.progress = Progress::Sent(request);
            let (content, identity) = (batch.content.clone(), batch.identity);
            batches.push(Outgoing { partition: partition.clone(), batch: content, identity });
            partitions.push_back(partition);
        }
        batches
    }

    fn ask_metadata(&mut self, now_ms: u64, effects: &mut Vec<Effect<T>>, deadline: &mut Deadline) {
        if self.asking.is_under_way || (self.topics.is_empty() && self.wanted.is_empty()) {
            return;
        }
        let aged_ms = self.asking.refreshed_at_ms.saturating_add(self.settings.metadata_age_max_ms);
        let due_ms = if self.asking.is_stale { self.asking.not_before_ms } else { aged_ms };
        if due_ms > now_ms {
            deadline.at(due_ms);
            return;
        }
        let topics: Vec<Arc<str>> = self.topics.keys().chain(&self.wanted).cloned().collect();
        self.asking.is_under_way = true;
        effects.push(Effect::AskMetadata(topics));
    }

    fn ask_identity(&mut self, effects: &mut Vec<Effect<T>>, deadline: &mut Deadline) {
        let IdentityState::Missing { retry_at_ms } = self.identity else { return };
        if !self.settings.idempotent {
            return;
        }
        if retry_at_ms > deadline.now_ms {
            deadline.at(retry_at_ms);
            return;
        }
        self.identity = IdentityState::Asked;
        effects.push(Effect::AskIdentity);
    }
}

/// The earliest of the times at which something becomes due.
pub(super) struct Deadline {
    now_ms: u64,
    next_ms: Option<u64>,
}

impl Deadline {
    fn at(&mut self, time_ms: u64) {
        self.next_ms = Some(self.next_ms.map_or(time_ms, |next_ms| next_ms.min(time_ms)));
    }
}
