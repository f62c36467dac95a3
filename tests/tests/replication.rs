//! Replication under simulation, a few seeds; `scripts/sim` runs many.
//!
//! `SIM_SEEDS=n` runs n seeds, `SIM_SEED=n` only that one, with `SIM_TRACE=1` printing every event.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tests::sim::replication::{Report, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs seeds on as many threads as there are processors, each run on one of them. The first seed that fails, if any.
fn run_all(seeds: u64) -> (Vec<Report>, Option<u64>) {
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let reports: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| run(seed, false)) {
                        Ok(report) => reports.lock().expect("no panic inside").push(report),
                        Err(_) => {
                            failed.fetch_min(seed, Ordering::Relaxed);
                            next.store(seeds, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    (reports.into_inner().expect("no panic inside"), (failed != u64::MAX).then_some(failed))
}

#[test]
fn replication_keeps_its_promises_while_everything_breaks() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:?}", run(seed, number("SIM_TRACE").is_some()));
        return;
    }
    let (reports, failed) = run_all(number("SIM_SEEDS").unwrap_or(60));
    if let Some(seed) = failed {
        panic!("SIM_SEED={seed} fails");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} runs, {} events, {} offsets committed, {} batches acknowledged, {} records consumed, \
         {} partitions lost with their only in-sync disk",
        reports.len(),
        sum(|report| report.events),
        sum(|report| report.committed),
        sum(|report| report.acknowledged),
        sum(|report| report.consumed),
        sum(|report| report.lost_partitions),
    );
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in [3, 1_000_003] {
        let first = run(seed, false);
        assert_eq!(run(seed, false), first);
        assert_ne!(run(seed + 1, false).digest, first.digest);
    }
}
