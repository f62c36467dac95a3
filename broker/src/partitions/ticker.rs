//! What time does to partitions: time-outs, lag, retention, checkpoints.
//!
//! Called by: its own thread. Calls: `partition`, the append queue, `directory`.
//! Invariant: every duty runs at its own pace; a late tick does each duty once, not as often as it
//! was missed. Does not know what the duties decide.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use broker_core::partition::Durability;
use broker_log::checkpoint::Offsets;
use client_protocol::ErrorCode;

use super::append::{Job, LogJob};
use super::directory::checkpoint_name;
use super::registry::Partitions;

/// How exact time-outs are.
const TICK: Duration = Duration::from_millis(50);
/// How often the cores look at the clock.
const CORE_INTERVAL: Duration = Duration::from_millis(500);
/// How often the checkpoints are written, when something changed.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// How often logs that no round syncs are synced.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);

/// The ticker's thread control.
#[derive(Default)]
pub(super) struct Ticker {
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    pub fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Runs until it is ended or the partitions are gone.
    pub fn run(&self, partitions: &Weak<Partitions>) {
        let now = Instant::now();
        let mut due = Due { core: now, retention: now, checkpoint: now, flush: now };
        let mut written = BTreeMap::new();
        loop {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.wake.wait_timeout_while(ended, TICK, |ended| !*ended);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            let Some(partitions) = partitions.upgrade() else { return };
            partitions.partitions.load().values().for_each(|p| p.expire_waiting());
            due.run(&partitions, &mut written);
        }
    }
}

/// When each duty ran last.
struct Due {
    core: Instant,
    retention: Instant,
    checkpoint: Instant,
    flush: Instant,
}

impl Due {
    fn run(&mut self, partitions: &Partitions, written: &mut BTreeMap<usize, (Offsets, Offsets)>) {
        let now = Instant::now();
        if now.duration_since(self.core) >= CORE_INTERVAL {
            self.core = now;
            partitions.tick();
        }
        if now.duration_since(self.retention) >= partitions.config.retention_check_interval {
            self.retention = now;
            partitions.each_log(|| LogJob::Retain, |_| true);
        }
        if now.duration_since(self.flush) >= FLUSH_INTERVAL {
            self.flush = now;
            partitions.each_log(|| LogJob::Flush, |durability| durability == Durability::Memory);
        }
        if now.duration_since(self.checkpoint) >= CHECKPOINT_INTERVAL {
            self.checkpoint = now;
            partitions.checkpoint_changed(written);
        }
        partitions.directories.iter().for_each(|directory| directory.remove_now());
    }
}

impl Partitions {
    fn tick(&self) {
        for partition in self.partitions.load().values() {
            if partition.directory().is_failed() {
                partition.stop(ErrorCode::KafkaStorageError);
            } else {
                partition.tick();
            }
        }
    }

    fn each_log(&self, job: impl Fn() -> LogJob, of: impl Fn(Durability) -> bool) {
        for partition in self.partitions.load().values() {
            if of(partition.settings().core.durability) {
                partition.directory().push(Job::Log(partition.clone(), job()));
            }
        }
    }

    /// Writes the checkpoints of all directories.
    pub(super) fn checkpoint(&self) {
        self.checkpoint_changed(&mut BTreeMap::new());
    }

    fn checkpoint_changed(&self, written: &mut BTreeMap<usize, (Offsets, Offsets)>) {
        for (index, directory) in self.directories.iter().enumerate() {
            let mut offsets = (Offsets::new(), Offsets::new());
            for partition in self.partitions.load().values() {
                let Some(view) = partition.view() else { continue };
                if !std::sync::Arc::ptr_eq(&partition.directory(), directory) {
                    continue;
                }
                let name = checkpoint_name(partition.key);
                let Some(high_watermark) = partition.high_watermark() else { continue };
                offsets.0.insert(name.clone(), high_watermark);
                offsets.1.insert(name, view.ends().log_start);
            }
            if written.get(&index) != Some(&offsets) {
                directory.checkpoint(&offsets.0, &offsets.1);
                written.insert(index, offsets);
            }
        }
    }
}
