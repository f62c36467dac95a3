//! DescribeCluster (key 60, versions 0-1): brokers and controller. 1: the kind of endpoint.

use client_protocol::ErrorCode;
use client_protocol::messages::describe_cluster::{DescribeClusterBroker, ENDPOINT_TYPE_BROKERS};
use client_protocol::messages::{
    AUTHORIZED_OPERATIONS_OMITTED, DescribeClusterRequest, DescribeClusterResponse,
};

use super::call::Call;
use super::shared::{CLUSTER_OPERATIONS, Shared, public_endpoint};
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Shared,
    call: &Call<'_>,
    request: &DescribeClusterRequest,
) -> Dispatch {
    if request.endpoint_type != ENDPOINT_TYPE_BROKERS {
        let error_code = ErrorCode::UnsupportedEndpointType;
        return call.respond(&DescribeClusterResponse {
            error_code,
            error_message: Some(error_code.message().to_owned()),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        });
    }
    let image = shared.image();
    let brokers = image.brokers().filter_map(|broker| {
        let endpoint = public_endpoint(broker)?;
        Some(DescribeClusterBroker {
            broker_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.registration.rack.clone(),
        })
    });
    let cluster_authorized_operations = match request.include_cluster_authorized_operations {
        true => CLUSTER_OPERATIONS,
        false => AUTHORIZED_OPERATIONS_OMITTED,
    };
    call.respond(&DescribeClusterResponse {
        cluster_id: image.cluster_id().unwrap_or_default().to_owned(),
        controller_id: Some(shared.controller(&image)),
        brokers: brokers.collect(),
        cluster_authorized_operations,
        ..Default::default()
    })
}
