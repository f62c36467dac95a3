//! An acks=all idempotent load from librdkafka that remembers every outcome, and the reader that
//! fetches everything back.
//!
//! Called by: the end-to-end tests. Each record's value is its sequence within its partition, so
//! the partition's log tells by itself what is missing, doubled or out of order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::history::{Log, Outcome, Sent};
use crate::trace::Trace;

/// How long a record may stay without an answer before its outcome counts as unknown.
const MESSAGE_TIMEOUT_MS: &str = "150000";
const FLUSH_LIMIT: Duration = Duration::from_secs(170);
const READ_LIMIT: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Book {
    sent: BTreeMap<i32, Sent>,
    /// In order of arrival.
    acknowledged: Vec<Acknowledgement>,
    errors: BTreeMap<String, u64>,
}

/// One record's acknowledgement.
#[derive(Clone, Copy)]
struct Acknowledgement {
    at: Instant,
    partition: i32,
    /// When the record was handed to the client.
    sent_at: Instant,
}

/// What the client gives back with a record's outcome: its number within the partition, and when it was handed over.
type Slip = Box<(u64, Instant)>;

struct Recorder {
    book: Arc<Mutex<Book>>,
    trace: Option<Trace>,
}

impl ClientContext for Recorder {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(trace) = &self.trace {
            trace.line(facility, message);
        }
    }
}

impl ProducerContext for Recorder {
    type DeliveryOpaque = Slip;

