//! A cluster for one test: started in a temporary folder, ended and removed with the value.
//!
//! Called by: the end-to-end tests. A failing test keeps the folder and prints where it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tests::cluster::{Cluster, HANG_GUARD, Kind, Options, status};

use crate::clients;

/// A cluster that ends with the test.
pub struct Running {
    /// The cluster itself.
    pub cluster: Cluster,
}

/// The folder that holds the programs under test: `TIDEGATE_PROGRAMS`, or that of the test itself.
///
/// # Errors
/// When the programs are not there; the error says how to build them.
pub fn programs() -> Result<PathBuf> {
    let folder = match std::env::var_os("TIDEGATE_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let own = std::env::current_exe()?;
            own.ancestors().nth(2).context("the test has no target folder")?.to_path_buf()
        }
    };
    for program in ["coordinator", "broker", "tidegate"] {
        ensure!(
            folder.join(program).exists(),
            "no {program} in {}: `cargo build --release` and set TIDEGATE_PROGRAMS=target/release",
            folder.display()
        );
    }
    Ok(folder.canonicalize()?)
}

/// The `tidegate` command for the cluster of these addresses; `coordinators` may be empty.
///
/// # Errors
/// When it is not built.
pub fn tidegate(bootstrap: &str, coordinators: &str) -> Result<Command> {
    let mut command = Command::new(programs()?.join("tidegate"));
    command.env("TIDEGATE_BOOTSTRAP", bootstrap).env_remove("TIDEGATE_COORDINATOR");
    if !coordinators.is_empty() {
        command.env("TIDEGATE_COORDINATOR", coordinators);
    }
    Ok(command)
}

impl Running {
    /// Starts `coordinators` and `brokers` with `settings` for every broker.
    ///
    /// # Errors
    /// When a node does not come up.
    pub fn start(coordinators: u32, brokers: u32, settings: &[(&str, &str)]) -> Result<Running> {
        let name = format!("tidegate-test-{}-{}", std::process::id(), unique());
        let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        let options = Options {
            dir: std::env::temp_dir().join(name),
            programs: programs()?,
            coordinators,
            brokers,
            broker_settings: settings.iter().map(owned).collect(),
            places: Vec::new(),
        };
        Ok(Running { cluster: Cluster::up(options)? })
    }

    /// Addresses of all brokers.
    pub fn bootstrap(&self) -> String {
        self.cluster.addresses(Kind::Broker)
    }

    /// Addresses of all coordinators.
    pub fn coordinators(&self) -> String {
        self.cluster.addresses(Kind::Coordinator)
    }

