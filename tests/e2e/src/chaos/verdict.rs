//! What a run came to, after everything was healed.
//!
//! Called by: the `chaos` program. Calls: the checker of histories. Knows how the processes write their logs and name
//! their files, and nothing of faults but which node's disk was struck.
//! Invariant: what is not known to be harmless counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::tests::history::{self, Anomaly, Key, Name, Promises, Value};
use anyhow::{Context, Result};

use super::load::Finished;
use super::{PARTITIONS, TOPIC, resent};

/// Words of a log that mean that data was lost or damaged, whatever was done to the node.
const FATAL_WORDS: [&str; 6] = [
    "panicked at",
    "damaged",
    "committed records are gone",
    "may lack committed",
    "owner unknown",
    "not what was written",
];
/// Words of a log that a node may say while its disk is struck.
const DISK_WORDS: [&str; 8] = [
    "log directory fenced",
    "has failed",
    "cannot be written",
    "can no longer take part",
    "cannot read",
    "not closed in order",
    "No space left",
    "Input/output error",
];

/// Contradictions in what clients were told and saw, each on a line: the history's, and records that a group was never
/// given. `ends` are the end offsets of the partitions; `resent` is what a client is known to have sent again as new, which
/// stands twice for that reason.
pub fn of_history(
    finished: &Finished,
    ends: &BTreeMap<Key, i64>,
    resent: &BTreeSet<(Key, Value)>,
) -> Vec<String> {
    let promises = Promises { exactly_once: true, read_committed: true };
    let verdict = history::check(&finished.history(), ends);
    let mut fatal = verdict.fatal(promises);
    fatal.retain(|anomaly| !is_resent(anomaly, resent));
    let mut lines: Vec<String> = fatal.into_iter().map(ToString::to_string).collect();
    let none = BTreeSet::new();
    for send in &finished.sends {
        let given = finished.readings.given.get(&send.key).unwrap_or(&none);
        if let (Some((_, offset)), false) = (send.acknowledged, given.contains(&send.value)) {
            lines.push(format!("group never given {} at {offset:?} of {}", send.value, send.key));
        }
    }
    lines
}

fn is_resent(anomaly: &Anomaly, resent: &BTreeSet<(Key, Value)>) -> bool {
    let place = anomaly.key.zip(anomaly.value);
    anomaly.name == Name::Duplicate && place.is_some_and(|place| resent.contains(&place))
}

/// What clients sent again under raised epochs, by the segments of a stopped broker.
///
/// # Errors
/// When a segment cannot be read, or is not what the load wrote.
pub fn resent(disk: &Path) -> Result<BTreeSet<(Key, Value)>> {
    let mut all = BTreeSet::new();
    for key in 0..PARTITIONS {
        let log = records(&disk.join(format!("{TOPIC}-{key}")))?;
        all.extend(resent::under_raised_epochs(key, &log)?);
    }
    Ok(all)
}

/// Lines of a node's log that no fault explains. `struck`: the parts of it, in bytes, that were written while the node's disk
/// failed and until all was well again. Not times: the node's clock may have jumped.
pub fn of_log(log: &[u8], struck: &[Range<usize>]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut begin: usize = 0;
    for bytes in log.split_inclusive(|byte| *byte == b'\n') {
        let at = begin;
        begin += bytes.len();
        let line = String::from_utf8_lossy(bytes);
        let is_fatal = FATAL_WORDS.iter().any(|word| line.contains(word));
        let explained = struck.iter().any(|part| part.contains(&at))
            && DISK_WORDS.iter().any(|word| line.contains(word));
        // The level, not a code that a milder line tells of.
        let is_error = line.split_whitespace().any(|word| word == "ERROR");
        if is_fatal || is_error && !explained {
            findings.push(line.trim_end().to_string());
        }
    }
    findings
}

