//! Snapshots that an operator asks for.

use super::ensemble::{Ensemble, member};
use super::{create, set_data};
use crate::server::Event;

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
