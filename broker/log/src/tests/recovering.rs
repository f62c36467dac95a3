use std::collections::BTreeSet;

use super::*;

/// A log of six batches, the first `durable` of which are synced and marked; returns the length of
/// one batch.
fn six_batches(bench: &mut Bench, durable: usize) -> usize {
    let mut log = bench.open();
    append_many(&mut log, durable);
    log.sync().unwrap();
    append_many(&mut log, 6 - durable);
    let size = read_all(&log, 0)[0].size_bytes;
    drop(log);
    size as usize
}

#[test]
fn torn_tail_is_cut_at_every_byte_of_the_last_batch() {
    let mut bench = Bench::new(LogConfig::default());
    let size = six_batches(&mut bench, 5);
    let path = bench.file(0, "log");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), 6 * size);
    let marks = std::fs::read(bench.folder.path().join(crate::MARKS_FILE)).unwrap();
    for length in 5 * size..whole.len() {
        for garbage in [&[][..], &[0; 100], &[0xff; 100]] {
            // The batch ends in a zero, which would make it whole again.
            let garbage = if length + 1 == whole.len() { &[][..] } else { garbage };
            std::fs::write(&path, [&whole[..length], garbage].concat()).unwrap();
            std::fs::write(bench.folder.path().join(crate::MARKS_FILE), &marks).unwrap();
            let (mut log, recovery) = bench.try_open(false);
            assert_eq!(recovery.damage, None);
            assert_eq!(recovery.cut_bytes as usize, length - 5 * size + garbage.len());
            assert_eq!(log.view().ends().end, 15);
            assert_eq!(log.view().ends().durable_end, 15);
            assert_eq!(append(&mut log, SampleBatch::default()), 15);
            assert_eq!(read_all(&log, 500).len(), 6);
        }
    }
}

#[test]
fn every_flipped_bit_below_the_mark_is_reported_and_nothing_is_cut() {
    let mut bench = Bench::new(LogConfig::default());
    let size = six_batches(&mut bench, 6);
    let path = bench.file(0, "log");
    let whole = std::fs::read(&path).unwrap();
    for at in 2 * size..3 * size {
        for bit in [0, 5, 7] {
            let mut bad = whole.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(&path, &bad).unwrap();
            let (mut log, recovery) = bench.try_open(false);
            let damage = recovery.damage.unwrap_or_else(|| panic!("bit {bit} of byte {at} unseen"));
            assert_eq!((damage.from_offset, damage.durable_end), (6, 18), "byte {at}");
            assert_eq!(std::fs::read(&path).unwrap(), bad);
            assert_eq!(log.view().ends().end, 6);
            assert!(log.cut_below_mark());
            let mut meta = BatchMeta::parse(&SampleBatch::default().encode()).unwrap();
            assert!(log.admit_client(&mut meta, 0, NOW_MS).is_err());
        }
    }
}

#[test]
fn flipped_bit_above_the_mark_is_a_torn_tail() {
    let mut bench = Bench::new(LogConfig::default());
    let size = six_batches(&mut bench, 3);
    let path = bench.file(0, "log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4 * size + 70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (log, recovery) = bench.try_open(false);
    assert_eq!((recovery.damage, recovery.cut_bytes as usize), (None, 2 * size));
    assert_eq!(log.view().ends().end, 12);
    assert!(!log.cut_below_mark());
}

#[test]
fn damage_is_repaired_by_cutting_and_remembered_until_caught_up() {
    let mut bench = Bench::new(LogConfig::default());
    let size = six_batches(&mut bench, 6);
    let path = bench.file(0, "log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4 * size + 70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, _) = bench.try_open(false);
    assert_eq!(log.cut_damage().unwrap(), 12);
    assert_eq!(append(&mut log, SampleBatch::default()), 12);
    log.sync().unwrap();
    assert!(log.cut_below_mark());
    drop(log);
    let (mut log, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage, None);
    assert!(log.cut_below_mark());
    log.set_caught_up().unwrap();
    drop(log);
    assert!(!bench.open().cut_below_mark());
}

#[test]
fn lost_file_end_below_the_mark_is_damage_too() {
    let mut bench = Bench::new(LogConfig::default());
    let size = six_batches(&mut bench, 6);
    let path = bench.file(0, "log");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..4 * size]).unwrap();
    let (_, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage.unwrap().from_offset, 12);
    std::fs::remove_dir_all(bench.directory()).unwrap();
    let (_, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage.unwrap().from_offset, 0);
}

