//! setWatches of many paths, in parts.

use coordinator_protocol::{ErrorCode, Request, SetWatchesRequest};

use super::ensemble::{Ensemble, connect_request};
use super::failures::{request, run, served};
use super::{create, exists, get_data, set_data};
use crate::server::{
    Effect, Event, Notice, PENDING_BYTES_ALL_MAX, SET_WATCHES_AT_ONCE_MAX,
    SET_WATCHES_BYTES_PER_COUNT, SET_WATCHES_PER_STEP_MAX, Server,
};
use crate::{ConnectionId, Now};

fn paths(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("/none-{number}")).collect()
}

fn exist_watches(exist_watches: Vec<String>) -> Request {
    Request::SetWatches(SetWatchesRequest { exist_watches, ..SetWatchesRequest::default() })
}

/// Watches that each step adds, until nothing more comes.
fn added(server: &mut Server, mut events: Vec<Event>, now: Now) -> Vec<usize> {
    let mut counts = Vec::new();
    loop {
        let before = server.status().watches;
        server.step_all(events, now, &mut Vec::new());
        server.check();
        counts.push(server.status().watches - before);
        if server.next_deadline() != Some(now.mono) {
            return counts;
        }
        events = vec![Event::Tick];
    }
}

/// The xids of what a connection is sent, in order.
fn xids(effects: &[Effect], to: ConnectionId) -> Vec<i32> {
    let frames = effects.iter().filter_map(|effect| match effect {
        Effect::Respond { connection, frame } if *connection == to => Some(frame),
        _ => None,
    });
    frames.map(|frame| i32::from_be_bytes(frame[4..8].try_into().unwrap())).collect()
}

fn join(server: &mut Server, number: u64, now: Now) -> ConnectionId {
    let connection = ConnectionId::new(number);
    let event = Event::Connect {
        connection,
        address: String::new(),
        certificate: None,
        request: connect_request(10_000),
        entropy: [u8::try_from(number).unwrap(); 24],
    };
    run(server, vec![event], now);
    connection
}

#[test]
fn one_step_sets_as_many_watches_as_the_limit() {
    let set = |count| {
        let (mut server, connection, now) = served();
        let event = request(connection, 1, exist_watches(paths(count)));
        added(&mut server, vec![event], now)
    };
    assert_eq!(set(SET_WATCHES_AT_ONCE_MAX), [SET_WATCHES_AT_ONCE_MAX]);
    assert_eq!(set(SET_WATCHES_PER_STEP_MAX), [SET_WATCHES_PER_STEP_MAX]);
    assert_eq!(set(SET_WATCHES_PER_STEP_MAX + 1), [SET_WATCHES_PER_STEP_MAX, 1]);
}

#[test]
fn long_paths_count_by_their_bytes() {
    let (mut server, connection, now) = served();
    let long = "x".repeat(9 * SET_WATCHES_BYTES_PER_COUNT);
    let fit = SET_WATCHES_PER_STEP_MAX / 10;
    let long = (0..=fit).map(|number| format!("/{number}-{long}")).collect();
    let event = request(connection, 1, exist_watches(long));
    assert_eq!(added(&mut server, vec![event], now), [fit, 1]);
}

#[test]
fn small_requests_are_not_parted() {
    let (mut server, first, now) = served();
    let second = join(&mut server, 2, now);
    let events = vec![
        request(first, 1, exist_watches(paths(SET_WATCHES_PER_STEP_MAX + 1))),
        request(second, 1, exist_watches(paths(SET_WATCHES_AT_ONCE_MAX))),
    ];
    let at_once = SET_WATCHES_PER_STEP_MAX + SET_WATCHES_AT_ONCE_MAX;
    assert_eq!(added(&mut server, events, now), [at_once, 1]);
}

#[test]
fn connections_share_a_step_and_take_turns() {
    let (mut server, first, now) = served();
    let second = join(&mut server, 2, now);
    let all = 2 * SET_WATCHES_PER_STEP_MAX;
    let events = [first, second].map(|id| request(id, 1, exist_watches(paths(all))));
    let mut answered = Vec::new();
    let steps = run(&mut server, events.into(), now);
    for (number, effects) in steps.iter().enumerate() {
        for id in [first, second] {
            answered.extend(xids(effects, id).iter().map(|_| (number, id)));
        }
    }
    assert_eq!(answered, [(2, first), (3, second)]);
    assert_eq!(server.status().watches, 2 * all);
}

#[test]
fn others_are_served_between_parts_and_what_stands_behind_waits() {
    let (mut server, id, now) = served();
    let other = join(&mut server, 2, now);
    for path in ["/a", "/z"] {
        run(&mut server, vec![request(other, 1, create(path, 0))], now);
    }
    let seen = server.status().zxid;
    let first = paths(SET_WATCHES_PER_STEP_MAX - 1);
    let exist_watches = [first, vec!["/z".to_owned()]].concat();
    let watches = SetWatchesRequest {
        relative_zxid: seen,
        data_watches: vec!["/a".to_owned()],
        exist_watches,
        ..SetWatchesRequest::default()
    };
    let events = vec![
        request(id, 11, Request::SetWatches(watches)),
        request(id, 12, get_data("/a", false)),
        request(id, 13, create("/none-0", 0)),
    ];
    let mut effects = Vec::new();
    server.step_all(events, now, &mut effects);
    assert_eq!(server.status().watches, SET_WATCHES_PER_STEP_MAX);
    assert_eq!(xids(&effects, id), [0; 0]);
    // What it set fires, and others read, before the rest is set.
    let steps = run(
        &mut server,
        vec![request(other, 2, get_data("/a", false)), request(other, 3, set_data("/a", "1"))],
        now,
    );
    assert_eq!(xids(&steps[0], other), [2]);
    let all = steps.concat();
    assert_eq!(xids(&all, other), [2, 3]);
    let told = xids(&all, id);
    let answers: Vec<i32> = told.iter().copied().filter(|xid| *xid != -1).collect();
    assert_eq!(answers, [11, 12, 13], "{told:?}");
    assert_eq!(told.iter().position(|xid| *xid == 11), Some(1), "/z was told before: {told:?}");
    let events = told.iter().filter(|xid| **xid == -1).count();
    assert_eq!(events, 3, "/z, /a and /none-0: {told:?}");
}

