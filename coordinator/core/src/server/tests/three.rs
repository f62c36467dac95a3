//! Three members: election, replication, forwarding, failover, catch-up.

use coordinator_protocol::{
    Acl, CheckRequest, CreateRequest, ErrorCode, EventType, MultiOp, MultiResult, Request,
    Response, SetWatchesRequest, SubscribeRequest, SubscriptionEventKind, WatcherEvent, Zxid,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, delete, get_data, set_data};
use crate::ServerId;
use crate::server::{Config, Event};

fn others(leader: ServerId) -> Vec<ServerId> {
    [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect()
}

fn assert_equal_states(ensemble: &Ensemble, ids: &[ServerId]) {
    let first = ensemble.server(ids[0]).state().encode_snapshot();
    for id in &ids[1..] {
        assert_eq!(ensemble.server(*id).state().encode_snapshot(), first, "{id} differs");
    }
}

#[test]
fn first_leader_is_elected_without_waiting_for_a_timeout() {
    let mut ensemble = Ensemble::new(3);
    let begun = ensemble.now;
    ensemble.await_leader();
    assert!(ensemble.now.since(begun) < 100, "took {} ms", ensemble.now.since(begun));
}

#[test]
fn write_through_a_follower_reaches_all() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let follower = others(leader)[0];
    let id = ensemble.connect(follower, 10_000);
    let begun = ensemble.now;
    assert_eq!(ensemble.ask(id, create("/a", 0)), Ok(Response::Path("/a".into())));
    assert!(ensemble.now.since(begun) <= 10, "took {} ms", ensemble.now.since(begun));
    assert!(matches!(ensemble.ask(id, get_data("/a", false)), Ok(Response::DataStat(..))));
    ensemble.run_ms(50);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
}

#[test]
fn vote_whose_answer_was_lost_is_asked_for_again_in_the_same_election() {
    const SYNC_MS: u64 = 400;
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    ensemble.run_ms(50);
    let term = ensemble.server(leader).status().term;
    let left = others(leader);
    ensemble.sync_ms = SYNC_MS;
    ensemble.crash(leader);
    let is_newer = |ensemble: &Ensemble, id: ServerId| ensemble.server(id).status().term > term;
    ensemble.run_until("a candidate", |e| left.iter().any(|id| is_newer(e, *id)));
    let (candidate, voter) =
        if is_newer(&ensemble, left[0]) { (left[0], left[1]) } else { (left[1], left[0]) };
    ensemble.lose_silently(voter, candidate, true);
    ensemble.run_until("a vote", |e| is_newer(e, voter));
    ensemble.run_ms(SYNC_MS + 10);
    ensemble.lose_silently(voter, candidate, false);
    ensemble.run_until("a leader", |e| e.leader().is_some());
    assert_eq!(ensemble.leader(), Some(candidate));
    assert_eq!(ensemble.server(candidate).status().term, term + 1, "another election was held");
}

#[test]
fn killed_leader_is_replaced_within_a_tenth_of_a_second_and_writes_wait() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let follower = others(leader)[1];
    let id = ensemble.connect(follower, 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.crash(leader);
    let begun = ensemble.now;
    assert!(ensemble.ask(id, set_data("/a", "new")).is_ok(), "the connection stayed");
    assert!(ensemble.now.since(begun) < 100, "took {} ms", ensemble.now.since(begun));
    assert_ne!(ensemble.leader(), Some(leader));
    ensemble.start(leader);
    ensemble.run_ms(500);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
}

#[test]
fn writes_on_their_way_at_a_failover_take_place_once_and_in_order() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let follower = others(leader)[0];
    let id = ensemble.connect(follower, 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    let mut xids = Vec::new();
    for step in 0..200 {
        xids.push(ensemble.send(id, create("/s/n", 2)));
        if step == 100 {
            ensemble.run_ms(3);
            ensemble.crash(leader);
        }
    }
    let last = *xids.last().unwrap();
    ensemble.run_until("all answers", |e| e.clients[&id].reply(last).is_some());
    for (number, xid) in xids.iter().enumerate() {
        let path = format!("/s/n{number:010}");
        assert_eq!(ensemble.clients[&id].reply(*xid), Some(Ok(Response::Path(path))));
    }
    assert_eq!(
        ensemble.ask(id, Request::GetAllChildrenNumber("/s".into())),
        Ok(Response::Count(200))
    );
}

