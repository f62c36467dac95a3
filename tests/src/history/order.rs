//! Steps within and between operations: values left out, and steps back.
//!
//! Called by: `check`. Calls: nothing.
//! Invariant: a step is judged only when both its ends are known. A consumer's position is moved by its successful operations, and kept over a
//! change of its partitions for those that it keeps.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::Facts;
use super::operation::{Function, Key, Micro, Operation, Outcome};
use super::{Anomaly, Name};

/// What one process did last.
#[derive(Default)]
struct Process {
    /// Index of what it read last.
    read: BTreeMap<Key, i64>,
    /// Index of what it sent last.
    sent: BTreeMap<Key, i64>,
    subscribed: bool,
}

pub(super) fn check(facts: &Facts<'_>, found: &mut Vec<Anomaly>) {
    let mut processes: BTreeMap<u64, Process> = BTreeMap::new();
    for (number, operation) in facts.history.iter().enumerate() {
        let process = processes.entry(operation.process).or_default();
        match &operation.function {
            Function::Assign(keys) => process.keep(keys, false, operation.outcome),
            Function::Subscribe(keys) => process.keep(keys, true, operation.outcome),
            Function::Crash => *process = Process::default(),
            Function::Send | Function::Poll | Function::Transaction => {}
        }
        let mut walk = Walk { facts, number, operation, process, found };
        walk.polls();
        walk.sends();
    }
}

impl Process {
    fn keep(&mut self, keys: &BTreeSet<Key>, subscribed: bool, outcome: Outcome) {
        if outcome != Outcome::Fail {
            self.read.retain(|key, _| keys.contains(key));
            self.subscribed = subscribed;
        }
    }
}

/// One operation's steps.
struct Walk<'a> {
    facts: &'a Facts<'a>,
    number: usize,
    operation: &'a Operation,
    process: &'a mut Process,
    found: &'a mut Vec<Anomaly>,
}

impl Walk<'_> {
    fn report(&mut self, name: Name, key: Key, (from, to): (i64, i64)) {
        let what = format!("from the {from}th to the {to}th known offset");
        let (operation, subscribed) = (Some(self.number), self.process.subscribed);
        self.found.push(Anomaly {
            name,
            key: Some(key),
            operation,
            value: None,
            offset: None,
            what,
            subscribed,
        });
    }

    fn polls(&mut self) {
        let mut within: BTreeMap<Key, Option<i64>> = BTreeMap::new();
        for (key, offset, _) in self.operation.reads() {
            if self.operation.rebalanced.contains(&key) {
                continue;
            }
            let index = self.facts.partitions[&key].index_of(offset);
            let is_first = !within.contains_key(&key);
            let before = match within.insert(key, index) {
                Some(before) => before,
                None => self.process.read.get(&key).copied(),
            };
            if is_first && self.operation.outcome != Outcome::Ok {
                continue;
            }
            let (Some(from), Some(to)) = (before, index) else { continue };
            match (is_first, to - from) {
                (_, 1) => {}
                (true, 2..) => self.report(Name::PollSkip, key, (from, to)),
                (true, _) => self.report(Name::NonmonotonicPoll, key, (from, to)),
                (false, 2..) => self.report(Name::IntPollSkip, key, (from, to)),
                (false, _) => self.report(Name::IntNonmonotonicPoll, key, (from, to)),
            }
        }
        for key in &self.operation.rebalanced {
            self.process.read.remove(key);
        }
        if self.operation.outcome == Outcome::Ok {
            let known = within.into_iter().filter_map(|(key, index)| Some((key, index?)));
            self.process.read.extend(known);
        }
    }

    fn sends(&mut self) {
        if self.operation.outcome == Outcome::Fail {
            return;
        }
        let mut within: BTreeMap<Key, i64> = BTreeMap::new();
        for part in &self.operation.parts {
            let Micro::Send { key, value, offset } = part else { continue };
            let Some(to) = self.facts.partitions[key].index_of_send(*value, *offset) else {
                continue;
            };
            let earlier = self.process.sent.get(key).copied();
            match within.insert(*key, to) {
                Some(from) if to - from > 1 => self.report(Name::IntSendSkip, *key, (from, to)),
                Some(from) if to - from < 1 => {
                    self.report(Name::IntNonmonotonicSend, *key, (from, to));
                }
                Some(_) => {}
                None => {
                    if let Some(from) = earlier.filter(|from| to - from < 1) {
                        self.report(Name::NonmonotonicSend, *key, (from, to));
                    }
                }
            }
        }
        self.process.sent.extend(within);
    }
}
