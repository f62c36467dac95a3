//! Processes that stood still: what waited in their sockets proves nothing of now.

use super::ensemble::{Ensemble, Got, member};
use super::{create, get_data, set_data};
use crate::{ConnectionId, ServerId};

/// What a client of the paused member is told when it asks right after `handled` of the waiting
/// events, with a write elsewhere during the pause.
fn asked_after_pause(of_leader: bool, handled: usize) -> (Ensemble, ServerId, ConnectionId) {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let mut others = [1, 2, 3].map(member).into_iter().filter(|id| (*id == leader) == of_leader);
    let paused = others.next_back().unwrap();
    let id = ensemble.connect(paused, 30_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.run_ms(500);
    ensemble.freeze(paused, true);
    ensemble.run_ms(5_000);
    let elsewhere = [1, 2, 3].map(member).into_iter().find(|id| *id != paused).unwrap();
    let writer = ensemble.connect(elsewhere, 30_000);
    ensemble.ask(writer, set_data("/a", "new")).unwrap();
    ensemble.thaw_for(paused, handled);
    (ensemble, paused, id)
}

#[test]
fn member_that_stood_still_does_not_answer_by_what_waited_in_its_sockets() {
    for of_leader in [false, true] {
        for handled in [0, 1, 5, 20] {
            let (mut ensemble, paused, id) = asked_after_pause(of_leader, handled);
            let confirmed = ensemble.server(paused).status().confirmed;
            assert!(handled == 0 || !confirmed, "of the leader: {of_leader}, {handled} handled");
            ensemble.send(id, get_data("/a", false));
            let got = &ensemble.clients[&id].got;
            assert_eq!(got.last(), Some(&Got::Closed), "{of_leader}, {handled} handled");
            ensemble.freeze(paused, false);
            ensemble.run_ms(500);
            assert!(ensemble.server(paused).status().confirmed, "it is back in the quorum");
        }
    }
}
