//! What every [`Disk`] has to do, as one suite for the real and the simulated one.
//!
//! Called by: tests. Calls: the disk under test.
//! Does not know: crashes; only a simulated disk can have one, and its own tests look at that.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, EntryKind, File, OpenMode};
use crate::record_file::{self, RecordFile, Tail};
use crate::small_file;

/// Runs every check below the folder `root`, which need not exist; panics at the first that fails.
pub fn check(disk: &dyn Disk, root: &Path) {
    disk.create_dir(root).unwrap();
    type Check = fn(&dyn Disk, &Path);
    let checks: [(&str, Check); 9] = [
        ("modes", open_modes_treat_presence_as_they_say),
        ("append", appended_parts_stand_one_behind_the_other),
        ("write-at", writing_grows_the_file_and_never_moves_the_rest),
        ("truncate", truncating_cuts_and_grows_with_zeros),
        ("sync", syncing_many_files_syncs_each),
        ("names", names_are_listed_renamed_and_removed),
        ("lock", lock_has_one_holder),
        ("small-file", small_file_is_replaced_whole),
        ("record-file", record_file_comes_back),
    ];
    for (name, check) in checks {
        let folder = root.join(name);
        disk.create_dir(&folder).unwrap();
        check(disk, &folder);
    }
    assert_eq!(disk.boot_id().unwrap(), disk.boot_id().unwrap());
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

fn open_modes_treat_presence_as_they_say(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("file");
    for mode in [OpenMode::Read, OpenMode::ReadWrite] {
        assert_eq!(disk.open(&path, mode).err().unwrap().kind(), ErrorKind::NotFound);
    }
    disk.open(&path, OpenMode::CreateNew).unwrap().append(&[IoSlice::new(b"x")]).unwrap();
    let again = disk.open(&path, OpenMode::CreateNew).err().unwrap();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::Create] {
        assert_eq!(contents(&*disk.open(&path, mode).unwrap()), b"x");
    }
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.append(&[IoSlice::new(b"y")]).is_err());
    let below_nothing = disk.open(&folder.join("absent").join("file"), OpenMode::Create);
    assert_eq!(below_nothing.err().unwrap().kind(), ErrorKind::NotFound);
}

fn appended_parts_stand_one_behind_the_other(disk: &dyn Disk, folder: &Path) {
    let file = disk.open(&folder.join("file"), OpenMode::Create).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(
        file.append(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"c")]).unwrap(),
        0
    );
    assert_eq!(file.append(&[]).unwrap(), 3);
    // More parts than one system call takes.
    let byte = [7u8; 3];
    let parts: Vec<IoSlice<'_>> = (0..3000).map(|_| IoSlice::new(&byte)).collect();
    assert_eq!(file.append(&parts).unwrap(), 3);
    assert_eq!(file.len().unwrap(), 3 + 9000);
    assert_eq!(contents(&*file)[..4], *b"abc\x07");
    assert!(contents(&*file)[3..].iter().all(|byte| *byte == 7));
}

