use std::collections::{BTreeMap, BTreeSet};

use super::*;

const EXACT: Promises = Promises { exactly_once: true, read_committed: true };

/// A history under construction: one operation after the other, each a microsecond long.
#[derive(Default)]
struct History {
    operations: Vec<Operation>,
    ends: BTreeMap<Key, i64>,
}

impl History {
    fn operation(mut self, process: u64, outcome: Outcome, parts: Vec<Micro>) -> Self {
        let began_us = 10 * self.operations.len() as u64;
        self.operations.push(Operation {
            process,
            outcome,
            function: Function::Transaction,
            began_us,
            ended_us: began_us + 1,
            parts,
            rebalanced: BTreeSet::new(),
        });
        self
    }

    fn ok(self, process: u64, parts: Vec<Micro>) -> Self {
        self.operation(process, Outcome::Ok, parts)
    }

    fn holds(mut self, process: u64, function: Function) -> Self {
        self = self.ok(process, vec![]);
        self.operations.last_mut().unwrap().function = function;
        self
    }

    fn last(mut self, change: impl FnOnce(&mut Operation)) -> Self {
        change(self.operations.last_mut().unwrap());
        self
    }

    /// The log from offset 0 on, sent by process 9 and read whole by process 8.
    fn log(mut self, values: &[Value]) -> Self {
        for (offset, value) in (0..).zip(values) {
            self = self.ok(9, vec![send(*value, offset)]);
        }
        let records: Vec<_> = (0..).zip(values.iter().copied()).collect();
        self.ok(8, vec![poll(&records)])
    }

    fn names(&self) -> BTreeSet<Name> {
        let verdict = check(&self.operations, &self.ends);
        verdict.anomalies.iter().map(|anomaly| anomaly.name).collect()
    }

    /// Exactly these are found, and the first is fatal or not.
    fn expect(&self, names: &[Name], fatal: bool) {
        assert_eq!(self.names(), names.iter().copied().collect(), "{:#?}", self.operations);
        let verdict = check(&self.operations, &self.ends);
        let found = verdict.fatal(EXACT).iter().any(|anomaly| anomaly.name == names[0]);
        assert_eq!(found, fatal, "{:?}", verdict.anomalies);
    }
}

fn send(value: Value, offset: i64) -> Micro {
    Micro::Send { key: 0, value, offset: Some(offset) }
}

fn send_to(key: Key, value: Value, offset: Option<i64>) -> Micro {
    Micro::Send { key, value, offset }
}

fn poll(records: &[(i64, Value)]) -> Micro {
    poll_of(0, records)
}

fn poll_of(key: Key, records: &[(i64, Value)]) -> Micro {
    Micro::Poll(BTreeMap::from([(key, records.to_vec())]))
}

fn assigned() -> Function {
    Function::Assign(BTreeSet::from([0]))
}

#[test]
fn faithful_history_has_no_anomaly() {
    let history = History::default()
        .log(&[1, 2, 3])
        .operation(9, Outcome::Unknown, vec![send_to(0, 4, None)])
        .operation(9, Outcome::Fail, vec![send_to(0, 5, None)])
        .holds(1, assigned())
        .ok(1, vec![poll(&[(0, 1), (1, 2)])])
        .ok(1, vec![poll(&[(2, 3)])]);
    assert_eq!(history.names(), BTreeSet::new());
}

#[test]
fn gaps_between_offsets_are_legal() {
    let history = History::default()
        .ok(9, vec![send(1, 10)])
        .ok(9, vec![send(2, 20)])
        .ok(1, vec![poll(&[(10, 1), (20, 2)])]);
    assert_eq!(history.names(), BTreeSet::new());
}

#[test]
fn two_values_at_one_offset() {
    let history = History::default().log(&[1, 2]).ok(9, vec![send(3, 2)]).ok(7, vec![send(4, 2)]);
    assert_eq!(history.names(), BTreeSet::from([Name::InconsistentOffsets]));
    let history = history.ok(1, vec![poll(&[(2, 4)])]);
    history.expect(&[Name::InconsistentOffsets, Name::LostWrite], true);
}

