use super::super::tests::{desk, known};
use super::*;

/// What a command writes of the made-up server.
fn told(name: &str) -> Value {
    let question = Question::new(&format!("{COMMANDS_PATH}/{name}"), false).unwrap();
    let (known, desk) = (known(), desk());
    let sizes =
        super::super::sizes::Sizes { snapshots: 7, log: 8, snapshot_at: Some(1_795_383_882) };
    let gathered = Gathered { known: &known, desk: &desk };
    let fields = match question.kind.unwrap() {
        Kind::Serving(_, writer) | Kind::Any(_, writer) => writer(&gathered),
        Kind::Measured(_, writer) => writer(&gathered, &sizes),
        Kind::Leader => json::leader(&gathered),
        _ => panic!("{name} tells nothing"),
    };
    fields.into()
}

#[test]
fn every_name_stands_once_and_leads_to_the_first_one() {
    let names: Vec<&str> = COMMANDS.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let once: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(once.len(), names.len());
    for (alias, name) in
        [("conf", "configuration"), ("mntr", "monitor"), ("lsnp", "last_snapshot"), ("zzz", "zzz")]
    {
        assert_eq!(Question::new(&format!("/commands/{alias}"), false).unwrap().name, name);
    }
    assert!(Question::new("/commands", false).is_none());
    assert!(Question::new("/commands/", false).is_none());
    let body = list().body;
    assert!(body.starts_with("<a href=\"/commands/configuration\">configuration</a>\n<br/>\n"));
    assert_eq!(body.matches("<br/>").count(), COMMANDS.len());
}

#[test]
fn data_folder_is_read_for_those_who_tell_of_it_only() {
    let measured = COMMANDS.iter().filter(|(_, kind)| matches!(kind, Kind::Measured(..)));
    let names: Vec<&str> = measured.filter_map(|(names, _)| names.first().copied()).collect();
    assert_eq!(names, ["dirs", "last_snapshot", "server_stats", "stats"]);
    let stats = Question::new("/commands/stats", false).unwrap();
    assert!(stats.is_list(), "connections are listed");
}

#[test]
fn connections_are_told_apart_by_encryption() {
    let all = told("connections");
    let first = json!({
        "remote_socket_address": "127.0.0.1:40250", "interest_ops": 1, "outstanding_requests": 2,
        "packets_received": 6, "packets_sent": 5, "session_id": 0x100_0000, "last_operation": "GETD",
        "established": 1_795_383_843_750_i64, "session_timeout": 10_000, "last_cxid": 10, "last_zxid": 7,
        "last_response_time": 26_287, "last_latency": 1, "min_latency": 0, "avg_latency": 16, "max_latency": 47,
    });
    assert_eq!(all["connections"], json!([first]));
    let second = &all["secure_connections"][0];
    assert_eq!((&second["last_operation"], &second["last_cxid"]), (&json!("NA"), &json!(-1)));
    let brief = json!({
        "remote_socket_address": "127.0.0.1:40250", "interest_ops": 1, "outstanding_requests": 2,
        "packets_received": 6, "packets_sent": 5,
    });
    let stats = told("stats");
    assert_eq!(stats["connections"], json!([brief]));
    assert_eq!(stats["server_stats"]["avg_latency"], json!(10.1818));
    assert_eq!(stats["server_stats"]["last_processed_zxid"], json!(0x1_0000_000e_i64));
    let sizes = json!({ "last_buffer_size": 36, "min_buffer_size": 30, "max_buffer_size": 88 });
    assert_eq!(stats["proposal_stats"], sizes);
}

#[test]
fn sessions_and_watches_are_told_by_number() {
    let paths = json!({ "16777216": ["/e1", "/e2"], "33554432": ["/e3"] });
    let ends = json!({ "1795383854000": [16777216], "1795383855001": [33554432] });
    let expected =
        json!({ "session_id_to_ephemeral_paths": paths, "expiry_time_to_session_ids": ends });
    assert_eq!(told("dump"), expected);
    let watched = json!({ "16777216": ["/p"], "33554432": ["/none", "/p"] });
    assert_eq!(told("watches"), json!({ "session_id_to_watched_paths": watched }));
    let watchers = json!({ "/none": [33554432], "/p": [16777216, 33554432] });
    assert_eq!(told("wchp"), json!({ "path_to_session_ids": watchers }));
    let summary = json!({ "num_connections": 2, "num_paths": 2, "num_total_watches": 3 });
    assert_eq!(told("watch_summary"), summary);
}

#[test]
fn ensemble_is_told_by_who_leads_votes_and_observes() {
    assert_eq!(told("leader"), json!({ "is_leader": true, "leader_id": 2, "leader_ip": "b" }));
    let server = |place: &str, election: Value| {
        json!({
            "server_addresses": [format!("{place}:1")], "election_addresses": election,
            "client_address": format!("{place}:3"), "learner_type": "participant",
        })
    };
    let voting = json!({
        "1": server("a", json!(["a:2"])), "2": server("b", json!(["b:2"])), "3": server("c", json!([])),
    });
    assert_eq!(told("voting_view"), json!({ "current_config": voting }));
    let observer = json!({ "sid": 4, "remote_socket_address": "d:1" });
    assert_eq!(told("observers"), json!({ "synced_observers": 2, "observers": [observer] }));
    let state = told("zabstate");
    assert_eq!(state["zabstate"], "broadcast");
    assert_eq!((&state["zab_epoch"], &state["zab_counter"]), (&json!(1), &json!(14)));
    assert_eq!(state["quorum_address"]["all_addresses"], json!(["b:1"]));
    assert_eq!(told("dirs"), json!({ "datadir_size": 7, "logdir_size": 8 }));
    let snapshot = json!({ "zxid": "ffffffffffffffff", "timestamp": 1_795_383_882 });
    assert_eq!(told("last_snapshot"), snapshot);
}
