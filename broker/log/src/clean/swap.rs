//! Puts cleaned segments in the place of those they were made from.
//!
//! Called by: the append thread, and `recovery` for a swap that a stop interrupted. Calls: the disk.
//! Invariant: at every moment the folder's files, with the note of the swap if it stands, say one and
//! the same log. Before the note is durable that is the old one, from then on the new one.
//!
//! ```text
//! 00.log 70.log  00.log.cleaned        old
//! + swap {00 <- 00, 70}                new: what follows is repeated until it is done
//! 00.log (new)   70.log.deleted
//! - swap                               done; the folder is synced before anything else may happen
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, EntryKind, OpenMode, small_file};
use serde::{Deserialize, Serialize};

use super::pass::{Cleaned, CleanedGroup};
use super::plan::{Cleaning, CleaningPlan};
use super::progress::Progress;
use crate::error::{LogError, at};
use crate::log::Log;
use crate::segment::{DISCARDED, FileKind, SealedSegment, file_path, open_log, remove_file};
use crate::view::ViewState;

const SCHEMA: Schema = Schema { kind: 0x4c06, version: 1 };
const NOTE: &str = "swap";
/// Ends the name of a file that was written by a cleaning and is not in place yet.
const CLEANED: &str = ".cleaned";
/// What a cleaning writes of a segment. The snapshot of its start stays.
const WRITTEN: [FileKind; 4] = [FileKind::Index, FileKind::TimeIndex, FileKind::Sum, FileKind::Log];

/// What is swapped.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Base offset of each new segment, and of those that it takes the place of, itself among them.
    groups: Vec<(i64, Vec<i64>)>,
}

/// What [`Log::swap_cleaned`] leaves to be done.
pub struct Swapped {
    /// The paths under which what was replaced can be unlinked whenever there is time; readers may have
    /// it open.
    pub discarded: Vec<PathBuf>,
    /// The cleaning's next step; none when it is over.
    pub rest: Option<CleaningPlan>,
}

/// Where a cleaning writes a file of the segment with the base offset.
pub(super) fn cleaned_path(directory: &Path, base_offset: i64, kind: FileKind) -> PathBuf {
    with_suffix(file_path(directory, base_offset, kind), CLEANED)
}

fn with_suffix(path: PathBuf, suffix: &str) -> PathBuf {
    let mut name = path.into_os_string();
    name.push(suffix);
    name.into()
}

impl Log {
    /// Puts what a step of a cleaning wrote in place, unless the log was cut meanwhile, or retention took part
    /// of what was cleaned: then the cleaning is over. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Disk`]; the log takes nothing any more.
    pub fn swap_cleaned(&mut self, cleaned: Cleaned) -> Result<Swapped, LogError> {
        self.cleaning = Cleaning::Idle;
        self.refuse_unusable()?;
        let outcome = self.swap_files(cleaned);
        self.note(outcome)
    }

    fn swap_files(&mut self, cleaned: Cleaned) -> Result<Swapped, LogError> {
        let directory = self.context.directory.clone();
        let disk = Arc::clone(&self.context.disk);
        let is_cut = self.view.generation() != cleaned.generation;
        // All or none: what lets a tombstone go is that all it deletes went with it.
        let (groups, gone) = {
            let state = self.view.read();
            match !is_cut && cleaned.groups.iter().all(|group| group.stands_in(&state)) {
                true => (cleaned.groups, Vec::new()),
                false => (Vec::new(), cleaned.groups),
            }
        };
        for group in &gone {
            for kind in WRITTEN {
                remove_file(&*disk, &cleaned_path(&directory, group.base_offset(), kind))?;
            }
        }
        let mut discarded = Vec::new();
        if !groups.is_empty() {
            // From here on there may be gaps between batches, which the next start has to know first.
            if self.progress.is_none() {
                self.set_progress(0)?;
            }
            // The new files' names are durable since the cleaner handed them over: a note that outlived them
            // would throw the old ones away.
            let note = Note { groups: groups.iter().map(CleanedGroup::names).collect() };
            let bytes = envelope::encode(SCHEMA, &note).expect("sized numbers");
            let path = directory.join(NOTE);
            small_file::replace(&*disk, &path, &bytes).map_err(at(&path))?;
            discarded = carry_out(&*disk, &directory, &note)?;
            for group in groups {
                self.publish_cleaned(&group)?;
            }
        }
        let mut rest = None;
        if gone.is_empty() && !is_cut {
            if let Some(first_dirty) = cleaned.first_dirty {
                self.set_progress(first_dirty)?;
            }
            rest = cleaned.rest;
        }
        if rest.is_some() {
            self.cleaning = Cleaning::UnderWay(cleaned.generation);
        }
        Ok(Swapped { discarded, rest })
    }

