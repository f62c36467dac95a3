//! The durable marks of a log directory: up to where each log survives a power cut.
//!
//! Called by: the commit rounds (append, sync), truncation (lower), recovery (get). Calls: the
//! record file. Invariant: a mark on disk never stands above what was synced; before a log is cut
//! below its mark, the mark is lowered and synced. Knows logs by the name of their folder only.
//!
//! A frame is a list of entries, each one byte of kind and its fields, little-endian:
//!
//! ```text
//! 1 name   | id u32 | length u16 | bytes       2 mark    | id u32 | offset i64
//! 3 forget | id u32                            4 cut     | id u32 | 1 = cut below its mark, 0 = no more
//! 5 damage | id u32 | offset i64, -1 = no more
//! ```
//!
//! Behind what was synced stands a frame without entries, which says so: without it damage to the last frame would pass for a torn end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coordinator_disk::Disk;
use coordinator_disk::record_file::{self, RecordFile, RecordFileError, Tail};

use crate::log::SyncTicket;

/// Name of the file in its log directory.
pub const MARKS_FILE: &str = "durable-marks";
/// The file is written anew when it grows beyond this.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// A file that is written anew is so in frames of about so much.
const FRAME_BYTES: usize = 64 << 10;
/// Longest name of a log's folder.
const NAME_BYTES_MAX: usize = 512;

/// Why marks could not be read or written; the log directory is then to be fenced.
pub type MarksError = RecordFileError;

/// Names one log inside the marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkId(u32);

/// What is noted of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Everything below was synced.
    pub durable_end: i64,
    /// Whether the log was cut below its mark and has not caught up since.
    pub cut_below: bool,
    /// From where on a start could not read it, until it was cut. What told so may be lost before it is.
    pub damaged_from: Option<i64>,
}

/// The marks of one log directory; shared by its append thread and its commit rounds.
pub struct Marks {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Vec<u8>,
    inner: Mutex<Inner>,
}

struct Inner {
    file: RecordFile,
    names: BTreeMap<u32, String>,
    ids: BTreeMap<String, u32>,
    marks: BTreeMap<u32, Mark>,
    next_id: u32,
    buffer: Vec<u8>,
    /// Frames with entries were written since the last that says what is synced.
    is_open: bool,
    /// The file is written anew when it grows beyond this.
    file_bytes_max: u64,
}

#[derive(Default)]
struct Contents {
    names: BTreeMap<u32, String>,
    marks: BTreeMap<u32, Mark>,
}

