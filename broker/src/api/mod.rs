//! Kafka's APIs, one file each: authorise, validate, decide, act, answer.
//!
//! `dispatch` reads the header and finds the file, `call` is one request and how it is answered;
//! the files know neither sockets nor each other. Metadata is read from one image per request;
//! records go through `partitions`, changes of the cluster through `cluster`.

pub mod call;
pub mod dispatch;

mod api_versions;
mod find_coordinator;

pub use call::Session;
pub use dispatch::Api;
