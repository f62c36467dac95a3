//! A disk in memory that can lose what was not synced.
//!
//! Called by: the simulator and crash tests. Calls: nothing outside.
//! Invariant: after [`SimulatedDisk::crash`] everything that a successful sync covered is there, unchanged; of the rest
//! any part may be. The same operations and the same seed leave the same bytes.
//! Does not know: what is stored, time.
//!
//! Harsher than most disks, never kinder: names are only kept by the sync of their own folder, an unsynced write may
//! survive in some sectors and not in others, and a failed sync keeps failing.

mod storage;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator_disk::{Disk, Entry, EntryKind, File, Lock, OpenMode};

use crate::sim::random::Random;
use storage::{InodeId, Storage};

/// A shared handle to one simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

/// What a machine's disks refused to those who used them, each fault once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Syncs that failed.
    pub syncs: u64,
    /// Syncs of files that failed and made the machine forget what was to be written.
    pub drops: u64,
    /// Times at which the space that was left did not suffice.
    pub room: u64,
    /// Files that somebody wanted to read and could not.
    pub reads: u64,
}

#[derive(Default)]
struct State {
    storage: Storage,
    /// Raised by every crash and kill: handles and locks of an older process are dead.
    process: u64,
    boot: u64,
    locks: BTreeSet<PathBuf>,
    syncs: u64,
    syncs_until_failure: Option<u64>,
    /// What a failed sync should have written is never written.
    drops_unsynced: bool,
    bytes_until_full: Option<u64>,
    operations_until_death: Option<u64>,
    refused: bool,
    refusals: Refusals,
    /// The limit of space has not refused anything yet, nor has the file that cannot be read.
    room_is_new: bool,
    reads_are_new: bool,
    /// Whoever checks may read what cannot be read.
    peeking: bool,
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    /// The power goes: what was not synced survives whole, in part or not at all, as `seed` decides. Open handles and
    /// locks are dead, and the boot id is another one.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        state.end_process();
        state.boot += 1;
        state.storage.crash(&mut Random::new(seed));
    }

    /// The process is killed and the machine goes on: nothing is lost, open handles and locks are dead.
    pub fn kill(&self) {
        let mut state = self.state();
        state.end_process();
        state.storage.forgive();
        state.storage.drop_unnamed();
    }

    /// Lets `count` syncs of files or folders pass and fails the one after.
    pub fn fail_sync_after(&self, count: u64) {
        self.state().syncs_until_failure = Some(count);
    }

    /// Whether a failed sync makes the machine forget that there is something to write, while it goes on showing it.
    pub fn drop_unsynced_at_failure(&self, drops: bool) {
        self.state().drops_unsynced = drops;
    }

    /// No sync fails that did not, there is room, and all files can be read.
    pub fn mend(&self) {
        let mut state = self.state();
        state.syncs_until_failure = None;
        state.bytes_until_full = None;
        state.storage.make_readable();
    }

    /// Lets the process do `count` more operations that change the disk; then its handles are dead, until `kill` or
    /// `crash` says what its end leaves.
    pub fn die_after(&self, count: u64) {
        self.state().operations_until_death = Some(count);
    }

    /// The process does not die any more, if it did not; whether it lives.
    pub fn live_on(&self) -> bool {
        let mut state = self.state();
        let lives = state.operations_until_death != Some(0);
        if lives {
            state.operations_until_death = None;
        }
        lives
    }

    /// Whether the process has done all that it may.
    pub fn is_dying(&self) -> bool {
        self.state().operations_until_death == Some(0)
    }

    /// Takes only `bytes` more of writes, then refuses with `StorageFull`; `None` takes any number.
    pub fn limit_space(&self, bytes: Option<u64>) {
        let mut state = self.state();
        state.bytes_until_full = bytes;
        state.room_is_new = bytes.is_some();
    }

    /// Whether only so much more fits.
    pub fn is_limited(&self) -> bool {
        self.state().bytes_until_full.is_some()
    }

    /// How many syncs of files and folders there were.
    pub fn sync_count(&self) -> u64 {
        self.state().syncs
    }

    /// Flips one bit of a file, as a bad sector does; synced or not, nobody is told.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidInput` behind the end.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.storage.find_file(path)?;
        state.storage.flip_bit(id, position, bit)
    }

    /// Lets a file be read no more, until the disk is mended.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn forbid_reads(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.storage.find_file(path)?;
        state.storage.set_unreadable(id, true);
        state.reads_are_new = true;
        Ok(())
    }

    /// Looks at what is there whether it can be read or not.
    pub fn peek<R>(&self, look: impl FnOnce() -> R) -> R {
        self.state().peeking = true;
        let seen = look();
        self.state().peeking = false;
        seen
    }

    /// Whether it refused anything to the process that is there: a sync, room, or to read.
    pub fn has_refused(&self) -> bool {
        self.state().refused
    }

    /// The sector at `position` reads as if what was written there had never reached the disk; nobody is told.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn lose_sector(&self, path: &Path, position: u64) -> io::Result<()> {
        let mut state = self.state();
        let id = state.storage.find_file(path)?;
        state.storage.lose_sector(id, position);
        Ok(())
    }

    /// A file is gone, durably; nobody is told.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn lose_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.storage.find_file(path)?;
        state.storage.lose_name(path)
    }

    /// Paths and lengths of all files.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.state().storage.files()
    }

    /// Another disk with the same files, as a backup of a machine that stands still is.
    pub fn copy(&self) -> SimulatedDisk {
        let state = self.state();
        let copy = State { storage: state.storage.copy(), boot: state.boot, ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(copy)) }
    }

    /// Another disk with what of this one is there for certain, whenever the power goes.
    pub fn durable_copy(&self) -> SimulatedDisk {
        let state = self.state();
        let storage = state.storage.durable_copy();
        SimulatedDisk { state: Arc::new(Mutex::new(State { storage, ..State::default() })) }
    }

    /// The machine is another one than `former`, started later, that had this disk's files once.
    pub fn boot_after(&self, former: &SimulatedDisk) {
        let boot = former.state().boot;
        self.take_place_of(former);
        let mut state = self.state();
        state.boot = state.boot.max(boot) + 1;
    }

    /// It is in the machine instead of `former` now: what that one refused is not forgotten.
    pub fn take_place_of(&self, former: &SimulatedDisk) {
        let refusals = former.refusals();
        self.state().refusals = refusals;
    }

    /// What it refused, and those in whose place it is.
    pub fn refusals(&self) -> Refusals {
        self.state().refusals
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_process(&mut self) {
        self.process += 1;
        self.locks.clear();
        self.operations_until_death = None;
        self.syncs_until_failure = None;
        self.refused = false;
    }

    /// Counts one operation that changes the disk; after the last one of a dying process there is none.
    fn count_operation(&mut self) -> io::Result<()> {
        match &mut self.operations_until_death {
            None => Ok(()),
            Some(0) => Err(io::Error::other("simulated disk: the process is dying")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Counts one sync; the one that was asked for fails.
    fn count_sync(&mut self, drops: bool) -> io::Result<()> {
        self.count_operation()?;
        self.syncs += 1;
        match &mut self.syncs_until_failure {
            None => Ok(()),
            Some(0) => {
                self.syncs_until_failure = None;
                self.refused = true;
                self.refusals.syncs += u64::from(!drops);
                self.refusals.drops += u64::from(drops);
                Err(io::Error::other("simulated disk: this sync was told to fail"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn take_space(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(left) = &mut self.bytes_until_full {
            let Some(rest) = left.checked_sub(bytes) else {
                self.refused = true;
                self.refusals.room += u64::from(std::mem::take(&mut self.room_is_new));
                return Err(ErrorKind::StorageFull.into());
            };
            *left = rest;
        }
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let (create, writable) = match mode {
            OpenMode::Read => (false, false),
            OpenMode::ReadWrite => (false, true),
            OpenMode::Create | OpenMode::CreateNew => (true, true),
        };
        let id = match state.storage.find_file(path) {
            Ok(_) if mode == OpenMode::CreateNew => return Err(ErrorKind::AlreadyExists.into()),
            Ok(id) => id,
            Err(error) if error.kind() == ErrorKind::NotFound && create => {
                state.count_operation()?;
                state.storage.create_file(path)?
            }
            Err(error) => return Err(error),
        };
        let process = state.process;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), id, process, writable }))
    }

    fn sync_many(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        files.iter().try_for_each(|file| file.sync())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count_operation()?;
        state.storage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count_operation()?;
        state.storage.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count_operation()?;
        state.storage.remove_folder(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count_operation()?;
        state.storage.create_folders(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let id = state.storage.find_folder(path)?;
        state.count_sync(false)?;
        state.storage.sync_folder(id);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        let id = state.storage.find_folder(path)?;
        let entries = state.storage.names(id).map(|(name, is_folder)| Entry {
            name: name.to_owned(),
            kind: if is_folder { EntryKind::Folder } else { EntryKind::File },
        });
        Ok(entries.collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state().storage.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        drop(self.open(path, OpenMode::Create)?);
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let process = state.process;
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned(), process }))
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("simulated-boot-{}", self.state().boot))
    }
}

struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
    process: u64,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.process == self.process {
            state.locks.remove(&self.path);
        }
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    id: InodeId,
    process: u64,
    writable: bool,
}

impl SimulatedFile {
    /// The disk, unless the process that opened this file is gone.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.process != self.process {
            return Err(io::Error::other("simulated disk: this handle died with its process"));
        }
        Ok(state)
    }

    fn alive_for_writing(&self) -> io::Result<MutexGuard<'_, State>> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.alive()
    }
}

