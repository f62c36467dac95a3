//! ControlledShutdown (key 7, version 3, brokers only): a stopping broker wants its leaders moved.
//!
//! Only the broker that is the controller answers; any other says NOT_CONTROLLER. The answer names
//! what the stopping broker still leads.

use std::sync::Arc;

use client_protocol::messages::ControlledShutdownRequest;

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: ControlledShutdownRequest,
) -> Dispatch {
    call.respond_later(shared.cluster.controlled_shutdown_here(request))
}
