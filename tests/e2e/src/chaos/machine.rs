//! Carries faults out and heals them.
//!
//! Called by: the `chaos` program. Calls: the harness for processes; the script, which knows namespaces, links and
//! mounts. Invariant: what was struck is healed by `heal`, whatever became of the process meanwhile; a link that two
//! faults cut is whole when both are over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::mem::ManuallyDrop;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::process::Signal;
use tests::cluster::{Cluster, Kind, Options, Place};

use super::plan::{self, Fault, NODES, Strike};
use crate::running::{Running, programs};

/// What fills a disk, beside a node's data.
const FILLER: &str = "filler";
/// What a node's clock is told to add.
const CLOCK_FILE: &str = "clock";

/// The nodes, and what they live on.
pub struct Machine {
    /// The cluster. The script owns its folder, and keeps it when a run fails.
    pub running: ManuallyDrop<Running>,
    script: PathBuf,
    /// How often each link, from and to, is cut just now.
    cuts: BTreeMap<(usize, usize), u32>,
    can_set_clocks: bool,
}

/// What the script prepared.
pub struct Prepared {
    /// The script, to be called back.
    pub script: PathBuf,
    /// Folder of the cluster; each node's disk is mounted in its `data`.
    pub dir: PathBuf,
    /// Address of each node, in the order of the plan.
    pub hosts: Vec<Ipv4Addr>,
    /// A library that gives a process another wall clock, if the machine has one.
    pub clock_library: Option<PathBuf>,
}

impl Machine {
    /// Starts three coordinators and three brokers, each in its namespace and on its disk.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start(prepared: Prepared) -> Result<Machine> {
        ensure!(prepared.hosts.len() == NODES, "{} hosts for {NODES} nodes", prepared.hosts.len());
        let can_set_clocks = prepared.clock_library.is_some();
        let places = (0..NODES).zip(&prepared.hosts).map(|(node, host)| Place {
            host: *host,
            launcher: launcher(&prepared, &plan::name(node)),
        });
        // Small segments roll under the load. No record is too old, whatever a clock says.
        let needed = [
            ("log.segment.bytes", "1048576"),
            ("log.retention.ms", "-1"),
            ("offsets.topic.num.partitions", "5"),
        ];
        let needed = needed.map(|(key, value)| (key.to_string(), value.to_string()));
        let options = Options {
            dir: prepared.dir.clone(),
            programs: programs()?,
            coordinators: 3,
            brokers: 3,
            broker_settings: needed.into(),
            places: places.collect(),
        };
        for node in 0..NODES {
            fs::write(clock_file(&prepared.dir, &plan::name(node)), "+0")?;
        }
        let running = ManuallyDrop::new(Running { cluster: Cluster::up(options)? });
        Ok(Machine { running, script: prepared.script, cuts: BTreeMap::new(), can_set_clocks })
    }

    /// Whether a fault of this kind can be carried out here.
    pub fn can(&self, fault: Fault) -> bool {
        fault != Fault::Clock || self.can_set_clocks
    }

    /// The fault begins.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn strike(&mut self, strike: &Strike) -> Result<()> {
        match strike.fault {
            Fault::Kill | Fault::KillAll => self.signal(strike, Signal::KILL),
            Fault::Stop => self.signal(strike, Signal::TERM),
            Fault::Pause => self.signal(strike, Signal::STOP),
            Fault::OneWay => self.cut(&strike.struck, &strike.others),
            Fault::Partition => {
                self.cut(&strike.struck, &strike.others)?;
                self.cut(&strike.others, &strike.struck)
            }
            Fault::Slow => self.each(strike, |machine, node| machine.call("slow", &[node])),
            Fault::Clock => {
                let jump = format!("{:+}", strike.jump_s);
                self.each(strike, |machine, node| machine.set_clock(node, &jump))
            }
            Fault::DiskFull => self.each(strike, |machine, node| fill(&machine.disk(node))),
            Fault::DiskError => self.each(strike, |machine, node| {
                machine.call("disk-off", &[&machine.disk(node).display().to_string()])
            }),
        }
    }

    /// The fault is over: what ended by it is started again.
    ///
    /// # Errors
    /// When the machine refuses, or a process that was told to stop does not.
    pub fn heal(&mut self, strike: &Strike) -> Result<()> {
        match strike.fault {
            Fault::Kill | Fault::KillAll => self.start_all(strike),
            Fault::Stop => {
                for node in &strike.struck {
                    self.wait_gone(&plan::name(*node))?;
                }
                self.start_all(strike)
            }
            Fault::Pause => self.signal(strike, Signal::CONT),
            Fault::OneWay => self.join(&strike.struck, &strike.others),
            Fault::Partition => {
                self.join(&strike.struck, &strike.others)?;
                self.join(&strike.others, &strike.struck)
            }
            Fault::Slow => self.each(strike, |machine, node| machine.call("fast", &[node])),
            Fault::Clock => self.each(strike, |machine, node| machine.set_clock(node, "+0")),
            Fault::DiskFull => {
                self.each(strike, |machine, node| {
                    Ok(fs::remove_file(machine.disk(node).join(FILLER))?)
                })?;
                self.start_all(strike)
            }
            Fault::DiskError => {
                self.signal(strike, Signal::KILL)?;
                self.each(strike, |machine, node| {
                    machine.call("disk-on", &[&machine.disk(node).display().to_string()])
                })?;
                self.start_all(strike)
            }
        }
    }

    /// Starts whatever does not run, as who looks after a cluster would: a process that ended by itself too.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_dead(&mut self) -> Result<Vec<String>> {
        let nodes = self.running.cluster.nodes.iter().filter(|node| !node.is_alive());
        let dead: Vec<String> = nodes.map(|node| node.name.clone()).collect();
        dead.iter().try_for_each(|name| self.running.cluster.start(name))?;
        Ok(dead)
    }

    /// Ends every process at once.
    ///
    /// # Errors
    /// When one does not go.
    pub fn kill_all(&self) -> Result<()> {
        for node in &self.running.cluster.nodes {
            if node.is_alive() {
                self.running.signal(&node.name, Signal::KILL)?;
            }
        }
        Ok(())
    }

    /// Memory of each process that runs, in KiB.
    pub fn resident_kib(&self) -> Vec<(Kind, u64)> {
        let nodes = self.running.cluster.nodes.iter();
        nodes.filter_map(|node| Some((node.kind, node.process?.usage()?.resident_kib))).collect()
    }

    /// The disk of a node.
    pub fn disk(&self, node: &str) -> PathBuf {
        self.running.cluster.dir.join(node).join("data")
    }

    fn each(&self, strike: &Strike, act: impl Fn(&Machine, &str) -> Result<()>) -> Result<()> {
        strike.struck.iter().try_for_each(|node| act(self, &plan::name(*node)))
    }

    /// Without waiting: `wait_gone` does. Only after kill -9 it is certain to end at once.
    fn signal(&self, strike: &Strike, signal: Signal) -> Result<()> {
        self.each(strike, |machine, name| {
            let node = machine.running.cluster.node(name)?;
            let process = node.process.context("a node that was never started")?;
            process.signal(signal)?;
            if signal == Signal::KILL { machine.wait_gone(name) } else { Ok(()) }
        })
    }

    fn wait_gone(&self, name: &str) -> Result<()> {
        let process = self.running.cluster.node(name)?.process;
        process.map_or(Ok(()), |process| process.wait_gone(tests::cluster::HANG_GUARD))
    }

    fn start_all(&mut self, strike: &Strike) -> Result<()> {
        for node in &strike.struck {
            let name = plan::name(*node);
            if !self.running.cluster.node(&name)?.is_alive() {
                self.running.cluster.start(&name)?;
            }
        }
        Ok(())
    }

    fn cut(&mut self, from: &[usize], to: &[usize]) -> Result<()> {
        for link in links(from, to) {
            let cuts = self.cuts.entry(link).or_default();
            *cuts += 1;
            if *cuts == 1 {
                self.call("cut", &[&plan::name(link.0), &plan::name(link.1)])?;
            }
        }
        Ok(())
    }

    fn join(&mut self, from: &[usize], to: &[usize]) -> Result<()> {
        for link in links(from, to) {
            let Some(cuts) = self.cuts.get_mut(&link) else { bail!("{link:?} was never cut") };
            *cuts -= 1;
            if *cuts == 0 {
                self.call("join", &[&plan::name(link.0), &plan::name(link.1)])?;
            }
        }
        Ok(())
    }

    fn set_clock(&self, node: &str, add: &str) -> Result<()> {
        // In place of the old one at once: half a line would be some other time.
        let path = clock_file(&self.running.cluster.dir, node);
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, add)?;
        Ok(fs::rename(&unfinished, &path)?)
    }

    fn call(&self, what: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.script);
        let output = command.arg(what).args(arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what} {arguments:?} failed: {errors}");
        Ok(())
    }
}

