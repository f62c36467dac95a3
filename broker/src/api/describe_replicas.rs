//! DescribeReplicas (key 10000, version 0, brokers only): what this broker's replicas hold.
//!
//! The controller asks before it elects a replica that came back. A question of a controller whose
//! epoch is behind what this broker's image knows is not answered.

use broker_core::ids::TopicPartition;
use client_protocol::messages::describe_replicas::{
    DescribeReplicasTopic, DescribeReplicasTopicResponse, ReplicaDescription,
};
use client_protocol::messages::{DescribeReplicasRequest, DescribeReplicasResponse};
use client_protocol::{ErrorCode, PartitionId};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Shared,
    call: &Call<'_>,
    request: DescribeReplicasRequest,
) -> Dispatch {
    let image = shared.image();
    let known = image.controller_epoch().map(|(epoch, _)| epoch.get());
    if known.is_some_and(|known| request.controller_epoch < known) {
        let error_code = ErrorCode::StaleControllerEpoch;
        return call.respond(&DescribeReplicasResponse { error_code, ..Default::default() });
    }
    let own = image.broker(shared.broker_id);
    let describe = |topic: DescribeReplicasTopic| DescribeReplicasTopicResponse {
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| describe(shared, TopicPartition { topic: topic.topic_id, partition }))
            .collect(),
    };
    call.respond(&DescribeReplicasResponse {
        error_code: ErrorCode::None,
        broker_epoch: own.map_or(-1, |broker| broker.epoch.get()),
        topics: request.topics.into_iter().map(describe).collect(),
    })
}

fn describe(shared: &Shared, partition: TopicPartition) -> ReplicaDescription {
    let partition_index: PartitionId = partition.partition;
    match shared.partitions.describe_replica(partition) {
        Ok(report) => ReplicaDescription {
            partition_index,
            last_epoch: report.last_epoch,
            end_offset: Some(report.end_offset),
            durable_end_offset: Some(report.durable_end),
            cut_below_mark: report.cut_below_mark,
            ..Default::default()
        },
        Err(error_code) => ReplicaDescription { partition_index, error_code, ..Default::default() },
    }
}
