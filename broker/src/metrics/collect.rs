//! Reads the broker's state when it is scraped and writes it in OpenMetrics' text form.
//!
//! Called by: `http`. Calls: the image, the partitions, the traffic counters, the groups, and the files beside it.
//! Names follow the JMX exporter's convention for Kafka (`kafka_<domain>_<type>_<name>`), which
//! existing dashboards ask for; what belongs to the JVM is left out and `process_*` stands instead.
//! Does not know: who asks.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use broker_core::ids::TopicPartition;
use broker_core::image::{Image, StoredState, Topic};
use client_protocol::{BrokerId, PartitionId};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::groups::GroupsRead;
use super::process::{self, Busy};
use super::topics;
use super::traffic::{TopicTraffic, Traffic};
use crate::api::shared::Later;
use crate::cluster::Watermarks;
use crate::groups::Groups;
use crate::partitions::Partitions;

/// Where the figures come from.
pub struct Sources {
    /// This broker.
    pub broker_id: BrokerId,
    /// The newest image.
    pub image: watch::Receiver<Arc<Image>>,
    /// What this broker holds.
    pub partitions: Arc<Partitions>,
    /// What the APIs counted.
    pub traffic: Arc<Traffic>,
    /// Open connections by listener.
    pub connections: Vec<(&'static str, Arc<AtomicUsize>)>,
    /// The groups that it coordinates.
    pub groups: Arc<Groups>,
    /// High watermarks of what other brokers lead.
    pub remote: Remote,
    /// Leaders that it elected, as controller, though they may lack committed records.
    pub unclean_elections: Arc<AtomicU64>,
}

/// Asks other brokers for the high watermarks of these partitions.
pub type Remote = Box<dyn Fn(BTreeSet<TopicPartition>) -> Later<Watermarks> + Send + Sync>;

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sources")
            .field("broker_id", &self.broker_id)
            .finish_non_exhaustive()
    }
}

/// What `/metrics` answers.
pub struct Metrics {
    sources: Arc<Sources>,
    busy: Arc<Busy>,
}

impl Metrics {
    /// Metrics that read `sources` at each scrape.
    pub fn new(sources: Sources) -> Self {
        Self { sources: Arc::new(sources), busy: Arc::default() }
    }

    /// All of them in OpenMetrics' text form.
    pub async fn text(&self) -> String {
        let groups = GroupsRead::read(&self.sources).await;
        let (sources, busy) = (Arc::clone(&self.sources), Arc::clone(&self.busy));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { sources, groups, busy }));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

/// Everything that one answer is made of.
#[derive(Debug)]
struct Scrape {
    sources: Arc<Sources>,
    groups: GroupsRead,
    busy: Arc<Busy>,
}

/// A counter of a topic: its name, what it counts, where it stands.
type TopicCounter = (&'static str, &'static str, fn(&TopicTraffic) -> &AtomicU64);

const TOPIC_COUNTERS: [TopicCounter; 7] = [
    ("bytesin", "Bytes of produced batches", |topic| &topic.bytes_in),
    ("bytesout", "Bytes that consumers fetched", |topic| &topic.bytes_out),
    ("messagesin", "Produced records", |topic| &topic.messages_in),
    ("totalproducerequests", "Batches offered", |topic| &topic.produce_requests),
    ("failedproducerequests", "Batches refused", |topic| &topic.failed_produce_requests),
    ("totalfetchrequests", "Partitions that consumers asked for", |topic| &topic.fetch_requests),
    ("failedfetchrequests", "Of these, refused", |topic| &topic.failed_fetch_requests),
];

/// A figure of a partition that this broker leads.
struct Led<'a> {
    topic: &'a Topic,
    partition: PartitionId,
    in_sync: usize,
    replicas: usize,
    in_sync_min: usize,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let sources = &self.sources;
        let image = Arc::clone(&sources.image.borrow());
        sources.encode_traffic(&image, &mut encoder)?;
        sources.encode_replicas(&image, &mut encoder)?;
        sources.encode_controller(&image, &mut encoder)?;
        sources.encode_logs(&mut encoder)?;
        sources.encode_connections(&mut encoder)?;
        topics::encode(sources, &image, &mut encoder)?;
        self.groups.encode(&mut encoder)?;
        process::encode(&self.busy, &mut encoder)
    }
}

