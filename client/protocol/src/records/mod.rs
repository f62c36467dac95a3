//! Record batches (magic 2): looked at, checked and patched in place, never copied.
//!
//! *Called by* the broker's log and API, followers, the client. *Calls* `ids`, `error_code`, `crc32c`.
//!
//! ```text
//! byte 0           8        12       16    17    21           61
//! | base offset i64 | length | epoch  | magic | crc | attributes ... count | records |
//!                   |        |        |       |     |<- covered by the CRC-32C     ->|
//!                            |<- length counts these bytes                         ->|
//! ```
//!
//! Base offset and leader epoch lie before what the checksum covers, so a leader can assign them without
//! computing it anew.

mod batch;
mod build;
mod record;
mod retain;
#[cfg(test)]
mod tests;
mod validate;

pub use batch::{BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, Batch, BatchHeader, Batches, Compression};
pub use batch::{assign_offsets, set_log_append_time};
pub use build::{BatchBuilder, Producer, RECORD_BYTES_MAX, SealedBatch};
pub use record::{Record, RecordHeader, RecordRef, RecordsIter};
pub use retain::retain_records;
pub use validate::{BatchError, ProduceRules, validate_fetched, validate_produced};
