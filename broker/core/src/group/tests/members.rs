//! Who is a member, and how a generation comes about.

use client_protocol::ErrorCode;
use client_protocol::messages::LeaveGroupRequest;
use client_protocol::messages::leave_group::MemberIdentity;

use super::*;
use crate::group::settings::{GROUP_METADATA_BYTES_MAX, MEMBER_BYTES_MAX, MEMBER_ENTRY_BYTES};

fn leave(bench: &mut Bench, member: &str, instance: Option<&str>) -> ErrorCode {
    let who = MemberIdentity {
        member_id: member.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        reason: None,
    };
    let request =
        LeaveGroupRequest { group_id: GROUP.to_owned(), members: vec![who], ..Default::default() };
    let ticket = bench.ask(Request::Leave(request));
    match bench.answer(ticket) {
        Some(Response::Leave(response)) => response.members[0].error_code,
        other => panic!("not an answer to a LeaveGroup: {other:?}"),
    }
}

#[test]
fn a_single_member_starts_after_the_initial_delay() {
    let mut bench = Bench::new();
    let ticket = bench.join(Client::default());
    bench.pass(299);
    assert_eq!(bench.answer(ticket), None);
    bench.pass(1);
    let joined = bench.joined(ticket);
    assert_eq!((joined.generation_id, joined.members.len()), (1, 1));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
}

#[test]
fn members_that_come_together_are_one_generation() {
    let mut bench = Bench::new();
    let mut tickets = Vec::new();
    for _ in 0..5 {
        tickets.push(bench.join(Client::default()));
        bench.pass(200);
    }
    bench.pass(600);
    let joined: Vec<_> = tickets.into_iter().map(|ticket| bench.joined(ticket)).collect();
    assert!(joined.iter().all(|one| one.generation_id == 1 && one.leader == joined[0].member_id));
    assert_eq!(joined[0].members.len(), 5);
    assert!(joined[1..].iter().all(|one| one.members.is_empty()), "only the leader hears of all");
}

#[test]
fn a_new_member_comes_back_with_its_id() {
    let mut bench = Bench::new();
    let asking = Client { member_id_required: true, ..Client::default() };
    let ticket = bench.join(asking);
    let told = bench.joined(ticket);
    assert_eq!(told.error_code, ErrorCode::MemberIdRequired);
    assert!(told.member_id.starts_with("client-"));
    let ticket = bench.join(Client { member: &told.member_id, ..asking });
    bench.pass(300);
    assert_eq!(bench.joined(ticket).member_id, told.member_id);
    // An id that was given out holds up the next generation until it is used or too old.
    let ticket = bench.join(asking);
    let unused = bench.joined(ticket);
    let rejoining =
        bench.join(Client { member: &told.member_id, protocols: &[("range", "x")], ..asking });
    assert_eq!(bench.answer(rejoining), None);
    bench.pass(10_000);
    assert_eq!(bench.joined(rejoining).generation_id, 2);
    let ticket = bench.join(Client { member: &unused.member_id, ..asking });
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn leaving_with_an_id_that_was_only_given_out_moves_nobody() {
    let mut bench = Bench::new();
    let id = bench.alone();
    let asking = Client { member_id_required: true, ..Client::default() };
    let ticket = bench.join(asking);
    let unused = bench.joined(ticket).member_id;
    assert_eq!(leave(&mut bench, &unused, None), ErrorCode::None);
    assert_eq!(bench.heartbeat(1, &id), ErrorCode::None);
    // It no longer holds up a generation that waits for it.
    let ticket = bench.join(asking);
    let unused = bench.joined(ticket).member_id;
    let rejoining = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.answer(rejoining), None);
    assert_eq!(leave(&mut bench, &unused, None), ErrorCode::None);
    assert_eq!(bench.joined(rejoining).generation_id, 2);
    assert_eq!(leave(&mut bench, &unused, None), ErrorCode::UnknownMemberId);
}

#[test]
fn work_is_handed_out_once_the_log_has_it() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    let follower = bench.sync(1, &second, &[]);
    let leader = bench.sync(1, &first, &[(&first, "a"), (&second, "b")]);
    assert_eq!((bench.answer(leader), bench.answer(follower)), (None, None));
    assert_eq!(bench.heartbeat(1, &second), ErrorCode::None, "right after joining");
    bench.commit();
    assert_eq!(bench.synced(leader).assignment, "a");
    assert_eq!(bench.synced(follower).assignment, "b");
    // Whoever asks again gets the same.
    let again = bench.sync(1, &second, &[]);
    assert_eq!(bench.synced(again).assignment, "b");
    for (generation, member, expected) in [
        (0, second.as_str(), ErrorCode::IllegalGeneration),
        (1, "other", ErrorCode::UnknownMemberId),
    ] {
        let ticket = bench.sync(generation, member, &[]);
        assert_eq!(bench.synced(ticket).error_code, expected);
        assert_eq!(bench.heartbeat(generation, member), expected);
    }
}

