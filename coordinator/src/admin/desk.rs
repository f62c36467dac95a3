//! Where words and commands ask for what they tell.
//!
//! Called by: `net`, `http`. Calls: the core's inputs, the data folder.
//! Invariant: lists take memory, so there are so many at a time, until each is sent; whoever waits too long for a place is
//! told so. To look into the data folder holds up nobody.
//! Does not know: who asks, and in which form it is shown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::timeout;

use super::facts::Facts;
use super::known::{Known, Wanted};
use super::sizes::{self, Sizes};
use crate::asked_snapshots::SnapshotTaken;
use crate::core_loop::{Input, Inputs, Reset};
use crate::net::Whitelist;
use crate::storage::SyncTimes;

/// Lists at a time: each may have some megabytes.
const LISTS_MAX: usize = 4;
/// Looks into the data folder at a time: each has a thread.
const LOOKS_MAX: usize = 2;
/// How long a place for a list is waited for.
const LIST_WAIT_MAX: Duration = Duration::from_secs(2);

/// Asks the core and the machine.
pub struct Desk {
    /// The way to the core.
    pub inputs: Inputs,
    /// What does not change.
    pub facts: Facts,
    /// Of the log.
    pub sync_times: Arc<SyncTimes>,
    /// Which words are answered.
    pub whitelist: Whitelist,
    lists: Semaphore,
    looks: Semaphore,
}

impl Desk {
    /// One for all who ask.
    pub fn new(
        inputs: Inputs,
        facts: Facts,
        sync_times: Arc<SyncTimes>,
        whitelist: Whitelist,
    ) -> Desk {
        let (lists, looks) = (Semaphore::new(LISTS_MAX), Semaphore::new(LOOKS_MAX));
        Desk { inputs, facts, sync_times, whitelist, lists, looks }
    }

    /// What the core knows now; `None` while the server stops.
    pub async fn ask(&self, wanted: Wanted) -> Option<Known> {
        let (answer, known) = oneshot::channel();
        self.inputs.send(Input::Survey(wanted, answer)).await.ok()?;
        known.await.ok().map(|known| *known)
    }

    /// A place for a list, to be kept until it is sent; `None` when too many others have one.
    pub async fn list_place(&self) -> Option<SemaphorePermit<'_>> {
        timeout(LIST_WAIT_MAX, self.lists.acquire()).await.ok()?.ok()
    }

    /// Counts from nothing again. False while the server stops.
    pub async fn reset(&self, which: Reset) -> bool {
        let (answer, done) = oneshot::channel();
        self.inputs.send(Input::Reset(which, answer)).await.is_ok() && done.await.is_ok()
    }

    /// Has a snapshot taken, and waits for it.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub async fn take_snapshot(&self) -> Result<SnapshotTaken, String> {
        let (answer, taken) = oneshot::channel();
        let asked = self.inputs.send(Input::Snapshot(answer)).await;
        match (asked, taken.await) {
            (Ok(()), Ok(outcome)) => outcome,
            _ => Err("the server stops".to_owned()),
        }
    }

    /// What is in the data folder.
    pub async fn sizes(&self) -> Sizes {
        let _look = self.looks.acquire().await;
        let (snapshots, log) = (self.facts.snapshots.clone(), self.facts.log.clone());
        let measured = tokio::task::spawn_blocking(move || sizes::measure(&snapshots, &log));
        measured.await.unwrap_or_default()
    }
}