impl Marks {
    /// Reads the marks of the directory, or begins them when there is no file. `identity` is that
    /// of the directory.
    ///
    /// # Errors
    /// [`MarksError`]; a damaged file is not replaced, as the marks in it are the only proof of
    /// what must not be cut.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: &[u8],
    ) -> Result<Self, MarksError> {
        let path = directory.join(MARKS_FILE);
        let mut contents = Contents::default();
        let exists = disk
            .exists(&path)
            .map_err(|error| RecordFileError::Io { path: path.clone(), error })?;
        let mut file = if exists {
            let mut visit = |_, payload: &[u8]| contents.take(payload);
            record_file::recover(&*disk, &path, identity, Tail::MayBeTorn, &mut visit)?.file
        } else {
            RecordFile::create(&*disk, &path, identity)?
        };
        seal(&mut file)?;
        let Contents { names, marks } = contents;
        let ids = names.iter().map(|(id, name)| (name.clone(), *id)).collect();
        let next_id = names.last_key_value().map_or(0, |(id, _)| id.saturating_add(1));
        let (buffer, is_open, file_bytes_max) = (Vec::new(), false, FILE_BYTES_MAX);
        let inner = Inner { file, names, ids, marks, next_id, buffer, is_open, file_bytes_max };
        Ok(Self { disk, path, identity: identity.to_vec(), inner: Mutex::new(inner) })
    }

    /// Has the file written anew when it is larger than `bytes`, or twice of what it then needs, instead
    /// of 8 MiB.
    pub fn limit_file(&self, bytes: u64) {
        self.lock().file_bytes_max = bytes;
    }

    /// The mark of the log in the folder `name`, if it has one.
    pub fn get(&self, name: &str) -> Option<Mark> {
        let inner = self.lock();
        inner.ids.get(name).and_then(|id| inner.marks.get(id)).copied()
    }

    /// Gives the log in the folder `name` its id. Not durable yet: without a mark it says nothing.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn register(&self, name: &str) -> Result<MarkId, MarksError> {
        let mut inner = self.lock();
        if let Some(id) = inner.ids.get(name) {
            return Ok(MarkId(*id));
        }
        let id = inner.next_id;
        inner.next_id = id.saturating_add(1);
        inner.names.insert(id, name.to_owned());
        inner.ids.insert(name.to_owned(), id);
        let entry = [Entry::Name(id, name)];
        self.write(&mut inner, &entry)?;
        Ok(MarkId(id))
    }

    /// Notes what a round made durable, of every log that was not truncated since its ticket was
    /// taken. The next sync makes the note itself durable.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn append_synced<'a>(
        &self,
        tickets: impl IntoIterator<Item = &'a SyncTicket>,
    ) -> Result<(), MarksError> {
        // The generations are compared under the lock that a truncation takes to lower its mark,
        // after it raised the generation: compared before, a mark could rise again behind its back.
        let inner = self.lock();
        let current = |ticket: &&SyncTicket| ticket.view.generation() == ticket.generation;
        let ends: Vec<_> = tickets
            .into_iter()
            .filter(current)
            .map(|ticket| (ticket.mark_id, ticket.end))
            .collect();
        self.append_to(inner, &ends)
    }

    /// Notes how far logs are durable, that of owners without rounds.
    pub(crate) fn append(&self, ends: &[(MarkId, i64)]) -> Result<(), MarksError> {
        self.append_to(self.lock(), ends)
    }

    fn append_to(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        ends: &[(MarkId, i64)],
    ) -> Result<(), MarksError> {
        let mut entries = Vec::new();
        for &(MarkId(id), durable_end) in ends {
            // A round may end after the log that it synced was deleted, and its id forgotten.
            if !inner.names.contains_key(&id) {
                continue;
            }
            let mark = inner.marks.entry(id).or_default();
            mark.durable_end = durable_end;
            entries.push(Entry::Mark(id, durable_end));
        }
        if entries.is_empty() { Ok(()) } else { self.write(&mut inner, &entries) }
    }

    /// Sets a log's mark to `end` at most, before the log is cut there; durable when it returns.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn lower(&self, MarkId(id): MarkId, end: i64) -> Result<(), MarksError> {
        let mut inner = self.lock();
        match inner.marks.get_mut(&id) {
            Some(mark) if mark.durable_end > end => mark.durable_end = end,
            Some(_) | None => return Ok(()),
        }
        self.write(&mut inner, &[Entry::Mark(id, end)])?;
        inner.sync()
    }

    /// Notes that a log lost part of what was durable, or that it has caught up again; durable
    /// when it returns.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn set_cut_below(&self, MarkId(id): MarkId, cut_below: bool) -> Result<(), MarksError> {
        let mut inner = self.lock();
        let mark = inner.marks.entry(id).or_default();
        if mark.cut_below == cut_below {
            return Ok(());
        }
        mark.cut_below = cut_below;
        self.write(&mut inner, &[Entry::Cut(id, cut_below)])?;
        inner.sync()
    }

    /// Whether the log lost part of what was durable.
    pub fn cut_below(&self, MarkId(id): MarkId) -> bool {
        self.lock().marks.get(&id).is_some_and(|mark| mark.cut_below)
    }

    /// Notes from where on a log cannot be read, or that this was cut; durable when it returns.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn set_damage(&self, MarkId(id): MarkId, from: Option<i64>) -> Result<(), MarksError> {
        let mut inner = self.lock();
        if inner.marks.get(&id).and_then(|mark| mark.damaged_from) == from {
            return Ok(());
        }
        inner.marks.entry(id).or_default().damaged_from = from;
        self.write(&mut inner, &[Entry::Damage(id, from)])?;
        inner.sync()
    }

    /// Forgets a log that is about to be deleted; durable when it returns. A mark that outlived its
    /// log would make the next one of the name look as if it had lost records.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn forget(&self, MarkId(id): MarkId) -> Result<(), MarksError> {
        let mut inner = self.lock();
        inner.marks.remove(&id);
        if let Some(name) = inner.names.remove(&id) {
            inner.ids.remove(&name);
        }
        self.write(&mut inner, &[Entry::Forget(id)])?;
        inner.sync()
    }

    /// Makes all notes durable.
    ///
    /// # Errors
    /// [`MarksError`].
    pub fn sync(&self) -> Result<(), MarksError> {
        self.lock().sync()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, inner: &mut Inner, entries: &[Entry<'_>]) -> Result<(), MarksError> {
        let mut buffer = std::mem::take(&mut inner.buffer);
        buffer.clear();
        entries.iter().for_each(|entry| entry.encode(&mut buffer));
        let written = inner.file.append(&[&buffer]);
        inner.buffer = buffer;
        written?;
        inner.is_open = true;
        if inner.file.end() > inner.file_bytes_max { self.rewrite(inner) } else { Ok(()) }
    }

    /// Replaces the file by one that holds only what is in force.
    fn rewrite(&self, inner: &mut Inner) -> Result<(), MarksError> {
        let fresh_path = self.path.with_extension("new");
        let mut fresh = RecordFile::create(&*self.disk, &fresh_path, &self.identity)?;
        let names = inner.names.iter().map(|(id, name)| Entry::Name(*id, name));
        let marks = inner.marks.iter().map(|(id, mark)| Entry::Mark(*id, mark.durable_end));
        let cuts = inner.marks.iter().filter(|(_, mark)| mark.cut_below);
        let cuts = cuts.map(|(id, _)| Entry::Cut(*id, true));
        let damages = inner.marks.iter().filter(|(_, mark)| mark.damaged_from.is_some());
        let damages = damages.map(|(id, mark)| Entry::Damage(*id, mark.damaged_from));
        let mut buffer = Vec::new();
        for entry in names.chain(marks).chain(cuts).chain(damages) {
            entry.encode(&mut buffer);
            if buffer.len() >= FRAME_BYTES {
                fresh.append(&[&buffer])?;
                buffer.clear();
            }
        }
        if !buffer.is_empty() {
            fresh.append(&[&buffer])?;
        }
        fresh.sync()?;
        seal(&mut fresh)?;
        let io = |error| RecordFileError::Io { path: self.path.clone(), error };
        self.disk.rename(&fresh_path, &self.path).map_err(io)?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new(""))).map_err(io)?;
        inner.file = fresh;
        inner.is_open = false;
        inner.file_bytes_max = inner.file_bytes_max.max(inner.file.end().saturating_mul(2));
        Ok(())
    }
}

