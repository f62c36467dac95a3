//! Reads records: of partitions that are assigned, or of the share that a group gives.
//!
//! *Called by* applications and the command line. *Calls* `client-core`'s consumer and group member, which decide;
//! `driver` does what they say.
//!
//! Invariant: records of a partition are given out once and in offset order, beginning at the position, which is the
//! offset after the last one given out. Records are read ahead by a task of the consumer's own, from all leaders at once;
//! it also keeps up the membership.

mod driver;
mod membership;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client_core::TopicPartition;
use client_core::consumer::read::Position;
use client_core::consumer::{Settings, Start};
use client_core::group;
use client_protocol::Offset;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::obstacle::Obstacle;
use crate::options::ClientOptions;
use state::{Pending, State};

pub use client_core::consumer::{Fetched, Reset};
pub use client_core::group::Assignor;
pub use membership::RebalanceListener;

/// Bytes that one call of [`Consumer::poll`] gives out, passed by the last partition's at most.
const POLL_BYTES_MAX: usize = 8 << 20;

/// What a consumer sees of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All records.
    #[default]
    ReadUncommitted,
    /// Only records of committed transactions, and of none.
    ReadCommitted,
}

/// How to consume.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The group, for subscribing and committing.
    pub group_id: Option<String>,
    /// Makes a static member, which may restart under this name without a rebalance.
    pub instance_id: Option<String>,
    /// How the group shares out, preferred first; all members need one in common. With cooperative ones only, a rebalance
    /// stops nothing but what moves.
    pub assignors: Vec<Assignor>,
    /// Commits by itself, this often, what was given out by all but the last call of [`Consumer::poll`]; `None` never.
    pub auto_commit: Option<Duration>,
    /// What to do where there is no position, or none that the log has.
    pub reset: Reset,
    /// What to see of transactions.
    pub isolation: Isolation,
    /// How long the group waits for a silent member.
    pub session_timeout: Duration,
    /// How often a member says that it lives.
    pub heartbeat: Duration,
    /// How long the caller may take between two calls of [`Consumer::poll`], before its share goes to others.
    pub poll_interval_max: Duration,
    /// How long a broker may wait for `fetch_bytes_min`.
    pub fetch_wait: Duration,
    /// The broker answers as soon as that many bytes are there.
    pub fetch_bytes_min: i32,
    /// At most that many bytes in one answer, but at least one batch.
    pub fetch_bytes_max: i32,
    /// At most that many bytes of one partition in an answer, but at least one batch; and as many are read ahead.
    pub partition_bytes_max: i32,
    /// Bytes read ahead of all partitions together, passed by one answer of each leader at most.
    pub buffer_bytes_max: usize,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        let settings = Settings::default();
        let member = group::Settings::default();
        Self {
            group_id: None,
            instance_id: None,
            assignors: member.assignors,
            auto_commit: Some(Duration::from_secs(5)),
            reset: settings.reset,
            isolation: Isolation::ReadUncommitted,
            session_timeout: Duration::from_secs(45),
            heartbeat: Duration::from_secs(3),
            poll_interval_max: Duration::from_secs(300),
            fetch_wait: Duration::from_millis(500),
            fetch_bytes_min: settings.fetch_bytes_min,
            fetch_bytes_max: settings.fetch_bytes_max,
            partition_bytes_max: settings.partition_bytes_max,
            buffer_bytes_max: settings.buffer_bytes_max,
        }
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The first record there is.
    Earliest,
    /// After the last record there is.
    Latest,
    /// The first record with this timestamp (milliseconds since 1970 UTC) or a later one.
    Timestamp(i64),
    /// This offset.
    At(Offset),
    /// Where the group's last commit says; as [`ConsumerOptions::reset`] where there is none.
    Committed,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The driver has something to look at.
    wake: Notify,
    /// Something is there for the caller.
    ready: Notify,
    /// The caller is inside a call: it lives, however long that takes.
    is_polling: AtomicBool,
    started: Instant,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Reads partitions of any topics.
pub struct Consumer {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
    options: ConsumerOptions,
    listener: Option<Box<dyn RebalanceListener>>,
    /// What the group told last, until it is dealt with.
    pending: Option<Pending>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Marks the caller as present while a call lasts, also when it is dropped.
struct Present<'a>(&'a AtomicBool);

impl<'a> Present<'a> {
    fn new(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_i32(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Consumer {
    /// Consumes from the cluster of `bootstrap` (`host:port` each). Connects when there is something to read.
    ///
    /// Must be called in a tokio runtime. Dropping it leaves a group to find out by its session time-out: see
    /// [`Consumer::close`].
    #[must_use]
    pub fn new(bootstrap: &[String], client: &ClientOptions, options: ConsumerOptions) -> Self {
        let settings = Settings {
            fetch_wait_ms: millis_i32(options.fetch_wait),
            fetch_bytes_min: options.fetch_bytes_min,
            fetch_bytes_max: options.fetch_bytes_max,
            partition_bytes_max: options.partition_bytes_max,
            buffer_bytes_max: options.buffer_bytes_max,
            reset: options.reset,
            is_committed_only: options.isolation == Isolation::ReadCommitted,
            ..Settings::default()
        };
        let member = options.group_id.clone().map(|group_id| group::Settings {
            group_id,
            instance_id: options.instance_id.clone(),
            assignors: options.assignors.clone(),
            session_timeout_ms: millis_i32(options.session_timeout),
            heartbeat_ms: millis(options.heartbeat),
            rebalance_timeout_ms: millis_i32(options.poll_interval_max),
            commit_timeout_ms: millis(client.retry_timeout),
            ..group::Settings::default()
        });
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(settings, member, options.auto_commit.map(millis))),
            wake: Notify::new(),
            ready: Notify::new(),
            is_polling: AtomicBool::new(false),
            started: Instant::now(),
        });
        let driver = tokio::spawn(driver::run(shared.clone(), bootstrap.to_vec(), client.clone()));
        Self { shared, driver, options, listener: None, pending: None }
    }

