//! Many seeds on all processors: what they came to, and how long they took.
//!
//! Called by: the `sim` program, and the tests. Calls: `campaign`, which runs one.
//! Invariant: each seed runs in one simulation, on one thread; whichever failed is named at once. What is printed on the way goes to standard
//! error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::campaign::{Less, Outcome, World};
use super::decisions::Decisions;
use super::expected;
use super::fault::Struck;

/// No more seeds are begun after so many failures.
const FAILURES_MAX: usize = 10;
/// How often progress is told.
const TERMINAL_EVERY: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(60);
const US_PER_HOUR: f64 = 3.6e9;

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// Runs without a failure.
    pub runs: u64,
    /// Simulated time, in microseconds. A seed that ran twice counts twice.
    pub simulated_us: u64,
    /// Operations of clients that were compared with what happened.
    pub operations: u64,
    /// Faults by kind.
    pub struck: Struck,
    /// What was decided, how often.
    pub decisions: Decisions,
    /// Seeds that failed, with the rule that broke.
    pub failures: Vec<(World, u64, String)>,
    /// What it took of the processors.
    pub cpu: Duration,
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Sum {
    fn add(&mut self, outcome: &Outcome, times: u64) {
        self.runs += 1;
        self.simulated_us += outcome.simulated * times;
        self.operations += outcome.operations;
        for (fault, count) in &outcome.struck {
            *self.struck.entry(*fault).or_default() += count;
        }
        self.decisions.add(&outcome.decisions);
    }

    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.simulated_us as f64 / US_PER_HOUR
    }

    /// Simulated hours in an hour of CPU time.
    #[must_use]
    pub fn hours_per_cpu_hour(&self) -> f64 {
        self.hours() / (self.cpu.as_secs_f64() / 3600.0).max(f64::MIN_POSITIVE)
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{} seeds, {} failures, {:.2} simulated hours ({:.0} per CPU hour), {} operations compared",
            self.runs,
            self.failures.len(),
            self.hours(),
            self.hours_per_cpu_hour(),
            self.operations,
        );
        let faults: Vec<String> =
            self.struck.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        if !faults.is_empty() {
            let _ = write!(text, "\n    faults: {}", faults.join(", "));
        }
        if !self.decisions.is_empty() {
            let _ = write!(text, "\n    decisions: {}", self.decisions);
        }
        text
    }
}

/// What many runs came to, of each simulation.
#[derive(Debug, Default)]
pub struct Sums {
    each: BTreeMap<World, Sum>,
    /// Of the program.
    pub revision: &'static str,
    /// Seeds below this were run.
    pub next: u64,
    /// What it took, by the clock.
    pub took: Duration,
}

impl Sums {
    /// All of it in one, without what only one simulation knows.
    #[must_use]
    pub fn all(&self) -> Sum {
        let mut all = Sum::default();
        for sum in self.each.values() {
            all.runs += sum.runs;
            all.simulated_us += sum.simulated_us;
            all.operations += sum.operations;
            all.cpu += sum.cpu;
            all.failures.extend(sum.failures.iter().cloned());
        }
        all
    }

    /// What should have happened at least once in so many runs, and never did.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        let of = |(&world, sum): (&World, &Sum)| {
            expected::unseen(world, sum.runs, &sum.struck, &sum.decisions)
        };
        self.each.iter().flat_map(of).collect()
    }

    /// Whether no run failed, and everything happened that should have.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.all().failures.is_empty() && self.unseen().is_empty()
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (world, sum) in &self.each {
            let _ = writeln!(text, "{:<12} {}", world.name(), sum.describe());
        }
        let all = self.all();
        if self.each.len() > 1 {
            let _ = writeln!(text, "{:<12} {}", "all", all.describe());
        }
        for (world, seed, why) in &all.failures {
            let _ = writeln!(text, "{}", failure(self.revision, (*world, *seed), why));
        }
        for what in self.unseen() {
            let _ = writeln!(text, "UNSEEN: {what}");
        }
        let _ = writeln!(text, "{:<12} {} s, at {}", "took", self.took.as_secs(), self.revision);
        text
    }
}

/// What is to be known of a failure: how to run it again, the rule that broke, what the seed drew.
#[must_use]
pub fn failure(revision: &str, (world, seed): (World, u64), why: &str) -> String {
    let (command, settings) = (world.command(seed, &Less::default()), world.settings(seed));
    format!("FAILS: {command}\n       {why:.600}\n       at {revision}: {settings}")
}

/// Which seeds are run.
pub struct Plan<'a> {
    /// Of the program.
    pub revision: &'static str,
    /// In which simulation each.
    pub world: &'a (dyn Fn(u64) -> World + Sync),
    /// From the first to the last (exclusive).
    pub seeds: Range<u64>,
    /// None is begun after this.
    pub end: Option<Instant>,
    /// Whether a seed is run twice and compared with itself.
    pub twice: &'a (dyn Fn(u64) -> bool + Sync),
    /// Whether progress is told.
    pub is_told: bool,
    /// Where the summary is written whenever progress is told, and in the end.
    pub output: Option<PathBuf>,
}

