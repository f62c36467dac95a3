//! A process's log directory: an append thread that does jobs in order, and commit rounds.
//!
//! Called by: `process`. Calls: broker-log on the simulated disk, the partitions' cores.
//! Invariant: jobs are done in the order in which they were pushed; what was decided under another epoch than the log adopted last is
//! refused; one round at a time, and it reports what it synced. Each job and each sync takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::ids::{LeaderEpoch, Millis, Offset, PartitionId, TopicPartition};
use broker_core::partition::{
    Appended, Durability, EpochHistory, Loaded, LogPositions, Synced, Truncated,
};
use broker_log::checkpoint::{self, Offsets};
use broker_log::{
    Admission, BatchMeta, Log, LogContext, Lookup, Marks, OpenOptions, ReadRequest, SequenceError,
    SyncTicket,
};
use bytes::{Bytes, BytesMut};
use client_protocol::ErrorCode;
use client_protocol::records::{Batches, assign_offsets};
use coordinator_disk::Disk;

use super::message::{Address, Alarm, Outbox};
use super::process::Process;
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};

/// Where a broker's logs lie on its disk.
pub const DATA: &str = "/data";

/// Something to do with a log.
#[derive(Debug)]
pub enum Job {
    Produce {
        key: TopicPartition,
        epoch: LeaderEpoch,
        acks: i16,
        batch: Bytes,
        to: Address,
        number: u64,
    },
    Adopt {
        key: TopicPartition,
        epoch: LeaderEpoch,
    },
    Append {
        key: TopicPartition,
        epoch: LeaderEpoch,
        records: Bytes,
    },
    Truncate {
        key: TopicPartition,
        epoch: LeaderEpoch,
        to: Offset,
    },
    RestartAt {
        key: TopicPartition,
        epoch: LeaderEpoch,
        start: Offset,
    },
    DropBelow {
        key: TopicPartition,
        start: Offset,
    },
    CutRepaired {
        key: TopicPartition,
    },
}

struct Slot {
    log: Log,
    epoch: Option<LeaderEpoch>,
}

/// The log directory of one process.
pub struct Directory {
    disk: SimulatedDisk,
    marks: Arc<Marks>,
    slots: BTreeMap<TopicPartition, Slot>,
    jobs: VecDeque<Job>,
    thread_is_awake: bool,
    round: Option<Vec<(TopicPartition, SyncTicket)>>,
    round_is_due: bool,
    watermarks: Offsets,
    starts: Offsets,
    clean: bool,
}

impl Directory {
    /// Opens the directory as a start does.
    pub fn open(disk: &SimulatedDisk) -> Self {
        let path = Path::new(DATA);
        disk.create_dir(path).expect("the disk works");
        disk.sync_dir(Path::new("/")).expect("the disk works");
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let marks = Marks::open(shared, path, b"simulated").expect("marks are sound");
        let read = |name: &str| {
            checkpoint::read_offsets(disk, &path.join(name))
                .expect("the disk works")
                .unwrap_or_default()
        };
        Self {
            disk: disk.clone(),
            marks: Arc::new(marks),
            slots: BTreeMap::new(),
            jobs: VecDeque::new(),
            thread_is_awake: false,
            round: None,
            round_is_due: false,
            watermarks: read(checkpoint::HIGH_WATERMARK_FILE),
            starts: read(checkpoint::LOG_START_FILE),
            clean: checkpoint::take_clean_shutdown(disk, path).expect("the disk works"),
        }
    }

    /// Whether the former process closed the directory in order.
    pub fn was_clean(&self) -> bool {
        self.clean
    }

    pub fn log(&self, key: TopicPartition) -> Option<&Log> {
        self.slots.get(&key).map(|slot| &slot.log)
    }

    /// Whole batches from `offset` below `limit`.
    pub fn read(
        &self,
        key: TopicPartition,
        offset: Offset,
        limit: Offset,
        bytes_max: u32,
    ) -> Bytes {
        let Some(slot) = self.slots.get(&key) else { return Bytes::new() };
        let (offset, limit) = (offset.get(), limit.get());
        let request = ReadRequest { offset, limit, bytes_max, at_least_one: true };
        match slot.log.view().lookup(&request).expect("the disk works") {
            Lookup::Slice(slice) => {
                let mut bytes = vec![0; slice.length as usize];
                slice.file.read_exact_at(slice.position, &mut bytes).expect("published bytes");
                bytes.into()
            }
            Lookup::Empty | Lookup::OutOfRange(_) => Bytes::new(),
        }
    }

    pub fn check(&self) {
        for slot in self.slots.values() {
            slot.log.check();
        }
    }
}