/// Partitions of a topic whose replicas, files of stopped brokers, differ in any byte of their records.
///
/// # Errors
/// When a replica cannot be read.
pub fn of_replicas(disks: &[PathBuf], topic: &str, partitions: u32) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for key in 0..partitions {
        let records: Result<Vec<Vec<u8>>> =
            disks.iter().map(|disk| records(&disk.join(format!("{topic}-{key}")))).collect();
        let records = records?;
        let Some((first, others)) = records.split_first() else { continue };
        for (other, disk) in others.iter().zip(&disks[1..]) {
            let same = first.iter().zip(other).take_while(|(one, other)| one == other).count();
            if same < first.len().max(other.len()) {
                lines.push(format!(
                    "{topic}-{key}: {} and {} differ from byte {same} of {} and {}",
                    disks[0].display(),
                    disk.display(),
                    first.len(),
                    other.len()
                ));
            }
        }
    }
    Ok(lines)
}

/// All segments of a partition, one behind the other.
fn records(folder: &Path) -> Result<Vec<u8>> {
    let found = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let paths: Result<BTreeSet<PathBuf>, _> = found.map(|entry| Ok(entry?.path())).collect();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
    let mut bytes = Vec::new();
    for path in paths.map_err(|error: std::io::Error| error)?.iter().filter(|path| is_segment(path))
    {
        bytes.extend(fs::read(path)?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_searched_for_what_no_fault_explains() {
        let log = b"INFO cut a torn tail\nERROR log directory fenced: Input/output error\n";
        let (all, none) = (0..usize::MAX, Vec::<String>::new());
        assert_eq!(of_log(log, std::slice::from_ref(&all)), none);
        assert_eq!(of_log(log, &[]).len(), 1);
        let log = b"WARN groups cannot be loaded: KAFKA_STORAGE_ERROR (56)\n";
        assert_eq!(of_log(log, &[]), none);
        let log =
            b"thread 'x' panicked at broker/src/main.rs\nERROR damaged below what was durable";
        assert_eq!(of_log(log, &[all]).len(), 2);
    }

    #[test]
    fn a_disk_explains_what_is_said_while_it_fails_and_nothing_later() {
        let line = b"ERROR log directory fenced\n";
        let length = line.len();
        let log = line.repeat(3);
        let none = Vec::<String>::new();
        assert_eq!(of_log(&log, &[0..length, length..3 * length]), none);
        assert_eq!(of_log(&log, &[0..length, 2 * length..3 * length]).len(), 1);
        assert_eq!(
            of_log(&log, std::slice::from_ref(&(1..length))).len(),
            3,
            "each line counts by where it begins"
        );
    }

    #[test]
    fn only_duplicates_of_resent_values_are_set_apart() {
        let anomaly = |name, value| Anomaly {
            name,
            key: Some(3),
            operation: None,
            value: Some(value),
            offset: None,
            what: String::new(),
            subscribed: false,
        };
        let resent = [(3, 7)].into();
        assert!(is_resent(&anomaly(Name::Duplicate, 7), &resent));
        assert!(!is_resent(&anomaly(Name::Duplicate, 8), &resent));
        assert!(!is_resent(&anomaly(Name::LostWrite, 7), &resent));
        assert!(!is_resent(&Anomaly { key: Some(4), ..anomaly(Name::Duplicate, 7) }, &resent));
    }

    #[test]
    fn replicas_that_differ_are_told_with_the_byte() {
        let folder = std::env::temp_dir().join(format!("tidegate-verdict-{}", std::process::id()));
        let disks = [folder.join("one"), folder.join("other")];
        for key in 0..PARTITIONS {
            for disk in &disks {
                let partition = disk.join(format!("{TOPIC}-{key}"));
                fs::create_dir_all(&partition).unwrap();
                fs::write(partition.join("00000000000000000000.log"), b"same").unwrap();
                fs::write(partition.join("00000000000000000007.log"), b"too").unwrap();
                fs::write(partition.join("00000000000000000007.index"), disk.to_str().unwrap())
                    .unwrap();
            }
        }
        assert_eq!(of_replicas(&disks, TOPIC, PARTITIONS).unwrap(), Vec::<String>::new());
        let other = disks[1].join(format!("{TOPIC}-2/00000000000000000007.log"));
        fs::write(&other, b"two").unwrap();
        assert!(of_replicas(&disks, TOPIC, PARTITIONS).unwrap()[0].contains("differ from byte 5"));
        fs::write(&other, b"too much").unwrap();
        assert!(of_replicas(&disks, TOPIC, PARTITIONS).unwrap()[0].contains("differ from byte 7"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
