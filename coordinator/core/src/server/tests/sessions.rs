//! Sessions: expiry, moves, fast death.

use coordinator_protocol::{ConnectRequest, ErrorCode, Request, Response, SessionOptionsRequest};

use super::ensemble::{Ensemble, Got, connect_request, member};
use super::{create, exists};
use crate::server::{Event, Notice};
use crate::state::{Command, Origin};
use crate::{ConnectionId, ServerId};

fn follower(ensemble: &Ensemble) -> ServerId {
    let leader = ensemble.leader().unwrap();
    [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap()
}

fn back(ensemble: &Ensemble, id: ConnectionId) -> ConnectRequest {
    let response = ensemble.clients[&id].response();
    ConnectRequest {
        session: response.session,
        password: response.password.clone(),
        timeout_ms: response.timeout_ms,
        ..connect_request(0)
    }
}

fn is_there(ensemble: &Ensemble, path: &str) -> bool {
    ensemble.leader().is_none_or(|leader| has(ensemble, leader, path))
}

fn has(ensemble: &Ensemble, server: ServerId, path: &str) -> bool {
    ensemble.server(server).state().tree().contains(path)
}

#[test]
fn silent_session_expires_not_before_and_at_most_100_ms_after_its_timeout() {
    let mut ensemble = Ensemble::new(3);
    ensemble.await_leader();
    let id = ensemble.connect(follower(&ensemble), 4_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    ensemble.run_ms(1_000);
    ensemble.ask(id, Request::Ping).unwrap();
    let heard = ensemble.now;
    ensemble.run_until("expiry", |e| !is_there(e, "/e"));
    let took = ensemble.now.since(heard);
    assert!((4_000..=4_100).contains(&took), "expired after {took} ms");
    ensemble.run_ms(10);
    assert!(ensemble.clients[&id].is_closed());
}

/// A request that a follower answered in the last moment counts, whatever its report's delay.
#[test]
fn session_never_expires_sooner_than_its_timeout_after_an_answer() {
    for at_leader in [false, true] {
        for silent_ms in (3_910..=4_120).step_by(9) {
            let mut ensemble = Ensemble::new(3);
            let leader = ensemble.await_leader();
            let home = if at_leader { leader } else { follower(&ensemble) };
            let id = ensemble.connect(home, 4_000);
            ensemble.ask(id, create("/e", 1)).unwrap();
            ensemble.ask(id, Request::Ping).unwrap();
            ensemble.run_exactly_ms(silent_ms);
            let asked = ensemble.now;
            let xid = ensemble.send(id, exists("/e", false));
            let answered = ensemble.clients[&id].reply(xid).is_some();
            ensemble.run_until("expiry", |e| !is_there(e, "/e"));
            let took = ensemble.now.since(asked);
            let context = format!("at the leader: {at_leader}, silent for {silent_ms} ms");
            assert!(answered || silent_ms >= 4_000, "refused: {context}");
            assert!(!answered || took >= 4_000, "{took} ms after an answer: {context}");
            assert!(took <= 4_100, "{took} ms after it was heard: {context}");
        }
    }
}

/// The same goes for one that was not read from: what it said meanwhile is not known.
#[test]
fn connection_left_unread_for_its_whole_timeout_is_not_answered_any_more() {
    for (silent_ms, closed) in [(3_999, false), (4_000, true)] {
        let mut ensemble = Ensemble::new(3);
        ensemble.await_leader();
        let home = follower(&ensemble);
        let id = ensemble.connect(home, 4_000);
        ensemble.ask(id, create("/e", 1)).unwrap();
        ensemble.step(home, Event::Backlogged { connection: id, backlogged: true });
        let xid = ensemble.send(id, exists("/e", false));
        ensemble.run_exactly_ms(silent_ms);
        assert!(!ensemble.clients[&id].is_closed(), "too early to tell");
        ensemble.step(home, Event::Backlogged { connection: id, backlogged: false });
        assert_eq!(ensemble.clients[&id].is_closed(), closed, "after {silent_ms} ms");
        assert_eq!(ensemble.clients[&id].reply(xid).is_some(), !closed, "after {silent_ms} ms");
    }
}

#[test]
fn pings_keep_a_session_alive_through_followers_and_failovers() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(follower(&ensemble), 4_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    for round in 0..10 {
        if round == 5 {
            ensemble.crash(leader);
        }
        ensemble.run_ms(1_300);
        ensemble.ask(id, Request::Ping).unwrap();
    }
    assert!(is_there(&ensemble, "/e"));
}

#[test]
fn session_moves_and_its_old_connection_is_closed() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let old = ensemble.connect(leader, 6_000);
    ensemble.ask(old, create("/e", 1)).unwrap();
    let request = back(&ensemble, old);
    let new = ensemble.dial(follower(&ensemble), request);
    ensemble.run_ms(20);
    assert_eq!(ensemble.clients[&new].session(), ensemble.clients[&old].session());
    assert!(ensemble.clients[&old].is_closed());
    assert!(is_there(&ensemble, "/e"));
    assert!(ensemble.ask(new, create("/e2", 1)).is_ok());
}

#[test]
fn wrong_password_and_gone_session_are_answered_with_timeout_zero() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 6_000);
    let mut wrong = back(&ensemble, id);
    wrong.password = coordinator_protocol::SessionPassword::zeros();
    let thief = ensemble.dial(follower(&ensemble), wrong);
    ensemble.run_ms(20);
    assert!(ensemble.clients[&thief].response().is_session_over());
    assert_eq!(ensemble.clients[&thief].got.last(), Some(&Got::Closed));
    assert!(!ensemble.clients[&id].is_closed());
    let request = back(&ensemble, id);
    ensemble.ask(id, Request::CloseSession).unwrap();
    let late = ensemble.dial(leader, request);
    ensemble.run_ms(20);
    assert!(ensemble.clients[&late].response().is_session_over());
}