/// What was done so far.
struct Progress {
    sums: Sums,
    began: Instant,
    told: Instant,
    /// Seeds that were begun and are not done.
    under_way: BTreeSet<u64>,
    /// The first seed that was not begun.
    unbegun: u64,
}

impl Progress {
    /// Another seed, none when there is no other.
    fn begin(&mut self, plan: &Plan<'_>) -> Option<u64> {
        let is_over = plan.end.is_some_and(|end| Instant::now() >= end)
            || self.unbegun >= plan.seeds.end
            || self.sums.each.values().map(|sum| sum.failures.len()).sum::<usize>() >= FAILURES_MAX;
        if is_over {
            return None;
        }
        self.unbegun += 1;
        self.under_way.insert(self.unbegun - 1);
        Some(self.unbegun - 1)
    }

    fn note(&mut self, world: World, seed: u64, ran: (Result<Outcome, String>, u64, Duration)) {
        let (ran, times, cpu) = ran;
        self.under_way.remove(&seed);
        self.sums.next = self.under_way.first().copied().unwrap_or(self.unbegun);
        self.sums.took = self.began.elapsed();
        let sum = self.sums.each.entry(world).or_default();
        sum.cpu += cpu;
        match ran {
            Ok(outcome) => sum.add(&outcome, times),
            Err(why) => {
                eprintln!("\r{}", failure(self.sums.revision, (world, seed), &why));
                sum.failures.push((world, seed, why));
            }
        }
    }
}

impl Plan<'_> {
    /// Some seeds of a simulation, each once, quietly.
    #[must_use]
    pub fn quiet(world: World, seeds: Range<u64>) -> Sum {
        let world = |_| world;
        let twice = |_| false;
        let plan = Plan {
            revision: "a test's",
            world: &world,
            seeds,
            end: None,
            twice: &twice,
            is_told: false,
            output: None,
        };
        plan.run().each.into_values().next().unwrap_or_default()
    }

    /// Runs them on all processors.
    ///
    /// # Panics
    /// When a thread does outside of a run.
    #[must_use]
    pub fn run(&self) -> Sums {
        let began = Instant::now();
        let progress = Mutex::new(Progress {
            sums: Sums { revision: self.revision, next: self.seeds.start, ..Sums::default() },
            began,
            told: began,
            under_way: BTreeSet::new(),
            unbegun: self.seeds.start,
        });
        let lock = || progress.lock().expect("no panic inside");
        let work = || {
            // The lock is let go of before the run.
            let next = || lock().begin(self);
            while let Some(seed) = next() {
                let (world, twice) = ((self.world)(seed), (self.twice)(seed));
                let cpu = cpu_time();
                let ran = world.try_run(seed, &Less::default(), twice);
                let cpu = cpu_time().saturating_sub(cpu);
                let mut progress = lock();
                progress.note(world, seed, (ran, if twice { 2 } else { 1 }, cpu));
                self.tell(&mut progress);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
                scope.spawn(work);
            }
        });
        let progress = progress.into_inner().expect("no panic inside");
        self.keep(&progress.sums);
        progress.sums
    }

    /// A bar on a terminal, a line now and then elsewhere.
    fn tell(&self, progress: &mut Progress) {
        let is_terminal = std::io::stderr().is_terminal();
        let every = if is_terminal { TERMINAL_EVERY } else { LOG_EVERY };
        if !self.is_told || progress.told.elapsed() < every {
            return;
        }
        progress.told = Instant::now();
        self.keep(&progress.sums);
        let all = progress.sums.all();
        let seeds = (all.runs + all.failures.len() as u64) as f64;
        let done = seeds / (self.seeds.end - self.seeds.start).max(1) as f64;
        let elapsed = progress.began.elapsed();
        let by_time = self.end.map(|end| {
            let all = end.duration_since(progress.began).as_secs_f64();
            elapsed.as_secs_f64() / all.max(f64::MIN_POSITIVE)
        });
        let done = done.max(by_time.unwrap_or(0.0)).clamp(1e-6, 1.0);
        let left = Duration::from_secs_f64(elapsed.as_secs_f64() * (1.0 - done) / done);
        let bar: String =
            (0..20).map(|step| if f64::from(step) < done * 20.0 { '#' } else { '.' }).collect();
        let line = format!(
            "[{bar}] {:.1} %, {} seeds, {:.2} simulated hours, {} failures, {} min left, at {}",
            done * 100.0,
            all.runs,
            all.hours(),
            all.failures.len(),
            left.as_secs() / 60,
            progress.sums.next,
        );
        if is_terminal { eprint!("\r{line}  ") } else { eprintln!("{line}") }
    }

    /// Writes the summary where it is wanted; one that cannot be written is said, and ends nothing.
    fn keep(&self, sums: &Sums) {
        let Some(path) = &self.output else { return };
        let (from, to) = (self.seeds.start, sums.next);
        let text = format!("{}seeds {from} to {to}; go on with --from {to}\n", sums.describe());
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
        if let Err(error) = written {
            eprintln!("\r{}: {error}", path.display());
        }
    }
}
