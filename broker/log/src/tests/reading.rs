use super::*;

#[test]
fn fetches_of_any_size_give_every_batch_once() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    let expected: Vec<i64> = (0..60).map(|number| number * 3).collect();
    for bytes_max in [0, 1, 130, 300, 999, 1_000, 1 << 20] {
        let bases: Vec<_> = read_all(&log, bytes_max).iter().map(|m| m.base_offset).collect();
        assert_eq!(bases, expected, "fetches of {bytes_max}");
    }
    log.close().unwrap();
    let (log, _) = bench.try_open(true);
    for bytes_max in [0, 1, 130, 300, 999, 1_000, 1 << 20] {
        let bases: Vec<_> = read_all(&log, bytes_max).iter().map(|m| m.base_offset).collect();
        assert_eq!(bases, expected, "cold fetches of {bytes_max}");
    }
}

#[test]
fn slice_ends_on_a_batch_within_bytes_and_limit() {
    let mut bench = Bench::new(LogConfig { index_interval_bytes: 200, ..LogConfig::default() });
    let mut log = bench.open();
    append_many(&mut log, 60);
    let size = read_all(&log, 0)[0].size_bytes;
    for reopened in [false, true] {
        if reopened {
            log.close().unwrap();
            log = bench.try_open(true).0;
        }
        let view = log.view();
        for offset in 0..180 {
            for (limit, batches_max) in [(180, 1), (180, 7), (100, 50), (91, 50), (180, 500)] {
                let bytes_max = size * batches_max + 5;
                let request = ReadRequest { offset, limit, bytes_max, at_least_one: false };
                let whole = limit / 3 * 3;
                match view.lookup(&request).unwrap() {
                    Lookup::Slice(slice) => {
                        assert!(slice.length <= bytes_max && slice.length % size == 0);
                        let metas = metas_of(&slice);
                        assert_eq!(metas[0].base_offset, offset / 3 * 3);
                        let last = metas.last().unwrap();
                        assert!(last.next_offset() <= limit);
                    }
                    Lookup::Empty => assert!(offset >= whole, "{offset} {limit}"),
                    Lookup::OutOfRange(ends) => panic!("{offset}: {ends:?}"),
                }
            }
        }
    }
}

#[test]
fn offsets_outside_are_told_from_those_at_the_end() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    append_many(&mut log, 2);
    let look = |offset, limit| {
        let request = ReadRequest { offset, limit, bytes_max: 1000, at_least_one: true };
        log.view().lookup(&request).unwrap()
    };
    assert!(matches!(look(6, 6), Lookup::Empty));
    assert!(matches!(look(3, 3), Lookup::Empty));
    assert!(matches!(look(4, 3), Lookup::Empty));
    assert!(matches!(look(7, 6), Lookup::OutOfRange(_)));
    assert!(matches!(look(-1, 6), Lookup::OutOfRange(_)));
}

#[test]
fn recent_batches_are_found_without_io() {
    let mut bench = Bench::new(LogConfig::default());
    let mut log = bench.open();
    append_many(&mut log, 10);
    let request = ReadRequest { offset: 4, limit: 30, bytes_max: 1 << 20, at_least_one: true };
    assert!(matches!(log.view().lookup_hot(&request), Some(Lookup::Slice(_))));
    log.close().unwrap();
    let (log, _) = bench.try_open(true);
    assert!(log.view().lookup_hot(&request).is_none());
    assert_eq!(metas_of(&expect_slice(log.view().lookup(&request).unwrap())).len(), 9);
}

#[test]
fn timestamps_find_the_first_batch_that_is_young_enough() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    for reopened in [false, true] {
        if reopened {
            log.close().unwrap();
            log = bench.try_open(true).0;
        }
        let find = |timestamp| {
            log.view().find_by_timestamp(timestamp).unwrap().map(|found| found.batch.base_offset)
        };
        assert_eq!(find(0), Some(0));
        for number in 0..60 {
            assert_eq!(find(1_000 + number), Some(number * 3), "batch {number}");
        }
        assert_eq!(find(1_060), None);
        assert_eq!(log.view().max_timestamp(), Some((1_059, 179)));
    }
}

