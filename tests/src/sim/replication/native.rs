//! A producer that is the native client's own deciding code, on connections that keep order.
//!
//! Called by: `world`, `wires`. Calls: client-core. Invariant: what the core wants is done, and what comes of it is told to it, as its shell does. It
//! does not know sequence numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::ids::{BrokerId, Offset, PartitionId};
use bytes::Bytes;
use client_core::TopicPartition;
use client_core::producer::{
    Effect, Failure, Outgoing, Producer, RequestId, Settings, Undelivered, Written,
};
use client_protocol::messages::ProduceResponse;
use client_protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
use client_protocol::{ProducerEpoch, ProducerId};

use super::client::record;
use super::ledger::Acknowledged;
use super::lines::Lines;
use super::message::{Address, Message};
use super::settings::NativeSettings;
use super::wire::Frame;
use super::world::{Event, TOPIC, World, key};
use crate::sim::ensemble::schedule::{MS, Time};

/// Its number among the producers.
const INDEX: u64 = 500;
/// The first id that it is given.
const IDS: i64 = 10_000;

/// Something that happens to it.
#[derive(Debug)]
pub enum NativeEvent {
    /// It looks at its clock, and wants to send.
    Tick,
    Connected(BrokerId),
    Metadata(Vec<Arc<str>>),
    Identity,
    /// A request reaches the process that its connection was made to.
    Arrives {
        id: BrokerId,
        life: u64,
        frame: Frame,
    },
    Answered(Frame),
}

/// A batch that is not settled.
#[derive(Debug)]
pub struct Batch {
    pub partition: PartitionId,
    pub values: Vec<u64>,
    pub began: Time,
}

/// What a request is about.
#[derive(Debug)]
struct Sent {
    request: RequestId,
    partition: TopicPartition,
}

/// See the module.
pub struct Native {
    core: Producer<u64>,
    pub batches: BTreeMap<u64, Batch>,
    lines: Lines<BrokerId, Sent>,
    last_token: u64,
    last_value: u64,
    last_id: i64,
    is_keyed: bool,
}

fn failure(reason: &str, may_be_done: bool) -> Failure {
    Failure { reason: reason.to_owned(), may_be_done, is_final: false }
}

impl Native {
    pub fn new(settings: &NativeSettings, is_keyed: bool, seed: u64) -> Self {
        let settings = Settings {
            // One batch in a request, and several requests under way.
            request_bytes_max: 1,
            batch_bytes_max: 400,
            linger_ms: settings.linger_ms,
            delivery_timeout_ms: settings.delivery_timeout_ms,
            ..Settings::default()
        };
        Self {
            core: Producer::new(settings),
            batches: BTreeMap::new(),
            lines: Lines::new(seed),
            last_token: 0,
            last_value: INDEX << 32,
            last_id: IDS,
            is_keyed,
        }
    }

    /// The connection to a broker is no more: nothing that is open on it will be answered.
    fn break_link(&mut self, broker: BrokerId, now: Time, effects: &mut Vec<Effect<u64>>) {
        for sent in self.lines.broke(broker) {
            let answer = Err(failure("the connection broke", true));
            self.core.answered(sent.request, answer, now / MS, effects);
        }
    }

    /// Wants some values sent to a partition; those that it took.
    fn push(&mut self, partition: PartitionId, now: Time) -> Vec<u64> {
        let mut taken = Vec::new();
        for _ in 0..=self.lines.random.below(3) {
            let value = self.last_value + 1;
            let new = self.last_token + 1;
            let to = (TOPIC, Some(partition));
            let pushed = self.core.push(to, &record(value, self.is_keyed), now / MS, |_| new);
            let Ok(ticket) = pushed else { break };
            self.last_value = value;
            self.last_token = self.last_token.max(ticket.token);
            let batch = Batch { partition, values: Vec::new(), began: now };
            self.batches.entry(ticket.token).or_insert(batch).values.push(value);
            taken.push(value);
        }
        taken
    }

    fn answered(&mut self, frame: &Frame, now: Time, effects: &mut Vec<Effect<u64>>) {
        let Message::Produced { number, error, base_offset } = frame.decode() else {
            unreachable!("nothing else is asked")
        };
        let Some(sent) = self.lines.answered(number).map(|open| open.question) else { return };
        let partition = ProducePartitionResponse {
            index: sent.partition.partition,
            error_code: error,
            base_offset: error.is_none().then_some(Offset::new(base_offset)),
            ..Default::default()
        };
        let name = sent.partition.topic.to_string();
        let topics = vec![ProduceTopicResponse { name, partitions: vec![partition] }];
        let answer = ProduceResponse { topics, ..Default::default() };
        self.core.answered(sent.request, Ok(answer), now / MS, effects);
    }
}

impl World {
    /// Something happens to the native producer: it decides, and what it wants is done.
    pub(super) fn native_event(&mut self, event: NativeEvent) {
        if let NativeEvent::Arrives { id, life, frame } = event {
            let message = frame.decode();
            self.trace.say(self.schedule.now(), || format!("  {message:?}"));
            return self.step(id, life, |process, now, out| {
                process.receive(Address::Native, message, now, out);
            });
        }
        let Some(mut native) = self.native.take() else { return };
        let now = self.schedule.now();
        let mut effects = Vec::new();
        match event {
            NativeEvent::Tick => self.native_ticks(&mut native, &mut effects),
            NativeEvent::Connected(broker) => self.native_connects(&mut native, broker),
            NativeEvent::Metadata(topics) => {
                let answer =
                    self.metadata(&mut native.lines.random).ok_or(failure("nobody", false));
                native.core.metadata_answered(answer, &topics, now / MS);
            }
            NativeEvent::Identity => {
                native.last_id += 1;
                let identity = (ProducerId::new(native.last_id), ProducerEpoch::new(0));
                native.core.identified(Ok(Some(identity)), now / MS);
            }
            NativeEvent::Answered(frame) => {
                self.trace.say(now, || format!("  {:?}", frame.decode()));
                native.answered(&frame, now, &mut effects);
            }
            NativeEvent::Arrives { .. } => {}
        }
        native.core.poll(now / MS, &mut effects);
        while !effects.is_empty() {
            let mut more = Vec::new();
            effects.drain(..).for_each(|effect| self.native_wants(&mut native, effect, &mut more));
            effects = more;
        }
        native.core.check();
        self.native = Some(native);
    }