#[test]
fn sealed_segments_below_the_mark_are_trusted_by_their_sum() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    append_many(&mut log, 3);
    drop(log);
    let (log, recovery) = bench.try_open(false);
    assert!(recovery.segments_checked <= 2, "{recovery:?}");
    assert_eq!(read_all(&log, 400).len(), 63);
    drop(log);
    // Without its sum a segment is verified, and gets one.
    std::fs::remove_file(bench.file(0, "sum")).unwrap();
    let (log, recovery) = bench.try_open(false);
    assert!(recovery.segments_checked >= 1, "{recovery:?}");
    assert_eq!(read_all(&log, 400).len(), 63);
    assert!(bench.file(0, "sum").exists());
}

/// A segment trusted by its sum is not read at the start: what is wrong with it a cut finds out.
#[test]
fn cut_that_meets_damage_notes_the_loss_and_takes_no_damage_for_a_gap() {
    for compact in [false, true] {
        let mut bench = Bench::new(LogConfig { compact, ..small_segments() });
        let mut log = bench.open();
        append_many(&mut log, 60);
        log.sync().unwrap();
        drop(log);
        let names = std::fs::read_dir(bench.directory()).unwrap().map(|e| e.unwrap().file_name());
        let stems = names.filter_map(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        let bases: BTreeSet<i64> = stems.collect();
        let (second, end) = (*bases.iter().nth(1).unwrap(), *bases.iter().nth(2).unwrap());
        let path = bench.file(second, "log");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..61].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (mut log, recovery) = bench.try_open(false);
        assert_eq!((recovery.damage, log.cut_below_mark()), (None, false), "trusted");
        assert_eq!(log.truncate_to(end - 1).unwrap(), second, "compact: {compact}");
        assert!(log.cut_below_mark());
        drop(log);
        assert!(bench.try_open(false).0.cut_below_mark(), "it outlives the process");
    }
}

#[test]
fn fault_in_an_unmarked_sealed_segment_cuts_all_behind_it() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    drop(log);
    let path = bench.file(0, "log");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (mut log, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage, None);
    let end = log.view().ends().end;
    assert!(end > 0 && end < 60, "{end}");
    append_many(&mut log, 20);
    assert_eq!(read_all(&log, 400).len() as i64, end / 3 + 20);
    drop(log);
    bench.open();
}

#[test]
fn epochs_that_fall_or_disagree_are_faults() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    let batch = |leader_epoch| SampleBatch { leader_epoch, ..Default::default() };
    for epoch in [3, 3, 5, 5] {
        append(&mut log, batch(epoch));
    }
    log.sync().unwrap();
    drop(log);
    let path = bench.file(0, "log");
    let whole = std::fs::read(&path).unwrap();
    let size = whole.len() / 4;
    for (number, epoch) in [(0, 2), (0, 4), (1, 4), (1, 2), (2, 4), (3, 4)] {
        let mut bad = whole.clone();
        bad[number * size + 15] = epoch;
        std::fs::write(&path, &bad).unwrap();
        let (_, recovery) = bench.try_open(false);
        let damage = recovery.damage.unwrap_or_else(|| panic!("batch {number} epoch {epoch}"));
        assert!(damage.from_offset <= number as i64 + 1);
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(bench.open().view().epochs().starts().len(), 2);
}

#[test]
fn clean_close_is_believed_and_appended_to() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 30);
    log.close().unwrap();
    for round in 1..4 {
        let (mut log, recovery) = bench.try_open(true);
        assert_eq!(recovery, Recovery::default());
        append_many(&mut log, 10);
        assert_eq!(read_all(&log, 300).len(), 30 + round * 10);
        log.close().unwrap();
    }
    // The same files read as after a crash, every byte checked.
    for entry in std::fs::read_dir(bench.directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "sum") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (log, recovery) = bench.try_open(false);
    assert!(recovery.segments_checked > 3 && recovery.damage.is_none());
    assert_eq!(read_all(&log, 300).len(), 60);
}

