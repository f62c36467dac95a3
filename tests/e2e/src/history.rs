//! What a load was told and what the cluster holds, in the words of the checker that the simulator uses too.
//!
//! Called by: the end-to-end tests. Calls: the checker. Pure: knows nothing of clients or processes.

use std::collections::{BTreeMap, BTreeSet};

use ::tests::history::{self, Anomaly, Function, Micro, Operation, Promises};

/// What the client was told about one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged at this offset.
    Acknowledged(i64),
    /// Failed or timed out: it may be in the log, once, or not.
    Unknown,
}

/// One partition's side of the story: `sent[n]` is what became of the record with sequence `n`.
pub type Sent = Vec<Outcome>;
/// One partition as read back: (offset, sequence), in the order of reading.
pub type Log = Vec<(i64, u64)>;

/// Every contradiction between what was sent, by one idempotent producer, and what is held to the end of each partition.
pub fn check(sent: &BTreeMap<i32, Sent>, held: &BTreeMap<i32, Log>) -> Vec<Anomaly> {
    let mut operations = Vec::new();
    for (&partition, sent) in sent {
        let key = partition.unsigned_abs();
        for (value, outcome) in (0u64..).zip(sent) {
            let (outcome, offset) = match outcome {
                Outcome::Acknowledged(offset) => (history::Outcome::Ok, known(*offset)),
                Outcome::Unknown => (history::Outcome::Unknown, None),
            };
            let part = Micro::Send { key, value, offset };
            operations.push(operation((u64::from(key), outcome), Function::Send, part));
        }
    }
    for (&partition, log) in held {
        let key = partition.unsigned_abs();
        let reader = (1 << 32) + u64::from(key);
        let part = Micro::Poll(BTreeMap::from([(key, log.clone())]));
        operations.push(operation((reader, history::Outcome::Ok), Function::Poll, part));
    }
    // Each was read to its end: whatever was acknowledged must have been seen.
    let ends = sent.keys().map(|partition| (partition.unsigned_abs(), i64::MAX)).collect();
    let promises = Promises { exactly_once: true, read_committed: true };
    let verdict = history::check(&operations, &ends);
    verdict.fatal(promises).into_iter().cloned().collect()
}

/// What a group read of a partition, in order: one log for each time that a member was given it. Gives how many records
/// were read again after such a change.
///
/// # Errors
/// When a member left out, doubled or misread a record, or one acknowledged was not read. Offsets have to be without
/// gaps, as those of topics without transactions and compaction are.
pub fn check_reading(sent: &Sent, held: &Log, stints: &[Log]) -> Result<usize, String> {
    let in_log: BTreeMap<i64, u64> = held.iter().copied().collect();
    // The offset after the furthest read so far, by anybody.
    let mut next = 0;
    let mut again = 0;
    for (number, stint) in stints.iter().enumerate() {
        let Some((first, _)) = stint.first() else { continue };
        if *first > next {
            return Err(format!("stint {number} begins at {first}, though only {next} were read"));
        }
        for (expected, (offset, value)) in (*first..).zip(stint) {
            if *offset != expected {
                return Err(format!("stint {number} read {offset} where {expected} was next"));
            }
            if in_log.get(offset) != Some(value) {
                return Err(format!(
                    "stint {number} read {value} at {offset}, where the log has {:?}",
                    in_log.get(offset)
                ));
            }
            again += usize::from(*offset < next);
            next = next.max(offset.saturating_add(1));
        }
    }
    let is_unread =
        |outcome: &&Outcome| matches!(outcome, Outcome::Acknowledged(at) if *at >= next);
    match sent.iter().find(is_unread) {
        Some(unread) => Err(format!("{unread:?} was not read, only {next} were")),
        None => Ok(again),
    }
}

/// Librdkafka takes the answer to a later batch of a partition for one to those before it, whose own answers were lost.
/// It does not know their offsets then, and says so by a negative one.
pub fn known(offset: i64) -> Option<i64> {
    (offset >= 0).then_some(offset)
}