#[test]
fn work_that_the_log_refuses_starts_over() {
    let mut bench = Bench::new();
    let ticket = bench.join(Client::default());
    bench.pass(300);
    let id = bench.joined(ticket).member_id;
    let ticket = bench.sync(1, &id, &[(&id, "a")]);
    let (write, _) = bench.writes.remove(0);
    bench.settle(write, Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(bench.synced(ticket).error_code, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.heartbeat(1, &id), ErrorCode::RebalanceInProgress);
    let ticket = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.joined(ticket).generation_id, 2);
}

#[test]
fn work_of_a_generation_that_ended_meanwhile_is_handed_to_nobody() {
    let mut bench = Bench::new();
    let ticket = bench.join(Client::default());
    bench.pass(300);
    let id = bench.joined(ticket).member_id;
    let syncing = bench.sync(1, &id, &[(&id, "all")]);
    let newcomer = bench.join(Client::default());
    assert_eq!(bench.synced(syncing).error_code, ErrorCode::RebalanceInProgress);
    bench.commit();
    let rejoining = bench.join(Client { member: &id, ..Client::default() });
    let generation = bench.joined(rejoining).generation_id;
    assert_eq!((generation, bench.joined(newcomer).generation_id), (2, 2));
    let ticket = bench.sync(1, &id, &[]);
    assert_eq!(bench.synced(ticket).error_code, ErrorCode::IllegalGeneration);
}

#[test]
fn silence_takes_a_member_out_and_the_others_share_its_work() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    bench.sync(1, &second, &[]);
    bench.sync(1, &first, &[]);
    bench.commit();
    bench.pass(9_999);
    assert_eq!(bench.heartbeat(1, &second), ErrorCode::None);
    bench.pass(1);
    assert_eq!(bench.heartbeat(1, &second), ErrorCode::RebalanceInProgress);
    assert_eq!(bench.heartbeat(1, &first), ErrorCode::UnknownMemberId);
    let ticket = bench.join(Client { member: &second, ..Client::default() });
    let joined = bench.joined(ticket);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(joined.leader, second);
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    bench.sync(1, &second, &[]);
    bench.sync(1, &first, &[]);
    bench.commit();
    let newcomer = bench.join(Client::default());
    let rejoining = bench.join(Client { member: &first, ..Client::default() });
    for _ in 0..6 {
        // It lives, but does not join.
        bench.pass(9_000);
        assert_eq!(bench.heartbeat(1, &second), ErrorCode::RebalanceInProgress);
    }
    bench.pass(6_000);
    assert_eq!(bench.joined(rejoining).members.len(), 2);
    assert_eq!(bench.joined(newcomer).generation_id, 2);
    assert_eq!(bench.heartbeat(1, &second), ErrorCode::UnknownMemberId);
}

#[test]
fn who_asks_for_no_work_holds_nobody_up_for_ever() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    let waiting = bench.sync(1, &second, &[]);
    for _ in 0..6 {
        bench.pass(9_000);
        assert_eq!(bench.heartbeat(1, &first), ErrorCode::None);
    }
    bench.pass(6_000);
    assert_eq!(bench.synced(waiting).error_code, ErrorCode::RebalanceInProgress);
    assert_eq!(bench.heartbeat(1, &first), ErrorCode::UnknownMemberId);
}

#[test]
fn leaving_is_at_once() {
    let mut bench = Bench::new();
    assert_eq!(leave(&mut bench, "other", None), ErrorCode::UnknownMemberId);
    let id = bench.alone();
    assert_eq!(leave(&mut bench, &id, Some("static")), ErrorCode::UnknownMemberId);
    assert_eq!(leave(&mut bench, &id, None), ErrorCode::None);
    assert_eq!(bench.heartbeat(1, &id), ErrorCode::UnknownMemberId);
    bench.commit();
    let ticket = bench.ask(Request::Describe(GROUP.to_owned()));
    let Some(Response::Describe(group)) = bench.answer(ticket) else { panic!("no description") };
    assert_eq!((group.group_state.as_str(), group.members.len()), ("Empty", 0));
}

