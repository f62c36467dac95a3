//! Which parts run on which systems, and in which order.
//!
//! Called by: `main`. Calls: every part. Invariant: a system that cannot be started or measured leaves a
//! remark, never a figure, and does not stop the others.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::peers::{OURS, Product, System};
use crate::report::{Report, Table};
use crate::throughput::Work;
use crate::{ensemble, failover, floor, latency, machine, start, throughput};

/// How much work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Every part, short: about 20 minutes on two cores
    Smoke,
    /// Every part with more rounds: about an hour
    Full,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The bare loop and the disk
    Floor,
    /// Start to serving, idle memory, one replica
    Single,
    /// Throughput with three replicas
    Replicated,
    /// End-to-end latency at fixed rates
    Latency,
    /// A killed leader
    Failover,
    /// Coordinator and ZooKeeper
    Coordinator,
}

const PARTS: [Part; 6] =
    [Part::Floor, Part::Single, Part::Replicated, Part::Latency, Part::Failover, Part::Coordinator];
const KAFKAS: [Product; 3] = [Product::Tidegate, Product::Kafka39, Product::Kafka4];
const ENSEMBLES: [Product; 2] = [Product::Coordinator, Product::ZooKeeper];
const WARM_UP_RECORDS: u64 = 10_000_000;
/// A system's share of the disk for the rows of 1 KiB, all replicas together, is at most 4 GB.
const LARGE_BYTES_MAX: u64 = 4_000_000_000;

/// One run of the benchmark.
pub struct Run {
    size: Size,
    parts: Vec<Part>,
    without: Vec<String>,
    data: PathBuf,
}

impl Run {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// When a system to leave out is not known.
    pub fn new(size: Size, only: Vec<Part>, without: Vec<String>, data: PathBuf) -> Result<Run> {
        let known = [OURS, "kafka39", "kafka4", "zookeeper"];
        for name in &without {
            ensure!(known.contains(&name.as_str()), "no system {name}; there are: {known:?}");
        }
        let parts = if only.is_empty() { PARTS.to_vec() } else { only };
        Ok(Run { size, parts, without, data })
    }

    /// Measures everything that was asked for.
    ///
    /// # Errors
    /// When the machine itself cannot be measured; what a system fails at becomes a remark.
    pub fn measure(&self) -> Result<Report> {
        let machine = machine::describe(&self.data)?;
        let mut report = Report { machine, ..Report::default() };
        for (at, part) in self.parts.iter().enumerate() {
            println!("[{}/{}] {part:?}", at + 1, self.parts.len());
            let measured = match part {
                Part::Floor => floor::measure(&self.data).map(|table| vec![table]),
                Part::Single => self.single(&mut report.remarks),
                Part::Replicated => self.replicated(&mut report.remarks),
                Part::Latency => self.latency(&mut report.remarks),
                Part::Failover => self.failover(&mut report.remarks),
                Part::Coordinator => self.coordinator(&mut report.remarks),
            };
            match measured {
                Ok(tables) => report.tables.extend(tables),
                Err(error) => remark(&mut report.remarks, format!("{part:?}: {error:#}")),
            }
        }
        Ok(report)
    }

    fn rounds(&self) -> usize {
        if self.size == Size::Smoke { 3 } else { 7 }
    }

    fn seconds(&self) -> u64 {
        if self.size == Size::Smoke { 15 } else { 60 }
    }

    fn start(&self, products: &[Product], nodes: u32, remarks: &mut Vec<String>) -> Vec<System> {
        let wanted =
            products.iter().filter(|product| !self.without.iter().any(|w| w == product.key()));
        let started = wanted.filter_map(|product| {
            System::start(*product, nodes, &self.data)
                .inspect_err(|error| remark(remarks, format!("{}: {error:#}", product.name())))
                .ok()
        });
        started.collect()
    }

    fn single(&self, remarks: &mut Vec<String>) -> Result<Vec<Table>> {
        let systems = self.start(&KAFKAS, 1, remarks);
        let idle = start::measure(&systems, "Start and idle memory, one node")?;
        throughput::warm_up(&systems, 1, WARM_UP_RECORDS)?;
        let small = Work { size: 100, count: 3_000_000, replicas: 1, acks: "1" };
        let large = Work { size: 1024, count: 1_000_000, replicas: 1, acks: "1" };
        let mut tables = vec![idle];
        for work in [small, large] {
            tables.push(throughput::measure(&systems, &work, self.rounds())?);
        }
        Ok(tables)
    }

    fn replicated(&self, remarks: &mut Vec<String>) -> Result<Vec<Table>> {
        let systems = self.start(&KAFKAS, 3, remarks);
        let idle = start::measure(&systems, "Start and idle memory, three nodes")?;
        throughput::warm_up(&systems, 3, WARM_UP_RECORDS)?;
        let small = Work { size: 100, count: 3_000_000, replicas: 3, acks: "-1" };
        let large =
            Work { size: 1024, count: LARGE_BYTES_MAX / 1024 / 3 / 2, replicas: 3, acks: "-1" };
        let mut tables = vec![idle];
        for work in [small, large] {
            tables.push(throughput::measure(&systems, &work, self.rounds())?);
        }
        Ok(tables)
    }

    fn latency(&self, remarks: &mut Vec<String>) -> Result<Vec<Table>> {
        let mut table = latency::table();
        for product in KAFKAS {
            // One at a time: what else runs on the machine would be in the tail.
            let Some(system) = self.start(&[product], 3, remarks).pop() else { continue };
            let seconds = self.seconds();
            latency::measure(&mut table, &system, "first seconds after a start", 20_000, seconds)?;
            throughput::warm_up(std::slice::from_ref(&system), 3, WARM_UP_RECORDS)?;
            for rate in [5_000, 20_000] {
                latency::measure(&mut table, &system, "warm", rate, seconds)?;
            }
        }
        Ok(vec![table])
    }

    fn failover(&self, remarks: &mut Vec<String>) -> Result<Vec<Table>> {
        let mut table = failover::table();
        let times = if self.size == Size::Smoke { 1 } else { 3 };
        for product in KAFKAS {
            for _ in 0..times {
                let Some(system) = self.start(&[product], 3, remarks).pop() else { continue };
                if let Err(error) = failover::measure(&mut table, &system) {
                    remark(remarks, format!("failover of {}: {error:#}", system.name()));
                }
            }
        }
        Ok(vec![table])
    }

    fn coordinator(&self, remarks: &mut Vec<String>) -> Result<Vec<Table>> {
        let time = Duration::from_secs(if self.size == Size::Smoke { 4 } else { 15 });
        let mut tables = Vec::new();
        for nodes in [1, 3] {
            let systems = self.start(&ENSEMBLES, nodes, remarks);
            tables.push(ensemble::measure(&systems, nodes, time)?);
        }
        Ok(tables)
    }
}

fn remark(remarks: &mut Vec<String>, text: String) {
    eprintln!("    {text}");
    remarks.push(text.replace('\n', " "));
}
