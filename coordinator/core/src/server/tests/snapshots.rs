//! Snapshots that an operator asks for, and what stays of the log between two.

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::ServerId;
use crate::server::Event;

/// Data of 100 bytes.
const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

#[test]
fn snapshot_that_is_asked_for_holds_what_was_applied_and_one_follows_another() {
    let mut ensemble = Ensemble::new(1);
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let index = |ensemble: &Ensemble| ensemble.server(member(1)).status().snapshot_index;
    let applied = |ensemble: &Ensemble| ensemble.server(member(1)).status().applied_index;
    assert_eq!(index(&ensemble), 0);
    let first = applied(&ensemble);
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.ask(id, set_data("/a", "1")).unwrap();
    assert_eq!(index(&ensemble), 0, "it takes 20 ms");
    let second = applied(&ensemble);
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.run_until("the first", |e| index(e) == first);
    ensemble.run_until("the second", |e| index(e) == second);
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.ask(id, set_data("/a", "2")).unwrap();
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.step(member(1), Event::SnapshotFailed { index: second });
    let last = applied(&ensemble);
    ensemble.run_until("another after one that failed", |e| index(e) == last);
    ensemble.crash(member(1));
    ensemble.start(member(1));
    ensemble.await_leader();
}

#[test]
fn server_that_has_applied_nothing_takes_none() {
    let mut ensemble = Ensemble::new(3);
    ensemble.crash(member(2));
    ensemble.crash(member(3));
    ensemble.step(member(1), Event::TakeSnapshot);
    ensemble.run_ms(100);
    assert_eq!(ensemble.server(member(1)).status().snapshot_index, 0);
}

