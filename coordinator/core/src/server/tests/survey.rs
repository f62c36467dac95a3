//! What operators ask about in lists, and statistics that are reset.

use coordinator_protocol::{AddWatchMode, AddWatchRequest, OpCode, Request, Zxid};

use super::ensemble::{Ensemble, member};
use super::{create, exists, get_data};
use crate::ServerId;
use crate::server::{Event, Traffic, WatchSummary};

const EPHEMERAL: i32 = 1;

#[test]
fn connection_tells_what_came_and_went_until_it_is_reset() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let xid = ensemble.send(id, get_data("/a", false));
    ensemble.run_ms(100);
    let found = ensemble.server(member(1)).list_connections();
    let [info] = &found.items[..] else { panic!("{found:?}") };
    assert_eq!(info.session, Some(ensemble.clients[&id].session()));
    assert_eq!((info.timeout_ms, info.outstanding, info.reading), (10_000, 0, true));
    let counted = info.traffic.counted;
    assert_eq!((counted.received, counted.sent, counted.latency.count), (3, 3, 3));
    assert!(counted.latency.max >= 2, "a sync takes 2 ms: {counted:?}");
    let last = info.traffic.last.unwrap();
    assert_eq!((last.op, info.traffic.last_xid), (OpCode::GetData, Some(xid)));
    assert_eq!(last.zxid, ensemble.server(member(1)).state().last_zxid());
    let before = ensemble.server(member(1)).status();
    assert_eq!((before.since_reset.received, before.since_reset.sent), (3, 3));
    assert!(before.answer_sizes.last_min_max.is_some_and(|(_, min, max)| min < max));
    assert!(before.proposal_sizes.last_min_max.is_some());

    let server = ensemble.server_mut(member(1));
    server.reset_traffic();
    server.reset_connection_traffic();
    let after = server.status();
    assert_eq!(after.since_reset, Traffic::default());
    assert_eq!((after.answer_sizes.last_min_max, after.proposal_sizes.last_min_max), (None, None));
    // What metrics are told never falls.
    assert_eq!((after.received, after.latency_count), (before.received, before.latency_count));
    let info = &server.list_connections().items[0];
    assert_eq!((info.traffic.counted, info.traffic.last), (Traffic::default(), None));
    assert!(info.session.is_some() && info.established_wall_ms > 0);
    // A ping is the last operation then, but no number that the client counts.
    ensemble.ask(id, Request::Ping).unwrap();
    let traffic = ensemble.server(member(1)).list_connections().items[0].traffic;
    assert_eq!(traffic.last.map(|last| last.op), Some(OpCode::Ping));
    assert_eq!(traffic.counted.received, 1);
}

#[test]
fn only_the_leader_knows_when_sessions_end_and_all_know_their_ephemerals() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let other = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let id = ensemble.connect(other, 10_000);
    for path in ["/e2", "/e1"] {
        ensemble.ask(id, create(path, EPHEMERAL)).unwrap();
    }
    ensemble.run_ms(500);
    let session = ensemble.clients[&id].session();
    let at = |ensemble: &Ensemble, at: ServerId| ensemble.server(at).list_sessions().items;
    let (led, followed) = (at(&ensemble, leader), at(&ensemble, other));
    assert_eq!((led.len(), followed.len()), (1, 1));
    assert_eq!((led[0].id, led[0].timeout_ms), (session, 10_000));
    assert!(led[0].expires_wall_ms.is_some() && followed[0].expires_wall_ms.is_none());
    let paths: Vec<_> = ["/e1", "/e2"].map(|path| (session, path.into())).into();
    for id in [leader, other] {
        let found = ensemble.server(id).list_owned();
        assert_eq!((found.items, found.total), (paths.clone(), 2));
    }
    let status = |id| ensemble.server(id).status();
    assert!(status(leader).office_ms.is_some_and(|ms| ms >= 500));
    assert_eq!(status(other).office_ms, None);
}

#[test]
fn watches_are_listed_both_ways_and_counted() {
    let mut ensemble = Ensemble::new(1);
    let [a, b] = [0; 2].map(|_| ensemble.connect(member(1), 10_000));
    ensemble.ask(a, create("/p", 0)).unwrap();
    ensemble.ask(a, get_data("/p", true)).unwrap();
    ensemble.ask(b, exists("/p", true)).unwrap();
    let _ = ensemble.ask(b, exists("/none", true));
    let add = AddWatchRequest { path: "/p".into(), mode: AddWatchMode::Persistent };
    ensemble.ask(b, Request::AddWatch(add)).unwrap();
    let server = ensemble.server(member(1));
    let [one, two] = [a, b].map(|id| ensemble.clients[&id].session());
    let by_session = [(one, "/p"), (two, "/none"), (two, "/p")];
    let listed = server.list_watches();
    let expected = by_session.map(|(id, path)| (id, path.into())).to_vec();
    assert_eq!((listed.items, listed.total), (expected, 3));
    let by_path = [("/none", two), ("/p", one), ("/p", two)];
    let listed = server.list_watches_by_path();
    let expected = by_path.map(|(path, id)| (path.into(), id)).to_vec();
    assert_eq!((listed.items, listed.total), (expected, 3));
    assert_eq!(server.watch_summary(), WatchSummary { connections: 2, paths: 2, watches: 3 });
}

#[test]
fn last_snapshot_is_known_by_its_zxid_after_a_restart_too() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.server(member(1)).status().snapshot_zxid, None);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let zxid = ensemble.server(member(1)).state().last_zxid();
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.run_ms(500);
    ensemble.ask(id, create("/b", 0)).unwrap();
    assert_eq!(ensemble.server(member(1)).status().snapshot_zxid, Some(zxid));
    ensemble.crash(member(1));
    ensemble.start(member(1));
    assert_eq!(ensemble.server(member(1)).status().snapshot_zxid, Some(zxid));
}

#[test]
fn server_that_stands_alone_has_no_ensemble_to_show() {
    let ensemble = Ensemble::new(1);
    let view = ensemble.server(member(1)).ensemble_view();
    assert!(view.servers.is_empty() && view.up.is_empty());
    assert_eq!(view.version, Zxid::ZERO);
}
