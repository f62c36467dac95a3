//! One shard at work: requests in, records into the log, answers out.
//!
//! Called by: `room`, one task for each shard. Calls: `broker-core`'s shard, `load`, `partitions`.
//! Invariant: only this task touches the shard; writes are submitted in the order in which the shard
//! wants them and told of in that order; a write whose outcome cannot be known ends the shard, so
//! that another is loaded from what the log really holds. Ends when nobody can ask it any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broker_core::group::{Effect, LogRecord, Now, Response, Settings, Shard, Ticket, WriteId};
use broker_core::ids::{Millis, TopicPartition};
use bytes::BytesMut;
use client_protocol::records::{BatchBuilder, Record};
use client_protocol::{ErrorCode, LeaderEpoch};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::load::{self, Damaged, LogPart};
use super::room::Ask;
use crate::partitions::{Partitions, PendingProduce, ProduceOutcome};

/// Requests that are taken in before what came of them is looked at.
const ASKS_AT_ONCE: usize = 64;
/// How long to wait after a load that failed before the next.
const LOAD_AGAIN: Duration = Duration::from_millis(100);
/// How long instead when the log is damaged: that takes a repair, and all before it is read again.
const REPAIR_WAIT: Duration = Duration::from_secs(10);

/// What a task begins with.
pub(super) struct Task {
    pub key: TopicPartition,
    pub leader_epoch: LeaderEpoch,
    pub asked: mpsc::Receiver<Ask>,
    pub is_loaded: Arc<AtomicBool>,
    pub settings: Settings,
    pub started: Instant,
    pub partitions: Arc<Partitions>,
    pub damaged: Arc<Damaged>,
}

/// A shard that is loaded.
struct Working {
    task: Task,
    shard: Shard,
    effects: Vec<Effect>,
    replies: HashMap<Ticket, oneshot::Sender<Response>>,
    next_ticket: u64,
    /// In the order of the log.
    writes: VecDeque<(WriteId, PendingProduce)>,
}

/// Loads the shard and serves it until it resigns.
pub(super) async fn run(mut task: Task) {
    let (key, epoch) = (task.key, task.leader_epoch);
    let begun = Instant::now();
    // What was said of a damaged log is not said again each time that it is tried again.
    let is_known = task.damaged.is_known(key);
    let loaded = {
        let partitions = Arc::clone(&task.partitions);
        let settings = task.settings.clone();
        let load = async {
            let end = load::leadership(&partitions, key, epoch).await;
            let log = LogPart { key, epoch, end, is_known };
            load::replay(&partitions, log, Shard::new(settings)).await
        };
        tokio::select! {
            loaded = load => loaded,
            // Nobody asks before it is loaded: this only ends with the way to it.
            _ = task.asked.recv() => return,
        }
    };
    let mut shard = match loaded {
        Ok(shard) => shard,
        Err(error) => {
            let is_damaged = is_damage(error);
            if is_damaged && is_known {
                debug!(partition = %key.partition, %epoch, "groups cannot be loaded: {error}");
            } else {
                warn!(partition = %key.partition, %epoch, "groups cannot be loaded: {error}");
            }
            if is_damaged {
                task.damaged.note(key);
            }
            let wait = if is_damaged { REPAIR_WAIT } else { LOAD_AGAIN };
            // Whoever watches over the shards begins anew if the leadership is still ours.
            return tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The way to it is gone, and so is the leadership.
                _ = task.asked.recv() => {}
            };
        }
    };
    task.damaged.forget(key);
    shard.loaded(task.now());
    let (groups, _) = shard.size();
    let ms = begun.elapsed().as_millis();
    match groups {
        0 => debug!(partition = %key.partition, %epoch, ms, "no groups to load"),
        _ => info!(partition = %key.partition, %epoch, groups, ms, "groups loaded"),
    }
    task.is_loaded.store(true, Ordering::Release);
    let working = Working {
        task,
        shard,
        effects: Vec::new(),
        replies: HashMap::new(),
        next_ticket: 0,
        writes: VecDeque::new(),
    };
    working.run().await;
}

/// Whether reading it again is in vain until it is repaired.
pub(super) fn is_damage(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::CorruptMessage | ErrorCode::KafkaStorageError)
}

