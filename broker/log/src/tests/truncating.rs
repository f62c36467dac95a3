use super::*;
use crate::EpochStart;

#[test]
fn truncation_cuts_whole_batches_and_lowers_the_mark_first() {
    for end in [0, 1, 3, 29, 30, 31, 89, 90, 177, 180] {
        let mut bench = Bench::new(small_segments());
        let mut log = bench.open();
        append_many(&mut log, 60);
        log.sync().unwrap();
        let kept = end / 3 * 3;
        assert_eq!(log.truncate_to(end).unwrap(), kept, "to {end}");
        log.check();
        let ends = log.view().ends();
        assert_eq!((ends.end, ends.durable_end), (kept, kept));
        assert!(bench.marks.get("orders-0").unwrap().durable_end <= end.max(kept));
        assert_eq!(read_all(&log, 400).len() as i64, kept / 3);
        append_many(&mut log, 20);
        assert_eq!(read_all(&log, 400).len() as i64, kept / 3 + 20);
        drop(log);
        let log = bench.open();
        assert_eq!(read_all(&log, 400).len() as i64, kept / 3 + 20);
    }
}

#[test]
fn what_is_left_of_a_round_under_way_becomes_durable_without_another_append() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 20);
    log.sync().unwrap();
    append_many(&mut log, 20);
    let under_way = log.take_sync_ticket().expect("something was appended");
    assert_eq!(log.truncate_to(90).unwrap(), 90);
    let told = log.view().publish_durable(under_way.generation, under_way.end);
    assert_eq!((told, log.view().ends().durable_end), (None, 60));
    let ticket = log.take_sync_ticket().expect("what is left has to be told");
    ticket.sync(&RealDisk).unwrap();
    assert_eq!(log.view().publish_durable(ticket.generation, ticket.end), Some(90));
    assert!(log.take_sync_ticket().is_none());
}

#[test]
fn truncation_takes_epochs_and_producers_back() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    for number in 0..40 {
        let batch = SampleBatch {
            records: 2,
            leader_epoch: number / 10,
            producer_id: 5,
            producer_epoch: 0,
            base_sequence: number * 2,
            ..Default::default()
        };
        append(&mut log, batch);
    }
    log.truncate_to(50).unwrap();
    assert_eq!(log.view().epochs().latest(), Some(EpochStart { epoch: 2, start_offset: 40 }));
    let next = SampleBatch {
        leader_epoch: 7,
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: 50,
        ..Default::default()
    };
    let Admission::Duplicate(first) =
        try_append(&mut log, SampleBatch { records: 2, base_sequence: 48, ..next })
    else {
        panic!("the last kept batch is forgotten")
    };
    assert_eq!(first.base_offset, 48);
    assert_eq!(append(&mut log, next), 50);
}

#[test]
fn restart_begins_empty_at_the_offset() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    log.restart_at(500).unwrap();
    assert_eq!((log.view().ends().log_start, log.view().ends().end), (500, 500));
    assert_eq!(append(&mut log, SampleBatch::default()), 500);
    drop(log);
    let log = bench.open();
    assert_eq!((log.view().ends().log_start, log.view().ends().end), (500, 501));
}

#[test]
fn reader_of_a_cut_range_sees_the_old_end_nowhere() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    append_many(&mut log, 10);
    let view = log.view().clone();
    log.truncate_to(12).unwrap();
    let request = ReadRequest { offset: 15, limit: 30, bytes_max: 100, at_least_one: true };
    assert!(matches!(view.lookup(&request).unwrap(), Lookup::OutOfRange(_)));
    let request = ReadRequest { offset: 9, limit: 30, bytes_max: 1000, at_least_one: true };
    assert_eq!(metas_of(&expect_slice(view.lookup(&request).unwrap())).len(), 1);
}

#[test]
fn closed_state_of_producers_does_not_outlive_a_cut() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let batch = |base_sequence| SampleBatch {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence,
        ..Default::default()
    };
    for sequence in 0..5 {
        append(&mut log, batch(sequence));
    }
    log.close().unwrap();
    let (mut log, _) = bench.try_open(true);
    log.truncate_to(4).unwrap();
    append(&mut log, SampleBatch::default());
    drop(log);
    let mut log = bench.open();
    assert_eq!(append(&mut log, batch(4)), 5);
}

/// Appends a batch of three records as a follower would.
fn append_at(log: &mut Log, base_offset: i64, leader_epoch: i32) {
    let bytes =
        SampleBatch { base_offset, leader_epoch, records: 3, ..Default::default() }.encode();
    let meta = BatchMeta::parse(&bytes).unwrap();
    assert!(log.admit_replicated(&meta, NOW_MS).unwrap());
    log.write(&[IoSlice::new(&bytes)]).unwrap();
}

#[test]
fn a_cut_behind_what_compaction_took_ends_there_and_not_before() {
    // 0..3, 6..9 and 20..23 are there; a batch across the place of the cut goes whole.
    for (to, end, batches) in
        [(15, 15, 3), (9, 9, 2), (20, 20, 3), (21, 20, 3), (7, 6, 2), (2, 0, 0)]
    {
        let mut bench = Bench::new(LogConfig::default());
        let mut log = bench.open();
        for (base_offset, leader_epoch) in [(0, 0), (6, 1), (20, 2)] {
            append_at(&mut log, base_offset, leader_epoch);
        }
        log.sync().unwrap();
        assert_eq!(log.truncate_to(to).unwrap(), end, "to {to}");
        log.check();
        let ends = log.view().ends();
        assert_eq!((ends.end, ends.durable_end), (end, end), "to {to}");
        let starts = log.view().epochs();
        drop(log);
        let (mut log, recovery) = bench.try_open(false);
        assert_eq!((recovery.damage, recovery.cut_bytes), (None, 0), "to {to}");
        assert_eq!((log.end_offset(), log.view().epochs()), (end, starts), "to {to}");
        // A follower that has all but what is missing finds the end.
        let found = read_all(&log, 400);
        assert_eq!(found.len(), batches, "to {to}");
        assert_eq!(found.last().map_or(0, BatchMeta::next_offset), end, "to {to}");
        append_at(&mut log, end, 4);
        assert_eq!(log.end_offset(), end + 3);
    }
}

#[test]
fn what_fills_a_gap_begins_no_epoch_below_the_start() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    for (base_offset, leader_epoch) in [(0, 0), (6, 1), (20, 2)] {
        append_at(&mut log, base_offset, leader_epoch);
    }
    log.sync().unwrap();
    assert_eq!(log.advance_log_start(12, i64::MAX).log_start, 12);
    assert_eq!(log.truncate_to(15).unwrap(), 15);
    let epochs = log.view().epochs();
    assert_eq!(epochs.starts(), [EpochStart { epoch: 1, start_offset: 12 }]);
    assert_eq!(log.view().ends().log_start, 12);
    drop(log);
    let (log, recovery) = bench.try_open_at(Some(12));
    assert_eq!((recovery.damage, log.view().epochs()), (None, epochs));
}
