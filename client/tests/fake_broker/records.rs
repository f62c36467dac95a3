//! Producer and consumer against a broker that refuses, forgets and hangs up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Action, FakeBroker, Received, hasty};
use bytes::Bytes;
use client::protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
use client::protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
use client::protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use client::protocol::records::{Batch, BatchBuilder, Compression, Record, assign_offsets};
use client::protocol::{ApiKey, ErrorCode, LeaderEpoch, Offset, PartitionId, Records};
use client::{
    Acks, Begin, ClientError, Consumer, ConsumerOptions, Producer, ProducerOptions, Reset,
    TopicPartition,
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

fn producer(broker: &FakeBroker, options: ProducerOptions) -> Producer {
    Producer::new(std::slice::from_ref(&broker.address), &hasty(), options)
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
    let producer = producer(&broker, ProducerOptions::default());
    let partition = PartitionId::new(1);
    let first = producer.send_to("t", partition, record("a")).await.unwrap();
    let second = producer.send_to("t", partition, record("b")).await.unwrap();
    let written = second.wait().await.unwrap();
    assert_eq!((written.partition, written.offset), (partition, Some(Offset::new(101))));
    assert_eq!(first.outcome().unwrap().unwrap().offset, Some(Offset::new(100)));
    let attempts = sent(&broker);
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|attempt| *attempt == attempts[0]));
    assert_eq!(sequence(&attempts[0]), (Some(4000), 0, 2));

    producer.send_to("t", partition, record("c")).await.unwrap().await.unwrap();
    assert_eq!(sequence(&sent(&broker)[4]), (Some(4000), 2, 1), "the sequence goes on");
    producer.close().await;
}

#[tokio::test]
async fn a_refused_batch_is_told_of_and_does_not_stop_the_next() {
    let broker =
        broker_for_produce(vec![|received| produced(received, ErrorCode::MessageTooLarge)]).await;
    let producer = producer(&broker, ProducerOptions::default());
    let partition = PartitionId::new(0);
    let refused = producer.send_to("t", partition, record("a")).await.unwrap();
    let error = refused.wait().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge));
    assert!(matches!(&error, ClientError::Undelivered { may_be_written: false, .. }), "{error}");
    assert!(!error.is_retriable() && error.hint().is_some());
    producer.send_to("t", partition, record("b")).await.unwrap().await.unwrap();
    let sequences: Vec<_> = sent(&broker).iter().map(sequence).collect();
    assert_eq!(sequences, [(Some(4000), 0, 1), (Some(4000), 0, 1)]);
    let epochs: Vec<_> = sent(&broker)
        .iter()
        .map(|batch| Batch::first(batch).unwrap().header.producer_epoch.unwrap().get())
        .collect();
    assert_eq!(epochs, [0, 1], "a number that is never written leaves a gap behind");
}

#[tokio::test]
async fn a_number_the_broker_does_not_expect_leads_to_a_higher_epoch_and_loses_nothing() {
    let broker = broker_for_produce(vec![|received| {
        produced(received, ErrorCode::OutOfOrderSequenceNumber)
    }])
    .await;
    let producer = producer(&broker, ProducerOptions::default());
    producer.send_to("t", PartitionId::new(0), record("a")).await.unwrap().await.unwrap();
    assert_eq!(sent(&broker).len(), 2);
    assert_eq!(broker.received(ApiKey::InitProducerId).len(), 1);
}

#[tokio::test]
async fn a_connection_that_ended_while_idle_is_opened_anew_at_once() {
    let last = |received: &Received| match produced(received, ErrorCode::None) {
        Action::Send(bytes) => Action::Last(bytes),
        other => other,
    };
    let broker = broker_for_produce(vec![last]).await;
    // The broker's end of the connection is seen while the batch waits for more records.
    let options =
        ProducerOptions { linger: Duration::from_millis(200), ..ProducerOptions::default() };
    let guard = options.delivery_timeout / 2;
    let producer = producer(&broker, options);
    for value in ["a", "b"] {
        let delivery = producer.send("t", record(value)).await.unwrap();
        let written = tokio::time::timeout(guard, delivery.wait()).await;
        written.unwrap_or_else(|_| panic!("{value}: {:?}", sent(&broker))).unwrap();
    }
    assert_eq!(sent(&broker).len(), 2, "nothing was sent on the connection that had ended");
}

