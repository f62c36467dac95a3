//! Kills under an acks=all idempotent load from librdkafka: every acknowledged record is there
//! exactly once and in order, and the time until the next acknowledgement is printed.

use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::history;
use e2e::load::{Load, read_all};
use e2e::running::Running;
use rustix::process::Signal;

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 6;
const PER_S: u32 = 2_000;

/// A load on a fresh cluster; `disturb` does its harm, then everything is compared.
fn under_load(disturb: impl FnOnce(&mut Running, &Load) -> Result<()>) -> Result<()> {
    under_load_with(&[], disturb)
}

/// The same with settings for every broker.
fn under_load_with(
    settings: &[(&str, &str)],
    disturb: impl FnOnce(&mut Running, &Load) -> Result<()>,
) -> Result<()> {
    let mut running = Running::start(3, 3, settings)?;
    running.create_topic(TOPIC, PARTITIONS)?;
    let load = Load::start(&running.bootstrap(), TOPIC, PARTITIONS, PER_S)?;
    load.wait_acknowledged(2_000)?;
    disturb(&mut running, &load)?;
    load.wait_acknowledged(5_000)?;
    let finished = load.finish()?;
    let held = read_all(&running.bootstrap(), TOPIC, PARTITIONS)?;
    let anomalies = history::check(&finished.sent, &held);
    println!(
        "{} records acknowledged, longest stall {:?}, client errors {:?}",
        finished.acknowledged(),
        finished.longest_stall(),
        finished.errors
    );
    ensure!(anomalies.is_empty(), "{} anomalies, first {}", anomalies.len(), anomalies[0]);
    ensure!(finished.acknowledged() >= 7_000, "the load did not go on");
    Ok(())
}

fn kill_and_measure(
    running: &Running,
    load: &Load,
    name: &str,
    partition: Option<i32>,
) -> Result<()> {
    let killed = Instant::now();
    running.signal(name, Signal::KILL)?;
    // What it answered before it went may still arrive: count from when the process was gone.
    let gone = Instant::now();
    let again = load.next_acknowledged(gone, partition)? + (gone - killed);
    println!("kill -9 of {name}: next acknowledged record after {} ms", again.as_millis());
    Ok(())
}

#[test]
fn killed_partition_leader_loses_nothing() -> Result<()> {
    under_load(|running, load| {
        let leader = running.leader(TOPIC, 0)?;
        kill_and_measure(running, load, &leader, Some(0))?;
        load.wait_acknowledged(2_000)?;
        running.cluster.start(&leader)?;
        running.cluster.wait_ready(&leader)?;
        running.wait_for("the killed broker to be in sync again", || {
            Ok((running.in_sync(TOPIC, 0)?.len() == 3).then_some(()))
        })
    })
}

#[test]
fn broker_that_restarts_within_the_grace_loses_nothing() -> Result<()> {
    under_load(|running, load| {
        let leader = running.leader(TOPIC, 0)?;
        let killed = Instant::now();
        running.signal(&leader, Signal::KILL)?;
        // At once: its old registration and session are still there.
        running.cluster.start(&leader)?;
        let again = load.next_acknowledged(killed, Some(0))?;
        println!("kill -9 and start of {leader}: next acknowledged after {} ms", again.as_millis());
        running.cluster.wait_ready(&leader)?;
        running.wait_for("the restarted broker to be in sync again", || {
            Ok((running.in_sync(TOPIC, 0)?.len() == 3).then_some(()))
        })
    })
}

#[test]
fn stopped_leader_hands_over_first() -> Result<()> {
    under_load(|running, load| {
        let leader = running.leader(TOPIC, 0)?;
        let asked = Instant::now();
        running.signal(&leader, Signal::TERM)?;
        println!("SIGTERM of {leader}: gone after {} ms", asked.elapsed().as_millis());
        ensure!(running.leader(TOPIC, 0)? != leader, "it still leads");
        let again = load.next_acknowledged(asked, Some(0))?;
        println!("next record of its partition acknowledged after {} ms", again.as_millis());
        running.cluster.start(&leader)?;
        running.cluster.wait_ready(&leader)
    })
}

#[test]
fn preferred_leader_that_comes_back_leads_again() -> Result<()> {
    under_load_with(&[("leader.imbalance.check.interval.seconds", "1")], |running, load| {
        let preferred = running.leader(TOPIC, 0)?;
        let leads = |running: &Running| {
            let all = (0..PARTITIONS).map(|partition| running.leader(TOPIC, partition));
            all.collect::<Result<Vec<String>>>()
        };
        let before = leads(running)?;
        let killed = Instant::now();
        running.signal(&preferred, Signal::KILL)?;
        running.wait_for("others to lead", || {
            Ok((!leads(running)?.contains(&preferred)).then_some(()))
        })?;
        load.next_acknowledged(Instant::now(), Some(0))?;
        running.cluster.start(&preferred)?;
        running.cluster.wait_ready(&preferred)?;
        running.wait_for("each partition to be led by whom it was led before", || {
            Ok((leads(running)? == before).then_some(()))
        })?;
        load.next_acknowledged(Instant::now(), Some(0))?;
        println!("{preferred} leads again {} ms after its death", killed.elapsed().as_millis());
        Ok(())
    })
}

#[test]
fn killed_coordinator_leader_and_controller_lose_nothing() -> Result<()> {
    under_load(|running, load| {
        let coordinator = running.coordinator_leader()?;
        kill_and_measure(running, load, &coordinator, None)?;
        load.wait_acknowledged(2_000)?;
        let controller = running.controller()?;
        kill_and_measure(running, load, &controller, None)?;
        running.wait_for("another controller", || {
            Ok((running.controller()? != controller).then_some(()))
        })?;
        load.wait_acknowledged(2_000)?;
        running.cluster.start(&coordinator)?;
        running.cluster.start(&controller)?;
        running.cluster.wait_ready(&coordinator)?;
        running.cluster.wait_ready(&controller)
    })
}

#[test]
fn everything_killed_at_once_comes_back_by_itself() -> Result<()> {
    under_load(|running, load| {
        let names: Vec<String> =
            running.cluster.nodes.iter().map(|node| node.name.clone()).collect();
        let processes: Vec<_> =
            running.cluster.nodes.iter().filter_map(|node| node.process).collect();
        let killed = Instant::now();
        processes.iter().try_for_each(|process| process.signal(Signal::KILL))?;
        processes.iter().try_for_each(|process| process.wait_gone(tests::cluster::HANG_GUARD))?;
        let gone = Instant::now();
        for name in &names {
            running.cluster.start(name)?;
        }
        for name in &names {
            running.cluster.wait_ready(name)?;
        }
        println!("six processes killed and ready again after {} ms", killed.elapsed().as_millis());
        let again = load.next_acknowledged(gone, None)? + (gone - killed);
        println!("next acknowledged record {} ms after the kill", again.as_millis());
        Ok(())
    })
}