#[test]
fn damaged_indexes_are_built_anew() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.close().unwrap();
    for suffix in ["index", "timeindex"] {
        let path = bench.file(0, suffix);
        let mut bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.is_empty());
        bytes[3] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }
    let (log, recovery) = bench.try_open(true);
    assert_eq!(recovery.segments_checked, 0);
    assert_eq!(read_all(&log, 300).len(), 60);
}

/// What a batch says of its last offset decides where a reader goes on; the header alone cannot tell when that rots.
#[test]
fn nobody_is_led_astray_by_a_batch_that_ends_elsewhere() {
    // The low byte of how many offsets follow the base: two in every batch here.
    const LAST_OFFSET_DELTA: usize = 26;
    for (bit, offsets) in [(1, [1, 2].as_slice()), (2, &[0, 1, 2]), (7, &[0, 1, 2])] {
        let mut bench = Bench::new(small_segments());
        let mut log = bench.open();
        append_many(&mut log, 60);
        log.close().unwrap();
        let (log, _) = bench.try_open(true);
        let sealed: Vec<_> =
            log.view().read().sealed.iter().map(|one| (one.base_offset, one.end_offset)).collect();
        for (base_offset, end_offset) in [sealed[0], sealed[1]] {
            let path = bench.file(base_offset, "log");
            let sound = std::fs::read(&path).unwrap();
            let size = BatchMeta::parse(&sound).unwrap().size_bytes as usize;
            let batches = sound.len() / size;
            // The first one, and the last one, behind which the segment ends.
            for (batch, bytes_before) in [(0, 0), (batches - 1, (batches - 1) * size)] {
                let mut bytes = sound.clone();
                bytes[bytes_before + LAST_OFFSET_DELTA] ^= 1 << bit;
                std::fs::write(&path, bytes).unwrap();
                let first = base_offset + 3 * batch as i64;
                for offset in offsets {
                    let offset = first + offset;
                    let request =
                        ReadRequest { offset, limit: 180, bytes_max: 300, at_least_one: true };
                    let is_damage = match log.view().lookup(&request) {
                        Err(LogError::Damaged { from_offset, .. }) => from_offset == offset,
                        // It is given the batch, and the batch's own checksum tells.
                        Ok(Lookup::Slice(slice)) => slice.position == bytes_before as u64,
                        Ok(_) | Err(_) => false,
                    };
                    assert!(
                        is_damage,
                        "bit {bit}, offset {offset} of {base_offset} to {end_offset}"
                    );
                }
                std::fs::write(&path, &sound).unwrap();
            }
        }
    }
}

/// Going on behind the damage would hide acknowledged records from their readers.
#[test]
fn nobody_is_led_past_a_header_that_cannot_be_read() {
    let mut bench = Bench::new(small_segments());
    let mut log = bench.open();
    append_many(&mut log, 60);
    log.sync().unwrap();
    let path = bench.file(0, "log");
    let first = std::fs::read(&path).unwrap();
    let second_batch = BatchMeta::parse(&first).unwrap().size_bytes as usize;
    let mut bytes = first.clone();
    bytes[second_batch + 16] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    log.close().unwrap();
    let (log, _) = bench.try_open(true);
    let segment_end = log.view().read().sealed[0].end_offset;
    let request = ReadRequest { offset: 4, limit: 180, bytes_max: 300, at_least_one: true };
    let outcome = log.view().lookup(&request);
    assert!(matches!(outcome, Err(LogError::Damaged { .. })));
    let behind = ReadRequest { offset: segment_end, ..request };
    let slice = expect_slice(log.view().lookup(&behind).unwrap());
    assert_eq!(metas_of(&slice)[0].base_offset, segment_end);
}
