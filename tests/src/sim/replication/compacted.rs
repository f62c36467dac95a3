//! What compaction may take away, and what it must leave.
//!
//! Called by: `ledger`. Calls: nothing. Invariants (asserted): a record is missing only where a later one of its key is committed, or where it is
//! a tombstone that stood for `delete.retention.ms`; whoever reads a replica from its start ends with the last value of every key.

use std::collections::BTreeMap;

use broker_core::ids::TopicPartition;

use super::client::{is_tombstone, record_key};
use super::ledger::Entry;
use crate::sim::ensemble::schedule::{MS, Time};

/// What is committed of a topic that is compacted.
#[derive(Debug)]
pub struct Compacted {
    /// How long a tombstone stays.
    delete_retention: Time,
    /// The newest record of each key.
    newest: BTreeMap<(TopicPartition, u8), (i64, u64)>,
    /// When each offset was seen committed first.
    since: BTreeMap<(TopicPartition, i64), Time>,
}

impl Compacted {
    pub fn new(delete_retention_ms: i64) -> Self {
        let delete_retention = delete_retention_ms.unsigned_abs() * MS;
        Self { delete_retention, newest: BTreeMap::new(), since: BTreeMap::new() }
    }

    /// A record is committed.
    pub fn committed(&mut self, key: TopicPartition, (offset, value, _): Entry, now: Time) {
        self.since.entry((key, offset)).or_insert(now);
        let newest = self.newest.entry((key, record_key(value))).or_insert((offset, value));
        if newest.0 < offset {
            *newest = (offset, value);
        }
    }

    /// A committed record is not there. Panics when it should be; `who` says where.
    pub fn missed(&self, key: TopicPartition, (offset, value): (i64, u64), now: Time, who: &str) {
        let (newest, _) = self.newest[&(key, record_key(value))];
        if newest > offset {
            return;
        }
        assert!(
            is_tombstone(value),
            "{who}: {key:?} offset {offset}: {value:x} is the last of its key"
        );
        let stood = now.saturating_sub(self.since[&(key, offset)]);
        let least = self.delete_retention;
        assert!(
            stood >= least,
            "{who}: {key:?} offset {offset}: tombstone {value:x} is gone after {stood} of {least} us"
        );
    }

    /// What a replay of `log` comes to is what everything committed came to, but for what `start` says was removed by other rules.
    pub fn replayed(&self, key: TopicPartition, log: &[Entry], start: i64, who: &str) {
        let mut last = BTreeMap::new();
        for &(offset, value, _) in log {
            last.insert(record_key(value), (offset, value));
        }
        for (&(_, of), &(offset, value)) in self.newest.range((key, 0)..=(key, u8::MAX)) {
            let found = last.get(&of);
            if offset < start || found.is_none() && is_tombstone(value) {
                continue;
            }
            assert_eq!(
                found,
                Some(&(offset, value)),
                "{who}: {key:?}: a replay ends with another value of key {of}"
            );
        }
    }
}
