//! Every setting, its default and what it means, in one place.
//!
//! Called by: `values` (look-up, defaults), `topic`, DescribeConfigs. Invariant: names are unique;
//! every default is valid for its kind. Kafka's names and defaults where Kafka has the setting,
//! except where safety argues otherwise: then the text says so.

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A 32-bit number not below the minimum.
    Int(i64),
    /// A 64-bit number not below the minimum.
    Long(i64),
    /// A fraction from 0 to 1.
    Ratio,
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words, with commas between them.
    Choices(&'static [&'static str]),
    /// Texts with commas between them.
    List,
    /// A number not below 1, or empty: then it follows from the cluster.
    Derived,
}

/// A setting of the broker.
#[derive(Debug)]
pub struct Setting {
    /// Dotted name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// One sentence for `--help` and DescribeConfigs.
    pub doc: &'static str,
}

/// A setting of a topic; without an override it has the value of the broker's setting.
#[derive(Debug)]
pub struct TopicSetting {
    /// Name in CreateTopics and DescribeConfigs.
    pub name: &'static str,
    /// Name of the broker's setting that gives the default.
    pub broker: &'static str,
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default, doc }
}

const fn topic(name: &'static str, broker: &'static str) -> TopicSetting {
    TopicSetting { name, broker }
}

use Kind::{Boolean, Choice, Choices, Derived, Int, List, Long, Ratio, Text};

