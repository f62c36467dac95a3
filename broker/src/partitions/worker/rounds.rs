//! Commit rounds: they make durable what was appended.
//!
//! Called by: the commit thread, the start, the simulator. Calls: the disk, the marks.
//! Invariant: a round takes all tickets that wait; its result counts for a log only under the
//! truncation generation that the ticket names. Whoever steps it runs one round at a time, and
//! after a failed sync none any more.
//!
//! ```text
//! append   a1 a2      a3 a4 a5        a6
//! round       |a1 a2    |a3 a4 a5       |a6       each syncs all files in parallel
//! marks                 a1 a2 noted     a3..a5 noted, made durable when there is time
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::ids::{Millis, Offset, TopicPartition};
use broker_core::partition::Synced;
use broker_log::{LogError, SyncTicket};
use coordinator_disk::File;

use super::folder::{Folder, in_file};
use super::job::Owner;

/// Marks that were noted become durable after this long at the latest, at once when nothing else
/// is to be done. Until then recovery checks a little more than it had to.
const MARKS_SYNC_MAX_MS: u64 = 1_000;
/// Nothing else is to be done when nothing has come for so long.
const IDLE_MS: u64 = 50;

/// Tickets that wait for a round.
pub struct Rounds<O> {
    waiting: BTreeMap<TopicPartition, (O, SyncTicket)>,
}

/// What one round makes durable.
pub struct Round<O> {
    tickets: Vec<(O, SyncTicket)>,
}

impl<O> Default for Rounds<O> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new() }
    }
}

