//! Little room on disks: writes are refused, what is part of a session goes on, and room ends it.

use coordinator_protocol::{CheckRequest, DeleteRequest, ErrorCode, MultiOp, Request, Response};

use super::ensemble::{Ensemble, member};
use super::{create, delete, get_data, set_data};
use crate::server::Event;
use crate::{ConnectionId, ServerId};

const MARK: u64 = 1 << 20;

fn ensemble(size: u64) -> Ensemble {
    Ensemble::with(size, |config| config.disk_free_bytes_min = MARK)
}

fn measure(ensemble: &mut Ensemble, id: ServerId, free_bytes: u64) {
    ensemble.step(id, Event::DiskRoom { free_bytes });
    ensemble.run_ms(100);
}

fn writes(ensemble: &mut Ensemble, id: ConnectionId) -> bool {
    match ensemble.ask(id, set_data("/a", "1")) {
        Ok(_) => true,
        Err(code) => {
            assert_eq!(code, ErrorCode::QuotaExceeded);
            false
        }
    }
}

#[test]
fn without_room_only_what_makes_nodes_fewer_is_written_and_everything_is_read() {
    let mut ensemble = ensemble(1);
    let id = ensemble.connect(member(1), 10_000);
    for path in ["/a", "/b", "/c"] {
        ensemble.ask(id, create(path, 0)).unwrap();
    }
    measure(&mut ensemble, member(1), MARK / 2);
    assert!(!writes(&mut ensemble, id));
    for write in [create("/d", 0), create("/e", 1)] {
        assert_eq!(ensemble.ask(id, write), Err(ErrorCode::QuotaExceeded));
    }
    assert!(ensemble.ask(id, get_data("/a", false)).is_ok());
    assert_eq!(ensemble.ask(id, Request::Ping), Ok(Response::Empty));
    assert_eq!(ensemble.ask(id, delete("/b")), Ok(Response::Empty));
    let check = || MultiOp::Check(CheckRequest { path: "/a".into(), version: -1 });
    let gone = || MultiOp::Delete(DeleteRequest { path: "/c".into(), version: -1 });
    let new = coordinator_protocol::CreateRequest {
        path: "/f".into(),
        data: None,
        acl: coordinator_protocol::Acl::open(),
        flags: 0,
    };
    let mixed = Request::Multi(vec![check(), gone(), MultiOp::Create(new)]);
    assert_eq!(ensemble.ask(id, mixed), Err(ErrorCode::QuotaExceeded));
    assert!(ensemble.ask(id, Request::Multi(vec![check(), gone()])).is_ok());
    let other = ensemble.connect(member(1), 10_000);
    assert_eq!(ensemble.ask(other, Request::CloseSession), Ok(Response::Empty));
    let status = ensemble.server(member(1)).status();
    assert!(status.disk.is_low && status.disk.refuses_writes);
    assert_eq!(status.disk.free_bytes, Some(MARK / 2));
}

/// A node with so much data.
fn large(path: &str, bytes: usize) -> Request {
    let data = Some(bytes::Bytes::from(vec![b'x'; bytes]));
    let acl = coordinator_protocol::Acl::open();
    Request::Create(coordinator_protocol::CreateRequest { path: path.into(), data, acl, flags: 0 })
}

