//! A process's log directory: the broker's own worker and rounds, stepped on a simulated disk.
//!
//! Called by: `process`. Calls: the worker of the broker's partitions, the hosted partitions.
//! Invariant: jobs reach the worker in the order in which they were pushed; one round at a time. Each job and each sync takes its time, and
//! a process can end between any two of them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use broker::partitions::worker::{Appender, Folder, Happened, Job, LogJob, Owner, Round, Stored};
use broker_core::ids::{Millis, Offset, TopicPartition};
use broker_core::partition::Durability;
use broker_log::{CleaningPlan, Damage, Log, Lookup, OpenOptions, ReadRequest};
use bytes::Bytes;
use client_protocol::{ErrorCode, PartitionId};
use coordinator_disk::Disk;

use super::committing::Commits;
use super::message::{Address, Alarm, Outbox};
use super::process::Process;
use super::settings::Settings;
use super::world::topic_id;
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};

/// Where a broker's logs lie on its disk.
pub const DATA: &str = "/data";
/// What the marks there belong to.
pub const IDENTITY: &[u8] = b"simulated";

/// A partition, as whose log is meant.
#[derive(Debug, Clone)]
pub struct Of {
    pub key: TopicPartition,
    pub topic: Arc<str>,
}

impl Owner for Of {
    fn key(&self) -> TopicPartition {
        self.key
    }

    fn topic(&self) -> &str {
        &self.topic
    }
}

/// Who waits for a produce.
#[derive(Debug, Clone, Copy)]
pub struct Produce {
    pub to: Address,
    pub number: u64,
    pub acks: i16,
}

pub type ProcessJob = Job<Of, Produce>;

/// The log directory of one process.
pub struct Directory {
    disk: SimulatedDisk,
    pub(super) folder: Arc<Folder>,
    worker: Appender<Of, Produce>,
    jobs: VecDeque<ProcessJob>,
    thread_is_awake: bool,
    pub(super) commits: Commits,
    discards: Vec<(Of, Vec<i64>)>,
    unlinks: VecDeque<PathBuf>,
    /// Logs to be cleaned.
    pub(super) plans: VecDeque<(Of, CleaningPlan)>,
    /// Steps of cleanings that are to be put in place; each gives what is left to clean.
    pub(super) swaps: Vec<(Of, Receiver<Option<Box<CleaningPlan>>>)>,
    /// Nothing that is asked of the disk comes back before this time.
    pub(super) stalled_until: Time,
    /// Logs that were found damaged below what was durable.
    pub damaged: Vec<TopicPartition>,
    /// A disk error fenced it.
    pub failed: Option<String>,
}

