//! Brokers, topics and partitions under the names of kafka_exporter.
//!
//! Called by: `collect`. Calls: the image, the partitions.
//! Invariant: every line comes from one broker of the cluster only, so that sums are right: of a partition from its leader, of the
//! whole cluster, and of partitions without a leader, from the controller.

use std::collections::HashMap;
use std::fmt;

use broker_core::ids::TopicPartition;
use broker_core::image::{Image, StoredState, Topic};
use client_protocol::PartitionId;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::collect::{Sources, encode_gauge, gauge};
use crate::config::PUBLIC_LISTENER;

/// One partition that this broker speaks for.
struct Line<'a> {
    topic: &'a Topic,
    partition: PartitionId,
    stored: &'a StoredState,
    preferred: Option<i32>,
    replicas: usize,
    /// High watermark and log start, on its leader.
    offsets: Option<(i64, i64)>,
}

pub(super) fn encode(
    sources: &Sources,
    image: &Image,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let is_controller = image.controller().is_some_and(|held| held.broker == sources.broker_id);
    if is_controller {
        encode_cluster(image, encoder)?;
    }
    let lines = lines(sources, image, is_controller);
    type Read = fn(&Line<'_>) -> Option<i64>;
    let figures: [(&str, &str, Read); 7] = [
        ("current_offset", "Offset behind the last committed record", |line| Some(line.offsets?.0)),
        ("oldest_offset", "Offset of the first record", |line| Some(line.offsets?.1)),
        ("leader", "Id of the leader, -1 without one", |line| Some(line.leader().into())),
        ("leader_is_preferred", "1 if the first replica leads", |line| {
            Some(i64::from(line.preferred == Some(line.leader())))
        }),
        ("replicas", "Replicas", |line| Some(count(line.replicas))),
        ("in_sync_replica", "Replicas in sync", |line| Some(count(line.stored.state.isr.len()))),
        ("under_replicated_partition", "1 if replicas are out of sync", |line| {
            Some(i64::from(line.stored.state.isr.len() < line.replicas))
        }),
    ];
    for (name, help, read) in figures {
        let name = format!("kafka_topic_partition_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        for line in &lines {
            let Some(value) = read(line) else { continue };
            let partition = line.partition.get().to_string();
            let labels = [("topic", &*line.topic.name), ("partition", partition.as_str())];
            encode_gauge(&mut family, &labels, value)?;
        }
    }
    Ok(())
}

fn encode_cluster(image: &Image, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauge(encoder, "kafka_brokers", "Registered brokers", image.brokers().count())?;
    let help = "Where a broker is";
    let mut family =
        encoder.encode_descriptor("kafka_broker_info", help, None, MetricType::Gauge)?;
    for broker in image.brokers() {
        let id = broker.id.get().to_string();
        let endpoint = broker.registration.endpoint(PUBLIC_LISTENER);
        let address = endpoint.map(|at| format!("{}:{}", at.host, at.port)).unwrap_or_default();
        let labels = [("id", id.as_str()), ("address", address.as_str())];
        encode_gauge(&mut family, &labels, 1_u64)?;
    }
    let help = "Partitions of a topic";
    let mut family =
        encoder.encode_descriptor("kafka_topic_partitions", help, None, MetricType::Gauge)?;
    for topic in image.topics() {
        let partitions = count(topic.node.partitions.len());
        encode_gauge(&mut family, &[("topic", &*topic.name)], partitions)?;
    }
    Ok(())
}

fn lines<'a>(sources: &Sources, image: &'a Image, is_controller: bool) -> Vec<Line<'a>> {
    let held = sources.partitions.status();
    let offsets: HashMap<_, _> = held
        .iter()
        .map(|status| (status.partition, (status.high_watermark.get(), status.log_start.get())))
        .collect();
    let mut lines = Vec::new();
    for topic in image.topics() {
        for (partition, stored) in image.states(&topic.name) {
            let leads = stored.state.leader == Some(sources.broker_id);
            let is_orphan = stored.state.leader.is_none();
            if !(leads || (is_controller && is_orphan)) {
                continue;
            }
            let replicas = image.replicas(&topic.name, partition).unwrap_or_default();
            let key = TopicPartition { topic: topic.node.id, partition };
            lines.push(Line {
                topic,
                partition,
                stored,
                preferred: replicas.first().map(|first| first.get()),
                replicas: replicas.len(),
                offsets: offsets.get(&key).copied().filter(|_| leads),
            });
        }
    }
    lines
}

impl Line<'_> {
    fn leader(&self) -> i32 {
        self.stored.state.leader.map_or(-1, |leader| leader.get())
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
