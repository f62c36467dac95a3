//! Sends records: each to its partition, in batches, to the partition's leader, again until it is known to be there.
//!
//! *Called by* applications and the command line. *Calls* `client-core`'s producer, which decides; `driver` does what it
//! says.
//!
//! Invariant: every record that was taken comes to one end, told by its [`Delivery`]. The order of records to one
//! partition is kept, and with `idempotent` (the default) none is there twice, whatever fails.

mod delivery;
mod driver;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_core::producer::{Producer as Core, Refusal, Settings};
use client_protocol::PartitionId;
use client_protocol::records::{Compression, Record};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::obstacle::Obstacle;
use crate::options::ClientOptions;
use delivery::Settled;

pub use delivery::{Delivery, Written};

/// How long a topic that the cluster says it does not have may take to come up: brokers hear of a new topic one after
/// the other.
const TOPIC_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before such a topic is asked for again.
const TOPIC_PAUSE: Duration = Duration::from_millis(50);

/// When the broker answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Never: records may be lost unnoticed.
    None,
    /// When the leader has the records.
    Leader,
    /// When all in-sync replicas have the records.
    #[default]
    All,
}

impl Acks {
    const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How to produce.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When the broker answers.
    pub acks: Acks,
    /// How batches are packed.
    pub compression: Compression,
    /// How long a batch that is not full waits for more records.
    pub linger: Duration,
    /// The largest batch built, in bytes before compression; a larger record still goes into a batch of its own.
    pub batch_bytes_max: usize,
    /// Bytes of records that may wait or be under way; [`Producer::send`] waits for room, [`Producer::try_send`] refuses.
    pub buffer_bytes_max: usize,
    /// Requests under way at one broker.
    pub in_flight_max: usize,
    /// Records are written once whatever fails. Needs [`Acks::All`] and a broker that gives producer ids; without, it is
    /// left off, and a batch that is sent again may be there twice or out of order.
    pub idempotent: bool,
    /// How long to try to deliver a record, all attempts together.
    pub delivery_timeout: Duration,
    /// How long the broker may wait for the replicas.
    pub broker_timeout: Duration,
    /// How long [`Producer::send`] may wait for room or for news of the topic.
    pub wait_max: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::from_millis(settings.linger_ms),
            batch_bytes_max: settings.batch_bytes_max,
            buffer_bytes_max: settings.buffer_bytes_max,
            in_flight_max: settings.in_flight_max,
            idempotent: true,
            delivery_timeout: Duration::from_millis(settings.delivery_timeout_ms),
            broker_timeout: Duration::from_secs(10),
            wait_max: Duration::from_secs(60),
        }
    }
}

/// A record that was not taken, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// The record, to be sent again or elsewhere.
    pub record: Record,
    /// Why.
    #[source]
    pub error: Box<ClientError>,
}

type Token = Arc<Settled>;

