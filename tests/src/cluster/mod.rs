//! A cluster of real processes on loopback: the coordinators and brokers that tests and
//! `scripts/cluster` start, kill and start again.
//!
//! Called by: the `cluster` command, the end-to-end tests. Calls: `process`, `ports`, `settings`,
//! `status`.
//!
//! Everything known of a cluster is in `cluster.json` in its folder, so that each command finds it
//! again and several clusters live side by side.

pub mod ports;
pub mod process;
pub mod settings;
pub mod status;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use process::Process;

/// A hang guard for anything that waits on a process; it measures nothing.
pub const HANG_GUARD: Duration = Duration::from_secs(60);
const STATE_FILE: &str = "cluster.json";

/// What a process of the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server of the coordinator ensemble.
    Coordinator,
    /// A broker.
    Broker,
}

impl Kind {
    /// The name of its program, and the first part of a node's name.
    pub fn program(self) -> &'static str {
        match self {
            Kind::Coordinator => "coordinator",
            Kind::Broker => "broker",
        }
    }
}

/// Where a node lives when it does not share loopback with the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Its address.
    pub host: Ipv4Addr,
    /// What its program is started by: a program and arguments that end by becoming the one named after them.
    pub launcher: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Place { host: Ipv4Addr::LOCALHOST, launcher: Vec::new() }
    }
}

/// One process of the cluster, running or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// `coordinator-1`, `broker-2`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Server id or broker id, from 1.
    pub id: u32,
    /// Port for clients.
    pub port: u16,
    /// Port for its like: ensemble peers, or the inter-broker listener.
    pub peer_port: u16,
    /// Port of `/live` and `/ready`.
    pub http_port: u16,
    /// Where it lives.
    #[serde(default)]
    pub place: Place,
    /// The process, once it was started.
    pub process: Option<Process>,
}

impl Node {
    /// Address for clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.place.host, self.port)
    }

    /// Whether its process runs.
    pub fn is_alive(&self) -> bool {
        self.process.is_some_and(Process::is_alive)
    }
}

/// What `Cluster::up` makes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the cluster; made when absent.
    pub dir: PathBuf,
    /// Folder of the programs `coordinator` and `broker`.
    pub programs: PathBuf,
    /// Ensemble members: 1 or 3.
    pub coordinators: u32,
    /// Brokers; with none it is an ensemble alone.
    pub brokers: u32,
    /// Settings for every broker beside those that wire the cluster up.
    pub broker_settings: Vec<(String, String)>,
    /// Where each node lives, coordinators first; nodes beyond its end live on loopback.
    pub places: Vec<Place>,
}

/// A cluster in a folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Its folder.
    pub dir: PathBuf,
    programs: PathBuf,
    broker_settings: Vec<(String, String)>,
    /// Every node, coordinators first.
    pub nodes: Vec<Node>,
    /// Time from the first process's start to the last node's readiness, in milliseconds.
    pub ready_ms: u64,
}

impl Cluster {
    /// Starts a new cluster and returns when every node is ready.
    ///
    /// # Errors
    /// When one already lives in the folder, a program is missing, or a node does not come up.
    pub fn up(options: Options) -> Result<Cluster> {
        ensure!(
            matches!(options.coordinators, 1 | 3),
            "an ensemble has 1 or 3 coordinators, not {}",
            options.coordinators
        );
        let state = options.dir.join(STATE_FILE);
        if state.exists() {
            let old = Cluster::load(&options.dir)?;
            ensure!(
                old.nodes.iter().all(|node| !node.is_alive()),
                "a cluster already runs in {}; `scripts/cluster down --dir {}` first",
                options.dir.display(),
                options.dir.display()
            );
            old.down()?;
        }
        fs::create_dir_all(&options.dir)
            .with_context(|| format!("cannot make {}", options.dir.display()))?;
        let dir = options.dir.canonicalize()?;
        let mut cluster = Cluster {
            nodes: plan_nodes(&options, &dir)?,
            dir,
            programs: options.programs,
            broker_settings: options.broker_settings,
            ready_ms: 0,
        };
        let began = Instant::now();
        let started = cluster.start_all();
        if let Err(error) = started {
            cluster.kill_all()?;
            return Err(error);
        }
        cluster.ready_ms = u64::try_from(began.elapsed().as_millis())?;
        cluster.save()?;
        Ok(cluster)
    }

