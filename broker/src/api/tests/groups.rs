//! Groups over real logs: from request frames to response frames, and what a restart finds.

use std::time::{Duration, Instant};

use broker_core::group::OFFSETS_TOPIC;
use client_protocol::messages::delete_groups::DeletableGroupResult;
use client_protocol::messages::join_group::JoinGroupProtocol;
use client_protocol::messages::offset_commit::{OffsetCommitPartition, OffsetCommitTopic};
use client_protocol::messages::offset_fetch::{OffsetFetchGroup, OffsetFetchTopic};
use client_protocol::messages::sync_group::SyncGroupAssignment;
use client_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};

use super::*;

/// How long anything may take before the test is given up.
const HANG: Duration = Duration::from_secs(60);

/// Asks for the coordinator until there is one.
pub(super) async fn coordinator(bench: &mut Bench, version: i16, group: &str) {
    let request = FindCoordinatorRequest {
        key: if version < 4 { group.to_owned() } else { String::new() },
        coordinator_keys: if version < 4 { Vec::new() } else { vec![group.to_owned()] },
        ..Default::default()
    };
    let begun = Instant::now();
    loop {
        let (response, _) = bench.ask(version, &request).await;
        let one = response.coordinators.first();
        let found = one.map_or((response.error_code, response.node_id, response.port), |one| {
            (one.error_code, one.node_id, one.port)
        });
        match found {
            (ErrorCode::None, Some(BROKER), 9092) => return,
            (ErrorCode::CoordinatorNotAvailable, None, -1) if begun.elapsed() < HANG => {
                tokio::task::yield_now().await;
            }
            other => panic!("{other:?} after {:?}", begun.elapsed()),
        }
    }
}

pub(super) fn commit(group: &str, topics: &[&str], offset: i64) -> OffsetCommitRequest {
    let topic = |name: &&str| OffsetCommitTopic {
        name: (*name).to_owned(),
        partitions: vec![OffsetCommitPartition {
            partition_index: PartitionId::new(0),
            committed_offset: Offset::new(offset),
            ..Default::default()
        }],
    };
    let topics = topics.iter().map(topic).collect();
    OffsetCommitRequest { group_id: group.to_owned(), topics, ..Default::default() }
}

/// Commits until the coordinator is loaded; yields the code of each topic.
pub(super) async fn committed(
    bench: &mut Bench,
    version: i16,
    request: &OffsetCommitRequest,
) -> Vec<ErrorCode> {
    let begun = Instant::now();
    loop {
        let (response, _) = bench.ask(version, request).await;
        let codes: Vec<_> = response.topics.iter().map(|t| t.partitions[0].error_code).collect();
        let not_yet = [ErrorCode::CoordinatorLoadInProgress, ErrorCode::NotCoordinator];
        if !codes.iter().any(|code| not_yet.contains(code)) {
            return codes;
        }
        assert!(begun.elapsed() < HANG, "{codes:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn offsets_are_committed_and_fetched_at_every_version() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    for version in 0..=4 {
        coordinator(&mut bench, version, "g").await;
    }
    for version in 2..=9 {
        let request = commit("g", &["t", "unknown"], i64::from(version));
        let codes = committed(&mut bench, version, &request).await;
        assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition], "v{version}");
    }
    let asked = || {
        let (name, partition_indexes) = ("t".to_owned(), vec![PartitionId::new(0)]);
        vec![OffsetFetchTopic { name, partition_indexes }]
    };
    for version in 1..=7 {
        let request = OffsetFetchRequest {
            group_id: "g".to_owned(),
            topics: Some(asked()),
            ..Default::default()
        };
        let (response, _) = bench.ask(version, &request).await;
        let one = &response.topics[0].partitions[0];
        assert_eq!(one.committed_offset, Some(Offset::new(9)), "v{version}");
    }
    for version in 8..=9 {
        let group = |id: &str, topics| OffsetFetchGroup {
            group_id: id.to_owned(),
            topics,
            ..Default::default()
        };
        let groups = vec![group("g", None), group("none", Some(asked())), group("none", None)];
        let request = OffsetFetchRequest { groups, ..Default::default() };
        let (response, _) = bench.ask(version, &request).await;
        let one = &response.groups[0].topics[0].partitions[0];
        assert_eq!(one.committed_offset, Some(Offset::new(9)), "v{version}");
        let none = &response.groups[1].topics[0].partitions[0];
        assert_eq!((none.committed_offset, none.error_code), (None, ErrorCode::None));
        assert!(response.groups[2].topics.is_empty());
    }
    bench.partitions.stop();
}

