//! Subscriptions: what a subscriber is sent, literally.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateRequest, ErrorCode, Item, ItemKind, Permissions, SessionId, SetAclRequest,
    SubscribeRequest, SubscriptionEvent, SubscriptionEventKind as Kind, Zxid,
};

use super::cut::CHUNK_ITEMS_MAX;
use super::*;
use crate::ids::ConnectionId;
use crate::tree::{Change, Stamp, Transaction, Tree};

const A: ConnectionId = ConnectionId::new(1);
const B: ConnectionId = ConnectionId::new(2);
const ROOM: usize = 1 << 20;

/// A tree whose writes are recorded.
struct World {
    tree: Tree,
    subscriptions: Subscriptions,
    zxid: i64,
}

impl World {
    fn new(changes_max: usize) -> Self {
        let subscriptions = Subscriptions::new(Zxid::ZERO, changes_max);
        Self { tree: Tree::new(), subscriptions, zxid: 0 }
    }

    fn write(&mut self, write: impl FnOnce(&mut Transaction<'_>)) {
        self.zxid += 1;
        let stamp = Stamp { zxid: Zxid::new(self.zxid), wall_ms: 0 };
        let mut transaction = Transaction::new(&mut self.tree, stamp);
        write(&mut transaction);
        let changes: Vec<Change> = transaction.commit();
        self.subscriptions.record(stamp.zxid, &changes);
        self.subscriptions.check();
    }

    fn create(&mut self, path: &str) {
        self.write(|transaction| create(transaction, path));
    }

    fn set(&mut self, path: &str) {
        self.write(|transaction| {
            transaction.set_data(path, Some(Bytes::from_static(b"new")), -1).unwrap();
        });
    }

    fn delete(&mut self, path: &str) {
        self.write(|transaction| transaction.delete(path, -1).unwrap());
    }

    /// Leaves a node to a user whom no reader of these tests has shown to be, or to everybody.
    fn set_private(&mut self, path: &str, private: bool) {
        let acl = match private {
            true => vec![Acl { permissions: 31, scheme: "sasl".into(), id: "owner".into() }],
            false => Acl::open(),
        };
        // Everybody may go on to write it.
        let admin =
            Acl { permissions: Permissions::ADMIN | Permissions::WRITE, ..Acl::open().remove(0) };
        let acl = [acl, vec![admin]].concat();
        let request = SetAclRequest { path: path.into(), acl, version: -1 };
        self.write(|transaction| {
            transaction.set_acl(&request).unwrap();
        });
    }

    fn subscribe(&mut self, connection: ConnectionId, number: i32, path: &str, from: i64) {
        let request = subscribe_request(number, path, from);
        self.subscriptions.subscribe(connection, &request).unwrap();
        self.subscriptions.check();
    }

    fn take(&mut self, connection: ConnectionId) -> Vec<(i32, Kind, i64, String)> {
        self.take_some(connection, ROOM)
    }

    fn take_some(
        &mut self,
        connection: ConnectionId,
        room: usize,
    ) -> Vec<(i32, Kind, i64, String)> {
        let events = self.subscriptions.take((connection, &[]), &self.tree, room);
        self.subscriptions.check();
        events.into_iter().map(brief).collect()
    }

    fn ready(&self) -> Vec<u64> {
        self.subscriptions.ready().map(ConnectionId::get).collect()
    }
}

fn create(transaction: &mut Transaction<'_>, path: &str) {
    let request = CreateRequest { path: path.into(), data: None, acl: Acl::open(), flags: 0 };
    transaction.create(SessionId::NONE, &request).unwrap();
}

fn subscribe_request(subscription: i32, path: &str, from: i64) -> SubscribeRequest {
    SubscribeRequest { subscription, path: path.to_owned(), from_zxid: Zxid::new(from) }
}

/// Items as signs and paths: `=` present, `+` created, `*` data changed, `-` deleted.
fn brief(event: SubscriptionEvent) -> (i32, Kind, i64, String) {
    let item = |item: &Item| {
        let sign = match item.kind {
            ItemKind::Present => '=',
            ItemKind::Created => '+',
            ItemKind::DataChanged => '*',
            ItemKind::Deleted => '-',
        };
        format!("{sign}{}", item.path)
    };
    let items: Vec<String> = event.items.iter().map(item).collect();
    (event.subscription, event.kind, event.zxid.get(), items.join(" "))
}

fn event(number: i32, kind: Kind, zxid: i64, items: &str) -> (i32, Kind, i64, String) {
    (number, kind, zxid, items.to_owned())
}

#[test]
fn new_subscriber_gets_a_snapshot_and_then_every_change() {
    let mut world = World::new(100);
    for path in ["/a", "/a/b", "/ab", "/a/c"] {
        world.create(path);
    }
    world.subscribe(A, 7, "/a", 0);
    assert_eq!(world.ready(), [1]);
    let expected = [
        event(7, Kind::SnapshotBegin, 4, ""),
        event(7, Kind::SnapshotChunk, 4, "=/a =/a/b =/a/c"),
        event(7, Kind::SnapshotEnd, 4, ""),
    ];
    assert_eq!(world.take(A), expected);
    assert_eq!(world.ready(), [] as [u64; 0]);
    world.set("/ab");
    assert_eq!(world.ready(), [] as [u64; 0]);
    world.set("/a/b");
    world.delete("/a/c");
    let expected = [event(7, Kind::Changes, 6, "*/a/b"), event(7, Kind::Changes, 7, "-/a/c")];
    assert_eq!(world.take(A), expected);
    assert_eq!(world.take(A), []);
}

#[test]
fn changes_of_one_write_come_together_in_order() {
    let mut world = World::new(100);
    world.subscribe(A, 1, "/", 0);
    world.take(A);
    world.write(|transaction| {
        create(transaction, "/b");
        create(transaction, "/a");
        transaction.delete("/b", -1).unwrap();
    });
    assert_eq!(world.take(A), [event(1, Kind::Changes, 1, "+/b +/a -/b")]);
}

#[test]
fn items_carry_data_and_stat() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/a", 1);
    world.take(A);
    world.set("/a");
    let stat = world.tree.get("/a").unwrap().stat();
    assert_eq!(stat.mzxid, Zxid::new(2));
    let data = Some(Bytes::from_static(b"new"));
    let item = Item { kind: ItemKind::DataChanged, path: "/a".into(), data, stat };
    let expected = SubscriptionEvent {
        subscription: 1,
        kind: Kind::Changes,
        zxid: Zxid::new(2),
        items: vec![item],
    };
    assert_eq!(world.subscriptions.take((A, &[]), &world.tree, ROOM), [expected]);
}

