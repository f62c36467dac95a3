//! The cleaner of a process: what is to be compacted, one log at a time.
//!
//! Called by: `process`, `storage`. Calls: the plans of the broker's log. Invariant: every plan is answered with a job for its log, unless the
//! process ends, which it may between any two operations on the disk.

use std::sync::mpsc::{TryRecvError, sync_channel};

use broker::partitions::worker::{Job, LogJob};
use broker_log::{CleanError, CleaningPlan};

use super::message::{Alarm, Outbox};
use super::process::Process;
use super::storage::Of;
use crate::sim::ensemble::schedule::{MS, Time};

/// The longest that a cleaning waits for its thread.
const WAIT_MAX: Time = 400 * MS;

impl Process {
    /// A log is to be cleaned when the cleaner comes to it.
    pub(super) fn plan_cleaning(&mut self, of: Of, plan: CleaningPlan, out: &mut Outbox) {
        self.directory.plans.push_back((of, plan));
        out.alarms.push((self.random.below(WAIT_MAX), Alarm::Clean));
    }

    /// The append thread may have put steps in place: the cleaner goes on with what is left of those logs.
    pub(super) fn go_on_cleaning(&mut self, out: &mut Outbox) {
        for (of, rest) in std::mem::take(&mut self.directory.swaps) {
            match rest.try_recv() {
                Ok(Some(plan)) => self.plan_cleaning(of, *plan, out),
                Ok(None) | Err(TryRecvError::Disconnected) => {}
                Err(TryRecvError::Empty) => self.directory.swaps.push((of, rest)),
            }
        }
    }

    /// The cleaner does what it was given first.
    pub(super) fn clean(&mut self, out: &mut Outbox) {
        let Some((of, plan)) = self.directory.plans.pop_front() else { return };
        if self.directory.failed.is_some() {
            return;
        }
        let job = match plan.run() {
            Ok(cleaned) => {
                let (swapped, rest) = sync_channel(1);
                self.directory.swaps.push((of.clone(), rest));
                LogJob::SwapCleaned(Box::new(cleaned), swapped)
            }
            Err(CleanError::Stopped) => unreachable!("nobody stops it"),
            Err(CleanError::Cut | CleanError::Disk(_)) => {
                LogJob::GiveUpCleaning { for_good: false }
            }
            Err(CleanError::Sync(why)) => return self.fail(why, out),
            Err(error @ CleanError::Damaged { .. }) => {
                out.complaints.push((self.id, error.to_string()));
                LogJob::GiveUpCleaning { for_good: true }
            }
        };
        out.decided.push(match &job {
            LogJob::SwapCleaned(..) => "cleaner Cleaned",
            _ => "cleaner GaveUp",
        });
        self.push_job(Job::Log(of, job), out);
    }
}
