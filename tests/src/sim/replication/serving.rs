//! What a process answers: to producers and consumers, to followers, to leaders and as the controller.
//!
//! Called by: `process`, `storage`. Calls: the cores and the log. Invariant: requests are answered from the core's decisions alone; a
//! produce is parked only while the leadership that permitted it lasts.

use std::collections::BTreeSet;

use broker_core::controller::{
    AlterItem, AlterPartitions, Answer, Effect as ControllerEffect, PartitionReport,
};
use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset, TopicPartition};
use broker_core::partition::{AlterRequest, Appended, ConsumerFetch, FetchAnswer, FollowerFetch};
use broker_core::purgatory::{FetchWait, Outcome, ProduceWait, Settled};
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::coordinator::StoreOp;
use super::message::{Address, CoordinatorRequest, FetchRequest, Message, Outbox};
use super::process::{Process, WaitingProduce};
use super::session::Purpose;
use super::storage::Job;
use crate::sim::ensemble::schedule::{MS, Time};

const PRODUCE_TIMEOUT_MS: u64 = 1_000;
const FETCH_WAIT_MS: u64 = 500;
/// Partitions in one AlterPartition are one here; the controller batches by itself.
const ONE: usize = 1;

impl Process {
    fn may_serve(&self, now: Time) -> bool {
        self.fence.may_serve(Millis::new(now / MS))
    }

    pub(super) fn produce(
        &mut self,
        (key, acks): (TopicPartition, i16),
        batch: Bytes,
        (to, number): (Address, u64),
        now: Time,
        out: &mut Outbox,
    ) {
        let permit = match self.replicas.get(&key) {
            Some(core) if self.may_serve(now) => core.admit_produce(acks),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        };
        match permit {
            Ok(permit) => {
                let epoch = permit.leader_epoch;
                self.submit(Job::Produce { key, epoch, acks, batch, to, number }, out);
            }
            Err(error) => answer_producer((to, number), acks, error, -1, out),
        }
    }

    /// The append thread did (or refused) a produce.
    pub(super) fn answer_produce(
        &mut self,
        (key, epoch, acks): (TopicPartition, LeaderEpoch, i16),
        produced: Result<(i64, i64, Option<Appended>), ErrorCode>,
        (to, number): (Address, u64),
        now: Time,
        out: &mut Outbox,
    ) {
        let (base_offset, needed, appended) = match produced {
            Ok(produced) => produced,
            Err(error) => return answer_producer((to, number), acks, error, -1, out),
        };
        if acks == -1 {
            // Whoever lost the lead since hears nothing of this high watermark any more.
            if self.replicas[&key].leading() == Some(epoch) {
                let request = self.next_number();
                let wait = ProduceWait { partition: key, needed: Offset::new(needed) };
                let deadline = Millis::new(now / MS).plus(PRODUCE_TIMEOUT_MS);
                self.produces.park(request, &[wait], deadline);
                let waiting = WaitingProduce { to, number, base_offset };
                self.produce_requests.insert(request, waiting);
            } else {
                answer_producer((to, number), acks, ErrorCode::NotLeaderOrFollower, -1, out);
            }
        } else {
            answer_producer((to, number), acks, ErrorCode::None, base_offset, out);
        }
        if let Some(appended) = appended {
            self.on_partition(key, now, out, |core, effects| {
                core.appended(&appended, Millis::new(now / MS), effects);
            });
        }
        let high_watermark = self.replicas[&key].high_watermark();
        self.high_watermark_moved(key, high_watermark, out);
    }

    pub(super) fn high_watermark_moved(
        &mut self,
        key: TopicPartition,
        high_watermark: Offset,
        out: &mut Outbox,
    ) {
        let settled = self.produces.high_watermark(key, high_watermark);
        self.settle(&settled, out);
    }

    pub(super) fn leadership_lost(&mut self, key: TopicPartition, now: Time, out: &mut Outbox) {
        let settled = self.produces.leadership_lost(key);
        self.settle(&settled, out);
        for request in self.fetches.wake(key) {
            self.serve_parked(request, now, out);
        }
    }

    pub(super) fn expire_parked(&mut self, now: Time, out: &mut Outbox) {
        let settled = self.produces.expire(Millis::new(now / MS));
        self.settle(&settled, out);
        for request in self.fetches.expire(Millis::new(now / MS)) {
            self.serve_parked(request, now, out);
        }
    }

    fn settle(&mut self, settled: &[Settled<TopicPartition>], out: &mut Outbox) {
        for settled in settled {
            let error = match settled.outcome {
                Outcome::Committed => ErrorCode::None,
                Outcome::LeadershipLost => ErrorCode::NotLeaderOrFollower,
                Outcome::TimedOut => ErrorCode::RequestTimedOut,
            };
            let waiting = self.produce_requests.remove(&settled.request).expect("parked");
            answer_producer((waiting.to, waiting.number), -1, error, waiting.base_offset, out);
        }
    }