#[test]
fn server_with_little_room_takes_a_snapshot_once_that_frees_more_than_it_takes() {
    let mut ensemble = Ensemble::with(1, |config| {
        config.disk_free_bytes_min = 8 * MARK;
        (config.snapshot_entries, config.snapshot_bytes) = (u64::MAX, u64::MAX);
    });
    let id = ensemble.connect(member(1), 10_000);
    let paths: Vec<String> = (0..16).map(|number| format!("/n{number}")).collect();
    for path in &paths {
        ensemble.ask(id, large(path, 500_000)).unwrap();
    }
    let free = 4 << 20;
    let status = |ensemble: &Ensemble| ensemble.server(member(1)).status();
    let low_for = |ensemble: &mut Ensemble, seconds: u64| {
        for _ in 0..seconds {
            measure(ensemble, member(1), free);
            ensemble.ask(id, Request::Ping).unwrap();
            ensemble.run_ms(900);
        }
        status(ensemble).snapshot_index
    };
    assert_eq!(low_for(&mut ensemble, 10), 0, "there is no room for one");
    assert!(status(&ensemble).disk.is_low);
    for path in &paths[..13] {
        ensemble.ask(id, delete(path)).unwrap();
    }
    let first = low_for(&mut ensemble, 10);
    assert!(first > 0);
    assert_eq!(ensemble.logged_entries(member(1)).len(), 0, "without another write");
    assert_eq!(low_for(&mut ensemble, 20), first, "nothing is new");
    ensemble.ask(id, delete(&paths[13])).unwrap();
    let later = low_for(&mut ensemble, 20);
    for path in &paths[14..] {
        ensemble.ask(id, delete(path)).unwrap();
    }
    assert!(low_for(&mut ensemble, 10) > later);
    let nodes = status(&ensemble).nodes;
    ensemble.crash(member(1));
    ensemble.start(member(1));
    ensemble.await_leader();
    assert_eq!(status(&ensemble).nodes, nodes);
}

#[test]
fn what_a_snapshot_covers_goes_without_a_write_where_room_got_little_after_it() {
    let mut ensemble = Ensemble::with(1, |config| {
        config.disk_free_bytes_min = MARK;
        (config.snapshot_entries, config.snapshot_bytes) = (4, u64::MAX);
    });
    let id = ensemble.connect(member(1), 10_000);
    for path in ["/a", "/b", "/c", "/d", "/e", "/f"] {
        ensemble.ask(id, create(path, 0)).unwrap();
        ensemble.run_ms(100);
    }
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.run_ms(1_000);
    let covered = ensemble.server(member(1)).status().snapshot_index;
    let logged = |ensemble: &Ensemble| ensemble.logged_entries(member(1));
    assert!(covered > 0 && !logged(&ensemble).is_empty(), "the next write brings it along");
    measure(&mut ensemble, member(1), MARK / 2);
    assert_eq!(logged(&ensemble), []);
}

