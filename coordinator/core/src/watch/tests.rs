//! Watches: which connections a change fires, literally.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchMode, ErrorCode, EventType, SetWatchesRequest, Stat, WatchKind, Zxid,
};

use super::*;
use crate::ids::ConnectionId;
use crate::tree::{Change, ChangeKind, Tree};

const A: ConnectionId = ConnectionId::new(1);
const B: ConnectionId = ConnectionId::new(2);
const C: ConnectionId = ConnectionId::new(3);

use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};

fn fire(watches: &mut Watches, kind: ChangeKind, path: &str) -> Vec<(u64, EventType, String)> {
    let zxid = Zxid::new(9);
    let data = Some(Bytes::new());
    let acl: Arc<[Acl]> = Acl::open().into();
    let (path, parent_acl, stat) = (path.into(), acl.clone(), Stat::default());
    let change = Change { zxid, path, kind, data, acl, parent_acl, stat };
    let mut notifications = Vec::new();
    watches.collect(&change, &mut notifications);
    watches.check();
    assert!(notifications.iter().all(|notification| notification.zxid == zxid));
    let told = notifications.into_iter();
    told.map(|told| (told.connection.get(), told.event, told.path.to_string())).collect()
}

fn event(connection: u64, event: EventType, path: &str) -> (u64, EventType, String) {
    (connection, event, path.to_owned())
}

#[test]
fn data_watch_fires_once_for_the_node_only() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/a").unwrap();
    assert_eq!(fire(&mut watches, ChangeKind::Created, "/a/b"), []);
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/b"), []);
    let fired = fire(&mut watches, ChangeKind::DataChanged, "/a");
    assert_eq!(fired, [event(1, NodeDataChanged, "/a")]);
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/a"), []);
    assert_eq!(watches.count(), 0);
}

#[test]
fn exists_watch_waits_for_the_node_to_be_created() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/a").unwrap();
    assert_eq!(fire(&mut watches, ChangeKind::Created, "/a"), [event(1, NodeCreated, "/a")]);
    assert_eq!(fire(&mut watches, ChangeKind::Deleted, "/a"), []);
}

#[test]
fn child_watch_fires_for_creates_and_deletes_of_children() {
    let mut watches = Watches::new();
    for connection in [B, A] {
        watches.watch_children(connection, "/a").unwrap();
        watches.watch_children(connection, "/").unwrap();
    }
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/a"), []);
    let fired = fire(&mut watches, ChangeKind::Created, "/a/b");
    let expected = [event(1, NodeChildrenChanged, "/a"), event(2, NodeChildrenChanged, "/a")];
    assert_eq!(fired, expected);
    let fired = fire(&mut watches, ChangeKind::Deleted, "/x");
    assert_eq!(fired, [event(1, NodeChildrenChanged, "/"), event(2, NodeChildrenChanged, "/")]);
    assert_eq!(watches.count(), 0);
}

#[test]
fn deletion_is_told_once_per_connection_before_the_parents_change() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/p/a").unwrap();
    watches.watch_children(A, "/p/a").unwrap();
    watches.watch_children(B, "/p/a").unwrap();
    watches.watch_children(A, "/p").unwrap();
    let expected = [
        event(1, NodeDeleted, "/p/a"),
        event(2, NodeDeleted, "/p/a"),
        event(1, NodeChildrenChanged, "/p"),
    ];
    assert_eq!(fire(&mut watches, ChangeKind::Deleted, "/p/a"), expected);
    assert_eq!(watches.count(), 0);
}

#[test]
fn same_watch_twice_is_one() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/a").unwrap();
    watches.watch_data(A, "/a").unwrap();
    watches.watch_children(A, "/a").unwrap();
    assert_eq!((watches.count(), watches.path_count()), (1, 1));
    let fired = fire(&mut watches, ChangeKind::DataChanged, "/a");
    assert_eq!(fired, [event(1, NodeDataChanged, "/a")]);
    let fired = fire(&mut watches, ChangeKind::Created, "/a/b");
    assert_eq!(fired, [event(1, NodeChildrenChanged, "/a")]);
}

#[test]
fn persistent_watch_stays_and_hears_of_data_and_children() {
    let mut watches = Watches::new();
    watches.add(A, "/a", AddWatchMode::Persistent).unwrap();
    for _ in 0..2 {
        assert_eq!(fire(&mut watches, ChangeKind::Created, "/a"), [event(1, NodeCreated, "/a")]);
        let fired = fire(&mut watches, ChangeKind::DataChanged, "/a");
        assert_eq!(fired, [event(1, NodeDataChanged, "/a")]);
        let fired = fire(&mut watches, ChangeKind::Created, "/a/b");
        assert_eq!(fired, [event(1, NodeChildrenChanged, "/a")]);
        assert_eq!(fire(&mut watches, ChangeKind::Created, "/a/b/c"), []);
        assert_eq!(fire(&mut watches, ChangeKind::Deleted, "/a"), [event(1, NodeDeleted, "/a")]);
    }
}

