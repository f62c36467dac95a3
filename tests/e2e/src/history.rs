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
                Outcome::Acknowledged(offset) => (history::Outcome::Ok, Some(*offset)),
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
}
