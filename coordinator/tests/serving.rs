//! Whole servers on loopback sockets: what a client, an operator and another member meet.

mod audit;
mod client;
mod commands;
mod limits;
mod room;
mod tls;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use coordinator::config::{Config, Values};
use coordinator::embedded::Embedded;
use coordinator_protocol::{
    Acl, CreateMode, CreateRequest, ErrorCode, FRAME_BYTES_MAX, PathWatch, Request, Response,
    SET_WATCHES_PATHS_MAX, SetDataRequest, SetWatchesRequest, Xid, encode_request,
};

/// A hang guard, no measure.
const SOON: Duration = Duration::from_secs(30);

fn start(folder: &Path) -> Embedded {
    Embedded::start(folder.join("data"), "127.0.0.1:0".parse().unwrap()).unwrap()
}

fn create(path: &str, mode: CreateMode) -> Request {
    let (path, data, flags) = (path.to_owned(), Some("x".into()), mode as i32);
    Request::Create(CreateRequest { path, data, acl: Acl::open(), flags })
}

fn exists(client: &mut Client, path: &str) -> bool {
    let (error, _) = client.ask(&Request::Exists(PathWatch { path: path.into(), watch: false }));
    assert!(matches!(error, ErrorCode::Ok | ErrorCode::NoNode), "{error:?}");
    error == ErrorCode::Ok
}

fn say(address: SocketAddr, words: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.write_all(words).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = Client::connect(server.client_address());
    let (error, _) = client.ask(&create("/a", CreateMode::Persistent));
    assert_eq!(error, ErrorCode::Ok);
    let set = SetDataRequest { path: "/a".into(), data: Some("y".into()), version: 0 };
    assert_eq!(client.ask(&Request::SetData(set)).0, ErrorCode::Ok);
    server.stop().unwrap();
    let server = start(folder.path());
    let mut client = Client::connect(server.client_address());
    let read = Request::GetData(PathWatch { path: "/a".into(), watch: false });
    let (_, answer) = client.ask(&read);
    let Some(Response::DataStat(data, stat)) = answer else { panic!("{answer:?}") };
    assert_eq!((data, stat.version), (Some("y".into()), 1));
}

#[test]
fn closed_session_takes_its_ephemerals_along_and_a_lost_socket_alone_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut watcher = Client::connect(server.client_address());
    let mut closing = Client::connect(server.client_address());
    assert_eq!(closing.ask(&create("/closing", CreateMode::Ephemeral)).0, ErrorCode::Ok);
    let mut lost = Client::connect(server.client_address());
    assert_eq!(lost.ask(&create("/lost", CreateMode::Ephemeral)).0, ErrorCode::Ok);
    drop(lost);
    assert_eq!(closing.ask(&Request::CloseSession).0, ErrorCode::Ok);
    assert!(closing.is_closed_by_server());
    assert!(!exists(&mut watcher, "/closing"));
    assert!(exists(&mut watcher, "/lost"), "its session lives until its time-out");
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = Client::connect(server.client_address());
    let requests: Vec<Request> =
        (0..500).map(|_| create("/n-", CreateMode::PersistentSequential)).collect();
    let answers = client.ask_all(&requests);
    for (number, (error, answer)) in answers.into_iter().enumerate() {
        assert_eq!(error, ErrorCode::Ok);
        assert_eq!(answer, Some(Response::Path(format!("/n-{number:010}"))));
    }
}

#[test]
fn unknown_operation_is_answered_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&Request::Unknown(500)).0, ErrorCode::Unimplemented);
    assert!(!exists(&mut client, "/none"));
}

#[test]
fn frame_above_the_limit_ends_only_its_own_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut other = Client::connect(server.client_address());
    let mut client = Client::connect(server.client_address());
    let length = i32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    client.send_raw(&length.to_be_bytes());
    // It might still set watches, which may be more.
    client.send_raw(&[0, 0, 0, 1, 0, 0, 0, 5]);
    assert!(client.is_closed_by_server());
    // What begins as HTTP is told so first, which `words` looks at.
    for rubbish in
        [&[0xff; 8][..], &[0, 0, 4, 1], &[0, 0, 0, 4, 1, 2, 3, 4], b"TRACE / HTTP/1.1\r\n"]
    {
        let mut socket = TcpStream::connect(server.client_address()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.write_all(rubbish).unwrap();
        // An end-of-file or a reset: either way the server is done with it.
        assert!(matches!(socket.read(&mut [0; 8]), Ok(0) | Err(_)), "{rubbish:?}");
    }
    assert!(!exists(&mut other, "/none"));
}

