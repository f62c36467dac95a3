//! Clients that come back, and lists that do not fit into one answer.

use coordinator_protocol::{
    ChildrenPageRequest, ErrorCode, EventType, Request, Response, SetWatchesRequest, WatcherEvent,
    Zxid,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, delete, exists, set_data};
use crate::ConnectionId;
use crate::server::{MISSED_CHANGES_MAX, PAGE_NAMES_MAX};

use EventType::{NodeChildrenChanged, NodeCreated, NodeDataChanged, NodeDeleted};

/// The zxid of the connection's last answer.
fn seen(ensemble: &Ensemble, id: ConnectionId) -> Zxid {
    let zxid = ensemble.clients[&id].got.iter().rev().find_map(|got| match got {
        Got::Reply(_, zxid, _) => Some(*zxid),
        _ => None,
    });
    zxid.expect("it had answers")
}

fn watches(single: &[&str], recursive: &[&str], relative_zxid: Zxid) -> Request {
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Request::SetWatches2(SetWatchesRequest {
        relative_zxid,
        persistent_watches: list(single),
        persistent_recursive_watches: list(recursive),
        ..SetWatchesRequest::default()
    })
}

/// What a new connection is told that sets these watches, all of it before the answer.
fn told(ensemble: &mut Ensemble, request: Request) -> Vec<(EventType, String)> {
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(id, request), Ok(Response::Empty));
    let got = &ensemble.clients[&id].got;
    assert!(matches!(got.last(), Some(Got::Reply(..))), "told behind the answer");
    let events = got.iter().filter_map(|got| match got {
        Got::Notified(_, WatcherEvent { event, path, .. }) => Some((*event, path.clone())),
        _ => None,
    });
    events.collect()
}

fn event(event: EventType, path: &str) -> (EventType, String) {
    (event, path.to_owned())
}

#[test]
fn persistent_watches_get_what_they_missed() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    for path in ["/a", "/a/b", "/r", "/other"] {
        ensemble.ask(id, create(path, 0)).unwrap();
    }
    let before = seen(&ensemble, id);
    for request in [
        set_data("/a", "1"),
        create("/a/c", 0),
        set_data("/a/c", "2"),
        create("/r/x", 0),
        create("/r/x/y", 0),
        delete("/r/x/y"),
        delete("/a/b"),
        set_data("/other", "3"),
    ] {
        ensemble.ask(id, request).unwrap();
    }
    let all = watches(&["/a", "/a/b"], &["/r"], before);
    let expected = [
        event(NodeDataChanged, "/a"),
        event(NodeChildrenChanged, "/a"),
        event(NodeCreated, "/r/x"),
        event(NodeCreated, "/r/x/y"),
        event(NodeDeleted, "/r/x/y"),
        event(NodeDeleted, "/a/b"),
        event(NodeChildrenChanged, "/a"),
    ];
    assert_eq!(told(&mut ensemble, all), expected);
    let now = seen(&ensemble, id);
    assert_eq!(told(&mut ensemble, watches(&["/a"], &["/"], now)), []);
    assert_eq!(told(&mut ensemble, watches(&[], &[], before)), []);
}

#[test]
fn persistent_watches_that_missed_more_than_is_known_are_told_to_look() {
    let mut ensemble = Ensemble::with(1, |config| config.subscription_history_max = 3);
    let id = ensemble.connect(member(1), 10_000);
    for path in ["/same", "/written", "/parent", "/gone", "/top"] {
        ensemble.ask(id, create(path, 0)).unwrap();
    }
    let before = seen(&ensemble, id);
    for request in
        [set_data("/written", "1"), create("/parent/new", 0), delete("/gone"), create("/late", 0)]
    {
        ensemble.ask(id, request).unwrap();
    }
    let paths = ["/same", "/written", "/parent", "/gone", "/late"];
    let expected = [
        event(NodeDataChanged, "/written"),
        event(NodeChildrenChanged, "/parent"),
        event(NodeDeleted, "/gone"),
        event(NodeCreated, "/late"),
        event(NodeDataChanged, "/top"),
    ];
    assert_eq!(told(&mut ensemble, watches(&paths, &["/top"], before)), expected);
}

#[test]
fn as_many_missed_changes_as_the_limit_are_told_one_by_one() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 30_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let before = seen(&ensemble, id);
    for number in 0..MISSED_CHANGES_MAX {
        ensemble.send(id, set_data("/a", "x"));
        if number % 500 == 0 {
            ensemble.ask(id, exists("/a", false)).unwrap();
        }
    }
    ensemble.ask(id, exists("/a", false)).unwrap();
    assert_eq!(told(&mut ensemble, watches(&["/a"], &[], before)).len(), MISSED_CHANGES_MAX);
    ensemble.ask(id, set_data("/a", "y")).unwrap();
    let one = [event(NodeDataChanged, "/a")];
    assert_eq!(told(&mut ensemble, watches(&["/a"], &[], before)), one);
}

#[test]
fn children_come_in_pages() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 30_000);
    ensemble.ask(id, create("/p", 0)).unwrap();
    let count = PAGE_NAMES_MAX + 1;
    for number in 0..count {
        ensemble.send(id, create(&format!("/p/{number:05}"), 0));
        if number % 500 == 0 {
            ensemble.ask(id, exists("/p", false)).unwrap();
        }
    }
    let mut page = |after: &str, prefix: &str, count_max: i32| {
        let (path, after, prefix) = ("/p".into(), after.into(), prefix.into());
        let page = ChildrenPageRequest { path, after, prefix, count_max };
        match ensemble.ask(id, Request::GetChildrenPage(page))? {
            Response::NamesPage(names, more, stat) => {
                assert_eq!(usize::try_from(stat.num_children), Ok(count));
                let ends = (names.first().cloned(), names.last().cloned());
                Ok((names.len(), ends, more))
            }
            other => panic!("{other:?}"),
        }
    };
    let ends = |first: &str, last: &str| (Some(first.to_owned()), Some(last.to_owned()));
    assert_eq!(page("", "", 3), Ok((3, ends("00000", "00002"), true)));
    assert_eq!(page("00002", "", 3), Ok((3, ends("00003", "00005"), true)));
    assert_eq!(page("", "", i32::MAX), Ok((PAGE_NAMES_MAX, ends("00000", "09999"), true)));
    assert_eq!(page("09999", "", 3), Ok((1, ends("10000", "10000"), false)));
    assert_eq!(page("09997", "", 3), Ok((3, ends("09998", "10000"), false)));
    assert_eq!(page("10000", "", 3), Ok((0, (None, None), false)));
    assert_eq!(page("", "0123", 100), Ok((10, ends("01230", "01239"), false)));
    assert_eq!(page("01235", "0123", 3), Ok((3, ends("01236", "01238"), true)));
    assert_eq!(page("02", "0123", 3), Ok((0, (None, None), false)));
    assert_eq!(page("", "", 0), Err(ErrorCode::BadArguments));
    assert_eq!(page("", "", -1), Err(ErrorCode::BadArguments));
}
