//! What else is in the folders, beside the log and the snapshots.
//!
//! Called by: `restore`. Calls: [`Disk`](coordinator_disk::Disk).
//! Invariant: a file is removed only when its name is one that a stop of ours leaves behind. Nobody knows whose others
//! are: they stay, and are told of.
//! Does not know: what is in the files.

use std::path::PathBuf;

use coordinator_disk::EntryKind;
use coordinator_disk::small_file::{REPLACEMENT_SUFFIX, replacement_path};

use super::restore::BEGUN;
use super::{Place, StorageError, io_error, log, snapshot};

/// What opening a folder found beside what it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What a stop had left unfinished; it was removed.
    pub removed: Vec<PathBuf>,
    /// What no server wrote; it was left alone.
    pub foreign: Vec<PathBuf>,
    /// Whether there was no log, nor ever one: it begins with nothing.
    pub begins: bool,
}

/// Removes what a stop left unfinished, and looks at the rest.
pub fn tidy(place: &Place) -> Result<Findings, StorageError> {
    let mut findings = Findings::default();
    for (folder, number) in [
        (&place.snapshots, snapshot::number as fn(&str) -> Option<u64>),
        (&place.log, log::segment_number),
    ] {
        for entry in place.disk.list(folder).map_err(|error| io_error(folder, error))? {
            if number(&entry.name).is_some() {
                continue;
            }
            let path = folder.join(&entry.name);
            let is_unfinished = number(finished(&entry.name)).is_some();
            if entry.kind == EntryKind::File && is_unfinished {
                place.disk.remove(&path).map_err(|error| io_error(&path, error))?;
                findings.removed.push(path);
            } else {
                findings.foreign.push(path);
            }
        }
    }
    let unfinished = replacement_path(&place.folder.join(BEGUN));
    if place.disk.exists(&unfinished).map_err(|error| io_error(&unfinished, error))? {
        place.disk.remove(&unfinished).map_err(|error| io_error(&unfinished, error))?;
        findings.removed.push(unfinished);
    }
    Ok(findings)
}

/// The name that the file would have got: a record file is renamed into place when it has a header, a snapshot once
/// more when it is whole.
fn finished(name: &str) -> &str {
    let name = name.strip_suffix(REPLACEMENT_SUFFIX).unwrap_or(name);
    name.strip_suffix(snapshot::UNFINISHED_SUFFIX).unwrap_or(name)
}

#[cfg(test)]
mod tests;
