//! Produce (key 0, versions 3-11): append one batch to each partition.
//!
//! 7: zstd; 8: messages in words; 10: the present leader goes with NOT_LEADER_OR_FOLLOWER. The
//! batches are submitted before this returns, so a connection's requests are appended in their
//! order; the answer follows when `acks` is met. acks=0 has no answer, and an error closes the
//! connection instead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::ids::TopicPartition;
use broker_core::image::Image;
use bytes::BytesMut;
use client_protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
use client_protocol::messages::{LeaderIdAndEpoch, NodeEndpoint, ProduceRequest, ProduceResponse};
use client_protocol::records::BatchHeader;
use client_protocol::{ByteRange, ErrorCode, Offset, PartitionId};

use super::call::Call;
use super::shared::{Shared, public_endpoint};
use super::topic_name;
use crate::partitions::{self, ProduceBatch, ProduceOutcome};
use crate::response::{Answer, Dispatch};

/// First version in which batches may be compressed with zstd.
const ZSTD_FROM: i16 = 7;
/// Longest time that a produce may wait for its replicas.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// One partition of the request, in its order: refused already, or the next of the submitted.
struct Slot {
    index: PartitionId,
    refused: Option<(ErrorCode, Option<String>)>,
    /// Bytes and records that its batch claims, for the counters.
    claimed: (u64, u64),
}

/// One topic of the request.
struct Topic {
    name: String,
    slots: Vec<Slot>,
}

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: ProduceRequest,
    frame: BytesMut,
) -> Dispatch {
    let acks = request.acks;
    let image = shared.image();
    let may_serve = shared.cluster.may_serve();
    let refused = refused_as_a_whole(&request);
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let (topics, batches) = split(&image, request, frame, (refused, may_serve));
    let pending = shared.partitions.produce(partitions::ProduceRequest {
        acks,
        timeout: Duration::from_millis(timeout_ms).min(TIMEOUT_MAX),
        zstd_allowed: call.version >= ZSTD_FROM,
        transactional: false,
        may_serve,
        batches,
    });
    let reply_to = call.reply_to();
    let shared = Arc::clone(shared);
    let answer = async move {
        let submitted =
            topics.iter().flat_map(|t| &t.slots).filter(|s| s.refused.is_none()).count();
        let any_refused = topics.iter().flat_map(|t| &t.slots).any(|s| s.refused.is_some());
        let outcomes = pending.await;
        count(&shared, &topics, &outcomes);
        match acks {
            _ if outcomes.len() != submitted => Answer::Close("the broker stops"),
            0 if any_refused || outcomes.iter().any(Result::is_err) => {
                Answer::Close("acks=0 and an error")
            }
            0 => Answer::Nothing,
            _ => reply_to.answer(&respond(&shared, topics, outcomes)),
        }
    };
    Dispatch::Later(Box::pin(answer))
}

/// What is wrong with every partition of the request.
fn refused_as_a_whole(request: &ProduceRequest) -> Option<ErrorCode> {
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    // Transactions are not kept yet.
    request.transactional_id.as_ref().map(|_| ErrorCode::TransactionalIdAuthorizationFailed)
}

/// Cuts the batches out of the frame, without a copy, in the order of the request.
fn split(
    image: &Image,
    request: ProduceRequest,
    mut frame: BytesMut,
    (refused, may_serve): (Option<ErrorCode>, bool),
) -> (Vec<Topic>, Vec<ProduceBatch>) {
    let mut batches = Vec::new();
    let mut taken = 0;
    let topics = request.topics.into_iter().map(|topic| {
        let id = match (refused, image.topic(&topic.name)) {
            (Some(error), _) => Err(error),
            (None, _) if topic_name::is_internal(&topic.name) => {
                Err(ErrorCode::InvalidTopicException)
            }
            (None, Some(found)) => Ok(found.node.id),
            (None, None) if may_serve => Err(ErrorCode::UnknownTopicOrPartition),
            // What it knows of topics may be old.
            (None, None) => Err(ErrorCode::NotLeaderOrFollower),
        };
        let slots = topic.partitions.into_iter().map(|partition| {
            let range = partition.records.and_then(|records| records.in_frame());
            let mut claimed = (0, 0);
            let refused = match (id, range) {
                (Err(error), _) => Some((error, None)),
                (Ok(_), None) => {
                    Some((ErrorCode::InvalidRecord, Some("there is no batch".to_owned())))
                }
                (Ok(topic), Some(range)) => {
                    let records = cut(&mut frame, &mut taken, range);
                    let messages = BatchHeader::decode(&records).map_or(0, |h| h.record_count);
                    claimed = (records.len() as u64, u64::try_from(messages).unwrap_or(0));
                    let partition = TopicPartition { topic, partition: partition.index };
                    batches.push(ProduceBatch { partition, records });
                    None
                }
            };
            Slot { index: partition.index, refused, claimed }
        });
        Topic { name: topic.name, slots: slots.collect() }
    });
    (topics.collect(), batches)
}

