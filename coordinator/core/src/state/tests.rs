//! The state machine: one command at a time, answers compared literally.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CheckRequest, CreateRequest, DeleteRequest, ErrorCode, MultiOp, SessionId,
    SessionPassword, SetDataRequest, Stat, Zxid,
};

use super::*;
use crate::ids::ServerId;
use crate::tree::ChangeKind;

const SESSION: SessionId = SessionId::new(0x0100_0000_0000_0001);
const OTHER: SessionId = SessionId::new(0x0200_0000_0000_0001);

fn origin(server: u64, connection: u64) -> Origin {
    Origin { server: ServerId::new(server).expect("in range"), connection }
}

fn password(byte: u8) -> SessionPassword {
    SessionPassword::new(vec![byte; 16])
}

fn create_session(session: SessionId) -> Command {
    let origin = origin(1, session.get() as u64);
    Command::CreateSession { session, password: password(7), timeout_ms: 4000, origin }
}

fn attach(session: SessionId, follows: u64, origin: Origin) -> Command {
    Command::Attach { session, password: password(7), timeout_ms: 6000, follows, origin }
}

fn write(sequence: u64, op: WriteOp) -> Command {
    Command::Write { session: SESSION, generation: 1, sequence, identities: [].into(), op }
}

fn request(path: &str, flags: i32) -> CreateRequest {
    let data = Some(Bytes::from_static(b"x"));
    CreateRequest { path: path.to_owned(), data, acl: Acl::open(), flags }
}

fn create(path: &str, flags: i32) -> TreeOp {
    TreeOp::Create(request(path, flags))
}

fn delete(path: &str) -> TreeOp {
    TreeOp::Delete(DeleteRequest { path: path.to_owned(), version: -1 })
}

fn set(path: &str, version: i32) -> TreeOp {
    TreeOp::SetData(SetDataRequest { path: path.to_owned(), data: None, version })
}

fn check(path: &str, version: i32) -> TreeOp {
    TreeOp::Check(CheckRequest { path: path.to_owned(), version })
}

/// A state with a session, after entry 1, in term 1; the next zxid is 0x1_0000_0002.
fn with_session() -> State {
    let mut state = State::new();
    state.apply(1, 1, &Entry { wall_ms: 1000, commands: vec![create_session(SESSION)] });
    state
}

/// As part of the entry applied last, so that states can be compared before and after.
fn run(state: &mut State, command: Command) -> AppliedCommand {
    state.begun = true;
    let applied = state.apply_command(&command);
    state.begun = false;
    state.check();
    applied
}

fn written(state: &mut State, sequence: u64, op: TreeOp) -> Result<OpResult, ErrorCode> {
    match run(state, write(sequence, WriteOp::Tree(op))).outcome {
        Outcome::Written { result, .. } => result,
        other => panic!("not written: {other:?}"),
    }
}

fn zxid(counter: u32) -> Zxid {
    Zxid::from_parts(1, counter)
}

