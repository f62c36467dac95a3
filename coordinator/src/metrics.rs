//! What Prometheus is told of a server.
//!
//! Called by: `http`. Calls: the core's status, `/proc/self`.
//! Names: every measure of `mntr` as `coordinator_*`; those that ZooKeeper's own Prometheus provider has, under its names; the log's as
//! `kafka_server_raftmetrics_*`, which boards for Kafka's controllers ask for. Invariant: what cannot be read is left out.

use std::fmt::Write;

use coordinator_core::server::{Measures, Mode, Status};

use crate::admin::{average, gauges};
use crate::storage::{SnapshotCounts, SyncTimes};

mod distributions;
mod help;

/// Of `mntr`'s, those that count up.
const COUNTERS: [&str; 3] = ["packets_received", "packets_sent", "latency_count"];
/// Of `mntr`'s, those that ZooKeeper's provider has.
const OF_ZOOKEEPER: [&str; 10] = [
    "znode_count",
    "ephemerals_count",
    "approximate_data_size",
    "watch_count",
    "num_alive_connections",
    "global_sessions",
    "outstanding_requests",
    "packets_received",
    "packets_sent",
    "max_latency",
];

/// What metrics are made of.
pub struct Reading<'a> {
    /// Of the core.
    pub status: &'a Status,
    /// Of the core, too.
    pub measures: &'a Measures,
    /// Of the log.
    pub syncs: &'a SyncTimes,
    /// Of snapshots.
    pub snapshots: SnapshotCounts,
    /// Inputs that wait for the core.
    pub inputs_waiting: usize,
    /// Records of the audit log that were written, and dropped.
    pub audit: Option<(u64, u64)>,
    /// Requests that were larger than may be.
    pub too_large: u64,
    /// How often files for TLS were read again, and how many ports have some that cannot be used.
    pub tls_renewals: Option<(u64, u64)>,
}

/// All of it in Prometheus' text form.
pub fn text(reading: &Reading<'_>) -> String {
    let Reading { status, measures, syncs, snapshots, inputs_waiting, audit, too_large, .. } =
        *reading;
    let mut text = String::new();
    for (name, value) in gauges(status) {
        match COUNTERS.contains(&name) {
            true => put(&mut text, &format!("coordinator_{name}_total"), "counter", value),
            false => put(&mut text, &format!("coordinator_{name}"), "gauge", value),
        }
        if OF_ZOOKEEPER.contains(&name) {
            // There they are gauges, all of them.
            put(&mut text, name, "gauge", value);
        }
    }
    put(&mut text, "avg_latency", "gauge", average(status));
    if status.mode == Mode::Leader {
        put(&mut text, "synced_followers", "gauge", measures.synced_followers);
        put(&mut text, "synced_observers", "gauge", measures.synced_observers);
    }
    distributions::queues(&mut text, measures, inputs_waiting);
    distributions::text(&mut text, measures, syncs);
    put(&mut text, "coordinator_requests_too_large_total", "counter", too_large);
    put(&mut text, "coordinator_responses_large_total", "counter", measures.large_replies);
    put(&mut text, "coordinator_responses_refused_total", "counter", measures.refused_replies);
    put(&mut text, "coordinator_watches_refused_total", "counter", measures.refused_watches);
    put(&mut text, "coordinator_sessions_refused_total", "counter", measures.refused_sessions);
    distributions::snapshots(&mut text, snapshots);
    if let Some((written, dropped)) = audit {
        put(&mut text, "coordinator_audit_records_total", "counter", written);
        put(
            &mut text,
            "coordinator_audit_records_dropped_total",
            "counter",
            dropped.saturating_add(measures.audit_left_out),
        );
    }
    if let Some((renewed, broken)) = reading.tls_renewals {
        put(&mut text, "coordinator_tls_files_renewed_total", "counter", renewed);
        put(&mut text, "coordinator_tls_files_broken", "gauge", broken);
    }
    raft(&mut text, status);
    process(&mut text);
    text
}