/// Takes the bytes at `range` out of the frame, of which `taken` bytes are gone already.
fn cut(frame: &mut BytesMut, taken: &mut usize, range: ByteRange) -> BytesMut {
    let before = range.start - *taken;
    let records = frame.split_to(before + range.length()).split_off(before);
    *taken = range.end;
    records
}

fn count(shared: &Shared, topics: &[Topic], outcomes: &[ProduceOutcome]) {
    let image = shared.image();
    let mut outcomes = outcomes.iter();
    for topic in topics {
        let known = image.topic(&topic.name).is_some();
        for slot in &topic.slots {
            let taken = slot.refused.is_none() && outcomes.next().is_some_and(Result::is_ok);
            shared.traffic.produced(&topic.name, known, taken.then_some(slot.claimed));
        }
    }
}

fn respond(shared: &Shared, topics: Vec<Topic>, outcomes: Vec<ProduceOutcome>) -> ProduceResponse {
    let image = shared.image();
    let mut outcomes = outcomes.into_iter();
    let mut leaders = BTreeMap::new();
    let responses = topics.into_iter().map(|topic| {
        let partitions = topic.slots.into_iter().map(|slot| {
            let mut response = match slot.refused {
                Some((error_code, reason)) => refusal(slot.index, error_code, reason),
                None => match outcomes.next().expect("one outcome for each batch") {
                    Ok(produced) => ProducePartitionResponse {
                        index: slot.index,
                        base_offset: Some(produced.base_offset),
                        log_append_time_ms: produced.log_append_time_ms.unwrap_or(-1),
                        log_start_offset: Some(produced.log_start),
                        ..Default::default()
                    },
                    Err(refused) => refusal(slot.index, refused.error, refused.reason),
                },
            };
            if response.error_code == ErrorCode::NotLeaderOrFollower {
                response.current_leader = current_leader(&image, &topic.name, slot.index);
                if let Some(endpoint) = endpoint(&image, &response.current_leader) {
                    leaders.insert(endpoint.node_id, endpoint);
                }
            }
            response
        });
        let partitions = partitions.collect();
        ProduceTopicResponse { name: topic.name, partitions }
    });
    let topics = responses.collect();
    let node_endpoints = leaders.into_values().collect();
    ProduceResponse { topics, throttle_time_ms: 0, node_endpoints }
}

fn refusal(
    index: PartitionId,
    error_code: ErrorCode,
    error_message: Option<String>,
) -> ProducePartitionResponse {
    let base_offset: Option<Offset> = None;
    ProducePartitionResponse { index, error_code, base_offset, error_message, ..Default::default() }
}

fn current_leader(image: &Image, topic: &str, partition: PartitionId) -> LeaderIdAndEpoch {
    let state = image.state(topic, partition).map(|stored| &stored.state);
    LeaderIdAndEpoch {
        leader_id: state.and_then(|state| state.leader),
        leader_epoch: state.map(|state| state.leader_epoch),
    }
}

fn endpoint(image: &Image, leader: &LeaderIdAndEpoch) -> Option<NodeEndpoint> {
    let broker = image.broker(leader.leader_id?)?;
    let endpoint = public_endpoint(broker)?;
    Some(NodeEndpoint {
        node_id: broker.id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        rack: broker.registration.rack.clone(),
    })
}