#[test]
fn subscriber_that_knows_something_gets_only_what_came_after() {
    let mut world = World::new(100);
    for path in ["/a", "/a/b", "/x", "/a/c"] {
        world.create(path);
    }
    world.subscribe(A, 1, "/a", 2);
    let expected = [event(1, Kind::Changes, 4, "+/a/c"), event(1, Kind::Bookmark, 4, "")];
    assert_eq!(world.take(A), expected);
    world.subscribe(B, 1, "/a", 4);
    assert_eq!(world.take(B), [event(1, Kind::Bookmark, 4, "")]);
}

#[test]
fn subscriber_ahead_of_this_server_hears_nothing_twice() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/", 3);
    assert_eq!(world.take(A), [event(1, Kind::Bookmark, 3, "")]);
    world.create("/b");
    world.create("/c");
    assert_eq!(world.take(A), []);
    assert_eq!(world.subscriptions.bookmarks(|_| true), []);
    world.create("/d");
    assert_eq!(world.take(A), [event(1, Kind::Changes, 4, "+/d")]);
}

#[test]
fn subscriber_older_than_the_history_gets_a_snapshot() {
    let mut world = World::new(2);
    for path in ["/a", "/b", "/c", "/d"] {
        world.create(path);
    }
    world.subscribe(A, 1, "/a", 2);
    assert_eq!(world.take(A), [event(1, Kind::Bookmark, 4, "")]);
    world.subscribe(B, 1, "/a", 1);
    assert_eq!(world.take(B)[0], event(1, Kind::SnapshotBegin, 4, ""));
}

