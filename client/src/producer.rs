//! Sends records: each to its partition, in batches, to the partition's leader, again until it is known to be there.
//!
//! *Called by* applications and the command line. *Calls* `cluster`, `connection`, `partitioner`.
//!
//! Invariant: of one partition at most one batch is under way, and a batch that is sent again is the same bytes with the
//! same sequence number, so that an idempotent producer's retry is written once. When the fate of a batch stays unknown,
//! the producer takes a new identity, because the old one's sequence is unknown, too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client_protocol::messages::produce::{ProducePartition, ProduceTopic};
use client_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use client_protocol::records::{BatchBuilder, Producer as Identity, Record};
use client_protocol::{
    ApiKey, BrokerId, ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, Records,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::partitioner::partition_for_key;

/// When the broker answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Never: records may be lost unnoticed.
    None,
    /// When the leader has the records.
    Leader,
    /// When all in-sync replicas have the records.
    #[default]
    All,
}

impl Acks {
    const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How to produce.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When the broker answers.
    pub acks: Acks,
    /// The largest batch built, in bytes; a larger record still goes into a batch of its own.
    pub batch_bytes_max: usize,
    /// How long the broker may wait for the replicas.
    pub broker_timeout: Duration,
    /// Retries are written once. Needs [`Acks::All`] and a broker that gives producer ids; without, it is left off.
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            batch_bytes_max: 512 << 10,
            broker_timeout: Duration::from_secs(10),
            idempotent: true,
        }
    }
}

/// What became of one batch.
#[derive(Debug)]
pub struct BatchOutcome {
    /// Where it went.
    pub partition: PartitionId,
    /// How many records it holds.
    pub records: usize,
    /// The offset of its first record; `None` with [`Acks::None`], or when an earlier attempt had already been written
    /// too long ago for the broker to tell.
    pub result: Result<Option<Offset>, ClientError>,
}

/// Sends records to the partitions of any topics.
#[derive(Debug)]
pub struct Producer {
    cluster: Cluster,
    options: ProducerOptions,
    identity: Option<(ProducerId, ProducerEpoch)>,
    /// The next sequence number, by topic and partition, under the identity.
    sequences: BTreeMap<(String, PartitionId), i32>,
    /// The broker's view of the identity's sequences differs from ours.
    is_identity_spoiled: bool,
    next_unkeyed: u32,
}

/// The batches of one partition that wait, the first perhaps under way.
struct Lane {
    waiting: VecDeque<BatchBuilder>,
    head: Option<Head>,
}

struct Head {
    bytes: Bytes,
    records: i32,
}

type Attempt = (BrokerId, Vec<PartitionId>, Arc<Connection>, Result<ProduceResponse, ClientError>);

impl Producer {
    /// Produces to `cluster`.
    #[must_use]
    pub fn new(cluster: Cluster, options: ProducerOptions) -> Self {
        Self {
            cluster,
            options,
            identity: None,
            sequences: BTreeMap::new(),
            is_identity_spoiled: false,
            next_unkeyed: 0,
        }
    }

    /// Sends `records` to `topic` and waits until each batch is answered or given up. Keyed records go where Kafka's own
    /// client sends them; those without a key go to one partition, the next one at the next call.
    ///
    /// Batches of one partition keep the order of the records. When one fails, later ones are sent all the same: look at
    /// each outcome.
    ///
    /// # Errors
    /// When the topic does not exist or nobody can be asked; nothing was sent then.
    pub async fn send(
        &mut self,
        topic: &str,
        records: &[Record],
    ) -> Result<Vec<BatchOutcome>, ClientError> {
        let partitions = self.partitions(topic).await?;
        self.next_unkeyed = self.next_unkeyed.wrapping_add(1);
        let unkeyed = self.next_unkeyed % partitions.max(1);
        let chosen = records.iter().map(|record| {
            let keyed = record.key.as_ref().map(|key| partition_for_key(key, partitions));
            (keyed.unwrap_or(unkeyed).cast_signed(), record)
        });
        self.send_lanes(topic, lanes(chosen, self.options.batch_bytes_max)).await
    }

