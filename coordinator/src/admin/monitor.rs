//! Every measure, by ZooKeeper's names.
//!
//! Called by: both writers (`mntr`, `monitor`), and metrics for those that are the core's gauges. Calls: `environment`.
//! Invariant: a name that ZooKeeper has means what it means there; what is not known is left out, not 0. What an operator
//! can reset is told since then, and to metrics since start.
//! Does not know: the form in which it is shown.

use coordinator_core::server::{Sizes, Status, Summary};

use super::desk::Desk;
use super::environment::{self, version};
use super::known::Known;

/// What a measure is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A word.
    Text(String),
    /// A number of things.
    Whole(u64),
    /// The same, where nothing yet is -1.
    Size(i64),
    /// A mean.
    Fraction(f64),
}

/// Of the gauges those that a reset touches: here they are told since the last one.
const SINCE_RESET: [&str; 5] =
    ["packets_received", "packets_sent", "min_latency", "max_latency", "latency_count"];

/// All of them, without the prefix of `mntr`.
pub fn list(known: &Known, desk: &Desk) -> Vec<(String, Value)> {
    let mut list = Vec::new();
    let mut put = |name: &str, value: Value| list.push((name.to_owned(), value));
    put("version", Value::Text(version()));
    if let Some(state) = known.serving_as() {
        put("server_state", Value::Text(state.to_owned()));
    }
    if known.is_of_ensemble() {
        put("peer_state", Value::Text(peer_state(known)));
    }
    for (name, value) in gauges(&known.status) {
        if !SINCE_RESET.contains(&name) {
            put(name, Value::Whole(value));
        }
    }
    for (name, value) in since_reset(known) {
        put(name, value);
    }
    put("local_sessions", Value::Whole(known.status.local_sessions as u64));
    put("uptime", Value::Whole(desk.facts.uptime_ms()));
    let (open, max) = environment::descriptors();
    for (name, value) in [("open_file_descriptor_count", open), ("max_file_descriptor_count", max)]
    {
        if let Some(value) = value {
            put(name, Value::Whole(value));
        }
    }
    put("quorum_size", Value::Whole(known.measures.quorum_size as u64));
    if known.leads() {
        for (name, value) in of_leader(known) {
            put(name, value);
        }
    }
    for (name, summary) in summaries(known, desk) {
        let Summary { count, sum } = summary;
        put(&format!("avg_{name}"), Value::Fraction(mean(sum, count)));
        put(&format!("cnt_{name}"), Value::Whole(count));
        put(&format!("sum_{name}"), Value::Whole(sum));
    }
    list
}

fn peer_state(known: &Known) -> String {
    let role = match known.serving_as() {
        Some("leader" | "standalone") => "leading",
        Some("follower") => "following",
        Some("observer") => "observing",
        _ => return "looking".to_owned(),
    };
    format!("{role} - {}", known.phase())
}

fn since_reset(known: &Known) -> Vec<(&'static str, Value)> {
    let traffic = known.status.since_reset;
    let (last, min, max) = sizes(known.status.answer_sizes);
    vec![
        ("packets_received", Value::Whole(traffic.received)),
        ("packets_sent", Value::Whole(traffic.sent)),
        ("min_latency", Value::Whole(traffic.latency.min)),
        ("avg_latency", Value::Fraction(known.average_latency())),
        ("max_latency", Value::Whole(traffic.latency.max)),
        ("latency_count", Value::Whole(traffic.latency.count)),
        ("last_client_response_size", Value::Size(last)),
        ("min_client_response_size", Value::Size(min)),
        ("max_client_response_size", Value::Size(max)),
    ]
}

