//! The figures of a run, as a table and as JSON.
//!
//! Called by: the `chaos` program. Pure: prints nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::json;

use super::plan::Fault;

/// What is told of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Rounds of faults, each healed and looked at.
    pub rounds: u32,
    /// Time under faults and healing.
    pub lasted: Duration,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Kinds that this machine has no tool for.
    pub skipped: Vec<Fault>,
    /// Processes that ended by themselves, under a fault of their disk or of the ensemble, and were started again.
    pub restarted: u64,
    /// Records sent.
    pub sent: usize,
    /// Of them, acknowledged.
    pub acknowledged: usize,
    /// Of them, standing twice as their client sent them again under a raised epoch.
    pub resent: usize,
    /// Records that the lone consumer read.
    pub read_alone: i64,
    /// Records that some member of the group was given.
    pub read_by_group: usize,
    /// Changes of the group's work.
    pub rebalances: u64,
    /// The longest time without any acknowledgement.
    pub longest_stall: Duration,
    /// After a healing, until every partition had acknowledged something new: the longest.
    pub slowest_acknowledged: Duration,
    /// After a healing, until every replica was in sync and every process ready: the longest.
    pub slowest_in_sync: Duration,
    /// Highest memory of any coordinator, in KiB.
    pub coordinator_kib: u64,
    /// Highest memory of any broker, in KiB.
    pub broker_kib: u64,
    /// What should not be.
    pub findings: Vec<String>,
}

impl Report {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let faults: BTreeMap<&str, u64> =
            self.faults.iter().map(|(fault, count)| (fault.name(), *count)).collect();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        json!({
            "seed": self.seed,
            "rounds": self.rounds,
            "lasted_ms": ms(self.lasted),
            "faults": faults,
            "skipped": self.skipped.iter().map(|fault| fault.name()).collect::<Vec<_>>(),
            "restarted": self.restarted,
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "resent_under_raised_epoch": self.resent,
            "read_alone": self.read_alone,
            "read_by_group": self.read_by_group,
            "rebalances": self.rebalances,
            "longest_stall_ms": ms(self.longest_stall),
            "slowest_acknowledged_ms": ms(self.slowest_acknowledged),
            "slowest_in_sync_ms": ms(self.slowest_in_sync),
            "coordinator_resident_kib": self.coordinator_kib,
            "broker_resident_kib": self.broker_kib,
            "findings": self.findings,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        writeln!(f, "seed {}, {} rounds, {}", self.seed, self.rounds, seconds(self.lasted))?;
        for (fault, count) in &self.faults {
            writeln!(f, "  {:<34}{count:>9}", fault.name())?;
        }
        for fault in &self.skipped {
            writeln!(f, "  {:<34}{:>9}", fault.name(), "SKIP")?;
        }
        let rows = [
            ("processes that ended by themselves", self.restarted.to_string()),
            ("records sent", self.sent.to_string()),
            ("records acknowledged", self.acknowledged.to_string()),
            ("sent again under a raised epoch", self.resent.to_string()),
            ("read by the lone consumer", self.read_alone.to_string()),
            ("given to the group", self.read_by_group.to_string()),
            ("changes of the group's work", self.rebalances.to_string()),
            ("longest time without an answer", seconds(self.longest_stall)),
            ("healed to acknowledged, longest", seconds(self.slowest_acknowledged)),
            ("healed to all in sync, longest", seconds(self.slowest_in_sync)),
            ("memory of a coordinator, highest", format!("{} KiB", self.coordinator_kib)),
            ("memory of a broker, highest", format!("{} KiB", self.broker_kib)),
            ("anomalies", self.findings.len().to_string()),
        ];
        for (what, figure) in rows {
            writeln!(f, "{what:<34}{figure:>11}")?;
        }
        for finding in self.findings.iter().take(20) {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}
