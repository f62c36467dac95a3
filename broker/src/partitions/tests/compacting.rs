//! Compaction by the cleaner's thread, with clients at work.

use super::*;

pub const SETTINGS: &str = "log.cleanup.policy = \"compact\"\nlog.segment.bytes = 1024\nlog.cleaner.min.cleanable.ratio = 0.1";

pub fn keyed(key: &str, value: &str) -> BytesMut {
    let mut builder = BatchBuilder::new(1 << 20);
    let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    let (key, value) = (bytes(key), bytes(value));
    assert!(builder.push(&Record { timestamp_ms: 1_000, key, value, headers: Vec::new() }));
    BytesMut::from(&builder.build(None).unwrap()[..])
}

async fn read_all(bench: &Bench) -> Vec<(i64, String)> {
    let (mut offset, mut all) = (0, Vec::new());
    while offset < bench.status().end.get() {
        let fetched = bench.fetch(bench.consume(offset)).await;
        assert_eq!(fetched.error, ErrorCode::None);
        let bytes = bytes_of(&fetched);
        let last = Batches::new(&bytes).last().expect("a batch").unwrap();
        offset = last.header.end_offset().unwrap().get();
        all.extend(records_of(&fetched).into_iter().map(|(offset, _, value)| (offset, value)));
    }
    all
}

#[tokio::test]
async fn old_values_go_while_the_log_is_used_and_stay_gone_after_a_kill() {
    let mut bench = Bench::alone(SETTINGS);
    let mut last = 0;
    for round in 0..60 {
        for key in ["a", "b"] {
            last = bench.produce(-1, keyed(key, &format!("{key}-{round}"))).await.unwrap();
        }
    }
    let full = bench.status().end.get();
    assert_eq!(full, last + 1);
    bench.until(|bench| bench.status().size_bytes < 3_000);
    let expected = ["a-59", "b-59"];
    for is_restarted in [false, true] {
        if is_restarted {
            bench.restart(false);
            bench.set_state(&state(1, 1, "[1]"));
            bench.until(|bench| bench.leads());
        }
        let read = read_all(&bench).await;
        let newest: Vec<&str> = read.iter().rev().take(2).rev().map(|(_, v)| v.as_str()).collect();
        assert_eq!(newest, expected);
        assert!(read.is_sorted() && read.len() < 60, "{}", read.len());
        assert_eq!(bench.status().end.get(), full);
    }
}
