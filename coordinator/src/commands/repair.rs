//! `coordinator repair`.
//!
//! Called by: `commands`. Calls: `storage::plan` and `storage::act`.
//! Invariant: without a flag for just what the plan says nothing is changed.
//! Does not know: files' formats.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use coordinator::config::Config;
use coordinator::storage::{Plan, Way, act, plan};
use coordinator_disk::RealDisk;

use super::{OutputFormat, owner, print};

/// Says what can be done about damage in this stopped member's data folder, and does it when told to.
///
/// Without a flag nothing is changed. Files are never removed, but set aside in `damaged-N` in dataDir. `check` tells what
/// is damaged.
#[derive(Args)]
pub struct RepairFlags {
    /// Do it, if nothing is lost by it.
    #[arg(long)]
    yes: bool,
    /// On a server that stands alone: go on with what comes before the damage. All later writes are lost.
    #[arg(long)]
    accept_loss: bool,
    /// On a member of an ensemble: begin with nothing but the term and the vote, and get the rest from the others, under a
    /// leader that was elected while this one was stopped. All of them have to run until this one has caught up.
    #[arg(long)]
    refill: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub fn run(flags: &RepairFlags, config: &Config) -> anyhow::Result<()> {
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
    let text = match flags.output {
        OutputFormat::Text => text(&plan, flag, aside.as_deref()),
        OutputFormat::Json => json(&plan, flag, aside.as_deref()),
    };
    print(&text)?;
    if matches!(plan.way, Way::Rejoin | Way::Hopeless) {
        bail!("nothing here can be repaired");
    }
    let any_flag = flags.yes || flags.accept_loss || flags.refill;
    if any_flag && !is_told && plan.way != Way::Nothing {
        bail!("nothing was changed: what is to be done needs {flag}");
    }
    Ok(())
}

fn text(plan: &Plan, flag: &str, aside: Option<&Path>) -> String {
    let mut lines = Vec::new();
    lines.extend(plan.damage.iter().map(|damage| format!("damage         {damage}")));
    lines.extend(words(&plan.way));
    match (aside, &plan.way) {
        (_, Way::Nothing | Way::Rejoin | Way::Hopeless) => {}
        (Some(aside), way) => {
            lines.push(format!("done           what was there is in {}", aside.display()));
            lines.extend(next(way).map(|next| format!("next           {next}")));
        }
        (None, _) => lines.push(format!("dry run        nothing was changed; to do it: {flag}")),
    }
    lines.join("\n")
}

fn words(way: &Way) -> Vec<String> {
    match way {
        Way::Nothing => vec!["sound: there is nothing to repair".to_owned()],
        Way::Finish => vec!["plan           do the last steps of a repair".to_owned()],
        Way::DropSegments { numbers, snapshot_index } => vec![
            format!("plan           set aside log segments {numbers:?}"),
            format!(
                "lost           nothing: the snapshot as of log index {snapshot_index} and the rest of the log have \
                 all of it"
            ),
        ],
        Way::Cut { image, zxid, lost_to } => vec![
            format!("plan           go on with the state as of log index {}, zxid {zxid:#x}", image.index),
            format!(
                "lost           every later write: log entries from {} to {} at least, whatever clients were told",
                image.index + 1,
                (*lost_to).max(image.index + 1)
            ),
        ],
        Way::Refill { hard_state } => vec![
            format!(
                "plan           keep term {} and the vote for {} in it, and get all else from the other members",
                hard_state.term, hard_state.vote
            ),
            "lost           nothing that the others have. Until this member has caught up it cannot vouch for what it \
             had acknowledged: ALL other members have to run, with a leader, from its start until it is ready"
                .to_owned(),
        ],
        Way::Rejoin => vec![
            "plan           none here: this server has, or may have, members that its settings do not name; remove it from \
             the ensemble and add it again with an empty dataDir (`tidegate coordinator remove`, `add`)"
                .to_owned(),
        ],
        Way::Hopeless => vec![
            "plan           none: neither a state nor a term can be read; `coordinator restore` begins with a backup"
                .to_owned(),
        ],
    }
}

fn next(way: &Way) -> Option<&'static str> {
    match way {
        Way::Refill { .. } => Some(
            "see that all other members run; move leadership once while this one is stopped (`tidegate coordinator \
             transfer`), because a leader that counts on what is lost is refused; start this one; stop none until it is \
             ready. With reconfigEnabled, removing this member and adding it again with an empty dataDir needs none of that",
        ),
        Way::Cut { .. } => {
            Some("start the server; its clients begin anew where they saw what is lost")
        }
        Way::Finish | Way::DropSegments { .. } => {
            Some("`coordinator check`, then start the server")
        }
        Way::Nothing | Way::Rejoin | Way::Hopeless => None,
    }
}

fn json(plan: &Plan, flag: &str, aside: Option<&Path>) -> String {
    let name = match &plan.way {
        Way::Nothing => "nothing",
        Way::Finish => "finish",
        Way::DropSegments { .. } => "drop_segments",
        Way::Cut { .. } => "cut",
        Way::Refill { .. } => "refill",
        Way::Rejoin => "rejoin",
        Way::Hopeless => "none",
    };
    let mut shown = serde_json::json!({
        "damage": plan.damage,
        "plan": name,
        "needs_flag": flag,
        "done": aside.is_some(),
        "set_aside_in": aside,
    });
    match &plan.way {
        Way::DropSegments { numbers, snapshot_index } => {
            shown["segments"] = serde_json::json!(numbers);
            shown["snapshot_index"] = serde_json::json!(snapshot_index);
        }
        Way::Cut { image, zxid, lost_to } => {
            shown["kept_to_index"] = serde_json::json!(image.index);
            shown["kept_to_zxid"] = serde_json::json!(format!("{zxid:#x}"));
            shown["lost_to_index_at_least"] = serde_json::json!((*lost_to).max(image.index + 1));
        }
        Way::Refill { hard_state } => {
            shown["term"] = serde_json::json!(hard_state.term);
            shown["vote"] = serde_json::json!(hard_state.vote);
        }
        Way::Nothing | Way::Finish | Way::Rejoin | Way::Hopeless => {}
    }
    shown.to_string()
}
