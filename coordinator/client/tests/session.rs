//! The client against a server that cuts connections, loses answers and ends sessions.

mod fake;

use bytes::Bytes;
use coordinator_client::protocol::{
    ConnectResponse, CreateMode, ErrorCode, EventType, ItemKind, MultiOp, MultiResult, SessionId,
    SessionPassword, Zxid,
};
use coordinator_client::{
    Client, CompareAndSet, Config, Election, Error, Registration, SessionState, Subscription,
    Update, WatchEvent, compare_and_set, elect, register,
};
use fake::Fake;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

async fn client(fake: &Fake) -> Client {
    // A server that refuses comes before and after the one that serves.
    let servers = vec!["127.0.0.1:1".to_owned(), fake.address.clone()];
    let client = Client::open(Config::new(servers));
    timeout(SOON, client.connected()).await.unwrap().unwrap();
    client
}

fn data(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

async fn create(client: &Client, path: &str, text: &'static str) {
    client.create(path, data(text), CreateMode::Persistent).await.unwrap();
}

#[tokio::test]
async fn reads_and_writes_answer_with_what_is_there() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    client.create_all("/a/b").await.unwrap();
    create(&client, "/a/b/c", "one").await;
    let (found, stat) = client.get_data("/a/b/c").await.unwrap();
    assert_eq!((found, stat.version), (data("one"), 0));
    let stat = client.set_data("/a/b/c", data("two"), Some(0)).await.unwrap();
    assert_eq!(stat.version, 1);
    let bad = client.set_data("/a/b/c", data("three"), Some(0)).await.unwrap_err();
    assert_eq!(bad, Error::Refused(ErrorCode::BadVersion));
    assert_eq!(client.get_children("/a/b").await.unwrap().0, ["c"]);
    assert!(client.delete("/a/b", None).await.unwrap_err().is(ErrorCode::NotEmpty));
    client.delete("/a/b/c", Some(1)).await.unwrap();
    assert_eq!(client.exists("/a/b/c").await.unwrap(), None);
    assert_eq!(client.sync("/a").await.unwrap(), Zxid::new(5));
    client.close().await;
    assert_eq!(client.exists("/a").await, Err(Error::Closed));
}

#[tokio::test]
async fn multi_is_all_or_nothing_and_names_what_failed() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    create(&client, "/epoch", "1").await;
    let fenced = |path: &str, version| {
        vec![
            MultiOp::check("/epoch", Some(version)),
            MultiOp::create(path, None, CreateMode::Persistent),
        ]
    };
    let reply = client.multi(fenced("/a", 0)).await.unwrap();
    assert_eq!((reply.zxid, reply.results.len()), (Zxid::new(2), 2));
    let error = client.multi(fenced("/b", 1)).await.unwrap_err();
    assert_eq!(
        error,
        Error::MultiRefused { index: 0, code: ErrorCode::BadVersion, zxid: Zxid::new(2) }
    );
    let error = client.multi(fenced("/a", 0)).await.unwrap_err();
    assert_eq!(
        error,
        Error::MultiRefused { index: 1, code: ErrorCode::NodeExists, zxid: Zxid::new(2) }
    );
    assert_eq!(client.exists("/b").await.unwrap(), None);
}

#[tokio::test]
async fn a_client_with_a_root_names_everything_below_it() {
    let fake = Fake::start().await;
    let mut config = Config::new(vec![fake.address.clone()]);
    config.root = "/kafka/one".to_owned();
    let rooted = Client::open(config);
    rooted.create_root().await.unwrap();
    let mut subscription = rooted.subscribe("/").await.unwrap();
    rooted.create_all("/a/b").await.unwrap();
    let (path, _) = rooted.create("/a/c", None, CreateMode::Persistent).await.unwrap();
    assert_eq!(path, "/a/c");
    let ops = vec![MultiOp::create("/a/d", None, CreateMode::Persistent)];
    let results = rooted.multi(ops).await.unwrap().results;
    assert_eq!(results, [MultiResult::Create("/a/d".to_owned())]);
    let mut image = Image::default();
    image.follow(&mut subscription, Zxid::new(6)).await;
    assert_eq!(image.paths(), ["/", "/a", "/a/b", "/a/c", "/a/d"]);
    let (_, mut watch) = rooted.exists_and_watch("/a/c").await.unwrap();
    rooted.delete("/a/c", None).await.unwrap();
    let event = watch.next().await;
    assert!(matches!(&event, Some(WatchEvent::Changed { path, .. }) if path == "/a/c"));
    let plain = client(&fake).await;
    assert_eq!(plain.get_children("/kafka/one/a").await.unwrap().0, ["b", "d"]);
}

