//! A disk that is a map: fast, and gone when it is dropped.
//!
//! Called by: targets that read files. Calls: nothing.
//! Invariant: it never fails and loses nothing. What disks do wrong is in the bytes of an input.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator_disk::{Disk, Entry, EntryKind, File, Lock, OpenMode};

/// All files, by their paths; folders are there as soon as they are asked for.
#[derive(Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
}

#[derive(Default)]
struct MemoryFile(Mutex<Vec<u8>>);

struct Held;

impl Lock for Held {}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl MemoryDisk {
    /// With one file.
    pub fn with(path: &Path, content: &[u8]) -> MemoryDisk {
        let disk = MemoryDisk::default();
        disk.put(path, content);
        disk
    }

    /// Makes `content` the file's.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let file = Arc::new(MemoryFile(Mutex::new(content.to_vec())));
        locked(&self.files).insert(path.to_owned(), file);
    }

    /// The file's content; none of one that is not there.
    pub fn find(&self, path: &Path) -> Vec<u8> {
        let file = locked(&self.files).get(path).cloned();
        file.map_or_else(Vec::new, |file| locked(&file.0).clone())
    }

    /// The file's content.
    ///
    /// # Panics
    /// Without such a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let file = locked(&self.files).get(path).cloned().expect("the file is there");
        locked(&file.0).clone()
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut files = locked(&self.files);
        match (files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(Arc::clone(file) as Arc<dyn File>),
            (None, OpenMode::Read | OpenMode::ReadWrite) => Err(missing()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let file = Arc::new(MemoryFile::default());
                files.insert(path.to_owned(), Arc::clone(&file));
                Ok(file)
            }
        }
    }

    fn sync_many(&self, _files: &[Arc<dyn File>]) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = locked(&self.files);
        let file = files.remove(from).ok_or_else(missing)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        locked(&self.files).remove(path).map(drop).ok_or_else(missing)
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut folders = BTreeSet::new();
        let mut entries = Vec::new();
        for file in locked(&self.files).keys() {
            let Ok(below) = file.strip_prefix(path) else { continue };
            let mut parts = below.components();
            let Some(first) = parts.next() else { continue };
            let name = first.as_os_str().to_string_lossy().into_owned();
            if parts.next().is_none() {
                entries.push(Entry { name, kind: EntryKind::File });
            } else if folders.insert(name.clone()) {
                entries.push(Entry { name, kind: EntryKind::Folder });
            }
        }
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(locked(&self.files).keys().any(|file| file.starts_with(path)))
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(Held))
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok("memory".to_owned())
    }
}

impl File for MemoryFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        let end = self.len()?;
        self.write_at(end, parts)?;
        Ok(end)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = usize::try_from(position).map_err(io::Error::other)?;
        let mut bytes = locked(&self.0);
        for part in parts {
            let end = at + part.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(part);
            at = end;
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = locked(&self.0);
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        locked(&self.0).resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn preallocate(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
