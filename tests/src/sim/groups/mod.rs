//! Groups under simulation: real shards, a modelled log that fails over, members that come, go, crash and
//! are slow, requests and answers that are late or lost.
//!
//! Called by: `tests/groups.rs`, `campaign`, `planted`. Calls: `broker-core`'s shard and
//! `client-core`'s member, through their public faces only.
//! Invariant: the same seed gives the same run. Does not know the broker's shell: what that promises a
//! shard (writes of its own epoch only, told of in the order of the log) is what `log` does.
//!
//! - `world`: virtual time, the network, failover. `log`: the partition that a shard writes to.
//! - `member`: one client of the group. `audit`: what must hold, looked at with every event.
//! - `native`: a member that is the native client's own deciding code, with its caller. `natives`: their events and their network.
//! - `cast`: who plays in a run.

mod audit;
mod cast;
mod log;
mod member;
mod native;
mod natives;
mod world;

pub use broker_core::group::Settings;
pub use cast::Cast;
pub use client_core::group::Settings as MemberSettings;
pub use world::{Report, run, run_changed, run_with};
