//! What a process answers: to producers, to leaders and as the controller.
//!
//! Called by: `process`, `storage`. Calls: the cores. Invariant: requests are answered from the core's decisions alone.

use std::collections::BTreeSet;

use broker::partitions::worker::{Job, ProduceJob, sequenced};
use broker_core::controller::{
    AlterItem, AlterPartitions, Answer, Effect as ControllerEffect, PartitionReport,
};
use broker_core::hosted::Asked;
use broker_core::ids::{BrokerEpoch, BrokerId, Millis, PartitionId, TopicPartition};
use broker_core::partition::{AlterRequest, Durability};
use broker_core::store::{Ask, Op};
use broker_log::BatchMeta;
use bytes::{Bytes, BytesMut};
use client_protocol::ErrorCode;

use super::message::{Address, CoordinatorRequest, Message, Outbox};
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
        key: TopicPartition,
        batch: Bytes,
        produce: Produce,
        now: Time,
        out: &mut Outbox,
    ) {
        let acks = produce.acks;
        let meta = BatchMeta::parse(&batch).expect("producers are sound");
        let asked = Asked { acks, batch: sequenced(&meta), may_serve: self.may_serve(now) };
        let permit = match self.hosted_mut(key) {
            Some(hosted) => hosted.admit_produce(asked, Millis::new(now / MS)),
            None => Err(ErrorCode::NotLeaderOrFollower),
        };
        match permit {
            Ok(permit) => {
                out.serves = true;
                let job = ProduceJob {
                    leader_epoch: permit.leader_epoch,
                    acks,
                    deadline: Millis::new(now / MS).plus(PRODUCE_TIMEOUT_MS),
                    meta,
                    records: BytesMut::from(&batch[..]),
                    behind: permit.behind,
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
        let number = self.next_number();
        self.altering.insert(number, (key, attempt));
        let message = Message::Alter { number, request: alter };
        out.messages.push((Address::Broker(controller.broker), message));
    }

    pub(super) fn controller_alters(
        &mut self,
        asker: (BrokerId, u64),
        request: AlterPartitions,
        now: Time,
        out: &mut Outbox,
    ) {
        assert_eq!(request.items.len(), ONE, "one partition at a time");
        let number = self.next_number();
        self.alters.insert(number, asker);
        let mut effects = Vec::new();
        self.seat.controller_mut().alter_partitions(number, request, &mut effects);
        self.do_controller(effects, now, out);
    }

    /// Answers once everything up to the own registration is known: before that an unknown partition means nothing.
    pub(super) fn describe(
        &mut self,
        (from, number): (Address, u64),
        controller_epoch: i32,
        partitions: &[TopicPartition],
        out: &mut Outbox,
    ) {
        let Some(epoch) = self.epoch else { return };
        let known = self.image.controller_epoch().map(|(epoch, _)| epoch.get());
        let is_stale = known.is_some_and(|known| controller_epoch < known);
        if is_stale || self.image.complete_to() < epoch.zxid() {
            return;
        }
        let has_failed = self.directory.failed.is_some();
        let report = |&partition: &TopicPartition| {
            let report = match has_failed {
                true => None,
                false => Some(self.replicas.get(&partition)?.report()),
            };
            Some(PartitionReport { partition, report })
        };
        // What is still being opened is not known yet, which is no answer: the controller asks again.
        let Some(reports) = partitions.iter().map(report).collect() else { return };
        out.messages.push((from, Message::Described { number, epoch, reports }));
    }

    pub(super) fn described(
        &mut self,
        from: BrokerId,
        epoch: BrokerEpoch,
        reports: &[PartitionReport],
        now: Time,
        out: &mut Outbox,
    ) {
        // Another life of the broker has answered, if it is not in there.
        let Some(asked) = self.describes.get_mut(&(from, epoch)) else { return };
        for report in reports {
            asked.remove(&report.partition);
        }
        let mut effects = Vec::new();
        self.seat.controller_mut().described(from, epoch, reports, &mut effects);
        self.do_controller(effects, now, out);
    }

    pub(super) fn describe_again(&mut self, out: &mut Outbox) {
        // What is gone meanwhile is not asked about any more.
        for partitions in self.describes.values_mut() {
            partitions.retain(|&partition| self.image.partition(partition).is_some());
        }
        let open = |(&(broker, _), partitions): (&(BrokerId, _), &BTreeSet<TopicPartition>)| {
            let partitions: Vec<_> = partitions.iter().copied().collect();
            (!partitions.is_empty()).then_some((broker, partitions))
        };
        let open: Vec<_> = self.describes.iter().filter_map(open).collect();
        for (broker, partitions) in open {
            self.ask_description(broker, partitions, out);
        }
    }

    fn ask_description(
        &mut self,
        broker: BrokerId,
        partitions: Vec<TopicPartition>,
        out: &mut Outbox,
    ) {
        let number = self.next_number();
        let controller_epoch = self.image.controller_epoch().map_or(-1, |(epoch, _)| epoch.get());
        let message = Message::Describe { number, controller_epoch, partitions };
        out.messages.push((Address::Broker(broker), message));
    }

    /// Does what the controller wants done.
    pub(super) fn do_controller(
        &mut self,
        effects: Vec<ControllerEffect>,
        now: Time,
        out: &mut Outbox,
    ) {
        for effect in effects {
            out.decided.push(name_of(&effect));
            match effect {
                ControllerEffect::Write { id, ops } => {
                    let request = CoordinatorRequest::Multi(ops);
                    self.ask(Purpose::Write(id), request, out);
                }
                ControllerEffect::Answer { request, answer } => {
                    self.answer_controller(request, &answer, now, out);
                }
                ControllerEffect::Describe { broker, epoch, partitions } => {
                    let asked = self.describes.entry((broker, epoch)).or_default();
                    asked.extend(partitions.iter().copied());
                    self.ask_description(broker, partitions, out);
                }
                ControllerEffect::UncleanElection { topic, partition, leader, report, .. } => {
                    self.check_unclean(&topic, partition);
                    let key = self.key_of(&topic, partition);
                    let elected = leader.map(|leader| (leader, report.end_offset));
                    out.unclean.extend(key.zip(elected));
                }
                ControllerEffect::Ask(ask) => {
                    let purpose = Purpose::Stand { writes: matches!(ask, Ask::Write(_)) };
                    self.ask(purpose, ask.into(), out);
                }
                ControllerEffect::Won(_) => {}
                ControllerEffect::Resign => self.describes.clear(),
                ControllerEffect::EpochMissing => unreachable!("it is founded with the layout"),
            }
        }
    }

    /// A topic allows an unclean election, or it lives in memory and all who were in sync are back (D6).
    fn check_unclean(&self, topic: &str, partition: PartitionId) {
        if self.settings.unclean {
            return;
        }
        let in_memory = self.settings.durability == Durability::Memory;
        assert!(in_memory, "{topic}-{partition}: nobody allowed an unclean election");
        let stored = self.image.state(topic, partition).expect("it is about one that is known");
        for &id in &stored.state.isr {
            let is_back = self.image.broker(id).is_some();
            assert!(is_back, "{topic}-{partition}: an unclean election did not wait for {id}");
        }
    }

    fn answer_controller(&mut self, request: u64, answer: &Answer, _now: Time, out: &mut Outbox) {
        let Some((from, number)) = self.alters.remove(&request) else { return };
        let (key, error) = match answer {
            Answer::Altered(Ok(partitions)) => (partitions[0].partition, partitions[0].error),
            Answer::Altered(Err(error)) => (TopicPartition::default(), *error),
            Answer::Created(_)
            | Answer::Grown(_)
            | Answer::Deleted(_)
            | Answer::Elected(_)
            | Answer::ShutDown(_) => {
                return;
            }
        };
        let message = Message::Altered { number, key, result: error.into_result() };
        out.messages.push((Address::Broker(from), message));
    }
}

/// A topic that this process has not heard of, or not any more.
pub fn unknown_topic(produce: Produce, out: &mut Outbox) {
    answer_producer(produce, ErrorCode::UnknownTopicOrPartition, -1, out);
}

pub fn answer_producer(produce: Produce, error: ErrorCode, base_offset: i64, out: &mut Outbox) {
    if produce.acks != 0 {
        let message = Message::Produced { number: produce.number, error, base_offset };
        out.messages.push((produce.to, message));
    }
}

fn name_of(effect: &ControllerEffect) -> &'static str {
    match effect {
        ControllerEffect::Write { .. } => "controller Write",
        ControllerEffect::Answer { .. } => "controller Answer",
        ControllerEffect::Describe { .. } => "controller Describe",
        ControllerEffect::UncleanElection { .. } => "controller UncleanElection",
        ControllerEffect::Ask(Ask::Read(_)) => "controller Read",
        ControllerEffect::Ask(Ask::Write(ops)) => match ops.as_slice() {
            [Op::CreateEphemeral { .. }, ..] => "controller Stand",
            _ => "controller GiveUp",
        },
        ControllerEffect::Won(_) => "controller Won",
        ControllerEffect::Resign => "controller Resign",
        ControllerEffect::EpochMissing => "controller EpochMissing",
    }
}
