//! Offsets: when they count, how long, and what bounds them.

use client_protocol::messages::offset_commit::{OffsetCommitPartition, OffsetCommitTopic};
use client_protocol::messages::offset_delete::{OffsetDeletePartition, OffsetDeleteTopic};
use client_protocol::messages::offset_fetch::{OffsetFetchGroup, OffsetFetchTopic};
use client_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest};
use client_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionId};

use super::*;
use crate::group::settings::WRITE_BYTES_MAX;

fn commit_of(generation: i32, member: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitPartition {
        partition_index: PartitionId::new(0),
        committed_offset: Offset::new(offset),
        committed_leader_epoch: Some(LeaderEpoch::new(3)),
        committed_metadata: Some("note".to_owned()),
    };
    OffsetCommitRequest {
        group_id: GROUP.to_owned(),
        generation_id_or_member_epoch: generation,
        member_id: member.to_owned(),
        topics: vec![OffsetCommitTopic { name: "t".to_owned(), partitions: vec![partition] }],
        ..Default::default()
    }
}

fn outcome(response: Option<Response>) -> ErrorCode {
    match response {
        Some(Response::OffsetCommit(response)) => response.topics[0].partitions[0].error_code,
        other => panic!("not an answer to a commit: {other:?}"),
    }
}

fn committed(bench: &mut Bench) -> Option<i64> {
    let topics = vec![OffsetFetchTopic {
        name: "t".to_owned(),
        partition_indexes: vec![PartitionId::new(0)],
    }];
    let group_id = GROUP.to_owned();
    let fetch = OffsetFetchGroup { group_id, topics: Some(topics), ..Default::default() };
    let ticket = bench.ask(Request::OffsetFetch(fetch.clone()));
    let Some(Response::OffsetFetch(response)) = bench.answer(ticket) else { panic!("no offsets") };
    let one = response.topics[0].partitions[0].committed_offset.map(Offset::get);
    let ticket = bench.ask(Request::OffsetFetch(OffsetFetchGroup { topics: None, ..fetch }));
    let Some(Response::OffsetFetch(all)) = bench.answer(ticket) else { panic!("no offsets") };
    let of_all = all.topics.first().and_then(|topic| topic.partitions[0].committed_offset);
    assert_eq!(of_all.map(Offset::get), one, "one and all differ");
    one
}

#[test]
fn an_offset_counts_once_the_log_has_it() {
    let mut bench = Bench::new();
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "", 42)));
    assert_eq!(bench.answer(ticket), None, "answered before it is replicated");
    assert_eq!(committed(&mut bench), None, "told before it is replicated");
    bench.commit();
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::None);
    assert_eq!(committed(&mut bench), Some(42));
    assert_eq!(committed(&mut bench.reload(Settings::default())), Some(42));
}

#[test]
fn whoever_states_no_generation_commits_to_a_group_that_is_not_known() {
    let mut bench = Bench::new();
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "named", 42)));
    bench.commit();
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::None);
    assert_eq!(committed(&mut bench), Some(42));
}

#[test]
fn a_failed_write_is_told_and_changes_nothing() {
    let mut bench = Bench::new();
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "", 42)));
    let (write, _) = bench.writes.remove(0);
    bench.settle(write, Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(committed(&mut bench), None);
    assert_eq!(bench.shard.size(), (0, 0), "nothing is left of the group");
}

#[test]
fn a_slow_log_is_told_as_unknown_and_followed_all_the_same() {
    let mut bench = Bench::new();
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "", 42)));
    bench.pass(4_999);
    assert_eq!(bench.answer(ticket), None);
    bench.pass(1);
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::RequestTimedOut);
    bench.commit();
    assert_eq!(bench.answer(ticket), None, "answered twice");
    assert_eq!(committed(&mut bench), Some(42));
}

#[test]
fn writes_are_finished_in_the_order_of_the_log() {
    let mut bench = Bench::new();
    let first = bench.ask(Request::OffsetCommit(commit_of(-1, "", 1)));
    let second = bench.ask(Request::OffsetCommit(commit_of(-1, "", 2)));
    let later = bench.writes.pop().expect("two writes");
    bench.settle(later.0, Ok(()));
    assert_eq!((bench.answer(second), committed(&mut bench)), (None, None));
    let earlier = bench.writes.remove(0);
    bench.settle(earlier.0, Ok(()));
    assert_eq!(outcome(bench.answer(first)), ErrorCode::None);
    assert_eq!(outcome(bench.answer(second)), ErrorCode::None);
    assert_eq!(committed(&mut bench), Some(2));
}

