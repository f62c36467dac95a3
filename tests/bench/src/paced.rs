//! A load at a fixed rate, and how long each record took to the consumer: librdkafka on both sides, in threads of ours.
//!
//! Called by: `latency`. librdkafka's own tool burns a core between two records at 20,000 a second and falls behind its
//! rate on a busy machine; here what is due is sent each time the thread wakes, and a load that fell behind is no figure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Bytes of a record's value; the time of the produce call is in its beginning.
const VALUE_BYTES: usize = 100;
const STAMP_BYTES: usize = 8;
/// How long the producer sleeps when nothing is due.
const PAUSE: Duration = Duration::from_micros(200);
/// A hang guard, beyond the time that the records take by their rate.
const GRACE: Duration = Duration::from_secs(60);
/// The load may end this much later than its rate says.
const LATE_MAX: f64 = 1.02;

/// One record's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// From the produce call to the consumer, in microseconds.
    pub taken_us: u64,
    /// When it was sent, in microseconds since the load began.
    pub sent_us: u64,
}

/// What producer and reader tell each other.
#[derive(Default)]
struct Signs {
    has_failed: AtomicBool,
    /// The reader has had the first record, which counts for nothing.
    is_reading: AtomicBool,
}

/// Sends `rate` records a second for `seconds` to partition 0 of a fresh topic, with acks=all and a linger of 1 ms, and
/// gives the way of each, the slowest last. The load begins when a first record has been read: librdkafka waits half a second
/// before it asks for the beginning of a partition whose leader it did not know, on any server.
///
/// # Errors
/// When a client fails, a record does not arrive, or the load fell behind its rate.
pub fn latencies(bootstrap: &str, topic: &str, rate: u64, seconds: u64) -> Result<Vec<Way>> {
    let began = Instant::now();
    let wanted = rate * seconds;
    let limit = Duration::from_secs(seconds) + 2 * GRACE;
    let signs = Signs::default();
    let consumer = reader(bootstrap, topic)?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let read = read(&consumer, wanted, began, (limit, &signs));
            signs.has_failed.fetch_or(read.is_err(), Ordering::Relaxed);
            read
        });
        let sent = send(bootstrap, topic, (rate, wanted), (began, &signs));
        signs.has_failed.fetch_or(sent.is_err(), Ordering::Relaxed);
        let read = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        let load_began_us = sent?;
        let mut ways = read?;
        for way in &mut ways {
            way.sent_us = way.sent_us.saturating_sub(load_began_us);
        }
        ways.sort_unstable();
        Ok(ways)
    })
}

fn reader(bootstrap: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "latency")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    Ok(consumer)
}

fn read(
    consumer: &BaseConsumer,
    wanted: u64,
    began: Instant,
    (limit, signs): (Duration, &Signs),
) -> Result<Vec<Way>> {
    let mut ways = Vec::with_capacity(usize::try_from(wanted)?);
    while (ways.len() as u64) < wanted {
        ensure!(began.elapsed() < limit, "{} of {wanted} records arrived", ways.len());
        ensure!(!signs.has_failed.load(Ordering::Relaxed), "the producer failed");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match message {
            Ok(message) => message,
            // The topic was made a moment ago: the first broker asked may not know it.
            Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::NotLeaderForPartition,
            )) => continue,
            Err(error) => return Err(error.into()),
        };
        let now = micros(began);
        let stamp = message.payload().and_then(|value| value.first_chunk::<STAMP_BYTES>());
        let sent_us = u64::from_be_bytes(*stamp.context("a record without its time")?);
        if signs.is_reading.swap(true, Ordering::Relaxed) {
            ways.push(Way { taken_us: now.saturating_sub(sent_us), sent_us });
        }
    }
    Ok(ways)
}

/// Gives when the load began, in microseconds since `began`.
fn send(
    bootstrap: &str,
    topic: &str,
    (rate, wanted): (u64, u64),
    (began, signs): (Instant, &Signs),
) -> Result<u64> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .set("linger.ms", "1")
        .create()?;
    send_one(&producer, topic, began)?;
    while !signs.is_reading.load(Ordering::Relaxed) {
        ensure!(!signs.has_failed.load(Ordering::Relaxed), "the reader failed");
        ensure!(began.elapsed() < GRACE, "the first record has not been read");
        std::thread::sleep(PAUSE);
    }
    let first = Instant::now();
    let mut count = 0;
    while count < wanted {
        ensure!(!signs.has_failed.load(Ordering::Relaxed), "the reader failed");
        let due = (first.elapsed().as_secs_f64() * rate as f64) as u64;
        while count < due.min(wanted) {
            send_one(&producer, topic, began)?;
            count += 1;
        }
        std::thread::sleep(PAUSE);
    }
    let taken = first.elapsed().as_secs_f64();
    producer.flush(GRACE)?;
    let planned = wanted as f64 / rate as f64;
    ensure!(
        taken <= planned * LATE_MAX,
        "the load fell behind: {:.0} of {rate} records a second",
        wanted as f64 / taken
    );
    Ok(u64::try_from((first - began).as_micros())?)
}

fn send_one(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    began: Instant,
) -> Result<()> {
    let mut value = [b'x'; VALUE_BYTES];
    if let Some(stamp) = value.first_chunk_mut::<STAMP_BYTES>() {
        *stamp = micros(began).to_be_bytes();
    }
    let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(&value[..]);
    Ok(producer.send(record).map_err(|(error, _)| error)?)
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