#[tokio::test]
async fn a_dropped_producer_leaves_no_delivery_open() {
    let broker = broker_for_produce(vec![|_| Action::Silence]).await;
    let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
    let guard = options.delivery_timeout / 2;
    let producer = producer(&broker, options);
    let partition = PartitionId::new(0);
    let first = producer.send_to("t", partition, record("a")).await.unwrap();
    let under_way = async {
        while sent(&broker).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(guard, under_way).await.expect("the first batch is sent");
    // Not sent before the first one is acknowledged.
    let second = producer.send_to("t", partition, record("b")).await.unwrap();
    drop(producer);
    for (delivery, may_be) in [(first, true), (second, false)] {
        let ended = tokio::time::timeout(guard, delivery.wait()).await;
        let error = ended.expect("told of the end").unwrap_err();
        let ClientError::Undelivered { may_be_written, .. } = error else { panic!("{error}") };
        assert_eq!(may_be_written, may_be);
    }
}

#[tokio::test]
async fn without_acknowledgement_nothing_is_waited_for() {
    let broker = broker_for_produce(vec![|_| Action::Silence, |_| Action::Silence]).await;
    let options = ProducerOptions { acks: Acks::None, ..ProducerOptions::default() };
    let producer = producer(&broker, options);
    for value in ["a", "b"] {
        let written = producer.send("t", record(value)).await.unwrap().await.unwrap();
        assert_eq!(written.offset, None);
    }
    assert!(broker.received(ApiKey::InitProducerId).is_empty());
    producer.close().await;
}

#[tokio::test]
async fn a_record_that_is_refused_comes_back_with_the_reason() {
    let broker = broker_for_produce(vec![|_| Action::Silence]).await;
    let options = ProducerOptions {
        buffer_bytes_max: 1000,
        wait_max: std::time::Duration::from_millis(50),
        ..ProducerOptions::default()
    };
    let producer = producer(&broker, options);
    let large = record(&"x".repeat(1000));
    let refused = producer.send("t", large.clone()).await.unwrap_err();
    assert_eq!(refused.record.value, large.value);
    assert!(matches!(*refused.error, ClientError::RecordTooLarge { bytes_max: 1000, .. }));
    assert!(!refused.error.is_retriable());

    let half = record(&"x".repeat(500));
    producer.send("t", half.clone()).await.unwrap();
    let refused = producer.try_send("t", None, half.clone()).unwrap_err();
    assert_eq!(refused.record.value, half.value);
    assert!(matches!(*refused.error, ClientError::BufferFull { bytes_max: 1000 }));
    let refused = producer.send("t", half.clone()).await.unwrap_err();
    assert!(refused.error.is_retriable(), "it waited for room: {}", refused.error);

    let nowhere = producer.send_to("t", PartitionId::new(2), record("a")).await.unwrap_err();
    assert!(matches!(*nowhere.error, ClientError::NoSuchPartition { partition: 2, .. }));
    let unknown = producer.send("nope", record("a")).await.unwrap_err();
    assert_eq!(unknown.error.code(), Some(ErrorCode::UnknownTopicOrPartition));
}

#[tokio::test]
async fn batches_are_packed_as_asked() {
    let broker = broker_for_produce(Vec::new()).await;
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let options = ProducerOptions { compression: codec, ..ProducerOptions::default() };
        let producer = producer(&broker, options);
        let value = "again and again, ".repeat(50);
        let delivery = producer.send_to("t", PartitionId::new(0), record(&value)).await.unwrap();
        delivery.wait().await.unwrap();
        let batch = sent(&broker).pop().unwrap();
        let batch = Batch::first(&batch).unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.header.compression(), Some(codec));
        assert!(batch.bytes.len() < value.len());
    }
}

