//! InitProducerId (key 22, versions 0-4): an identity for an idempotent producer.
//!
//! 3: a producer may ask to raise the epoch of the identity it has; it gets a new identity
//! instead, which every client takes. Transactions are not kept yet: a transactional id is refused
//! in a way that clients report at once.

use std::sync::Arc;

use client_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use client_protocol::{ErrorCode, ProducerEpoch};

use super::call::Call;
use super::shared::Shared;
use crate::response::Dispatch;

pub(super) fn handle(
    shared: &Arc<Shared>,
    call: &Call<'_>,
    request: &InitProducerIdRequest,
) -> Dispatch {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return call.respond(&refused(ErrorCode::InvalidRequest)),
        // Fatal to every client, unlike COORDINATOR_NOT_AVAILABLE, which they retry for ever.
        Some(_) => {
            return call.respond(&refused(ErrorCode::TransactionalIdAuthorizationFailed));
        }
    }
    let shared = Arc::clone(shared);
    call.respond_later(async move {
        match shared.cluster.new_producer_id().await {
            Ok(id) => InitProducerIdResponse {
                producer_id: Some(id),
                producer_epoch: ProducerEpoch::new(0),
                ..Default::default()
            },
            Err(error_code) => refused(error_code),
        }
    })
}

fn refused(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code, ..Default::default() }
}
