//! Who is ready for clients, and what those lack who are not.

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::ServerId;
use crate::server::{Config, Lack, Notice, Noticed, Status};

const WRITES: u64 = 60;

fn status(ensemble: &Ensemble, id: ServerId) -> Status {
    ensemble.server(id).status()
}

/// Three, one of which was away while others wrote, and is back behind a slow network. The leader and that one.
fn with_one_back(configure: fn(&mut Config)) -> (Ensemble, ServerId, ServerId) {
    let mut ensemble = Ensemble::with(3, configure);
    let leader = ensemble.await_leader();
    let late = member(leader.get() % 3 + 1);
    ensemble.crash(late);
    let id = ensemble.connect(leader, 40_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    for _ in 0..WRITES {
        ensemble.ask(id, set_data("/a", "more")).unwrap();
    }
    ensemble.far_ms.insert(late, 100);
    ensemble.start(late);
    (ensemble, leader, late)
}

/// Lets it come up; what it said that it lacks while it was in contact with the leader.
fn watch(ensemble: &mut Ensemble, leader: ServerId, late: ServerId) -> Vec<Lack> {
    let committed = status(ensemble, leader).commit_index;
    assert!(status(ensemble, leader).is_ready());
    let mut told = Vec::new();
    while !status(ensemble, late).is_ready() {
        let Status { confirmed, lack, .. } = status(ensemble, late);
        told.extend(lack.filter(|_| confirmed));
        ensemble.run_exactly_ms(1);
        assert!(told.len() < 10_000, "never ready: {lack:?}");
    }
    assert!(status(ensemble, late).applied_index >= committed);
    told
}

#[test]
fn follower_is_ready_once_it_has_what_was_committed_when_it_came_back() {
    let (mut ensemble, leader, late) = with_one_back(|_| {});
    let told = watch(&mut ensemble, leader, late);
    let committed = status(&ensemble, leader).commit_index;
    let last = told.last().unwrap();
    assert!(last.applied < committed && last.committed == Some(committed), "{last:?}");
}

#[test]
fn follower_that_gets_a_snapshot_is_ready_once_it_has_it() {
    let (mut ensemble, leader, late) = with_one_back(|config| {
        config.snapshot_entries = u64::MAX;
        config.snapshot_chunk_bytes = 64;
        (config.log_bytes_kept, config.log_bytes_kept_since) = (390, 0);
    });
    let told = watch(&mut ensemble, leader, late);
    let Status { snapshot_index: index, .. } = status(&ensemble, late);
    let noticed = ensemble.server_mut(late).take_notices();
    let [Noticed { notice: Notice::SnapshotInstalled { from, bytes, index: last }, .. }] =
        noticed.as_slice()
    else {
        panic!("{noticed:?}");
    };
    assert_eq!((*from, *last), (Some(leader), index));
    assert!(index > 0 && *bytes > 0);
    assert!(told.iter().any(|lack| lack.committed.is_some()), "{told:?}");
}

#[test]
fn everybody_is_ready_again_under_the_next_leader_and_who_lags_by_little_stays_so() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    ensemble.crash(leader);
    let next = ensemble.await_leader();
    let other = [1, 2, 3].map(member).into_iter().find(|id| *id != next && *id != leader).unwrap();
    ensemble
        .run_until("all are ready", |e| status(e, next).is_ready() && status(e, other).is_ready());
    let id = ensemble.connect(next, 40_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    // It hears of what is committed before its disk has that.
    ensemble.slow_ms.insert(other, 300);
    ensemble.ask(id, set_data("/a", "1")).ok();
    for _ in 0..50 {
        ensemble.send(id, set_data("/a", "2"));
        ensemble.run_exactly_ms(10);
        assert!(status(&ensemble, other).is_ready(), "{:?}", status(&ensemble, other).lack);
    }
}

#[test]
fn follower_that_falls_far_behind_is_not_ready() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let slow = member(leader.get() % 3 + 1);
    let id = ensemble.connect(leader, 40_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.run_until("it is ready", |e| status(e, slow).is_ready());
    ensemble.slow_ms.insert(slow, 5_000);
    for _ in 0..1_500 {
        ensemble.send(id, set_data("/a", "2"));
        ensemble.run_exactly_ms(2);
    }
    let Status { lack, applied_index, .. } = status(&ensemble, slow);
    let committed = lack.and_then(|lack| lack.committed).unwrap();
    assert!(committed > applied_index + 1_000, "{committed} {applied_index}");
    ensemble.run_until("it is ready again", |e| status(e, slow).is_ready());
}
