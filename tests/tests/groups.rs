//! Groups under simulation, many seeds.
//!
//! `SIM_SEEDS=n` runs n seeds, `SIM_SEED=n` only that one, with `SIM_TRACE=1` printing every event.

use tests::sim::groups::{Report, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs seeds one after the other; the first that fails, if any.
fn run_all(seeds: u64) -> (Vec<Report>, Option<u64>) {
    let mut reports = Vec::new();
    for seed in 0..seeds {
        match std::panic::catch_unwind(|| run(seed, false)) {
            Ok(report) => reports.push(report),
            Err(_) => return (reports, Some(seed)),
        }
    }
    (reports, None)
}

#[test]
fn groups_keep_their_promises_while_coordinators_and_members_fail() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:?}", run(seed, number("SIM_TRACE").is_some()));
        return;
    }
    let (reports, failed) = run_all(number("SIM_SEEDS").unwrap_or(30));
    if let Some(seed) = failed {
        panic!("SIM_SEED={seed} fails");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} runs, {} events, {} failovers, {} commits acknowledged, work handed out {} times",
        reports.len(),
        sum(|report| report.events),
        sum(|report| report.failovers),
        sum(|report| report.commits),
        sum(|report| report.handed_out),
    );
    assert!(sum(|report| report.commits) > 10 * reports.len() as u64, "hardly anything happened");
    assert!(
        sum(|report| report.handed_out) > 10 * reports.len() as u64,
        "hardly anything happened"
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