    pub(super) fn consume(
        &mut self,
        key: TopicPartition,
        (offset, leader_epoch): (Offset, Option<LeaderEpoch>),
        (to, number): (Address, u64),
        now: Time,
        out: &mut Outbox,
    ) {
        let fetch = ConsumerFetch { fetch_offset: offset, leader_epoch, last_fetched_epoch: None };
        let readable = match self.replicas.get(&key) {
            Some(core) if self.may_serve(now) => {
                core.consumer_fetch(&fetch).map_err(|r| (r.error, r.log_start))
            }
            _ => Err((ErrorCode::NotLeaderOrFollower, Offset::ZERO)),
        };
        let consumed = match readable {
            Ok(readable) => {
                let bytes_max = self.settings.fetch_bytes_max;
                let records = self.directory.read(key, offset, readable.up_to, bytes_max);
                (ErrorCode::None, readable.log_start, records)
            }
            Err((error, log_start)) => (error, log_start, Bytes::new()),
        };
        let (error, log_start, records) = consumed;
        out.messages.push((to, Message::Consumed { number, error, log_start, records }));
    }

    /// A follower fetches: answers, or parks the fetch when there is nothing and it may wait.
    pub(super) fn follower_fetches(
        &mut self,
        from: BrokerId,
        mut request: FetchRequest,
        is_new: bool,
        now: Time,
        out: &mut Outbox,
    ) {
        if is_new {
            self.wake_older(from, &request, now, out);
        }
        let mut answers = Vec::new();
        let mut waits = Vec::new();
        for (key, fetch) in &request.items {
            let (answer, records) = self.follower_fetch(*key, fetch, now, out);
            let empty = answer.error == ErrorCode::None && answer.diverging.is_none();
            if empty && records.is_empty() {
                waits.push(FetchWait { partition: *key, above: fetch.fetch_offset });
            }
            answers.push((*key, answer, records));
        }
        if request.may_wait && waits.len() == request.items.len() {
            request.may_wait = false;
            let number = self.next_number();
            let deadline = Millis::new(now / MS).plus(FETCH_WAIT_MS);
            self.fetches.park(number, &waits, 1, deadline);
            self.fetch_requests.insert(number, (from, request));
        } else {
            let number = request.number;
            out.messages.push((Address::Broker(from), Message::Fetched { number, answers }));
        }
    }

    fn follower_fetch(
        &mut self,
        key: TopicPartition,
        fetch: &FollowerFetch,
        now: Time,
        out: &mut Outbox,
    ) -> (FetchAnswer, Bytes) {
        let mut answer = FetchAnswer {
            leader_epoch: fetch.leader_epoch,
            fetch_offset: fetch.fetch_offset,
            error: ErrorCode::NotLeaderOrFollower,
            diverging: None,
            high_watermark: None,
            log_start: None,
            has_records: false,
        };
        if !self.may_serve(now) || !self.replicas.contains_key(&key) {
            return (answer, Bytes::new());
        }
        let mut result = None;
        self.on_partition(key, now, out, |core, effects| {
            result = Some(core.follower_fetch(fetch, Millis::new(now / MS), effects));
        });
        match result.expect("there") {
            Ok(readable) => {
                let bytes_max = self.settings.fetch_bytes_max;
                let records = self.directory.read(key, readable.from, readable.up_to, bytes_max);
                answer.error = ErrorCode::None;
                answer.diverging = readable.diverging;
                answer.high_watermark = Some(readable.high_watermark);
                answer.log_start = Some(readable.log_start);
                answer.has_records = !records.is_empty();
                (answer, records)
            }
            Err(refused) => {
                answer.error = refused.error;
                answer.log_start = Some(refused.log_start);
                (answer, Bytes::new())
            }
        }
    }

    /// A newer fetch of the same follower completes the one that waits (D4).
    fn wake_older(&mut self, from: BrokerId, newer: &FetchRequest, now: Time, out: &mut Outbox) {
        let keys: BTreeSet<_> = newer.items.iter().map(|(key, _)| *key).collect();
        let overlaps = |r: &FetchRequest| r.items.iter().any(|(key, _)| keys.contains(key));
        let older: Vec<_> = self
            .fetch_requests
            .iter()
            .filter(|(_, (follower, request))| *follower == from && overlaps(request))
            .map(|(&number, _)| number)
            .collect();
        for number in older {
            self.fetches.forget(number);
            self.serve_parked(number, now, out);
        }
    }

    fn serve_parked(&mut self, number: u64, now: Time, out: &mut Outbox) {
        if let Some((from, request)) = self.fetch_requests.remove(&number) {
            self.follower_fetches(from, request, false, now, out);
        }
    }