    /// Runs the `tidegate` command against this cluster and gives what it printed.
    ///
    /// # Errors
    /// When it fails; its output is in the error.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tidegate(&self.bootstrap(), &self.coordinators())?;
        command.args(arguments);
        clients::run(command, "")
    }

    /// Makes a topic with three replicas (or as many as there are brokers).
    ///
    /// # Errors
    /// When the command fails.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let replicas = self.cluster.of_kind(Kind::Broker).count().min(3).to_string();
        let partitions = partitions.to_string();
        let rest = ["--partitions", &partitions, "--replication-factor", &replicas];
        self.tidegate(&[&["topic", "create", name][..], &rest[..]].concat()).map(|_| ())
    }

    /// Name of the broker that leads a partition now.
    ///
    /// # Errors
    /// When the partition has no leader before the hang guard passes.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<String> {
        self.wait_for("a leader", || {
            let state = self.partition(topic, partition)?;
            Ok(state["leader"].as_i64().filter(|id| *id > 0).map(|id| format!("broker-{id}")))
        })
    }

    /// Ids of the in-sync replicas of a partition.
    ///
    /// # Errors
    /// When the topic cannot be described.
    pub fn in_sync(&self, topic: &str, partition: i32) -> Result<Vec<i64>> {
        let state = self.partition(topic, partition)?;
        let ids = state["isr"].as_array().context("no isr in the description")?;
        Ok(ids.iter().filter_map(serde_json::Value::as_i64).collect())
    }

    /// Name of the broker that is the controller now.
    ///
    /// # Errors
    /// When there is none before the hang guard passes.
    pub fn controller(&self) -> Result<String> {
        self.wait_for("a controller", || {
            let status: serde_json::Value =
                serde_json::from_str(&self.tidegate(&["cluster", "status", "-o", "json"])?)?;
            Ok(status["controller"].as_i64().filter(|id| *id > 0).map(|id| format!("broker-{id}")))
        })
    }

    /// Name of the coordinator that leads the ensemble now.
    ///
    /// # Errors
    /// When there is none before the hang guard passes.
    pub fn coordinator_leader(&self) -> Result<String> {
        self.wait_for("a leader of the ensemble", || {
            let mut all = self.cluster.of_kind(Kind::Coordinator);
            let leads = |role: String| matches!(role.as_str(), "leader" | "standalone");
            let found = all.find(|node| leads(status::coordinator_role(node)));
            Ok(found.map(|node| node.name.clone()))
        })
    }

    /// Sends a signal to a node.
    ///
    /// # Errors
    /// When the node is unknown.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.cluster.signal(name, signal)
    }

    /// Asks until there is an answer; an error counts as "not yet".
    ///
    /// # Errors
    /// When the hang guard passes; the last error and where the logs are is in the error.
    pub fn wait_for<T>(&self, what: &str, ask: impl Fn() -> Result<Option<T>>) -> Result<T> {
        let began = Instant::now();
        loop {
            let answer = ask();
            match answer {
                Ok(Some(found)) => return Ok(found),
                Ok(None) | Err(_) if began.elapsed() < 2 * HANG_GUARD => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(None) => bail!("still waiting for {what}; logs in {}", self.dir().display()),
                Err(error) => {
                    return Err(error.context(format!(
                        "while waiting for {what}; logs in {}",
                        self.dir().display()
                    )));
                }
            }
        }
    }

    /// What is not yet as it should be: a node that is not ready, or one of `partitions` without a leader or a replica in sync of three.
    pub fn missing(&self, topic: &str, partitions: usize) -> Option<String> {
        let unready = self.cluster.nodes.iter().find(|node| !status::is_ready(node));
        if let Some(node) = unready {
            return Some(format!("{} is not ready", node.name));
        }
        let described = match self.tidegate(&["topic", "describe", topic, "-o", "json"]) {
            Ok(text) => text,
            Err(error) => return Some(format!("{error:#}")),
        };
        let found: serde_json::Value = match serde_json::from_str(&described) {
            Ok(found) => found,
            Err(error) => return Some(format!("{described}: {error}")),
        };
        let states = found["partitions"].as_array().cloned().unwrap_or_default();
        let is_whole = |state: &serde_json::Value| {
            state["leader"].as_i64().is_some_and(|leader| leader > 0)
                && state["isr"].as_array().is_some_and(|isr| isr.len() == 3)
        };
        let whole = states.iter().filter(|state| is_whole(state)).count();
        (whole != partitions).then(|| format!("not all in sync: {found}"))
    }

    /// Folder of the cluster.
    pub fn dir(&self) -> &Path {
        &self.cluster.dir
    }

    fn partition(&self, topic: &str, partition: i32) -> Result<serde_json::Value> {
        let described: serde_json::Value =
            serde_json::from_str(&self.tidegate(&["topic", "describe", topic, "-o", "json"])?)?;
        let partitions = described["partitions"].as_array().context("no partitions described")?;
        let found = partitions.iter().find(|state| state["partition"] == partition);
        found.cloned().with_context(|| format!("{topic}-{partition} is not described: {described}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.cluster.nodes.iter().try_for_each(|node| match node.process {
                Some(process) => process.signal(Signal::KILL),
                None => Ok(()),
            });
            eprintln!("logs and data are kept in {}", self.dir().display());
        } else if let Err(error) = self.cluster.clone().down() {
            eprintln!("cannot clean up {}: {error:#}", self.dir().display());
        }
    }
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
