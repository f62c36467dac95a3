//! The load: idempotent producers that write down every answer, and the history that comes of it.
//!
//! Called by: the `chaos` program. Calls: librdkafka, the readers. Each value is sent once: the producer's number above
//! the sequence within the partition. Invariant: a record without an answer counts as neither written nor lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::tests::history::{self, Function, Key, Micro, Operation};
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::reader::{self, Readings};
use super::{PARTITIONS, TOPIC};
use crate::history::known;
use crate::trace::Trace;

const PRODUCERS: u32 = 2;
/// Records a second and producer.
const PER_S: u32 = 150;
/// Longer than any fault, so that the producers' patience is not what is tested.
const MESSAGE_TIMEOUT_MS: &str = "240000";
const FLUSH_LIMIT: Duration = Duration::from_secs(250);

/// One record and what became of it; times in microseconds from the load's begin.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    /// Which producer sent it.
    pub producer: u32,
    /// Partition.
    pub key: Key,
    /// Value.
    pub value: u64,
    /// When it was handed to the client.
    pub began_us: u64,
    /// When it was acknowledged, and at which offset, where the client knows that.
    pub acknowledged: Option<(u64, Option<i64>)>,
}

#[derive(Default)]
struct Book {
    sends: Vec<Send>,
    /// When acknowledgements came, in order.
    times_us: Vec<u64>,
    /// By partition, when the youngest acknowledged record was handed over.
    freshest_us: [Option<u64>; PARTITIONS as usize],
    /// Errors that the client reported for records.
    errors: Vec<String>,
}

struct Recorder {
    book: Arc<Mutex<Book>>,
    began: Instant,
    /// What the client says of its sequences and epochs: kept beside the processes' logs when a run fails.
    trace: Trace,
}

impl ClientContext for Recorder {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        self.trace.line(facility, message);
    }
}

impl ProducerContext for Recorder {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<usize>) {
        let mut book = lock(&self.book);
        match result {
            Ok(message) => {
                let now_us = elapsed_us(self.began);
                book.times_us.push(now_us);
                let Some(send) = book.sends.get_mut(*place) else { return };
                send.acknowledged = Some((now_us, known(message.offset())));
                let (key, began_us) = (send.key as usize, send.began_us);
                let freshest = &mut book.freshest_us[key];
                *freshest = (*freshest).max(Some(began_us));
            }
            Err((error, _)) => book.errors.push(error.to_string()),
        }
    }
}

/// Producers and consumers at work.
pub struct Load {
    began: Instant,
    book: Arc<Mutex<Book>>,
    /// What the consumers read so far.
    pub readings: Arc<Mutex<Readings>>,
    stop_producers: Arc<AtomicBool>,
    stop_readers: Arc<AtomicBool>,
    producers: Vec<JoinHandle<Result<()>>>,
    readers: Vec<JoinHandle<Result<()>>>,
}

/// What a finished load knows.
pub struct Finished {
    /// Every record.
    pub sends: Vec<Send>,
    /// Errors that the client reported for records.
    pub errors: Vec<String>,
    /// The longest time without an acknowledgement.
    pub longest_stall: Duration,
    /// What the consumers read.
    pub readings: Readings,
}

impl Load {
    /// Starts everybody. The producers' traces are written to `dir`.
    ///
    /// # Errors
    /// When librdkafka refuses a configuration, or a trace cannot be opened.
    pub fn start(bootstrap: &str, dir: &Path) -> Result<Load> {
        let began = Instant::now();
        let (stop_producers, stop_readers) = (Arc::default(), Arc::default());
        let readings: Arc<Mutex<Readings>> = Arc::default();
        let mut load = Load {
            began,
            book: Arc::default(),
            readers: reader::start(bootstrap, began, &stop_readers, &readings)?,
            readings,
            stop_producers,
            stop_readers,
            producers: Vec::new(),
        };
        for number in 0..PRODUCERS {
            let trace = Trace::create(&dir.join(format!("producer-{number}.log")))?;
            let recorder = Recorder { book: load.book.clone(), began, trace };
            let producer = producer(bootstrap, recorder)?;
            let (book, stop) = (load.book.clone(), load.stop_producers.clone());
            load.producers.push(std::thread::spawn(move || {
                produce(&producer, &book, &stop, (number, began))
            }));
        }
        Ok(load)
    }

    /// Time since the begin, in microseconds.
    pub fn now_us(&self) -> u64 {
        elapsed_us(self.began)
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        lock(&self.book).times_us.len()
    }

