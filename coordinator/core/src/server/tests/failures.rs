//! What goes wrong with disks and queues.

use super::create;
use super::ensemble::{Ensemble, Got, connect_request, member};
use crate::consensus::{PersistId, Restored};
use crate::server::{
    Config, EARLY_REQUESTS_MAX, Effect, Event, Mode, PENDING_REQUESTS_MAX, Server,
};
use crate::{ConnectionId, Millis, Now};

#[test]
fn failed_write_to_the_log_stops_the_server_for_good() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    ensemble.step(leader, Event::PersistFailed { id: PersistId(1) });
    assert_eq!(ensemble.halted, vec![(leader, "a write to the log failed")]);
    assert_eq!(ensemble.clients[&id].got.last(), Some(&Got::Closed));
    assert_eq!(ensemble.server(leader).status().mode, Mode::Halted);
    assert_eq!(ensemble.server(leader).next_deadline(), None);
    ensemble.run_until("another leader", |e| e.leader().is_some_and(|now| now != leader));
}

#[test]
fn nothing_is_answered_before_it_is_durable() {
    let config = Config::new(member(1), vec![member(1)]);
    let mut server = Server::new(config, Restored::default()).unwrap();
    let mut effects = Vec::new();
    let now = Now { mono: Millis::new(10), wall_ms: 5 };
    server.step(Event::Tick, now, &mut effects);
    let connection = ConnectionId::new(1);
    let request = connect_request(10_000);
    server.step(Event::Connect { connection, request, entropy: [7; 24] }, now, &mut effects);
    let ids: Vec<PersistId> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Persist { id, write } if write.sync => *id,
            other => panic!("{other:?} before anything is durable"),
        })
        .collect();
    assert_eq!(ids, vec![PersistId(1), PersistId(2)]);
    effects.clear();
    server.step(Event::Persisted { id: PersistId(1) }, now, &mut effects);
    assert_eq!(effects, vec![], "the session's entry is in the second write");
    server.step(Event::Persisted { id: PersistId(2) }, now, &mut effects);
    assert!(
        matches!(effects.as_slice(), [Effect::Respond { connection: to, .. }] if *to == connection),
        "{effects:?}"
    );
}

#[test]
fn reading_stops_at_the_limit_and_goes_on_when_half_is_answered() {
    let config = Config::new(member(1), vec![member(1)]);
    let mut server = Server::new(config, Restored::default()).unwrap();
    let mut effects = Vec::new();
    let now = Now { mono: Millis::new(10), wall_ms: 5 };
    let connection = ConnectionId::new(1);
    let request = connect_request(10_000);
    server.step(Event::Connect { connection, request, entropy: [7; 24] }, now, &mut effects);
    let persist_all = |server: &mut Server, effects: &mut Vec<Effect>| {
        while let Some(last) = effects.iter().rev().find_map(|effect| match effect {
            Effect::Persist { id, .. } => Some(*id),
            _ => None,
        }) {
            effects.retain(|effect| matches!(effect, Effect::Reading { .. }));
            server.step(Event::Persisted { id: last }, now, effects);
        }
    };
    persist_all(&mut server, &mut effects);
    effects.clear();
    for number in 0..PENDING_REQUESTS_MAX {
        assert!(!effects.contains(&Effect::Reading { connection, on: false }), "at {number}");
        let request = create(&format!("/{number}"), 0);
        let header = coordinator_protocol::RequestHeader {
            xid: coordinator_protocol::Xid::new(i32::try_from(number).unwrap()),
            op: request.op(),
        };
        server.step(Event::Request { connection, header, request: Ok(request) }, now, &mut effects);
    }
    assert_eq!(effects.last(), Some(&Effect::Reading { connection, on: false }));
    persist_all(&mut server, &mut effects);
    assert!(effects.contains(&Effect::Reading { connection, on: true }));
}

#[test]
fn requests_before_the_handshakes_answer_wait_for_it_up_to_a_limit() {
    let mut ensemble = Ensemble::new(1);
    let patient = ensemble.dial(member(1), connect_request(10_000));
    let mut last = None;
    for number in 0..EARLY_REQUESTS_MAX {
        last = Some(ensemble.send(patient, create(&format!("/{number}"), 0)));
    }
    let hasty = ensemble.dial(member(1), connect_request(10_000));
    for number in 0..=EARLY_REQUESTS_MAX {
        ensemble.send(hasty, create(&format!("/{number}"), 0));
    }
    assert_eq!(ensemble.clients[&hasty].got, vec![Got::Closed]);
    ensemble.run_ms(50);
    assert!(ensemble.clients[&patient].reply(last.unwrap()).is_some_and(|answer| answer.is_ok()));
}