/// A start fails on this.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Directory {
    /// Opens the directory as a start does; no log yet.
    ///
    /// # Errors
    /// What the disk or the files say: the process cannot start.
    pub fn open(disk: &SimulatedDisk) -> Result<Self, String> {
        let path = Path::new(DATA);
        disk.create_dir(path).map_err(text)?;
        disk.sync_dir(Path::new("/")).map_err(text)?;
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let folder = Arc::new(Folder::open(shared, path, IDENTITY).map_err(text)?);
        Ok(Self {
            disk: disk.clone(),
            worker: Appender::new(Arc::clone(&folder)),
            folder,
            jobs: VecDeque::new(),
            thread_is_awake: false,
            commits: Commits::default(),
            discards: Vec::new(),
            unlinks: VecDeque::new(),
            plans: VecDeque::new(),
            swaps: Vec::new(),
            stalled_until: 0,
            damaged: Vec::new(),
            failed: None,
        })
    }

    /// Whether the former process closed the directory in order.
    pub fn was_clean(&self) -> bool {
        self.folder.clean
    }

    pub fn log(&self, key: TopicPartition) -> Option<&Log> {
        self.worker.log(key)
    }

    /// Whole batches from `offset` below `limit`.
    ///
    /// # Errors
    /// KAFKA_STORAGE_ERROR when the disk does not give them.
    pub fn read(
        &self,
        key: TopicPartition,
        offset: Offset,
        limit: Offset,
        bytes_max: u32,
    ) -> Result<Bytes, ErrorCode> {
        let Some(log) = self.log(key) else { return Ok(Bytes::new()) };
        let (offset, limit) = (offset.get(), limit.get());
        let request = ReadRequest { offset, limit, bytes_max, at_least_one: true };
        match log.view().lookup(&request).map_err(|_| ErrorCode::KafkaStorageError)? {
            Lookup::Slice(slice) => {
                let mut bytes = vec![0; slice.length as usize];
                let read = slice.file.read_exact_at(slice.position, &mut bytes);
                read.map(|()| bytes.into()).map_err(|_| ErrorCode::KafkaStorageError)
            }
            Lookup::Empty | Lookup::OutOfRange(_) => Ok(Bytes::new()),
        }
    }

    pub fn check(&self) {
        self.worker.check();
    }

    /// What was found damaged, and how.
    pub fn damage(&self) -> Vec<(TopicPartition, Option<Damage>)> {
        let of = |&key| (key, self.log(key).and_then(Log::damage));
        self.damaged.iter().map(of).collect()
    }

    /// Recovers all logs, makes what was kept durable, and hands them to the worker.
    ///
    /// # Errors
    /// What the disk says: the process cannot start.
    pub fn recover(&mut self, settings: &Settings) -> Result<Vec<Of>, String> {
        if let Some(bytes) = settings.marks_bytes_max {
            self.folder.marks.limit_file(bytes);
        }
        let (files, leftover) = self.folder.list().map_err(text)?;
        self.unlinks.extend(leftover);
        let (mut found, mut tickets) = (Vec::new(), Vec::new());
        for file in files {
            let of = Of { key: file.key(), topic: file.topic.as_str().into() };
            let options = options(settings);
            let opened = self.folder.open_log(of.key, &of.topic, &options);
            let (mut log, leftover) = opened.map_err(text)?;
            self.damaged.extend(log.damage().map(|_| of.key));
            self.unlinks.extend(leftover);
            tickets.extend(log.take_sync_ticket().map(|ticket| (of.clone(), ticket)));
            found.push((of, log));
        }
        let round = Round::of(tickets);
        round.sync(&self.folder).map_err(text)?;
        assert_eq!(round.publish().len(), round.len(), "nothing truncates meanwhile");
        round.note_marks(&self.folder).map_err(text)?;
        self.folder.sync_marks().map_err(text)?;
        let mut out = Vec::new();
        let adopt = |(of, log): (Of, Log)| {
            let job = Job::Adopted(of.clone(), Box::new(log), settings.durability);
            self.worker.do_job(job, 0, &mut out);
            of
        };
        Ok(found.into_iter().map(adopt).collect())
    }

    /// Looks at what is on the disk whether it can be read at present or not.
    pub fn peek<R>(&self, look: impl FnOnce() -> R) -> R {
        self.disk.peek(look)
    }

    /// Nothing that is asked of the disk comes back before `time`.
    pub fn stall(&mut self, time: Time) {
        self.stalled_until = self.stalled_until.max(time);
    }
}

pub fn options(settings: &Settings) -> OpenOptions {
    OpenOptions { config: settings.log_config(), ..OpenOptions::default() }
}

fn wall_ms(now: Time) -> i64 {
    i64::try_from(now / MS).expect("small")
}

impl Process {
    /// The end of what the log of a partition has synced.
    pub(super) fn durable_end(&self, key: TopicPartition) -> Offset {
        Offset::new(self.directory.log(key).expect("open").view().ends().durable_end)
    }

    /// Whether it says, and its directory notes, that a log lost part of what was durable: it leads nothing before that is refilled (D6).
    pub(super) fn is_unsound(&self, key: TopicPartition) -> bool {
        let is_noted = self.directory.log(key).is_some_and(Log::cut_below_mark);
        let core = self.replicas.get(&key);
        is_noted && core.is_some_and(|core| core.report().cut_below_mark)
    }

    /// The same of all logs.
    pub(super) fn durable_ends(&self) -> Vec<(TopicPartition, Offset)> {
        let keys = self.replicas.iter().map(|(&key, _)| key);
        let open = keys.filter(|&key| self.directory.log(key).is_some());
        open.map(|key| (key, self.durable_end(key))).collect()
    }

