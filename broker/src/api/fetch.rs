//! Fetch (key 1, versions 4-12 for clients, 13 for followers): record batches as they lie on disk.
//!
//! 4: isolation level; 7: sessions (`broker_core::fetch_session`), for clients: what they name is
//! added to what they named before, and the answer leaves out what they know; 9: leader epoch; 12: last fetched epoch. 13 (topic ids, our
//! tagged fields) is spoken on the brokers' listener only. A follower's progress is noted before
//! this returns. A follower that asks for 0 bytes of a partition only tells its progress.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker_core::fetch_session::{Claim, Turn};
use broker_core::ids::{BrokerEpoch, Millis, TopicPartition};
use broker_core::image::Image;
use client_protocol::api::Scope;
use client_protocol::messages::fetch::{
    EpochEndOffset, FetchPartitionResponse, FetchTopic, FetchTopicResponse,
};
use client_protocol::messages::{FetchRequest, FetchResponse, LeaderIdAndEpoch};
use client_protocol::{ErrorCode, Offset, PartitionId, Records, TopicId};

use super::call::Call;
use super::shared::Shared;
use crate::partitions::{self, FetchPartition, Fetched, Reader};
use crate::response::{Dispatch, Piece};

/// First version that can carry an error of the whole request.
const TOP_LEVEL_ERROR_FROM: i16 = 7;
/// First version with sessions.
const SESSIONS_FROM: i16 = 7;
/// First version that names topics by id.
const TOPIC_IDS_FROM: i16 = 13;
/// Longest time that a fetch may wait.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// `isolation_level` of a reader that wants committed transactions only.
const READ_COMMITTED: i8 = 1;

/// One partition of the request, in its order: refused already, or the next of the asked.
struct Slot {
    index: PartitionId,
    refused: Option<ErrorCode>,
    wants_records: bool,
}

/// One topic of the request.
struct Topic {
    name: String,
    id: TopicId,
    slots: Vec<Slot>,
}

/// What becomes of the session of a request.
struct InSession {
    turn: Turn,
    /// What a new session begins with.
    wished: Vec<FetchTopic>,
}

pub(super) fn handle(shared: &Arc<Shared>, call: &Call<'_>, mut request: FetchRequest) -> Dispatch {
    let refused = refused_as_a_whole(shared, call, &request);
    if let Some(error_code) = refused.filter(|_| call.version >= TOP_LEVEL_ERROR_FROM) {
        return call.respond(&FetchResponse { error_code, ..Default::default() });
    }
    let in_session = match begin(shared, call, &mut request) {
        Ok(in_session) => in_session,
        Err(error_code) => {
            return call.respond(&FetchResponse { error_code, ..Default::default() });
        }
    };
    let reader = match request.replica_id {
        Some(replica) => {
            let broker_epoch = BrokerEpoch::new(request.replica_broker_epoch);
            Reader::Follower { replica, broker_epoch }
        }
        None => Reader::Consumer,
    };
    let fenced = (!shared.cluster.may_serve()).then_some(ErrorCode::NotLeaderOrFollower);
    let image = shared.image();
    let bytes_max = positive(request.max_bytes).min(shared.config.fetch_bytes_max);
    let wait_max = Duration::from_millis(positive(request.max_wait_ms) as u64).min(WAIT_MAX);
    let committed_only = request.isolation_level == READ_COMMITTED;
    let bytes_min = positive(request.min_bytes);
    let (topics, asked) = split(&image, call.version, request.topics, refused.or(fenced));
    let fetch = shared.partitions.fetch(partitions::FetchRequest {
        reader,
        wait_max,
        bytes_min: saturated(bytes_min.min(bytes_max)),
        bytes_max: saturated(bytes_max),
        partitions: asked,
    });
    let reply_to = call.reply_to();
    let shared = Arc::clone(shared);
    Dispatch::Later(Box::pin(async move {
        let fetched = fetch.await;
        let image = shared.image();
        let from_client = matches!(reader, Reader::Consumer);
        let (mut responses, pieces) = respond(&image, topics, fetched, committed_only);
        if from_client {
            count(&shared, &image, &responses);
        }
        // What has records is never left out, so the pieces stay where they belong.
        let session_id = finish(&shared, in_session, &mut responses);
        let response = FetchResponse { session_id, responses, ..Default::default() };
        reply_to.answer_spliced(&response, pieces)
    }))
}

