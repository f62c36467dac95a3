use super::*;

fn sixty(config: LogConfig) -> (Bench, Log) {
    let mut bench = Bench::new(config);
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    (bench, log)
}

#[test]
fn old_segments_go_below_the_limit_only() {
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let (_bench, mut log) = sixty(config.clone());
    assert_eq!(log.apply_retention(1_000, 180).unwrap().segments, []);
    let removed = log.apply_retention(1_130, 180).unwrap();
    assert!(!removed.segments.is_empty() && removed.log_start <= 93, "{removed:?}");
    assert_eq!(read_all(&log, 300)[0].base_offset, removed.log_start);
    let (_bench, mut log) = sixty(config);
    let removed = log.apply_retention(9_000, 40).unwrap();
    assert!(removed.log_start <= 40 && !removed.segments.is_empty(), "{removed:?}");
}

#[test]
fn active_segment_goes_too_when_all_is_old() {
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let (mut bench, mut log) = sixty(config);
    let removed = log.apply_retention(9_000, 180).unwrap();
    assert_eq!(removed.log_start, 180);
    for path in log.discard(&removed.segments).unwrap() {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(append(&mut log, SampleBatch::default()), 180);
    drop(log);
    let log = bench.open();
    assert_eq!((log.view().ends().log_start, log.view().ends().end), (180, 181));
}

#[test]
fn size_is_kept_within_its_bound() {
    let config = LogConfig { retention_bytes: Some(2_500), ..small_segments() };
    let (_bench, mut log) = sixty(config);
    let before = log.view().size_bytes();
    let removed = log.apply_retention(2_000, 180).unwrap();
    let after = log.view().size_bytes();
    assert!(!removed.segments.is_empty() && after < before);
    assert!((2_500..3_600).contains(&after), "{after}");
}

#[test]
fn log_start_moves_within_a_segment() {
    let (_bench, mut log) = sixty(small_segments());
    let removed = log.advance_log_start(100, 180);
    assert_eq!(removed.log_start, 100);
    assert!(!removed.segments.is_empty());
    let request = ReadRequest { offset: 99, limit: 180, bytes_max: 100, at_least_one: true };
    assert!(matches!(log.view().lookup(&request).unwrap(), Lookup::OutOfRange(_)));
    assert_eq!(read_all(&log, 300)[0].base_offset, 99);
    assert_eq!(log.advance_log_start(50, 180).log_start, 100);
    assert_eq!(log.advance_log_start(500, 180).log_start, 180);
}

/// Opens as after a power cut, the log start being in its checkpoint.
fn reopen(bench: &mut Bench, log_start: i64) -> (Log, Recovery) {
    bench.marks = Bench::open_marks(&bench.folder);
    let context = LogContext {
        disk: Arc::new(RealDisk),
        marks: Arc::clone(&bench.marks),
        directory: bench.directory(),
    };
    let options =
        OpenOptions { config: bench.config.clone(), clean: false, log_start: Some(log_start) };
    Log::open(context, &options).unwrap()
}

#[test]
fn power_cut_between_two_unlinks_leaves_no_hole() {
    let (mut bench, mut log) = sixty(small_segments());
    let removed = log.advance_log_start(150, 180);
    assert!(removed.segments.len() > 3, "{removed:?}");
    drop(log);
    // The first stayed, the second went, as a machine that loses power may have it.
    std::fs::remove_file(bench.file(removed.segments[1], "log")).unwrap();
    let (log, recovery) = reopen(&mut bench, removed.log_start);
    assert_eq!(recovery.damage, None);
    assert_eq!((log.view().ends().log_start, log.view().ends().end), (150, 180));
    for base_offset in removed.segments {
        assert!(!bench.file(base_offset, "log").exists(), "{base_offset}");
    }
}

#[test]
fn discarded_files_have_names_of_their_own_and_go_at_the_next_start() {
    let (mut bench, mut log) = sixty(small_segments());
    let removed = log.advance_log_start(150, 180);
    let files = log.discard(&removed.segments).unwrap();
    assert!(files.len() >= 4 * removed.segments.len());
    assert!(files.iter().all(|file| file.exists()));
    assert!(!bench.file(removed.segments[0], "log").exists());
    drop(log);
    let (log, recovery) = reopen(&mut bench, removed.log_start);
    assert_eq!((recovery.damage, log.view().ends().end), (None, 180));
    assert!(!files.iter().any(|file| file.exists()));
}

#[test]
fn names_that_a_new_beginning_uses_again_are_not_discarded() {
    let (bench, mut log) = sixty(small_segments());
    let removed = log.advance_log_start(150, 180);
    log.restart_at(removed.segments[0]).unwrap();
    append(&mut log, SampleBatch::default());
    assert_eq!(log.discard(&removed.segments).unwrap(), Vec::<PathBuf>::new());
    assert!(bench.file(removed.segments[0], "log").exists());
}

#[test]
fn records_without_a_timestamp_go_by_when_they_were_seen() {
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let mut bench = Bench::new(config);
    let mut log = bench.open();
    for _ in 0..60 {
        append(&mut log, SampleBatch { records: 3, timestamp: -1, ..SampleBatch::default() });
    }
    log.sync().unwrap();
    // Appended at NOW_MS by the owner's clock.
    assert_eq!(log.apply_retention(NOW_MS + 100, 180).unwrap().segments, []);
    assert_eq!(log.apply_retention(NOW_MS + 101, 180).unwrap().log_start, 180);
}

#[test]
fn after_a_restart_they_count_from_the_first_look() {
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let mut bench = Bench::new(config);
    let mut log = bench.open();
    for _ in 0..60 {
        append(&mut log, SampleBatch { records: 3, timestamp: -1, ..SampleBatch::default() });
    }
    log.sync().unwrap();
    drop(log);
    let mut log = bench.open();
    let later = NOW_MS + 5_000;
    assert_eq!(log.apply_retention(later, 180).unwrap().segments, []);
    assert_eq!(log.apply_retention(later + 100, 180).unwrap().segments, []);
    assert_eq!(log.apply_retention(later + 101, 180).unwrap().log_start, 180);
}

#[test]
fn producers_are_known_past_retention_and_a_restart() {
    let (mut bench, mut log) = sixty(small_segments());
    let batch = SampleBatch {
        records: 2,
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: 0,
        ..SampleBatch::default()
    };
    let base_offset = append(&mut log, batch);
    append_many(&mut log, 60);
    log.sync().unwrap();
    let removed = log.advance_log_start(300, 362);
    assert!(removed.segments.iter().any(|base| *base <= base_offset));
    for file in log.discard(&removed.segments).unwrap() {
        std::fs::remove_file(file).unwrap();
    }
    drop(log);
    let (mut log, _) = reopen(&mut bench, removed.log_start);
    assert!(matches!(
        try_append(&mut log, batch),
        Admission::Duplicate(first) if first.base_offset == base_offset
    ));
}