impl Task {
    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Now {
            mono: Millis::new(ms(self.started.elapsed())),
            wall_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn at(&self, time: Millis) -> tokio::time::Instant {
        let later = self.started.checked_add(Duration::from_millis(time.get()));
        later.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600)).into()
    }
}

impl Working {
    async fn run(mut self) {
        loop {
            let deadline = self.shard.next_deadline().map(|time| self.task.at(time));
            // Each arm is cancel-safe: a write that is not ready stays in front, a request that is
            // not taken stays in the channel.
            tokio::select! {
                outcome = front(&mut self.writes) => {
                    if let Err(error) = self.settle(outcome) {
                        let (partition, epoch) = (self.task.key.partition, self.task.leader_epoch);
                        info!(%partition, %epoch, "groups resign after a write: {error}");
                        return;
                    }
                }
                ask = self.task.asked.recv() => match ask {
                    Some(ask) => self.take_in(ask),
                    None => return,
                },
                () = sleep_until(deadline) => {}
            }
            let now = self.task.now();
            if self.shard.next_deadline().is_some_and(|at| at <= now.mono) {
                self.shard.tick(now, &mut self.effects);
            }
            self.carry_out(now);
            #[cfg(debug_assertions)]
            self.shard.check();
        }
    }

    fn take_in(&mut self, first: Ask) {
        let now = self.task.now();
        let mut next = Some(first);
        let mut room = ASKS_AT_ONCE;
        while let Some(ask) = next {
            match ask {
                Ask::Request(request, reply) => {
                    let ticket = Ticket(self.next_ticket);
                    self.next_ticket += 1;
                    self.replies.insert(ticket, reply);
                    self.shard.handle(ticket, &request, now, &mut self.effects);
                }
                // Whoever asked may have stopped waiting.
                Ask::Figures(reply) => drop(reply.send(self.shard.figures())),
                Ask::TopicsGone(topics) => {
                    self.shard.forget_topics(&topics, now, &mut self.effects);
                }
            }
            room -= 1;
            next = if room > 0 { self.task.asked.try_recv().ok() } else { None };
        }
    }

    /// Tells the shard what became of its oldest write.
    fn settle(&mut self, outcome: Vec<ProduceOutcome>) -> Result<(), ErrorCode> {
        let Some((write, _)) = self.writes.pop_front() else { return Ok(()) };
        let lost = ErrorCode::NotLeaderOrFollower;
        let result = match outcome.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err(refused)) => Err(refused.error),
            None => Err(lost),
        };
        match result {
            // Refused before it was in the log.
            Ok(())
            | Err(
                ErrorCode::NotEnoughReplicas
                | ErrorCode::MessageTooLarge
                | ErrorCode::RecordListTooLarge
                | ErrorCode::InvalidRecord
                | ErrorCode::InvalidTimestamp,
            ) => {
                let now = self.task.now();
                self.shard.settled(write, result, now, &mut self.effects);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn carry_out(&mut self, now: Now) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Respond { ticket, response } => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        // The connection may be gone: then nobody wants the answer.
                        let _ = reply.send(response);
                    }
                }
                Effect::Write { write, records } => {
                    let batch = batch(&records, now.wall_ms);
                    let Task { key, leader_epoch, partitions, .. } = &self.task;
                    let pending = partitions.append_own(*key, *leader_epoch, batch);
                    self.writes.push_back((write, pending));
                }
            }
        }
    }
}

fn batch(records: &[LogRecord], timestamp_ms: i64) -> BytesMut {
    let mut builder = BatchBuilder::new(usize::MAX);
    for LogRecord { key, value } in records {
        let (key, value) = (Some(key.clone()), value.clone());
        let taken = builder.push(&Record { timestamp_ms, key, value, headers: Vec::new() });
        assert!(taken, "the shard keeps its batches within their limit");
    }
    builder.build(None).map(BytesMut::from).unwrap_or_default()
}

async fn front(writes: &mut VecDeque<(WriteId, PendingProduce)>) -> Vec<ProduceOutcome> {
    match writes.front_mut() {
        Some((_, pending)) => pending.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