#[test]
fn log_in_memory_is_bounded_however_far_apart_snapshots_are() {
    let mut ensemble = Ensemble::with(1, |config| {
        config.snapshot_entries = u64::MAX;
        (config.log_bytes_kept, config.log_bytes_kept_since) = (1_000, 2_000);
    });
    let id = ensemble.connect(member(1), 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    let entry_bytes = 300;
    for number in 0..100 {
        ensemble.ask(id, set_data("/a", LONG)).unwrap();
        let kept = ensemble.server(member(1)).consensus.log_bytes();
        assert!(kept <= 3_000 + entry_bytes, "{kept} bytes after {number} writes");
    }
    let server = ensemble.server(member(1));
    assert!(server.consensus.log_bytes() > 3_000 - entry_bytes);
    assert_eq!(server.status().snapshot_index, 0);
    let before = server.state().encode_snapshot();
    ensemble.crash(member(1));
    ensemble.start(member(1));
    ensemble.await_leader();
    let again = ensemble.server(member(1));
    assert!(again.consensus.log_bytes() <= 3_000 + entry_bytes, "also of what was read back");
    let index = |server: &crate::server::Server| server.state().applied_index();
    assert!(index(again) > 100 && !before.is_empty());
}

#[test]
fn follower_behind_what_is_in_memory_gets_a_snapshot_while_writes_go_on() {
    // Of the log two entries stay.
    let mut ensemble = Ensemble::with(3, |config| {
        config.snapshot_entries = u64::MAX;
        (config.log_bytes_kept, config.log_bytes_kept_since) = (390, 0);
    });
    let leader = ensemble.await_leader();
    let late = member(leader.get() % 3 + 1);
    ensemble.crash(late);
    let id = ensemble.connect(leader, 40_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    for _ in 0..50 {
        ensemble.ask(id, set_data("/a", LONG)).unwrap();
    }
    ensemble.start(late);
    // Many times what is kept comes while the snapshot is written, sent and kept.
    for _ in 0..1_000 {
        ensemble.send(id, set_data("/a", LONG));
        ensemble.run_ms(1);
    }
    assert!(ensemble.server(late).status().snapshot_index > 0);
    ensemble.run_ms(200);
    let index = |at| ensemble.server(at).state().applied_index();
    assert_eq!(index(late), index(leader));
    ensemble.run_ms(11_000);
    ensemble.ask(id, set_data("/a", "last")).unwrap();
    assert!(ensemble.server(leader).consensus.log_bytes() <= 400, "nobody needs more any longer");
}

/// Three of whose log two entries stay; one is down, and needs a snapshot when it is back. With the leader, and that one.
fn with_one_left_behind() -> (Ensemble, ServerId, ServerId) {
    let mut ensemble = Ensemble::with(3, |config| {
        config.snapshot_entries = u64::MAX;
        (config.log_bytes_kept, config.log_bytes_kept_since) = (390, 0);
    });
    let leader = ensemble.await_leader();
    let late = member(leader.get() % 3 + 1);
    ensemble.crash(late);
    let id = ensemble.connect(leader, 40_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    for _ in 0..50 {
        ensemble.ask(id, set_data("/a", LONG)).unwrap();
    }
    (ensemble, leader, late)
}

#[test]
fn snapshot_that_nobody_fetches_is_not_kept_for_long() {
    let (mut ensemble, leader, late) = with_one_left_behind();
    ensemble.start(late);
    ensemble.run_until("a question", |e| e.server(leader).snapshots.wanted());
    ensemble.crash(late);
    ensemble.run_until("an offer", |e| e.server(leader).consensus.offers_snapshot());
    ensemble.run_ms(9_000);
    assert!(ensemble.server(leader).consensus.offers_snapshot(), "it may come again");
    ensemble.run_ms(2_000);
    assert!(!ensemble.server(leader).consensus.offers_snapshot());
    ensemble.start(late);
    let index = |e: &Ensemble, at| e.server(at).state().applied_index();
    ensemble.run_until("another", |e| index(e, late) == index(e, leader));
}

#[test]
fn snapshot_for_a_follower_that_cannot_be_written_is_tried_again_later_and_later() {
    let (mut ensemble, leader, late) = with_one_left_behind();
    // It never comes to its end by itself.
    ensemble.save_ms = u64::MAX / 2;
    ensemble.start(late);
    let saving = |e: &Ensemble| e.server(leader).snapshots.saving();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let failed_at = ensemble.now;
        ensemble.run_until("a try", |e| saving(e).is_some());
        pauses.push(ensemble.now.since(failed_at) / 1_000);
        let index = saving(&ensemble).unwrap();
        ensemble.step(leader, Event::SnapshotFailed { index });
        assert!(saving(&ensemble).is_none());
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60]);
    ensemble.save_ms = 20;
    let index = |e: &Ensemble, at| e.server(at).state().applied_index();
    ensemble.run_until("a good end", |e| index(e, late) == index(e, leader));
}

#[test]
fn who_loses_the_office_forgets_who_wanted_a_snapshot() {
    let (mut ensemble, leader, late) = with_one_left_behind();
    ensemble.save_ms = 10_000;
    ensemble.start(late);
    ensemble.run_until("a question", |e| e.server(leader).snapshots.wanted());
    for other in (1..=3).map(member).filter(|other| *other != leader) {
        ensemble.cut_peers(leader, other, false);
    }
    ensemble.run_until("the loss", |e| !e.server(leader).consensus.is_leader());
    assert!(!ensemble.server(leader).snapshots.wanted());
    for other in (1..=3).map(member).filter(|other| *other != leader) {
        ensemble.connect_peers(leader, other);
    }
    let index = |e: &Ensemble, at| e.server(at).state().applied_index();
    ensemble.run_until("a new leader", |e| {
        e.leader().is_some_and(|new| index(e, leader) == index(e, new))
    });
}

#[test]
fn follower_that_asks_while_snapshots_for_others_are_written_gets_one() {
    let (mut ensemble, leader, late) = with_one_left_behind();
    // Each takes 20 ms, and its bytes are given back to nobody.
    ensemble.step(leader, Event::TakeSnapshot);
    ensemble.start(late);
    for _ in 0..100 {
        ensemble.step(leader, Event::TakeSnapshot);
        ensemble.run_ms(5);
    }
    assert_eq!(ensemble.hurried, [leader], "what is written slowly is not waited for, told once");
    let index = |at| ensemble.server(at).state().applied_index();
    assert_eq!(index(late), index(leader));
    assert!(ensemble.server(late).status().snapshot_index > 0);
}