    /// Finds the cluster of a folder again.
    ///
    /// # Errors
    /// When there is none.
    pub fn load(dir: &Path) -> Result<Cluster> {
        let path = dir.join(STATE_FILE);
        let text = fs::read(&path).with_context(|| {
            format!(
                "no cluster in {}; `scripts/cluster up --dir {}` makes one",
                dir.display(),
                dir.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Kills every process and removes the folder.
    ///
    /// # Errors
    /// When a process or a file cannot be removed.
    pub fn down(self) -> Result<()> {
        self.kill_all()?;
        fs::remove_dir_all(&self.dir)
            .with_context(|| format!("cannot remove {}", self.dir.display()))
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none; the error lists the names.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("no node {name}; there are: {}", names.join(" "))
        })
    }

    /// The coordinators, or the brokers.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.kind == kind)
    }

    /// Client addresses of all nodes of a kind, comma-separated.
    pub fn addresses(&self, kind: Kind) -> String {
        self.of_kind(kind).map(Node::address).collect::<Vec<_>>().join(",")
    }

    /// Sends a signal to one node; after `KILL` and `TERM` waits until the process is gone.
    ///
    /// # Errors
    /// When there is no such node or it does not go.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let Some(process) = self.node(name)?.process else { bail!("{name} was never started") };
        process.signal(signal)?;
        if signal == Signal::KILL || signal == Signal::TERM {
            process.wait_gone(HANG_GUARD)?;
        }
        Ok(())
    }

    /// Starts a node that does not run; does not wait until it is ready.
    ///
    /// # Errors
    /// When it runs already or its program cannot be started.
    pub fn start(&mut self, name: &str) -> Result<()> {
        ensure!(!self.node(name)?.is_alive(), "{name} runs already");
        let node = self.node(name)?.clone();
        let home = self.dir.join(&node.name);
        fs::create_dir_all(&home)?;
        let settings = match node.kind {
            Kind::Coordinator => {
                settings::coordinator(&node, self.of_kind(Kind::Coordinator), &home)
            }
            Kind::Broker => settings::broker(
                &node,
                &self.addresses(Kind::Coordinator),
                &home,
                &self.broker_settings,
            ),
        };
        let file = home.join("settings.toml");
        fs::write(&file, settings)?;
        let program = self.programs.join(node.kind.program());
        let mut line = node.place.launcher.clone();
        line.push(program.display().to_string());
        line.extend(["--config".to_string(), file.display().to_string()]);
        let process = Process::start(Path::new(&line[0]), &line[1..], &home.join("out.log"))?;
        if let Some(node) = self.nodes.iter_mut().find(|other| other.name == name) {
            node.process = Some(process);
        }
        self.save()
    }

    /// Waits until a node answers as ready.
    ///
    /// # Errors
    /// When it dies or the hang guard passes; the end of its log is in the error.
    pub fn wait_ready(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let began = Instant::now();
        while !status::is_ready(node) {
            if !node.is_alive() {
                bail!("{name} ended before it was ready:\n{}", self.log_tail(name));
            }
            if began.elapsed() > HANG_GUARD {
                bail!("{name} is not ready after {HANG_GUARD:?}:\n{}", self.log_tail(name));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The last lines that a node printed.
    pub fn log_tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.join(name).join("out.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn start_all(&mut self) -> Result<()> {
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for name in &names {
            self.start(name)?;
        }
        for name in &names {
            self.wait_ready(name)?;
        }
        Ok(())
    }

    fn kill_all(&self) -> Result<()> {
        let processes: Vec<Process> = self.nodes.iter().filter_map(|node| node.process).collect();
        for process in &processes {
            process.signal(Signal::KILL)?;
        }
        processes.iter().try_for_each(|process| process.wait_gone(HANG_GUARD))
    }

    fn save(&self) -> Result<()> {
        let path = self.dir.join(STATE_FILE);
        let unfinished = self.dir.join(format!("{STATE_FILE}.tmp"));
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&unfinished, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn plan_nodes(options: &Options, dir: &Path) -> Result<Vec<Node>> {
    let total = (options.coordinators + options.brokers) as usize;
    let ports = ports::claim_ports(total * 3, dir)?;
    let kinds = [(Kind::Coordinator, options.coordinators), (Kind::Broker, options.brokers)];
    let ids = kinds.into_iter().flat_map(|(kind, count)| (1..=count).map(move |id| (kind, id)));
    let places = options.places.iter().cloned().chain(std::iter::repeat_with(Place::default));
    Ok(ids
        .zip(ports.chunks_exact(3))
        .zip(places)
        .map(|(((kind, id), ports), place)| Node {
            name: format!("{}-{id}", kind.program()),
            kind,
            id,
            port: ports[0],
            peer_port: ports[1],
            http_port: ports[2],
            place,
            process: None,
        })
        .collect())
}
