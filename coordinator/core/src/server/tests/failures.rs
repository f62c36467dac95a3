//! What goes wrong with disks and queues.

use super::ensemble::{Ensemble, Got, connect_request, member};
use super::{create, exists, get_data, set_data};
use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateRequest, ErrorCode, MultiReadOp, PathWatch, Request, RequestHeader,
    SetWatchesRequest, SubscribeRequest, Xid, Zxid,
};

use crate::consensus::{PersistId, Restored};
use crate::server::{
    ANSWER_BYTES_PER_STEP, Config, EARLY_BYTES_MAX, EARLY_REQUESTS_MAX, Effect, Event, Mode,
    PENDING_BYTES_MAX, PENDING_REQUESTS_MAX, READS_BEFORE_WRITE_MAX, STASH_BYTES_MAX, Server,
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
    server.step(
        Event::Connect {
            connection,
            address: String::new(),
            certificate: None,
            request,
            entropy: [7; 24],
        },
        now,
        &mut effects,
    );
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
    let reading = Effect::Reading { connection, on: true };
    assert!(
        matches!(effects.as_slice(), [Effect::Respond { connection: to, .. }, last]
            if *to == connection && *last == reading),
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
    server.step(
        Event::Connect {
            connection,
            address: String::new(),
            certificate: None,
            request,
            entropy: [7; 24],
        },
        now,
        &mut effects,
    );
    let persist_all = |server: &mut Server, effects: &mut Vec<Effect>| {
        while let Some(last) = effects.iter().rev().find_map(|effect| match effect {
            Effect::Persist { id, .. } => Some(*id),
            _ => None,
        }) {
            effects.retain(|effect| matches!(effect, Effect::Reading { .. }));
            server.step(Event::Persisted { id: last }, now, effects);
        }
    };
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Reading { .. })), "too early");
    persist_all(&mut server, &mut effects);
    assert_eq!(effects.last(), Some(&Effect::Reading { connection, on: true }));
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
    let long = ensemble.dial(member(1), connect_request(10_000));
    for _ in 0..2 {
        assert_eq!(ensemble.clients[&long].got, vec![]);
        ensemble.send(long, exists(&format!("/{}", "x".repeat(EARLY_BYTES_MAX / 2)), false));
    }
    assert_eq!(ensemble.clients[&long].got, vec![Got::Closed]);
    let hasty = ensemble.dial(member(1), connect_request(10_000));
    for number in 0..=EARLY_REQUESTS_MAX {
        ensemble.send(hasty, create(&format!("/{number}"), 0));
    }
    assert_eq!(ensemble.clients[&hasty].got, vec![Got::Closed]);
    ensemble.run_ms(50);
    assert!(ensemble.clients[&patient].reply(last.unwrap()).is_some_and(|answer| answer.is_ok()));
}

/// A single server with one open session; everything it wants on disk is there.
pub(super) fn served() -> (Server, ConnectionId, Now) {
    let mut server =
        Server::new(Config::new(member(1), vec![member(1)]), Restored::default()).unwrap();
    let (connection, now) = (ConnectionId::new(1), Now { mono: Millis::new(10), wall_ms: 5 });
    let request = connect_request(10_000);
    run(
        &mut server,
        vec![Event::Connect {
            connection,
            address: String::new(),
            certificate: None,
            request,
            entropy: [7; 24],
        }],
        now,
    );
    (server, connection, now)
}

/// Steps until nothing more comes of it; what each step gave to clients.
pub(super) fn run(server: &mut Server, events: Vec<Event>, now: Now) -> Vec<Vec<Effect>> {
    let (mut steps, mut events) = (Vec::new(), events);
    loop {
        let mut effects = Vec::new();
        server.step_all(events, now, &mut effects);
        server.check();
        events = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Persist { id, .. } => Some(Event::Persisted { id: *id }),
                _ => None,
            })
            .collect();
        steps.push(effects);
        if events.is_empty() {
            if server.next_deadline() != Some(now.mono) {
                return steps;
            }
            events.push(Event::Tick);
        }
        assert!(steps.len() < 100_000, "it does not come to rest");
    }
}

pub(super) fn request(connection: ConnectionId, number: usize, request: Request) -> Event {
    let xid = Xid::new(i32::try_from(number).unwrap());
    let header = RequestHeader { xid, op: request.op() };
    Event::Request { connection, header, request: Ok(request) }
}

fn answered_bytes(effects: &[Effect]) -> usize {
    let frames = effects.iter().map(|effect| match effect {
        Effect::Respond { frame, .. } => frame.len(),
        _ => 0,
    });
    frames.sum()
}

