//! Reads records of assigned partitions from their leaders, from an offset on.
//!
//! *Called by* applications and the command line. *Calls* `cluster`, `connection`.
//!
//! Invariant: records of a partition are given out once and in offset order, beginning at the position; the position is
//! the offset after the last one given out. At most one fetch is under way for each leader; dropping a call of
//! [`Consumer::poll`] loses nothing, the fetch is picked up by the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client_protocol::messages::fetch::{FetchPartition, FetchPartitionResponse, FetchTopic};
use client_protocol::messages::list_offsets::{
    EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsTopic,
};
use client_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use client_protocol::records::{Batch, BatchError, Batches, Record};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionId, Records};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::ClientError;

/// How to consume.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// How long the broker may wait for `fetch_bytes_min`.
    pub fetch_wait: Duration,
    /// The broker answers as soon as that many bytes are there.
    pub fetch_bytes_min: i32,
    /// At most that many bytes in one answer, but at least one batch.
    pub fetch_bytes_max: i32,
    /// At most that many bytes of one partition, but at least one batch.
    pub partition_bytes_max: i32,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_min: 1,
            fetch_bytes_max: 50 << 20,
            partition_bytes_max: 1 << 20,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// The first record with this timestamp (milliseconds since 1970 UTC) or a later one.
    Timestamp(i64),
    /// This offset.
    At(Offset),
}

/// Records of one partition, in order.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: PartitionId,
    /// With the offset of each.
    pub records: Vec<(Offset, Record)>,
    /// Up to where records can be read now (exclusive).
    pub high_watermark: Offset,
    /// Where reading goes on.
    pub position: Offset,
}

type Key = (String, PartitionId);
type Attempt = (BrokerId, Arc<Connection>, Result<(FetchResponse, Bytes), ClientError>);

/// Reads the partitions assigned to it.
#[derive(Debug)]
pub struct Consumer {
    cluster: Cluster,
    options: ConsumerOptions,
    positions: BTreeMap<Key, Offset>,
    fetches: JoinSet<Attempt>,
    /// Leaders with a fetch under way.
    busy: BTreeSet<BrokerId>,
    last_progress: Instant,
    /// What went wrong in an answer whose records were given out; dealt with at the next poll.
    postponed: Option<ClientError>,
}

impl Consumer {
    /// Consumes from `cluster`; nothing is assigned yet.
    #[must_use]
    pub fn new(cluster: Cluster, options: ConsumerOptions) -> Self {
        Self {
            cluster,
            options,
            positions: BTreeMap::new(),
            fetches: JoinSet::new(),
            busy: BTreeSet::new(),
            last_progress: Instant::now(),
            postponed: None,
        }
    }

    /// The cluster it consumes from.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Reads a partition from `from` on. Returns where that is.
    ///
    /// # Errors
    /// When the topic or partition does not exist, or the leader cannot be asked until the retry time-out.
    pub async fn assign(
        &mut self,
        topic: &str,
        partition: PartitionId,
        from: Position,
    ) -> Result<Offset, ClientError> {
        let offset = match from {
            Position::At(offset) => offset,
            Position::Earliest => self.offset(topic, partition, EARLIEST_TIMESTAMP).await?,
            Position::Latest => self.offset(topic, partition, LATEST_TIMESTAMP).await?,
            Position::Timestamp(timestamp) => self.offset(topic, partition, timestamp).await?,
        };
        self.positions.insert((topic.to_owned(), partition), offset);
        Ok(offset)
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, topic: &str, partition: PartitionId) {
        self.positions.remove(&(topic.to_owned(), partition));
    }

