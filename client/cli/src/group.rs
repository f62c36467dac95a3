//! `tidegate group`: list, describe, reset offsets, delete.
//!
//! *Called by* `main`. *Calls* `client::Admin`.

use std::collections::BTreeMap;

use client::protocol::{ErrorCode, Offset};
use client::{Admin, Group, GroupMember, GroupOffset, OffsetAt, TopicPartition};
use serde_json::json;

use crate::args::{Format, GroupCommand, ResetArguments, ResetTo};
use crate::output::{Table, print_json, print_line};
use crate::settings::Settings;

type Offsets = BTreeMap<TopicPartition, Option<Offset>>;

/// Does what the command says.
pub async fn run(settings: &Settings, command: GroupCommand, format: Format) -> anyhow::Result<()> {
    let mut admin = Admin::new(settings.cluster().await?);
    match command {
        GroupCommand::List => list(&mut admin, format).await,
        GroupCommand::Describe { group } => describe(&mut admin, &group, format).await,
        GroupCommand::ResetOffsets(arguments) => reset(&mut admin, &arguments, format).await,
        GroupCommand::Delete { group, if_exists } => {
            let result = match admin.delete_group(&group).await {
                Err(error) if if_exists && error.code() == Some(ErrorCode::GroupIdNotFound) => {
                    "missing"
                }
                deleted => {
                    deleted?;
                    "deleted"
                }
            };
            match format {
                Format::Table => print_line(&format!("group {group}: {result}"))?,
                Format::Json => print_json(&json!({ "group": group, "result": result }))?,
            }
            Ok(())
        }
    }
}

async fn list(admin: &mut Admin, format: Format) -> anyhow::Result<()> {
    let groups = admin.list_groups().await?;
    if format == Format::Json {
        let one = |group: &client::GroupListing| {
            json!({
                "group": group.id,
                "state": group.state,
                "protocol_type": group.protocol_type,
                "coordinator": group.coordinator.get(),
            })
        };
        let groups: Vec<_> = groups.iter().map(one).collect();
        return Ok(print_json(&json!(groups))?);
    }
    let mut table = Table::new(&["GROUP", "STATE", "TYPE", "COORDINATOR"]);
    for group in groups {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        table.row([
            group.id,
            or_dash(group.state),
            or_dash(group.protocol_type),
            group.coordinator.to_string(),
        ]);
    }
    Ok(table.print()?)
}

/// One line of a description.
struct Line<'a> {
    partition: TopicPartition,
    committed: Option<Offset>,
    end: Option<Offset>,
    member: Option<&'a GroupMember>,
}

impl Line<'_> {
    fn lag(&self) -> Option<u64> {
        Some(self.end?.count_since(self.committed?))
    }
}

async fn describe(admin: &mut Admin, id: &str, format: Format) -> anyhow::Result<()> {
    let group = admin.describe_group(id).await?;
    let offsets = admin.group_offsets(id).await?;
    if group.state == "Dead" && offsets.is_empty() {
        let error =
            client::ClientError::broker(format!("group {id}"), ErrorCode::GroupIdNotFound, None);
        return Err(error.into());
    }
    let mut partitions: Vec<_> = offsets.iter().map(|known| known.partition.clone()).collect();
    partitions.extend(group.members.iter().flat_map(|member| member.assignment.iter().cloned()));
    partitions.sort();
    partitions.dedup();
    let ends = ends(admin, &partitions).await?;
    let lines: Vec<_> = partitions
        .into_iter()
        .map(|partition| Line {
            committed: committed(&offsets, &partition),
            end: ends.get(&partition).copied().flatten(),
            member: group.members.iter().find(|m| m.assignment.contains(&partition)),
            partition,
        })
        .collect();
    match format {
        Format::Json => Ok(print_json(&description_json(&group, &lines))?),
        Format::Table => show(&group, &lines),
    }
}

fn committed(offsets: &[GroupOffset], partition: &TopicPartition) -> Option<Offset> {
    offsets.iter().find(|known| known.partition == *partition).map(|known| known.offset)
}

