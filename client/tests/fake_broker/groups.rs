//! A consumer in a group whose coordinator takes its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Action, FakeBroker, Received, hasty};
use client::protocol::messages::consumer_protocol::{Assignment, PROTOCOL_TYPE, TopicPartitions};
use client::protocol::messages::find_coordinator::Coordinator;
use client::protocol::messages::offset_commit::{
    OffsetCommitPartitionResponse, OffsetCommitTopicResponse,
};
use client::protocol::messages::offset_fetch::OffsetFetchGroupResponse;
use client::protocol::messages::{
    FindCoordinatorResponse, HeartbeatResponse, JoinGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchResponse, SyncGroupResponse,
};
use client::protocol::{ApiKey, BrokerId, ErrorCode, Offset, PartitionId};
use client::{Assignor, Consumer, ConsumerOptions, RebalanceListener, TopicPartition};

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

/// The answer to a commit of one partition, and what it is told of it.
fn answer_commit(received: &Received, is_refused: bool) -> (String, Action) {
    let request: OffsetCommitRequest = received.body();
    let offset = request.topics[0].partitions[0].committed_offset.get();
    let error_code =
        if is_refused { ErrorCode::CoordinatorLoadInProgress } else { ErrorCode::None };
    let partitions = vec![OffsetCommitPartitionResponse {
        error_code,
        ..OffsetCommitPartitionResponse::default()
    }];
    let answer = OffsetCommitResponse {
        topics: vec![OffsetCommitTopicResponse { name: "t".to_owned(), partitions }],
        ..OffsetCommitResponse::default()
    };
    (format!("commit {offset} {error_code:?}"), received.answer(&answer))
}

/// A coordinator that has its one member join again at once, and says `refusals` times that it is loading before it takes
/// a commit. What it was told of both, in order.
async fn rebalancing(refusals: usize) -> (FakeBroker, Arc<Mutex<Vec<String>>>) {
    let address = Arc::new(Mutex::new((String::new(), 0)));
    let told = Arc::new(Mutex::new(Vec::new()));
    let (known, log) = (address.clone(), told.clone());
    let partitions =
        TopicPartitions { topic: "t".to_owned(), partitions: vec![PartitionId::new(0)] };
    let share = Assignment { assigned_partitions: vec![partitions], user_data: None };
    let mut refused = 0;
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
            ApiKey::JoinGroup => {
                log.lock().unwrap().push("join".to_owned());
                received.answer(&JoinGroupResponse {
                    generation_id: 1,
                    protocol_type: Some(PROTOCOL_TYPE.to_owned()),
                    protocol_name: Some("range".to_owned()),
                    leader: "somebody".to_owned(),
                    member_id: "m".to_owned(),
                    ..JoinGroupResponse::default()
                })
            }
            ApiKey::SyncGroup => received.answer(&SyncGroupResponse {
                assignment: share.encode().unwrap(),
                ..SyncGroupResponse::default()
            }),
            ApiKey::Heartbeat => received.answer(&HeartbeatResponse {
                error_code: ErrorCode::RebalanceInProgress,
                ..HeartbeatResponse::default()
            }),
            ApiKey::OffsetCommit => {
                refused += 1;
                let (text, action) = answer_commit(received, refused <= refusals);
                log.lock().unwrap().push(text);
                action
            }
            // It says nothing of what was asked for: where to begin is never known.
            ApiKey::OffsetFetch => received.answer(&OffsetFetchResponse {
                groups: vec![OffsetFetchGroupResponse::default()],
                ..OffsetFetchResponse::default()
            }),
            ApiKey::ListOffsets | ApiKey::Fetch => Action::Silence,
            _ => return None,
        })
    })
    .await;
    let (host, port) = broker.address.rsplit_once(':').unwrap();
    *address.lock().unwrap() = (host.to_owned(), port.parse().unwrap());
    (broker, told)
}

/// Says offset 7, once, of the first share it has to give up; nothing of later ones.
struct Says(Arc<Mutex<usize>>);

impl RebalanceListener for Says {
    fn revoked(&mut self, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Offset)> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        let first = partitions.iter().filter(|_| *asked == 1);
        first.map(|partition| (partition.clone(), Offset::new(7))).collect()
    }
}

#[tokio::test]
async fn a_dropped_poll_does_not_let_a_share_go_before_it_is_committed() {
    let (broker, told) = rebalancing(4).await;
    let options = ConsumerOptions {
        group_id: Some("g".to_owned()),
        assignors: vec![Assignor::Range],
        auto_commit: None,
        heartbeat: Duration::from_millis(10),
        ..ConsumerOptions::default()
    };
    let mut consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
    let asked = Arc::new(Mutex::new(0));
    consumer.subscribe_with(&["t"], Says(asked.clone())).unwrap();
    let joined_again = async {
        while told.lock().unwrap().iter().filter(|told| *told == "join").count() < 2 {
            // Dropped again and again while the commit is on its way.
            let _late = tokio::time::timeout(Duration::from_millis(5), consumer.poll()).await;
        }
    };
    let done = tokio::time::timeout(GUARD, joined_again).await;
    done.unwrap_or_else(|_| panic!("{:?}", told.lock().unwrap()));
    let told = told.lock().unwrap().clone();
    let mut expected = vec!["join"];
    expected.extend(["commit 7 CoordinatorLoadInProgress"; 4]);
    expected.extend(["commit 7 None", "join"]);
    assert_eq!(told[..7], expected);
    assert!(*asked.lock().unwrap() >= 1);
}