#[test]
fn broken_stream_to_the_leader_is_repaired_without_loss_or_repetition() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let follower = others(leader)[0];
    let id = ensemble.connect(follower, 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    let mut last = ensemble.send(id, create("/s/n", 2));
    for step in 0..60 {
        if step % 20 == 10 {
            ensemble.cut_peers(leader, follower, true);
            ensemble.run_ms(2);
            ensemble.connect_peers(leader, follower);
        }
        last = ensemble.send(id, create("/s/n", 2));
        ensemble.run_ms(1);
    }
    ensemble.run_until("all answers", |e| e.clients[&id].reply(last).is_some());
    assert_eq!(
        ensemble.ask(id, Request::GetAllChildrenNumber("/s".into())),
        Ok(Response::Count(61))
    );
}

#[test]
fn silent_leader_is_replaced_by_timeout_and_answers_nobody() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 6_000);
    for peer in others(leader) {
        ensemble.cut_peers(leader, peer, false);
    }
    let cut = ensemble.now;
    ensemble.run_until("another leader", |e| e.leader().is_some_and(|now| now != leader));
    assert!(ensemble.now.since(cut) < 5_000);
    ensemble.run_until("the old one lets go", |e| e.clients[&id].is_closed());
    assert!(ensemble.now.since(cut) <= 2_200, "held on for {} ms", ensemble.now.since(cut));
    for peer in others(leader) {
        ensemble.connect_peers(leader, peer);
    }
    ensemble.run_ms(1_000);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
}

#[test]
fn lagging_follower_catches_up_by_snapshot_in_chunks() {
    let mut ensemble = Ensemble::with(3, |config| {
        config.snapshot_entries = 50;
        config.log_entries_kept = 5;
        config.snapshot_chunk_bytes = 512;
    });
    let leader = ensemble.await_leader();
    let late = others(leader)[1];
    ensemble.crash(late);
    let id = ensemble.connect(leader, 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    for _ in 0..200 {
        ensemble.ask(id, create("/s/n", 2)).unwrap();
    }
    ensemble.start(late);
    ensemble.run_until("catch-up", |e| {
        e.server(late).state().applied_index() == e.server(leader).state().applied_index()
    });
    assert!(ensemble.server(late).status().snapshot_index > 0);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
    ensemble.ask(id, delete("/s/n0000000007")).unwrap();
    ensemble.run_ms(50);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
    ensemble.crash(late);
    ensemble.start(late);
    ensemble.run_ms(300);
    assert_equal_states(&ensemble, &[1, 2, 3].map(member));
}

#[test]
fn follower_that_lags_by_fewer_bytes_than_are_kept_keeps_its_clients() {
    let is_closed = |configure: fn(&mut Config)| {
        let mut ensemble = Ensemble::with(3, configure);
        let leader = ensemble.await_leader();
        let late = others(leader)[1];
        let (writer, watcher) = (ensemble.connect(leader, 10_000), ensemble.connect(late, 10_000));
        for peer in others(late) {
            ensemble.cut_peers(late, peer, false);
        }
        for _ in 0..12 {
            ensemble.ask(writer, create_of(100_000)).unwrap();
        }
        assert!(ensemble.server(leader).status().snapshot_index > 0);
        for peer in others(late) {
            ensemble.connect_peers(late, peer);
        }
        ensemble.run_until("catch-up", |e| {
            e.server(late).state().applied_index() == e.server(leader).state().applied_index()
        });
        assert_equal_states(&ensemble, &[1, 2, 3].map(member));
        ensemble.clients[&watcher].is_closed()
    };
    assert!(!is_closed(|config| config.snapshot_entries = 10));
    assert!(is_closed(|config| {
        config.snapshot_entries = 10;
        config.log_bytes_kept = 200_000;
    }));
}

/// A node of so many bytes, under a new name each time.
fn create_of(bytes: usize) -> Request {
    let data = Some(vec![0; bytes].into());
    Request::Create(CreateRequest { path: "/n".into(), data, acl: Acl::open(), flags: 2 })
}

#[test]
fn linearizable_read_on_a_follower_sees_what_was_written_elsewhere() {
    for linearizable in [true, false] {
        let configure: fn(&mut Config) =
            if linearizable { |config| config.linearizable_reads = true } else { |_| {} };
        let mut ensemble = Ensemble::with(3, configure);
        let leader = ensemble.await_leader();
        let follower = others(leader)[0];
        let writer = ensemble.connect(leader, 10_000);
        let reader = ensemble.connect(follower, 10_000);
        let stale = |ensemble: &mut Ensemble, name: &str| {
            ensemble.ask(writer, create(name, 0)).unwrap();
            ensemble.ask(reader, get_data(name, false)).is_err()
        };
        let stale_reads =
            (0..20).filter(|number| stale(&mut ensemble, &format!("/n{number}"))).count();
        // The leader answers its client before the follower hears of it: without the switch this is seen.
        assert_eq!(stale_reads == 0, linearizable, "{stale_reads} of 20 reads were stale");
        // Reads and writes of one session keep their order all the same.
        let mut xids = Vec::new();
        for number in 0..10 {
            xids.push(ensemble.send(reader, create(&format!("/own{number}"), 0)));
            xids.push(ensemble.send(reader, get_data(&format!("/own{number}"), false)));
            xids.push(ensemble.send(reader, delete(&format!("/own{number}"))));
        }
        let last = *xids.last().unwrap();
        ensemble.run_until("all answers", |e| e.clients[&reader].reply(last).is_some());
        for xid in xids {
            let reply = ensemble.clients[&reader].reply(xid);
            assert!(matches!(reply, Some(Ok(_))), "{xid:?}: {reply:?}");
        }
    }
}

#[test]
fn sync_on_a_follower_sees_what_was_written_elsewhere() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let writer = ensemble.connect(leader, 10_000);
    let reader = ensemble.connect(others(leader)[0], 10_000);
    for round in 0..20 {
        let path = format!("/r{round}");
        ensemble.ask(writer, create(&path, 0)).unwrap();
        ensemble.send(reader, Request::Sync("/".into()));
        assert!(matches!(ensemble.ask(reader, get_data(&path, false)), Ok(Response::DataStat(..))));
    }
}