impl Inner {
    fn sync(&mut self) -> Result<(), MarksError> {
        self.file.sync()?;
        if std::mem::take(&mut self.is_open) { seal(&mut self.file) } else { Ok(()) }
    }
}

/// Says that everything before it is synced. It need not be synced itself: a crash takes it, damage does not.
fn seal(file: &mut RecordFile) -> Result<(), MarksError> {
    file.append(&[&[]]).map(drop)
}

enum Entry<'a> {
    Name(u32, &'a str),
    Mark(u32, i64),
    Forget(u32),
    Cut(u32, bool),
    Damage(u32, Option<i64>),
}

impl<'a> Entry<'a> {
    fn encode(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::Name(id, name) => {
                buffer.push(1);
                buffer.extend_from_slice(&id.to_le_bytes());
                let length = u16::try_from(name.len().min(NAME_BYTES_MAX)).unwrap_or(0);
                buffer.extend_from_slice(&length.to_le_bytes());
                buffer.extend(name.bytes().take(usize::from(length)));
            }
            Self::Mark(id, end) => {
                buffer.push(2);
                buffer.extend_from_slice(&id.to_le_bytes());
                buffer.extend_from_slice(&end.to_le_bytes());
            }
            Self::Forget(id) => {
                buffer.push(3);
                buffer.extend_from_slice(&id.to_le_bytes());
            }
            Self::Cut(id, cut) => {
                buffer.push(4);
                buffer.extend_from_slice(&id.to_le_bytes());
                buffer.push(u8::from(*cut));
            }
            Self::Damage(id, from) => {
                buffer.push(5);
                buffer.extend_from_slice(&id.to_le_bytes());
                buffer.extend_from_slice(&from.unwrap_or(-1).to_le_bytes());
            }
        }
    }

    /// The first entry and the bytes behind it.
    fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (kind, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let id = u32::from_le_bytes(*id);
        match kind {
            1 => {
                let (length, rest) = rest.split_first_chunk()?;
                let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
                Some((Self::Name(id, std::str::from_utf8(name).ok()?), rest))
            }
            2 => {
                let (end, rest) = rest.split_first_chunk()?;
                Some((Self::Mark(id, i64::from_le_bytes(*end)), rest))
            }
            3 => Some((Self::Forget(id), rest)),
            4 => {
                let (cut, rest) = rest.split_first()?;
                Some((Self::Cut(id, *cut == 1), rest))
            }
            5 => {
                let (from, rest) = rest.split_first_chunk()?;
                let from = i64::from_le_bytes(*from);
                Some((Self::Damage(id, (from >= 0).then_some(from)), rest))
            }
            _ => None,
        }
    }
}

