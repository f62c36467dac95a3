//! What compaction may take away, and what it must leave.
//!
//! Called by: `ledger`. Calls: nothing. Invariants (asserted): a record is missing only where a later one of its key is committed, or where it is
//! a tombstone that stood for `delete.retention.ms`; whoever reads a replica from its start ends with the last value of every key.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::ids::{BrokerId, TopicPartition};

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
    /// Tombstones that a broker's own log had, and keeps or has cleaned.
    had: BTreeSet<(BrokerId, TopicPartition, i64)>,
}

impl Compacted {
    pub fn new(delete_retention_ms: i64) -> Self {
        let delete_retention = delete_retention_ms.unsigned_abs() * MS;
        Self {
            delete_retention,
            newest: BTreeMap::new(),
            since: BTreeMap::new(),
            had: BTreeSet::new(),
        }
    }

    /// A broker's log holds a committed record.
    pub fn held(&mut self, id: BrokerId, key: TopicPartition, (offset, value, _): Entry) {
        if is_tombstone(value) {
            self.had.insert((id, key, offset));
        }
    }

    /// A broker's logs may have lost what they had.
    pub fn forgotten(&mut self, id: BrokerId) {
        self.had.retain(|(holder, ..)| *holder != id);
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

    /// What a replay of a broker's `log` comes to is what everything committed came to, but for what `start` says was removed by other
    /// rules. A replica that was behind for longer than tombstones stay never saw those that went meanwhile, and may keep what they deleted.
    pub fn replayed(
        &self,
        key: TopicPartition,
        log: &[Entry],
        start: i64,
        (now, id): (Time, BrokerId),
    ) {
        let mut last = BTreeMap::new();
        for &(offset, value, _) in log {
            last.insert(record_key(value), (offset, value));
        }
        for (&(_, of), &(offset, value)) in self.newest.range((key, 0)..=(key, u8::MAX)) {
            let found = last.get(&of);
            let stood = now.saturating_sub(self.since[&(key, offset)]);
            let may_be_gone = is_tombstone(value) && stood >= self.delete_retention;
            let never_came = may_be_gone && !self.had.contains(&(id, key, offset));
            if offset < start || may_be_gone && found.is_none() || never_came {
                continue;
            }
            assert_eq!(
                found,
                Some(&(offset, value)),
                "{id}: {key:?}: a replay ends with another value of key {of}"
            );
        }
    }
}
