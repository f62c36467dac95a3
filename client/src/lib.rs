//! The native client of a Kafka-compatible cluster.
//!
//! *Called by* the `tidegate` command, tests and applications. *Calls* `client-protocol`.
//!
//! [`Connection`] carries pipelined requests to one broker; [`Cluster`] knows the brokers and who leads what;
//! [`Producer`], [`Consumer`] and [`Admin`] each own a cluster. Consumer groups and transactions are not here,
//! and neither is compression: compressed batches of other producers are reported, not guessed at.
//!
//! All futures may be dropped: what a dropped call had sent may still happen at the broker.

mod admin;
mod cluster;
mod connection;
mod consumer;
mod error;
mod options;
mod partitioner;
mod producer;

pub use admin::{Admin, ConfigEntry, NewTopic};
pub use client_protocol as protocol;
pub use cluster::{Broker, Cluster, Partition, Topic};
pub use connection::Connection;
pub use consumer::{Consumer, ConsumerOptions, Fetched, Position};
pub use error::ClientError;
pub use options::ClientOptions;
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{Acks, BatchOutcome, Producer, ProducerOptions};