#[test]
fn only_members_of_the_generation_commit() {
    let mut bench = Bench::new();
    let unknown = bench.ask(Request::OffsetCommit(commit_of(1, "m", 1)));
    assert_eq!(outcome(bench.answer(unknown)), ErrorCode::IllegalGeneration);
    let id = bench.alone();
    for (generation, member, expected) in [
        (1, id.as_str(), ErrorCode::None),
        (0, &id, ErrorCode::IllegalGeneration),
        (2, &id, ErrorCode::IllegalGeneration),
        (1, "other", ErrorCode::UnknownMemberId),
        (-1, "", ErrorCode::UnknownMemberId),
    ] {
        let ticket = bench.ask(Request::OffsetCommit(commit_of(generation, member, 7)));
        bench.commit();
        assert_eq!(outcome(bench.answer(ticket)), expected, "{generation} {member}");
    }
    // While the group prepares the next generation, this one may still say how far it came.
    let _joining = bench.join(Client::default());
    let ticket = bench.ask(Request::OffsetCommit(commit_of(1, &id, 8)));
    bench.commit();
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::None);
    // Once the next has begun, it may not.
    let rejoining = bench.join(Client { member: &id, ..Client::default() });
    assert_eq!(bench.joined(rejoining).generation_id, 2);
    let ticket = bench.ask(Request::OffsetCommit(commit_of(2, &id, 9)));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::RebalanceInProgress);
    assert_eq!(committed(&mut bench), Some(8));
}

#[test]
fn notes_are_bounded_one_by_one() {
    let mut bench = Bench::new();
    let mut request = commit_of(-1, "", 5);
    request.topics[0].partitions[0].committed_metadata = Some("x".repeat(4_097));
    let mut fits = request.topics[0].partitions[0].clone();
    fits.partition_index = PartitionId::new(1);
    fits.committed_metadata = Some("x".repeat(4_096));
    request.topics[0].partitions.push(fits);
    let ticket = bench.ask(Request::OffsetCommit(request));
    bench.commit();
    let Some(Response::OffsetCommit(response)) = bench.answer(ticket) else { panic!("no answer") };
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [ErrorCode::OffsetMetadataTooLarge, ErrorCode::None]);
}

#[test]
fn a_commit_larger_than_a_batch_is_refused() {
    let settings = Settings { batch_bytes_max: 200, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let mut request = commit_of(-1, "", 5);
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![one; 10];
    let ticket = bench.ask(Request::OffsetCommit(request));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::InvalidCommitOffsetSize);
    assert!(bench.writes.is_empty());
    assert_eq!(bench.shard.size(), (0, 0));
}

#[test]
fn writes_on_their_way_are_bounded() {
    let mut bench = Bench::new();
    for _ in 0..WRITES_MAX {
        bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
    }
    assert_eq!(bench.writes.len(), WRITES_MAX);
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::CoordinatorNotAvailable);
}

#[test]
fn bytes_of_writes_on_their_way_are_bounded() {
    let mut bench = Bench::new();
    let mut large = commit_of(-1, "", 5);
    let note = "x".repeat(4_096);
    large.topics[0].partitions[0].committed_metadata = Some(note);
    large.topics[0].partitions = vec![large.topics[0].partitions[0].clone(); 240];
    let large = Request::OffsetCommit(large);
    bench.ask(large.clone());
    let records = &bench.writes[0].1;
    let each = records[0].key.len() + records[0].value.as_ref().expect("an offset").len() + 32;
    let bytes = records.len() * each;
    for _ in 1..WRITE_BYTES_MAX / bytes {
        bench.ask(large.clone());
    }
    // One record takes what is left, to the byte, or one byte more.
    let left = WRITE_BYTES_MAX % bytes;
    let filling = |left: usize| {
        let mut request = commit_of(-1, "", 5);
        let one = request.topics[0].partitions[0].clone();
        let count = left.div_ceil(each);
        let mut notes = count * 4_096 - (count * each - left);
        request.topics[0].partitions.clear();
        for _ in 0..count {
            let note = notes.min(4_096);
            notes -= note;
            let committed_metadata = Some("x".repeat(note));
            let one = OffsetCommitPartition { committed_metadata, ..one.clone() };
            request.topics[0].partitions.push(one);
        }
        Request::OffsetCommit(request)
    };
    let sent = bench.writes.len();
    let ticket = bench.ask(filling(left + 1));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::CoordinatorNotAvailable);
    let ticket = bench.ask(filling(left));
    assert_eq!((bench.answer(ticket), bench.writes.len()), (None, sent + 1));
    let ticket = bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::CoordinatorNotAvailable);
    bench.commit();
    let ticket = bench.ask(large);
    bench.commit();
    assert_eq!(outcome(bench.answer(ticket)), ErrorCode::None, "room comes back");
}