    /// Reads a partition from `begin` on, beside those that are read already.
    ///
    /// # Errors
    /// [`ClientError::NoGroup`] for [`Begin::Committed`] without a group.
    pub fn assign(&mut self, partition: &TopicPartition, begin: Begin) -> Result<(), ClientError> {
        let start = match begin {
            Begin::Earliest => Start::Earliest,
            Begin::Latest => Start::Latest,
            Begin::Timestamp(time) => Start::Timestamp(time),
            Begin::At(offset) => Start::At(Position { offset, epoch: None }),
            Begin::Committed => Start::Elsewhere,
        };
        let mut state = self.shared.state();
        if begin == Begin::Committed {
            let member = state.member.as_mut().ok_or(ClientError::NoGroup)?;
            member.want_committed([partition.clone()]);
        }
        state.seek(partition, start);
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Reads on from `begin` in a partition that is read.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`], and as [`Consumer::assign`].
    pub fn seek(&mut self, partition: &TopicPartition, begin: Begin) -> Result<(), ClientError> {
        if !self.shared.state().fetcher.is_assigned(partition) {
            return Err(ClientError::NotAssigned(partition.to_string()));
        }
        self.assign(partition, begin)
    }

    /// Reads a partition no more.
    pub fn unassign(&mut self, partition: &TopicPartition) {
        self.shared.state().unassign(partition);
        // There may be room for others now.
        self.shared.wake.notify_one();
    }

    /// Gives out nothing of a partition until [`Consumer::resume`]; its position stays.
    pub fn pause(&mut self, partition: &TopicPartition) {
        self.shared.state().fetcher.pause(partition, true);
        self.shared.wake.notify_one();
    }

    /// Goes on with a partition that was paused.
    pub fn resume(&mut self, partition: &TopicPartition) {
        self.shared.state().fetcher.pause(partition, false);
        self.shared.wake.notify_one();
    }

    /// The partitions that are read.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let state = self.shared.state();
        state.fetcher.positions().map(|(partition, _)| partition.clone()).collect()
    }

    /// The offset after the last record given out; `None` while that is looked up, and for what is not assigned.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        self.shared.state().fetcher.position(partition).map(|position| position.offset)
    }

    /// Up to where a partition can be read (exclusive), as of the last answer.
    #[must_use]
    pub fn high_watermark(&self, partition: &TopicPartition) -> Option<Offset> {
        self.shared.state().fetcher.high_watermark(partition)
    }

    /// What has kept it from reading for longer than `longer_than`: of the group, and of partitions whose leader gives no
    /// answer. It goes on trying by itself; an empty topic is no obstacle.
    #[must_use]
    pub fn obstacles(&self, longer_than: Duration) -> Vec<Obstacle> {
        let now_ms = self.shared.now_ms();
        let state = self.shared.state();
        let stands = state.fetcher.standstills(now_ms, millis(longer_than));
        let stands = stands.into_iter().map(|s| (s.partition, s.since_ms, s.cause.to_string()));
        let mut obstacles = Obstacle::of_partitions(stands, now_ms);
        if let Some(member) = &state.member
            && let Some(wait) = member.wait()
        {
            let obstacle = Obstacle::of_group(&member.settings().group_id, &wait, now_ms);
            obstacles.extend((obstacle.lasts > longer_than).then_some(obstacle));
        }
        obstacles
    }

    /// Waits for records and gives out what is there, by partition. In a group this is also where the share changes:
    /// the listener is called, and what was revoked is committed, from here. Empty when nothing is assigned and there is
    /// no group to assign anything.
    ///
    /// Cancel-safe: a dropped call has given out nothing.
    ///
    /// # Errors
    /// What stands in the way of one partition, which is then not read on until [`Consumer::seek`]; or of the membership.
    pub async fn poll(&mut self) -> Result<Vec<Fetched>, ClientError> {
        let shared = self.shared.clone();
        let _present = Present::new(&shared.is_polling);
        shared.state().caller_is_back(shared.now_ms());
        loop {
            let mut ready = std::pin::pin!(shared.ready.notified());
            ready.as_mut().enable();
            let postponed = shared.state().postponed.take();
            if let Some(trouble) = postponed {
                return Err(state::error(trouble));
            }
            if self.attend().await? {
                continue;
            }
            let fetched = shared.state().take(POLL_BYTES_MAX);
            if !fetched.is_empty() {
                // There is room to read further ahead.
                shared.wake.notify_one();
                return Ok(fetched);
            }
            if shared.state().postponed.is_some() {
                continue;
            }
            if shared.state().is_idle() {
                return Ok(Vec::new());
            }
            if shared.state().is_over {
                return Err(ClientError::ShutDown);
            }
            ready.await;
        }
    }
}