#[tokio::test]
async fn keyed_records_go_where_kafkas_client_sends_them() {
    let broker = broker_for_produce(Vec::new()).await;
    let producer = producer(&broker, ProducerOptions::default());
    for key in ["21", "foobar", "abc"] {
        let record = Record { key: Some(Bytes::from_static(key.as_bytes())), ..record("v") };
        let written = producer.send("t", record).await.unwrap().await.unwrap();
        let expected = client::partition_for_key(key.as_bytes(), 2);
        assert_eq!(written.partition.get().unsigned_abs(), expected, "{key}");
    }
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

fn answer_fetch(received: &Received, partitions: Vec<FetchPartitionResponse>) -> Action {
    received.answer(&FetchResponse {
        responses: vec![FetchTopicResponse {
            topic: "t".to_owned(),
            partitions,
            ..FetchTopicResponse::default()
        }],
        ..FetchResponse::default()
    })
}

/// A broker that gives these answers to Fetch, one after the other, then nothing.
async fn consumer_of(answers: Vec<Vec<FetchPartitionResponse>>) -> (FakeBroker, Consumer) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    let broker = FakeBroker::start(2, move |received| {
        (received.header.key == ApiKey::Fetch).then(|| match answers.lock().unwrap().next() {
            Some(partitions) => answer_fetch(received, partitions),
            None => Action::Silence,
        })
    })
    .await;
    let options = ConsumerOptions { reset: Reset::Error, ..ConsumerOptions::default() };
    let consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
    (broker, consumer)
}

fn assign(consumer: &mut Consumer, partition: i32, offset: i64) {
    let begin = Begin::At(Offset::new(offset));
    consumer.assign(&TopicPartition::new("t", partition), begin).unwrap();
}

