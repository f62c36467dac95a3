//! What a process answers: to producers, to leaders and as the controller.
//!
//! Called by: `process`, `storage`. Calls: the cores. Invariant: requests are answered from the core's decisions alone.

use broker::partitions::worker::{Job, ProduceJob};
use broker_core::controller::{
    AlterItem, AlterPartitions, Answer, Effect as ControllerEffect, PartitionReport,
};
use broker_core::ids::{BrokerEpoch, BrokerId, Millis, TopicPartition};
use broker_core::partition::AlterRequest;
use broker_log::BatchMeta;
use bytes::{Bytes, BytesMut};
use client_protocol::ErrorCode;

use super::message::{Address, CoordinatorRequest, Message, Outbox, StoreOp};
use super::process::Process;
use super::session::Purpose;
use super::storage::Produce;
use crate::sim::ensemble::schedule::{MS, Time};

const PRODUCE_TIMEOUT_MS: u64 = 1_000;
/// Partitions in one AlterPartition are one here; the controller batches by itself.
const ONE: usize = 1;

impl Process {
    pub(super) fn may_serve(&self, now: Time) -> bool {
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
        let permit = match self.hosted(key) {
            Some(hosted) if self.may_serve(now) => hosted.admit_produce(acks),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        };
        let produce = Produce { to, number, acks };
        match permit {
            Ok(permit) => {
                let job = ProduceJob {
                    leader_epoch: permit.leader_epoch,
                    acks,
                    deadline: Millis::new(now / MS).plus(PRODUCE_TIMEOUT_MS),
                    meta: BatchMeta::parse(&batch).expect("producers are sound"),
                    records: BytesMut::from(&batch[..]),
                    log_append_time_ms: None,
                    produce,
                };
                let of = self.of(key);
                self.submit(Job::Produce(of, job), out);
            }
            Err(error) => answer_producer(produce, error, -1, out),
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
        let report = |&partition: &TopicPartition| {
            let report = Some(self.replicas.get(&partition)?.report());
            Some(PartitionReport { partition, report })
        };
        // What is still being opened is not known yet, which is no answer: the controller asks again.
        let Some(reports) = partitions.iter().map(report).collect() else { return };
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
                ControllerEffect::UncleanElection { topic, partition, .. } => {
                    panic!("{topic}-{partition}: nobody allowed an unclean election");
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
            Answer::Created(_) | Answer::Grown(_) | Answer::Deleted(_) | Answer::ShutDown(_) => {
                return;
            }
        };
        let message = Message::Altered { key, attempt, result: error.into_result() };
        out.messages.push((Address::Broker(from), message));
    }
}

pub fn answer_producer(produce: Produce, error: ErrorCode, base_offset: i64, out: &mut Outbox) {
    if produce.acks != 0 {
        let message = Message::Produced { number: produce.number, error, base_offset };
        out.messages.push((produce.to, message));
    }
}
