//! The consumer against a model of a cluster: leaders that move, answers that are lost or late, logs that are cut.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use client_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use client_protocol::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use client_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderPartitionResult, OffsetForLeaderTopicResult,
};
use client_protocol::messages::{FetchResponse, ListOffsetsResponse, OffsetForLeaderEpochResponse};
use client_protocol::records::{BatchBuilder, Record, assign_offsets};
use client_protocol::{PartitionId, Records};

use super::*;
use crate::metadata::Leader;
use crate::model::{self, Random, TOPIC};

const PARTITIONS: usize = 2;

/// One partition: the epoch of each record, by offset. The value of a record is its offset and a mark of its epoch.
struct Log {
    epochs: Vec<i32>,
    committed: usize,
    /// Where it starts: what lies below was removed.
    start: usize,
    leader: i32,
    epoch: i32,
}

enum Question {
    Fetch(FetchRequest),
    Offsets(ListOffsetsRequest),
    Epochs(OffsetForLeaderEpochRequest),
}

struct World {
    random: Random,
    now_ms: u64,
    core: Consumer,
    logs: Vec<Log>,
    /// Requests under way, and the broker that was asked.
    asked: VecDeque<(RequestId, i32, Question)>,
    metadata: VecDeque<MetadataResponse>,
    /// What the caller was given, by partition: offset and epoch.
    given: BTreeMap<i32, Vec<(i64, i32)>>,
    deadline_ms: u64,
    faults: bool,
    /// Taken without the caller, in all: a bound for what waits for something that does not come.
    steps: u64,
}

fn partition(index: usize) -> TopicPartition {
    TopicPartition::new(TOPIC, i32::try_from(index).unwrap())
}

