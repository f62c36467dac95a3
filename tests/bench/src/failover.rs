//! From the kill -9 of a partition's leader to the next acknowledged record of that partition: with librdkafka and with
//! the native client, both at work when the one kill comes.
//!
//! Called by: `plan`. Calls: the end-to-end tests' loads (idempotent, acks=all), whose books are judged as there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::protocol::records::Compression;
use e2e::history;
use e2e::load::{Load, read_all};
use e2e::native::{Native, Plan};
use e2e::peers::{Product, System};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::report::{Better, Table};
use crate::topic::Topic;

const RECORDS_PER_S: u32 = 1_000;
/// So many that the broker which dies leads one of each topic's.
const PARTITIONS: i32 = 3;

/// The empty table.
pub fn table() -> Table {
    Table::new(
        "Failover",
        "Kill -9 of a broker that leads partitions with three replicas, under two idempotent acks=all loads of 1,000 \
         records a second each, librdkafka and the native client, defaults of each system. Counted to the next \
         acknowledged record of a partition that the dead broker led, of the native client also until a group had read \
         it. The native client hears of a leader's death from our coordinators; of Kafka it asks as others do. Every \
         acknowledged record was read back, once and in order, or there would be no figure.",
    )
}

/// Kills a leader and adds the times.
///
/// # Errors
/// When a load fails, nothing is acknowledged any more, or a record was lost, doubled or moved.
pub fn measure(table: &mut Table, system: &System) -> Result<()> {
    let (common, own) = ("failover-librdkafka", "failover-native");
    let _topics = [common, own]
        .map(|name| Topic::create(&system.bootstrap, name, (PARTITIONS, 3), &[]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let load = Load::start(&system.bootstrap, common, PARTITIONS, RECORDS_PER_S)?;
    // Our coordinators tell of deaths and new leaders; Kafka has none that do.
    let coordinators = match system.product {
        Product::Tidegate => system.ensemble_addresses.join(","),
        Product::Kafka39 | Product::Kafka4 | Product::ZooKeeper | Product::Coordinator => {
            String::new()
        }
    };
    let native = Native::start(Plan {
        bootstrap: &system.bootstrap,
        coordinators: &coordinators,
        topic: own,
        partitions: PARTITIONS,
        group: "failover",
        per_s: RECORDS_PER_S,
        compression: Compression::None,
    })?;
    load.wait_acknowledged(4 * usize::try_from(RECORDS_PER_S)?)?;
    native.wait_consumed(usize::try_from(RECORDS_PER_S)?)?;
    let leader = leader(system, own, 0)?;
    let led = (0..PARTITIONS)
        .find_map(|partition| match self::leader(system, common, partition) {
            Ok(of) if of == leader => Some(Ok(partition)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .context("the broker leads no partition of the other topic")??;
    let process = system.brokers.get(leader).context("a leader that is no broker of the system")?;
    let killed = Instant::now();
    System::kill(*process)?;
    let gone = Instant::now();
    let common_stall = load.next_acknowledged(gone, Some(led))? + (gone - killed);
    let again = native.wait_again(killed)?;
    load.wait_acknowledged(usize::try_from(RECORDS_PER_S)?)?;
    native.wait_consumed(usize::try_from(RECORDS_PER_S)?)?;
    let told = load.finish()?;
    let held = read_all(&system.bootstrap, common, PARTITIONS)?;
    let anomalies = history::check(&told.sent, &held);
    ensure!(
        anomalies.is_empty(),
        "librdkafka: {} anomalies, first {}",
        anomalies.len(),
        anomalies[0]
    );
    native
        .finish()?
        .judge(&read_all(&system.bootstrap, own, PARTITIONS)?)
        .context("native client")?;
    for (measure, time) in [
        ("librdkafka: leader killed to next acknowledged record, s", common_stall),
        ("native client: leader killed to next acknowledged record, s", again.acknowledged),
        ("native client: leader killed until its group read it, s", again.consumed),
    ] {
        table.put(measure, Better::Lower, system.name(), time.as_secs_f64());
    }
    Ok(())
}

/// Which of the system's brokers, in their order, leads a partition. Their ids count from 1.
fn leader(system: &System, topic: &str, partition: i32) -> Result<usize> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &system.bootstrap).create()?;
    let metadata = client.fetch_metadata(Some(topic), Duration::from_secs(20))?;
    let topic = metadata.topics().first().context("no such topic")?;
    let found = topic.partitions().iter().find(|found| found.id() == partition);
    Ok(usize::try_from(found.context("no such partition")?.leader() - 1)?)
}