/// The broker's settings, by area.
pub const SETTINGS: &[Setting] = &[
    // Who it is and where it keeps things.
    setting("broker.id", Int(0), "1", "Number of this broker, unique in the cluster."),
    setting("broker.rack", Text, "", "Rack of this broker; replicas are spread over racks."),
    setting("data.dir", Text, "tidegate-data", "Folder for all data that has no other place."),
    setting("log.dirs", List, "", "Folders of the partitions' logs; empty: data.dir/logs."),
    // The coordinator.
    setting(
        "zookeeper.connect",
        Text,
        "",
        "Coordinator servers host:port,... with an optional /chroot; empty: a coordinator runs inside this process.",
    ),
    setting(
        "zookeeper.session.timeout.ms",
        Int(1_000),
        "6000",
        "After this long without contact a broker is dead; a killed process is noticed at once.",
    ),
    setting(
        "zookeeper.ssl.client.enable",
        Boolean,
        "false",
        "Speak to coordinators encrypted, and only to those that zookeeper.ssl.truststore.location trusts.",
    ),
    setting(
        "zookeeper.ssl.truststore.location",
        Text,
        "",
        "PEM file with the authorities of coordinators' certificates, which have to be for the hosts in zookeeper.connect.",
    ),
    setting(
        "zookeeper.ssl.keystore.location",
        Text,
        "",
        "PEM file with the key and certificate that this broker shows coordinators; empty: it shows none.",
    ),
    // Sockets.
    setting(
        "listeners",
        List,
        "PLAINTEXT://127.0.0.1:9092,INTERNAL://127.0.0.1:0",
        "PLAINTEXT://host:port for clients and INTERNAL://host:port for other brokers; port 0 lets the system choose.",
    ),
    setting(
        "advertised.listeners",
        List,
        "",
        "What clients and brokers are told to connect to; empty: the bound addresses.",
    ),
    setting(
        "insecure",
        Boolean,
        "false",
        "Allow listeners that other machines can reach, without encryption or authentication.",
    ),
    setting(
        "http.address",
        Text,
        "127.0.0.1:0",
        "host:port of /live, /ready and /metrics; empty: none.",
    ),
    setting("num.network.threads", Int(1), "2", "Threads that serve sockets."),
    setting("socket.request.max.bytes", Int(1024), "104857600", "Largest request."),
    setting("connections.max.idle.ms", Long(1_000), "600000", "Idle connections are closed."),
    setting("max.connections", Int(1), "20000", "Connections of one listener."),
    setting(
        "queued.max.request.bytes",
        Long(1 << 20),
        "134217728",
        "Bytes of requests in flight, all connections of a listener together.",
    ),
    // Topics.
    setting("auto.create.topics.enable", Boolean, "true", "Create a topic when it is first used."),
    setting("delete.topic.enable", Boolean, "true", "Allow topics to be deleted."),
    setting("num.partitions", Int(1), "1", "Partitions of a topic whose creator names no number."),
    setting(
        "default.replication.factor",
        Derived,
        "",
        "Replicas of a topic whose creator names no number; empty: 1 alone, else min(3, brokers).",
    ),
    setting(
        "min.insync.replicas",
        Derived,
        "",
        "Replicas that must have a record before acks=all is answered; empty: min(2, replicas).",
    ),
    setting(
        "durability",
        Choice(&["disk", "memory"]),
        "disk",
        "When acks=all is answered: disk: all in-sync replicas have synced the record; memory, which only a topic can choose: all have received it.",
    ),
    setting(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        "Rather lose records than wait for an in-sync replica; the controller's broker decides for topics that do not say.",
    ),
    setting("message.max.bytes", Int(0), "1048588", "Largest record batch."),
    setting(
        "compression.type",
        Choice(&["producer"]),
        "producer",
        "Batches keep the codec that their producer chose.",
    ),
    setting("log.cleanup.policy", Choices(&["delete", "compact"]), "delete", "How old records go."),
    setting(
        "log.retention.ms",
        Long(-1),
        "",
        "Age at which records go; empty: log.retention.minutes, -1: never.",
    ),
    setting(
        "log.retention.minutes",
        Int(-1),
        "",
        "As log.retention.ms; empty: log.retention.hours.",
    ),
    setting("log.retention.hours", Int(-1), "168", "As log.retention.ms."),
    setting(
        "log.retention.bytes",
        Long(-1),
        "-1",
        "Size of a partition above which old segments go; -1: none.",
    ),
    setting(
        "log.retention.check.interval.ms",
        Long(1),
        "300000",
        "How often retention is looked at.",
    ),
    setting("log.segment.bytes", Int(1024), "1073741824", "Size of a segment."),
    setting("log.roll.ms", Long(1), "", "Age at which a segment is closed; empty: log.roll.hours."),
    setting("log.roll.hours", Int(1), "168", "As log.roll.ms."),
    setting("log.roll.jitter.ms", Long(0), "0", "Random part taken off log.roll.ms."),
    setting("log.index.interval.bytes", Int(0), "4096", "Bytes between two index entries."),
    setting("log.index.size.max.bytes", Int(4), "10485760", "Largest index of a segment."),
    setting(
        "log.flush.interval.messages",
        Long(1),
        "9223372036854775807",
        "Records between syncs; acks=all syncs by itself.",
    ),
    setting(
        "log.flush.interval.ms",
        Long(0),
        "",
        "Time between syncs; empty: acks=all syncs by itself.",
    ),
    setting(
        "log.segment.delete.delay.ms",
        Long(0),
        "60000",
        "How long a removed segment's file is kept.",
    ),
    setting("log.preallocate", Boolean, "false", "Reserve a segment's space when it is opened."),
    setting(
        "log.message.timestamp.type",
        Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Whose clock stamps records.",
    ),
    setting(
        "log.message.timestamp.before.max.ms",
        Long(0),
        "9223372036854775807",
        "How far a record's time may lie in the past.",
    ),
    setting(
        "log.message.timestamp.after.max.ms",
        Long(0),
        "3600000",
        "How far a record's time may lie in the future.",
    ),
    setting("log.cleaner.enable", Boolean, "true", "Compact the topics that want it."),
    setting(
        "log.cleaner.backoff.ms",
        Long(1),
        "15000",
        "How often it is looked for something to compact.",
    ),
    setting(
        "log.cleaner.dedupe.buffer.size",
        Long(1024),
        "134217728",
        "Bytes that one compaction may take to remember keys; there is one per log directory.",
    ),
    setting(
        "log.cleaner.delete.retention.ms",
        Long(0),
        "86400000",
        "How long compaction keeps tombstones.",
    ),
    setting(
        "log.cleaner.min.compaction.lag.ms",
        Long(0),
        "0",
        "Younger records are not compacted.",
    ),
    setting(
        "log.cleaner.max.compaction.lag.ms",
        Long(1),
        "9223372036854775807",
        "Older records are compacted for certain.",
    ),
    setting(
        "log.cleaner.min.cleanable.ratio",
        Ratio,
        "0.5",
        "Share of uncompacted bytes that starts compaction.",
    ),
    setting(
        "num.recovery.threads.per.data.dir",
        Int(1),
        "2",
        "Threads that recover logs after an unclean stop.",
    ),
    setting(
        "producer.id.expiration.ms",
        Int(1),
        "86400000",
        "How long an idle producer's sequence is remembered.",
    ),
    // Groups.
    setting(
        "max.incremental.fetch.session.cache.slots",
        Int(0),
        "1000",
        "Fetch sessions that are kept; 0: every fetch names all it wants.",
    ),
    setting(
        "offsets.topic.num.partitions",
        Int(1),
        "50",
        "Partitions of __consumer_offsets when it is created.",
    ),
    setting(
        "offsets.topic.replication.factor",
        Derived,
        "",
        "Replicas of __consumer_offsets, which is created when that many brokers are there; empty: 1 with a coordinator inside this process, else 3.",
    ),
    setting(
        "offsets.topic.segment.bytes",
        Int(1024),
        "104857600",
        "Size of a segment of __consumer_offsets when it is created.",
    ),
    setting(
        "offsets.retention.minutes",
        Int(1),
        "10080",
        "How long offsets are kept after the last member has left, or after the commit where there never was a member.",
    ),
    setting(
        "offsets.retention.check.interval.ms",
        Long(1),
        "600000",
        "How often offsets that have been kept long enough are looked for.",
    ),
    setting("offset.metadata.max.bytes", Int(0), "4096", "Largest note beside an offset."),
    setting(
        "offsets.commit.timeout.ms",
        Int(1),
        "5000",
        "How long a commit waits for the in-sync replicas.",
    ),
    setting(
        "group.min.session.timeout.ms",
        Int(1),
        "6000",
        "Shortest silence after which a member may ask to be taken out.",
    ),
    setting(
        "group.max.session.timeout.ms",
        Int(1),
        "1800000",
        "Longest silence after which a member may ask to be taken out.",
    ),
    setting(
        "group.initial.rebalance.delay.ms",
        Int(0),
        "300",
        "How long an empty group waits for more members after each that comes. Kafka waits 3000, which a single member feels.",
    ),
    setting("group.max.size", Int(1), "2000", "Members of one group."),
    // Replication and the cluster.
    setting("fetch.max.bytes", Int(1024), "57671680", "Largest answer to a fetch."),
    setting(
        "replica.lag.time.max.ms",
        Long(100),
        "10000",
        "A follower that lags longer leaves the in-sync replicas.",
    ),
    setting(
        "replica.fetch.max.bytes",
        Int(1),
        "1048576",
        "Bytes of one partition that a follower asks for.",
    ),
    setting(
        "replica.fetch.response.max.bytes",
        Int(1),
        "10485760",
        "Bytes that a follower asks for.",
    ),
    setting("replica.fetch.min.bytes", Int(1), "1", "Bytes that complete a follower's fetch."),
    setting(
        "replica.fetch.wait.max.ms",
        Int(1),
        "500",
        "How long a follower's fetch waits for records.",
    ),
    setting("replica.fetch.backoff.ms", Int(1), "200", "Pause after a follower's fetch failed."),
    setting(
        "replica.socket.timeout.ms",
        Int(1),
        "30000",
        "Longest wait for another broker's answer.",
    ),
    setting(
        "auto.leader.rebalance.enable",
        Boolean,
        "true",
        "Bring leaders back to the first replica of their partition.",
    ),
    setting(
        "leader.imbalance.check.interval.seconds",
        Int(1),
        "300",
        "How often it is looked whether leaders are to be brought back.",
    ),
    setting(
        "leader.imbalance.per.broker.percentage",
        Int(0),
        "10",
        "Share of what a broker is to lead that others may lead before it is brought back.",
    ),
    setting("controlled.shutdown.enable", Boolean, "true", "Move leaders away before stopping."),
    setting("controlled.shutdown.max.retries", Int(0), "3", "Attempts to move leaders away."),
    setting("controlled.shutdown.retry.backoff.ms", Long(1), "1000", "Pause between attempts."),
];

