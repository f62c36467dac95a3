use super::*;

#[tokio::test]
async fn acknowledged_records_are_durable_and_readable() {
    let bench = Bench::alone("");
    assert_eq!(bench.produce(-1, batch(&["a", "b"])).await, Ok(0));
    assert_eq!(bench.produce(1, batch(&["c"])).await, Ok(2));
    assert_eq!(bench.produce(-1, batch(&["d"])).await, Ok(3));
    let status = bench.status();
    assert_eq!((status.durable_end.get(), status.high_watermark.get()), (4, 4));
    let fetched = bench.fetch(bench.consume(0)).await;
    assert_eq!(values_of(&fetched), ["a", "b", "c", "d"]);
    assert_eq!(records_of(&fetched)[3], (3, 0, "d".to_owned()));
    assert_eq!(values_of(&bench.fetch(bench.consume(2)).await), ["c", "d"]);
}

#[tokio::test]
async fn submissions_stand_in_their_order() {
    let bench = Bench::alone("");
    let values: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let pending: Vec<_> = values.iter().map(|v| bench.submit(-1, batch(&[v.as_str()]))).collect();
    for (number, pending) in pending.into_iter().enumerate() {
        let outcomes = tokio::time::timeout(PATIENCE, pending).await.unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().base_offset.get(), number as i64);
    }
    assert_eq!(values_of(&bench.fetch(bench.consume(0)).await), values);
}

#[tokio::test]
async fn retries_are_answered_and_not_written_again() {
    let bench = Bench::alone("");
    assert_eq!(bench.produce(-1, idempotent(0, &["a", "b"])).await, Ok(0));
    assert_eq!(bench.produce(-1, idempotent(2, &["c"])).await, Ok(2));
    assert_eq!(bench.produce(-1, idempotent(0, &["a", "b"])).await, Ok(0));
    assert_eq!(
        bench.produce(-1, idempotent(7, &["x"])).await,
        Err(ErrorCode::OutOfOrderSequenceNumber)
    );
    assert_eq!(values_of(&bench.fetch(bench.consume(0)).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_follows_a_refused_batch_is_refused_like_it_and_not_called_out_of_order() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    let few = Err(ErrorCode::NotEnoughReplicas);
    // Nothing is known of the producer: any sequence would do.
    assert_eq!(bench.produce(-1, idempotent(0, &["a"])).await, few);
    bench.set_state(&state(1, 0, "[1,2]"));
    assert_eq!(bench.produce(1, idempotent(1, &["b"])).await, few);
    assert_eq!(bench.produce(1, idempotent(0, &["a"])).await, Ok(0));
    assert_eq!(bench.produce(1, idempotent(1, &["b"])).await, Ok(1));
    // Its last sequence is known.
    bench.set_state(&state(1, 0, "[1]"));
    assert_eq!(bench.produce(-1, idempotent(2, &["c"])).await, few);
    bench.set_state(&state(1, 0, "[1,2]"));
    assert_eq!(bench.produce(1, idempotent(3, &["d", "e"])).await, few);
    assert_eq!(bench.produce(1, idempotent(1, &["b"])).await, Ok(1), "sent again");
    assert_eq!(bench.produce(1, idempotent(2, &["c"])).await, Ok(2));
    assert_eq!(bench.produce(1, idempotent(3, &["d", "e"])).await, Ok(3));
    // Nothing that was refused is missing here.
    let gap = Err(ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(bench.produce(1, idempotent(7, &["x"])).await, gap);
    assert_eq!(values_of(&bench.fetch(bench.follow(0, 0, None)).await), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn retry_in_the_same_drain_is_a_duplicate_too() {
    let bench = Bench::alone("");
    let pending: Vec<_> = (0..20).map(|_| bench.submit(-1, idempotent(0, &["a"]))).collect();
    for pending in pending {
        let outcomes = tokio::time::timeout(PATIENCE, pending).await.unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().base_offset.get(), 0);
    }
    assert_eq!(bench.status().end.get(), 1);
}

#[tokio::test]
async fn bad_batches_and_wrong_places_are_refused() {
    let bench = Bench::alone("");
    let mut damaged = batch(&["a"]);
    let last = damaged.len() - 2;
    damaged[last] ^= 1;
    assert_eq!(bench.produce(-1, damaged).await, Err(ErrorCode::CorruptMessage));
    assert_eq!(bench.produce(-1, BytesMut::new()).await, Err(ErrorCode::InvalidRecord));
    assert_eq!(bench.produce(2, batch(&["a"])).await, Err(ErrorCode::InvalidRequiredAcks));
    let big = "v".repeat(1_100_000);
    assert_eq!(bench.produce(1, batch(&[&big])).await, Err(ErrorCode::MessageTooLarge));
    let elsewhere = TopicPartition { partition: PartitionId::new(7), ..key() };
    let pending = bench.partitions.produce(ProduceRequest {
        acks: 1,
        timeout: PATIENCE,
        zstd_allowed: true,
        transactional: false,
        may_serve: true,
        batches: vec![
            ProduceBatch { partition: elsewhere, records: batch(&["a"]) },
            ProduceBatch { partition: key(), records: batch(&["b"]) },
        ],
    });
    let outcomes = pending.await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().error, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(outcomes[1].as_ref().unwrap().base_offset.get(), 0);
}

#[tokio::test]
async fn acks_zero_waits_for_its_place_in_the_log_only() {
    let bench = Bench::alone("");
    // In flight until it is appended, so that what waits for the disk stays bounded.
    assert!(matches!(bench.submit(0, batch(&["x"])), PendingProduce::Later(_)));
    assert_eq!(bench.produce(0, batch(&["a"])).await, Ok(1));
    assert_eq!(bench.produce(-1, batch(&["b"])).await, Ok(2));
    assert_eq!(values_of(&bench.fetch(bench.consume(0)).await), ["x", "a", "b"]);
}

#[tokio::test]
async fn acks_all_waits_for_the_in_sync_replicas() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    let pending = bench.submit(-1, batch(&["a"]));
    assert_eq!(bench.produce(1, batch(&["b"])).await, Ok(1));
    bench.until(|bench| bench.status().durable_end.get() == 2);
    assert_eq!(bench.status().high_watermark.get(), 0);
    assert!(values_of(&bench.fetch(bench.consume(0)).await).is_empty());
    // The follower has both, one of them on disk.
    let fetched = bench.fetch(bench.follow(0, 0, None)).await;
    assert_eq!(values_of(&fetched), ["a", "b"]);
    bench.fetch(bench.follow(2, 1, Some(0))).await;
    let outcomes = tokio::time::timeout(PATIENCE, pending).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().base_offset.get(), 0);
    assert_eq!(values_of(&bench.fetch(bench.consume(0)).await), ["a"]);
    assert_eq!(bench.status().high_watermark.get(), 1);
}

#[tokio::test]
async fn acks_all_ends_with_its_time_or_with_the_lead() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    let request = ProduceRequest {
        acks: -1,
        timeout: Duration::from_millis(60),
        zstd_allowed: true,
        transactional: false,
        may_serve: true,
        batches: vec![ProduceBatch { partition: key(), records: batch(&["a"]) }],
    };
    let outcomes = bench.partitions.produce(request).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().error, ErrorCode::RequestTimedOut);
    let pending = bench.submit(-1, batch(&["b"]));
    bench.until(|bench| bench.status().end.get() == 2);
    bench.set_state(&state(2, 1, "[1,2]"));
    let outcomes = tokio::time::timeout(PATIENCE, pending).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap_err().error, ErrorCode::NotLeaderOrFollower);
    assert_eq!(bench.produce(1, batch(&["c"])).await, Err(ErrorCode::NotLeaderOrFollower));
}

