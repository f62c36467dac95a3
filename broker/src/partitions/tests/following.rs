use super::*;
use broker_core::partition::{EpochEnd, FetchAnswer};
use client_protocol::records::assign_offsets;

/// Topic `t`, led by broker 2, followed here.
fn follower(toml: &str) -> Bench {
    let mut bench = Bench::new(toml);
    bench.create("[1,2]", &state(2, 0, "[1,2]"));
    bench.until(|bench| bench.sent().contains(&Sent::FetchFrom(2, 0)));
    bench
}

fn led(base_offset: i64, epoch: i32, values: &[&str]) -> Vec<u8> {
    let mut bytes = batch(values);
    assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(epoch)).unwrap();
    bytes.to_vec()
}

impl Bench {
    /// Answers the fetch that is due.
    fn answer(&self, high_watermark: i64, records: Vec<u8>) -> Result<(), ErrorCode> {
        self.until(|bench| bench.partitions.fetch_position(key()).is_some());
        let position = self.partitions.fetch_position(key()).unwrap();
        let answer = FetchAnswer {
            leader_epoch: position.leader_epoch,
            fetch_offset: position.fetch_offset,
            error: ErrorCode::None,
            diverging: None,
            high_watermark: Some(Offset::new(high_watermark)),
            log_start: Some(Offset::ZERO),
            has_records: !records.is_empty(),
        };
        self.partitions.fetch_answered(key(), &answer, &Bytes::from(records))
    }

    fn diverges(&self, epoch: i32, end_offset: i64) {
        self.until(|bench| bench.partitions.fetch_position(key()).is_some());
        let position = self.partitions.fetch_position(key()).unwrap();
        let diverging =
            EpochEnd { leader_epoch: LeaderEpoch::new(epoch), end_offset: Offset::new(end_offset) };
        let answer = FetchAnswer {
            leader_epoch: position.leader_epoch,
            fetch_offset: position.fetch_offset,
            error: ErrorCode::None,
            diverging: Some(diverging),
            high_watermark: None,
            log_start: None,
            has_records: false,
        };
        self.partitions.fetch_answered(key(), &answer, &Bytes::new()).unwrap();
    }
}

#[tokio::test]
async fn fetched_batches_are_appended_as_they_are_and_become_durable() {
    let bench = follower("");
    let both = [led(0, 0, &["a", "b"]), led(2, 0, &["c"])].concat();
    bench.answer(0, both.clone()).unwrap();
    bench.until(|bench| bench.status().durable_end.get() == 3);
    bench.until(|bench| bench.sent().contains(&Sent::ReportProgress));
    let position = bench.partitions.fetch_position(key()).unwrap();
    assert_eq!((position.fetch_offset.get(), position.durable_end.get()), (3, 3));
    assert_eq!(position.last_fetched_epoch, Some(LeaderEpoch::new(0)));
    bench.answer(2, Vec::new()).unwrap();
    assert_eq!(bench.status().high_watermark.get(), 2);
    let log = bench.folder.join("logs/t-0/00000000000000000000.log");
    assert_eq!(std::fs::read(log).unwrap(), both);
}

#[tokio::test]
async fn batch_cut_short_by_the_leader_is_asked_for_again() {
    let bench = follower("");
    let mut cut = [led(0, 0, &["a"]), led(1, 0, &["b"])].concat();
    cut.truncate(cut.len() - 3);
    bench.answer(0, cut).unwrap();
    bench.until(|bench| bench.status().end.get() == 1);
    bench.answer(0, led(1, 0, &["b"])).unwrap();
    bench.until(|bench| bench.status().end.get() == 2);
}

#[tokio::test]
async fn damaged_or_misplaced_batches_are_not_appended() {
    let bench = follower("");
    let mut damaged = led(0, 0, &["a"]);
    let last = damaged.len() - 2;
    damaged[last] ^= 1;
    assert_eq!(bench.answer(0, damaged), Err(ErrorCode::CorruptMessage));
    bench.answer(0, led(0, 0, &["a"])).unwrap();
    bench.until(|bench| bench.status().end.get() == 1);
    assert_eq!(bench.answer(0, led(0, 0, &["a"])), Err(ErrorCode::CorruptMessage));
    bench.answer(1, led(1, 0, &["b"])).unwrap();
    bench.until(|bench| bench.status().end.get() == 2);
}