fn die_fast(ensemble: &mut Ensemble, id: ConnectionId) {
    let options = SessionOptionsRequest { fast_death_grace_ms: 200 };
    assert_eq!(ensemble.ask(id, Request::SessionOptions(options)), Ok(Response::Empty));
    ensemble.ask(id, create("/e", 1)).unwrap();
}

#[test]
fn lost_socket_ends_a_session_that_chose_so_after_its_grace() {
    let mut ensemble = Ensemble::new(3);
    ensemble.await_leader();
    let id = ensemble.connect(follower(&ensemble), 6_000);
    die_fast(&mut ensemble, id);
    let lost = ensemble.now;
    ensemble.hang_up(id, true);
    ensemble.run_until("fast death", |e| !is_there(e, "/e"));
    let took = ensemble.now.since(lost);
    assert!((200..=260).contains(&took), "died after {took} ms");
}

#[test]
fn session_that_chose_not_to_die_fast_just_before_its_socket_was_lost_lives() {
    for at_leader in [false, true] {
        let mut ensemble = Ensemble::new(3);
        let leader = ensemble.await_leader();
        let place = if at_leader { leader } else { follower(&ensemble) };
        let id = ensemble.connect(place, 6_000);
        die_fast(&mut ensemble, id);
        let options = SessionOptionsRequest { fast_death_grace_ms: -1 };
        ensemble.send(id, Request::SessionOptions(options));
        ensemble.run_ms(1);
        ensemble.hang_up(id, true);
        ensemble.run_ms(5_000);
        assert!(is_there(&ensemble, "/e"), "at the leader: {at_leader}");
        ensemble.run_until("its time-out", |e| !is_there(e, "/e"));
    }
}

#[test]
fn repeated_attach_in_the_log_does_not_bring_a_lost_session_back() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let old = ensemble.connect(follower(&ensemble), 6_000);
    die_fast(&mut ensemble, old);
    let request = back(&ensemble, old);
    let (session, password) = (request.session, request.password.clone());
    let id = ensemble.dial(leader, request);
    ensemble.run_ms(20);
    let origin = ensemble.server(leader).state().session(session).unwrap().origin;
    let lost = ensemble.now;
    ensemble.hang_up(id, true);
    ensemble.run_ms(100);
    let attach = Command::Attach { session, password, timeout_ms: 6_000, follows: 1, origin };
    let term = ensemble.server(leader).status().term;
    ensemble.server_mut(leader).proposals.push(term, leader, attach);
    ensemble.run_until("fast death", |e| !is_there(e, "/e"));
    let took = ensemble.now.since(lost);
    assert!((200..=260).contains(&took), "died after {took} ms");
}

