//! Time from the first spawn to serving, and memory of a node: just started, idle, after load.
//!
//! Called by: `plan`.

use std::time::Duration;

use e2e::peers::{System, usage};

use crate::report::{Better, Table};

/// Idle means: this long after the start, which is when the JVM's memory no longer falls or rises much.
pub const SETTLE: Duration = Duration::from_secs(5);

/// An empty table for clusters of so many nodes.
pub fn table(nodes: &str) -> Table {
    let note = "Time from the first process's spawn to the last node's first useful answer. Memory is resident, \
                of one process, the mean where there are several.";
    Table::new(&format!("Start and memory, {nodes}"), note)
}

/// How long a system took to start.
pub fn record_start(table: &mut Table, system: &System) {
    table.put("start to serving, ms", Better::Lower, system.name(), system.ready_ms);
}

/// What its processes hold now; `when` says what was before.
pub fn record_memory(table: &mut Table, system: &System, when: &str) {
    let mean = |processes: &[_]| usage(processes).resident_mb / processes.len().max(1) as f64;
    let broker = format!("broker, {when}, MB");
    table.put(&broker, Better::Lower, system.name(), mean(&system.brokers));
    let ensemble = format!("coordinator or ZooKeeper, {when}, MB");
    if system.ensemble.is_empty() {
        table.miss(&ensemble, Better::Lower, system.name(), "inside the broker");
    } else {
        table.put(&ensemble, Better::Lower, system.name(), mean(&system.ensemble));
    }
}