#[test]
fn missing_segment_is_a_fault_where_it_is_missing() {
    for durable in [false, true] {
        let mut bench = Bench::new(small_segments());
        let mut log = bench.open();
        append_many(&mut log, 60);
        if durable {
            log.sync().unwrap();
        }
        drop(log);
        let names = std::fs::read_dir(bench.directory()).unwrap();
        let mut bases: Vec<_> = names
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
            .filter(|name| name.ends_with(".log"))
            .collect();
        bases.sort();
        std::fs::remove_file(bench.directory().join(&bases[2])).unwrap();
        let missing: i64 = bases[2].strip_suffix(".log").unwrap().parse().unwrap();
        let (mut log, recovery) = bench.try_open(false);
        assert_eq!(log.view().ends().end, missing);
        assert_eq!(recovery.damage.map(|damage| damage.from_offset), durable.then_some(missing));
        assert_eq!(read_all(&log, 300).len() as i64, missing / 3);
        assert_eq!(bench.directory().join(&bases[3]).exists(), durable);
        if durable {
            assert_eq!(log.cut_damage().unwrap(), missing);
            append_many(&mut log, 30);
            assert_eq!(read_all(&log, 300).len() as i64, missing / 3 + 30);
        }
    }
}

#[test]
fn missing_first_segment_is_damage_where_the_checkpoint_says_that_the_log_starts_there() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    let end = log.end_offset();
    drop(log);
    let names = std::fs::read_dir(bench.directory()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bases: Vec<i64> =
        names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    bases.sort_unstable();
    let second = bases[1];
    std::fs::remove_file(bench.file(0, "log")).unwrap();
    // Retention that was made durable first is no damage.
    let (log, recovery) = bench.try_open_at(Some(second));
    assert_eq!((recovery.damage, log.view().ends().log_start), (None, second));
    drop(log);
    for _ in 0..2 {
        let (log, recovery) = bench.try_open_at(Some(0));
        let damage = recovery.damage.expect("records that were durable are gone");
        assert_eq!((damage.from_offset, damage.durable_end), (0, end));
        assert_eq!((log.view().ends().end, log.cut_below_mark()), (0, true));
    }
    let (mut log, _) = bench.try_open_at(Some(0));
    assert_eq!(log.cut_damage().unwrap(), 0);
    append_many(&mut log, 60);
    log.sync().unwrap();
    assert_eq!((log.end_offset(), read_all(&log, 300).len()), (end, 60));
}

#[test]
fn names_that_a_killed_process_left_unsynced_are_synced_with_the_records() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append(&mut log, SampleBatch::default());
    log.roll().unwrap();
    append(&mut log, SampleBatch::default());
    drop(log);
    let context = LogContext {
        disk: Arc::new(RealDisk),
        marks: Arc::clone(&bench.marks),
        directory: bench.directory(),
    };
    let options = OpenOptions { config: bench.config.clone(), ..OpenOptions::default() };
    let (mut log, _) = Log::open(context, &options).unwrap();
    let ticket = log.take_sync_ticket().unwrap();
    assert_eq!((ticket.end, ticket.directory, ticket.parent), (2, true, true));
}

#[test]
fn no_epoch_begins_behind_the_end_of_a_log_whose_sealed_segment_is_not_what_its_sum_says() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append(&mut log, SampleBatch::default());
    append(&mut log, SampleBatch { leader_epoch: 1, ..SampleBatch::default() });
    let mut bases = vec![0];
    for _ in 0..2 {
        log.roll().unwrap();
        bases.push(append(&mut log, SampleBatch { leader_epoch: 1, ..SampleBatch::default() }));
    }
    log.sync().unwrap();
    drop(log);
    // The sum of the first is believed until the one behind it turns out to be missing.
    std::fs::remove_file(bench.file(bases[1], "log")).unwrap();
    let mut bytes = std::fs::read(bench.file(0, "log")).unwrap();
    bytes[..61].fill(0);
    std::fs::write(bench.file(0, "log"), bytes).unwrap();
    let (log, recovery) = bench.try_open(false);
    assert_eq!(recovery.damage.map(|damage| damage.from_offset), Some(0));
    assert_eq!((log.view().ends().end, log.view().epochs().latest()), (0, None));
}

/// A process that was killed right behind a cut has not said yet that nothing is damaged any more.
#[test]
fn a_log_that_is_whole_is_not_damaged_by_what_an_earlier_start_noted() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    let end = log.end_offset();
    let name = log.context.directory.file_name().unwrap().to_str().unwrap().to_owned();
    drop(log);
    for from in 0..=end {
        let id = bench.marks.register(&name).unwrap();
        bench.marks.set_damage(id, Some(from)).unwrap();
        let (log, recovery) = bench.try_open_at(Some(0));
        assert_eq!(recovery.damage, None, "noted from {from}");
        assert_eq!((log.end_offset(), log.cut_below_mark()), (end, false), "noted from {from}");
        assert_eq!(bench.marks.get(&name).unwrap().damaged_from, None, "noted from {from}");
    }
}
