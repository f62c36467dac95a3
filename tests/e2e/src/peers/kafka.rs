//! Apache Kafka 3.9 with its own ZooKeeper, and Kafka 4 without, with their defaults (they do not sync);
//! only that what is deleted goes at once, and that a group's first member waits for no second one.
//!
//! Called by: `peers`. A node counts as ready when it knows all brokers and a controller.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::wire::{Answer, Bytes, send_alone};
use anyhow::Result;
use tests::cluster::ports::claim_ports;
use tests::cluster::process::Process;

use super::java::{self, Program};
use super::zookeeper::start_servers;
use super::{Folder, Product, System};

const HEAP: &[&str] = &["-Xmx1G", "-Xms1G"];
const CLASS: &str = "kafka.Kafka";
const KAFKA_39: Program = Program { jars: "kafka", heap: HEAP, class: CLASS };
const KAFKA_4: Program = Program { jars: "kafka4", heap: HEAP, class: CLASS };
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";

/// Starts Kafka 3.9 with as many ZooKeeper servers as brokers.
///
/// # Errors
/// When a node does not come up.
pub fn start_with_zookeeper(nodes: u32, data: &Path) -> Result<System> {
    let folder = Folder::new(data, "kafka39")?;
    let began = Instant::now();
    let mut system = System::empty(Product::Kafka39, folder);
    start_servers(nodes, &mut system)?;
    let home = system.folder()?;
    let ports = claim_ports(usize::try_from(nodes)?, &home)?;
    let connect = system.ensemble_addresses.join(",");
    let settings = |id: usize, port: u16| {
        format!(
            "broker.id={id}\nlisteners=PLAINTEXT://127.0.0.1:{port}\nzookeeper.connect={connect}\n"
        )
    };
    let homes = write_settings(&home, &ports, settings)?;
    system.bootstrap = addresses(&ports);
    start_all(&KAFKA_39, &homes, &mut system)?;
    wait_all(&system.brokers, &homes, &ports)?;
    system.ready_ms = began.elapsed().as_secs_f64() * 1e3;
    Ok(system)
}

/// Starts Kafka 4, each node broker and controller. Formatting its storage is not counted.
///
/// # Errors
/// When a node does not come up.
pub fn start_alone(nodes: u32, data: &Path) -> Result<System> {
    let folder = Folder::new(data, "kafka4")?;
    let count = usize::try_from(nodes)?;
    let all = claim_ports(count * 2, &folder.0)?;
    let (ports, control) = all.split_at(count);
    let voters: Vec<String> = control
        .iter()
        .enumerate()
        .map(|(at, port)| format!("{}@127.0.0.1:{port}", at + 1))
        .collect();
    let settings = |id: usize, port: u16| {
        format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\nshare.coordinator.state.topic.replication.factor={}\n\
             share.coordinator.state.topic.min.isr={}\n",
            voters.join(","),
            control[id - 1],
            nodes.min(3),
            nodes.min(2)
        )
    };
    let homes = write_settings(&folder.0, ports, settings)?;
    for home in &homes {
        let file = settings_file(home);
        KAFKA_4.run("kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", &file])?;
    }
    let began = Instant::now();
    let mut system = System::empty(Product::Kafka4, folder);
    system.bootstrap = addresses(ports);
    start_all(&KAFKA_4, &homes, &mut system)?;
    wait_all(&system.brokers, &homes, ports)?;
    system.ready_ms = began.elapsed().as_secs_f64() * 1e3;
    Ok(system)
}

fn write_settings(
    folder: &Path,
    ports: &[u16],
    own: impl Fn(usize, u16) -> String,
) -> Result<Vec<PathBuf>> {
    let nodes = ports.len();
    let (replicas, in_sync) = (nodes.min(3), nodes.min(2));
    let write = |(at, port): (usize, &u16)| {
        let home = folder.join(format!("kafka-{}", at + 1));
        std::fs::create_dir_all(&home)?;
        let common = format!(
            "log.dirs={}\nnum.partitions=1\noffsets.topic.replication.factor={replicas}\n\
             transaction.state.log.replication.factor={replicas}\n\
             transaction.state.log.min.isr={in_sync}\ndefault.replication.factor={replicas}\n\
             min.insync.replicas={in_sync}\ngroup.initial.rebalance.delay.ms=0\n\
             log.segment.delete.delay.ms=1000\n",
            home.join("logs").display()
        );
        std::fs::write(settings_file(&home), own(at + 1, *port) + &common)?;
        Ok(home)
    };
    ports.iter().enumerate().map(write).collect()
}

fn settings_file(home: &Path) -> String {
    home.join("server.properties").display().to_string()
}

fn start_all(program: &Program, homes: &[PathBuf], system: &mut System) -> Result<()> {
    for home in homes {
        system.brokers.push(program.start(home, &[&settings_file(home)])?);
    }
    Ok(())
}

fn wait_all(processes: &[Process], homes: &[PathBuf], ports: &[u16]) -> Result<()> {
    for ((process, home), port) in processes.iter().zip(homes).zip(ports) {
        java::wait_ready(*process, home, || knows_all(*port, ports.len()))?;
    }
    Ok(())
}

fn addresses(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// Whether the broker at `port` knows `nodes` brokers and a controller: Metadata v1 for no topic.
fn knows_all(port: u16, nodes: usize) -> bool {
    let body = Bytes::default().i16(3).i16(1).i32(7).i16(-1).i32(0).0;
    let length = i32::try_from(body.len()).unwrap_or_default();
    let frame = Bytes::default().i32(length).raw(&body).0;
    match send_alone(&format!("127.0.0.1:{port}"), &frame) {
        Ok(Answer::Frame(frame)) => read_metadata(&frame).is_some_and(|(brokers, controller)| {
            usize::try_from(brokers).is_ok_and(|brokers| brokers == nodes) && controller >= 0
        }),
        Ok(Answer::Closed) | Err(_) => false,
    }
}

/// Number of brokers and the controller's id.
fn read_metadata(frame: &[u8]) -> Option<(i32, i32)> {
    let number = |at: usize| Some(i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let text = |at: usize| {
        let length = i16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?);
        Some(at + 2 + usize::try_from(length.max(0)).ok()?)
    };
    let brokers = number(4)?;
    let mut at = 8;
    for _ in 0..brokers {
        at = text(at + 4)? + 4;
        at = text(at)?;
    }
    Some((brokers, number(at)?))
}