#[test]
fn value_twice_is_fatal_only_where_that_is_promised() {
    let history = History::default().log(&[1, 2]).ok(1, vec![poll(&[(2, 2)])]);
    history.expect(&[Name::Duplicate], true);
    let verdict = check(&history.operations, &history.ends);
    let promises = Promises { exactly_once: false, read_committed: true };
    assert!(verdict.fatal(promises).is_empty());
    assert_eq!(verdict.counts(), BTreeMap::from([(Name::Duplicate, 1)]));
}

#[test]
fn failed_send_was_read() {
    let history = History::default()
        .operation(9, Outcome::Fail, vec![send_to(0, 1, None)])
        .ok(1, vec![poll(&[(0, 1)])]);
    history.expect(&[Name::G1a], true);
}

#[test]
fn operation_reads_its_own_send() {
    let history = History::default().ok(1, vec![send(1, 0), poll(&[(0, 1)])]);
    history.expect(&[Name::PrecommittedRead], true);
}

#[test]
fn value_was_passed_over_by_all() {
    let history = History::default().ok(9, vec![send(1, 0)]).ok(9, vec![send(2, 1)]);
    let lost = history.ok(9, vec![send(3, 2)]).ok(1, vec![poll(&[(0, 1)])]);
    assert_eq!(lost.names(), BTreeSet::new(), "nobody read beyond the second");
    lost.ok(2, vec![poll(&[(2, 3)])]).expect(&[Name::LostWrite], true);
}

#[test]
fn torn_transaction_is_a_lost_write() {
    let parts = vec![send_to(0, 1, Some(0)), send_to(1, 7, Some(0))];
    let history = History::default()
        .operation(9, Outcome::Unknown, parts)
        .ok(9, vec![send_to(1, 8, Some(1))])
        .ok(1, vec![poll_of(1, &[(1, 8)])]);
    assert_eq!(history.names(), BTreeSet::new(), "nothing of the first was read");
    history.ok(1, vec![poll_of(0, &[(0, 1)])]).expect(&[Name::LostWrite], true);
}

#[test]
fn value_that_nobody_sent() {
    let history = History::default().log(&[1]).ok(1, vec![poll(&[(1, 66)])]);
    history.expect(&[Name::PhantomRead], true);
}

#[test]
fn steps_of_polls_within_an_operation() {
    let log = || History::default().log(&[1, 2, 3]);
    log().ok(1, vec![poll(&[(0, 1), (2, 3)])]).expect(&[Name::IntPollSkip], true);
    log().ok(1, vec![poll(&[(1, 2)]), poll(&[(0, 1)])]).expect(&[Name::IntNonmonotonicPoll], true);
    log().ok(1, vec![poll(&[(1, 2), (1, 2)])]).expect(&[Name::IntNonmonotonicPoll], true);
    let rebalanced = log()
        .ok(1, vec![poll(&[(1, 2)]), poll(&[(0, 1)])])
        .last(|operation| operation.rebalanced = BTreeSet::from([0]));
    assert_eq!(rebalanced.names(), BTreeSet::new());
}

#[test]
fn steps_of_sends_within_an_operation() {
    let history = History::default().ok(2, vec![send(5, 1)]);
    let skip = history.ok(1, vec![send(1, 0), send(2, 2)]).ok(3, vec![poll(&[(1, 5)])]);
    assert!(skip.names().contains(&Name::IntSendSkip));
    assert!(!skip.names().contains(&Name::IntNonmonotonicSend));
    let back = History::default().ok(1, vec![send(1, 1), send(2, 0)]);
    back.expect(&[Name::IntNonmonotonicSend], true);
}