#[test]
fn slow_subscriber_that_falls_out_of_the_history_gets_a_snapshot() {
    let mut world = World::new(3);
    world.subscribe(A, 1, "/", 0);
    world.take(A);
    for path in ["/a", "/b", "/c"] {
        world.create(path);
    }
    assert_eq!(world.take_some(A, 1), [event(1, Kind::Changes, 1, "+/a")]);
    world.create("/d");
    world.create("/e");
    let events = world.take(A);
    assert_eq!(events[0], event(1, Kind::SnapshotBegin, 5, ""));
    assert_eq!(events[2], event(1, Kind::SnapshotEnd, 5, ""));
    assert_eq!(world.ready(), [] as [u64; 0]);
}

#[test]
fn snapshot_in_chunks_stays_as_of_its_zxid_while_the_tree_goes_on() {
    let mut world = World::new(100_000);
    world.create("/a");
    for number in 0..CHUNK_ITEMS_MAX {
        world.create(&format!("/a/{number:04}"));
    }
    let zxid = world.zxid;
    world.subscribe(A, 1, "/a", 0);
    assert_eq!(world.take_some(A, 1), [event(1, Kind::SnapshotBegin, zxid, "")]);
    world.delete("/a/0000");
    let first = world.take_some(A, 1);
    assert_eq!((first[0].1, first[0].2), (Kind::SnapshotChunk, zxid));
    assert_eq!(first[0].3.split(' ').count(), CHUNK_ITEMS_MAX);
    assert!(first[0].3.starts_with("=/a =/a/0000 "));
    let last = format!("=/a/{:04}", CHUNK_ITEMS_MAX - 1);
    let expected = [
        event(1, Kind::SnapshotChunk, zxid, &last),
        event(1, Kind::SnapshotEnd, zxid, ""),
        event(1, Kind::Changes, zxid + 1, "-/a/0000"),
    ];
    assert_eq!(world.take(A), expected);
}

#[test]
fn live_subscriber_is_served_before_a_snapshot_goes_on() {
    let mut world = World::new(100_000);
    for number in 0..3 * CHUNK_ITEMS_MAX {
        world.create(&format!("/{number:04}"));
    }
    world.subscribe(A, 9, "/0000", 0);
    world.take(A);
    world.subscribe(A, 1, "/", 0);
    assert_eq!(world.take_some(A, 1)[0].1, Kind::SnapshotBegin);
    assert_eq!(world.take_some(A, 1)[0].1, Kind::SnapshotChunk);
    assert!(!world.subscriptions.is_owed(A), "a snapshot is waited for");
    world.set("/0000");
    assert!(world.subscriptions.is_owed(A));
    let changed = event(9, Kind::Changes, world.zxid, "*/0000");
    assert_eq!(world.take_some(A, 1), [changed]);
    world.set("/0000");
    let changed = event(9, Kind::Changes, world.zxid, "*/0000");
    let owed = world.subscriptions.take_owed((A, &[]), &world.tree, ROOM);
    assert_eq!(owed.into_iter().map(brief).collect::<Vec<_>>(), [changed], "and nothing else");
    assert!(!world.subscriptions.is_owed(A));
    let rest: Vec<Kind> = world.take(A).into_iter().map(|event| event.1).collect();
    let (chunk, end) = (Kind::SnapshotChunk, Kind::SnapshotEnd);
    assert_eq!(rest, [chunk, chunk, chunk, end, Kind::Changes, Kind::Changes]);
}

#[test]
fn subscriber_is_owed_changes_once_it_was_told_that_it_is_complete() {
    let mut world = World::new(3);
    world.create("/a");
    world.subscribe(A, 1, "/a", 1);
    world.set("/a");
    assert!(!world.subscriptions.is_owed(A), "it resumes");
    world.take(A);
    for _ in 0..9 {
        world.set("/a");
        assert!(world.subscriptions.is_owed(A), "also when the history forgets the change");
    }
    assert_eq!(world.take_some(A, 1)[0].1, Kind::SnapshotBegin);
    assert!(!world.subscriptions.is_owed(A), "it knows that it has to wait");
    world.take(A);
    world.subscriptions.reset(Zxid::new(50));
    assert!(world.subscriptions.is_owed(A), "it is to hear that it gets a snapshot");
    world.subscriptions.check();
    assert!(world.subscriptions.unsubscribe(A, 1));
    assert!(world.subscriptions.is_owed(A), "also when it wants no more");
    assert_eq!(world.take(A)[0].1, Kind::SnapshotBegin);
    assert_eq!((world.subscriptions.is_owed(A), world.subscriptions.count()), (false, 0));
}

