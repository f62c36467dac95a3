//! What the APIs did, as Prometheus is told of it.

use super::*;
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
    let metrics = Metrics::new(Sources {
        broker_id: BROKER,
        image: bench.shared.image.clone(),
        partitions: Arc::clone(&bench.partitions),
        traffic: Arc::clone(&bench.shared.traffic),
        connections: Vec::new(),
    });
    let text = metrics.text();
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