#[test]
fn a_batch_above_the_bound_goes_alone() {
    let settings = Settings { batch_bytes_max: usize::MAX, ..Settings::default() };
    let settings = Settings { offset_metadata_bytes_max: usize::MAX, ..settings };
    let mut bench = Bench::with(settings);
    let mut request = commit_of(-1, "", 5);
    let one = request.topics[0].partitions[0].clone();
    let note = Some("x".repeat(30_000));
    let one = OffsetCommitPartition { committed_metadata: note, ..one };
    request.topics[0].partitions = vec![one; WRITE_BYTES_MAX / 30_000 + 1];
    let (first, second) = (bench.ask(Request::OffsetCommit(request)), commit_of(-1, "", 6));
    let second = bench.ask(Request::OffsetCommit(second));
    assert_eq!(outcome(bench.answer(second)), ErrorCode::CoordinatorNotAvailable);
    bench.commit();
    assert_eq!(outcome(bench.answer(first)), ErrorCode::None);
}

#[test]
fn offsets_expire_after_the_last_member_left() {
    let retention_ms = 7 * 24 * 3_600_000;
    let mut bench = Bench::new();
    let id = bench.alone();
    let _committed = bench.ask(Request::OffsetCommit(commit_of(1, &id, 5)));
    bench.commit();
    // A member that lives keeps them, however old.
    for _ in 0..(2 * retention_ms / 9_000) {
        bench.pass(9_000);
        assert_eq!(bench.heartbeat(1, &id), ErrorCode::None);
    }
    assert_eq!(committed(&mut bench), Some(5));
    bench.pass(retention_ms - 1_000);
    bench.commit();
    assert_eq!(committed(&mut bench), Some(5), "the member's silence counts from its end on");
    bench.pass(2 * 600_000);
    bench.commit();
    assert_eq!(committed(&mut bench), None);
    assert_eq!(bench.shard.size(), (0, 0), "the group is forgotten too");
    assert_eq!(bench.reload(Settings::default()).shard.size(), (0, 0));
}

#[test]
fn offsets_of_nobodys_group_expire_one_by_one() {
    let retention_ms = 7 * 24 * 3_600_000;
    let mut bench = Bench::new();
    bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
    bench.commit();
    bench.pass(retention_ms / 2);
    let mut other = commit_of(-1, "", 6);
    other.topics[0].partitions[0].partition_index = PartitionId::new(1);
    bench.ask(Request::OffsetCommit(other));
    bench.commit();
    bench.pass(retention_ms / 2 + 600_000);
    bench.commit();
    assert_eq!(committed_of_partition(&mut bench, 1), Some(6));
    assert_eq!(committed_of_partition(&mut bench, 0), None);
}

fn committed_of_partition(bench: &mut Bench, partition: i32) -> Option<i64> {
    let topics = vec![OffsetFetchTopic {
        name: "t".to_owned(),
        partition_indexes: vec![PartitionId::new(partition)],
    }];
    let group_id = GROUP.to_owned();
    let fetch = OffsetFetchGroup { group_id, topics: Some(topics), ..Default::default() };
    let ticket = bench.ask(Request::OffsetFetch(fetch));
    let Some(Response::OffsetFetch(response)) = bench.answer(ticket) else { panic!("no offsets") };
    response.topics[0].partitions[0].committed_offset.map(Offset::get)
}

fn delete_of(topic: &str) -> Request {
    let partitions = vec![OffsetDeletePartition { partition_index: PartitionId::new(0) }];
    let topics = vec![OffsetDeleteTopic { name: topic.to_owned(), partitions }];
    Request::OffsetDelete(OffsetDeleteRequest { group_id: GROUP.to_owned(), topics })
}

fn deleted(response: Option<Response>) -> (ErrorCode, ErrorCode) {
    match response {
        Some(Response::OffsetDelete(response)) => {
            let one = response.topics.first().map(|topic| topic.partitions[0].error_code);
            (response.error_code, one.unwrap_or_default())
        }
        other => panic!("not an answer to a deletion: {other:?}"),
    }
}