#[test]
fn watches_of_more_bytes_than_other_requests_may_have_are_set_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut writer = Client::connect(server.client_address());
    assert_eq!(writer.ask(&create("/there", CreateMode::Persistent)).0, ErrorCode::Ok);
    let paths = (0..2_000).map(|number| format!("/{number:01000}"));
    let mut exist_watches: Vec<String> = paths.collect();
    exist_watches.push("/there".to_owned());
    let watches = SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() };
    assert!(
        encode_request(Xid::SET_WATCHES, &Request::SetWatches2(watches.clone())).len()
            > FRAME_BYTES_MAX
    );
    // More clients than places for such frames, which a place that is not given back would show.
    for _ in 0..10 {
        let mut client = Client::connect(server.client_address());
        assert_eq!(client.ask(&Request::SetWatches2(watches.clone())).0, ErrorCode::Ok);
        assert!(exists(&mut client, "/there"));
    }
}

#[test]
fn more_watches_than_one_request_may_name_end_only_their_own_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut other = Client::connect(server.client_address());
    let mut client = Client::connect(server.client_address());
    let watches = |count| {
        let exist_watches = vec!["/none".to_owned(); count];
        Request::SetWatches2(SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() })
    };
    assert_eq!(client.ask(&watches(SET_WATCHES_PATHS_MAX)).0, ErrorCode::Ok);
    assert_eq!(client.ask(&watches(SET_WATCHES_PATHS_MAX + 1)).0, ErrorCode::MarshallingError);
    assert!(client.is_closed_by_server());
    assert!(!exists(&mut other, "/none"));
}

#[test]
fn four_letter_words_have_the_fields_that_programs_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path());
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    let address = server.client_address();
    assert_eq!(say(address, b"ruok"), "imok");
    assert_eq!(say(address, b"isro\n"), "rw");
    let answer = say(address, b"srvr\n");
    for field in ["Zookeeper version: 3.9.5-", "Mode: standalone\n", "Zxid: 0x1", "Node count: 5\n"]
    {
        assert!(answer.contains(field), "{field} in {answer}");
    }
    assert!(say(address, b"stat").contains("Clients:\n"));
    let answer = say(address, b"mntr");
    for field in
        ["zk_server_state\tstandalone\n", "zk_znode_count\t5\n", "zk_num_alive_connections\t"]
    {
        assert!(answer.contains(field), "{field} in {answer}");
    }
    assert!(say(address, b"envi").contains("zookeeper.version=3.9.5-"));
    assert!(say(address, b"dump").contains("not in the whitelist"));
}

#[test]
fn client_beyond_the_limit_is_sent_away_until_another_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::standalone(folder.path().join("data"), "127.0.0.1:0".parse().unwrap());
    config.connections_max = 2;
    let server = Embedded::start_with(config).unwrap();
    let first = Client::connect(server.client_address());
    let _second = Client::connect(server.client_address());
    let mut third = TcpStream::connect(server.client_address()).unwrap();
    third.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(third.read(&mut [0; 8]), Ok(0) | Err(_)));
    drop(first);
    let began = Instant::now();
    while Client::try_connect(server.client_address()).is_none() {
        assert!(began.elapsed() < SOON, "the place of a client that left stays taken");
    }
}

#[test]
fn probes_are_answered_beside_many_connections_that_ask_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = commands::Served::start(&folder.path().join("data"));
    let began = Instant::now();
    let silent: Vec<_> = (0..400).map(|_| TcpStream::connect(server.http).unwrap()).collect();
    for connection in silent.iter().step_by(2) {
        let _ = (&*connection).write_all(b"GET /live HTTP/1.1\r\n");
    }
    assert!(say(server.http, b"GET /live HTTP/1.1\r\n\r\n").ends_with("live\n"));
    // In the order of their coming, with 5 s for each of 64 at once, it would take half a minute.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn data_folder_is_not_shared() {
    let folder = tempfile::tempdir().unwrap();
    let _server = start(folder.path());
    let second = Embedded::start(folder.path().join("data"), "127.0.0.1:0".parse().unwrap());
    let error = second.err().unwrap().to_string();
    assert!(error.contains("another coordinator is running in this folder"), "{error}");
}

/// Three members in this process, each with a thread, folder and ports of its own.
struct Ensemble {
    folder: tempfile::TempDir,
    peers: BTreeMap<u64, SocketAddr>,
    members: BTreeMap<u64, Embedded>,
}

impl Ensemble {
    /// `number` differs between the ensembles of this file.
    fn start(number: u16) -> Ensemble {
        // Loopback addresses that belong to this process alone: the ports stay free while a member is down.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let port = 10_000 + 3 * number;
        let address = |id: u16| SocketAddr::from(([127, 77, high, low], port + id));
        let peers = (1..=3).map(|id: u16| (u64::from(id), address(id))).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut ensemble = Ensemble { folder, peers, members: BTreeMap::new() };
        for id in 1..=3 {
            ensemble.start_member(id);
        }
        ensemble
    }

    fn start_member(&mut self, id: u64) {
        let mut values = Values::default();
        let folder = self.folder.path().join(id.to_string());
        values.set("id", &id.to_string());
        values.set("dataDir", folder.to_str().unwrap());
        values.set("clientPort", "0");
        values.set("peerSecret", "secret");
        values.set("4lw.commands.whitelist", "*");
        for (member, address) in &self.peers {
            values.set(&format!("server.{member}"), &address.to_string());
        }
        let config = Config::from_values(&values).unwrap();
        self.members.insert(id, Embedded::start_with(config).unwrap());
    }

