//! ListOffsets (key 2, versions 1-7): the offset at either end of a partition, or at a time.
//!
//! 2: isolation level (without transactions both are the same); 4: leader epochs; 7: the record
//! with the greatest timestamp. Only clients ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_core::ids::TopicPartition;
use broker_core::image::Image;
use client_protocol::messages::list_offsets::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsPartitionResponse,
    ListOffsetsTopicResponse, MAX_TIMESTAMP,
};
use client_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use client_protocol::{ErrorCode, TopicId};

use super::call::Call;
use super::shared::Shared;
use crate::partitions::{OffsetFound, OffsetQuery};
use crate::response::Dispatch;

/// First version that asks for the greatest timestamp.
const MAX_TIMESTAMP_FROM: i16 = 7;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: ListOffsetsRequest,
) -> Dispatch {
    call.respond_later(list(Arc::clone(shared), shared.image(), call.version, request))
}

async fn list(
    shared: Arc<Shared>,
    image: Arc<Image>,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut seen = BTreeSet::new();
    for topic in request.topics {
        let id = image.topic(&topic.name).map(|found| found.node.id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let repeated = !seen.insert((topic.name.clone(), asked.partition_index));
            let found = match repeated {
                true => Err(ErrorCode::InvalidRequest),
                false => look_up(&shared, id, version, asked).await,
            };
            partitions.push(answer(asked, found));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { throttle_time_ms: 0, topics }
}

async fn look_up(
    shared: &Shared,
    topic: Option<TopicId>,
    version: i16,
    asked: &ListOffsetsPartition,
) -> Result<OffsetFound, ErrorCode> {
    if !shared.cluster.may_serve() {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let query = match asked.timestamp {
        LATEST_TIMESTAMP => OffsetQuery::Latest,
        EARLIEST_TIMESTAMP => OffsetQuery::Earliest,
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_FROM => OffsetQuery::MaxTimestamp,
        timestamp if timestamp >= 0 => OffsetQuery::Timestamp(timestamp),
        _ => return Err(ErrorCode::UnsupportedVersion),
    };
    let partition = TopicPartition { topic, partition: asked.partition_index };
    shared.partitions.list_offset(partition, asked.current_leader_epoch, query).await
}

fn answer(
    asked: &ListOffsetsPartition,
    found: Result<OffsetFound, ErrorCode>,
) -> ListOffsetsPartitionResponse {
    let partition_index = asked.partition_index;
    match found {
        Ok(found) => ListOffsetsPartitionResponse {
            partition_index,
            error_code: ErrorCode::None,
            timestamp: found.timestamp_ms.unwrap_or(-1),
            offset: found.offset,
            leader_epoch: found.leader_epoch,
        },
        Err(error_code) => {
            ListOffsetsPartitionResponse { partition_index, error_code, ..Default::default() }
        }
    }
}
