//! A follower's Fetch on the wire: from positions to a request, from a response to answers.
//!
//! Called by: `fetcher`. Invariant: an answer says what was asked, so that the partition's core
//! can tell an answer that came too late; records are cut out of the frame without a copy.

use std::collections::BTreeMap;

use broker_core::ids::{BrokerEpoch, TopicPartition};
use broker_core::partition::{EpochEnd, FetchAnswer, FetchPosition};
use bytes::BytesMut;
use client_protocol::messages::fetch::{FetchPartition, FetchPartitionResponse, FetchTopic};
use client_protocol::messages::{FetchRequest, FetchResponse};
use client_protocol::{BrokerId, TopicId};

use crate::config::ReplicaConfig;
use crate::net::peer::PeerResponse;

/// The version in which brokers fetch from each other.
pub(super) const FETCH_VERSION: i16 = 13;

/// Who fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetcher {
    pub(super) id: BrokerId,
    pub(super) epoch: BrokerEpoch,
}

/// Whether records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Records, or a wait for them.
    Records,
    /// Only tells how far the follower has got; is answered at once.
    Progress,
}

/// What a request asked of each partition.
pub(super) type Asked = BTreeMap<TopicPartition, FetchPosition>;

/// One partition's answer, with its records.
pub(super) struct Answered {
    pub(super) partition: TopicPartition,
    pub(super) answer: FetchAnswer,
    pub(super) records: BytesMut,
}

pub(super) fn request(
    fetcher: Fetcher,
    asked: &Asked,
    purpose: Purpose,
    config: &ReplicaConfig,
) -> FetchRequest {
    let (wait, bytes) = match purpose {
        Purpose::Records => (config.fetch_wait_max, config.fetch_bytes_max),
        Purpose::Progress => (std::time::Duration::ZERO, 0),
    };
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (partition, position) in asked {
        let entry = FetchPartition {
            partition: partition.partition,
            current_leader_epoch: Some(position.leader_epoch),
            fetch_offset: position.fetch_offset,
            last_fetched_epoch: position.last_fetched_epoch,
            log_start_offset: Some(position.log_start),
            partition_max_bytes: bytes,
            replica_end_offset: Some(position.fetch_offset),
            replica_durable_end_offset: Some(position.durable_end),
        };
        match topics.last_mut() {
            Some(topic) if topic.topic_id == partition.topic => topic.partitions.push(entry),
            _ => topics.push(FetchTopic {
                topic_id: partition.topic,
                partitions: vec![entry],
                ..Default::default()
            }),
        }
    }
    FetchRequest {
        replica_id: Some(fetcher.id),
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.fetch_bytes_min,
        max_bytes: config.response_bytes_max,
        topics,
        replica_broker_epoch: fetcher.epoch.get(),
        ..Default::default()
    }
}

/// Takes a response apart; partitions that were not asked for are left out.
pub(super) fn answers(response: PeerResponse<FetchResponse>, asked: &Asked) -> Vec<Answered> {
    let PeerResponse { body, mut frame } = response;
    let mut taken = 0;
    let mut answers = Vec::new();
    for topic in body.responses {
        for partition in topic.partitions {
            let records = cut(&mut frame, &mut taken, &partition);
            answers.extend(answered(topic.topic_id, partition, records, asked));
        }
    }
    answers
}

fn cut(frame: &mut BytesMut, taken: &mut usize, partition: &FetchPartitionResponse) -> BytesMut {
    let range = partition.records.as_ref().and_then(|records| records.in_frame());
    match range {
        Some(range) if range.length() > 0 => {
            let before = range.start - *taken;
            let records = frame.split_to(before + range.length()).split_off(before);
            *taken = range.end;
            records
        }
        Some(_) | None => BytesMut::new(),
    }
}

