//! Small files of ours in the envelope: leader epochs, offsets per log, the clean-shutdown marker.
//!
//! Called by: `log`, `recovery`, and the owner of a log directory. Calls: the envelope, the disk.
//! Invariant: each file has its old or its new contents, never a mixture. Does not know when to
//! write.

use std::collections::BTreeMap;
use std::path::Path;

use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, small_file};

use crate::epochs::LeaderEpochs;
use crate::error::{LogError, at};

const EPOCHS: Schema = Schema { kind: 0x4c02, version: 1 };
const OFFSETS: Schema = Schema { kind: 0x4c03, version: 1 };
const CLEAN: Schema = Schema { kind: 0x4c04, version: 1 };

/// File of a log's leader epochs, in its folder.
pub const EPOCHS_FILE: &str = "leader-epochs";
/// File that says that a log directory was closed in order.
pub const CLEAN_SHUTDOWN_FILE: &str = "clean-shutdown";
/// File of all log start offsets of a log directory.
pub const LOG_START_FILE: &str = "log-start-offsets";
/// File of all high watermarks of a log directory.
pub const HIGH_WATERMARK_FILE: &str = "high-watermarks";

/// Offsets of the logs of one directory, by a name of the owner's that no later log has.
pub type Offsets = BTreeMap<String, i64>;

pub(crate) fn encode_epochs(epochs: &LeaderEpochs) -> Vec<u8> {
    envelope::encode(EPOCHS, epochs).expect("epochs are sized and bounded")
}

pub(crate) fn write_epochs(
    disk: &dyn Disk,
    directory: &Path,
    bytes: &[u8],
) -> Result<(), LogError> {
    let path = directory.join(EPOCHS_FILE);
    small_file::replace(disk, &path, bytes).map_err(at(&path))
}

/// The stored epochs; `None` when there are none or they are damaged: the batches hold them too.
pub(crate) fn read_epochs(disk: &dyn Disk, directory: &Path) -> Option<LeaderEpochs> {
    let bytes = small_file::read(disk, &directory.join(EPOCHS_FILE)).ok()??;
    envelope::decode(EPOCHS, &bytes).ok()
}

/// Replaces a checkpoint of offsets; durable when it returns.
///
/// # Errors
/// [`LogError::Disk`].
pub fn write_offsets(disk: &dyn Disk, path: &Path, offsets: &Offsets) -> Result<(), LogError> {
    let bytes = envelope::encode(OFFSETS, offsets).expect("names and offsets are sized");
    small_file::replace(disk, path, &bytes).map_err(at(path))
}

/// Reads a checkpoint of offsets; `Ok(None)` when it is absent or damaged.
///
/// # Errors
/// [`LogError::Disk`].
pub fn read_offsets(disk: &dyn Disk, path: &Path) -> Result<Option<Offsets>, LogError> {
    let bytes = small_file::read(disk, path).map_err(at(path))?;
    Ok(bytes.and_then(|bytes| envelope::decode(OFFSETS, &bytes).ok()))
}

/// Notes that every log of the directory is closed and synced; durable when it returns.
///
/// # Errors
/// [`LogError::Disk`].
pub fn write_clean_shutdown(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    let path = directory.join(CLEAN_SHUTDOWN_FILE);
    let bytes = envelope::encode(CLEAN, &true).expect("a flag is sized");
    small_file::replace(disk, &path, &bytes).map_err(at(&path))
}

/// Whether the directory was closed in order. The marker is removed, durably, before this
/// returns, so that it can never speak for a later stop.
///
/// # Errors
/// [`LogError::Disk`].
pub fn take_clean_shutdown(disk: &dyn Disk, directory: &Path) -> Result<bool, LogError> {
    let path = directory.join(CLEAN_SHUTDOWN_FILE);
    let Some(bytes) = small_file::read(disk, &path).map_err(at(&path))? else { return Ok(false) };
    disk.remove(&path).map_err(at(&path))?;
    disk.sync_dir(directory).map_err(at(directory))?;
    Ok(envelope::decode(CLEAN, &bytes) == Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use coordinator_disk::RealDisk;

    #[test]
    fn clean_shutdown_is_believed_once() {
        let folder = Folder::new();
        assert!(!take_clean_shutdown(&RealDisk, folder.path()).unwrap());
        write_clean_shutdown(&RealDisk, folder.path()).unwrap();
        assert!(take_clean_shutdown(&RealDisk, folder.path()).unwrap());
        assert!(!take_clean_shutdown(&RealDisk, folder.path()).unwrap());
    }

    #[test]
    fn damaged_offsets_are_as_good_as_none() {
        let folder = Folder::new();
        let path = folder.path().join(LOG_START_FILE);
        assert_eq!(read_offsets(&RealDisk, &path).unwrap(), None);
        let offsets = Offsets::from([("a-0".to_owned(), 7)]);
        write_offsets(&RealDisk, &path, &offsets).unwrap();
        assert_eq!(read_offsets(&RealDisk, &path).unwrap(), Some(offsets));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_offsets(&RealDisk, &path).unwrap(), None);
    }
}
