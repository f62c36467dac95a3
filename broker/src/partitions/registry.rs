//! All partitions of this broker, and everything that is done with them.
//!
//! Called by: the server's start and stop, membership, the request handlers, the fetchers.
//! Calls: `directory`, `metadata`, `partition`, the threads.
//! Invariant: the map of partitions is replaced whole, so that a look-up never waits; every thread
//! started here is joined by [`Partitions::stop`]. Does not know connections.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use broker_core::hosting::Hosting;
use broker_core::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, Offset, TopicPartition, Zxid};
use broker_core::partition::{AlterRequest, ReplicaReport};
use broker_core::registration::DirectoryRecord;
use broker_log::{Log, LogConfig, OpenOptions};
use client_protocol::ErrorCode;
use coordinator_disk::Disk;

use super::append::{self, Command};
use super::cleaner;
use super::commit;
use super::directory::{Directory, DirectoryError, Held};
use super::partition::Partition;
use super::settings::TopicSettings;
use super::ticker::Ticker;
use super::worker::{Job, Round};
use crate::config::PartitionsConfig;

/// Why the partitions could not be opened.
pub type PartitionsError = DirectoryError;

/// What partitions ask of the rest of the broker. Called under a partition's lock, so each of them
/// only notes and wakes: it must not block, and must not call back into [`Partitions`].
pub trait Outlet: Send + Sync {
    /// Begin to fetch the partition from this leader, or go on with a new epoch.
    fn fetch_from(&self, partition: TopicPartition, leader: BrokerId, leader_epoch: LeaderEpoch);
    /// Fetch the partition no more.
    fn stop_fetching(&self, partition: TopicPartition);
    /// The follower holds more than its last fetch said: send the next one without delay.
    fn report_progress(&self, partition: TopicPartition);
    /// Send this to the controller; the answer comes back by [`Partitions::alter_answered`].
    fn alter(&self, request: AlterRequest);
    /// A log directory failed and is fenced.
    fn directory_failed(&self, path: &Path, reason: &str);
}

/// What all partitions share.
pub(super) struct Hub {
    pub broker_id: BrokerId,
    pub clock: Clock,
    pub outlet: Arc<dyn Outlet>,
    started: OnceLock<Zxid>,
    live: ArcSwap<BTreeMap<BrokerId, BrokerEpoch>>,
}

/// Both clocks.
pub(super) struct Clock {
    begin: Instant,
}

/// One replica as its status shows it.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Which partition.
    pub partition: TopicPartition,
    /// Its topic's name.
    pub topic: Arc<str>,
    /// The epoch under which it leads, if it does.
    pub leading: Option<LeaderEpoch>,
    /// Log start, high watermark, durable end and end.
    pub log_start: Offset,
    /// Everything below is committed.
    pub high_watermark: Offset,
    /// Everything below survives a power cut here.
    pub durable_end: Offset,
    /// Offset of the next record.
    pub end: Offset,
    /// Bytes of its segments.
    pub size_bytes: u64,
}

/// See the module.
pub struct Partitions {
    pub(super) hub: Arc<Hub>,
    pub(super) config: PartitionsConfig,
    pub(super) directories: Vec<Arc<Directory>>,
    pub(super) partitions: ArcSwap<HashMap<TopicPartition, Arc<Partition>>>,
    pub(super) hosting: Mutex<Hosting>,
    threads: Mutex<Threads>,
    ticker: Arc<Ticker>,
}

/// The threads to be joined at the end.
#[derive(Default)]
struct Threads {
    appends: Vec<JoinHandle<()>>,
    commits: Vec<JoinHandle<()>>,
    ticker: Vec<JoinHandle<()>>,
    cleaners: Vec<JoinHandle<()>>,
}

impl Hub {
    /// Registration of this process, once there was one.
    pub fn started(&self) -> Option<Zxid> {
        self.started.get().copied()
    }

    /// Lives of all registered brokers.
    pub fn live(&self) -> Arc<BTreeMap<BrokerId, BrokerEpoch>> {
        self.live.load_full()
    }

    pub fn set_started(&self, started: Zxid) {
        // The first registration of the process counts, also after a new session.
        let _ = self.started.set(started);
    }

    pub fn set_live(&self, live: BTreeMap<BrokerId, BrokerEpoch>) {
        self.live.store(Arc::new(live));
    }
}