fn links(from: &[usize], to: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    from.iter().flat_map(move |from| to.iter().map(move |to| (*from, *to)))
}

fn clock_file(dir: &Path, node: &str) -> PathBuf {
    dir.join(node).join(CLOCK_FILE)
}

/// Puts a program into the namespace of its node. Only the wall clock is another one: time that is measured goes on.
fn launcher(prepared: &Prepared, node: &str) -> Vec<String> {
    let mut line = vec!["nsenter".to_string(), format!("--net=/run/netns/{node}")];
    if let Some(library) = &prepared.clock_library {
        let file = clock_file(&prepared.dir, node);
        line.extend([
            "env".to_string(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_CACHE_DURATION=1".to_string(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_string(),
            "NO_FAKE_STAT=1".to_string(),
        ]);
    }
    line
}

/// Leaves no byte free on a disk.
fn fill(disk: &Path) -> Result<()> {
    let free = statvfs(disk)?;
    let mut filler = File::create(disk.join(FILLER))?;
    // Most of it at once, without writing it; some blocks go to the file system's own needs.
    let most = (free.f_bavail * free.f_frsize).saturating_sub(1 << 20);
    if most > 0 {
        fallocate(&filler, FallocateFlags::empty(), 0, most)?;
    }
    let mut end = File::options().append(true).open(disk.join(FILLER))?;
    while end.write_all(&[0; 4096]).is_ok() {}
    // A full disk refuses this too, and the file is there to stay until it is removed.
    let _ = filler.flush();
    Ok(())
}