#[test]
fn recursive_watch_hears_of_the_whole_subtree_but_never_of_children() {
    let mut watches = Watches::new();
    watches.add(A, "/a", AddWatchMode::PersistentRecursive).unwrap();
    for path in ["/a", "/a/b", "/a/b/c"] {
        assert_eq!(fire(&mut watches, ChangeKind::Created, path), [event(1, NodeCreated, path)]);
        let fired = fire(&mut watches, ChangeKind::DataChanged, path);
        assert_eq!(fired, [event(1, NodeDataChanged, path)]);
        assert_eq!(fire(&mut watches, ChangeKind::Deleted, path), [event(1, NodeDeleted, path)]);
    }
    assert_eq!(fire(&mut watches, ChangeKind::Created, "/ab"), []);
    watches.add(B, "/", AddWatchMode::PersistentRecursive).unwrap();
    assert_eq!(fire(&mut watches, ChangeKind::Created, "/ab"), [event(2, NodeCreated, "/ab")]);
}

#[test]
fn one_shot_and_persistent_watches_of_a_connection_fire_one_event() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/a").unwrap();
    watches.add(A, "/a", AddWatchMode::Persistent).unwrap();
    watches.add(A, "/a", AddWatchMode::PersistentRecursive).unwrap();
    watches.add(A, "/", AddWatchMode::PersistentRecursive).unwrap();
    let expected = [event(1, NodeDataChanged, "/a")];
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/a"), expected);
    assert!(!watches.contains(A, "/a", WatchKind::Data));
    assert!(watches.contains(A, "/a", WatchKind::Persistent));
    assert!(watches.contains(A, "/a", WatchKind::PersistentRecursive));
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/a"), expected);
}

#[test]
fn remove_takes_the_named_kinds_only() {
    let all = |watches: &mut Watches| {
        watches.watch_data(A, "/a").unwrap();
        watches.watch_children(A, "/a").unwrap();
        watches.add(A, "/a", AddWatchMode::Persistent).unwrap();
        watches.add(A, "/a", AddWatchMode::PersistentRecursive).unwrap();
    };
    let kinds = [
        WatchKind::Children,
        WatchKind::Data,
        WatchKind::Persistent,
        WatchKind::PersistentRecursive,
    ];
    for removed in kinds {
        let mut watches = Watches::new();
        all(&mut watches);
        assert!(!watches.remove(B, "/a", removed));
        assert!(watches.remove(A, "/a", removed));
        assert!(!watches.remove(A, "/a", removed));
        watches.check();
        for kind in kinds {
            assert_eq!(watches.contains(A, "/a", kind), kind != removed, "{kind:?}");
        }
        assert!(watches.remove(A, "/a", WatchKind::Any));
        assert!(!watches.contains(A, "/a", WatchKind::Any));
        assert_eq!(watches.count(), 0);
        watches.check();
    }
}

#[test]
fn disconnect_forgets_the_connection_only() {
    let mut watches = Watches::new();
    for connection in [A, B] {
        watches.watch_data(connection, "/a").unwrap();
        watches.add(connection, "/", AddWatchMode::PersistentRecursive).unwrap();
    }
    watches.disconnect(A);
    watches.check();
    watches.disconnect(A);
    let fired = fire(&mut watches, ChangeKind::DataChanged, "/a");
    assert_eq!(fired, [event(2, NodeDataChanged, "/a")]);
    watches.disconnect(B);
    watches.check();
    assert_eq!((watches.count(), watches.path_count()), (0, 0));
}

#[test]
fn connection_may_watch_as_many_paths_as_the_limit() {
    let mut watches = Watches::new();
    for number in 0..WATCHED_PATHS_MAX {
        watches.watch_data(A, &format!("/{number}")).unwrap();
    }
    assert_eq!(watches.watch_data(A, "/one-more"), Err(ErrorCode::QuotaExceeded));
    assert_eq!(watches.watch_children(A, "/0"), Ok(()));
    assert_eq!(watches.watch_data(B, "/one-more"), Ok(()));
}

