//! The parts that are about the coordinator and ZooKeeper alone.
//!
//! Called by: `plan`. Calls: those parts. Both systems of a size run side by side, one at work and the other idle.

use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::peers::{Product, System};

use super::{Part, Run, Size, remark};
use crate::plot::{Line, Plot};
use crate::report::{Report, Table};
use crate::{deaths, ensemble, leader_loss, watchers, znodes};

const ENSEMBLES: [Product; 2] = [Product::Coordinator, Product::ZooKeeper];
const NODES: [u32; 2] = [1, 3];
/// As many znodes as a short run makes, and a long one.
const ZNODES_MAX: (usize, usize) = (100_000, 1_000_000);

impl Run {
    /// What is measured of the coordinator's rates.
    pub(super) fn works(&self) -> Vec<ensemble::Work> {
        let mut works = ensemble::works(self.size == Size::Full);
        works.retain(|work| work.label().contains(&self.rows));
        works
    }

    /// Measures what is wanted of them.
    pub(super) fn ensembles(&self, report: &mut Report, began: Instant) {
        if self.wants_of_ensembles(Part::CoordinatorRates) {
            for nodes in NODES {
                self.stage(began, &format!("coordinator: rates, {nodes} nodes"));
                self.rates(report, nodes);
            }
        }
        let is_about_clients =
            [Part::CoordinatorWatches, Part::CoordinatorDeaths].map(|p| self.wants_of_ensembles(p));
        if is_about_clients.contains(&true) {
            for nodes in NODES {
                self.stage(began, &format!("coordinator: watches and deaths, {nodes} nodes"));
                self.watches_and_deaths(report, nodes);
            }
        }
        if self.wants_of_ensembles(Part::CoordinatorLeader) {
            self.stage(began, "coordinator: the leader is killed");
            self.leader_loss(report);
        }
        if self.wants_of_ensembles(Part::CoordinatorZnodes) {
            self.many_znodes(report, began);
        }
    }

    /// Who names the whole part and some rows wants the rates.
    fn wants_of_ensembles(&self, part: Part) -> bool {
        let of_all = part == Part::CoordinatorRates || self.rows.is_empty();
        self.wants(part) || (self.wants(Part::Coordinator) && of_all)
    }

    /// How many times the least work is done.
    fn effort(&self) -> usize {
        if self.size == Size::Smoke { 1 } else { 5 }
    }

    fn start_ensembles(&self, report: &mut Report, nodes: u32) -> Vec<System> {
        let start = |product: &Product| self.start(*product, nodes, &mut report.remarks);
        ENSEMBLES.iter().filter_map(start).collect()
    }

    fn rates(&self, report: &mut Report, nodes: u32) {
        let time = Duration::from_secs(if self.size == Size::Smoke { 3 } else { 10 });
        let systems = self.start_ensembles(report, nodes);
        match ensemble::measure(&systems, nodes, time, &self.works()) {
            Ok(table) => keep(report, table),
            Err(error) => remark(&mut report.remarks, format!("{nodes} nodes: {error:#}")),
        }
    }

    fn watches_and_deaths(&self, report: &mut Report, nodes: u32) {
        type Measure = fn(&mut Table, &System, usize) -> Result<()>;
        let effort = self.effort();
        let systems = self.start_ensembles(report, nodes);
        let parts: [(Part, Table, Measure); 2] = [
            (Part::CoordinatorWatches, watchers::table(nodes, effort), watchers::measure),
            (Part::CoordinatorDeaths, deaths::table(nodes, effort), deaths::measure),
        ];
        for (part, mut table, measure) in parts {
            if !self.wants_of_ensembles(part) {
                continue;
            }
            for system in &systems {
                if let Err(error) = measure(&mut table, system, effort) {
                    let about = format!("{part:?}, {nodes} nodes of {}", system.name());
                    remark(&mut report.remarks, format!("{about}: {error:#}"));
                }
            }
            keep(report, table);
        }
    }

    /// One system at a time: nobody else's election is beside it.
    fn leader_loss(&self, report: &mut Report) {
        let rounds = if self.size == Size::Smoke { 3 } else { 10 };
        let mut table = leader_loss::table(rounds);
        for product in ENSEMBLES {
            let Some(mut system) = self.start(product, 3, &mut report.remarks) else { continue };
            if let Err(error) = leader_loss::measure(&mut table, &mut system, rounds) {
                let about = format!("the leader's death of {}", system.name());
                remark(&mut report.remarks, format!("{about}: {error:#}"));
            }
        }
        keep(report, table);
    }

    /// One system at a time, so that its memory is its own.
    fn many_znodes(&self, report: &mut Report, began: Instant) {
        let limit = if self.size == Size::Smoke { ZNODES_MAX.0 } else { ZNODES_MAX.1 };
        let counts = znodes::counts(limit);
        let mut lines = Vec::new();
        for nodes in NODES {
            self.stage(began, &format!("coordinator: many znodes, {nodes} nodes"));
            let mut table = znodes::table(nodes, &counts);
            for (colour, product) in ENSEMBLES.into_iter().enumerate() {
                let Some(system) = self.start(product, nodes, &mut report.remarks) else {
                    continue;
                };
                let line = znodes::measure_memory(&mut table, &system, &counts);
                let name = format!("{}, {nodes} nodes", system.name());
                lines.push(Line { name, colour, is_dashed: nodes > 1, ..line });
                drop(system);
                if let Some(system) = self.start(product, nodes, &mut report.remarks) {
                    znodes::measure_snapshots(&mut table, &system, &counts);
                }
            }
            keep(report, table);
        }
        if lines.is_empty() {
            return;
        }
        report.plots.push(Plot {
            key: "znodes".to_string(),
            title: "Resident memory of one server, by znodes of 100 B".to_string(),
            axes: ("znodes".to_string(), "MB".to_string()),
            lines,
        });
    }
}

/// A table that nobody could be measured for is not printed.
fn keep(report: &mut Report, table: Table) {
    if !table.is_empty() {
        report.tables.push(table);
    }
}
