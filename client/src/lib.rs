//! The native client of a Kafka-compatible cluster.
//!
//! *Called by* the `tidegate` command, tests and applications. *Calls* `client-core`, which decides, `client-protocol`, and
//! `coordinator-client` for notifications.
//!
//! [`Producer`] and [`Consumer`] each run a task that owns their connections; [`Admin`] and [`Cluster`] ask when they are
//! called. Given coordinators ([`ClientOptions::coordinators`]), producers and consumers hear of brokers that die and of
//! new leaders at once; without, they work with any cluster that speaks Kafka's protocol. Transactions are not here.

mod admin;
mod cluster;
mod connection;
mod consumer;
mod error;
mod network;
mod obstacle;
mod options;
mod producer;
mod routing;

pub use admin::{
    Admin, ConfigEntry, Group, GroupListing, GroupMember, GroupOffset, NewTopic, OffsetAt,
};
pub use client_core::TopicPartition;
pub use client_core::consumer::read::{Chunk, ReadError};
pub use client_core::group::GroupError;
pub use client_core::partitioner::{murmur2, partition_for_key};
pub use client_protocol as protocol;
pub use cluster::{Broker, Cluster, Partition, Topic};
pub use connection::Connection;
pub use consumer::{
    Assignor, Begin, Consumer, ConsumerOptions, Fetched, Isolation, RebalanceListener, Reset,
};
pub use coordinator_client::{Tls as CoordinatorTls, TlsFiles as CoordinatorTlsFiles};
pub use error::ClientError;
pub use obstacle::Obstacle;
pub use options::ClientOptions;
pub use producer::{Acks, Delivery, Producer, ProducerOptions, Refused, Written};