/// Batches of one to three records of one epoch each, from the one that holds `from` on, at most three batches.
fn batches(log: &Log, from: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from - from % 3;
    for _ in 0..3 {
        let size = log.epochs.get(at..log.committed).unwrap_or_default().iter();
        let epoch = log.epochs.get(at).copied().unwrap_or_default();
        let size = size.take(3 - at % 3).take_while(|of| **of == epoch).count();
        if size == 0 {
            break;
        }
        let mut builder = BatchBuilder::new(1 << 20);
        for offset in at..at + size {
            let value = Bytes::from(format!("{offset} {epoch}"));
            assert!(builder.push(&Record { value: Some(value), ..Record::default() }));
        }
        let mut batch = builder.build(None).unwrap().to_vec();
        let base = Offset::new(i64::try_from(at).unwrap());
        assign_offsets(&mut batch, base, LeaderEpoch::new(epoch)).unwrap();
        bytes.extend_from_slice(&batch);
        at += size;
    }
    bytes
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            reset: Reset::Earliest,
            partition_bytes_max: 400,
            buffer_bytes_max: 700,
            ..Settings::default()
        };
        let log = |leader| Log { epochs: Vec::new(), committed: 0, start: 0, leader, epoch: 0 };
        let mut core = Consumer::new(settings);
        (0..PARTITIONS).for_each(|index| core.seek(&partition(index), Start::Earliest));
        Self {
            random: Random::new(seed),
            now_ms: 0,
            core,
            logs: vec![log(1), log(2)],
            asked: VecDeque::new(),
            metadata: VecDeque::new(),
            given: BTreeMap::new(),
            deadline_ms: 0,
            faults: true,
            steps: 0,
        }
    }

    fn metadata(&self) -> MetadataResponse {
        model::metadata(self.logs.iter().map(|log| (Some(log.leader), log.epoch)))
    }

    fn poll(&mut self) {
        let mut effects = Vec::new();
        let next = self.core.poll(self.now_ms, &mut effects);
        self.deadline_ms = next.unwrap_or(self.now_ms + 1000);
        self.perform(effects);
        self.core.check();
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect { broker, slot, .. } => {
                    if self.faults && self.random.one_in(5) {
                        self.core.connect_failed(broker, slot, self.now_ms);
                    } else {
                        self.core.connected(broker, slot);
                    }
                }
                Effect::Disconnect(broker) => self.fail_all(broker.get()),
                Effect::Fetch { request, to, body } => {
                    self.asked.push_back((request, to.0.get(), Question::Fetch(body)));
                }
                Effect::ListOffsets { request, broker, body } => {
                    self.asked.push_back((request, broker.get(), Question::Offsets(body)));
                }
                Effect::CheckEpochs { request, broker, body } => {
                    self.asked.push_back((request, broker.get(), Question::Epochs(body)));
                }
                Effect::AskMetadata(_) => {
                    let answer = self.metadata();
                    self.metadata.push_back(answer);
                }
            }
        }
    }

    fn fail_all(&mut self, broker: i32) {
        let (failed, left) =
            std::mem::take(&mut self.asked).into_iter().partition(|(_, of, _)| *of == broker);
        self.asked = left;
        let failed: VecDeque<_> = failed;
        failed.into_iter().for_each(|(request, _, question)| self.fail(request, &question));
    }

    fn fail(&mut self, request: RequestId, question: &Question) {
        let failure = Failure { reason: "lost".to_owned(), may_be_done: true, is_final: false };
        match question {
            Question::Fetch(_) => self.core.fetched(request, Err(failure), self.now_ms),
            Question::Offsets(_) => self.core.offsets_answered(request, Err(failure), self.now_ms),
            Question::Epochs(_) => self.core.epochs_answered(request, Err(failure), self.now_ms),
        }
    }

    /// Whether a broker may answer for a partition: as brokers check it.
    fn fence(&self, broker: i32, index: PartitionId, epoch: Option<LeaderEpoch>) -> ErrorCode {
        let log = &self.logs[usize::try_from(index.get()).unwrap()];
        match epoch.map_or(log.epoch, LeaderEpoch::get).cmp(&log.epoch) {
            _ if log.leader != broker => ErrorCode::NotLeaderOrFollower,
            std::cmp::Ordering::Less => ErrorCode::FencedLeaderEpoch,
            std::cmp::Ordering::Greater => ErrorCode::UnknownLeaderEpoch,
            std::cmp::Ordering::Equal => ErrorCode::None,
        }
    }

    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let at = self.random.below(self.asked.len());
        let (request, broker, question) = self.asked.remove(at).unwrap();
        if self.faults && self.random.one_in(12) {
            return self.fail(request, &question);
        }
        match question {
            Question::Fetch(body) => {
                let answer = self.fetch(broker, &body);
                let answer = read::read(&body, answer, &Bytes::new());
                self.core.fetched(request, Ok(answer), self.now_ms);
            }
            Question::Offsets(body) => {
                let asked = &body.topics[0].partitions;
                let found = asked.iter().map(|asked| {
                    let log = &self.logs[usize::try_from(asked.partition_index.get()).unwrap()];
                    let earliest = asked.timestamp == EARLIEST_TIMESTAMP;
                    let offset = if earliest { log.start } else { log.committed };
                    let offset = i64::try_from(offset).unwrap();
                    let epoch = asked.current_leader_epoch;
                    ListOffsetsPartitionResponse {
                        partition_index: asked.partition_index,
                        error_code: self.fence(broker, asked.partition_index, epoch),
                        offset: Some(Offset::new(offset)),
                        ..ListOffsetsPartitionResponse::default()
                    }
                });
                let partitions = found.collect();
                let name = TOPIC.to_owned();
                let topics = vec![ListOffsetsTopicResponse { name, partitions }];
                let answer = ListOffsetsResponse { topics, ..ListOffsetsResponse::default() };
                self.core.offsets_answered(request, Ok(answer), self.now_ms);
            }
            Question::Epochs(body) => {
                let asked = &body.topics[0].partitions;
                let ends = asked.iter().map(|asked| {
                    let log = &self.logs[usize::try_from(asked.partition.get()).unwrap()];
                    let upto = log.epochs.iter().take_while(|of| **of <= asked.leader_epoch.get());
                    let end = upto.count();
                    let last = end.checked_sub(1).filter(|at| *at >= log.start);
                    let last = last.map(|at| LeaderEpoch::new(log.epochs[at]));
                    let epoch = asked.current_leader_epoch;
                    OffsetForLeaderPartitionResult {
                        error_code: self.fence(broker, asked.partition, epoch),
                        partition: asked.partition,
                        leader_epoch: last,
                        end_offset: Some(Offset::new(i64::try_from(end).unwrap())),
                    }
                });
                let partitions = ends.collect();
                let topic = TOPIC.to_owned();
                let topics = vec![OffsetForLeaderTopicResult { topic, partitions }];
                let answer = OffsetForLeaderEpochResponse {
                    topics,
                    ..OffsetForLeaderEpochResponse::default()
                };
                self.core.epochs_answered(request, Ok(answer), self.now_ms);
            }
        }
    }

    fn fetch(&self, broker: i32, body: &FetchRequest) -> FetchResponse {
        let answers = body.topics[0].partitions.iter().map(|asked| {
            let log = &self.logs[usize::try_from(asked.partition.get()).unwrap()];
            let from = usize::try_from(asked.fetch_offset.get()).unwrap();
            let mut error_code = self.fence(broker, asked.partition, asked.current_leader_epoch);
            if error_code.is_none() && (from > log.epochs.len() || from < log.start) {
                error_code = ErrorCode::OffsetOutOfRange;
            }
            let records = if error_code.is_none() { batches(log, from) } else { Vec::new() };
            FetchPartitionResponse {
                partition_index: asked.partition,
                error_code,
                high_watermark: Some(Offset::new(i64::try_from(log.committed).unwrap())),
                log_start_offset: Some(Offset::new(i64::try_from(log.start).unwrap())),
                records: Some(Records::Inline(Bytes::from(records))),
                ..FetchPartitionResponse::default()
            }
        });
        let topic = FetchTopicResponse {
            topic: TOPIC.to_owned(),
            partitions: answers.collect(),
            ..FetchTopicResponse::default()
        };
        FetchResponse { responses: vec![topic], ..FetchResponse::default() }
    }

    /// Another leader; it has all that is committed, and cuts the rest.
    fn elect(&mut self) {
        let index = self.random.below(PARTITIONS);
        let leader = 1 + i32::try_from(self.random.below(3)).unwrap();
        let log = &mut self.logs[index];
        log.epochs.truncate(log.committed);
        log.leader = leader;
        log.epoch += 1;
        let (leader, epoch) = (BrokerId::new(leader), LeaderEpoch::new(log.epoch));
        if self.random.one_in(2) {
            let leader = Leader { broker: Some(leader), epoch: Some(epoch) };
            let mut effects = Vec::new();
            self.core.route(&Route::Leader { partition: partition(index), leader }, &mut effects);
            self.perform(effects);
        }
    }

    fn take(&mut self) {
        match self.core.take() {
            None => {}
            Some(Ok(fetched)) => {
                let given = self.given.entry(fetched.partition.partition.get()).or_default();
                for record in fetched.records() {
                    let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                    let (offset, epoch) = text.split_once(' ').unwrap();
                    assert_eq!(offset, record.offset.to_string());
                    given.push((record.offset.get(), epoch.parse().unwrap()));
                }
                let next = given.last().map_or(0, |(offset, _)| offset + 1);
                assert_eq!(fetched.next.offset.get(), next);
            }
            Some(Err(trouble)) => panic!("{trouble}"),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=2 if self.faults => {
                let index = self.random.below(PARTITIONS);
                let log = &mut self.logs[index];
                log.epochs.push(log.epoch);
            }
            3..=4 => {
                let index = self.random.below(PARTITIONS);
                self.logs[index].committed = self.logs[index].epochs.len();
            }
            0..=9 => self.answer(),
            10..=13 => self.take(),
            14..=15 => {
                if let Some(answer) = self.metadata.pop_front() {
                    self.core.metadata_answered(Ok(answer), &[TOPIC.into()], self.now_ms);
                }
            }
            16 => self.now_ms = self.deadline_ms.max(self.now_ms),
            17 => self.now_ms += 3,
            _ if !self.faults => {}
            18 => self.elect(),
            _ => {
                let broker = 1 + i32::try_from(self.random.below(3)).unwrap();
                match self.random.below(3) {
                    0 => {
                        let mut effects = Vec::new();
                        let down = Route::BrokerDown(BrokerId::new(broker));
                        self.core.route(&down, &mut effects);
                        self.perform(effects);
                    }
                    1 => self.fail_all(broker),
                    _ => {
                        let of = partition(self.random.below(PARTITIONS));
                        let is_paused = self.random.one_in(2);
                        self.core.pause(&of, is_paused);
                    }
                }
            }
        }
        self.poll();
    }

    fn run(&mut self, seed: u64) {
        for _ in 0..1_500 {
            self.step();
        }
        self.faults = false;
        (0..PARTITIONS).for_each(|index| self.core.pause(&partition(index), false));
        let mut steps = 0;
        while !self.is_done() {
            self.step();
            steps += 1;
            assert!(steps < 100_000, "seed {seed}: {:?}", self.core);
        }
    }

    fn is_done(&self) -> bool {
        self.logs.iter().zip(0i32..).all(|(log, index)| {
            let given = self.given.get(&index).map_or(0, Vec::len);
            log.committed == log.epochs.len() && given == log.committed
        })
    }
}