#[test]
fn attach_that_comes_late_does_not_take_the_session_from_where_the_client_went() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let first = ensemble.connect(leader, 6_000);
    die_fast(&mut ensemble, first);
    let (session, request) = (ensemble.clients[&first].session(), back(&ensemble, first));
    let password = request.password.clone();
    ensemble.hang_up(first, true);
    // The follower's attach is lost on its way, and its client gives up.
    let slow = follower(&ensemble);
    ensemble.cut_peers(slow, leader, false);
    let given_up = ensemble.dial(slow, request.clone());
    ensemble.run_ms(20);
    ensemble.hang_up(given_up, true);
    let id = ensemble.dial(leader, request);
    ensemble.run_ms(20);
    assert_eq!(ensemble.clients[&id].session(), session);
    ensemble.connect_peers(slow, leader);
    ensemble.run_ms(20);
    // Now it arrives after all.
    let origin = Origin { server: slow, connection: given_up.get() };
    let attach = Command::Attach { session, password, timeout_ms: 6_000, follows: 1, origin };
    let term = ensemble.server(leader).status().term;
    ensemble.server_mut(leader).proposals.push(term, slow, attach);
    ensemble.run_ms(1_000);
    assert!(!ensemble.clients[&id].is_closed());
    assert!(is_there(&ensemble, "/e"), "its loss counted as the client's");
    assert!(ensemble.ask(id, exists("/e", false)).is_ok());
}

#[test]
fn attach_by_a_server_that_lags_is_tried_again() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let first = ensemble.connect(leader, 6_000);
    let request = back(&ensemble, first);
    let (slow, other) = {
        let mut others = [1, 2, 3].map(member).into_iter().filter(|id| *id != leader);
        (others.next().unwrap(), others.next().unwrap())
    };
    ensemble.run_ms(200);
    // It does not hear of the move, and its own attach waits for the streams.
    ensemble.cut_peers(slow, leader, true);
    ensemble.cut_peers(slow, other, true);
    let second = ensemble.dial(other, request.clone());
    ensemble.run_ms(20);
    assert!(ensemble.clients[&first].is_closed());
    let third = ensemble.dial(slow, request);
    ensemble.connect_peers(slow, leader);
    ensemble.connect_peers(slow, other);
    ensemble.run_ms(400);
    assert!(ensemble.clients[&second].is_closed());
    assert!(ensemble.ask(third, create("/third", 0)).is_ok());
}

#[test]
fn come_back_within_the_grace_keeps_the_session() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(follower(&ensemble), 6_000);
    die_fast(&mut ensemble, id);
    ensemble.hang_up(id, true);
    ensemble.run_ms(100);
    let request = back(&ensemble, id);
    let new = ensemble.dial(leader, request);
    ensemble.run_ms(1_000);
    assert!(is_there(&ensemble, "/e"));
    assert!(ensemble.ask(new, exists("/e", false)).is_ok());
}

#[test]
fn socket_closed_from_this_side_never_counts() {
    let mut ensemble = Ensemble::new(3);
    ensemble.await_leader();
    let id = ensemble.connect(follower(&ensemble), 6_000);
    die_fast(&mut ensemble, id);
    ensemble.hang_up(id, false);
    ensemble.run_ms(2_000);
    assert!(is_there(&ensemble, "/e"));
    ensemble.run_ms(4_200);
    assert!(!is_there(&ensemble, "/e"), "the time-out still counts");
}

