//! Compaction of whole logs on the real disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use client_protocol::pack::{pack, unpack};
use client_protocol::records::{BatchBuilder, Batches, Compression, Producer, Record, RecordsIter};
use client_protocol::{ProducerEpoch, ProducerId};

use super::*;
use crate::{CleanError, Cleaned, CleaningPlan};

pub const DAY_MS: i64 = 86_400_000;

pub fn compacted() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 200,
        compact: true,
        delete: false,
        ..LogConfig::default()
    }
}

#[derive(Clone, Copy, Default)]
pub struct Batch<'a> {
    pub records: &'a [(&'a str, Option<&'a str>)],
    pub epoch: i32,
    pub producer: Option<(i64, i32)>,
    pub codec: Option<Compression>,
}

pub fn append_batch(log: &mut Log, batch: Batch<'_>) -> i64 {
    let mut builder = BatchBuilder::new(1 << 30);
    for (key, value) in batch.records {
        let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let record = Record {
            timestamp_ms: 1_000,
            key: Some(owned(key)),
            value: value.map(owned),
            headers: Vec::new(),
        };
        assert!(builder.push(&record));
    }
    let producer = batch.producer.map(|(id, base_sequence)| Producer {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(0),
        base_sequence,
        is_transactional: false,
    });
    let sealed = builder.seal().unwrap();
    let (codec, payload) = match batch.codec {
        Some(codec) => pack(codec, sealed.records()),
        None => (Compression::None, sealed.records().clone()),
    };
    assert_eq!(codec, batch.codec.unwrap_or(Compression::None), "too small to pack");
    let sealed = sealed.packed(codec, payload);
    let mut bytes = sealed.header(producer).unwrap().to_vec();
    bytes.extend_from_slice(sealed.records());
    let mut meta = BatchMeta::parse(&bytes).unwrap();
    let admission = log.admit_client(&mut meta, batch.epoch, NOW_MS).unwrap();
    let Admission::Assigned { base_offset } = admission else { panic!("{admission:?}") };
    assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(batch.epoch)).unwrap();
    log.write(&[IoSlice::new(&bytes)]).unwrap();
    base_offset
}

pub fn put(log: &mut Log, key: &str, value: Option<&str>) -> i64 {
    append_batch(log, Batch { records: &[(key, value)], ..Batch::default() })
}

/// Fills and seals segments: each of `rounds` writes all keys, with a value that names the round.
pub fn fill(log: &mut Log, keys: usize, rounds: usize) {
    for round in 0..rounds {
        for key in 0..keys {
            put(log, &format!("key-{key}"), Some(&format!("round-{round}")));
        }
    }
}

/// Offset, key and value of every record, as a reader who fetches little at a time gets them.
pub fn records(log: &Log) -> Vec<(i64, String, Option<String>)> {
    let view = log.view();
    let ends = view.ends();
    let (mut offset, mut found) = (ends.log_start, Vec::new());
    while offset < ends.end {
        let request = ReadRequest { offset, limit: ends.end, bytes_max: 100, at_least_one: true };
        let Lookup::Slice(slice) = view.lookup(&request).unwrap() else { break };
        let mut bytes = vec![0; slice.length as usize];
        slice.file.read_exact_at(slice.position, &mut bytes).unwrap();
        for batch in Batches::new(&bytes) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            let packed = Bytes::copy_from_slice(batch.payload());
            let payload = unpack(batch.header.compression(), &packed).unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            for record in RecordsIter::new(&batch.header, &payload) {
                let record = record.unwrap();
                assert_eq!(record.timestamp_ms, 1_000);
                let key = text(record.key.unwrap());
                found.push((record.offset.get(), key, record.value.map(text)));
            }
            offset = batch.header.end_offset().unwrap().get();
        }
    }
    found
}

/// What whoever replays the log knows at its end.
pub fn replayed(log: &Log) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (_, key, value) in records(log) {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    state
}

