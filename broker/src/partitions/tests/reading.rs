use super::*;

#[tokio::test]
async fn fetch_waits_for_what_is_produced() {
    let bench = Bench::alone("");
    let mut request = bench.consume(0);
    request.wait_max = PATIENCE;
    let waiting = tokio::spawn(bench.partitions.fetch(request));
    tokio::task::yield_now().await;
    bench.produce(-1, batch(&["a"])).await.unwrap();
    let answers = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(values_of(&answers[0]), ["a"]);
    assert_eq!(answers[0].high_watermark, Some(Offset::new(1)));
}

#[tokio::test]
async fn fetch_ends_with_its_time() {
    let bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    let mut request = bench.consume(0);
    request.wait_max = Duration::from_millis(30);
    request.bytes_min = 1 << 20;
    let begun = Instant::now();
    let fetched = bench.fetch(request).await;
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(values_of(&fetched), ["a"]);
}

#[tokio::test]
async fn fetch_hears_at_once_that_the_lead_is_gone() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    let mut request = bench.consume(0);
    request.wait_max = PATIENCE;
    let waiting = tokio::spawn(bench.partitions.fetch(request));
    tokio::task::yield_now().await;
    bench.set_state(&state(2, 1, "[1,2]"));
    let answers = tokio::time::timeout(PATIENCE / 2, waiting).await.unwrap().unwrap();
    assert_eq!(answers[0].error, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn given_up_fetch_leaves_nothing_behind() {
    let bench = Bench::alone("");
    let mut request = bench.consume(0);
    request.wait_max = PATIENCE;
    let waiting = tokio::spawn(bench.partitions.fetch(request));
    tokio::task::yield_now().await;
    waiting.abort();
    assert!(waiting.await.is_err());
    let partition = bench.partitions.partition(key()).unwrap();
    assert_eq!(partition.waiting_fetches(), 0);
}

#[tokio::test]
async fn newer_fetch_of_a_follower_answers_the_older() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    bench.produce(1, batch(&["a"])).await.unwrap();
    let mut older = bench.follow(1, 0, Some(0));
    older.wait_max = PATIENCE;
    let older = tokio::spawn(bench.partitions.fetch(older));
    tokio::task::yield_now().await;
    bench.until(|bench| {
        let partition = bench.partitions.partition(key()).unwrap();
        partition.waiting_fetches() == 1
    });
    bench.until(|bench| bench.status().durable_end.get() == 1);
    let mut progress = bench.follow(1, 1, Some(0));
    progress.partitions[0].bytes_max = 0;
    let told = bench.fetch(progress).await;
    assert_eq!((told.error, told.high_watermark), (ErrorCode::None, Some(Offset::new(1))));
    let partition = bench.partitions.partition(key()).unwrap();
    assert_eq!(partition.waiting_fetches(), 1);
    let newer = bench.fetch(bench.follow(1, 1, Some(0))).await;
    assert_eq!(newer.high_watermark, Some(Offset::new(1)));
    let answers = tokio::time::timeout(PATIENCE / 2, older).await.unwrap().unwrap();
    assert_eq!((answers[0].error, values_of(&answers[0]).len()), (ErrorCode::None, 0));
}

#[tokio::test]
async fn follower_that_only_tells_gets_no_records() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1,2]"));
    bench.until(Bench::leads);
    bench.produce(1, batch(&["a"])).await.unwrap();
    let mut progress = bench.follow(0, 0, None);
    progress.partitions[0].bytes_max = 0;
    let told = bench.fetch(progress).await;
    assert_eq!((told.error, values_of(&told).len()), (ErrorCode::None, 0));
    let fetched = bench.fetch(bench.follow(0, 0, None)).await;
    assert_eq!(values_of(&fetched), ["a"]);
}

#[tokio::test]
async fn offsets_out_of_range_say_where_the_log_begins() {
    let bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    for offset in [2, 100] {
        let fetched = bench.fetch(bench.consume(offset)).await;
        assert_eq!(fetched.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(fetched.log_start, Some(Offset::new(0)));
    }
    let mut request = bench.consume(0);
    request.partitions[0].current_leader_epoch = Some(LeaderEpoch::new(5));
    assert_eq!(bench.fetch(request).await.error, ErrorCode::UnknownLeaderEpoch);
}

#[tokio::test]
async fn byte_limits_hold_over_whole_batches() {
    let bench = Bench::alone("");
    for value in ["a", "b", "c"] {
        bench.produce(-1, batch(&[value])).await.unwrap();
    }
    let size = batch(&["a"]).len();
    for (bytes_max, expected) in [(1, 1), (size, 1), (2 * size, 2), (2 * size + 1, 2), (9999, 3)] {
        let mut request = bench.consume(0);
        request.bytes_max = u32::try_from(bytes_max).unwrap();
        assert_eq!(values_of(&bench.fetch(request).await).len(), expected, "{bytes_max}");
    }
}

#[tokio::test]
async fn cold_reads_give_the_same() {
    let mut bench = Bench::alone("log.segment.bytes = 1024");
    let values: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for value in &values {
        bench.produce(-1, batch(&[value.as_str()])).await.unwrap();
    }
    bench.restart(true);
    bench.set_state(&state(1, 1, "[1]"));
    bench.until(Bench::leads);
    let mut found = Vec::new();
    while found.len() < values.len() {
        let fetched = bench.fetch(bench.consume(found.len() as i64)).await;
        let some = values_of(&fetched);
        assert!(!some.is_empty());
        found.extend(some);
    }
    assert_eq!(found, values);
}

#[tokio::test]
async fn offsets_are_listed() {
    let bench = Bench::alone("");
    bench.produce(-1, batch(&["a", "b"])).await.unwrap();
    bench.produce(-1, batch(&["c"])).await.unwrap();
    let list = async |query| {
        let found = bench.partitions.list_offset(key(), None, query).await.unwrap();
        (found.offset.map(Offset::get), found.timestamp_ms)
    };
    assert_eq!(list(OffsetQuery::Earliest).await, (Some(0), None));
    assert_eq!(list(OffsetQuery::Latest).await, (Some(3), None));
    assert_eq!(list(OffsetQuery::Timestamp(500)).await, (Some(0), Some(1_000)));
    assert_eq!(list(OffsetQuery::Timestamp(1_000)).await, (Some(0), Some(1_000)));
    assert_eq!(list(OffsetQuery::Timestamp(1_001)).await, (None, None));
    assert_eq!(list(OffsetQuery::MaxTimestamp).await, (Some(0), Some(1_000)));
    let end = bench.partitions.offset_for_leader_epoch(key(), None, LeaderEpoch::new(0));
    assert_eq!(end.unwrap().unwrap().end_offset.get(), 3);
}
