//! What to ask of whom now, and when to look again.
//!
//! *Called by* the shell through [`Consumer::poll`]. *Calls* `links`.
//!
//! Invariant: a partition is asked for by one request at a time; a leader has at most [`FETCH_SLOTS`] fetches to answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::messages::fetch::{FetchPartition, FetchTopic};
use client_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use client_protocol::messages::offset_for_leader_epoch::{
    CONSUMER, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use client_protocol::messages::{FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use client_protocol::{BrokerId, LeaderEpoch, Offset};

use super::partition::Phase;
use super::{Consumer, Effect, FETCH_SLOTS, QUERY_SLOT, Request, RequestId, is_buffered};
use crate::links::Need;
use crate::metadata::TopicPartition;

/// What leaders are to be asked.
#[derive(Default)]
struct Work {
    fetch: BTreeMap<BrokerId, Vec<(TopicPartition, Offset, Option<LeaderEpoch>)>>,
    find: BTreeMap<BrokerId, Vec<(TopicPartition, i64, Option<LeaderEpoch>)>>,
    check: BTreeMap<BrokerId, Vec<(TopicPartition, LeaderEpoch, Option<LeaderEpoch>)>>,
}

#[derive(Default)]
struct Deadline(Option<u64>);

impl Deadline {
    fn at(&mut self, time_ms: u64) {
        self.0 = Some(self.0.map_or(time_ms, |next_ms| next_ms.min(time_ms)));
    }
}

impl Consumer {
    /// Says what to do now. Gives the time at which to look again, unless something happens before.
    pub fn poll(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Option<u64> {
        let mut deadline = Deadline::default();
        let work = self.work(now_ms, &mut deadline);
        self.ask_metadata(now_ms, effects, &mut deadline);
        for (broker, partitions) in work.find {
            if self.is_ready((broker, QUERY_SLOT), now_ms, effects, &mut deadline) {
                self.find(broker, partitions, effects);
            }
        }
        for (broker, partitions) in work.check {
            if self.is_ready((broker, QUERY_SLOT), now_ms, effects, &mut deadline) {
                self.check_epochs(broker, partitions, effects);
            }
        }
        for (broker, partitions) in work.fetch {
            let is_busy =
                |slot: u8| self.requests.values().any(|r| r.broker == broker && r.slot == slot);
            let Some(slot) = (0..FETCH_SLOTS).find(|slot| !is_busy(*slot)) else { continue };
            if self.is_ready((broker, slot), now_ms, effects, &mut deadline) {
                self.fetch((broker, slot), partitions, effects);
            }
        }
        deadline.0
    }

    fn work(&mut self, now_ms: u64, deadline: &mut Deadline) -> Work {
        let mut work = Work::default();
        // What nobody may have now must not keep others from being read; each paused one holds little.
        let paused = self.partitions.values().filter(|known| known.is_paused);
        let held = paused.fold(0usize, |sum, known| sum.saturating_add(known.buffered_bytes));
        let has_room = self.buffered_bytes.saturating_sub(held) < self.settings.buffer_bytes_max;
        let ahead_max = usize::try_from(self.settings.partition_bytes_max).unwrap_or(usize::MAX);
        for (partition, known) in &mut self.partitions {
            if known.under_way.is_some() {
                continue;
            }
            known.waits_for_caller = known.waits_for_caller && is_buffered(&self.buffer, partition);
            let is_wanted = match known.phase {
                Phase::Elsewhere | Phase::Stopped => false,
                Phase::Find(_) => true,
                Phase::Reading if known.waits_for_caller => false,
                Phase::Reading => !known.is_paused && has_room && known.buffered_bytes < ahead_max,
            };
            if !is_wanted {
                known.unanswered_since_ms = None;
                continue;
            }
            known.unanswered_since_ms.get_or_insert(now_ms);
            if known.retry_at_ms > now_ms {
                deadline.at(known.retry_at_ms);
                continue;
            }
            let leader = self.metadata.leader(partition);
            let Some(broker) = leader.broker else {
                self.asking.is_stale = true;
                continue;
            };
            let name = partition.clone();
            match (known.phase, known.position) {
                (Phase::Find(timestamp), _) => {
                    work.find.entry(broker).or_default().push((name, timestamp, leader.epoch));
                }
                (Phase::Reading, Some(position)) => {
                    match known.narrowed.unwrap_or(position).epoch {
                        Some(epoch)
                            if leader.epoch > known.checked
                                && !planted!(self.settings.planted, SkipPositionCheck) =>
                        {
                            work.check.entry(broker).or_default().push((name, epoch, leader.epoch));
                        }
                        _ => {
                            known.checked = leader.epoch.max(known.checked);
                            let fetch = work.fetch.entry(broker).or_default();
                            fetch.push((name, position.offset, leader.epoch));
                        }
                    }
                }
                (Phase::Reading | Phase::Elsewhere | Phase::Stopped, _) => {}
            }
        }
        work
    }

    fn is_ready(
        &mut self,
        link: (BrokerId, u8),
        now_ms: u64,
        effects: &mut Vec<Effect>,
        deadline: &mut Deadline,
    ) -> bool {
        if self.links.is_up(link) {
            return true;
        }
        let (broker, slot) = link;
        let Some(address) = self.metadata.address(broker) else {
            self.asking.is_stale = true;
            return false;
        };
        match self.links.need(link, now_ms) {
            Need::Up => return true,
            Need::Open => {
                effects.push(Effect::Connect { broker, slot, address: address.to_owned() });
            }
            Need::Wait => {}
            Need::At(time_ms) => deadline.at(time_ms),
        }
        false
    }

    fn request(&mut self, (broker, slot): (BrokerId, u8), of: Vec<TopicPartition>) -> RequestId {
        let request = self.next_request;
        self.next_request = request.saturating_add(1);
        for partition in &of {
            if let Some(known) = self.partitions.get_mut(partition) {
                known.under_way = Some(request);
            }
        }
        self.requests.insert(request, Request { broker, slot, partitions: of });
        request
    }

    fn fetch(
        &mut self,
        to: (BrokerId, u8),
        partitions: Vec<(TopicPartition, Offset, Option<LeaderEpoch>)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut topics: BTreeMap<Arc<str>, Vec<FetchPartition>> = BTreeMap::new();
        for (partition, offset, epoch) in &partitions {
            topics.entry(partition.topic.clone()).or_default().push(FetchPartition {
                partition: partition.partition,
                current_leader_epoch: *epoch,
                fetch_offset: *offset,
                partition_max_bytes: self.settings.partition_bytes_max,
                ..FetchPartition::default()
            });
        }
        let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
            topic: topic.to_string(),
            partitions,
            ..FetchTopic::default()
        });
        let body = FetchRequest {
            max_wait_ms: self.settings.fetch_wait_ms,
            min_bytes: self.settings.fetch_bytes_min,
            max_bytes: self.settings.fetch_bytes_max,
            isolation_level: i8::from(self.settings.is_committed_only),
            topics: topics.collect(),
            ..FetchRequest::default()
        };
        let names = partitions.into_iter().map(|(partition, ..)| partition).collect();
        let request = self.request(to, names);
        effects.push(Effect::Fetch { request, to, body });
    }

    fn find(
        &mut self,
        broker: BrokerId,
        partitions: Vec<(TopicPartition, i64, Option<LeaderEpoch>)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut topics: BTreeMap<Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (partition, timestamp, epoch) in &partitions {
            topics.entry(partition.topic.clone()).or_default().push(ListOffsetsPartition {
                partition_index: partition.partition,
                current_leader_epoch: *epoch,
                timestamp: *timestamp,
            });
        }
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic { name: name.to_string(), partitions });
        let body = ListOffsetsRequest {
            isolation_level: i8::from(self.settings.is_committed_only),
            topics: topics.collect(),
            ..ListOffsetsRequest::default()
        };
        let names = partitions.into_iter().map(|(partition, ..)| partition).collect();
        let request = self.request((broker, QUERY_SLOT), names);
        effects.push(Effect::ListOffsets { request, broker, body });
    }

    fn check_epochs(
        &mut self,
        broker: BrokerId,
        partitions: Vec<(TopicPartition, LeaderEpoch, Option<LeaderEpoch>)>,
        effects: &mut Vec<Effect>,
    ) {
        let mut topics: BTreeMap<Arc<str>, Vec<OffsetForLeaderPartition>> = BTreeMap::new();
        for (partition, epoch, current) in &partitions {
            topics.entry(partition.topic.clone()).or_default().push(OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: *current,
                leader_epoch: *epoch,
            });
        }
        let topics = topics.into_iter().map(|(topic, partitions)| OffsetForLeaderTopic {
            topic: topic.to_string(),
            partitions,
        });
        let body = OffsetForLeaderEpochRequest { replica_id: CONSUMER, topics: topics.collect() };
        let names = partitions.into_iter().map(|(partition, ..)| partition).collect();
        let request = self.request((broker, QUERY_SLOT), names);
        effects.push(Effect::CheckEpochs { request, broker, body });
    }

    fn ask_metadata(&mut self, now_ms: u64, effects: &mut Vec<Effect>, deadline: &mut Deadline) {
        if self.asking.is_under_way || (self.partitions.is_empty() && self.watched.is_empty()) {
            return;
        }
        let aged_ms = self.asking.refreshed_at_ms.saturating_add(self.settings.metadata_age_max_ms);
        let due_ms = if self.asking.is_stale { self.asking.not_before_ms } else { aged_ms };
        if due_ms > now_ms {
            deadline.at(due_ms);
            return;
        }
        let mut topics = self.watched.clone();
        topics.extend(self.partitions.keys().map(|partition| partition.topic.clone()));
        self.asking.is_under_way = true;
        effects.push(Effect::AskMetadata(topics.into_iter().collect()));
    }
}
