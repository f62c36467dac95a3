//! `coordinator restore`.
//!
//! Called by: `commands`. Calls: `storage::found_from`, `members_in`.
//! Invariant: only an empty folder is written; other members than the snapshot's are named on purpose.
//! Does not know: files' formats.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use coordinator::config::Config;
use coordinator::storage::{found_from, members_in};
use coordinator_core::ServerId;
use coordinator_core::members::{Members, Role};
use coordinator_disk::RealDisk;

use super::{OutputFormat, owner, print};

/// Makes this member's data folder from a snapshot that some member of the same cluster wrote.
///
/// A backup is a copy of the newest file in the `snapshots` folder of any member; it can be taken while the server runs.
/// When the ensemble is lost, run this for each member with that member's own settings, an empty dataDir and the SAME
/// file, then start them: members that began with different states refuse one another, and the checksum that is printed has to be
/// the same on all. What was written after the snapshot is gone. Never restore a single member beside others
/// that still have their data: see `repair`.
#[derive(Args)]
pub struct RestoreFlags {
    /// The snapshot.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Begin with the members that the settings name, though the snapshot names others.
    #[arg(long)]
    other_members: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: OutputFormat,
}

pub fn run(flags: &RestoreFlags, config: &Config) -> anyhow::Result<()> {
    check_members(flags, config)?;
    let (index, beginning) =
        found_from(Arc::new(RealDisk), &flags.from, &config.data_dir, owner(config))?;
    if matches!(flags.output, OutputFormat::Json) {
        let folder = std::path::absolute(&config.data_dir).unwrap_or(config.data_dir.clone());
        let told = serde_json::json!({
            "folder": folder, "log_index": index, "checksum": beginning.to_string(),
        });
        return Ok(print(&told.to_string())?);
    }
    let folder = config.data_dir.display();
    let mut text =
        format!("{folder} begins with the state as of log index {index}, checksum {beginning}");
    if config.members.len() > 1 {
        text +=
            "\nnext: the same, from the same file, for the other members: all need this checksum";
    }
    Ok(print(&text)?)
}

/// Members that joined or left are in the snapshot, and files may still name the first ones, or give a vote to one that lost it.
fn check_members(flags: &RestoreFlags, config: &Config) -> anyhow::Result<()> {
    let backed_up = members_in(&RealDisk, &flags.from, owner(config))?;
    let Some((members, target)) = backed_up.filter(|_| !flags.other_members) else {
        return Ok(());
    };
    let named = named(config);
    if roles(&members) == named {
        return Ok(());
    }
    let lines = |members: &Members| {
        let lines = members.iter().map(|(id, member)| format!("server.{id}={member}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let named: Vec<_> = named.keys().map(ToString::to_string).collect();
    let change = target.map_or(String::new(), |target| {
        format!("\n(a change was under way when it was taken, to:\n{}\n)", lines(&target))
    });
    bail!(
        "the settings name servers {}, the snapshot is of others, or with other roles:\n{}{change}\nname those in the settings of \
         all members, or say --other-members if the ensemble is to begin with those that the settings name",
        named.join(", "),
        lines(&members)
    )
}

type Roles = BTreeMap<ServerId, Role>;

fn roles(members: &Members) -> Roles {
    members.iter().map(|(id, member)| (*id, member.role())).collect()
}

/// Whom the settings name; a server that stands alone names itself.
fn named(config: &Config) -> Roles {
    if config.core.servers.is_empty() {
        return config.core.members.iter().map(|id| (*id, Role::Participant)).collect();
    }
    roles(&config.core.servers)
}

#[cfg(test)]
mod tests {
    use coordinator::config::Values;
    use coordinator_core::members::parse_line;

    use super::*;

    /// In a snapshot that has `backed_up`, and by settings with `said`.
    fn are_same(backed_up: &[&str], said: &str) -> bool {
        let read = |line: &&str| {
            let (id, member) = parse_line(line).unwrap();
            (ServerId::new(id).unwrap(), member)
        };
        let mut values = Values::default();
        values.add_toml(said).unwrap();
        let config = Config::from_values(&values).unwrap();
        roles(&backed_up.iter().map(read).collect()) == named(&config)
    }

    #[test]
    fn members_are_compared_by_id_and_role_and_not_by_place() {
        let one = "server.1=a:1:1:participant";
        let two = ["server.1=a:1:1:participant", "server.2=b:1:1:observer"];
        let said = |second: &str| {
            format!("peerSecret = 'x'\n[server]\n1 = '127.0.0.1:1'\n2 = '127.0.0.1:2{second}'")
        };
        assert!(are_same(&[one], ""), "it stands alone");
        assert!(!are_same(&[one], "id = 2") && !are_same(&two, ""));
        assert!(are_same(&two, &said(":observer")));
        assert!(!are_same(&two, &said("")), "it would get a vote that it does not have");
        assert!(!are_same(&[one], &said(":observer")));
    }
}
