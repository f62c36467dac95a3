//! The partitions that this broker holds: registry, append and commit threads, parked requests.
//!
//! [`Partitions`] is all that others see: the request handlers produce, fetch and look up through
//! it, the follower fetchers append through it, membership tells it what the metadata says.
//! Decisions are `broker-core`'s, one core per partition under a short lock; bytes are
//! `broker-log`'s, changed by one worker per log directory, which its append thread steps; one commit
//! thread per log directory makes them durable, one cleaner's thread compacts them. What partitions want of others goes out through
//! [`Outlet`].
//!
//! - `registry`: [`Partitions`], its start, its stop, its look-ups.
//! - `metadata`: what a change of the image means for the partitions here.
//! - `partition`: one partition: what it hosts, its published log.
//! - `produce`, `fetch`, `lookup`, `follow`: the four ways in.
//! - `internal`: what the broker itself writes and asks.
//! - `directory`, `append`, `commit`, `cleaner`: a log directory, its three threads.
//! - `worker`: what those threads do, without threads; the simulator runs it too.
//! - `ticker`: what time does. `settings`: what a topic's settings mean here.

mod append;
mod cleaner;
mod commit;
mod directory;
mod fetch;
mod follow;
mod internal;
mod lookup;
mod metadata;
mod partition;
mod produce;
mod registry;
mod settings;
#[cfg(test)]
mod tests;
mod ticker;
mod waiting;
pub mod worker;

pub use directory::{DirectoryError, Held};
pub use fetch::{FetchPartition, FetchRequest, Fetched, Reader};
pub use lookup::{OffsetFound, OffsetQuery};
pub use produce::{
    PendingProduce, ProduceBatch, ProduceOutcome, ProduceRequest, Produced, Refused,
};
pub use registry::{Outlet, Partitions, PartitionsError, ReplicaStatus};
