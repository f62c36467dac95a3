//! The commit thread of a log directory: one commit round after the other.
//!
//! Called by: the append thread, which submits tickets; the thread runs [`run`]. Calls: the worker's
//! rounds, `partition`. Invariant: one round at a time; a round begins as soon as a ticket is there
//! and none runs. After a failed sync the directory is fenced and nothing is tried again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_log::{LogError, SyncTicket};

use super::directory::Directory;
use super::partition::Partition;
use super::worker::{MarksPace, Round, Rounds};

/// Tickets that wait for the thread.
#[derive(Default)]
pub(super) struct Tickets {
    inner: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    rounds: Rounds<Arc<Partition>>,
    sleeping: bool,
    ended: bool,
}

impl Tickets {
    /// Adds what a log needs synced to the next round.
    pub fn submit(&self, partition: Arc<Partition>, ticket: SyncTicket) {
        let mut inner = self.lock();
        inner.rounds.submit(partition, ticket);
        let wake = std::mem::take(&mut inner.sleeping);
        drop(inner);
        if wake {
            self.ready.notify_one();
        }
    }

    /// The thread ends after what waits now.
    pub fn end(&self) {
        self.lock().ended = true;
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for tickets, at most `limit`; `None` when the thread shall end.
    fn take(&self, limit: Option<Duration>) -> Option<Round<Arc<Partition>>> {
        let mut inner = self.lock();
        while inner.rounds.is_empty() {
            if inner.ended {
                return None;
            }
            inner.sleeping = true;
            let Some(limit) = limit else {
                inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.ready.wait_timeout(inner, limit);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            if timeout.timed_out() {
                break;
            }
        }
        inner.sleeping = false;
        Some(inner.rounds.begin())
    }
}

/// Runs the thread until the directory's rounds end.
pub(super) fn run(directory: &Arc<Directory>) {
    let mut pace = MarksPace::default();
    while let Some(round) = directory.rounds.take(pace.wait_ms_max().map(Duration::from_millis)) {
        if directory.is_failed() {
            continue;
        }
        if !round.is_empty()
            && let Err(error) = commit(directory, &round)
        {
            directory.fail(&error.to_string());
            continue;
        }
        if pace.take_due(&round, directory.hub.clock.now()) {
            sync_marks(directory);
        }
    }
    if pace.is_waiting() && !directory.is_failed() {
        sync_marks(directory);
    }
    directory.set_committed();
}

fn sync_marks(directory: &Directory) {
    if let Err(error) = directory.folder.sync_marks() {
        directory.fail(&error.to_string());
    }
}

/// One round: syncs, publishes, notes the marks.
pub(super) fn commit(directory: &Directory, round: &Round<Arc<Partition>>) -> Result<(), LogError> {
    round.sync(&directory.folder)?;
    for (partition, synced) in round.publish() {
        partition.synced(synced);
    }
    round.note_marks(&directory.folder)
}
