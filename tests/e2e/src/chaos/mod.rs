//! Real processes under real faults, drawn from a seed.
//!
//! ```text
//! plan      which fault strikes whom, when and for how long: pure, the same for the same seed
//! machine   carries faults out and heals them: processes by signals, networks and disks by the script
//! load      librdkafka writes and reads all the while; everything it was told is kept
//! reader    the consumers of that load: one with partitions of its own choice, and a group
//! resent    what a client sent again under a raised epoch, as the logs show it
//! verdict   after the healing: histories, logs of the processes, replicas, memory
//! report    the table and its JSON
//! ```
//!
//! Called by: the `chaos` program. Invariant: what a run did is told by its seed; when it did it, by the machine.

pub mod load;
pub mod machine;
pub mod plan;
pub mod reader;
pub mod report;
pub mod resent;
pub mod verdict;

use std::time::Duration;

/// The topic under load.
pub const TOPIC: &str = "chaos";
/// Its partitions.
pub const PARTITIONS: u32 = 6;
/// Within this long after everything was healed, every partition acknowledges new records, every replica is in sync and
/// every consumer has caught up.
pub const LIVENESS_BOUND: Duration = Duration::from_secs(60);
/// No process holds more than this in memory, in KiB.
pub const RESIDENT_KIB_MAX: u64 = 192 * 1024;