#[derive(Debug)]
struct Shared {
    core: Mutex<Core<Token>>,
    /// The driver has something to look at.
    wake: Notify,
    /// Something was settled, or an answer about a topic came.
    progress: Notify,
    /// The driver is gone, and all that was taken is settled. Set under the core's lock.
    has_ended: AtomicBool,
    options: ProducerOptions,
    started: Instant,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core<Token>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Sends records to the partitions of any topics. Calls take `&self`: share it in an [`Arc`] among tasks.
#[derive(Debug)]
pub struct Producer {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Producer {
    /// Produces to the cluster of `bootstrap` (`host:port` each). Connects when there is something to send.
    ///
    /// Must be called in a tokio runtime. Dropping the producer gives up what is not delivered yet, and the deliveries
    /// tell: see [`Producer::close`].
    #[must_use]
    pub fn new(bootstrap: &[String], client: &ClientOptions, options: ProducerOptions) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let settings = Settings {
            batch_bytes_max: options.batch_bytes_max,
            buffer_bytes_max: options.buffer_bytes_max,
            linger_ms: millis(options.linger),
            in_flight_max: options.in_flight_max.clamp(1, 5),
            is_acknowledged: options.acks != Acks::None,
            idempotent: options.idempotent && options.acks == Acks::All,
            delivery_timeout_ms: millis(options.delivery_timeout),
            seed: u64::from(std::process::id()) ^ millis(wall_clock()),
            ..Settings::default()
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(settings)),
            wake: Notify::new(),
            progress: Notify::new(),
            has_ended: AtomicBool::new(false),
            options,
            started: Instant::now(),
        });
        let ending = driver::Ending(shared.clone());
        let driver = tokio::spawn(driver::run(ending, bootstrap.to_vec(), client.clone()));
        Self { shared, driver }
    }

    /// Takes a record, waiting for room and for news of the topic where need be; the delivery tells when it is
    /// written. It goes where its key says, as with Kafka's own client; without a key to any partition. A timestamp of 0
    /// or less stands for now.
    ///
    /// Cancel-safe: a dropped call has not taken the record.
    ///
    /// # Errors
    /// [`Refused`] with the record: the topic does not exist, the record is too large, or the wait was too long
    /// ([`ClientError::BufferFull`], [`ClientError::NoLeader`], retriable).
    pub async fn send(&self, topic: &str, record: Record) -> Result<Delivery, Refused> {
        self.send_within(topic, None, record).await
    }

    /// As [`Producer::send`], to one partition of the caller's choice.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_to(
        &self,
        topic: &str,
        partition: PartitionId,
        record: Record,
    ) -> Result<Delivery, Refused> {
        self.send_within(topic, Some(partition), record).await
    }

    async fn send_within(
        &self,
        topic: &str,
        partition: Option<PartitionId>,
        mut record: Record,
    ) -> Result<Delivery, Refused> {
        stamp(&mut record);
        let mut began = None;
        let mut refused_as = None;
        loop {
            let mut progress = std::pin::pin!(self.shared.progress.notified());
            progress.as_mut().enable();
            let refusal = match self.push((topic, partition), &record) {
                Ok(delivery) => return Ok(delivery),
                Err(refusal) => refusal,
            };
            let began = *began.get_or_insert_with(Instant::now);
            let wait_max = self.shared.options.wait_max;
            match refusal {
                Refusal::NoRoom | Refusal::TopicUnknown if began.elapsed() < wait_max => {
                    self.shared.wake.notify_one();
                    // Either way the next attempt finds out.
                    let _late = tokio::time::timeout_at(began + wait_max, progress).await;
                }
                Refusal::TopicRefused(code) if began.elapsed() < TOPIC_PATIENCE.min(wait_max) => {
                    refused_as = Some(code);
                    tokio::time::sleep(TOPIC_PAUSE).await;
                    self.shared.core().ask_again(topic);
                    self.shared.wake.notify_one();
                }
                refusal => {
                    let said = match (refusal, refused_as) {
                        (Refusal::TopicUnknown, Some(code)) => Refusal::TopicRefused(code),
                        (refusal, _) => refusal,
                    };
                    let error = Box::new(self.refused(said, topic, partition));
                    return Err(Refused { record, error });
                }
            }
        }
    }

    /// Takes a record now or not at all.
    ///
    /// # Errors
    /// [`Refused`] with the record; [`ClientError::BufferFull`] when there is no room, [`ClientError::NoLeader`] while
    /// the topic is being looked up, both retriable.
    pub fn try_send(
        &self,
        topic: &str,
        partition: Option<PartitionId>,
        mut record: Record,
    ) -> Result<Delivery, Refused> {
        stamp(&mut record);
        self.push((topic, partition), &record).map_err(|refusal| {
            self.shared.wake.notify_one();
            Refused { error: Box::new(self.refused(refusal, topic, partition)), record }
        })
    }

    fn push(&self, to: (&str, Option<PartitionId>), record: &Record) -> Result<Delivery, Refusal> {
        let now_ms = self.shared.now_ms();
        let ticket = {
            let mut core = self.shared.core();
            if self.shared.has_ended.load(Ordering::Relaxed) {
                return Err(Refusal::NoRoom);
            }
            core.push(to, record, now_ms, |_| Arc::new(Settled::default()))?
        };
        if ticket.is_news {
            self.shared.wake.notify_one();
        }
        Ok(Delivery::new(ticket))
    }

    fn refused(
        &self,
        refusal: Refusal,
        topic: &str,
        partition: Option<PartitionId>,
    ) -> ClientError {
        let number = partition.map_or(-1, PartitionId::get);
        match refusal {
            Refusal::NoRoom if self.shared.has_ended.load(Ordering::Relaxed) => {
                ClientError::ShutDown
            }
            Refusal::NoRoom => {
                ClientError::BufferFull { bytes_max: self.shared.options.buffer_bytes_max }
            }
            Refusal::TopicUnknown => ClientError::Broker {
                what: format!("looking up topic {topic}"),
                code: client_protocol::ErrorCode::LeaderNotAvailable,
                detail: Some("no broker has answered".to_owned()),
            },
            Refusal::TopicRefused(code) => {
                ClientError::broker(format!("topic {topic}"), code, None)
            }
            Refusal::NoSuchPartition => {
                ClientError::NoSuchPartition { topic: topic.to_owned(), partition: number }
            }
            Refusal::TooLarge { bytes, bytes_max } => {
                ClientError::RecordTooLarge { bytes, bytes_max }
            }
        }
    }

    /// Sends everything taken so far without lingering, and waits until each record has come to its end: its delivery
    /// says which.
    pub async fn flush(&self) {
        let tokens = self.shared.core().flush();
        self.shared.wake.notify_one();
        for token in tokens {
            token.wait().await;
        }
    }

    /// Flushes, then ends the connections.
    pub async fn close(mut self) {
        self.flush().await;
        self.driver.abort();
        // Aborted, or ended by itself: gone either way.
        let _ended = (&mut self.driver).await;
    }

    /// What has kept records from being acknowledged for longer than `longer_than`. It goes on trying by itself, until
    /// [`ProducerOptions::delivery_timeout`].
    #[must_use]
    pub fn obstacles(&self, longer_than: Duration) -> Vec<Obstacle> {
        let now_ms = self.shared.now_ms();
        let longer_than_ms = u64::try_from(longer_than.as_millis()).unwrap_or(u64::MAX);
        let stands = self.shared.core().standstills(now_ms, longer_than_ms);
        let stands =
            stands.into_iter().map(|stand| (stand.partition, stand.since_ms, stand.reason));
        Obstacle::of_partitions(stands, now_ms)
    }

    /// Bytes of records that wait or are under way.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared.core().buffered_bytes()
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn partitions(&self, topic: &str) -> Result<usize, ClientError> {
        let began = Instant::now();
        let wait_max = self.shared.options.wait_max;
        let mut refused_as = None;
        loop {
            let mut progress = std::pin::pin!(self.shared.progress.notified());
            progress.as_mut().enable();
            let refusal = match self.shared.core().partitions(topic) {
                Ok(partitions) => return Ok(partitions),
                Err(refusal) => refusal,
            };
            match (refusal, refused_as) {
                (Refusal::TopicRefused(code), _)
                    if began.elapsed() < TOPIC_PATIENCE.min(wait_max) =>
                {
                    refused_as = Some(code);
                    tokio::time::sleep(TOPIC_PAUSE).await;
                    self.shared.core().ask_again(topic);
                    self.shared.wake.notify_one();
                }
                (Refusal::TopicUnknown, _) if began.elapsed() < wait_max => {
                    self.shared.wake.notify_one();
                    // Either way the next attempt finds out.
                    let _late = tokio::time::timeout_at(began + wait_max, progress).await;
                }
                (Refusal::TopicUnknown, Some(code)) => {
                    return Err(self.refused(Refusal::TopicRefused(code), topic, None));
                }
                (refusal, _) => return Err(self.refused(refusal, topic, None)),
            }
        }
    }
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn stamp(record: &mut Record) {
    if record.timestamp_ms <= 0 {
        record.timestamp_ms = i64::try_from(wall_clock().as_millis()).unwrap_or(i64::MAX);
    }
}
