//! Producer and consumer against a broker that refuses, forgets and hangs up.

use std::sync::{Arc, Mutex};

use crate::fake::{Action, FakeBroker, Received, hasty};
use bytes::Bytes;
use client::protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use client::protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
use client::protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use client::protocol::records::{Batch, BatchBuilder, Record, assign_offsets};
use client::protocol::{ApiKey, ErrorCode, LeaderEpoch, Offset, PartitionId, Records};
use client::{
    Acks, ClientError, Cluster, Consumer, ConsumerOptions, Position, Producer, ProducerOptions,
};

fn record(value: &str) -> Record {
    Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Record::default() }
}

/// The batches of a Produce request, by partition.
fn batches(received: &Received) -> Vec<(i32, Bytes)> {
    let request: ProduceRequest = received.body();
    let partitions = request.topics.into_iter().flat_map(|topic| topic.partitions);
    let batch = |records: Option<Records>| {
        let range = records.unwrap().in_frame().unwrap();
        Bytes::copy_from_slice(range.of(&received.frame).unwrap())
    };
    partitions.map(|partition| (partition.index.get(), batch(partition.records))).collect()
}

fn produced(received: &Received, error_code: ErrorCode) -> Action {
    let partitions = batches(received).into_iter().map(|(index, _)| ProducePartitionResponse {
        index: PartitionId::new(index),
        error_code,
        base_offset: error_code.is_none().then_some(Offset::new(100)),
        ..ProducePartitionResponse::default()
    });
    received.answer(&ProduceResponse {
        topics: vec![ProduceTopicResponse {
            name: "t".to_owned(),
            partitions: partitions.collect(),
        }],
        ..ProduceResponse::default()
    })
}

/// A broker that does the next of `actions` to each Produce, and takes what comes after.
async fn broker_for_produce(actions: Vec<fn(&Received) -> Action>) -> FakeBroker {
    let mut actions = actions.into_iter();
    FakeBroker::start(2, move |received| {
        (received.header.key == ApiKey::Produce).then(|| match actions.next() {
            Some(action) => action(received),
            None => produced(received, ErrorCode::None),
        })
    })
    .await
}

async fn producer(broker: &FakeBroker, options: ProducerOptions) -> Producer {
    let cluster = Cluster::connect(std::slice::from_ref(&broker.address), hasty()).await.unwrap();
    Producer::new(cluster, options)
}

fn sent(broker: &FakeBroker) -> Vec<Bytes> {
    let received = broker.received(ApiKey::Produce);
    received.iter().flat_map(|received| batches(received).into_iter().map(|(_, b)| b)).collect()
}

fn sequence(batch: &Bytes) -> (Option<i64>, i32, i32) {
    let header = Batch::first(batch).unwrap().header;
    (header.producer_id.map(|id| id.get()), header.base_sequence, header.record_count)
}

#[tokio::test]
async fn a_batch_whose_fate_is_unknown_is_sent_again_unchanged() {
    let broker = broker_for_produce(vec![
        |received| produced(received, ErrorCode::NotLeaderOrFollower),
        |_| Action::HangUp,
        |received| produced(received, ErrorCode::NotEnoughReplicas),
    ])
    .await;
    let mut producer = producer(&broker, ProducerOptions::default()).await;
    let partition = PartitionId::new(1);
    let outcomes = producer.send_to("t", partition, &[record("a"), record("b")]).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].result.as_ref().unwrap(), &Some(Offset::new(100)));
    assert_eq!((outcomes[0].partition, outcomes[0].records), (partition, 2));
    let attempts = sent(&broker);
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|attempt| *attempt == attempts[0]));
    assert_eq!(sequence(&attempts[0]), (Some(4000), 0, 2));

    producer.send_to("t", partition, &[record("c")]).await.unwrap();
    assert_eq!(sequence(&sent(&broker)[4]), (Some(4000), 2, 1), "the sequence goes on");
}