/// What is wrong with the request as a whole.
fn refused_as_a_whole(
    shared: &Shared,
    call: &Call<'_>,
    request: &FetchRequest,
) -> Option<ErrorCode> {
    let follower = request.replica_id.is_some();
    match call.session.scope {
        // Only a broker is a follower, and brokers come by their own listener.
        Scope::Public if follower => return Some(ErrorCode::ClusterAuthorizationFailed),
        Scope::InterBroker if !follower || call.version < TOPIC_IDS_FROM => {
            return Some(ErrorCode::InvalidRequest);
        }
        Scope::Public | Scope::InterBroker => {}
    }
    (follower && request.replica_id == Some(shared.broker_id)).then_some(ErrorCode::InvalidRequest)
}

/// Puts all that is to be read into the request. Followers have no sessions.
fn begin(
    shared: &Shared,
    call: &Call<'_>,
    request: &mut FetchRequest,
) -> Result<InSession, ErrorCode> {
    let mut in_session = InSession { turn: Turn::Sessionless, wished: Vec::new() };
    if call.session.scope == Scope::InterBroker || call.version < SESSIONS_FROM {
        return Ok(in_session);
    }
    let claim = Claim { id: request.session_id, epoch: request.session_epoch };
    let topics = std::mem::take(&mut request.topics);
    let forgotten = &request.forgotten_topics_data;
    let begun = shared.fetch_sessions().begin(claim, topics, forgotten, now(shared));
    (in_session.turn, request.topics) = begun?;
    if in_session.turn == Turn::Create {
        in_session.wished.clone_from(&request.topics);
    }
    Ok(in_session)
}

/// Leaves out what the client knows; the number of its session, 0 without one.
fn finish(shared: &Shared, in_session: InSession, responses: &mut Vec<FetchTopicResponse>) -> i32 {
    let InSession { turn, wished } = in_session;
    if turn == Turn::Sessionless {
        return 0;
    }
    let wanted = (wished, fresh_id());
    shared.fetch_sessions().finish(turn, responses, wanted, now(shared))
}

fn now(shared: &Shared) -> Millis {
    let since = shared.started.elapsed().as_millis();
    Millis::new(u64::try_from(since).unwrap_or(u64::MAX))
}

/// A number that nobody can guess; 0, which is no session's, when the machine gives none.
fn fresh_id() -> i32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(4) => i32::from_ne_bytes(bytes) & i32::MAX,
        Ok(_) | Err(_) => 0,
    }
}

