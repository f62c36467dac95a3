//! A server without a quorum, and clients that want to read only.

use coordinator_protocol::{ConnectRequest, ErrorCode, Request, Response, Zxid};

use super::ensemble::{Ensemble, Got, connect_request, member};
use super::{create, exists, get_data, set_data};
use crate::ConnectionId;
use crate::ServerId;

fn reading(request: ConnectRequest) -> ConnectRequest {
    ConnectRequest { read_only: Some(true), ..request }
}

/// Three servers with a node, the last of which is cut off.
fn cut_off(is_on: bool) -> (Ensemble, ServerId, ConnectionId) {
    let configure: fn(&mut crate::server::Config) = match is_on {
        true => |config| config.read_only_mode = true,
        false => |_| {},
    };
    let mut ensemble = Ensemble::with(3, configure);
    let leader = ensemble.await_leader();
    let alone = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let before = ensemble.connect(alone, 20_000);
    ensemble.ask(before, create("/a", 0)).unwrap();
    for other in [1, 2, 3].map(member) {
        if other != alone {
            ensemble.cut_peers(alone, other, true);
        }
    }
    // It hears of that.
    ensemble.run_ms(2);
    (ensemble, alone, before)
}

fn heal(ensemble: &mut Ensemble, alone: ServerId) {
    for other in [1, 2, 3].map(member) {
        if other != alone {
            ensemble.connect_peers(alone, other);
        }
    }
    ensemble.run_ms(3_000);
}

fn is_closed(ensemble: &Ensemble, id: ConnectionId) -> bool {
    ensemble.clients[&id].got.contains(&Got::Closed)
}

#[test]
fn client_that_asked_for_it_reads_without_a_quorum_and_nobody_else_does() {
    let (mut ensemble, alone, before) = cut_off(true);
    let reader = ensemble.dial(alone, reading(connect_request(10_000)));
    let other = ensemble.dial(alone, connect_request(10_000));
    let ancient =
        ensemble.dial(alone, ConnectRequest { read_only: None, ..connect_request(10_000) });
    ensemble.run_ms(1_900);
    assert!(ensemble.clients[&reader].got.is_empty(), "there may be a quorum soon");
    ensemble.run_ms(600);
    let response = ensemble.clients[&reader].response().clone();
    assert_eq!((response.read_only, response.timeout_ms), (Some(true), 10_000));
    assert!(is_closed(&ensemble, before), "A7");
    assert!(ensemble.server(alone).status().read_only);
    assert!(ensemble.ask(reader, get_data("/a", true)).is_ok());
    assert_eq!(ensemble.ask(reader, Request::Ping), Ok(Response::Empty));
    for write in [create("/b", 0), set_data("/a", "1"), Request::Sync("/a".into())] {
        assert_eq!(ensemble.ask(reader, write), Err(ErrorCode::NotReadOnly));
    }
    ensemble.run_ms(3_500);
    assert!(is_closed(&ensemble, other) && is_closed(&ensemble, ancient));
    assert!(!is_closed(&ensemble, reader));
    heal(&mut ensemble, alone);
    assert!(is_closed(&ensemble, reader), "it can have more now");
    assert!(!ensemble.server(alone).status().read_only);
    let again = ensemble.connect(alone, 10_000);
    assert_eq!(ensemble.ask(again, exists("/b", false)), Err(ErrorCode::NoNode));
    assert!(ensemble.ask(again, set_data("/a", "2")).is_ok());
}

#[test]
fn session_of_the_log_is_kept_and_goes_on_where_there_is_a_quorum() {
    let (mut ensemble, alone, before) = cut_off(true);
    let session = ensemble.clients[&before].response().clone();
    ensemble.run_ms(3_000);
    let named = ConnectRequest {
        session: session.session,
        password: session.password.clone(),
        ..reading(connect_request(20_000))
    };
    let reader = ensemble.dial(alone, named.clone());
    ensemble.run_ms(100);
    assert_eq!(ensemble.clients[&reader].response().session, session.session);
    assert_eq!(ensemble.ask(reader, Request::CloseSession), Err(ErrorCode::NotReadOnly));
    assert!(is_closed(&ensemble, reader));
    let forged = ConnectRequest { password: connect_request(0).password, ..named.clone() };
    let stranger = ensemble.dial(alone, forged);
    ensemble.run_ms(100);
    assert_eq!(ensemble.clients[&stranger].got, [Got::Closed]);
    heal(&mut ensemble, alone);
    let back = ensemble.dial(alone, named);
    ensemble.run_ms(500);
    let response = ensemble.clients[&back].response();
    assert_eq!((response.session, response.read_only), (session.session, Some(false)));
}