pub fn cleaned_at(log: &mut Log, now_ms: i64) -> Option<Cleaned> {
    let limit = log.end_offset();
    log.sync().unwrap();
    let plan = log.plan_cleaning(now_ms, limit).unwrap()?;
    Some(plan.run().unwrap())
}

/// One cleaning, all its steps; whether there was one.
pub fn clean(log: &mut Log, now_ms: i64) -> bool {
    let Some(mut cleaned) = cleaned_at(log, now_ms) else { return false };
    while let Some(rest) = swap(log, cleaned) {
        cleaned = rest.run().unwrap();
    }
    true
}

/// Puts a step in place; what is left to be done.
pub fn swap(log: &mut Log, cleaned: Cleaned) -> Option<CleaningPlan> {
    let swapped = log.swap_cleaned(cleaned).unwrap();
    for path in swapped.discarded {
        std::fs::remove_file(path).unwrap();
    }
    log.check();
    swapped.rest
}

pub fn file_names(bench: &Bench) -> Vec<String> {
    let entries = std::fs::read_dir(bench.directory()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    let (before, end, bytes) = (records(&log), log.end_offset(), log.view().size_bytes());
    let state = replayed(&log);
    assert!(clean(&mut log, NOW_MS));
    assert_eq!(log.end_offset(), end);
    assert!(log.view().size_bytes() < bytes / 2, "{}", log.view().size_bytes());
    let after = records(&log);
    assert!(after.iter().all(|record| before.contains(record)));
    assert_eq!(replayed(&log), state);
    // Of the cleaned part each key stands once: its last; the rest was not sealed.
    let active = log.view().read().active.base_offset;
    let left: Vec<_> = after.iter().filter(|(offset, ..)| *offset < active).collect();
    assert!(left.len() <= 4, "{left:?}");
    assert!(!clean(&mut log, NOW_MS), "nothing is dirty any more");
}

#[test]
fn segments_become_one_and_their_files_go() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    // What is left of full segments is small enough to go together the next time.
    assert!(clean(&mut log, NOW_MS));
    fill(&mut log, 3, 20);
    let sealed = log.view().read().sealed.len();
    assert!(clean(&mut log, NOW_MS));
    let merged = log.view().read().sealed.len();
    assert!(sealed > 4 && merged < sealed - 3, "{sealed} {merged}");
    log.sync().unwrap();
    let logs = file_names(&bench).iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!(logs, log.view().read().sealed.len() + 1);
    let rubbish = |name: &String| {
        [".cleaned", ".deleted", ".tmp"].iter().any(|end| name.ends_with(end)) || name == "swap"
    };
    assert_eq!(file_names(&bench).into_iter().find(rubbish), None);
}

#[test]
fn a_cleaned_log_opens_as_it_was_closed() {
    for clean_stop in [true, false] {
        let mut bench = Bench::new(compacted());
        let mut log = bench.open();
        fill(&mut log, 4, 20);
        assert!(clean(&mut log, NOW_MS));
        let (expected, ends) = (records(&log), log.view().ends());
        if clean_stop {
            log.close().unwrap();
        } else {
            log.sync().unwrap();
            drop(log);
        }
        // The topic is not compacted any more: what was left out is no damage all the same.
        bench.config.compact = false;
        let (mut log, recovery) = bench.try_open(clean_stop);
        assert_eq!((recovery.damage, recovery.cut_bytes), (None, 0));
        assert_eq!((records(&log), log.view().ends()), (expected, ends));
        log.set_config(compacted());
        assert!(!clean(&mut log, NOW_MS), "how far it is clean is remembered");
    }
}

#[test]
fn a_segment_without_its_sum_is_checked_and_kept() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 4, 20);
    assert!(clean(&mut log, NOW_MS));
    log.sync().unwrap();
    let expected = records(&log);
    drop(log);
    std::fs::remove_file(bench.file(0, "sum")).unwrap();
    std::fs::remove_file(bench.file(0, "index")).unwrap();
    let log = bench.open();
    assert_eq!(records(&log), expected);
}