#[test]
fn many_small_requests_with_large_answers_are_answered_over_many_steps() {
    let (mut server, connection, now) = served();
    let data = Bytes::from(vec![b'x'; 600_000]);
    let large = CreateRequest { path: "/a".into(), data: Some(data), acl: Acl::open(), flags: 0 };
    run(&mut server, vec![request(connection, 0, Request::Create(large))], now);
    let reads = |from: usize| -> Vec<Event> {
        (from..from + 50).map(|n| request(connection, n, get_data("/a", false))).collect()
    };
    let steps = run(&mut server, reads(1), now);
    let bytes: Vec<usize> = steps.iter().map(|effects| answered_bytes(effects)).collect();
    assert!(bytes.iter().all(|bytes| *bytes <= ANSWER_BYTES_PER_STEP + 601_000), "{bytes:?}");
    assert!(bytes.iter().sum::<usize>() > 50 * 600_000, "{bytes:?}");

    let mut events = vec![Event::Backlogged { connection, backlogged: true }];
    events.extend(reads(100));
    let steps = run(&mut server, events, now);
    assert_eq!(steps.iter().map(|effects| answered_bytes(effects)).sum::<usize>(), 0, "no room");
    let steps = run(&mut server, vec![Event::Backlogged { connection, backlogged: false }], now);
    let bytes: Vec<usize> = steps.iter().map(|effects| answered_bytes(effects)).collect();
    assert!(bytes.iter().all(|bytes| *bytes <= ANSWER_BYTES_PER_STEP + 601_000), "{bytes:?}");
    assert!(bytes.iter().sum::<usize>() > 50 * 600_000, "{bytes:?}");
}

#[test]
fn reads_that_wait_count_like_writes_that_wait() {
    let (mut server, connection, now) = served();
    let stop = Effect::Reading { connection, on: false };
    let path = format!("/{}", "x".repeat(1 << 20));
    let mut effects = Vec::new();
    let write = request(connection, 1, create("/a", 0));
    server.step(write, now, &mut effects);
    let fit = PENDING_BYTES_MAX >> 20;
    for number in 0..fit {
        assert!(!effects.contains(&stop), "at {number}");
        let watches =
            SetWatchesRequest { exist_watches: vec![path.clone()], ..SetWatchesRequest::default() };
        let event = request(connection, number + 2, Request::SetWatches(watches));
        server.step(event, now, &mut effects);
    }
    assert!(effects.contains(&stop));
}

#[test]
fn watches_that_cannot_be_set_again_end_the_connection() {
    let mut ensemble = Ensemble::new(1);
    ensemble.await_leader();
    let id = ensemble.connect(member(1), 10_000);
    let watches =
        SetWatchesRequest { data_watches: vec!["a".into()], ..SetWatchesRequest::default() };
    ensemble.send(id, Request::SetWatches(watches));
    let got = &ensemble.clients[&id].got[1..];
    let xid = Xid::SET_WATCHES;
    assert!(
        matches!(got, [Got::Reply(at, _, Err(ErrorCode::BadArguments)), Got::Closed]
        if *at == xid),
        "{got:?}"
    );
}

fn create_large(path: &str, bytes: usize) -> Request {
    let data = Some(Bytes::from(vec![b'x'; bytes]));
    Request::Create(CreateRequest { path: path.into(), data, acl: Acl::open(), flags: 0 })
}

#[test]
fn large_reads_between_two_writes_are_answered_over_many_steps() {
    const BYTES: usize = 600_000;
    let (mut server, connection, now) = served();
    run(&mut server, vec![request(connection, 0, create_large("/a", BYTES))], now);
    let read = || MultiReadOp::GetData(PathWatch { path: "/a".into(), watch: false });
    let reads = || Request::MultiRead((0..4).map(|_| read()).collect());
    let mut events = vec![request(connection, 1, create("/b", 0))];
    let last = READS_BEFORE_WRITE_MAX + 2;
    events.extend((2..last).map(|number| request(connection, number, reads())));
    events.push(request(connection, last, create("/c", 0)));
    let steps = run(&mut server, events, now);
    let bytes: Vec<usize> = steps.iter().map(|effects| answered_bytes(effects)).collect();
    let one = 4 * (BYTES + 1_000);
    assert!(bytes.iter().all(|bytes| *bytes <= ANSWER_BYTES_PER_STEP + one), "{bytes:?}");
    assert!(bytes.iter().sum::<usize>() > READS_BEFORE_WRITE_MAX * 4 * BYTES, "{bytes:?}");
    assert!(server.state().tree().contains("/c"), "the write behind them was left behind");
}