    pub(super) fn end_moved(
        &mut self,
        key: TopicPartition,
        end_offset: Offset,
        now: Time,
        out: &mut Outbox,
    ) {
        for request in self.fetches.advanced(key, end_offset, 1) {
            self.serve_parked(request, now, out);
        }
    }

    /// Asks the controller for another ISR.
    pub(super) fn send_alter(&mut self, request: AlterRequest, out: &mut Outbox) {
        let (Some(controller), Some(broker_epoch)) = (self.image.controller(), self.epoch) else {
            return;
        };
        let item = AlterItem {
            partition: request.partition,
            leader_epoch: request.leader_epoch,
            partition_epoch: request.partition_epoch,
            isr: request.isr,
            recovering: false,
        };
        let alter = AlterPartitions { broker: self.id, broker_epoch, items: vec![item] };
        let (key, attempt) = (request.partition, request.attempt);
        let message = Message::Alter { key, attempt, request: alter };
        out.messages.push((Address::Broker(controller.broker), message));
    }

    pub(super) fn controller_alters(
        &mut self,
        asker: (BrokerId, TopicPartition, u64),
        request: AlterPartitions,
        now: Time,
        out: &mut Outbox,
    ) {
        assert_eq!(request.items.len(), ONE, "one partition at a time");
        let number = self.next_number();
        self.alters.insert(number, asker);
        let mut effects = Vec::new();
        self.controller.alter_partitions(number, request, &mut effects);
        self.do_controller(effects, now, out);
    }

    /// Answers once everything up to the own registration is known: before that an unknown partition means nothing.
    pub(super) fn describe(
        &mut self,
        from: Address,
        epoch: BrokerEpoch,
        partitions: &[TopicPartition],
        out: &mut Outbox,
    ) {
        if self.epoch != Some(epoch) || self.image.complete_to() < epoch.zxid() {
            return;
        }
        let reports = partitions
            .iter()
            .map(|&partition| {
                let report = self.replicas.get(&partition).map(|core| core.report());
                PartitionReport { partition, report }
            })
            .collect();
        out.messages.push((from, Message::Described { epoch, reports }));
    }

    pub(super) fn described(
        &mut self,
        from: BrokerId,
        epoch: BrokerEpoch,
        reports: &[PartitionReport],
        now: Time,
        out: &mut Outbox,
    ) {
        if let Some(asked) = self.describes.get_mut(&(from, epoch)) {
            for report in reports {
                asked.remove(&report.partition);
            }
        }
        let mut effects = Vec::new();
        self.controller.described(from, epoch, reports, &mut effects);
        self.do_controller(effects, now, out);
    }

    pub(super) fn describe_again(&mut self, out: &mut Outbox) {
        for (&(broker, epoch), partitions) in &self.describes {
            if !partitions.is_empty() {
                let partitions = partitions.iter().copied().collect();
                let message = Message::Describe { epoch, partitions };
                out.messages.push((Address::Broker(broker), message));
            }
        }
    }

    /// Does what the controller wants done.
    pub(super) fn do_controller(
        &mut self,
        effects: Vec<ControllerEffect>,
        now: Time,
        out: &mut Outbox,
    ) {
        for effect in effects {
            match effect {
                ControllerEffect::Write { id, ops } => {
                    let ops = ops.into_iter().map(StoreOp::Core).collect();
                    let request = CoordinatorRequest::Multi(ops);
                    self.ask(Purpose::Write(id), request, out);
                }
                ControllerEffect::Answer { request, answer } => {
                    self.answer_controller(request, &answer, now, out);
                }
                ControllerEffect::Describe { broker, epoch, partitions } => {
                    let asked = self.describes.entry((broker, epoch)).or_default();
                    asked.extend(partitions.iter().copied());
                    let message = Message::Describe { epoch, partitions };
                    out.messages.push((Address::Broker(broker), message));
                }
                ControllerEffect::Resign => self.describes.clear(),
            }
        }
    }

    fn answer_controller(&mut self, request: u64, answer: &Answer, _now: Time, out: &mut Outbox) {
        let Some((from, key, attempt)) = self.alters.remove(&request) else { return };
        let error = match answer {
            Answer::Altered(Ok(partitions)) => partitions[0].error,
            Answer::Altered(Err(error)) => *error,
            Answer::Created(_) | Answer::Deleted(_) | Answer::ShutDown(_) => return,
        };
        let message = Message::Altered { key, attempt, result: error.into_result() };
        out.messages.push((Address::Broker(from), message));
    }
}

fn answer_producer(
    (to, number): (Address, u64),
    acks: i16,
    error: ErrorCode,
    base_offset: i64,
    out: &mut Outbox,
) {
    if acks != 0 {
        out.messages.push((to, Message::Produced { number, error, base_offset }));
    }
}