#[test]
fn set_watches_tells_what_was_missed_and_registers_the_rest() {
    use crate::tree::{Stamp, Transaction};
    use coordinator_protocol::{CreateRequest, SessionId};
    let mut tree = Tree::new();
    for (zxid, path) in (1..).zip(["/old", "/old/child", "/new", "/old/late"]) {
        let stamp = Stamp { zxid: Zxid::new(zxid), wall_ms: 0 };
        let request = CreateRequest { path: path.into(), data: None, acl: Acl::open(), flags: 0 };
        Transaction::new(&mut tree, stamp).create(SessionId::NONE, &request).unwrap();
    }
    let list = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect::<Vec<_>>();
    let request = SetWatchesRequest {
        relative_zxid: Zxid::new(2),
        data_watches: list(&["/gone", "/old", "/new"]),
        exist_watches: list(&["/new", "/absent"]),
        child_watches: list(&["/gone", "/old", "/old/child"]),
        persistent_watches: list(&["/p"]),
        persistent_recursive_watches: list(&["/r"]),
    };
    let mut watches = Watches::new();
    let missed = watches.set_watches(A, &request, &tree, Zxid::new(4)).unwrap();
    watches.check();
    let told = |event, path: &str| Notification {
        connection: A,
        event,
        path: path.into(),
        zxid: Zxid::new(4),
        acl: tree.get(path).map(|node| node.acl().clone()),
    };
    let expected = [
        told(NodeDeleted, "/gone"),
        told(NodeDataChanged, "/new"),
        told(NodeCreated, "/new"),
        told(NodeDeleted, "/gone"),
        told(NodeChildrenChanged, "/old"),
    ];
    assert_eq!(missed, expected);
    let registered = [
        ("/old", WatchKind::Data),
        ("/absent", WatchKind::Data),
        ("/old/child", WatchKind::Children),
        ("/p", WatchKind::Persistent),
        ("/r", WatchKind::PersistentRecursive),
    ];
    assert!(registered.iter().all(|(path, kind)| watches.contains(A, path, *kind)));
    assert_eq!(watches.count(), registered.len());
}

/// A path of `bytes` bytes that differs by `number`.
fn long_path(number: usize, bytes: usize) -> String {
    let name = format!("/{number}");
    format!("{name}{}", "-".repeat(bytes - name.len()))
}

#[test]
fn connection_may_watch_as_many_bytes_as_the_limit() {
    const EACH: usize = WATCHED_BYTES_MAX / 64;
    let mut watches = Watches::new();
    let fit = WATCHED_BYTES_MAX / EACH;
    // With their lengths they fill the limit exactly.
    let path = |number| long_path(number, EACH - 4);
    for number in 0..fit {
        watches.watch_data(A, &path(number)).unwrap();
    }
    assert_eq!(watches.watch_data(A, "/"), Err(ErrorCode::QuotaExceeded));
    assert_eq!(watches.watch_children(A, &path(0)), Err(ErrorCode::QuotaExceeded), "in two lists");
    assert_eq!(watches.watch_data(A, &path(0)), Ok(()), "it is watched already");
    watches.check();
    assert!(watches.remove(A, &path(0), WatchKind::Any));
    assert_eq!(watches.watch_data(A, "/"), Ok(()), "room is given back");
    watches.check();
    watches.disconnect(A);
    watches.watch_data(A, &path(0)).unwrap();
    watches.check();
}

#[test]
fn set_watches_that_cannot_be_set_whole_sets_nothing() {
    let (mut watches, tree) = (Watches::new(), Tree::new());
    let fit = 64;
    let path = |number| long_path(number, WATCHED_BYTES_MAX / fit - 4);
    for number in 2..fit {
        watches.watch_data(A, &path(number)).unwrap();
    }
    let mut request = SetWatchesRequest {
        data_watches: vec!["/gone".into()],
        exist_watches: vec![path(0), path(1), path(2)],
        ..SetWatchesRequest::default()
    };
    let refused = watches.set_watches(A, &request, &tree, Zxid::new(4));
    assert_eq!((refused, watches.count()), (Err(ErrorCode::QuotaExceeded), fit - 2));
    request.data_watches.clear();
    request.persistent_watches = vec!["/a//b".into()];
    let refused = watches.set_watches(A, &request, &tree, Zxid::new(4));
    assert_eq!((refused, watches.count()), (Err(ErrorCode::BadArguments), fit - 2));
    request.persistent_watches.clear();
    let missed = watches.set_watches(A, &request, &tree, Zxid::new(4)).unwrap();
    assert_eq!((missed.len(), watches.count()), (0, fit));
    request.data_watches = vec![path(3)];
    assert_eq!(watches.set_watches(A, &request, &tree, Zxid::new(4)).map(|all| all.len()), Ok(1));
    watches.check();
}

#[test]
fn new_access_list_fires_nothing() {
    let mut watches = Watches::new();
    watches.watch_data(A, "/a").unwrap();
    watches.watch_children(A, "/").unwrap();
    watches.add(B, "/", AddWatchMode::PersistentRecursive).unwrap();
    assert_eq!(fire(&mut watches, ChangeKind::AclChanged, "/a"), []);
    assert_eq!(watches.count(), 3);
}

