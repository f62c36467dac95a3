//! The broker's decisions, sans-IO: what the metadata says, who leads, what is committed, who must wait.
//!
//! *Called by* the `broker` package's shell and the simulator. *Calls* nothing that blocks: events and queries in, effects and answers out.
//! Time is an argument. It knows offsets and epochs, never bytes of records, files, sockets or the coordinator's wire.
//!
//! - [`ids`]: the numbers that everything is named by.
//! - [`image`]: the metadata image, fed by the coordinator's subscription.
//! - [`registration`]: who a broker is: incarnations, directories, lost and kept data.
//! - [`controller`]: the single writer of partition state.
//! - [`partition`]: one replica of one partition: leader, follower, ISR, high watermark.
//! - [`purgatory`]: who waits on a partition, and when the wait ends.
//! - [`refusals`]: what was refused and comes again, and what was sent behind it.
//! - [`hosted`]: a partition as a broker holds it: from before its log is open to its end.
//! - [`hosting`]: which partitions a broker hosts, and when metadata counts.
//! - [`group`]: consumer groups: members, generations, committed offsets.
//! - [`fetch_session`]: what a consumer wants and was told.
//! - [`producer_ids`]: which ids a broker may give to producers.
//! - [`store`]: what is asked of the coordinator, and how it ends.
//! - [`fence`]: when a broker without coordinator contact stops serving.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::arithmetic_side_effects
    )
)]

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(planted)]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        $chosen == Some($crate::planted::Planted::$bug)
    };
}

/// Whether this bug was put in on purpose: never, unless built with `--cfg planted`.
#[cfg(not(planted))]
macro_rules! planted {
    ($chosen:expr, $bug:ident) => {
        false
    };
}

pub mod controller;
pub mod fence;
pub mod fetch_session;
pub mod group;
pub mod hosted;
pub mod hosting;
pub mod ids;
pub mod image;
pub mod partition;
#[cfg(planted)]
pub mod planted;
pub mod producer_ids;
pub mod purgatory;
pub mod refusals;
pub mod registration;
pub mod store;
