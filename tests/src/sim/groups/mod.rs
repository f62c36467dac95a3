//! Groups under simulation: real shards, a modelled log that fails over, members that come, go, crash and
//! are slow, requests and answers that are late or lost.
//!
//! Called by: `tests/groups.rs`, `campaign`, `planted`. Calls: `broker-core`'s shard through its public face only.
//! Invariant: the same seed gives the same run. Does not know the broker's shell: what that promises a
//! shard (writes of its own epoch only, told of in the order of the log) is what `log` does.
//!
//! - `world`: virtual time, the network, failover. `log`: the partition that a shard writes to.
//! - `member`: one client of the group. `audit`: what must hold, looked at with every event.

mod audit;
mod log;
mod member;
mod world;

pub use broker_core::group::Settings;
pub use world::{Report, run, run_with};
