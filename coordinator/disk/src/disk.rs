//! The two traits between our code and storage.
//!
//! Called by: everything that reads or writes files. Calls: nothing.
//! Invariant: what a successful [`File::sync`] (for contents and length) and [`Disk::sync_dir`] (for names) covered
//! survives a crash; anything else may be lost, whole or in part, in any order.
//! Does not know: formats, checksums, who retries.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

/// How [`Disk::open`] treats a file that exists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// For reading and writing; an absent file is created empty.
    Create,
    /// For reading and writing; an existing file is an error (`AlreadyExists`).
    CreateNew,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Anything else (a link, a socket); never ours.
    Other,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name without its folder. Bytes that are not UTF-8 are replaced; no file of ours has any.
    pub name: String,
    /// What the name stands for.
    pub kind: EntryKind,
}

/// A held lock on a path; dropping it releases the lock.
pub trait Lock: Send + Sync {}

/// Names and folders. Paths are absolute or relative to the process.
pub trait Disk: Send + Sync {
    /// Opens one file. A created name is durable only after [`Disk::sync_dir`] of its folder.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Makes the contents and lengths of all `files` durable, in parallel where that is faster.
    ///
    /// # Errors
    /// The first failure. What the other files kept is then unknown: never retry, stop using the folder.
    fn sync_many(&self, files: &[Arc<dyn File>]) -> io::Result<()>;

    /// Renames a file or a folder, replacing a file at `to`. Durable after [`Disk::sync_dir`] of the folders of both.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name; open handles go on working. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder. Durable after [`Disk::sync_dir`] of its parent.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder and those above it; one that exists is no error. Durable after [`Disk::sync_dir`] of each parent.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names inside the folder `path` durable: creations, renames and removals.
    ///
    /// # Errors
    /// As [`File::sync`]: never retry.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The names inside the folder `path`, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Whether `path` names a file or a folder.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes the exclusive lock that the file `path` stands for, creating the file.
    ///
    /// # Errors
    /// `WouldBlock` while another holder, in this process or another one, has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Bytes that this process may still write below the folder `path`; `None` where nobody can know.
    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Names the running period of the machine below: it changes exactly when unsynced contents may have been lost.
    fn boot_id(&self) -> io::Result<String>;
}

/// One open file. All methods take `&self`; writers of one file serialise themselves.
pub trait File: Send + Sync {
    /// Writes all `parts`, one behind the other, at the end; returns the position where they begin.
    ///
    /// # Errors
    /// After an error any prefix of the parts may have been written.
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64>;

    /// Writes all `parts`, one behind the other, from byte `position`; grows the file when they go past its end.
    ///
    /// # Errors
    /// As [`File::append`].
    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes from byte `position`; fewer only at the end of the file, 0 behind it.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Makes contents and length durable (fdatasync).
    ///
    /// # Errors
    /// A failure is final: the contents since the last success are unknown, and every later call on this handle
    /// fails too. Never retry.
    fn sync(&self) -> io::Result<()>;

    /// Sets the length to `length` bytes; a longer file ends in zeros.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Reserves space so that the first `length` bytes can be written without running out; the length stays as it is.
    /// Does nothing where the filesystem cannot.
    fn preallocate(&self, length: u64) -> io::Result<()>;

    /// Has the system forget what it keeps of the file in memory, as far as that is durable: later reads are the disk's.
    /// Does nothing where that cannot be asked for.
    fn forget_cached(&self) {}

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The descriptor, for sendfile and for reads that must not block; none when simulated.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Fills `buffer` from byte `position`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before the buffer is full.
    fn read_exact_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.read_at(position, buffer)? == buffer.len() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the file ends within {} bytes from {position}", buffer.len()),
        ))
    }
}
