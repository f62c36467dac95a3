//! How large requests and answers may be, with the program itself.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use coordinator_protocol::{
    CreateMode, ErrorCode, PathWatch, Request, Response, SetDataRequest, SetWatchesRequest, Xid,
    encode_request,
};

use crate::client::Client;
use crate::{SOON, Stop, create, exists, say};

/// As much as settings allow.
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Header, the path `/a` and the numbers of a setData.
const SET_DATA_BYTES: usize = 8 + 6 + 4 + 4;

/// A server of its own, killed with the value.
struct Process {
    process: Child,
    client: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
}

impl Process {
    fn start(data: &Path, settings: &[&str]) -> Process {
        let log = data.with_extension("stderr");
        let mut process = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .arg("--set")
            .arg(format!("dataDir={}", data.display()))
            .args(["--set", "clientPort=0", "--set", "httpPort=0"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = |name: &str| {
            let rest = line.split_once(name).expect("it listens").1;
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (client, http) = (address("client="), address("http="));
        Process { process, client, http, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// What a measure stands at.
    fn measure(&self, name: &str) -> u64 {
        let mut socket = TcpStream::connect(self.http).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn set_data(bytes: usize) -> Request {
    let data = Some(vec![b'x'; bytes].into());
    Request::SetData(SetDataRequest { path: "/a".into(), data, version: -1 })
}

fn data_bytes(client: &mut Client) -> Option<usize> {
    let read = Request::GetData(PathWatch { path: "/a".into(), watch: false });
    match client.ask(&read) {
        (ErrorCode::Ok, Some(Response::DataStat(data, _))) => {
            Some(data.map_or(0, |data| data.len()))
        }
        _ => None,
    }
}

#[test]
fn request_is_taken_up_to_the_setting_and_one_above_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let setting = format!("jute.maxbuffer={REQUEST_BYTES_MAX}");
    let server = Process::start(&data, &[&setting, "snapCount=10"]);
    let mut client = Client::connect(server.client);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    let most = REQUEST_BYTES_MAX - SET_DATA_BYTES;
    assert_eq!(client.ask(&set_data(most)).0, ErrorCode::Ok);
    assert_eq!(data_bytes(&mut client), Some(most));
    assert!(client.try_ask_raw(&set_data(most + 1)).is_none());
    let log = server.log();
    let line = log.lines().find(|line| line.contains("larger than jute.maxbuffer")).expect(&log);
    for part in ["127.0.0.1", "33554433", "33554432"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(server.measure("coordinator_requests_too_large_total"), 1);
    drop(server);
    // From the log, and then from a snapshot.
    for _ in 0..2 {
        let server = Process::start(&data, &[&setting, "snapCount=10"]);
        let mut client = Client::connect(server.client);
        assert_eq!(data_bytes(&mut client), Some(most));
        for _ in 0..12 {
            let request = create("/s", CreateMode::PersistentSequential);
            assert_eq!(client.ask(&request).0, ErrorCode::Ok);
        }
    }
    // What was written stays where less is allowed now.
    let server = Process::start(&data, &[]);
    let mut client = Client::connect(server.client);
    assert_eq!(data_bytes(&mut client), Some(most));
    assert!(client.try_ask_raw(&set_data(1 << 20)).is_none());
    assert!(exists(&mut Client::connect(server.client), "/a"));
}

#[test]
fn members_carry_large_requests_to_one_another() {
    // Less than may be: without optimisation each station of a large one takes its time.
    const BYTES_MAX: usize = 2 << 20;
    let folder = tempfile::tempdir().unwrap();
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let peers: Vec<String> =
        (1..=3).map(|id| format!("server.{id}=127.78.{high}.{low}:{}", 10_000 + id)).collect();
    let start = |id: u64| {
        let data = folder.path().join(id.to_string());
        let mut settings = vec![format!("id={id}"), "peerSecret=secret".to_owned()];
        settings.push(format!("jute.maxbuffer={BYTES_MAX}"));
        settings.extend(peers.clone());
        Process::start(&data, &settings.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut members: Vec<Process> = (1..=3).map(start).collect();
    let leads = |member: &Process| say(member.client, b"srvr").contains("Mode: leader");
    let began = Instant::now();
    let leader = loop {
        match members.iter().position(leads) {
            Some(leader) => break leader,
            None => assert!(began.elapsed() < SOON, "no leader"),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let mut client = Client::connect(members[(leader + 1) % 3].client);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    let most = BYTES_MAX - SET_DATA_BYTES;
    assert_eq!(client.ask(&set_data(most)).0, ErrorCode::Ok);
    // The others have it without who led.
    members.remove(leader);
    assert_eq!(client.ask(&Request::Sync("/".into())).0, ErrorCode::Ok);
    for member in &members {
        let mut client = Client::connect(member.client);
        assert_eq!(client.ask(&Request::Sync("/".into())).0, ErrorCode::Ok);
        assert_eq!(data_bytes(&mut client), Some(most));
        assert!(!member.log().contains("panicked"));
    }
}

#[test]
fn answer_above_the_setting_is_an_error_and_one_above_what_java_takes_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let children = Request::GetChildren(PathWatch { path: "/a".into(), watch: true });
    let server = Process::start(&data, &[]);
    let mut client = Client::connect(server.client);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    let name = "x".repeat(1_000);
    let creates: Vec<Request> = (0..1_100)
        .map(|number| create(&format!("/a/{number}-{name}"), CreateMode::Persistent))
        .collect();
    assert!(client.ask_all(&creates).iter().all(|answer| answer.0 == ErrorCode::Ok));
    let (error, answer) = client.ask(&children);
    assert_eq!(error, ErrorCode::Ok);
    assert!(matches!(answer, Some(Response::Names(names)) if names.len() == 1_100));
    let told = |server: &Process, word: &str| {
        let log = server.log();
        let line = log.lines().rfind(|line| line.contains(word)).expect(&log).to_owned();
        for part in ["getChildren", "\"/a\"", "bytes=1108"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    };
    told(&server, "larger than Java's clients take");
    assert_eq!(server.measure("coordinator_responses_large_total"), 1);
    drop(server);
    let server = Process::start(&data, &["maxResponseBytes=1048574"]);
    let mut client = Client::connect(server.client);
    assert_eq!(client.ask(&children).0, ErrorCode::ThrottledOp);
    told(&server, "larger than maxResponseBytes");
    assert_eq!(server.measure("coordinator_responses_refused_total"), 1);
    assert_eq!(server.measure("coordinator_responses_large_total"), 0);
    assert!(exists(&mut client, "/a"), "the same session");
}

#[test]
fn watches_of_sixty_mebibytes_are_set_again_by_one_request() {
    const PATH_BYTES: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Process::start(&folder.path().join("data"), &[]);
    let mut other = Client::connect(server.client);
    assert_eq!(other.ask(&create("/there", CreateMode::Persistent)).0, ErrorCode::Ok);
    let mut client = Client::connect(server.client);
    let path = |number: usize| format!("/{number:05}{}", "x".repeat(PATH_BYTES - 6));
    let mut exist_watches: Vec<String> = (0..(60 << 20) / (PATH_BYTES + 4)).map(path).collect();
    exist_watches.push("/there".to_owned());
    let count = exist_watches.len() as u64;
    let watches = SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() };
    let request = Request::SetWatches2(watches);
    assert!(encode_request(Xid::SET_WATCHES, &request).len() > 60_000_000);
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let stop = Stop(&going);
        // Others are served meanwhile.
        let served = scope.spawn(|| {
            let mut other = Client::connect(server.client);
            let mut count = 0;
            while going.load(Ordering::Relaxed) {
                assert!(exists(&mut other, "/there"));
                count += 1;
            }
            count
        });
        let error = client.ask(&request).0;
        drop(stop);
        assert_eq!(error, ErrorCode::Ok);
        assert!(served.join().unwrap() > 1);
    });
    // The last of them is there already, which was told; all others wait.
    assert_eq!(server.measure("coordinator_watch_count"), count - 1);
    assert!(exists(&mut client, "/there"), "the same session");
    // As much again is more than one connection may watch.
    let again = |number: usize| format!("{}y", path(number));
    let exist_watches = (0..(60 << 20) / (PATH_BYTES + 5)).map(again).collect();
    let watches = SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() };
    assert_eq!(client.ask(&Request::SetWatches2(watches)).0, ErrorCode::QuotaExceeded);
    assert!(client.is_closed_by_server());
    assert!(server.log().contains("as many watches as may be"));
    // Nobody has pinged for the first session meanwhile.
    assert!(exists(&mut Client::connect(server.client), "/there"));
}
