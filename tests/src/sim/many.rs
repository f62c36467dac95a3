//! Many seeds on all processors: what they came to, and how long they took.
//!
//! Called by: the `sim` program, and the tests. Calls: `campaign`, which runs one.
//! Invariant: each seed runs once, on one thread; whichever failed is named. What is printed on the way goes to standard error.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::campaign::{Outcome, World};
use super::decisions::Decisions;
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
    /// The first seed that was not begun.
    pub next: u64,
    /// What it took, by the clock.
    pub took: Duration,
    /// What it took of the processors.
    pub cpu: Duration,
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
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

    /// Adds what others came to.
    pub fn merge(&mut self, other: Sum) {
        self.runs += other.runs;
        self.simulated_us += other.simulated_us;
        self.operations += other.operations;
        for (fault, count) in other.struck {
            *self.struck.entry(fault).or_default() += count;
        }
        self.decisions.add(&other.decisions);
        self.failures.extend(other.failures);
        self.next = self.next.max(other.next);
        self.took += other.took;
        self.cpu += other.cpu;
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
            "{} seeds, {} failures, {:.2} simulated hours ({:.0} per CPU hour), {} operations compared, {:.0} s",
            self.runs,
            self.failures.len(),
            self.hours(),
            self.hours_per_cpu_hour(),
            self.operations,
            self.took.as_secs_f64(),
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

/// Which seeds are run.
pub struct Plan<'a> {
    /// In which simulation.
    pub world: World,
    /// From the first to the last (exclusive).
    pub seeds: Range<u64>,
    /// None is begun after this.
    pub end: Option<Instant>,
    /// Whether a seed is run twice and compared with itself.
    pub twice: &'a (dyn Fn(u64) -> bool + Sync),
    /// Whether progress is told.
    pub is_told: bool,
}

impl Plan<'_> {
    /// Some seeds of a simulation, each once, quietly.
    #[must_use]
    pub fn quiet(world: World, seeds: Range<u64>) -> Self {
        Self { world, seeds, end: None, twice: &|_| false, is_told: false }
    }

    /// Runs them on all processors.
    ///
    /// # Panics
    /// When a thread does outside of a run.
    #[must_use]
    pub fn run(&self) -> Sum {
        let (began, cpu) = (Instant::now(), cpu_time());
        let next = AtomicU64::new(self.seeds.start);
        let stop = AtomicBool::new(false);
        let progress = Mutex::new((Sum::default(), began));
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                if self.end.is_some_and(|end| Instant::now() >= end) {
                    return;
                }
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= self.seeds.end {
                    return;
                }
                let twice = (self.twice)(seed);
                let ran = self.world.try_run(seed, &BTreeSet::new(), twice);
                let mut progress = progress.lock().expect("no panic inside");
                self.note(&mut progress.0, (seed, twice), ran);
                stop.store(progress.0.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
                self.tell(&mut progress, began);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
                scope.spawn(work);
            }
        });
        let (mut sum, _) = progress.into_inner().expect("no panic inside");
        sum.next = next.into_inner().min(self.seeds.end);
        sum.took = began.elapsed();
        sum.cpu = cpu_time().saturating_sub(cpu);
        sum
    }

    fn note(&self, sum: &mut Sum, (seed, twice): (u64, bool), ran: Result<Outcome, String>) {
        match ran {
            Ok(outcome) => sum.add(&outcome, if twice { 2 } else { 1 }),
            Err(why) => {
                eprintln!("\rFAILS: scripts/sim {} {seed}\n       {why:.600}", self.world.name());
                sum.failures.push((self.world, seed, why));
            }
        }
    }

    /// A bar on a terminal, a line now and then elsewhere.
    fn tell(&self, (sum, told): &mut (Sum, Instant), began: Instant) {
        let is_terminal = std::io::stderr().is_terminal();
        let every = if is_terminal { TERMINAL_EVERY } else { LOG_EVERY };
        if !self.is_told || told.elapsed() < every {
            return;
        }
        *told = Instant::now();
        let done = sum.runs as f64 / (self.seeds.end - self.seeds.start).max(1) as f64;
        let elapsed = began.elapsed();
        let by_time = self.end.map(|end| {
            elapsed.as_secs_f64() / end.duration_since(began).as_secs_f64().max(f64::MIN_POSITIVE)
        });
        let done = done.max(by_time.unwrap_or(0.0)).clamp(1e-6, 1.0);
        let left = Duration::from_secs_f64(elapsed.as_secs_f64() * (1.0 - done) / done);
        let bar: String =
            (0..20).map(|step| if f64::from(step) < done * 20.0 { '#' } else { '.' }).collect();
        let line = format!(
            "{:<11} [{bar}] {:.0} %, {} seeds, {:.2} hours, {} failures, {} min left",
            self.world.name(),
            done * 100.0,
            sum.runs,
            sum.hours(),
            sum.failures.len(),
            left.as_secs() / 60,
        );
        if is_terminal { eprint!("\r{line}  ") } else { eprintln!("{line}") }
    }
}
