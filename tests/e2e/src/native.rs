//! The native client at work: an idempotent acks=all load and a group of two that reads it, with a book of everything.
//!
//! Called by: the end-to-end tests, the bench. Each record's value is its number within its partition, so that the log and
//! what the group read tell by themselves what is missing, doubled or out of order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use client::protocol::PartitionId;
use client::protocol::records::{Compression, Record};
use client::{
    ClientOptions, Consumer, ConsumerOptions, Producer, ProducerOptions, RebalanceListener, Reset,
    TopicPartition,
};
use tests::cluster::HANG_GUARD;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, JoinSet};

use crate::history::{self, Log, Outcome, Sent};

/// How many consumers share the topic.
const READERS: usize = 2;
/// How long one may wait for a record before it looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// What is to be done, and where.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Brokers, comma-separated.
    pub bootstrap: &'a str,
    /// Coordinators; empty for another make of cluster.
    pub coordinators: &'a str,
    /// The topic, which has to be there.
    pub topic: &'a str,
    /// Its partitions.
    pub partitions: i32,
    /// The group.
    pub group: &'a str,
    /// Records a second, all partitions together.
    pub per_s: u32,
    /// How batches are packed.
    pub compression: Compression,
}

/// What was told and seen.
#[derive(Debug, Default)]
pub struct Book {
    /// What became of each record, by partition.
    pub sent: BTreeMap<i32, Sent>,
    /// What the group read of each partition: the member and its log, for each time that one was given it.
    pub stints: BTreeMap<i32, Vec<(usize, Log)>>,
    /// Why records were not written.
    pub errors: Vec<String>,
    /// What members were told when they left.
    pub said: Vec<String>,
    /// In order of arrival.
    acknowledged: Vec<Acknowledgement>,
    /// When a record, by partition and number, was read first.
    consumed: BTreeMap<(i32, u64), Instant>,
    is_stopped: bool,
    /// The last acknowledged offset of each partition, once nothing more will be.
    ends: Option<BTreeMap<i32, i64>>,
}

/// One record's acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Acknowledgement {
    at: Instant,
    partition: i32,
    number: u64,
    /// When the record was handed to the client.
    sent_at: Instant,
}

/// How long a cluster needed to go on after a disturbance.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// To the next acknowledgement, of the partition that took longest.
    pub acknowledged: Duration,
    /// Until the record acknowledged then had been read by the group, of the partition that took longest.
    pub consumed: Duration,
}

type Shared = Arc<Mutex<Book>>;