impl File for SimulatedFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let mut state = self.alive_for_writing()?;
        let position = state.storage.length(self.id);
        let mut bytes = concat(parts);
        state.count_operation()?;
        let left = state.bytes_until_full.unwrap_or(u64::MAX);
        let taken = state.take_space(bytes.len() as u64);
        if taken.is_err() {
            // What fits is written, as disks do.
            bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            state.bytes_until_full = Some(0);
        }
        state.storage.write(self.id, position, bytes);
        taken.map(|()| position)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut state = self.alive_for_writing()?;
        let bytes = concat(parts);
        state.count_operation()?;
        state.take_space(bytes.len() as u64)?;
        state.storage.write(self.id, position, bytes);
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.alive()?;
        let peeking = state.peeking;
        let read = state.storage.read(self.id, position, buffer, peeking);
        if read.is_err() {
            state.refused = true;
            let is_new = std::mem::take(&mut state.reads_are_new);
            state.refusals.reads += u64::from(is_new);
        }
        read
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        if state.operations_until_death == Some(0) {
            return state.count_operation();
        }
        let drops = state.drops_unsynced;
        if let Err(error) = state.count_sync(drops) {
            state.storage.poison(self.id, drops);
            return Err(error);
        }
        state.storage.sync_file(self.id)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.alive_for_writing()?;
        state.count_operation()?;
        state.storage.truncate(self.id, length);
        Ok(())
    }

    fn preallocate(&self, _length: u64) -> io::Result<()> {
        self.alive_for_writing().map(drop)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.storage.length(self.id))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

fn concat(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}
