//! Runs of any of the simulations, by name and seed, in one shape.
//!
//! Called by: the `sim` program and the tests. Calls: the simulations.
//! Invariant: a run that breaks a rule ends as a failure that says which one; nothing else of it is kept.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::decisions::Decisions;
use super::ensemble::schedule::{MS, Time};
use super::ensemble::{self, Profile};
use super::fault::{Fault, Struck};
use super::{groups, replication};

/// A run is not shortened by less than this.
const SHORTER_MS: u64 = 50;

/// A simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum World {
    /// The coordinator's ensemble, while everything breaks.
    Ensemble,
    /// The ensemble, while only clients die: everything in time.
    Calm,
    /// Brokers and their partitions, while everything breaks.
    Replication,
    /// Consumer groups and their coordinators, while everything breaks.
    Groups,
}

/// What of a seed's run is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Less {
    /// Kinds of faults that do not happen.
    pub without: BTreeSet<Fault>,
    /// Everything is mended after so many milliseconds, if it would not be before.
    pub until_ms: Option<u64>,
}

impl Less {
    fn shorten(&self, work: &mut Time) {
        let until = self.until_ms.map_or(Time::MAX, |ms| ms.saturating_mul(MS));
        *work = until.min(*work);
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Equal for equal runs.
    pub digest: u64,
    /// Simulated time, in microseconds.
    pub simulated: Time,
    /// Operations of clients that were compared with what happened.
    pub operations: u64,
    /// Faults by kind.
    pub struck: Struck,
    /// What the deciding code did.
    pub decisions: Decisions,
}

impl World {
    /// All of them.
    pub const ALL: [World; 4] = [World::Ensemble, World::Calm, World::Replication, World::Groups];

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            World::Ensemble => "ensemble",
            World::Calm => "calm",
            World::Replication => "replication",
            World::Groups => "groups",
        }
    }

    /// The command that runs a seed so.
    #[must_use]
    pub fn command(self, seed: u64, less: &Less) -> String {
        let mut command = format!("scripts/sim {} {seed}", self.name());
        for fault in &less.without {
            let _ = write!(command, " --without {fault:?}");
        }
        if let Some(ms) = less.until_ms {
            let _ = write!(command, " --until {ms}");
        }
        command
    }

    /// What the seed drew, in words.
    #[must_use]
    pub fn settings(self, seed: u64) -> String {
        match self {
            World::Ensemble | World::Calm => {
                format!("{:?}", ensemble::draw(seed, self.profile()).0)
            }
            World::Replication => format!("{:?}", replication::draw(seed)),
            World::Groups => format!("{:?}", groups::Cast::draw(seed)),
        }
    }

    /// Whether runs can be had with less than the seed drew. Of groups the faults are of other kinds, and none can be
    /// switched off.
    #[must_use]
    pub fn can_do_less(self) -> bool {
        self != World::Groups
    }

    /// When everything is mended.
    fn work(self, seed: u64) -> Time {
        match self {
            World::Ensemble | World::Calm => ensemble::draw(seed, self.profile()).0.work,
            World::Replication => replication::draw(seed).work,
            World::Groups => Time::MAX,
        }
    }

    fn profile(self) -> Profile {
        if self == World::Calm { Profile::Calm } else { Profile::Chaos }
    }

    /// Runs a seed, with less than it drew. Panics when a rule is broken.
    pub fn run(self, seed: u64, less: &Less, print: bool) -> Outcome {
        match self {
            World::Ensemble | World::Calm => {
                let change = |settings: &mut ensemble::Settings| {
                    settings.without.clone_from(&less.without);
                    less.shorten(&mut settings.work);
                };
                let report = ensemble::run_with(seed, self.profile(), print, change);
                let audited = report.audited;
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: audited.writes
                        + audited.reads
                        + audited.events
                        + audited.changes
                        + audited.held,
                    struck: report.struck,
                    decisions: report.decisions,
                }
            }
            World::Replication => {
                let change = |settings: &mut replication::Settings| {
                    settings.without.clone_from(&less.without);
                    less.shorten(&mut settings.work);
                };
                let report = replication::run_with(seed, print, change);
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: report.acknowledged + report.consumed + report.compared,
                    struck: report.struck,
                    decisions: report.decisions,
                }
            }
            World::Groups => {
                assert_eq!(*less, Less::default(), "groups know no less");
                let report = groups::run(seed, print);
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: report.commits + report.handed_out,
                    struck: Struck::default(),
                    decisions: report.decisions,
                }
            }
        }
    }

    /// Runs a seed, and again if `twice`.
    ///
    /// # Errors
    /// The rule that was broken, in words; with `twice` also that the two runs differ.
    pub fn try_run(self, seed: u64, less: &Less, twice: bool) -> Result<Outcome, String> {
        let run = || {
            let ran = catch_unwind(AssertUnwindSafe(|| self.run(seed, less, false)));
            ran.map_err(|_| LAST_PANIC.with_borrow(String::clone))
        };
        let first = run()?;
        if twice && run()? != first {
            return Err("the same seed gives another run".to_owned());
        }
        Ok(first)
    }

    /// Switches kinds of faults off, one after the other, as long as the seed still fails, and then mends everything
    /// earlier and earlier. How little it needs in the end, and the last failure; none when the seed does not fail.
    pub fn shrink(self, seed: u64, tell: impl FnMut(&str, bool)) -> Option<(Less, String)> {
        let fails = |less: &Less| self.try_run(seed, less, false).err();
        if !self.can_do_less() {
            return fails(&Less::default()).map(|why| (Less::default(), why));
        }
        least(self.work(seed).div_ceil(MS), fails, tell)
    }
}

