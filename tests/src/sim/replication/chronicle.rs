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
    /// What a consumer did not get to see because it had been removed: from, and to (exclusive).
    removed_unread: BTreeMap<Key, Vec<(i64, i64)>>,
    /// What a consumer did not want. Others read it, unless the partition is lost before they do.
    left_out: BTreeMap<Key, Vec<(i64, i64)>>,
    gaps_are_usual: bool,
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

    /// What a consumer wanted next is gone up to the log start.
    pub fn removed_unread(&mut self, key: TopicPartition, (from, to): (Offset, Offset)) {
        let ranges = self.removed_unread.entry(key_of(key.partition)).or_default();
        ranges.push((from.get(), to.get()));
    }

    /// A consumer goes on behind these by its own choice.
    pub fn left_out(&mut self, key: TopicPartition, (from, to): (Offset, Offset)) {
        let ranges = self.left_out.entry(key_of(key.partition)).or_default();
        ranges.push((from.get(), to.get()));
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

    /// The same, by a producer that may be told in another order than it sent.
    pub fn acknowledged_alone(
        &mut self,
        stands: (TopicPartition, i64),
        values: &[u64],
        time: (Time, Time),
    ) {
        let process = HOPES + self.operations.len() as u64;
        self.acknowledged(process as usize, stands, values, time);
    }

    /// Something was sent and is certainly nowhere.
    pub fn refused(&mut self, key: TopicPartition, values: &[u64], time: (Time, Time)) {
        let key = key_of(key.partition);
        let parts = values.iter().map(|&value| Micro::Send { key, value, offset: None }).collect();
        let process = HOPES + self.operations.len() as u64;
        self.note(process, (Function::Send, Outcome::Fail), parts, time);
    }

    /// Something was sent that nobody answers for.
    pub fn hoped(&mut self, key: TopicPartition, values: &[u64], time: (Time, Time)) {
        let key = key_of(key.partition);
        let parts = values.iter().map(|&value| Micro::Send { key, value, offset: None }).collect();
        let process = HOPES + self.operations.len() as u64;
        self.note(process, (Function::Send, Outcome::Unknown), parts, time);
    }

    /// A consumer was given these, and not what stood in the gaps, for compaction took it.
    pub fn consumed(
        &mut self,
        consumer: usize,
        key: TopicPartition,
        (records, gaps): (&[(i64, u64, i32)], &[i64]),
        now: Time,
    ) {
        for &gap in gaps {
            self.removed_unread(key, (Offset::new(gap), Offset::new(gap + 1)));
        }
        let mut left = records;
        for &gap in gaps.iter().chain([&i64::MAX]) {
            let (before, after) = left.split_at(left.partition_point(|record| record.0 < gap));
            self.polled(consumer, key, before, now);
            if gap < i64::MAX {
                self.assigned(consumer);
            }
            left = after;
        }
    }

    fn polled(
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

    /// Compaction removes records between others.
    pub fn compacted(self) -> Self {
        Self { gaps_are_usual: true, ..self }
    }

    fn values_of(&self, anomaly: &history::Anomaly) -> impl Iterator<Item = u64> {
        let operation = anomaly.operation.and_then(|number| self.operations.get(number));
        operation.into_iter().flat_map(Operation::sends).map(|(_, value, _)| value)
    }

    /// Panics when the history breaks what was promised. `ends` are of partitions that were read to their end, each with where its log starts. Of
    /// `unclean` ones nothing is promised.
    pub fn judge(
        &self,
        ends: &[(PartitionId, Offset, Offset)],
        idempotent: impl Fn(u64) -> bool,
        unclean: impl Fn(i32) -> bool,
    ) {
        let starts: BTreeMap<Key, i64> =
            ends.iter().map(|&(partition, start, _)| (key_of(partition), start.get())).collect();
        let ends = ends.iter().map(|&(partition, _, end)| (key_of(partition), end.get()));
        let ends = ends.collect();
        let verdict = history::check(&self.operations, &ends);
        let promises = Promises { exactly_once: true, read_committed: true };
        // A partition that was not read to its end is lost, and nobody knows where it would start.
        let is_lost = |key: &Key| !starts.contains_key(key);
        let is_removed = |anomaly: &history::Anomaly| {
            let removed = anomaly.key.and_then(|key| self.removed_unread.get(&key));
            let key = anomaly.key.filter(is_lost);
            let left_out = key.and_then(|key| self.left_out.get(&key));
            let holds =
                |&(from, to): &(i64, i64)| anomaly.offset.is_some_and(|o| from <= o && o < to);
            removed.into_iter().chain(left_out).flatten().any(holds)
        };
        let start_of = |anomaly: &history::Anomaly| {
            anomaly.key.and_then(|key| starts.get(&key).copied()).unwrap_or(i64::MAX)
        };
        let counts = |anomaly: &&history::Anomaly| match anomaly.name {
            Name::LostWrite | Name::Unseen => !is_removed(anomaly),
            // Only idempotent producers are promised anything, and only as long as the log remembers them: a follower that begins anew at a
            // later log start does not know what the removed records said of producers, as in Kafka.
            Name::Duplicate => {
                let start = start_of(anomaly);
                let remembered = anomaly.offset.is_none_or(|offset| offset >= start || start == 0);
                anomaly.value.is_some_and(&idempotent) && remembered
            }
            // Sent twice, and one copy of a part of it compacted away: what is left of a batch stands in no order. Idempotent ones never
            // stand twice.
            Name::IntNonmonotonicSend | Name::NonmonotonicSend | Name::IntSendSkip => {
                !self.gaps_are_usual || self.values_of(anomaly).all(&idempotent)
            }
            _ => true,
        };
        let found: Vec<String> = verdict
            .fatal(promises)
            .into_iter()
            .filter(counts)
            .filter(|anomaly| !anomaly.key.is_some_and(|key| unclean(key.cast_signed())))
            .take(5)
            .map(ToString::to_string)
            .collect();
        assert!(found.is_empty(), "the history is wrong: {found:#?}");
    }
}