    /// As [`Producer::send`], to one partition of the caller's choice.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_to(
        &mut self,
        topic: &str,
        partition: PartitionId,
        records: &[Record],
    ) -> Result<Vec<BatchOutcome>, ClientError> {
        let partitions = self.partitions(topic).await?.cast_signed();
        if !(0..partitions).contains(&partition.get()) {
            let partition = partition.get();
            return Err(ClientError::NoSuchPartition { topic: topic.to_owned(), partition });
        }
        let chosen = records.iter().map(|record| (partition.get(), record));
        self.send_lanes(topic, lanes(chosen, self.options.batch_bytes_max)).await
    }

    /// The cluster it produces to.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    async fn partitions(&mut self, topic: &str) -> Result<u32, ClientError> {
        if self.cluster.topic(topic).is_none() {
            self.cluster.refresh_topic(topic).await?;
        }
        let partitions = self.cluster.topic(topic).map_or(0, |topic| topic.partitions.len());
        Ok(u32::try_from(partitions).unwrap_or(u32::MAX))
    }

    async fn send_lanes(
        &mut self,
        topic: &str,
        mut lanes: BTreeMap<PartitionId, Lane>,
    ) -> Result<Vec<BatchOutcome>, ClientError> {
        let mut outcomes = Vec::new();
        let mut deadline = Instant::now() + self.cluster.options().retry_timeout;
        while !lanes.is_empty() {
            let done_before = outcomes.len();
            let retry = match self.attempt(topic, &mut lanes, &mut outcomes).await {
                Ok(None) => continue,
                Ok(Some(error)) => error,
                Err(error) if error.is_retriable() => error,
                Err(error) if outcomes.is_empty() => return Err(error),
                Err(error) => {
                    self.give_up(topic, &mut lanes, &mut outcomes, &error);
                    break;
                }
            };
            if outcomes.len() > done_before {
                // Progress: the time-out is for a batch, not for a call of any size.
                deadline = Instant::now() + self.cluster.options().retry_timeout;
            }
            if Instant::now() >= deadline {
                self.give_up(topic, &mut lanes, &mut outcomes, &retry);
                break;
            }
            tracing::debug!(error = %retry, "produce is tried again");
            tokio::time::sleep(self.cluster.options().retry_backoff).await;
            match self.cluster.refresh(Some(&[topic])).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "metadata not refreshed"),
            }
        }
        Ok(outcomes)
    }

    /// Sends the head of each lane once. `Ok(Some(error))` when something is left to be retried.
    async fn attempt(
        &mut self,
        topic: &str,
        lanes: &mut BTreeMap<PartitionId, Lane>,
        outcomes: &mut Vec<BatchOutcome>,
    ) -> Result<Option<ClientError>, ClientError> {
        self.identify(lanes).await?;
        let mut by_leader: BTreeMap<BrokerId, Vec<PartitionId>> = BTreeMap::new();
        let mut retry = None;
        for (partition, lane) in lanes.iter() {
            if self.is_identity_spoiled && lane.head.is_none() {
                continue;
            }
            match self.cluster.leader_of(topic, *partition) {
                Ok((leader, _)) => by_leader.entry(leader).or_default().push(*partition),
                Err(error) => retry = Some(error),
            }
        }
        let mut attempts = JoinSet::new();
        for (leader, partitions) in by_leader {
            match self.cluster.connection_to(leader).await {
                Ok(connection) => {
                    let request = self.request(topic, &partitions, lanes);
                    let options = self.options.clone();
                    attempts.spawn(async move {
                        let answer = call(&connection, &request, &options).await;
                        (leader, partitions, connection, answer)
                    });
                }
                Err(error) => retry = Some(error),
            }
        }
        while let Some(attempt) = attempts.join_next().await {
            // A task of ours neither panics nor is aborted while the set lives.
            let Ok(attempt) = attempt else { continue };
            retry = self.settle(topic, attempt, lanes, outcomes).or(retry);
        }
        Ok(retry)
    }

    /// Takes the answers to one request; the error says what is to be retried.
    fn settle(
        &mut self,
        topic: &str,
        (_, partitions, connection, answer): Attempt,
        lanes: &mut BTreeMap<PartitionId, Lane>,
        outcomes: &mut Vec<BatchOutcome>,
    ) -> Option<ClientError> {
        let answer = match self.cluster.noting_failure(&connection, answer) {
            Ok(answer) => answer,
            Err(error) if error.is_retriable() => return Some(error),
            Err(error) => {
                let text = error.to_string();
                for partition in partitions {
                    let code = ErrorCode::UnknownServerError;
                    let error = ClientError::broker(topic, code, Some(text.clone()));
                    self.finish(topic, partition, Err(error), (lanes, outcomes));
                }
                return None;
            }
        };
        let mut retry = None;
        let answers: BTreeMap<_, _> = answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|partition| (partition.index, partition))
            .collect();
        for partition in partitions {
            let what = format!("{topic}/{partition}");
            let result = match answers.get(&partition) {
                None if self.options.acks == Acks::None => Ok(None),
                None => Err(ClientError::broker(what, ErrorCode::UnknownServerError, None)),
                Some(answer) => match answer.error_code {
                    ErrorCode::None => Ok(answer.base_offset),
                    ErrorCode::DuplicateSequenceNumber => Ok(None),
                    code => Err(ClientError::broker(what, code, answer.error_message.clone())),
                },
            };
            match result {
                Err(error) if error.is_retriable() => retry = Some(error),
                result => self.finish(topic, partition, result, (lanes, outcomes)),
            }
        }
        retry
    }

    /// Ends the batch under way in a lane.
    fn finish(
        &mut self,
        topic: &str,
        partition: PartitionId,
        result: Result<Option<Offset>, ClientError>,
        (lanes, outcomes): (&mut BTreeMap<PartitionId, Lane>, &mut Vec<BatchOutcome>),
    ) {
        let Some(lane) = lanes.get_mut(&partition) else { return };
        let Some(head) = lane.head.take() else { return };
        if lane.waiting.is_empty() {
            lanes.remove(&partition);
        }
        match &result {
            Ok(_) => {
                let next = self.sequences.entry((topic.to_owned(), partition)).or_default();
                *next = next.wrapping_add(head.records) & i32::MAX;
            }
            // The broker's view of the sequence differs from ours: start anew under another identity.
            Err(error) => {
                if matches!(
                    error.code(),
                    Some(
                        ErrorCode::OutOfOrderSequenceNumber
                            | ErrorCode::UnknownProducerId
                            | ErrorCode::InvalidProducerEpoch
                            | ErrorCode::ProducerFenced
                            | ErrorCode::UnknownServerError
                    )
                ) {
                    self.is_identity_spoiled = true;
                }
            }
        }
        let records = usize::try_from(head.records).unwrap_or_default();
        outcomes.push(BatchOutcome { partition, records, result });
    }

    fn give_up(
        &mut self,
        topic: &str,
        lanes: &mut BTreeMap<PartitionId, Lane>,
        outcomes: &mut Vec<BatchOutcome>,
        reason: &ClientError,
    ) {
        self.forget_identity();
        let detail = Some(reason.to_string());
        for (partition, lane) in std::mem::take(lanes) {
            let waiting = lane.waiting.iter().map(BatchBuilder::count);
            for records in lane.head.iter().map(|head| head.records).chain(waiting) {
                let what = format!("{topic}/{partition}");
                let error = ClientError::broker(what, ErrorCode::RequestTimedOut, detail.clone());
                let records = usize::try_from(records).unwrap_or_default();
                outcomes.push(BatchOutcome { partition, records, result: Err(error) });
            }
        }
    }

    fn forget_identity(&mut self) {
        self.identity = None;
        self.is_identity_spoiled = false;
        self.sequences.clear();
    }

    /// Gets an identity, if it is to have one and has none that is any good.
    ///
    /// Batches under way keep the old one, because they must be the same bytes when sent again; until they are
    /// answered, no other batch is begun.
    async fn identify(&mut self, lanes: &BTreeMap<PartitionId, Lane>) -> Result<(), ClientError> {
        if self.is_identity_spoiled && lanes.values().all(|lane| lane.head.is_none()) {
            self.forget_identity();
        }
        if self.identity.is_some() || !self.options.idempotent || self.options.acks != Acks::All {
            return Ok(());
        }
        let connection = self.cluster.any_connection().await?;
        if connection.version_of(ApiKey::InitProducerId).is_err() {
            self.options.idempotent = false;
            return Ok(());
        }
        let request = InitProducerIdRequest {
            transaction_timeout_ms: i32::MAX,
            ..InitProducerIdRequest::default()
        };
        let answer = connection.call(&request).await;
        let answer = self.cluster.noting_failure(&connection, answer)?;
        let refused = |code| ClientError::broker("InitProducerId", code, None);
        answer.error_code.into_result().map_err(refused)?;
        self.identity = answer.producer_id.map(|id| (id, answer.producer_epoch));
        self.sequences.clear();
        Ok(())
    }

    fn request(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        lanes: &mut BTreeMap<PartitionId, Lane>,
    ) -> ProduceRequest {
        let mut entries = Vec::new();
        for partition in partitions {
            let Some(lane) = lanes.get_mut(partition) else { continue };
            let sequence = self.sequences.get(&(topic.to_owned(), *partition)).copied();
            let identity = self.identity.map(|(id, epoch)| Identity {
                id,
                epoch,
                base_sequence: sequence.unwrap_or_default(),
                is_transactional: false,
            });
            if let Some(head) = lane.head(identity) {
                let records = Some(Records::Inline(head.bytes.clone()));
                entries.push(ProducePartition { index: *partition, records });
            }
        }
        ProduceRequest {
            transactional_id: None,
            acks: self.options.acks.code(),
            timeout_ms: i32::try_from(self.options.broker_timeout.as_millis()).unwrap_or(i32::MAX),
            topics: vec![ProduceTopic { name: topic.to_owned(), partitions: entries }],
        }
    }
}

