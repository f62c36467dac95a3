//! One sentence for each family of metrics.
//!
//! Called by: `metrics`. Calls: nothing. Invariant: every family has one; the units are in it where the name has none.
//! Does not know: values.

/// What the family says; of one that `mntr` has under the name behind `coordinator_`, the same.
pub fn of(family: &str) -> &'static str {
    let name = family.strip_prefix("coordinator_").unwrap_or(family);
    of_server(name).or_else(|| of_log(name)).or_else(|| of_traffic(name)).unwrap_or_else(|| {
        debug_assert!(false, "{family} has no help");
        "See the README."
    })
}

/// Of the server and its process.
fn of_server(name: &str) -> Option<&'static str> {
    Some(match name {
        "server_id" => "Id of this server.",
        "leader_id" => "Id of the leader as far as this server knows, 0 for none.",
        "quorum_confirmed" => "Whether this server is sure of a leader with a quorum.",
        "ready" => "Whether this server serves clients as a member of a quorum.",
        "peers_up" => "Members to which the link works.",
        "quorum_size" => "Voters of the ensemble.",
        "synced_followers" => "Followers that the leader has just heard of.",
        "synced_observers" => "Observers that the leader has just heard of.",
        "znode_count" => "Znodes.",
        "ephemerals_count" => "Ephemeral znodes.",
        "approximate_data_size" => "Bytes of paths and data of all znodes.",
        "watch_count" => "Watches set on this server.",
        "subscription_count" => "Subscriptions held on this server.",
        "num_alive_connections" => "Client connections of this server.",
        "global_sessions" => "Sessions of the ensemble.",
        "disk_free_bytes" => "Bytes free where the data is.",
        "disk_free_bytes_wanted" => "Bytes free below which writes are refused (diskFreeBytesMin).",
        "disk_low" => "Whether writes are refused because the disk has little room.",
        "writes_refused" => "Writes refused because a member's disk has little room.",
        "audit_records_total" => "Records written to the audit log.",
        "audit_records_dropped_total" => "Records that the audit log had no room for.",
        "tls_files_renewed_total" => "Times that changed files for TLS were taken.",
        "tls_files_broken" => {
            "Ports whose changed files for TLS cannot be used; they go on with those of before."
        }
        "process_resident_memory_bytes" => "Resident memory in bytes.",
        "process_open_fds" | "open_file_descriptor_count" => "Open file descriptors.",
        "process_cpu_seconds_total" => "User and system time of the process in seconds.",
        _ => return None,
    })
}

/// Of consensus, its log and snapshots.
fn of_log(name: &str) -> Option<&'static str> {
    Some(match name {
        "term" | "kafka_server_raftmetrics_current_epoch" => "Term of consensus.",
        "log_last_index" => "Last index of the log.",
        "log_commit_index" | "kafka_server_raftmetrics_high_watermark" => {
            "Last index known to be committed."
        }
        "log_applied_index" => "Last index applied to the tree.",
        "log_unsynced_bytes" => "Bytes of entries that wait for the disk.",
        "kafka_server_raftmetrics_log_end_offset" => {
            "Last index of the log, under the name of Kafka's controllers."
        }
        "kafka_server_raftmetrics_current_leader" => "Id of the leader, -1 for none.",
        "kafka_server_raftmetrics_current_state" => {
            "Part that this server has in consensus, as a label."
        }
        "snapshot_index" => "Index that the last snapshot was taken at.",
        "snapshot_bytes" => "Bytes of the last snapshot of this server.",
        "snapshottime" => "Milliseconds that snapshots took.",
        "snapshot_error_count" => "Snapshots that could not be written.",
        "fsync_seconds" => "Seconds that syncs of the log took.",
        "fsynctime" => "Milliseconds that syncs of the log took.",
        "queue_inputs" => "Inputs that wait for the core.",
        "queue_commands" => "Commands that wait to be proposed.",
        "queue_commands_bytes" => "Bytes of commands that wait to be proposed.",
        "queue_entries_in_flight" => "Entries proposed and not yet applied.",
        _ => return None,
    })
}

/// Of requests, answers and watches.
fn of_traffic(name: &str) -> Option<&'static str> {
    Some(match name {
        "outstanding_requests" => "Requests taken and not yet answered.",
        "outstanding_bytes" => "Bytes of requests taken and not yet answered.",
        "packets_received" | "packets_received_total" => "Packets received from clients.",
        "packets_sent" | "packets_sent_total" => "Packets sent to clients.",
        "min_latency" => "Least milliseconds from a request to its answer.",
        "avg_latency" => "Mean milliseconds from a request to its answer.",
        "max_latency" => "Most milliseconds from a request to its answer.",
        "latency_count_total" => "Requests whose latency was measured.",
        "request_latency_seconds" => "Seconds from a request to its answer, by operation.",
        "readlatency" => "Milliseconds from a read to its answer.",
        "updatelatency" => "Milliseconds from a write to its answer.",
        "response_bytes" => "Bytes of answers.",
        "requests_too_large_total" => {
            "Requests larger than jute.maxbuffer; their connections were closed."
        }
        "responses_large_total" => "Answers of 1,048,575 bytes and more.",
        "responses_refused_total" => "Answers larger than maxResponseBytes, refused with -127.",
        "watches_refused_total" => "Watches refused by a limit.",
        "sessions_refused_total" => "Sessions refused by a limit.",
        "watch_notifications_per_change" => "Notifications of watches that one change made.",
        "node_created_watch_count" => "Notifications for created znodes.",
        "node_deleted_watch_count" => "Notifications for deleted znodes.",
        "node_changed_watch_count" => "Notifications for changed data.",
        "node_children_watch_count" => "Notifications for changed children.",
        _ => return None,
    })
}