fn folder(topic: &str, partition: PartitionId) -> String {
    format!("{topic}-{}", partition.get())
}

fn positions(log: &Log) -> LogPositions {
    let ends = log.view().ends();
    let epochs: Vec<_> = log
        .view()
        .epochs()
        .starts()
        .iter()
        .map(|start| (LeaderEpoch::new(start.epoch), Offset::new(start.start_offset)))
        .collect();
    LogPositions {
        start: Offset::new(ends.log_start),
        end: Offset::new(ends.end),
        durable_end: Offset::new(ends.durable_end),
        generation: log.view().generation(),
        epochs: EpochHistory::new(&epochs),
    }
}

fn truncated(log: &Log) -> Truncated {
    let positions = positions(log);
    Truncated {
        start: positions.start,
        end_offset: positions.end,
        durable_end: positions.durable_end,
        generation: positions.generation,
    }
}

impl Process {
    /// The end of what the log of a partition has synced.
    pub(super) fn durable_end(&self, key: TopicPartition) -> Offset {
        Offset::new(self.directory.log(key).expect("open").view().ends().durable_end)
    }

    /// Opens or creates a partition's log.
    pub(super) fn open_log(&mut self, key: TopicPartition, topic: &str) -> Loaded {
        let name = folder(topic, key.partition);
        let directory = &mut self.directory;
        let context = LogContext {
            disk: Arc::new(directory.disk.clone()),
            marks: Arc::clone(&directory.marks),
            directory: PathBuf::from(DATA).join(&name),
        };
        let options = OpenOptions {
            config: self.settings.log_config(),
            clean: directory.clean,
            log_start: directory.starts.get(&name).copied(),
        };
        let (log, recovery) = Log::open(context, &options).expect("the disk works");
        assert_eq!(recovery.damage, None, "nothing durable is ever damaged here");
        let loaded = Loaded {
            positions: positions(&log),
            high_watermark: Offset::new(directory.watermarks.get(&name).copied().unwrap_or(0)),
            cut_below_mark: log.cut_below_mark(),
        };
        directory.slots.insert(key, Slot { log, epoch: None });
        loaded
    }

    pub(super) fn push_job(&mut self, job: Job, out: &mut Outbox) {
        self.directory.jobs.push_back(job);
        if !self.directory.thread_is_awake {
            self.directory.thread_is_awake = true;
            out.alarms.push((self.job_time(), Alarm::LogThread));
        }
    }

    /// A connection hands over what it was permitted; between the permission and the queue there is time.
    pub(super) fn submit(&mut self, job: Job, out: &mut Outbox) {
        self.submitting.push_back(job);
        let slow = self.settings.slow_log && self.random.chance(1, 20);
        let wait = if slow { self.random.below(500 * MS) } else { self.random.below(MS / 4) };
        out.alarms.push((wait, Alarm::Submit));
    }

    fn job_time(&mut self) -> Time {
        let slow = self.settings.slow_log && self.random.chance(1, 20);
        if slow { self.random.below(80 * MS) } else { self.random.below(2 * MS) }
    }

    /// The append thread does some of what waits.
    pub(super) fn run_jobs(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..=self.random.below(4) {
            let Some(job) = self.directory.jobs.pop_front() else { break };
            self.run_job(job, now, out);
        }
        self.directory.thread_is_awake = !self.directory.jobs.is_empty();
        if self.directory.thread_is_awake {
            out.alarms.push((self.job_time(), Alarm::LogThread));
        }
        self.want_round(out);
    }

    fn run_job(&mut self, job: Job, now: Time, out: &mut Outbox) {
        match job {
            Job::Produce { key, epoch, acks, batch, to, number } => {
                let produced = self.append_client(key, epoch, &batch, now);
                self.answer_produce((key, epoch, acks), produced, (to, number), now, out);
            }
            Job::Adopt { key, epoch } => self.adopt_epoch(key, epoch, now, out),
            Job::Append { key, epoch, records } => {
                self.append_fetched(key, epoch, &records, now, out);
            }
            Job::Truncate { key, epoch, to } => {
                self.cut(key, epoch, out, |log| {
                    log.truncate_to(to.get()).expect("the disk works");
                });
            }
            Job::RestartAt { key, epoch, start } => {
                self.cut(key, epoch, out, |log| log.restart_at(start.get()).expect("disk"));
            }
            Job::DropBelow { key, start } => {
                let limit = self.replicas[&key].high_watermark().get();
                self.trim(key, out, |log| log.advance_log_start(start.get(), limit).files);
            }
            Job::CutRepaired { key } => {
                let slot = self.directory.slots.get_mut(&key).expect("open");
                slot.log.set_caught_up().expect("the disk works");
            }
        }
    }

