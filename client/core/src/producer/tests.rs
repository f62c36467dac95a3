//! The producer against a model of a cluster: brokers that lose connections, answers and their lead.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use client_protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
use client_protocol::messages::{MetadataResponse, ProduceResponse};
use client_protocol::records::{BatchHeader, Record, RecordsIter};
use client_protocol::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId,
};

use super::*;
use crate::metadata::Leader;
use crate::model::{self, Random, TOPIC};

/// A batch as it lies in a log.
#[derive(Clone)]
struct Stored {
    identity: Option<client_protocol::records::Producer>,
    values: Vec<u64>,
}

impl Stored {
    fn of(outgoing: &Outgoing) -> Self {
        let header = outgoing.batch.header(outgoing.identity).unwrap();
        let header = BatchHeader::decode(&header).unwrap();
        let records = RecordsIter::new(&header, outgoing.batch.records());
        let value =
            |record: &[u8]| u64::from_be_bytes(record.try_into().expect("eight bytes a value"));
        let values = records.map(|record| value(record.unwrap().value.unwrap())).collect();
        Self { identity: outgoing.identity, values }
    }

    fn last_sequence(&self) -> Option<i32> {
        let identity = self.identity?;
        Some(identity.base_sequence + i32::try_from(self.values.len()).unwrap() - 1)
    }
}

struct Partition {
    leader: i32,
    epoch: i32,
    log: Vec<Stored>,
    /// Batches that no change of leaders can take away.
    committed: usize,
}

impl Partition {
    fn offset_of(&self, index: usize) -> i64 {
        self.log[..index].iter().map(|stored| i64::try_from(stored.values.len()).unwrap()).sum()
    }