impl Lane {
    /// The batch under way: the one from before, or the first that waits, stamped with the identity.
    fn head(&mut self, identity: Option<Identity>) -> Option<&Head> {
        if self.head.is_none() {
            let builder = self.waiting.pop_front()?;
            let records = builder.count();
            self.head = builder.build(identity).map(|bytes| Head { bytes, records });
        }
        self.head.as_ref()
    }
}

async fn call(
    connection: &Connection,
    request: &ProduceRequest,
    options: &ProducerOptions,
) -> Result<ProduceResponse, ClientError> {
    match options.acks {
        Acks::None => connection.send_only(request).await.map(|()| ProduceResponse::default()),
        Acks::Leader | Acks::All => {
            let (response, _) = connection.call_for(request, options.broker_timeout).await?;
            Ok(response)
        }
    }
}

/// Builds the batches of each partition, records in order.
fn lanes<'a>(
    records: impl Iterator<Item = (i32, &'a Record)>,
    batch_bytes_max: usize,
) -> BTreeMap<PartitionId, Lane> {
    let mut lanes: BTreeMap<PartitionId, Lane> = BTreeMap::new();
    for (partition, record) in records {
        let lane = lanes
            .entry(PartitionId::new(partition))
            .or_insert_with(|| Lane { waiting: VecDeque::new(), head: None });
        let has_room = lane.waiting.back_mut().is_some_and(|batch| batch.push(record));
        if !has_room {
            let mut batch = BatchBuilder::new(batch_bytes_max);
            // A record above 1 GiB fits nowhere; it is not in the batch, and so in no outcome either.
            if batch.push(record) {
                lane.waiting.push_back(batch);
            }
        }
    }
    lanes.retain(|_, lane| !lane.waiting.is_empty());
    lanes
}
