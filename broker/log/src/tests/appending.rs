use super::*;
use crate::{EpochEnd, SequenceError};

#[test]
fn offsets_are_dense_and_epochs_are_noted() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let batch = |records, leader_epoch| SampleBatch { records, leader_epoch, ..Default::default() };
    assert_eq!(append(&mut log, batch(3, 0)), 0);
    assert_eq!(append(&mut log, batch(1, 0)), 3);
    assert_eq!(append(&mut log, batch(2, 4)), 4);
    let view = log.view();
    assert_eq!(view.ends().end, 6);
    assert_eq!(view.ends().durable_end, 0);
    assert_eq!(view.end_of_epoch(2), Some(EpochEnd { epoch: 0, end_offset: 4 }));
    assert_eq!(view.end_of_epoch(4), Some(EpochEnd { epoch: 4, end_offset: 6 }));
    let found = read_all(&log, 10_000);
    let found: Vec<_> = found.iter().map(|m| (m.base_offset, m.leader_epoch)).collect();
    assert_eq!(found, [(0, 0), (3, 0), (4, 4)]);
}

#[test]
fn several_batches_go_in_one_write() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let mut buffers = Vec::new();
    for _ in 0..5 {
        let mut bytes = SampleBatch { records: 2, ..Default::default() }.encode();
        let mut meta = BatchMeta::parse(&bytes).unwrap();
        let Admission::Assigned { base_offset } = log.admit_client(&mut meta, 7, NOW_MS).unwrap()
        else {
            panic!("refused")
        };
        assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(7)).unwrap();
        buffers.push(bytes);
    }
    assert_eq!(log.view().ends().end, 0);
    let parts: Vec<_> = buffers.iter().map(|bytes| IoSlice::new(bytes)).collect();
    log.write(&parts).unwrap();
    assert_eq!(log.view().ends().end, 10);
    assert_eq!(read_all(&log, 10_000).len(), 5);
}

#[test]
fn duplicate_is_answered_with_the_first_offset() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let batch = |base_sequence| SampleBatch {
        records: 2,
        producer_id: 5,
        producer_epoch: 0,
        base_sequence,
        ..Default::default()
    };
    append(&mut log, batch(0));
    let base_offset = append(&mut log, batch(2));
    let Admission::Duplicate(first) = try_append(&mut log, batch(2)) else { panic!("appended") };
    assert_eq!((first.base_offset, first.last_offset), (base_offset, base_offset + 1));
    assert_eq!(
        try_append(&mut log, batch(8)),
        Admission::Rejected(SequenceError::OutOfOrder { producer_id: 5, found: 8, expected: 4 })
    );
    assert_eq!(log.view().ends().end, 4);
}

#[test]
fn producers_survive_any_stop() {
    for clean in [false, true] {
        let mut bench = Bench::new(small_segments());
        let mut log = bench.open();
        let batch = |base_sequence| SampleBatch {
            records: 2,
            producer_id: 5,
            producer_epoch: 0,
            base_sequence,
            ..Default::default()
        };
        for number in 0..50 {
            append(&mut log, batch(number * 2));
        }
        if clean {
            log.close().unwrap();
        } else {
            drop(log);
        }
        let (mut log, recovery) = bench.try_open(clean);
        assert_eq!(recovery.segments_checked == 0, clean);
        for base_sequence in [90, 94, 98] {
            let Admission::Duplicate(first) = try_append(&mut log, batch(base_sequence)) else {
                panic!("appended twice")
            };
            assert_eq!(first.base_offset, i64::from(base_sequence));
        }
        assert_eq!(append(&mut log, batch(100)), 100);
    }
}

#[test]
fn segments_roll_by_size_and_age() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 40);
    let bases: Vec<_> = std::fs::read_dir(bench.directory())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(".log"))
        .collect();
    assert!(bases.len() > 3, "{bases:?}");
    for name in &bases {
        let length = std::fs::metadata(bench.directory().join(name)).unwrap().len();
        assert!(length <= 1000, "{name} has {length}");
    }
    let mut bench = Bench::new(LogConfig { segment_ms: 100, ..LogConfig::default() });
    let mut log = bench.open();
    let at = |timestamp| SampleBatch { timestamp, ..Default::default() };
    append(&mut log, at(1_000));
    append(&mut log, at(1_100));
    append(&mut log, at(1_101));
    assert!(bench.file(2, "log").exists() && !bench.file(1, "log").exists());
}

#[test]
fn batch_larger_than_a_segment_is_refused() {
    let mut bench = Bench::new(LogConfig { segment_bytes: 200, ..LogConfig::default() });
    let mut log = bench.open();
    let batch = SampleBatch { value_bytes: 200, ..Default::default() }.encode();
    let mut meta = BatchMeta::parse(&batch).unwrap();
    assert!(log.admit_client(&mut meta, 0, NOW_MS).is_err());
    append(&mut log, SampleBatch::default());
    // A follower takes what its leader took.
    meta.base_offset = 1;
    let mut batch = batch;
    assign_offsets(&mut batch, Offset::new(1), LeaderEpoch::new(0)).unwrap();
    while !log.admit_replicated(&meta, NOW_MS).unwrap() {}
    log.write(&[IoSlice::new(&batch)]).unwrap();
    assert_eq!(read_all(&log, 50).len(), 2);
}

#[test]
fn replicated_batches_must_continue_the_log() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let batch = |base_offset, leader_epoch| {
        let sample = SampleBatch { base_offset, leader_epoch, ..Default::default() };
        (sample.encode(), BatchMeta::parse(&sample.encode()).unwrap())
    };
    let (bytes, meta) = batch(0, 3);
    assert!(log.admit_replicated(&meta, NOW_MS).unwrap());
    log.write(&[IoSlice::new(&bytes)]).unwrap();
    assert!(log.admit_replicated(&batch(0, 3).1, NOW_MS).is_err());
    assert!(log.admit_replicated(&batch(1, 2).1, NOW_MS).is_err());
    assert!(log.admit_replicated(&batch(1, 4).1, NOW_MS).unwrap());
}

#[test]
fn round_of_another_generation_does_not_count() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    append_many(&mut log, 4);
    let ticket = log.take_sync_ticket().unwrap();
    assert!(log.take_sync_ticket().is_none());
    ticket.sync(&RealDisk).unwrap();
    log.truncate_to(6).unwrap();
    append_many(&mut log, 3);
    assert_eq!(ticket.view.publish_durable(ticket.generation, ticket.end), None);
    assert_eq!(log.view().ends().durable_end, 0);
    let ticket = log.take_sync_ticket().unwrap();
    ticket.sync(&RealDisk).unwrap();
    assert_eq!(ticket.view.publish_durable(ticket.generation, ticket.end), Some(15));
}
