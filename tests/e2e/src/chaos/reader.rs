//! The consumers of the load: one that takes all partitions itself, and a group of two.
//!
//! Called by: `load`. Calls: librdkafka. Invariant: what one poll of the history holds came without a change of partitions
//! in between; errors that pass by themselves are no findings, and any other one ends the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::tests::history::{Function, Key, Micro, Operation, Outcome, Value};
use anyhow::{Context, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::load::{client, elapsed_us, lock};
use super::{PARTITIONS, TOPIC};

/// The group's name.
pub const GROUP: &str = "watchers";
/// Processes of the history: producers count from 0.
const ALONE: u64 = 1 << 60;
const MEMBERS: u64 = 2;
/// A poll of the history holds no more records, and no longer time.
const BATCH_RECORDS_MAX: usize = 200;
const BATCH_TIME: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(50);

/// What was read.
#[derive(Debug, Default)]
pub struct Readings {
    /// Polls, in order, of all consumers.
    pub operations: Vec<Operation>,
    /// By partition, behind the last record that the lone consumer read.
    pub alone: BTreeMap<Key, i64>,
    /// The same, of whichever member got furthest.
    pub group: BTreeMap<Key, i64>,
    /// Every value that some member was given.
    pub given: BTreeMap<Key, BTreeSet<Value>>,
    /// Changes of the group's work that members were told.
    pub rebalances: u64,
}

/// Hears of changes of the partitions. Called back within `poll`.
#[derive(Default)]
struct Ear {
    /// The partitions held since the last change, until the reader takes notice.
    changed: Mutex<Option<BTreeSet<Key>>>,
}

impl ClientContext for Ear {}

impl ConsumerContext for Ear {
    fn post_rebalance(&self, _: &BaseConsumer<Ear>, rebalance: &Rebalance<'_>) {
        let held = match rebalance {
            Rebalance::Assign(list) => {
                list.elements().iter().map(|each| each.partition().unsigned_abs()).collect()
            }
            Rebalance::Revoke(_) | Rebalance::Error(_) => BTreeSet::new(),
        };
        *lock(&self.changed) = Some(held);
    }
}

/// Starts all readers.
///
/// # Errors
/// When librdkafka refuses a configuration.
pub fn start(
    bootstrap: &str,
    began: Instant,
    stop: &Arc<AtomicBool>,
    readings: &Arc<Mutex<Readings>>,
) -> Result<Vec<JoinHandle<Result<()>>>> {
    let alone = lone(bootstrap)?;
    let members: Result<Vec<_>> = (1..=MEMBERS).map(|_| member(bootstrap)).collect();
    let consumers = std::iter::once(alone).chain(members?);
    Ok((ALONE..)
        .zip(consumers)
        .map(|(process, consumer)| {
            let (stop, readings) = (stop.clone(), readings.clone());
            let batch = Vec::new();
            let mut reader = Reader { process, consumer, began, batch, since: began, readings };
            std::thread::spawn(move || reader.run(&stop))
        })
        .collect())
}

fn lone(bootstrap: &str) -> Result<BaseConsumer<Ear>> {
    let consumer: BaseConsumer<Ear> = client(bootstrap)
        .set("group.id", "alone")
        .set("enable.auto.commit", "false")
        // Nothing is ever deleted here: to be told that an offset is out of range would be a loss.
        .set("check.crcs", "true")
        .set("auto.offset.reset", "error")
        .create_with_context(Ear::default())?;
    let mut all = TopicPartitionList::new();
    for key in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, i32::try_from(key)?, Offset::Offset(0))?;
    }
    consumer.assign(&all)?;
    Ok(consumer)
}

fn member(bootstrap: &str) -> Result<BaseConsumer<Ear>> {
    let consumer: BaseConsumer<Ear> = client(bootstrap)
        .set("group.id", GROUP)
        .set("auto.commit.interval.ms", "1000")
        .set("check.crcs", "true")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "10000")
        .create_with_context(Ear::default())?;
    consumer.subscribe(&[TOPIC])?;
    Ok(consumer)
}

struct Reader {
    process: u64,
    consumer: BaseConsumer<Ear>,
    began: Instant,
    batch: Vec<(Key, i64, Value)>,
    since: Instant,
    readings: Arc<Mutex<Readings>>,
}

impl Reader {
    fn run(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let polled = self.consumer.poll(POLL);
            let polled = match polled {
                Some(Ok(message)) => {
                    let text = std::str::from_utf8(message.payload().context("no value")?)?;
                    Some((message.partition().unsigned_abs(), message.offset(), text.parse()?))
                }
                Some(Err(error)) if is_passing(&error) => None,
                Some(Err(error)) => bail!("consumer {}: {error}", self.process - ALONE),
                None => None,
            };
            // The change was told before what this poll gave.
            let changed = lock(&self.consumer.context().changed).take();
            if let Some(held) = changed {
                self.flush();
                self.note_change(held);
            }
            self.batch.extend(polled);
            if self.batch.len() >= BATCH_RECORDS_MAX || self.since.elapsed() >= BATCH_TIME {
                self.flush();
            }
        }
        self.flush();
        Ok(())
    }

    fn note_change(&self, held: BTreeSet<Key>) {
        let mut readings = lock(&self.readings);
        readings.rebalances += 1;
        let operation = self.operation(Function::Subscribe(held), Vec::new());
        readings.operations.push(operation);
    }

    /// Writes down what was polled.
    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let mut polled: BTreeMap<Key, Vec<(i64, Value)>> = BTreeMap::new();
            for (key, offset, value) in self.batch.drain(..) {
                polled.entry(key).or_default().push((offset, value));
            }
            let mut readings = lock(&self.readings);
            for (key, records) in &polled {
                readings.note(self.process == ALONE, *key, records);
            }
            let operation = self.operation(Function::Poll, vec![Micro::Poll(polled)]);
            readings.operations.push(operation);
        }
        self.since = Instant::now();
    }

    fn operation(&self, function: Function, parts: Vec<Micro>) -> Operation {
        let ended_us = elapsed_us(self.began);
        Operation {
            process: self.process,
            outcome: Outcome::Ok,
            function,
            began_us: ended_us.saturating_sub(elapsed_us(self.since)),
            ended_us,
            parts,
            rebalanced: BTreeSet::new(),
        }
    }
}

impl Readings {
    fn note(&mut self, alone: bool, key: Key, records: &[(i64, Value)]) {
        let Some((last, _)) = records.last() else { return };
        let positions = if alone { &mut self.alone } else { &mut self.group };
        let position = positions.entry(key).or_default();
        *position = (*position).max(last + 1);
        if !alone {
            self.given.entry(key).or_default().extend(records.iter().map(|(_, value)| *value));
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    let KafkaError::MessageConsumption(code) = error else { return false };
    // All but those that say that something is gone, or that a record is not what it was.
    !matches!(
        code,
        RDKafkaErrorCode::OffsetOutOfRange
            | RDKafkaErrorCode::AutoOffsetReset
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::BadMessage
            | RDKafkaErrorCode::BadCompression
            | RDKafkaErrorCode::LogTruncation
            | RDKafkaErrorCode::Fatal
    )
}
