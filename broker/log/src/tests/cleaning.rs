//! Compaction of whole logs on the real disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use client_protocol::pack::{pack, unpack};
use client_protocol::records::{BatchBuilder, Batches, Compression, Producer, Record, RecordsIter};
use client_protocol::{ProducerEpoch, ProducerId};

use super::*;
use crate::batch::BATCH_BYTES_MAX;
use crate::{CleanError, Cleaned};

const DAY_MS: i64 = 86_400_000;

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
struct Batch<'a> {
    records: &'a [(&'a str, Option<&'a str>)],
    epoch: i32,
    producer: Option<(i64, i32)>,
    codec: Option<Compression>,
}

fn append_batch(log: &mut Log, batch: Batch<'_>) -> i64 {
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

fn put(log: &mut Log, key: &str, value: Option<&str>) -> i64 {
    append_batch(log, Batch { records: &[(key, value)], ..Batch::default() })
}

/// Fills and seals segments: each of `rounds` writes all keys, with a value that names the round.
fn fill(log: &mut Log, keys: usize, rounds: usize) {
    for round in 0..rounds {
        for key in 0..keys {
            put(log, &format!("key-{key}"), Some(&format!("round-{round}")));
        }
    }
}

/// Offset, key and value of every record, as a reader who fetches little at a time gets them.
fn records(log: &Log) -> Vec<(i64, String, Option<String>)> {
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
fn replayed(log: &Log) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for (_, key, value) in records(log) {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
    state
}

fn cleaned_at(log: &mut Log, now_ms: i64) -> Option<Cleaned> {
    let limit = log.end_offset();
    log.sync().unwrap();
    let plan = log.plan_cleaning(now_ms, limit).unwrap()?;
    Some(plan.run().unwrap())
}

/// One cleaning; whether there was one.
fn clean(log: &mut Log, now_ms: i64) -> bool {
    let Some(cleaned) = cleaned_at(log, now_ms) else { return false };
    for path in log.swap_cleaned(cleaned).unwrap() {
        std::fs::remove_file(path).unwrap();
    }
    log.check();
    true
}

fn file_names(bench: &Bench) -> Vec<String> {
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
    let cleaned = plan.run().unwrap();
    log.swap_cleaned(cleaned).unwrap();
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
    drop(log);
    for name in file_names(&bench).iter().filter(|name| name.ends_with(".snapshot")) {
        std::fs::remove_file(bench.directory().join(name)).unwrap();
    }
    let mut log = bench.open();
    let sample = |sequence| SampleBatch {
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: sequence,
        ..SampleBatch::default()
    };
    assert!(matches!(try_append(&mut log, sample(2)), Admission::Duplicate(_)));
    assert!(matches!(try_append(&mut log, sample(4)), Admission::Rejected(_)));
    assert!(matches!(try_append(&mut log, sample(3)), Admission::Assigned { .. }));
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
    assert_eq!(log.swap_cleaned(cleaned).unwrap(), Vec::<PathBuf>::new());
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
    log.swap_cleaned(cleaned).unwrap();
    log.check();
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
fn no_more_keys_are_noted_than_there_is_room_for_even_of_the_first_batch() {
    let config =
        LogConfig { cleaner_keys_max: 10, min_cleanable_dirty_millionths: 0, ..compacted() };
    let mut bench = Bench::new(LogConfig { segment_bytes: 2_000, ..config });
    let mut log = bench.open();
    let keys: Vec<_> = (0..40).map(|key| format!("key-{key}")).collect();
    let batch: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("v"))).collect();
    for _ in 0..3 {
        append_batch(&mut log, Batch { records: &batch, ..Batch::default() });
    }
    log.roll().unwrap();
    let (state, mut cleanings) = (replayed(&log), 0);
    while let Some(cleaned) = cleaned_at(&mut log, NOW_MS) {
        assert!(cleaned.report.keys <= 10, "{:?}", cleaned.report);
        log.swap_cleaned(cleaned).unwrap();
        assert_eq!(replayed(&log), state);
        cleanings += 1;
        assert!(cleanings < 100);
    }
    assert!(cleanings >= 4, "{cleanings}");
    assert_eq!(records(&log).len(), 40);
}

#[test]
fn a_batch_that_would_become_too_large_stays_as_it_is() {
    let mut bench = Bench::new(LogConfig {
        segment_bytes: 1 << 28,
        delete_retention_ms: DAY_MS,
        ..compacted()
    });
    let mut log = bench.open();
    put(&mut log, "gone", Some("v"));
    // With a tombstone in it, its times would count from the delete horizon and take more bytes.
    let overhead = 61 + 10 + 18;
    let long = "v".repeat(BATCH_BYTES_MAX as usize - overhead);
    let large = [("gone", None), ("long", Some(long.as_str()))];
    append_batch(&mut log, Batch { records: &large, ..Batch::default() });
    let spare = u64::from(BATCH_BYTES_MAX) - (log.view().size_bytes() - 75);
    assert!(spare < 10, "{spare}");
    fill(&mut log, 2, 2);
    log.roll().unwrap();
    let state = replayed(&log);
    assert!(clean(&mut log, NOW_MS));
    assert!(replayed(&log) == state);
    let kept: Vec<_> = records(&log).into_iter().map(|(offset, key, _)| (offset, key)).collect();
    let expected = [(1, "gone"), (2, "long"), (5, "key-0"), (6, "key-1")];
    assert_eq!(kept, expected.map(|(offset, key)| (offset, key.to_owned())));
}

/// A packed batch whose records all claim the place of its first one.
fn append_opaque(log: &mut Log, key: &str, count: i32) {
    let record = {
        let mut builder = BatchBuilder::new(1 << 20);
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        let value = Some(Bytes::from_static(b"v"));
        assert!(builder.push(&Record { timestamp_ms: 1_000, key, value, headers: Vec::new() }));
        builder.seal().unwrap().records().clone()
    };
    let (codec, packed) =
        pack(Compression::Zstd, &Bytes::from(record.repeat(count.unsigned_abs() as usize)));
    assert_eq!(codec, Compression::Zstd);
    let mut bytes = SampleBatch { records: count, ..SampleBatch::default() }.encode();
    bytes.truncate(61);
    bytes.extend_from_slice(&packed);
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[21..23].copy_from_slice(&codec.code().to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let mut meta = BatchMeta::parse(&bytes).unwrap();
    let admission = log.admit_client(&mut meta, 0, NOW_MS).unwrap();
    let Admission::Assigned { base_offset } = admission else { panic!("{admission:?}") };
    assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(0)).unwrap();
    log.write(&[IoSlice::new(&bytes)]).unwrap();
}

#[test]
fn a_batch_whose_records_stand_at_one_place_stays_and_so_do_tombstones() {
    let mut bench = Bench::new(LogConfig { segment_bytes: 4_000, ..compacted() });
    let mut log = bench.open();
    append_opaque(&mut log, "hidden", 500);
    put(&mut log, "hidden", None);
    fill(&mut log, 2, 10);
    log.roll().unwrap();
    let before = log.end_offset();
    assert!(clean(&mut log, NOW_MS));
    // Years later the tombstone would be due, but for what cannot be read before it.
    fill(&mut log, 2, 10);
    log.roll().unwrap();
    assert!(clean(&mut log, NOW_MS + 9_999 * DAY_MS));
    let view = log.view();
    let request = |offset| ReadRequest { offset, limit: before, bytes_max: 1, at_least_one: true };
    let first = metas_of(&expect_slice(view.lookup(&request(0)).unwrap()))[0];
    assert_eq!((first.base_offset, first.last_offset()), (0, 499));
    let hidden: Vec<_> = records(&log).into_iter().filter(|(_, key, _)| key == "hidden").collect();
    assert_eq!(hidden.len(), 501);
    assert_eq!(hidden.last(), Some(&(500, "hidden".to_owned(), None)));
}

/// Appends all batches of `leader` as its follower fetches them.
fn copy(leader: &Log, follower: &mut Log) {
    let (view, end) = (leader.view(), leader.end_offset());
    while follower.end_offset() < end {
        let offset = follower.end_offset();
        let request = ReadRequest { offset, limit: end, bytes_max: 1, at_least_one: true };
        let slice = expect_slice(view.lookup(&request).unwrap());
        let mut bytes = vec![0; slice.length as usize];
        slice.file.read_exact_at(slice.position, &mut bytes).unwrap();
        let meta = BatchMeta::parse(&bytes).unwrap();
        while !follower.admit_replicated(&meta, NOW_MS).unwrap() {}
        follower.write(&[IoSlice::new(&bytes)]).unwrap();
    }
}

#[test]
fn a_follower_that_copied_gaps_opens_whole_whatever_the_settings_say() {
    let mut led = Bench::new(compacted());
    let mut leader = led.open();
    fill(&mut leader, 3, 20);
    assert!(clean(&mut leader, NOW_MS));
    for segment_bytes in [100, 1 << 20] {
        for compact in [true, false] {
            let settings = LogConfig { compact, segment_bytes, ..compacted() };
            let mut bench = Bench::new(settings);
            let mut follower = bench.open();
            copy(&leader, &mut follower);
            assert_eq!(records(&follower), records(&leader));
            follower.sync().unwrap();
            drop(follower);
            bench.config.compact = false;
            let (log, recovery) = bench.try_open(false);
            assert_eq!((recovery.damage, recovery.cut_bytes), (None, 0));
            assert_eq!(records(&log), records(&leader));
        }
    }
}

#[test]
fn a_damaged_segment_is_not_written_anew() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    log.sync().unwrap();
    let path = bench.file(0, "log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let plan = log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().expect("due");
    assert!(matches!(plan.run(), Err(CleanError::Damaged { segment: 0, position: 0 })));
    assert!(!file_names(&bench).iter().any(|name| name.ends_with(".cleaned")));
    log.give_up_cleaning(true);
    assert!(log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().is_none());
    // What is repaired by a cut can be cleaned again.
    log.truncate_to(0).unwrap();
    fill(&mut log, 3, 20);
    assert!(clean(&mut log, NOW_MS));
}

#[test]
fn a_segment_that_was_cut_under_a_cleaning_does_not_end_it_for_good() {
    for restart in [false, true] {
        let mut bench = Bench::new(compacted());
        let mut log = bench.open();
        fill(&mut log, 3, 20);
        log.sync().unwrap();
        let plan = log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().expect("due");
        // The file that it reads is cut.
        match restart {
            true => log.restart_at(60).unwrap(),
            false => assert!(log.truncate_to(2).unwrap() <= 2),
        }
        fill(&mut log, 3, 20);
        log.sync().unwrap();
        // Two at a time would write files of the same names.
        assert!(log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().is_none());
        match plan.run() {
            Err(_) => log.give_up_cleaning(true),
            Ok(cleaned) => assert_eq!(log.swap_cleaned(cleaned).unwrap(), Vec::<PathBuf>::new()),
        }
        assert!(clean(&mut log, NOW_MS));
    }
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