#[test]
fn protocols_have_to_meet() {
    let mut bench = Bench::new();
    let both = Client { protocols: &[("range", "r"), ("sticky", "s")], ..Client::default() };
    let one = bench.join(both);
    let other = bench.join(Client { protocols: &[("sticky", "s"), ("range", "r")], ..both });
    let third = bench.join(Client { protocols: &[("sticky", "s")], ..both });
    let strange = bench.join(Client { protocols: &[("strange", "s")], ..both });
    let connect = bench.join(Client { kind: "connect", ..both });
    let empty = bench.join(Client { protocols: &[], ..both });
    for refused in [strange, connect, empty] {
        assert_eq!(bench.joined(refused).error_code, ErrorCode::InconsistentGroupProtocol);
    }
    bench.pass(600);
    let joined = bench.joined(one);
    assert_eq!(joined.protocol_name.as_deref(), Some("sticky"));
    assert!(joined.members.iter().all(|member| member.metadata == "s"));
    assert_eq!(bench.joined(other).protocol_name, bench.joined(third).protocol_name);
}

#[test]
fn a_follower_that_joins_again_unchanged_moves_nobody() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(Client::default()), bench.join(Client::default()));
    bench.pass(600);
    let (first, second) = (bench.joined(first).member_id, bench.joined(second).member_id);
    let again = bench.join(Client { member: &first, ..Client::default() });
    let again = bench.joined(again);
    assert_eq!((again.generation_id, again.members.len()), (1, 2), "the answer was lost");
    bench.sync(1, &second, &[]);
    bench.sync(1, &first, &[]);
    bench.commit();
    let again = bench.join(Client { member: &second, ..Client::default() });
    assert_eq!(bench.joined(again).generation_id, 1);
    assert_eq!(bench.heartbeat(1, &first), ErrorCode::None);
    // Of a leader it means that it wants to share the work anew.
    let again = bench.join(Client { member: &first, ..Client::default() });
    assert_eq!(bench.answer(again), None);
    assert_eq!(bench.heartbeat(1, &second), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_second_join_of_a_member_frees_the_first() {
    let mut bench = Bench::new();
    let id = bench.alone();
    let _newcomer = bench.join(Client { member_id_required: false, ..Client::default() });
    let newcomer = bench.join(Client { member_id_required: true, ..Client::default() });
    assert_eq!(bench.joined(newcomer).error_code, ErrorCode::MemberIdRequired);
    let first = bench.join(Client { member: &id, ..Client::default() });
    let second = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.joined(first).error_code, ErrorCode::RebalanceInProgress);
    bench.pass(60_000);
    assert_eq!(bench.joined(second).generation_id, 2);
}

#[test]
fn a_newcomer_that_asks_again_waits_as_long_as_others() {
    let mut bench = Bench::new();
    let id = bench.alone();
    let newcomer = bench.join(Client { member_id_required: true, ..Client::default() });
    let newcomer = bench.joined(newcomer).member_id;
    let again = || Client { member: &newcomer, ..Client::default() };
    let first = bench.join(again());
    let second = bench.join(again());
    assert_eq!(bench.joined(first).error_code, ErrorCode::RebalanceInProgress);
    // The group waits for a slow member, longer than a session lasts.
    for _ in 0..6 {
        bench.pass(5_000);
        assert_eq!(bench.heartbeat(1, &id), ErrorCode::RebalanceInProgress);
    }
    assert_eq!(bench.answer(second), None, "it is still waited with");
    let member = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.joined(member).generation_id, 2);
    assert_eq!(bench.joined(second).generation_id, 2);
}

#[test]
fn a_sole_member_cannot_make_the_group_another_kind() {
    let mut bench = Bench::new();
    let id = bench.alone();
    let other = Client { member: &id, kind: "connect", ..Client::default() };
    let ticket = bench.join(other);
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::InconsistentGroupProtocol);
    let other = [("roundrobin", "topics")];
    let ticket = bench.join(Client { member: &id, protocols: &other, ..Client::default() });
    assert_eq!(bench.joined(ticket).generation_id, 2);
}

