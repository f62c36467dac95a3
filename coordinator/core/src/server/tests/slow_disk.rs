//! Members whose disks take seconds for a sync.

use bytes::Bytes;
use coordinator_protocol::{Request, Response, SetDataRequest};

use super::ensemble::{Ensemble, member};
use super::{create, get_data, set_data};
use crate::ServerId;
use crate::consensus::HELD_BYTES_MAX;
use crate::server::Mode;

const SLOW_MS: u64 = 5_000;

fn others(leader: ServerId) -> Vec<ServerId> {
    [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect()
}

#[test]
fn slow_follower_holds_nobody_up_and_keeps_its_sessions() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let slow = others(leader)[0];
    let at_leader = ensemble.connect(leader, 6_000);
    let at_slow = ensemble.connect(slow, 6_000);
    ensemble.ask(at_leader, create("/a", 0)).unwrap();
    let term = ensemble.server(leader).status().term;
    ensemble.run_ms(50);
    ensemble.slow_ms.insert(slow, SLOW_MS);
    for _ in 0..400 {
        let begun = ensemble.now;
        ensemble.ask(at_leader, set_data("/a", "x")).unwrap();
        assert!(ensemble.now.since(begun) <= 10, "took {} ms", ensemble.now.since(begun));
        ensemble.ask(at_slow, get_data("/a", false)).unwrap();
        ensemble.run_ms(100);
    }
    let begun = ensemble.now;
    ensemble.ask(at_slow, create("/slow", 0)).unwrap();
    assert!(ensemble.now.since(begun) <= SLOW_MS + 50, "took {}", ensemble.now.since(begun));
    assert_eq!(ensemble.leader(), Some(leader));
    assert_eq!(ensemble.server(leader).status().term, term, "an election was held");
    assert!(!ensemble.clients[&at_leader].is_closed());
    assert!(!ensemble.clients[&at_slow].is_closed());
}

#[test]
fn slow_disks_everywhere_make_writes_slow_and_nothing_else() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(others(leader)[1], 6_000);
    let term = ensemble.server(leader).status().term;
    ensemble.sync_ms = SLOW_MS;
    for number in 0..6 {
        let begun = ensemble.now;
        let path = format!("/{number}");
        let answer = ensemble.ask(id, create(&path, 0));
        assert_eq!(answer, Ok(Response::Path(path)));
        assert!(ensemble.now.since(begun) <= 2 * SLOW_MS, "took {}", ensemble.now.since(begun));
    }
    assert_eq!(ensemble.leader(), Some(leader));
    assert_eq!(ensemble.server(leader).status().term, term, "an election was held");
    assert!(!ensemble.clients[&id].is_closed());
}

#[test]
fn slow_leader_hands_its_office_to_a_faster_member() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(others(leader)[0], 6_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.slow_ms.insert(leader, SLOW_MS);
    let begun = ensemble.now;
    for _ in 0..10 {
        ensemble.ask(id, set_data("/a", "x")).unwrap();
    }
    assert!(ensemble.now.since(begun) <= 1_500, "took {} ms", ensemble.now.since(begun));
    for _ in 0..100 {
        let begun = ensemble.now;
        ensemble.ask(id, set_data("/a", "y")).unwrap();
        assert!(ensemble.now.since(begun) <= 10, "took {} ms", ensemble.now.since(begun));
        ensemble.run_ms(100);
    }
    assert_ne!(ensemble.leader(), Some(leader));
    assert_eq!(ensemble.server(leader).status().mode, Mode::Follower);
    assert!(!ensemble.clients[&id].is_closed());
}

#[test]
fn slow_disks_everywhere_elect_a_leader_all_the_same() {
    let mut ensemble = Ensemble::with_syncs_of(3, SLOW_MS);
    let begun = ensemble.now;
    ensemble.await_leader();
    assert!(ensemble.now.since(begun) <= 25_000, "took {} ms", ensemble.now.since(begun));
    let leader = ensemble.leader().unwrap();
    ensemble.crash(leader);
    let begun = ensemble.now;
    ensemble.run_until("another leader", |e| e.leader().is_some());
    assert!(ensemble.now.since(begun) <= 25_000, "took {} ms", ensemble.now.since(begun));
}

#[test]
fn follower_takes_no_more_than_its_limit_for_a_slow_disk_and_catches_up() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let slow = others(leader)[0];
    let id = ensemble.connect(leader, 30_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.run_ms(50);
    ensemble.slow_ms.insert(slow, SLOW_MS);
    let data = Some(Bytes::from(vec![7; 1_000_000]));
    let (mut most, mut refused) = (0, false);
    for _ in 0..120 {
        let set = SetDataRequest { path: "/a".into(), data: data.clone(), version: -1 };
        ensemble.ask(id, Request::SetData(set)).unwrap();
        let status = ensemble.server(slow).status();
        most = most.max(status.unsynced_bytes);
        refused |= ensemble.server(leader).status().last_index > status.last_index + 20;
    }
    // One message more may come than fits.
    let limit = HELD_BYTES_MAX + (2 << 20);
    assert!(most <= limit && refused, "{most} of at most {limit} bytes held, {refused}");
    ensemble.slow_ms.remove(&slow);
    let written = ensemble.server(leader).status().last_index;
    ensemble.run_until("what was refused", |e| e.server(slow).status().applied_index >= written);
    assert_eq!(ensemble.server(slow).state(), ensemble.server(leader).state());
    assert_eq!(ensemble.server(slow).status().unsynced_bytes, 0);
}