fn writing_grows_the_file_and_never_moves_the_rest(disk: &dyn Disk, folder: &Path) {
    let file = disk.open(&folder.join("file"), OpenMode::Create).unwrap();
    file.append(&[IoSlice::new(b"0123456789")]).unwrap();
    file.write_at(2, &[IoSlice::new(b"ab")]).unwrap();
    file.write_at(9, &[IoSlice::new(b"c"), IoSlice::new(b"d")]).unwrap();
    file.write_at(13, &[IoSlice::new(b"e")]).unwrap();
    assert_eq!(contents(&*file), b"01ab45678cd\0\0e");
    assert_eq!(file.append(&[IoSlice::new(b"f")]).unwrap(), 14);
    let mut buffer = [0; 4];
    assert_eq!(file.read_at(12, &mut buffer).unwrap(), 3);
    assert_eq!(file.read_at(15, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(99, &mut buffer).unwrap(), 0);
    let short = file.read_exact_at(12, &mut buffer).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
}

fn truncating_cuts_and_grows_with_zeros(disk: &dyn Disk, folder: &Path) {
    let file = disk.open(&folder.join("file"), OpenMode::Create).unwrap();
    file.append(&[IoSlice::new(b"0123456789")]).unwrap();
    file.truncate(4).unwrap();
    assert_eq!(contents(&*file), b"0123");
    assert_eq!(file.append(&[IoSlice::new(b"x")]).unwrap(), 4);
    file.truncate(7).unwrap();
    assert_eq!(contents(&*file), b"0123x\0\0");
    file.preallocate(1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 7);
}

fn syncing_many_files_syncs_each(disk: &dyn Disk, folder: &Path) {
    let mut files: Vec<Arc<dyn File>> = Vec::new();
    disk.sync_many(&files).unwrap();
    for number in 0..20u8 {
        let path = folder.join(number.to_string());
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.append(&[IoSlice::new(&[number])]).unwrap();
        files.push(file);
    }
    disk.sync_many(&files[..1]).unwrap();
    disk.sync_many(&files).unwrap();
    disk.sync_dir(folder).unwrap();
    // Whatever the system forgets, contents are what they were, synced or not.
    files[0].append(&[IoSlice::new(b"more")]).unwrap();
    for (number, file) in files.iter().enumerate() {
        file.forget_cached();
        let expected = if number == 0 { b"\0more".to_vec() } else { vec![number as u8] };
        assert_eq!(contents(&**file), expected);
    }
}

fn names_are_listed_renamed_and_removed(disk: &dyn Disk, folder: &Path) {
    disk.create_dir(&folder.join("c").join("inner")).unwrap();
    disk.create_dir(&folder.join("c").join("inner")).unwrap();
    let a = disk.open(&folder.join("a"), OpenMode::Create).unwrap();
    a.append(&[IoSlice::new(b"from a")]).unwrap();
    disk.open(&folder.join("b"), OpenMode::Create).unwrap();
    let names = |of: &Path| -> Vec<(String, EntryKind)> {
        disk.list(of).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect()
    };
    let name = |text: &str, kind| (text.to_owned(), kind);
    assert_eq!(
        names(folder),
        [name("a", EntryKind::File), name("b", EntryKind::File), name("c", EntryKind::Folder),]
    );
    disk.rename(&folder.join("a"), &folder.join("b")).unwrap();
    assert_eq!(contents(&*disk.open(&folder.join("b"), OpenMode::Read).unwrap()), b"from a");
    assert!(!disk.exists(&folder.join("a")).unwrap());
    assert!(disk.exists(&folder.join("c")).unwrap());
    assert!(disk.remove_dir(&folder.join("c")).is_err());
    disk.rename(&folder.join("c"), &folder.join("d")).unwrap();
    assert_eq!(names(&folder.join("d")), [name("inner", EntryKind::Folder)]);
    disk.remove_dir(&folder.join("d").join("inner")).unwrap();
    disk.remove_dir(&folder.join("d")).unwrap();
    disk.remove(&folder.join("b")).unwrap();
    assert_eq!(contents(&*a), b"from a", "an open handle outlives its name");
    assert_eq!(names(folder), []);
    for gone in [disk.remove(&folder.join("b")), disk.remove_dir(&folder.join("d"))] {
        assert_eq!(gone.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(disk.list(&folder.join("d")).unwrap_err().kind(), ErrorKind::NotFound);
}

fn lock_has_one_holder(disk: &dyn Disk, folder: &Path) {
    let path = folder.join(".lock");
    let held = disk.lock(&path).unwrap();
    assert_eq!(disk.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(held);
    drop(disk.lock(&path).unwrap());
    disk.lock(&path).unwrap();
}

fn small_file_is_replaced_whole(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("small");
    assert_eq!(small_file::read(disk, &path).unwrap(), None);
    small_file::replace(disk, &path, b"a longer first text").unwrap();
    small_file::replace(disk, &path, b"second").unwrap();
    assert_eq!(small_file::read(disk, &path).unwrap().unwrap(), b"second");
    assert!(!disk.exists(&small_file::replacement_path(&path)).unwrap());
    // A replacement that a crash left half written is no obstacle.
    let rubbish = disk.open(&small_file::replacement_path(&path), OpenMode::Create).unwrap();
    rubbish.append(&[IoSlice::new(b"half of something much longer than the third")]).unwrap();
    small_file::replace(disk, &path, b"third").unwrap();
    assert_eq!(small_file::read(disk, &path).unwrap().unwrap(), b"third");
}

fn record_file_comes_back(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("records");
    let mut file = RecordFile::create(disk, &path, b"owner").unwrap();
    file.append(&[b"one", b"two"]).unwrap();
    file.sync().unwrap();
    file.append(&[b"three"]).unwrap();
    drop(file);
    let mut seen = Vec::new();
    let recovered =
        record_file::recover(disk, &path, b"owner", Tail::MayBeTorn, &mut |_, bytes| {
            seen.push(bytes.to_vec());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [b"one".as_slice(), b"two", b"three"]);
    assert_eq!((recovered.frames, recovered.cut_bytes), (3, 0));
}
