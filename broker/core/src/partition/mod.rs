//! One replica of one partition: who leads, what may be appended, what is committed, what must be cut.
//!
//! - [`replica`]: [`Partition`], its roles and their changes by metadata state.
//! - [`leader`]: admission of appends, follower progress, high watermark.
//! - [`isr`]: who should be in sync, and the change under way.
//! - [`follower`]: where to fetch, what to append, where to truncate.
//! - [`fetch`]: what a fetch may read, and its fences.
//! - [`positions`], [`epochs`]: what the log said of itself.
//! - [`effect`]: what the shell must do.

pub mod effect;
pub mod epochs;
pub mod fetch;
pub mod follower;
pub mod isr;
pub mod leader;
pub mod positions;
pub mod replica;
#[cfg(test)]
mod tests;

pub use effect::{AlterRequest, Effect};
pub use epochs::{EpochEnd, EpochHistory};
pub use fetch::{ConsumerFetch, FetchRefused, FollowerFetch, Readable};
pub use follower::{FetchAnswer, FetchPosition};
pub use leader::AppendPermit;
pub use positions::{Appended, LogPositions, Synced, Truncated};
pub use replica::{Durability, Loaded, Partition, ReplicaReport, Settings, StateUpdate};
