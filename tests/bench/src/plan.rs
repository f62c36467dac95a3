//! Which parts run on which systems, and in which order.
//!
//! Called by: `main`. Calls: every part. Invariant: a system that cannot be started or measured leaves a
//! remark, never a figure, and does not stop the others.

mod ensembles;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use e2e::peers::{OURS, Product, System};

use crate::report::{Report, Table};
use crate::throughput::Work;
use crate::{failover, floor, latency, machine, start, throughput};

/// How much work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// Every part, short: at most 25 minutes on two quiet cores
    Smoke,
    /// Every part with more rounds: some two hours
    Full,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The bare loop
    Floor,
    /// One node: start to serving, idle memory, throughput with one replica
    Single,
    /// Three nodes: throughput with three replicas
    Replicated,
    /// Three nodes: end-to-end latency at fixed rates
    Latency,
    /// Three nodes: a killed leader
    Failover,
    /// Coordinator and ZooKeeper, one node and three: all that follows
    Coordinator,
    /// Coordinator and ZooKeeper: creates, sets, gets
    CoordinatorRates,
    /// Coordinator and ZooKeeper: from a set to its watchers
    CoordinatorWatches,
    /// Coordinator and ZooKeeper: from a client's end to its ephemerals'
    CoordinatorDeaths,
    /// Coordinator and ZooKeeper: the leader of three is killed
    CoordinatorLeader,
    /// Coordinator and ZooKeeper: memory and snapshots with many znodes
    CoordinatorZnodes,
}

const PARTS: [Part; 6] =
    [Part::Floor, Part::Single, Part::Replicated, Part::Latency, Part::Failover, Part::Coordinator];
const KAFKAS: [Product; 3] = [Product::Tidegate, Product::Kafka39, Product::Kafka4];
const WARM_UP_RECORDS: u64 = 10_000_000;
const RATES: [u64; 2] = [5_000, 20_000];
const COLD_S: u64 = 15;
/// What a system writes in the rounds of a row of 1 KiB, all replicas together, is at most that.
const LARGE_BYTES_MAX: u64 = 4_000_000_000;
const MEMORY: (&str, &[(&str, &str)]) = (" memory", &[("durability", "memory")]);

/// One run of the benchmark.
pub struct Run {
    size: Size,
    parts: Vec<Part>,
    without: Vec<String>,
    rows: String,
    data: PathBuf,
}

impl Run {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// When a system to leave out is not known, no row of the coordinator's is called like `rows`, or the folder for
    /// the data is not there.
    pub fn new(
        size: Size,
        only: Vec<Part>,
        without: Vec<String>,
        rows: String,
        data: PathBuf,
    ) -> Result<Run> {
        let known = [OURS, "kafka39", "kafka4", "zookeeper"];
        for name in &without {
            ensure!(known.contains(&name.as_str()), "no system {name}; there are: {known:?}");
        }
        let run = Run { size, parts: Vec::new(), without, rows, data: PathBuf::new() };
        ensure!(!run.works().is_empty(), "the coordinator has no row that contains {:?}", run.rows);
        let parts = if only.is_empty() { PARTS.to_vec() } else { only };
        let data = data.canonicalize().with_context(|| format!("no folder {}", data.display()))?;
        Ok(Run { parts, data, ..run })
    }

    /// Measures everything that was asked for.
    ///
    /// # Errors
    /// When the machine itself cannot be measured; what a system fails at becomes a remark.
    pub fn measure(&self) -> Result<Report> {
        let began = Instant::now();
        let machine = machine::describe(&self.data)?;
        let mut report = Report { machine, ..Report::default() };
        if self.wants(Part::Floor) {
            self.stage(began, "floor");
            match floor::measure(&self.data) {
                Ok(table) => report.tables.push(table),
                Err(error) => remark(&mut report.remarks, format!("floor: {error:#}")),
            }
        }
        if self.wants(Part::Single) {
            self.stage(began, "one node");
            self.single(&mut report);
        }
        if [Part::Replicated, Part::Latency, Part::Failover].into_iter().any(|p| self.wants(p)) {
            self.three_nodes(&mut report, began);
        }
        self.ensembles(&mut report, began);
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        report.machine.push(format!("the run took {minutes:.1} minutes"));
        Ok(report)
    }

    fn stage(&self, began: Instant, name: &str) {
        println!("[{:4.0} s] {name}", began.elapsed().as_secs_f64());
    }

    fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    fn rounds(&self) -> u64 {
        if self.size == Size::Smoke { 3 } else { 7 }
    }

    fn start(&self, product: Product, nodes: u32, remarks: &mut Vec<String>) -> Option<System> {
        if self.without.iter().any(|without| without == product.key()) {
            return None;
        }
        let started = System::start(product, nodes, &self.data);
        started.inspect_err(|error| remark(remarks, format!("{}: {error:#}", product.name()))).ok()
    }

