//! A consumer in a group whose coordinator takes its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Action, FakeBroker, hasty};
use client::protocol::messages::consumer_protocol::{Assignment, PROTOCOL_TYPE, TopicPartitions};
use client::protocol::messages::find_coordinator::Coordinator;
use client::protocol::messages::{
    FindCoordinatorResponse, HeartbeatResponse, JoinGroupResponse, SyncGroupResponse,
};
use client::protocol::{ApiKey, BrokerId, ErrorCode, PartitionId};
use client::{Consumer, ConsumerOptions, TopicPartition};

/// Longer than anything here takes.
const GUARD: Duration = Duration::from_secs(60);

/// A group's coordinator whose one member joins, and is then told its share, partition 0, or left without an answer.
async fn coordinator(tells_share: bool) -> FakeBroker {
    let address = Arc::new(Mutex::new((String::new(), 0)));
    let known = address.clone();
    let partitions =
        TopicPartitions { topic: "t".to_owned(), partitions: vec![PartitionId::new(0)] };
    let share = Assignment { assigned_partitions: vec![partitions], user_data: None };
    let broker = FakeBroker::start(1, move |received| {
        let (host, port) = known.lock().unwrap().clone();
        Some(match received.header.key {
            ApiKey::FindCoordinator => received.answer(&FindCoordinatorResponse {
                coordinators: vec![Coordinator {
                    key: "g".to_owned(),
                    node_id: Some(BrokerId::new(1)),
                    host,
                    port,
                    ..Coordinator::default()
                }],
                ..FindCoordinatorResponse::default()
            }),
            ApiKey::JoinGroup => received.answer(&JoinGroupResponse {
                generation_id: 1,
                protocol_type: Some(PROTOCOL_TYPE.to_owned()),
                protocol_name: Some("cooperative-sticky".to_owned()),
                leader: "somebody".to_owned(),
                member_id: "m".to_owned(),
                ..JoinGroupResponse::default()
            }),
            ApiKey::SyncGroup if !tells_share => Action::Silence,
            ApiKey::SyncGroup => received.answer(&SyncGroupResponse {
                assignment: share.encode().unwrap(),
                ..SyncGroupResponse::default()
            }),
            ApiKey::Heartbeat => received.answer(&HeartbeatResponse::default()),
            ApiKey::OffsetFetch | ApiKey::ListOffsets | ApiKey::Fetch => Action::Silence,
            _ => return None,
        })
    })
    .await;
    let (host, port) = broker.address.rsplit_once(':').unwrap();
    *address.lock().unwrap() = (host.to_owned(), port.parse().unwrap());
    broker
}

#[tokio::test]
async fn a_member_has_a_share_when_the_group_has_told_it() {
    for tells_share in [false, true] {
        let broker = coordinator(tells_share).await;
        let options =
            ConsumerOptions { group_id: Some("g".to_owned()), ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
        consumer.subscribe(&["t"]).unwrap();
        let joined = async {
            while consumer.member().is_none()
                || broker.received(ApiKey::SyncGroup).is_empty()
                || (tells_share && !consumer.has_share())
            {
                tokio::task::yield_now().await;
            }
        };
        let joined = tokio::time::timeout(GUARD, joined).await;
        joined.unwrap_or_else(|_| panic!("{:?} {consumer:?}", consumer.member()));
        let share: &[_] = if tells_share { &[TopicPartition::new("t", 0)] } else { &[] };
        assert_eq!((consumer.has_share(), &consumer.assignment()[..]), (tells_share, share));
    }
}

#[tokio::test]
async fn what_keeps_a_member_from_its_share_is_told() {
    let broker = FakeBroker::start(1, |received| match received.header.key {
        ApiKey::FindCoordinator => Some(received.answer(&FindCoordinatorResponse {
            coordinators: vec![Coordinator {
                key: "g".to_owned(),
                error_code: ErrorCode::CoordinatorNotAvailable,
                error_message: Some("three brokers are wanted".to_owned()),
                ..Coordinator::default()
            }],
            ..FindCoordinatorResponse::default()
        })),
        _ => None,
    })
    .await;
    let options = ConsumerOptions { group_id: Some("g".to_owned()), ..ConsumerOptions::default() };
    let mut consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
    assert_eq!(consumer.obstacles(Duration::ZERO), []);
    consumer.subscribe(&["t"]).unwrap();
    let told = async {
        loop {
            // Nothing comes: the caller waits in vain, as one without records would.
            let _late = tokio::time::timeout(Duration::from_millis(5), consumer.poll()).await;
            let obstacles = consumer.obstacles(Duration::ZERO);
            if let Some(told) = obstacles.into_iter().find(|obstacle| obstacle.code.is_some()) {
                return told;
            }
        }
    };
    let told = tokio::time::timeout(GUARD, told).await.expect("silence");
    assert_eq!(told.code, Some(ErrorCode::CoordinatorNotAvailable));
    assert!(told.text.contains("group g") && told.text.contains("three brokers"), "{}", told.text);
    assert!(told.hint().contains("offsets.topic.replication.factor"), "{}", told.hint());
    assert_eq!(consumer.obstacles(GUARD), [], "it has not lasted so long");
}
