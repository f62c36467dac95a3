//! Messages as frames of Kafka's protocol, by the codecs that brokers and clients use.
//!
//! Called by: `wires`, which carries frames. Calls: the codecs.
//! Invariant: what a receiver learns is what the frame says, in a version that the request's number chooses: each that clients may speak is
//! spoken. What an asker remembers of its own question is not in the answer, as on any connection. It does not know who lives.

use broker_core::controller::{AlterItem, AlterPartitions, PartitionReport};
use broker_core::ids::{BrokerEpoch, Offset, PartitionEpoch, TopicPartition};
use broker_core::partition::{EpochEnd, FetchAnswer, FollowerFetch, ReplicaReport};
use bytes::{Bytes, BytesMut};
use client_protocol::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, LENGTH_BYTES, split_frame};
use client_protocol::messages::alter_partition as alter;
use client_protocol::messages::describe_replicas as describe;
use client_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ControlledShutdownRequest,
    DescribeReplicasRequest, DescribeReplicasResponse, FetchRequest, FetchResponse, ProduceRequest,
    ProduceResponse, fetch, produce,
};
use client_protocol::{
    ApiKey, CorrelationId, EncodedFrame, ErrorCode, LeaderEpoch, Message as Body, Reader, Records,
    Request, decode_request_header, decode_response_header, encode_request, encode_response,
};

use super::message::{self, ConsumeAnswer, ConsumeRequest, Message};

/// Versions that clients may choose from.
const PRODUCE_VERSIONS: (i16, i16) = (3, 11);
const FETCH_VERSIONS: (i16, i16) = (4, 12);
/// The version in which followers fetch.
const FOLLOWER_FETCH: i16 = 13;
const ALTER: i16 = 3;
const SHUT_DOWN: i16 = 3;
const DESCRIBE: i16 = 0;
/// The smallest answer: its correlation id.
const ANSWER_BYTES_MIN: usize = 4;

/// Bytes on a connection, with what the asker remembers of its question if they are an answer.
#[derive(Clone)]
pub struct Frame {
    answers: Option<(ApiKey, i16)>,
    bytes: Bytes,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, answers {:?}", self.bytes.len(), self.answers)
    }
}

fn version_of(number: u64, (least, most): (i16, i16)) -> i16 {
    let count = u64::from((most - least + 1).unsigned_abs());
    least + i16::try_from(number % count).expect("few versions")
}

fn id(number: u64) -> CorrelationId {
    CorrelationId::new(i32::try_from(number).expect("numbers have 31 bits"))
}

pub(super) fn ask<R: Request>(number: u64, version: i16, body: &R) -> Frame {
    let frame = encode_request(id(number), Some("simulated"), version, body).expect("fits");
    Frame { answers: None, bytes: spliced(frame, Vec::new()) }
}

pub(super) fn answer<M: Body>(number: u64, version: i16, body: &M, records: Vec<Bytes>) -> Frame {
    let frame = encode_response(id(number), version, body).expect("fits");
    Frame { answers: Some((M::KEY, version)), bytes: spliced(frame, records) }
}

/// Puts records where the codec left room for them, as the connection does when it sends.
fn spliced(frame: EncodedFrame, records: Vec<Bytes>) -> Bytes {
    assert_eq!(frame.splices.len(), records.len(), "records for each splice point");
    if records.is_empty() {
        return frame.bytes;
    }
    let mut bytes = BytesMut::with_capacity(frame.length());
    let mut from = 0;
    for (splice, records) in frame.splices.iter().zip(records) {
        assert_eq!(splice.length, records.len(), "the frame says how long they are");
        bytes.extend_from_slice(&frame.bytes[from..splice.position]);
        bytes.extend_from_slice(&records);
        from = splice.position;
    }
    bytes.extend_from_slice(&frame.bytes[from..]);
    bytes.freeze()
}