#[test]
fn steps_of_polls_between_operations() {
    let log = || History::default().log(&[1, 2, 3]).holds(1, assigned());
    let first = || log().ok(1, vec![poll(&[(0, 1)])]);
    first().ok(1, vec![poll(&[(2, 3)])]).expect(&[Name::PollSkip], true);
    first().ok(1, vec![poll(&[(0, 1)])]).expect(&[Name::NonmonotonicPoll], true);
    // A poll that failed moved nothing.
    let failed = first().operation(1, Outcome::Unknown, vec![poll(&[(1, 2)])]);
    assert_eq!(failed.ok(1, vec![poll(&[(1, 2)])]).names(), BTreeSet::new());
    // A partition that was given away is begun anew.
    let away = first().holds(1, Function::Assign(BTreeSet::from([1]))).holds(1, assigned());
    assert_eq!(away.ok(1, vec![poll(&[(0, 1)])]).names(), BTreeSet::new());
    let subscribed = log().holds(1, Function::Subscribe(BTreeSet::from([0])));
    let subscribed = subscribed.ok(1, vec![poll(&[(0, 1)])]).ok(1, vec![poll(&[(2, 3)])]);
    subscribed.expect(&[Name::PollSkip], false);
}

#[test]
fn sends_of_a_producer_go_back() {
    let history = History::default().ok(1, vec![send(1, 1)]).ok(1, vec![send(2, 0)]);
    history.expect(&[Name::NonmonotonicSend], true);
    let crashed = History::default().ok(1, vec![send(1, 1)]).holds(1, Function::Crash);
    assert_eq!(crashed.ok(1, vec![send(2, 0)]).names(), BTreeSet::new());
}

#[test]
fn unknown_send_that_was_read_has_its_place_in_the_order() {
    let history = History::default()
        .operation(1, Outcome::Unknown, vec![send_to(0, 1, None)])
        .ok(1, vec![send(2, 0)])
        .ok(2, vec![poll(&[(0, 2), (1, 1)])]);
    history.expect(&[Name::NonmonotonicSend], true);
}

#[test]
fn writes_in_a_circle_are_counted_only() {
    let first = vec![send_to(0, 1, Some(0)), send_to(1, 1, Some(1))];
    let second = vec![send_to(0, 2, Some(1)), send_to(1, 2, Some(0))];
    History::default().ok(1, first).ok(2, second).expect(&[Name::G0], false);
}

#[test]
fn reads_of_one_another_in_a_circle() {
    let first = vec![send_to(0, 1, Some(0)), poll_of(1, &[(0, 2)])];
    let second = vec![send_to(1, 2, Some(0)), poll_of(0, &[(0, 1)])];
    History::default().ok(1, first).ok(2, second).expect(&[Name::G1c], true);
}

#[test]
fn circles_through_processes_and_through_time() {
    // Process 1 reads what process 2 sends after having read what process 1 sends later.
    let history = History::default()
        .ok(1, vec![poll_of(1, &[(0, 2)])])
        .ok(1, vec![send_to(0, 1, Some(0))])
        .ok(2, vec![poll_of(0, &[(0, 1)]), send_to(1, 2, Some(0))]);
    history.expect(&[Name::G1cProcess], true);
    // A read that ended before its send began.
    let history = History::default().ok(1, vec![poll(&[(0, 1)])]).ok(2, vec![send(1, 0)]);
    history.expect(&[Name::G1cRealtime], true);
}

#[test]
fn acknowledged_value_is_unseen_below_the_end_only() {
    let mut history = History::default().log(&[1, 2]).ok(9, vec![send(3, 2)]);
    assert_eq!(history.names(), BTreeSet::new());
    history.ends.insert(0, 2);
    assert_eq!(check(&history.operations, &history.ends).unseen, 1);
    history.ends.insert(0, 3);
    history.expect(&[Name::Unseen], true);
}

#[test]
fn lag_is_the_time_since_the_next_record_was_known() {
    let history = History::default().log(&[1, 2, 3]).ok(1, vec![poll(&[(0, 1)])]);
    // The second record was acknowledged at 11, the poll ended at 41.
    assert_eq!(check(&history.operations, &history.ends).lag.max_us, 30);
}
