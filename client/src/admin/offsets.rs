//! Looks up offsets: either end of partitions, or by time.
//!
//! *Called by* applications and the command line, through [`Admin`]. *Calls* `cluster`, `connection`.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_core::TopicPartition;
use client_protocol::messages::ListOffsetsRequest;
use client_protocol::messages::list_offsets::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsTopic,
};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use tokio::time::Instant;

use super::Admin;
use crate::error::ClientError;

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// Of the first record there is.
    Earliest,
    /// After the last record that can be read.
    Latest,
    /// Of the first record with this timestamp (milliseconds since 1970 UTC) or a later one.
    Timestamp(i64),
}

type Found = BTreeMap<TopicPartition, Option<Offset>>;

impl Admin {
    /// The offset of each partition; `None` where no record is as young as the timestamp.
    ///
    /// # Errors
    /// When a topic or partition does not exist, or a leader cannot be asked until the retry time-out.
    pub async fn offsets(
        &mut self,
        partitions: &[TopicPartition],
        at: OffsetAt,
    ) -> Result<Found, ClientError> {
        let timestamp = match at {
            OffsetAt::Earliest => EARLIEST_TIMESTAMP,
            OffsetAt::Latest => LATEST_TIMESTAMP,
            OffsetAt::Timestamp(time) => time.max(0),
        };
        let deadline = Instant::now() + self.cluster.options().retry_timeout;
        let mut found = Found::new();
        let unknown = |admin: &Self, partition: &TopicPartition| {
            admin.cluster.topic(&partition.topic).is_none()
        };
        if partitions.iter().any(|partition| unknown(self, partition)) {
            self.refresh(partitions).await?;
        }
        loop {
            let left = partitions.iter().filter(|partition| !found.contains_key(*partition));
            let left: Vec<_> = left.cloned().collect();
            let error = match self.offsets_once(&left, timestamp, &mut found).await {
                Ok(()) => return Ok(found),
                Err(error) => error,
            };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(self.cluster.options().retry_backoff).await;
            self.refresh(&left).await?;
        }
    }

    async fn refresh(&mut self, partitions: &[TopicPartition]) -> Result<(), ClientError> {
        let mut topics: Vec<_> = partitions.iter().map(|partition| &*partition.topic).collect();
        topics.dedup();
        match self.cluster.refresh(Some(&topics)).await {
            Err(error) if !error.is_retriable() => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    async fn offsets_once(
        &mut self,
        partitions: &[TopicPartition],
        timestamp: i64,
        found: &mut Found,
    ) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<BrokerId, Vec<(&TopicPartition, Option<LeaderEpoch>)>> =
            BTreeMap::new();
        for partition in partitions {
            let (leader, epoch) = self.cluster.leader_of(&partition.topic, partition.partition)?;
            by_leader.entry(leader).or_default().push((partition, epoch));
        }
        for (leader, partitions) in by_leader {
            let mut topics: BTreeMap<Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
            for (partition, epoch) in partitions {
                topics.entry(partition.topic.clone()).or_default().push(ListOffsetsPartition {
                    partition_index: partition.partition,
                    current_leader_epoch: epoch,
                    timestamp,
                });
            }
            let topics = topics
                .into_iter()
                .map(|(name, partitions)| ListOffsetsTopic { name: name.to_string(), partitions });
            let request =
                ListOffsetsRequest { topics: topics.collect(), ..ListOffsetsRequest::default() };
            let connection = self.cluster.connection_to(leader).await?;
            let answer = connection.call(&request).await;
            let answer = self.cluster.noting_failure(&connection, answer)?;
            let mut refused = None;
            for topic in answer.topics {
                for partition in topic.partitions {
                    let name = TopicPartition::new(&topic.name, partition.partition_index.get());
                    match partition.error_code {
                        ErrorCode::None => {
                            found.insert(name, partition.offset);
                        }
                        code => {
                            let what = format!("offset of {name}");
                            refused = Some(ClientError::broker(what, code, None));
                        }
                    }
                }
            }
            refused.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}
