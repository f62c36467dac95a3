//! Producers and consumers in the world.
//!
//! Called by: `world`. Calls: `client`, the ledger. Invariant: a client learns who leads from some broker's image, right or stale; a producer never
//! goes back to an older epoch.

use broker_core::ids::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use client_protocol::ErrorCode;

use super::client::{Learnt, PRODUCE_TIMEOUT};
use super::ledger::{Acknowledged, end_of, entries};
use super::message::{Address, ConsumeAnswer, ConsumeRequest, Message};
use super::world::{Event, TOPIC, World};
use crate::sim::ensemble::schedule::MS;

/// What a consumer takes at once when everything is mended, so that it ends with what it has left.
const CATCH_UP_BYTES: u32 = 64 << 10;

impl World {
    /// The leader as some broker's image says.
    pub(super) fn leader_by_someone(
        &mut self,
        key: TopicPartition,
    ) -> Option<(BrokerId, LeaderEpoch)> {
        let images: Vec<_> =
            self.machines.values().filter_map(|m| m.process.as_ref()).map(|p| &p.image).collect();
        let some = self.clients.below(images.len() as u64) as usize;
        let image = images.get(some)?;
        let leader = image.leader(TOPIC, key.partition)?.id;
        Some((leader, image.state(TOPIC, key.partition)?.state.leader_epoch))
    }

    /// A number by which a client knows its request again.
    fn correlation(&mut self) -> u64 {
        self.clients.number() >> 34
    }

    /// A producer's connection is gone: it sends again at once.
    pub(super) fn producer_is_cut(&mut self, index: usize) {
        if let Some(in_flight) = &mut self.producers[index].in_flight {
            in_flight.deadline = 0;
        }
    }

    pub(super) fn produce(&mut self, index: usize) {
        let next = (2 * MS + self.clients.below(60 * MS)) * self.settings.pace;
        self.schedule.after(next, Event::Produce(index));
        let now = self.schedule.now();
        let producer = &mut self.producers[index];
        if producer.in_flight.as_ref().is_some_and(|in_flight| in_flight.deadline > now) {
            return;
        }
        if producer.in_flight.is_none() {
            if self.calm && producer.after_healing == 0 {
                return;
            }
            producer.after_healing -= u32::from(self.calm);
            producer.make_batch(now, &mut self.clients);
            let values = &producer.in_flight.as_ref().expect("made").values;
            self.ledger.sent(producer.key, values, producer.idempotent);
        }
        let (key, acks) = (producer.key, producer.acks);
        let Some((leader, epoch)) = self.leader_by_someone(key) else { return };
        // Clients do not go back to an older epoch: a deposed leader would find a gap where its successor's records are.
        let producer = &mut self.producers[index];
        if epoch < producer.leader_epoch {
            return;
        }
        producer.leader_epoch = epoch;
        let number = self.correlation();
        let in_flight = self.producers[index].in_flight.as_mut().expect("there");
        in_flight.number = number;
        in_flight.deadline = now + PRODUCE_TIMEOUT;
        let batch = in_flight.batch.clone();
        if acks == 0
            && let Some(sent) = self.producers[index].in_flight.take()
        {
            self.chronicle.hoped(key, &sent.values, (sent.began, now));
        }
        let (topic, key) = (TOPIC.to_owned(), key.partition);
        let message = Message::Produce { number, topic, key, acks, batch };
        self.send(Address::Producer(index), Address::Broker(leader), message);
    }

    pub(super) fn produced(
        &mut self,
        index: usize,
        from: BrokerId,
        (number, error, base_offset): (u64, ErrorCode, i64),
    ) {
        let producer = &mut self.producers[index];
        let (key, acks) = (producer.key, producer.acks);
        let learnt = producer.answered(number, error, base_offset);
        if learnt == Learnt::Forgotten {
            assert!(self.ledger.is_unclean(key), "{key:?}: producer {index} is told {error:?}");
            self.producers[index].begin_anew();
        }
        let Learnt::Acknowledged(base_offset, values, began) = learnt else { return };
        let time = (began, self.schedule.now());
        if acks == -1 {
            self.chronicle.acknowledged(index, (key, base_offset), &values, time);
            let suspect = self.machines[&from].suspect;
            self.ledger.acknowledged(Acknowledged { key, base_offset, values }, suspect);
        } else {
            self.chronicle.hoped(key, &values, time);
        }
    }

    pub(super) fn consume(&mut self, index: usize) {
        // Whoever took a batch at a time has to hurry when all else is at rest.
        let pause = if self.calm { 5 * MS } else { 50 * MS };
        let pace = if self.calm { 1 } else { self.settings.pace };
        let next = (5 * MS + self.clients.below(pause)) * pace;
        self.schedule.after(next, Event::Consume(index));
        let (key, offset) = (self.consumers[index].key, self.consumers[index].position);
        let Some((leader, _)) = self.leader_by_someone(key) else { return };
        let number = self.correlation();
        self.consumers[index].number = number;
        let request = ConsumeRequest {
            number,
            topic: TOPIC.to_owned(),
            partition: key.partition,
            offset,
            leader_epoch: None,
            bytes_max: if self.calm { CATCH_UP_BYTES } else { self.settings.fetch_bytes_max },
        };
        let message = Message::Consume(request);
        self.send(Address::Consumer(index), Address::Broker(leader), message);
    }

    pub(super) fn consumed(&mut self, index: usize, answer: &ConsumeAnswer, from: BrokerId) {
        let ConsumeAnswer { number, error, log_start, ref records, .. } = *answer;
        let consumer = &mut self.consumers[index];
        if consumer.number != number {
            return;
        }
        if error == ErrorCode::KafkaStorageError && self.machines[&from].suspect {
            return self.complain(from, "told so itself");
        }
        if error == ErrorCode::OffsetOutOfRange && log_start > consumer.position {
            let from = std::mem::replace(&mut consumer.position, log_start);
            self.chronicle.assigned(index);
            self.chronicle.removed_unread(consumer.key, (from, log_start));
        }
        if error == ErrorCode::OffsetOutOfRange
            && log_start <= consumer.position
            && self.ledger.is_unclean(consumer.key)
        {
            // What it had read is not there any more.
            consumer.position = log_start;
            self.chronicle.assigned(index);
        }
        let (key, position) = (consumer.key, consumer.position.get());
        let mut seen = match entries(records) {
            Ok(seen) => seen,
            Err(error) => return self.complain(from, &error.to_string()),
        };
        seen.retain(|&(offset, ..)| offset >= position);
        if let Some(first) = seen.first().filter(|_| self.settings.compaction.is_none()) {
            assert_eq!(first.0, position, "{key:?}: a consumer skipped records");
        }
        let end = end_of(records).filter(|end| *end > position);
        if let Some(end) = end {
            consumer.position = Offset::new(end);
        }
        let now = self.schedule.now();
        self.ledger.consumed(key, &seen, (self.machines[&from].suspect, now));
        let mut gaps = Vec::new();
        if let Some(end) = end.filter(|_| !self.ledger.is_unclean(key)) {
            let who = format!("consumer {index} at {from}");
            gaps = self.ledger.missing(key, (position, end), &seen, (now, &who));
        }
        self.chronicle.consumed(index, key, (&seen, &gaps), now);
    }
}
