//! How far a log is clean, in a file of its folder.
//!
//! Called by: `plan`, `swap`, `append`, `truncate`, `recovery`. Calls: the envelope.
//! Invariant: what lies below the offset was cleaned as it stands. That the file is there at all says
//! that batches of the log may have gaps between them, by a cleaning or because the leader's have,
//! whatever the topic's settings say by now.

use std::path::Path;

use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, small_file};
use serde::{Deserialize, Serialize};

use crate::error::{LogError, at};

const SCHEMA: Schema = Schema { kind: 0x4c05, version: 1 };
const FILE: &str = "cleaned";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// First offset that was never cleaned (inclusive).
    pub first_dirty: i64,
}

impl Progress {
    /// Reads the file; `None` when the log was never cleaned. One that cannot be believed says that it
    /// was, but not how far.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, LogError> {
        let path = directory.join(FILE);
        let bytes = small_file::read(disk, &path).map_err(at(&path))?;
        Ok(bytes.map(|bytes| {
            envelope::decode::<Self>(SCHEMA, &bytes).unwrap_or(Self { first_dirty: 0 })
        }))
    }

    /// Replaces the file; durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Disk`].
    pub fn write(self, disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
        let path = directory.join(FILE);
        let bytes = envelope::encode(SCHEMA, &self).expect("one number");
        small_file::replace(disk, &path, &bytes).map_err(at(&path))
    }
}
