//! The simulator from the command line.
//!
//! Called by: `scripts/sim`. Calls: the simulations, and with `--cfg planted` the bugs put in on purpose.
//! Invariant: each failure is printed with the command that runs it again; the exit code is 1 when there was one.

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
#[cfg(planted)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use tests::sim::campaign::{World, keep_panics_quiet};
use tests::sim::decisions::Decisions;
use tests::sim::ensemble::LONG_FROM;
use tests::sim::fault::Struck;
use tests::sim::many::{Plan, Sum};

/// Seeds of each simulation in the gate.
const GATE: [(World, u64); 4] =
    [(World::Ensemble, 400), (World::Calm, 60), (World::Replication, 1_500), (World::Groups, 300)];

/// Runs simulations.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One seed, with every event.
    Run { world: String, seed: u64 },
    /// The same seeds each time, one in ten of them twice.
    Gate,
    /// Many seeds of one simulation.
    Many { world: String, from: u64, count: u64 },
    /// New seeds of all simulations, each of a simulated minute and more.
    Campaign(Until),
    /// Switches faults off as long as the seed fails.
    Shrink { world: String, seed: u64 },
    /// Every bug that can be put in, by the seed known to find it, or afresh.
    #[cfg(planted)]
    Planted {
        /// Forget the known seeds.
        #[arg(long)]
        afresh: bool,
    },
}

/// How far a campaign goes.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct Until {
    /// For so many hours.
    hours: Option<f64>,
    /// So many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed: what the former campaign ended with, to go on.
    #[arg(long, default_value_t = LONG_FROM)]
    from: u64,
}

fn world(name: &str) -> World {
    let found = World::ALL.into_iter().find(|world| world.name() == name);
    found.unwrap_or_else(|| panic!("there is no simulation {name}"))
}

/// Runs seeds of a simulation, one in ten of them twice; true when none fails.
fn run_many(world: World, seeds: Range<u64>) -> bool {
    let twice = |seed: u64| seed.is_multiple_of(10);
    let sum = Plan { world, seeds, end: None, twice: &twice, is_told: true }.run();
    println!("\r{:<12} {}", world.name(), sum.describe());
    sum.failures.is_empty()
}

/// How many of 100 seeds of a campaign each simulation gets.
const SHARES: [(World, u64); 4] =
    [(World::Replication, 55), (World::Ensemble, 30), (World::Calm, 5), (World::Groups, 10)];
/// Seeds of a round of a campaign that ends by the clock.
const ROUND: u64 = 400;

/// New seeds of all simulations, for so many hours or so many of them, from a first one on.
fn campaign(until: &Until) -> bool {
    let limit = until.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let end = limit.map(|limit| Instant::now() + limit);
    let from = until.from.max(LONG_FROM);
    let mut sums = SHARES.map(|(world, _)| (world, Sum::default()));
    let mut at = from;
    loop {
        let left = until.seeds.map_or(ROUND, |seeds| (from + seeds).saturating_sub(at));
        if left == 0 || end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let mut begin = at;
        for ((world, sum), (_, share)) in sums.iter_mut().zip(SHARES) {
            let count =
                if begin == at { left - left * (100 - share) / 100 } else { left * share / 100 };
            let seeds = begin..(begin + count).min(at + left);
            begin = seeds.end;
            let twice = |seed: u64| seed.is_multiple_of(100);
            let plan = Plan { world: *world, seeds, end, twice: &twice, is_told: true };
            sum.merge(plan.run());
        }
        at += left;
    }
    conclude(sums, from..at)
}

fn conclude(sums: [(World, Sum); 4], seeds: Range<u64>) -> bool {
    let mut all = Sum::default();
    for (world, sum) in sums {
        println!("\r{:<12} {}", world.name(), sum.describe());
        all.merge(Sum { decisions: Decisions::default(), struck: Struck::new(), ..sum });
    }
    println!("{:<12} {}", "all", all.describe());
    for (world, seed, why) in &all.failures {
        println!("FAILS: scripts/sim {} {seed}\n       {why:.600}", world.name());
    }
    println!("seeds {} to {}; go on with --from {}", seeds.start, seeds.end, seeds.end);
    all.failures.is_empty()
}

fn shrink(world: World, seed: u64) -> bool {
    let tell = |fault, fails| {
        let kept = if fails { "still fails" } else { "needed" };
        println!("without {fault:?}: {kept}");
    };
    match world.shrink(seed, tell) {
        None => println!("{} {seed} does not fail", world.name()),
        Some((off, why)) => println!("fails without {off:?}:\n{why}"),
    }
    true
}

#[cfg(planted)]
fn planted(afresh: bool) -> bool {
    use tests::sim::planted::{SEEDS, all, find};
    let bugs = all();
    let (next, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let at = || next.fetch_add(1, Ordering::Relaxed) as usize;
        while let Some((bug, known)) = bugs.get(at()) {
            let known = if afresh { 1 << 32 } else { *known };
            let tried =
                std::iter::once(known).chain((0..SEEDS).map(|seed| seed + (known >> 32 << 32)));
            match find(*bug, tried) {
                Some(found) => {
                    println!(
                        "{bug:?}: seed {}, {:.1} simulated minutes",
                        found.seed,
                        found.simulated_us as f64 / 6e7
                    );
                }
                None => {
                    println!("{bug:?}: MISSED");
                    missed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(work);
        }
    });
    println!("{} planted bugs, {} missed", bugs.len(), missed.load(Ordering::Relaxed));
    missed.into_inner() == 0
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Run { world: name, seed } = &arguments.command {
        println!("{:?}", world(name).run(*seed, &BTreeSet::new(), true));
        return ExitCode::SUCCESS;
    }
    keep_panics_quiet();
    let sound = match arguments.command {
        Command::Run { .. } => true,
        Command::Gate => {
            let each = GATE.map(|(world, count)| run_many(world, 0..count));
            each.into_iter().all(|sound| sound)
        }
        Command::Many { world: name, from, count } => run_many(world(&name), from..from + count),
        Command::Campaign(until) => campaign(&until),
        Command::Shrink { world: name, seed } => shrink(world(&name), seed),
        #[cfg(planted)]
        Command::Planted { afresh } => planted(afresh),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
