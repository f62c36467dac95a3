//! Values at wrong places.
//!
//! Called by: `check`. Calls: nothing. Invariant: linear in the history. It does not know the order of operations.

use std::collections::BTreeMap;

use super::facts::{Facts, Partition};
use super::operation::{Key, Outcome, Value};
use super::{Anomaly, Name};

fn anomaly(
    name: Name,
    (key, value): (Key, Option<Value>),
    operation: Option<usize>,
    what: String,
) -> Anomaly {
    Anomaly { name, key: Some(key), operation, value, offset: None, what, subscribed: false }
}

pub(super) fn check(facts: &Facts<'_>, found: &mut Vec<Anomaly>) {
    for (&key, partition) in &facts.partitions {
        for (offset, values) in partition.log.iter().filter(|(_, values)| values.len() > 1) {
            let what = format!("offset {offset} holds {values:?}");
            found.push(anomaly(Name::InconsistentOffsets, (key, None), None, what));
        }
        check_duplicates(key, partition, found);
        for (value, readers) in &partition.readers {
            let reader = readers.first().copied();
            match partition.writer.get(value) {
                None => {
                    let what = format!("{value} was read and not sent");
                    found.push(anomaly(Name::PhantomRead, (key, Some(*value)), reader, what));
                }
                Some(writer) if facts.history[*writer].outcome == Outcome::Fail => {
                    let what = format!("{value} was read, its send {writer} failed");
                    found.push(anomaly(Name::G1a, (key, Some(*value)), reader, what));
                }
                Some(_) => {}
            }
        }
        check_lost(facts, key, partition, found);
    }
    check_own_reads(facts, found);
}

fn check_duplicates(key: Key, partition: &Partition, found: &mut Vec<Anomaly>) {
    let mut offsets: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for (offset, values) in &partition.log {
        for value in values {
            offsets.entry(*value).or_default().push(*offset);
        }
    }
    for (value, offsets) in offsets.iter().filter(|(_, offsets)| offsets.len() > 1) {
        let what = format!("{value} stands at {offsets:?}");
        let offset = offsets.first().copied();
        let duplicate = anomaly(Name::Duplicate, (key, Some(*value)), None, what);
        found.push(Anomaly { offset, ..duplicate });
    }
}

/// Somebody read beyond it, and nobody read it.
fn check_lost(facts: &Facts<'_>, key: Key, partition: &Partition, found: &mut Vec<Anomaly>) {
    let first = |value: &u64| partition.places_of(*value).map(|(first, _)| first);
    let Some(bound) = partition.readers.keys().filter_map(first).max() else { return };
    for (value, writer) in &partition.writer {
        let passed = partition.places_of(*value).is_some_and(|(_, last)| last <= bound);
        if passed && facts.is_committed(*writer) && !partition.readers.contains_key(value) {
            let offset = partition.offset_of(*value);
            let at = offset.map_or_else(String::new, |offset| format!(" at {offset}"));
            let what = format!("{value}{at} was never read, and what is behind it was");
            let lost = anomaly(Name::LostWrite, (key, Some(*value)), Some(*writer), what);
            found.push(Anomaly { offset, ..lost });
        }
    }
}

fn check_own_reads(facts: &Facts<'_>, found: &mut Vec<Anomaly>) {
    for (number, operation) in facts.history.iter().enumerate() {
        let sent: Vec<_> = operation.sends().map(|(key, value, _)| (key, value)).collect();
        if sent.is_empty() {
            continue;
        }
        for (key, _, value) in operation.reads().filter(|read| sent.contains(&(read.0, read.2))) {
            let what = format!("{value} was read by the operation that sent it");
            found.push(anomaly(Name::PrecommittedRead, (key, Some(value)), Some(number), what));
        }
    }
}

/// Acknowledged values that nobody read: how many of them may stand behind the end that was read to.
pub(super) fn check_unseen(
    facts: &Facts<'_>,
    ends: &BTreeMap<Key, i64>,
    found: &mut Vec<Anomaly>,
) -> u64 {
    let mut excused = 0;
    for (number, operation) in facts.history.iter().enumerate() {
        if operation.outcome != Outcome::Ok {
            continue;
        }
        for (key, value, offset) in operation.sends() {
            if facts.partitions[&key].readers.contains_key(&value) {
                continue;
            }
            match (offset, ends.get(&key)) {
                (Some(offset), Some(end)) if offset < *end => {
                    let what = format!("{value} at {offset}, the end is {end}");
                    let unseen = anomaly(Name::Unseen, (key, Some(value)), Some(number), what);
                    found.push(Anomaly { offset: Some(offset), ..unseen });
                }
                // Somewhere below the end, then.
                (None, Some(end)) => {
                    let what = format!("{value}, told without an offset; the end is {end}");
                    found.push(anomaly(Name::Unseen, (key, Some(value)), Some(number), what));
                }
                _ => excused += 1,
            }
        }
    }
    excused
}