    /// The logs that the directory holds, before this life registers.
    pub(super) fn recover_logs(&mut self, now: Time, out: &mut Outbox) -> Result<(), String> {
        for of in self.directory.recover(&self.settings)? {
            let log = self.directory.log(of.key).expect("recovered");
            let loaded = self.directory.folder.loaded(of.key, log);
            self.host(&of);
            let moment = self.moment(now);
            self.step_partition(of.key, now, out, |hosted, outcome| {
                hosted.log_opened(loaded, &moment, outcome);
            });
        }
        Ok(())
    }

    /// What was told of each log is what the log has: a replica decides by it, and a start would begin with the log's.
    pub(super) fn check_positions(&self) {
        for (&key, core) in self.replicas.iter().filter(|_| self.directory.failed.is_none()) {
            let Some(log) = self.directory.log(key) else { continue };
            let (ends, epochs) = (log.view().ends(), log.view().epochs());
            let has = epochs.starts().iter().map(|start| (start.epoch, start.start_offset));
            let positions = core.positions();
            let told = positions.epochs.entries().iter();
            let told = told.map(|(epoch, start)| (epoch.get(), start.get()));
            assert!(
                told.clone().eq(has.clone()),
                "{}: {key:?}: {:?} are the epochs, told were {:?}",
                self.id,
                has.collect::<Vec<_>>(),
                told.collect::<Vec<_>>()
            );
            let told = (positions.start.get(), positions.end.get());
            assert_eq!(told, (ends.log_start, ends.end), "{}: {key:?}: start and end", self.id);
        }
    }

    /// For the trace.
    pub(super) fn logs_in_words(&self) -> String {
        let keys = (0..self.settings.partitions).map(PartitionId::new);
        let keys = keys.map(|partition| TopicPartition { topic: topic_id(), partition });
        let logs =
            keys.filter_map(|key| Some((key, self.directory.log(key)?))).map(|(key, log)| {
                let (ends, cut) = (log.view().ends(), log.cut_below_mark());
                format!("{}: {ends:?} cut {cut} damage {:?}", key.partition, log.damage())
            });
        logs.collect::<Vec<_>>().join(", ")
    }

    /// The disk failed: the directory is fenced, and the process is to end.
    pub(super) fn fail(&mut self, reason: impl std::fmt::Display, out: &mut Outbox) {
        if self.directory.failed.is_none() {
            self.directory.failed = Some(reason.to_string());
            out.failed = true;
        }
    }

    /// Puts off what needs the disk while that stands still.
    pub(super) fn is_stalled(&self, alarm: Alarm, now: Time, out: &mut Outbox) -> bool {
        let left = self.directory.stalled_until.saturating_sub(now);
        if left > 0 {
            out.alarms.push((left, alarm));
        }
        left > 0
    }

    pub(super) fn push_job(&mut self, job: ProcessJob, out: &mut Outbox) {
        self.directory.jobs.push_back(job);
        if !self.directory.thread_is_awake {
            self.directory.thread_is_awake = true;
            out.alarms.push((self.job_time(), Alarm::LogThread));
        }
    }

    pub(super) fn push_log_job(&mut self, key: TopicPartition, job: LogJob, out: &mut Outbox) {
        self.push_job(Job::Log(self.of(key), job), out);
    }

    /// A connection hands over what it was permitted; between the permission and the queue there is time.
    pub(super) fn submit(&mut self, job: ProcessJob, out: &mut Outbox) {
        self.submitting.push_back(job);
        let slow = self.settings.slow_log && self.random.chance(1, 20);
        let wait = if slow { self.random.below(500 * MS) } else { self.random.below(MS / 4) };
        out.alarms.push((wait, Alarm::Submit));
    }

    fn job_time(&mut self) -> Time {
        let slow = self.settings.slow_log && self.random.chance(1, 20);
        if slow { self.random.below(80 * MS) } else { self.random.below(2 * MS) }
    }

