//! Requests that wait: produces for the high watermark, fetches for bytes.
//!
//! - [`produces`]: acks=all produces.
//! - [`fetches`]: fetches of consumers and followers.

pub mod fetches;
pub mod produces;

pub use fetches::{FetchWait, ParkedFetches};
pub use produces::{Outcome, ParkedProduces, ProduceWait, Settled};

/// Number of a parked request, chosen by the shell, never used twice.
pub type RequestId = u64;