impl Frame {
    /// What travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The message as it is sent.
    pub fn encode(message: Message) -> Self {
        match message {
            Message::Produce { number, topic, key, acks, batch } => {
                let records = Some(Records::Inline(batch));
                let partitions = vec![produce::ProducePartition { index: key, records }];
                let topics = vec![produce::ProduceTopic { name: topic, partitions }];
                let body = ProduceRequest { acks, timeout_ms: 1_000, topics, ..Default::default() };
                ask(number, version_of(number, PRODUCE_VERSIONS), &body)
            }
            Message::Produced { number, error, base_offset } => {
                let partition = produce::ProducePartitionResponse {
                    error_code: error,
                    base_offset: error.is_none().then_some(Offset::new(base_offset)),
                    ..Default::default()
                };
                let topic = produce::ProduceTopicResponse {
                    partitions: vec![partition],
                    ..Default::default()
                };
                let body = ProduceResponse { topics: vec![topic], ..Default::default() };
                answer(number, version_of(number, PRODUCE_VERSIONS), &body, Vec::new())
            }
            Message::Consume(request) => encode_consume(request),
            Message::Consumed(answer) => encode_consumed(answer),
            Message::Fetch(request) => encode_fetch(&request),
            Message::Fetched { number, answers } => {
                let parts = answers.into_iter().map(|(key, answer, records)| {
                    (Some(key), encode_fetched(key, &answer, records.len()), records)
                });
                fetch_answer(number, FOLLOWER_FETCH, parts.collect())
            }
            other => Self::encode_controlling(other),
        }
    }

    fn encode_controlling(message: Message) -> Self {
        match message {
            Message::Alter { number, request } => ask(number, ALTER, &encode_alter(&request)),
            Message::Altered { number, key, result } => {
                answer(number, ALTER, &encode_altered(key, result), Vec::new())
            }
            Message::ShutDown { number, broker, epoch } => {
                let body =
                    ControlledShutdownRequest { broker_id: broker, broker_epoch: epoch.get() };
                ask(number, SHUT_DOWN, &body)
            }
            Message::Describe { number, controller_epoch, partitions } => {
                let topics = by_topic(partitions.into_iter().map(|key| (key, key.partition)));
                let topic = |(topic_id, partitions)| describe::DescribeReplicasTopic {
                    topic_id,
                    partitions,
                };
                let topics = topics.into_iter().map(topic).collect();
                ask(number, DESCRIBE, &DescribeReplicasRequest { controller_epoch, topics })
            }
            Message::Described { number, epoch, reports } => {
                let reports =
                    reports.into_iter().map(|report| (report.partition, encode_report(&report)));
                let topic = |(topic_id, partitions)| describe::DescribeReplicasTopicResponse {
                    topic_id,
                    partitions,
                };
                let topics = by_topic(reports).into_iter().map(topic).collect();
                let body = DescribeReplicasResponse {
                    broker_epoch: epoch.get(),
                    topics,
                    ..Default::default()
                };
                answer(number, DESCRIBE, &body, Vec::new())
            }
            other => unreachable!("{other:?} is encoded elsewhere"),
        }
    }

    /// A connection breaks within the frame: all that the receiver gets is less than a frame.
    ///
    /// # Panics
    /// When it could be taken for one.
    pub fn is_cut_at(&self, cut: u64) {
        let cut = usize::try_from(cut).expect("small") % self.bytes.len();
        let least = self.bytes_min();
        let mut stream = BytesMut::from(&self.bytes[..cut]);
        let whole = split_frame(&mut stream, least, FRAME_BYTES_MAX);
        assert!(matches!(whole, Ok(None)), "{cut} of {} bytes are a frame", self.bytes.len());
    }

    fn bytes_min(&self) -> usize {
        if self.answers.is_some() { ANSWER_BYTES_MIN } else { FRAME_BYTES_MIN }
    }

    /// What the receiver reads.
    pub fn decode(&self) -> Message {
        let frame = self.whole();
        let mut reader = Reader::new(&frame);
        match self.answers {
            None => decode_request(&frame, &mut reader),
            Some((key, version)) => decode_answer(&frame, &mut reader, (key, version)),
        }
    }

    /// What it answers, and in which version.
    pub(super) fn answers(&self) -> Option<(ApiKey, i16)> {
        self.answers
    }

    /// The frame without its length, as the receiver splits it off.
    pub(super) fn whole(&self) -> Bytes {
        let mut stream = BytesMut::from(&self.bytes[..]);
        let whole = split_frame(&mut stream, self.bytes_min(), FRAME_BYTES_MAX);
        assert!(matches!(&whole, Ok(Some(_))) && stream.is_empty(), "one whole frame");
        self.bytes.slice(LENGTH_BYTES..)
    }
}

fn by_topic<T>(
    parts: impl Iterator<Item = (TopicPartition, T)>,
) -> Vec<(client_protocol::TopicId, Vec<T>)> {
    let mut topics: Vec<(_, Vec<T>)> = Vec::new();
    for (key, part) in parts {
        match topics.last_mut() {
            Some((topic, parts)) if *topic == key.topic => parts.push(part),
            _ => topics.push((key.topic, vec![part])),
        }
    }
    topics
}