fn with<T>(book: &Shared, look: impl FnOnce(&mut Book) -> T) -> T {
    look(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A load and its readers, at work until [`Native::finish`].
pub struct Native {
    runtime: Runtime,
    book: Shared,
    partitions: i32,
    load: JoinHandle<Result<()>>,
    readers: Vec<JoinHandle<Result<()>>>,
}

impl Native {
    /// Starts them.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(plan: Plan<'_>) -> Result<Native> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let book = Shared::default();
        let inside = runtime.enter();
        let load = start_load(plan, &book);
        let readers = (0..READERS).map(|number| start_reader(plan, &book, number)).collect();
        drop(inside);
        Ok(Native { runtime, book, partitions: plan.partitions, load, readers })
    }

    /// Returns when `more` further records have been read.
    ///
    /// # Errors
    /// When that takes longer than the hang guard; with the state.
    pub fn wait_consumed(&self, more: usize) -> Result<()> {
        let goal = with(&self.book, |book| book.consumed.len()) + more;
        self.wait_for(&format!("{more} more records"), |book| {
            (book.consumed.len() >= goal).then_some(())
        })
    }

    /// Waits until every partition has acknowledged a record that was sent after `since`, and the group has read that one:
    /// whatever a dead broker answered before it died does not count. Times count from `since`.
    ///
    /// # Errors
    /// When that takes longer than the hang guard; with the state.
    pub fn wait_again(&self, since: Instant) -> Result<Again> {
        let firsts = self.wait_for("an acknowledgement of every partition", |book| {
            let mut firsts = BTreeMap::new();
            let from = book.acknowledged.partition_point(|found| found.at <= since);
            for found in book.acknowledged.iter().skip(from) {
                if found.sent_at > since {
                    firsts.entry(found.partition).or_insert((found.at, found.number));
                }
            }
            (firsts.len() == usize::try_from(self.partitions).ok()?).then_some(firsts)
        })?;
        let acknowledged = firsts.values().map(|(at, _)| *at - since).max().unwrap_or_default();
        let consumed = self.wait_for("the group to read what was acknowledged", |book| {
            let read = |(partition, (_, number)): (&i32, &(Instant, u64))| {
                let at = book.consumed.get(&(*partition, *number));
                at.map(|at| at.saturating_duration_since(since))
            };
            firsts.iter().map(read).collect::<Option<Vec<_>>>()
        })?;
        Ok(Again { acknowledged, consumed: consumed.into_iter().max().unwrap_or_default() })
    }

    /// Stops the load, waits until everything sent has come to its end and everything acknowledged was read, and gives
    /// the book.
    ///
    /// # Errors
    /// When that takes longer than a few hang guards, or a client gave up.
    pub fn finish(self) -> Result<Book> {
        with(&self.book, |book| book.is_stopped = true);
        self.runtime.block_on(async {
            let load = tokio::time::timeout(3 * HANG_GUARD, self.load).await;
            load.with_context(|| format!("the load hangs: {}", with(&self.book, |b| b.state())))???;
            with(&self.book, |book| book.ends = Some(book.last_acknowledged()));
            for reader in self.readers {
                let ended = tokio::time::timeout(3 * HANG_GUARD, reader).await;
                ended.with_context(|| {
                    format!("a reader hangs: {}", with(&self.book, |b| b.state()))
                })???;
            }
            anyhow::Ok(())
        })?;
        Ok(with(&self.book, std::mem::take))
    }

    fn wait_for<T>(&self, what: &str, look: impl Fn(&Book) -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = with(&self.book, |book| look(book)) {
                return Ok(found);
            }
            if began.elapsed() > 2 * HANG_GUARD {
                bail!("still waiting for {what}: {}", with(&self.book, |book| book.state()));
            }
            // A client that gave up tells why when it is waited for.
            ensure!(!self.load.is_finished(), "the load ended while waiting for {what}");
            let ended = self.readers.iter().filter(|reader| reader.is_finished()).count();
            ensure!(ended == 0, "{ended} readers ended while waiting for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Book {
    /// How many records were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    fn last_acknowledged(&self) -> BTreeMap<i32, i64> {
        let last = |sent: &Sent| {
            let offsets = sent.iter().filter_map(|outcome| match outcome {
                Outcome::Acknowledged(offset) => Some(*offset),
                Outcome::Unknown => None,
            });
            offsets.max()
        };
        self.sent.iter().filter_map(|(partition, sent)| Some((*partition, last(sent)?))).collect()
    }

    /// Nothing more will be acknowledged, and all that was has been read.
    fn is_read(&self) -> bool {
        let Some(ends) = &self.ends else { return false };
        ends.iter().all(|(partition, end)| {
            let stints = self.stints.get(partition).into_iter().flatten();
            stints.filter_map(|(_, log)| log.last()).any(|(offset, _)| offset >= end)
        })
    }

    fn state(&self) -> String {
        let read = |(partition, stints): (&i32, &Vec<(usize, Log)>)| {
            let last = stints.iter().filter_map(|(_, log)| log.last()).map(|(offset, _)| *offset);
            (*partition, stints.len(), last.max())
        };
        format!(
            "{} acknowledged, {} read; to be read up to {:?}; read (partition, stints, last offset) {:?}; {} \
             errors, first {:?}",
            self.acknowledged.len(),
            self.consumed.len(),
            self.ends,
            self.stints.iter().map(read).collect::<Vec<_>>(),
            self.errors.len(),
            self.errors.first()
        )
    }

    fn settle(&mut self, found: Acknowledgement, offset: Option<i64>) {
        let Acknowledgement { partition, number, .. } = found;
        self.acknowledged.push(found);
        let slot = usize::try_from(number).ok();
        let slot = slot.and_then(|slot| self.sent.get_mut(&partition)?.get_mut(slot));
        if let (Some(slot), Some(offset)) = (slot, offset) {
            *slot = Outcome::Acknowledged(offset);
        }
    }

    fn read(&mut self, reader: usize, partition: i32, (offset, number): (i64, u64)) {
        self.consumed.entry((partition, number)).or_insert_with(Instant::now);
        let stints = self.stints.entry(partition).or_default();
        // Another member may have it by now, if this one was taken for dead between reading and telling.
        if let Some((_, log)) = stints.iter_mut().rev().find(|(of, _)| *of == reader) {
            log.push((offset, number));
        }
    }

    /// Compares what was told with what the topic holds in the end.
    ///
    /// # Errors
    /// When an acknowledged record is missing, doubled, out of order or unread. Gives how many the group read again.
    pub fn judge(&self, held: &BTreeMap<i32, Log>) -> Result<usize> {
        let anomalies = history::check(&self.sent, held);
        ensure!(anomalies.is_empty(), "{} anomalies, first {}", anomalies.len(), anomalies[0]);
        let mut again = 0;
        for (partition, sent) in &self.sent {
            let held = held.get(partition).context("a partition that was not read back")?;
            let stints = self.stints.get(partition).into_iter().flatten();
            let stints: Vec<Log> = stints.map(|(_, log)| log.clone()).collect();
            let read = history::check_reading(sent, held, &stints);
            again += read.map_err(|error| anyhow!("partition {partition}: {error}"))?;
        }
        Ok(again)
    }
}

fn addresses(list: &str) -> Vec<String> {
    list.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

fn client_options(plan: Plan<'_>) -> ClientOptions {
    ClientOptions { coordinators: addresses(plan.coordinators), ..ClientOptions::default() }
}

fn start_load(plan: Plan<'_>, book: &Shared) -> JoinHandle<Result<()>> {
    let options = ProducerOptions {
        linger: Duration::from_millis(2),
        compression: plan.compression,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(&addresses(plan.bootstrap), &client_options(plan), options);
    let (book, topic) = (book.clone(), plan.topic.to_owned());
    let (partitions, per_s) = (plan.partitions, f64::from(plan.per_s));
    tokio::spawn(async move {
        let began = Instant::now();
        let mut waiting = JoinSet::new();
        let mut count = 0u64;
        while with(&book, |book| !book.is_stopped) {
            let due = (began.elapsed().as_secs_f64() * per_s) as u64;
            for number in count..due {
                let partition = i32::try_from(number % u64::try_from(partitions)?)?;
                let settled = send(&producer, &book, (&topic, partition)).await?;
                waiting.spawn(settled);
            }
            count = count.max(due);
            while waiting.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        producer.flush().await;
        while waiting.join_next().await.is_some() {}
        producer.close().await;
        Ok(())
    })
}

/// Sends the next record of a partition; the future ends when the book says what became of it.
async fn send(
    producer: &Producer,
    book: &Shared,
    (topic, partition): (&str, i32),
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let number = with(book, |book| {
        let sent = book.sent.entry(partition).or_default();
        sent.push(Outcome::Unknown);
        sent.len() as u64 - 1
    });
    let value = Some(Bytes::from(number.to_string()));
    let record = Record { value, ..Record::default() };
    let sent_at = Instant::now();
    let delivery = producer.send_to(topic, PartitionId::new(partition), record).await?;
    let book = book.clone();
    Ok(async move {
        let outcome = delivery.wait().await;
        with(&book, |book| match outcome {
            Ok(written) => {
                let found = Acknowledgement { at: Instant::now(), partition, number, sent_at };
                book.settle(found, written.offset.map(|offset| offset.get()));
            }
            Err(error) => book.errors.push(format!("{partition}/{number}: {error}")),
        });
    })
}

/// Opens a stint for each partition that the member is given.
struct Stints(Shared, usize);

impl RebalanceListener for Stints {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        with(&self.0, |book| {
            for given in partitions {
                book.stints.entry(given.partition.get()).or_default().push((self.1, Log::new()));
            }
        });
    }
}

fn start_reader(plan: Plan<'_>, book: &Shared, number: usize) -> JoinHandle<Result<()>> {
    let options = ConsumerOptions {
        group_id: Some(plan.group.to_owned()),
        reset: Reset::Earliest,
        auto_commit: Some(COMMIT_EVERY),
        ..ConsumerOptions::default()
    };
    let mut consumer = Consumer::new(&addresses(plan.bootstrap), &client_options(plan), options);
    let (book, topic) = (book.clone(), plan.topic.to_owned());
    tokio::spawn(async move {
        consumer.subscribe_with(&[&topic], Stints(book.clone(), number))?;
        loop {
            if with(&book, |book| book.is_read()) {
                // The other member goes at the same moment: a commit may fall into the rebalance.
                if let Err(error) = consumer.close().await {
                    with(&book, |book| book.said.push(error.to_string()));
                }
                return Ok(());
            }
            // A dropped poll loses nothing.
            let polled = tokio::time::timeout(LOOK_EVERY, consumer.poll()).await;
            let Ok(polled) = polled else { continue };
            for fetched in &polled.context("poll")? {
                let partition = fetched.partition.partition.get();
                for record in fetched.records() {
                    let text = std::str::from_utf8(record.value.context("no value")?)?;
                    let read = (record.offset.get(), text.parse()?);
                    with(&book, |book| book.read(number, partition, read));
                }
            }
        }
    })
}
