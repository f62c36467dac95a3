//! Lists, describes and deletes groups, and sets what they remember.
//!
//! *Called by* applications and the command line, through [`Admin`]. *Calls* `cluster`, `connection`.
//!
//! Invariant: offsets of a group are set as nobody's member, which the group coordinator takes only while the group has
//! none: a running consumer is never moved behind its back.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_core::TopicPartition;
use client_protocol::messages::consumer_protocol::{Assignment, PROTOCOL_TYPE};
use client_protocol::messages::describe_groups::DescribedGroupMember;
use client_protocol::messages::find_coordinator::KEY_TYPE_GROUP;
use client_protocol::messages::offset_commit::{OffsetCommitPartition, OffsetCommitTopic};
use client_protocol::messages::offset_fetch::OffsetFetchGroup;
use client_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetFetchRequest,
};
use client_protocol::{BrokerId, ErrorCode, Offset, Request};
use tokio::time::Instant;

use super::Admin;
use crate::connection::Connection;
use crate::error::ClientError;

/// A group, as a list tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub id: String,
    /// `consumer`, `connect` and the like; empty for a group that never had members.
    pub protocol_type: String,
    /// `Stable`, `Empty` and so on; empty from a broker that does not tell.
    pub state: String,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// `Stable`, `Empty` and so on; `Dead` for one that nobody knows.
    pub state: String,
    /// `consumer`, `connect` and the like.
    pub protocol_type: String,
    /// How it shares out.
    pub protocol: String,
    /// The broker that coordinates it.
    pub coordinator: BrokerId,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// What it reads; empty for members that are no consumers.
    pub assignment: Vec<TopicPartition>,
}

/// What a group remembers of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset of the next record to be processed.
    pub offset: Offset,
    /// The group's own note.
    pub metadata: Option<String>,
}

impl Admin {
    /// All groups, by id, of all brokers.
    ///
    /// # Errors
    /// When one of the brokers does not answer: the list would not be whole.
    pub async fn list_groups(&mut self) -> Result<Vec<GroupListing>, ClientError> {
        self.cluster.refresh(Some(&[])).await?;
        let brokers: Vec<_> = self.cluster.brokers().map(|broker| broker.id).collect();
        let mut groups = Vec::new();
        for broker in brokers {
            let connection = self.cluster.connection_to(broker).await?;
            let answer = connection.call(&ListGroupsRequest::default()).await;
            let answer = self.cluster.noting_failure(&connection, answer)?;
            let what = format!("groups of broker {broker}");
            let refused = |code| ClientError::broker(what, code, None);
            answer.error_code.into_result().map_err(refused)?;
            groups.extend(answer.groups.into_iter().map(|group| GroupListing {
                id: group.group_id,
                protocol_type: group.protocol_type,
                state: group.group_state,
                coordinator: broker,
            }));
        }
        groups.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(groups)
    }

    /// A group and its members. One that nobody knows is `Dead` and has none.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with the group coordinator's reason, or why it does not answer.
    pub async fn describe_group(&mut self, group: &str) -> Result<Group, ClientError> {
        let request = DescribeGroupsRequest {
            groups: vec![group.to_owned()],
            include_authorized_operations: false,
        };
        let code = |answer: &<DescribeGroupsRequest as Request>::Response| {
            answer.groups.first().map_or(ErrorCode::UnknownServerError, |group| group.error_code)
        };
        let what = format!("group {group}");
        let (answer, coordinator) = match self.ask_coordinator(group, &request, code, &what).await {
            // Newer brokers say so; older ones call it dead.
            Err(error) if error.code() == Some(ErrorCode::GroupIdNotFound) => {
                let (_, coordinator) = self.coordinator_of(group).await?;
                (None, coordinator)
            }
            answer => {
                let (answer, coordinator) = answer?;
                (answer.groups.into_iter().next(), coordinator)
            }
        };
        let Some(described) = answer else {
            return Ok(Group {
                id: group.to_owned(),
                state: "Dead".to_owned(),
                protocol_type: String::new(),
                protocol: String::new(),
                coordinator,
                members: Vec::new(),
            });
        };
        let is_consumers = described.protocol_type == PROTOCOL_TYPE;
        let members = described.members.into_iter().map(|m| member(m, is_consumers)).collect();
        Ok(Group {
            id: described.group_id,
            state: described.group_state,
            protocol_type: described.protocol_type,
            protocol: described.protocol_data,
            coordinator,
            members,
        })
    }

