//! Folders whose own names survive a crash.
//!
//! Called by: owners of a data folder, when they start. Calls: [`Disk`].
//! Invariant: when it returns, a crash takes neither the folder nor any folder above it.
//! Does not know: what will be inside.

use std::io;
use std::path::Path;

use crate::disk::Disk;

/// A disk's words about something at `path` or in it, which as a rule name it already.
#[must_use]
pub fn error_at(path: &Path, error: &io::Error) -> String {
    let (path, error) = (path.display().to_string(), error.to_string());
    if error.starts_with(&path) { error } else { format!("{path}: {error}") }
}

/// Creates the folder `path` and those above it, and makes their names durable. For one that exists its own name is
/// made durable: whoever created it may have been killed before.
///
/// # Errors
/// Those of creating and syncing; a failed sync is final.
pub fn create_durable_folder(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut unsynced = Vec::new();
    for folder in path.ancestors() {
        let Some(parent) = folder.parent() else { break };
        unsynced.push(parent);
        if disk.exists(folder)? {
            break;
        }
    }
    disk.create_dir(path)?;
    // From the top down: a name in a folder that is itself lost is of no use.
    unsynced.iter().rev().try_for_each(|parent| disk.sync_dir(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_told_once() {
        let told = |words: &str| error_at(Path::new("/data"), &io::Error::other(words.to_owned()));
        assert_eq!(told("/data: not there"), "/data: not there");
        assert_eq!(told("/data/.lock: not there"), "/data/.lock: not there");
        assert_eq!(told("not there"), "/data: not there");
    }
}
