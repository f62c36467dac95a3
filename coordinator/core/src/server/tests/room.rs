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

#[test]
fn new_leader_and_new_streams_know_who_has_room() {
    let mut ensemble = ensemble(3);
    let leader = ensemble.await_leader();
    let followers: Vec<ServerId> =
        [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect();
    let id = ensemble.connect(followers[0], 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    measure(&mut ensemble, leader, 0);
    assert!(!writes(&mut ensemble, id));
    ensemble.cut_peers(leader, followers[0], true);
    ensemble.run_ms(2);
    ensemble.connect_peers(leader, followers[0]);
    ensemble.run_ms(2_000);
    let id = ensemble.connect(followers[0], 10_000);
    let now = ensemble.await_leader();
    assert_eq!(writes(&mut ensemble, id), now != leader, "it is told again, or has another leader");
    ensemble.crash(leader);
    ensemble.run_ms(3_000);
    let id = ensemble.connect(followers[0], 10_000);
    assert!(writes(&mut ensemble, id), "the new leader has room");
}