#[test]
fn nothing_at_or_above_the_limit_is_touched() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 2, 30);
    log.sync().unwrap();
    let before = records(&log);
    let limit = 20;
    let plan = log.plan_cleaning(NOW_MS, limit).unwrap().expect("due");
    let mut cleaned = plan.run().unwrap();
    while let Some(rest) = swap(&mut log, cleaned) {
        cleaned = rest.run().unwrap();
    }
    let above = |all: &[(i64, String, Option<String>)]| {
        all.iter().filter(|(offset, ..)| *offset >= limit).cloned().collect::<Vec<_>>()
    };
    assert_eq!(above(&records(&log)), above(&before));
    assert!(records(&log).len() < before.len());
}

#[test]
fn little_dirt_is_left_alone_until_it_is_overdue() {
    let mut bench = Bench::new(LogConfig { max_compaction_lag_ms: DAY_MS, ..compacted() });
    let mut log = bench.open();
    // All different: cleaning frees nothing, and what follows is little beside it.
    for key in 0..40 {
        put(&mut log, &format!("key-{key}"), Some("v"));
    }
    assert!(clean(&mut log, NOW_MS));
    for _ in 0..8 {
        put(&mut log, "key-0", Some("v"));
    }
    assert!(!clean(&mut log, NOW_MS));
    assert!(clean(&mut log, NOW_MS + DAY_MS + 1));
}

#[test]
fn the_oldest_dirty_record_is_overdue_also_after_a_restart() {
    for is_restarted in [false, true] {
        let mut bench = Bench::new(LogConfig { max_compaction_lag_ms: DAY_MS, ..compacted() });
        let mut log = bench.open();
        for _ in 0..40 {
            append(&mut log, SampleBatch { timestamp: NOW_MS, ..SampleBatch::default() });
        }
        for key in 0..40 {
            put(&mut log, &format!("key-{key}"), Some("v"));
        }
        log.roll().unwrap();
        assert!(clean(&mut log, NOW_MS));
        for timestamp in [NOW_MS, NOW_MS + DAY_MS] {
            append(&mut log, SampleBatch { timestamp, ..SampleBatch::default() });
        }
        assert!(!clean(&mut log, NOW_MS + DAY_MS));
        if is_restarted {
            log.sync().unwrap();
            drop(log);
            log = bench.open();
        }
        assert!(clean(&mut log, NOW_MS + DAY_MS + 1), "{is_restarted}");
    }
}

#[test]
fn young_records_wait() {
    let mut bench = Bench::new(LogConfig { min_compaction_lag_ms: DAY_MS, ..compacted() });
    let mut log = bench.open();
    fill(&mut log, 2, 20);
    assert!(!clean(&mut log, DAY_MS));
    assert!(clean(&mut log, 1_000 + DAY_MS));
}

#[test]
fn tombstones_stay_for_their_time_and_then_go() {
    let retention = LogConfig { delete_retention_ms: DAY_MS, ..compacted() };
    let mut bench = Bench::new(retention);
    let mut log = bench.open();
    put(&mut log, "first", Some("v"));
    put(&mut log, "gone", Some("v"));
    put(&mut log, "gone", None);
    fill(&mut log, 3, 10);
    let tombstone = (2, "gone".to_owned(), None);
    assert!(clean(&mut log, NOW_MS));
    let of_gone = |log: &Log| -> Vec<_> {
        records(log).into_iter().filter(|(_, key, _)| key == "gone").collect()
    };
    assert_eq!(of_gone(&log), vec![tombstone.clone()]);
    fill(&mut log, 3, 10);
    assert!(clean(&mut log, NOW_MS + DAY_MS - 1));
    assert_eq!(of_gone(&log), vec![tombstone]);
    fill(&mut log, 3, 20);
    assert!(clean(&mut log, NOW_MS + DAY_MS));
    assert_eq!(of_gone(&log), vec![]);
}

