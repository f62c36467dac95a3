//! The broker's shell: sockets, API handlers, partitions, replication and cluster membership.
//!
//! A request walks `net` (bytes) -> `api` (one file per API: authorise, validate, decide, act,
//! answer) -> `partitions` (the logs) and back; metadata arrives through `cluster` and is read by
//! everyone as an immutable image. Decisions live in `broker-core`, bytes on disk in `broker-log`.

pub mod api;
pub mod cluster;
pub mod config;
pub mod embedded;
pub mod groups;
pub mod http;
pub mod metrics;
pub mod net;
pub mod partitions;
pub mod replica;
pub mod response;
pub mod server;
