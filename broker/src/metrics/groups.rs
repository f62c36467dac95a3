//! Groups and how far they are behind, under the names of kafka_exporter.
//!
//! Called by: `collect`. Calls: the groups that this broker coordinates, the partitions here, other brokers for the rest.
//! Invariant: a group's lines come from its coordinator only; where a partition ends cannot be told at the moment its lag is -1, and is
//! in no sum.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use broker_core::group::GroupFigures;
use broker_core::ids::TopicPartition;
use broker_core::image::Image;
use client_protocol::PartitionId;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::collect::{Sources, encode_gauge, gauge};

/// Groups as they were when they were asked for.
#[derive(Debug)]
pub(super) struct GroupsRead {
    groups: Vec<GroupRead>,
}

#[derive(Clone, Debug)]
struct GroupRead {
    group: String,
    members: usize,
    topics: BTreeMap<String, Vec<Position>>,
}

/// Where a group is in one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    partition: i32,
    offset: i64,
    /// Records behind it that are committed; unknown if nobody told where the partition ends.
    lag: Option<i64>,
}

impl GroupsRead {
    pub(super) async fn read(sources: &Sources) -> Self {
        let figures = sources.groups.figures().await;
        let image = sources.image.borrow().clone();
        let wanted: BTreeSet<TopicPartition> =
            figures.iter().flat_map(|group| keys(&image, group)).flatten().collect();
        let held = sources.partitions.status().into_iter();
        let held = held.filter(|status| wanted.contains(&status.partition));
        let mut ends: BTreeMap<_, _> =
            held.map(|status| (status.partition, status.high_watermark.get())).collect();
        let elsewhere: BTreeSet<_> =
            wanted.into_iter().filter(|key| !ends.contains_key(key)).collect();
        if !elsewhere.is_empty() {
            let found = (sources.remote)(elsewhere).await;
            ends.extend(found.into_iter().map(|(key, offset)| (key, offset.get())));
        }
        let groups = figures.into_iter().map(|group| {
            let keys: Vec<_> = keys(&image, &group).collect();
            GroupRead::new(group, &keys, &ends)
        });
        Self { groups: groups.collect() }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let domain = "kafka_coordinator_group_groupmetadatamanager";
        let (groups, offsets) = (self.groups.len(), self.positions().count());
        for (name, help, count) in [
            ("numgroups", "Groups that this broker coordinates", groups),
            ("numoffsets", "Offsets that they have committed", offsets),
        ] {
            gauge(encoder, &format!("{domain}_{name}"), help, count)?;
        }
        self.encode_members(encoder)?;
        type Read = fn(&Position) -> i64;
        let by_partition: [(&str, &str, Read); 2] = [
            ("current_offset", "Offset at which a group reads on", |at| at.offset),
            ("lag", "Committed records that a group has not read, -1 if unknown", |at| {
                at.lag.unwrap_or(-1)
            }),
        ];
        for (name, help, read) in by_partition {
            let name = format!("kafka_consumergroup_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (group, topic, at) in self.positions() {
                let partition = at.partition.to_string();
                let labels =
                    [("consumergroup", group), ("topic", topic), ("partition", partition.as_str())];
                encode_gauge(&mut family, &labels, read(at))?;
            }
        }
        let by_topic: [(&str, &str, Read); 2] = [
            ("current_offset_sum", "Sum of current_offset", |at| at.offset),
            ("lag_sum", "Sum of what is known of lag", |at| at.lag.unwrap_or(0)),
        ];
        for (name, help, read) in by_topic {
            let name = format!("kafka_consumergroup_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for group in &self.groups {
                for (topic, positions) in &group.topics {
                    let sum = positions.iter().map(read).fold(0_i64, i64::saturating_add);
                    let labels = [("consumergroup", group.group.as_str()), ("topic", topic)];
                    encode_gauge(&mut family, &labels, sum)?;
                }
            }
        }
        Ok(())
    }

    fn encode_members(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = ("kafka_consumergroup_members", "Members of a group");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for group in &self.groups {
            let labels = [("consumergroup", group.group.as_str())];
            encode_gauge(&mut family, &labels, group.members as u64)?;
        }
        Ok(())
    }

    fn positions(&self) -> impl Iterator<Item = (&str, &str, &Position)> {
        self.groups.iter().flat_map(|group| {
            group.topics.iter().flat_map(|(topic, positions)| {
                positions.iter().map(|at| (group.group.as_str(), topic.as_str(), at))
            })
        })
    }
}

impl GroupRead {
    fn new(
        figures: GroupFigures,
        keys: &[Option<TopicPartition>],
        ends: &BTreeMap<TopicPartition, i64>,
    ) -> Self {
        let mut topics: BTreeMap<String, Vec<Position>> = BTreeMap::new();
        for ((topic, partition, offset), key) in figures.offsets.into_iter().zip(keys) {
            let end = key.and_then(|key| ends.get(&key));
            let lag = end.map(|end| end.saturating_sub(offset).max(0));
            topics.entry(topic).or_default().push(Position { partition, offset, lag });
        }
        Self { group: figures.group, members: figures.members, topics }
    }
}

/// The partition of each offset; `None` for one that is gone.
fn keys<'a>(
    image: &'a Image,
    group: &'a GroupFigures,
) -> impl Iterator<Item = Option<TopicPartition>> + use<'a> {
    group.offsets.iter().map(|(topic, partition, _)| {
        let partition = PartitionId::new(*partition);
        let topic = image.topic(topic)?.node.id;
        Some(TopicPartition { topic, partition })
    })
}

#[cfg(test)]
mod tests {
    use client_protocol::TopicId;

    use super::*;

    #[test]
    fn a_lag_that_nobody_can_tell_is_in_no_sum() {
        let topic = TopicId::from_bytes([1; 16]);
        let key = |partition| TopicPartition { topic, partition: PartitionId::new(partition) };
        let offsets = [(0, 4), (1, 9), (2, 5)];
        let figures = GroupFigures {
            group: "g".to_owned(),
            members: 1,
            offsets: offsets.map(|(partition, at)| ("t".to_owned(), partition, at)).to_vec(),
        };
        let ends = BTreeMap::from([(key(0), 10), (key(1), 8)]);
        let read = GroupRead::new(figures, &[Some(key(0)), Some(key(1)), Some(key(2))], &ends);
        let lags: Vec<_> = read.topics["t"].iter().map(|at| at.lag).collect();
        // A group may have read what this replica has not heard to be committed.
        assert_eq!(lags, [Some(6), Some(0), None]);
        let sources = GroupsRead { groups: vec![read] };
        let text = encoded(&sources);
        let labels = "{consumergroup=\"g\",topic=\"t\"";
        for line in [
            format!("kafka_consumergroup_lag{labels},partition=\"2\"}} -1"),
            format!("kafka_consumergroup_lag_sum{labels}}} 6"),
            format!("kafka_consumergroup_current_offset_sum{labels}}} 18"),
            "kafka_consumergroup_members{consumergroup=\"g\"} 1".to_owned(),
            "kafka_coordinator_group_groupmetadatamanager_numoffsets 3".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    fn encoded(read: &GroupsRead) -> String {
        #[derive(Debug)]
        struct One(Vec<GroupRead>);
        impl prometheus_client::collector::Collector for One {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
                GroupsRead { groups: self.0.clone() }.encode(&mut encoder)
            }
        }
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(One(read.groups.clone())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}