    /// Whether no partition is assigned.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.positions.is_empty()
    }

    /// Where the partition can be read up to now (exclusive).
    ///
    /// # Errors
    /// As [`Consumer::assign`].
    pub async fn end_offset(
        &mut self,
        topic: &str,
        partition: PartitionId,
    ) -> Result<Offset, ClientError> {
        self.offset(topic, partition, LATEST_TIMESTAMP).await
    }

    /// Waits for the next answer of any leader and gives out its records: none for a partition that has none, so that a
    /// caller sees its position and high watermark. Empty when nothing is assigned.
    ///
    /// # Errors
    /// What is not retriable (OFFSET_OUT_OF_RANGE, a batch that cannot be read), or what still failed after the retry
    /// time-out.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, ClientError> {
        while !self.positions.is_empty() {
            if let Some(error) = self.postponed.take() {
                self.back_off(error, None).await?;
            }
            let started = self.start_fetches().await;
            match self.fetches.join_next().await {
                Some(Ok((leader, connection, answer))) => {
                    self.busy.remove(&leader);
                    let answer = self.cluster.noting_failure(&connection, answer);
                    match answer.and_then(|(answer, frame)| self.take(answer, &frame)) {
                        Ok(fetched) if !fetched.is_empty() => {
                            self.last_progress = Instant::now();
                            return Ok(fetched);
                        }
                        Ok(_) => {}
                        Err(error) => self.postponed = Some(error),
                    }
                }
                // A task of ours neither panics nor is aborted while the set lives.
                Some(Err(_)) => {}
                None => self.postponed = started.err(),
            }
        }
        Ok(Vec::new())
    }

    /// Waits, then looks anew who leads the assigned partitions, and those of `topic`.
    async fn back_off(
        &mut self,
        error: ClientError,
        topic: Option<&str>,
    ) -> Result<(), ClientError> {
        let retry_timeout = self.cluster.options().retry_timeout;
        if !error.is_retriable() || self.last_progress.elapsed() > retry_timeout {
            return Err(error);
        }
        tracing::debug!(%error, "fetch is tried again");
        tokio::time::sleep(self.cluster.options().retry_backoff).await;
        let topics: BTreeSet<_> = self.positions.keys().map(|(topic, _)| topic.clone()).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).chain(topic).collect();
        match self.cluster.refresh(Some(&topics)).await {
            Err(error) if !error.is_retriable() => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Starts a fetch at each leader of assigned partitions that has none under way.
    async fn start_fetches(&mut self) -> Result<(), ClientError> {
        let mut by_leader: BTreeMap<BrokerId, Vec<(Key, Option<LeaderEpoch>)>> = BTreeMap::new();
        let mut result = Ok(());
        for key in self.positions.keys() {
            match self.cluster.leader_of(&key.0, key.1) {
                Ok((leader, epoch)) => {
                    by_leader.entry(leader).or_default().push((key.clone(), epoch));
                }
                Err(error) => result = Err(error),
            }
        }
        for (leader, partitions) in by_leader {
            if self.busy.contains(&leader) {
                continue;
            }
            match self.cluster.connection_to(leader).await {
                Ok(connection) => {
                    let request = self.request(&partitions);
                    let wait = self.options.fetch_wait;
                    self.busy.insert(leader);
                    self.fetches.spawn(async move {
                        let answer = connection.call_for(&request, wait).await;
                        (leader, connection, answer)
                    });
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn request(&self, partitions: &[(Key, Option<LeaderEpoch>)]) -> FetchRequest {
        let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
        for (key, epoch) in partitions {
            let Some(position) = self.positions.get(key) else { continue };
            topics.entry(&key.0).or_default().push(FetchPartition {
                partition: key.1,
                current_leader_epoch: *epoch,
                fetch_offset: *position,
                partition_max_bytes: self.options.partition_bytes_max,
                ..FetchPartition::default()
            });
        }
        let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
            topic: topic.to_owned(),
            partitions,
            ..FetchTopic::default()
        });
        FetchRequest {
            max_wait_ms: i32::try_from(self.options.fetch_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.options.fetch_bytes_min,
            max_bytes: self.options.fetch_bytes_max,
            topics: topics.collect(),
            ..FetchRequest::default()
        }
    }

    /// Takes one answer. What went wrong with some of its partitions waits until the others' records are given out.
    fn take(&mut self, answer: FetchResponse, frame: &Bytes) -> Result<Vec<Fetched>, ClientError> {
        let code = answer.error_code;
        code.into_result().map_err(|code| ClientError::broker("fetch", code, None))?;
        let mut all = Vec::new();
        for topic in answer.responses {
            for partition in topic.partitions {
                let key = (topic.topic.clone(), partition.partition_index);
                // Unassigned, or assigned elsewhere, while the fetch was under way.
                let Some(position) = self.positions.get(&key).copied() else { continue };
                let result = match partition.error_code {
                    ErrorCode::None => read(&key, &partition, frame, position),
                    code => {
                        let what = format!("fetch of {}/{} at offset {position}", key.0, key.1);
                        Err(ClientError::broker(what, code, None))
                    }
                };
                match result {
                    Ok(fetched) => {
                        self.positions.insert(key, fetched.position);
                        all.push(fetched);
                    }
                    // What cannot be retried is told first.
                    Err(error) => {
                        self.postponed =
                            self.postponed.take().filter(|e| !e.is_retriable()).or(Some(error));
                    }
                }
            }
        }
        Ok(all)
    }

    /// Asks the leader for the offset at a timestamp, again until it answers or the retry time-out.
    async fn offset(
        &mut self,
        topic: &str,
        partition: PartitionId,
        timestamp: i64,
    ) -> Result<Offset, ClientError> {
        if self.cluster.topic(topic).is_none() {
            self.cluster.refresh_topic(topic).await?;
        }
        self.last_progress = Instant::now();
        loop {
            match self.offset_once(topic, partition, timestamp).await {
                Ok(offset) => return Ok(offset),
                Err(error) => self.back_off(error, Some(topic)).await?,
            }
        }
    }

    async fn offset_once(
        &mut self,
        topic: &str,
        partition: PartitionId,
        timestamp: i64,
    ) -> Result<Offset, ClientError> {
        let (leader, epoch) = self.cluster.leader_of(topic, partition)?;
        let connection = self.cluster.connection_to(leader).await?;
        let asked = ListOffsetsPartition {
            partition_index: partition,
            current_leader_epoch: epoch,
            timestamp,
        };
        let request = ListOffsetsRequest {
            topics: vec![ListOffsetsTopic { name: topic.to_owned(), partitions: vec![asked] }],
            ..ListOffsetsRequest::default()
        };
        let answer = connection.call(&request).await;
        let answer = self.cluster.noting_failure(&connection, answer)?;
        let what = format!("offset of {topic}/{partition}");
        let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let missing = || ClientError::broker(what.clone(), ErrorCode::UnknownServerError, None);
        let found = found.ok_or_else(missing)?;
        let refused = |code| ClientError::broker(what.clone(), code, None);
        found.error_code.into_result().map_err(refused)?;
        match found.offset {
            Some(offset) => Ok(offset),
            // No record is that young: begin after the last one.
            None if timestamp >= 0 => {
                Box::pin(self.offset_once(topic, partition, LATEST_TIMESTAMP)).await
            }
            None => Err(missing()),
        }
    }
}

/// The records of one partition's answer from `position` on; those before a batch that cannot be read, or the error
/// when nothing stands before it.
fn read(
    key: &Key,
    partition: &FetchPartitionResponse,
    frame: &Bytes,
    position: Offset,
) -> Result<Fetched, ClientError> {
    let range = partition.records.as_ref().and_then(Records::in_frame).unwrap_or_default();
    let bytes = range.of(frame).unwrap_or_default();
    let mut fetched = Fetched {
        topic: key.0.clone(),
        partition: key.1,
        records: Vec::new(),
        high_watermark: partition.high_watermark.unwrap_or(position),
        position,
    };
    for batch in Batches::new(bytes) {
        match batch.and_then(|batch| read_batch(&batch, &mut fetched)) {
            Ok(()) => {}
            Err(_) if fetched.position > position => break,
            Err(source) => {
                let (topic, partition) = (fetched.topic, fetched.partition.get());
                return Err(ClientError::Batch {
                    topic,
                    partition,
                    offset: position.get(),
                    source,
                });
            }
        }
    }
    Ok(fetched)
}

/// Adds the batch's records from the position on, all or none.
fn read_batch(batch: &Batch<'_>, fetched: &mut Fetched) -> Result<(), BatchError> {
    let Some(end) = batch.header.end_offset() else { return Err(BatchError::Record) };
    // A fetch begins with the batch that holds the offset, or after compaction perhaps with one before it.
    if end <= fetched.position {
        return Ok(());
    }
    batch.check_crc()?;
    let before = fetched.records.len();
    if !batch.header.is_control() {
        for record in batch.records()? {
            match record {
                Ok(record) if record.offset >= fetched.position => {
                    fetched.records.push((record.offset, record.to_record()));
                }
                Ok(_) => {}
                Err(error) => {
                    fetched.records.truncate(before);
                    return Err(error);
                }
            }
        }
    }
    fetched.position = end;
    Ok(())
}
