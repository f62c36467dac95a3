//! Any sequence of operations against a list of batches.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { records: i32, value_bytes: usize, epoch_step: i32 },
    Truncate { back: i64 },
    Sync,
    Reopen { clean: bool },
    LogStart { forward: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..20, 0..300_usize, 0..2).prop_map(|(records, value_bytes, epoch_step)| {
            Step::Append { records, value_bytes: value_bytes / records as usize, epoch_step }
        }),
        1 => (0..60_i64).prop_map(|back| Step::Truncate { back }),
        2 => Just(Step::Sync),
        2 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        1 => (0..30_i64).prop_map(|forward| Step::LogStart { forward }),
    ]
}

/// What the log must hold: base offset, next offset and epoch of each batch.
#[derive(Default)]
struct Model {
    batches: Vec<(i64, i64, i32)>,
    end: i64,
    log_start: i64,
    epoch: i32,
}

impl Model {
    fn check(&self, log: &Log) {
        log.check();
        let ends = log.view().ends();
        assert_eq!((ends.log_start, ends.end), (self.log_start, self.end));
        let expected: Vec<_> =
            self.batches.iter().copied().filter(|(_, next, _)| *next > self.log_start).collect();
        for bytes_max in [0, 700, 1 << 20] {
            let found: Vec<_> = read_all(log, bytes_max)
                .iter()
                .map(|meta| (meta.base_offset, meta.next_offset(), meta.leader_epoch))
                .collect();
            assert_eq!(found, expected, "fetches of {bytes_max}");
        }
        for (base, next, epoch) in expected {
            assert_eq!(log.view().epoch_of(base.max(self.log_start)), Some(epoch));
            assert_eq!(log.view().epoch_of(next - 1), Some(epoch));
        }
    }

    fn take(&mut self, log: Log, bench: &mut Bench, step: &Step) -> Log {
        let mut log = log;
        match *step {
            Step::Append { records, value_bytes, epoch_step } => {
                self.epoch += epoch_step;
                let batch = SampleBatch {
                    records,
                    value_bytes,
                    leader_epoch: self.epoch,
                    ..Default::default()
                };
                assert_eq!(append(&mut log, batch), self.end);
                let next = self.end + i64::from(records);
                self.batches.push((self.end, next, self.epoch));
                self.end = next;
            }
            Step::Truncate { back } => {
                let to = (self.end - back).max(self.log_start);
                self.batches.retain(|(_, next, _)| *next <= to);
                self.end = log.truncate_to(to).unwrap();
                let kept = self.batches.last().map(|(_, next, _)| *next);
                assert!(kept.is_none_or(|kept| kept == self.end) && self.end <= to);
                self.log_start = self.log_start.min(self.end);
            }
            Step::Sync => log.sync().unwrap(),
            Step::Reopen { clean } => {
                if clean {
                    log.close().unwrap();
                } else {
                    drop(log);
                }
                // The owner's checkpoint names the start: what lies whole below it is unlinked.
                log = bench.try_open_with(clean, Some(self.log_start)).0;
            }
            Step::LogStart { forward } => {
                log.sync().unwrap();
                let to = (self.log_start + forward).min(self.end);
                let removed = log.advance_log_start(to, i64::MAX);
                self.log_start = removed.log_start;
                assert_eq!(removed.log_start, to);
                for path in log.discard(&removed.segments).unwrap() {
                    std::fs::remove_file(path).ok();
                }
            }
        }
        log
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn log_is_a_list_of_batches(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new(small_segments());
        let mut log = bench.open();
        let mut model = Model::default();
        for step in &steps {
            log = model.take(log, &mut bench, step);
            model.check(&log);
        }
    }
}
