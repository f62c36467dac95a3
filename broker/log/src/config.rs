//! The settings of one log, by Kafka's names.

/// Settings that a log obeys; a topic's own values over the broker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is rolled when its first batch is older than this.
    pub segment_ms: i64,
    /// `index.interval.bytes`: bytes of batches between two index entries.
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: a segment is rolled when its offset index reaches this.
    pub segment_index_bytes: u32,
    /// `retention.ms`; `None` keeps for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` keeps all.
    pub retention_bytes: Option<u64>,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
    /// Whether `cleanup.policy` has `delete`.
    pub delete: bool,
    /// Whether `cleanup.policy` has `compact`: batches may then have gaps between them.
    pub compact: bool,
    /// `min.cleanable.dirty.ratio`, in millionths: a log is cleaned when more of what can be is dirty.
    pub min_cleanable_dirty_millionths: u32,
    /// `min.compaction.lag.ms`: younger records are not cleaned.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older ones are, however few they are.
    pub max_compaction_lag_ms: i64,
    /// `delete.retention.ms`: how long a tombstone stays once it was cleaned.
    pub delete_retention_ms: i64,
    /// Keys that one cleaning remembers, which bounds its memory: [`crate::KEY_ENTRY_BYTES`] each.
    pub cleaner_keys_max: usize,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            producer_id_expiration_ms: 24 * 3_600_000,
            delete: true,
            compact: false,
            min_cleanable_dirty_millionths: 500_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
            cleaner_keys_max: (128 << 20) / crate::KEY_ENTRY_BYTES,
            #[cfg(planted)]
            planted: None,
        }
    }
}
