//! `tidegate cluster status`: brokers and who leads what, partitions in trouble, roles of the coordinators.
//!
//! *Called by* `main`. *Calls* `client::Admin`, `roles`.
//!
//! Shows what can be shown: brokers that do not answer do not hide the coordinators, and the other way round.

use std::collections::BTreeMap;

use client::protocol::BrokerId;
use client::{Admin, Broker, Cluster, Partition, Topic};
use coordinator_client::Error::Unavailable;
use serde_json::json;

use super::roles::{self, Role};
use crate::args::Format;
use crate::output::{Partly, Table, list, print_json, print_line};
use crate::settings::Settings;

/// What one broker holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Load {
    leads: usize,
    replicas: usize,
    in_sync: usize,
}

struct Brokers {
    id: Option<String>,
    controller: Option<BrokerId>,
    live: Vec<Broker>,
    topics: Vec<Topic>,
}

/// Asks and prints.
///
/// # Errors
/// When the brokers or all coordinators do not answer; the rest is printed before.
pub async fn status(settings: &Settings, format: Format) -> anyhow::Result<()> {
    let brokers = brokers(settings).await;
    let mut coordinators = Vec::new();
    for address in &settings.coordinators {
        coordinators.push((address.clone(), roles::ask(address, settings.tls.as_ref()).await));
    }
    let failure = failure(settings, brokers.as_ref().err(), &coordinators);
    match (format, failure) {
        (Format::Json, None) => print_json(&document(brokers.as_ref().ok(), &coordinators))?,
        (Format::Json, Some(why)) => {
            let partly = Partly { why, known: document(brokers.as_ref().ok(), &coordinators) };
            return Err(match brokers {
                Err(error) => error.context(partly),
                Ok(_) => anyhow::Error::from(Unavailable).context(partly),
            });
        }
        (Format::Table, failure) => {
            if let Ok(brokers) = &brokers {
                show_brokers(brokers)?;
            }
            show_coordinators(&coordinators)?;
            brokers?;
            if let Some(why) = failure {
                return Err(anyhow::Error::from(Unavailable).context(why));
            }
        }
    }
    Ok(())
}

/// What is said where brokers or all coordinators do not answer.
fn failure(
    settings: &Settings,
    brokers: Option<&anyhow::Error>,
    coordinators: &[(String, anyhow::Result<Role>)],
) -> Option<String> {
    let is_reachable = coordinators.iter().any(|(_, role)| role.is_ok());
    match brokers {
        Some(_) => Some("no broker answers".to_owned()),
        None if is_reachable => None,
        None => Some(format!("no coordinator answers at {}", settings.coordinators.join(", "))),
    }
}

async fn brokers(settings: &Settings) -> anyhow::Result<Brokers> {
    let mut admin = Admin::new(settings.cluster().await?);
    let topics = admin.list_topics().await?;
    let cluster: &Cluster = admin.cluster_mut();
    Ok(Brokers {
        id: cluster.id().map(str::to_owned),
        controller: cluster.controller(),
        live: cluster.brokers().cloned().collect(),
        topics,
    })
}

/// What each broker holds, those that are not live, too.
fn loads(topics: &[Topic]) -> BTreeMap<BrokerId, Load> {
    let mut loads: BTreeMap<BrokerId, Load> = BTreeMap::new();
    for partition in topics.iter().flat_map(|topic| &topic.partitions) {
        for replica in &partition.replicas {
            let load = loads.entry(*replica).or_default();
            load.replicas += 1;
            load.in_sync += usize::from(partition.isr.contains(replica));
            load.leads += usize::from(partition.leader == Some(*replica));
        }
    }
    loads
}

fn in_trouble(topics: &[Topic]) -> Vec<(&Topic, &Partition)> {
    let partitions = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    partitions
        .filter(|(_, partition)| partition.is_under_replicated() || partition.leader.is_none())
        .collect()
}

