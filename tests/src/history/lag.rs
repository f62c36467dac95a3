//! How long a record was known to be there before a consumer had passed it.
//!
//! Called by: `check`. Calls: nothing. Invariant: counts only what some client was told of before the poll ended.

use std::collections::BTreeMap;

use super::facts::Facts;
use super::operation::{Key, Outcome};

/// Lags of all successful polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Polls that were measured.
    pub polls: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

pub(super) fn measure(facts: &Facts<'_>) -> Lag {
    let known = known_since(facts);
    let mut lag = Lag::default();
    for operation in facts.history.iter().filter(|operation| operation.outcome == Outcome::Ok) {
        let mut last: BTreeMap<Key, i64> = BTreeMap::new();
        for (key, offset, _) in operation.reads() {
            last.insert(key, offset);
        }
        for (key, offset) in last {
            let next = known.get(&key).and_then(|known| known.range(offset + 1..).next());
            let late = next.map_or(0, |(_, since)| operation.ended_us.saturating_sub(*since));
            lag.polls += 1;
            lag.max_us = lag.max_us.max(late);
        }
    }
    lag
}

/// When each offset, or one behind it, was first heard of.
fn known_since(facts: &Facts<'_>) -> BTreeMap<Key, BTreeMap<i64, u64>> {
    let mut known: BTreeMap<Key, BTreeMap<i64, u64>> = BTreeMap::new();
    for operation in facts.history {
        let sends = operation.sends().filter_map(|(key, _, offset)| Some((key, offset?)));
        for (key, offset) in sends.chain(operation.reads().map(|(key, offset, _)| (key, offset))) {
            let since = known.entry(key).or_default().entry(offset).or_insert(u64::MAX);
            *since = (*since).min(operation.ended_us);
        }
    }
    for partition in known.values_mut() {
        let mut earliest = u64::MAX;
        for since in partition.values_mut().rev() {
            earliest = earliest.min(*since);
            *since = earliest;
        }
    }
    known
}