    /// The append thread does some of what waits, and writes.
    pub(super) fn run_jobs(&mut self, now: Time, out: &mut Outbox) {
        if self.directory.failed.is_some() {
            self.directory.worker.fence();
        }
        for _ in 0..=self.random.below(4) {
            let Some(job) = self.directory.jobs.pop_front() else { break };
            self.run_job(job, now, out);
        }
        let mut happened = Vec::new();
        self.directory.worker.finish(wall_ms(now), &mut happened);
        self.carry_out(happened, now, out);
        self.go_on_cleaning(out);
        self.directory.thread_is_awake = !self.directory.jobs.is_empty();
        if self.directory.thread_is_awake {
            out.alarms.push((self.job_time(), Alarm::LogThread));
        }
        self.want_round(out);
    }

    fn run_job(&mut self, job: ProcessJob, now: Time, out: &mut Outbox) {
        let mut happened = Vec::new();
        self.directory.worker.do_job(job, wall_ms(now), &mut happened);
        self.carry_out(happened, now, out);
    }

    /// Does what the worker's news ask for.
    fn carry_out(&mut self, happened: Vec<Happened<Of, Produce>>, now: Time, out: &mut Outbox) {
        let ms = Millis::new(now / MS);
        for news in happened {
            out.decided.push(name_of(&news));
            match news {
                Happened::Opened(of, _, loaded) => {
                    if loaded.cut_below_mark {
                        self.directory.damaged.push(of.key);
                    }
                    let moment = self.moment(now);
                    self.step_partition(of.key, now, out, |hosted, outcome| {
                        hosted.log_opened(loaded, &moment, outcome);
                    });
                }
                Happened::EpochAdopted(of, epoch) => {
                    self.on_partition(of.key, now, out, |core, effects| {
                        core.epoch_adopted(epoch, ms, effects);
                    });
                }
                Happened::Appended { of, appended, waits, done } => {
                    self.step_partition(of.key, now, out, |hosted, outcome| {
                        hosted.appended(&appended, waits, ms, outcome);
                    });
                    done.iter().for_each(|stored| answer(stored, Ok(()), out));
                }
                Happened::Refused { of, batch, error, produce } => {
                    if let Some(hosted) = self.hosted_mut(of.key) {
                        hosted.refused(batch, error, ms);
                    }
                    refuse(produce, error, out);
                }
                Happened::AppendRefused(of, epoch) => {
                    self.on_partition(of.key, now, out, |core, _| core.append_refused(epoch));
                    self.fetch_soon(of.key, out);
                }
                Happened::Truncated(of, truncated) => {
                    self.step_partition(of.key, now, out, |hosted, outcome| {
                        hosted.truncated(truncated, outcome);
                    });
                    self.fetch_soon(of.key, out);
                }
                Happened::LogStartMoved(of, start) => {
                    out.trimmed.push((of.key, start));
                    self.on_partition(of.key, now, out, |core, effects| {
                        if core.positions().start < start {
                            core.log_start_moved(start, effects);
                        }
                    });
                }
                Happened::Removed(of, segments) => self.directory.discards.push((of, segments)),
                Happened::ToClean(of, plan) => self.plan_cleaning(of, *plan, out),
                Happened::ToSync(of, ticket) => self.directory.commits.rounds.submit(of, ticket),
                Happened::ToUnlink(paths) => self.directory.unlinks.extend(paths),
                Happened::Failed(error) => self.fail(error, out),
            }
        }
    }