fn encode_consume(request: ConsumeRequest) -> Frame {
    let ConsumeRequest { number, topic, partition, offset, leader_epoch, bytes_max } = request;
    let partition = fetch::FetchPartition {
        partition,
        current_leader_epoch: leader_epoch,
        fetch_offset: offset,
        partition_max_bytes: i32::try_from(bytes_max).unwrap_or(i32::MAX),
        ..Default::default()
    };
    let partitions = vec![partition];
    let topics = vec![fetch::FetchTopic { topic, partitions, ..Default::default() }];
    let body = FetchRequest { topics, min_bytes: 1, ..Default::default() };
    ask(number, version_of(number, FETCH_VERSIONS), &body)
}

fn encode_consumed(answer: ConsumeAnswer) -> Frame {
    let version = version_of(answer.number, FETCH_VERSIONS);
    let partition = fetch::FetchPartitionResponse {
        error_code: answer.error,
        high_watermark: answer.high_watermark,
        log_start_offset: Some(answer.log_start),
        records: Some(Records::Spliced(answer.records.len())),
        ..Default::default()
    };
    fetch_answer(answer.number, version, vec![(None, partition, answer.records)])
}

fn encode_fetch(request: &message::FetchRequest) -> Frame {
    let partitions = request.items.iter().map(|(key, item)| {
        let partition = fetch::FetchPartition {
            partition: key.partition,
            current_leader_epoch: Some(item.leader_epoch),
            fetch_offset: item.fetch_offset,
            last_fetched_epoch: item.last_fetched_epoch,
            partition_max_bytes: i32::try_from(request.bytes_max).unwrap_or(i32::MAX),
            replica_end_offset: Some(item.fetch_offset),
            replica_durable_end_offset: Some(item.durable_end),
            ..Default::default()
        };
        (*key, partition)
    });
    let topic =
        |(topic_id, partitions)| fetch::FetchTopic { topic_id, partitions, ..Default::default() };
    let (_, first) = request.items.first().expect("something is asked for");
    let body = FetchRequest {
        replica_id: Some(first.replica),
        replica_broker_epoch: first.broker_epoch.get(),
        min_bytes: 1,
        topics: by_topic(partitions).into_iter().map(topic).collect(),
        ..Default::default()
    };
    ask(request.number, FOLLOWER_FETCH, &body)
}

fn encode_fetched(
    key: TopicPartition,
    answer: &FetchAnswer,
    length: usize,
) -> fetch::FetchPartitionResponse {
    let diverging_epoch = answer.diverging.map_or_else(fetch::EpochEndOffset::default, |end| {
        fetch::EpochEndOffset { epoch: Some(end.leader_epoch), end_offset: Some(end.end_offset) }
    });
    fetch::FetchPartitionResponse {
        partition_index: key.partition,
        error_code: answer.error,
        high_watermark: answer.high_watermark,
        log_start_offset: answer.log_start,
        diverging_epoch,
        records: Some(Records::Spliced(length)),
        ..Default::default()
    }
}

type FetchPart = (Option<TopicPartition>, fetch::FetchPartitionResponse, Bytes);

fn fetch_answer(number: u64, version: i16, parts: Vec<FetchPart>) -> Frame {
    let (mut pieces, mut partitions) = (Vec::new(), Vec::new());
    for (key, partition, records) in parts {
        if !records.is_empty() {
            pieces.push(records);
        }
        partitions.push((key.unwrap_or_default(), partition));
    }
    let topic = |(topic_id, partitions)| fetch::FetchTopicResponse {
        topic_id,
        partitions,
        ..Default::default()
    };
    let responses = by_topic(partitions.into_iter()).into_iter().map(topic).collect();
    answer(number, version, &FetchResponse { responses, ..Default::default() }, pieces)
}

fn encode_alter(request: &AlterPartitions) -> AlterPartitionRequest {
    let partitions = request.items.iter().map(|item| {
        let member = |&(broker_id, epoch): &(_, BrokerEpoch)| alter::BrokerState {
            broker_id,
            broker_epoch: epoch.get(),
        };
        let partition = alter::AlterPartitionPartition {
            partition_index: item.partition.partition,
            leader_epoch: item.leader_epoch,
            new_isr_with_epochs: item.isr.iter().map(member).collect(),
            leader_recovery_state: i8::from(item.recovering),
            partition_epoch: item.partition_epoch.get(),
            ..Default::default()
        };
        (item.partition, partition)
    });
    let topic = |(topic_id, partitions)| alter::AlterPartitionTopic { topic_id, partitions };
    AlterPartitionRequest {
        broker_id: request.broker,
        broker_epoch: request.broker_epoch.get(),
        topics: by_topic(partitions).into_iter().map(topic).collect(),
    }
}

