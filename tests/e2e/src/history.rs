//! Compares what was acknowledged with what the cluster holds: exactly once, in order, at the
//! offset that was promised.
//!
//! Called by: the end-to-end tests. Pure: knows nothing of clients or processes.

use std::collections::BTreeMap;
use std::fmt;

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

/// One contradiction between the two, in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// The partition.
    pub partition: i32,
    /// The record's sequence.
    pub sequence: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Acknowledged at this offset, and not there.
    Lost(i64),
    /// There more than once, at these offsets.
    Duplicate(Vec<i64>),
    /// Acknowledged at the first offset, found at the second.
    Moved(i64, i64),
    /// At this offset, behind a record with this later sequence.
    Disordered(i64, u64),
    /// At this offset, and nobody sent it.
    Invented(i64),
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Every contradiction between what was sent and what is held, partition by partition.
pub fn check(sent: &BTreeMap<i32, Sent>, held: &BTreeMap<i32, Log>) -> Vec<Anomaly> {
    let none = Vec::new();
    sent.iter()
        .flat_map(|(&partition, sent)| {
            check_partition(partition, sent, held.get(&partition).unwrap_or(&none))
        })
        .collect()
}

fn check_partition(partition: i32, sent: &Sent, held: &Log) -> Vec<Anomaly> {
    let anomaly = |sequence, fault| Anomaly { partition, sequence, fault };
    let mut found: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    let mut anomalies = Vec::new();
    let mut newest = None;
    for &(offset, sequence) in held {
        if sequence >= sent.len() as u64 {
            anomalies.push(anomaly(sequence, Fault::Invented(offset)));
        }
        if let Some(after) = newest.filter(|&newest| sequence < newest) {
            anomalies.push(anomaly(sequence, Fault::Disordered(offset, after)));
        }
        newest = newest.max(Some(sequence));
        found.entry(sequence).or_default().push(offset);
    }
    for (&sequence, offsets) in found.iter().filter(|(_, offsets)| offsets.len() > 1) {
        anomalies.push(anomaly(sequence, Fault::Duplicate(offsets.clone())));
    }
    for (sequence, outcome) in (0u64..).zip(sent) {
        let Outcome::Acknowledged(promised) = *outcome else { continue };
        match found.get(&sequence).map(Vec::as_slice) {
            None => anomalies.push(anomaly(sequence, Fault::Lost(promised))),
            Some(&[found, ..]) if found != promised => {
                anomalies.push(anomaly(sequence, Fault::Moved(promised, found)));
            }
            Some(_) => {}
        }
    }
    anomalies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomalies(sent: &[Outcome], held: &[(i64, u64)]) -> Vec<Anomaly> {
        check(&BTreeMap::from([(0, sent.to_vec())]), &BTreeMap::from([(0, held.to_vec())]))
    }

    #[test]
    fn a_faithful_log_has_no_anomaly_and_unknown_records_may_be_there_or_not() {
        use Outcome::{Acknowledged, Unknown};
        assert_eq!(anomalies(&[Acknowledged(0), Unknown, Acknowledged(1)], &[(0, 0), (1, 2)]), []);
        assert_eq!(anomalies(&[Unknown, Acknowledged(1)], &[(0, 0), (1, 1)]), []);
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        use Outcome::Acknowledged;
        let sent = [Acknowledged(0), Acknowledged(1)];
        assert_eq!(
            anomalies(&sent, &[(0, 0)]),
            [Anomaly { partition: 0, sequence: 1, fault: Fault::Lost(1) }]
        );
        assert_eq!(
            anomalies(&sent, &[(0, 0), (1, 1), (2, 1)]),
            [Anomaly { partition: 0, sequence: 1, fault: Fault::Duplicate(vec![1, 2]) }]
        );
        assert_eq!(
            anomalies(&sent, &[(0, 0), (5, 1)]),
            [Anomaly { partition: 0, sequence: 1, fault: Fault::Moved(1, 5) }]
        );
        assert_eq!(
            anomalies(&sent, &[(0, 0), (1, 1), (2, 7)]),
            [Anomaly { partition: 0, sequence: 7, fault: Fault::Invented(2) }]
        );
        assert_eq!(anomalies(&sent, &[(0, 1), (1, 0)])[0].fault, Fault::Disordered(1, 1));
    }
}