#[test]
fn room_counts_again_only_when_it_is_half_as_much_more() {
    let mut ensemble = ensemble(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let mark = ensemble.server(member(1)).disk_room().low_mark_bytes;
    assert!(mark > MARK, "a snapshot needs room too");
    for (free, expected) in [
        (mark, true),
        (mark - 1, false),
        (mark, false),
        (mark + mark / 2 - 1, false),
        (mark + mark / 2, true),
        (mark, true),
    ] {
        // What is written moves the mark.
        let (low, high) = (ensemble.server(member(1)).disk_room().low_mark_bytes, mark);
        assert_eq!(low, high, "only the same value is written");
        measure(&mut ensemble, member(1), free);
        assert_eq!(!ensemble.server(member(1)).disk_room().refuses_writes, expected, "{free}");
    }
}

#[test]
fn setting_of_zero_refuses_nothing() {
    let mut ensemble = Ensemble::with(1, |config| config.disk_free_bytes_min = 0);
    let id = ensemble.connect(member(1), 10_000);
    measure(&mut ensemble, member(1), 0);
    assert!(ensemble.ask(id, create("/a", 0)).is_ok());
}

#[test]
fn low_leader_refuses_for_all_and_a_low_follower_for_nobody() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.await_leader();
    let followers: Vec<ServerId> =
        [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect();
    let clients: Vec<ConnectionId> =
        [1, 2, 3].map(|id| ensemble.connect(member(id), 10_000)).into();
    ensemble.ask(clients[0], create("/a", 0)).unwrap();
    let all = |ensemble: &mut Ensemble| -> Vec<bool> {
        clients.iter().map(|id| writes(ensemble, *id)).collect()
    };
    measure(&mut ensemble, followers[0], 0);
    assert_eq!(all(&mut ensemble), [true; 3]);
    measure(&mut ensemble, followers[1], 0);
    assert_eq!(all(&mut ensemble), [false; 3], "no quorum without one of them");
    measure(&mut ensemble, followers[0], u64::MAX);
    assert_eq!(all(&mut ensemble), [true; 3]);
    measure(&mut ensemble, leader, 0);
    assert_eq!(all(&mut ensemble), [false; 3]);
    measure(&mut ensemble, leader, u64::MAX);
    assert_eq!(all(&mut ensemble), [true; 3]);
    // The other follower has room, and is gone.
    ensemble.crash(followers[0]);
    ensemble.run_ms(100);
    let at_leader = ensemble.connect(leader, 10_000);
    assert!(!writes(&mut ensemble, at_leader));
    ensemble.start(followers[0]);
    ensemble.run_ms(2_000);
    assert!(writes(&mut ensemble, at_leader));
}

/// A leader, two followers, and a client at each of them, in this order; there is a node.
fn three() -> (Ensemble, [ServerId; 3], [ConnectionId; 3]) {
    let mut ensemble = ensemble(3);
    let leader = ensemble.await_leader();
    let mut members = [1, 2, 3].map(member);
    members.sort_by_key(|id| *id != leader);
    let clients = members.map(|id| ensemble.connect(id, 20_000));
    ensemble.ask(clients[0], create("/a", 0)).unwrap();
    (ensemble, members, clients)
}

fn all_write(ensemble: &mut Ensemble, clients: [ConnectionId; 3]) -> [bool; 3] {
    clients.map(|id| writes(ensemble, id))
}

/// Moves the leadership until this one has it.
fn hand_over(ensemble: &mut Ensemble, to: ServerId) {
    for _ in 0..10 {
        let leader = ensemble.await_leader();
        if leader == to {
            return;
        }
        ensemble.step(leader, Event::Resign);
        ensemble.run_until("an heir", |e| e.leader().is_some_and(|now| now != leader));
    }
    panic!("{to} is not elected");
}

/// The link on which this one sends breaks and is made anew; the other hears nothing of that.
fn redial(ensemble: &mut Ensemble, from: ServerId, to: ServerId) {
    ensemble.step(from, Event::PeerLost { peer: to });
    ensemble.step(from, Event::PeerUp { peer: to });
}

#[test]
fn leader_that_comes_back_with_room_is_not_held_to_what_it_said_in_another_term() {
    let (mut ensemble, [leader, heir, _], clients) = three();
    measure(&mut ensemble, leader, 0);
    assert_eq!(all_write(&mut ensemble, clients), [false; 3]);
    hand_over(&mut ensemble, heir);
    ensemble.run_ms(100);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3], "the new leader has room");
    measure(&mut ensemble, leader, u64::MAX);
    hand_over(&mut ensemble, leader);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3]);
    ensemble.run_ms(100);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3]);
    // And one that has none refuses in its new term, too.
    hand_over(&mut ensemble, heir);
    measure(&mut ensemble, leader, 0);
    hand_over(&mut ensemble, leader);
    ensemble.run_ms(100);
    assert_eq!(all_write(&mut ensemble, clients), [false; 3]);
    assert!(clients.iter().all(|id| !ensemble.clients[id].is_closed()));
}

#[test]
fn word_of_a_term_that_is_over_counts_no_more() {
    let (mut ensemble, [leader, heir, third], clients) = three();
    measure(&mut ensemble, leader, 0);
    hand_over(&mut ensemble, heir);
    // Nothing of this reaches the third, which heard a moment ago that this leader refuses.
    ensemble.lose_silently(leader, third, true);
    ensemble.step(leader, Event::DiskRoom { free_bytes: u64::MAX });
    ensemble.run_ms(2);
    ensemble.lose_silently(leader, third, false);
    hand_over(&mut ensemble, leader);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3]);
}

