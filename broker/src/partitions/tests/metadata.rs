use super::*;

#[tokio::test]
async fn deleted_topic_takes_its_log_along() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    let mut request = bench.consume(1);
    request.wait_max = PATIENCE;
    let waiting = tokio::spawn(bench.partitions.fetch(request));
    tokio::task::yield_now().await;
    bench.change(vec![
        (ItemKind::Deleted, "/brokers/topics/t/partitions/0/state".into(), String::new()),
        (ItemKind::Deleted, "/brokers/topics/t".into(), String::new()),
    ]);
    let answers = tokio::time::timeout(PATIENCE / 2, waiting).await.unwrap().unwrap();
    assert_ne!(answers[0].error, ErrorCode::None);
    assert_eq!(bench.produce(1, batch(&["b"])).await, Err(ErrorCode::UnknownTopicOrPartition));
    let logs = bench.folder.join("logs");
    bench.until(|_| {
        let names = std::fs::read_dir(&logs).unwrap();
        !names.flatten().any(|e| e.file_name().to_string_lossy().starts_with("t-0"))
    });
    bench.create("[1]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(-1, batch(&["new"])).await, Ok(0));
}

#[tokio::test]
async fn settings_of_a_topic_are_obeyed_from_when_they_change() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    bench.change(vec![(
        ItemKind::Created,
        "/config/topics/t".into(),
        r#"{"version":1,"config":{"max.message.bytes":"100","segment.bytes":"1024"}}"#.into(),
    )]);
    let big = "v".repeat(200);
    assert_eq!(bench.produce(1, batch(&[&big])).await, Err(ErrorCode::MessageTooLarge));
    for _ in 0..40 {
        bench.produce(-1, batch(&["a"])).await.unwrap();
    }
    let logs = std::fs::read_dir(bench.folder.join("logs/t-0")).unwrap();
    let segments =
        logs.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".log")).count();
    assert!(segments > 1, "{segments}");
}

#[tokio::test]
async fn lagging_replicas_and_joining_ones_go_to_the_controller() {
    let mut bench = Bench::new("replica.lag.time.max.ms = 30000");
    bench.create("[1,2]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    bench.fetch(bench.follow(0, 0, None)).await;
    assert!(bench.sent().contains(&Sent::Alter(vec![1, 2])));
}

#[test]
fn directories_are_held_by_one_process_and_remember() {
    let bench = Bench::new("");
    let held = bench.partitions.held();
    assert_eq!(held.directories.len(), 1);
    assert!(held.directories.values().all(Option::is_none));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let config = bench.partitions.config.clone();
    let outlet: Arc<dyn Outlet> = Arc::new(Recorder::default());
    let second = Partitions::open(config, BrokerId::new(1), &disk, outlet);
    assert!(matches!(second, Err(DirectoryError::Locked(_))));
    let record = broker_core::registration::DirectoryRecord::default();
    bench.partitions.record(record).unwrap();
    assert!(bench.partitions.held().directories.values().all(|found| *found == Some(record)));
    assert!(bench.image().topics().next().is_none());
}