#[test]
fn every_committed_record_is_given_out_once_and_in_order_whatever_fails() {
    let mut given = 0;
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.run(seed);
        for (log, index) in world.logs.iter().zip(0i32..) {
            let expected: Vec<_> = (0i64..).zip(log.epochs.iter().copied()).collect();
            let of = world.given.get(&index).cloned().unwrap_or_default();
            assert_eq!(of, expected, "seed {seed}, partition {index}");
            given += expected.len();
        }
    }
    assert!(given > 20_000, "{given} records given out");
}

/// A consumer that has read the first three records, of epoch 0, and has them all given out.
fn reader(reset: Reset) -> World {
    let mut world = World::new(1);
    world.faults = false;
    let settings = Settings { reset, ..Settings::default() };
    world.core = Consumer::new(settings);
    world.core.seek(&partition(0), Start::Earliest);
    world.logs[0].epochs = vec![0, 0, 0];
    world.logs[0].committed = 3;
    while world.given.get(&0).map_or(0, Vec::len) < 3 {
        world.step();
    }
    world
}

/// A consumer that has read offsets 0 to 8, of epochs 0, 0, 0, 1, 1, 1, 3, 3, 3, and has them all given out. The next leader's log is this one.
fn after_partings(reset: Reset, epochs: &[i32]) -> World {
    let mut world = reader(reset);
    for (epoch, end) in [(1, 6), (3, 9)] {
        world.logs[0].epochs.resize(end, epoch);
        world.logs[0].epoch = epoch;
        world.logs[0].committed = end;
        let mut steps = 0;
        while world.given.get(&0).map_or(0, Vec::len) < end {
            world.step();
            steps += 1;
            assert!(steps < 10_000, "{:?}", world.core);
        }
    }
    world.logs[0].epochs = epochs.to_vec();
    world.logs[0].epoch = 4;
    world.logs[0].committed = epochs.len();
    world
}

