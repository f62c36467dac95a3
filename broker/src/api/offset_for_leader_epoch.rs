//! OffsetForLeaderEpoch (key 23, versions 2-4): where an epoch ends in the leader's log.
//!
//! Consumers ask after a change of leaders, to see whether what they read is still there. Our
//! followers learn the same by Fetch.

use broker_core::ids::TopicPartition;
use client_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderPartition, OffsetForLeaderPartitionResult, OffsetForLeaderTopic,
    OffsetForLeaderTopicResult,
};
use client_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use client_protocol::{ErrorCode, TopicId};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Shared,
    call: &Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> Dispatch {
    let image = shared.image();
    let answer = |topic: OffsetForLeaderTopic| {
        let id = image.topic(&topic.topic).map(|found| found.node.id);
        let partitions = topic.partitions.iter().map(|asked| look_up(shared, id, asked)).collect();
        OffsetForLeaderTopicResult { topic: topic.topic, partitions }
    };
    let topics = request.topics.into_iter().map(answer).collect();
    call.respond(&OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics })
}

fn look_up(
    shared: &Shared,
    topic: Option<TopicId>,
    asked: &OffsetForLeaderPartition,
) -> OffsetForLeaderPartitionResult {
    let found = match topic {
        _ if !shared.cluster.may_serve() => Err(ErrorCode::NotLeaderOrFollower),
        None => Err(ErrorCode::UnknownTopicOrPartition),
        Some(topic) => {
            let partition = TopicPartition { topic, partition: asked.partition };
            let (current, epoch) = (asked.current_leader_epoch, asked.leader_epoch);
            shared.partitions.offset_for_leader_epoch(partition, current, epoch)
        }
    };
    let (error_code, end) = match found {
        Ok(end) => (ErrorCode::None, end),
        Err(error_code) => (error_code, None),
    };
    OffsetForLeaderPartitionResult {
        error_code,
        partition: asked.partition,
        leader_epoch: end.map(|end| end.leader_epoch),
        end_offset: end.map(|end| end.end_offset),
    }
}
