//! A topic's settings: overrides over the broker's settings over defaults.
//!
//! Called by: CreateTopics and DescribeConfigs, `partitions` (what a log is opened with).
//! Invariant: a resolved value is valid for its kind. Does not know topics, only their overrides.

use client_protocol::messages::describe_configs::{
    SOURCE_DEFAULT, SOURCE_STATIC_BROKER, SOURCE_TOPIC,
};

use super::table::{self, Kind, TOPIC_SETTINGS, TopicSetting};
use super::values::{SettingError, Values};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;

/// Where a value comes from, as DescribeConfigs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's override.
    Topic,
    /// The broker's configuration file or flags.
    Broker,
    /// The built-in default.
    Default,
}

impl Source {
    /// The number that DescribeConfigs and CreateTopics give it.
    pub fn code(self) -> i8 {
        match self {
            Self::Topic => SOURCE_TOPIC,
            Self::Broker => SOURCE_STATIC_BROKER,
            Self::Default => SOURCE_DEFAULT,
        }
    }
}

/// One setting of a topic with its value in force.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The setting.
    pub setting: &'static TopicSetting,
    /// Its value.
    pub value: String,
    /// Where that comes from.
    pub source: Source,
}

/// Checks one override, as CreateTopics and the configuration APIs take it.
///
/// # Errors
/// Unknown name (with the nearest known one) or invalid value.
pub fn check(name: &str, value: &str) -> Result<(), SettingError> {
    let kind = kind(find(name)?);
    kind.check(value).map_err(|why| SettingError::invalid(name, why))
}

/// What the topic's setting takes.
pub fn kind(setting: &TopicSetting) -> Kind {
    table::find(setting.broker).map_or(Kind::Text, |setting| setting.kind)
}

/// All settings of a topic with `replicas` replicas per partition; `overrides` gives the text that
/// was set for a name.
pub fn resolve_all<'a>(
    broker: &Values,
    overrides: impl Fn(&str) -> Option<&'a str>,
    replicas: usize,
) -> Vec<Resolved> {
    TOPIC_SETTINGS
        .iter()
        .map(|setting| match overrides(setting.name).filter(|text| is_valid(setting, text)) {
            Some(text) => Resolved { setting, value: text.to_owned(), source: Source::Topic },
            None => from_broker(broker, setting, replicas),
        })
        .collect()
}

/// The value in force of one setting of a topic; see [`resolve_all`].
///
/// # Errors
/// Unknown name.
pub fn resolve<'a>(
    broker: &Values,
    name: &str,
    overrides: impl Fn(&str) -> Option<&'a str>,
    replicas: usize,
) -> Result<String, SettingError> {
    let setting = find(name)?;
    Ok(match overrides(name).filter(|text| is_valid(setting, text)) {
        Some(text) => text.to_owned(),
        None => from_broker(broker, setting, replicas).value,
    })
}

fn find(name: &str) -> Result<&'static TopicSetting, SettingError> {
    table::find_topic(name).ok_or_else(|| SettingError::Unknown {
        name: name.to_owned(),
        nearest: table::nearest(name, TOPIC_SETTINGS.iter().map(|setting| setting.name)),
    })
}

/// An override that another version or tool wrote and that is no value here counts as not set.
fn is_valid(setting: &TopicSetting, text: &str) -> bool {
    kind(setting).check(text).is_ok()
}

fn from_broker(broker: &Values, setting: &'static TopicSetting, replicas: usize) -> Resolved {
    let given = broker.given(setting.broker).filter(|text| !text.is_empty());
    let derived = || match setting.name {
        "min.insync.replicas" => replicas.clamp(1, 2).to_string(),
        "retention.ms" => retention_ms(broker).to_string(),
        "segment.ms" => {
            broker.number("log.roll.hours").map_or(HOUR_MS, |h| h * HOUR_MS).to_string()
        }
        "flush.ms" => i64::MAX.to_string(),
        _ => broker.text(setting.broker).to_owned(),
    };
    let elsewhere: &[&str] = match setting.name {
        "retention.ms" => &["log.retention.minutes", "log.retention.hours"],
        "segment.ms" => &["log.roll.hours"],
        _ => &[],
    };
    let configured = given.is_some() || elsewhere.iter().any(|name| broker.given(name).is_some());
    let source = if configured { Source::Broker } else { Source::Default };
    Resolved { setting, value: given.map_or_else(derived, str::to_owned), source }
}

fn retention_ms(broker: &Values) -> i64 {
    let in_ms = |count: i64, unit: i64| if count < 0 { -1 } else { count * unit };
    let minutes = broker.number("log.retention.minutes").map(|count| in_ms(count, MINUTE_MS));
    let hours = broker.number("log.retention.hours").map(|count| in_ms(count, HOUR_MS));
    minutes.or(hours).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(toml: &str, name: &str, set: Option<&'static str>, replicas: usize) -> String {
        let broker = Values::from_toml(toml).expect("valid");
        resolve(&broker, name, |_| set, replicas).expect("known")
    }

    #[test]
    fn min_insync_replicas_follows_the_replication_factor() {
        for (replicas, expected) in [(1, "1"), (2, "2"), (3, "2"), (5, "2")] {
            assert_eq!(value("", "min.insync.replicas", None, replicas), expected);
        }
        assert_eq!(value("min.insync.replicas = 3", "min.insync.replicas", None, 3), "3");
        assert_eq!(value("", "min.insync.replicas", Some("1"), 3), "1");
    }

    #[test]
    fn retention_takes_the_finest_unit_that_is_set() {
        assert_eq!(value("", "retention.ms", None, 1), "604800000");
        assert_eq!(value("log.retention.hours = 1", "retention.ms", None, 1), "3600000");
        let both = "[log.retention]\nhours = 1\nminutes = 2";
        assert_eq!(value(both, "retention.ms", None, 1), "120000");
        assert_eq!(value("log.retention.minutes = -1", "retention.ms", None, 1), "-1");
        assert_eq!(value("log.retention.ms = 5", "retention.ms", None, 1), "5");
    }

    #[test]
    fn invalid_override_counts_as_not_set_and_is_refused_when_new() {
        assert_eq!(value("", "segment.bytes", Some("many"), 1), "1073741824");
        assert!(check("segment.bytes", "many").is_err());
        assert!(check("segment.byte", "5000").is_err());
        assert_eq!(check("segment.bytes", "5000"), Ok(()));
        assert_eq!(check("cleanup.policy", "compact,delete"), Ok(()));
        assert_eq!(check("durability", "memory"), Ok(()));
        assert_eq!(check("unclean.leader.election.enable", "true"), Ok(()));
    }
}