#[test]
fn a_cut_is_found_to_the_record_where_the_log_has_epochs_that_were_not_read() {
    // Epoch, in the log that leads now, of offsets 0, 1, ..; and where that parts from what was read.
    let cases: [(&[i32], i64); 6] = [
        (&[0, 0, 0, 1, 1, 1, 3, 3], 8),
        (&[0, 0, 0, 1, 1, 1, 2, 2], 6),
        (&[0, 0, 0, 1, 2, 2, 2, 4], 4),
        (&[0, 0, 2, 2, 2, 2, 2, 2], 2),
        (&[0, 1, 2, 2, 2, 2, 2, 2], 1),
        (&[0, 0, 0, 1, 1, 4, 4, 4, 4, 4], 5),
    ];
    for (epochs, end) in cases {
        let mut world = after_partings(Reset::Error, epochs);
        let trouble = loop {
            world.step_without_taking();
            if let Some(taken) = world.core.take() {
                break taken.unwrap_err();
            }
        };
        let (position, end) = (Offset::new(9), Offset::new(end));
        let expected = Trouble::Truncated { partition: partition(0), position, end };
        assert_eq!(trouble, expected, "{epochs:?}");

        let mut world = after_partings(Reset::Latest, epochs);
        while world.core.position(&partition(0)).unwrap().offset == position {
            world.step_without_taking();
        }
        assert_eq!(world.core.position(&partition(0)).unwrap().offset, end, "{epochs:?}");
    }
}