impl<O: Owner> Rounds<O> {
    /// Adds what a log needs synced to the next round.
    pub fn submit(&mut self, of: O, ticket: SyncTicket) {
        match self.waiting.get_mut(&of.key()) {
            Some((_, waiting)) => waiting.merge(ticket),
            None => {
                self.waiting.insert(of.key(), (of, ticket));
            }
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes all that waits.
    pub fn begin(&mut self) -> Round<O> {
        Round { tickets: std::mem::take(&mut self.waiting).into_values().collect() }
    }
}

impl<O: Owner> Round<O> {
    /// A round of tickets that were not submitted.
    pub fn of(tickets: Vec<(O, SyncTicket)>) -> Self {
        Self { tickets }
    }

    /// Whether there is nothing to sync.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// How many logs it is about.
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Makes everything durable. This is what takes time.
    ///
    /// # Errors
    /// [`LogError::Disk`]: the directory is to be fenced, and nothing tried again.
    pub fn sync(&self, folder: &Folder) -> Result<(), LogError> {
        let disk = &*folder.disk;
        let files: Vec<Arc<dyn File>> =
            self.tickets.iter().flat_map(|(_, ticket)| ticket.files.iter().cloned()).collect();
        if !files.is_empty() {
            let synced = disk.sync_many(&files).map_err(in_file(&folder.path));
            #[cfg(planted)]
            let synced = synced.or_else(|error| self.go_on_after(error));
            synced?;
        }
        for (_, ticket) in &self.tickets {
            ticket.finish(disk)?;
        }
        if self.tickets.iter().any(|(_, ticket)| ticket.parent) {
            disk.sync_dir(&folder.path).map_err(in_file(&folder.path))?;
        }
        Ok(())
    }

    #[cfg(planted)]
    fn go_on_after(&self, error: LogError) -> Result<(), LogError> {
        let bug = Some(broker_log::planted::Planted::GoOnAfterFailedSync);
        let goes_on = self.tickets.iter().any(|(_, ticket)| ticket.planted == bug);
        if goes_on { Ok(()) } else { Err(error) }
    }

    /// Publishes what is durable now; each log that it counts for is to be told of it:
    /// [`broker_core::partition::Partition::synced`].
    pub fn publish(&self) -> Vec<(&O, Synced)> {
        let mut synced = Vec::with_capacity(self.tickets.len());
        for (of, ticket) in &self.tickets {
            let generation = ticket.generation;
            if let Some(durable_end) = ticket.view.publish_durable(generation, ticket.end) {
                synced.push((of, Synced { durable_end: Offset::new(durable_end), generation }));
            }
        }
        synced
    }

    /// Notes the marks, which [`Folder::sync_marks`] makes durable later.
    ///
    /// # Errors
    /// As [`Round::sync`].
    pub fn note_marks(&self, folder: &Folder) -> Result<(), LogError> {
        let noted = folder.marks.append_synced(self.tickets.iter().map(|(_, ticket)| ticket));
        noted.map_err(|error| folder.marks_failed(&error))
    }
}

/// When the marks that rounds noted are synced for their own sake. Whoever steps it waits for tickets
/// as long as it says, makes the round durable that came of it, and syncs the marks when it says so,
/// before the next wait.
#[derive(Default)]
pub struct MarksPace {
    since: Option<Millis>,
    #[cfg(planted)]
    leaves_unsynced: bool,
}

impl MarksPace {
    /// Whether there are noted marks that are not synced.
    pub fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// How long to wait for tickets at the most; without end when no marks wait.
    pub fn wait_ms_max(&self) -> Option<u64> {
        self.since.map(|_| IDLE_MS)
    }

    /// A wait has brought `round`, whose marks have been noted, or an empty one because nothing came.
    /// Whether the marks are to be synced now; then they count as synced.
    pub fn take_due<O>(&mut self, round: &Round<O>, now: Millis) -> bool {
        let is_idle = round.tickets.is_empty();
        if !is_idle {
            self.since.get_or_insert(now);
        }
        let over = |since: Millis| is_idle || now.since(since) > MARKS_SYNC_MAX_MS;
        let is_due = self.since.is_some_and(over);
        #[cfg(planted)]
        let is_due = is_due && !self.leaves_unsynced(round);
        if is_due {
            self.since = None;
        }
        is_due
    }

    #[cfg(planted)]
    fn leaves_unsynced<O>(&mut self, round: &Round<O>) -> bool {
        let bug = Some(broker_log::planted::Planted::LeaveMarksUnsynced);
        self.leaves_unsynced |= round.tickets.iter().any(|(_, ticket)| ticket.planted == bug);
        self.leaves_unsynced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_log::{Log, OpenOptions};
    use client_protocol::{PartitionId, TopicId};
    use coordinator_disk::RealDisk;

    fn nothing() -> Round<()> {
        Round::<()> { tickets: Vec::new() }
    }

    /// Of a log that is new.
    fn something(folder: &std::path::Path) -> Round<()> {
        let key =
            TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId::new(0) };
        let opened = Folder::open(Arc::new(RealDisk), folder, b"test").unwrap();
        let opened = opened.open_log(key, "t", &OpenOptions::default());
        let ticket = opened.map(|(mut log, _): (Log, _)| log.take_sync_ticket());
        Round { tickets: vec![((), ticket.unwrap().expect("a new log is not synced"))] }
    }

    #[test]
    fn marks_wait_for_leisure_but_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let (some, none) = (something(folder.path()), nothing());
        let mut pace = MarksPace::default();
        assert!(!pace.take_due(&none, Millis::new(0)));
        assert_eq!(pace.wait_ms_max(), None, "nothing is to be synced: a wait may take for ever");
        assert!(!pace.take_due(&some, Millis::new(5)));
        assert_eq!(pace.wait_ms_max(), Some(IDLE_MS));
        assert!(!pace.take_due(&some, Millis::new(900)));
        assert!(!pace.take_due(&some, Millis::new(1_005)));
        assert!(pace.take_due(&some, Millis::new(1_006)));
        assert!(!pace.is_waiting());
        assert!(!pace.take_due(&some, Millis::new(2_000)));
        assert!(pace.take_due(&none, Millis::new(2_000)), "nothing came");
        assert_eq!(pace.wait_ms_max(), None);
    }
}