#[tokio::test]
async fn a_member_joins_works_and_leaves_at_every_version() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    coordinator(&mut bench, 4, "g").await;
    assert_eq!(committed(&mut bench, 9, &commit("g", &["t"], 1)).await, [ErrorCode::None]);
    for version in 0..=9 {
        let member_id = join(&mut bench, version).await;
        let (sync, beat, leave) = (version.min(5), version.min(4), version.min(5));
        let generation_id = i32::from(version) * 2 + 1;
        let assignments =
            vec![SyncGroupAssignment { member_id: member_id.clone(), assignment: "work".into() }];
        let group_id = "g".to_owned();
        let (synced, _) = bench
            .ask(
                sync,
                &SyncGroupRequest {
                    group_id: group_id.clone(),
                    generation_id,
                    member_id: member_id.clone(),
                    assignments,
                    ..Default::default()
                },
            )
            .await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (ErrorCode::None, &b"work"[..]));
        let heartbeat = HeartbeatRequest {
            group_id: group_id.clone(),
            generation_id,
            member_id: member_id.clone(),
            group_instance_id: None,
        };
        assert_eq!(bench.ask(beat, &heartbeat).await.0.error_code, ErrorCode::None);
        check_tools(&mut bench, &member_id).await;
        let who = client_protocol::messages::leave_group::MemberIdentity {
            member_id: member_id.clone(),
            ..Default::default()
        };
        let request = LeaveGroupRequest {
            group_id,
            member_id: if leave < 3 { member_id } else { String::new() },
            members: if leave < 3 { Vec::new() } else { vec![who] },
        };
        let (left, _) = bench.ask(leave, &request).await;
        assert_eq!(left.error_code, ErrorCode::None);
        let (left, _) = bench.ask(leave, &request).await;
        let of_member = left.members.first().map_or(left.error_code, |member| member.error_code);
        assert_eq!(of_member, ErrorCode::UnknownMemberId, "v{version}");
    }
    let request = DeleteGroupsRequest { groups_names: vec!["g".to_owned(), "x".to_owned()] };
    let (deleted, _) = bench.ask(2, &request).await;
    let expected = [("g", ErrorCode::None), ("x", ErrorCode::GroupIdNotFound)];
    let expected = expected
        .map(|(id, error_code)| DeletableGroupResult { group_id: id.to_owned(), error_code });
    assert_eq!(deleted.results, expected);
    bench.partitions.stop();
}

async fn join(bench: &mut Bench, version: i16) -> String {
    let mut request = JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupProtocol { name: "range".to_owned(), metadata: "m".into() }],
        ..Default::default()
    };
    let (mut joined, _) = bench.ask(version, &request).await;
    assert_eq!(joined.error_code == ErrorCode::MemberIdRequired, version >= 4, "{joined:?}");
    if version >= 4 {
        request.member_id.clone_from(&joined.member_id);
        joined = bench.ask(version, &request).await.0;
    }
    assert_eq!((joined.error_code, joined.members.len()), (ErrorCode::None, 1), "v{version}");
    assert_eq!(joined.generation_id, i32::from(version) * 2 + 1);
    joined.member_id
}

async fn check_tools(bench: &mut Bench, member_id: &str) {
    for version in 0..=5 {
        let (list, _) = bench.ask(version, &ListGroupsRequest::default()).await;
        assert_eq!(list.groups.len(), 1, "v{version}: {list:?}");
        assert_eq!(list.groups[0].protocol_type, "consumer");
        let groups = vec!["g".to_owned(), "x".to_owned()];
        let request = DescribeGroupsRequest { groups, include_authorized_operations: version >= 3 };
        let (described, _) = bench.ask(version, &request).await;
        let [group, none] = &described.groups[..] else { panic!("{described:?}") };
        assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("Stable", "range"));
        assert_eq!(group.members[0].member_id, member_id);
        assert_eq!(group.members[0].client_id, "test");
        assert_eq!(&group.members[0].member_assignment[..], b"work");
        assert_eq!((none.group_state.as_str(), none.error_code), ("Dead", ErrorCode::None));
    }
    let states_filter = vec!["Empty".to_owned()];
    let request = ListGroupsRequest { states_filter, ..Default::default() };
    assert!(bench.ask(4, &request).await.0.groups.is_empty());
}

#[tokio::test]
async fn the_topic_of_groups_is_not_for_clients_to_write() {
    let mut bench = Bench::new(Scope::Public);
    coordinator(&mut bench, 4, "g").await;
    let (response, _) = bench.ask(12, &MetadataRequest::default()).await;
    let topics = response.topics.iter();
    let found = topics.filter(|topic| topic.name.as_deref() == Some(OFFSETS_TOPIC));
    let found: Vec<_> = found.collect();
    assert_eq!(found.len(), 1, "a null list is all topics");
    assert!(found[0].is_internal);
    assert_eq!(found[0].partitions.len(), 50);
    bench.partitions.stop();
}
