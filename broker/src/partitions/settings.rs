//! What a topic's settings mean for its partitions here.
//!
//! Called by: `metadata`, when a topic comes or its settings change. Calls: `config::topic`.
//! Invariant: a value outside what the log can hold is brought inside, never refused: the setting
//! may have been written by another version. Does not know partitions.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use broker_core::partition::{Durability, Settings as CoreSettings};
use broker_log::LogConfig;
use client_protocol::records::ProduceRules;

use crate::config::{PartitionsConfig, topic};

/// How long the controller may take to answer an AlterPartition before it is asked again, and the pause
/// after a refusal. What was refused counts for the high watermark until something else is granted.
const ALTER_RETRY_MS: u64 = 250;

/// A fraction from 0 to 1 in whole numbers.
fn millionths(ratio: &str) -> u32 {
    let ratio = ratio.parse::<f64>().unwrap_or(1.0).clamp(0.0, 1.0);
    // Within 0 and a million.
    (ratio * 1e6).round() as u32
}

/// The settings of one topic, for each module that obeys some of them.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Whether they are the topic's own. Of a log whose topic no image has shown yet, which may be one of all data there is, they are the broker's
    /// defaults, by which nothing may be removed.
    pub is_known: bool,
    /// For its logs.
    pub log: LogConfig,
    /// For leaders and followers.
    pub core: CoreSettings,
    /// Largest batch a producer may send.
    pub batch_bytes_max: usize,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// How far a producer's timestamp may lie before and after now, milliseconds.
    timestamp_window_ms: (i64, i64),
}

impl TopicSettings {
    /// Reads the settings of a topic with `replicas` replicas per partition.
    pub fn resolve(
        config: &PartitionsConfig,
        overrides: &BTreeMap<String, String>,
        replicas: usize,
    ) -> Self {
        let text = |name: &str| {
            let given = |name: &str| overrides.get(name).map(String::as_str);
            topic::resolve(&config.defaults, name, given, replicas).unwrap_or_default()
        };
        let number = |name: &str| text(name).parse::<i64>().ok();
        let within = |name: &str, least: u32, most: u32| {
            let value = number(name).unwrap_or(i64::from(most));
            u32::try_from(value.clamp(i64::from(least), i64::from(most))).unwrap_or(most)
        };
        let unlimited = |name: &str| number(name).filter(|value| *value >= 0);
        let policies = text("cleanup.policy");
        let has_policy = |policy: &str| policies.split(',').any(|item| item.trim() == policy);
        let log = LogConfig {
            segment_bytes: within("segment.bytes", 1024, i32::MAX.unsigned_abs()),
            segment_ms: number("segment.ms").unwrap_or(i64::MAX),
            index_interval_bytes: within("index.interval.bytes", 0, i32::MAX.unsigned_abs()),
            segment_index_bytes: within("segment.index.bytes", 16, i32::MAX.unsigned_abs()),
            retention_ms: unlimited("retention.ms"),
            retention_bytes: unlimited("retention.bytes").map(i64::unsigned_abs),
            producer_id_expiration_ms: config.producer_id_expiration_ms,
            delete: has_policy("delete"),
            compact: has_policy("compact"),
            min_cleanable_dirty_millionths: millionths(&text("min.cleanable.dirty.ratio")),
            min_compaction_lag_ms: number("min.compaction.lag.ms").unwrap_or(0),
            max_compaction_lag_ms: number("max.compaction.lag.ms").unwrap_or(i64::MAX),
            delete_retention_ms: number("delete.retention.ms").unwrap_or(i64::MAX),
            cleaner_keys_max: config.cleaner_keys_max,
            #[cfg(planted)]
            planted: None,
        };
        let durability =
            if text("durability") == "memory" { Durability::Memory } else { Durability::Disk };
        let lag_ms = u64::try_from(config.replica_lag_time_max.as_millis()).unwrap_or(u64::MAX);
        let core = CoreSettings {
            durability,
            min_insync_replicas: within("min.insync.replicas", 1, u32::from(u16::MAX)) as usize,
            lag_time_max_ms: lag_ms,
            alter_retry_ms: ALTER_RETRY_MS,
            #[cfg(planted)]
            planted: None,
        };
        Self {
            is_known: true,
            log,
            core,
            batch_bytes_max: within("max.message.bytes", 0, i32::MAX.unsigned_abs()) as usize,
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_window_ms: (
                number("message.timestamp.before.max.ms").unwrap_or(i64::MAX),
                number("message.timestamp.after.max.ms").unwrap_or(i64::MAX),
            ),
        }
    }

    /// What a batch of a producer must obey now.
    pub fn produce_rules(
        &self,
        zstd_allowed: bool,
        transactional: bool,
        now_ms: i64,
    ) -> ProduceRules {
        ProduceRules {
            batch_bytes_max: self.batch_bytes_max,
            segment_bytes_max: self.log.segment_bytes as usize,
            keys_required: self.log.compact,
            transactional_allowed: transactional,
            zstd_allowed,
            timestamps_ms: self.timestamp_window(now_ms),
        }
    }

    fn timestamp_window(&self, now_ms: i64) -> Option<RangeInclusive<i64>> {
        let (before, after) = self.timestamp_window_ms;
        if self.log_append_time || (before == i64::MAX && after == i64::MAX) {
            return None;
        }
        Some(now_ms.saturating_sub(before)..=now_ms.saturating_add(after))
    }
}