fn raft(text: &mut String, status: &Status) {
    let leader = status.leader.map_or(-1, |leader| i64::try_from(u64::from(leader)).unwrap_or(-1));
    let domain = "kafka_server_raftmetrics";
    put(text, &format!("{domain}_current_leader"), "gauge", leader);
    put(text, &format!("{domain}_current_epoch"), "gauge", status.term);
    put(text, &format!("{domain}_high_watermark"), "gauge", status.commit_index);
    put(text, &format!("{domain}_log_end_offset"), "gauge", status.last_index);
    let state = match status.mode {
        Mode::Standalone | Mode::Leader => "leader",
        Mode::Follower => "follower",
        Mode::Observer => "observer",
        Mode::Looking => "candidate",
        Mode::Halted => "resigned",
    };
    let name = format!("{domain}_current_state");
    declare(text, &name, "gauge");
    let _ = writeln!(text, "{name}{{state=\"{state}\"}} 1");
}

fn process(text: &mut String) {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let word = |text: &str, at: usize| text.split_whitespace().nth(at)?.parse::<u64>().ok();
    if let Some(pages) = read("/proc/self/statm").and_then(|statm| word(&statm, 1)) {
        let bytes = pages.saturating_mul(rustix::param::page_size() as u64);
        put(text, "process_resident_memory_bytes", "gauge", bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let count = files.count();
        put(text, "process_open_fds", "gauge", count);
        put(text, "open_file_descriptor_count", "gauge", count);
    }
    let stat = read("/proc/self/stat");
    // After the name, which may hold anything, utime and stime are fields 12 and 13.
    let rest = stat.as_deref().and_then(|stat| Some(stat.rsplit_once(')')?.1));
    if let Some((user, system)) = rest.and_then(|rest| Some((word(rest, 11)?, word(rest, 12)?))) {
        let ticks = user.saturating_add(system) as f64;
        let seconds = ticks / rustix::param::clock_ticks_per_second() as f64;
        put(text, "process_cpu_seconds_total", "counter", seconds);
    }
}

fn put(text: &mut String, name: &str, kind: &str, value: impl std::fmt::Display) {
    declare(text, name, kind);
    let _ = writeln!(text, "{name} {value}");
}

/// Begins a family.
fn declare(text: &mut String, name: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", help::of(name));
}

#[cfg(test)]
pub mod tests {
    use coordinator_core::ServerId;
    use coordinator_core::server::{Fired, Histogram, Sizes, Summary, Traffic};
    use coordinator_protocol::Zxid;

    use super::*;

    /// Of a server with this part.
    pub fn status(mode: Mode) -> Status {
        Status {
            id: ServerId::new(2).unwrap(),
            mode,
            leader: ServerId::new(2),
            confirmed: true,
            lack: None,
            member: true,
            term: 7,
            commit_index: 40,
            applied_index: 40,
            last_index: 41,
            unsynced_bytes: 0,
            snapshot_index: 0,
            zxid: Zxid::default(),
            connections: 3,
            outstanding: 0,
            sessions: 3,
            nodes: 5,
            ephemerals: 1,
            data_bytes: 100,
            watches: 0,
            subscriptions: 0,
            received: 9,
            sent: 9,
            latency_ms_min: 0,
            latency_ms_max: 4,
            latency_ms_sum: 6,
            latency_count: 4,
            peers_up: 2,
            links: coordinator_core::server::Links::default(),
            disk: coordinator_core::server::DiskRoom::default(),
            read_only: false,
            local_sessions: 0,
            since_reset: Traffic::default(),
            answer_sizes: Sizes::default(),
            proposal_sizes: Sizes::default(),
            office_ms: None,
            pending_syncs: 0,
            snapshot_zxid: None,
        }
    }

    /// With a little of everything.
    pub fn measures() -> Measures {
        let mut latency = Histogram::new(&[1, 10]);
        (latency.counts, latency.sum) = (vec![2, 0, 1], 21);
        Measures {
            latencies_ms: vec![("create", latency.clone()), ("getData", latency.clone())],
            reads_ms: Summary { count: 3, sum: 21 },
            updates_ms: Summary { count: 3, sum: 21 },
            fan_out: latency.clone(),
            fired: Fired::default(),
            replies_bytes: latency,
            large_replies: 8,
            refused_replies: 9,
            refused_watches: 10,
            refused_sessions: 11,
            quorum_size: 3,
            synced_followers: 1,
            synced_observers: 2,
            commands_waiting: 0,
            commands_waiting_bytes: 0,
            entries_in_flight: 1,
            audit_left_out: 2,
            outstanding_bytes: 7,
        }
    }

    fn shown(mode: Mode) -> String {
        let (status, measures, syncs) = (status(mode), measures(), SyncTimes::default());
        syncs.add(std::time::Duration::from_micros(1_500));
        let (status, measures, syncs) = (&status, &measures, &syncs);
        let snapshots = SnapshotCounts { count: 2, sum_ms: 31, bytes: 4_096, failures: 1 };
        let (inputs_waiting, audit, too_large) = (4, Some((5, 6)), 3);
        let tls_renewals = Some((12, 1));
        text(&Reading {
            status,
            measures,
            syncs,
            snapshots,
            inputs_waiting,
            audit,
            too_large,
            tls_renewals,
        })
    }

    #[test]
    fn boards_find_their_names() {
        let text = shown(Mode::Leader);
        for line in [
            "znode_count 5",
            "coordinator_znode_count 5",
            "avg_latency 1.5",
            "synced_followers 1",
            "synced_observers 2",
            "quorum_size 3",
            "coordinator_queue_inputs 4",
            "coordinator_audit_records_dropped_total 8",
            "coordinator_requests_too_large_total 3",
            "coordinator_tls_files_renewed_total 12",
            "coordinator_tls_files_broken 1",
            "coordinator_responses_large_total 8",
            "coordinator_responses_refused_total 9",
            "coordinator_watches_refused_total 10",
            "coordinator_sessions_refused_total 11",
            "coordinator_response_bytes_bucket{le=\"10\"} 2",
            "coordinator_request_latency_seconds_bucket{operation=\"create\",le=\"0.001\"} 2",
            "coordinator_request_latency_seconds_bucket{operation=\"create\",le=\"+Inf\"} 3",
            "coordinator_request_latency_seconds_sum{operation=\"create\"} 0.021",
            "coordinator_watch_notifications_per_change_bucket{le=\"10\"} 2",
            "readlatency_count 3",
            "updatelatency_sum 21",
            "coordinator_fsync_seconds_bucket{le=\"0.001\"} 0",
            "coordinator_fsync_seconds_bucket{le=\"0.0025\"} 1",
            "fsynctime_sum 1",
            "snapshottime_count 2",
            "snapshottime_sum 31",
            "snapshot_error_count 1",
            "coordinator_snapshot_bytes 4096",
            "kafka_server_raftmetrics_current_leader 2",
            "kafka_server_raftmetrics_current_epoch 7",
            "kafka_server_raftmetrics_high_watermark 40",
            "kafka_server_raftmetrics_log_end_offset 41",
            "kafka_server_raftmetrics_current_state{state=\"leader\"} 1",
            "# TYPE coordinator_packets_received_total counter",
            "# HELP coordinator_znode_count Znodes.",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        for name in
            ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"]
        {
            assert!(text.contains(&format!("\n{name} ")), "no {name} in\n{text}");
        }
        distributions::tests::check_form(&text);
    }

    #[test]
    fn only_a_leader_has_followers() {
        assert!(!shown(Mode::Follower).contains("synced_followers"));
    }
}
