//! The connections of one producer or consumer, and how to find a first broker.
//!
//! *Called by* the drivers of `producer` and `consumer`. *Calls* `connection`.
//!
//! Invariant: nothing here waits: what takes time is a future that the driver runs beside its other work, and whose
//! result it brings back. Of topics it knows how to ask for them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use client_core::producer::Failure;
use client_protocol::messages::metadata::MetadataRequestTopic;
use client_protocol::messages::{MetadataRequest, MetadataResponse};
use client_protocol::{BrokerId, Request};

use crate::cluster::open_first;
use crate::connection::Connection;
use crate::error::ClientError;
use crate::options::ClientOptions;

/// What a connection is for: requests that a broker holds back must not stand before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Records in either direction; a consumer has several, by number.
    Records(u8),
    /// Joining a group and heartbeats.
    Group,
    /// What a group remembers.
    Offsets,
}

/// An answer, and the connection that it came by.
pub(crate) type Asked<T> = Result<(T, Arc<Connection>), ClientError>;

/// How long the broker that is asked first has, before another one is asked too.
const SEED_PATIENCE: Duration = Duration::from_secs(1);

/// Open connections.
#[derive(Debug)]
pub(crate) struct Network {
    options: ClientOptions,
    bootstrap: Vec<String>,
    links: BTreeMap<(BrokerId, Purpose), Arc<Connection>>,
    seed: Option<Arc<Connection>>,
}

impl Network {
    pub(crate) fn new(bootstrap: &[String], options: &ClientOptions) -> Self {
        Self {
            options: options.clone(),
            bootstrap: bootstrap.to_vec(),
            links: BTreeMap::new(),
            seed: None,
        }
    }

    /// An open connection to a broker.
    pub(crate) fn link(&self, broker: BrokerId, purpose: Purpose) -> Option<&Arc<Connection>> {
        self.links.get(&(broker, purpose)).filter(|link| !link.is_closed())
    }

    /// Keeps a connection; one that was there before ends, with all that waits on it.
    pub(crate) fn keep(&mut self, broker: BrokerId, purpose: Purpose, link: Arc<Connection>) {
        self.links.insert((broker, purpose), link);
    }

    /// Ends all connections to a broker.
    pub(crate) fn drop_links(&mut self, broker: BrokerId) {
        self.links.retain(|(of, _), link| {
            if *of == broker {
                link.end();
            }
            *of != broker
        });
    }

    /// Ends the connection of no particular broker if it is to this address.
    pub(crate) fn drop_seed_at(&mut self, address: &str) {
        if let Some(seed) = self.seed.take_if(|seed| seed.address() == address) {
            seed.end();
        }
    }

    /// Keeps a connection of no particular broker.
    fn keep_seed(&mut self, seed: Arc<Connection>) {
        self.seed = Some(seed);
    }

    /// Asks any broker about these topics, without making any; [`Network::told`] takes the answer.
    pub(crate) fn ask_metadata(
        &self,
        topics: &[Arc<str>],
        known: impl Iterator<Item = String>,
    ) -> impl Future<Output = Asked<MetadataResponse>> + Send + 'static {
        let named = |name: &Arc<str>| MetadataRequestTopic {
            name: Some(name.to_string()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(topics.iter().map(named).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        self.ask_anyone(request, known)
    }

    /// What a core is to know of an answer of any broker's. The connection it came by is kept.
    pub(crate) fn told<T>(&mut self, asked: Asked<T>, what: &str) -> Result<T, Failure> {
        match asked {
            Ok((answer, seed)) => {
                self.keep_seed(seed);
                Ok(answer)
            }
            Err(error) => {
                tracing::debug!(%error, "no answer to {what}");
                Err(failure(&error))
            }
        }
    }

    /// Opens a connection.
    pub(crate) fn open(
        &self,
        address: String,
    ) -> impl Future<Output = Result<Arc<Connection>, ClientError>> + Send + 'static {
        let options = self.options.clone();
        async move { Connection::open(&address, &options).await.map(Arc::new) }
    }

    /// Asks any broker: on the connection kept for that, or, when there is none or it is silent, the first address that
    /// answers. Gives the connection too.
    pub(crate) fn ask_anyone<R: Request + Send + Sync + 'static>(
        &self,
        request: R,
        known: impl Iterator<Item = String>,
    ) -> impl Future<Output = Result<(R::Response, Arc<Connection>), ClientError>> + Send + 'static
    where
        R::Response: Send,
    {
        let seed = self.seed.clone().filter(|seed| !seed.is_closed());
        let addresses = self.addresses(known);
        let options = self.options.clone();
        async move {
            if let Some(seed) = seed {
                match tokio::time::timeout(SEED_PATIENCE, seed.call(&request)).await {
                    Ok(Ok(response)) => return Ok((response, seed)),
                    Ok(Err(error)) if !error.is_retriable() => return Err(error),
                    Ok(Err(_)) | Err(_) => seed.end(),
                }
            }
            let connection = Arc::new(open_first(addresses, &options).await?);
            let response = connection.call(&request).await?;
            Ok((response, connection))
        }
    }

    fn addresses(&self, known: impl Iterator<Item = String>) -> Vec<String> {
        let mut addresses: Vec<String> = known.collect();
        for address in &self.bootstrap {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// A connection to any broker: the one kept for that, or one to the first address that answers.
    pub(crate) fn any(
        &self,
        known: impl Iterator<Item = String>,
    ) -> impl Future<Output = Result<Arc<Connection>, ClientError>> + Send + 'static {
        let seed = self.seed.clone().filter(|seed| !seed.is_closed());
        let addresses = self.addresses(known);
        let options = self.options.clone();
        async move {
            match seed {
                Some(seed) => Ok(seed),
                None => open_first(addresses, &options).await.map(Arc::new),
            }
        }
    }
}

/// What a core is to know of an error.
pub(crate) fn failure(error: &ClientError) -> Failure {
    let may_be_done = matches!(
        error,
        ClientError::Closed { .. } | ClientError::Timeout { .. } | ClientError::Answer { .. }
    );
    Failure { reason: error.to_string(), may_be_done, is_final: !error.is_retriable() }
}