    fn mode(&self, id: u64) -> String {
        let answer = say(self.members[&id].client_address(), b"srvr");
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.unwrap_or("none").to_owned()
    }

    fn leader(&self) -> u64 {
        let began = Instant::now();
        loop {
            if let Some(id) = self.members.keys().find(|id| self.mode(**id) == "leader") {
                return *id;
            }
            assert!(began.elapsed() < SOON, "no leader");
        }
    }

    fn client(&self, id: u64) -> Client {
        Client::connect(self.members[&id].client_address())
    }
}

#[test]
fn stopped_leader_hands_over_and_comes_back_with_everything() {
    let mut ensemble = Ensemble::start(0);
    let leader = ensemble.leader();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let mut client = ensemble.client(others[0]);
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    ensemble.members.remove(&leader).unwrap().stop().unwrap();
    // The same connection, through the change of leader.
    assert_eq!(client.ask(&create("/b", CreateMode::Persistent)).0, ErrorCode::Ok);
    assert!(others.contains(&ensemble.leader()));
    ensemble.start_member(leader);
    let mut back = ensemble.client(leader);
    assert_eq!(back.ask(&Request::Sync("/".into())).0, ErrorCode::Ok);
    assert!(exists(&mut back, "/a") && exists(&mut back, "/b"));
}

#[test]
fn session_moves_to_another_member() {
    let ensemble = Ensemble::start(1);
    ensemble.leader();
    let mut client = ensemble.client(1);
    assert_eq!(client.ask(&create("/e", CreateMode::Ephemeral)).0, ErrorCode::Ok);
    let mut moved = client.reconnect(ensemble.members[&2].client_address());
    assert!(exists(&mut moved, "/e"));
    assert_eq!(moved.session(), client.session());
    assert!(client.is_closed_by_server(), "the older connection of a session ends");
}

#[test]
fn leader_and_followers_say_what_they_are_and_who_belongs_to_them() {
    let ensemble = Ensemble::start(3);
    let leader = ensemble.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let mut client = ensemble.client(follower);
    assert_eq!(client.ask(&create("/e", CreateMode::Ephemeral)).0, ErrorCode::Ok);
    let session = format!("0x{:x}", client.session().get());
    let ask = |id: u64, word: &[u8]| say(ensemble.members[&id].client_address(), word);
    // A leader learns a little later that others have what is committed.
    let began = Instant::now();
    while !ask(leader, b"mntr").contains("zk_synced_followers\t2\n") {
        assert!(began.elapsed() < SOON, "{}", ask(leader, b"mntr"));
    }
    let led = ask(leader, b"mntr");
    for line in ["zk_peer_state\tleading - broadcast", "zk_followers\t2", "zk_quorum_size\t3"] {
        assert!(led.contains(line), "{line} in {led}");
    }
    let followed = ask(follower, b"mntr");
    assert!(followed.contains("zk_peer_state\tfollowing - broadcast\n"), "{followed}");
    assert!(!followed.contains("zk_followers"), "{followed}");
    assert!(ask(leader, b"srvr").contains("\nProposal sizes last/min/max: "));
    assert!(!ask(follower, b"srvr").contains("Proposal"));
    assert!(ask(leader, b"dump").contains("Session Sets (1)/(1):\n1 expire at "));
    let global = format!("dump:\nGlobal Sessions(1):\n{session}\t30000ms\nephemeral");
    assert!(ask(follower, b"dump").contains(&global), "{}", ask(follower, b"dump"));
    let port = ensemble.peers[&follower].port();
    let told = ask(follower, b"conf");
    let own = format!("electionPort=0\nquorumPort={port}\npeerType=0\nmembership: \nserver.1=");
    assert!(told.contains(&own) && told.ends_with("\nversion=0\n"), "{told}");
}

/// Ends another thread's loop, by a panic too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn sockets_that_say_nothing_do_not_keep_a_member_out() {
    let mut ensemble = Ensemble::start(2);
    let leader = ensemble.leader();
    let back = if leader == 1 { 2 } else { 1 };
    ensemble.members.remove(&back).unwrap().stop().unwrap();
    // Of each of the two that stay, more than it shakes hands with at once, and new ones all the time.
    let others: Vec<SocketAddr> =
        ensemble.peers.iter().filter(|(id, _)| **id != back).map(|(_, at)| *at).collect();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut silent = VecDeque::new();
            while going.load(Ordering::Relaxed) {
                for address in &others {
                    silent.push_back(TcpStream::connect_timeout(address, SOON).unwrap());
                }
                if silent.len() > 400 {
                    silent.drain(..2);
                }
                // A pace: thousands in a second would be a flood, which this is not about.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _stop = Stop(&going);
        ensemble.start_member(back);
        let mut client = ensemble.client(back);
        assert_eq!(client.ask(&Request::Sync("/".into())).0, ErrorCode::Ok);
    });
}