#[test]
fn a_reader_in_a_gap_goes_on_behind_it() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    assert!(clean(&mut log, NOW_MS));
    let ends = log.view().ends();
    let expected = records(&log);
    for offset in ends.log_start..ends.end {
        let request = ReadRequest { offset, limit: ends.end, bytes_max: 1, at_least_one: true };
        let slice = expect_slice(log.view().lookup(&request).unwrap());
        let first = metas_of(&slice)[0];
        let next = expected.iter().find(|(at, ..)| *at >= offset).expect("the end is not cleaned");
        assert!(first.last_offset() >= offset, "{offset}: {first:?}");
        assert!(first.base_offset <= next.0, "{offset}: {first:?}");
    }
}

#[test]
fn a_reader_of_a_replaced_file_does_not_take_its_successors_indexes() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    let before = records(&log);
    let held = log.view().read().sealed[0].without_indexes();
    let expected = held.indexes(&RealDisk, &bench.directory(), 200).unwrap();
    let held = held.without_indexes();
    assert!(clean(&mut log, NOW_MS));
    assert_ne!(records(&log), before);
    // Under its names there are the new ones now; those of its own file are built anew.
    let found = held.indexes(&RealDisk, &bench.directory(), 200).unwrap();
    assert_eq!(found.offsets.encode(), expected.offsets.encode());
    assert_eq!(found.times.encode(), expected.times.encode());
}

#[test]
fn where_epochs_began_is_known_however_much_is_gone() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    for epoch in 0..5 {
        for _ in 0..8 {
            append_batch(
                &mut log,
                Batch { records: &[("k", Some("v"))], epoch, ..Batch::default() },
            );
        }
    }
    fill_epoch(&mut log, 5);
    let epochs = log.view().epochs();
    assert_eq!(epochs.starts().len(), 6);
    assert!(clean(&mut log, NOW_MS));
    assert_eq!(log.view().epochs(), epochs);
    log.sync().unwrap();
    drop(log);
    std::fs::remove_file(bench.directory().join("leader-epochs")).ok();
    let log = bench.open();
    assert_eq!(log.view().epochs().starts(), epochs.starts());
}

fn fill_epoch(log: &mut Log, epoch: i32) {
    for _ in 0..10 {
        append_batch(log, Batch { records: &[("k", Some("v"))], epoch, ..Batch::default() });
    }
}

/// What producer 7 wrote last is known from the batches alone, without any snapshot.
pub fn expect_last_sequence(bench: &mut Bench, log: Log, last: i32) {
    drop(log);
    for name in file_names(bench).iter().filter(|name| name.ends_with(".snapshot")) {
        std::fs::remove_file(bench.directory().join(name)).unwrap();
    }
    let mut log = bench.open();
    let sample = |sequence| SampleBatch {
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: sequence,
        ..SampleBatch::default()
    };
    assert!(matches!(try_append(&mut log, sample(last)), Admission::Duplicate(_)));
    assert!(matches!(try_append(&mut log, sample(last + 2)), Admission::Rejected(_)));
    assert!(matches!(try_append(&mut log, sample(last + 1)), Admission::Assigned { .. }));
}

#[test]
fn what_a_producer_wrote_last_is_known_though_its_records_are_gone() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    for sequence in 0..3 {
        let producer = Some((7, sequence));
        append_batch(
            &mut log,
            Batch { records: &[("key-0", Some("v"))], producer, ..Batch::default() },
        );
    }
    fill(&mut log, 2, 20);
    assert!(clean(&mut log, NOW_MS));
    log.sync().unwrap();
    expect_last_sequence(&mut bench, log, 2);
}

#[test]
fn packed_batches_are_cleaned_and_stay_packed() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut bench = Bench::new(compacted());
        let mut log = bench.open();
        let long = "a long value that packs well ".repeat(20);
        let value = Some(long.as_str());
        for _ in 0..10 {
            let records = [("a", value), ("b", value), ("a", value), ("b", value)];
            append_batch(
                &mut log,
                Batch { records: &records, codec: Some(codec), ..Batch::default() },
            );
        }
        let state = replayed(&log);
        let before = records(&log).len();
        log.roll().unwrap();
        assert!(clean(&mut log, NOW_MS));
        assert!(records(&log).len() <= before / 4, "{codec:?}");
        assert_eq!(replayed(&log), state);
        let first = metas_of(&expect_slice(
            log.view()
                .lookup(&ReadRequest { offset: 39, limit: 40, bytes_max: 1, at_least_one: true })
                .unwrap(),
        ))[0];
        assert_eq!(first.attributes & 0b111, codec.code());
    }
}

