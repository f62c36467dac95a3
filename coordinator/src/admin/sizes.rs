//! Bytes in the data folder, and the newest snapshot's time.
//!
//! Called by: `desk`, on a thread that may block. Calls: the file system.
//! Invariant: reads names and lengths only; a file that goes meanwhile counts for nothing.
//! Does not know: what is in files.

use std::path::Path;
use std::time::UNIX_EPOCH;

/// Files looked at in one folder: there are never that many.
const FILES_MAX: usize = 100_000;

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// In the folder of snapshots.
    pub snapshots: u64,
    /// In the folder of the log.
    pub log: u64,
    /// Seconds since 1970 at which the newest snapshot was written.
    pub snapshot_at: Option<u64>,
}

/// Measures both folders.
pub fn measure(snapshots: &Path, log: &Path) -> Sizes {
    let (kept, logged) = (folder(snapshots), folder(log));
    Sizes { snapshots: kept.bytes, log: logged.bytes, snapshot_at: kept.newest_snapshot_at }
}

#[derive(Default)]
struct Folder {
    bytes: u64,
    newest_snapshot_at: Option<u64>,
}

fn folder(path: &Path) -> Folder {
    let mut found = Folder::default();
    let Ok(entries) = std::fs::read_dir(path) else { return found };
    for entry in entries.take(FILES_MAX).flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if !about.is_file() {
            continue;
        }
        found.bytes = found.bytes.saturating_add(about.len());
        let is_snapshot = entry.path().extension().is_some_and(|end| end == "snapshot");
        let modified = about.modified().ok().filter(|_| is_snapshot);
        let at = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        found.newest_snapshot_at = found.newest_snapshot_at.max(at.map(|at| at.as_secs()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_count_their_files_and_tell_the_newest_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let (snapshots, log) = (folder.path().join("snapshots"), folder.path().join("log"));
        assert_eq!(measure(&snapshots, &log), Sizes::default(), "none is there");
        std::fs::create_dir_all(snapshots.join("inner")).unwrap();
        std::fs::create_dir(&log).unwrap();
        std::fs::write(log.join("a"), [0; 7]).unwrap();
        std::fs::write(log.join("b"), [0; 5]).unwrap();
        std::fs::write(snapshots.join("inner/c"), [0; 9]).unwrap();
        std::fs::write(snapshots.join("1.unfinished"), [0; 2]).unwrap();
        let found = measure(&snapshots, &log);
        assert_eq!((found.snapshots, found.log, found.snapshot_at), (2, 12, None));
        std::fs::write(snapshots.join("1.snapshot"), [0; 3]).unwrap();
        let found = measure(&snapshots, &log);
        assert_eq!(found.snapshots, 5);
        assert!(found.snapshot_at.is_some_and(|at| at > 1_600_000_000));
    }
}