#[test]
fn own_sessions_come_back_end_and_mean_nothing_with_a_quorum() {
    let (mut ensemble, alone, _) = cut_off(true);
    ensemble.run_ms(3_000);
    let first = ensemble.dial(alone, reading(connect_request(10_000)));
    ensemble.run_ms(100);
    let session = ensemble.clients[&first].response().clone();
    let named = ConnectRequest {
        session: session.session,
        password: session.password,
        ..reading(connect_request(10_000))
    };
    let second = ensemble.dial(alone, named.clone());
    ensemble.run_ms(100);
    assert!(is_closed(&ensemble, first));
    assert!(ensemble.ask(second, exists("/a", false)).is_ok());
    assert_eq!(ensemble.ask(second, Request::CloseSession), Ok(Response::Empty));
    let silent = ensemble.dial(alone, reading(connect_request(4_000)));
    ensemble.run_ms(100);
    assert!(ensemble.clients[&silent].response().timeout_ms == 4_000);
    ensemble.run_ms(4_200);
    assert!(is_closed(&ensemble, silent));
    heal(&mut ensemble, alone);
    let back = ensemble.dial(alone, named);
    ensemble.run_ms(500);
    assert_eq!(ensemble.clients[&back].response().timeout_ms, 0, "it is over");
}

#[test]
fn client_that_has_seen_more_is_not_served_and_a_server_that_may_not_serves_nobody() {
    let (mut ensemble, alone, _) = cut_off(true);
    ensemble.run_ms(3_000);
    let seen = Zxid::new(i64::MAX);
    let ahead = ConnectRequest { last_zxid_seen: seen, ..reading(connect_request(10_000)) };
    let id = ensemble.dial(alone, ahead);
    ensemble.run_ms(6_000);
    assert_eq!(ensemble.clients[&id].got, [Got::Closed]);
    let (mut ensemble, alone, _) = cut_off(false);
    let id = ensemble.dial(alone, reading(connect_request(10_000)));
    ensemble.run_ms(6_000);
    assert_eq!(ensemble.clients[&id].got, [Got::Closed]);
}

#[test]
fn handshake_that_was_sent_to_a_leader_waits_for_the_log() {
    let mut ensemble = Ensemble::with(3, |config| config.read_only_mode = true);
    let leader = ensemble.await_leader();
    let alone = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let deaf = |ensemble: &mut Ensemble, lost: bool| {
        for other in [1, 2, 3].map(member).into_iter().filter(|id| *id != alone) {
            ensemble.lose_silently(other, alone, lost);
        }
    };
    deaf(&mut ensemble, true);
    let sent = ensemble.dial(alone, reading(connect_request(10_000)));
    ensemble.run_ms(50);
    assert_eq!(ensemble.server(leader).state().sessions().len(), 1, "it is in the log");
    ensemble.run_ms(2_950);
    assert!(ensemble.server(alone).status().read_only);
    assert!(ensemble.clients[&sent].got.is_empty());
    // Others are served, of which nothing reaches the log, though what this server says is heard.
    let later = ensemble.dial(alone, reading(connect_request(10_000)));
    ensemble.run_ms(100);
    assert_eq!(ensemble.clients[&later].response().read_only, Some(true));
    deaf(&mut ensemble, false);
    ensemble.run_until("an answer", |e| !e.clients[&sent].got.is_empty());
    assert_eq!(ensemble.clients[&sent].response().read_only, Some(false));
    ensemble.run_ms(1_000);
    assert!(is_closed(&ensemble, later) && !is_closed(&ensemble, sent));
    for id in [1, 2, 3].map(member) {
        assert_eq!(ensemble.server(id).state().sessions().len(), 1);
    }
}

#[test]
fn handshake_that_waited_for_a_leader_gets_a_session_of_the_log_when_there_is_one() {
    let (mut ensemble, alone, _) = cut_off(true);
    let id = ensemble.dial(alone, reading(connect_request(10_000)));
    ensemble.run_ms(300);
    assert!(ensemble.clients[&id].got.is_empty());
    heal(&mut ensemble, alone);
    assert_eq!(ensemble.clients[&id].response().read_only, Some(false));
    assert!(ensemble.ask(id, set_data("/a", "1")).is_ok());
}
