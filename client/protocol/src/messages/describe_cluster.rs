//! DescribeCluster (key 60): brokers and controller, without topics.
//!
//! *Called by* admin clients and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::BrokerId;
use crate::messages::{AUTHORIZED_OPERATIONS_OMITTED, exchange};

exchange!(DescribeCluster, DescribeClusterRequest, DescribeClusterResponse);

/// Asks for the brokers; the other kind of endpoint, controllers, we do not have.
pub const ENDPOINT_TYPE_BROKERS: i8 = 1;

wire_structs! {
    /// Versions 0-1.
    pub struct DescribeClusterRequest {
        /// Fill in the cluster's authorized operations.
        include_cluster_authorized_operations: bool [0..],
        /// [`ENDPOINT_TYPE_BROKERS`], or 2 for controllers.
        endpoint_type: i8 [1.., default ENDPOINT_TYPE_BROKERS],
    }

    /// The cluster.
    pub struct DescribeClusterResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// Whether it could be described.
        error_code: ErrorCode [0..],
        /// Why not, in words.
        error_message: Option<String> [0.., nullable 0..],
        /// As asked.
        endpoint_type: i8 [1.., default ENDPOINT_TYPE_BROKERS],
        /// The cluster's id.
        cluster_id: String [0..],
        /// A broker that takes controller requests.
        controller_id: Option<BrokerId> [0..],
        /// The live brokers.
        brokers: Vec<DescribeClusterBroker> [0..],
        /// A bit set.
        cluster_authorized_operations: i32 [0.., default AUTHORIZED_OPERATIONS_OMITTED],
    }

    /// A live broker.
    pub struct DescribeClusterBroker {
        /// Its number.
        broker_id: BrokerId [0..],
        /// Its host name or address.
        host: String [0..],
        /// Its port.
        port: i32 [0..],
        /// Its rack, if it has one.
        rack: Option<String> [0.., nullable 0..],
    }
}
