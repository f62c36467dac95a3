//! Other people's servers, and ours beside them: started on loopback with the defaults of their distributions, ended with
//! the value.
//!
//! Called by: the bench, the end-to-end tests. Calls: `java`, `zookeeper`, `kafka`, and the project's own harness in
//! `ours`. Knows nothing of what is measured or tested.

mod java;
mod kafka;
mod ours;
mod zookeeper;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tests::cluster::process::Process;
use tests::cluster::{Cluster, HANG_GUARD, Kind};

use crate::zookeeper::four_letters;

/// For a server's word on its part: while it looks for a leader it may never answer.
const ROLE_WAIT: Duration = Duration::from_secs(1);

/// The column of ours with its defaults; names of its other columns begin with it.
pub const OURS: &str = "tidegate";

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Ours: brokers and coordinators.
    Tidegate,
    /// Kafka 3.9 with its own ZooKeeper.
    Kafka39,
    /// Kafka 4, each node broker and controller.
    Kafka4,
    /// Apache ZooKeeper alone.
    ZooKeeper,
    /// Our coordinators alone.
    Coordinator,
}

impl Product {
    /// Its column.
    pub fn name(self) -> &'static str {
        match self {
            Product::Tidegate | Product::Coordinator => OURS,
            Product::Kafka39 => "kafka 3.9.2",
            Product::Kafka4 => "kafka 4.3.1",
            Product::ZooKeeper => "zookeeper 3.9.5",
        }
    }

    /// What `--without` calls it.
    pub fn key(self) -> &'static str {
        match self {
            Product::Tidegate | Product::Coordinator => OURS,
            Product::Kafka39 => "kafka39",
            Product::Kafka4 => "kafka4",
            Product::ZooKeeper => "zookeeper",
        }
    }
}

impl Product {
    /// Why it cannot be started here, if it cannot.
    pub fn missing(self) -> Option<String> {
        match self {
            Product::Tidegate | Product::Coordinator => None,
            Product::Kafka39 => java::missing("kafka").or_else(|| java::missing("zookeeper")),
            Product::Kafka4 => java::missing("kafka4"),
            Product::ZooKeeper => java::missing("zookeeper"),
        }
    }
}

/// A started system. Its processes are killed and its folder removed with the value.
pub struct System {
    /// What it is.
    pub product: Product,
    /// Addresses for Kafka's clients, comma-separated; empty for an ensemble alone.
    pub bootstrap: String,
    /// Addresses for ZooKeeper's clients; empty for Kafka 4.
    pub ensemble_addresses: Vec<String>,
    /// The brokers.
    pub brokers: Vec<Process>,
    /// The coordinators or ZooKeeper's servers.
    pub ensemble: Vec<Process>,
    /// From the first spawn to the last node's first useful answer; for Kafka 3.9 its ZooKeeper's time
    /// counted in.
    pub ready_ms: f64,
    /// Held for its end: of ours, by the harness.
    cluster: Option<Cluster>,
    folder: Option<Folder>,
}

/// What all processes of a system hold and have spent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time since their start, in seconds.
    pub cpu_s: f64,
    /// Resident memory in megabytes (2^20 bytes).
    pub resident_mb: f64,
}

impl System {
    /// Nothing started yet; what is put in ends with it.
    fn empty(product: Product, folder: Folder) -> System {
        System {
            product,
            bootstrap: String::new(),
            ensemble_addresses: Vec::new(),
            brokers: Vec::new(),
            ensemble: Vec::new(),
            ready_ms: 0.0,
            cluster: None,
            folder: Some(folder),
        }
    }

    fn folder(&self) -> Result<PathBuf> {
        Ok(self.folder.as_ref().context("the system has no folder")?.0.clone())
    }

