//! Does what the producer's core says: connects, sends, asks, and tells the outcomes.
//!
//! *Called by* `producer`, as one task. *Calls* `client-core`, `network`, `routing`.
//!
//! Invariant: requests leave in the order of the core's effects; every one is answered to the core once. The core's lock
//! is never held across an await, nor while records are packed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use client_core::producer::{Effect, Failure, Outgoing, RequestId};
use client_protocol::messages::produce::{ProducePartition, ProduceTopic};
use client_protocol::messages::{
    InitProducerIdRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use client_protocol::pack::pack;
use client_protocol::records::Compression;
use client_protocol::{ApiKey, BrokerId, ProducerEpoch, ProducerId, Records};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Acks, Shared, Token};
use crate::connection::{Connection, Started};
use crate::error::ClientError;
use crate::network::{Asked, Network, Purpose, failure};
use crate::options::ClientOptions;
use crate::routing::Routes;

const RECORDS: Purpose = Purpose::Records(0);

/// Longer than anybody waits.
const IDLE: Duration = Duration::from_secs(3600);

/// One batch in a request, and its header and records, which go beside it.
type Part = (ProducePartition, (Bytes, Bytes));

/// What a task of the driver brought.
enum Done {
    Opened(BrokerId, Result<Arc<Connection>, ClientError>),
    Answered(RequestId, Result<ProduceResponse, ClientError>),
    Metadata(Vec<Arc<str>>, Asked<MetadataResponse>),
    Identity(Result<Option<(ProducerId, ProducerEpoch)>, ClientError>),
}

/// Settles, when it is dropped with the task, what the task has not: also when it was aborted or panicked.
pub(super) struct Ending(pub(super) Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut effects = Vec::new();
        {
            let mut core = self.0.core();
            // Under the lock, so that nothing is pushed behind it.
            self.0.has_ended.store(true, Ordering::Relaxed);
            core.shut_down(&mut effects);
        }
        for effect in effects {
            if let Effect::Settled { token, result } = effect {
                token.settle(result);
            }
        }
        self.0.progress.notify_waiters();
    }
}

struct Driver {
    shared: Arc<Shared>,
    network: Network,
    tasks: JoinSet<Done>,
}

/// Runs until it is aborted.
pub(super) async fn run(ending: Ending, bootstrap: Vec<String>, options: ClientOptions) {
    let shared = ending.0.clone();
    let mut routes = Routes::follow(&options);
    let network = Network::new(&bootstrap, &options);
    let mut driver = Driver { shared, network, tasks: JoinSet::new() };
    let mut effects = Vec::new();
    loop {
        let now_ms = driver.shared.now_ms();
        let next_ms = driver.shared.core().poll(now_ms, &mut effects);
        driver.perform(&mut effects);
        let until = next_ms.map_or(IDLE, |next| Duration::from_millis(next.saturating_sub(now_ms)));
        let shared = driver.shared.clone();
        // Each branch is cancel-safe: a permit stays, a finished task stays in the set, a route in its channel.
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(Ok(done)) = driver.tasks.join_next() => driver.done(done, &mut effects),
            route = routes.next() => shared.core().route(&route, &mut effects),
            () = tokio::time::sleep_until(Instant::now() + until) => {}
        }
        while let Some(Ok(done)) = driver.tasks.try_join_next() {
            driver.done(done, &mut effects);
        }
        driver.perform(&mut effects);
    }
}