#[tokio::test]
async fn too_few_in_sync_replicas_refuse_acks_all_only() {
    let mut bench = Bench::new("");
    bench.create("[1,2,3]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(-1, batch(&["a"])).await, Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(bench.produce(1, batch(&["a"])).await, Ok(0));
    assert_eq!(bench.status().high_watermark.get(), 0);
}

#[tokio::test]
async fn memory_topic_is_acknowledged_without_a_sync() {
    let mut bench = Bench::new("");
    let config = r#"{"version":1,"config":{"durability":"memory"}}"#;
    bench.change(vec![(ItemKind::Created, "/config/topics/t".into(), config.into())]);
    bench.create("[1]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(-1, batch(&["a"])).await, Ok(0));
    let status = bench.status();
    assert_eq!((status.high_watermark.get(), status.durable_end.get()), (1, 0));
}

#[tokio::test]
async fn append_time_replaces_the_producers() {
    let bench = Bench::alone("log.message.timestamp.type = \"LogAppendTime\"");
    let outcomes = bench.submit(-1, batch(&["a", "b"])).await;
    let time = outcomes[0].as_ref().unwrap().log_append_time_ms.unwrap();
    assert!(time > 1_600_000_000_000);
    let bytes = bytes_of(&bench.fetch(bench.consume(0)).await);
    let header = Batches::new(&bytes).next().unwrap().unwrap();
    header.check_crc().unwrap();
    assert_eq!(header.header.max_timestamp, time);
}

#[tokio::test]
async fn waiting_requests_are_refused_at_the_stop() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    let pending = bench.submit(-1, batch(&["a"]));
    bench.until(|bench| bench.status().end.get() == 1);
    bench.partitions.stop();
    let outcomes = tokio::time::timeout(PATIENCE, pending).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap_err().error, ErrorCode::NotLeaderOrFollower);
    let late = tokio::time::timeout(PATIENCE, bench.submit(1, batch(&["b"]))).await.unwrap();
    assert!(late[0].is_err());
}

#[tokio::test]
async fn what_is_answered_is_there_for_whoever_asks_next() {
    let bench = Bench::alone("");
    for number in 0..200 {
        assert_eq!(bench.produce(1, batch(&["a"])).await, Ok(number));
        let end_offset = bench.partitions.describe_replica(key()).unwrap().end_offset;
        assert_eq!(end_offset.get(), number + 1);
    }
}