#[test]
fn own_link_that_is_made_anew_takes_nothing_from_what_the_other_said() {
    let (mut ensemble, [leader, low, other], clients) = three();
    measure(&mut ensemble, leader, 0);
    redial(&mut ensemble, other, leader);
    assert_eq!(all_write(&mut ensemble, clients), [false; 3], "at a follower");
    measure(&mut ensemble, leader, u64::MAX);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3]);
    for id in [low, other] {
        measure(&mut ensemble, id, 0);
    }
    redial(&mut ensemble, leader, low);
    ensemble.run_ms(20);
    assert_eq!(all_write(&mut ensemble, clients), [false; 3], "at the leader");
}

#[test]
fn word_that_was_lost_with_its_link_is_said_when_there_is_another() {
    let (mut ensemble, [leader, first, second], clients) = three();
    for (free_bytes, expected) in [(0, false), (u64::MAX, true)] {
        // The leader's, to a follower.
        ensemble.lose_silently(leader, first, true);
        ensemble.step(leader, Event::DiskRoom { free_bytes });
        ensemble.run_ms(2);
        ensemble.lose_silently(leader, first, false);
        assert_eq!(writes(&mut ensemble, clients[2]), expected);
        redial(&mut ensemble, leader, first);
        ensemble.run_ms(2);
        assert_eq!(all_write(&mut ensemble, clients), [expected; 3]);
    }
    measure(&mut ensemble, second, 0);
    for (free_bytes, expected) in [(0, false), (u64::MAX, true)] {
        // A follower's, to the leader.
        ensemble.lose_silently(first, leader, true);
        ensemble.step(first, Event::DiskRoom { free_bytes });
        ensemble.run_ms(2);
        ensemble.lose_silently(first, leader, false);
        redial(&mut ensemble, first, leader);
        ensemble.run_ms(100);
        assert_eq!(all_write(&mut ensemble, clients), [expected; 3]);
    }
}

#[test]
fn word_that_was_lost_without_a_sign_is_said_again_or_runs_out() {
    let (mut ensemble, [leader, first, _], clients) = three();
    for (free_bytes, expected, within_ms) in [(0, false, 1_100), (u64::MAX, true, 4_100)] {
        ensemble.lose_silently(leader, first, true);
        ensemble.step(leader, Event::DiskRoom { free_bytes });
        ensemble.run_ms(2);
        ensemble.lose_silently(leader, first, false);
        ensemble.run_ms(within_ms);
        assert_eq!(all_write(&mut ensemble, clients), [expected; 3]);
    }
    // It is said as long as it is true.
    measure(&mut ensemble, leader, 0);
    for _ in 0..10 {
        ensemble.run_ms(700);
        assert_eq!(all_write(&mut ensemble, clients), [false; 3]);
    }
    measure(&mut ensemble, leader, u64::MAX);
    assert_eq!(all_write(&mut ensemble, clients), [true; 3]);
}

#[test]
fn new_leader_and_new_streams_know_who_has_room() {
    let (mut ensemble, [leader, first, second], _) = three();
    measure(&mut ensemble, leader, 0);
    ensemble.cut_peers(leader, first, true);
    ensemble.run_ms(2);
    ensemble.connect_peers(leader, first);
    ensemble.run_ms(2_000);
    hand_over(&mut ensemble, leader);
    ensemble.run_ms(100);
    let id = ensemble.connect(first, 10_000);
    assert!(!writes(&mut ensemble, id));
    ensemble.crash(leader);
    ensemble.run_ms(3_000);
    let id = ensemble.connect(first, 10_000);
    assert!(writes(&mut ensemble, id), "the new leader has room");
    let now = ensemble.await_leader();
    measure(&mut ensemble, if now == first { second } else { first }, 0);
    assert!(!writes(&mut ensemble, id), "no quorum without one that has none");
    ensemble.start(leader);
    ensemble.run_ms(2_000);
    assert!(writes(&mut ensemble, id), "one that starts anew has room until it says otherwise");
}
