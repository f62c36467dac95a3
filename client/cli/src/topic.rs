//! `tidegate topic`: create, list, describe, delete.
//!
//! *Called by* `main`. *Calls* `client::Admin`.

use client::protocol::ErrorCode;
use client::{Admin, ClientError, ConfigEntry, NewTopic, Partition, Topic};
use serde_json::json;

use crate::args::{Format, TopicCommand};
use crate::output::{Table, list, print_json, print_line};
use crate::settings::Settings;

/// Does what the command says.
pub async fn run(settings: &Settings, command: TopicCommand, format: Format) -> anyhow::Result<()> {
    let mut admin = Admin::new(settings.cluster().await?);
    match command {
        TopicCommand::Create {
            name,
            partitions,
            replication_factor,
            settings,
            validate_only,
            if_not_exists,
        } => {
            let topic = NewTopic { name, partitions, replication_factor, configs: settings };
            let created = admin.create_topic(&topic, validate_only).await;
            let existed = tolerate(created, ErrorCode::TopicAlreadyExists, if_not_exists)?;
            let verb = match (existed, validate_only) {
                (true, _) => "exists",
                (false, true) => "valid",
                (false, false) => "created",
            };
            done(&topic.name, verb, format)
        }
        TopicCommand::List { internal } => {
            let mut topics = admin.list_topics().await?;
            topics.retain(|topic| internal || !topic.is_internal);
            show_list(&topics, format)
        }
        TopicCommand::Describe { name, all_settings } => {
            let topic = admin.describe_topic(&name).await?;
            let mut entries = admin.topic_configs(&name).await?;
            entries.retain(|entry| all_settings || entry.is_topics_own);
            show_topic(&topic, &entries, format)
        }
        TopicCommand::Delete { name, if_exists } => {
            let deleted = admin.delete_topic(&name).await;
            let missing = tolerate(deleted, ErrorCode::UnknownTopicOrPartition, if_exists)?;
            done(&name, if missing { "missing" } else { "deleted" }, format)
        }
    }
}

/// Whether it failed with `code`, where that is no error.
fn tolerate(
    result: Result<(), ClientError>,
    code: ErrorCode,
    is_tolerated: bool,
) -> Result<bool, ClientError> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if is_tolerated && error.code() == Some(code) => Ok(true),
        Err(error) => Err(error),
    }
}

fn done(name: &str, verb: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => print_line(&format!("topic {name}: {verb}"))?,
        Format::Json => print_json(&json!({ "topic": name, "result": verb }))?,
    }
    Ok(())
}

fn show_list(topics: &[Topic], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let topics: Vec<_> = topics.iter().map(topic_json).collect();
        return Ok(print_json(&json!(topics))?);
    }
    let mut table =
        Table::new(&["TOPIC", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED", "LEADERLESS"]);
    for topic in topics {
        let count = |wanted: fn(&Partition) -> bool| {
            topic.partitions.iter().filter(|partition| wanted(partition)).count().to_string()
        };
        let replicas = topic.partitions.iter().map(|partition| partition.replicas.len()).max();
        table.row([
            topic.name.clone(),
            topic.partitions.len().to_string(),
            replicas.unwrap_or(0).to_string(),
            count(Partition::is_under_replicated),
            count(|partition| partition.leader.is_none()),
        ]);
    }
    Ok(table.print()?)
}

fn show_topic(topic: &Topic, entries: &[ConfigEntry], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let mut document = topic_json(topic);
        let settings = entries.iter().map(|entry| (entry.name.clone(), json!(entry.value)));
        document["settings"] = settings.collect::<serde_json::Map<_, _>>().into();
        return Ok(print_json(&document)?);
    }
    print_line(&format!("topic     {}", topic.name))?;
    let id = topic.id.map_or("-".to_owned(), |id| id.to_string());
    print_line(&format!("id        {id}"))?;
    for (index, entry) in entries.iter().enumerate() {
        let label = if index == 0 { "settings" } else { "" };
        let value = entry.value.as_deref().unwrap_or("(not shown)");
        print_line(&format!("{label:<10}{}={value}", entry.name))?;
    }
    print_line("")?;
    let mut table = Table::new(&["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", ""]);
    for partition in &topic.partitions {
        table.row([
            partition.id.to_string(),
            partition.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            partition.leader_epoch.map_or("-".to_owned(), |epoch| epoch.to_string()),
            list(&partition.replicas),
            list(&partition.isr),
            if partition.is_under_replicated() { "under-replicated" } else { "" }.to_owned(),
        ]);
    }
    Ok(table.print()?)
}

fn topic_json(topic: &Topic) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "partition": partition.id.get(),
                "leader": partition.leader.map(|leader| leader.get()),
                "leader_epoch": partition.leader_epoch.map(|epoch| epoch.get()),
                "replicas": partition.replicas.iter().map(|id| id.get()).collect::<Vec<_>>(),
                "isr": partition.isr.iter().map(|id| id.get()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "topic": topic.name,
        "id": topic.id.map(|id| id.to_string()),
        "internal": topic.is_internal,
        "partitions": partitions,
    })
}
