//! The machine's own disk.
//!
//! Called by: the shells, which make one and pass it on. Calls: std and rustix.
//! Invariant: a handle whose sync failed once never reports success again, because the kernel reports a lost
//! write only once and forgets it.
//! Does not know: formats.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::{Disk, Entry, EntryKind, File, Lock, OpenMode};

/// Threads of one [`Disk::sync_many`]: more do not make a disk faster.
const SYNC_THREADS_MAX: usize = 8;
/// Parts handed to one system call; the kernel takes at most 1024.
const PARTS_MAX: usize = 1024;

/// The machine's disk, through the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path).map_err(|e| named(path, e))?;
        let end = file.metadata().map_err(|e| named(path, e))?.len();
        Ok(Arc::new(RealFile {
            file,
            path: path.to_owned(),
            end: Mutex::new(end),
            failed: AtomicBool::new(false),
        }))
    }

    fn sync_many(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        if let [file] = files {
            return file.sync();
        }
        let next = AtomicUsize::new(0);
        let first_error = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..files.len().min(SYNC_THREADS_MAX) {
                scope.spawn(|| {
                    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = file.sync() {
                            let mut slot =
                                first_error.lock().unwrap_or_else(PoisonError::into_inner);
                            slot.get_or_insert(error);
                        }
                    }
                });
            }
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| named(from, e))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| named(path, e))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path).map_err(|e| named(path, e))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path).map_err(|e| named(path, e))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let folder = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let handle = fs::File::open(folder).map_err(|e| named(folder, e))?;
        handle.sync_all().map_err(|e| named(folder, e))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut names: Vec<(OsString, EntryKind)> = Vec::new();
        for item in fs::read_dir(path).map_err(|e| named(path, e))? {
            let item = item.map_err(|e| named(path, e))?;
            let kind = match item.file_type().map_err(|e| named(path, e))? {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_dir() => EntryKind::Folder,
                _ => EntryKind::Other,
            };
            names.push((item.file_name(), kind));
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let entry = |(name, kind): (OsString, EntryKind)| Entry {
            name: name.to_string_lossy().into_owned(),
            kind,
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(|e| named(path, e))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| named(path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{}: in use by another process", path.display()),
            )),
            Err(fs::TryLockError::Error(error)) => Err(named(path, error)),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(path).map_err(|error| named(path, error.into()))?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn boot_id(&self) -> io::Result<String> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let text = fs::read_to_string(path).map_err(|e| named(path, e))?;
        Ok(text.trim().to_owned())
    }
}

/// Held by the open file: the kernel lets go when it is closed, also by kill -9.
struct RealLock {
    _file: fs::File,
}

impl Lock for RealLock {}

struct RealFile {
    file: fs::File,
    path: PathBuf,
    /// Where the next append goes; the file's length as far as this handle changed it.
    end: Mutex<u64>,
    failed: AtomicBool,
}

impl RealFile {
    fn write_parts(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let mut position = position;
        let mut first = 0;
        let mut skip = 0;
        while let Some(part) = parts.get(first) {
            if skip == part.len() {
                first += 1;
                skip = 0;
                continue;
            }
            let written = if skip > 0 {
                // What a short write left of one part goes alone; the rest goes together again.
                self.file.write_at(&part[skip..], position)
            } else {
                let last = parts.len().min(first + PARTS_MAX);
                rustix::io::pwritev(&self.file, &parts[first..last], position)
                    .map_err(io::Error::from)
            };
            let mut left = match written {
                Ok(0) => return Err(named(&self.path, io::ErrorKind::WriteZero.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(named(&self.path, error)),
            };
            position += left as u64;
            while left > 0 {
                let rest = parts[first].len() - skip;
                if left < rest {
                    skip += left;
                    break;
                }
                left -= rest;
                first += 1;
                skip = 0;
            }
        }
        Ok(position)
    }
}

impl File for RealFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let position = *end;
        *end = self.write_parts(position, parts)?;
        Ok(position)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *end = self.write_parts(position, parts)?.max(*end);
        Ok(())
    }

    fn forget_cached(&self) {
        // A filesystem that keeps all in memory has nothing else to read from.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(&self.path, error)),
            }
        }
        Ok(filled)
    }

    fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            let error = io::Error::other("an earlier sync of this file failed");
            return Err(named(&self.path, error));
        }
        self.file.sync_data().map_err(|error| {
            self.failed.store(true, Ordering::Release);
            named(&self.path, error)
        })
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.set_len(length).map_err(|e| named(&self.path, e))?;
        *end = length;
        Ok(())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        if length == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(error) => Err(named(&self.path, error.into())),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| named(&self.path, e))?.len())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// Puts the path before the operating system's words, which never name it. The kind is kept.
fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_disk_conforms() {
        let folder = tempfile::tempdir().unwrap();
        crate::conformance::check(&RealDisk, &folder.path().join("root"));
    }

    #[test]
    fn error_names_its_path_and_keeps_its_kind() {
        let error = RealDisk.open(Path::new("/nowhere/at/all"), OpenMode::Read).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn room_is_that_of_the_filesystem() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RealDisk.free_bytes(folder.path()).unwrap().is_some_and(|free| free > 0));
        let error = RealDisk.free_bytes(Path::new("/nowhere/at/all")).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn open_file_lends_its_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&folder.path().join("file"), OpenMode::Create).unwrap();
        assert!(file.descriptor().is_some());
    }
}