#[test]
fn snapshot_is_shared_until_the_subtree_changes() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/a", 0);
    world.take_some(A, 1);
    world.create("/b");
    world.subscribe(B, 1, "/a", 0);
    let shared = [
        event(1, Kind::SnapshotBegin, 2, ""),
        event(1, Kind::SnapshotChunk, 2, "=/a"),
        event(1, Kind::SnapshotEnd, 2, ""),
    ];
    assert_eq!(world.take(B), shared);
    world.create("/a/b");
    world.subscribe(B, 2, "/a", 0);
    let events = world.take(B);
    assert_eq!(events[0], event(1, Kind::Changes, 3, "+/a/b"));
    assert_eq!(events[2], event(2, Kind::SnapshotChunk, 3, "=/a =/a/b"));
}

#[test]
fn bookmark_tells_each_live_subscriber_once() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/a", 0);
    assert_eq!(world.subscriptions.bookmarks(|_| true), [], "the snapshot comes first");
    world.take(A);
    assert_eq!(world.subscriptions.bookmarks(|_| true), [], "the snapshot said it");
    world.create("/b");
    world.write(|_| {});
    let told: Vec<_> = world.subscriptions.bookmarks(|_| true).into_iter().collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].connection, A);
    assert_eq!(brief(told[0].event.clone()), event(1, Kind::Bookmark, 3, ""));
    assert_eq!(world.subscriptions.bookmarks(|_| true), []);
}

#[test]
fn replaced_state_means_a_snapshot_for_everyone() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/a", 0);
    world.take(A);
    world.subscriptions.reset(Zxid::new(50));
    world.subscriptions.check();
    assert_eq!(world.ready(), [1]);
    let expected = [
        event(1, Kind::SnapshotBegin, 50, ""),
        event(1, Kind::SnapshotChunk, 50, "=/a"),
        event(1, Kind::SnapshotEnd, 50, ""),
    ];
    assert_eq!(world.take(A), expected);
    world.subscribe(B, 1, "/a", 49);
    assert_eq!(world.take(B)[0], event(1, Kind::SnapshotBegin, 50, ""));
    world.subscribe(B, 2, "/a", 50);
    assert_eq!(world.take(B), [event(2, Kind::Bookmark, 50, "")]);
}

#[test]
fn absent_path_is_an_empty_snapshot_and_its_creation_a_change() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/x/y", 0);
    let expected = [event(1, Kind::SnapshotBegin, 1, ""), event(1, Kind::SnapshotEnd, 1, "")];
    assert_eq!(world.take(A), expected);
    world.create("/x");
    assert_eq!(world.take(A), []);
    world.create("/x/y");
    assert_eq!(world.take(A), [event(1, Kind::Changes, 3, "+/x/y")]);
}

#[test]
fn unsubscribe_and_disconnect_forget() {
    let mut world = World::new(100);
    world.subscribe(A, 1, "/a", 0);
    world.subscribe(A, 2, "/b", 0);
    world.subscribe(B, 1, "/a", 0);
    assert!(world.subscriptions.unsubscribe(A, 1));
    assert!(!world.subscriptions.unsubscribe(A, 1));
    world.subscriptions.check();
    assert_eq!(world.ready(), [1, 2]);
    assert!(world.subscriptions.unsubscribe(A, 2));
    assert_eq!(world.ready(), [2]);
    world.subscriptions.disconnect(B);
    world.subscriptions.check();
    assert_eq!((world.subscriptions.count(), world.ready().len()), (0, 0));
    assert_eq!(world.take(B), []);
}

#[test]
fn subscribe_refuses_bad_paths_used_numbers_and_one_too_many() {
    let mut subscriptions = Subscriptions::new(Zxid::ZERO, 10);
    let bad = subscriptions.subscribe(A, &subscribe_request(1, "a", 0));
    assert_eq!(bad, Err(ErrorCode::BadArguments));
    for number in 0..SUBSCRIPTIONS_PER_CONNECTION_MAX as i32 {
        assert_eq!(subscriptions.subscribe(A, &subscribe_request(number, "/", 0)), Ok(()));
    }
    let used = subscriptions.subscribe(A, &subscribe_request(1, "/", 0));
    assert_eq!(used, Err(ErrorCode::BadArguments));
    let more = subscriptions.subscribe(A, &subscribe_request(-1, "/", 0));
    assert_eq!(more, Err(ErrorCode::ThrottledOp));
    subscriptions.check();
}

