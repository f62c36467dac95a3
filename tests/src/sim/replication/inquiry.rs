//! What the native client's consumer asks brokers, and what they answer: the messages as they are, of several partitions each.
//!
//! Called by: `reader`, `wire`, `reading`. Calls: the codecs, the hosted partitions. Invariant: answers are as the cores decide; a fetch waits as any
//! consumer's. It does not know what the asker makes of it.

use broker_core::ids::{Millis, TopicPartition};
use bytes::Bytes;
use client_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use client_protocol::messages::list_offsets::{
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use client_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderPartition, OffsetForLeaderPartitionResult, OffsetForLeaderTopicResult,
};
use client_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use client_protocol::{
    ApiKey, ErrorCode, Reader, Records, decode_request_header, decode_response_header,
};

use super::message::{Address, Message, Outbox};
use super::process::Process;
use super::wire::{self, Frame};
use super::world::TOPIC;
use crate::sim::ensemble::schedule::{MS, Time};

/// The newest version that clients have of each.
const FETCH: i16 = 12;
const LIST_OFFSETS: i16 = 7;
const EPOCHS: i16 = 4;

/// A question.
#[derive(Debug, Clone)]
pub enum Inquiry {
    Fetch(FetchRequest),
    Offsets(ListOffsetsRequest),
    Epochs(OffsetForLeaderEpochRequest),
}

/// The answer to one.
#[derive(Debug, Clone)]
pub enum Told {
    /// With the records of each partition; a receiver has them in the frame instead.
    Fetched(FetchResponse, Vec<Bytes>),
    Offsets(ListOffsetsResponse),
    Epochs(OffsetForLeaderEpochResponse),
}

impl Inquiry {
    pub fn encode(&self, number: u64) -> Frame {
        match self {
            Self::Fetch(body) => wire::ask(number, FETCH, body),
            Self::Offsets(body) => wire::ask(number, LIST_OFFSETS, body),
            Self::Epochs(body) => wire::ask(number, EPOCHS, body),
        }
    }

    /// What a broker reads, and the number.
    pub fn decode(frame: &Frame) -> (u64, Self) {
        let bytes = frame.whole();
        let mut reader = Reader::new(&bytes);
        let header = decode_request_header(&mut reader).expect("ours");
        let number = u64::from(header.correlation_id.get().unsigned_abs());
        let inquiry = match header.key {
            ApiKey::Fetch => Self::Fetch(wire::body(&mut reader, header.version)),
            ApiKey::ListOffsets => Self::Offsets(wire::body(&mut reader, header.version)),
            ApiKey::OffsetForLeaderEpoch => Self::Epochs(wire::body(&mut reader, header.version)),
            other => unreachable!("nobody asks for {other:?}"),
        };
        (number, inquiry)
    }
}

impl Told {
    pub fn encode(self, number: u64) -> Frame {
        match self {
            Self::Fetched(body, records) => wire::answer(number, FETCH, &body, records),
            Self::Offsets(body) => wire::answer(number, LIST_OFFSETS, &body, Vec::new()),
            Self::Epochs(body) => wire::answer(number, EPOCHS, &body, Vec::new()),
        }
    }

    /// What the asker reads, with the number and the bytes in which records lie.
    pub fn decode(frame: &Frame) -> (u64, Self, Bytes) {
        let bytes = frame.whole();
        let mut reader = Reader::new(&bytes);
        let (key, version) = frame.answers().expect("an answer");
        let id = decode_response_header(&mut reader, key, version).expect("ours");
        let number = u64::from(id.get().unsigned_abs());
        let told = match key {
            ApiKey::Fetch => Self::Fetched(wire::body(&mut reader, version), Vec::new()),
            ApiKey::ListOffsets => Self::Offsets(wire::body(&mut reader, version)),
            ApiKey::OffsetForLeaderEpoch => Self::Epochs(wire::body(&mut reader, version)),
            other => unreachable!("nobody answers {other:?}"),
        };
        (number, told, bytes)
    }