    fn native_ticks(&mut self, native: &mut Native, effects: &mut Vec<Effect<u64>>) {
        let now = self.schedule.now();
        let next = 2 * MS + native.lines.random.below(20 * MS);
        self.schedule.after(next, Event::Native(NativeEvent::Tick));
        let over = native.lines.over(self, |id| *id);
        over.into_iter().for_each(|id| native.break_link(id, now, effects));
        if self.calm || native.lines.random.chance(1, 2) {
            return;
        }
        let partitions = self.settings.partitions.unsigned_abs().into();
        let partition = i32::try_from(native.lines.random.below(partitions)).expect("few");
        let taken = native.push(PartitionId::new(partition), now);
        self.ledger.sent(key(partition), &taken, true);
    }

    fn native_connects(&mut self, native: &mut Native, broker: BrokerId) {
        let now = self.schedule.now();
        let machine = &self.machines[&broker];
        if machine.process.is_none() {
            return native.core.connect_failed(broker, now / MS);
        }
        native.lines.opened(broker, machine.life, now);
        native.core.connected(broker);
    }

    fn native_wants(
        &mut self,
        native: &mut Native,
        effect: Effect<u64>,
        more: &mut Vec<Effect<u64>>,
    ) {
        let now = self.schedule.now();
        let delay = native.lines.delay();
        match effect {
            Effect::Connect { broker, .. } => {
                self.schedule.after(delay, Event::Native(NativeEvent::Connected(broker)));
            }
            Effect::Disconnect(broker) => native.break_link(broker, now, more),
            Effect::Send { request, broker, batches } => {
                let [outgoing] = batches.as_slice() else { unreachable!("one in a request") };
                self.native_sends(native, (request, broker), outgoing, more);
            }
            Effect::AskMetadata(topics) => {
                self.schedule.after(delay, Event::Native(NativeEvent::Metadata(topics)));
            }
            Effect::AskIdentity => {
                self.schedule.after(delay, Event::Native(NativeEvent::Identity));
            }
            Effect::Settled { token, result } => {
                let batch = native.batches.remove(&token).expect("settled once");
                self.native_settled(&batch, result);
            }
        }
    }

    fn native_sends(
        &mut self,
        native: &mut Native,
        (request, broker): (RequestId, BrokerId),
        outgoing: &Outgoing,
        more: &mut Vec<Effect<u64>>,
    ) {
        let now = self.schedule.now();
        let delay = native.lines.delay();
        if !native.lines.is_open(broker) {
            let answer = Err(failure("not connected", false));
            return native.core.answered(request, answer, now / MS, more);
        }
        let header = outgoing.batch.header(outgoing.identity).expect("small");
        let batch = Bytes::from([&header[..], outgoing.batch.records()].concat());
        let number = native.lines.next_number();
        let (topic, key) = (TOPIC.to_owned(), outgoing.partition.partition);
        let frame = Frame::encode(Message::Produce { number, topic, key, acks: -1, batch });
        self.trace.take(frame.bytes());
        let sent = Sent { request, partition: outgoing.partition.clone() };
        let sending = native.lines.ask(broker, (number, sent), (now, delay));
        let breaks = !self.calm && native.lines.random.chance(1, 150);
        if !breaks || native.lines.random.chance(1, 2) {
            let arrives = NativeEvent::Arrives { id: broker, life: sending.life, frame };
            self.schedule.at(sending.there, Event::Native(arrives));
        }
        if breaks {
            native.break_link(broker, now, more);
        }
    }

    /// A broker answers on the connection, if it is still there.
    pub(super) fn native_is_answered(&mut self, from: BrokerId, message: Message) {
        let now = self.schedule.now();
        let Some(native) = &mut self.native else { return };
        let delay = native.lines.delay();
        let Some(back) = native.lines.answer(from, (now, delay)) else { return };
        let frame = Frame::encode(message);
        self.trace.take(frame.bytes());
        let answered = NativeEvent::Answered(frame);
        self.schedule.at(back, Event::Native(answered));
    }

    fn native_settled(&mut self, batch: &Batch, result: Result<Written, Undelivered>) {
        let (key, time) = (key(batch.partition.get()), (batch.began, self.schedule.now()));
        match result {
            Ok(Written { base_offset: Some(base_offset) }) => {
                let (base_offset, values) = (base_offset.get(), batch.values.clone());
                self.chronicle.acknowledged_alone((key, base_offset), &values, time);
                let suspect = self.machines.values().any(|machine| machine.suspect);
                self.ledger.acknowledged(Acknowledged { key, base_offset, values }, suspect);
            }
            Err(Undelivered { is_absent: true, .. }) => {
                self.chronicle.refused(key, &batch.values, time);
            }
            Ok(Written { base_offset: None }) | Err(_) => {
                self.chronicle.hoped(key, &batch.values, time);
            }
        }
    }
}
