//! What time does to partitions: time-outs, lag, retention, checkpoints.
//!
//! Called by: its own thread. Calls: `partition`, the append queue, `directory`.
//! Invariant: every duty runs at its own pace; a late tick does each duty once, not as often as it
//! was missed. Does not know what the duties decide.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use broker_core::ids::Offset;
use broker_core::partition::Durability;
use client_protocol::ErrorCode;

use super::registry::Partitions;
use super::worker::LogJob;

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
        let mut due = Due { core: now, retention: now, checkpoint: now, flush: now, clean: now };
        loop {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.wake.wait_timeout_while(ended, TICK, |ended| !*ended);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            let Some(partitions) = partitions.upgrade() else { return };
            partitions.partitions.load().values().for_each(|p| p.expire_waiting());
            due.run(&partitions);
        }
    }
}

/// When each duty ran last.
struct Due {
    core: Instant,
    retention: Instant,
    checkpoint: Instant,
    flush: Instant,
    clean: Instant,
}

impl Due {
    fn run(&mut self, partitions: &Partitions) {
        let now = Instant::now();
        if now.duration_since(self.core) >= CORE_INTERVAL {
            self.core = now;
            partitions.tick();
        }
        if now.duration_since(self.retention) >= partitions.config.retention_check_interval {
            self.retention = now;
            partitions.retain();
        }
        let backoff = partitions.config.cleaner_backoff;
        if backoff.is_some_and(|backoff| now.duration_since(self.clean) >= backoff) {
            self.clean = now;
            partitions.clean();
        }
        if now.duration_since(self.flush) >= FLUSH_INTERVAL {
            self.flush = now;
            partitions.flush();
        }
        let due = now.duration_since(self.checkpoint) >= CHECKPOINT_INTERVAL;
        if due {
            self.checkpoint = now;
        }
        for (index, directory) in partitions.directories.iter().enumerate() {
            // What was taken out of logs goes only behind a checkpoint of where they begin.
            let discards = directory.take_discards();
            if due || !discards.is_empty() {
                partitions.checkpoint_one(index);
            }
            if !directory.is_failed() {
                for (partition, segments) in discards {
                    partition.push(LogJob::Discard(segments));
                }
            }
            directory.unlink_now();
        }
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

    /// Takes out of logs what their topics' settings do not want any more.
    pub(super) fn retain(&self) {
        for partition in self.partitions.load().values() {
            if !partition.settings().is_known {
                continue;
            }
            let limit = partition.high_watermark().unwrap_or(Offset::ZERO);
            partition.push(LogJob::Retain(limit));
        }
    }

    fn clean(&self) {
        for partition in self.partitions.load().values() {
            let settings = partition.settings();
            if settings.is_known && settings.log.compact {
                let limit = partition.high_watermark().unwrap_or(Offset::ZERO);
                partition.push(LogJob::Clean(limit));
            }
        }
    }

    fn flush(&self) {
        for partition in self.partitions.load().values() {
            if partition.settings().core.durability == Durability::Memory {
                partition.push(LogJob::Flush);
            }
        }
    }

    /// Writes the checkpoints of all directories.
    pub(super) fn checkpoint(&self) {
        (0..self.directories.len()).for_each(|index| self.checkpoint_one(index));
    }

    fn checkpoint_one(&self, index: usize) {
        let Some(directory) = self.directories.get(index) else { return };
        if directory.is_failed() {
            return;
        }
        let written = directory.folder.checkpoint(|| {
            let partitions = self.partitions.load();
            let here = partitions.values().filter(|p| Arc::ptr_eq(&p.directory(), directory));
            let position = |partition: &Arc<super::partition::Partition>| {
                let log_start = partition.view()?.ends().log_start;
                Some((partition.key, partition.high_watermark()?.get(), log_start))
            };
            here.filter_map(position).collect()
        });
        if let Err(error) = written {
            directory.fail(&error.to_string());
        }
    }
}