    /// Of parts that were read: the records beyond `bytes_max` stay out, but for those of the first that has any.
    pub(super) fn fetched(
        parts: impl Iterator<Item = (FetchPartitionResponse, Bytes)>,
        bytes_max: usize,
    ) -> Self {
        let (mut partitions, mut pieces, mut sent) = (Vec::new(), Vec::new(), 0);
        for (mut partition, mut records) in parts {
            if sent > 0 && sent + records.len() > bytes_max {
                records = Bytes::new();
            }
            sent += records.len();
            partition.records = Some(Records::Spliced(records.len()));
            partitions.push(partition);
            if !records.is_empty() {
                pieces.push(records);
            }
        }
        let topic =
            FetchTopicResponse { topic: TOPIC.to_owned(), partitions, ..Default::default() };
        Self::Fetched(FetchResponse { responses: vec![topic], ..Default::default() }, pieces)
    }
}

impl Process {
    /// The native client's consumer asks something.
    pub(super) fn inquired(
        &mut self,
        (number, inquiry): (u64, &Inquiry),
        now: Time,
        out: &mut Outbox,
    ) {
        let told = match inquiry {
            Inquiry::Fetch(body) => return self.reader_fetches((number, body), now, out),
            Inquiry::Offsets(body) => {
                let topics = body.topics.iter().map(|topic| {
                    let found = topic.partitions.iter().map(|asked| {
                        self.find_offset(&topic.name, asked, now).unwrap_or_else(|error_code| {
                            let partition_index = asked.partition_index;
                            ListOffsetsPartitionResponse {
                                partition_index,
                                error_code,
                                ..Default::default()
                            }
                        })
                    });
                    ListOffsetsTopicResponse {
                        name: topic.name.clone(),
                        partitions: found.collect(),
                    }
                });
                let topics: Vec<_> = topics.collect();
                out.serves |= topics
                    .iter()
                    .any(|topic| topic.partitions.iter().any(|found| found.error_code.is_none()));
                Told::Offsets(ListOffsetsResponse { topics, ..Default::default() })
            }
            Inquiry::Epochs(body) => {
                let topics = body.topics.iter().map(|topic| {
                    let ends = topic.partitions.iter().map(|asked| {
                        self.epoch_end(&topic.topic, asked, now).unwrap_or_else(|error_code| {
                            let partition = asked.partition;
                            OffsetForLeaderPartitionResult {
                                error_code,
                                partition,
                                ..Default::default()
                            }
                        })
                    });
                    OffsetForLeaderTopicResult {
                        topic: topic.topic.clone(),
                        partitions: ends.collect(),
                    }
                });
                let topics: Vec<_> = topics.collect();
                out.serves |= topics
                    .iter()
                    .any(|topic| topic.partitions.iter().any(|found| found.error_code.is_none()));
                Told::Epochs(OffsetForLeaderEpochResponse { topics, ..Default::default() })
            }
        };
        out.messages.push((Address::Reader, Message::Told { number, told }));
    }

    fn may_answer(
        &self,
        topic: &str,
        partition: client_protocol::PartitionId,
        now: Time,
    ) -> Result<TopicPartition, ErrorCode> {
        if !self.may_serve(now) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        self.key_of(topic, partition).ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    fn find_offset(
        &self,
        topic: &str,
        asked: &ListOffsetsPartition,
        now: Time,
    ) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
        let key = self.may_answer(topic, asked.partition_index, now)?;
        let core = self.replicas.get(&key).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let current = asked.current_leader_epoch;
        let offset = match asked.timestamp {
            LATEST_TIMESTAMP => core.latest_offset(current)?,
            _ => core.earliest_offset(current)?,
        };
        let partition_index = asked.partition_index;
        let offset = Some(offset);
        Ok(ListOffsetsPartitionResponse { partition_index, offset, ..Default::default() })
    }

    fn epoch_end(
        &self,
        topic: &str,
        asked: &OffsetForLeaderPartition,
        now: Time,
    ) -> Result<OffsetForLeaderPartitionResult, ErrorCode> {
        let key = self.may_answer(topic, asked.partition, now)?;
        let core = self.replicas.get(&key).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let end = core.epoch_end(asked.current_leader_epoch, asked.leader_epoch)?;
        Ok(OffsetForLeaderPartitionResult {
            partition: asked.partition,
            leader_epoch: end.map(|end| end.leader_epoch),
            end_offset: end.map(|end| end.end_offset),
            ..Default::default()
        })
    }

    /// When a fetch that comes now is answered at the latest.
    pub(super) fn fetch_deadline(body: &FetchRequest, now: Time) -> Millis {
        Millis::new(now / MS).plus(u64::from(body.max_wait_ms.unsigned_abs()))
    }
}
