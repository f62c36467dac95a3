//! Cleanings that take several steps: the room they take, and stops between them.

use super::cleaning::{DAY_MS, clean, cleaned_at, compacted, fill, put, replayed, swap};
use super::*;
use crate::CleanError;
use crate::clean::sync_names;

#[test]
fn a_cleaning_takes_the_room_of_two_segments_however_long_the_log_is() {
    let config =
        LogConfig { delete_retention_ms: 0, min_cleanable_dirty_millionths: 0, ..compacted() };
    let mut bench = Bench::new(config);
    let mut log = bench.open();
    // Most of it stays, so that there is much to write, and each key goes in the end.
    for key in 0..200 {
        put(
            &mut log,
            &format!("key-{key}"),
            Some("a value of some length, so that it fills segments"),
        );
        put(&mut log, "often", Some("v"));
    }
    for key in 0..200 {
        put(&mut log, &format!("key-{key}"), None);
    }
    // Twice: horizons first, then the tombstones may go.
    for now_ms in [NOW_MS, NOW_MS + DAY_MS] {
        put(&mut log, "often", Some("v"));
        log.roll().unwrap();
        let state = replayed(&log);
        let Some(mut cleaned) = cleaned_at(&mut log, now_ms) else { panic!("not due") };
        let mut steps = 1;
        loop {
            let waiting: u64 = std::fs::read_dir(bench.directory())
                .unwrap()
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_name().to_string_lossy().ends_with(".log.cleaned"))
                .map(|entry| entry.metadata().unwrap().len())
                .sum();
            assert!(waiting <= 2 * 600, "{waiting}");
            let Some(rest) = swap(&mut log, cleaned) else { break };
            assert_eq!(replayed(&log), state, "after step {steps}");
            // Whoever starts here anew has the same state, and what is left is still dirty.
            assert!(log.plan_cleaning(now_ms, log.end_offset()).unwrap().is_none());
            cleaned = rest.run().unwrap();
            steps += 1;
        }
        assert_eq!(replayed(&log), state);
        // All tombstones are written the first time, next to nothing the second.
        assert!(steps > 3 || now_ms > NOW_MS, "{steps}");
    }
    log.sync().unwrap();
    let state = replayed(&log);
    assert_eq!(state.len(), 1);
    drop(log);
    assert_eq!(replayed(&bench.open()), state);
}

#[test]
fn a_stop_between_two_steps_leaves_tombstones_over_what_they_delete() {
    let mut bench = Bench::new(LogConfig { delete_retention_ms: 0, ..compacted() });
    let mut log = bench.open();
    fill(&mut log, 30, 2);
    for key in 0..30 {
        put(&mut log, &format!("key-{key}"), None);
    }
    put(&mut log, "last", Some("v"));
    log.roll().unwrap();
    assert!(clean(&mut log, NOW_MS));
    put(&mut log, "last", Some("v"));
    log.roll().unwrap();
    let state = replayed(&log);
    let mut steps = 0;
    while let Some(mut cleaned) = cleaned_at(&mut log, NOW_MS + DAY_MS) {
        for _ in 0..steps {
            let Some(rest) = swap(&mut log, cleaned) else { return assert!(steps > 1) };
            cleaned = rest.run().unwrap();
        }
        // What was written and not put in place is left behind.
        drop((cleaned, log));
        log = bench.open();
        assert_eq!(replayed(&log), state);
        steps += 1;
    }
}

#[test]
fn a_log_deleted_while_it_is_cleaned_ends_the_cleaning_and_nothing_else() {
    let mut bench = Bench::new(compacted());
    drop(bench.open());
    let folder = bench.directory();
    sync_names(&RealDisk, &folder).unwrap();
    std::fs::rename(&folder, folder.with_extension("deleted")).unwrap();
    assert!(matches!(sync_names(&RealDisk, &folder), Err(CleanError::Stopped)));
}
