//! A disk on which nothing is changed: reads are real, and what would be written is only noted.
//!
//! Called by: whoever wants to know what opening a folder would find and do. Calls: another disk.
//! Invariant: the disk below sees no write, removal or creation but that of a lock's file. Whoever reads sees what
//! was pretended.
//! Does not know: formats.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, Entry, File, Lock, OpenMode};

/// The disk, and what it was asked to change.
pub struct Rehearsal {
    below: Arc<dyn Disk>,
    pretended: Mutex<Pretended>,
    notes: Notes,
}

/// Bytes that are looked at together.
const LOOK_BYTES: usize = 64 << 10;

/// What would have been changed, in order, for people.
type Notes = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct Pretended {
    removed: BTreeSet<PathBuf>,
    created: BTreeMap<PathBuf, Arc<RehearsalFile>>,
    /// Files that are there and were opened for writing: all handles see the same.
    opened: BTreeMap<PathBuf, Arc<RehearsalFile>>,
}

impl Rehearsal {
    /// Reads from `below`.
    #[must_use]
    pub fn new(below: Arc<dyn Disk>) -> Rehearsal {
        Rehearsal { below, pretended: Mutex::default(), notes: Notes::default() }
    }

    /// What would have been changed so far, in order.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        locked(&self.notes).clone()
    }

    fn note(&self, text: String) {
        locked(&self.notes).push(text);
    }

    fn create(&self, path: &Path) -> Arc<RehearsalFile> {
        self.note(format!("create {}", path.display()));
        let file = Arc::new(RehearsalFile {
            below: None,
            path: path.to_owned(),
            shape: Mutex::new(Shape { base: 0, length: 0, written: Vec::new(), noted: true }),
            notes: self.notes.clone(),
        });
        let mut pretended = locked(&self.pretended);
        pretended.removed.remove(path);
        pretended.created.insert(path.to_owned(), file.clone());
        file
    }
}

impl Disk for Rehearsal {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        {
            let pretended = locked(&self.pretended);
            let known = pretended.created.get(path).or_else(|| pretended.opened.get(path));
            if let Some(file) = known {
                return match mode {
                    OpenMode::CreateNew => Err(io::ErrorKind::AlreadyExists.into()),
                    OpenMode::Read | OpenMode::ReadWrite | OpenMode::Create => Ok(file.clone()),
                };
            }
        }
        match (self.exists(path)?, mode) {
            (true, OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (false, OpenMode::Read | OpenMode::ReadWrite) => Err(io::ErrorKind::NotFound.into()),
            (false, OpenMode::Create | OpenMode::CreateNew) => Ok(self.create(path)),
            (true, _) => {
                let below = self.below.open(path, OpenMode::Read)?;
                let length = below.len()?;
                let file = Arc::new(RehearsalFile {
                    below: Some(below),
                    path: path.to_owned(),
                    shape: Mutex::new(Shape {
                        base: length,
                        length,
                        written: Vec::new(),
                        noted: false,
                    }),
                    notes: self.notes.clone(),
                });
                if mode != OpenMode::Read {
                    locked(&self.pretended).opened.insert(path.to_owned(), file.clone());
                }
                Ok(file)
            }
        }
    }

    fn sync_many(&self, _files: &[Arc<dyn File>]) -> io::Result<()> {
        Ok(())
    }

    /// Of files that were only pretended: whoever only opens a folder renames no other.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut pretended = locked(&self.pretended);
        let file = pretended.created.remove(from);
        let file = file.ok_or(io::Error::from(io::ErrorKind::Unsupported))?;
        pretended.removed.remove(to);
        pretended.created.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.note(format!("remove {}", path.display()));
        let mut pretended = locked(&self.pretended);
        pretended.created.remove(path);
        pretended.opened.remove(path);
        pretended.removed.insert(path.to_owned());
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.remove(path)
    }

    /// A folder that is not there has no names, and files can be pretended in it.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            self.note(format!("create {}", path.display()));
        }
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        if !self.below.exists(path)? {
            return Ok(Vec::new());
        }
        let mut entries = self.below.list(path)?;
        let pretended = locked(&self.pretended);
        entries.retain(|entry| !pretended.removed.contains(&path.join(&entry.name)));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let pretended = locked(&self.pretended);
        if pretended.created.contains_key(path) {
            return Ok(true);
        }
        Ok(!pretended.removed.contains(path) && self.below.exists(path)?)
    }

    /// The real lock: what somebody is changing cannot be looked at.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.below.lock(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        self.below.boot_id()
    }
}

struct RehearsalFile {
    /// None of a file that was only pretended.
    below: Option<Arc<dyn File>>,
    path: PathBuf,
    shape: Mutex<Shape>,
    notes: Notes,
}

struct Shape {
    /// Bytes of the file below that are still seen.
    base: u64,
    length: u64,
    written: Vec<(u64, Vec<u8>)>,
    /// Whether it was told that something would be written.
    noted: bool,
}

impl RehearsalFile {
    /// Whether nothing but zeros, which were written ahead, stands from `position` on.
    fn is_space_from(&self, mut position: u64) -> io::Result<bool> {
        let mut buffer = vec![0; LOOK_BYTES];
        loop {
            let count = self.read_at(position, &mut buffer)?;
            if count == 0 {
                return Ok(true);
            }
            if buffer[..count].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += count as u64;
        }
    }

    /// Whether these bytes are there already.
    fn shows(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<bool> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut shown = vec![0; bytes.len()];
        let count = self.read_at(position, &mut shown)?;
        Ok(count == bytes.len() && shown == bytes)
    }