    fn publish_cleaned(&self, group: &CleanedGroup) -> Result<(), LogError> {
        let (base_offset, end_offset) = (group.base_offset(), group.end_offset());
        let count = group.replaced.len();
        let context = &self.context;
        let file = open_log(&*context.disk, &context.directory, base_offset, OpenMode::Read)?;
        let sealed = SealedSegment {
            base_offset,
            end_offset,
            size_bytes: group.size_bytes,
            max_timestamp: group.max_timestamp,
            file,
            indexes: OnceLock::new(),
        };
        let mut state = self.view.write();
        let first = state.sealed.partition_point(|segment| segment.base_offset < base_offset);
        state.sealed.splice(first..first.saturating_add(count), [Arc::new(sealed)]);
        Ok(())
    }

    /// Notes how far the log is clean; durable when it returns.
    pub(crate) fn set_progress(&mut self, first_dirty: i64) -> Result<(), LogError> {
        let progress = Progress { first_dirty };
        if self.progress != Some(progress) {
            progress.write(&*self.context.disk, &self.context.directory)?;
            self.progress = Some(progress);
        }
        Ok(())
    }

    /// The log is about to be cut at `end`: what will be written from there on is dirty.
    pub(crate) fn lower_progress(&mut self, end: i64) -> Result<(), LogError> {
        match self.progress {
            Some(Progress { first_dirty }) if first_dirty > end => self.set_progress(end.max(0)),
            Some(_) | None => Ok(()),
        }
    }
}

impl CleanedGroup {
    fn names(&self) -> (i64, Vec<i64>) {
        let replaced = self.replaced.iter().map(|segment| segment.base_offset).collect();
        (self.base_offset(), replaced)
    }

    /// Whether the log still has what it was made from, one after the other.
    fn stands_in(&self, state: &ViewState) -> bool {
        let base_offset = self.base_offset();
        let first = state.sealed.partition_point(|segment| segment.base_offset < base_offset);
        let standing = state.sealed.get(first..).unwrap_or_default();
        standing.len() >= self.replaced.len()
            && self.replaced.iter().zip(standing).all(|(was, is)| Arc::ptr_eq(&was.file, &is.file))
    }
}

/// Does what the note says, as far as it is not done, and removes it. Returns what can be unlinked.
fn carry_out(disk: &dyn Disk, directory: &Path, note: &Note) -> Result<Vec<PathBuf>, LogError> {
    let mut discarded = Vec::new();
    for (base_offset, replaced) in &note.groups {
        for kind in WRITTEN {
            let from = cleaned_path(directory, *base_offset, kind);
            // One that is not there is in place already.
            if disk.exists(&from).map_err(at(&from))? {
                let to = file_path(directory, *base_offset, kind);
                discarded.extend(set_aside(disk, &to)?);
                disk.rename(&from, &to).map_err(at(&from))?;
            }
        }
        for gone in replaced.iter().filter(|gone| *gone != base_offset) {
            for kind in FileKind::ALL {
                discarded.extend(set_aside(disk, &file_path(directory, *gone, kind))?);
            }
        }
    }
    disk.sync_dir(directory).map_err(at(directory))?;
    remove_file(disk, &directory.join(NOTE))?;
    disk.sync_dir(directory).map_err(at(directory))?;
    Ok(discarded)
}

/// Renames a file, if it is there, so that nothing names it any more.
fn set_aside(disk: &dyn Disk, path: &Path) -> Result<Option<PathBuf>, LogError> {
    let to = with_suffix(path.to_owned(), DISCARDED);
    match disk.rename(path, &to) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(|()| Some(to)).map_err(at(path)),
    }
}

/// At the start: completes a swap that was noted, and removes what a cleaning left that was not.
///
/// # Errors
/// [`LogError::Disk`].
pub(crate) fn finish_swap(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    if !disk.exists(directory).map_err(at(directory))? {
        return Ok(());
    }
    let path = directory.join(NOTE);
    let bytes = small_file::read(disk, &path).map_err(at(&path))?;
    if let Some(bytes) = bytes {
        // It is replaced whole, so one that cannot be read was damaged since: what it said is not
        // known, and neither is which of the files belong together.
        let note = envelope::decode::<Note>(SCHEMA, &bytes).map_err(|error| {
            at(&path)(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()))
        })?;
        // A life that ended behind the note's rename may have left it not durable; what is done by it must not outlive it.
        disk.sync_dir(directory).map_err(at(directory))?;
        // Removed with all else that was discarded.
        carry_out(disk, directory, &note)?;
    }
    for entry in disk.list(directory).map_err(at(directory))? {
        if entry.kind == EntryKind::File && entry.name.ends_with(CLEANED) {
            remove_file(disk, &directory.join(&entry.name))?;
        }
    }
    Ok(())
}
