//! AlterPartition of this broker's leaders: gathered into one request at a time, so that many changes
//! of one moment are one round trip.
//!
//! Called by: `handle` (a partition asks), `membership` (runs it). Calls: `forward`.
//! Invariant: every request is answered to its partition, also when no controller could be asked;
//! partitions ask again by themselves. State is adopted by notification, never from the answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use broker_core::ids::{BrokerEpoch, BrokerId, TopicPartition};
use broker_core::partition::AlterRequest;
use client_protocol::ErrorCode;
use client_protocol::messages::alter_partition::{
    AlterPartitionPartition, AlterPartitionTopic, BrokerState,
};
use client_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use tokio::sync::{mpsc, watch};

use super::forward::Forward;
use super::local::Local;

/// How many changes one request carries.
const BATCH_MAX: usize = 1000;

/// Sends what partitions ask, until nobody can ask any more.
pub(super) async fn run(
    mut requests: mpsc::UnboundedReceiver<AlterRequest>,
    epoch: watch::Receiver<Option<BrokerEpoch>>,
    forward: Forward,
    local: Arc<dyn Local>,
    timeout: Duration,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let asked = std::mem::take(&mut batch);
        let epoch = *epoch.borrow();
        let results = match epoch {
            Some(epoch) => {
                let request = request(forward.broker, epoch, &asked);
                results(&forward.clone().ask(request, timeout).await)
            }
            None => Err(ErrorCode::StaleBrokerEpoch),
        };
        for one in asked {
            let result = match &results {
                Ok(results) => match results.get(&one.partition) {
                    Some(ErrorCode::None) => Ok(()),
                    Some(error) => Err(*error),
                    None => Err(ErrorCode::UnknownServerError),
                },
                Err(error) => Err(*error),
            };
            local.alter_answered(one.partition, one.attempt, result);
        }
    }
}

fn request(
    broker_id: BrokerId,
    epoch: BrokerEpoch,
    asked: &[AlterRequest],
) -> AlterPartitionRequest {
    let mut topics: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in asked {
        let member = |&(broker_id, epoch): &(BrokerId, BrokerEpoch)| BrokerState {
            broker_id,
            broker_epoch: epoch.get(),
        };
        topics.entry(one.partition.topic).or_default().push(AlterPartitionPartition {
            partition_index: one.partition.partition,
            leader_epoch: one.leader_epoch,
            new_isr_with_epochs: one.isr.iter().map(member).collect(),
            partition_epoch: one.partition_epoch.get(),
            ..Default::default()
        });
    }
    let topic = |(topic_id, partitions)| AlterPartitionTopic { topic_id, partitions };
    AlterPartitionRequest {
        broker_id,
        broker_epoch: epoch.get(),
        topics: topics.into_iter().map(topic).collect(),
    }
}

type Results = HashMap<TopicPartition, ErrorCode>;

fn results(response: &AlterPartitionResponse) -> Result<Results, ErrorCode> {
    if !response.error_code.is_none() {
        return Err(response.error_code);
    }
    let mut results = Results::new();
    for topic in &response.topics {
        for one in &topic.partitions {
            let key = TopicPartition { topic: topic.topic_id, partition: one.partition_index };
            results.insert(key, one.error_code);
        }
    }
    Ok(results)
}