#[tokio::test]
async fn a_refused_batch_uses_no_sequence_and_does_not_stop_the_next() {
    let broker =
        broker_for_produce(vec![|received| produced(received, ErrorCode::MessageTooLarge)]).await;
    let options = ProducerOptions { batch_bytes_max: 100, ..ProducerOptions::default() };
    let mut producer = producer(&broker, options).await;
    let records = [record(&"x".repeat(60)), record("b")];
    let outcomes = producer.send_to("t", PartitionId::new(0), &records).await.unwrap();
    let codes: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.result.as_ref().err().and_then(ClientError::code))
        .collect();
    assert_eq!(codes, [Some(ErrorCode::MessageTooLarge), None]);
    let sequences: Vec<_> = sent(&broker).iter().map(sequence).collect();
    assert_eq!(sequences, [(Some(4000), 0, 1), (Some(4000), 0, 1)]);
}

#[tokio::test]
async fn a_lost_sequence_leads_to_a_new_identity() {
    let broker = broker_for_produce(vec![|received| {
        produced(received, ErrorCode::OutOfOrderSequenceNumber)
    }])
    .await;
    let mut producer = producer(&broker, ProducerOptions::default()).await;
    let partition = PartitionId::new(0);
    let outcomes = producer.send_to("t", partition, &[record("a")]).await.unwrap();
    assert!(outcomes[0].result.is_err());
    producer.send_to("t", partition, &[record("b")]).await.unwrap();
    assert_eq!(broker.received(ApiKey::InitProducerId).len(), 2);
}

#[tokio::test]
async fn without_acknowledgement_nothing_is_waited_for() {
    let broker = broker_for_produce(vec![|_| Action::Silence, |_| Action::Silence]).await;
    let options = ProducerOptions { acks: Acks::None, ..ProducerOptions::default() };
    let mut producer = producer(&broker, options).await;
    for value in ["a", "b"] {
        let outcomes = producer.send("t", &[record(value)]).await.unwrap();
        assert_eq!(outcomes[0].result.as_ref().unwrap(), &None);
    }
    // A call that is answered after both proves that both arrived.
    producer.send("nope", &[record("c")]).await.unwrap_err();
    assert!(broker.received(ApiKey::InitProducerId).is_empty());
}

#[tokio::test]
async fn keyed_records_go_where_kafkas_client_sends_them() {
    let broker = broker_for_produce(Vec::new()).await;
    let mut producer = producer(&broker, ProducerOptions::default()).await;
    let keys = ["21", "foobar", "abc"];
    let records: Vec<_> = keys
        .iter()
        .map(|key| Record { key: Some(Bytes::from_static(key.as_bytes())), ..record("v") })
        .collect();
    producer.send("t", &records).await.unwrap();
    let request = &broker.received(ApiKey::Produce)[0];
    let mut by_key = Vec::new();
    for (partition, batch) in batches(request) {
        for record in Batch::first(&batch).unwrap().records().unwrap() {
            by_key.push((record.unwrap().key.unwrap().to_vec(), partition));
        }
    }
    let expected = keys.map(|key| {
        let partition = client::partition_for_key(key.as_bytes(), 2).cast_signed();
        (key.as_bytes().to_vec(), partition)
    });
    by_key.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(by_key, expected);
}

fn stored(first: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20);
    assert!(values.iter().all(|value| builder.push(&record(value))));
    let mut batch = builder.build(None).unwrap().to_vec();
    assign_offsets(&mut batch, Offset::new(first), LeaderEpoch::new(5)).unwrap();
    batch
}

fn fetched(partition: i32, error_code: ErrorCode, records: Vec<u8>) -> FetchPartitionResponse {
    FetchPartitionResponse {
        partition_index: PartitionId::new(partition),
        error_code,
        high_watermark: Some(Offset::new(1000)),
        records: Some(Records::Inline(Bytes::from(records))),
        ..FetchPartitionResponse::default()
    }
}

/// A broker that gives these answers to Fetch, one after the other, then nothing.
async fn consumer_of(answers: Vec<Vec<FetchPartitionResponse>>) -> (FakeBroker, Consumer) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let broker = FakeBroker::start(2, move |received| {
        (received.header.key == ApiKey::Fetch).then(|| match answers.lock().unwrap().next() {
            Some(partitions) => received.answer(&FetchResponse {
                responses: vec![FetchTopicResponse {
                    topic: "t".to_owned(),
                    partitions,
                    ..FetchTopicResponse::default()
                }],
                ..FetchResponse::default()
            }),
            None => Action::Silence,
        })
    })
    .await;
    let mut cluster =
        Cluster::connect(std::slice::from_ref(&broker.address), hasty()).await.unwrap();
    cluster.refresh_topic("t").await.unwrap();
    (broker, Consumer::new(cluster, ConsumerOptions::default()))
}

