//! The controller: the single writer of partition state (safety.md C).
//!
//! - [`tenure`]: [`Controller`], one broker's time in office: what is known, under way, to be looked at.
//! - [`seat`]: the way into office and out of it.
//! - [`election`]: who leads a partition and who stays in sync, a pure decision.
//! - [`write`]: decisions into large multi batches, and what a conflict means.
//! - [`alter`](mod@alter): `AlterPartition`.
//! - [`shutdown`]: controlled shutdown.
//! - [`preferred`]: elections that are asked for, and leaders that come back.
//! - [`topic`]: creation and deletion.
//! - [`growth`]: more partitions for a topic.
//! - [`assignment`]: which replicas a new partition gets.
//! - [`message`]: requests, answers and effects.

pub mod alter;
pub mod assignment;
pub mod election;
pub mod growth;
pub mod message;
pub mod preferred;
pub mod seat;
pub mod shutdown;
pub mod tenure;
#[cfg(test)]
mod tests;
pub mod topic;
pub mod write;

pub use message::{
    AlterItem, AlterPartitions, AlteredPartition, Answer, CreatedTopic, Effect, Elected, Election,
    MeantTopic, MorePartitions, NewTopic, PartitionReport, TopicRefusal,
};
pub use preferred::ElectionKind;
pub use seat::{Balance, Seat, Sitter};
pub use tenure::{Controller, ControllerConfig};
