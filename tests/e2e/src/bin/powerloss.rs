//! Cuts the power of all nodes at once, again and again, under load, and asks whether anything acknowledged is gone.
//!
//! Called by: `scripts/powerloss`, which gives every node a disk of its own. Calls: the harness, librdkafka, the checker of histories.
//! Invariant: the power goes while records are being acknowledged; nothing is compared before the last cut is over.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::history;
use e2e::load::{Load, read_all};
use e2e::running::{Running, programs};
use rustix::process::Signal;
use tests::cluster::{Cluster, Kind, Options};

const TOPIC: &str = "power";
const PARTITIONS: i32 = 3;
const PER_S: u32 = 300;
/// Acknowledged between two cuts, at least.
const BETWEEN: usize = 200;

/// Lets the script do to the disks what a power cut does, or its end.
fn power(script: &str, what: &str, dir: &Path) -> Result<()> {
    let status = Command::new(script).arg(what).arg(dir).status()?;
    ensure!(status.success(), "{script} {what} failed");
    Ok(())
}

/// The power goes and comes back: when it had gone.
fn cut(running: &mut Running, script: &str) -> Result<Instant> {
    let dir = running.cluster.dir.clone();
    let names: Vec<String> = running.cluster.nodes.iter().map(|node| node.name.clone()).collect();
    power(script, "off", &dir)?;
    for name in &names {
        if running.cluster.node(name)?.is_alive() {
            running.signal(name, Signal::KILL)?;
        }
    }
    let gone = Instant::now();
    power(script, "on", &dir)?;
    for name in &names {
        running.cluster.start(name)?;
    }
    names.iter().try_for_each(|name| running.cluster.wait_ready(name))?;
    Ok(gone)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().with_context(|| format!("no {what}"));
    let (script, dir, cycles) = (next("script")?, PathBuf::from(next("folder")?), next("cycles")?);
    let cycles: u32 = cycles.parse()?;
    let options = Options {
        dir,
        programs: programs()?,
        coordinators: 3,
        brokers: 3,
        broker_settings: Vec::new(),
        places: Vec::new(),
    };
    // The script owns the folder, and keeps it when this fails.
    let mut running = ManuallyDrop::new(Running { cluster: Cluster::up(options)? });
    running.create_topic(TOPIC, PARTITIONS)?;
    let load = Load::start(&running.bootstrap(), TOPIC, PARTITIONS, PER_S)?;
    for cycle in 1..=cycles {
        load.wait_acknowledged(BETWEEN)?;
        let gone = cut(&mut running, &script)?;
        let again = load.next_acknowledged(gone, None)?;
        println!("cycle {cycle} of {cycles}: acknowledged again after {} ms", again.as_millis());
    }
    load.wait_acknowledged(BETWEEN)?;
    let finished = load.finish()?;
    let held = read_all(&running.bootstrap(), TOPIC, PARTITIONS)?;
    let anomalies = history::check(&finished.sent, &held);
    println!(
        "{} records acknowledged, client errors {:?}",
        finished.acknowledged(),
        finished.errors
    );
    for anomaly in anomalies.iter().take(10) {
        println!("{anomaly}");
    }
    for node in
        running.cluster.of_kind(Kind::Broker).chain(running.cluster.of_kind(Kind::Coordinator))
    {
        if node.is_alive() {
            running.signal(&node.name, Signal::KILL)?;
        }
    }
    ensure!(anomalies.is_empty(), "{} anomalies in {cycles} power cuts", anomalies.len());
    Ok(())
}
