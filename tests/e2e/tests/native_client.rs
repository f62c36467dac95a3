//! The native client through kills: an idempotent acks=all load and a group that reads it, while the partition's leader,
//! the group coordinator's broker, the controller and the ensemble's leader are killed one after the other.
//!
//! Every acknowledged record is in the log once, in order and at its offset, and the group has read it. How long it takes
//! until all partitions acknowledge again and the group has read that is printed.

use std::time::Instant;

use anyhow::{Result, ensure};
use client::protocol::records::Compression;
use e2e::load::read_all;
use e2e::native::{Native, Plan};
use e2e::running::Running;
use rustix::process::Signal;

const TOPIC: &str = "native";
const GROUP: &str = "readers";
const PARTITIONS: i32 = 6;

/// Kills a node and prints how long partitions stood still.
fn kill(running: &Running, native: &Native, name: &str) -> Result<()> {
    let killed = Instant::now();
    running.signal(name, Signal::KILL)?;
    let again = native.wait_again(killed)?;
    println!(
        "kill -9 of {name}: every partition acknowledges again after {} ms, and was read after {} ms",
        again.acknowledged.as_millis(),
        again.consumed.as_millis()
    );
    Ok(())
}

fn bring_back(running: &mut Running, native: &Native, name: &str) -> Result<()> {
    running.cluster.start(name)?;
    running.cluster.wait_ready(name)?;
    running.wait_for("all replicas in sync again", || {
        let mut all = 0;
        for partition in 0..PARTITIONS {
            all += running.in_sync(TOPIC, partition)?.len();
        }
        Ok((all == 18).then_some(()))
    })?;
    native.wait_consumed(1_000)
}

fn group_coordinator(running: &Running) -> Result<String> {
    running.wait_for("a group coordinator", || {
        let described = running.tidegate(&["group", "describe", GROUP, "-o", "json"])?;
        let described: serde_json::Value = serde_json::from_str(&described)?;
        Ok(described["coordinator"].as_i64().map(|id| format!("broker-{id}")))
    })
}

#[test]
fn native_client_loses_nothing_through_kills() -> Result<()> {
    let mut running = Running::start(3, 3, &[])?;
    running.create_topic(TOPIC, PARTITIONS)?;
    let (bootstrap, coordinators) = (running.bootstrap(), running.coordinators());
    let native = Native::start(Plan {
        bootstrap: &bootstrap,
        coordinators: &coordinators,
        topic: TOPIC,
        partitions: PARTITIONS,
        group: GROUP,
        per_s: 2_000,
        compression: Compression::None,
    })?;
    native.wait_consumed(1_000)?;
    let leader = running.leader(TOPIC, 0)?;
    kill(&running, &native, &leader)?;
    bring_back(&mut running, &native, &leader)?;
    let coordinator = group_coordinator(&running)?;
    println!("{coordinator} coordinates the group");
    kill(&running, &native, &coordinator)?;
    bring_back(&mut running, &native, &coordinator)?;
    let controller = running.controller()?;
    println!("{controller} is the controller");
    kill(&running, &native, &controller)?;
    bring_back(&mut running, &native, &controller)?;
    let ensemble = running.coordinator_leader()?;
    kill(&running, &native, &ensemble)?;
    bring_back(&mut running, &native, &ensemble)?;

    let book = native.finish()?;
    let again = book.judge(&read_all(&bootstrap, TOPIC, PARTITIONS)?)?;
    println!(
        "{} records acknowledged and read, {again} of them again after a change of the group; said at the end: {:?}",
        book.acknowledged(),
        book.said
    );
    ensure!(book.errors.is_empty(), "{} records failed: {}", book.errors.len(), book.errors[0]);
    Ok(())
}