fn encode_altered(key: TopicPartition, result: Result<(), ErrorCode>) -> AlterPartitionResponse {
    let partition = alter::AlterPartitionPartitionResponse {
        partition_index: key.partition,
        error_code: result.err().unwrap_or(ErrorCode::None),
        ..Default::default()
    };
    let topic =
        alter::AlterPartitionTopicResponse { topic_id: key.topic, partitions: vec![partition] };
    AlterPartitionResponse { topics: vec![topic], ..Default::default() }
}

fn encode_report(report: &PartitionReport) -> describe::ReplicaDescription {
    let partition_index = report.partition.partition;
    match report.report {
        Some(report) => describe::ReplicaDescription {
            partition_index,
            last_epoch: report.last_epoch,
            end_offset: Some(report.end_offset),
            durable_end_offset: Some(report.durable_end),
            cut_below_mark: report.cut_below_mark,
            ..Default::default()
        },
        None => describe::ReplicaDescription {
            partition_index,
            error_code: ErrorCode::KafkaStorageError,
            ..Default::default()
        },
    }
}

pub(super) fn body<M: Body>(reader: &mut Reader<'_>, version: i16) -> M {
    let body = M::decode(reader, version).expect("frames arrive whole");
    reader.finish().expect("nothing is left behind a body");
    body
}

fn records_of(frame: &Bytes, records: Option<&Records>) -> Bytes {
    let range = records.and_then(Records::in_frame);
    range.map_or_else(Bytes::new, |range| frame.slice(range.start..range.end))
}

fn only<T>(mut many: Vec<T>) -> T {
    assert_eq!(many.len(), 1, "one was asked for");
    many.remove(0)
}

fn decode_request(frame: &Bytes, reader: &mut Reader<'_>) -> Message {
    let header = decode_request_header(reader).expect("ours");
    let number = u64::from(header.correlation_id.get().unsigned_abs());
    match header.key {
        ApiKey::Produce => {
            let request: ProduceRequest = body(reader, header.version);
            let topic = only(request.topics);
            let partition = only(topic.partitions);
            let batch = records_of(frame, partition.records.as_ref());
            let (topic, key) = (topic.name, partition.index);
            Message::Produce { number, topic, key, acks: request.acks, batch }
        }
        ApiKey::Fetch => decode_fetch(number, body(reader, header.version)),
        ApiKey::AlterPartition => decode_alter(number, body(reader, header.version)),
        ApiKey::ControlledShutdown => {
            let request: ControlledShutdownRequest = body(reader, header.version);
            let epoch = BrokerEpoch::new(request.broker_epoch);
            Message::ShutDown { number, broker: request.broker_id, epoch }
        }
        ApiKey::DescribeReplicas => {
            let request: DescribeReplicasRequest = body(reader, header.version);
            let keys = request.topics.into_iter().flat_map(|topic| {
                let key = move |partition| TopicPartition { topic: topic.topic_id, partition };
                topic.partitions.into_iter().map(key)
            });
            let (controller_epoch, partitions) = (request.controller_epoch, keys.collect());
            Message::Describe { number, controller_epoch, partitions }
        }
        other => unreachable!("nobody asks for {other:?}"),
    }
}

fn decode_fetch(number: u64, request: FetchRequest) -> Message {
    let Some(replica) = request.replica_id else {
        let topic = only(request.topics);
        let partition = only(topic.partitions);
        return Message::Consume(ConsumeRequest {
            number,
            topic: topic.topic,
            partition: partition.partition,
            offset: partition.fetch_offset,
            leader_epoch: partition.current_leader_epoch,
            bytes_max: partition.partition_max_bytes.unsigned_abs(),
        });
    };
    let broker_epoch = BrokerEpoch::new(request.replica_broker_epoch);
    let mut bytes_max = 0;
    let mut items = Vec::new();
    for topic in request.topics {
        for asked in topic.partitions {
            bytes_max = asked.partition_max_bytes.unsigned_abs();
            let key = TopicPartition { topic: topic.topic_id, partition: asked.partition };
            let fetch = FollowerFetch {
                replica,
                broker_epoch,
                leader_epoch: asked.current_leader_epoch.unwrap_or(LeaderEpoch::new(-1)),
                fetch_offset: asked.fetch_offset,
                last_fetched_epoch: asked.last_fetched_epoch,
                durable_end: asked.replica_durable_end_offset.unwrap_or(Offset::ZERO),
            };
            items.push((key, fetch));
        }
    }
    Message::Fetch(message::FetchRequest { number, items, bytes_max })
}

