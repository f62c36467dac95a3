//! InitProducerId (key 22): an identity for an idempotent or transactional producer.
//!
//! *Called by* producers and the broker.

use crate::declare::wire_structs;
use crate::error_code::ErrorCode;
use crate::ids::{ProducerEpoch, ProducerId};
use crate::messages::exchange;

exchange!(InitProducerId, InitProducerIdRequest, InitProducerIdResponse);

wire_structs! {
    /// Versions 0-4. 2 is flexible, 3 can raise the epoch of an identity the producer has.
    pub struct InitProducerIdRequest {
        /// Null for a producer that is idempotent only.
        transactional_id: Option<String> [0.., nullable 0..],
        /// After how long an idle transaction is aborted.
        transaction_timeout_ms: i32 [0..],
        /// The identity the producer has, to raise its epoch.
        producer_id: Option<ProducerId> [3..],
        /// Its epoch.
        producer_epoch: Option<ProducerEpoch> [3..],
    }

    /// The identity.
    pub struct InitProducerIdResponse {
        /// How long the client was or will be throttled.
        throttle_time_ms: i32 [0..],
        /// Whether there is one.
        error_code: ErrorCode [0..],
        /// The identity.
        producer_id: Option<ProducerId> [0..],
        /// Its epoch; 0 on error.
        producer_epoch: ProducerEpoch [0..],
    }
}
