//! What a coordinator that takes over knows.

use client_protocol::ErrorCode;

use super::*;

#[test]
fn members_go_on_with_a_coordinator_that_takes_over() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    bench.sync(1, &second, &[]);
    bench.sync(1, &first, &[(&first, "a"), (&second, "b")]);
    bench.commit();
    let mut later = bench.reload(Settings::default());
    assert_eq!(later.heartbeat(1, &first), ErrorCode::None);
    let ticket = later.sync(1, &second, &[]);
    assert_eq!(later.synced(ticket).assignment, "b");
    // Sessions begin in full.
    later.pass(9_999);
    assert_eq!(later.heartbeat(1, &first), ErrorCode::None);
    later.pass(1);
    assert_eq!(later.heartbeat(1, &second), ErrorCode::UnknownMemberId);
    let ticket = later.join(Client { member: &first, ..Client::default() });
    assert_eq!(later.joined(ticket).generation_id, 2, "generations go on where they were");
}

#[test]
fn a_generation_that_never_got_its_work_is_not_known_later() {
    let mut bench = Bench::new();
    let id = bench.alone();
    let newcomer = bench.join(Client::default());
    let rejoining = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.joined(rejoining).generation_id, 2);
    let newcomer = bench.joined(newcomer).member_id;
    let mut later = bench.reload(Settings::default());
    assert_eq!(later.heartbeat(2, &id), ErrorCode::IllegalGeneration);
    assert_eq!(later.heartbeat(2, &newcomer), ErrorCode::UnknownMemberId);
    assert_eq!(later.heartbeat(1, &id), ErrorCode::None);
}

#[test]
fn an_emptied_group_stays_empty() {
    let mut bench = Bench::new();
    let _id = bench.alone();
    bench.pass(10_000);
    bench.commit();
    let mut later = bench.reload(Settings::default());
    let ticket = later.ask(Request::Describe(GROUP.to_owned()));
    let Some(Response::Describe(group)) = later.answer(ticket) else { panic!("no description") };
    assert_eq!(group.group_state, "Empty");
    let ticket = later.join(Client::default());
    later.pass(300);
    assert_eq!(later.joined(ticket).generation_id, 3, "the empty generation was the second");
}