#[test]
fn entry_answers_each_command_in_order() {
    let commands = vec![
        create_session(SESSION),
        write(1, WriteOp::Tree(create("/a", 0))),
        write(2, WriteOp::Tree(create("/a", 0))),
        write(3, WriteOp::Tree(TreeOp::Create2(request("/a/b", 0)))),
    ];
    let entry = Entry { wall_ms: 5000, commands };
    let mut state = State::new();
    let applied = state.apply(3, 1, &entry);
    let stat = Stat {
        czxid: zxid(3),
        mzxid: zxid(3),
        pzxid: zxid(3),
        ctime_ms: 5000,
        mtime_ms: 5000,
        data_length: 1,
        ..Stat::default()
    };
    let outcome =
        |sequence, result| Outcome::Written { session: SESSION, generation: 1, sequence, result };
    let created = Created {
        session: SESSION,
        origin: origin(1, SESSION.get() as u64),
        generation: 1,
        timeout_ms: 4000,
    };
    let path = "/a/b".into();
    let expected = [
        (zxid(1), Outcome::Created(created), 0),
        (zxid(2), outcome(1, Ok(OpResult::Created { path: "/a".into() })), 1),
        (zxid(2), outcome(2, Err(ErrorCode::NodeExists)), 0),
        (zxid(3), outcome(3, Ok(OpResult::Created2 { path, stat })), 1),
    ];
    let found = applied.commands.iter().map(|applied| {
        assert!(applied.changes.iter().all(|change| change.zxid == applied.zxid));
        (applied.zxid, applied.outcome.clone(), applied.changes.len())
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!((applied.index, state.applied_index(), state.applied_term()), (1, 1, 3));
    assert_eq!(state.last_zxid(), zxid(3));
}

#[test]
fn entry_survives_the_round_trip() {
    let ops = vec![create("/a", 3), delete("/b"), set("/c", 4), check("/d", 5)];
    let commands = vec![
        create_session(SESSION),
        attach(OTHER, 1, origin(254, u64::MAX)),
        write(1, WriteOp::Multi(ops)),
        write(2, WriteOp::SessionOptions { fast_death_grace_ms: Some(200) }),
        write(3, WriteOp::CloseSession),
        Command::Expire { session: SESSION, generation: 9 },
    ];
    let entry = Entry { wall_ms: -1, commands };
    let bytes = entry.encode().expect("small");
    assert_eq!(Entry::decode(&bytes), Ok(entry));
    for index in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[index] ^= 0x20;
        assert!(Entry::decode(&bad).is_err(), "byte {index}");
    }
}

#[test]
fn write_is_applied_once_and_in_the_order_of_its_sequence() {
    let mut state = with_session();
    let expect = |state: &mut State, generation, sequence, why| {
        let op = WriteOp::Tree(create(&format!("/n{sequence}"), 0));
        let before = state.clone();
        let command =
            Command::Write { session: SESSION, generation, sequence, identities: [].into(), op };
        let ignored = Outcome::Ignored { session: SESSION, generation, sequence, why };
        let applied = run(state, command);
        assert_eq!((applied.outcome, applied.changes), (ignored, vec![]));
        assert_eq!(*state, before);
    };
    expect(&mut state, 1, 2, Ignored::OutOfOrder);
    expect(&mut state, 1, 0, Ignored::Duplicate);
    assert!(written(&mut state, 1, create("/a", 0)).is_ok());
    expect(&mut state, 1, 1, Ignored::Duplicate);
    expect(&mut state, 1, 3, Ignored::OutOfOrder);
    expect(&mut state, 1, u64::MAX, Ignored::OutOfOrder);
    expect(&mut state, 2, 2, Ignored::Moved);
    expect(&mut state, 0, 2, Ignored::Moved);
    assert_eq!(written(&mut state, 2, create("/a", 0)), Err(ErrorCode::NodeExists));
    expect(&mut state, 1, 2, Ignored::Duplicate);
    run(&mut state, write(3, WriteOp::CloseSession));
    expect(&mut state, 1, 4, Ignored::NoSession);
}

#[test]
fn repeated_create_is_one_session_and_an_ended_one_stays_ended() {
    let mut state = with_session();
    let before = state.clone();
    let again = run(&mut state, create_session(SESSION));
    assert!(matches!(again.outcome, Outcome::Created(created) if created.generation == 1));
    assert_eq!(state, before);
    let stranger = Command::CreateSession {
        session: SESSION,
        password: password(7),
        timeout_ms: 4000,
        origin: origin(2, 2),
    };
    let refused = |origin, reason| Outcome::Refused { session: SESSION, origin, reason };
    let expected = refused(origin(2, 2), ErrorCode::SessionExpired);
    assert_eq!(run(&mut state, stranger).outcome, expected);
    run(&mut state, Command::Expire { session: SESSION, generation: 1 });
    let expected = refused(origin(1, SESSION.get() as u64), ErrorCode::SessionExpired);
    assert_eq!(run(&mut state, create_session(SESSION)).outcome, expected);
    assert_eq!(state.sessions().len(), 0);
}

#[test]
fn attach_moves_the_session_and_its_writes_count_anew() {
    let mut state = with_session();
    written(&mut state, 1, create("/a", 0)).unwrap();
    let (first, second) = (origin(1, SESSION.get() as u64), origin(2, 5));
    let expected = Attached {
        session: SESSION,
        origin: second,
        previous: first,
        generation: 2,
        timeout_ms: 6000,
    };
    let applied = run(&mut state, attach(SESSION, 1, second));
    assert_eq!((applied.outcome, applied.zxid), (Outcome::Attached(expected), zxid(2)));
    let repeated = run(&mut state, attach(SESSION, 1, second));
    let expected = Attached { previous: second, ..expected };
    assert_eq!(repeated.outcome, Outcome::Attached(expected));
    let reason = ErrorCode::SessionMoved;
    for (follows, origin) in [(0, first), (1, first), (1, origin(3, 9)), (3, origin(3, 9))] {
        let late = run(&mut state, attach(SESSION, follows, origin));
        assert_eq!(late.outcome, Outcome::Refused { session: SESSION, origin, reason });
    }
    let session = state.session(SESSION).unwrap();
    assert_eq!((session.generation, session.sequence, session.origin), (2, 0, second));
    let op = WriteOp::Tree(create("/b", 0));
    let command =
        Command::Write { session: SESSION, generation: 2, sequence: 1, identities: [].into(), op };
    assert!(matches!(run(&mut state, command).outcome, Outcome::Written { result: Ok(_), .. }));
}

#[test]
fn attach_needs_a_live_session_and_its_password() {
    let mut state = with_session();
    let before = state.clone();
    let reason = ErrorCode::SessionExpired;
    let origin = origin(2, 5);
    for wrong in [password(8), SessionPassword::zeros(), SessionPassword::new(vec![])] {
        let command = Command::Attach {
            session: SESSION,
            password: wrong,
            timeout_ms: 4000,
            follows: 1,
            origin,
        };
        let expected = Outcome::Refused { session: SESSION, origin, reason };
        assert_eq!(run(&mut state, command).outcome, expected);
    }
    let expected = Outcome::Refused { session: OTHER, origin, reason };
    assert_eq!(run(&mut state, attach(OTHER, 1, origin)).outcome, expected);
    assert_eq!(state, before);
}

#[test]
fn session_may_move_any_number_of_times() {
    let mut state = with_session();
    for connection in 10..30 {
        let applied = run(&mut state, attach(SESSION, connection - 9, origin(3, connection)));
        assert!(matches!(applied.outcome, Outcome::Attached(_)));
    }
    assert_eq!(state.session(SESSION).unwrap().generation, 21);
}

#[test]
fn expiry_holds_only_for_the_generation_it_names() {
    let mut state = with_session();
    run(&mut state, attach(SESSION, 1, origin(2, 5)));
    let before = state.clone();
    let late = run(&mut state, Command::Expire { session: SESSION, generation: 1 });
    let expected = Outcome::ExpiryRefused { session: SESSION, generation: 1 };
    assert_eq!((late.outcome, &state), (expected, &before));
    let ended = Ended { session: SESSION, origin: origin(2, 5), generation: 2 };
    let applied = run(&mut state, Command::Expire { session: SESSION, generation: 2 });
    assert_eq!((applied.outcome, applied.zxid), (Outcome::Expired(ended), zxid(2)));
    let gone = run(&mut state, Command::Expire { session: SESSION, generation: 2 });
    let expected = Outcome::ExpiryRefused { session: SESSION, generation: 2 };
    assert_eq!((gone.outcome, gone.zxid), (expected, zxid(2)));
}

#[test]
fn close_and_expiry_remove_all_ephemerals_under_one_zxid() {
    for close in [true, false] {
        let mut state = with_session();
        run(&mut state, create_session(OTHER));
        written(&mut state, 1, create("/b", 1)).unwrap();
        written(&mut state, 2, create("/a", 1)).unwrap();
        written(&mut state, 3, create("/p", 0)).unwrap();
        let op = WriteOp::Tree(create("/c", 1));
        run(
            &mut state,
            Command::Write {
                session: OTHER,
                generation: 1,
                sequence: 1,
                identities: [].into(),
                op,
            },
        );
        let applied = run(
            &mut state,
            match close {
                true => write(4, WriteOp::CloseSession),
                false => Command::Expire { session: SESSION, generation: 1 },
            },
        );
        let ended =
            Ended { session: SESSION, origin: origin(1, SESSION.get() as u64), generation: 1 };
        let closed = Outcome::Written {
            session: SESSION,
            generation: 1,
            sequence: 4,
            result: Ok(OpResult::SessionClosed(ended)),
        };
        assert_eq!(applied.outcome, if close { closed } else { Outcome::Expired(ended) });
        let changes = applied.changes.iter();
        let found: Vec<_> =
            changes.map(|change| (&*change.path, change.kind, change.zxid)).collect();
        let gone = ChangeKind::Deleted;
        assert_eq!(found, [("/a", gone, zxid(7)), ("/b", gone, zxid(7))]);
        assert_eq!(applied.zxid, zxid(7));
        assert_eq!(state.tree().get("/").unwrap().stat().pzxid, zxid(7));
        assert!(state.tree().contains("/p") && state.tree().contains("/c"));
    }
}

#[test]
fn multi_is_one_zxid_and_sees_its_own_earlier_operations() {
    let mut state = with_session();
    let ops = vec![
        create("/a", 0),
        create("/a/s-", 2),
        set("/a", 0),
        check("/a", 1),
        delete("/a/s-0000000000"),
    ];
    let applied = run(&mut state, write(1, WriteOp::Multi(ops)));
    let Outcome::Written { result: Ok(OpResult::Multi(MultiOutcome::Done(results))), .. } =
        applied.outcome
    else {
        panic!("not done: {:?}", applied.outcome)
    };
    assert_eq!(results.len(), 5);
    assert_eq!(results[1], OpResult::Created { path: "/a/s-0000000000".into() });
    assert!(matches!(results[3], OpResult::Checked { stat } if stat.version == 1));
    assert_eq!(results[4], OpResult::Deleted);
    assert_eq!(applied.zxid, zxid(2));
    assert_eq!(applied.changes.len(), 4);
    assert!(applied.changes.iter().all(|change| change.zxid == zxid(2)));
    assert_eq!(state.last_zxid(), zxid(2));
}

#[test]
fn failed_multi_changes_nothing_and_lists_a_code_for_each_operation() {
    let mut state = with_session();
    let before = state.tree().clone();
    let ops = vec![create("/a", 0), create("/a/b", 0), check("/a", 7), set("/a", 0), delete("/x")];
    let applied = run(&mut state, write(1, WriteOp::Multi(ops)));
    let codes = vec![
        ErrorCode::Ok,
        ErrorCode::Ok,
        ErrorCode::BadVersion,
        ErrorCode::RuntimeInconsistency,
        ErrorCode::RuntimeInconsistency,
    ];
    let result = Ok(OpResult::Multi(MultiOutcome::Failed(codes)));
    let expected = Outcome::Written { session: SESSION, generation: 1, sequence: 1, result };
    assert_eq!((applied.outcome, applied.zxid), (expected, zxid(1)));
    assert_eq!(applied.changes, []);
    assert_eq!(*state.tree(), before);
    assert_eq!(state.session(SESSION).unwrap().sequence, 1);
}

#[test]
fn multi_creates_containers_and_ttl_nodes() {
    let ttl = coordinator_protocol::CreateTtlRequest {
        path: "/t".into(),
        data: None,
        acl: Acl::open(),
        flags: 5,
        ttl_ms: 1,
    };
    for op in [MultiOp::CreateContainer(request("/c", 4)), MultiOp::CreateTtl(ttl)] {
        let mut state = with_session();
        let result = written(&mut state, 1, TreeOp::from(op));
        assert!(matches!(result, Ok(OpResult::Created2 { .. })), "{result:?}");
        state.check();
    }
}

#[test]
fn session_options_are_kept_over_a_move() {
    let mut state = with_session();
    let on = WriteOp::SessionOptions { fast_death_grace_ms: Some(200) };
    let applied = run(&mut state, write(1, on));
    assert_eq!(applied.zxid, zxid(2));
    run(&mut state, attach(SESSION, 1, origin(2, 5)));
    assert_eq!(state.session(SESSION).unwrap().fast_death_grace_ms, Some(200));
    let op = WriteOp::SessionOptions { fast_death_grace_ms: None };
    run(
        &mut state,
        Command::Write { session: SESSION, generation: 2, sequence: 1, identities: [].into(), op },
    );
    assert_eq!(state.session(SESSION).unwrap().fast_death_grace_ms, None);
}

#[test]
fn higher_term_begins_an_epoch_even_without_a_write() {
    let mut state = with_session();
    assert_eq!(state.last_zxid(), Zxid::new(0x1_0000_0001));
    state.apply(2, 2, &Entry::default());
    assert_eq!(state.last_zxid(), Zxid::new(0x2_0000_0000));
    assert!(written(&mut state, 1, create("/a", 0)).is_ok());
    assert_eq!(state.last_zxid(), Zxid::new(0x2_0000_0001));
}

/// A sync that waits for an index must see all commands of that entry.
#[test]
fn entry_counts_as_applied_only_when_all_its_commands_are() {
    let mut state = with_session();
    state.begin_entry(1, 2, 1000);
    assert_eq!(state.applied_index(), 1);
    state.apply_command(&write(1, WriteOp::Tree(create("/a", 0))));
    assert_eq!(state.applied_index(), 1);
    state.end_entry();
    assert_eq!(state.applied_index(), 2);
}

#[test]
#[should_panic(expected = "entry 2 was not ended")]
fn next_entry_waits_for_the_end_of_the_last() {
    let mut state = with_session();
    state.begin_entry(1, 2, 1000);
    state.begin_entry(1, 3, 1000);
}

#[test]
#[should_panic(expected = "entries are applied one after the other")]
fn entry_out_of_order_is_a_bug() {
    with_session().apply(1, 3, &Entry::default());
}

/// Some of everything.
fn full_state() -> State {
    let mut state = with_session();
    run(&mut state, create_session(OTHER));
    written(&mut state, 1, create("/a", 0)).unwrap();
    written(&mut state, 2, create("/a/e-", 3)).unwrap();
    written(&mut state, 3, set("/a", 0)).unwrap();
    run(&mut state, attach(SESSION, 1, origin(2, 5)));
    run(&mut state, Command::Expire { session: OTHER, generation: 1 });
    state.apply(4, 2, &Entry { wall_ms: 77, commands: vec![] });
    state
}

#[test]
fn snapshot_gives_the_same_state_and_the_same_bytes() {
    for state in [State::new(), full_state()] {
        let bytes = state.encode_snapshot();
        let decoded = State::decode_snapshot(&bytes).expect("own bytes");
        decoded.check();
        assert_eq!(decoded, state);
        assert_eq!(decoded.encode_snapshot(), bytes);
        assert_eq!(decoded.tree().bytes(), state.tree().bytes());
    }
    let mut state = full_state();
    let mut decoded = State::decode_snapshot(&state.encode_snapshot()).expect("own bytes");
    let entry = Entry {
        wall_ms: 99,
        commands: vec![create_session(OTHER), create_session(SessionId::new(3))],
    };
    assert_eq!(decoded.apply(5, 3, &entry), state.apply(5, 3, &entry));
    assert_eq!(decoded, state);
}

#[test]
fn snapshot_of_many_nodes_is_cut_into_chunks() {
    let mut state = with_session();
    let create = |sequence| write(sequence, WriteOp::Tree(create("/n-", 2)));
    let commands = (1..=10_050).map(create).collect();
    state.apply(1, 2, &Entry { wall_ms: 1000, commands });
    let bytes = state.encode_snapshot();
    assert_eq!(State::decode_snapshot(&bytes), Ok(state));
}

#[test]
fn damaged_snapshot_is_refused() {
    let bytes = full_state().encode_snapshot();
    for index in 0..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[index] ^= 0x10;
        assert!(State::decode_snapshot(&bad).is_err(), "byte {index}");
        assert!(State::decode_snapshot(&bytes[..index]).is_err(), "cut at {index}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(State::decode_snapshot(&longer), Err(SnapshotError::Short));
}

#[test]
fn snapshot_that_contradicts_itself_is_refused() {
    let refuse = |spoil: fn(&mut State), what: &'static str| {
        let mut state = full_state();
        spoil(&mut state);
        let found = State::decode_snapshot(&state.encode_snapshot());
        assert_eq!(found, Err(SnapshotError::Contradiction(what)));
    };
    refuse(|state| state.sessions.clear(), "an owner is missing");
    refuse(|state| state.ended.push_back(SESSION), "an ended session lives");
    refuse(|state| state.ended.push_back(OTHER), "a session ended twice");
    let numbers = "a session's numbers contradict each other";
    refuse(|state| state.sessions.values_mut().for_each(|s| s.generation = 0), numbers);
}
