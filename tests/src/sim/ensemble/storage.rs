//! What one server has on disk: the shell's own log and snapshot files, on a simulated disk, step by step.
//!
//! Called by: `world`. Calls: the coordinator's storage, the simulated disk.
//! Invariant: writes happen one group at a time and whole, unless the process dies within one: then after any of its operations.
//! It does not know time; the world says when a group is done.
//!
//! ```text
//!   durable | written, not synced  | being written | queued
//!             ^ parts survive power  ^ cut anywhere  ^ lost by every crash
//! ```

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use coordinator::storage::{self, Opened, Owner, StorageError};
use coordinator_core::consensus::{LogEntry, PersistId, PersistWrite, Restored, SnapshotImage};
use coordinator_disk::{Disk, OpenMode};

use crate::sim::disk::{Refusals, SimulatedDisk};
use crate::sim::fault::Fault;
use crate::sim::random::Random;

const FOLDER: &str = "/data";

/// How a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process only: what was written stays, synced or not.
    Kill,
    /// The machine: what was not synced may go, in parts.
    Power,
    /// The machine: all that was not synced goes, and what was being written has not begun.
    Blackout,
}

/// A server's storage.
pub struct Storage {
    server_id: u64,
    segment_bytes: u64,
    disk: SimulatedDisk,
    opened: Option<Opened>,
    /// The log as the server asked for it.
    asked: VecDeque<LogEntry>,
    /// Term and index of what stood before it, 0 for nothing.
    base: (u64, u64),
    writing: Vec<(PersistId, PersistWrite)>,
    queued: Vec<(PersistId, PersistWrite)>,
    saving: Option<SnapshotImage>,
    /// Whether its bytes are to be given back.
    keeps_image: bool,
    /// The last vote written: term and server.
    vote: (u64, u64),
    /// A vote for another has reached the disk.
    vote_given: bool,
    /// The log says of all of itself that it was synced.
    is_marked: bool,
    /// What the disk was before it was damaged, while no process has looked at it since.
    sound: Option<SimulatedDisk>,
}

impl Storage {
    /// An empty disk.
    pub fn new(server_id: u64, segment_bytes: u64) -> Self {
        Self {
            server_id,
            segment_bytes,
            disk: SimulatedDisk::new(),
            opened: None,
            asked: VecDeque::new(),
            base: (0, 0),
            writing: Vec::new(),
            queued: Vec::new(),
            saving: None,
            keeps_image: false,
            vote: (0, 0),
            vote_given: false,
            is_marked: false,
            sound: None,
        }
    }

    /// A process starts: what `Server::new` is given; none when it cannot, because the disk is full.
    pub fn open(&mut self) -> Option<Restored> {
        let owner = Owner { cluster_id: "simulated".into(), server_id: self.server_id };
        let disk = Arc::new(self.disk.clone());
        let opened = storage::open(disk, Path::new(FOLDER), owner);
        let (opened, restored) = match opened {
            Ok(opened) => opened,
            Err(_) if self.disk.is_limited() => {
                self.disk.kill();
                return None;
            }
            // Somebody looks, and the disk is put in order.
            Err(error) => {
                // Damage that was done may be refused: somebody looks, and puts the disk in order.
                let sound = self.sound.take();
                let sound = sound.unwrap_or_else(|| panic!("server {}: {error}", self.server_id));
                sound.take_place_of(&self.disk);
                self.disk = sound;
                self.disk.kill();
                return None;
            }
        };
        if let Some(sound) = self.sound.take() {
            self.check_whole(&sound, &restored);
        }
        self.opened = Some(opened.with_segments_of(self.segment_bytes));
        self.is_marked = false;
        self.asked = restored.entries.iter().cloned().collect();
        // What was discarded before an older entry than the snapshot's last is not known.
        self.base = restored.snapshot.as_ref().map_or((0, 0), |image| (image.term, image.index));
        Some(restored)
    }

    /// Only so much more fits, until it is mended.
    pub fn fill(&self, bytes: u64) {
        self.disk.limit_space(Some(bytes));
    }

    /// What its disk refused.
    pub fn refusals(&self) -> Refusals {
        self.disk.refusals()
    }