#[test]
fn watches_of_one_client_and_of_all_are_limited_too() {
    let limits = WatchLimits { per_connection: 3, per_client: 4, all: 6 };
    let mut watches = Watches::within(limits);
    let refused = Err(ErrorCode::QuotaExceeded);
    for (connection, client) in [(A, "one"), (B, "one"), (C, "other")] {
        watches.come_from(connection, client.into());
    }
    for path in ["/1", "/2", "/3"] {
        watches.watch_data(A, path).unwrap();
    }
    assert_eq!(watches.watch_data(A, "/4"), refused, "of the connection");
    watches.watch_children(A, "/1").unwrap();
    watches.watch_data(B, "/1").unwrap();
    assert_eq!(watches.watch_data(B, "/2"), refused, "of the client");
    watches.watch_data(C, "/1").unwrap();
    watches.watch_data(C, "/2").unwrap();
    assert_eq!(watches.watch_data(C, "/3"), refused, "of all");
    watches.check();
    // What fires makes room, and so does who goes.
    assert_eq!(fire(&mut watches, ChangeKind::DataChanged, "/2").len(), 2);
    watches.check();
    watches.watch_data(B, "/2").unwrap();
    watches.watch_data(C, "/3").unwrap();
    watches.disconnect(A);
    watches.check();
    watches.add(B, "/3", AddWatchMode::PersistentRecursive).unwrap();
    assert_eq!((watches.count(), watches.count_of(B)), (5, 3));
    watches.check();
}

#[test]
fn watches_are_set_again_beyond_what_new_ones_may_have() {
    let limits = WatchLimits { per_connection: 4, per_client: 3, all: 4 };
    let (mut watches, tree) = (Watches::within(limits), Tree::new());
    for (connection, client) in [(A, "one"), (B, "one"), (C, "other")] {
        watches.come_from(connection, client.into());
    }
    let mut again = |connection, numbers: std::ops::Range<usize>| {
        let exist_watches = numbers.map(|number| format!("/{number}")).collect();
        let request = SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() };
        let outcome = watches.set_watches(connection, &request, &tree, Zxid::new(4));
        watches.check();
        (outcome.map(|_| ()), watches.count(), watches.watch_data(C, "/new"))
    };
    let refused = Err(ErrorCode::QuotaExceeded);
    assert_eq!(again(A, 0..5), (refused, 0, Ok(())), "a connection has no more than always");
    assert_eq!(again(A, 0..4), (Ok(()), 5, Ok(())), "it is watched already");
    assert_eq!(again(B, 0..3), (refused, 5, Ok(())), "twice what the client may have and one");
    assert_eq!(again(B, 0..2), (Ok(()), 7, Ok(())));
    assert_eq!(again(C, 0..2), (refused, 7, Ok(())), "twice what all may have and one");
    assert_eq!(again(C, 0..1), (Ok(()), 8, Ok(())));
    for connection in [A, B, C] {
        assert_eq!(watches.watch_data(connection, "/other"), refused, "new ones are as before");
    }
    watches.disconnect(A);
    watches.disconnect(B);
    assert_eq!(watches.watch_data(C, "/other"), Ok(()));
    watches.check();
}

#[test]
fn what_one_connection_may_watch_can_be_set_again_by_one_request() {
    use coordinator_protocol::{Request, SET_WATCHES_BYTES_MAX, Xid, encode_request};
    let mut watches = Watches::new();
    let mut again = SetWatchesRequest::default();
    // Each path in every list in which it can be.
    for number in 0.. {
        let path = long_path(number, 100_000);
        let registered = watches
            .watch_data(A, &path)
            .and_then(|()| watches.watch_children(A, &path))
            .and_then(|()| watches.add(A, &path, AddWatchMode::Persistent))
            .and_then(|()| watches.add(A, &path, AddWatchMode::PersistentRecursive));
        if registered.is_err() {
            break;
        }
        again.data_watches.push(path.clone());
        again.child_watches.push(path.clone());
        again.persistent_watches.push(path.clone());
        again.persistent_recursive_watches.push(path);
    }
    let bytes = encode_request(Xid::SET_WATCHES, &Request::SetWatches2(again)).len() - 4;
    assert!(bytes <= SET_WATCHES_BYTES_MAX && bytes > SET_WATCHES_BYTES_MAX - 500_000, "{bytes}");
    assert_eq!(WATCHED_BYTES_MAX + 8 + 8 + 5 * 4, SET_WATCHES_BYTES_MAX - 28);
}
