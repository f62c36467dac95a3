//! A real disk with faults: one that has no room for a new file, and one that does not give back what was written.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use coordinator_core::consensus::{HardState, PersistWrite};
use coordinator_disk::{Entry, File, OpenMode, RealDisk};

use super::super::snapshot::{Manner, list, write};
use super::super::snapshot_file::{Packing, Position};
use super::*;

/// What is wrong with a disk.
#[derive(Default)]
struct Faulty {
    /// New files have room while the log has fewer segments; 0 for always.
    segments_max: AtomicUsize,
    /// Whether reads of a snapshot that is being written have another byte than was written.
    lies: bool,
}

struct LyingFile(Arc<dyn File>);

impl Disk for Faulty {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let limit = self.segments_max.load(Ordering::Relaxed);
        if mode == OpenMode::CreateNew || mode == OpenMode::Create {
            let folder = path.parent().unwrap();
            if limit > 0 && folder.ends_with("log") && RealDisk.list(folder)?.len() >= limit {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let file = RealDisk.open(path, mode)?;
        let lies = self.lies && mode == OpenMode::Read;
        Ok(if lies { Arc::new(LyingFile(file)) } else { file })
    }

    fn sync_many(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        RealDisk.sync_many(files)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        RealDisk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        RealDisk.lock(path)
    }

    fn boot_id(&self) -> io::Result<String> {
        RealDisk.boot_id()
    }
}

impl File for LyingFile {
    fn append(&self, parts: &[IoSlice<'_>]) -> io::Result<u64> {
        self.0.append(parts)
    }

    fn write_at(&self, position: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(position, parts)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_at(position, buffer)?;
        // Far behind the header, so that it is a part of the state.
        let flipped = 1_000_000_u64.checked_sub(position).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = flipped.filter(|at| *at < count).and_then(|at| buffer.get_mut(at)) {
            *byte ^= 1;
        }
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        self.0.preallocate(length)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
}

fn segments(folder: &Path) -> usize {
    RealDisk.list(&folder.join("log")).unwrap().len()
}

#[test]
fn segments_that_a_snapshot_covers_go_before_another_begins_on_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Faulty::default());
    let (opened, _) = open(Arc::clone(&disk) as Arc<dyn Disk>, folder.path(), owner()).unwrap();
    let mut storage = opened.with_segments_of(2 << 20);
    let write = |index| {
        let entries = vec![entry(index, 1, 1 << 20)];
        vec![PersistWrite { entries, sync: true, ..PersistWrite::default() }]
    };
    let voted = HardState { term: 1, vote: 1, commit: 4 };
    storage
        .write(vec![PersistWrite { hard_state: Some(voted), ..PersistWrite::default() }])
        .unwrap();
    for index in 1..=5 {
        storage.write(write(index)).unwrap();
    }
    storage.save(&image(4, 1)).unwrap();
    let before = segments(folder.path());
    assert!(before >= 3, "{before}");
    disk.segments_max.store(before, Ordering::Relaxed);
    // What is written fills the segment in use, too.
    let mut last = write(6);
    last.extend(write(7));
    last.push(PersistWrite { discard_to: Some(4), ..PersistWrite::default() });
    storage.write(last).unwrap();
    assert!(segments(folder.path()) <= before);
    // And where what is in use is to go.
    storage.save(&image(7, 1)).unwrap();
    disk.segments_max.store(segments(folder.path()), Ordering::Relaxed);
    let all = PersistWrite { discard_to: Some(7), makes_room: true, ..PersistWrite::default() };
    storage.write(vec![all]).unwrap();
    assert_eq!(segments(folder.path()), 1);
    drop(storage);
    let (_, restored) = reopen(folder.path());
    assert_eq!((restored.snapshot, restored.hard_state), (Some(image(7, 1)), voted));
}

#[test]
fn snapshot_that_cannot_be_read_back_takes_no_older_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, _) = reopen(folder.path());
    let Opened { place, .. } = &storage;
    storage.save(&image(3, 1)).unwrap();
    storage.save(&image(5, 1)).unwrap();
    let again = |lies, makes_room| {
        let place = Place { disk: Arc::new(Faulty { lies, ..Faulty::default() }), ..place.clone() };
        let manner = Manner { packing: Packing::None, pace: None, makes_room };
        let (position, data) = (Position { index: 9, term: 1 }, image(9, 1).data);
        write(&place, position, &mut std::iter::once(&data[..]), &manner)
    };
    let refused = again(true, true).unwrap_err();
    assert!(refused.is_damage(), "{refused}");
    assert_eq!(list(place).unwrap(), [3, 5]);
    assert_eq!(RealDisk.list(&place.snapshots).unwrap().len(), 2, "nothing else is left of it");
    // Where the one before stays it is not read: that is what the older one is for.
    again(true, false).unwrap();
    assert_eq!(list(place).unwrap(), [5, 9]);
    again(false, true).unwrap();
    assert_eq!(list(place).unwrap(), [9]);
}