    /// Takes a write.
    pub fn persist(&mut self, id: PersistId, write: PersistWrite) {
        if let Some(image) = &write.install {
            self.asked.clear();
            self.base = (image.term, image.index);
        }
        for entry in &write.entries {
            while self.asked.back().is_some_and(|last| last.index >= entry.index) {
                self.asked.pop_back();
            }
            let follows = self.asked.back().is_none_or(|last| last.index + 1 == entry.index);
            assert!(follows, "a hole in the log before {}", entry.index);
            self.asked.push_back(entry.clone());
        }
        let discarded = write.discard_to.unwrap_or(0);
        while self.asked.front().is_some_and(|first| first.index <= discarded) {
            self.base = self.asked.pop_front().map_or(self.base, |first| (first.term, first.index));
        }
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

    /// Writes what was begun: its ids, or the first one and why it failed.
    pub fn finish(&mut self) -> Result<Vec<PersistId>, (PersistId, StorageError)> {
        self.is_marked = false;
        let group = std::mem::take(&mut self.writing);
        let ids: Vec<PersistId> = group.iter().map(|(id, _)| *id).collect();
        let writes: Vec<PersistWrite> = group.into_iter().map(|(_, write)| write).collect();
        for write in &writes {
            let vote = write.hard_state.map_or(self.vote, |state| (state.term, state.vote));
            self.vote_given |= vote != self.vote && ![0, self.server_id].contains(&vote.1);
            self.vote = vote;
        }
        let opened = self.opened.as_mut().expect("a process runs");
        opened.write(writes).map_err(|error| (ids[0], error))?;
        Ok(ids)
    }

    /// Lets the log say that all of it was synced, as the shell does when nothing is written for a while. False when something is
    /// being written.
    pub fn mark(&mut self) -> Result<bool, StorageError> {
        let Some(opened) = &mut self.opened else { return Ok(false) };
        if self.writing.is_empty() && !self.is_marked {
            opened.mark_synced()?;
            self.is_marked = true;
        }
        Ok(self.writing.is_empty())
    }

    /// While no process is there: a part of a file goes bad that the log says was synced, or cannot be read. False when there is none.
    pub fn damage(&mut self, fault: Fault, random: &mut Random) -> bool {
        assert!(self.opened.is_none() && self.is_marked, "damage to what may be torn is not found");
        let mut files = self.disk.files();
        files.retain(|(path, bytes)| *bytes > 0 && path.starts_with(FOLDER));
        let Some((path, _)) = files.get(random.below(files.len().max(1) as u64) as usize) else {
            return false;
        };
        let written = self.written(path);
        // The last sectors hold the mark itself.
        let limit = if fault == Fault::LoseSector { written.saturating_sub(1024) } else { written };
        if limit == 0 {
            return false;
        }
        let (position, sound) = (random.below(limit), self.disk.copy());
        let struck = match fault {
            Fault::FlipBit => self.disk.flip_bit(path, position, random.below(8) as u8),
            Fault::LoseSector => self.disk.lose_sector(path, position),
            Fault::ReadError => self.disk.forbid_reads(path),
            other => unreachable!("{other:?} does not damage a file"),
        };
        struck.expect("the file is there");
        self.sound = Some(sound);
        true
    }

    /// Whether an entry is there for certain, whenever the power goes: in the log, or in a snapshot.
    pub fn has_durably(&self, term: u64, index: u64) -> bool {
        let disk = self.sound.as_ref().unwrap_or(&self.disk).durable_copy();
        let restored = self.restore(disk);
        let snapshot = restored.snapshot.as_ref().map_or(0, |image| image.index);
        snapshot >= index
            || restored.entries.iter().any(|entry| (entry.term, entry.index) == (term, index))
    }

    /// The last index that is there for certain.
    pub fn last_durable(&self) -> u64 {
        let disk = self.sound.as_ref().unwrap_or(&self.disk).durable_copy();
        let restored = self.restore(disk);
        let snapshot = restored.snapshot.as_ref().map_or(0, |image| image.index);
        restored.entries.last().map_or(snapshot, |last| last.index.max(snapshot))
    }

    fn restore(&self, disk: SimulatedDisk) -> Restored {
        let owner = Owner { cluster_id: "simulated".into(), server_id: self.server_id };
        let opened = storage::open(Arc::new(disk), Path::new(FOLDER), owner);
        opened.unwrap_or_else(|error| panic!("server {}: {error}", self.server_id)).1
    }

    /// How many bytes of a file there are before the zeros at its end.
    fn written(&self, path: &Path) -> u64 {
        let file = self.disk.open(path, OpenMode::Read).expect("the file is there");
        let mut bytes =
            vec![0; usize::try_from(file.len().expect("no process died")).expect("small")];
        let read = self.disk.peek(|| file.read_exact_at(0, &mut bytes));
        read.expect("nobody asks the process");
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    /// A server that starts from a damaged disk has all that it had.
    fn check_whole(&self, sound: &SimulatedDisk, found: &Restored) {
        let before = self.restore(sound.clone());
        let last = |restored: &Restored| {
            let snapshot =
                restored.snapshot.as_ref().map_or((0, 0), |image| (image.term, image.index));
            restored.entries.last().map_or(snapshot, |last| (last.term, last.index).max(snapshot))
        };
        let id = self.server_id;
        assert_eq!(found.hard_state, before.hard_state, "server {id} takes damage for its vote");
        assert_eq!(last(found), last(&before), "server {id} takes a damaged log for its own");
    }

    /// Whether a vote for another has reached the disk since the last time.
    pub fn take_vote_given(&mut self) -> bool {
        std::mem::take(&mut self.vote_given)
    }

    /// The last vote written: term and server, 0 for none.
    pub fn vote(&self) -> (u64, u64) {
        self.vote
    }

    /// Begins to write a snapshot.
    pub fn begin_saving(&mut self, image: SnapshotImage, keeps_image: bool) {
        assert!(self.saving.is_none(), "one snapshot at a time");
        (self.saving, self.keeps_image) = (Some(image), keeps_image);
    }

    /// Writes the snapshot, and gives its index and what is to be given back; otherwise its index.
    pub fn finish_saving(&mut self) -> Result<(u64, Option<SnapshotImage>), (u64, StorageError)> {
        let image = self.saving.take().expect("begun");
        let opened = self.opened.as_ref().expect("a process runs");
        opened.save(&image).map_err(|error| (image.index, error))?;
        Ok((image.index, Some(image).filter(|_| self.keeps_image)))
    }

    /// Whether entries are being written.
    pub fn writes_entries(&self) -> bool {
        self.writing.iter().any(|(_, write)| !write.entries.is_empty())
    }

    /// Its disk.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// While no process is there: another disk is in its place.
    pub fn replace_disk(&mut self, disk: SimulatedDisk) {
        assert!(self.opened.is_none(), "a process has the disk");
        disk.boot_after(&self.disk);
        self.disk = disk;
    }

    /// While no process is there: the disk is empty, as a new one.
    pub fn wipe(&mut self) {
        assert!(self.opened.is_none(), "a process has the disk");
        let disk = SimulatedDisk::new();
        disk.boot_after(&self.disk);
        *self = Self { disk, ..Self::new(self.server_id, self.segment_bytes) };
    }

    /// The next sync of the process that runs fails.
    pub fn fail_sync(&self) {
        if self.opened.is_some() {
            self.disk.fail_sync_after(0);
        }
    }

    /// No sync fails.
    pub fn mend(&self) {
        self.disk.mend();
    }

    /// The process is gone, perhaps in the middle of what it was writing; with `Power` the machine too.
    pub fn crash(&mut self, how: Crash, random: &mut Random) {
        let died_writing = !self.writing.is_empty();
        if how == Crash::Blackout {
            self.opened = None;
        }
        if let Some(mut opened) = self.opened.take() {
            self.disk.die_after(random.below(8));
            let snapshot_first = random.chance(1, 2);
            // What could not be written before the end is the point of it.
            if snapshot_first && let Some(image) = &self.saving {
                drop(opened.save(image));
            }
            let group = std::mem::take(&mut self.writing);
            drop(opened.write(group.into_iter().map(|(_, write)| write).collect()));
            if !snapshot_first && let Some(image) = &self.saving {
                drop(opened.save(image));
            }
        }
        match how {
            Crash::Kill => self.disk.kill(),
            Crash::Power => self.disk.crash(random.number()),
            Crash::Blackout => {
                let left = self.disk.durable_copy();
                left.boot_after(&self.disk);
                self.disk = left;
            }
        }
        self.writing.clear();
        self.queued.clear();
        self.saving = None;
        self.asked.clear();
        self.is_marked &= !died_writing;
    }

    /// The term of the entry at `index`, if the log has it or begins behind it.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let is_base = index == self.base.1;
        self.entry(index).map(|entry| entry.term).or(is_base.then_some(self.base.0))
    }

    /// The index of what stood before the log, 0 for nothing.
    pub fn base_index(&self) -> u64 {
        self.base.1
    }

    /// The last index of the log as the server asked for it.
    pub fn last_index(&self) -> u64 {
        self.asked.back().map_or(self.base.1, |entry| entry.index)
    }

    /// The entry at `index`, as far as the server asked for it and has not discarded it.
    pub fn entry(&self, index: u64) -> Option<&LogEntry> {
        let first = self.asked.front()?.index;
        self.asked.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}
