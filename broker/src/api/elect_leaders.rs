//! ElectLeaders (key 43, versions 0-2): the preferred leader, or any where none is in sync.
//!
//! The controller decides; the answer comes when it has, so that this broker may hear of the new
//! leaders a moment later than the client. Version 0 knows preferred elections only.

use std::sync::Arc;

use client_protocol::api::Scope;
use client_protocol::messages::ElectLeadersRequest;

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: ElectLeadersRequest,
) -> Dispatch {
    match call.session.scope {
        Scope::Public => call.respond_later(shared.cluster.elect_leaders(request)),
        Scope::InterBroker => call.respond_later(shared.cluster.elect_leaders_here(request)),
    }
}