#[test]
fn a_static_member_that_restarts_moves_nobody() {
    for (knows_skip_assignment, leads) in [(true, true), (false, true), (true, false)] {
        let mut bench = Bench::new();
        let client =
            |name| Client { instance: Some(name), knows_skip_assignment, ..Client::default() };
        let (one, two) = (bench.join(client("i1")), bench.join(client("i2")));
        bench.pass(600);
        let (one, two) = (bench.joined(one), bench.joined(two));
        let (leader, follower) = (one.leader.clone(), two.member_id.clone());
        let lead = bench.sync_static(1, &leader, "i1", &[(&leader, "a"), (&follower, "b")]);
        let follow = bench.sync_static(1, &follower, "i2", &[]);
        bench.commit();
        assert_eq!(
            (bench.synced(lead).assignment, bench.synced(follow).assignment),
            ("a".into(), "b".into())
        );
        let (name, former) = if leads { ("i1", &leader) } else { ("i2", &follower) };
        let ticket = bench.join(client(name));
        assert_eq!(bench.answer(ticket), None, "answered before the log has its new id");
        bench.commit();
        let back = bench.joined(ticket);
        assert_eq!((back.error_code, back.generation_id), (ErrorCode::None, 1));
        assert_ne!(back.member_id, *former);
        assert_eq!(back.skip_assignment, leads && knows_skip_assignment);
        assert_eq!(back.leader == back.member_id, leads && knows_skip_assignment);
        let ticket = bench.sync_static(1, &back.member_id, name, &[]);
        assert_eq!(bench.synced(ticket).assignment, if leads { "a" } else { "b" });
        // Its former self is fenced, also by a coordinator that takes over.
        let mut later = bench.reload(Settings::default());
        for bench in [&mut bench, &mut later] {
            let ticket = bench.sync_static(1, former, name, &[]);
            assert_eq!(bench.synced(ticket).error_code, ErrorCode::FencedInstanceId);
            let ticket = bench.join(Client { member: former, ..client(name) });
            assert_eq!(bench.joined(ticket).error_code, ErrorCode::FencedInstanceId);
        }
        assert_eq!(leave(&mut bench, former, Some(name)), ErrorCode::FencedInstanceId);
        // A tool takes it out by its name alone.
        assert_eq!(leave(&mut bench, "", Some(name)), ErrorCode::None);
        assert_eq!(leave(&mut bench, "", Some(name)), ErrorCode::UnknownMemberId);
    }
}

#[test]
fn a_static_member_with_other_topics_starts_a_generation() {
    let mut bench = Bench::new();
    let reads = |topics: &'static str| Client {
        instance: Some("i"),
        protocols: if topics == "t" {
            &[("range", "\0\u{1}\0\0\0\u{1}\0\u{1}t\0\0\0\0")]
        } else {
            &[("range", "\0\u{1}\0\0\0\u{1}\0\u{1}u\0\0\0\0")]
        },
        ..Client::default()
    };
    let ticket = bench.join(reads("t"));
    bench.pass(300);
    let id = bench.joined(ticket).member_id;
    bench.sync_static(1, &id, "i", &[]);
    bench.commit();
    let ticket = bench.join(reads("u"));
    assert_eq!(bench.joined(ticket).generation_id, 2);
}

