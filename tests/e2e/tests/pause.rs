//! A process that stops for a minute and goes on (SIGSTOP, SIGCONT) under an acks=all idempotent
//! load: nothing is lost or doubled, the follower leaves the in-sync replicas and joins again, an
//! old leader truncates its tail. How long acks=all stalled is printed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::history;
use e2e::load::{Load, read_all};
use e2e::running::Running;
use rustix::process::Signal;

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const PER_S: u32 = 1_000;
const PAUSE: Duration = Duration::from_secs(60);

/// Pauses the broker that `choose` names, for a minute under load, then compares everything.
fn paused(what: &str, choose: impl Fn(&Running) -> Result<String>) -> Result<()> {
    let running = Running::start(3, 3, &[])?;
    running.create_topic(TOPIC, PARTITIONS)?;
    let load = Load::start(&running.bootstrap(), TOPIC, PARTITIONS, PER_S)?;
    load.wait_acknowledged(1_000)?;
    let name = choose(&running)?;
    let node = running.cluster.node(&name)?;
    let id = i64::from(node.id);
    let began = Instant::now();
    running.signal(&name, Signal::STOP)?;
    running.wait_for("the paused broker to leave the in-sync replicas", || {
        let out =
            |partition| Ok::<_, anyhow::Error>(!running.in_sync(TOPIC, partition)?.contains(&id));
        Ok((out(0)? && out(1)? && out(2)?).then_some(()))
    })?;
    println!("paused {what} {name}: out of every ISR after {} ms", began.elapsed().as_millis());
    // The pause itself is the input of this test, not a wait for something to happen.
    std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
    running.signal(&name, Signal::CONT)?;
    let continued = Instant::now();
    running.wait_for("the broker to catch up and join again", || {
        let all = |partition| Ok::<_, anyhow::Error>(running.in_sync(TOPIC, partition)?.len() == 3);
        Ok((all(0)? && all(1)? && all(2)?).then_some(()))
    })?;
    println!("{name} in every ISR again {} ms after it went on", continued.elapsed().as_millis());
    load.wait_acknowledged(2_000)?;
    let finished = load.finish()?;
    let held = read_all(&running.bootstrap(), TOPIC, PARTITIONS)?;
    let anomalies = history::check(&finished.sent, &held);
    println!(
        "{what}: {} records acknowledged, acks=all stalled {} ms at the longest",
        finished.acknowledged(),
        finished.longest_stall().as_millis()
    );
    ensure!(anomalies.is_empty(), "{} anomalies, first {}", anomalies.len(), anomalies[0]);
    Ok(())
}

#[test]
fn paused_follower_leaves_and_joins_again() -> Result<()> {
    paused("follower", |running| {
        let (leader, controller) = (running.leader(TOPIC, 0)?, running.controller()?);
        let follower = running
            .cluster
            .of_kind(tests::cluster::Kind::Broker)
            .find(|node| node.name != leader && node.name != controller)
            .or_else(|| {
                running
                    .cluster
                    .of_kind(tests::cluster::Kind::Broker)
                    .find(|node| node.name != leader)
            });
        Ok(follower.map(|node| node.name.clone()).unwrap_or_default())
    })
}

#[test]
fn paused_leader_gives_way_and_truncates_its_tail() -> Result<()> {
    paused("leader", |running| running.leader(TOPIC, 0))
}

#[test]
fn paused_controller_gives_way() -> Result<()> {
    paused("controller", Running::controller)
}
