//! Which of ZooKeeper's files there are.
//!
//! Called by: `import`. Calls: the disk.
//! Invariant: snapshots and logs come in the order of the zxids in their names.
//! Does not know: what is in them.

use std::path::{Path, PathBuf};

use coordinator_disk::{Disk, EntryKind};

use super::{ImportError, Request};

/// Where ZooKeeper puts its files below a folder of its settings.
const VERSION_FOLDER: &str = "version-2";

/// How a snapshot is packed; by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// `.gz`.
    Gzip,
    /// `.snappy`.
    Snappy,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The file.
    pub path: PathBuf,
    /// Of a snapshot the last zxid before it was begun, of a log the first one in it.
    pub zxid: i64,
    /// Logs never are.
    pub packing: Packing,
}

/// All files, each kind ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Snapshots.
    pub snapshots: Vec<SourceFile>,
    logs: Vec<SourceFile>,
}

impl Source {
    /// Looks into the folders, and into `version-2` below them.
    pub fn find(disk: &dyn Disk, request: &Request) -> Result<Source, ImportError> {
        let data_dir = &request.data_dir;
        let mut source = Source { snapshots: Vec::new(), logs: Vec::new() };
        source.look_into(disk, data_dir)?;
        if let Some(log_dir) = &request.log_dir
            && log_dir != data_dir
        {
            source.look_into(disk, log_dir)?;
        }
        if source.snapshots.is_empty() && source.logs.is_empty() {
            return Err(ImportError::Nothing { path: data_dir.clone() });
        }
        source.snapshots.sort_by_key(|file| file.zxid);
        source.logs.sort_by_key(|file| file.zxid);
        Ok(source)
    }

    /// The log that holds what follows `zxid`, and all later ones.
    pub fn logs_after(&self, zxid: i64) -> &[SourceFile] {
        let later = self.logs.partition_point(|file| file.zxid <= zxid + 1);
        &self.logs[later.saturating_sub(1)..]
    }

    /// Whether there is none at all, not even one that is older than the snapshots.
    pub fn has_no_log(&self) -> bool {
        self.logs.is_empty()
    }

    fn look_into(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), ImportError> {
        let below = folder.join(VERSION_FOLDER);
        let exists = disk.exists(&below).map_err(|error| ImportError::io(&below, error))?;
        let folder = if exists { &below } else { folder };
        let entries = disk.list(folder).map_err(|error| ImportError::io(folder, error))?;
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let path = folder.join(&entry.name);
            if let Some((zxid, packing)) = snapshot_name(&entry.name) {
                self.snapshots.push(SourceFile { path, zxid, packing });
            } else if let Some(zxid) = entry.name.strip_prefix("log.").and_then(hexadecimal) {
                self.logs.push(SourceFile { path, zxid, packing: Packing::Plain });
            }
        }
        Ok(())
    }
}

fn snapshot_name(name: &str) -> Option<(i64, Packing)> {
    let rest = name.strip_prefix("snapshot.")?;
    let (number, packing) = match rest.split_once('.') {
        None => (rest, Packing::Plain),
        Some((number, "gz")) => (number, Packing::Gzip),
        Some((number, "snappy")) => (number, Packing::Snappy),
        Some(_) => return None,
    };
    Some((hexadecimal(number)?, packing))
}

fn hexadecimal(text: &str) -> Option<i64> {
    // None that anything could follow is the largest.
    i64::from_str_radix(text, 16).ok().filter(|zxid| (0..i64::MAX).contains(zxid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots_tell_zxid_and_packing() {
        assert_eq!(snapshot_name("snapshot.1f"), Some((0x1f, Packing::Plain)));
        assert_eq!(snapshot_name("snapshot.100000000.gz"), Some((1 << 32, Packing::Gzip)));
        assert_eq!(snapshot_name("snapshot.0.snappy"), Some((0, Packing::Snappy)));
        for other in [
            "snapshot.7fffffffffffffff",
            "snapshot.x",
            "snapshot.-1",
            "snapshot.1.tmp",
            "log.1",
            "snapshot.",
        ] {
            assert_eq!(snapshot_name(other), None, "{other}");
        }
    }

    #[test]
    fn logs_begin_with_the_one_that_holds_the_next_zxid() {
        let log = |zxid| SourceFile { path: PathBuf::new(), zxid, packing: Packing::Plain };
        let source = Source { snapshots: Vec::new(), logs: vec![log(1), log(10), log(20)] };
        let first = |zxid| source.logs_after(zxid).first().map(|file| file.zxid);
        assert_eq!(first(0), Some(1));
        assert_eq!(first(8), Some(1));
        assert_eq!(first(9), Some(10));
        assert_eq!(first(25), Some(20));
    }
}
