//! Who wrote and read what, and the order of offsets that follows.
//!
//! Called by: the checks. Calls: nothing.
//! Invariant: an offset has an index exactly when something is known to stand there; offsets without are gaps, which are legal (control
//! records, aborted data, compaction).

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{Key, Operation, Outcome, Value};

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    /// The operation that sent each value.
    pub(super) writer: BTreeMap<Value, usize>,
    /// Values that successful operations read, with the operations.
    pub(super) readers: BTreeMap<Value, Vec<usize>>,
    /// Values known to stand at each offset.
    pub(super) log: BTreeMap<i64, BTreeSet<Value>>,
    /// Index of each offset of `log`.
    index: BTreeMap<i64, i64>,
    /// First and last index of each value.
    places: BTreeMap<Value, (i64, i64)>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) history: &'a [Operation],
    pub(super) partitions: BTreeMap<Key, Partition>,
    committed: Vec<bool>,
}

impl Partition {
    /// The index of what stands at `offset`.
    pub(super) fn index_of(&self, offset: i64) -> Option<i64> {
        self.index.get(&offset).copied()
    }

    /// First and last index at which `value` stands.
    pub(super) fn places_of(&self, value: Value) -> Option<(i64, i64)> {
        self.places.get(&value).copied()
    }

    /// The first offset at which `value` stands. Linear: for what is about to be told.
    pub(super) fn offset_of(&self, value: Value) -> Option<i64> {
        self.log.iter().find(|(_, values)| values.contains(&value)).map(|(offset, _)| *offset)
    }

    /// The index of a send: of where it was said to stand, or else of where it was found.
    pub(super) fn index_of_send(&self, value: Value, offset: Option<i64>) -> Option<i64> {
        let told = offset.and_then(|offset| self.index_of(offset));
        told.or_else(|| self.places_of(value).map(|(first, _)| first))
    }

    fn number(&mut self) {
        for (index, (offset, values)) in (0..).zip(&self.log) {
            self.index.insert(*offset, index);
            for value in values {
                self.places.entry(*value).or_insert((index, index)).1 = index;
            }
        }
    }
}

impl<'a> Facts<'a> {
    pub(super) fn new(history: &'a [Operation]) -> Self {
        let mut partitions: BTreeMap<Key, Partition> = BTreeMap::new();
        for (number, operation) in history.iter().enumerate() {
            for (key, value, _) in operation.sends() {
                partitions.entry(key).or_default().writer.insert(value, number);
            }
            for (key, offset, value) in operation.reads() {
                let partition = partitions.entry(key).or_default();
                // Whoever polls must only ever see what is safe, whatever becomes of the operation.
                partition.log.entry(offset).or_default().insert(value);
                if operation.outcome == Outcome::Ok {
                    partition.readers.entry(value).or_default().push(number);
                }
            }
        }
        let was_read = |(key, value, _): (Key, Value, Option<i64>)| {
            partitions.get(&key).is_some_and(|partition| partition.readers.contains_key(&value))
        };
        let is_committed = |operation: &Operation| match operation.outcome {
            Outcome::Ok => true,
            Outcome::Fail => false,
            Outcome::Unknown => operation.sends().any(was_read),
        };
        let committed: Vec<bool> = history.iter().map(is_committed).collect();
        for (operation, _) in history.iter().zip(&committed).filter(|(_, committed)| **committed) {
            for (key, value, offset) in operation.sends() {
                if let (Some(offset), Some(partition)) = (offset, partitions.get_mut(&key)) {
                    partition.log.entry(offset).or_default().insert(value);
                }
            }
        }
        partitions.values_mut().for_each(Partition::number);
        Self { history, partitions, committed }
    }

    /// Whether an operation took effect: it was told so, or something of it was read.
    pub(super) fn is_committed(&self, operation: usize) -> bool {
        self.committed[operation]
    }
}
