//! What producers and consumers did and were told, in the words of the checker of histories.
//!
//! Called by: `customers` as it happens, `run` at the end. Calls: the checker.
//! Invariant: only acks=all is written down as having happened; of anything less it is only known that it was tried. It does not know brokers.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::ids::{Offset, PartitionId, TopicPartition};

use crate::history::{self, Function, Key, Micro, Name, Operation, Outcome, Promises};
use crate::sim::ensemble::schedule::Time;

/// Consumers' numbers begin here, and those of sends without a promise of order there.
const CONSUMERS: u64 = 1_000;
const HOPES: u64 = 1_000_000;

/// The history so far.
#[derive(Debug, Clone, Default)]
pub struct Chronicle {
    operations: Vec<Operation>,
}

fn key_of(partition: PartitionId) -> Key {
    partition.get().unsigned_abs()
}

impl Chronicle {
    fn note(
        &mut self,
        process: u64,
        (function, outcome): (Function, Outcome),
        parts: Vec<Micro>,
        (began_us, ended_us): (Time, Time),
    ) {
        let rebalanced = BTreeSet::new();
        let operation =
            Operation { process, outcome, function, began_us, ended_us, parts, rebalanced };
        self.operations.push(operation);
    }

    /// A consumer begins, or begins anew because what it wanted is gone.
    pub fn assigned(&mut self, consumer: usize) {
        let function = Function::Assign(BTreeSet::new());
        self.note(CONSUMERS + consumer as u64, (function, Outcome::Ok), Vec::new(), (0, 0));
    }

    /// acks=all was answered.
    pub fn acknowledged(
        &mut self,
        producer: usize,
        (key, base_offset): (TopicPartition, i64),
        values: &[u64],
        time: (Time, Time),
    ) {
        let key = key_of(key.partition);
        let send = |(offset, &value): (i64, &u64)| Micro::Send { key, value, offset: Some(offset) };
        let parts = (base_offset..).zip(values).map(send).collect();
        self.note(producer as u64, (Function::Send, Outcome::Ok), parts, time);
    }

    /// Something was sent that nobody answers for.
    pub fn hoped(&mut self, key: TopicPartition, values: &[u64], time: (Time, Time)) {
        let key = key_of(key.partition);
        let parts = values.iter().map(|&value| Micro::Send { key, value, offset: None }).collect();
        let process = HOPES + self.operations.len() as u64;
        self.note(process, (Function::Send, Outcome::Unknown), parts, time);
    }

    /// A consumer was given these.
    pub fn consumed(
        &mut self,
        consumer: usize,
        key: TopicPartition,
        records: &[(i64, u64, i32)],
        now: Time,
    ) {
        if records.is_empty() {
            return;
        }
        let read = records.iter().map(|&(offset, value, _)| (offset, value)).collect();
        let parts = vec![Micro::Poll(BTreeMap::from([(key_of(key.partition), read)]))];
        let process = CONSUMERS + consumer as u64;
        self.note(process, (Function::Poll, Outcome::Ok), parts, (now, now));
    }

    /// Panics when the history breaks what was promised. `ends` are of partitions that were read to their end; `removes` says that records may
    /// have gone unread.
    pub fn judge(
        &self,
        ends: impl Iterator<Item = (PartitionId, Offset)>,
        removes: bool,
        idempotent: impl Fn(u64) -> bool,
    ) {
        let ends = ends.map(|(partition, end)| (key_of(partition), end.get())).collect();
        let verdict = history::check(&self.operations, &ends);
        let promises = Promises { exactly_once: true, read_committed: true };
        let counts = |anomaly: &&history::Anomaly| match anomaly.name {
            Name::LostWrite | Name::Unseen => !removes,
            // Only idempotent producers are promised anything, and only as long as the log remembers them.
            Name::Duplicate => anomaly.value.is_some_and(&idempotent) && !removes,
            _ => true,
        };
        let found: Vec<String> = verdict
            .fatal(promises)
            .into_iter()
            .filter(counts)
            .take(5)
            .map(ToString::to_string)
            .collect();
        assert!(found.is_empty(), "the history is wrong: {found:#?}");
    }
}