    /// What can be warmed up; the others leave a remark.
    fn warm(&self, systems: Vec<System>, replicas: i32, remarks: &mut Vec<String>) -> Vec<System> {
        let warm = |system: &System| match throughput::warm_up(system, replicas, WARM_UP_RECORDS) {
            Ok(()) => true,
            Err(error) => {
                remark(remarks, format!("warm-up of {}: {error:#}", system.name()));
                false
            }
        };
        let mut systems = systems;
        systems.retain(warm);
        systems
    }

    fn throughput(&self, systems: &[System], replicas: i32, report: &mut Report) {
        let acks = if replicas == 1 { "1" } else { "-1" };
        let rounds = self.rounds();
        let copies = u64::try_from(replicas).unwrap_or(1) * rounds;
        let large = (LARGE_BYTES_MAX / 1024 / copies).min(500_000);
        for (size, count) in [(100, 3_000_000), (1024, large)] {
            let work = Work { size, count, replicas, acks };
            let rounds = usize::try_from(rounds).unwrap_or(1);
            report.tables.push(throughput::measure(systems, &work, rounds));
        }
    }

    fn single(&self, report: &mut Report) {
        let mut table = start::table("one node");
        let start = |product: &Product| self.start(*product, 1, &mut report.remarks);
        let systems: Vec<System> = KAFKAS.iter().filter_map(start).collect();
        std::thread::sleep(start::SETTLE);
        for system in &systems {
            start::record_start(&mut table, system);
            start::record_memory(&mut table, system, "idle");
        }
        let systems = self.warm(systems, 1, &mut report.remarks);
        self.throughput(&systems, 1, report);
        for system in &systems {
            start::record_memory(&mut table, system, "after load");
        }
        report.tables.push(table);
    }

    fn three_nodes(&self, report: &mut Report, began: Instant) {
        let (mut table, mut delays) = (start::table("three nodes"), latency::table());
        let mut systems = Vec::new();
        for product in KAFKAS {
            self.stage(began, &format!("three nodes: start of {}", product.name()));
            systems.extend(self.start_cold(product, (&mut table, &mut delays), report));
        }
        if self.wants(Part::Replicated) || self.wants(Part::Latency) {
            self.stage(began, "three nodes: warm-up");
            systems = self.warm(systems, 3, &mut report.remarks);
        }
        if self.wants(Part::Replicated) {
            self.stage(began, "three nodes: throughput");
            self.throughput(&systems, 3, report);
        }
        let mut failovers = failover::table();
        // Each ends when it is through; so that ours, the first, has most others idling beside it.
        for system in systems {
            if self.wants(Part::Latency) {
                self.stage(began, &format!("three nodes: latency of {}", system.name()));
                self.warm_latency(&system, &mut delays);
            }
            if self.wants(Part::Replicated) || self.wants(Part::Latency) {
                start::record_memory(&mut table, &system, "after load");
            }
            if self.wants(Part::Failover) {
                self.stage(began, &format!("three nodes: failover of {}", system.name()));
                if let Err(error) = failover::measure(&mut failovers, &system) {
                    remark(
                        &mut report.remarks,
                        format!("failover of {}: {error:#}", system.name()),
                    );
                }
            }
        }
        report.tables.extend([table, delays, failovers].into_iter().filter(|t| !t.is_empty()));
    }

    /// Starts a system; where latency is wanted twice, so that each rate has the first seconds of a fresh one.
    fn start_cold(
        &self,
        product: Product,
        (table, delays): (&mut Table, &mut Table),
        report: &mut Report,
    ) -> Option<System> {
        let mut last = None;
        let rates: &[u64] = if self.wants(Part::Latency) { &RATES } else { &RATES[..1] };
        for rate in rates {
            // The former one ends before the next begins.
            drop(last.take());
            let system = self.start(product, 3, &mut report.remarks)?;
            if self.wants(Part::Latency) {
                let when = "first 15 s after a start";
                let work = latency::Work { when, rate: *rate, seconds: COLD_S, config: ("", &[]) };
                latency::measure(delays, &system, work);
            }
            last = Some(system);
        }
        if let Some(system) = &last {
            start::record_start(table, system);
        }
        last
    }

    fn warm_latency(&self, system: &System, table: &mut Table) {
        let seconds = if self.size == Size::Smoke { COLD_S } else { 60 };
        let is_ours = system.product == Product::Tidegate;
        for config in [("", &[][..]), MEMORY].into_iter().take(if is_ours { 2 } else { 1 }) {
            for rate in RATES {
                let work = latency::Work { when: "warm", rate, seconds, config };
                latency::measure(table, system, work);
            }
        }
    }
}

fn remark(remarks: &mut Vec<String>, text: String) {
    eprintln!("    {text}");
    remarks.push(text.replace('\n', " "));
}