/// The topics' settings, with the broker's settings that give their defaults.
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    topic("cleanup.policy", "log.cleanup.policy"),
    topic("compression.type", "compression.type"),
    topic("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    topic("durability", "durability"),
    topic("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    topic("flush.messages", "log.flush.interval.messages"),
    topic("flush.ms", "log.flush.interval.ms"),
    topic("index.interval.bytes", "log.index.interval.bytes"),
    topic("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    topic("max.message.bytes", "message.max.bytes"),
    topic("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    topic("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    topic("message.timestamp.type", "log.message.timestamp.type"),
    topic("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    topic("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    topic("min.insync.replicas", "min.insync.replicas"),
    topic("preallocate", "log.preallocate"),
    topic("retention.bytes", "log.retention.bytes"),
    topic("retention.ms", "log.retention.ms"),
    topic("segment.bytes", "log.segment.bytes"),
    topic("segment.index.bytes", "log.index.size.max.bytes"),
    topic("segment.jitter.ms", "log.roll.jitter.ms"),
    topic("segment.ms", "log.roll.ms"),
    topic("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

/// The broker's setting called `name`.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The topic's setting called `name`.
pub fn find_topic(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.iter().find(|setting| setting.name == name)
}

/// The known name that is most like `name`, unless none is.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) =
        known.map(|known| (edit_distance(name, known), known)).min_by_key(|(far, _)| *far)?;
    (distance <= name.len().max(nearest.len()) / 2).then_some(nearest)
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, left) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, right) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

impl Kind {
    /// Checks `text` against the kind.
    ///
    /// # Errors
    /// What is wrong, in words that complete "name: ...".
    pub fn check(self, text: &str) -> Result<(), String> {
        let number = |min: i64, max: i64| match text.trim().parse::<i64>() {
            Ok(value) if (min..=max).contains(&value) => Ok(()),
            Ok(value) => Err(format!("{value} is not within {min}..={max}")),
            Err(_) => Err(format!("\"{text}\" is not a number")),
        };
        let word = |words: &[&str], word: &str| {
            let known = words.contains(&word.trim());
            known.then_some(()).ok_or_else(|| format!("\"{word}\" is not one of {words:?}"))
        };
        match self {
            Self::Boolean => word(&["true", "false"], text),
            Self::Int(min) => number(min, i64::from(i32::MAX)),
            Self::Long(min) => number(min, i64::MAX),
            Self::Derived => number(1, i64::from(i16::MAX)),
            Self::Ratio => match text.trim().parse::<f64>() {
                Ok(value) if (0.0..=1.0).contains(&value) => Ok(()),
                _ => Err(format!("\"{text}\" is not a number from 0 to 1")),
            },
            Self::Text | Self::List => Ok(()),
            Self::Choice(words) => word(words, text),
            Self::Choices(words) => text.split(',').try_for_each(|one| word(words, one)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_valid() {
        let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            assert_eq!(setting.kind.check(setting.default), Ok(()), "{}", setting.name);
        }
        for topic in TOPIC_SETTINGS {
            assert!(find(topic.broker).is_some(), "{}", topic.name);
        }
    }

    #[test]
    fn nearest_name_is_found_and_nonsense_has_none() {
        let names = || SETTINGS.iter().map(|setting| setting.name);
        assert_eq!(nearest("log.retention.sm", names()), Some("log.retention.ms"));
        assert_eq!(nearest("num.partition", names()), Some("num.partitions"));
        assert_eq!(nearest("zzzzzzzzzzzzz", names()), None);
    }
}
