//! What the client knows of the cluster: brokers, controller, topics and their leaders, and one connection each.
//!
//! *Called by* `producer`, `consumer`, `admin`. *Calls* `connection`.
//!
//! Invariant: what is cached is what some broker once said; it is replaced as a whole by the next answer, and asked for
//! anew when a broker refuses. A leader epoch never goes back: an answer with an older one is left aside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client_protocol::messages::metadata::{MetadataPartition, MetadataRequestTopic, MetadataTopic};
use client_protocol::messages::{MetadataRequest, MetadataResponse};
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, Request, TopicId};

use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::error::ClientError;
use crate::options::ClientOptions;

/// How long a server may be silent before the next one is asked too.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// Where clients reach it.
    pub host: String,
    /// Where clients reach it.
    pub port: i32,
    /// Its rack, if it has one.
    pub rack: Option<String>,
}

impl Broker {
    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, from brokers that tell.
    pub id: Option<TopicId>,
    /// One of the cluster's own.
    pub is_internal: bool,
    /// By ascending number.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: PartitionId,
    /// Whether it can be used.
    pub error: ErrorCode,
    /// Its leader, if it has one.
    pub leader: Option<BrokerId>,
    /// The leader's epoch, from brokers that tell.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Its replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Those in sync.
    pub isr: Vec<BrokerId>,
}

impl Partition {
    /// Fewer replicas are in sync than there are.
    #[must_use]
    pub fn is_under_replicated(&self) -> bool {
        self.isr.len() < self.replicas.len()
    }
}

/// A view of the cluster, with a connection to each broker that was needed.
#[derive(Debug)]
pub struct Cluster {
    options: ClientOptions,
    bootstrap: Vec<String>,
    id: Option<String>,
    controller: Option<BrokerId>,
    brokers: BTreeMap<BrokerId, Broker>,
    topics: BTreeMap<String, Topic>,
    connections: BTreeMap<BrokerId, Arc<Connection>>,
    seed: Option<Arc<Connection>>,
}

impl Cluster {
    /// Asks the first of `bootstrap` (`host:port` each) that answers for the brokers.
    ///
    /// # Errors
    /// [`ClientError::NoBootstrap`], or why the last of them failed.
    pub async fn connect(
        bootstrap: &[String],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let mut cluster = Self {
            options,
            bootstrap: bootstrap.to_vec(),
            id: None,
            controller: None,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            connections: BTreeMap::new(),
            seed: None,
        };
        cluster.refresh(Some(&[])).await?;
        Ok(cluster)
    }

    /// The settings it was made with.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// The cluster's id, once known.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The controller, as the last answer said.
    #[must_use]
    pub fn controller(&self) -> Option<BrokerId> {
        self.controller
    }