impl Driver {
    /// Does what is to be done; what cannot be done at once becomes a task, or a failure.
    fn perform(&mut self, effects: &mut Vec<Effect<Token>>) {
        let mut failed = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Connect { broker, address } => {
                    let open = self.network.open(address);
                    self.tasks.spawn(async move { Done::Opened(broker, open.await) });
                }
                Effect::Disconnect(broker) => self.network.drop_links(broker),
                Effect::Send { request, broker, batches } => match self.send(broker, batches) {
                    Ok(started) => {
                        self.tasks.spawn(async move {
                            let answer = started.answer().await;
                            let answer = answer.map(|answer| answer.unwrap_or_default().0);
                            Done::Answered(request, answer)
                        });
                    }
                    Err(error) => failed.push((request, failure(&error))),
                },
                Effect::AskMetadata(topics) => self.ask_metadata(topics),
                Effect::AskIdentity => self.ask_identity(),
                Effect::Settled { token, result } => {
                    token.settle(result);
                    self.shared.progress.notify_waiters();
                }
            }
        }
        for (request, failure) in failed {
            self.fail(request, failure);
        }
    }

    /// A request that could not even be queued.
    fn fail(&mut self, request: RequestId, failure: Failure) {
        let mut effects = Vec::new();
        let now_ms = self.shared.now_ms();
        self.shared.core().answered(request, Err(failure), now_ms, &mut effects);
        for effect in effects {
            if let Effect::Settled { token, result } = effect {
                token.settle(result);
                self.shared.progress.notify_waiters();
            }
        }
        // The core said when to look again before it knew of this.
        self.shared.wake.notify_one();
    }

    fn send(
        &self,
        broker: BrokerId,
        batches: Vec<Outgoing>,
    ) -> Result<Started<ProduceRequest>, ClientError> {
        let options = &self.shared.options;
        let link = self.network.link(broker, RECORDS).ok_or(ClientError::NoSuchBroker(broker))?;
        let mut topics: BTreeMap<Arc<str>, Vec<Part>> = BTreeMap::new();
        for outgoing in batches {
            let packed = match options.compression {
                Compression::None => None,
                codec => {
                    let (codec, records) = pack(codec, outgoing.batch.records());
                    Some(outgoing.batch.packed(codec, records))
                }
            };
            let batch = packed.as_ref().unwrap_or(&outgoing.batch);
            let header = batch.header(outgoing.identity);
            let header = header.ok_or(client_protocol::EncodeError::TooLong(batch.size()))?;
            let partition = ProducePartition {
                index: outgoing.partition.partition,
                records: Some(Records::Spliced(batch.size())),
            };
            let pieces = (Bytes::copy_from_slice(&header), batch.records().clone());
            topics.entry(outgoing.partition.topic).or_default().push((partition, pieces));
        }
        let mut request = ProduceRequest {
            transactional_id: None,
            acks: options.acks.code(),
            timeout_ms: i32::try_from(options.broker_timeout.as_millis()).unwrap_or(i32::MAX),
            topics: Vec::new(),
        };
        let mut records = Vec::new();
        for (topic, partitions) in topics {
            let (partitions, pieces): (Vec<_>, Vec<_>) = partitions.into_iter().unzip();
            request.topics.push(ProduceTopic { name: topic.to_string(), partitions });
            records.extend(pieces);
        }
        link.start(&request, records, (options.acks != Acks::None, options.broker_timeout))
    }

    fn ask_metadata(&mut self, topics: Vec<Arc<str>>) {
        let ask = self.network.ask_metadata(&topics, self.known_addresses());
        self.tasks.spawn(async move { Done::Metadata(topics, ask.await) });
    }

    fn ask_identity(&mut self) {
        let any = self.network.any(self.known_addresses());
        self.tasks.spawn(async move {
            let request = InitProducerIdRequest {
                transaction_timeout_ms: i32::MAX,
                ..InitProducerIdRequest::default()
            };
            let identity = async {
                let connection = any.await?;
                if connection.version_of(ApiKey::InitProducerId).is_err() {
                    return Ok(None);
                }
                let answer = connection.call(&request).await?;
                let refused = |code| ClientError::broker("InitProducerId", code, None);
                answer.error_code.into_result().map_err(refused)?;
                Ok(answer.producer_id.map(|id| (id, answer.producer_epoch)))
            };
            Done::Identity(identity.await)
        });
    }

    fn known_addresses(&self) -> std::vec::IntoIter<String> {
        let core = self.shared.core();
        core.metadata().addresses().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }

    fn done(&mut self, done: Done, effects: &mut Vec<Effect<Token>>) {
        let now_ms = self.shared.now_ms();
        let mut core = self.shared.core();
        match done {
            Done::Opened(broker, Ok(link)) => {
                self.network.keep(broker, RECORDS, link);
                core.connected(broker);
            }
            Done::Opened(broker, Err(error)) => {
                tracing::debug!(%broker, %error, "cannot connect");
                core.connect_failed(broker, now_ms);
            }
            Done::Answered(request, answer) => {
                let answer = answer.map_err(|error| {
                    tracing::debug!(%error, "produce failed");
                    failure(&error)
                });
                core.answered(request, answer, now_ms, effects);
            }
            Done::Metadata(topics, answer) => {
                let answer = self.network.told(answer, "metadata");
                core.metadata_answered(answer, &topics, now_ms);
                self.shared.progress.notify_waiters();
            }
            Done::Identity(identity) => {
                core.identified(identity.map_err(|error| failure(&error)), now_ms);
            }
        }
    }
}