/// Where partitions end; a topic that is gone has no end.
async fn ends(admin: &mut Admin, partitions: &[TopicPartition]) -> anyhow::Result<Offsets> {
    let mut there = Vec::new();
    for partition in partitions {
        if admin.cluster_mut().topic(&partition.topic).is_none() {
            let found = admin.cluster_mut().refresh_topic(&partition.topic).await;
            if let Err(error) = found
                && error.code() != Some(ErrorCode::UnknownTopicOrPartition)
            {
                return Err(error.into());
            }
        }
        if admin.cluster_mut().topic(&partition.topic).is_some() {
            there.push(partition.clone());
        }
    }
    Ok(admin.offsets(&there, OffsetAt::Latest).await?)
}

fn show(group: &Group, lines: &[Line<'_>]) -> anyhow::Result<()> {
    print_line(&format!("group        {}", group.id))?;
    print_line(&format!("state        {}", group.state))?;
    if !group.protocol.is_empty() {
        print_line(&format!("assignor     {}", group.protocol))?;
    }
    print_line(&format!("coordinator  {}", group.coordinator))?;
    print_line(&format!("members      {}", group.members.len()))?;
    print_line("")?;
    let mut table =
        Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "CLIENT", "HOST"]);
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for line in lines {
        table.row([
            line.partition.topic.to_string(),
            line.partition.partition.to_string(),
            or_dash(line.committed.map(|offset| offset.to_string())),
            or_dash(line.end.map(|offset| offset.to_string())),
            or_dash(line.lag().map(|lag| lag.to_string())),
            or_dash(line.member.map(|member| member.id.clone())),
            or_dash(line.member.map(|member| member.client_id.clone())),
            or_dash(line.member.map(|member| member.host.clone())),
        ]);
    }
    Ok(table.print()?)
}

