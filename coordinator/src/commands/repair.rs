//! `coordinator repair`.
//!
//! Called by: `commands`. Calls: `storage::plan` and `storage::act`, `plan_text`.
//! Invariant: without a flag for just what the plan says nothing is changed.
//! Does not know: files' formats.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use coordinator::config::Config;
use coordinator::storage::{Way, act, plan};
use coordinator_disk::RealDisk;

use super::plan_text::Said;
use super::{OutputFormat, owner, print};

/// There is something to do, and no flag said to do it.
const WAITS_FOR_A_FLAG: u8 = 3;

/// Says what can be done about damage in this stopped member's data folder, and does it when told to.
///
/// Without a flag nothing is changed. Files are never removed, but set aside in `damaged-N` in dataDir. `check` tells what
/// is damaged.
///
/// Ends with 0 where there is nothing to do or it was done, with 3 where there is and no flag said so, and with 1 where nothing can be
/// done here or something failed.
#[derive(Args)]
pub struct RepairFlags {
    /// Do it, if nothing is lost by it.
    #[arg(long)]
    yes: bool,
    /// On a server that stands alone: go on with what comes before the damage. All later writes are lost.
    #[arg(long)]
    accept_loss: bool,
    /// On a member of an ensemble: begin with nothing but the term and the vote, and get the rest from the others, under a
    /// leader that was elected while this one was stopped (`tidegate coordinator transfer`). All of them have to run until this
    /// one has caught up.
    #[arg(long)]
    refill: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub fn run(flags: &RepairFlags, config: &Config) -> anyhow::Result<ExitCode> {
    let (disk, folder) = (Arc::new(RealDisk), config.data_dir.as_path());
    let is_member = config.members.len() > 1;
    let plan = plan(disk.clone(), folder, owner(config), is_member)?;
    let (is_told, flag) = match &plan.way {
        Way::Nothing | Way::Rejoin | Way::Hopeless => (false, ""),
        Way::Finish | Way::DropSegments { .. } => (flags.yes, "--yes"),
        Way::Cut { .. } => (flags.accept_loss, "--accept-loss"),
        Way::Refill { .. } => (flags.refill, "--refill"),
    };
    let aside = match is_told {
        true => act(disk, folder, owner(config), &plan.way)?,
        false => None,
    };
    let said = Said { plan: &plan, is_member, flag, aside: aside.as_deref() };
    let text = match flags.output {
        OutputFormat::Text => said.text(),
        OutputFormat::Json => said.json(),
    };
    print(&text)?;
    if matches!(plan.way, Way::Rejoin | Way::Hopeless) {
        bail!("nothing here can be repaired");
    }
    let any_flag = flags.yes || flags.accept_loss || flags.refill;
    let waits = !is_told && plan.way != Way::Nothing;
    if any_flag && waits {
        bail!("nothing was changed: what is to be done needs {flag}");
    }
    Ok(if waits { ExitCode::from(WAITS_FOR_A_FLAG) } else { ExitCode::SUCCESS })
}
