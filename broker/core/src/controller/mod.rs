//! The controller: the single writer of partition state (safety.md C).
//!
//! - [`message`]: requests, answers and effects.

pub mod message;

pub use message::{
    AlterItem, AlterPartitions, AlteredPartition, Answer, CreatedTopic, Effect, Election, NewTopic,
    Op, PartitionReport, TopicRefusal, WriteOutcome,
};
