//! AlterPartition of this broker's leaders: gathered into one request at a time, so that many changes
//! of one moment are one round trip.
//!
//! Called by: `handle` (a partition asks), `membership` (runs it). Calls: `forward`.
//! Invariant: of each partition at most one request waits, its newest; every one that is sent is
//! answered to its partition, also when no controller could be asked, and partitions ask again by
//! themselves. State is adopted by notification, never from the answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_core::ids::{BrokerEpoch, BrokerId, TopicPartition};
use broker_core::partition::AlterRequest;
use client_protocol::ErrorCode;
use client_protocol::messages::alter_partition::{
    AlterPartitionPartition, AlterPartitionTopic, BrokerState,
};
use client_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};
use tokio::sync::{Notify, watch};

use super::forward::Forward;
use super::local::Local;

/// How many changes one request carries.
const BATCH_MAX: usize = 1000;

/// Longest time for one request: what partitions want is another thing by then.
const LIMIT: Duration = Duration::from_secs(10);

/// What partitions want, until it is sent.
#[derive(Debug, Default)]
pub(super) struct Alters {
    waiting: Mutex<BTreeMap<TopicPartition, AlterRequest>>,
    woken: Notify,
}

impl Alters {
    /// Takes in what a partition wants, in place of what it wanted before.
    pub(super) fn ask(&self, request: AlterRequest) {
        self.lock().insert(request.partition, request);
        self.woken.notify_one();
    }

    async fn next(&self) -> Vec<AlterRequest> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.woken.notified().await;
        }
    }

    fn take(&self) -> Vec<AlterRequest> {
        let mut waiting = self.lock();
        let batch = std::iter::from_fn(|| waiting.pop_first());
        batch.take(BATCH_MAX).map(|(_, request)| request).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, AlterRequest>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what partitions ask, for ever.
pub(super) async fn run(
    alters: Arc<Alters>,
    epoch: watch::Receiver<Option<BrokerEpoch>>,
    forward: Forward,
    local: Arc<dyn Local>,
) {
    loop {
        let asked = alters.next().await;
        let epoch = *epoch.borrow();
        let results = match epoch {
            Some(epoch) => {
                let request = request(forward.broker, epoch, &asked);
                results(&forward.clone().ask(request, LIMIT).await)
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