#[test]
fn new_access_list_means_a_snapshot_for_who_subscribed_above_it() {
    let mut world = World::new(100);
    for path in ["/a", "/a/b", "/c"] {
        world.create(path);
    }
    world.subscribe(A, 1, "/a", 0);
    world.subscribe(A, 2, "/c", 0);
    world.take(A);
    world.set_private("/a/b", true);
    // Before any reply, as a change.
    assert_eq!(world.subscriptions.owed().collect::<Vec<_>>(), [A]);
    let expected = [
        event(1, Kind::SnapshotBegin, 4, ""),
        event(1, Kind::SnapshotChunk, 4, "=/a"),
        event(1, Kind::SnapshotEnd, 4, ""),
    ];
    assert_eq!(world.take(A), expected);
    world.set("/a/b");
    world.delete("/a/b");
    assert_eq!(world.take(A), [], "what was taken away is not heard of any more");
    world.create("/a/b");
    world.set_private("/a/b", true);
    world.set_private("/a/b", false);
    assert_eq!(world.take(A)[1], event(1, Kind::SnapshotChunk, 9, "=/a =/a/b"));
}

#[test]
fn nothing_from_before_a_new_access_list_is_sent_after_it() {
    let mut world = World::new(100);
    for path in ["/a", "/a/b", "/c"] {
        world.create(path);
    }
    world.set("/a/b");
    // One is in the middle of its snapshot, and holds a cut that others could share.
    world.subscribe(A, 1, "/a", 0);
    assert_eq!(world.take_some(A, 1), [event(1, Kind::SnapshotBegin, 4, "")]);
    world.set_private("/a/b", true);
    let snapshot = |number| {
        [
            event(number, Kind::SnapshotBegin, 5, ""),
            event(number, Kind::SnapshotChunk, 5, "=/a"),
            event(number, Kind::SnapshotEnd, 5, ""),
        ]
    };
    world.subscribe(B, 2, "/a", 0);
    assert_eq!(world.take(B), snapshot(2));
    // Who resumes from before it would hear of the value.
    world.subscribe(B, 3, "/a", 3);
    assert_eq!(world.take(B), snapshot(3));
    assert_eq!(world.take(A), snapshot(1));
    // Where no list changed, and from after it, one resumes.
    world.subscribe(B, 4, "/c", 2);
    let resumed = [event(4, Kind::Changes, 3, "+/c"), event(4, Kind::Bookmark, 5, "")];
    assert_eq!(world.take(B), resumed);
    world.subscribe(B, 5, "/a", 5);
    assert_eq!(world.take(B), [event(5, Kind::Bookmark, 5, "")]);
}

#[test]
fn unsubscribe_takes_nothing_back_that_the_subscriber_counts_on() {
    let mut world = World::new(100);
    world.create("/a");
    world.subscribe(A, 1, "/a", 0);
    world.subscribe(A, 2, "/", 0);
    world.take(A);
    world.set("/a");
    assert!(world.subscriptions.is_owed(A));
    assert!(world.subscriptions.unsubscribe(A, 1));
    assert!(!world.subscriptions.unsubscribe(A, 1), "it is gone for whoever asks");
    world.subscriptions.check();
    world.set("/a");
    let told = world.take(A);
    let of_first: Vec<_> = told.iter().filter(|told| told.0 == 1).collect();
    assert_eq!(of_first.len(), 2, "{told:?}");
    assert_eq!((world.subscriptions.count(), world.subscriptions.is_owed(A)), (1, false));
    world.set("/a");
    assert!(world.take(A).iter().all(|told| told.0 == 2));
    // Its number may be used again at once.
    world.set("/a");
    assert!(world.subscriptions.unsubscribe(A, 2));
    world.subscribe(A, 2, "/a", 0);
    assert_eq!(world.take(A)[0].1, Kind::SnapshotBegin);
}