fn show_brokers(brokers: &Brokers) -> anyhow::Result<()> {
    let mut loads = loads(&brokers.topics);
    print_line(&format!("cluster {}", brokers.id.as_deref().unwrap_or("(id unknown)")))?;
    print_line("")?;
    let mut table =
        Table::new(&["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "REPLICAS", "IN SYNC"]);
    for broker in &brokers.live {
        let load = loads.remove(&broker.id).unwrap_or_default();
        let state = if brokers.controller == Some(broker.id) { "controller" } else { "up" };
        let rack = broker.rack.clone().unwrap_or_else(|| "-".to_owned());
        table.row(
            [broker.id.to_string(), broker.address(), rack, state.to_owned()]
                .into_iter()
                .chain(counts(&load)),
        );
    }
    for (id, load) in &loads {
        let unknown = || "-".to_owned();
        table.row(
            [id.to_string(), unknown(), unknown(), "down".to_owned()]
                .into_iter()
                .chain(counts(load)),
        );
    }
    table.print()?;
    print_line("")?;
    let partitions: usize = brokers.topics.iter().map(|topic| topic.partitions.len()).sum();
    let trouble = in_trouble(&brokers.topics);
    if trouble.is_empty() {
        print_line(&format!(
            "all replicas of {} topics, {partitions} partitions are in sync",
            brokers.topics.len()
        ))?;
    } else {
        print_line(&format!(
            "{} of {partitions} partitions are under-replicated or leaderless:",
            trouble.len()
        ))?;
        let mut table = Table::new(&["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN SYNC"]);
        for (topic, partition) in trouble {
            table.row([
                topic.name.clone(),
                partition.id.to_string(),
                partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                list(&partition.replicas),
                list(&partition.isr),
            ]);
        }
        table.print()?;
    }
    print_line("")?;
    Ok(())
}

fn counts(load: &Load) -> [String; 3] {
    [load.leads, load.replicas, load.in_sync].map(|count| count.to_string())
}

fn show_coordinators(coordinators: &[(String, anyhow::Result<Role>)]) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "COORDINATOR",
        "ROLE",
        "ZXID",
        "ZNODES",
        "EPHEMERALS",
        "WATCHES",
        "CLIENTS",
        "VERSION",
    ]);
    for (address, role) in coordinators {
        let cells = match role {
            Ok(role) => [
                &role.mode,
                &role.zxid,
                &role.znodes,
                &role.ephemerals,
                &role.watches,
                &role.connections,
                &role.version,
            ]
            .map(|cell| if cell.is_empty() { "-".to_owned() } else { cell.clone() }),
            Err(error) => {
                let mut cells = [const { String::new() }; 7];
                cells[0] = format!("down: {error:#}");
                cells
            }
        };
        table.row(std::iter::once(address.clone()).chain(cells));
    }
    Ok(table.print()?)
}

fn document(
    brokers: Option<&Brokers>,
    coordinators: &[(String, anyhow::Result<Role>)],
) -> serde_json::Value {
    let coordinators = coordinators.iter().map(|(address, role)| match role {
        Ok(role) => json!({
            "address": address,
            "role": role.mode,
            "zxid": role.zxid,
            "version": role.version,
            "znodes": role.znodes.parse::<u64>().ok(),
            "ephemerals": role.ephemerals.parse::<u64>().ok(),
            "watches": role.watches.parse::<u64>().ok(),
            "clients": role.connections.parse::<u64>().ok(),
        }),
        Err(error) => json!({ "address": address, "role": null, "error": format!("{error:#}") }),
    });
    json!({
        "cluster": brokers.and_then(|brokers| brokers.id.clone()),
        "controller": brokers.and_then(|brokers| Some(brokers.controller?.get())),
        "brokers": brokers.map(brokers_json),
        "partitions_in_trouble": brokers.map(trouble_json),
        "coordinators": coordinators.collect::<Vec<_>>(),
    })
}

fn brokers_json(brokers: &Brokers) -> Vec<serde_json::Value> {
    let loads = loads(&brokers.topics);
    let ids: std::collections::BTreeSet<_> =
        brokers.live.iter().map(|broker| broker.id).chain(loads.keys().copied()).collect();
    let one = |id: BrokerId| {
        let live = brokers.live.iter().find(|broker| broker.id == id);
        let load = loads.get(&id).cloned().unwrap_or_default();
        json!({
            "broker": id.get(),
            "up": live.is_some(),
            "address": live.map(Broker::address),
            "rack": live.and_then(|broker| broker.rack.clone()),
            "leads": load.leads,
            "replicas": load.replicas,
            "in_sync": load.in_sync,
        })
    };
    ids.into_iter().map(one).collect()
}

fn trouble_json(brokers: &Brokers) -> Vec<serde_json::Value> {
    let one = |(topic, partition): (&Topic, &Partition)| {
        json!({
            "topic": topic.name,
            "partition": partition.id.get(),
            "leader": partition.leader.map(BrokerId::get),
            "replicas": partition.replicas.iter().map(|id| id.get()).collect::<Vec<_>>(),
            "isr": partition.isr.iter().map(|id| id.get()).collect::<Vec<_>>(),
        })
    };
    in_trouble(&brokers.topics).into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::protocol::{ErrorCode, PartitionId};

    fn partition(id: i32, leader: Option<i32>, replicas: &[i32], isr: &[i32]) -> Partition {
        let brokers = |ids: &[i32]| ids.iter().map(|id| BrokerId::new(*id)).collect();
        Partition {
            id: PartitionId::new(id),
            error: ErrorCode::None,
            leader: leader.map(BrokerId::new),
            leader_epoch: None,
            replicas: brokers(replicas),
            isr: brokers(isr),
        }
    }

    #[test]
    fn loads_count_brokers_that_are_down() {
        let topics = [Topic {
            name: "t".to_owned(),
            id: None,
            is_internal: false,
            partitions: vec![
                partition(0, Some(1), &[1, 2], &[1]),
                partition(1, None, &[2], &[2]),
                partition(2, Some(1), &[1], &[1]),
            ],
        }];
        let loads = loads(&topics);
        assert_eq!(loads[&BrokerId::new(1)], Load { leads: 2, replicas: 2, in_sync: 2 });
        assert_eq!(loads[&BrokerId::new(2)], Load { leads: 0, replicas: 2, in_sync: 1 });
        let trouble: Vec<_> = in_trouble(&topics).iter().map(|(_, p)| p.id.get()).collect();
        assert_eq!(trouble, [0, 1]);
    }
}
