//! Kafka's APIs, one file each: authorise, validate, decide, act, answer.
//!
//! `dispatch` reads the header and finds the file, `call` is one request and how it is answered;
//! the files know neither sockets nor each other. Metadata is read from one image per request;
//! records go through `partitions`, changes of the cluster through `cluster`.

pub mod call;
pub mod dispatch;
pub mod shared;

mod alter_partition;
mod api_versions;
mod auto_create;
mod controlled_shutdown;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_replicas;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
#[cfg(test)]
pub(crate) mod local_cluster;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;
mod topic_name;

#[cfg(test)]
mod tests;

pub use call::Session;
pub use dispatch::Api;
pub use shared::{Cluster, Reach, Shared};