/// Answers nobody but the second who comes, and says whether the first was still there by then.
fn answer_the_second(listener: &std::net::TcpListener) -> (bool, std::net::TcpStream) {
    let (first, _) = listener.accept().unwrap();
    let (mut second, _) = listener.accept().unwrap();
    let mut request = [0; 49];
    (&first).read_exact(&mut request).unwrap();
    first.set_nonblocking(true).unwrap();
    let rest = first.peek(&mut [0]);
    let stayed = rest.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    let response = ConnectResponse {
        protocol_version: 0,
        timeout_ms: 6_000,
        session: SessionId::new(7),
        password: SessionPassword::zeros(),
        read_only: Some(false),
    };
    second.write_all(&response.encode_frame()).unwrap();
    first.set_nonblocking(false).unwrap();
    assert_eq!((&first).read(&mut [0]).unwrap(), 0, "the first is closed in the end");
    (stayed, second)
}

#[tokio::test]
async fn unanswered_handshake_is_not_hung_up_before_another_is_answered() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new(vec![listener.local_addr().unwrap().to_string()]);
    config.connect_timeout = Duration::from_millis(200);
    let server = tokio::task::spawn_blocking(move || answer_the_second(&listener));
    let client = Client::open(config);
    assert_eq!(timeout(SOON, client.connected()).await.unwrap(), Ok(SessionId::new(7)));
    let (stayed, _second) = timeout(SOON, server).await.unwrap().unwrap();
    assert!(stayed, "a closed handshake looks like the death of the session it asks for");
}

#[tokio::test]
async fn session_goes_on_when_its_connection_is_cut() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    let session = client.connected().await.unwrap();
    client.create("/here", None, CreateMode::Ephemeral).await.unwrap();
    let mut state = client.state();
    state.mark_unchanged();
    fake.cut();
    state.wait_for(|state| *state == SessionState::Connecting).await.unwrap();
    assert_eq!(client.connected().await, Ok(session));
    let stat = client.exists("/here").await.unwrap().unwrap();
    assert_eq!(stat.ephemeral_owner, session);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_unknown_and_a_read_is_asked_again() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    fake.swallow_next();
    let lost = client.create("/a", None, CreateMode::Persistent).await.unwrap_err();
    assert_eq!(lost, Error::ConnectionLoss);
    fake.swallow_next();
    assert!(client.exists("/a").await.unwrap().is_some());
}

#[tokio::test]
async fn an_ended_session_is_said_to_everybody() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    create(&client, "/a", "").await;
    let mut subscription = client.subscribe("/a").await.unwrap();
    let (_, mut watch) = client.exists_and_watch("/b").await.unwrap();
    let mut state = client.state();
    fake.expire_all();
    state.wait_for(|state| *state == SessionState::Expired).await.unwrap();
    assert_eq!(client.exists("/a").await, Err(Error::SessionExpired));
    assert_eq!(watch.next().await, None);
    let end = loop {
        if let Err(error) = subscription.next().await {
            break error;
        }
    };
    assert_eq!(end, Error::SessionExpired);
}

#[tokio::test]
async fn a_one_shot_watch_fires_for_a_change_made_while_the_connection_was_away() {
    let fake = Fake::start().await;
    let (watching, writing) = (client(&fake).await, client(&fake).await);
    create(&writing, "/a", "one").await;
    let (_, _, mut watch) = watching.get_data_and_watch("/a").await.unwrap();
    fake.cut();
    while writing.set_data("/a", data("two"), None).await.is_err() {}
    let event = timeout(SOON, watch.next()).await.unwrap();
    let expected = EventType::NodeDataChanged;
    assert!(
        matches!(&event, Some(WatchEvent::Changed { event, .. }) if *event == expected),
        "{event:?}"
    );
    assert_eq!(watch.next().await, None);
}

/// What a subscriber makes of its updates: the subtree, and up to where it is complete.
#[derive(Default)]
struct Image {
    nodes: BTreeMap<String, Option<Bytes>>,
    complete_up_to: Zxid,
    snapshots: u32,
    seen: Vec<Zxid>,
}

impl Image {
    async fn follow(&mut self, subscription: &mut Subscription, up_to: Zxid) {
        while self.complete_up_to < up_to {
            match timeout(SOON, subscription.next()).await.unwrap().unwrap() {
                Update::SnapshotBegin => {
                    self.nodes.clear();
                    self.snapshots += 1;
                }
                Update::SnapshotChunk(items) => self.apply(items),
                Update::SnapshotEnd(zxid) | Update::CompleteUpTo(zxid) => {
                    self.complete_up_to = zxid;
                }
                Update::Changes { zxid, items } => {
                    self.seen.push(zxid);
                    self.apply(items);
                    self.complete_up_to = zxid;
                }
            }
        }
    }