fn of_leader(known: &Known) -> Vec<(&'static str, Value)> {
    let (status, measures) = (&known.status, &known.measures);
    let (last, min, max) = sizes(status.proposal_sizes);
    vec![
        ("learners", Value::Whole(status.peers_up as u64)),
        // ZooKeeper's name for it before 3.5, which boards still ask for: its learners that vote.
        ("followers", Value::Whole(voters_up(known) as u64)),
        ("synced_followers", Value::Whole(measures.synced_followers as u64)),
        ("synced_observers", Value::Whole(measures.synced_observers as u64)),
        ("pending_syncs", Value::Whole(status.pending_syncs as u64)),
        ("leader_uptime", Value::Whole(status.office_ms.unwrap_or(0))),
        ("last_proposal_size", Value::Size(last)),
        ("min_proposal_size", Value::Size(min)),
        ("max_proposal_size", Value::Size(max)),
    ]
}

fn voters_up(known: &Known) -> usize {
    use coordinator_core::members::Role;
    let view = &known.ensemble;
    let votes = |id| view.servers.get(id).is_some_and(|one| one.role() == Role::Participant);
    view.up.iter().filter(|id| votes(id)).count()
}

fn summaries(known: &Known, desk: &Desk) -> [(&'static str, Summary); 7] {
    let measures = &known.measures;
    let (counts, sum_us) = desk.sync_times.read();
    let syncs = Summary { count: counts.iter().sum(), sum: sum_us / 1_000 };
    [
        ("fsynctime", syncs),
        ("readlatency", measures.reads_ms),
        ("updatelatency", measures.updates_ms),
        ("node_created_watch_count", measures.fired.created),
        ("node_deleted_watch_count", measures.fired.deleted),
        ("node_changed_watch_count", measures.fired.changed),
        ("node_children_watch_count", measures.fired.children),
    ]
}

/// Last, smallest and largest; -1 before the first, as in ZooKeeper.
pub fn sizes(sizes: Sizes) -> (i64, i64, i64) {
    let whole = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    sizes
        .last_min_max
        .map_or((-1, -1, -1), |(last, min, max)| (whole(last), whole(min), whole(max)))
}

/// The core's gauges, and what it counts since start.
pub fn gauges(status: &Status) -> [(&'static str, u64); 28] {
    [
        ("server_id", status.id.get()),
        ("leader_id", status.leader.map_or(0, u64::from)),
        ("quorum_confirmed", u64::from(status.confirmed)),
        ("ready", u64::from(status.is_ready())),
        ("peers_up", status.peers_up as u64),
        ("term", status.term),
        ("log_last_index", status.last_index),
        ("log_commit_index", status.commit_index),
        ("log_applied_index", status.applied_index),
        ("log_unsynced_bytes", status.unsynced_bytes),
        ("snapshot_index", status.snapshot_index),
        ("disk_free_bytes", status.disk.free_bytes.unwrap_or(0)),
        ("disk_free_bytes_wanted", status.disk.low_mark_bytes),
        ("disk_low", u64::from(status.disk.is_low)),
        ("writes_refused", u64::from(status.disk.refuses_writes)),
        ("znode_count", status.nodes as u64),
        ("ephemerals_count", status.ephemerals as u64),
        ("approximate_data_size", status.data_bytes),
        ("watch_count", status.watches as u64),
        ("subscription_count", status.subscriptions as u64),
        ("num_alive_connections", status.connections as u64),
        ("global_sessions", status.sessions as u64),
        ("outstanding_requests", status.outstanding as u64),
        ("packets_received", status.received),
        ("packets_sent", status.sent),
        ("min_latency", status.latency_ms_min),
        ("max_latency", status.latency_ms_max),
        ("latency_count", status.latency_count),
    ]
}

/// Mean time from request to reply since start, ms.
pub fn average(status: &Status) -> f64 {
    if status.latency_count == 0 {
        return 0.0;
    }
    status.latency_ms_sum as f64 / status.latency_count as f64
}

/// A mean, to four places as in ZooKeeper.
pub fn mean(sum: u64, count: u64) -> f64 {
    let exact = if count == 0 { 0.0 } else { sum as f64 / count as f64 };
    (exact * 10_000.0).round() / 10_000.0
}

/// As Java writes it: with one place at least.
pub fn java_double(value: f64) -> String {
    format!("{value:?}")
}
