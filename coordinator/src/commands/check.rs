//! `coordinator check`.
//!
//! Called by: `commands`. Calls: `storage::inspect`.
//! Invariant: ends well only when everything in the folder could be read.
//! Does not know: files' formats.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use coordinator::config::Config;
use coordinator::storage::{Inspection, inspect};
use coordinator_disk::RealDisk;

use super::{OutputFormat, owner, print};

/// Reads this member's data folder whole, as a start would, and tells what is in it. Nothing is changed.
///
/// Damage is told with file and byte, and the command fails (with `-o json` too: `sound` is false then, and `damage` has the words). What a crash may leave, and a start would tidy up, is no
/// damage and is listed.
#[derive(Args)]
pub struct CheckFlags {
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub fn run(flags: &CheckFlags, config: &Config) -> anyhow::Result<()> {
    let found = match inspect(Arc::new(RealDisk), &config.data_dir, owner(config)) {
        Ok(found) => found,
        Err(error) => {
            if matches!(flags.output, OutputFormat::Json) {
                // Whoever cannot look does not know.
                let sound = error.is_damage().then_some(false);
                let told = serde_json::json!({ "sound": sound, "damage": error.to_string() });
                print(&told.to_string())?;
            }
            return Err(error.into());
        }
    };
    let text = match flags.output {
        OutputFormat::Text => text(&found),
        OutputFormat::Json => json(&found),
    };
    Ok(print(&text)?)
}

fn text(found: &Inspection) -> String {
    let Inspection { snapshot_index, entries, last_index, commit, term, .. } = found;
    let Inspection { zxid, znodes, bytes, sessions, ephemerals, .. } = found;
    let mut lines = vec![
        match found.begins {
            true => "empty: no log is here, nor ever was; a start begins with nothing".to_owned(),
            false => "sound: every file could be read, and every entry applied".to_owned(),
        },
        format!("snapshot       up to log index {snapshot_index}"),
        format!("log            {entries} entries, the last one {last_index}, term {term}"),
        format!("agreed on      up to {commit} at least"),
        format!("last zxid      {zxid:#x}"),
        format!("znodes         {znodes} with {bytes} bytes of paths and data"),
        format!("sessions       {sessions} with {ephemerals} ephemerals"),
    ];
    lines.extend(found.changes.iter().map(|change| format!("a start would  {change}")));
    let left = |path: &PathBuf| format!("not ours       {}: left alone", path.display());
    lines.extend(found.foreign.iter().map(left));
    lines.join("\n")
}

fn json(found: &Inspection) -> String {
    serde_json::json!({
        "sound": true,
        "snapshot_index": found.snapshot_index,
        "entries": found.entries,
        "last_index": found.last_index,
        "commit": found.commit,
        "term": found.term,
        "last_zxid": format!("{:#x}", found.zxid),
        "znodes": found.znodes,
        "bytes": found.bytes,
        "sessions": found.sessions,
        "ephemerals": found.ephemerals,
        "begins_with_nothing": found.begins,
        "a_start_would": found.changes,
        "not_ours": found.foreign,
    })
    .to_string()
}
