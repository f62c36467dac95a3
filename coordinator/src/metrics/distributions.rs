//! Histograms and summaries, in Prometheus' text form.
//!
//! Called by: `metrics`. Calls: nothing.
//! Names: where ZooKeeper's provider has a measure, its name, as a summary without quantiles, in milliseconds as there;
//! beside it a histogram of ours, in seconds. Invariant: buckets are cumulative and end with +Inf, which is the count.
//! Does not know: where the counts come from.

use std::fmt::Write;

use coordinator_core::server::{Histogram, Measures, Summary};

use super::{declare, put};
use crate::storage::{SYNC_BOUNDS_US, SnapshotCounts, SyncTimes};

/// All of them.
pub fn text(text: &mut String, measures: &Measures, syncs: &SyncTimes) {
    let latency = "coordinator_request_latency_seconds";
    declare(text, latency, "histogram");
    for (operation, found) in &measures.latencies_ms {
        let label = format!("operation=\"{operation}\"");
        buckets(text, (latency, &label), found, 1e3);
    }
    summary(text, "readlatency", measures.reads_ms);
    summary(text, "updatelatency", measures.updates_ms);
    let fan_out = "coordinator_watch_notifications_per_change";
    declare(text, fan_out, "histogram");
    buckets(text, (fan_out, ""), &measures.fan_out, 1.0);
    let replies = "coordinator_response_bytes";
    declare(text, replies, "histogram");
    buckets(text, (replies, ""), &measures.replies_bytes, 1.0);
    let fired = measures.fired;
    summary(text, "node_created_watch_count", fired.created);
    summary(text, "node_deleted_watch_count", fired.deleted);
    summary(text, "node_changed_watch_count", fired.changed);
    summary(text, "node_children_watch_count", fired.children);
    let (counts, sum) = syncs.read();
    let found = Histogram { bounds: &SYNC_BOUNDS_US, counts, sum };
    declare(text, "coordinator_fsync_seconds", "histogram");
    buckets(text, ("coordinator_fsync_seconds", ""), &found, 1e6);
    let count: u64 = found.counts.iter().sum();
    summary(text, "fsynctime", Summary { count, sum: found.sum / 1_000 });
}

/// Those of this server's own.
pub fn snapshots(text: &mut String, found: SnapshotCounts) {
    let SnapshotCounts { count, sum_ms, bytes, failures } = found;
    summary(text, "snapshottime", Summary { count, sum: sum_ms });
    put(text, "snapshot_error_count", "counter", failures);
    put(text, "coordinator_snapshot_bytes", "gauge", bytes);
}

/// What waits where.
pub fn queues(text: &mut String, measures: &Measures, inputs_waiting: usize) {
    for (name, value) in [
        ("quorum_size", measures.quorum_size),
        ("coordinator_queue_inputs", inputs_waiting),
        ("coordinator_queue_commands", measures.commands_waiting),
        ("coordinator_queue_commands_bytes", measures.commands_waiting_bytes),
        ("coordinator_queue_entries_in_flight", measures.entries_in_flight),
        ("coordinator_outstanding_bytes", measures.outstanding_bytes),
    ] {
        put(text, name, "gauge", value);
    }
}

fn summary(text: &mut String, name: &str, found: Summary) {
    let Summary { count, sum } = found;
    declare(text, name, "summary");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
}

/// Values are shown divided by `scale`.
fn buckets(text: &mut String, (name, label): (&str, &str), found: &Histogram, scale: f64) {
    let comma = if label.is_empty() { "" } else { "," };
    let braced = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    let mut total = 0u64;
    for (at, count) in found.counts.iter().enumerate() {
        total = total.saturating_add(*count);
        let bound = match found.bounds.get(at) {
            Some(bound) => (*bound as f64 / scale).to_string(),
            None => "+Inf".to_owned(),
        };
        let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"{bound}\"}} {total}");
    }
    let sum = found.sum as f64 / scale;
    let _ = writeln!(text, "{name}_sum{braced} {sum}\n{name}_count{braced} {total}");
}

#[cfg(test)]
pub mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    /// One sample: its name, its labels without `le`, `le`, its value.
    fn sample(line: &str) -> (String, String, Option<f64>, f64) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((name, rest)) => (name, rest.strip_suffix('}').expect("a closing brace")),
        };
        let mut letters = name.chars();
        assert!(letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_'));
        assert!(letters.all(|one| one.is_ascii_alphanumeric() || "_:".contains(one)), "{line}");
        let (mut others, mut le) = (Vec::new(), None);
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, quoted) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let inner = inner.unwrap_or_else(|| panic!("{line}"));
            assert!(!inner.contains(['"', '\\', '\n']), "{line}");
            match key {
                "le" => le = Some(inner.parse().unwrap_or_else(|_| panic!("{line}"))),
                _ => others.push(label),
            }
        }
        (name.to_owned(), others.join(","), le, value)
    }

    /// Asserts what Prometheus asks of its text form.
    pub fn check_form(text: &str) {
        assert!(text.ends_with('\n'));
        let (mut kinds, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let mut series: BTreeMap<(String, String), Vec<(f64, f64)>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        let mut family = String::new();
        let mut helped = None;
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').filter(|(_, words)| words.len() > 3);
                continue;
            }
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                assert_eq!(helped.take().map(|(name, _)| name), Some(name), "no help: {line}");
                // Those names of ZooKeeper's that count are gauges there, or this one.
                let is_free = kind != "counter" || name == "snapshot_error_count";
                assert!(is_free || name.ends_with("_total"), "{line}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                family = name.to_owned();
                continue;
            }
            let (name, labels, le, value) = sample(line);
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
            let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("no family: {line}"));
            let fits = match kinds[&family].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                "summary" => ["_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            assert!(fits && (suffix == "_bucket") == le.is_some(), "{line}");
            match (suffix, le) {
                ("_bucket", Some(le)) => {
                    series.entry((family.clone(), labels)).or_default().push((le, value));
                }
                ("_count", None) => drop(counts.insert((family.clone(), labels), value)),
                _ => {}
            }
        }
        for (name, found) in series {
            assert!(found.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 <= two[1].1));
            let last = found.last().copied();
            assert_eq!(last, counts.get(&name).map(|count| (f64::INFINITY, *count)), "{name:?}");
        }
    }
}