    /// The live brokers, as the last answer said.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values()
    }

    /// The topics asked for so far.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// A topic asked for before; `None` when the cluster had no such topic.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// Asks for the brokers and these topics; `None` for all topics, which also forgets those that are gone. Topics are
    /// not created by asking.
    ///
    /// # Errors
    /// Why no broker answers. A topic that does not exist is no error here: it is then not in the cache.
    pub async fn refresh(&mut self, topics: Option<&[&str]>) -> Result<(), ClientError> {
        let named = |name: &&str| MetadataRequestTopic {
            name: Some((*name).to_owned()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: topics.map(|names| names.iter().map(named).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let answer = self.ask_anyone(&request).await?;
        if topics.is_none() {
            let listed =
                |name: &String| answer.topics.iter().any(|topic| topic.name.as_ref() == Some(name));
            self.topics.retain(|name, _| listed(name));
        }
        self.adopt(answer);
        Ok(())
    }

    /// As [`Cluster::refresh`] for one topic.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with UNKNOWN_TOPIC_OR_PARTITION when there is no such topic, or why nobody answers.
    pub async fn refresh_topic(&mut self, name: &str) -> Result<&Topic, ClientError> {
        self.refresh(Some(&[name])).await?;
        self.topics.get(name).ok_or_else(|| {
            let code = ErrorCode::UnknownTopicOrPartition;
            ClientError::broker(format!("topic {name}"), code, None)
        })
    }

    /// Who leads a partition, from the cache.
    ///
    /// # Errors
    /// [`ClientError::NoLeader`], [`ClientError::NoSuchPartition`]: refresh, then try again.
    pub fn leader_of(
        &self,
        topic: &str,
        partition: PartitionId,
    ) -> Result<(BrokerId, Option<LeaderEpoch>), ClientError> {
        let missing =
            || ClientError::NoSuchPartition { topic: topic.to_owned(), partition: partition.get() };
        let known = self.topics.get(topic).ok_or_else(missing)?;
        let found = known.partitions.iter().find(|p| p.id == partition).ok_or_else(missing)?;
        let leader = found.leader.ok_or_else(|| ClientError::NoLeader {
            topic: topic.to_owned(),
            partition: partition.get(),
        })?;
        Ok((leader, found.leader_epoch))
    }

    /// A connection to that broker; opened when there is none, or the last one ended.
    ///
    /// # Errors
    /// [`ClientError::NoSuchBroker`], or why it cannot be reached.
    pub async fn connection_to(
        &mut self,
        broker: BrokerId,
    ) -> Result<Arc<Connection>, ClientError> {
        if let Some(connection) = self.connections.get(&broker)
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let address = self.brokers.get(&broker).ok_or(ClientError::NoSuchBroker(broker))?.address();
        let connection = Arc::new(Connection::open(&address, &self.options).await?);
        self.connections.insert(broker, connection.clone());
        Ok(connection)
    }

    /// A connection to the controller, or to any broker while none is known (brokers forward).
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub async fn connection_to_controller(&mut self) -> Result<Arc<Connection>, ClientError> {
        match self.controller {
            Some(controller) => self.connection_to(controller).await,
            None => self.any_connection().await,
        }
    }

    /// A connection to some broker: an open one, a known broker, or a bootstrap server.
    ///
    /// # Errors
    /// [`ClientError::NoBootstrap`], or why the last one tried failed.
    pub async fn any_connection(&mut self) -> Result<Arc<Connection>, ClientError> {
        let open = self.connections.values().chain(&self.seed).find(|c| !c.is_closed());
        if let Some(connection) = open {
            return Ok(connection.clone());
        }
        let known = self.brokers.values().map(Broker::address);
        let mut addresses: Vec<_> = known.collect();
        for address in &self.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let connection = Arc::new(open_first(addresses, &self.options).await?);
        self.seed = Some(connection.clone());
        Ok(connection)
    }

    /// Asks a broker; another one when it hangs up or does not answer.
    async fn ask_anyone<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let mut others = self.brokers.len().saturating_add(self.bootstrap.len());
        loop {
            let connection = self.any_connection().await?;
            let answer = connection.call(request).await;
            match self.noting_failure(&connection, answer) {
                Err(error) if error.is_retriable() && others > 0 => {
                    others = others.saturating_sub(1);
                }
                answer => return answer,
            }
        }
    }

    /// Forgets a connection that a failed call has spoiled.
    pub(crate) fn noting_failure<T>(
        &mut self,
        connection: &Arc<Connection>,
        result: Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        if result.as_ref().is_err_and(ClientError::spoils_connection) {
            self.connections.retain(|_, known| !Arc::ptr_eq(known, connection));
            self.seed.take_if(|known| Arc::ptr_eq(known, connection));
        }
        result
    }

    fn adopt(&mut self, answer: MetadataResponse) {
        self.id = answer.cluster_id.or(self.id.take());
        self.controller = answer.controller_id;
        let brokers = answer.brokers.into_iter().map(|broker| Broker {
            id: broker.node_id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        });
        let brokers: BTreeMap<_, _> = brokers.map(|broker| (broker.id, broker)).collect();
        // A broker that moved is another connection.
        self.connections.retain(|id, _| self.brokers.get(id) == brokers.get(id));
        self.brokers = brokers;
        for topic in answer.topics {
            self.adopt_topic(topic);
        }
    }

    fn adopt_topic(&mut self, topic: MetadataTopic) {
        let Some(name) = topic.name else { return };
        if !topic.error_code.is_none() && topic.partitions.is_empty() {
            self.topics.remove(&name);
            return;
        }
        let before = self.topics.get(&name).filter(|before| before.id == topic.topic_id);
        let mut partitions: Vec<_> =
            topic.partitions.into_iter().map(|partition| newer(partition, before)).collect();
        partitions.sort_by_key(|partition| partition.id);
        let is_internal = topic.is_internal;
        let topic = Topic { name: name.clone(), id: topic.topic_id, is_internal, partitions };
        self.topics.insert(name, topic);
    }
}

/// Opens a connection to the first of `addresses` that answers. A server that is silent does not hold the others up: the
/// next one gets its chance after [`NEXT_ADDRESS_AFTER`].
pub(crate) async fn open_first(
    addresses: Vec<String>,
    options: &ClientOptions,
) -> Result<Connection, ClientError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = ClientError::NoBootstrap;
    loop {
        match waiting.next() {
            Some(address) => {
                let options = options.clone();
                attempts.spawn(async move { Connection::open(&address, &options).await });
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let patience = if waiting.len() > 0 { NEXT_ADDRESS_AFTER } else { options.connect_timeout };
        // Cancel-safe: an attempt that is not done stays in the set.
        match tokio::time::timeout(patience, attempts.join_next()).await {
            Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
            Ok(Some(Ok(Err(error)))) => last = error,
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
}

/// What the answer says of a partition, unless an earlier answer was of a later leader.
fn newer(answer: MetadataPartition, before: Option<&Topic>) -> Partition {
    let known = before
        .and_then(|topic| topic.partitions.iter().find(|p| p.id == answer.partition_index))
        .filter(|known| known.leader_epoch > answer.leader_epoch);
    if let Some(known) = known {
        return known.clone();
    }
    Partition {
        id: answer.partition_index,
        error: answer.error_code,
        leader: answer.leader_id,
        leader_epoch: answer.leader_epoch,
        replicas: answer.replica_nodes,
        isr: answer.isr_nodes,
    }
}
