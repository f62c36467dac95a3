//! The cleaner's thread of a log directory: one log at a time is compacted.
//!
//! Called by: the append thread, which hands plans over; the thread runs [`run`]. Calls: the plans.
//! Invariant: every plan that was taken is answered with a job for its log, unless the thread was told
//! to end or the directory is fenced; a sync that failed fences it; a log that cannot be cleaned never keeps another one
//! from it; one log at a time is at work, from its first step to its last, because each holds its keys. Decides nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker_log::{CleanError, CleaningPlan};
use tracing::{debug, error, info, warn};

use super::directory::Directory;
use super::partition::Partition;
use super::worker::LogJob;

/// How often a thread that waits for a swap looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Plans that wait for the thread: at most one of each log.
#[derive(Default)]
pub(super) struct Cleaner {
    plans: Mutex<Plans>,
    ready: Condvar,
}

#[derive(Default)]
struct Plans {
    waiting: VecDeque<(Arc<Partition>, CleaningPlan)>,
    /// Stops the one that is under way.
    stop: Option<Arc<AtomicBool>>,
    ended: bool,
}

impl Cleaner {
    /// Hands a plan over. It is dropped when the thread has ended.
    pub fn submit(&self, partition: Arc<Partition>, plan: CleaningPlan) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if !plans.ended {
            plans.waiting.push_back((partition, plan));
            self.ready.notify_one();
        }
    }

    /// Ends the thread as soon as it has left the batch it is at.
    pub fn end(&self) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.ended = true;
        // They hold partitions, which hold this.
        plans.waiting.clear();
        if let Some(stop) = &plans.stop {
            stop.store(true, Ordering::Release);
        }
        self.ready.notify_one();
    }

    /// Waits for a plan; `None` when there will be none.
    fn take(&self) -> Option<(Arc<Partition>, CleaningPlan)> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.stop = None;
        loop {
            if plans.ended {
                return None;
            }
            if let Some((partition, plan)) = plans.waiting.pop_front() {
                plans.stop = Some(plan.stopper());
                return Some((partition, plan));
            }
            plans = self.ready.wait(plans).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Cleaner {
    /// Waits until a step is in place, or will never be; gives the next one.
    fn wait(&self, rest: &Receiver<Option<Box<CleaningPlan>>>) -> Option<Box<CleaningPlan>> {
        loop {
            match rest.recv_timeout(LOOK_EVERY) {
                Ok(rest) => return rest,
                // Dropped with the job: the log is gone, or its directory fenced.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
                    if plans.ended {
                        return None;
                    }
                }
            }
        }
    }
}

/// Runs the thread until it is ended.
pub(super) fn run(directory: &Arc<Directory>) {
    while let Some((partition, plan)) = directory.cleaner.take() {
        let (begun, mut next) = (Instant::now(), Some(Box::new(plan)));
        while let Some(plan) = next.take().filter(|_| !directory.is_failed()) {
            next = step(directory, &partition, &plan, begun);
        }
    }
}

/// One step of a cleaning, and the next one, if there is one.
fn step(
    directory: &Directory,
    partition: &Arc<Partition>,
    plan: &CleaningPlan,
    begun: Instant,
) -> Option<Box<CleaningPlan>> {
    let (topic, number) = (&partition.topic, partition.key.partition);
    let job = match plan.run() {
        Ok(cleaned) => {
            if cleaned.is_last() {
                let (report, ms) = (cleaned.report, begun.elapsed().as_millis());
                let (before, after, keys) = (report.bytes_before, report.bytes_after, report.keys);
                info!(%topic, partition = %number, before, after, keys, ms, "compacted");
            }
            let (swapped, rest) = sync_channel(1);
            partition.push(LogJob::SwapCleaned(Box::new(cleaned), swapped));
            return directory.cleaner.wait(&rest);
        }
        Err(CleanError::Stopped) => {
            debug!(%topic, partition = %number, "not compacted: stopping");
            return None;
        }
        Err(CleanError::Cut) => {
            debug!(%topic, partition = %number, "not compacted: the log was cut meanwhile");
            LogJob::GiveUpCleaning { for_good: false }
        }
        Err(why @ CleanError::Disk(_)) => {
            warn!(%topic, partition = %number, "not compacted, to be tried again: {why}");
            LogJob::GiveUpCleaning { for_good: false }
        }
        Err(CleanError::Sync(why)) => {
            directory.fail(&why.to_string());
            return None;
        }
        Err(why @ CleanError::Damaged { .. }) => {
            error!(%topic, partition = %number, "not compacted until it is cut or opened anew: {why}");
            LogJob::GiveUpCleaning { for_good: true }
        }
    };
    partition.push(job);
    None
}