    fn adopt_epoch(
        &mut self,
        key: TopicPartition,
        epoch: LeaderEpoch,
        now: Time,
        out: &mut Outbox,
    ) {
        self.directory.slots.get_mut(&key).expect("open").epoch = Some(epoch);
        self.on_partition(key, now, out, |core, effects| {
            core.epoch_adopted(epoch, Millis::new(now / MS), effects);
        });
    }

    /// Appends a client's batch; the offsets it got and the high watermark that it needs.
    fn append_client(
        &mut self,
        key: TopicPartition,
        epoch: LeaderEpoch,
        batch: &Bytes,
        now: Time,
    ) -> Result<(i64, i64, Option<Appended>), ErrorCode> {
        let slot = self.directory.slots.get_mut(&key).ok_or(ErrorCode::NotLeaderOrFollower)?;
        if slot.epoch != Some(epoch) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let mut meta = BatchMeta::parse(batch).ok_or(ErrorCode::CorruptMessage)?;
        let now_ms = i64::try_from(now / MS).expect("small");
        match slot.log.admit_client(&mut meta, epoch.get(), now_ms).expect("the log works") {
            Admission::Assigned { base_offset } => {
                let mut bytes = BytesMut::from(&batch[..]);
                assign_offsets(&mut bytes, Offset::new(base_offset), epoch).expect("a batch");
                slot.log.write(&[IoSlice::new(&bytes)]).expect("the disk works");
                let appended = Appended {
                    base_offset: Offset::new(base_offset),
                    end_offset: Offset::new(meta.next_offset()),
                    epochs: vec![(epoch, Offset::new(base_offset))],
                };
                Ok((base_offset, meta.next_offset(), Some(appended)))
            }
            Admission::Duplicate(duplicate) => {
                Ok((duplicate.base_offset, duplicate.last_offset + 1, None))
            }
            Admission::WriteFirst => unreachable!("nothing is ever pending here"),
            Admission::Rejected(SequenceError::EpochFenced { .. }) => {
                Err(ErrorCode::InvalidProducerEpoch)
            }
            Admission::Rejected(SequenceError::OutOfOrder { .. }) => {
                Err(ErrorCode::OutOfOrderSequenceNumber)
            }
        }
    }

    fn append_fetched(
        &mut self,
        key: TopicPartition,
        epoch: LeaderEpoch,
        records: &Bytes,
        now: Time,
        out: &mut Outbox,
    ) {
        let slot = self.directory.slots.get_mut(&key).expect("open");
        let mut appended: Option<Appended> = None;
        let now_ms = i64::try_from(now / MS).expect("small");
        let permitted = slot.epoch == Some(epoch);
        for batch in Batches::new(records).take_while(|_| permitted) {
            let Ok(batch) = batch else { break };
            let bytes = batch.bytes;
            let sound = batch.check_crc().is_ok();
            let Some(meta) = BatchMeta::parse(bytes).filter(|_| sound) else { break };
            match slot.log.admit_replicated(&meta, now_ms) {
                Ok(admitted) => assert!(admitted, "nothing is ever pending here"),
                Err(error) => {
                    assert!(!error.is_fatal(), "{error}");
                    break;
                }
            }
            slot.log.write(&[IoSlice::new(bytes)]).expect("the disk works");
            let start = (LeaderEpoch::new(meta.leader_epoch), Offset::new(meta.base_offset));
            let so_far = appended.get_or_insert_with(|| Appended {
                base_offset: start.1,
                end_offset: start.1,
                epochs: Vec::new(),
            });
            so_far.end_offset = Offset::new(meta.next_offset());
            so_far.epochs.push(start);
        }
        self.on_partition(key, now, out, |core, effects| match &appended {
            Some(appended) => core.appended(appended, Millis::new(now / MS), effects),
            None => core.append_refused(epoch),
        });
    }

    fn cut(
        &mut self,
        key: TopicPartition,
        epoch: LeaderEpoch,
        out: &mut Outbox,
        cut: impl FnOnce(&mut Log),
    ) {
        let slot = self.directory.slots.get_mut(&key).expect("open");
        if slot.epoch != Some(epoch) {
            return;
        }
        cut(&mut slot.log);
        let truncated = truncated(&slot.log);
        self.on_partition(key, 0, out, |core, effects| core.truncated(truncated, effects));
        self.fetch_soon(key, out);
    }

