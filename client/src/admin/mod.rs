//! Creates, lists, describes and deletes topics; groups and offsets are in files of their own.
//!
//! *Called by* applications and the command line. *Calls* `cluster`, `connection`.
//!
//! Invariant: a call that changes something is sent again only after an answer that says it was not done
//! (NOT_CONTROLLER), or when nobody could be reached.

mod groups;
mod offsets;

pub use groups::{Group, GroupListing, GroupMember, GroupOffset};
pub use offsets::OffsetAt;

use std::time::Duration;

use client_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use client_protocol::messages::delete_topics::DeleteTopicState;
use client_protocol::messages::describe_configs::{DescribeConfigsResource, RESOURCE_TOPIC};
use client_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest};
use client_protocol::{ErrorCode, Request};
use tokio::time::Instant;

use crate::cluster::{Cluster, Topic};
use crate::error::ClientError;

/// How long the broker may wait until a change of topics is everywhere.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A topic to create.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` for the broker's default.
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` for the broker's default.
    pub replication_factor: Option<i16>,
    /// Settings that differ from the broker's.
    pub configs: Vec<(String, String)>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` when it is secret or not set.
    pub value: Option<String>,
    /// Where it comes from: one of the `SOURCE_` constants of DescribeConfigs.
    pub source: i8,
    /// It was set on the topic.
    pub is_topics_own: bool,
}

/// Administers topics and groups.
#[derive(Debug)]
pub struct Admin {
    cluster: Cluster,
}

impl Admin {
    /// Administers `cluster`.
    #[must_use]
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// The cluster it administers.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Creates a topic; `validate_only` just says whether it would work.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with the broker's reason, or why nobody answers.
    pub async fn create_topic(
        &mut self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<(), ClientError> {
        let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: name.clone(),
            value: Some(value.clone()),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.clone(),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replication_factor.unwrap_or(-1),
                configs: configs.collect(),
                ..CreatableTopic::default()
            }],
            timeout_ms: i32::try_from(CHANGE_TIMEOUT.as_millis()).unwrap_or(i32::MAX),
            validate_only,
        };
        let what = format!("create topic {}", topic.name);
        self.change(
            &request,
            |answer| {
                let result = answer.topics.into_iter().next();
                result.map(|result| (result.error_code, result.error_message))
            },
            &what,
        )
        .await
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with the broker's reason, or why nobody answers.
    pub async fn delete_topic(&mut self, name: &str) -> Result<(), ClientError> {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState { name: Some(name.to_owned()), topic_id: None }],
            topic_names: vec![name.to_owned()],
            timeout_ms: i32::try_from(CHANGE_TIMEOUT.as_millis()).unwrap_or(i32::MAX),
        };
        let what = format!("delete topic {name}");
        self.change(
            &request,
            |answer| {
                let result = answer.responses.into_iter().next();
                result.map(|result| (result.error_code, result.error_message))
            },
            &what,
        )
        .await
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// Why nobody answers.
    pub async fn list_topics(&mut self) -> Result<Vec<Topic>, ClientError> {
        self.cluster.refresh(None).await?;
        Ok(self.cluster.topics().cloned().collect())
    }

    /// One topic.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with UNKNOWN_TOPIC_OR_PARTITION, or why nobody answers.
    pub async fn describe_topic(&mut self, name: &str) -> Result<Topic, ClientError> {
        self.cluster.refresh_topic(name).await.cloned()
    }

    /// The settings of a topic.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with the broker's reason, or why nobody answers.
    pub async fn topic_configs(&mut self, name: &str) -> Result<Vec<ConfigEntry>, ClientError> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.to_owned(),
                configuration_keys: None,
            }],
            ..DescribeConfigsRequest::default()
        };
        let connection = self.cluster.any_connection().await?;
        let answer = connection.call(&request).await;
        let answer = self.cluster.noting_failure(&connection, answer)?;
        let what = format!("settings of topic {name}");
        let missing = ErrorCode::UnknownServerError;
        let result = answer.results.into_iter().next();
        let result = result.ok_or_else(|| ClientError::broker(what.clone(), missing, None))?;
        if !result.error_code.is_none() {
            return Err(ClientError::broker(what, result.error_code, result.error_message));
        }
        let entries = result.configs.into_iter().map(|entry| ConfigEntry {
            name: entry.name,
            value: entry.value,
            source: entry.config_source,
            is_topics_own: entry.config_source
                == client_protocol::messages::describe_configs::SOURCE_TOPIC,
        });
        Ok(entries.collect())
    }

    /// Sends a change to the controller; looks for it anew while brokers say it is another.
    async fn change<R: Request>(
        &mut self,
        request: &R,
        result: impl Fn(R::Response) -> Option<(ErrorCode, Option<String>)>,
        what: &str,
    ) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.cluster.options().retry_timeout;
        loop {
            let error = match self.change_once(request, &result, what).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let was_not_done = error.code() == Some(ErrorCode::NotController)
                || matches!(error, ClientError::Connect { .. } | ClientError::NoSuchBroker(_));
            if !was_not_done || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(self.cluster.options().retry_backoff).await;
            match self.cluster.refresh(Some(&[])).await {
                Err(error) if !error.is_retriable() => return Err(error),
                Err(_) | Ok(()) => {}
            }
        }
    }

    async fn change_once<R: Request>(
        &mut self,
        request: &R,
        result: impl Fn(R::Response) -> Option<(ErrorCode, Option<String>)>,
        what: &str,
    ) -> Result<(), ClientError> {
        let connection = self.cluster.connection_to_controller().await?;
        let answer = connection.call_for(request, CHANGE_TIMEOUT).await;
        let (answer, _) = self.cluster.noting_failure(&connection, answer)?;
        match result(answer) {
            Some((ErrorCode::None, _)) => Ok(()),
            Some((code, detail)) => Err(ClientError::broker(what, code, detail)),
            None => Err(ClientError::broker(what, ErrorCode::UnknownServerError, None)),
        }
    }
}