#[test]
fn a_log_that_was_cut_below_the_position_is_noticed() {
    let mut world = reader(Reset::Error);
    // An unclean election: the new leader has one record of epoch 0, and others of its own.
    world.logs[0].epochs = vec![0, 1, 1, 1];
    world.logs[0].epoch = 1;
    world.logs[0].committed = 4;
    let trouble = loop {
        world.step_without_taking();
        if let Some(taken) = world.core.take() {
            break taken.unwrap_err();
        }
    };
    let expected = Trouble::Truncated {
        partition: partition(0),
        position: Offset::new(3),
        end: Offset::new(1),
    };
    assert_eq!(trouble, expected);

    let mut world = reader(Reset::Latest);
    world.logs[0].epochs = vec![0, 1, 1, 1];
    world.logs[0].epoch = 1;
    world.logs[0].committed = 4;
    let fetched = loop {
        world.step_without_taking();
        if let Some(taken) = world.core.take() {
            break taken.unwrap();
        }
    };
    let offsets: Vec<_> = fetched.records().map(|record| record.offset.get()).collect();
    assert_eq!(offsets, [1, 2, 3], "read on from where the logs part");
}

/// What [`reader`] is given next when the log is this one: all of epoch 1 from `start` on, and nothing older known.
fn after_other_epochs(reset: Reset, start: usize) -> Result<Vec<i64>, Trouble> {
    let mut world = reader(reset);
    world.logs[0].epochs = vec![1; 5];
    world.logs[0].start = start;
    world.logs[0].epoch = 1;
    world.logs[0].committed = 5;
    loop {
        world.step_without_taking();
        if let Some(taken) = world.core.take() {
            return taken.map(|fetched| fetched.records().map(|r| r.offset.get()).collect());
        }
    }
}

#[test]
fn a_log_that_was_removed_up_to_the_position_was_not_cut() {
    for reset in [Reset::Error, Reset::Earliest, Reset::Latest] {
        assert_eq!(after_other_epochs(reset, 3), Ok(vec![3, 4]), "{reset:?}");
    }
}

#[test]
fn a_log_that_was_removed_beyond_the_position_is_out_of_range() {
    let (partition, offset) = (partition(0), Offset::new(3));
    let expected = Trouble::OutOfRange { partition, offset };
    assert_eq!(after_other_epochs(Reset::Error, 4), Err(expected));
    assert_eq!(after_other_epochs(Reset::Earliest, 4), Ok(vec![4]));
}

#[test]
fn nobody_is_sent_back_by_a_leader_that_has_removed_less() {
    for reset in [Reset::Earliest, Reset::Latest] {
        let mut world = reader(reset);
        world.logs[0].epochs = vec![0; 6];
        world.logs[0].start = 5;
        world.logs[0].committed = 6;
        while world.core.partitions[&partition(0)].phase == Phase::Reading {
            world.step_without_taking();
        }
        // The next leader has not heard of it, nor of all that is committed.
        world.logs[0].start = 0;
        world.logs[0].committed = 2;
        while world.core.partitions[&partition(0)].phase != Phase::Reading {
            world.step_without_taking();
        }
        assert_eq!(world.core.position(&partition(0)).unwrap().offset, Offset::new(3), "{reset:?}");
        world.logs[0].committed = 6;
        let fetched = loop {
            world.step_without_taking();
            if let Some(taken) = world.core.take() {
                break taken.unwrap();
            }
        };
        let offsets: Vec<_> = fetched.records().map(|record| record.offset.get()).collect();
        assert_eq!(offsets, [3, 4, 5], "{reset:?}");
    }
}

