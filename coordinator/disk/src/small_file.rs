//! Small files that are only ever replaced whole.
//!
//! Called by: owners of hard state, identities, checkpoints. Calls: [`Disk`].
//! Invariant: after a crash the file has either its old or its new contents, never a mixture, and once
//! [`replace`] returned it has the new ones.
//! Does not know: what is inside; owners put it into an [`crate::envelope`].

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, OpenMode};

/// Largest file that [`read`] takes into memory.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;

/// Suffix of a replacement under way; after a crash such a file is rubbish.
pub const REPLACEMENT_SUFFIX: &str = ".tmp";

/// Replaces the contents of `path`, or creates it: durable when it returns.
///
/// # Errors
/// The old contents are then still there, unless it was the last step, the sync of the folder, that failed: as after
/// any failed sync, stop using the folder.
pub fn replace(disk: &dyn Disk, path: &Path, contents: &[u8]) -> io::Result<()> {
    let replacement = replacement_path(path);
    let file = disk.open(&replacement, OpenMode::Create)?;
    file.truncate(0)?;
    file.write_at(0, &[IoSlice::new(contents)])?;
    file.sync()?;
    disk.rename(&replacement, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// The whole contents of `path`, or `None` when there is no such file.
///
/// # Errors
/// Those of reading, and `FileTooLarge` over [`SMALL_FILE_BYTES_MAX`].
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?;
    if length > SMALL_FILE_BYTES_MAX {
        let message = format!("{}: {length} bytes are no small file", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let length = usize::try_from(length).expect("at most SMALL_FILE_BYTES_MAX");
    let mut contents = vec![0; length];
    file.read_exact_at(0, &mut contents)?;
    Ok(Some(contents))
}

/// Where the replacement of `path` is written before it takes the name.
pub fn replacement_path(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(REPLACEMENT_SUFFIX);
    PathBuf::from(name)
}