    /// Now and then: retention, memory topics' syncs, checkpoints, and what may go behind them.
    pub(super) fn look_after_logs(&mut self, now: Time, out: &mut Outbox) {
        if self.directory.failed.is_some() || self.directory.stalled_until > now {
            return;
        }
        let marks: Vec<_> =
            self.replicas.iter().map(|(&key, core)| (key, core.high_watermark())).collect();
        for &(key, high_watermark) in &marks {
            self.push_log_job(key, LogJob::Retain(high_watermark), out);
            if self.settings.compaction.is_some() {
                self.push_log_job(key, LogJob::Clean(high_watermark), out);
            }
            if self.settings.durability == Durability::Memory {
                self.push_log_job(key, LogJob::Flush, out);
            }
        }
        let discards = std::mem::take(&mut self.directory.discards);
        let worker = &self.directory.worker;
        let position = |&(key, high_watermark): &(TopicPartition, Offset)| {
            let log_start = worker.log(key)?.view().ends().log_start;
            Some((key, high_watermark.get(), log_start))
        };
        let written =
            self.directory.folder.checkpoint(|| marks.iter().filter_map(position).collect());
        if let Err(error) = written {
            return self.fail(error, out);
        }
        for (of, segments) in discards {
            self.push_job(Job::Log(of, LogJob::Discard(segments)), out);
        }
    }

    /// Unlinks some of what waits for it; the power may go before the rest.
    pub(super) fn unlink_some(&mut self) {
        for _ in 0..self.random.below(4) {
            let Some(path) = self.directory.unlinks.pop_front() else { return };
            self.directory.folder.unlink(&path);
        }
    }

    /// Closes all logs, as the last act of a process: in order, unless the disk fails.
    pub(super) fn close_logs(mut self, now: Time) -> SimulatedDisk {
        if self.directory.failed.is_some() {
            self.directory.worker.fence();
        }
        // What fails here leaves the directory without the marker: the next start looks at everything.
        let _ = self.close_directory(now);
        self.directory.disk
    }

    fn close_directory(&mut self, now: Time) -> Result<(), String> {
        self.submitting.clear();
        let directory = &mut self.directory;
        let mut happened = Vec::new();
        for job in std::mem::take(&mut directory.jobs) {
            directory.worker.do_job(job, wall_ms(now), &mut happened);
        }
        let in_order = directory.worker.close(wall_ms(now), &mut happened);
        let failed = happened.iter().any(|news| matches!(news, Happened::Failed(_)));
        if !in_order || failed || directory.failed.is_some() {
            return Err("not in order".to_owned());
        }
        for news in happened {
            if let Happened::ToSync(of, ticket) = news {
                directory.commits.rounds.submit(of, ticket);
            }
        }
        // A round under way has taken over what it syncs: the next one does not know of it any more.
        let rounds = [directory.commits.round.take(), Some(directory.commits.rounds.begin())];
        for round in rounds.into_iter().flatten() {
            round.sync(&directory.folder).map_err(text)?;
            round.publish();
            round.note_marks(&directory.folder).map_err(text)?;
        }
        directory.folder.sync_marks().map_err(text)?;
        if !self.session.has_told_of_boot() {
            return Err("the next start has to tell of the boot".to_owned());
        }
        directory.folder.note_clean_shutdown().map_err(text)
    }
}

/// Tells a producer what became of its batch.
pub fn answer(stored: &Stored<Produce>, result: Result<(), ErrorCode>, out: &mut Outbox) {
    match result {
        Ok(()) => {
            let base_offset = stored.placed.base_offset.get();
            super::serving::answer_producer(stored.produce, ErrorCode::None, base_offset, out);
        }
        Err(error) => refuse(stored.produce, error, out),
    }
}

fn refuse(produce: Produce, error: ErrorCode, out: &mut Outbox) {
    super::serving::answer_producer(produce, error, -1, out);
}

fn name_of(news: &Happened<Of, Produce>) -> &'static str {
    match news {
        Happened::Opened(_, _, loaded) if loaded.cut_below_mark => "log Opened damaged",
        Happened::Opened(..) => "log Opened",
        Happened::EpochAdopted(..) => "log EpochAdopted",
        Happened::Appended { .. } => "log Appended",
        Happened::Refused { .. } => "log Refused",
        Happened::AppendRefused(..) => "log AppendRefused",
        Happened::Truncated(..) => "log Truncated",
        Happened::LogStartMoved(..) => "log LogStartMoved",
        Happened::Removed(..) => "log Removed",
        Happened::ToClean(..) => "log ToClean",
        Happened::ToSync(..) => "log ToSync",
        Happened::ToUnlink(..) => "log ToUnlink",
        Happened::Failed(_) => "log Failed",
    }
}