    /// Where the batch stands now, or why it is refused.
    fn append(&mut self, stored: Stored) -> Result<usize, ErrorCode> {
        let Some(identity) = stored.identity else {
            self.log.push(stored);
            return Ok(self.log.len() - 1);
        };
        let of_producer = |s: &Stored| s.identity.is_some_and(|other| other.id == identity.id);
        let known: Vec<_> =
            (0..self.log.len()).rev().filter(|at| of_producer(&self.log[*at])).take(5).collect();
        if let Some(last) = known.first().map(|at| self.log[*at].clone()) {
            let epoch = last.identity.unwrap().epoch;
            if identity.epoch < epoch {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            let is_same = |at: &&usize| {
                let other = &self.log[**at];
                other.identity == Some(identity) && other.last_sequence() == stored.last_sequence()
            };
            if let Some(at) = known.iter().find(is_same) {
                return Ok(*at);
            }
            let expected =
                if identity.epoch > epoch { 0 } else { last.last_sequence().unwrap() + 1 };
            if identity.base_sequence != expected {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
        }
        self.log.push(stored);
        Ok(self.log.len() - 1)
    }
}

/// One request at a broker: what its answer says so far, and what that waits for.
struct Parked {
    connection: usize,
    request: RequestId,
    /// Partition, code, place in the log.
    results: Vec<(i32, Result<usize, ErrorCode>, i32)>,
}

struct Connection {
    broker: i32,
    is_open: bool,
    requests: VecDeque<(RequestId, Vec<Outgoing>)>,
    parked: VecDeque<Parked>,
    /// On the way back.
    answers: VecDeque<(RequestId, ProduceResponse)>,
}

struct World {
    random: Random,
    now_ms: u64,
    core: Producer<u64>,
    partitions: Vec<Partition>,
    connections: Vec<Connection>,
    /// Requests that the client waits for, by connection.
    outstanding: BTreeMap<RequestId, usize>,
    next_token: u64,
    /// What each batch holds: partition and values.
    batches: BTreeMap<u64, (i32, Vec<u64>)>,
    settled: BTreeMap<u64, Result<Written, Undelivered>>,
    next_value: u64,
    faults: bool,
    metadata: VecDeque<MetadataResponse>,
    next_producer_id: i64,
    deadline_ms: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings {
            batch_bytes_max: 150 + random.below(200),
            request_bytes_max: 400,
            buffer_bytes_max: 20_000,
            linger_ms: [0, 5, 20][random.below(3)],
            in_flight_max: 1 + random.below(5),
            delivery_timeout_ms: 500 + u64::try_from(random.below(4_000)).unwrap(),
            seed,
            ..Settings::default()
        };
        let partition = |leader| Partition { leader, epoch: 0, log: Vec::new(), committed: 0 };
        Self {
            random,
            now_ms: 0,
            core: Producer::new(settings),
            partitions: vec![partition(1), partition(2)],
            connections: Vec::new(),
            outstanding: BTreeMap::new(),
            next_token: 0,
            batches: BTreeMap::new(),
            settled: BTreeMap::new(),
            next_value: 0,
            faults: true,
            metadata: VecDeque::new(),
            next_producer_id: 7000,
            deadline_ms: 0,
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let of = |state: &Partition| (Some(state.leader), state.epoch);
        model::metadata(self.partitions.iter().map(of))
    }

    fn send(&mut self) {
        let partition = self.random.below(2);
        let partition = PartitionId::new(i32::try_from(partition).unwrap());
        let value = self.next_value;
        let record = Record {
            value: Some(Bytes::copy_from_slice(&value.to_be_bytes())),
            ..Record::default()
        };
        let token = self.next_token;
        let pushed = self.core.push((TOPIC, Some(partition)), &record, self.now_ms, |_| token);
        let Ok(ticket) = pushed else { return };
        if ticket.token == token {
            self.next_token += 1;
        }
        let batch = self.batches.entry(ticket.token).or_insert((partition.get(), Vec::new()));
        assert_eq!(usize::try_from(ticket.index).unwrap(), batch.1.len());
        assert_eq!(batch.0, partition.get());
        batch.1.push(value);
        self.next_value += 1;
    }

    fn poll(&mut self) {
        let mut effects = Vec::new();
        let next = self.core.poll(self.now_ms, &mut effects);
        self.deadline_ms = next.unwrap_or(self.now_ms + 1000);
        self.perform(effects);
        self.core.check();
    }

    fn perform(&mut self, effects: Vec<Effect<u64>>) {
        for effect in effects {
            match effect {
                Effect::Connect { broker, address } => {
                    assert_eq!(address, format!("h:{broker}"));
                    if self.faults && self.random.one_in(4) {
                        self.core.connect_failed(broker, self.now_ms);
                        continue;
                    }
                    self.connections.push(Connection {
                        broker: broker.get(),
                        is_open: true,
                        requests: VecDeque::new(),
                        parked: VecDeque::new(),
                        answers: VecDeque::new(),
                    });
                    self.core.connected(broker);
                }
                Effect::Disconnect(broker) => self.break_connections(broker.get()),
                Effect::Send { request, broker, batches } => {
                    let open = |c: &Connection| c.is_open && c.broker == broker.get();
                    match self.connections.iter().rposition(open) {
                        Some(at) => {
                            self.outstanding.insert(request, at);
                            self.connections[at].requests.push_back((request, batches));
                        }
                        None => self.fail(request, false),
                    }
                }
                Effect::AskMetadata(_) => {
                    let answer = self.metadata();
                    self.metadata.push_back(answer);
                }
                Effect::AskIdentity => {
                    let identity = (ProducerId::new(self.next_producer_id), ProducerEpoch::new(0));
                    self.next_producer_id += 1;
                    self.core.identified(Ok(Some(identity)), self.now_ms);
                }
                Effect::Settled { token, result } => {
                    assert!(self.settled.insert(token, result).is_none(), "settled twice");
                }
            }
        }
    }

    fn fail(&mut self, request: RequestId, may_be_done: bool) {
        let failure = Failure { reason: "lost".to_owned(), may_be_done, is_final: false };
        let mut effects = Vec::new();
        self.core.answered(request, Err(failure), self.now_ms, &mut effects);
        self.perform(effects);
    }

    fn break_connections(&mut self, broker: i32) {
        let broken: Vec<_> = (0..self.connections.len())
            .filter(|at| self.connections[*at].is_open && self.connections[*at].broker == broker)
            .collect();
        for at in broken {
            self.connections[at].is_open = false;
            let requests = self.outstanding.iter().filter(|(_, on)| **on == at);
            let requests: Vec<_> = requests.map(|(request, _)| *request).collect();
            for request in requests {
                self.outstanding.remove(&request);
                self.fail(request, true);
            }
        }
    }

    /// A broker takes the next request of one of its connections, also one that the client gave up long ago.
    fn process(&mut self) {
        let busy: Vec<_> = (0..self.connections.len())
            .filter(|at| !self.connections[*at].requests.is_empty())
            .collect();
        if busy.is_empty() {
            return;
        }
        let at = busy[self.random.below(busy.len())];
        let broker = self.connections[at].broker;
        let (request, batches) = self.connections[at].requests.pop_front().unwrap();
        let mut results = Vec::new();
        for outgoing in &batches {
            let index = outgoing.partition.partition.get();
            let state = &mut self.partitions[usize::try_from(index).unwrap()];
            let result = if state.leader != broker {
                Err(ErrorCode::NotLeaderOrFollower)
            } else if self.faults && self.random.one_in(if state.log.is_empty() { 3 } else { 40 }) {
                Err(ErrorCode::NotEnoughReplicas)
            } else if self.faults && self.random.one_in(60) {
                Err(ErrorCode::MessageTooLarge)
            } else {
                state.append(Stored::of(outgoing))
            };
            results.push((index, result, state.epoch));
        }
        self.connections[at].parked.push_back(Parked { connection: at, request, results });
    }

    /// Followers have it all: what waits for that is answered.
    fn commit(&mut self) {
        let partition = self.random.below(2);
        let state = &mut self.partitions[partition];
        state.committed = state.log.len();
        for at in 0..self.connections.len() {
            while let Some(parked) = self.connections[at].parked.front() {
                let is_done = |(index, result, epoch): &(i32, Result<usize, ErrorCode>, i32)| {
                    let state = &self.partitions[usize::try_from(*index).unwrap()];
                    match result {
                        Ok(at) => state.epoch != *epoch || *at < state.committed,
                        Err(_) => true,
                    }
                };
                if !parked.results.iter().all(is_done) {
                    break;
                }
                let parked = self.connections[at].parked.pop_front().unwrap();
                self.answer(parked);
            }
        }
    }

    fn answer(&mut self, parked: Parked) {
        let partition = |(index, result, epoch): (i32, Result<usize, ErrorCode>, i32)| {
            let state = &self.partitions[usize::try_from(index).unwrap()];
            let (error_code, base_offset) = match result {
                Ok(at) if state.epoch == epoch => {
                    (ErrorCode::None, Some(Offset::new(state.offset_of(at))))
                }
                // It led when it appended, and leads no more: nobody knows.
                Ok(_) => (ErrorCode::NotLeaderOrFollower, None),
                Err(code) => (code, None),
            };
            ProducePartitionResponse {
                index: PartitionId::new(index),
                error_code,
                base_offset,
                ..ProducePartitionResponse::default()
            }
        };
        let partitions: Vec<_> = parked.results.into_iter().map(partition).collect();
        let topics = vec![ProduceTopicResponse { name: TOPIC.to_owned(), partitions }];
        let response = ProduceResponse { topics, ..ProduceResponse::default() };
        self.connections[parked.connection].answers.push_back((parked.request, response));
    }

    fn deliver(&mut self) {
        let ready: Vec<_> = (0..self.connections.len())
            .filter(|at| !self.connections[*at].answers.is_empty())
            .collect();
        if ready.is_empty() {
            return;
        }
        let at = ready[self.random.below(ready.len())];
        let (request, response) = self.connections[at].answers.pop_front().unwrap();
        if self.outstanding.remove(&request).is_some() {
            let mut effects = Vec::new();
            self.core.answered(request, Ok(response), self.now_ms, &mut effects);
            self.perform(effects);
        }
    }

    /// Another broker leads, without some of what the former one had not got committed.
    fn elect(&mut self) {
        let partition = self.random.below(2);
        let leader = 1 + i32::try_from(self.random.below(3)).unwrap();
        let state = &mut self.partitions[partition];
        let uncommitted = state.log.len() - state.committed;
        let kept = state.committed + self.random.below(uncommitted + 1);
        state.log.truncate(kept);
        state.leader = leader;
        state.epoch += 1;
        let (leader, epoch) = (BrokerId::new(leader), LeaderEpoch::new(state.epoch));
        if self.random.one_in(2) {
            let leader = Leader { broker: Some(leader), epoch: Some(epoch) };
            let partition = TopicPartition::new(TOPIC, i32::try_from(partition).unwrap());
            let mut effects = Vec::new();
            self.core.route(&Route::Leader { partition, leader }, &mut effects);
            self.perform(effects);
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=5 if self.faults => self.send(),
            0..=5 => {}
            6..=9 => self.process(),
            10..=11 => self.commit(),
            12..=15 => self.deliver(),
            16 => {
                if let Some(answer) = self.metadata.pop_front() {
                    self.core.metadata_answered(Ok(answer), &[TOPIC.into()], self.now_ms);
                }
            }
            17 => self.now_ms = self.deadline_ms.max(self.now_ms),
            18 => self.now_ms += u64::try_from(self.random.below(10)).unwrap(),
            _ if !self.faults => {}
            _ => match self.random.below(6) {
                0 | 1 => self.elect(),
                2 => {
                    let broker = 1 + i32::try_from(self.random.below(3)).unwrap();
                    self.break_connections(broker);
                }
                3 => {
                    let broker = BrokerId::new(1 + i32::try_from(self.random.below(3)).unwrap());
                    let mut effects = Vec::new();
                    self.core.route(&Route::BrokerDown(broker), &mut effects);
                    self.perform(effects);
                }
                4 => self.now_ms += u64::try_from(self.random.below(600)).unwrap(),
                _ => {
                    // What lay in the sockets of a killed broker is gone.
                    let broker = 1 + i32::try_from(self.random.below(3)).unwrap();
                    self.break_connections(broker);
                    self.connections.iter_mut().filter(|c| c.broker == broker).for_each(|c| {
                        c.requests.clear();
                        c.parked.clear();
                    });
                }
            },
        }
        self.poll();
    }

    fn run(seed: u64) -> Self {
        let mut world = Self::new(seed);
        for _ in 0..2_000 {
            world.step();
        }
        world.faults = false;
        world.core.flush();
        let mut steps = 0;
        while world.settled.len() < world.batches.len() {
            world.step();
            steps += 1;
            assert!(steps < 200_000, "seed {seed}: batches stay unsettled");
        }
        // What still lies in old sockets is processed last of all.
        for _ in 0..2_000 {
            world.step();
        }
        for state in &mut world.partitions {
            state.committed = state.log.len();
        }
        world
    }

    fn judge(&self, seed: u64) -> usize {
        let mut written = 0;
        for (state, index) in self.partitions.iter().zip(0i32..) {
            let values: Vec<_> = state.log.iter().flat_map(|s| s.values.clone()).collect();
            let is_ordered = values.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(is_ordered, "seed {seed}: partition {index} holds {values:?}");
            for (token, (_, sent)) in self.batches.iter().filter(|(_, (p, _))| *p == index) {
                let found = values.iter().position(|value| *value == sent[0]);
                match &self.settled[token] {
                    Ok(result) => {
                        written += 1;
                        let at = found.unwrap_or_else(|| panic!("seed {seed}: {sent:?} is lost"));
                        assert_eq!(values[at..at + sent.len()], sent[..], "seed {seed}");
                        if let Some(offset) = result.base_offset {
                            assert_eq!(usize::try_from(offset.get()), Ok(at), "seed {seed}");
                        }
                    }
                    Err(undelivered) if undelivered.is_absent => {
                        assert_eq!(found, None, "seed {seed}: {sent:?} is there: {undelivered:?}");
                    }
                    Err(_) => {}
                }
            }
        }
        assert_eq!(self.core.buffered_bytes(), 0, "seed {seed}");
        written
    }
}

#[test]
fn acknowledged_records_are_there_once_and_in_order_whatever_fails() {
    let mut written = 0;
    let mut failed = 0;
    for seed in 0..150 {
        let world = World::run(seed);
        written += world.judge(seed);
        failed += world.settled.values().filter(|result| result.is_err()).count();
    }
    // The faults must not keep everything from happening, nor leave everything whole.
    assert!(written > 5_000, "{written} batches written");
    assert!(failed > 100, "{failed} batches failed");
}

fn record(bytes: usize) -> Record {
    Record { value: Some(Bytes::from(vec![b'x'; bytes])), ..Record::default() }
}

/// A producer that knows the topic and has an identity, with its broker connected.
fn ready(settings: Settings, partitions: i32) -> Producer<u64> {
    let mut core = Producer::new(settings);
    assert_eq!(core.push((TOPIC, None), &record(1), 0, |_| 0), Err(Refusal::TopicUnknown));
    let mut effects = Vec::new();
    core.poll(0, &mut effects);
    assert!(matches!(&effects[..], [Effect::AskMetadata(topics)] if **topics == [TOPIC.into()]));
    let answer = model::metadata((0..partitions).map(|_| (Some(1), 0)));
    core.metadata_answered(Ok(answer), &[model::topic()], 0);
    core.connected(BrokerId::new(1));
    core.identified(Ok(Some((ProducerId::new(1), ProducerEpoch::new(0)))), 0);
    core
}

fn sent(core: &mut Producer<u64>, now_ms: u64) -> Vec<Vec<(i32, i32, Option<i32>)>> {
    let mut effects = Vec::new();
    core.poll(now_ms, &mut effects);
    let batches = |batches: Vec<Outgoing>| {
        let one = |outgoing: Outgoing| {
            let sequence = outgoing.identity.map(|identity| identity.base_sequence);
            (outgoing.partition.partition.get(), outgoing.batch.count(), sequence)
        };
        batches.into_iter().map(one).collect()
    };
    effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send { batches: sent, .. } => Some(batches(sent)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_batch_waits_for_its_linger_and_a_full_one_does_not() {
    let settings = Settings { linger_ms: 10, batch_bytes_max: 300, ..Settings::default() };
    let mut core = ready(settings, 1);
    let partition = Some(PartitionId::new(0));
    let first = core.push((TOPIC, partition), &record(100), 5, |_| 1).unwrap();
    assert_eq!((first.index, first.is_news), (0, true));
    let second = core.push((TOPIC, partition), &record(100), 6, |_| 2).unwrap();
    assert_eq!((second.token, second.index, second.is_news), (1, 1, false));
    let mut effects = Vec::new();
    assert_eq!(core.poll(14, &mut effects), Some(15));
    assert!(effects.is_empty());
    core.push((TOPIC, partition), &record(100), 14, |_| 2).unwrap();
    assert_eq!(sent(&mut core, 14), [[(0, 2, Some(0))]]);
    // Not before the first batch is acknowledged, because the broker knows nothing of the producer yet.
    assert_eq!(sent(&mut core, 30), Vec::<Vec<_>>::new());
    core.check();
}

#[test]
fn the_buffer_has_a_limit_and_says_so() {
    let settings = Settings { buffer_bytes_max: 1000, linger_ms: 1000, ..Settings::default() };
    let mut core = ready(settings, 1);
    let partition = Some(PartitionId::new(0));
    let too_large = core.push((TOPIC, partition), &record(1000), 0, |_| 0);
    assert!(matches!(too_large, Err(Refusal::TooLarge { bytes_max: 1000, .. })));
    for _ in 0..3 {
        core.push((TOPIC, partition), &record(200), 0, |_| 0).unwrap();
    }
    core.push((TOPIC, partition), &record(200), 0, |_| 0).unwrap();
    assert_eq!(core.push((TOPIC, partition), &record(100), 0, |_| 0), Err(Refusal::NoRoom));
    assert_eq!(sent(&mut core, 0).len(), 1, "who wants room does not wait for the linger");
    let mut effects = Vec::new();
    core.answered(0, Ok(ProduceResponse::default()), 0, &mut effects);
    assert!(matches!(&effects[..], [Effect::Settled { result: Err(_), .. }]));
    core.push((TOPIC, partition), &record(100), 0, |_| 0).unwrap();
    core.check();
}

#[test]
fn records_without_a_key_fill_one_batch_at_a_time_and_reach_all_partitions() {
    let settings = Settings { batch_bytes_max: 400, ..Settings::default() };
    let mut core = ready(settings, 4);
    let mut counts = [0usize; 4];
    let mut changes = 0;
    let mut last = None;
    for _ in 0..300 {
        let ticket = core.push((TOPIC, None), &record(100), 0, |_| 0).unwrap();
        counts[usize::try_from(ticket.partition.get()).unwrap()] += 1;
        changes += usize::from(last != Some(ticket.partition));
        last = Some(ticket.partition);
        if ticket.is_news {
            core.poll(0, &mut Vec::new());
        }
    }
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    assert!(changes < 200, "{changes} changes of partition");
    let key = |key: &'static str| Record { key: Some(Bytes::from(key)), ..Record::default() };
    for name in ["21", "foobar", "abc"] {
        let ticket = core.push((TOPIC, None), &key(name), 0, |_| 0).unwrap();
        let expected = crate::partitioner::partition_for_key(name.as_bytes(), 4);
        assert_eq!(ticket.partition.get().unsigned_abs(), expected);
    }
    let nowhere = core.push((TOPIC, Some(PartitionId::new(4))), &record(1), 0, |_| 0);
    assert_eq!(nowhere, Err(Refusal::NoSuchPartition));
}

#[test]
fn a_topic_the_cluster_does_not_have_is_refused() {
    let mut core: Producer<u64> = Producer::new(Settings::default());
    let name: Arc<str> = "nope".into();
    assert_eq!(core.push(("nope", None), &record(1), 0, |_| 0), Err(Refusal::TopicUnknown));
    core.metadata_answered(Ok(MetadataResponse::default()), std::slice::from_ref(&name), 0);
    let code = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(core.push(("nope", None), &record(1), 0, |_| 0), Err(Refusal::TopicRefused(code)));
    core.ask_again("nope");
    assert_eq!(core.push(("nope", None), &record(1), 0, |_| 0), Err(Refusal::TopicUnknown));
}

#[test]
fn without_idempotence_nothing_has_a_number() {
    let settings = Settings { idempotent: false, linger_ms: 0, ..Settings::default() };
    let mut core = ready(settings, 1);
    core.push((TOPIC, None), &record(1), 0, |_| 0).unwrap();
    assert_eq!(sent(&mut core, 0), [[(0, 1, None)]]);
    let mut effects = Vec::new();
    let failure = Failure { reason: "lost".into(), may_be_done: true, is_final: false };
    core.answered(0, Err(failure), 0, &mut effects);
    assert!(effects.is_empty());
    core.connected(BrokerId::new(1));
    assert_eq!(sent(&mut core, 100), [[(0, 1, None)]], "it is sent again all the same");
}

#[test]
fn batches_that_wait_too_long_are_told_with_the_reason() {
    let mut core = ready(Settings { linger_ms: 0, ..Settings::default() }, 1);
    core.push((TOPIC, None), &record(1), 100, |_| 1).unwrap();
    sent(&mut core, 100);
    let told = |core: &Producer<u64>, now_ms| {
        let stands = core.standstills(now_ms, 5_000).into_iter();
        stands.map(|stand| (stand.since_ms, stand.reason)).collect::<Vec<_>>()
    };
    assert_eq!(told(&core, 5_100), []);
    let silent = "its leader does not answer".to_owned();
    assert_eq!(told(&core, 5_101), [(100, silent)]);
    core.connect_failed(BrokerId::new(1), 6_000);
    let unreached = "its leader, broker 1 at h:1, cannot be reached".to_owned();
    assert_eq!(told(&core, 6_000), [(100, unreached)]);
    core.metadata_answered(Ok(model::metadata([(None, 1)])), &[model::topic()], 6_100);
    let leaderless = "no broker leads it, or none says so".to_owned();
    assert_eq!(told(&core, 6_100), [(100, leaderless)]);
}
