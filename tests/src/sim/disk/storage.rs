//! Inodes and names of the simulated disk, each as it looks now and as a crash would leave it.
//!
//! Called by: the simulated disk. Calls: the random stream of a crash.
//! Invariant: for every inode, `durable` with all of `unsynced` applied in order is what `now` shows, but for what a failed sync has dropped:
//! that is shown until the power goes.
//! Does not know: handles, processes, locks, injected failures.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use crate::sim::random::Random;

/// What a disk writes or loses as one.
const SECTOR_BYTES: usize = 512;

/// Number of a file or folder, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InodeId(u64);

const ROOT: InodeId = InodeId(0);

enum Inode {
    File(Contents),
    Folder(Names),
}

#[derive(Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// A sync failed: none succeeds any more.
    poisoned: bool,
    /// Reads fail.
    unreadable: bool,
}

enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

type NameMap = BTreeMap<String, InodeId>;

#[derive(Default)]
struct Names {
    now: NameMap,
    durable: NameMap,
    unsynced: Vec<NameChange>,
}

enum NameChange {
    Add { name: String, id: InodeId },
    Remove { name: String },
    Rename { from: String, to: String },
}

/// Everything on the disk.
pub struct Storage {
    inodes: BTreeMap<InodeId, Inode>,
    next_id: u64,
}

impl Default for Storage {
    fn default() -> Storage {
        let inodes = BTreeMap::from([(ROOT, Inode::Folder(Names::default()))]);
        Storage { inodes, next_id: ROOT.0 + 1 }
    }
}

