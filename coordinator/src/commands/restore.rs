//! `coordinator restore`.
//!
//! Called by: `commands`. Calls: `storage::found_from`.
//! Invariant: only an empty folder is written.
//! Does not know: files' formats.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use coordinator::config::Config;
use coordinator::storage::found_from;
use coordinator_disk::RealDisk;

use super::{owner, print};

/// Makes this member's data folder from a snapshot that some member of the same cluster wrote.
///
/// A backup is a copy of the newest file in the `snapshots` folder of any member; it can be taken while the server runs.
/// When the ensemble is lost, run this for each member with that member's own settings, an empty dataDir and the SAME
/// file, then start them. What was written after the snapshot is gone. Never restore a single member beside others
/// that still have their data: see `repair`.
#[derive(Args)]
pub struct RestoreFlags {
    /// The snapshot.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

pub fn run(flags: &RestoreFlags, config: &Config) -> anyhow::Result<()> {
    let index = found_from(Arc::new(RealDisk), &flags.from, &config.data_dir, owner(config))?;
    let folder = config.data_dir.display();
    let mut text = format!("{folder} begins with the state as of log index {index}");
    if config.members.len() > 1 {
        text += "\nnext: the same, from the same file, for the other members";
    }
    Ok(print(&text)?)
}