    /// All offsets that a group remembers, by partition.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with the group coordinator's reason, or why it does not answer.
    pub async fn group_offsets(&mut self, group: &str) -> Result<Vec<GroupOffset>, ClientError> {
        let request = OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: None,
            groups: vec![OffsetFetchGroup {
                group_id: group.to_owned(),
                topics: None,
                ..OffsetFetchGroup::default()
            }],
            require_stable: false,
        };
        let code = |answer: &<OffsetFetchRequest as Request>::Response| {
            answer.groups.first().map_or(answer.error_code, |group| group.error_code)
        };
        let what = format!("offsets of group {group}");
        let (answer, _) = self.ask_coordinator(group, &request, code, &what).await?;
        let topics = answer.groups.into_iter().next().map_or(answer.topics, |group| group.topics);
        let mut offsets = Vec::new();
        for topic in topics {
            let name: Arc<str> = topic.name.into();
            for partition in topic.partitions {
                let Some(offset) = partition.committed_offset else { continue };
                let index = partition.partition_index;
                offsets.push(GroupOffset {
                    partition: TopicPartition { topic: name.clone(), partition: index },
                    offset,
                    metadata: partition.metadata,
                });
            }
        }
        offsets.sort_by(|one, other| one.partition.cmp(&other.partition));
        Ok(offsets)
    }

    /// Sets where a group goes on reading. Takes effect when a member joins.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with UNKNOWN_MEMBER_ID while the group has members; otherwise the group coordinator's
    /// reason, or why it does not answer.
    pub async fn set_group_offsets(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), ClientError> {
        let mut topics: BTreeMap<Arc<str>, Vec<OffsetCommitPartition>> = BTreeMap::new();
        for (partition, offset) in offsets {
            topics.entry(partition.topic.clone()).or_default().push(OffsetCommitPartition {
                partition_index: partition.partition,
                committed_offset: *offset,
                committed_leader_epoch: None,
                committed_metadata: Some(String::new()),
            });
        }
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            topics: topics
                .into_iter()
                .map(|(name, partitions)| OffsetCommitTopic { name: name.to_string(), partitions })
                .collect(),
            ..OffsetCommitRequest::default()
        };
        let code = |answer: &<OffsetCommitRequest as Request>::Response| {
            let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let codes = partitions.map(|partition| partition.error_code);
            codes.into_iter().find(|code| !code.is_none()).unwrap_or_default()
        };
        let what = format!("set offsets of group {group}");
        self.ask_coordinator(group, &request, code, &what).await.map(|_| ())
    }

    /// Deletes a group and what it remembers.
    ///
    /// # Errors
    /// [`ClientError::Broker`] with NON_EMPTY_GROUP while it has members, GROUP_ID_NOT_FOUND when there is no such one;
    /// otherwise why nobody answers.
    pub async fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest { groups_names: vec![group.to_owned()] };
        let code = |answer: &<DeleteGroupsRequest as Request>::Response| {
            answer.results.first().map_or(ErrorCode::UnknownServerError, |result| result.error_code)
        };
        let what = format!("delete group {group}");
        self.ask_coordinator(group, &request, code, &what).await.map(|_| ())
    }

    /// Asks the group's coordinator; looks for it anew while it is another one, or loads.
    async fn ask_coordinator<R: Request>(
        &mut self,
        group: &str,
        request: &R,
        code: impl Fn(&R::Response) -> ErrorCode,
        what: &str,
    ) -> Result<(R::Response, BrokerId), ClientError> {
        let deadline = Instant::now() + self.cluster.options().retry_timeout;
        loop {
            let error = match self.ask_coordinator_once(group, request).await {
                Ok((answer, coordinator)) => match code(&answer) {
                    ErrorCode::None => return Ok((answer, coordinator)),
                    code => ClientError::broker(what, code, None),
                },
                Err(error) => error,
            };
            if !error.is_retriable() || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(self.cluster.options().retry_backoff).await;
        }
    }

    async fn ask_coordinator_once<R: Request>(
        &mut self,
        group: &str,
        request: &R,
    ) -> Result<(R::Response, BrokerId), ClientError> {
        let (connection, coordinator) = self.coordinator_of(group).await?;
        let answer = connection.call(request).await;
        Ok((self.cluster.noting_failure(&connection, answer)?, coordinator))
    }

    async fn coordinator_of(
        &mut self,
        group: &str,
    ) -> Result<(Arc<Connection>, BrokerId), ClientError> {
        let request = FindCoordinatorRequest {
            key: group.to_owned(),
            key_type: KEY_TYPE_GROUP,
            coordinator_keys: vec![group.to_owned()],
        };
        let connection = self.cluster.any_connection().await?;
        let answer = connection.call(&request).await;
        let answer = self.cluster.noting_failure(&connection, answer)?;
        let (code, broker) = match answer.coordinators.first() {
            Some(found) => (found.error_code, found.node_id),
            None => (answer.error_code, answer.node_id),
        };
        let refused = |code| ClientError::broker(format!("coordinator of {group}"), code, None);
        code.into_result().map_err(refused)?;
        let broker = broker.ok_or_else(|| refused(ErrorCode::CoordinatorNotAvailable))?;
        if self.cluster.brokers().all(|known| known.id != broker) {
            self.cluster.refresh(Some(&[])).await?;
        }
        Ok((self.cluster.connection_to(broker).await?, broker))
    }
}

fn member(described: DescribedGroupMember, is_consumer: bool) -> GroupMember {
    let assignment = if is_consumer {
        // What a member of another make says may be anything; then nothing is shown of it.
        Assignment::decode(&described.member_assignment).unwrap_or_default()
    } else {
        Assignment::default()
    };
    let partitions = assignment.assigned_partitions.into_iter().flat_map(|topic| {
        let name: Arc<str> = topic.topic.into();
        let partitions = topic.partitions.into_iter();
        partitions.map(move |partition| TopicPartition { topic: name.clone(), partition })
    });
    GroupMember {
        id: described.member_id,
        instance_id: described.group_instance_id,
        client_id: described.client_id,
        host: described.client_host,
        assignment: partitions.collect(),
    }
}
