//! From the kill -9 of a partition's leader to the next acknowledged record of that partition.
//!
//! Called by: `plan`. Calls: the end-to-end tests' load (librdkafka, idempotent, acks=all).

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::load::Load;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::peers::System;
use crate::report::{Better, Table};
use crate::topic::Topic;

const TOPIC: &str = "failover";
const RECORDS_PER_S: u32 = 2_000;

/// The empty table.
pub fn table() -> Table {
    Table::new(
        "Failover",
        "Kill -9 of the leader of a partition with three replicas, under an idempotent acks=all load of \
         2,000 records a second, defaults of each system.",
    )
}

/// Kills the leader and adds the time.
///
/// # Errors
/// When the load fails or nothing is acknowledged any more.
pub fn measure(table: &mut Table, system: &System) -> Result<()> {
    let topic = Topic::create(&system.bootstrap, TOPIC, (1, 3), &[])?;
    let load = Load::start(&system.bootstrap, &topic.name, 1, RECORDS_PER_S)?;
    load.wait_acknowledged(4 * usize::try_from(RECORDS_PER_S)?)?;
    let leader = leader(system)?;
    let process = system.brokers.get(leader).context("a leader that is no broker of the system")?;
    System::kill(*process)?;
    let killed = Instant::now();
    let stall = load.next_acknowledged(killed, Some(0))?;
    load.wait_acknowledged(usize::try_from(RECORDS_PER_S)?)?;
    load.finish()?;
    let measure = "librdkafka: leader killed to next acknowledged record, s";
    table.put(measure, Better::Lower, system.name(), stall.as_secs_f64());
    Ok(())
}

/// Which of the system's brokers, in their order, leads partition 0. Their ids count from 1.
fn leader(system: &System) -> Result<usize> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &system.bootstrap).create()?;
    let metadata = client.fetch_metadata(Some(TOPIC), Duration::from_secs(20))?;
    let topic = metadata.topics().first().context("no such topic")?;
    let partition = topic.partitions().first().context("no such partition")?;
    Ok(usize::try_from(partition.leader() - 1)?)
}