    fn delivery(&self, result: &DeliveryResult<'_>, slip: Slip) {
        let (sequence, sent_at) = *slip;
        let Ok(mut book) = self.book.lock() else { return };
        match result {
            Ok(message) => {
                let partition = message.partition();
                book.acknowledged.push(Acknowledgement { at: Instant::now(), partition, sent_at });
                let slot = usize::try_from(sequence).ok();
                let outcome = book.sent.get_mut(&partition).and_then(|sent| sent.get_mut(slot?));
                if let Some(outcome) = outcome {
                    *outcome = Outcome::Acknowledged(message.offset());
                }
            }
            Err((error, _)) => *book.errors.entry(error.to_string()).or_default() += 1,
        }
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

/// What a finished load knows.
pub struct Finished {
    /// Outcome of every record, by partition.
    pub sent: BTreeMap<i32, Sent>,
    /// Errors that the client reported for records, counted.
    pub errors: BTreeMap<String, u64>,
    acknowledged: Vec<Acknowledgement>,
}

impl Load {
    /// Starts to produce about `per_s` records a second, spread over all partitions of `topic`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(bootstrap: &str, topic: &str, partitions: i32, per_s: u32) -> Result<Load> {
        Self::start_traced(bootstrap, topic, (partitions, per_s), None)
    }

    /// As [`Load::start`]; what the client says goes to `trace`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start_traced(
        bootstrap: &str,
        topic: &str,
        (partitions, per_s): (i32, u32),
        trace: Option<Trace>,
    ) -> Result<Load> {
        let book = Arc::new(Mutex::new(Book::default()));
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "2")
            .set("message.timeout.ms", MESSAGE_TIMEOUT_MS);
        if trace.is_some() {
            config.set("debug", "broker,topic,metadata,eos,msg");
            config.set_log_level(RDKafkaLogLevel::Debug);
        }
        let recorder = Recorder { book: book.clone(), trace };
        let producer: ThreadedProducer<Recorder> = config.create_with_context(recorder)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (book, stop, topic) = (book.clone(), stop.clone(), topic.to_string());
            std::thread::spawn(move || {
                produce(&producer, &book, &stop, &topic, (partitions, per_s))
            })
        };
        Ok(Load { book, stop, thread })
    }

    /// How many records are acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.book.lock().map_or(0, |book| book.acknowledged.len())
    }

    /// Returns once `more` further records are acknowledged.
    ///
    /// # Errors
    /// When that takes longer than the hang guard; the state is in the error.
    pub fn wait_acknowledged(&self, more: usize) -> Result<()> {
        let (began, goal) = (Instant::now(), self.acknowledged() + more);
        while self.acknowledged() < goal {
            if began.elapsed() > READ_LIMIT {
                let (have, state) = (self.acknowledged(), self.state());
                bail!("{have} of {goal} acknowledged after {READ_LIMIT:?}; {state}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until a record of `partition` that was sent after `since` is acknowledged, and says how long after: an answer that
    /// was under way then does not count.
    ///
    /// # Errors
    /// When that takes longer than the hang guard.
    pub fn next_acknowledged(&self, since: Instant, partition: Option<i32>) -> Result<Duration> {
        loop {
            let found = self.book.lock().ok().and_then(|book| {
                let later = book.acknowledged.iter().rev().take_while(|found| found.at > since);
                let wanted = later.filter(|found| {
                    found.sent_at > since
                        && partition.is_none_or(|wanted| wanted == found.partition)
                });
                wanted.last().copied()
            });
            if let Some(found) = found {
                return Ok(found.at - since);
            }
            if since.elapsed() > READ_LIMIT {
                bail!("nothing acknowledged for {READ_LIMIT:?}; {}", self.state());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// For whoever looks into a stall: what the client reported, whether it gave up as a whole, and the last acknowledged offset of each
    /// partition, which tells whether something acknowledged is gone.
    fn state(&self) -> String {
        let Ok(book) = self.book.lock() else { return "the book is poisoned".to_owned() };
        let last = |sent: &Sent| {
            let offsets = sent.iter().filter_map(|outcome| match outcome {
                Outcome::Acknowledged(offset) => Some(*offset),
                Outcome::Unknown => None,
            });
            offsets.max()
        };
        let last: BTreeMap<_, _> = book.sent.iter().map(|(of, sent)| (of, last(sent))).collect();
        let (errors, ended) = (&book.errors, self.thread.is_finished());
        format!("errors {errors:?}; gave up: {ended}; last acknowledged offsets {last:?}")
    }

    /// Stops, waits for every outstanding answer, and gives the book.
    ///
    /// # Errors
    /// When records stay unanswered past their time-out.
    pub fn finish(self) -> Result<Finished> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load's thread panicked"))??;
        let mut book = self.book.lock().map_err(|_| anyhow!("the book is poisoned"))?;
        Ok(Finished {
            sent: std::mem::take(&mut book.sent),
            errors: std::mem::take(&mut book.errors),
            acknowledged: std::mem::take(&mut book.acknowledged),
        })
    }
}

impl Finished {
    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The longest time without any acknowledgement, over the whole load.
    pub fn longest_stall(&self) -> Duration {
        let times = self.acknowledged.iter().map(|found| found.at);
        let next = times.clone().skip(1);
        times.zip(next).map(|(one, other)| other - one).max().unwrap_or_default()
    }
}

fn produce(
    producer: &ThreadedProducer<Recorder>,
    book: &Mutex<Book>,
    stop: &AtomicBool,
    topic: &str,
    (partitions, per_s): (i32, u32),
) -> Result<()> {
    let began = Instant::now();
    let mut count: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(per_s)) as u64;
        while count < due {
            let partition = i32::try_from(count % u64::try_from(partitions)?)?;
            if !send(producer, book, topic, partition)? {
                break; // The client's queue is full: it waits for the cluster.
            }
            count += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    producer.flush(FLUSH_LIMIT).context("records stayed unanswered")
}

fn send(
    producer: &ThreadedProducer<Recorder>,
    book: &Mutex<Book>,
    topic: &str,
    partition: i32,
) -> Result<bool> {
    let sequence = {
        let mut book = book.lock().map_err(|_| anyhow!("the book is poisoned"))?;
        let sent = book.sent.entry(partition).or_default();
        sent.push(Outcome::Unknown);
        sent.len() as u64 - 1
    };
    let value = sequence.to_string();
    let slip = Box::new((sequence, Instant::now()));
    let record = BaseRecord::<(), String, Slip>::with_opaque_to(topic, slip)
        .partition(partition)
        .payload(&value);
    match producer.send(record) {
        Ok(()) => Ok(true),
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
            let mut book = book.lock().map_err(|_| anyhow!("the book is poisoned"))?;
            book.sent.entry(partition).or_default().pop();
            Ok(false)
        }
        Err((error, _)) => Err(error).context("librdkafka refused a record"),
    }
}

/// Reads every record of a topic that `Load` wrote, from the beginning to the end as it is now.
///
/// # Errors
/// When the end is not reached before the hang guard, or a value is not a sequence.
pub fn read_all(bootstrap: &str, topic: &str, partitions: i32) -> Result<BTreeMap<i32, Log>> {
    let mut held: BTreeMap<i32, Log> = (0..partitions).map(|at| (at, Log::new())).collect();
    for (partition, offset, value) in read_records(bootstrap, topic, partitions)? {
        let sequence = std::str::from_utf8(&value)?.parse()?;
        held.entry(partition).or_default().push((offset, sequence));
    }
    Ok(held)
}

/// Reads every record of a topic as (partition, offset, value), each partition in its order.
///
/// # Errors
/// When the end is not reached before the hang guard.
pub fn read_records(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
) -> Result<Vec<(i32, i64, Vec<u8>)>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()?;
    let mut ends = BTreeMap::new();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        let (low, high) = watermarks(&consumer, topic, partition)?;
        ensure!(low == 0, "partition {partition} begins at {low}");
        ends.insert(partition, high);
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut held = Vec::new();
    let began = Instant::now();
    let mut left: i64 = ends.values().sum();
    while left > 0 {
        ensure!(began.elapsed() < READ_LIMIT, "{left} records not read after {READ_LIMIT:?}");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = match message {
            Ok(message) => message,
            Err(KafkaError::MessageConsumption(code)) if is_passing(code) => continue,
            Err(error) => return Err(error).context("cannot read back"),
        };
        if message.offset() < ends[&message.partition()] {
            let value = message.payload().context("a record without value")?.to_vec();
            held.push((message.partition(), message.offset(), value));
            left -= 1;
        }
    }
    Ok(held)
}

fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let began = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, Duration::from_secs(5)) {
            Ok(found) => return Ok(found),
            Err(error) if began.elapsed() > READ_LIMIT => {
                return Err(error).context(format!("no offsets of {topic}-{partition}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::OperationTimedOut
    )
}
