//! What else the program does, beside serving.
//!
//! ```text
//! snapshot asks a running server for one
//! check    reads everything, changes nothing
//! repair   does something about damage
//! restore  a folder made from a snapshot
//! import   a folder made from ZooKeeper's files
//! ```
//!
//! Called by: the binary. Calls: the library.
//! Invariant: each that touches a folder refuses one in which a server runs.
//! Does not know: files' formats.

mod check;
mod import;
mod plan_text;
mod repair;
mod restore;
mod snapshot;

use std::io::Write;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use coordinator::config::Config;
use coordinator::storage::Owner;

/// What can be done.
#[derive(Subcommand)]
pub enum Command {
    Snapshot(snapshot::SnapshotFlags),
    Check(check::CheckFlags),
    Repair(repair::RepairFlags),
    Restore(restore::RestoreFlags),
    ImportZookeeper(import::ImportFlags),
}

impl Command {
    /// Does it, with this member's settings.
    pub fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let (done, output) = match self {
            // These have more to say where something is wrong.
            Command::Repair(flags) => return repair::run(flags, config),
            Command::Check(flags) => return check::run(flags, config).map(|()| ExitCode::SUCCESS),
            Command::Snapshot(flags) => (snapshot::run(flags, config), flags.output),
            Command::Restore(flags) => (restore::run(flags, config), flags.output),
            Command::ImportZookeeper(flags) => (import::run(flags, config), flags.output),
        };
        if let (Err(error), OutputFormat::Json) = (&done, output) {
            print(&serde_json::json!({ "error": format!("{error:#}") }).to_string())?;
        }
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// How a result is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people.
    // As `tidegate` calls it, which hands its commands over.
    #[value(alias = "table")]
    Text,
    /// One JSON object.
    Json,
}

/// Whose the files of the folder are.
fn owner(config: &Config) -> Owner {
    Owner { cluster_id: config.cluster_id.clone(), server_id: config.core.id.get() }
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())?;
    out.flush()
}
