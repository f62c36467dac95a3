//! AlterPartition (key 56, versions 2-3, brokers only): a leader asks to change in-sync replicas.
//!
//! Only the broker that is the controller answers; any other says NOT_CONTROLLER. The answer is a
//! code per partition: the state itself comes with the metadata.

use std::sync::Arc;

use client_protocol::messages::AlterPartitionRequest;

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: AlterPartitionRequest,
) -> Dispatch {
    call.respond_later(shared.cluster.alter_partition_here(request))
}
