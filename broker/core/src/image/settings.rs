//! What a topic's settings mean for replication.
//!
//! *Called by* the controller and whoever opens a partition. Invariant: an unreadable value means the default; creation refuses it.

use std::collections::BTreeMap;

/// `durability`: our topic setting, `disk` or `memory`.
pub const DURABILITY: &str = "durability";
/// Kafka's topic setting.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Kafka's topic setting.
pub const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";

/// Settings that decide about replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicationSettings {
    /// acks=all needs this many in-sync replicas; by default two, or one when there is only one replica.
    pub min_insync_replicas: usize,
    /// `durability=memory`: acknowledged from memory, Kafka's way.
    pub memory: bool,
    /// `unclean.leader.election.enable`: rather lose records than wait for an in-sync replica; none: as the controller's broker is set.
    pub unclean: Option<bool>,
}

impl ReplicationSettings {
    /// Reads a topic's settings; `replication_factor` gives the default.
    #[must_use]
    pub fn of(config: &BTreeMap<String, String>, replication_factor: usize) -> Self {
        let min_insync_replicas = config
            .get(MIN_INSYNC_REPLICAS)
            .and_then(|text| text.parse().ok())
            .filter(|&min| min >= 1)
            .unwrap_or_else(|| replication_factor.clamp(1, 2));
        let memory = config.get(DURABILITY).is_some_and(|text| text == "memory");
        let unclean = config.get(UNCLEAN_LEADER_ELECTION).and_then(|text| text.parse().ok());
        Self { min_insync_replicas, memory, unclean }
    }

    /// Why a topic with these settings is refused; none when they are fine.
    #[must_use]
    pub fn refusal(config: &BTreeMap<String, String>) -> Option<String> {
        let min = config.get(MIN_INSYNC_REPLICAS);
        if let Some(text) = min.filter(|text| !text.parse::<u16>().is_ok_and(|min| min >= 1)) {
            return Some(format!("{MIN_INSYNC_REPLICAS}={text} is not a positive number"));
        }
        let durability = config.get(DURABILITY);
        if let Some(text) = durability.filter(|text| *text != "disk" && *text != "memory") {
            return Some(format!("{DURABILITY}={text} is neither disk nor memory"));
        }
        let unclean = config.get(UNCLEAN_LEADER_ELECTION);
        if let Some(text) = unclean.filter(|text| *text != "true" && *text != "false") {
            return Some(format!("{UNCLEAN_LEADER_ELECTION}={text} is neither true nor false"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn min_insync_replicas_is_two_at_most_by_default() {
        for (factor, min) in [(1, 1), (2, 2), (3, 2), (5, 2)] {
            let settings = ReplicationSettings::of(&config(&[]), factor);
            let expected =
                ReplicationSettings { min_insync_replicas: min, memory: false, unclean: None };
            assert_eq!(settings, expected);
        }
        let settings = ReplicationSettings::of(
            &config(&[
                (MIN_INSYNC_REPLICAS, "3"),
                (DURABILITY, "memory"),
                (UNCLEAN_LEADER_ELECTION, "true"),
            ]),
            3,
        );
        let expected =
            ReplicationSettings { min_insync_replicas: 3, memory: true, unclean: Some(true) };
        assert_eq!(settings, expected);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(ReplicationSettings::refusal(&config(&[(DURABILITY, "disk")])), None);
        for (key, value) in [
            (MIN_INSYNC_REPLICAS, "0"),
            (MIN_INSYNC_REPLICAS, "x"),
            (DURABILITY, "tape"),
            (UNCLEAN_LEADER_ELECTION, "yes"),
        ] {
            assert!(ReplicationSettings::refusal(&config(&[(key, value)])).is_some(), "{key}");
        }
    }
}