#[test]
fn what_members_bring_is_bounded() {
    let settings = Settings { members_max: 2, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let asking = Client { member_id_required: true, ..Client::default() };
    for expected in
        [ErrorCode::MemberIdRequired, ErrorCode::MemberIdRequired, ErrorCode::GroupMaxSizeReached]
    {
        let ticket = bench.join(asking);
        assert_eq!(bench.joined(ticket).error_code, expected, "ids that wait count too");
    }
    let mut bench = Bench::new();
    let large = "x".repeat(4 << 20);
    let heavy = [("range", large.as_str())];
    let _one = bench.join(Client { protocols: &heavy, ..Client::default() });
    let two = bench.join(Client { protocols: &heavy, ..Client::default() });
    assert_eq!(bench.joined(two).error_code, ErrorCode::GroupMaxSizeReached);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for wrong in [
        Client { instance: Some(&long), ..Client::default() },
        Client { instance: Some(""), ..Client::default() },
        Client { member: &long, ..Client::default() },
        Client { protocols: &[(&long, "")], ..Client::default() },
        Client { protocols: &[("range", ""); 33], ..Client::default() },
    ] {
        let ticket = bench.join(wrong);
        assert_eq!(bench.joined(ticket).error_code, ErrorCode::InvalidRequest);
    }
    assert_eq!(bench.shard.size(), (1, 0), "nothing is kept for the refused");
}

#[test]
fn a_member_that_comes_back_brings_no_more_than_a_group_may_hold() {
    let name = "range";
    let most = "x".repeat(GROUP_METADATA_BYTES_MAX - name.len());
    let more = format!("{most}x");
    let half = "x".repeat(GROUP_METADATA_BYTES_MAX / 2);
    for is_static in [true, false] {
        let mut bench = Bench::new();
        let instance = is_static.then_some("i");
        let ticket =
            bench.join(Client { instance, protocols: &[(name, &half)], ..Client::default() });
        bench.pass(300);
        let mut id = bench.joined(ticket).member_id;
        for (brought, expected) in [
            (&most, ErrorCode::None),
            (&more, ErrorCode::GroupMaxSizeReached),
            (&half, ErrorCode::None),
        ] {
            let member = if is_static { "" } else { id.as_str() };
            let protocols = [(name, brought.as_str())];
            let back = Client { member, instance, protocols: &protocols, ..Client::default() };
            let ticket = bench.join(back);
            let joined = bench.joined(ticket);
            assert_eq!(joined.error_code, expected, "static: {is_static}");
            if expected.is_none() {
                id = joined.member_id;
            }
        }
    }
}

#[test]
fn what_all_members_of_a_shard_bring_is_bounded() {
    const LARGE: usize = 8_000_000;
    let texts = ["client", "client-01234567-0123-0123-0123-0123456789ab", "/127.0.0.1", "range"];
    let cost = texts.map(str::len).iter().sum::<usize>() + MEMBER_ENTRY_BYTES;
    let join = |bench: &mut Bench, group: usize, client: Client<'_>| {
        let mut join = client.join(bench.next_ticket);
        if group > 0 {
            join.request.group_id = format!("g{group}");
        }
        bench.ask(Request::Join(Box::new(join)))
    };
    let large = "x".repeat(LARGE);
    let other = "y".repeat(LARGE);
    // No batch is too large: what bounds the work is its place in the shard.
    let mut bench = Bench::with(Settings { batch_bytes_max: usize::MAX, ..Settings::default() });
    let all = MEMBER_BYTES_MAX / (LARGE + cost);
    let left = MEMBER_BYTES_MAX % (LARGE + cost) - cost;
    let first =
        join(&mut bench, 0, Client { protocols: &[("range", &large)], ..Client::default() });
    for group in 1..all {
        let client = Client { protocols: &[("range", &large)], ..Client::default() };
        let ticket = join(&mut bench, group, client);
        assert_eq!(bench.answer(ticket), None, "{group}");
    }
    let last = |left: usize| large.get(..left).expect("smaller");
    let client = Client { protocols: &[("range", last(left + 1))], ..Client::default() };
    let ticket = join(&mut bench, all, client);
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::GroupMaxSizeReached);
    let client = Client { protocols: &[("range", last(left))], ..Client::default() };
    let ticket = join(&mut bench, all, client);
    assert_eq!(bench.answer(ticket), None);
    // Ids that are given out count too, and so does work.
    let asking = Client { member_id_required: true, ..Client::default() };
    let ticket = join(&mut bench, all + 1, asking);
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::GroupMaxSizeReached);
    bench.pass(300);
    let id = bench.joined(first).member_id;
    let ticket = bench.sync(1, &id, &[(&id, "w")]);
    assert_eq!(bench.synced(ticket).error_code, ErrorCode::GroupMaxSizeReached);
    // Who is there already, and takes no more than before, stays.
    let again = Client { member: &id, protocols: &[("range", &other)], ..Client::default() };
    let ticket = join(&mut bench, 0, again);
    assert_eq!(bench.joined(ticket).generation_id, 2);
    assert_eq!(leave(&mut bench, &id, None), ErrorCode::None);
    let ticket = join(&mut bench, all + 1, asking);
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::MemberIdRequired);
}

#[test]
fn work_that_fits_no_batch_is_refused() {
    let settings = Settings { batch_bytes_max: 1_000, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let ticket = bench.join(Client::default());
    bench.pass(300);
    let id = bench.joined(ticket).member_id;
    let ticket = bench.sync(1, &id, &[(&id, &"x".repeat(1_000))]);
    assert_eq!(bench.synced(ticket).error_code, ErrorCode::GroupMaxSizeReached);
    assert!(bench.writes.is_empty());
}

#[test]
fn requests_out_of_range_are_refused() {
    let mut bench = Bench::new();
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let mut join = Client::default().join(0);
        join.request.session_timeout_ms = session_timeout_ms;
        let ticket = bench.ask(Request::Join(Box::new(join)));
        assert_eq!(bench.joined(ticket).error_code, ErrorCode::InvalidSessionTimeout);
    }
    let mut join = Client::default().join(0);
    join.request.group_id = String::new();
    let ticket = bench.ask(Request::Join(Box::new(join)));
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::InvalidGroupId);
    let ticket = bench.join(Client { member: "unknown", ..Client::default() });
    assert_eq!(bench.joined(ticket).error_code, ErrorCode::UnknownMemberId);
    assert_eq!(bench.shard.size(), (0, 0));
}
