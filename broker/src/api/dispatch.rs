//! From a frame to the file of its API.
//!
//! Called by: the server's glue to `net`. Calls: one function per API. Invariant: a version that
//! the listener does not allow, or a body that cannot be read, closes the connection, except that
//! ApiVersions always answers; nothing here panics on what a stranger sends.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use client_protocol::api::Scope;
use client_protocol::messages::Request;
use client_protocol::{ApiKey, HeaderError, Reader, RequestHeader, decode_request_header};
use tracing::debug;

use super::call::{Call, Session};
use super::shared::Shared;
use super::{
    alter_partition, api_versions, controlled_shutdown, create_partitions, create_topics,
    delete_groups, delete_topics, describe_cluster, describe_configs, describe_groups,
    describe_replicas, elect_leaders, fetch, find_coordinator, heartbeat, init_producer_id,
    join_group, leave_group, list_groups, list_offsets, metadata, offset_commit, offset_delete,
    offset_fetch, offset_for_leader_epoch, produce, sync_group,
};
use crate::response::Dispatch;

/// The APIs of one listener.
pub struct Api {
    scope: Scope,
    shared: Arc<Shared>,
}

impl Api {
    /// The APIs that a listener of `scope` offers.
    pub fn new(scope: Scope, shared: Arc<Shared>) -> Self {
        Self { scope, shared }
    }

    /// A connection from `peer` to our address `local` was accepted.
    pub fn open(&self, peer: SocketAddr, local: SocketAddr) -> Session {
        Session { peer, local, scope: self.scope }
    }

    /// Takes in one request frame.
    pub fn dispatch(&self, session: &mut Session, frame: BytesMut) -> Dispatch {
        let mut reader = Reader::new(&frame);
        let header = match decode_request_header(&mut reader) {
            Ok(header) => header,
            Err(HeaderError::UnsupportedVersion {
                key: ApiKey::ApiVersions,
                correlation_id,
                ..
            }) => return api_versions::unsupported(correlation_id),
            Err(error) => {
                debug!(peer = %session.peer, "unreadable request: {error}");
                return Dispatch::close("unreadable request header");
            }
        };
        if !header.key.allows(header.version, session.scope) {
            let (api, version) = (header.key.name(), header.version);
            debug!(peer = %session.peer, api, version, "not offered on this listener");
            return Dispatch::close("api or version not offered on this listener");
        }
        let call = Call::new(session, &header);
        if header.key == ApiKey::Produce {
            // The batches are cut out of the frame, so it goes along.
            return match read(&call, reader) {
                Some(request) => produce::handle(&self.shared, &call, request, frame),
                None => Dispatch::close("unreadable request body"),
            };
        }
        self.route(&call, &header, reader).unwrap_or_else(|| {
            debug!(peer = %session.peer, api = header.key.name(), "unreadable body");
            Dispatch::close("unreadable request body")
        })
    }

    /// `None`: the body cannot be read.
    fn route(
        &self,
        call: &Call<'_>,
        header: &RequestHeader,
        reader: Reader<'_>,
    ) -> Option<Dispatch> {
        let shared = &self.shared;
        Some(match header.key {
            ApiKey::AlterPartition => alter_partition::handle(shared, call, read(call, reader)?),
            ApiKey::ApiVersions => api_versions::handle(call, &read(call, reader)?),
            ApiKey::ControlledShutdown => {
                controlled_shutdown::handle(shared, call, read(call, reader)?)
            }
            ApiKey::CreatePartitions => {
                create_partitions::handle(shared, call, read(call, reader)?)
            }
            ApiKey::CreateTopics => create_topics::handle(shared, call, read(call, reader)?),
            ApiKey::DeleteTopics => delete_topics::handle(shared, call, read(call, reader)?),
            ApiKey::DescribeCluster => describe_cluster::handle(shared, call, &read(call, reader)?),
            ApiKey::DescribeConfigs => describe_configs::handle(shared, call, &read(call, reader)?),
            ApiKey::DescribeReplicas => {
                describe_replicas::handle(shared, call, read(call, reader)?)
            }
            ApiKey::ElectLeaders => elect_leaders::handle(shared, call, read(call, reader)?),
            ApiKey::Fetch => fetch::handle(shared, call, read(call, reader)?),
            ApiKey::FindCoordinator => find_coordinator::handle(shared, call, &read(call, reader)?),
            ApiKey::InitProducerId => init_producer_id::handle(shared, call, &read(call, reader)?),
            ApiKey::ListOffsets => list_offsets::handle(shared, call, read(call, reader)?),
            ApiKey::Metadata => metadata::handle(shared, call, &read(call, reader)?),
            ApiKey::OffsetForLeaderEpoch => {
                offset_for_leader_epoch::handle(shared, call, read(call, reader)?)
            }
            ApiKey::Produce => return None,
            ApiKey::DeleteGroups
            | ApiKey::DescribeGroups
            | ApiKey::Heartbeat
            | ApiKey::JoinGroup
            | ApiKey::LeaveGroup
            | ApiKey::ListGroups
            | ApiKey::OffsetCommit
            | ApiKey::OffsetDelete
            | ApiKey::OffsetFetch
            | ApiKey::SyncGroup => return self.route_group(call, header.key, reader),
        })
    }

    /// As [`Api::route`], for what goes to a group's coordinator.
    fn route_group(&self, call: &Call<'_>, key: ApiKey, reader: Reader<'_>) -> Option<Dispatch> {
        let shared = &self.shared;
        Some(match key {
            ApiKey::DeleteGroups => delete_groups::handle(shared, call, read(call, reader)?),
            ApiKey::DescribeGroups => describe_groups::handle(shared, call, read(call, reader)?),
            ApiKey::Heartbeat => heartbeat::handle(shared, call, read(call, reader)?),
            ApiKey::JoinGroup => join_group::handle(shared, call, read(call, reader)?),
            ApiKey::LeaveGroup => leave_group::handle(shared, call, read(call, reader)?),
            ApiKey::ListGroups => list_groups::handle(shared, call, read(call, reader)?),
            ApiKey::OffsetCommit => offset_commit::handle(shared, call, read(call, reader)?),
            ApiKey::OffsetDelete => offset_delete::handle(shared, call, read(call, reader)?),
            ApiKey::OffsetFetch => offset_fetch::handle(shared, call, read(call, reader)?),
            ApiKey::SyncGroup => sync_group::handle(shared, call, read(call, reader)?),
            _ => return None,
        })
    }
}

/// Reads a request's body; what follows it is ignored, as Kafka does.
fn read<R: Request>(call: &Call<'_>, mut reader: Reader<'_>) -> Option<R> {
    match R::decode(&mut reader, call.version) {
        Ok(request) => Some(request),
        Err(error) => {
            debug!(peer = %call.session.peer, "{error}");
            None
        }
    }
}