fn positive(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Finds the topics; a partition that is named twice is refused the second time.
fn split(
    image: &Image,
    version: i16,
    topics: Vec<FetchTopic>,
    refused: Option<ErrorCode>,
) -> (Vec<Topic>, Vec<FetchPartition>) {
    let mut asked = Vec::new();
    let mut seen = BTreeSet::new();
    let topics = topics.into_iter().map(|topic| {
        let by_id = version >= TOPIC_IDS_FROM;
        let found = match by_id {
            true => image.topic_by_id(topic.topic_id),
            false => image.topic(&topic.topic),
        };
        let id = match (refused, found) {
            (Some(error), _) => Err(error),
            (None, Some(found)) => Ok(found.node.id),
            (None, None) if by_id => Err(ErrorCode::UnknownTopicId),
            (None, None) => Err(ErrorCode::UnknownTopicOrPartition),
        };
        let slots = topic.partitions.into_iter().map(|partition| {
            let refused = match id {
                Err(error) => Some(error),
                Ok(topic) => {
                    let key = TopicPartition { topic, partition: partition.partition };
                    if seen.insert(key) {
                        asked.push(FetchPartition {
                            partition: key,
                            fetch_offset: partition.fetch_offset,
                            current_leader_epoch: partition.current_leader_epoch,
                            last_fetched_epoch: partition.last_fetched_epoch,
                            durable_end: partition.replica_durable_end_offset,
                            bytes_max: saturated(positive(partition.partition_max_bytes)),
                        });
                        None
                    } else {
                        Some(ErrorCode::InvalidRequest)
                    }
                }
            };
            let wants_records = !by_id || partition.partition_max_bytes > 0;
            Slot { index: partition.partition, refused, wants_records }
        });
        Topic { slots: slots.collect(), name: topic.topic, id: topic.topic_id }
    });
    (topics.collect(), asked)
}

/// The response, and the records that go to its splice points.
fn respond(
    image: &Image,
    topics: Vec<Topic>,
    fetched: Vec<Fetched>,
    committed_only: bool,
) -> (Vec<FetchTopicResponse>, Vec<Vec<Piece>>) {
    let mut pieces = Vec::new();
    let mut fetched = fetched.into_iter();
    let responses = topics.into_iter().map(|topic| {
        let partitions = topic.slots.into_iter().map(|slot| {
            let mut response = match slot.refused {
                Some(error) => refusal(slot.index, error, None),
                None => {
                    let fetched = fetched.next().expect("one answer for each partition");
                    let records = fetched.records.filter(|_| slot.wants_records);
                    let length = records.as_ref().map_or(0, Piece::length);
                    // An empty run leaves no splice point.
                    pieces.extend(records.filter(|_| length > 0).map(|piece| vec![piece]));
                    let fetched = Fetched { records: None, ..fetched };
                    read(slot.index, &fetched, length, committed_only)
                }
            };
            if response.error_code == ErrorCode::NotLeaderOrFollower {
                response.current_leader = current_leader(image, &topic.name, slot.index);
            }
            response
        });
        let partitions = partitions.collect();
        FetchTopicResponse { topic: topic.name, topic_id: topic.id, partitions }
    });
    let responses = responses.collect();
    (responses, pieces)
}

/// Consumers only: what followers fetch is not traffic of clients.
fn count(shared: &Shared, image: &Image, responses: &[FetchTopicResponse]) {
    for topic in responses {
        let known = image.topic(&topic.topic).is_some();
        for partition in &topic.partitions {
            let bytes = match &partition.records {
                Some(Records::Spliced(length)) => *length as u64,
                _ => 0,
            };
            let got = partition.error_code.is_none().then_some(bytes);
            shared.traffic.fetched(&topic.topic, known, got);
        }
    }
}

fn read(
    partition_index: PartitionId,
    fetched: &Fetched,
    length: usize,
    committed_only: bool,
) -> FetchPartitionResponse {
    if !fetched.error.is_none() {
        return refusal(partition_index, fetched.error, fetched.log_start);
    }
    let diverging_epoch = fetched.diverging.map_or_else(EpochEndOffset::default, |end| {
        EpochEndOffset { epoch: Some(end.leader_epoch), end_offset: Some(end.end_offset) }
    });
    FetchPartitionResponse {
        partition_index,
        high_watermark: fetched.high_watermark,
        // Without transactions everything that is committed is stable, and none was aborted.
        last_stable_offset: fetched.high_watermark,
        log_start_offset: fetched.log_start,
        diverging_epoch,
        aborted_transactions: committed_only.then(Vec::new),
        records: Some(Records::Spliced(length)),
        ..Default::default()
    }
}

fn refusal(
    partition_index: PartitionId,
    error_code: ErrorCode,
    log_start_offset: Option<Offset>,
) -> FetchPartitionResponse {
    FetchPartitionResponse {
        partition_index,
        error_code,
        log_start_offset,
        records: Some(Records::Spliced(0)),
        ..Default::default()
    }
}

fn current_leader(image: &Image, topic: &str, partition: PartitionId) -> LeaderIdAndEpoch {
    let state = image.state(topic, partition).map(|stored| &stored.state);
    LeaderIdAndEpoch {
        leader_id: state.and_then(|state| state.leader),
        leader_epoch: state.map(|state| state.leader_epoch),
    }
}
