//! Ours: release programs, by the same harness as the tests.
//!
//! Called by: `peers`.

use std::path::Path;

use anyhow::{Context, Result};
use tests::cluster::process::Process;
use tests::cluster::{Cluster, Kind, Options};

use super::{Product, System};

/// Starts coordinators and brokers as processes of their own.
///
/// # Errors
/// When a node does not come up.
pub fn start(coordinators: u32, brokers: u32, data: &Path) -> Result<System> {
    // As the other products are set.
    let replicas = ("offsets.topic.replication.factor".to_owned(), brokers.clamp(1, 3).to_string());
    let options = Options {
        dir: data.join(format!("tidegate-bench-ours-{}", std::process::id())),
        programs: crate::running::programs()?,
        coordinators,
        brokers,
        broker_settings: vec![replicas],
        places: Vec::new(),
    };
    let cluster = Cluster::up(options)?;
    let processes = |kind| cluster.of_kind(kind).filter_map(|node| node.process).collect();
    Ok(System {
        product: if brokers == 0 { Product::Coordinator } else { Product::Tidegate },
        bootstrap: cluster.addresses(Kind::Broker),
        ensemble_addresses: cluster.of_kind(Kind::Coordinator).map(|node| node.address()).collect(),
        brokers: processes(Kind::Broker),
        ensemble: processes(Kind::Coordinator),
        ready_ms: cluster.ready_ms as f64,
        cluster: Some(cluster),
        folder: None,
    })
}

/// Starts coordinators alone.
///
/// # Errors
/// When a node does not come up.
pub fn start_ensemble(nodes: u32, data: &Path) -> Result<System> {
    start(nodes, 0, data)
}

/// Starts a coordinator again that was killed.
///
/// # Errors
/// When it cannot be started.
pub fn start_again(cluster: &mut Cluster, at: usize) -> Result<Process> {
    let name = format!("{}-{}", Kind::Coordinator.program(), at + 1);
    cluster.start(&name)?;
    cluster.node(&name)?.process.context("it was started a moment ago")
}
