//! The cleaner of a process: what is to be compacted, one log at a time, and the ends that it may come to.
//!
//! Called by: `process`, `storage`. Calls: the plans of the broker's log. Invariant: every plan is answered with a job for its log, unless the
//! process ends. A process may end between any two operations on the disk, of a cleaning or of the swap after it.

use broker::partitions::worker::LogJob;
use broker_log::{CleanError, CleaningPlan};

use super::message::{Alarm, Outbox};
use super::process::Process;
use super::storage::{Of, ProcessJob};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};

/// The longest that a cleaning waits for its thread.
const WAIT_MAX: Time = 400 * MS;
/// About as many operations on the disk as a cleaning or a swap takes.
const OPERATIONS: u64 = 60;

impl Process {
    /// A log is to be cleaned when the cleaner comes to it.
    pub(super) fn plan_cleaning(&mut self, of: Of, plan: CleaningPlan, out: &mut Outbox) {
        self.directory.plans.push_back((of, plan));
        out.alarms.push((self.random.below(WAIT_MAX), Alarm::Clean));
    }

    /// The cleaner does what it was given first.
    pub(super) fn clean(&mut self, out: &mut Outbox) {
        let Some((of, plan)) = self.directory.plans.pop_front() else { return };
        if self.directory.failed.is_some() {
            return;
        }
        let dies = self.may_end();
        let cleaned = plan.run();
        if dies && self.has_ended(out) {
            return;
        }
        let job = match cleaned {
            Ok(cleaned) => LogJob::SwapCleaned(Box::new(cleaned)),
            Err(CleanError::Stopped) => unreachable!("nobody stops it"),
            Err(CleanError::Disk(_)) => LogJob::GiveUpCleaning { for_good: false },
            Err(CleanError::Sync(why)) => return self.fail(why, out),
            Err(CleanError::Damaged { .. }) => {
                out.complaints.push(self.id);
                LogJob::GiveUpCleaning { for_good: true }
            }
        };
        out.decided.push(match &job {
            LogJob::SwapCleaned(_) => "cleaner Cleaned",
            _ => "cleaner GaveUp",
        });
        self.push_log_job(of.key, job, out);
    }

    /// Whether the process may end within what comes next on its disk: it was told how soon.
    fn may_end(&mut self) -> bool {
        let ends = self.settings.compaction.as_ref().map_or(0, |compaction| compaction.ends);
        let dies = self.random.chance(ends, 1_000);
        if dies {
            let count = self.random.below(OPERATIONS);
            self.disk().die_after(count);
        }
        dies
    }

    /// Whether it did; if not it lives on.
    fn has_ended(&mut self, out: &mut Outbox) -> bool {
        let ended = !self.disk().live_on();
        out.ended |= ended;
        ended
    }

    fn disk(&self) -> &SimulatedDisk {
        self.directory.disk()
    }

    /// Does a job between whose operations on the disk the process may end.
    pub(super) fn run_swap(&mut self, job: ProcessJob, now: Time, out: &mut Outbox) {
        let dies = self.may_end();
        self.run_job(job, now, out);
        if dies {
            self.has_ended(out);
        }
    }
}
