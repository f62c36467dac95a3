//! The program's commands, as a person gives them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use coordinator_protocol::{CreateMode, ErrorCode, PathWatch, Request, Response};

use crate::client::Client;
use crate::{SOON, create, exists, say};

/// A server of its own, killed with the value.
pub struct Served {
    process: Child,
    pub client: SocketAddr,
    pub http: SocketAddr,
}

impl Served {
    pub fn start(data: &Path) -> Served {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, settings: &[String]) -> Served {
        let mut process = command(data)
            .args(["--set", "clientPort=0", "--set", "httpPort=0"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |name: &str| {
            let rest = line.split_once(name).unwrap().1;
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (client, http) = (address("client="), address("http="));
        Served { process, client, http }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    command.arg("--set").arg(format!("dataDir={}", data.display()));
    command
}

/// Runs a command on a folder.
pub fn run(data: &Path, arguments: &[&str]) -> Output {
    command(data).args(arguments).output().unwrap()
}

/// What it said, as JSON; it has to have ended well.
pub fn json(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

fn json_path(path: &Path) -> serde_json::Value {
    path.to_str().unwrap().into()
}

#[test]
fn snapshot_of_a_running_server_is_a_backup_of_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let server = Served::start(&data);
    let mut client = Client::connect(server.client);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    let http = server.http.to_string();
    let taken = json(&run(&data, &["snapshot", "--http", &http, "-o", "json"]));
    let file = taken["file"].as_str().unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().len(), taken["bytes"].as_u64().unwrap());
    assert_eq!(taken["zxid"], "0x100000002", "a session and a node");
    let again = run(&data, &["snapshot", "--http", &format!("localhost:{}", server.http.port())]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.status.success() && text.contains(file), "{text}");
    let told = json(&run(&other, &["restore", "--from", file, "-o", "json"]));
    assert_eq!((&told["log_index"], &told["folder"]), (&taken["log_index"], &json_path(&other)));
    let restored = Served::start(&other);
    assert!(exists(&mut Client::connect(restored.client), "/a"));
}

#[test]
fn backup_of_other_members_than_the_settings_name_is_restored_only_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = [format!("server.1={free}"), "peerSecret=x".into(), "reconfigEnabled=true".into()];
    let server = Served::start_with(&data, &first);
    let mut client = Client::connect(server.client);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    // Its members come into the log by themselves, a moment after it leads.
    let config = PathWatch { path: "/zookeeper/config".into(), watch: false };
    let mut named = || match client.ask(&Request::GetData(config.clone())).1 {
        Some(Response::DataStat(_, stat)) => stat.mzxid.get() > 0,
        other => panic!("{other:?}"),
    };
    let began = std::time::Instant::now();
    while !named() {
        assert!(began.elapsed() < SOON, "no members");
    }
    let http = server.http.to_string();
    let taken = json(&run(&data, &["snapshot", "--http", &http, "-o", "json"]));
    let file = taken["file"].as_str().unwrap();
    let restore = |more: &[&str]| run(&other, &[more, &["restore", "--from", file]].concat());
    let two =
        ["--set", "server.1=127.0.0.1:1", "--set", "server.2=127.0.0.1:2", "--set", "peerSecret=x"];
    let refused = restore(&two);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains(&format!("server.1={free}")), "{said}");
    assert!(!other.exists(), "something was written");
    let forced = [&two[..], &["restore", "--other-members", "--from", file]].concat();
    assert!(run(&other, &forced).status.success());
    std::fs::remove_dir_all(&other).unwrap();
    assert!(restore(&[]).status.success(), "it names itself only, as the snapshot does");
    let restored = Served::start(&other);
    let mut client = Client::connect(restored.client);
    assert!(exists(&mut client, "/a"));
    match client.ask(&Request::GetData(config)).1 {
        Some(Response::DataStat(data, _)) => assert!(data.is_some_and(|text| text.is_empty())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn snapshot_is_asked_for_by_commands_only_and_where_a_server_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Served::start(&data);
    let page = b"POST /snapshot HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\n\r\n";
    assert!(say(server.http, page).starts_with("HTTP/1.1 403 "));
    assert!(say(server.http, b"POST /ready HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(say(server.http, b"GET /snapshot HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    let nowhere = run(&data, &["snapshot"]);
    assert!(!nowhere.status.success());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("httpPort is not set"));
}

#[test]
fn repair_changes_nothing_until_it_is_told_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Served::start(&data);
    let mut client = Client::connect(server.client);
    for number in 0..20 {
        let path = format!("/n{number}");
        assert_eq!(client.ask(&create(&path, CreateMode::Persistent)).0, ErrorCode::Ok);
    }
    drop(server);
    assert_eq!(json(&run(&data, &["repair", "-o", "json"]))["plan"], "nothing");
    let segment = data.join("log/0000000000000001.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(4).position(|four| four == b"/n10").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let checked = run(&data, &["check", "-o", "json"]);
    assert_eq!(checked.status.code(), Some(1));
    let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["sound"], false);
    assert!(checked["damage"].as_str().unwrap().contains("damaged at byte"), "{checked}");
    let started = run(&data, &["--set", "clientPort=0"]);
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(said.contains("damaged at byte") && said.contains("coordinator repair"), "{said}");
    let planned = run(&data, &["repair", "-o", "json"]);
    assert_eq!(planned.status.code(), Some(3), "there is something to do");
    let plan: serde_json::Value = serde_json::from_slice(&planned.stdout).unwrap();
    assert_eq!((&plan["plan"], &plan["done"]), (&"cut".into(), &false.into()));
    assert_eq!(plan["needs_flag"], "--accept-loss");
    let refused = run(&data, &["repair", "--yes"]);
    assert!(!refused.status.success());
    let done = json(&run(&data, &["repair", "--accept-loss", "-o", "json"]));
    assert_eq!(done["done"], true);
    assert_eq!(json(&run(&data, &["check", "-o", "json"]))["sound"], true);
    let server = Served::start(&data);
    let mut client = Client::connect(server.client);
    assert!(exists(&mut client, "/n9"));
    assert!(!exists(&mut client, "/n10") && !exists(&mut client, "/n11"));
    assert_eq!(client.ask(&create("/n10", CreateMode::Persistent)).0, ErrorCode::Ok);
}

#[test]
fn start_without_the_log_names_the_command_that_knows_more() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Served::start(&data);
    assert_eq!(
        Client::connect(server.client).ask(&create("/a", CreateMode::Persistent)).0,
        ErrorCode::Ok
    );
    let http = server.http.to_string();
    json(&run(&data, &["snapshot", "--http", &http, "-o", "json"]));
    drop(server);
    std::fs::remove_dir_all(data.join("log")).unwrap();
    let started = run(&data, &["--set", "clientPort=0"]);
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    let times = |words: &str| said.matches(words).count();
    assert_eq!(
        (times("the log is missing"), times("tidegate coordinator repair")),
        (1, 1),
        "{said}"
    );
}

#[test]
fn member_with_nothing_left_is_told_the_way_back_and_one_alone_another() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let two =
        ["--set", "server.1=127.0.0.1:1", "--set", "server.2=127.0.0.1:2", "--set", "peerSecret=x"];
    let repair =
        |settings: &[&str], more: &[&str]| run(&data, &[settings, &["repair"], more].concat());
    let said = repair(&two, &[]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(1), "nothing here can be repaired");
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words}: {text}"));
    assert!(at("ALL other members") < at("tidegate coordinator transfer"));
    assert!(at("tidegate coordinator transfer") < at("start this server without it"));
    let said: serde_json::Value =
        serde_json::from_slice(&repair(&two, &["-o", "json"]).stdout).unwrap();
    assert_eq!(said["next"].as_array().unwrap().len(), 3, "{said}");
    let alone = repair(&[], &[]);
    let text = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(text.contains("coordinator restore") && !text.contains("transfer"), "{text}");
    assert!(!data.exists(), "something was written");
}

