//! The messages: one file per API, request and response together, each declared once for all its versions.
//!
//! *Called by* everyone who speaks Kafka's protocol. *Calls* `declare`, `field`, `api`.
//!
//! Field names are Kafka's; `-1` on the wire is `None` where the type is an `Option` of an id. Times and
//! timestamps are milliseconds; a timestamp is since 1970 UTC, -1 for none.

pub mod alter_partition;
pub mod api_versions;
pub mod consumer_protocol;
pub mod controlled_shutdown;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_replicas;
pub mod elect_leaders;
pub mod fetch;
pub mod find_coordinator;
pub mod heartbeat;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod sync_group;
#[cfg(test)]
pub(crate) mod tests;

pub use alter_partition::{AlterPartitionRequest, AlterPartitionResponse};
pub use api_versions::{ApiVersionsRequest, ApiVersionsResponse};
pub use controlled_shutdown::{ControlledShutdownRequest, ControlledShutdownResponse};
pub use create_partitions::{CreatePartitionsRequest, CreatePartitionsResponse};
pub use create_topics::{CreateTopicsRequest, CreateTopicsResponse};
pub use delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse};
pub use delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
pub use describe_cluster::{DescribeClusterRequest, DescribeClusterResponse};
pub use describe_configs::{DescribeConfigsRequest, DescribeConfigsResponse};
pub use describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
pub use describe_replicas::{DescribeReplicasRequest, DescribeReplicasResponse};
pub use elect_leaders::{ElectLeadersRequest, ElectLeadersResponse};
pub use fetch::{FetchRequest, FetchResponse};
pub use find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
pub use heartbeat::{HeartbeatRequest, HeartbeatResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use join_group::{JoinGroupRequest, JoinGroupResponse};
pub use leave_group::{LeaveGroupRequest, LeaveGroupResponse};
pub use list_groups::{ListGroupsRequest, ListGroupsResponse};
pub use list_offsets::{ListOffsetsRequest, ListOffsetsResponse};
pub use metadata::{MetadataRequest, MetadataResponse};
pub use offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
pub use offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
pub use offset_fetch::{OffsetFetchRequest, OffsetFetchResponse};
pub use offset_for_leader_epoch::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
pub use produce::{ProduceRequest, ProduceResponse};
pub use sync_group::{SyncGroupRequest, SyncGroupResponse};

use crate::api::ApiKey;
use crate::declare::wire_structs;
use crate::field::{Field, Shape};
use crate::ids::{BrokerId, LeaderEpoch};
use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

/// What "not asked for" looks like where a response holds a set of authorized operations.
pub const AUTHORIZED_OPERATIONS_OMITTED: i32 = i32::MIN;

/// The body of a request or response.
pub trait Message: Field {
    /// The API it belongs to.
    const KEY: ApiKey;

    /// Reads the body. The reader is left after it: [`Reader::finish`] says whether bytes follow (Kafka's own
    /// broker does not ask).
    ///
    /// # Errors
    /// [`DecodeError`]: close the connection.
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let key = Self::KEY.code();
        let shape = shape(Self::KEY, version).ok_or(DecodeError::Version { key, version })?;
        Self::read(reader, shape)
    }

    /// Writes the body. What the version has no field for is left out.
    ///
    /// # Errors
    /// [`EncodeError`] when a value does not fit the version.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        let key = Self::KEY.code();
        let shape = shape(Self::KEY, version).ok_or(EncodeError::Version { key, version })?;
        self.write(writer, shape)
    }
}

/// The body of a request, which names the response that answers it.
pub trait Request: Message {
    /// What answers it.
    type Response: Message;
}

/// What a field of the message must know; `None` for a version that is not spoken here.
fn shape(key: ApiKey, version: i16) -> Option<Shape> {
    key.speaks(version).then(|| Shape {
        version,
        flexible: key.is_flexible(version),
        nullable: false,
    })
}

macro_rules! exchange {
    ($key:ident, $request:ident, $response:ident) => {
        impl $crate::messages::Message for $request {
            const KEY: $crate::ApiKey = $crate::ApiKey::$key;
        }

        impl $crate::messages::Message for $response {
            const KEY: $crate::ApiKey = $crate::ApiKey::$key;
        }

        impl $crate::messages::Request for $request {
            type Response = $response;
        }
    };
}
pub(crate) use exchange;

wire_structs! {
    /// Who leads a partition now, sent along with an error (KIP-951).
    pub struct LeaderIdAndEpoch {
        /// The leader, if known.
        leader_id: Option<BrokerId> [0..],
        /// Its epoch, if known.
        leader_epoch: Option<LeaderEpoch> [0..],
    }

    /// Where a leader named by [`LeaderIdAndEpoch`] listens (KIP-951).
    pub struct NodeEndpoint {
        /// The broker.
        node_id: BrokerId [0..],
        /// Its host name or address.
        host: String [0..],
        /// Its port.
        port: i32 [0..],
        /// Its rack, if it has one.
        rack: Option<String> [0.., nullable 0..],
    }
}
