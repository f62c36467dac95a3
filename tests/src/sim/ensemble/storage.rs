//! What one server has on disk, and what a crash leaves of it.
//!
//! Called by: `world`. Calls: nothing.
//! Invariant: what was answered with a sync is there after every crash; of what was not, a prefix.
//! It does not know files: the shell's own storage is tested on the simulated disk.
//!
//! ```text
//!   durable | written, not synced | being written | queued
//!             ^ lost by a power cut  ^ a prefix survives  ^ lost by every crash
//! ```

use std::collections::VecDeque;

use coordinator_core::consensus::{
    HardState, LogEntry, PersistId, PersistWrite, Restored, SnapshotImage,
};

use super::plant::Plant;
use crate::sim::random::Random;

/// How a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process only: what was written stays, synced or not.
    Kill,
    /// The machine: what was not synced may go.
    Power,
}

/// Hard state, snapshot and log.
#[derive(Debug, Clone, Default)]
struct Image {
    hard_state: HardState,
    snapshot: Option<SnapshotImage>,
    /// Contiguous.
    entries: VecDeque<LogEntry>,
}

/// A server's storage.
#[derive(Debug, Default)]
pub struct Storage {
    durable: Image,
    /// Everything that was asked for.
    asked: Image,
    unsynced: Vec<PersistWrite>,
    writing: Vec<(PersistId, PersistWrite)>,
    queued: Vec<(PersistId, PersistWrite)>,
}

impl Storage {
    /// Takes a write.
    pub fn persist(&mut self, id: PersistId, write: PersistWrite) {
        self.asked.apply(&write);
        self.queued.push((id, write));
    }

    /// Starts to write all that waits. False when there is nothing, or the disk is busy.
    pub fn begin(&mut self) -> bool {
        if !self.writing.is_empty() {
            return false;
        }
        self.writing = std::mem::take(&mut self.queued);
        !self.writing.is_empty()
    }

    /// The writes begun are done: their ids.
    pub fn finish(&mut self, plant: Plant) -> Vec<PersistId> {
        let batch = std::mem::take(&mut self.writing);
        let synced = batch.iter().any(|(_, write)| write.sync) && plant != Plant::AckBeforeSync;
        let ids = batch.iter().map(|(id, _)| *id).collect();
        self.unsynced.extend(batch.into_iter().map(|(_, write)| write));
        if synced {
            for write in std::mem::take(&mut self.unsynced) {
                self.durable.apply(&write);
            }
        }
        ids
    }

    /// The first write that is under way, which a failing disk refuses.
    pub fn first_being_written(&self) -> Option<PersistId> {
        self.writing.first().map(|(id, _)| *id)
    }

    /// A snapshot file is complete.
    pub fn save_snapshot(&mut self, image: SnapshotImage) {
        for stored in [&mut self.durable, &mut self.asked] {
            if stored.snapshot.as_ref().is_none_or(|held| held.index < image.index) {
                stored.snapshot = Some(image.clone());
            }
        }
    }

    /// What a restart finds.
    pub fn crash(&mut self, how: Crash, random: &mut Random) {
        let mut lost = Vec::new();
        let unsynced = std::mem::take(&mut self.unsynced);
        match how {
            Crash::Kill => unsynced.iter().for_each(|write| self.durable.apply(write)),
            Crash::Power => lost.extend(unsynced),
        }
        lost.extend(std::mem::take(&mut self.writing).into_iter().map(|(_, write)| write));
        let parts: usize = lost.iter().map(parts_of).sum();
        let mut kept = random.below(parts as u64 + 1) as usize;
        for write in lost {
            let here = kept.min(parts_of(&write));
            kept -= here;
            self.durable.apply_parts(&write, here);
        }
        self.queued.clear();
        self.asked = self.durable.clone();
    }

    /// What `Server::new` is given.
    pub fn restored(&self) -> Restored {
        Restored {
            hard_state: self.durable.hard_state,
            snapshot: self.durable.snapshot.clone(),
            entries: self.durable.entries.iter().cloned().collect(),
        }
    }

    /// The entry at `index`, as far as the server asked for it and has not discarded it.
    pub fn entry(&self, index: u64) -> Option<&LogEntry> {
        let first = self.asked.entries.front()?.index;
        self.asked.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

/// The parts in which a write reaches the disk: one for each field that is set, one for each entry.
fn parts_of(write: &PersistWrite) -> usize {
    let fixed = [write.install.is_some(), write.hard_state.is_some(), write.discard_to.is_some()];
    fixed.iter().filter(|set| **set).count() + write.entries.len()
}

impl Image {
    fn apply(&mut self, write: &PersistWrite) {
        self.apply_parts(write, parts_of(write));
    }

    fn apply_parts(&mut self, write: &PersistWrite, mut parts: usize) {
        let mut take = || {
            let more = parts > 0;
            parts = parts.saturating_sub(1);
            more
        };
        if let Some(image) = &write.install
            && take()
        {
            self.snapshot = Some(image.clone());
            self.entries.clear();
        }
        if let Some(hard_state) = write.hard_state
            && take()
        {
            assert!(hard_state.term >= self.hard_state.term, "the term went back on disk");
            self.hard_state = hard_state;
        }
        for entry in &write.entries {
            if take() {
                self.append(entry);
            }
        }
        if let Some(last) = write.discard_to
            && take()
        {
            let saved = self.snapshot.as_ref().map_or(0, |image| image.index);
            assert!(last <= saved, "log discarded to {last}, snapshot at {saved}");
            self.entries.retain(|entry| entry.index > last);
        }
    }

    fn append(&mut self, entry: &LogEntry) {
        while self.entries.back().is_some_and(|last| last.index >= entry.index) {
            self.entries.pop_back();
        }
        if let Some(last) = self.entries.back() {
            assert_eq!(last.index + 1, entry.index, "a hole in the log");
        }
        self.entries.push_back(entry.clone());
    }
}
