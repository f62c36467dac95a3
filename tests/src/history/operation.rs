//! What clients did and were told.
//!
//! Called by: whoever writes a history down. Calls: nothing.
//! Invariant: values of one partition are sent once each by the workload; an operation that was never answered is `Unknown`.

use std::collections::{BTreeMap, BTreeSet};

/// A partition.
pub type Key = u32;
/// What a record holds; unique within its partition.
pub type Value = u64;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened as told.
    Ok,
    /// It certainly did not happen: refused, or a transaction aborted.
    Fail,
    /// It may have happened, whole or in part.
    Unknown,
}

/// What an operation is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// One send.
    Send,
    /// One poll.
    Poll,
    /// Sends and polls that stand or fall together.
    Transaction,
    /// A consumer takes these partitions itself.
    Assign(BTreeSet<Key>),
    /// A consumer asks its group for partitions, and holds these.
    Subscribe(BTreeSet<Key>),
    /// The process ended.
    Crash,
}

/// A part of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Micro {
    /// A record was sent.
    Send {
        /// Where to.
        key: Key,
        /// What.
        value: Value,
        /// Where it stands, as the producer was told.
        offset: Option<i64>,
    },
    /// Records were read: offset and value, in order, by partition.
    Poll(BTreeMap<Key, Vec<(i64, Value)>>),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who did it; one thing at a time.
    pub process: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What it is for.
    pub function: Function,
    /// When it began, in microseconds.
    pub began_us: u64,
    /// When its outcome was known, in microseconds.
    pub ended_us: u64,
    /// Its parts, in order.
    pub parts: Vec<Micro>,
    /// Partitions that the process lost or was given while it lasted.
    pub rebalanced: BTreeSet<Key>,
}

impl Operation {
    /// Sends of the operation: partition, value, offset.
    pub fn sends(&self) -> impl Iterator<Item = (Key, Value, Option<i64>)> {
        self.parts.iter().filter_map(|part| match part {
            Micro::Send { key, value, offset } => Some((*key, *value, *offset)),
            Micro::Poll(_) => None,
        })
    }

    /// Reads of the operation: partition, offset, value.
    pub fn reads(&self) -> impl Iterator<Item = (Key, i64, Value)> {
        self.parts.iter().flat_map(|part| {
            let polled = match part {
                Micro::Poll(polled) => Some(polled),
                Micro::Send { .. } => None,
            };
            let each = |(key, records): (&Key, &'_ Vec<(i64, Value)>)| {
                let key = *key;
                records.clone().into_iter().map(move |(offset, value)| (key, offset, value))
            };
            polled.into_iter().flatten().flat_map(each)
        })
    }
}
