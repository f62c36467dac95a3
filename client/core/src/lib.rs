//! What the native client decides, sans-IO: events and the time go in, effects come out.
//!
//! *Called by* the `client` package's shells and by simulations. *Calls* `client-protocol`.
//! It knows requests, answers, offsets and members; sockets, tasks and clocks are the shell's. Times are
//! milliseconds of any clock that does not go back.
//!
//! - [`metadata`]: brokers and leaders.
//! - [`partitioner`]: which partition a key belongs to.
//! - [`consumer`]: positions, fetches, truncation.
//! - [`group`]: membership, assignors, committed offsets.
//! - [`producer`]: batches, sequences, retries, order.
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

pub mod consumer;
pub mod group;
mod links;
pub mod metadata;
#[cfg(test)]
mod model;
pub mod partitioner;
#[cfg(planted)]
pub mod planted;
pub mod producer;

pub use metadata::{Leader, Metadata, Route, TopicPartition};