fn answered(
    topic: TopicId,
    response: FetchPartitionResponse,
    records: BytesMut,
    asked: &Asked,
) -> Option<Answered> {
    let partition = TopicPartition { topic, partition: response.partition_index };
    let position = asked.get(&partition)?;
    let diverging = &response.diverging_epoch;
    let diverging = match (diverging.epoch, diverging.end_offset) {
        (Some(leader_epoch), Some(end_offset)) => Some(EpochEnd { leader_epoch, end_offset }),
        _ => None,
    };
    let answer = FetchAnswer {
        leader_epoch: position.leader_epoch,
        fetch_offset: position.fetch_offset,
        error: response.error_code,
        diverging,
        high_watermark: response.high_watermark,
        log_start: response.log_start_offset,
        has_records: !records.is_empty(),
    };
    Some(Answered { partition, answer, records })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client_protocol::messages::Message;
    use client_protocol::messages::fetch::{EpochEndOffset, FetchTopicResponse};
    use client_protocol::{
        ApiKey, CorrelationId, ErrorCode, LeaderEpoch, Offset, PartitionId, Reader, Records,
        decode_response_header, encode_response,
    };

    use super::*;

    fn partition(topic: u8, partition: i32) -> TopicPartition {
        let topic = TopicId::from_bytes([topic; 16]);
        TopicPartition { topic, partition: PartitionId::new(partition) }
    }

    fn position(fetch_offset: i64) -> FetchPosition {
        FetchPosition {
            leader: BrokerId::new(2),
            leader_epoch: LeaderEpoch::new(5),
            fetch_offset: Offset::new(fetch_offset),
            last_fetched_epoch: Some(LeaderEpoch::new(4)),
            log_start: Offset::ZERO,
            durable_end: Offset::new(fetch_offset - 3),
        }
    }

    fn asked() -> Asked {
        [
            (partition(1, 0), position(10)),
            (partition(1, 1), position(20)),
            (partition(2, 0), position(30)),
        ]
        .into()
    }

    const CONFIG: ReplicaConfig = ReplicaConfig {
        fetch_bytes_max: 1 << 20,
        response_bytes_max: 10 << 20,
        fetch_bytes_min: 1,
        fetch_wait_max: Duration::from_millis(500),
        backoff: Duration::from_millis(200),
        socket_timeout: Duration::from_secs(30),
    };

    #[test]
    fn request_groups_by_topic_and_tells_both_ends() {
        let fetcher = Fetcher { id: BrokerId::new(1), epoch: BrokerEpoch::new(77) };
        let records = request(fetcher, &asked(), Purpose::Records, &CONFIG);
        assert_eq!(records.topics.len(), 2);
        assert_eq!(records.topics[0].partitions.len(), 2);
        let first = &records.topics[0].partitions[0];
        assert_eq!(first.replica_end_offset, Some(Offset::new(10)));
        assert_eq!(first.replica_durable_end_offset, Some(Offset::new(7)));
        assert_eq!((records.max_wait_ms, records.replica_broker_epoch), (500, 77));
        let progress = request(fetcher, &asked(), Purpose::Progress, &CONFIG);
        assert_eq!(progress.max_wait_ms, 0);
        assert!(
            progress.topics.iter().flat_map(|t| &t.partitions).all(|p| p.partition_max_bytes == 0)
        );
    }

    #[test]
    fn answers_carry_their_records_and_what_was_asked() {
        let one = |index: i32, records: &'static [u8]| FetchPartitionResponse {
            partition_index: PartitionId::new(index),
            high_watermark: Some(Offset::new(9)),
            records: Some(Records::Inline(records.into())),
            ..Default::default()
        };
        let diverging = FetchPartitionResponse {
            diverging_epoch: EpochEndOffset {
                epoch: Some(LeaderEpoch::new(3)),
                end_offset: Some(Offset::new(25)),
            },
            ..one(0, b"")
        };
        let topic = |id: u8, partitions| FetchTopicResponse {
            topic_id: TopicId::from_bytes([id; 16]),
            partitions,
            ..Default::default()
        };
        let stranger = one(7, b"zzz");
        let response = FetchResponse {
            responses: vec![
                topic(1, vec![one(0, b"abc"), stranger, one(1, b"defg")]),
                topic(2, vec![diverging]),
            ],
            ..Default::default()
        };
        let encoded =
            encode_response(CorrelationId::new(1), FETCH_VERSION, &response).expect("fits");
        let frame = BytesMut::from(&encoded.bytes[4..]);
        let mut reader = Reader::new(&frame);
        decode_response_header(&mut reader, ApiKey::Fetch, FETCH_VERSION).expect("ours");
        let body = FetchResponse::decode(&mut reader, FETCH_VERSION).expect("ours");
        let answers = answers(PeerResponse { body, frame }, &asked());
        let records: Vec<&[u8]> = answers.iter().map(|answer| &answer.records[..]).collect();
        assert_eq!(records, [&b"abc"[..], b"defg", b""]);
        assert_eq!(answers[1].answer.fetch_offset, Offset::new(20));
        assert_eq!(answers[1].answer.error, ErrorCode::None);
        let end = EpochEnd { leader_epoch: LeaderEpoch::new(3), end_offset: Offset::new(25) };
        assert_eq!(answers[2].answer.diverging, Some(end));
        assert!(!answers[2].answer.has_records);
    }
}
