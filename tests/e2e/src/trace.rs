//! What a client says of itself, line by line, in a file of its own.
//!
//! Called by: the loads that run under real faults. Calls: nothing. It is kept beside the processes' logs when a run fails, and tells which
//! answer a producer took amiss. Does not know what the lines mean.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// See the module.
#[derive(Debug)]
pub struct Trace(Mutex<File>);

impl Trace {
    /// Begins the file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Trace> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Trace(Mutex::new(file)))
    }

    /// Writes one line under the time of day, UTC.
    pub fn line(&self, facility: &str, message: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, ms) = (since.as_secs() % 86_400, since.subsec_millis());
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let line = format!("{hour:02}:{minute:02}:{second:02}.{ms:03} {facility} {message}\n");
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A trace that cannot be written must not end the run.
        let _ = file.write_all(line.as_bytes());
    }
}