impl Contents {
    fn take(&mut self, payload: &[u8]) -> Result<(), String> {
        let mut rest = payload;
        while !rest.is_empty() {
            let (entry, behind) = Entry::decode(rest).ok_or("an entry of no known kind")?;
            rest = behind;
            match entry {
                Entry::Name(id, name) => {
                    self.names.insert(id, name.to_owned());
                }
                Entry::Mark(id, durable_end) => {
                    self.marks.entry(id).or_default().durable_end = durable_end;
                }
                Entry::Forget(id) => {
                    self.names.remove(&id);
                    self.marks.remove(&id);
                }
                Entry::Cut(id, cut_below) => {
                    self.marks.entry(id).or_default().cut_below = cut_below;
                }
                Entry::Damage(id, from) => {
                    self.marks.entry(id).or_default().damaged_from = from;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use coordinator_disk::RealDisk;

    fn open(folder: &Folder) -> Marks {
        Marks::open(Arc::new(RealDisk), folder.path(), b"directory 1").unwrap()
    }

    #[test]
    fn marks_are_read_back() {
        let folder = Folder::new();
        let marks = open(&folder);
        let (a, b) = (marks.register("a-0").unwrap(), marks.register("b-0").unwrap());
        assert_eq!(marks.register("a-0").unwrap(), a);
        marks.append(&[(a, 10), (b, 20)]).unwrap();
        marks.append(&[(a, 30)]).unwrap();
        marks.lower(a, 25).unwrap();
        marks.lower(b, 50).unwrap();
        marks.set_cut_below(b, true).unwrap();
        marks.set_damage(a, Some(7)).unwrap();
        marks.set_damage(a, None).unwrap();
        marks.set_damage(b, Some(0)).unwrap();
        drop(marks);
        let marks = open(&folder);
        assert_eq!(marks.get("a-0"), Some(Mark { durable_end: 25, ..Mark::default() }));
        assert_eq!(
            marks.get("b-0"),
            Some(Mark { durable_end: 20, cut_below: true, damaged_from: Some(0) })
        );
        marks.forget(marks.register("a-0").unwrap()).unwrap();
        drop(marks);
        let marks = open(&folder);
        assert_eq!(marks.get("a-0"), None);
        assert_ne!(marks.register("c-0").unwrap(), b);
    }

    /// However the file came to its last notes: by a sync, by being written anew, by a start.
    #[test]
    fn damage_to_what_was_synced_last_is_no_torn_end() {
        for way in ["synced", "anew", "started"] {
            let folder = Folder::new();
            let marks = open(&folder);
            if way == "anew" {
                marks.limit_file(1);
            }
            let id = marks.register("a-0").unwrap();
            marks.append(&[(id, 10)]).unwrap();
            marks.sync().unwrap();
            marks.set_cut_below(id, true).unwrap();
            drop(marks);
            if way == "started" {
                drop(open(&folder));
            }
            let path = folder.path().join(MARKS_FILE);
            let whole = std::fs::read(&path).unwrap();
            let seal = record_file::FRAME_HEADER_BYTES;
            let kept = Mark { durable_end: 10, cut_below: true, damaged_from: None };
            for at in 0..whole.len() {
                let mut bad = whole.clone();
                bad[at] ^= 4;
                std::fs::write(&path, &bad).unwrap();
                let opened = Marks::open(Arc::new(RealDisk), folder.path(), b"directory 1");
                match opened {
                    Ok(marks) if at >= whole.len() - seal => {
                        assert_eq!(marks.get("a-0"), Some(kept), "{way}, byte {at}");
                    }
                    Ok(_) => panic!("{way}: damage to byte {at} of {} unseen", whole.len()),
                    Err(_) => assert!(at < whole.len() - seal, "{way}: byte {at} is the seal's"),
                }
            }
        }
    }

    #[test]
    fn long_file_is_written_anew() {
        let folder = Folder::new();
        let marks = open(&folder);
        let id = marks.register("a-0").unwrap();
        let many: Vec<_> = (0..60_000).map(|end| (id, end)).collect();
        for _ in 0..20 {
            marks.append(&many).unwrap();
        }
        let length = std::fs::metadata(folder.path().join(MARKS_FILE)).unwrap().len();
        assert!(length < FILE_BYTES_MAX, "{length}");
        drop(marks);
        assert_eq!(open(&folder).get("a-0").unwrap().durable_end, 59_999);
    }

    #[test]
    fn what_is_written_anew_is_all_of_it_and_not_at_every_write() {
        let folder = Folder::new();
        let marks = open(&folder);
        marks.limit_file(1_000);
        let name = |number| format!("a-topic-whose-name-is-rather-long-{number}");
        for number in 0..3_000 {
            let id = marks.register(&name(number)).unwrap();
            marks.append(&[(id, number)]).unwrap();
            if number % 2 == 0 {
                marks.set_cut_below(id, true).unwrap();
            }
            if number % 3 == 0 {
                marks.set_damage(id, Some(number)).unwrap();
            }
        }
        let limit = marks.lock().file_bytes_max;
        assert!(limit > 200_000, "{limit}: it grew with what is in force");
        drop(marks);
        let marks = open(&folder);
        for number in 0..3_000 {
            let damaged_from = (number % 3 == 0).then_some(number);
            let mark = Mark { durable_end: number, cut_below: number % 2 == 0, damaged_from };
            assert_eq!(marks.get(&name(number)), Some(mark));
        }
    }

    #[test]
    fn round_that_ends_after_a_deletion_leaves_no_mark() {
        let folder = Folder::new();
        let marks = open(&folder);
        let id = marks.register("a-0").unwrap();
        marks.forget(id).unwrap();
        marks.append(&[(id, 10)]).unwrap();
        drop(marks);
        let marks = open(&folder);
        assert_eq!(marks.register("b-0").unwrap(), id, "numbers of the forgotten are given again");
        assert_eq!(marks.get("b-0"), None);
    }

    #[test]
    fn another_directorys_marks_are_refused() {
        let folder = Folder::new();
        drop(open(&folder));
        assert!(Marks::open(Arc::new(RealDisk), folder.path(), b"directory 2").is_err());
    }
}
