//! Runs of any of the simulations, by name and seed, in one shape.
//!
//! Called by: the `sim` program and the tests. Calls: the simulations.
//! Invariant: a run that breaks a rule ends as a failure that says which one; nothing else of it is kept.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::decisions::Decisions;
use super::ensemble::schedule::Time;
use super::ensemble::{self, Profile};
use super::fault::{Fault, Struck};
use super::{groups, replication};

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

    /// Runs a seed without some kinds of faults. Panics when a rule is broken.
    pub fn run(self, seed: u64, without: &BTreeSet<Fault>, print: bool) -> Outcome {
        match self {
            World::Ensemble | World::Calm => {
                let chaos = self == World::Ensemble;
                let profile = if chaos { Profile::Chaos } else { Profile::Calm };
                let change =
                    |settings: &mut ensemble::Settings| settings.without.clone_from(without);
                let report = ensemble::run_with(seed, profile, print, change);
                let audited = report.audited;
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: audited.writes + audited.reads + audited.events + audited.changes,
                    struck: report.struck,
                    decisions: report.decisions,
                }
            }
            World::Replication => {
                let change =
                    |settings: &mut replication::Settings| settings.without.clone_from(without);
                let report = replication::run_with(seed, print, change);
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: report.acknowledged + report.consumed + report.compared,
                    struck: report.struck,
                    decisions: report.decisions,
                }
            }
            // Its faults are of other kinds, and none can be switched off.
            World::Groups => {
                let report = groups::run(seed, print);
                Outcome {
                    digest: report.digest,
                    simulated: report.simulated,
                    operations: report.commits + report.handed_out,
                    struck: Struck::default(),
                    decisions: Decisions::default(),
                }
            }
        }
    }

    /// Runs a seed, and again if `twice`.
    ///
    /// # Errors
    /// The rule that was broken, in words; with `twice` also that the two runs differ.
    pub fn try_run(
        self,
        seed: u64,
        without: &BTreeSet<Fault>,
        twice: bool,
    ) -> Result<Outcome, String> {
        let run = || {
            let ran = catch_unwind(AssertUnwindSafe(|| self.run(seed, without, false)));
            ran.map_err(|_| LAST_PANIC.with_borrow(String::clone))
        };
        let first = run()?;
        if twice && run()? != first {
            return Err("the same seed gives another run".to_owned());
        }
        Ok(first)
    }

    /// Switches kinds of faults off, one after the other, as long as the seed still fails. What is off in the end, and the last failure; none
    /// when the seed does not fail.
    pub fn shrink(
        self,
        seed: u64,
        mut tell: impl FnMut(Fault, bool),
    ) -> Option<(BTreeSet<Fault>, String)> {
        let mut off = BTreeSet::new();
        let mut failure = self.try_run(seed, &off, false).err()?;
        for fault in Fault::ALL {
            let mut fewer = off.clone();
            fewer.insert(fault);
            let ran = self.try_run(seed, &fewer, false);
            tell(fault, ran.is_err());
            if let Err(why) = ran {
                (off, failure) = (fewer, why);
            }
        }
        Some((off, failure))
    }
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
