//! Compaction of what is damaged, too large, not understood, cut meanwhile, or copied.

use bytes::Bytes;
use client_protocol::pack::pack;
use client_protocol::records::{BatchBuilder, Compression, Record};

use super::cleaning::{
    Batch, DAY_MS, append_batch, clean, cleaned_at, compacted, expect_last_sequence, file_names,
    fill, put, records, replayed, swap,
};
use super::*;
use crate::CleanError;
use crate::batch::BATCH_BYTES_MAX;

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
            Ok(cleaned) => {
                let swapped = log.swap_cleaned(cleaned).unwrap();
                assert_eq!(swapped.discarded, Vec::<PathBuf>::new());
                assert!(swapped.rest.is_none());
            }
        }
        assert!(clean(&mut log, NOW_MS));
    }
}

#[test]
fn a_tail_torn_off_above_the_mark_is_no_gap_that_compaction_left() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 5, 12);
    assert!(clean(&mut log, NOW_MS));
    log.sync().unwrap();
    let from = log.end_offset();
    fill(&mut log, 5, 12);
    let bases: Vec<i64> = file_names(&bench)
        .iter()
        .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
        .filter(|base| *base > from)
        .collect();
    assert!(bases.len() > 2, "{bases:?}");
    drop(log);
    // The machine kept the names of all segments, and of one only its first batch.
    let path = bench.file(bases[0], "log");
    let first = BatchMeta::parse(&std::fs::read(&path).unwrap()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(u64::from(first.size_bytes)).unwrap();
    let (log, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage, None);
    assert_eq!(log.end_offset(), first.next_offset());
}

#[test]
fn a_gap_that_compaction_left_above_the_mark_stays() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 5, 12);
    let mark = std::fs::read(bench.folder.path().join("durable-marks")).unwrap();
    assert!(clean(&mut log, NOW_MS));
    fill(&mut log, 5, 12);
    assert!(clean(&mut log, NOW_MS));
    let (there, end) = (records(&log), log.end_offset());
    drop(log);
    std::fs::write(bench.folder.path().join("durable-marks"), mark).unwrap();
    for _ in 0..2 {
        // The sum that the first start writes anew says the same.
        let (log, recovery) = bench.try_open(false);
        assert_eq!((recovery.damage, recovery.cut_bytes), (None, 0));
        assert_eq!((records(&log), log.end_offset()), (there.clone(), end));
    }
}

/// A batch that is not committed may be cut: what the producer wrote last is then the one before it.
#[test]
fn what_a_producer_wrote_last_is_known_when_what_follows_it_is_cut() {
    for uncommitted in [1, 9] {
        let mut bench = Bench::new(compacted());
        let mut log = bench.open();
        let write = |log: &mut Log, sequence| {
            let (records, producer) = ([("key-0", Some("v"))], Some((7, sequence)));
            append_batch(log, Batch { records: &records, producer, ..Batch::default() });
        };
        write(&mut log, 0);
        write(&mut log, 1);
        fill(&mut log, 2, 20);
        log.sync().unwrap();
        let limit = log.view().ends().end;
        (2..2 + uncommitted).for_each(|sequence| write(&mut log, sequence));
        log.sync().unwrap();
        let mut plan = log.plan_cleaning(NOW_MS, limit).unwrap();
        assert!(plan.is_some(), "{uncommitted}: there is much to clean");
        while let Some(part) = plan {
            plan = swap(&mut log, part.run().unwrap());
        }
        assert_eq!(log.truncate_to(limit).unwrap(), limit);
        expect_last_sequence(&mut bench, log, 1);
    }
}

/// What is cut while a cleaning reads it is no damage, for which nothing would be cleaned any more.
#[test]
fn log_that_is_cut_under_a_cleaning_is_not_called_damaged() {
    let mut bench = Bench::new(compacted());
    let mut log = bench.open();
    fill(&mut log, 3, 20);
    log.sync().unwrap();
    let plan =
        log.plan_cleaning(NOW_MS, log.end_offset()).unwrap().expect("there is much to clean");
    log.truncate_to(1).unwrap();
    assert!(matches!(plan.run(), Err(CleanError::Cut)));
    log.give_up_cleaning(false);
    fill(&mut log, 3, 20);
    assert!(clean(&mut log, NOW_MS));
}

/// A gap is what a cleaning says it left, below the mark too: any file between two others may be lost.
#[test]
fn segment_that_was_lost_is_no_gap_that_compaction_left() {
    let write = |bench: &mut Bench| {
        let mut log = bench.open();
        fill(&mut log, 5, 12);
        assert!(clean(&mut log, NOW_MS));
        fill(&mut log, 5, 12);
        log.sync().unwrap();
    };
    let bases = |bench: &Bench| -> Vec<i64> {
        let names = file_names(bench);
        names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
    };
    let mut whole = Bench::new(compacted());
    write(&mut whole);
    whole.open();
    let all = bases(&whole);
    assert!(all.len() > 4, "{all:?}");
    for lost in all {
        let mut bench = Bench::new(compacted());
        write(&mut bench);
        std::fs::remove_file(bench.file(lost, "log")).unwrap();
        let (log, recovery) = bench.try_open_at(Some(0));
        let damage = recovery.damage.unwrap_or_else(|| panic!("{lost} is not missed"));
        assert!(damage.from_offset <= lost, "{lost}: {damage:?}");
        assert!(log.end_offset() <= lost, "{lost}: {}", log.end_offset());
        drop(log);
        // Nothing but the note of the former start tells of it now.
        let names = file_names(&bench);
        for sum in names.iter().filter(|name| name.ends_with(".sum")) {
            std::fs::remove_file(bench.directory().join(sum)).unwrap();
        }
        for _ in 0..2 {
            let (log, recovery) = bench.try_open_at(Some(0));
            let again = recovery.damage.map(|damage| damage.from_offset);
            assert_eq!(again, Some(damage.from_offset), "{lost}");
            assert!(log.cut_below_mark());
        }
        let (mut log, _) = bench.try_open_at(Some(0));
        assert_eq!(log.cut_damage().unwrap(), damage.from_offset);
        fill(&mut log, 5, 12);
        log.sync().unwrap();
        drop(log);
        let (log, recovery) = bench.try_open_at(Some(0));
        assert!(recovery.damage.is_none() && log.end_offset() > lost, "{lost}: {recovery:?}");
    }
}