#[test]
fn watch_on_a_follower_fires_for_a_write_elsewhere() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let writer = ensemble.connect(leader, 10_000);
    let watcher = ensemble.connect(others(leader)[0], 10_000);
    ensemble.ask(writer, create("/a", 0)).unwrap();
    ensemble.send(watcher, Request::Sync("/".into()));
    ensemble.ask(watcher, get_data("/a", true)).unwrap();
    ensemble.ask(writer, set_data("/a", "x")).unwrap();
    ensemble.run_ms(10);
    assert!(matches!(
        ensemble.clients[&watcher].got.last(),
        Some(Got::Notified(_, event))
            if *event == WatcherEvent::new(EventType::NodeDataChanged, "/a")
    ));
}

#[test]
fn whole_ensemble_restarts_with_everything_that_was_answered() {
    let mut ensemble = Ensemble::with(3, |config| config.snapshot_entries = 30);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    for _ in 0..100 {
        ensemble.ask(id, create("/s/n", 2)).unwrap();
    }
    for id in [1, 2, 3].map(member) {
        ensemble.crash(id);
    }
    for id in [1, 2, 3].map(member) {
        ensemble.start(id);
    }
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    assert_eq!(
        ensemble.ask(id, Request::GetAllChildrenNumber("/s".into())),
        Ok(Response::Count(100))
    );
    assert_eq!(ensemble.ask(id, get_data("/t", false)), Err(ErrorCode::NoNode));
}

#[test]
fn resigning_leader_hands_over_at_once_and_nobody_is_disconnected() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.step(leader, Event::Resign);
    let begun = ensemble.now;
    ensemble.run_until("an heir", |e| e.leader().is_some_and(|now| now != leader));
    assert!(ensemble.now.since(begun) < 50, "took {} ms", ensemble.now.since(begun));
    assert!(ensemble.ask(id, set_data("/a", "b")).is_ok());
    assert!(!ensemble.clients[&id].is_closed());
}