/// How little a run needs that works for so many milliseconds, with its last failure, when it fails at all.
fn least(
    work_ms: u64,
    mut fails: impl FnMut(&Less) -> Option<String>,
    mut tell: impl FnMut(&str, bool),
) -> Option<(Less, String)> {
    let mut less = Less::default();
    let mut failure = fails(&less)?;
    for fault in Fault::ALL {
        let mut fewer = less.clone();
        fewer.without.insert(fault);
        let why = fails(&fewer);
        tell(&format!("without {fault:?}"), why.is_some());
        if let Some(why) = why {
            (less, failure) = (fewer, why);
        }
    }
    // It fails when it works for `long`, and not, or that was not tried, when it works for `short`.
    let (mut short, mut long) = (0, work_ms);
    while long - short > SHORTER_MS {
        let middle = short + (long - short) / 2;
        let shorter = Less { until_ms: Some(middle), ..less.clone() };
        let why = fails(&shorter);
        tell(&format!("until {middle} ms"), why.is_some());
        match why {
            Some(why) => (less, failure, long) = (shorter, why, middle),
            None => short = middle,
        }
    }
    Some((less, failure))
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the last panic of this thread said, after [`keep_panics_quiet`].
#[must_use]
pub fn last_panic() -> String {
    LAST_PANIC.with_borrow(String::clone)
}

/// Lets a broken rule be told in the failure of its run instead of on the terminal.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string().replace('\n', " ");
        LAST_PANIC.with_borrow_mut(|last| *last = message);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_leaves_what_the_failure_needs_and_the_command_says_it() {
        let needed = [Fault::Kill, Fault::FullDisk];
        let fails = |less: &Less| {
            let has_all = needed.iter().all(|fault| !less.without.contains(fault));
            let is_long = less.until_ms.is_none_or(|ms| ms >= 7_321);
            (has_all && is_long).then(|| format!("{:?}", less.until_ms))
        };
        let (less, why) = least(20_000, fails, |_, _| {}).expect("it fails");
        let off: BTreeSet<Fault> =
            Fault::ALL.into_iter().filter(|fault| !needed.contains(fault)).collect();
        assert_eq!(less.without, off);
        let until = less.until_ms.expect("it was shortened");
        assert!((7_321..=7_321 + SHORTER_MS).contains(&until), "{until}");
        assert_eq!(why, format!("{:?}", less.until_ms));
        let command = World::Ensemble.command(5, &less);
        assert!(command.starts_with("scripts/sim ensemble 5 --without KillWithin --without "));
        assert!(command.ends_with(&format!(" --until {until}")), "{command}");
        assert_eq!(least(20_000, |_| None, |_, _| {}), None);
    }
}