fn description_json(group: &Group, lines: &[Line<'_>]) -> serde_json::Value {
    let offsets = lines.iter().map(|line| {
        json!({
            "topic": &*line.partition.topic,
            "partition": line.partition.partition.get(),
            "committed": line.committed.map(Offset::get),
            "end": line.end.map(Offset::get),
            "lag": line.lag(),
            "member": line.member.map(|member| &member.id),
        })
    });
    let members = group.members.iter().map(|member| {
        let assignment = member.assignment.iter().map(|partition| {
            json!({ "topic": &*partition.topic, "partition": partition.partition.get() })
        });
        json!({
            "member": member.id,
            "instance": member.instance_id,
            "client": member.client_id,
            "host": member.host,
            "assignment": assignment.collect::<Vec<_>>(),
        })
    });
    json!({
        "group": group.id,
        "state": group.state,
        "protocol_type": group.protocol_type,
        "assignor": group.protocol,
        "coordinator": group.coordinator.get(),
        "members": members.collect::<Vec<_>>(),
        "offsets": offsets.collect::<Vec<_>>(),
    })
}

async fn reset(
    admin: &mut Admin,
    arguments: &ResetArguments,
    format: Format,
) -> anyhow::Result<()> {
    let group = admin.describe_group(&arguments.group).await?;
    if !matches!(group.state.as_str(), "Empty" | "Dead") {
        let what = format!("group {} has {} members", group.id, group.members.len());
        return Err(client::ClientError::broker(what, ErrorCode::NonEmptyGroup, None).into());
    }
    let remembered = admin.group_offsets(&arguments.group).await?;
    let partitions = meant(admin, arguments, &remembered).await?;
    anyhow::ensure!(
        !partitions.is_empty(),
        "group {} remembers no offsets; name topics with --topic",
        arguments.group
    );
    let begin = admin.offsets(&partitions, OffsetAt::Earliest).await?;
    let end = admin.offsets(&partitions, OffsetAt::Latest).await?;
    let at_time = match arguments.to.to_time {
        Some(time) => admin.offsets(&partitions, OffsetAt::Timestamp(time)).await?,
        None => Offsets::new(),
    };
    let mut changes = Vec::new();
    for partition in partitions {
        let of = |offsets: &Offsets| offsets.get(&partition).copied().flatten().map(Offset::get);
        let range = (of(&begin).unwrap_or(0), of(&end).unwrap_or(0));
        let now = committed(&remembered, &partition).map(Offset::get);
        let new = target(&arguments.to, now, range, of(&at_time));
        changes.push((partition, now, new));
    }
    if arguments.execute {
        let offsets: Vec<_> = changes
            .iter()
            .map(|(partition, _, new)| (partition.clone(), Offset::new(*new)))
            .collect();
        admin.set_group_offsets(&arguments.group, &offsets).await?;
    }
    show_changes(&changes, arguments, format)
}

/// The partitions that were named; all that the group remembers when none were.
async fn meant(
    admin: &mut Admin,
    arguments: &ResetArguments,
    remembered: &[GroupOffset],
) -> anyhow::Result<Vec<TopicPartition>> {
    if arguments.topics.is_empty() {
        return Ok(remembered.iter().map(|known| known.partition.clone()).collect());
    }
    let mut partitions = Vec::new();
    for (topic, named) in &arguments.topics {
        let known = admin.describe_topic(topic).await?;
        let all: Vec<_> = known.partitions.iter().map(|partition| partition.id.get()).collect();
        for partition in if named.is_empty() { &all } else { named } {
            if !all.contains(partition) {
                let (topic, partition) = (topic.clone(), *partition);
                return Err(client::ClientError::NoSuchPartition { topic, partition }.into());
            }
            partitions.push(TopicPartition::new(topic, *partition));
        }
    }
    partitions.sort();
    partitions.dedup();
    Ok(partitions)
}

/// Where to go on, within what the log has.
fn target(to: &ResetTo, now: Option<i64>, (begin, end): (i64, i64), at_time: Option<i64>) -> i64 {
    let wanted = if to.to_earliest {
        begin
    } else if let Some(offset) = to.to_offset {
        offset
    } else if to.to_time.is_some() {
        // No record is that young: after the last one.
        at_time.unwrap_or(end)
    } else if let Some(records) = to.shift_by {
        now.unwrap_or(begin).saturating_add(records)
    } else {
        end
    };
    wanted.clamp(begin, end.max(begin))
}

fn show_changes(
    changes: &[(TopicPartition, Option<i64>, i64)],
    arguments: &ResetArguments,
    format: Format,
) -> anyhow::Result<()> {
    if format == Format::Json {
        let one = |(partition, now, new): &(TopicPartition, Option<i64>, i64)| {
            json!({
                "topic": &*partition.topic,
                "partition": partition.partition.get(),
                "from": now,
                "to": new,
            })
        };
        let changes: Vec<_> = changes.iter().map(one).collect();
        let document = json!({
            "group": arguments.group,
            "executed": arguments.execute,
            "offsets": changes,
        });
        return Ok(print_json(&document)?);
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "FROM", "TO"]);
    for (partition, now, new) in changes {
        table.row([
            partition.topic.to_string(),
            partition.partition.to_string(),
            now.map_or("-".to_owned(), |now| now.to_string()),
            new.to_string(),
        ]);
    }
    table.print()?;
    if !arguments.execute {
        eprintln!("nothing is changed yet: add --execute");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: ResetTo = ResetTo {
        to_earliest: false,
        to_latest: false,
        to_offset: None,
        to_time: None,
        shift_by: None,
    };

    #[test]
    fn targets_stay_within_the_log() {
        let check = |to: ResetTo, now, at_time, expected| {
            assert_eq!(target(&to, now, (10, 100), at_time), expected, "{to:?} {now:?}");
        };
        check(ResetTo { to_earliest: true, ..NOWHERE }, Some(50), None, 10);
        check(ResetTo { to_latest: true, ..NOWHERE }, Some(50), None, 100);
        check(ResetTo { to_offset: Some(5), ..NOWHERE }, None, None, 10);
        check(ResetTo { to_offset: Some(500), ..NOWHERE }, None, None, 100);
        check(ResetTo { to_time: Some(1), ..NOWHERE }, None, Some(42), 42);
        check(ResetTo { to_time: Some(1), ..NOWHERE }, None, None, 100);
        check(ResetTo { shift_by: Some(-7), ..NOWHERE }, Some(50), None, 43);
        check(ResetTo { shift_by: Some(i64::MIN), ..NOWHERE }, Some(50), None, 10);
        check(ResetTo { shift_by: Some(3), ..NOWHERE }, None, None, 13);
    }
}