impl Clock {
    /// Time since the start, never falling.
    pub fn now(&self) -> Millis {
        Millis::new(u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since 1970 UTC.
    pub fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Partitions {
    /// Locks the log directories, recovers all logs and starts the threads. Blocks until that is
    /// done; to be called before the broker registers. The partitions serve nothing until
    /// [`Partitions::begin`].
    ///
    /// # Errors
    /// [`PartitionsError`]: the broker cannot start.
    pub fn open(
        config: PartitionsConfig,
        broker_id: BrokerId,
        disk: &Arc<dyn Disk>,
        outlet: Arc<dyn Outlet>,
    ) -> Result<Arc<Self>, PartitionsError> {
        let hub = Arc::new(Hub {
            broker_id,
            clock: Clock { begin: Instant::now() },
            outlet,
            started: OnceLock::new(),
            live: ArcSwap::default(),
        });
        let mut directories = Vec::new();
        for path in &config.log_dirs {
            directories.push(Directory::open(Arc::clone(disk), path, Arc::clone(&hub))?);
        }
        let mut recovered = HashMap::new();
        for directory in &directories {
            recover(&config, &hub, directory, &mut recovered)?;
        }
        let partitions: HashMap<_, _> =
            recovered.iter().map(|(key, (partition, _))| (*key, Arc::clone(partition))).collect();
        let ticker = Arc::new(Ticker::default());
        let this = Arc::new(Self {
            hub,
            config,
            directories,
            partitions: ArcSwap::from_pointee(partitions),
            hosting: Mutex::new(Hosting::new(broker_id, recovered.keys().copied())),
            threads: Mutex::default(),
            ticker,
        });
        this.start_threads();
        for (partition, log) in recovered.into_values() {
            let durability = partition.settings().core.durability;
            let job = Job::Adopted(Arc::clone(&partition), Box::new(log), durability);
            partition.directory().push(Command::Job(job));
        }
        Ok(this)
    }

    /// What the directories are and remember, for the registration.
    pub fn held(&self) -> Held {
        Held {
            directories: self.directories.iter().map(|directory| directory.identity()).collect(),
            boot_changed: self.directories.iter().any(|directory| directory.boot_changed),
        }
    }

    /// Takes the directories into use for a cluster, as whose they are known from then on; durable
    /// when it returns. Blocks.
    ///
    /// # Errors
    /// [`DirectoryError::OtherCluster`]: one of them holds logs of another cluster. Nothing was
    /// changed, and the broker must not register.
    pub fn claim(&self, cluster: &str) -> Result<(), PartitionsError> {
        let mut new = Vec::new();
        for directory in &self.directories {
            match directory.cluster()? {
                Some(holds) if holds != cluster => {
                    let (path, here) = (directory.folder.path.clone(), cluster.to_owned());
                    return Err(DirectoryError::OtherCluster { path, holds, here });
                }
                Some(_) => {}
                None => new.push(directory),
            }
        }
        new.into_iter().try_for_each(|directory| directory.set_cluster(cluster))
    }

    /// Records incarnations in every directory; durable when it returns. Blocks.
    ///
    /// # Errors
    /// [`PartitionsError`]: the broker must not register.
    pub fn record(&self, record: DirectoryRecord) -> Result<(), PartitionsError> {
        self.directories.iter().try_for_each(|directory| directory.record(record))
    }

    /// The controller answered what [`Outlet::alter`] asked.
    pub fn alter_answered(
        &self,
        partition: TopicPartition,
        attempt: u64,
        result: Result<(), ErrorCode>,
    ) {
        let now = self.hub.clock.now();
        if let Ok(partition) = self.partition(partition) {
            partition.with_core(None, |core, _| core.alter_answered(attempt, result, now));
        }
    }

    /// What the replica holds, for DescribeReplicas.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION when this broker has no such replica, KAFKA_STORAGE_ERROR when
    /// its log directory is fenced.
    pub fn describe_replica(&self, partition: TopicPartition) -> Result<ReplicaReport, ErrorCode> {
        let partition = self.partition(partition)?;
        if partition.directory().is_failed() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let report = partition.read_core(broker_core::partition::Partition::report);
        report.ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// All replicas here, by topic and partition.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        let partitions = self.partitions.load();
        let mut all: Vec<_> = partitions.values().filter_map(status_of).collect();
        all.sort_by(|a, b| {
            (&a.topic, a.partition.partition).cmp(&(&b.topic, b.partition.partition))
        });
        all
    }

    /// Closes every log and joins the threads. Blocks; requests that wait are refused.
    pub fn stop(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        self.ticker.end();
        let ticked = !threads.ticker.is_empty();
        join(threads.ticker);
        if ticked {
            // While the partitions still know their high watermarks.
            self.checkpoint();
        }
        for partition in self.partitions.load().values() {
            partition.stop(ErrorCode::NotLeaderOrFollower);
        }
        // What a cleaner writes is put in place by the appends, or not at all.
        self.directories.iter().for_each(|directory| directory.cleaner.end());
        join(threads.cleaners);
        // The rounds end after the appends, whose last tickets they have to fulfil.
        self.directories.iter().for_each(|directory| directory.push(Command::Close));
        join(threads.appends);
        self.directories.iter().for_each(|directory| directory.rounds.end());
        join(threads.commits);
        for directory in &self.directories {
            directory.note_clean_shutdown();
            directory.unlock();
        }
    }

    /// Ends the threads as kill -9 would: what was written stays, nothing is closed.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        for directory in &self.directories {
            directory.abandon();
        }
        self.stop();
    }

    pub(super) fn partition(&self, key: TopicPartition) -> Result<Arc<Partition>, ErrorCode> {
        let partitions = self.partitions.load();
        partitions.get(&key).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    fn start_threads(self: &Arc<Self>) {
        let mut threads = Threads::default();
        for directory in &self.directories {
            let appends = Arc::clone(directory);
            threads.appends.push(spawn("append", move || append::run(&appends)));
            let commits = Arc::clone(directory);
            let cleans = Arc::clone(directory);
            threads.cleaners.push(spawn("clean", move || cleaner::run(&cleans)));
            threads.commits.push(spawn("commit", move || commit::run(&commits)));
        }
        let ticker = Arc::clone(&self.ticker);
        let this = Arc::downgrade(self);
        threads.ticker.push(spawn("ticker", move || ticker.run(&this)));
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .expect("a handful of threads can be started")
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the partitions panicked");
        }
    }
}

/// What the core knows, where there is one: the log publishes an end before the core has heard of
/// it, and whoever reads a status may act on the core next.
fn status_of(partition: &Arc<Partition>) -> Option<ReplicaStatus> {
    let view = partition.view()?;
    let status = |leading, high_watermark, [log_start, durable_end, end]: [Offset; 3]| {
        let (partition, topic) = (partition.key, Arc::clone(&partition.topic));
        let size_bytes = view.size_bytes();
        ReplicaStatus {
            partition,
            topic,
            leading,
            log_start,
            high_watermark,
            durable_end,
            end,
            size_bytes,
        }
    };
    let known = partition.read_core(|core| {
        let positions = core.positions();
        let ends = [positions.start, positions.durable_end, positions.end];
        status(core.leading(), core.high_watermark(), ends)
    });
    Some(known.unwrap_or_else(|| {
        let ends = view.ends();
        let start = Offset::new(ends.log_start);
        status(None, start, [start, Offset::new(ends.durable_end), Offset::new(ends.end)])
    }))
}

type Recovered = HashMap<TopicPartition, (Arc<Partition>, Log)>;

/// Makes what recovery kept durable, all logs together, and only then tells the partitions of it.
fn sync_recovered(
    directory: &Arc<Directory>,
    logs: &mut [(Arc<Partition>, Log)],
) -> Result<(), PartitionsError> {
    let ticket = |(partition, log): &mut (Arc<Partition>, Log)| {
        Some((Arc::clone(partition), log.take_sync_ticket()?))
    };
    let round = Round::of(logs.iter_mut().filter_map(ticket).collect());
    commit::commit(directory, &round)?;
    directory.folder.sync_marks()?;
    for (partition, log) in logs {
        partition.log_opened(log.view().clone(), directory.folder.loaded(partition.key, log));
    }
    Ok(())
}

/// Opens all logs of a directory, several at a time.
fn recover(
    config: &PartitionsConfig,
    hub: &Arc<Hub>,
    directory: &Arc<Directory>,
    recovered: &mut Recovered,
) -> Result<(), PartitionsError> {
    let (folders, leftover) = directory.folder.list()?;
    directory.unlink_later(leftover);
    let total = folders.len();
    let mut settings = TopicSettings::resolve(config, &BTreeMap::new(), 1);
    settings.is_known = false;
    let settings = Arc::new(settings);
    let started = Instant::now();
    let left = Mutex::new(folders.into_iter());
    let done = Mutex::new((Vec::new(), Instant::now()));
    let work = || -> Result<(), PartitionsError> {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(file) = next else { return Ok(()) };
            let partition = Partition::new(
                file.key(),
                Arc::from(file.topic.as_str()),
                Arc::clone(hub),
                Arc::clone(directory),
                Arc::clone(&settings),
            );
            let log_config = LogConfig { compact: file.compact, ..settings.log.clone() };
            let options = OpenOptions { config: log_config, ..OpenOptions::default() };
            let (key, topic) = (partition.key, Arc::clone(&partition.topic));
            let (log, leftover) = directory.folder.open_log(key, &topic, &options)?;
            directory.unlink_later(leftover);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.0.push((partition, log));
            if done.1.elapsed().as_secs() >= 1 {
                done.1 = Instant::now();
                tracing::info!(recovered = done.0.len(), total, "recovering logs");
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = config.recovery_threads.clamp(1, 64);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("recovery does not panic"))
    })?;
    let (mut logs, _) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    sync_recovered(directory, &mut logs)?;
    if total > 0 {
        let (directory, ms) = (directory.folder.path.display(), started.elapsed().as_millis());
        tracing::info!(%directory, logs = total, ms, "recovered");
    }
    recovered.extend(logs.into_iter().map(|(partition, log)| (partition.key, (partition, log))));
    Ok(())
}