#[test]
fn who_reads_nothing_between_parts_is_told_no_more() {
    let (mut server, connection, now) = served();
    let event = request(connection, 1, exist_watches(paths(3 * SET_WATCHES_PER_STEP_MAX)));
    server.step_all(vec![event], now, &mut Vec::new());
    run(&mut server, vec![Event::Backlogged { connection, backlogged: true }], now);
    assert_eq!(server.status().watches, SET_WATCHES_PER_STEP_MAX);
    let events = vec![Event::Backlogged { connection, backlogged: false }];
    assert_eq!(xids(&run(&mut server, events, now).concat(), connection), [1]);
    assert_eq!(server.status().watches, 3 * SET_WATCHES_PER_STEP_MAX);
}

#[test]
fn path_that_is_refused_in_a_later_part_ends_the_connection_and_its_watches() {
    let (mut server, connection, now) = served();
    let mut named = paths(SET_WATCHES_PER_STEP_MAX);
    named.push("/a//b".to_owned());
    let events = vec![request(connection, 1, exist_watches(named))];
    let effects = run(&mut server, events, now).concat();
    assert_eq!(xids(&effects, connection), [1]);
    assert!(effects.contains(&Effect::Close { connection }));
    assert_eq!(server.status().watches, 0);
}

#[test]
fn connection_that_goes_between_parts_leaves_nothing() {
    let (mut server, connection, now) = served();
    let event = request(connection, 1, exist_watches(paths(3 * SET_WATCHES_PER_STEP_MAX)));
    server.step_all(vec![event], now, &mut Vec::new());
    let events = vec![Event::Disconnected { connection, by_peer: true }];
    assert_eq!(xids(&run(&mut server, events, now).concat(), connection), [0; 0]);
    assert_eq!(server.status().watches, 0);
}

#[test]
fn watch_over_the_limit_is_refused_and_the_session_goes_on() {
    let mut ensemble = Ensemble::with(1, |config| config.watch_limits.per_connection = 2);
    let leader = ensemble.await_leader();
    let id = ensemble.connect(leader, 10_000);
    ensemble.ask(id, create("/a", 0)).unwrap();
    ensemble.ask(id, get_data("/a", true)).unwrap();
    assert_eq!(ensemble.ask(id, exists("/none", true)), Err(ErrorCode::NoNode));
    for refused in [get_data("/", true), exists("/b", true)] {
        assert_eq!(ensemble.ask(id, refused), Err(ErrorCode::QuotaExceeded));
    }
    assert!(ensemble.ask(id, get_data("/", false)).is_ok());
    let server = ensemble.server_mut(leader);
    assert_eq!((server.status().watches, server.measures().refused_watches), (2, 2));
    let noticed = server.take_notices();
    let is_it =
        |notice: &Notice| matches!(notice, Notice::WatchesRefused { watches: 2, all: 2, .. });
    assert!(noticed.len() == 1 && is_it(&noticed[0].notice), "{noticed:?}");
    // Clients do not look at this answer, and would wait for ever.
    let other = ensemble.connect(leader, 10_000);
    ensemble.send(other, exist_watches(paths(3)));
    ensemble.run_until("the end", |e| e.clients[&other].is_closed());
    assert!(!ensemble.clients[&id].is_closed());
    assert_eq!(ensemble.server(leader).measures().refused_watches, 3);
}

#[test]
fn large_sets_of_watches_that_all_have_no_room_to_wait_end_their_connections() {
    let (mut server, _, now) = served();
    let large = |from: usize| {
        let path = |number: usize| format!("/{number}-{}", "x".repeat(1 << 20));
        exist_watches((0..17).map(|number| path(17 * from + number)).collect())
    };
    let clients: Vec<ConnectionId> =
        (10..27).map(|number| join(&mut server, number, now)).collect();
    let events: Vec<Event> =
        clients.iter().enumerate().map(|(at, id)| request(*id, 1, large(at))).collect();
    let mut effects = Vec::new();
    server.step_all(events, now, &mut effects);
    let is_closed = |id: &&ConnectionId| effects.contains(&Effect::Close { connection: **id });
    let closed: Vec<_> = clients.iter().filter(is_closed).collect();
    assert!(server.measures().outstanding_bytes < PENDING_BYTES_ALL_MAX + (18 << 20));
    assert_eq!(closed, [clients.last().unwrap()]);
    // There is room again when others are done, or gone.
    let gone = clients.iter().map(|id| Event::Disconnected { connection: *id, by_peer: true });
    run(&mut server, gone.collect(), now);
    assert_eq!(server.measures().outstanding_bytes, 0);
    let again = join(&mut server, 30, now);
    effects.clear();
    server.step_all(vec![request(again, 1, large(16))], now, &mut effects);
    assert!(!effects.contains(&Effect::Close { connection: again }));
    assert!(server.measures().outstanding_bytes > 17 << 20);
}