#[test]
fn requests_that_come_while_entries_are_on_their_way_share_the_next() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    let before = ensemble.server(leader).status().last_index;
    for _ in 0..100 {
        ensemble.send(id, create("/s/n", 2));
    }
    assert_eq!(
        ensemble.ask(id, Request::GetAllChildrenNumber("/s".into())),
        Ok(Response::Count(100))
    );
    assert_eq!(ensemble.server(leader).status().last_index, before + 3);
}

#[test]
fn multi_through_a_follower_is_all_or_nothing() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(others(leader)[0], 10_000);
    let op = |path: &str| match create(path, 0) {
        Request::Create(create) => MultiOp::Create(create),
        other => panic!("{other:?}"),
    };
    let check = MultiOp::Check(CheckRequest { path: "/none".into(), version: -1 });
    let failed = ensemble.ask(id, Request::Multi(vec![op("/a"), check, op("/b")]));
    let codes = [ErrorCode::Ok, ErrorCode::NoNode, ErrorCode::RuntimeInconsistency];
    assert_eq!(failed, Ok(Response::Multi(codes.map(MultiResult::Error).to_vec())));
    let done = ensemble.ask(id, Request::Multi(vec![op("/a"), op("/a/b")]));
    let paths = ["/a", "/a/b"].map(|path| MultiResult::Create(path.into()));
    assert_eq!(done, Ok(Response::Multi(paths.to_vec())));
}

#[test]
fn subscriber_gets_the_state_then_each_change_before_its_reply() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(others(leader)[0], 10_000);
    ensemble.ask(id, create("/s", 0)).unwrap();
    let request = SubscribeRequest { subscription: 5, path: "/s".into(), from_zxid: Zxid::ZERO };
    assert_eq!(ensemble.ask(id, Request::Subscribe(request)), Ok(Response::Empty));
    ensemble.ask(id, create("/s/a", 0)).unwrap();
    let kinds = |ensemble: &Ensemble| -> Vec<SubscriptionEventKind> {
        let events = ensemble.clients[&id].got.iter().filter_map(|got| match got {
            Got::Told(event) => Some(event.kind),
            _ => None,
        });
        events.collect()
    };
    use SubscriptionEventKind::{Bookmark, Changes, SnapshotBegin, SnapshotChunk, SnapshotEnd};
    assert_eq!(kinds(&ensemble), [SnapshotBegin, SnapshotChunk, SnapshotEnd, Changes]);
    assert!(matches!(ensemble.clients[&id].got.last(), Some(Got::Reply(..))));
    let writer = ensemble.connect(leader, 10_000);
    let server = others(leader)[0];
    ensemble.step(server, Event::Backlogged { connection: id, backlogged: true });
    ensemble.ask(writer, set_data("/s/a", "x")).unwrap();
    ensemble.run_ms(200);
    assert_eq!(kinds(&ensemble).len(), 4, "no room");
    ensemble.step(server, Event::Backlogged { connection: id, backlogged: false });
    assert_eq!(kinds(&ensemble)[4..], [Changes]);
    ensemble.ask(writer, create("/elsewhere", 0)).unwrap();
    ensemble.run_ms(200);
    assert_eq!(kinds(&ensemble)[5..], [Bookmark]);
}

#[test]
fn watches_set_again_on_another_server_tell_what_was_missed() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let writer = ensemble.connect(leader, 10_000);
    ensemble.ask(writer, create("/a", 0)).unwrap();
    ensemble.ask(writer, create("/b", 0)).unwrap();
    let seen = ensemble.server(leader).state().last_zxid();
    ensemble.ask(writer, set_data("/a", "x")).unwrap();
    let id = ensemble.connect(others(leader)[0], 10_000);
    let request = SetWatchesRequest {
        relative_zxid: seen,
        data_watches: vec!["/a".into(), "/b".into()],
        ..SetWatchesRequest::default()
    };
    assert_eq!(ensemble.ask(id, Request::SetWatches(request)), Ok(Response::Empty));
    let told = |path: &str| WatcherEvent::new(EventType::NodeDataChanged, path);
    assert!(
        matches!(&ensemble.clients[&id].got[1], Got::Notified(_, event) if *event == told("/a"))
    );
    ensemble.ask(writer, set_data("/b", "y")).unwrap();
    ensemble.run_ms(10);
    assert!(matches!(
        ensemble.clients[&id].got.last(),
        Some(Got::Notified(_, event)) if *event == told("/b")
    ));
}