fn operation(
    (process, outcome): (u64, history::Outcome),
    function: Function,
    part: Micro,
) -> Operation {
    let (parts, rebalanced) = (vec![part], BTreeSet::new());
    Operation { process, outcome, function, began_us: 0, ended_us: 0, parts, rebalanced }
}

#[cfg(test)]
mod tests {
    use ::tests::history::Name;

    use super::*;

    fn names(sent: &[Outcome], held: &[(i64, u64)]) -> Vec<Name> {
        let anomalies =
            check(&BTreeMap::from([(0, sent.to_vec())]), &BTreeMap::from([(0, held.to_vec())]));
        anomalies.iter().map(|anomaly| anomaly.name).collect()
    }

    #[test]
    fn a_faithful_log_has_no_anomaly_and_unknown_records_may_be_there_or_not() {
        use Outcome::{Acknowledged, Unknown};
        assert_eq!(names(&[Acknowledged(0), Unknown, Acknowledged(1)], &[(0, 0), (1, 2)]), []);
        assert_eq!(names(&[Unknown, Acknowledged(1)], &[(0, 0), (1, 1)]), []);
        // Acknowledged without an offset, twice: it has to be there, wherever.
        let implied = [Acknowledged(-1001), Acknowledged(-1001), Acknowledged(2)];
        assert_eq!(names(&implied, &[(0, 0), (1, 1), (2, 2)]), []);
        assert_eq!(names(&implied, &[(0, 0), (2, 2)]), [Name::Unseen]);
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        use Outcome::{Acknowledged, Unknown};
        let sent = [Acknowledged(0), Acknowledged(1)];
        assert_eq!(names(&sent, &[(0, 0)]), [Name::Unseen]);
        assert_eq!(names(&[], &[(0, 3)]), [Name::PhantomRead]);
        assert_eq!(names(&sent, &[(0, 0), (1, 1), (2, 1)]), [Name::Duplicate]);
        // It was told to be at 1, where the reader went past it.
        assert_eq!(names(&sent, &[(0, 0), (5, 1)]), [Name::Duplicate, Name::IntPollSkip]);
        assert_eq!(names(&[Unknown, Unknown], &[(0, 1), (1, 0)]), [Name::NonmonotonicSend]);
        assert_eq!(names(&sent, &[(0, 0), (2, 2), (1, 1)])[0], Name::PhantomRead);
    }

    #[test]
    fn a_group_may_read_again_after_a_change_but_leave_out_nothing() {
        let sent = vec![Outcome::Acknowledged(0), Outcome::Unknown, Outcome::Acknowledged(2)];
        let held = vec![(0, 0), (1, 1), (2, 2)];
        let check = |stints: &[&[(i64, u64)]]| {
            let stints: Vec<Log> = stints.iter().map(|stint| stint.to_vec()).collect();
            check_reading(&sent, &held, &stints)
        };
        assert_eq!(check(&[&[(0, 0), (1, 1), (2, 2)]]), Ok(0));
        assert_eq!(check(&[&[(0, 0), (1, 1)], &[], &[(1, 1), (2, 2)]]), Ok(1));
        let is_told = |stints: &[&[(i64, u64)]], word: &str| {
            let told = check(stints);
            assert!(told.as_ref().is_err_and(|error| error.contains(word)), "{told:?}");
        };
        is_told(&[&[(0, 0), (2, 2)]], "read 2 where 1 was next");
        is_told(&[&[(0, 0), (1, 1), (1, 1), (2, 2)]], "read 1 where 2 was next");
        is_told(&[&[(0, 0)], &[(2, 2)]], "begins at 2");
        is_told(&[&[(0, 0), (1, 7)]], "read 7 at 1");
        is_told(&[&[(0, 0), (1, 1)]], "Acknowledged(2) was not read");
        is_told(&[], "Acknowledged(0) was not read");
    }
}
