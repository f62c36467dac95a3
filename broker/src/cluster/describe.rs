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

use super::peers::{Asking, Peers};

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

/// Asks until there is an answer; `None` when that life of the broker, or all that was asked about, is over.
pub(super) async fn ask(
    peers: Arc<Peers>,
    images: watch::Receiver<Arc<Image>>,
    mut question: Question,
    timeout: Duration,
) -> Option<Described> {
    let (broker, epoch) = (question.broker, question.epoch);
    loop {
        let image = Arc::clone(&images.borrow());
        if image.broker(broker).is_none_or(|found| found.epoch != epoch) {
            return None;
        }
        question.partitions.retain(|&partition| image.partition(partition).is_some());
        if question.partitions.is_empty() {
            return None;
        }
        let request = request(&question);
        match peers.ask(&image, broker, Asking::again(&request, VERSION), timeout).await {
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
            // It has registered but not yet taken in what it holds. To take that for a loss would
            // keep the partition offline for the whole life of this broker: ask again.
            if described.error_code == ErrorCode::UnknownTopicOrPartition {
                return None;
            }
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

#[cfg(test)]
mod tests {
    use client_protocol::messages::describe_replicas::DescribeReplicasTopicResponse;
    use client_protocol::{PartitionId, TopicId};

    use super::*;

    fn answer(error_code: ErrorCode) -> DescribeReplicasResponse {
        let described = ReplicaDescription {
            partition_index: PartitionId::new(0),
            error_code,
            ..Default::default()
        };
        let topic_id = TopicId::from_bytes([1; 16]);
        let topics = vec![DescribeReplicasTopicResponse { topic_id, partitions: vec![described] }];
        DescribeReplicasResponse { topics, ..Default::default() }
    }

    #[test]
    fn a_replica_that_is_not_taken_in_yet_is_no_answer() {
        assert_eq!(reports(&answer(ErrorCode::UnknownTopicOrPartition)), None);
        let lost = reports(&answer(ErrorCode::KafkaStorageError)).expect("an answer");
        assert_eq!(lost.first().map(|report| report.report), Some(None));
        let held = reports(&answer(ErrorCode::None)).expect("an answer");
        assert!(held.first().is_some_and(|report| report.report.is_some()));
    }
}