    /// Starts `nodes` nodes with their data below `data`.
    ///
    /// # Errors
    /// When a node does not come up or its program is not installed.
    pub fn start(product: Product, nodes: u32, data: &Path) -> Result<System> {
        match product {
            Product::Tidegate => ours::start(nodes, nodes, data),
            Product::Coordinator => ours::start_ensemble(nodes, data),
            Product::Kafka39 => kafka::start_with_zookeeper(nodes, data),
            Product::Kafka4 => kafka::start_alone(nodes, data),
            Product::ZooKeeper => zookeeper::start(nodes, data),
        }
    }

    /// Its column.
    pub fn name(&self) -> &'static str {
        self.product.name()
    }

    /// What brokers and ensemble together have used so far.
    pub fn usage(&self) -> Usage {
        let (brokers, ensemble) = (usage(&self.brokers), usage(&self.ensemble));
        Usage {
            cpu_s: brokers.cpu_s + ensemble.cpu_s,
            resident_mb: brokers.resident_mb + ensemble.resident_mb,
        }
    }

    /// Which part a server of the ensemble says it has: `leader`, `follower`, `standalone`; none while it serves nobody.
    pub fn role(&self, at: usize) -> Option<String> {
        let address = self.ensemble_addresses.get(at)?;
        let answer = four_letters(address, "srvr", ROLE_WAIT)?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_string)
    }

    /// Where our coordinators serve HTTP; nowhere for others.
    pub fn http_addresses(&self) -> Vec<String> {
        let nodes = self.cluster.iter().flat_map(|cluster| cluster.of_kind(Kind::Coordinator));
        nodes.map(|node| format!("{}:{}", node.place.host, node.http_port)).collect()
    }

    /// The data folder of one of ZooKeeper's servers.
    ///
    /// # Errors
    /// When it is another product.
    pub fn zookeeper_data(&self, at: usize) -> Result<PathBuf> {
        Ok(zookeeper::data(&self.folder()?, at))
    }

    /// Starts a server of an ensemble again that was killed, with its data. It may serve nobody yet.
    ///
    /// # Errors
    /// When it cannot be started, or the product has no ensemble of its own.
    pub fn start_again(&mut self, at: usize) -> Result<()> {
        let process = match (self.product, &mut self.cluster) {
            (Product::Coordinator | Product::Tidegate, Some(cluster)) => {
                ours::start_again(cluster, at)?
            }
            (Product::ZooKeeper, _) => zookeeper::start_again(&self.folder()?, at)?,
            _ => bail!("{} has no ensemble to start again", self.name()),
        };
        *self.ensemble.get_mut(at).context("no such server")? = process;
        Ok(())
    }

    /// Kills one node with -9 and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill(process: Process) -> Result<()> {
        process.signal(Signal::KILL)?;
        process.wait_gone(HANG_GUARD)
    }
}

/// How large a heap ZooKeeper is given, as Java is told.
pub fn zookeeper_heap() -> String {
    zookeeper::HEAP.join(" ")
}

/// Memory and CPU of some processes; one that is gone counts as nothing.
pub fn usage(processes: &[Process]) -> Usage {
    processes.iter().filter_map(|process| process.usage()).fold(Usage::default(), |sum, one| {
        Usage {
            cpu_s: sum.cpu_s + one.cpu_s,
            resident_mb: sum.resident_mb + one.resident_kib as f64 / 1024.0,
        }
    })
}

impl Drop for System {
    fn drop(&mut self) {
        for process in self.brokers.iter().chain(&self.ensemble) {
            // Whoever is gone already needs no signal; who cannot be signalled is not ours any more.
            let _ = System::kill(*process);
        }
        if let Some(cluster) = self.cluster.take() {
            let _ = cluster.down();
        }
        self.folder = None;
    }
}

/// A folder that goes with the value.
pub struct Folder(pub std::path::PathBuf);

impl Folder {
    /// A new one below `data`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(data: &Path, name: &str) -> Result<Folder> {
        let path = data.join(format!("tidegate-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind only when the disk refuses, which the next run would tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