    fn write(&self, position: Option<u64>, parts: &[IoSlice<'_>]) -> u64 {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut shape = locked(&self.shape);
        let position = position.unwrap_or(shape.length);
        if !shape.noted {
            shape.noted = true;
            locked(&self.notes).push(format!("write to {}", self.path.display()));
        }
        shape.length = shape.length.max(position + bytes.len() as u64);
        shape.written.push((position, bytes));
        position
    }
}

impl File for RehearsalFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        Ok(self.write(None, parts))
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        // The same once more is no change.
        if !self.shows(position, parts)? {
            self.write(Some(position), parts);
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let shape = locked(&self.shape);
        let left = usize::try_from(shape.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let seen = usize::try_from(shape.base.saturating_sub(position)).unwrap_or(usize::MAX);
        let seen = seen.min(count);
        if let Some(below) = &self.below
            && seen > 0
        {
            below.read_exact_at(position, &mut buffer[..seen])?;
        }
        for (at, bytes) in &shape.written {
            overlay(buffer, position, *at, bytes);
        }
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let is_space = self.is_space_from(length)?;
        let mut shape = locked(&self.shape);
        if length < shape.length && !is_space {
            let cut = shape.length - length;
            let text = format!("cut {cut} bytes off the end of {}", self.path.display());
            locked(&self.notes).push(text);
        }
        shape.base = shape.base.min(length);
        shape.length = length;
        for (at, bytes) in &mut shape.written {
            bytes.truncate(usize::try_from(length.saturating_sub(*at)).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn preallocate(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.shape).length)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Lays `bytes` from `at` over what a buffer from `position` shows.
fn overlay(buffer: &mut [u8], position: u64, at: u64, bytes: &[u8]) {
    let from = at.max(position);
    let to = (at + bytes.len() as u64).min(position + buffer.len() as u64);
    if from < to {
        let index = |of: u64, base: u64| usize::try_from(of - base).unwrap_or(usize::MAX);
        buffer[index(from, position)..index(to, position)]
            .copy_from_slice(&bytes[index(from, at)..index(to, at)]);
    }
}

/// A panic elsewhere leaves nothing half done here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RealDisk;
    use crate::record_file::{self, RecordFile, Tail};

    #[test]
    fn nothing_below_changes_and_what_was_pretended_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").expect("written");
        let disk = Rehearsal::new(Arc::new(RealDisk));
        let file = disk.open(&path, OpenMode::ReadWrite).expect("there");
        file.truncate(6).expect("pretended");
        assert_eq!(file.append(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).expect("pretended"), 6);
        file.write_at(1, &[IoSlice::new(b"xy")]).expect("pretended");
        let mut buffer = [0; 20];
        let notes = disk.notes();
        file.write_at(0, &[IoSlice::new(b"0xy")]).expect("no change");
        assert_eq!(disk.notes(), notes);
        let count = file.read_at(0, &mut buffer).expect("read");
        assert_eq!(&buffer[..count], b"0xy345abc");
        let count = file.read_at(5, &mut buffer).expect("read");
        assert_eq!(&buffer[..count], b"5abc");
        file.truncate(7).expect("pretended");
        let again = disk.open(&path, OpenMode::Read).expect("there");
        assert_eq!(again.len().expect("7"), 7, "every handle sees the same");
        let count = file.read_at(4, &mut buffer).expect("read");
        assert_eq!(&buffer[..count], b"45a");
        let other = folder.path().join("other");
        let file = disk.open(&other, OpenMode::CreateNew).expect("pretended");
        file.append(&[IoSlice::new(b"new")]).expect("pretended");
        assert_eq!(disk.open(&other, OpenMode::Read).expect("there").len().expect("3"), 3);
        let renamed = folder.path().join("renamed");
        disk.rename(&other, &renamed).expect("pretended");
        assert!(disk.exists(&renamed).expect("asked") && !disk.exists(&other).expect("asked"));
        disk.remove(&path).expect("pretended");
        assert!(!disk.exists(&path).expect("asked"));
        assert!(disk.list(folder.path()).expect("listed").is_empty());
        assert_eq!(disk.notes().len(), 5, "{:?}", disk.notes());
        assert_eq!(std::fs::read(&path).expect("there"), b"0123456789");
        assert!(!other.exists());
    }

    #[test]
    fn zeros_written_ahead_are_no_loss() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [&b"data"[..], &[0; 100_000]].concat()).expect("written");
        let disk = Rehearsal::new(Arc::new(RealDisk));
        let file = disk.open(&path, OpenMode::ReadWrite).expect("there");
        file.truncate(4).expect("pretended");
        assert!(disk.notes().is_empty(), "{:?}", disk.notes());
        file.truncate(3).expect("pretended");
        assert_eq!(disk.notes().len(), 1);
    }

    #[test]
    fn torn_record_file_is_read_as_after_the_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("records");
        let mut file = RecordFile::create(&RealDisk, &path, b"mine").expect("created");
        file.append(&[b"one", b"two"]).expect("written");
        file.sync().expect("synced");
        drop(file);
        let mut bytes = std::fs::read(&path).expect("there");
        bytes.extend(b"a torn frame");
        std::fs::write(&path, &bytes).expect("written");
        let disk = Rehearsal::new(Arc::new(RealDisk));
        let mut frames = Vec::new();
        let recovered =
            record_file::recover(&disk, &path, b"mine", Tail::MayBeTorn, &mut |_, frame| {
                frames.push(frame.to_vec());
                Ok(())
            });
        assert_eq!(recovered.expect("readable").cut_bytes, 12);
        assert_eq!(frames, [b"one", b"two"]);
        assert_eq!(disk.notes(), [format!("cut 12 bytes off the end of {}", path.display())]);
        assert_eq!(std::fs::read(&path).expect("there"), bytes);
    }
}