    /// Partitions of which no record that was sent after `since_us` is acknowledged yet.
    pub fn silent_since(&self, since_us: u64) -> BTreeSet<Key> {
        let book = lock(&self.book);
        let is_silent = |key: &Key| book.freshest_us[*key as usize].is_none_or(|at| at <= since_us);
        (0..PARTITIONS).filter(is_silent).collect()
    }

    /// Stops the producers and waits until every record is answered.
    ///
    /// # Errors
    /// When records stay unanswered past their time-out, or a producer failed as a whole.
    pub fn stop_producers(&mut self) -> Result<()> {
        self.stop_producers.store(true, Ordering::Relaxed);
        self.producers.drain(..).try_for_each(join)
    }

    /// Stops the consumers and gives everything.
    ///
    /// # Errors
    /// When a consumer met an error that does not pass.
    pub fn finish(mut self) -> Result<Finished> {
        self.stop_readers.store(true, Ordering::Relaxed);
        self.readers.drain(..).try_for_each(join)?;
        let book = std::mem::take(&mut *lock(&self.book));
        let gaps = book.times_us.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        Ok(Finished {
            longest_stall: Duration::from_micros(gaps.max().unwrap_or_default()),
            sends: book.sends,
            errors: book.errors,
            readings: std::mem::take(&mut *lock(&self.readings)),
        })
    }
}

impl Finished {
    /// The whole history, as the checker wants it: each process's operations in their order.
    pub fn history(&self) -> Vec<Operation> {
        let mut sends: Vec<&Send> = self.sends.iter().collect();
        // The order in which one producer was asked to write to one partition is the order promised.
        sends.sort_by_key(|send| (send.producer, send.key, send.value));
        let sends = sends.into_iter().map(|send| Operation {
            process: (u64::from(send.producer) << 32) + u64::from(send.key),
            outcome: match send.acknowledged {
                Some(_) => history::Outcome::Ok,
                None => history::Outcome::Unknown,
            },
            function: Function::Send,
            began_us: send.began_us,
            ended_us: send.acknowledged.map_or(u64::MAX, |(at, _)| at),
            parts: vec![Micro::Send {
                key: send.key,
                value: send.value,
                offset: send.acknowledged.and_then(|(_, offset)| offset),
            }],
            rebalanced: BTreeSet::new(),
        });
        sends.chain(self.readings.operations.iter().cloned()).collect()
    }

    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.sends.iter().filter(|send| send.acknowledged.is_some()).count()
    }
}

/// What every client is told: not to wait long for who is cut off.
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("socket.timeout.ms", "10000")
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "5000")
        // What a broker says when it goes is no news here.
        .set("log_level", "2");
    config
}

/// Microseconds since `began`.
pub fn elapsed_us(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The book, also after a thread that held it panicked: what it says is still what was seen.
pub fn lock<T>(book: &Mutex<T>) -> MutexGuard<'_, T> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("a client's thread panicked"))?
}

fn producer(bootstrap: &str, recorder: Recorder) -> Result<ThreadedProducer<Recorder>> {
    Ok(client(bootstrap)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .set("request.timeout.ms", "10000")
        .set("message.timeout.ms", MESSAGE_TIMEOUT_MS)
        .set("debug", "eos,msg")
        .set_log_level(RDKafkaLogLevel::Debug)
        .create_with_context(recorder)?)
}

fn produce(
    producer: &ThreadedProducer<Recorder>,
    book: &Mutex<Book>,
    stop: &AtomicBool,
    (number, began): (u32, Instant),
) -> Result<()> {
    let mut count: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * f64::from(PER_S)) as u64;
        while count < due {
            let key = u32::try_from(count % u64::from(PARTITIONS))?;
            let value = (u64::from(number) << 40) + count / u64::from(PARTITIONS);
            let send = Send {
                producer: number,
                key,
                value,
                began_us: elapsed_us(began),
                acknowledged: None,
            };
            hand_over(producer, book, send)?;
            count += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(FLUSH_LIMIT).context("records stayed unanswered")?;
    let open = producer.in_flight_count();
    ensure!(open == 0, "{open} records are still open");
    Ok(())
}

fn hand_over(producer: &ThreadedProducer<Recorder>, book: &Mutex<Book>, send: Send) -> Result<()> {
    let place = {
        let mut book = lock(book);
        book.sends.push(send);
        book.sends.len() - 1
    };
    let value = send.value.to_string();
    let record = BaseRecord::<(), String, Box<usize>>::with_opaque_to(TOPIC, Box::new(place))
        .partition(i32::try_from(send.key)?)
        .payload(&value);
    // Its queue holds more than both producers send within a record's time-out: it is never full.
    let sent = producer.send(record);
    sent.map_err(|(error, _)| error).context("librdkafka refused a record")
}