fn decode_alter(number: u64, request: AlterPartitionRequest) -> Message {
    let items = request.topics.into_iter().flat_map(|topic| {
        let item = move |asked: alter::AlterPartitionPartition| AlterItem {
            partition: TopicPartition { topic: topic.topic_id, partition: asked.partition_index },
            leader_epoch: asked.leader_epoch,
            partition_epoch: PartitionEpoch::new(asked.partition_epoch),
            isr: asked
                .new_isr_with_epochs
                .into_iter()
                .map(|member| (member.broker_id, BrokerEpoch::new(member.broker_epoch)))
                .collect(),
            recovering: asked.leader_recovery_state == 1,
        };
        topic.partitions.into_iter().map(item)
    });
    let request = AlterPartitions {
        broker: request.broker_id,
        broker_epoch: BrokerEpoch::new(request.broker_epoch),
        items: items.collect(),
    };
    Message::Alter { number, request }
}

fn decode_answer(frame: &Bytes, reader: &mut Reader<'_>, (key, version): (ApiKey, i16)) -> Message {
    let id = decode_response_header(reader, key, version).expect("ours");
    let number = u64::from(id.get().unsigned_abs());
    match key {
        ApiKey::Produce => {
            let response: ProduceResponse = body(reader, version);
            let partition = only(only(response.topics).partitions);
            let base_offset = partition.base_offset.map_or(-1, Offset::get);
            Message::Produced { number, error: partition.error_code, base_offset }
        }
        ApiKey::Fetch if version == FOLLOWER_FETCH => {
            decode_fetched(frame, number, body(reader, version))
        }
        ApiKey::Fetch => {
            let response: FetchResponse = body(reader, version);
            let partition = only(only(response.responses).partitions);
            Message::Consumed(ConsumeAnswer {
                number,
                error: partition.error_code,
                // Version 4 does not say it: such a client asks for offsets when it is out of range.
                log_start: partition.log_start_offset.unwrap_or(Offset::ZERO),
                high_watermark: partition.high_watermark,
                records: records_of(frame, partition.records.as_ref()),
            })
        }
        ApiKey::AlterPartition => {
            let response: AlterPartitionResponse = body(reader, version);
            let topic = only(response.topics);
            let partition = only(topic.partitions);
            let key =
                TopicPartition { topic: topic.topic_id, partition: partition.partition_index };
            Message::Altered { number, key, result: partition.error_code.into_result() }
        }
        ApiKey::DescribeReplicas => decode_described(number, body(reader, version)),
        other => unreachable!("nobody answers {other:?}"),
    }
}

fn decode_fetched(frame: &Bytes, number: u64, response: FetchResponse) -> Message {
    let mut answers = Vec::new();
    for topic in response.responses {
        for partition in topic.partitions {
            let key =
                TopicPartition { topic: topic.topic_id, partition: partition.partition_index };
            let records = records_of(frame, partition.records.as_ref());
            let diverging = &partition.diverging_epoch;
            let diverging = match (diverging.epoch, diverging.end_offset) {
                (Some(leader_epoch), Some(end_offset)) => {
                    Some(EpochEnd { leader_epoch, end_offset })
                }
                _ => None,
            };
            let answer = FetchAnswer {
                // The asker knows.
                leader_epoch: LeaderEpoch::default(),
                fetch_offset: Offset::ZERO,
                error: partition.error_code,
                diverging,
                high_watermark: partition.high_watermark,
                log_start: partition.log_start_offset,
                has_records: !records.is_empty(),
            };
            answers.push((key, answer, records));
        }
    }
    Message::Fetched { number, answers }
}

fn decode_described(number: u64, response: DescribeReplicasResponse) -> Message {
    let mut reports = Vec::new();
    for topic in response.topics {
        for described in topic.partitions {
            let partition =
                TopicPartition { topic: topic.topic_id, partition: described.partition_index };
            let report = described.error_code.is_none().then(|| ReplicaReport {
                last_epoch: described.last_epoch,
                end_offset: described.end_offset.unwrap_or(Offset::ZERO),
                durable_end: described.durable_end_offset.unwrap_or(Offset::ZERO),
                cut_below_mark: described.cut_below_mark,
            });
            reports.push(PartitionReport { partition, report });
        }
    }
    Message::Described { number, epoch: BrokerEpoch::new(response.broker_epoch), reports }
}
