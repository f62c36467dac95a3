//! What the APIs did, as Prometheus is told of it.

use super::groups::{commit, committed, coordinator};
use super::*;
use crate::cluster::Watermarks;
use crate::metrics::{Metrics, Sources};

fn line<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[tokio::test]
async fn what_was_produced_and_fetched_is_counted_by_topic() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    let batch = batch(&["a", "b", "c"]);
    let bytes = batch.len();
    bench.ask(9, &produce(-1, "t", &[Some(batch)])).await;
    bench.ask(9, &produce(-1, "no such topic", &[Some(Bytes::from_static(b"x"))])).await;
    bench.ask(11, &fetch("t", 0)).await;
    let metrics = Metrics::new(sources(&bench));
    let text = metrics.text().await;
    let topic = "kafka_server_brokertopicmetrics_";
    for (name, count) in [
        ("bytesin_total{topic=\"t\"}", bytes),
        ("messagesin_total{topic=\"t\"}", 3),
        ("bytesout_total{topic=\"t\"}", bytes),
        ("totalproducerequests_total{topic=\"t\"}", 1),
        ("failedproducerequests_total{topic=\"t\"}", 0),
        ("failedproducerequests_total{topic=\"\"}", 1),
    ] {
        let name = format!("{topic}{name}");
        assert_eq!(line(&text, &name), format!("{name} {count}"));
    }
    let end = "kafka_log_log_logendoffset{topic=\"t\",partition=\"0\"}";
    assert_eq!(line(&text, end), format!("{end} 3"));
    assert!(text.ends_with("# EOF\n"));
}

fn sources(bench: &Bench) -> Sources {
    Sources {
        broker_id: BROKER,
        image: bench.shared.image.clone(),
        partitions: Arc::clone(&bench.partitions),
        traffic: Arc::clone(&bench.shared.traffic),
        connections: Vec::new(),
        groups: Arc::clone(&bench.shared.groups),
        remote: Box::new(|_| Box::pin(std::future::ready(Watermarks::default()))),
        unclean_elections: Arc::default(),
    }
}

#[tokio::test]
async fn groups_and_topics_have_the_names_of_kafka_exporter() {
    let mut bench = Bench::new(Scope::Public);
    bench.create("t").await;
    bench.ask(9, &produce(-1, "t", &[Some(batch(&["a", "b", "c"]))])).await;
    coordinator(&mut bench, 3, "g").await;
    let codes = committed(&mut bench, 8, &commit("g", &["t"], 1)).await;
    assert_eq!(codes, [ErrorCode::None]);
    let text = Metrics::new(sources(&bench)).text().await;
    for (name, value) in [
        ("kafka_consumergroup_current_offset{consumergroup=\"g\",topic=\"t\",partition=\"0\"}", 1),
        ("kafka_consumergroup_lag{consumergroup=\"g\",topic=\"t\",partition=\"0\"}", 2),
        ("kafka_consumergroup_current_offset_sum{consumergroup=\"g\",topic=\"t\"}", 1),
        ("kafka_consumergroup_lag_sum{consumergroup=\"g\",topic=\"t\"}", 2),
        ("kafka_consumergroup_members{consumergroup=\"g\"}", 0),
        ("kafka_coordinator_group_groupmetadatamanager_numgroups", 1),
        ("kafka_topic_partition_current_offset{topic=\"t\",partition=\"0\"}", 3),
        ("kafka_topic_partition_oldest_offset{topic=\"t\",partition=\"0\"}", 0),
        ("kafka_topic_partition_leader{topic=\"t\",partition=\"0\"}", BROKER.get()),
        ("kafka_topic_partition_leader_is_preferred{topic=\"t\",partition=\"0\"}", 1),
        ("kafka_topic_partition_replicas{topic=\"t\",partition=\"0\"}", 1),
        ("kafka_topic_partition_in_sync_replica{topic=\"t\",partition=\"0\"}", 1),
        ("kafka_topic_partition_under_replicated_partition{topic=\"t\",partition=\"0\"}", 0),
        ("kafka_controller_controllerstats_uncleanleaderelections_total", 0),
    ] {
        assert_eq!(line(&text, name), format!("{name} {value}"));
    }
    for name in ["networkprocessoravgidle_percent", "requesthandleravgidle_percent"] {
        let found = text.lines().find(|line| !line.starts_with('#') && line.contains(name));
        let idle: f64 = found.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!((0.0..=1.0).contains(&idle), "{idle}");
    }
}
