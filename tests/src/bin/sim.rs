//! The simulator from the command line.
//!
//! Called by: `scripts/sim`. Calls: the simulations, and with `--cfg planted` the bugs put in on purpose.
//! Invariant: each failure is printed with the command that runs it again; the exit code is 1 when there was one.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use tests::sim::campaign::{Outcome, World, keep_panics_quiet};
use tests::sim::fault::Struck;

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
    /// New seeds of all simulations for so many hours.
    Campaign { hours: f64 },
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

fn world(name: &str) -> World {
    let found = World::ALL.into_iter().find(|world| world.name() == name);
    found.unwrap_or_else(|| panic!("there is no simulation {name}"))
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    simulated_us: u64,
    operations: u64,
    struck: Struck,
    failures: Vec<u64>,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.simulated_us += outcome.simulated;
        self.operations += outcome.operations;
        for (fault, count) in &outcome.struck {
            *self.struck.entry(*fault).or_default() += count;
        }
    }

    fn print(&self, world: World, took: Duration) {
        let hours = self.simulated_us as f64 / 3.6e9;
        println!(
            "\r{:<12} {} runs, {} failures, {hours:.2} simulated hours in {:.1} s ({:.3} per second), {} operations compared",
            world.name(),
            self.runs,
            self.failures.len(),
            took.as_secs_f64(),
            hours / took.as_secs_f64(),
            self.operations,
        );
        let faults: Vec<String> =
            self.struck.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        println!("             faults: {}", faults.join(", "));
    }
}

/// Runs seeds on all processors until `go_on` says no to one; true when none fails.
fn run_many(world: World, from: u64, go_on: impl Fn(u64) -> bool + Sync) -> bool {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !go_on(seed) {
                return;
            }
            let ran = world.try_run(seed, &BTreeSet::new(), seed.is_multiple_of(10));
            let mut sum = sum.lock().expect("no panic inside");
            match ran {
                Ok(outcome) => sum.add(&outcome),
                Err(why) => {
                    println!("\rFAILS: scripts/sim {} {seed}\n       {why:.600}", world.name());
                    sum.failures.push(seed);
                    stop.store(sum.failures.len() >= 10, Ordering::Relaxed);
                }
            }
            if sum.runs % 20 == 0 && std::io::stderr().is_terminal() {
                let hours = sum.simulated_us as f64 / 3.6e9;
                eprint!("\r{} {} runs, {hours:.2} hours ", world.name(), sum.runs);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(work);
        }
    });
    let sum = sum.into_inner().expect("no panic inside");
    sum.print(world, began.elapsed());
    sum.failures.is_empty()
}

fn campaign(hours: f64) -> bool {
    let from = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = from.map_or(0, |since| since.as_secs()) << 20;
    let end = Instant::now() + Duration::from_secs_f64(hours * 3600.0);
    let mut sound = true;
    let mut at = from;
    while Instant::now() < end {
        for (world, share) in GATE {
            sound &= run_many(world, at, |seed| seed < at + share && Instant::now() < end);
        }
        at += 1 << 12;
    }
    sound
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
            let each = GATE.map(|(world, count)| run_many(world, 0, |seed| seed < count));
            each.into_iter().all(|sound| sound)
        }
        Command::Many { world: name, from, count } => {
            run_many(world(&name), from, |seed| seed < from + count)
        }
        Command::Campaign { hours } => campaign(hours),
        Command::Shrink { world: name, seed } => shrink(world(&name), seed),
        #[cfg(planted)]
        Command::Planted { afresh } => planted(afresh),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
