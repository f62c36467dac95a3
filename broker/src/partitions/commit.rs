//! The commit rounds of a log directory: they make what was appended durable.
//!
//! Called by: the append thread, which submits tickets; the thread runs [`run`]. Calls: the disk,
//! the marks, `partition`.
//! Invariant: one round at a time; a round begins as soon as a ticket is there and none runs, and
//! takes all that wait; its result counts for a log only under the truncation generation that the
//! ticket names. After a failed sync the directory is fenced and nothing is tried again.
//!
//! ```text
//! append   a1 a2      a3 a4 a5        a6
//! round       |a1 a2    |a3 a4 a5       |a6       each syncs all files in parallel
//! marks                 a1 a2 noted     a3..a5 noted, made durable when there is time
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use broker_core::ids::TopicPartition;
use broker_log::{LogError, SyncTicket};
use coordinator_disk::File;

use super::directory::Directory;
use super::partition::Partition;

/// Marks that were noted become durable after this long at the latest, at once when nothing else
/// is to be done. Until then recovery checks a little more than it had to.
const MARKS_SYNC_MAX: Duration = Duration::from_secs(1);
/// How long nothing must have come before the marks are synced for their own sake.
const IDLE: Duration = Duration::from_millis(50);

/// Tickets that wait for a round.
#[derive(Default)]
pub(super) struct Round {
    inner: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    tickets: HashMap<TopicPartition, Entry>,
    sleeping: bool,
    ended: bool,
}

/// What one log needs synced.
pub(super) struct Entry {
    pub partition: Arc<Partition>,
    pub ticket: SyncTicket,
}

impl Round {
    /// Adds what a log needs synced to the next round.
    pub fn submit(&self, partition: &Arc<Partition>, ticket: SyncTicket) {
        let mut inner = self.lock();
        match inner.tickets.get_mut(&partition.key) {
            Some(entry) => entry.ticket.merge(ticket),
            None => {
                let entry = Entry { partition: Arc::clone(partition), ticket };
                inner.tickets.insert(partition.key, entry);
            }
        }
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
    fn take(&self, limit: Option<Duration>) -> Option<Vec<Entry>> {
        let mut inner = self.lock();
        while inner.tickets.is_empty() {
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
        Some(inner.tickets.drain().map(|(_, entry)| entry).collect())
    }
}

/// Runs the thread until the directory's rounds end.
pub(super) fn run(directory: &Arc<Directory>) {
    let mut marks_since: Option<Instant> = None;
    while let Some(entries) = directory.round.take(marks_since.map(|_| IDLE)) {
        if directory.is_failed() {
            continue;
        }
        let idle = entries.is_empty();
        if !idle {
            if let Err(error) = commit(directory, &entries) {
                directory.fail(&error.to_string());
                continue;
            }
            marks_since.get_or_insert_with(Instant::now);
        }
        if marks_since.is_some_and(|since| idle || since.elapsed() > MARKS_SYNC_MAX) {
            marks_since = None;
            sync_marks(directory);
        }
    }
    if marks_since.is_some() && !directory.is_failed() {
        sync_marks(directory);
    }
}

fn sync_marks(directory: &Directory) {
    if let Err(error) = directory.marks.sync() {
        directory.fail(&error.to_string());
    }
}

/// One round: syncs, publishes, notes the marks.
pub(super) fn commit(directory: &Directory, entries: &[Entry]) -> Result<(), LogError> {
    let disk = &*directory.disk;
    let files: Vec<Arc<dyn File>> =
        entries.iter().flat_map(|entry| entry.ticket.files.iter().cloned()).collect();
    let failed = |source| LogError::Disk { path: directory.path.clone(), source };
    if !files.is_empty() {
        disk.sync_many(&files).map_err(failed)?;
    }
    for entry in entries {
        entry.ticket.finish(disk)?;
    }
    if entries.iter().any(|entry| entry.ticket.parent) {
        disk.sync_dir(&directory.path).map_err(failed)?;
    }
    for Entry { partition, ticket } in entries {
        if let Some(durable_end) = ticket.view.publish_durable(ticket.generation, ticket.end) {
            partition.synced(durable_end, ticket.generation);
        }
    }
    let counted = entries
        .iter()
        .map(|entry| &entry.ticket)
        .filter(|ticket| ticket.view.generation() == ticket.generation)
        .map(|ticket| (ticket.mark_id, ticket.end));
    let noted = directory.marks.append(counted);
    noted.map_err(|error| failed(std::io::Error::other(error.to_string())))
}