    fn apply(&mut self, items: Vec<coordinator_client::protocol::Item>) {
        for item in items {
            match item.kind {
                ItemKind::Deleted => self.nodes.remove(&item.path),
                _ => self.nodes.insert(item.path, item.data),
            };
        }
    }

    fn paths(&self) -> Vec<&str> {
        self.nodes.keys().map(String::as_str).collect()
    }
}

#[tokio::test]
async fn a_subscription_sees_every_change_once_through_cuts() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    create(&client, "/top", "").await;
    create(&client, "/other", "").await;
    let mut subscription = client.subscribe("/top").await.unwrap();
    let mut image = Image::default();
    image.follow(&mut subscription, Zxid::new(2)).await;
    for number in 0..20 {
        let path = format!("/top/{number}");
        while client.create(&path, None, CreateMode::Persistent).await.is_err() {
            if client.exists(&path).await.unwrap().is_some() {
                break;
            }
        }
        if number % 5 == 0 {
            fake.cut();
        }
    }
    image.follow(&mut subscription, Zxid::new(22)).await;
    assert_eq!(image.snapshots, 1);
    assert_eq!(image.seen, (3..=22).map(Zxid::new).collect::<Vec<_>>());
    assert_eq!(image.paths().len(), 21);
}

#[tokio::test]
async fn a_subscription_starts_anew_where_history_is_too_short() {
    let fake = Fake::start().await;
    let client = client(&fake).await;
    create(&client, "/top", "").await;
    let mut subscription = client.subscribe("/top").await.unwrap();
    let mut image = Image::default();
    image.follow(&mut subscription, Zxid::new(1)).await;
    create(&client, "/other", "").await;
    fake.forget_history();
    fake.cut();
    image.follow(&mut subscription, Zxid::new(2)).await;
    assert_eq!((image.snapshots, image.paths()), (2, vec!["/top"]));
}

#[tokio::test]
async fn fast_death_is_asked_for_before_the_session_is_used() {
    let fake = Fake::start().await;
    let mut config = Config::new(vec![fake.address.clone()]);
    config.fast_death_grace = Some(Duration::from_millis(200));
    let client = Client::open(config);
    client.create("/here", None, CreateMode::Ephemeral).await.unwrap();
    let session = client.connected().await.unwrap();
    assert_eq!(fake.grace_ms(session), Some(200));
}

#[tokio::test]
async fn registration_recognises_its_own_znode_after_a_lost_answer() {
    let fake = Fake::start().await;
    let (first, second) = (client(&fake).await, client(&fake).await);
    fake.swallow_next();
    let registration = register(&first, "/here", data("first")).await.unwrap();
    assert!(matches!(registration, Registration::Done(_)), "{registration:?}");
    let taken = register(&second, "/here", data("second")).await.unwrap();
    let owner: SessionId = first.connected().await.unwrap();
    assert!(
        matches!(&taken, Registration::Taken { owner: taken_by, .. } if *taken_by == owner),
        "{taken:?}"
    );
}

#[tokio::test]
async fn the_next_in_an_election_wins_when_the_leader_goes() {
    let fake = Fake::start().await;
    let (first, second) = (client(&fake).await, client(&fake).await);
    let won = elect(&first, "/leader", data("first")).await.unwrap();
    assert!(matches!(won, Election::Won { .. }));
    let lost = elect(&second, "/leader", data("second")).await.unwrap();
    let Election::Lost { data: leader, mut watch, .. } = lost else { panic!("two leaders") };
    assert_eq!(leader, data("first"));
    first.close().await;
    assert!(timeout(SOON, watch.next()).await.unwrap().is_some());
    let won = elect(&second, "/leader", data("second")).await.unwrap();
    assert!(matches!(won, Election::Won { .. }));
}

#[tokio::test]
async fn compare_and_set_counts_every_increment_once() {
    let fake = Fake::start().await;
    let count = |client: Client, name: &'static str| async move {
        for turn in 0..10 {
            let next = |old: Option<&Bytes>| {
                let old = old.and_then(|old| std::str::from_utf8(old).ok()?.split(' ').next());
                let number: u32 = old.map_or(0, |number| number.parse().unwrap());
                Some(Bytes::from(format!("{} {name} {turn}", number + 1)))
            };
            let set = compare_and_set(&client, "/count", next).await.unwrap();
            assert!(matches!(set, CompareAndSet::Written(_)));
        }
    };
    let (first, second) = (client(&fake).await, client(&fake).await);
    fake.swallow_next();
    tokio::join!(count(first.clone(), "first"), count(second, "second"));
    let (found, _) = first.get_data("/count").await.unwrap();
    assert!(found.unwrap().starts_with(b"20 "));
}
