//! The simulator from the command line.
//!
//! Called by: `scripts/sim`. Calls: the simulations, and with `--cfg planted` the bugs put in on purpose.
//! Invariant: each failure is printed with the command that runs it again, the revision that failed and what the seed drew; the
//! exit code is 1 when there was one.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
#[cfg(planted)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use tests::sim::campaign::{Less, World, keep_panics_quiet};
use tests::sim::ensemble::LONG_FROM;
use tests::sim::fault::Fault;
use tests::sim::many::Plan;

/// What this program was built from, as `scripts/sim` found it.
const REVISION: &str = match option_env!("TIDEGATE_REVISION") {
    Some(revision) => revision,
    None => "an unknown revision",
};

/// Simulations make and drop small things all the time: with the C library's allocator they take a seventh longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    Run {
        world: String,
        seed: u64,
        /// A kind of fault that does not happen. May be given several times.
        #[arg(long, value_name = "KIND", value_parser = fault)]
        without: Vec<Fault>,
        /// Mend everything after so many simulated milliseconds, if it would not be mended before.
        #[arg(long, value_name = "MS")]
        until: Option<u64>,
    },
    /// The same seeds each time, one in ten of them twice.
    Gate,
    /// Many seeds of one simulation.
    Many { world: String, from: u64, count: u64 },
    /// New seeds of all simulations, each of a simulated minute and more.
    Campaign(Until),
    /// Switches faults off, and mends everything earlier, as long as the seed fails.
    Shrink { world: String, seed: u64 },
    /// Every bug that can be put in, by the seed known to find it, or afresh.
    #[cfg(planted)]
    Planted {
        /// Forget the known seeds.
        #[arg(long)]
        afresh: bool,
        /// Only bugs with this in their name: which of the first seeds find them, each alone.
        #[arg(long, value_name = "NAME")]
        search: Option<String>,
    },
}

/// How far a campaign goes.
#[derive(Args)]
struct Until {
    /// For so many hours.
    #[arg(required_unless_present = "seeds")]
    hours: Option<f64>,
    /// So many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed: what the former campaign ended with, to go on.
    #[arg(long, default_value_t = LONG_FROM)]
    from: u64,
    /// A file for the summary, written anew every minute.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

fn world(name: &str) -> World {
    let found = World::ALL.into_iter().find(|world| world.name() == name);
    found.unwrap_or_else(|| panic!("there is no simulation {name}"))
}

/// Runs seeds of a simulation, one in ten of them twice; true when none fails.
fn run_many(world: World, seeds: Range<u64>) -> bool {
    let twice = |seed: u64| seed.is_multiple_of(10);
    let world = |_| world;
    let plan = Plan {
        revision: REVISION,
        world: &world,
        seeds,
        end: None,
        twice: &twice,
        is_told: true,
        output: None,
    };
    let sums = plan.run();
    print!("\r{}", sums.describe());
    sums.is_sound()
}

/// Which simulation a seed of a campaign is for: of 50 in a row, so many each.
fn share(seed: u64) -> World {
    match seed % SHARES {
        0..25 => World::Replication,
        25..37 => World::Ensemble,
        37..40 => World::Calm,
        _ => World::Groups,
    }
}

const SHARES: u64 = 50;

/// New seeds of all simulations, for so long or so many of them, from a first one on.
fn campaign(until: Until) -> bool {
    let limit = until.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    let end = limit.map(|limit| Instant::now() + limit);
    let from = until.from.max(LONG_FROM);
    let seeds = from..until.seeds.map_or(u64::MAX, |count| from + count);
    // One in ten, and in each simulation as many.
    let twice = |seed: u64| (seed % SHARES) % 10 == (seed / SHARES) % 10;
    let plan = Plan {
        revision: REVISION,
        world: &share,
        seeds,
        end,
        twice: &twice,
        is_told: true,
        output: until.output,
    };
    let sums = plan.run();
    println!("\r{}seeds {from} to {}; go on with --from {1}", sums.describe(), sums.next);
    sums.is_sound()
}

/// A kind of fault by its name.
fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    found.ok_or_else(|| format!("there is none; there are {:?}", Fault::ALL))
}

/// One seed, with every event; true when it does not fail.
fn run(world: World, seed: u64, less: &Less) -> bool {
    if *less != Less::default() && !world.can_do_less() {
        eprintln!("{} knows neither --without nor --until", world.name());
        return false;
    }
    println!("{REVISION}: {}", world.command(seed, less));
    match catch_unwind(AssertUnwindSafe(|| world.run(seed, less, true))) {
        Ok(outcome) => println!("{outcome:?}"),
        Err(_) => {
            let (command, settings) = (world.command(seed, less), world.settings(seed));
            println!("FAILS: {command}\n       at {REVISION}: {settings}");
            return false;
        }
    }
    true
}

fn shrink(world: World, seed: u64) -> bool {
    let tell = |what: &str, fails| {
        let kept = if fails { "still fails" } else { "needed" };
        println!("{what}: {kept}");
    };
    match world.shrink(seed, tell) {
        None => println!("{} {seed} does not fail at {REVISION}", world.name()),
        Some((less, why)) => println!(
            "FAILS: {}\n       {why}\n       at {REVISION}: {}",
            world.command(seed, &less),
            world.settings(seed)
        ),
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
                        "{bug:?}: seed {}, {:.1} simulated minutes: {:.160}",
                        found.seed,
                        found.simulated_us as f64 / 6e7,
                        found.rule
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

/// A few seeds that find each bug of that name, for the list of known ones.
#[cfg(planted)]
fn search(name: &str) -> bool {
    use tests::sim::planted::{SEEDS, all, find};
    const ENOUGH: usize = 3;
    let named = all().into_iter().filter(|(bug, _)| format!("{bug:?}").contains(name));
    let mut is_found = false;
    for (bug, _) in named {
        let found = (0..SEEDS).filter_map(|seed| find(bug, std::iter::once(seed)));
        for found in found.take(ENOUGH) {
            is_found = true;
            println!("{bug:?}: seed {}: {:.160}", found.seed, found.rule);
        }
    }
    is_found
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Of one run the broken rule is said where it stands among the events.
    if !matches!(arguments.command, Command::Run { .. }) {
        keep_panics_quiet();
    }
    let sound = match arguments.command {
        Command::Run { world: name, seed, without, until } => {
            let without = without.into_iter().collect();
            run(world(&name), seed, &Less { without, until_ms: until })
        }
        Command::Gate => {
            let each = GATE.map(|(world, count)| run_many(world, 0..count));
            each.into_iter().all(|sound| sound)
        }
        Command::Many { world: name, from, count } => run_many(world(&name), from..from + count),
        Command::Campaign(until) => campaign(until),
        Command::Shrink { world: name, seed } => shrink(world(&name), seed),
        #[cfg(planted)]
        Command::Planted { afresh, search: None } => planted(afresh),
        #[cfg(planted)]
        Command::Planted { search: Some(name), .. } => search(&name),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
