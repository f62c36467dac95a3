//! `tidegate bench`: how fast records are written or read.
//!
//! *Called by* `main`. *Calls* `client::Producer`, `client::Consumer`.
//!
//! Latency is from when a record is given to the producer to when its end is known; one record in [`SAMPLE_EVERY`] is
//! timed, so that the timing does not slow the rest down.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::protocol::records::Record;
use client::{Admin, Begin, Consumer, ConsumerOptions, Delivery, Producer, TopicPartition};
use serde_json::json;
use tokio::sync::mpsc;

use crate::args::{BenchCommand, Format, ProducerArguments};
use crate::output::{Table, print_json};
use crate::patience::{Patience, TELL_AFTER, tell_if_late, watch};
use crate::settings::Settings;

const SAMPLE_EVERY: u64 = 61;

/// Samples whose end is not known yet.
const SAMPLES_WAITING_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct Figures {
    records: u64,
    bytes: u64,
    elapsed: Duration,
    failed: u64,
    /// Ascending.
    latencies: Vec<Duration>,
}

/// Measures, and prints the figures.
pub async fn run(settings: &Settings, command: BenchCommand, format: Format) -> anyhow::Result<()> {
    let figures = match command {
        BenchCommand::Produce { topic, records, size, rate, producer } => {
            produce(settings, (&topic, &producer), (records, size), rate).await?
        }
        BenchCommand::Consume { topic, records } => consume(settings, &topic, records).await?,
    };
    figures.print(format)
}

async fn produce(
    settings: &Settings,
    (topic, arguments): (&str, &ProducerArguments),
    (records, size): (u64, usize),
    rate: Option<u64>,
) -> anyhow::Result<Figures> {
    let options = crate::produce::options(arguments);
    settings.cluster().await?;
    let producer = Producer::new(&settings.bootstrap, &settings.client(), options);
    tell_if_late("the topic has been looked up", producer.partitions(topic)).await?;
    let figures = tokio::select! {
        figures = load(&producer, topic, (records, size), rate) => figures?,
        never = watch(&producer) => match never {},
    };
    producer.close().await;
    Ok(figures)
}

/// Sends all records, and waits for the end of each.
async fn load(
    producer: &Producer,
    topic: &str,
    (records, size): (u64, usize),
    rate: Option<u64>,
) -> anyhow::Result<Figures> {
    // Neither all the same nor all different: it packs as text does.
    let pattern = (0..size).map(|at| b'a' + u8::try_from((at * at / 7) % 23).unwrap_or_default());
    let value: Bytes = pattern.collect::<Vec<u8>>().into();
    let (samples, timed) = mpsc::channel(SAMPLES_WAITING_MAX);
    let timing = tokio::spawn(time(timed));
    let began = Instant::now();
    for number in 0..records {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            if let Some(early) = due.checked_sub(began.elapsed()) {
                tokio::time::sleep(early).await;
            }
        }
        let record = Record { value: Some(value.clone()), ..Record::default() };
        let delivery = producer.send(topic, record).await?;
        if number % SAMPLE_EVERY == 0 {
            // A full channel only leaves a sample out.
            let _left_out = samples.try_send((Instant::now(), delivery));
        }
    }
    producer.flush().await;
    let elapsed = began.elapsed();
    drop(samples);
    let (mut latencies, failed) = timing.await?;
    latencies.sort();
    let bytes = records.saturating_mul(u64::try_from(size).unwrap_or(u64::MAX));
    Ok(Figures { records, bytes, elapsed, failed, latencies })
}

/// Waits for the samples' ends: how long each took, and how many failed.
async fn time(mut samples: mpsc::Receiver<(Instant, Delivery)>) -> (Vec<Duration>, u64) {
    let mut latencies = Vec::new();
    let mut failed = 0u64;
    while let Some((sent, delivery)) = samples.recv().await {
        match delivery.wait().await {
            Ok(_) => latencies.push(sent.elapsed()),
            Err(_) => failed = failed.saturating_add(1),
        }
    }
    (latencies, failed)
}

async fn consume(settings: &Settings, topic: &str, wanted: u64) -> anyhow::Result<Figures> {
    let mut admin = Admin::new(settings.cluster().await?);
    let partitions = admin.describe_topic(topic).await?.partitions;
    let mut consumer =
        Consumer::new(&settings.bootstrap, &settings.client(), ConsumerOptions::default());
    let began = Instant::now();
    for partition in partitions {
        let partition = TopicPartition { topic: topic.into(), partition: partition.id };
        consumer.assign(&partition, Begin::Earliest)?;
    }
    let (mut records, mut bytes) = (0u64, 0u64);
    let mut patience = Patience::default();
    while records < wanted {
        let Ok(fetched) = tokio::time::timeout(TELL_AFTER, consumer.poll()).await else {
            let obstacles = consumer.obstacles(TELL_AFTER);
            if obstacles.is_empty() {
                eprintln!("{records} of {wanted} records read, and no more come; -n says how many");
            }
            patience.tell(&obstacles);
            continue;
        };
        for fetched in fetched? {
            for record in fetched.records() {
                records = records.saturating_add(1);
                let length = record.value.map_or(0, <[u8]>::len);
                bytes = bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
            }
        }
    }
    let elapsed = began.elapsed();
    consumer.close().await?;
    Ok(Figures { records, bytes, elapsed, ..Figures::default() })
}

impl Figures {
    fn print(&self, format: Format) -> anyhow::Result<()> {
        let seconds = self.elapsed.as_secs_f64();
        let per_second = self.records as f64 / seconds;
        let megabytes = self.bytes as f64 / 1e6 / seconds;
        let millis = |share: f64| {
            let last = self.latencies.len().checked_sub(1)?;
            let at = (last as f64 * share).round() as usize;
            self.latencies.get(at).map(|latency| latency.as_secs_f64() * 1e3)
        };
        let shares = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
        if format == Format::Json {
            let latency = shares.map(|(name, share)| (name.to_owned(), json!(millis(share))));
            let latency: serde_json::Map<_, _> = latency.into_iter().collect();
            return Ok(print_json(&json!({
                "records": self.records,
                "seconds": seconds,
                "records_per_second": per_second,
                "megabytes_per_second": megabytes,
                "failed_samples": self.failed,
                "latency_ms": latency,
            }))?);
        }
        let mut headings = vec!["RECORDS", "SECONDS", "RECORDS/S", "MB/S"];
        let mut cells = vec![
            self.records.to_string(),
            format!("{seconds:.3}"),
            format!("{per_second:.0}"),
            format!("{megabytes:.1}"),
        ];
        for (name, share) in shares {
            if let Some(millis) = millis(share) {
                headings.push(name);
                cells.push(format!("{millis:.1} ms"));
            }
        }
        let mut table = Table::new(&headings);
        table.row(cells);
        table.print()?;
        anyhow::ensure!(self.failed == 0, "{} of the timed records were not written", self.failed);
        Ok(())
    }
}