#[test]
fn a_cut_while_it_is_cleaned_lets_the_log_stand() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    let cleaned = cleaned_at(&mut log, NOW_MS).expect("due");
    log.truncate_to(30).unwrap();
    let expected = records(&log);
    let swapped = log.swap_cleaned(cleaned).unwrap();
    assert_eq!(swapped.discarded, Vec::<PathBuf>::new());
    assert!(swapped.rest.is_none());
    assert_eq!(records(&log), expected);
    assert!(!file_names(&bench).iter().any(|name| name.ends_with(".cleaned")));
    fill(&mut log, 3, 10);
    assert!(clean(&mut log, NOW_MS), "and it can be cleaned again");
}

#[test]
fn what_is_written_anew_behind_a_cut_is_dirty() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    assert!(clean(&mut log, NOW_MS));
    let to = log.truncate_to(10).unwrap();
    assert!(to <= 10);
    fill(&mut log, 3, 20);
    let state = replayed(&log);
    assert!(clean(&mut log, NOW_MS));
    assert_eq!(replayed(&log), state);
    let active = log.view().read().active.base_offset;
    assert!(records(&log).iter().filter(|(offset, ..)| *offset < active).count() <= 4);
}

#[test]
fn retention_may_take_what_is_being_cleaned() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    let cleaned = cleaned_at(&mut log, NOW_MS).expect("due");
    let removed = log.advance_log_start(30, i64::MAX);
    assert!(!removed.segments.is_empty());
    log.discard(&removed.segments).unwrap();
    let before = records(&log);
    assert!(swap(&mut log, cleaned).is_none());
    // All or nothing: a tombstone that went in one segment may delete what stayed in another.
    assert_eq!(records(&log), before);
    assert!(clean(&mut log, NOW_MS));
    assert!(records(&log).len() < before.len());
    assert!(records(&log).iter().all(|(offset, ..)| *offset >= 28));
    let end = log.end_offset();
    log.sync().unwrap();
    drop(log);
    assert_eq!(bench.open().end_offset(), end);
}

#[test]
fn more_keys_than_there_is_room_for_take_several_cleanings() {
    let config =
        LogConfig { cleaner_keys_max: 10, min_cleanable_dirty_millionths: 0, ..compacted() };
    let mut bench = Bench::new(config);
    let mut log = bench.open();
    fill(&mut log, 40, 3);
    let (state, mut cleanings) = (replayed(&log), 0);
    while clean(&mut log, NOW_MS) {
        cleanings += 1;
        assert_eq!(replayed(&log), state);
        assert!(cleanings < 100);
    }
    assert!(cleanings > 2, "{cleanings}");
    let active = log.view().read().active.base_offset;
    let left = records(&log).into_iter().filter(|(offset, ..)| *offset < active).count();
    assert!(left <= 41, "{left}");
}

#[test]
fn a_cleaning_can_be_stopped() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    log.sync().unwrap();
    let plan = log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().expect("due");
    plan.stopper().store(true, std::sync::atomic::Ordering::Release);
    assert!(matches!(plan.run(), Err(CleanError::Stopped)));
    log.give_up_cleaning(false);
    assert!(clean(&mut log, NOW_MS));
}

#[test]
fn a_reader_of_a_replaced_segment_never_uses_the_new_ones_indexes() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    let held = Arc::clone(&log.view().read().sealed[1]);
    let indexes = |log: &Log| {
        // As of a reader that found the segment before and needs its indexes only now.
        let segment = held.without_indexes();
        let loaded = segment.indexes(&RealDisk, log.view().directory(), 200).unwrap();
        (loaded.offsets.clone(), loaded.times.clone())
    };
    let before = indexes(&log);
    assert!(clean(&mut log, NOW_MS));
    assert_eq!(indexes(&log), before);
}