#[test]
fn offsets_of_unread_topics_are_deleted() {
    let mut bench = Bench::new();
    let ticket = bench.ask(delete_of("t"));
    assert_eq!(deleted(bench.answer(ticket)).0, ErrorCode::GroupIdNotFound);
    bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
    bench.commit();
    // A member that reads t: version 1, one topic, no user data.
    let reads_t = "\0\u{1}\0\0\0\u{1}\0\u{1}t\0\0\0\0";
    let ticket = bench.join(Client { protocols: &[("range", reads_t)], ..Client::default() });
    bench.pass(300);
    let id = bench.joined(ticket).member_id;
    bench.sync(1, &id, &[]);
    bench.commit();
    let ticket = bench.ask(delete_of("t"));
    assert_eq!(deleted(bench.answer(ticket)).1, ErrorCode::GroupSubscribedToTopic);
    assert_eq!(committed(&mut bench), Some(5));
    bench.pass(10_000);
    bench.commit();
    let ticket = bench.ask(delete_of("t"));
    assert_eq!(committed(&mut bench), Some(5), "forgotten before the log says so");
    bench.commit();
    assert_eq!(deleted(bench.answer(ticket)), (ErrorCode::None, ErrorCode::None));
    assert_eq!(committed(&mut bench), None);
}

#[test]
fn deleting_the_last_offset_of_a_group_without_members_is_answered() {
    for outcome in [Ok(()), Err(ErrorCode::NotEnoughReplicas)] {
        let mut bench = Bench::new();
        bench.ask(Request::OffsetCommit(commit_of(-1, "", 5)));
        bench.commit();
        // Two ask at once: for the second nothing is left to forget once the log has the first.
        let tickets = [bench.ask(delete_of("t")), bench.ask(delete_of("t"))];
        for (write, _) in std::mem::take(&mut bench.writes) {
            bench.settle(write, outcome);
        }
        let (expected, left) = match outcome {
            Ok(()) => (ErrorCode::None, (0, 0)),
            Err(_) => (ErrorCode::CoordinatorNotAvailable, (1, 0)),
        };
        for ticket in tickets {
            assert_eq!(deleted(bench.answer(ticket)).0, expected);
        }
        assert_eq!(bench.shard.size(), left);
    }
}

#[test]
fn groups_are_deleted_when_nobody_is_in_them() {
    let mut bench = Bench::new();
    let delete = || Request::Delete(GROUP.to_owned());
    let ticket = bench.ask(delete());
    assert_eq!(bench.answer(ticket), Some(Response::Delete(ErrorCode::GroupIdNotFound)));
    let id = bench.alone();
    let _committed = bench.ask(Request::OffsetCommit(commit_of(1, &id, 5)));
    bench.commit();
    let ticket = bench.ask(delete());
    assert_eq!(bench.answer(ticket), Some(Response::Delete(ErrorCode::NonEmptyGroup)));
    bench.pass(10_000);
    bench.commit();
    let ticket = bench.ask(delete());
    assert_eq!(bench.answer(ticket), None, "answered before the log says so");
    let early = bench.join(Client::default());
    assert_eq!(bench.joined(early).error_code, ErrorCode::CoordinatorNotAvailable);
    bench.commit();
    assert_eq!(bench.answer(ticket), Some(Response::Delete(ErrorCode::None)));
    assert_eq!(bench.shard.size(), (0, 0));
    assert_eq!(bench.reload(Settings::default()).shard.size(), (0, 0));
}

#[test]
fn offsets_of_deleted_topics_are_forgotten() {
    let mut bench = Bench::new();
    let mut request = commit_of(-1, "", 5);
    let mut other = request.topics[0].clone();
    other.name = "other".to_owned();
    request.topics.push(other);
    bench.ask(Request::OffsetCommit(request));
    bench.commit();
    bench.forget_topics(&["t", "unknown"]);
    bench.commit();
    let fetch = OffsetFetchGroup { group_id: GROUP.to_owned(), ..Default::default() };
    for bench in [&mut bench.reload(Settings::default()), &mut bench] {
        let ticket = bench.ask(Request::OffsetFetch(fetch.clone()));
        let Some(Response::OffsetFetch(left)) = bench.answer(ticket) else { panic!("no offsets") };
        let names: Vec<_> = left.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, ["other"]);
    }
}
