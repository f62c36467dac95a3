//! The settings that are about the audit log.
//!
//! Called by: parsing. Calls: nothing.
//! Invariant: without `audit.enable` there is none, whatever else is set.
//! Does not know: files.

use std::path::PathBuf;

use super::SettingError;
use super::parse::Values;
use crate::audit::AuditSettings;

const ENABLE: &str = "audit.enable";
const FILE: &str = "audit.file";
const BYTES_MAX: &str = "audit.fileBytesMax";
const FILES_MAX: &str = "audit.filesMax";
/// Name in dataDir, where no other is set.
const FILE_NAME: &str = "audit.log";
/// More are renamed one by one at each change of files.
const FILES_LIMIT: usize = 1_000;

/// Where the audit log goes, if there is one.
pub fn config(values: &Values) -> Result<Option<AuditSettings>, SettingError> {
    let is_on: bool = values.value(ENABLE, "true or false")?;
    let path: Option<PathBuf> = values.optional(FILE, "a file")?;
    let bytes_max = values.value(BYTES_MAX, "a number of bytes")?;
    let files_max: usize = values.value(FILES_MAX, "a number from 1 to 1000")?;
    if !(1..=FILES_LIMIT).contains(&files_max) {
        return Err(SettingError(format!("{FILES_MAX}: {files_max} is not 1 to {FILES_LIMIT}")));
    }
    let data_dir: PathBuf = values.value("dataDir", "a folder")?;
    let path = path.unwrap_or_else(|| data_dir.join(FILE_NAME));
    Ok(is_on.then_some(AuditSettings { path, bytes_max, files_max }))
}
