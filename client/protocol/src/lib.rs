//! Kafka's wire protocol, sans-IO: bytes in, values out, and back.
//!
//! *Called by* the broker, the client and its command line. *Calls* nothing but `bytes`, `crc32c` and the codecs.
//!
//! Invariants: nothing here panics on any input; no memory is reserved from a declared count (an array
//! grows as its elements arrive, against a budget, see [`Reader`]); record batches are never copied or
//! looked into on the way (see [`Records`]). Knows no socket, clock, file or task.
//!
//! Reading order: [`frame`] cuts the stream, [`header`] says which API and version a frame is,
//! [`messages`] holds one file per API, [`records`] is what Produce and Fetch carry,
//! [`pack`] how it is compressed.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::arithmetic_side_effects
    )
)]

pub mod api;
mod declare;
pub mod error_code;
mod field;
pub mod frame;
pub mod header;
mod ids;
pub mod messages;
pub mod pack;
mod reader;
pub mod records;
mod writer;

pub use api::{ApiKey, Scope};
pub use error_code::ErrorCode;
pub use field::{ByteRange, Field, Records, Shape};
pub use frame::{EncodedFrame, FrameError};
pub use header::{
    HeaderError, RequestHeader, decode_request_header, decode_response_header, encode_request,
    encode_response,
};
pub use ids::{
    BrokerId, CorrelationId, InvalidTopicId, LeaderEpoch, Offset, PartitionId, ProducerEpoch,
    ProducerId, TopicId,
};
pub use messages::{Message, Request};
pub use reader::{DECODED_BYTES_MAX, DecodeError, Reader};
pub use writer::{EncodeError, Splice, Writer};