fn values(fetched: &client::Fetched) -> Vec<(i64, String)> {
    let records = fetched.records().map(|record| {
        let value = record.value.unwrap_or_default();
        (record.offset.get(), String::from_utf8(value.to_vec()).unwrap())
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
    assign(&mut consumer, 0, 11);
    let first = consumer.poll().await.unwrap();
    assert_eq!(values(&first[0]), [(11, "b".into()), (12, "c".into()), (13, "d".into())]);
    assert_eq!(first[0].next.offset, Offset::new(14));
    assert_eq!(consumer.position(&TopicPartition::new("t", 0)), Some(Offset::new(14)));
    let second = consumer.poll().await.unwrap();
    assert_eq!(values(&second[0]), [(14, "e".to_owned())]);
    let asked: Vec<_> = broker
        .received(ApiKey::Fetch)
        .iter()
        .map(|received| received.body::<FetchRequest>().topics[0].partitions[0].fetch_offset.get())
        .collect();
    assert_eq!(asked[..2], [11, 14]);
}

#[tokio::test]
async fn an_error_of_one_partition_does_not_lose_anothers_records() {
    let bad = fetched(1, ErrorCode::OffsetOutOfRange, Vec::new());
    let good = fetched(0, ErrorCode::None, stored(0, &["a"]));
    let (_broker, mut consumer) = consumer_of(vec![vec![bad, good]]).await;
    assign(&mut consumer, 0, 0);
    assign(&mut consumer, 1, 5000);
    let fetched = consumer.poll().await.unwrap();
    assert_eq!(values(&fetched[0]), [(0, "a".to_owned())]);
    let error = consumer.poll().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
}

#[tokio::test]
async fn what_was_wrong_at_a_former_place_is_not_told_after_a_seek() {
    let broker = FakeBroker::start(2, |received| {
        let asked = |received: &Received| {
            let request: FetchRequest = received.body();
            let asked = request.topics[0].partitions.iter();
            let asked = asked.filter(|asked| asked.partition == PartitionId::new(1));
            asked.map(|asked| asked.fetch_offset.get()).next()
        };
        (received.header.key == ApiKey::Fetch).then(|| match asked(received) {
            Some(5000) => {
                let bad = fetched(1, ErrorCode::OffsetOutOfRange, Vec::new());
                answer_fetch(received, vec![bad, fetched(0, ErrorCode::None, stored(0, &["a"]))])
            }
            Some(0) => answer_fetch(received, vec![fetched(1, ErrorCode::None, stored(0, &["b"]))]),
            Some(_) | None => Action::Silence,
        })
    })
    .await;
    let options = ConsumerOptions { reset: Reset::Error, ..ConsumerOptions::default() };
    let mut consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
    assign(&mut consumer, 0, 0);
    assign(&mut consumer, 1, 5000);
    let first = consumer.poll().await.unwrap();
    assert_eq!(values(&first[0]), [(0, "a".to_owned())]);
    consumer.seek(&TopicPartition::new("t", 1), Begin::At(Offset::ZERO)).unwrap();
    let second = consumer.poll().await.unwrap();
    assert_eq!(values(&second[0]), [(0, "b".to_owned())]);
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
    assign(&mut consumer, 0, 0);
    let before_damage = consumer.poll().await.unwrap();
    assert_eq!(values(&before_damage[0]), [(0, "a".to_owned())]);
    assert!(broker.received(ApiKey::Metadata).len() > 1, "the leader was looked for anew");
    let error = consumer.poll().await.unwrap_err();
    assert!(matches!(&error, ClientError::Unreadable { offset: 1, .. }), "{error}");
    assert!(error.to_string().contains("t/0"), "{error}");
}

#[tokio::test]
async fn a_dropped_poll_loses_nothing_and_a_paused_partition_keeps_its_records() {
    let answers = vec![vec![fetched(0, ErrorCode::None, stored(0, &["a"]))]];
    let (broker, mut consumer) = consumer_of(answers).await;
    assign(&mut consumer, 0, 0);
    let partition = TopicPartition::new("t", 0);
    consumer.pause(&partition);
    // Polled, and dropped, until the fetch of before the pause, or none, has been answered.
    for _ in 0..3 {
        let poll = std::pin::pin!(consumer.poll());
        let other = std::pin::pin!(tokio::task::yield_now());
        tokio::select! {
            biased;
            fetched = poll => panic!("paused, yet {fetched:?}"),
            () = other => {}
        }
    }
    consumer.resume(&partition);
    let fetched = consumer.poll().await.unwrap();
    assert_eq!(values(&fetched[0]), [(0, "a".to_owned())]);
    assert!(!broker.received(ApiKey::Fetch).is_empty());
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn without_assignment_or_group_a_poll_returns_at_once() {
    let (_broker, mut consumer) = consumer_of(Vec::new()).await;
    assert!(consumer.poll().await.unwrap().is_empty());
    assert!(matches!(consumer.subscribe(&["t"]), Err(ClientError::NoGroup)));
    let nowhere = consumer.seek(&TopicPartition::new("t", 0), Begin::Earliest);
    assert!(matches!(nowhere, Err(ClientError::NotAssigned(_))));
}

#[tokio::test]
async fn what_is_read_no_more_makes_room_for_the_others_at_once() {
    let empty = || fetched(1, ErrorCode::None, Vec::new());
    let full = fetched(0, ErrorCode::None, stored(0, &["a"]));
    let other = fetched(1, ErrorCode::None, stored(0, &["b"]));
    let mut answers = vec![vec![full, empty()], vec![other]].into_iter();
    let broker = FakeBroker::start(2, move |received| {
        (received.header.key == ApiKey::Fetch).then(|| match answers.next() {
            Some(partitions) => answer_fetch(received, partitions),
            None => Action::Silence,
        })
    })
    .await;
    let options = ConsumerOptions { buffer_bytes_max: 1, ..ConsumerOptions::default() };
    let mut consumer = Consumer::new(std::slice::from_ref(&broker.address), &hasty(), options);
    assign(&mut consumer, 0, 0);
    assign(&mut consumer, 1, 0);
    let partition = TopicPartition::new("t", 0);
    while consumer.high_watermark(&partition).is_none() {
        tokio::task::yield_now().await;
    }
    // The driver has seen that there is no room, and sleeps.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.received(ApiKey::Fetch).len(), 1);
    consumer.unassign(&partition);
    let fetched = tokio::time::timeout(Duration::from_secs(60), consumer.poll()).await;
    assert_eq!(values(&fetched.expect("nothing is read").unwrap()[0]), [(0, "b".to_owned())]);
    consumer.close().await.unwrap();
}
