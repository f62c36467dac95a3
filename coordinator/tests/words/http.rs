//! Commands over HTTP.

use std::net::SocketAddr;

use coordinator_protocol::{CreateMode, ErrorCode};
use serde_json::{Value, json};

use super::{busy, served};
use crate::{create, say};

/// Status and body.
fn exchange(address: SocketAddr, request: &str) -> (u16, String) {
    let answer = say(address, format!("{request}\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = format!("Content-Length: {}", body.len());
    assert!(request.starts_with("HEAD") || head.contains(&length), "{head}");
    (status, body.to_owned())
}

fn ask(address: SocketAddr, method: &str, name: &str) -> (u16, Value) {
    let (status, body) = exchange(address, &format!("{method} /commands/{name} HTTP/1.1"));
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
}

#[test]
fn every_command_answers_with_its_name_and_an_error_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "srvr");
    let client = busy(server.client);
    let (status, list) = exchange(server.http, "GET /commands HTTP/1.1");
    assert_eq!(status, 200);
    let links = list.lines().filter_map(|line| line.strip_prefix("<a href=\"/commands/"));
    let names: Vec<&str> = links.map(|link| link.split_once('"').unwrap().0).collect();
    assert_eq!(names.len(), 28, "{list}");
    let absent = [
        "get_trace_mask",
        "hash",
        "leader",
        "observer_connection_stat_reset",
        "restore",
        "set_trace_mask",
        "snapshot",
        "system_properties",
    ];
    for name in names {
        let (status, answer) = ask(server.http, "GET", name);
        assert_eq!(answer["command"], name);
        assert_eq!(answer["error"].is_null(), !absent.contains(&name), "{answer}");
        assert_eq!(status, if name == "snapshot" { 405 } else { 200 }, "{answer}");
        let (status, body) = exchange(server.http, &format!("HEAD /commands/{name} HTTP/1.1"));
        assert!(body.is_empty() && status != 404, "{name}");
    }
    let session = client.session().get();
    let (_, dump) = ask(server.http, "GET", "dump");
    assert_eq!(dump["session_id_to_ephemeral_paths"][session.to_string()], json!(["/e1", "/e2"]));
    let (_, watches) = ask(server.http, "GET", "wchp");
    assert_eq!(watches["command"], "watches_by_path");
    let watched = json!({ "/e1": [session], "/none": [session] });
    assert_eq!(watches["path_to_session_ids"], watched);
    let (_, configuration) = ask(server.http, "GET", "conf");
    assert_eq!(configuration["client_port"], server.client.port());
    let (status, unknown) = ask(server.http, "GET", "nonsense");
    let expected = json!({ "command": "nonsense", "error": "Unknown command: nonsense" });
    assert_eq!((status, unknown), (200, expected), "as in ZooKeeper");
}

#[test]
fn what_changes_something_takes_post() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "srvr");
    let mut client = busy(server.client);
    let received = || ask(server.http, "GET", "monitor").1["packets_received"].clone();
    let of_connection =
        || ask(server.http, "GET", "cons").1["connections"][0]["packets_received"].clone();
    // ZooKeeper takes GET for these, so both.
    for (method, left) in [("GET", 0), ("POST", 0)] {
        client.ask(&create("/e1", CreateMode::Persistent));
        assert_ne!((received(), of_connection()), (json!(0), json!(0)));
        for name in ["stat_reset", "connection_stat_reset"] {
            let (status, answer) = ask(server.http, method, name);
            assert_eq!((status, &answer["error"]), (200, &Value::Null), "{answer}");
        }
        assert_eq!((received(), of_connection()), (json!(left), json!(left)));
    }
    let (_, before) = ask(server.http, "GET", "last_snapshot");
    assert_eq!((&before["zxid"], &before["timestamp"]), (&json!("ffffffffffffffff"), &json!(-1)));
    let (status, taken) = ask(server.http, "POST", "snap");
    assert_eq!((status, &taken["error"]), (200, &Value::Null), "{taken}");
    let file = std::fs::metadata(taken["file"].as_str().unwrap()).unwrap();
    assert_eq!(taken["snapshot_size"], file.len());
    let (_, after) = ask(server.http, "GET", "last_snapshot");
    let zxid = taken["last_zxid"].as_str().unwrap();
    assert_eq!(after["zxid"], zxid.trim_start_matches("0x"));
    assert!(after["timestamp"].as_u64() > Some(1_600_000_000));
    let (_, dirs) = ask(server.http, "GET", "dirs");
    assert_eq!(dirs["datadir_size"], file.len());
    assert_eq!(ask(server.http, "POST", "monitor").0, 405);
    assert_eq!(client.ask(&create("/after", CreateMode::Persistent)).0, ErrorCode::Ok);
}

#[test]
fn pages_are_told_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "srvr");
    for head in ["Origin: http://example.org", "Host: example.org", "Sec-Fetch-Site: same-site"] {
        for request in ["GET /commands/connections", "GET /commands", "POST /commands/stat_reset"] {
            let (status, body) = exchange(server.http, &format!("{request} HTTP/1.1\r\n{head}"));
            assert_eq!(status, 403);
            assert!(body.starts_with("only for commands on this machine"), "{body}");
        }
    }
    assert_eq!(exchange(server.http, "PUT /commands/stats HTTP/1.1").0, 405);
    assert_eq!(exchange(server.http, "GET /commandsx HTTP/1.1").0, 404);
}

#[test]
fn clients_of_another_port_are_hung_up_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = served(&folder, "srvr");
    let told = say(server.client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 400 ") && told.contains("httpPort"), "{told}");
    // Kafka's ApiVersions, and a handshake of ZooKeeper.
    let versions = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    assert_eq!(say(server.client, &versions), "");
    assert_eq!(say(server.http, &[&[0, 0, 0, 45][..], &[0; 45]].concat()), "");
    assert!(say(server.client, b"srvr").contains("Mode: standalone"));
}