#[test]
fn a_partition_that_is_gone_from_the_log_waits_until_the_caller_has_what_was_read() {
    let mut world = World::new(1);
    world.faults = false;
    world.core = Consumer::new(Settings { reset: Reset::Error, ..Settings::default() });
    world.core.seek(&partition(0), Start::Earliest);
    world.logs[0].epochs = vec![0, 0, 0];
    world.logs[0].committed = 3;
    while !is_buffered(&world.core.buffer, &partition(0)) {
        world.step_without_taking();
    }
    world.logs[0].start = 5;
    world.logs[0].epochs = vec![0; 6];
    world.logs[0].committed = 6;
    while !world.core.partitions[&partition(0)].waits_for_caller {
        world.step_without_taking();
    }
    for _ in 0..10 {
        world.step_without_taking();
        assert!(world.asked.is_empty(), "what it would be answered is known");
    }
    assert_eq!(world.core.take().unwrap().unwrap().next.offset, Offset::new(3));
    let trouble = loop {
        world.step_without_taking();
        if let Some(taken) = world.core.take() {
            break taken.unwrap_err();
        }
    };
    let (partition, offset) = (partition(0), Offset::new(3));
    assert_eq!(trouble, Trouble::OutOfRange { partition, offset });
}

#[test]
fn a_log_that_has_other_records_in_place_of_all_that_was_read_was_cut() {
    let (partition, position) = (partition(0), Offset::new(3));
    let expected = Trouble::Truncated { partition, position, end: Offset::ZERO };
    assert_eq!(after_other_epochs(Reset::Error, 0), Err(expected));
    assert_eq!(after_other_epochs(Reset::Earliest, 0), Ok(vec![0, 1, 2, 3, 4]));
}

impl World {
    fn step_without_taking(&mut self) {
        self.steps += 1;
        assert!(self.steps < 100_000, "{:?}", self.core);
        self.poll();
        if self.asked.is_empty() && self.metadata.is_empty() {
            // Nothing else makes it look: a stale view is refused by the leader.
            self.core.ask_again();
            self.now_ms += 1000;
        }
        self.answer();
        if let Some(answer) = self.metadata.pop_front() {
            self.core.metadata_answered(Ok(answer), &[TOPIC.into()], self.now_ms);
        }
    }
}

#[test]
fn where_to_begin_can_be_told_from_elsewhere() {
    let mut world = reader(Reset::Error);
    let of = partition(0);
    world.core.seek(&of, Start::Elsewhere);
    assert_eq!(world.core.waiting_elsewhere(), std::slice::from_ref(&of));
    world.core.place(&of, Some(Position { offset: Offset::new(2), epoch: None }));
    assert_eq!(world.core.position(&of).unwrap().offset, Offset::new(2));
    world.core.seek(&of, Start::Elsewhere);
    world.core.place(&of, None);
    assert_eq!(world.core.take().unwrap().unwrap_err(), Trouble::NoPosition(of));
}

/// Whether metadata is asked for at `now_ms`; when to look again.
fn asks_metadata(core: &mut Consumer, now_ms: u64) -> (bool, Option<u64>) {
    let mut effects = Vec::new();
    let next = core.poll(now_ms, &mut effects);
    (effects.iter().any(|effect| matches!(effect, Effect::AskMetadata(_))), next)
}

/// Takes an answer with so many partitions; 0 is for a topic that is not known.
fn tell_count(core: &mut Consumer, count: usize, now_ms: u64) -> bool {
    let answer = match count {
        0 => MetadataResponse::default(),
        count => model::metadata((0..count).map(|_| (Some(1), 0))),
    };
    core.metadata_answered(Ok(answer), &[TOPIC.into()], now_ms)
}

