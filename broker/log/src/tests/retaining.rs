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
    assert_eq!(log.apply_retention(1_000, 180).unwrap().segments, 0);
    let removed = log.apply_retention(1_130, 180).unwrap();
    assert!(removed.segments > 0 && removed.log_start <= 93, "{removed:?}");
    assert_eq!(read_all(&log, 300)[0].base_offset, removed.log_start);
    let (_bench, mut log) = sixty(config);
    let removed = log.apply_retention(9_000, 40).unwrap();
    assert!(removed.log_start <= 40 && removed.segments > 0, "{removed:?}");
}

#[test]
fn active_segment_goes_too_when_all_is_old() {
    let config = LogConfig { retention_ms: Some(100), ..small_segments() };
    let (mut bench, mut log) = sixty(config);
    let removed = log.apply_retention(9_000, 180).unwrap();
    assert_eq!(removed.log_start, 180);
    for path in &removed.files {
        std::fs::remove_file(path).ok();
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
    assert!(removed.segments > 0 && after < before);
    assert!((2_500..3_600).contains(&after), "{after}");
}

#[test]
fn log_start_moves_within_a_segment() {
    let (_bench, mut log) = sixty(small_segments());
    let removed = log.advance_log_start(100, 180);
    assert_eq!(removed.log_start, 100);
    assert!(removed.segments > 0);
    let request = ReadRequest { offset: 99, limit: 180, bytes_max: 100, at_least_one: true };
    assert!(matches!(log.view().lookup(&request).unwrap(), Lookup::OutOfRange(_)));
    assert_eq!(read_all(&log, 300)[0].base_offset, 99);
    assert_eq!(log.advance_log_start(50, 180).log_start, 100);
    assert_eq!(log.advance_log_start(500, 180).log_start, 180);
}