async fn assign(consumer: &mut Consumer, partition: i32, offset: i64) {
    let position = Position::At(Offset::new(offset));
    consumer.assign("t", PartitionId::new(partition), position).await.unwrap();
}

fn values(fetched: &client::Fetched) -> Vec<(i64, String)> {
    let records = fetched.records.iter().map(|(offset, record)| {
        let value = record.value.as_deref().unwrap_or_default();
        (offset.get(), String::from_utf8(value.to_vec()).unwrap())
    });
    records.collect()
}

#[tokio::test]
async fn reading_begins_inside_a_batch_and_ends_before_one_cut_short() {
    let mut bytes = [stored(10, &["a", "b", "c"]), stored(13, &["d"])].concat();
    let cut = stored(14, &["e"]);
    bytes.extend_from_slice(&cut[..cut.len() - 1]);
    let answers =
        vec![vec![fetched(0, ErrorCode::None, bytes)], vec![fetched(0, ErrorCode::None, cut)]];
    let (broker, mut consumer) = consumer_of(answers).await;
    assign(&mut consumer, 0, 11).await;
    let first = consumer.poll().await.unwrap();
    assert_eq!(values(&first[0]), [(11, "b".into()), (12, "c".into()), (13, "d".into())]);
    assert_eq!(first[0].position, Offset::new(14));
    let second = consumer.poll().await.unwrap();
    assert_eq!(values(&second[0]), [(14, "e".to_owned())]);
    let asked: Vec<_> = broker
        .received(ApiKey::Fetch)
        .iter()
        .map(|received| received.body::<FetchRequest>().topics[0].partitions[0].fetch_offset.get())
        .collect();
    assert_eq!(asked, [11, 14]);
}

#[tokio::test]
async fn an_error_of_one_partition_does_not_lose_anothers_records() {
    let bad = fetched(1, ErrorCode::OffsetOutOfRange, Vec::new());
    let good = fetched(0, ErrorCode::None, stored(0, &["a"]));
    let (_broker, mut consumer) = consumer_of(vec![vec![bad, good]]).await;
    assign(&mut consumer, 0, 0).await;
    assign(&mut consumer, 1, 5000).await;
    let fetched = consumer.poll().await.unwrap();
    assert_eq!(values(&fetched[0]), [(0, "a".to_owned())]);
    let error = consumer.poll().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
}

#[tokio::test]
async fn a_moved_leader_is_looked_for_and_a_damaged_batch_reported() {
    let mut damaged = stored(1, &["b"]);
    *damaged.last_mut().unwrap() ^= 1;
    let first = [stored(0, &["a"]), damaged.clone()].concat();
    let moved = vec![fetched(0, ErrorCode::NotLeaderOrFollower, Vec::new())];
    let (broker, mut consumer) = consumer_of(vec![
        moved,
        vec![fetched(0, ErrorCode::None, first)],
        vec![fetched(0, ErrorCode::None, damaged)],
    ])
    .await;
    assign(&mut consumer, 0, 0).await;
    let asked_before = broker.received(ApiKey::Metadata).len();
    let before_damage = consumer.poll().await.unwrap();
    assert_eq!(values(&before_damage[0]), [(0, "a".to_owned())]);
    assert!(broker.received(ApiKey::Metadata).len() > asked_before);
    let error = consumer.poll().await.unwrap_err();
    assert!(matches!(error, ClientError::Batch { partition: 0, offset: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_dropped_poll_loses_no_answer() {
    let answers = vec![vec![fetched(0, ErrorCode::None, stored(0, &["a"]))]];
    let (broker, mut consumer) = consumer_of(answers).await;
    assign(&mut consumer, 0, 0).await;
    // Polled once, which sends the fetch, then dropped.
    {
        let mut poll = std::pin::pin!(consumer.poll());
        while broker.received(ApiKey::Fetch).is_empty() {
            tokio::select! {
                biased;
                fetched = &mut poll => panic!("answered before it was asked: {fetched:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let fetched = consumer.poll().await.unwrap();
    assert_eq!(values(&fetched[0]), [(0, "a".to_owned())]);
    assert_eq!(broker.received(ApiKey::Fetch).len(), 1);
}