#[test]
fn a_topic_that_a_broker_does_not_know_yet_is_asked_for_again_soon() {
    let mut core = Consumer::new(Settings::default());
    core.watch([Arc::from(TOPIC)]);
    assert!(asks_metadata(&mut core, 0).0);
    assert!(!tell_count(&mut core, 0, 0));
    let (_, next) = asks_metadata(&mut core, 0);
    assert!(next.is_some_and(|next| next <= 1_000), "{next:?}");
    assert!(asks_metadata(&mut core, next.unwrap()).0);
    assert!(tell_count(&mut core, 2, 1_000));
    let (is_asked, next) = asks_metadata(&mut core, 3_000);
    assert!(!is_asked && next.is_some_and(|next| next > 100_000), "{next:?}");
}

#[test]
fn partitions_that_a_notification_announces_are_asked_for_until_a_broker_shows_them() {
    let mut core = Consumer::new(Settings::default());
    core.watch([Arc::from(TOPIC)]);
    assert!(asks_metadata(&mut core, 0).0);
    assert!(tell_count(&mut core, 2, 0));
    let announce = |core: &mut Consumer, topic: &str, index: i32| {
        let partition = TopicPartition::new(topic, index);
        core.route(&Route::Leader { partition, leader: Leader::default() }, &mut Vec::new());
    };
    announce(&mut core, TOPIC, 1);
    announce(&mut core, "other", 7);
    assert!(!asks_metadata(&mut core, 1_000).0, "no news, or of no interest");
    announce(&mut core, TOPIC, 2);
    assert!(asks_metadata(&mut core, 1_000).0);
    assert!(!tell_count(&mut core, 2, 1_000), "that broker has not heard of it");
    let (_, next) = asks_metadata(&mut core, 1_000);
    assert!(next.is_some_and(|next| next <= 2_000), "{next:?}");
    assert!(asks_metadata(&mut core, next.unwrap()).0);
    assert!(tell_count(&mut core, 3, 2_000));
    assert!(!asks_metadata(&mut core, 4_000).0);

    // Made anew with fewer: it is not asked for without end.
    announce(&mut core, TOPIC, 9);
    let (mut now_ms, mut asked) = (4_000, 0);
    while now_ms < 60_000 {
        let (is_asked, next) = asks_metadata(&mut core, now_ms);
        if is_asked {
            asked += 1;
            tell_count(&mut core, 3, now_ms);
        } else {
            now_ms = next.unwrap();
        }
    }
    assert!((3..=20).contains(&asked), "{asked}");
}

#[test]
fn a_broker_that_is_gone_loses_all_connections_also_those_of_others() {
    let mut core = Consumer::new(Settings::default());
    let mut effects = Vec::new();
    core.route(&Route::BrokerDown(BrokerId::new(9)), &mut effects);
    assert_eq!(effects, [Effect::Disconnect(BrokerId::new(9))]);
}

#[test]
fn what_is_buffered_of_a_paused_partition_does_not_starve_the_others() {
    let mut world = World::new(1);
    world.faults = false;
    let settings = Settings { reset: Reset::Earliest, buffer_bytes_max: 1, ..Settings::default() };
    world.core = Consumer::new(settings);
    (0..PARTITIONS).for_each(|index| world.core.seek(&partition(index), Start::Earliest));
    world.logs[0].epochs = vec![0, 0, 0];
    world.logs[0].committed = 3;
    while world.core.buffered_bytes == 0 {
        world.step_without_taking();
    }
    world.core.pause(&partition(0), true);
    world.logs[1].epochs = vec![0, 0, 0];
    world.logs[1].committed = 3;
    let mut steps = 0;
    while world.given.get(&1).map_or(0, Vec::len) < 3 {
        world.step();
        steps += 1;
        assert!(steps < 10_000, "{:?}", world.core);
    }
    assert!(!world.given.contains_key(&0), "paused");
}
