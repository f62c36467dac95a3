//! How much room the disk of a data folder has.
//!
//! Called by: the shell's task that measures. Calls: [`Disk`].
//! Invariant: of folders on several filesystems the one with the least room counts.
//! Does not know: how much is enough.

use std::io;

use super::Place;

/// Measures.
#[derive(Clone)]
pub struct RoomGauge(pub(super) Place);

impl RoomGauge {
    /// Bytes that may still be written to log and snapshots; `None` where nobody can know.
    ///
    /// # Errors
    /// The system's; a later call may succeed.
    pub fn free_bytes(&self) -> io::Result<Option<u64>> {
        let mut least = None;
        for folder in [&self.0.log, &self.0.snapshots] {
            if let Some(free) = self.0.disk.free_bytes(folder)? {
                least = Some(least.map_or(free, |least: u64| least.min(free)));
            }
        }
        Ok(least)
    }
}
