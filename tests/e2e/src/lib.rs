//! What the end-to-end tests share: a load that remembers what was acknowledged (`load`), the exact
//! comparison with what the cluster holds (`history`), a running cluster that cleans up after itself
//! (`running`), a client that goes on meanwhile (`talk`), what a client says of itself (`trace`), real faults (`chaos`), members of groups that are
//! processes of any client (`members`), other people's clients (`clients`) and servers (`peers`, `zookeeper`),
//! and raw bytes for bad input (`wire`).
//!
//! Librdkafka is the client, as most users' is; `native` has our own at work.

pub mod chaos;
pub mod clients;
pub mod coordinators;
pub mod history;
pub mod load;
pub mod members;
pub mod native;
pub mod peers;
pub mod running;
pub mod talk;
pub mod trace;
pub mod wire;
pub mod zookeeper;
