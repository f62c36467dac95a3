//! The client against the real coordinator, standing alone inside this process and started anew on its
//! data when a test wants that.

use bytes::Bytes;
use coordinator::embedded::Embedded;
use coordinator_client::protocol::{
    Acl, AddWatchMode, CreateMode, ErrorCode, EventType, Item, ItemKind, MultiOp, MultiResult, Zxid,
};
use coordinator_client::{
    Client, Config, Error, Registration, SessionState, Subscription, Update, WatchEvent, register,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

struct Real {
    folder: tempfile::TempDir,
    address: SocketAddr,
    server: Option<Embedded>,
}

impl Real {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let server = Embedded::start(folder.path().join("data"), any).unwrap();
        Self { address: server.client_address(), folder, server: Some(server) }
    }

    fn stop(&mut self) {
        self.server.take().unwrap().stop().unwrap();
    }

    fn start_again(&mut self) {
        let data = self.folder.path().join("data");
        self.server = Some(Embedded::start(data, self.address).unwrap());
    }

    fn config(&self) -> Config {
        Config::new(vec![self.address.to_string()])
    }

    async fn client(&self) -> Client {
        let client = Client::open(self.config());
        timeout(SOON, client.connected()).await.unwrap().unwrap();
        client
    }
}

fn data(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn every_call_is_answered() {
    let real = Real::start();
    let client = real.client().await;
    client.create_all("/a/b").await.unwrap();
    let (path, stat) = client.create("/a/b/c", data("one"), CreateMode::Persistent).await.unwrap();
    assert_eq!((path.as_str(), stat.version, stat.data_length), ("/a/b/c", 0, 3));
    let sequential = CreateMode::PersistentSequential;
    let (path, _) = client.create("/a/s-", None, sequential).await.unwrap();
    assert_eq!(path, "/a/s-0000000001");
    assert_eq!(client.set_data("/a/b/c", data("two"), Some(0)).await.unwrap().version, 1);
    assert_eq!(client.get_data("/a/b/c").await.unwrap().0, data("two"));
    assert_eq!(client.get_children("/a").await.unwrap().0.len(), 2);
    let (names, more) = client.get_children_page("/a", "", 1).await.unwrap();
    assert_eq!((names.len(), more), (1, true));
    let (rest, more) = client.get_children_page("/a", &names[0], 10).await.unwrap();
    assert_eq!((rest.len(), more), (1, false));
    assert_eq!(client.get_acl("/a").await.unwrap().0, Acl::open());
    let stale = client.set_data("/a/b/c", None, Some(0)).await.unwrap_err();
    assert!(stale.is(ErrorCode::BadVersion));
    assert!(client.sync("/").await.unwrap() > Zxid::ZERO);
    client.delete("/a/b/c", Some(1)).await.unwrap();
    assert_eq!(client.exists("/a/b/c").await.unwrap(), None);
}

#[tokio::test]
async fn multis_are_fenced_and_done_in_the_order_of_their_start() {
    let real = Real::start();
    let client = real.client().await;
    client.create("/epoch", data("1"), CreateMode::Persistent).await.unwrap();
    let mut pending = Vec::new();
    for number in 0..100 {
        let ops = vec![
            MultiOp::check("/epoch", Some(0)),
            MultiOp::create(format!("/{number}"), None, CreateMode::Persistent),
        ];
        pending.push(client.start_multi(ops).await.unwrap());
    }
    let mut last = Zxid::ZERO;
    for (number, pending) in pending.into_iter().enumerate() {
        let reply = pending.answer().await.unwrap();
        assert_eq!(reply.results[1], MultiResult::Create(format!("/{number}")));
        assert!(reply.zxid > last);
        last = reply.zxid;
    }
    client.set_data("/epoch", data("2"), None).await.unwrap();
    let ops = vec![MultiOp::check("/epoch", Some(0)), MultiOp::delete("/1", None)];
    let refused = client.multi(ops).await.unwrap_err();
    assert!(
        matches!(refused, Error::MultiRefused { index: 0, code: ErrorCode::BadVersion, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn watches_fire_and_outlive_a_restart() {
    let mut real = Real::start();
    let client = real.client().await;
    client.create("/a", data("one"), CreateMode::Persistent).await.unwrap();
    let (_, _, mut once) = client.get_data_and_watch("/a").await.unwrap();
    let mut all = client.watch("/a", AddWatchMode::PersistentRecursive).await.unwrap();
    real.stop();
    real.start_again();
    let event = timeout(SOON, all.next()).await.unwrap();
    assert_eq!(event, Some(WatchEvent::Reconnected));
    while client.set_data("/a", data("two"), None).await.is_err() {}
    for watch in [&mut once, &mut all] {
        let event = timeout(SOON, watch.next()).await.unwrap();
        let changed = EventType::NodeDataChanged;
        assert!(
            matches!(&event, Some(WatchEvent::Changed { event, .. }) if *event == changed),
            "{event:?}"
        );
    }
}

/// What a subscriber makes of its updates.
#[derive(Default)]
struct Image {
    nodes: BTreeMap<String, Option<Bytes>>,
    complete_up_to: Zxid,
    seen: Vec<Zxid>,
}

impl Image {
    async fn follow(&mut self, subscription: &mut Subscription, up_to: Zxid) {
        while self.complete_up_to < up_to {
            match timeout(SOON, subscription.next()).await.unwrap().unwrap() {
                Update::SnapshotBegin => self.nodes.clear(),
                Update::SnapshotChunk(items) => self.apply(items),
                Update::SnapshotEnd(zxid) | Update::CompleteUpTo(zxid) => {
                    self.complete_up_to = zxid;
                }
                Update::Changes { zxid, items } => {
                    assert!(zxid > self.complete_up_to);
                    self.seen.push(zxid);
                    self.apply(items);
                    self.complete_up_to = zxid;
                }
            }
        }
    }

    fn apply(&mut self, items: Vec<Item>) {
        for item in items {
            match item.kind {
                ItemKind::Deleted => self.nodes.remove(&item.path),
                _ => self.nodes.insert(item.path, item.data),
            };
        }
    }
}

#[tokio::test]
async fn a_subscription_shows_a_subtree_through_a_restart() {
    let mut real = Real::start();
    let client = real.client().await;
    client.create_all("/top/old").await.unwrap();
    client.create_all("/other").await.unwrap();
    let mut subscription = client.subscribe("/top").await.unwrap();
    let mut image = Image::default();
    let (_, stat) = client.create("/top/new", data("1"), CreateMode::Persistent).await.unwrap();
    image.follow(&mut subscription, stat.czxid).await;
    assert_eq!(image.nodes.keys().collect::<Vec<_>>(), ["/top", "/top/new", "/top/old"]);
    let stat = client.set_data("/other", None, None).await.unwrap();
    image.follow(&mut subscription, stat.mzxid).await;
    real.stop();
    real.start_again();
    let (_, stat) = loop {
        match client.create("/top/later", None, CreateMode::Persistent).await {
            Ok(created) => break created,
            Err(error) => assert!(error.is_retriable(), "{error}"),
        }
    };
    image.follow(&mut subscription, stat.czxid).await;
    assert!(image.nodes.contains_key("/top/later"));
    let children = client.get_children("/top").await.unwrap().0;
    assert_eq!(image.nodes.len(), children.len() + 1);
}

#[tokio::test]
async fn every_change_of_a_busy_subtree_is_seen_once_and_in_order() {
    let real = Real::start();
    let (writer, reader) = (real.client().await, real.client().await);
    writer.create_all("/top").await.unwrap();
    let mut subscription = reader.subscribe("/top").await.unwrap();
    let mut image = Image::default();
    image.follow(&mut subscription, Zxid::new(1)).await;
    let mut written = Vec::new();
    for number in 0..200 {
        let path = format!("/top/{number}");
        let (_, stat) = writer.create(&path, None, CreateMode::Persistent).await.unwrap();
        written.push(stat.czxid);
    }
    image.follow(&mut subscription, *written.last().unwrap()).await;
    image.seen.retain(|zxid| *zxid >= written[0]);
    assert_eq!(image.seen, written);
}

#[tokio::test]
async fn a_session_that_dies_fast_takes_its_ephemerals_at_once() {
    let real = Real::start();
    let watching = real.client().await;
    let mut config = real.config();
    config.fast_death_grace = Some(Duration::from_millis(200));
    config.session_timeout = Duration::from_secs(30);
    // A runtime of its own: dropping it is what a killed process looks like from outside.
    let dying =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registered = dying
        .spawn(async move {
            let client = Client::open(config);
            let registered = register(&client, "/here", data("dying")).await;
            std::mem::forget(client);
            registered
        })
        .await
        .unwrap();
    assert!(matches!(registered, Ok(Registration::Done(_))), "{registered:?}");
    let (found, mut watch) = watching.exists_and_watch("/here").await.unwrap();
    assert!(found.is_some());
    dying.shutdown_background();
    let gone = timeout(Duration::from_secs(15), watch.next()).await.expect("long before 30 s");
    let deleted = EventType::NodeDeleted;
    assert!(matches!(&gone, Some(WatchEvent::Changed { event, .. }) if *event == deleted));
}

#[tokio::test]
async fn a_closed_session_takes_its_ephemerals_and_tells() {
    let real = Real::start();
    let (closing, watching) = (real.client().await, real.client().await);
    let registered = register(&closing, "/here", data("closing")).await.unwrap();
    assert!(matches!(registered, Registration::Done(_)));
    let (_, mut watch) = watching.exists_and_watch("/here").await.unwrap();
    closing.close().await;
    assert!(timeout(SOON, watch.next()).await.unwrap().is_some());
    assert_eq!(*closing.state().borrow(), SessionState::Closed);
    assert_eq!(closing.exists("/here").await, Err(Error::Closed));
}
