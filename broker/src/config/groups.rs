//! What the group coordinator needs, and how its topic is made.
//!
//! Called by: `config`, which hands them on. Invariant: the shortest session is not longer than the
//! longest.

use broker_core::group::Settings;

use super::values::{SettingError, Values};
use super::{count, narrow};

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;

/// What the group coordinator needs.
#[derive(Clone, Debug)]
pub struct GroupsConfig {
    /// Of each of its shards.
    pub shard: Settings,
}

/// `__consumer_offsets` as it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetsTopic {
    /// How many partitions.
    pub partitions: i32,
    /// Replicas of each, where it was set or there can be only one: created when that many brokers
    /// are registered.
    pub replication_factor: Option<i16>,
    /// Size of a segment.
    pub segment_bytes: i64,
}

impl GroupsConfig {
    /// Reads the settings.
    ///
    /// # Errors
    /// The first that does not fit the others.
    pub fn from_values(values: &Values) -> Result<Self, SettingError> {
        let int = |name| narrow(name, count(values, name));
        let session_timeout_min_ms = int("group.min.session.timeout.ms")?;
        let session_timeout_max_ms = int("group.max.session.timeout.ms")?;
        if session_timeout_min_ms > session_timeout_max_ms {
            let why = format!("is above group.max.session.timeout.ms, {session_timeout_max_ms}");
            return Err(SettingError::invalid("group.min.session.timeout.ms", why));
        }
        let ms = |name| u64::try_from(count(values, name)).unwrap_or(0);
        let shard = Settings {
            session_timeout_min_ms,
            session_timeout_max_ms,
            initial_rebalance_delay_ms: ms("group.initial.rebalance.delay.ms"),
            members_max: values.count("group.max.size"),
            offset_metadata_bytes_max: values.count("offset.metadata.max.bytes"),
            retention_ms: count(values, "offsets.retention.minutes").saturating_mul(MINUTE_MS),
            retention_check_ms: ms("offsets.retention.check.interval.ms"),
            commit_timeout_ms: ms("offsets.commit.timeout.ms"),
            batch_bytes_max: values.count("message.max.bytes"),
            #[cfg(planted)]
            planted: None,
        };
        Ok(Self { shard })
    }
}

impl OffsetsTopic {
    /// Reads the settings; `embedded`: this broker is a cluster of its own.
    ///
    /// # Errors
    /// A number is too large.
    pub fn from_values(values: &Values, embedded: bool) -> Result<Self, SettingError> {
        let name = "offsets.topic.replication.factor";
        let given = values.number(name).map(|number| narrow(name, number)).transpose()?;
        Ok(Self {
            partitions: narrow(
                "offsets.topic.num.partitions",
                count(values, "offsets.topic.num.partitions"),
            )?,
            replication_factor: given.or(embedded.then_some(1)),
            segment_bytes: count(values, "offsets.topic.segment.bytes"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_of_its_own_needs_one_replica() {
        let topic = |toml: &str, embedded| {
            let values = Values::from_toml(toml).expect("valid");
            OffsetsTopic::from_values(&values, embedded).expect("fits").replication_factor
        };
        assert_eq!(topic("", true), Some(1));
        assert_eq!(topic("", false), None);
        assert_eq!(topic("offsets.topic.replication.factor = 2", false), Some(2));
    }

    #[test]
    fn sessions_have_a_range() {
        let values = Values::from_toml("group.min.session.timeout.ms = 2000000").expect("valid");
        assert!(GroupsConfig::from_values(&values).is_err());
        let config = GroupsConfig::from_values(&Values::default()).expect("defaults");
        assert_eq!(config.shard.retention_ms, 604_800_000);
        assert_eq!(config.shard.batch_bytes_max, 1_048_588);
    }
}
