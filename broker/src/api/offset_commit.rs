//! OffsetCommit (key 8, versions 2-9): remember how far a group has read.
//!
//! 5: no retention of its own any more; 6: leader epochs; 7: static members; 9: member epochs, of a
//! group protocol that is not spoken here. Partitions that do not exist are refused here, the rest is
//! up to the group; the answer comes when the offsets are in the log of all in-sync replicas.

use std::collections::BTreeMap;

use broker_core::group::{Request, Response};
use broker_core::image::Image;
use client_protocol::ErrorCode;
use client_protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitPartitionResponse, OffsetCommitTopicResponse,
};
use client_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(shared: &Shared, call: &Call<'_>, request: OffsetCommitRequest) -> Dispatch {
    let order: Vec<(String, Vec<OffsetCommitPartition>)> =
        request.topics.iter().map(|topic| (topic.name.clone(), topic.partitions.clone())).collect();
    let known = only_known(&shared.image(), request);
    let asked = shared.ask_group(Request::OffsetCommit(known));
    call.respond_later(async move {
        match asked.await {
            Response::OffsetCommit(response) => merged(order, &response),
            other => unreachable!("an OffsetCommit is answered as such, not with {other:?}"),
        }
    })
}

/// The request without partitions that do not exist.
fn only_known(image: &Image, mut request: OffsetCommitRequest) -> OffsetCommitRequest {
    for topic in &mut request.topics {
        let partitions = image.topic(&topic.name).map(|found| &found.node.partitions);
        let exists = |one: &OffsetCommitPartition| {
            partitions.is_some_and(|partitions| partitions.contains_key(&one.partition_index))
        };
        topic.partitions.retain(exists);
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    request
}

/// The outcomes in the order of the request; what the group was not asked for does not exist.
fn merged(
    order: Vec<(String, Vec<OffsetCommitPartition>)>,
    response: &OffsetCommitResponse,
) -> OffsetCommitResponse {
    let mut outcomes = BTreeMap::new();
    for topic in &response.topics {
        for one in &topic.partitions {
            outcomes.insert((topic.name.as_str(), one.partition_index), one.error_code);
        }
    }
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let topics = order.into_iter().map(|(name, asked)| {
        let partitions = asked.into_iter().map(|one| OffsetCommitPartitionResponse {
            partition_index: one.partition_index,
            error_code: outcomes
                .get(&(name.as_str(), one.partition_index))
                .copied()
                .unwrap_or(unknown),
        });
        let partitions = partitions.collect();
        OffsetCommitTopicResponse { name, partitions }
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}
