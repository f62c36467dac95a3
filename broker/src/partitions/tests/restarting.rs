use super::*;

#[tokio::test]
async fn acknowledged_records_survive_any_restart() {
    for clean in [true, false] {
        let mut bench = Bench::alone("");
        for number in 0..20 {
            bench.produce(-1, idempotent(number, &["a"])).await.unwrap();
        }
        bench.restart(clean);
        assert_eq!(bench.status().end.get(), 20);
        assert!(!bench.leads(), "leads under an epoch from before its start");
        bench.set_state(&state(1, 1, "[1]"));
        bench.until(Bench::leads);
        bench.until(|bench| bench.status().high_watermark.get() == 20);
        assert_eq!(bench.produce(-1, idempotent(19, &["a"])).await, Ok(19));
        assert_eq!(bench.produce(-1, idempotent(20, &["b"])).await, Ok(20));
        assert_eq!(values_of(&bench.fetch(bench.consume(0)).await).len(), 21);
    }
}

#[tokio::test]
async fn same_directory_has_the_same_id_and_boot() {
    let mut bench = Bench::new("");
    let before = bench.partitions.held();
    bench.restart(false);
    assert_eq!(bench.partitions.held(), before);
    assert!(!before.boot_changed);
}

#[tokio::test]
async fn damaged_log_serves_nothing_false_and_is_repaired_from_the_leader() {
    let mut bench = Bench::new("");
    bench.create("[1,2]", &state(1, 0, "[1]"));
    bench.until(Bench::leads);
    for value in ["a", "b", "c"] {
        bench.produce(1, batch(&[value])).await.unwrap();
    }
    bench.until(|bench| bench.status().durable_end.get() == 3);
    let log = bench.folder.join("logs/t-0/00000000000000000000.log");
    let whole = std::fs::read(&log).unwrap();
    bench.partitions.abandon();
    let mut bytes = whole.clone();
    let at = bytes.len() / 3 * 2 - 4;
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    bench.restart(false);
    let report = bench.partitions.describe_replica(key()).unwrap();
    assert_eq!((report.end_offset.get(), report.cut_below_mark), (1, true));
    bench.set_state(&state(2, 1, "[2]"));
    bench.until(|bench| bench.partitions.fetch_position(key()).is_some());
    let position = bench.partitions.fetch_position(key()).unwrap();
    assert_eq!(position.fetch_offset.get(), 1);
    let answer = broker_core::partition::FetchAnswer {
        leader_epoch: position.leader_epoch,
        fetch_offset: position.fetch_offset,
        error: ErrorCode::None,
        diverging: None,
        high_watermark: Some(Offset::new(3)),
        log_start: Some(Offset::ZERO),
        has_records: true,
    };
    let rest = Bytes::copy_from_slice(&whole[whole.len() / 3..]);
    bench.partitions.fetch_answered(key(), &answer, &rest).unwrap();
    bench.until(|bench| bench.status().durable_end.get() == 3);
    assert_eq!(std::fs::read(&log).unwrap(), whole);
    assert!(bench.partitions.describe_replica(key()).unwrap().cut_below_mark);
    bench.set_state(&state(2, 1, "[2,1]"));
    assert!(!bench.partitions.describe_replica(key()).unwrap().cut_below_mark);
}

#[tokio::test]
async fn clean_stop_is_noted_and_believed_once() {
    let mut bench = Bench::alone("log.segment.bytes = 1024");
    for _ in 0..40 {
        bench.produce(-1, batch(&["a"])).await.unwrap();
    }
    let marker = bench.folder.join("logs/clean-shutdown");
    bench.partitions.stop();
    assert!(marker.exists());
    for _ in 0..2 {
        bench.restart(true);
        assert!(!marker.exists());
        let status = bench.status();
        assert_eq!((status.durable_end.get(), status.high_watermark.get()), (40, 40));
    }
}

#[tokio::test]
async fn lost_folder_of_what_was_durable_is_told() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    bench.partitions.stop();
    std::fs::remove_dir_all(bench.folder.join("logs/t-0")).unwrap();
    bench.restart(false);
    bench.until(|bench| bench.partitions.describe_replica(key()).is_ok());
    assert!(bench.partitions.describe_replica(key()).unwrap().cut_below_mark);
}

#[tokio::test]
async fn partition_that_cannot_be_read_is_not_left_out_of_a_start() {
    let mut bench = Bench::alone("");
    bench.produce(-1, batch(&["a"])).await.unwrap();
    bench.partitions.stop();
    let (file, aside) = (bench.folder.join("logs/t-0/partition"), bench.folder.join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    // Opens, and refuses to be read.
    std::fs::create_dir(&file).unwrap();
    let started = open(&bench.disk, &bench.folder, "", &bench.outlet);
    let why = started.err().expect("a start without a log that is there").to_string();
    assert!(why.contains("t-0/partition"), "{why}");
    // What lies in a folder of another kind of name is none of our business.
    std::fs::rename(&file, bench.folder.join("logs/lost+found")).unwrap();
    std::fs::create_dir(bench.folder.join("logs/lost+found/partition")).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    bench.restart(false);
    let report = bench.partitions.describe_replica(key()).unwrap();
    assert_eq!((report.end_offset.get(), report.cut_below_mark), (1, false));
}

#[tokio::test]
async fn nothing_is_removed_before_the_metadata_has_told_for_how_long_it_is_kept() {
    let mut bench = Bench::alone("log.segment.bytes = 1024");
    let value = "v".repeat(400);
    for _ in 0..12 {
        bench.produce(-1, batch(&[&value])).await.unwrap();
    }
    bench.partitions.stop();
    // The coordinators cannot be reached: nothing is known but what is on the disk, and its records are from 1970.
    bench.partitions = open(&bench.disk, &bench.folder, &bench.toml, &bench.outlet).unwrap();
    bench.partitions.retain();
    bench.partitions.stop();
    assert_eq!(bench.status().log_start, Offset::ZERO);

    bench.restart(true);
    bench.set_state(&state(1, 1, "[1]"));
    bench.until(|bench| bench.leads());
    bench.partitions.retain();
    bench.until(|bench| bench.status().log_start > Offset::ZERO);
}