    fn trim(
        &mut self,
        key: TopicPartition,
        out: &mut Outbox,
        trim: impl FnOnce(&mut Log) -> Vec<PathBuf>,
    ) {
        let slot = self.directory.slots.get_mut(&key).expect("open");
        for path in trim(&mut slot.log) {
            // Not every segment has every file.
            drop(self.directory.disk.remove(&path));
        }
        let start = Offset::new(slot.log.view().ends().log_start);
        self.on_partition(key, 0, out, |core, effects| core.log_start_moved(start, effects));
    }

    /// Removes what is too much; the leader decides for all.
    pub(super) fn apply_retention(&mut self, now: Time, out: &mut Outbox) {
        let leading: Vec<_> = self
            .replicas
            .iter()
            .filter(|(_, core)| core.leading().is_some())
            .map(|(&key, core)| (key, core.high_watermark().get()))
            .collect();
        let now_ms = i64::try_from(now / MS).expect("small");
        for (key, limit) in leading {
            self.trim(key, out, |log| log.apply_retention(now_ms, limit).expect("disk").files);
        }
        self.want_round(out);
    }

    /// Writes the checkpoints of high watermarks and log starts.
    pub(super) fn write_checkpoints(&mut self) {
        let directory = &mut self.directory;
        for (key, slot) in &directory.slots {
            let folder = slot.log.view().directory().file_name().expect("named");
            let name = folder.to_string_lossy().into_owned();
            let core = &self.replicas[key];
            directory.watermarks.insert(name.clone(), core.high_watermark().get());
            directory.starts.insert(name, slot.log.view().ends().log_start);
        }
        for (name, offsets) in [
            (checkpoint::HIGH_WATERMARK_FILE, &directory.watermarks),
            (checkpoint::LOG_START_FILE, &directory.starts),
        ] {
            let path = Path::new(DATA).join(name);
            checkpoint::write_offsets(&directory.disk, &path, offsets).expect("the disk works");
        }
    }

    /// A round starts with an append when none runs; a memory topic's is in no hurry.
    fn want_round(&mut self, out: &mut Outbox) {
        if self.directory.round.is_some() || self.directory.round_is_due {
            return;
        }
        self.directory.round_is_due = true;
        let wait = match self.settings.durability {
            Durability::Disk => self.random.below(MS),
            Durability::Memory => self.random.below(2_000 * MS),
        };
        out.alarms.push((wait, Alarm::RoundStart));
    }

    pub(super) fn start_round(&mut self, out: &mut Outbox) {
        self.directory.round_is_due = false;
        let tickets: Vec<_> = self
            .directory
            .slots
            .iter_mut()
            .filter_map(|(&key, slot)| Some((key, slot.log.take_sync_ticket()?)))
            .collect();
        if tickets.is_empty() {
            return;
        }
        self.directory.round = Some(tickets);
        let slow = self.settings.slow_log && self.random.chance(1, 10);
        let takes = if slow { self.random.below(200 * MS) } else { self.random.below(10 * MS) };
        out.alarms.push((takes, Alarm::RoundEnd));
    }

    pub(super) fn end_round(&mut self, now: Time, out: &mut Outbox) {
        let tickets = self.directory.round.take().unwrap_or_default();
        self.sync_tickets(&tickets);
        for (key, ticket) in tickets {
            let Some(durable_end) = ticket.view.publish_durable(ticket.generation, ticket.end)
            else {
                continue;
            };
            let generation = ticket.generation;
            let synced = Synced { durable_end: Offset::new(durable_end), generation };
            self.on_partition(key, now, out, |core, effects| {
                core.synced(synced, Millis::new(now / MS), effects);
            });
        }
        self.want_round(out);
    }

    fn sync_tickets(&mut self, tickets: &[(TopicPartition, SyncTicket)]) {
        let directory = &self.directory;
        for (_, ticket) in tickets {
            ticket.sync(&directory.disk).expect("the disk works");
        }
        if tickets.iter().any(|(_, ticket)| ticket.parent) {
            directory.disk.sync_dir(Path::new(DATA)).expect("the disk works");
        }
        let counted = tickets.iter().filter(|(_, t)| t.view.generation() == t.generation);
        directory.marks.append(counted.map(|(_, t)| (t.mark_id, t.end))).expect("disk");
        directory.marks.sync().expect("the disk works");
    }

    /// Closes all logs in order, as the last act of a process.
    pub(super) fn close_logs(mut self) -> SimulatedDisk {
        // A round under way has taken over what it syncs: the logs do not know of it any more.
        let tickets = self.directory.round.take().unwrap_or_default();
        self.sync_tickets(&tickets);
        let Directory { disk, slots, .. } = self.directory;
        for (_, slot) in slots {
            slot.log.close().expect("the disk works");
        }
        checkpoint::write_clean_shutdown(&disk, Path::new(DATA)).expect("the disk works");
        disk
    }
}
