//! A log in files of a bounded size: `NAME`, then `NAME.1`, which is newer than `NAME.2`, and so on.
//!
//! Called by: the audit log's thread. Calls: [`Disk`].
//! Invariant: a file begins and ends with a whole line, unless the disk failed in between; as many files as were said.
//! Does not know: what lines say.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use coordinator_disk::{Disk, File, OpenMode};

/// Files, the newest open for writing.
pub struct Files {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes_max: u64,
    files_max: usize,
    open: Option<Arc<dyn File>>,
}

impl Files {
    /// Begins a further file before one has more than `bytes_max`, unless a single write has; keeps `files_max` of them.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf, bytes_max: u64, files_max: usize) -> Files {
        Files { disk, path, bytes_max, files_max, open: None }
    }

    /// Appends whole lines. After an error the next call opens the file anew.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let outcome = self.try_append(lines);
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    fn try_append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut file = self.opened()?;
        let length = file.len()?;
        if length > 0 && length.saturating_add(lines.len() as u64) > self.bytes_max {
            self.open = None;
            self.shift()?;
            file = self.opened()?;
        }
        file.append(&[IoSlice::new(lines)]).map(drop)
    }

    fn opened(&mut self) -> io::Result<Arc<dyn File>> {
        if let Some(file) = &self.open {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.path, OpenMode::Create)?;
        self.open = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Makes room for a further file: each one moves on by one, the oldest goes.
    fn shift(&self) -> io::Result<()> {
        if self.files_max <= 1 {
            return self.disk.remove(&self.path);
        }
        for number in (0..self.files_max - 1).rev() {
            let from = self.numbered(number);
            if self.disk.exists(&from)? {
                self.disk.rename(&from, &self.numbered(number + 1))?;
            }
        }
        Ok(())
    }

    fn numbered(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests {
    use coordinator_disk::RealDisk;

    use super::*;

    fn found(folder: &std::path::Path) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn file_that_is_full_moves_on_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let open = || Files::new(Arc::new(RealDisk), path.clone(), 4, 3);
        let mut files = open();
        for line in ["a\n", "b\n", "c\n", "toolong\n", "d\n"] {
            files.append(line.as_bytes()).unwrap();
        }
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let expected = [pair("log", "d\n"), pair("log.1", "toolong\n"), pair("log.2", "c\n")];
        assert_eq!(found(folder.path()), expected);
        let mut files = open();
        files.append(b"e\n").unwrap();
        assert_eq!(found(folder.path())[0], pair("log", "d\ne\n"), "a restart goes on");
    }

    #[test]
    fn folder_that_comes_back_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        let mut files = Files::new(Arc::new(RealDisk), inner.join("log"), 100, 1);
        assert!(files.append(b"a\n").is_err());
        std::fs::create_dir(&inner).unwrap();
        files.append(b"b\n").unwrap();
        assert_eq!(found(&inner), [("log".to_owned(), "b\n".to_owned())]);
    }
}
