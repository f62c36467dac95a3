//! Time from the first spawn to serving, and memory while nothing is asked.
//!
//! Called by: `plan`.

use std::time::Duration;

use anyhow::Result;

use crate::peers::{System, usage};
use crate::report::{Better, Table};

/// Idle means: this long after the start, which is when the JVM's memory no longer falls or rises much.
const SETTLE: Duration = Duration::from_secs(5);

/// Fills a table from systems that were just started.
///
/// # Errors
/// None today; the shape is that of every part.
pub fn measure(systems: &[System], title: &str) -> Result<Table> {
    let note = "Time from the first process's spawn to the last node's first useful answer. Memory is \
                resident, a few seconds after the start, of one node: its broker, and its coordinator or \
                ZooKeeper server.";
    let mut table = Table::new(title, note);
    std::thread::sleep(SETTLE);
    for system in systems {
        let name = system.name();
        table.put("start to serving, ms", Better::Lower, name, system.ready_ms);
        let mean = |processes: &[_]| usage(processes).resident_mb / processes.len().max(1) as f64;
        table.put("broker, idle, MB", Better::Lower, name, mean(&system.brokers));
        let ensemble = "coordinator or ZooKeeper, idle, MB";
        if system.ensemble.is_empty() {
            table.miss(ensemble, Better::Lower, name, "inside the broker");
        } else {
            table.put(ensemble, Better::Lower, name, mean(&system.ensemble));
        }
    }
    Ok(table)
}