impl Storage {
    /// What `path` names now.
    pub fn find(&self, path: &Path) -> io::Result<InodeId> {
        let mut id = ROOT;
        for name in components(path)? {
            let Some(Inode::Folder(names)) = self.inodes.get(&id) else {
                return Err(ErrorKind::NotADirectory.into());
            };
            id = *names.now.get(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(id)
    }

    pub fn find_file(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.find(path)?;
        match self.inodes[&id] {
            Inode::File(_) => Ok(id),
            Inode::Folder(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub fn find_folder(&self, path: &Path) -> io::Result<InodeId> {
        let id = self.find(path)?;
        match self.inodes[&id] {
            Inode::Folder(_) => Ok(id),
            Inode::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub fn create_file(&mut self, path: &Path) -> io::Result<InodeId> {
        self.create(path, Inode::File(Contents::default()))
    }

    pub fn create_folders(&mut self, path: &Path) -> io::Result<()> {
        let names = components(path)?;
        let mut prefix = PathBuf::new();
        for name in names {
            prefix.push(name);
            match self.find_folder(&prefix) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.create(&prefix, Inode::Folder(Names::default()))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub fn names(&self, folder: InodeId) -> impl Iterator<Item = (&str, bool)> {
        let names = match &self.inodes[&folder] {
            Inode::Folder(names) => &names.now,
            Inode::File(_) => unreachable!("found as a folder"),
        };
        let is_folder = |id| matches!(self.inodes[id], Inode::Folder(_));
        names.iter().map(move |(name, id)| (name.as_str(), is_folder(id)))
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        if let Ok(replaced) = self.find(to)
            && matches!(self.inodes[&replaced], Inode::Folder(_))
        {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let (from_folder, from_name) = self.folder_and_name(from)?;
        let (to_folder, to_name) = self.folder_and_name(to)?;
        if from_folder == to_folder {
            let change = NameChange::Rename { from: from_name, to: to_name };
            self.change_names(from_folder, change);
        } else {
            self.change_names(to_folder, NameChange::Add { name: to_name, id });
            self.change_names(from_folder, NameChange::Remove { name: from_name });
        }
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (folder, name) = self.folder_and_name(path)?;
        self.change_names(folder, NameChange::Remove { name });
        Ok(())
    }

    pub fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find_folder(path)?;
        if self.names(id).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let (folder, name) = self.folder_and_name(path)?;
        self.change_names(folder, NameChange::Remove { name });
        Ok(())
    }

    pub fn sync_folder(&mut self, id: InodeId) {
        if let Some(Inode::Folder(names)) = self.inodes.get_mut(&id) {
            for change in names.unsynced.drain(..) {
                apply_name(&mut names.durable, &change);
            }
        }
    }

    pub fn length(&self, file: InodeId) -> u64 {
        self.contents(file).now.len() as u64
    }

    pub fn read(
        &self,
        file: InodeId,
        position: u64,
        buffer: &mut [u8],
        peeking: bool,
    ) -> io::Result<usize> {
        let contents = self.contents(file);
        if contents.unreadable && !peeking {
            return Err(io::Error::other("simulated disk: this file cannot be read"));
        }
        let rest = contents.now.get(index(position)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    pub fn write(&mut self, file: InodeId, position: u64, bytes: Vec<u8>) {
        self.change_contents(file, Change::Write { position: index(position), bytes });
    }

    pub fn truncate(&mut self, file: InodeId, length: u64) {
        self.change_contents(file, Change::Truncate { length: index(length) });
    }

    pub fn sync_file(&mut self, file: InodeId) -> io::Result<()> {
        let contents = self.contents_mut(file);
        if contents.poisoned {
            return Err(io::Error::other("simulated disk: an earlier sync of this file failed"));
        }
        for change in std::mem::take(&mut contents.unsynced) {
            apply(&mut contents.durable, &change);
        }
        Ok(())
    }

    /// A sync of the file failed. With `drops` the machine takes what was not synced for clean: it shows it, and never writes it.
    pub fn poison(&mut self, file: InodeId, drops: bool) {
        let contents = self.contents_mut(file);
        contents.poisoned = true;
        if drops {
            contents.unsynced.clear();
        }
    }

    pub fn set_unreadable(&mut self, file: InodeId, unreadable: bool) {
        self.contents_mut(file).unreadable = unreadable;
    }

    /// All files can be read again.
    pub fn make_readable(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Inode::File(contents) = inode {
                contents.unreadable = false;
            }
        }
    }

    /// What was written to a sector never reached the disk: it reads as zeros.
    pub fn lose_sector(&mut self, file: InodeId, position: u64) {
        let contents = self.contents_mut(file);
        let from = index(position) / SECTOR_BYTES * SECTOR_BYTES;
        for bytes in [&mut contents.now, &mut contents.durable] {
            let to = bytes.len().min(from + SECTOR_BYTES);
            bytes.get_mut(from..to).unwrap_or_default().fill(0);
        }
    }

    /// A name is gone, from the disk too.
    pub fn lose_name(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.folder_and_name(path)?;
        if let Some(Inode::Folder(names)) = self.inodes.get_mut(&folder) {
            names.now.remove(&name);
            names.durable.clone_from(&names.now);
            names.unsynced.clear();
        }
        Ok(())
    }

    /// Paths and lengths of all files, in the order of their names.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let (mut files, mut open) = (Vec::new(), vec![(PathBuf::from("/"), ROOT)]);
        while let Some((path, id)) = open.pop() {
            match &self.inodes[&id] {
                Inode::File(contents) => files.push((path, contents.now.len() as u64)),
                Inode::Folder(names) => {
                    open.extend(names.now.iter().map(|(name, id)| (path.join(name), *id)));
                }
            }
        }
        files.sort();
        files
    }

    /// The same files as they look now, all of it on the disk.
    pub fn copy(&self) -> Storage {
        let copy = |inode: &Inode| match inode {
            Inode::File(contents) => {
                let (now, durable) = (contents.now.clone(), contents.now.clone());
                Inode::File(Contents { now, durable, ..Contents::default() })
            }
            Inode::Folder(names) => {
                let (now, durable) = (names.now.clone(), names.now.clone());
                Inode::Folder(Names { now, durable, unsynced: Vec::new() })
            }
        };
        let inodes = self.inodes.iter().map(|(id, inode)| (*id, copy(inode))).collect();
        Storage { inodes, next_id: self.next_id }
    }

    /// What is there for certain, whenever the power goes.
    pub fn durable_copy(&self) -> Storage {
        let copy = |inode: &Inode| match inode {
            Inode::File(contents) => {
                let (now, durable) = (contents.durable.clone(), contents.durable.clone());
                Inode::File(Contents { now, durable, ..Contents::default() })
            }
            Inode::Folder(names) => {
                let (now, durable) = (names.durable.clone(), names.durable.clone());
                Inode::Folder(Names { now, durable, ..Names::default() })
            }
        };
        let inodes = self.inodes.iter().map(|(id, inode)| (*id, copy(inode))).collect();
        let mut storage = Storage { inodes, next_id: self.next_id };
        storage.drop_unnamed();
        storage
    }

    /// A later process is told of no earlier process's failed sync; what that sync should have written is still unsynced.
    pub fn forgive(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Inode::File(contents) = inode {
                contents.poisoned = false;
            }
        }
    }

    pub fn flip_bit(&mut self, file: InodeId, position: u64, bit: u8) -> io::Result<()> {
        let contents = self.contents_mut(file);
        let at = index(position);
        *contents.now.get_mut(at).ok_or(ErrorKind::InvalidInput)? ^= 1 << bit;
        if let Some(byte) = contents.durable.get_mut(at) {
            *byte ^= 1 << bit;
        }
        Ok(())
    }

    /// Leaves of every file and folder what was durable and some of the rest.
    pub fn crash(&mut self, random: &mut Random) {
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(contents) => contents.crash(random),
                Inode::Folder(names) => names.crash(random),
            }
        }
        self.drop_unnamed();
    }

    /// Forgets inodes without a name, which only open handles kept. A power cut may still bring back a name that was
    /// given and taken since the last sync.
    pub fn drop_unnamed(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            if let Some(Inode::Folder(names)) = self.inodes.get(&id) {
                let added = names.unsynced.iter().filter_map(|change| match change {
                    NameChange::Add { id, .. } => Some(id),
                    NameChange::Remove { .. } | NameChange::Rename { .. } => None,
                });
                for id in names.now.values().chain(names.durable.values()).chain(added) {
                    if named.insert(*id) {
                        open.push(*id);
                    }
                }
            }
        }
        self.inodes.retain(|id, _| named.contains(id));
    }

    fn create(&mut self, path: &Path, inode: Inode) -> io::Result<InodeId> {
        let (folder, name) = self.folder_and_name(path)?;
        let id = InodeId(self.next_id);
        self.next_id += 1;
        self.inodes.insert(id, inode);
        self.change_names(folder, NameChange::Add { name, id });
        Ok(id)
    }

    fn folder_and_name(&self, path: &Path) -> io::Result<(InodeId, String)> {
        let mut names = components(path)?;
        let name = names.pop().ok_or(ErrorKind::InvalidInput)?.to_owned();
        let folder = self.find_folder(&names.iter().collect::<PathBuf>())?;
        Ok((folder, name))
    }

    fn change_names(&mut self, folder: InodeId, change: NameChange) {
        if let Some(Inode::Folder(names)) = self.inodes.get_mut(&folder) {
            apply_name(&mut names.now, &change);
            names.unsynced.push(change);
        }
    }

    fn change_contents(&mut self, file: InodeId, change: Change) {
        let contents = self.contents_mut(file);
        apply(&mut contents.now, &change);
        contents.unsynced.push(change);
    }

    fn contents(&self, file: InodeId) -> &Contents {
        match &self.inodes[&file] {
            Inode::File(contents) => contents,
            Inode::Folder(_) => unreachable!("opened as a file"),
        }
    }

    fn contents_mut(&mut self, file: InodeId) -> &mut Contents {
        match self.inodes.get_mut(&file) {
            Some(Inode::File(contents)) => contents,
            _ => unreachable!("opened as a file"),
        }
    }
}

impl Contents {
    fn crash(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        match random.below(4) {
            0 => {}
            1 => changes.iter().for_each(|change| apply(&mut self.durable, change)),
            2 => self.keep_prefix(&changes, random),
            _ => self.keep_sectors(&changes, random),
        }
        self.now = self.durable.clone();
        self.poisoned = false;
    }

    /// The first changes survive whole, the next one in part.
    fn keep_prefix(&mut self, changes: &[Change], random: &mut Random) {
        let whole = index(random.below(changes.len() as u64 + 1));
        for change in &changes[..whole] {
            apply(&mut self.durable, change);
        }
        if let Some(Change::Write { position, bytes }) = changes.get(whole) {
            let kept = bytes[..index(random.below(bytes.len() as u64 + 1))].to_vec();
            apply(&mut self.durable, &Change::Write { position: *position, bytes: kept });
        }
    }

    /// Each sector of each write survives or not, whatever happens to the ones before it.
    fn keep_sectors(&mut self, changes: &[Change], random: &mut Random) {
        for change in changes {
            let Change::Write { position, bytes } = change else {
                if random.chance(1, 2) {
                    apply(&mut self.durable, change);
                }
                continue;
            };
            let mut from = 0;
            while from < bytes.len() {
                let to = from + SECTOR_BYTES - (position + from) % SECTOR_BYTES;
                let to = to.min(bytes.len());
                if random.chance(1, 2) {
                    let bytes = bytes[from..to].to_vec();
                    let position = position + from;
                    apply(&mut self.durable, &Change::Write { position, bytes });
                }
                from = to;
            }
        }
    }
}

impl Names {
    /// A prefix of the changes survives: journals keep the order of names within a folder.
    fn crash(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.unsynced);
        let kept = index(random.below(changes.len() as u64 + 1));
        for change in &changes[..kept] {
            apply_name(&mut self.durable, change);
        }
        self.now = self.durable.clone();
    }
}

fn apply(contents: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { bytes, .. } if bytes.is_empty() => {}
        Change::Write { position, bytes } => {
            let end = position + bytes.len();
            if contents.len() < end {
                contents.resize(end, 0);
            }
            contents[*position..end].copy_from_slice(bytes);
        }
        Change::Truncate { length } => contents.resize(*length, 0),
    }
}

fn apply_name(names: &mut NameMap, change: &NameChange) {
    match change {
        NameChange::Add { name, id } => {
            names.insert(name.clone(), *id);
        }
        NameChange::Remove { name } => {
            names.remove(name);
        }
        NameChange::Rename { from, to } => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

/// The names along `path`; absolute and relative are the same here.
fn components(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(ErrorKind::InvalidInput)?),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a simulated file fits into memory")
}
