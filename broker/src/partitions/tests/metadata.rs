use broker_core::image::Applied;

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

#[test]
fn directories_are_one_clusters_for_good() {
    let mut bench = Bench::new("");
    bench.partitions.claim("one").unwrap();
    bench.partitions.claim("one").unwrap();
    bench.restart(true);
    let refused = bench.partitions.claim("two");
    assert!(matches!(&refused, Err(DirectoryError::OtherCluster { holds, here, .. })
        if holds == "one" && here == "two"));
    bench.partitions.claim("one").unwrap();
}

#[tokio::test]
async fn what_a_stop_left_on_its_way_out_goes_at_the_next_start() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    bench.partitions.stop();
    let logs = bench.folder.join("logs");
    let leftover = logs.join("u-0.0-delete");
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("00000000000000000000.log"), b"old").unwrap();
    bench.restart(true);
    bench.until(|_| !leftover.exists());
    assert!(logs.join("t-0").exists());
}

/// Topic `t` goes and comes again with another id, all in one change of the image.
fn replace_topic(bench: &mut Bench) -> broker_core::image::Applied {
    let partitions = "/brokers/topics/t/partitions/0/state".to_owned();
    let topic = r#"{"partitions":{"0":[1]},"topic_id":"3AoYbHmeRFmrj6Tnl-VdtQ","adding_replicas":{},"removing_replicas":{},"version":3}"#;
    let items = [
        (ItemKind::Deleted, partitions.clone(), String::new()),
        (ItemKind::Deleted, "/brokers/topics/t".into(), String::new()),
        (ItemKind::Created, "/brokers/topics/t".into(), topic.to_owned()),
        (ItemKind::Created, partitions, state(1, 0, "[1]")),
    ];
    bench.zxid += 1;
    let zxid = Zxid::new(bench.zxid);
    let stat = Stat { czxid: zxid, mzxid: zxid, version: 0 };
    let item = |(kind, path, data): (_, _, String)| Item { kind, path, data: data.into(), stat };
    let items = items.into_iter().map(item).collect();
    bench.feed.apply(FeedEvent::Changes { zxid, items }).expect("new to the image")
}

fn replacement() -> TopicPartition {
    let topic: TopicId = "3AoYbHmeRFmrj6Tnl-VdtQ".parse().unwrap();
    TopicPartition { topic, ..key() }
}

async fn replacement_is_empty_and_lasts(bench: &mut Bench) {
    let status = |bench: &Bench| {
        let all = bench.partitions.status();
        all.into_iter().find(|status| status.partition == replacement())
    };
    bench.until(|bench| status(bench).is_some_and(|status| status.leading.is_some()));
    assert_eq!(status(bench).map(|status| status.end), Some(Offset::ZERO));
    let request = ProduceRequest {
        acks: -1,
        timeout: PATIENCE,
        zstd_allowed: true,
        transactional: false,
        may_serve: true,
        batches: vec![ProduceBatch { partition: replacement(), records: batch(&["new"]) }],
    };
    let outcomes = bench.partitions.produce(request).await;
    assert_eq!(outcomes[0].as_ref().map(|produced| produced.base_offset), Ok(Offset::ZERO));
    bench.restart(false);
    let ended = status(bench).map(|status| (status.log_start, status.end, status.durable_end));
    assert_eq!(ended, Some((Offset::ZERO, Offset::new(1), Offset::new(1))));
    let report = bench.partitions.describe_replica(replacement()).expect("held");
    assert!(!report.cut_below_mark);
    assert!(!bench.sent().contains(&Sent::DirectoryFailed));
}

#[tokio::test]
async fn topic_of_the_same_name_gets_nothing_of_the_former_one() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["old", "older"])).await.unwrap();
    let applied = replace_topic(&mut bench);
    bench.partitions.apply(&applied);
    replacement_is_empty_and_lasts(&mut bench).await;
}

#[tokio::test]
async fn topic_whose_end_was_missed_leaves_its_folder_to_the_next() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["old", "older"])).await.unwrap();
    let applied = replace_topic(&mut bench);
    bench.partitions.begin(Zxid::new(1), &applied.image);
    replacement_is_empty_and_lasts(&mut bench).await;
}

const GONE: [&str; 2] = ["/brokers/topics/t/partitions/0/state", "/brokers/topics/t"];

/// Topic `t` goes, which only the image hears.
fn miss_the_end(bench: &mut Bench) -> broker_core::image::Applied {
    bench.zxid += 1;
    let zxid = Zxid::new(bench.zxid);
    let item = |path: &str| Item {
        kind: ItemKind::Deleted,
        path: path.to_owned(),
        data: Vec::new(),
        stat: Stat::default(),
    };
    let items = GONE.map(item).into();
    bench.feed.apply(FeedEvent::Changes { zxid, items }).expect("new to the image")
}

fn has_folder(bench: &Bench) -> bool {
    bench.folder.join("logs/t-0").exists()
}

#[tokio::test]
async fn topic_whose_end_was_missed_is_ended_and_deleted_at_the_next_beginning() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["old"])).await.unwrap();
    let applied = miss_the_end(&mut bench);
    bench.partitions.begin(Zxid::new(1), &applied.image);
    assert_eq!(bench.produce(1, batch(&["b"])).await, Err(ErrorCode::UnknownTopicOrPartition));
    assert!(bench.partitions.status().is_empty());
    bench.until(|bench| !has_folder(bench));
}

#[tokio::test]
async fn topic_that_goes_before_the_process_is_registered_takes_its_log_along() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["old"])).await.unwrap();
    bench.partitions.stop();
    bench.partitions = open(&bench.disk, &bench.folder, "", &bench.outlet).unwrap();
    let image = bench.feed.image().clone();
    bench.partitions.drop_gone(&Applied { image, changes: Vec::new() });
    assert!(bench.status().leading.is_none(), "not registered");
    let applied = miss_the_end(&mut bench);
    bench.partitions.drop_gone(&applied);
    assert!(bench.partitions.status().is_empty());
    bench.until(|bench| !has_folder(bench));
}

#[tokio::test]
async fn log_of_a_topic_that_this_process_never_saw_named_stays() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["old"])).await.unwrap();
    miss_the_end(&mut bench);
    bench.restart(true);
    bench.partitions.begin(Zxid::new(1), bench.feed.image());
    assert_eq!(bench.status().end, Offset::new(1));
    // What is asked of the log's thread is done before it ends.
    bench.restart(true);
    assert!(has_folder(&bench));
    assert_eq!(bench.status().end, Offset::new(1));
}