#[tokio::test]
async fn divergence_is_cut_at_the_epochs_end() {
    let mut bench = follower("");
    bench.answer(0, [led(0, 0, &["a"]), led(1, 0, &["b"]), led(2, 0, &["c"])].concat()).unwrap();
    bench.until(|bench| bench.status().durable_end.get() == 3);
    bench.set_state(&state(3, 1, "[1,2]"));
    bench.until(|bench| bench.sent().contains(&Sent::FetchFrom(3, 1)));
    bench.diverges(0, 1);
    bench.until(|bench| bench.status().end.get() == 1);
    assert_eq!(bench.status().durable_end.get(), 1);
    bench.answer(1, led(1, 1, &["x"])).unwrap();
    bench.until(|bench| bench.status().durable_end.get() == 2);
    let report = bench.partitions.describe_replica(key()).unwrap();
    assert_eq!(report.last_epoch, Some(LeaderEpoch::new(1)));
    assert_eq!((report.end_offset.get(), report.cut_below_mark), (2, false));
}

#[tokio::test]
async fn answer_of_a_former_leadership_changes_nothing() {
    let mut bench = follower("");
    bench.until(|bench| bench.partitions.fetch_position(key()).is_some());
    let answer = FetchAnswer {
        leader_epoch: LeaderEpoch::new(0),
        fetch_offset: Offset::ZERO,
        error: ErrorCode::None,
        diverging: None,
        high_watermark: None,
        log_start: None,
        has_records: true,
    };
    bench.set_state(&state(3, 1, "[1,2]"));
    bench.until(|bench| bench.sent().contains(&Sent::FetchFrom(3, 1)));
    let records = Bytes::from(led(0, 0, &["a"]));
    bench.partitions.fetch_answered(key(), &answer, &records).unwrap();
    bench.answer(0, led(0, 1, &["x"])).unwrap();
    bench.until(|bench| bench.status().end.get() == 1);
    assert_eq!(bench.partitions.describe_replica(key()).unwrap().last_epoch.unwrap().get(), 1);
    // Nor is it called damaged when the log ends in records of the new leader.
    let late = FetchAnswer { fetch_offset: Offset::new(1), ..answer };
    let records = Bytes::from(led(1, 0, &["b"]));
    bench.partitions.fetch_answered(key(), &late, &records).unwrap();
    assert_eq!(bench.status().end.get(), 1);
}

#[tokio::test]
async fn follower_becomes_leader_and_goes_on() {
    let mut bench = follower("");
    bench.answer(0, led(0, 0, &["a"])).unwrap();
    bench.until(|bench| bench.status().durable_end.get() == 1);
    bench.set_state(&state(1, 1, "[1]"));
    bench.until(Bench::leads);
    assert_eq!(bench.produce(1, batch(&["b"])).await, Ok(1));
    assert!(bench.sent().contains(&Sent::StopFetching));
    let mut request = bench.follow(0, 0, None);
    request.partitions[0].current_leader_epoch = Some(LeaderEpoch::new(1));
    let fetched = bench.fetch(request).await;
    let epochs: Vec<_> = records_of(&fetched).iter().map(|(_, epoch, _)| *epoch).collect();
    assert_eq!(epochs, [0, 1]);
}

#[tokio::test]
async fn records_of_a_later_epoch_than_was_asked_under_are_not_taken() {
    let bench = follower("");
    assert_eq!(bench.answer(0, led(0, 2, &["a"])), Err(ErrorCode::CorruptMessage));
    assert_eq!(bench.status().end.get(), 0);
}

#[tokio::test]
async fn what_compaction_left_out_is_no_gap_to_a_follower() {
    // Neither while the topic is compacted, nor when it was once and its leader's log still shows it.
    for settings in ["log.cleanup.policy = \"compact\"", ""] {
        let bench = follower(settings);
        bench.answer(0, led(7, 0, &["a"])).unwrap();
        bench.until(|bench| bench.status().end.get() == 8);
        bench.answer(8, led(12, 0, &["b"])).unwrap();
        bench.until(|bench| bench.status().end.get() == 13);
    }
}
