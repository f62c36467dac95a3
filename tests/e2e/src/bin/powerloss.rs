//! Cuts the power of all nodes at once, again and again, under load, and asks whether anything acknowledged is gone.
//!
//! Called by: `scripts/powerloss`, which gives every node a disk of its own. Calls: the harness, librdkafka, the checker of histories.
//! Invariant: the power goes while records are being acknowledged, from all nodes in one moment; nothing is compared before the last cut is
//! over.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chaos::{LIVENESS_BOUND, verdict};
use e2e::history;
use e2e::load::{Load, read_all};
use e2e::running::{Running, programs};
use e2e::trace::Trace;
use rustix::process::Signal;
use tests::cluster::{Cluster, Kind, Options};

const TOPIC: &str = "power";
const PARTITIONS: u16 = 3;
const PER_S: u32 = 300;
/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// Acknowledged between two cuts, at least.
const BETWEEN: usize = 200;

/// Lets the script do to the disks what a power cut does, or its end.
fn power(script: &str, what: &str, dir: &Path) -> Result<()> {
    let status = Command::new(script).arg(what).arg(dir).status()?;
    ensure!(status.success(), "{script} {what} failed");
    Ok(())
}

/// Stops every node, so that nothing of it runs on while its disk goes: all end in one moment, as with the power.
///
/// A filesystem that is shut down below a sync under way can call it done: the kernel drops what the sync waits for, and does not look at
/// why it is gone. A process that ran on would acknowledge records that no disk has.
fn stop_all(running: &Running, names: &[String]) -> Result<()> {
    for name in names {
        running.signal(name, Signal::STOP)?;
    }
    for name in names {
        let Some(process) = running.cluster.node(name)?.process else { continue };
        let began = Instant::now();
        while let Some(state) = running_thread(process.pid) {
            ensure!(began.elapsed() < LIVENESS_BOUND, "{name} does not stop: a thread is {state}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// The state of a thread of the process that may still run code of its own: it is not stopped (T), not inside the kernel for a disk (D) and
/// not at its end (Z, X). None when there is no such thread, or no process.
fn running_thread(pid: i32) -> Option<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let states = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        // The name before it stands in brackets, and may hold some itself.
        stat.rsplit_once(") ")?.1.chars().next()
    });
    states.into_iter().find(|state| !"TDZX".contains(*state))
}

/// The power goes and comes back: when it had gone.
fn cut(running: &mut Running, script: &str) -> Result<Instant> {
    let dir = running.cluster.dir.clone();
    let names: Vec<String> = running.cluster.nodes.iter().map(|node| node.name.clone()).collect();
    stop_all(running, &names)?;
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

/// Every node is ready and every replica in sync within the bound.
fn wait_whole(running: &Running) -> Result<()> {
    let began = Instant::now();
    while let Some(missing) = running.missing(TOPIC, PARTITIONS.into()) {
        ensure!(began.elapsed() < LIVENESS_BOUND, "liveness: {missing} after {LIVENESS_BOUND:?}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// What logs and replicas tell once every process is ended. That disks fail is what a cut does; that they are damaged is not.
fn judge_files(running: &Running) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for node in &running.cluster.nodes {
        // A log lies on the disk that loses its power: what it has not synced may be missing, or garbled.
        let log = std::fs::read(running.dir().join(&node.name).join("out.log"))?;
        let found = verdict::of_log(&log, std::slice::from_ref(&(0..usize::MAX)));
        findings.extend(found.into_iter().map(|line| format!("{}: {line}", node.name)));
    }
    let brokers = running.cluster.of_kind(Kind::Broker);
    let disks: Vec<PathBuf> =
        brokers.map(|node| running.dir().join(&node.name).join("data")).collect();
    findings.extend(verdict::of_replicas(&disks, TOPIC, PARTITIONS.into())?);
    Ok(findings)
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
    running.create_topic(TOPIC, PARTITIONS.into())?;
    let trace = Trace::create(&running.dir().join("producer.log"))?;
    let kind = (PARTITIONS.into(), PER_S);
    let load = Load::start_traced(&running.bootstrap(), TOPIC, kind, Some(trace))?;
    for cycle in 1..=cycles {
        load.wait_acknowledged(BETWEEN)?;
        let gone = cut(&mut running, &script)?;
        let again = load.next_acknowledged(gone, None)?;
        println!("cycle {cycle} of {cycles}: acknowledged again after {} ms", again.as_millis());
        // One cut in five comes while replicas still catch up from the one before.
        if cycle % 5 != 0 {
            wait_whole(&running)?;
        }
    }
    load.wait_acknowledged(BETWEEN)?;
    let finished = load.finish()?;
    let held = read_all(&running.bootstrap(), TOPIC, PARTITIONS.into())?;
    wait_whole(&running)?;
    let mut anomalies: Vec<String> =
        history::check(&finished.sent, &held).iter().map(ToString::to_string).collect();
    println!(
        "{} records acknowledged, client errors {:?}",
        finished.acknowledged(),
        finished.errors
    );
    for node in
        running.cluster.of_kind(Kind::Broker).chain(running.cluster.of_kind(Kind::Coordinator))
    {
        if node.is_alive() {
            running.signal(&node.name, Signal::KILL)?;
        }
    }
    anomalies.extend(judge_files(&running)?);
    for anomaly in anomalies.iter().take(10) {
        println!("{anomaly}");
    }
    ensure!(anomalies.is_empty(), "{} anomalies in {cycles} power cuts", anomalies.len());
    Ok(())
}
