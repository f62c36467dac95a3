//! Containers and TTL nodes: they go by themselves, and not before.

use coordinator_protocol::{
    Acl, CreateMode, CreateRequest, CreateTtlRequest, ErrorCode, EventType, Request, Response,
    Stat, WatcherEvent,
};

use super::ensemble::{Ensemble, Got, member};
use super::{create, delete, exists, set_data};
use crate::ConnectionId;
use crate::server::limits::REMOVED_PER_CHECK_MAX;
use crate::tree::Look;

/// Between two looks of the leader.
const CHECK_MS: u64 = 1_000;

fn served() -> (Ensemble, ConnectionId) {
    let mut ensemble = Ensemble::with(3, |config| config.container_check_ms = CHECK_MS);
    let leader = ensemble.await_leader();
    let home = [1, 2, 3].map(member).into_iter().find(|id| *id != leader).unwrap();
    let id = ensemble.connect(home, 30_000);
    (ensemble, id)
}

fn container(path: &str) -> Request {
    let acl = Acl::open();
    Request::CreateContainer(CreateRequest { path: path.into(), data: None, acl, flags: 4 })
}

fn with_ttl(path: &str, flags: CreateMode, ttl_ms: i64) -> Request {
    let (path, acl, flags) = (path.into(), Acl::open(), flags.code());
    Request::CreateTtl(CreateTtlRequest { path, data: None, acl, flags, ttl_ms })
}

fn created(ensemble: &mut Ensemble, id: ConnectionId, request: Request) -> Stat {
    match ensemble.ask(id, request) {
        Ok(Response::PathStat(_, stat)) => stat,
        other => panic!("{other:?}"),
    }
}

fn is_there(ensemble: &mut Ensemble, id: ConnectionId, path: &str) -> bool {
    ensemble.ask(id, exists(path, false)).is_ok()
}

#[test]
fn container_goes_when_its_last_child_has_gone() {
    let (mut ensemble, id) = served();
    let stat = created(&mut ensemble, id, container("/c"));
    assert!(stat.ephemeral_owner.is_none(), "as ZooKeeper shows it");
    ensemble.run_ms(3 * CHECK_MS);
    assert!(is_there(&mut ensemble, id, "/c"), "it never had a child");
    ensemble.ask(id, create("/c/child", 0)).unwrap();
    ensemble.run_ms(3 * CHECK_MS);
    assert!(is_there(&mut ensemble, id, "/c/child"));
    ensemble.ask(id, delete("/c/child")).unwrap();
    ensemble.ask(id, exists("/c", true)).unwrap();
    ensemble.run_ms(CHECK_MS + 200);
    assert!(!is_there(&mut ensemble, id, "/c"));
    let told = WatcherEvent::new(EventType::NodeDeleted, "/c");
    let got = &ensemble.clients[&id].got;
    assert!(got.iter().any(|got| matches!(got, Got::Notified(_, event) if *event == told)));
}

#[test]
fn ttl_node_goes_when_it_was_not_written_for_its_time_and_has_no_children() {
    let (mut ensemble, id) = served();
    let stat = created(&mut ensemble, id, with_ttl("/t", CreateMode::PersistentTtl, 3_000));
    assert!(stat.ephemeral_owner.is_none());
    let kept = with_ttl("/kept", CreateMode::PersistentTtl, 1_000);
    created(&mut ensemble, id, kept);
    ensemble.ask(id, create("/kept/child", 0)).unwrap();
    ensemble.run_ms(2_000);
    ensemble.ask(id, set_data("/t", "again")).unwrap();
    let written = ensemble.now;
    ensemble.run_ms(2_500);
    assert!(is_there(&mut ensemble, id, "/t"), "it was written");
    let leader = ensemble.leader().unwrap();
    ensemble.run_until("the end of /t", |e| !e.server(leader).state().tree().contains("/t"));
    let took = ensemble.now.since(written);
    assert!((3_000..=3_000 + CHECK_MS + 200).contains(&took), "went after {took} ms");
    assert!(is_there(&mut ensemble, id, "/kept"), "it has a child");
    ensemble.server(leader).state().check();
}

#[test]
fn times_and_modes_that_do_not_fit_are_refused() {
    let (mut ensemble, id) = served();
    let refused = Err(ErrorCode::BadArguments);
    for (mode, ttl_ms) in [
        (CreateMode::PersistentTtl, 0),
        (CreateMode::PersistentTtl, -1),
        (CreateMode::PersistentTtl, 1 << 40),
        (CreateMode::Persistent, 1_000),
        (CreateMode::Ephemeral, 1_000),
    ] {
        assert_eq!(ensemble.ask(id, with_ttl("/x", mode, ttl_ms)), refused, "{mode:?} {ttl_ms}");
    }
    assert_eq!(ensemble.ask(id, create("/x", CreateMode::PersistentTtl.code())), refused);
    let longest = with_ttl("/s", CreateMode::PersistentSequentialTtl, (1 << 40) - 1);
    match ensemble.ask(id, longest) {
        Ok(Response::PathStat(path, _)) => assert_eq!(path, "/s0000000000"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn marks_outlive_a_snapshot() {
    let (mut ensemble, id) = served();
    created(&mut ensemble, id, container("/c"));
    created(&mut ensemble, id, with_ttl("/t", CreateMode::PersistentTtl, 500));
    let leader = ensemble.leader().unwrap();
    let state = ensemble.server(leader).state();
    let again = crate::state::State::decode_snapshot(&state.encode_snapshot()).unwrap();
    again.check();
    let look = Look { count_max: 10, due_max: 10 };
    assert_eq!(again.tree().due_to_go(i64::MAX, None, look).paths, ["/t".into()]);
    assert_eq!(again.tree().ephemeral_count(), 0);
}

#[test]
fn one_look_removes_as_many_as_the_limit_and_the_next_one_the_rest() {
    let (mut ensemble, id) = served();
    let count = REMOVED_PER_CHECK_MAX + 1;
    let leader = ensemble.leader().unwrap();
    let left = |e: &Ensemble| e.server(leader).state().tree().node_count();
    let system = left(&ensemble);
    let began = ensemble.now;
    for number in 0..count {
        // The time of all of them is over at once.
        let ttl_ms = 30_000 - i64::try_from(ensemble.now.since(began)).unwrap();
        ensemble.send(id, with_ttl(&format!("/{number:05}"), CreateMode::PersistentTtl, ttl_ms));
        if number % 500 == 0 {
            ensemble.run_ms(10);
        }
    }
    ensemble.run_until("all of them", |e| left(e) == system + count);
    ensemble.run_until("the first look", |e| left(e) < system + count);
    ensemble.run_ms(CHECK_MS / 2);
    assert_eq!(left(&ensemble), system + 1, "the limit, and then a pause");
    ensemble.run_until("the second look", |e| left(e) == system);
    ensemble.server(leader).state().check();
}
