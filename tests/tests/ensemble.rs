//! The coordinator ensemble under simulation, a few seeds; `scripts/sim` runs many.
//!
//! `SIM_SEEDS=n` runs n seeds of each profile, `SIM_SEED=n` only that one, with `SIM_TRACE=1`
//! printing every event.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tests::sim::ensemble::{Profile, Report, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs many seeds on as many threads as there are processors; each run is on one of them.
fn run_all(profile: Profile, seeds: u64) {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:?}", run(seed, profile, number("SIM_TRACE").is_some()));
        return;
    }
    let next = AtomicU64::new(0);
    let reports: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    let seeds = number("SIM_SEEDS").unwrap_or(seeds);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let ran = std::panic::catch_unwind(|| run(seed, profile, false));
                    match ran {
                        Ok(report) => reports.lock().expect("no panic inside").push(report),
                        Err(_) => {
                            next.store(seeds, Ordering::Relaxed);
                            panic!("SIM_SEED={seed} fails in {profile:?}");
                        }
                    }
                }
            });
        }
    });
    let reports = reports.into_inner().expect("no panic inside");
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{profile:?}: {} runs, {} events, {} entries, {} terms, {:?}",
        reports.len(),
        sum(|report| report.events),
        sum(|report| report.entries),
        sum(|report| report.terms),
        reports.first().map(|report| report.audited),
    );
}

#[test]
fn ensemble_keeps_its_promises_while_everything_breaks() {
    run_all(Profile::Chaos, 40);
}

#[test]
fn ensemble_expires_sessions_on_time() {
    run_all(Profile::Calm, 10);
}

#[test]
fn same_seed_gives_the_same_run() {
    for seed in [3, 1_000_003] {
        let first = run(seed, Profile::Chaos, false);
        assert_eq!(run(seed, Profile::Chaos, false), first);
        assert_ne!(run(seed + 1, Profile::Chaos, false).digest, first.digest);
    }
}