impl Sources {
    fn encode_traffic(&self, image: &Image, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let topics = self.traffic.topics(|name| image.topic(name).is_some());
        for (name, help, counter) in TOPIC_COUNTERS {
            let name = format!("kafka_server_brokertopicmetrics_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (topic, counters) in &topics {
                let count = counter(counters).load(Ordering::Relaxed);
                let labels = [("topic", topic.as_str())];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_replicas(&self, image: &Image, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let led = self.led(image);
        let held = self.partitions.status().len();
        let lacking = led.iter().filter(|led| led.in_sync < led.replicas).count();
        let counts = [
            ("leadercount", "Partitions that this broker leads", led.len()),
            ("partitioncount", "Partitions that this broker holds", held),
            ("underreplicatedpartitions", "Led partitions with replicas out of sync", lacking),
        ];
        for (name, help, count) in counts {
            let name = format!("kafka_server_replicamanager_{name}");
            gauge(encoder, &name, help, count)?;
        }
        type Judge = fn(&Led<'_>) -> bool;
        let judges: [(&str, &str, Judge); 2] = [
            ("underminisr", "Fewer in sync than acks=all needs", |led| {
                led.in_sync < led.in_sync_min
            }),
            ("atminisr", "Just as many in sync as acks=all needs", |led| {
                led.in_sync == led.in_sync_min
            }),
        ];
        for (name, help, judge) in judges {
            let name = format!("kafka_cluster_partition_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for led in &led {
                let partition = led.partition.get().to_string();
                let labels = [("topic", &*led.topic.name), ("partition", partition.as_str())];
                encode_gauge(&mut family, &labels, u64::from(judge(led)))?;
            }
        }
        Ok(())
    }

    fn encode_controller(&self, image: &Image, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let active = image.controller().is_some_and(|holder| holder.broker == self.broker_id);
        // Only the controller answers for the whole cluster, so that sums over brokers are right.
        let offline = if active {
            let states = image.topics().flat_map(|topic| image.states(&topic.name));
            states.filter(|(_, stored)| stored.state.leader.is_none()).count()
        } else {
            0
        };
        let domain = "kafka_controller_kafkacontroller";
        let name = format!("{domain}_activecontrollercount");
        gauge(encoder, &name, "1 on the broker that is the controller", usize::from(active))?;
        let name = format!("{domain}_offlinepartitionscount");
        gauge(encoder, &name, "Partitions without a leader, told by the controller", offline)?;
        let name = "kafka_controller_controllerstats_uncleanleaderelections";
        let help = "Leaders that this controller elected though they may lack committed records";
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(self.unclean_elections.load(Ordering::Relaxed)).encode(metric)
    }

    fn encode_logs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let statuses = self.partitions.status();
        type Read = fn(&crate::partitions::ReplicaStatus) -> u64;
        let figures: [(&str, &str, Read); 4] = [
            ("size", "Bytes of the log's segments", |status| status.size_bytes),
            ("logstartoffset", "First offset", |status| unsigned(status.log_start.get())),
            ("logendoffset", "Offset of the next record", |status| unsigned(status.end.get())),
            ("highwatermark", "Everything below is committed", |status| {
                unsigned(status.high_watermark.get())
            }),
        ];
        for (name, help, read) in figures {
            let name = format!("kafka_log_log_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for status in &statuses {
                let partition = status.partition.partition.get().to_string();
                let labels = [("topic", &*status.topic), ("partition", partition.as_str())];
                encode_gauge(&mut family, &labels, read(status))?;
            }
        }
        Ok(())
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "kafka_server_socket_server_metrics_connection_count";
        let help = "Open connections";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (listener, open) in &self.connections {
            let open = open.load(Ordering::Relaxed) as u64;
            encode_gauge(&mut family, &[("listener", *listener)], open)?;
        }
        Ok(())
    }

    fn led<'a>(&self, image: &'a Image) -> Vec<Led<'a>> {
        let mut led = Vec::new();
        for topic in image.topics() {
            let in_sync_min = image.replication_settings(&topic.name).min_insync_replicas;
            for (partition, StoredState { state, .. }) in image.states(&topic.name) {
                if state.leader != Some(self.broker_id) {
                    continue;
                }
                let replicas = image.replicas(&topic.name, partition).map_or(0, <[_]>::len);
                let in_sync = state.isr.len();
                led.push(Led { topic, partition, in_sync, replicas, in_sync_min });
            }
        }
        led
    }
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: usize,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value as u64).encode(metric)
}

pub(super) fn encode_gauge(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(&labels)?)
}