#[test]
fn server_without_a_quorum_says_whom_it_does_not_reach() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let members = ["2", "3"].map(|id| format!("server.{id}=127.0.0.1:1{id}"));
    let settings = [&[format!("server.1={own}"), "peerSecret=x".into()][..], &members].concat();
    let server = Served::start_with(&folder.path().join("data"), &settings);
    let ready = say(server.http, b"GET /ready HTTP/1.1\r\n\r\n");
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    let why = "not in a quorum: no leader is known; linked to nobody, 2, 3 missing\n";
    assert!(ready.ends_with(why), "{ready}");
}

#[test]
fn what_goes_wrong_is_said_once_and_as_json_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (data, nowhere) = (folder.path().join("data"), folder.path().join("none"));
    let from = nowhere.to_str().unwrap();
    for command in ["restore", "import-zookeeper"] {
        let refused = run(&data, &[command, "--from", from, "-o", "json"]);
        assert_eq!(refused.status.code(), Some(1));
        let told: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert!(told["error"].as_str().unwrap().contains(from), "{command}: {told}");
    }
    let server = Served::start(&data);
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let twice = said(run(Path::new("/proc/none"), &["--set", "clientPort=0"]));
    assert_eq!(twice.matches("/proc/none").count(), 1, "{twice}");
    let twice = said(run(&data, &["import-zookeeper", "--from", from]));
    assert_eq!(twice.matches(from).count(), 1, "{twice}");
    let second = run(&data, &["--set", "clientPort=0"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(said.matches("another coordinator is running").count(), 1, "{said}");
    drop(server);
}
