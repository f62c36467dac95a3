//! The group coordinator: one shard of `broker-core`'s groups for each partition of
//! `__consumer_offsets` that this broker leads.
//!
//! [`Groups`] is all that the request handlers see. Decisions are the shard's; here are its task, its
//! log, its clock.
//!
//! - `room`: [`Groups`]: which shards are here, and the way to them.
//! - `task`: one shard at work: requests in, records into the log, answers out.
//! - `load`: the log's records before the first request.

mod load;
mod room;
mod task;
#[cfg(test)]
mod tests;

pub use room::Groups;
