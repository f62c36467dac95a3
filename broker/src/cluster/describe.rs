//! DescribeReplicas (safety.md C5): what the controller asks of other brokers' logs, and of this one's.
//!
//! Called by: `office`. Calls: `peers`.
//! Invariant: a broker is asked until it answers or this life of it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_core::controller::PartitionReport;
use broker_core::ids::{BrokerEpoch, BrokerId, ControllerEpoch, Offset, TopicPartition};
use broker_core::image::Image;
use broker_core::partition::ReplicaReport;
use client_protocol::ErrorCode;
use client_protocol::messages::describe_replicas::{DescribeReplicasTopic, ReplicaDescription};
use client_protocol::messages::{DescribeReplicasRequest, DescribeReplicasResponse};
use tokio::sync::watch;
use tokio::time::sleep;

use super::peers::Peers;

const VERSION: i16 = 0;
const PAUSE: Duration = Duration::from_millis(100);

/// Whom to ask what.
pub(super) struct Question {
    pub(super) controller_epoch: ControllerEpoch,
    pub(super) broker: BrokerId,
    pub(super) epoch: BrokerEpoch,
    pub(super) partitions: Vec<TopicPartition>,
}

/// What was answered, by which life of which broker.
pub(super) struct Described {
    pub(super) broker: BrokerId,
    pub(super) epoch: BrokerEpoch,
    pub(super) reports: Vec<PartitionReport>,
}

/// Asks until there is an answer; `None` when that life of the broker is over.
pub(super) async fn ask(
    peers: Arc<Peers>,
    images: watch::Receiver<Arc<Image>>,
    question: Question,
    timeout: Duration,
) -> Option<Described> {
    let request = request(&question);
    let (broker, epoch) = (question.broker, question.epoch);
    loop {
        let image = Arc::clone(&images.borrow());
        if image.broker(broker).is_none_or(|found| found.epoch != epoch) {
            return None;
        }
        match peers.ask(&image, broker, (&request, VERSION), timeout).await {
            Ok(response) if response.broker_epoch == epoch.get() => {
                if let Some(reports) = reports(&response) {
                    return Some(Described { broker, epoch, reports });
                }
                tracing::debug!(%broker, error = ?response.error_code, "replicas not described");
            }
            Ok(_) => tracing::debug!(%broker, "another life of the broker answered"),
            Err(error) => tracing::debug!(%broker, %error, "replicas not described"),
        }
        sleep(PAUSE).await;
    }
}

fn request(question: &Question) -> DescribeReplicasRequest {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in &question.partitions {
        topics.entry(one.topic).or_default().push(one.partition);
    }
    let topic = |(topic_id, partitions)| DescribeReplicasTopic { topic_id, partitions };
    DescribeReplicasRequest {
        controller_epoch: question.controller_epoch.get(),
        topics: topics.into_iter().map(topic).collect(),
    }
}

fn reports(response: &DescribeReplicasResponse) -> Option<Vec<PartitionReport>> {
    if !response.error_code.is_none() {
        return None;
    }
    let mut reports = Vec::new();
    for topic in &response.topics {
        for described in &topic.partitions {
            let partition =
                TopicPartition { topic: topic.topic_id, partition: described.partition_index };
            reports.push(PartitionReport { partition, report: report(described) });
        }
    }
    Some(reports)
}

fn report(described: &ReplicaDescription) -> Option<ReplicaReport> {
    if described.error_code != ErrorCode::None {
        return None;
    }
    let end_offset = described.end_offset.unwrap_or(Offset::new(0));
    Some(ReplicaReport {
        last_epoch: described.last_epoch,
        end_offset,
        durable_end: described.durable_end_offset.unwrap_or(Offset::new(0)),
        cut_below_mark: described.cut_below_mark,
    })
}
