//! The crate `zookeeper-client` asks for what kazoo does not: containers, nodes with a time to live, reads in one
//! transaction, its ephemeral nodes, counts, identities, watches that stay and how they come back.
//!
//! `zookeeper-rs SERVER OTHERS`: it prints `kill` and `start` when SERVER is to be killed and started, and reads a line
//! when that is done.

use std::io::{self, BufRead};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, EnsembleUpdate, Error, EventType, MultiReadResult,
    MultiWriteError, MultiWriteResult, OneshotWatcher, PersistentWatcher, WatchedEvent,
};

/// A hang guard for all up to the next line, no measure; the test waits 60 s for that.
const SOON: Duration = Duration::from_secs(50);
/// The most that the server grants: a session outlives the time in which its server is down.
const SESSION: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(50);
const PLAIN: Acls<'static> = Acls::anyone_all();

/// Has the test do something to the server.
fn have(what: &str) {
    println!("{what}");
    io::stdin().lock().read_line(&mut String::new()).unwrap();
}

async fn soon<T>(step: impl Future<Output = T>) -> T {
    timeout(SOON, step).await.expect("an answer in time")
}

/// Asks again when the connection is lost: servers close them while nobody leads.
async fn repeat<T>(call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match call().await {
            Err(Error::ConnectionLoss) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// The next event that is one of a node.
async fn next(watcher: &mut PersistentWatcher) -> WatchedEvent {
    loop {
        let event = watcher.changed().await;
        if event.event_type != EventType::Session {
            return event;
        }
    }
}

async fn told(watcher: &mut PersistentWatcher, expected: &[(EventType, &str)]) {
    for (kind, path) in expected {
        let event = next(watcher).await;
        assert_eq!((event.event_type, event.path.as_str()), (*kind, *path));
        assert!(event.zxid > 0, "{event:?}");
    }
}

async fn nodes(client: &Client) {
    let plain = CreateMode::Persistent.with_acls(PLAIN);
    client.create("/rs", b"one", &plain).await.unwrap();
    let container = CreateMode::Container.with_acls(PLAIN);
    let (stat, _) = client.create("/rs/box", b"", &container).await.unwrap();
    assert_eq!((stat.version, stat.ephemeral_owner), (0, 0));
    let hour = plain.clone().with_ttl(Duration::from_secs(3600));
    let (stat, _) = client.create("/rs/ttl", b"", &hour).await.unwrap();
    assert_eq!(stat.ephemeral_owner, 0);
    let sequential = CreateMode::PersistentSequential.with_acls(PLAIN);
    let hour = sequential.with_ttl(Duration::from_secs(3600));
    let (_, sequence) = client.create("/rs/ttl-", b"", &hour).await.unwrap();
    assert_eq!(sequence.to_string(), "0000000002");
    let own = CreateMode::EphemeralSequential.with_acls(PLAIN);
    client.create("/rs/e-", b"", &own).await.unwrap();
    assert_eq!(client.list_ephemerals("/rs").await, Ok(vec!["/rs/e-0000000003".to_owned()]));
    assert_eq!(client.list_ephemerals("/none").await, Ok(vec![]));
    assert_eq!(client.count_descendants_number("/rs").await, Ok(4));
    assert_eq!(client.count_descendants_number("/none").await, Err(Error::NoNode));
    client.sync("/rs").await.unwrap();
    let users = client.list_auth_users().await.unwrap();
    assert_eq!((users[0].scheme(), users[0].user()), ("ip", "127.0.0.1"));
    client.auth("digest", b"bob:secret").await.unwrap();
    let users = client.list_auth_users().await.unwrap();
    assert!(
        users.iter().any(|user| (user.scheme(), user.user()) == ("digest", "bob")),
        "{users:?}"
    );
    client
        .create("/rs/own", b"mine", &CreateMode::Persistent.with_acls(Acls::creator_all()))
        .await
        .unwrap();
}

async fn transactions(client: &Client, other: &Client) {
    let mut reader = other.new_multi_reader();
    for path in ["/rs", "/rs/none", "/rs/own"] {
        reader.add_get_data(path).unwrap();
    }
    reader.add_get_children("/rs/box").unwrap();
    let results = reader.commit().await.unwrap();
    let [one, none, own, children] = &results[..] else { panic!("{results:?}") };
    assert!(
        matches!(one, MultiReadResult::Data { data, stat } if data == b"one" && stat.num_children == 5)
    );
    assert!(matches!(none, MultiReadResult::Error { err: Error::NoNode }), "{none:?}");
    assert!(matches!(own, MultiReadResult::Error { err: Error::NoAuth }), "{own:?}");
    assert!(matches!(children, MultiReadResult::Children { children } if children.is_empty()));

    let mut writer = client.new_multi_writer();
    writer.add_check_version("/rs", 0).unwrap();
    writer.add_create("/rs/t", b"1", &CreateMode::Container.with_acls(PLAIN)).unwrap();
    writer.add_set_data("/rs/t", b"2", Some(0)).unwrap();
    writer.add_delete("/rs/t", Some(1)).unwrap();
    let results = writer.commit().await.unwrap();
    assert!(
        matches!(&results[1], MultiWriteResult::Create { path, stat } if path == "/rs/t" && !stat.is_invalid())
    );
    let mut writer = client.new_multi_writer();
    writer.add_set_data("/rs", b"never", None).unwrap();
    writer.add_check_version("/rs", 99).unwrap();
    let refused = writer.commit().await.unwrap_err();
    assert_eq!(refused, MultiWriteError::OperationFailed { index: 1, source: Error::BadVersion });
}

/// Watches that stay, up to where they are given up.
async fn watches(client: &Client, other: &Client) {
    let plain = CreateMode::Persistent.with_acls(PLAIN);
    client.create("/rs/w", b"", &plain).await.unwrap();
    let mut node = client.watch("/rs/w", AddWatchMode::Persistent).await.unwrap();
    let mut tree = client.watch("/rs/w", AddWatchMode::PersistentRecursive).await.unwrap();
    other.create("/rs/w/a", b"", &plain).await.unwrap();
    other.set_data("/rs/w", b"x", None).await.unwrap();
    told(&mut tree, &[(EventType::NodeCreated, "/rs/w/a"), (EventType::NodeDataChanged, "/rs/w")])
        .await;
    told(
        &mut node,
        &[(EventType::NodeChildrenChanged, "/rs/w"), (EventType::NodeDataChanged, "/rs/w")],
    )
    .await;

    // It does not set watches that stay again: in 0.11 it always sends the older request, which does not have them.
    drop(tree);
    other.set_data("/rs/w", b"z", None).await.unwrap();
    told(&mut node, &[(EventType::NodeDataChanged, "/rs/w")]).await;
    drop(node);
}

type Watch = (OneshotWatcher, EventType, &'static str);

/// Watches that are told of one change.
async fn watch_once(client: &Client) -> [Watch; 3] {
    let (_, _, data) = client.get_and_watch_data("/rs/own").await.unwrap();
    let (_, absent) = client.check_and_watch_stat("/rs/new").await.unwrap();
    let (_, children) = client.list_and_watch_children("/rs/box").await.unwrap();
    [
        (data, EventType::NodeDataChanged, "/rs/own"),
        (absent, EventType::NodeCreated, "/rs/new"),
        (children, EventType::NodeChildrenChanged, "/rs/box"),
    ]
}

/// Changes what the watches are on, while the server of their client is down.
async fn change(other: &Client) {
    let plain = CreateMode::Persistent.with_acls(PLAIN);
    repeat(async || other.auth("digest", b"bob:secret").await).await.unwrap();
    repeat(async || other.set_data("/rs/own", b"y", None).await).await.unwrap();
    for path in ["/rs/new", "/rs/box/c"] {
        let created = repeat(async || other.create(path, b"", &plain).await).await;
        // It may have been done when the connection was lost.
        assert!(matches!(created, Ok(_) | Err(Error::NodeExists)), "{path}: {created:?}");
    }
}

/// What the watches missed is told when their client comes back.
async fn missed(client: &Client, watches: [Watch; 3]) {
    for (watcher, kind, path) in watches {
        let event = watcher.changed().await;
        assert_eq!((event.event_type, event.path.as_str()), (kind, path));
    }
    assert_eq!(client.list_ephemerals("/rs").await, Ok(vec!["/rs/e-0000000003".to_owned()]));
}

async fn members(client: &Client) {
    const OBSERVER: &str = "server.9=127.0.0.1:9:10:observer;127.0.0.1:11";
    let joins = || EnsembleUpdate::Incremental {
        joinings: Some(OBSERVER).into_iter(),
        leavings: None.into_iter(),
    };
    assert_eq!(client.update_ensemble(joins(), None).await.unwrap_err(), Error::NoAuth);
    client.auth("digest", b"super:test").await.unwrap();
    let (_, stat) = client.get_config().await.unwrap();
    let ahead = Some(stat.mzxid + 1);
    assert_eq!(client.update_ensemble(joins(), ahead).await.unwrap_err(), Error::BadVersion);
    let (text, _) = client.update_ensemble(joins(), None).await.unwrap();
    assert!(String::from_utf8(text).unwrap().contains(OBSERVER));
    let leaves =
        EnsembleUpdate::Incremental { joinings: None.into_iter(), leavings: Some("9").into_iter() };
    client.update_ensemble(leaves, None).await.unwrap();
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (server, others) = (arguments.next().unwrap(), arguments.next().unwrap());
    // Of older servers it expects less.
    let connector =
        || Client::connector().with_server_version(3, 9, 0).with_session_timeout(SESSION);
    let (client, other, watches) = soon(async {
        let client = connector().connect(&server).await.unwrap();
        let other = connector().connect(&others).await.unwrap();
        nodes(&client).await;
        other.sync("/rs").await.unwrap();
        transactions(&client, &other).await;
        watches(&client, &other).await;
        let watches = watch_once(&client).await;
        (client, other, watches)
    })
    .await;
    have("kill");
    soon(change(&other)).await;
    have("start");
    soon(async {
        missed(&client, watches).await;
        members(&client).await;
    })
    .await;
    println!("the crate zookeeper-client: all answered");
}