#[test]
fn grace_is_counted_anew_by_a_new_leader_wherever_the_socket_was() {
    for place in 0..2 {
        let mut ensemble = Ensemble::new(3);
        let leader = ensemble.await_leader();
        let followers: Vec<ServerId> =
            [1, 2, 3].map(member).into_iter().filter(|id| *id != leader).collect();
        let id = ensemble.connect(followers[place], 6_000);
        die_fast(&mut ensemble, id);
        ensemble.hang_up(id, true);
        ensemble.run_ms(150);
        ensemble.crash(leader);
        ensemble.run_ms(5);
        let new = ensemble.await_leader();
        assert_ne!(new, leader);
        let elected = ensemble.now;
        ensemble.run_until("fast death", |e| !is_there(e, "/e"));
        let took = ensemble.now.since(elected);
        assert!((190..=260).contains(&took), "died {took} ms after the election");
    }
}

#[test]
fn stall_of_the_leader_expires_nobody() {
    let mut ensemble = Ensemble::new(1);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 4_000);
    ensemble.ask(id, create("/e", 1)).unwrap();
    ensemble.freeze(leader, true);
    ensemble.now = ensemble.now.plus_ms(30_000);
    ensemble.freeze(leader, false);
    ensemble.run_ms(2_000);
    assert!(is_there(&ensemble, "/e"));
    ensemble.run_ms(2_500);
    assert!(!is_there(&ensemble, "/e"));
}

#[test]
fn client_with_a_session_of_another_server_cannot_write_by_its_old_connection() {
    let mut ensemble = Ensemble::new(3);
    let leader = ensemble.await_leader();
    let old = ensemble.connect(follower(&ensemble), 6_000);
    let request = back(&ensemble, old);
    let new = ensemble.dial(leader, request);
    let xid = ensemble.send(old, create("/late", 0));
    ensemble.run_ms(30);
    assert!(ensemble.clients[&old].is_closed());
    assert_eq!(ensemble.clients[&old].reply(xid), None);
    assert_eq!(ensemble.ask(new, exists("/late", false)), Err(ErrorCode::NoNode));
}

#[test]
fn client_has_as_many_sessions_as_it_may_and_one_more_when_one_ends() {
    let mut ensemble = Ensemble::with(3, |config| config.sessions_per_client_max = 3);
    let leader = ensemble.await_leader();
    let other = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let mut sessions: Vec<_> = (0..3).map(|_| ensemble.connect(other, 4_000)).collect();
    let refuse = |ensemble: &mut Ensemble| {
        let id = ensemble.dial(other, connect_request(4_000));
        ensemble.run_until("the end", |e| e.clients[&id].is_closed());
        assert_eq!(ensemble.clients[&id].got, [Got::Closed], "without a word");
    };
    refuse(&mut ensemble);
    assert_eq!(ensemble.server(other).measures().refused_sessions, 1);
    let noticed = ensemble.server_mut(other).take_notices();
    assert!(matches!(noticed[0].notice, Notice::SessionRefused { limit: 3, .. }), "{noticed:?}");
    // Elsewhere it has a count of its own, and a session that moves is none more.
    ensemble.connect(leader, 4_000);
    let last = sessions.pop().unwrap();
    ensemble.ask(last, Request::CloseSession).unwrap();
    sessions.push(ensemble.connect(other, 4_000));
    refuse(&mut ensemble);
    // What is over by time makes room too.
    ensemble.run_until("expiry", |e| e.server(other).status().sessions == 0);
    ensemble.connect(other, 4_000);
    ensemble.server(other).check();
}

#[test]
fn session_that_never_came_to_life_does_not_count() {
    let mut ensemble = Ensemble::with(3, |config| config.sessions_per_client_max = 1);
    let leader = ensemble.await_leader();
    let alone = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    for peer in [1, 2, 3].map(member).into_iter().filter(|id| *id != alone) {
        ensemble.cut_peers(alone, peer, false);
    }
    let id = ensemble.dial(alone, connect_request(4_000));
    ensemble.run_until("the end", |e| e.clients[&id].is_closed());
    for peer in [1, 2, 3].map(member).into_iter().filter(|id| *id != alone) {
        ensemble.connect_peers(alone, peer);
    }
    ensemble.run_ms(3_000);
    assert_eq!(ensemble.server(alone).status().sessions, 0);
    ensemble.connect(alone, 4_000);
}