#[test]
fn long_lists_between_two_writes_are_answered_over_many_steps() {
    const BYTES: usize = 100_000;
    let (mut server, connection, now) = served();
    run(&mut server, vec![request(connection, 0, create("/p", 0))], now);
    for number in 0..12 {
        let name = format!("/p/{number}{}", "n".repeat(BYTES));
        run(&mut server, vec![request(connection, 1 + number, create(&name, 0))], now);
    }
    let list = || Request::GetChildren(PathWatch { path: "/p".into(), watch: false });
    let mut events = vec![request(connection, 20, create("/b", 0))];
    let last = 21 + READS_BEFORE_WRITE_MAX;
    events.extend((21..last).map(|number| request(connection, number, list())));
    events.push(request(connection, last, create("/c", 0)));
    let steps = run(&mut server, events, now);
    let bytes: Vec<usize> = steps.iter().map(|effects| answered_bytes(effects)).collect();
    let one = 12 * (BYTES + 100);
    assert!(bytes.iter().all(|bytes| *bytes <= ANSWER_BYTES_PER_STEP + one), "{bytes:?}");
    assert!(bytes.iter().sum::<usize>() > READS_BEFORE_WRITE_MAX * 12 * BYTES, "{bytes:?}");
    assert!(server.state().tree().contains("/c"), "the write behind them was left behind");
}

/// A connection with a subscription on `/s` and what stands behind its change there, sent before there
/// is no room any more; what each step gave to clients.
fn crowded(behind: Vec<Request>, large_bytes: usize) -> (Server, ConnectionId, Vec<Effect>) {
    let (mut server, connection, now) = served();
    let subscribe = SubscribeRequest { subscription: 1, path: "/s".into(), from_zxid: Zxid::ZERO };
    for asked in
        [create("/s", 0), create_large("/large", large_bytes), Request::Subscribe(subscribe)]
    {
        run(&mut server, vec![request(connection, 0, asked)], now);
    }
    let all = std::iter::once(set_data("/s", "x")).chain(behind).enumerate();
    let mut events: Vec<Event> =
        all.map(|(number, asked)| request(connection, number + 1, asked)).collect();
    events.push(Event::Backlogged { connection, backlogged: true });
    let effects = run(&mut server, events, now).concat();
    let told = |effect: &Effect| matches!(effect, Effect::Respond { .. } | Effect::Close { .. });
    (server, connection, effects.into_iter().filter(told).collect())
}

#[test]
fn connection_that_reads_nothing_is_closed_when_its_answers_pass_the_limit() {
    let reads = READS_BEFORE_WRITE_MAX;
    // Beside the data, a getData is answered by 92 bytes and a setData by 88.
    let fit = (STASH_BYTES_MAX - 88) / reads - 92;
    let behind = || {
        let mut behind = vec![get_data("/large", false); reads];
        behind.push(create("/c", 0));
        behind
    };
    let (mut server, connection, effects) = crowded(behind(), fit);
    assert_eq!(effects, []);
    let now = Now { mono: Millis::new(10), wall_ms: 5 };
    let steps = run(&mut server, vec![Event::Backlogged { connection, backlogged: false }], now);
    let bytes = answered_bytes(&steps.concat());
    assert!(bytes > reads * (fit + 92), "{bytes} of {reads} times {fit}");
    let (server, connection, effects) = crowded(behind(), fit + 1);
    assert_eq!(effects, [Effect::Close { connection }]);
    assert_eq!(server.status().connections, 0);
}

/// The xids of what was answered, events as `None`, up to the close.
fn answered(effects: &[Effect]) -> Vec<Option<i32>> {
    let (last, before) = effects.split_last().unwrap();
    assert!(matches!(last, Effect::Close { .. }), "{last:?}");
    let xids = before.iter().map(|effect| match effect {
        Effect::Respond { frame, .. } => {
            let xid = i32::from_be_bytes(frame[4..8].try_into().unwrap());
            (xid != Xid::SUBSCRIPTION.get()).then_some(xid)
        }
        other => panic!("{other:?}"),
    });
    xids.collect()
}

#[test]
fn closed_session_is_answered_and_let_go_without_room() {
    let (_, _, effects) = crowded(vec![Request::CloseSession], 0);
    assert_eq!(answered(&effects), [None, Some(1), Some(2)], "{effects:?}");
}

#[test]
fn answer_that_ends_a_connection_leaves_before_it_ends() {
    let watches =
        SetWatchesRequest { data_watches: vec!["a".into()], ..SetWatchesRequest::default() };
    let (_, _, effects) = crowded(vec![Request::SetWatches(watches), create("/c", 0)], 0);
    assert_eq!(answered(&effects), [None, Some(1), Some(2)], "{effects:?}");
}
