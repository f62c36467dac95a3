//! All logs of a log directory: the only one that changes them.
//!
//! Called by: the append thread, the simulator. Calls: `slot`, `folder`.
//! Invariant: jobs are done in the order in which they come; all batches for one partition that
//! came since the last write go to its file in one. Does not know the wire, and never syncs but to
//! cut and to put in place what a cleaning wrote: a note, the folder twice, how far it is clean.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use broker_core::ids::TopicPartition;
use broker_core::partition::Durability;
use broker_log::{Log, LogError, OpenOptions};
use client_protocol::ErrorCode;

use super::folder::Folder;
use super::job::{Happened, Job, LogJob, Owner, ProduceJob};
use super::slot::{Slot, Step};

/// See the module. `O` is whose a log is, `P` what a produce is known by.
pub struct Appender<O, P> {
    folder: Arc<Folder>,
    slots: HashMap<TopicPartition, Slot<O, P>>,
    /// Logs with something to write or to sync, since the last [`Appender::finish`].
    touched: Vec<TopicPartition>,
    fenced: bool,
}

impl<O: Owner, P> Appender<O, P> {
    /// An appender of a directory whose logs are opened by jobs.
    pub fn new(folder: Arc<Folder>) -> Self {
        Self { folder, slots: HashMap::new(), touched: Vec::new(), fenced: false }
    }

    /// The directory is fenced: produces and what leaders send are refused from here on.
    pub fn fence(&mut self) {
        self.fenced = true;
    }

    /// A log, for those who look on.
    pub fn log(&self, key: TopicPartition) -> Option<&Log> {
        self.slots.get(&key).map(|slot| &slot.log)
    }

    /// Does one job; `wall_ms` are milliseconds since 1970 UTC. Batches may stay unwritten until
    /// [`Appender::finish`].
    pub fn do_job(&mut self, job: Job<O, P>, wall_ms: i64, out: &mut Vec<Happened<O, P>>) {
        match job {
            Job::Produce(of, job) => self.produce(&of, job, wall_ms, out),
            Job::Log(of, LogJob::Open(options, durability)) => {
                self.open(of, (&options, durability), wall_ms, out);
            }
            Job::Log(of, job) => self.log_job(&of, job, wall_ms, out),
            Job::Adopted(of, log, durability) => self.insert(of, *log, durability),
        }
    }

    fn insert(&mut self, of: O, log: Log, durability: Durability) {
        let key = of.key();
        self.slots.insert(key, Slot::new(of, log, durability));
        self.touched.push(key);
    }

    fn produce(&mut self, of: &O, job: ProduceJob<P>, wall_ms: i64, out: &mut Vec<Happened<O, P>>) {
        let slot = match self.slots.get_mut(&of.key()) {
            Some(slot) if !self.fenced => slot,
            Some(_) | None if self.fenced => {
                return out.push(job.refuse(of.clone(), ErrorCode::KafkaStorageError));
            }
            Some(_) | None => {
                return out.push(job.refuse(of.clone(), ErrorCode::NotLeaderOrFollower));
            }
        };
        if slot.is_written() {
            self.touched.push(of.key());
        }
        let done = slot.admit(job, &mut Step { folder: &self.folder, wall_ms, out });
        self.note(done, out);
    }

    fn log_job(&mut self, of: &O, job: LogJob, wall_ms: i64, out: &mut Vec<Happened<O, P>>) {
        let Some(slot) = self.slots.get_mut(&of.key()) else { return };
        if self.fenced {
            // What a failed sync left of its files is not known: nothing more counts as held here, and
            // none of them is put in the place of another.
            match job {
                LogJob::AppendFetched(epoch, _)
                | LogJob::Truncate(epoch, _)
                | LogJob::RestartAt(epoch, _) => {
                    return out.push(Happened::AppendRefused(of.clone(), epoch));
                }
                LogJob::Clean(_) | LogJob::SwapCleaned(..) => return,
                LogJob::Open(..)
                | LogJob::Adopt { .. }
                | LogJob::DropBelow(_)
                | LogJob::CutRepaired
                | LogJob::Configure(..)
                | LogJob::Retain(_)
                | LogJob::Discard(_)
                | LogJob::GiveUpCleaning { .. }
                | LogJob::Flush
                | LogJob::Delete => {}
            }
        }
        self.touched.push(of.key());
        let mut step = Step { folder: &self.folder, wall_ms, out };
        let is_delete = matches!(job, LogJob::Delete);
        let done = slot.flush(&mut step).and_then(|()| slot.act(job, &mut step));
        let done = done.and_then(|()| if is_delete { self.delete(of, out) } else { Ok(()) });
        self.note(done, out);
    }

    fn open(
        &mut self,
        of: O,
        (options, durability): (&OpenOptions, Durability),
        wall_ms: i64,
        out: &mut Vec<Happened<O, P>>,
    ) {
        let opened = self.retire_namesakes(&of, wall_ms, out).and_then(|()| {
            let (log, leftover) = self.folder.open_log(of.key(), of.topic(), options)?;
            let loaded = self.folder.loaded(of.key(), &log);
            out.push(Happened::Opened(of.clone(), log.view().clone(), loaded));
            if !leftover.is_empty() {
                out.push(Happened::ToUnlink(leftover));
            }
            self.insert(of, log, durability);
            Ok(())
        });
        self.note(opened, out);
    }

    /// A former topic of the same name, whose end was not heard of: the folder is not its log's any
    /// more, so nothing of it is written by that path.
    fn retire_namesakes(
        &mut self,
        of: &O,
        wall_ms: i64,
        out: &mut Vec<Happened<O, P>>,
    ) -> Result<(), LogError> {
        let key = of.key();
        let is_namesake = |(other, slot): &(&TopicPartition, &Slot<O, P>)| {
            other.partition == key.partition && **other != key && slot.of.topic() == of.topic()
        };
        let former = self.slots.iter().filter(is_namesake).map(|(key, _)| *key);
        let former: BTreeSet<_> = former.collect();
        for key in former {
            let Some(mut slot) = self.slots.remove(&key) else { continue };
            slot.flush(&mut Step { folder: &self.folder, wall_ms, out })?;
            slot.log.retire();
        }
        Ok(())
    }

    fn delete(&mut self, of: &O, out: &mut Vec<Happened<O, P>>) -> Result<(), LogError> {
        let Some(slot) = self.slots.remove(&of.key()) else { return Ok(()) };
        let mark_id = slot.log.mark_id();
        slot.log.retire();
        drop(slot);
        out.push(Happened::ToUnlink(self.folder.delete_log(of.key(), of.topic(), mark_id)?));
        Ok(())
    }

    /// Writes what waits, and asks for a round where there is something to sync.
    pub fn finish(&mut self, wall_ms: i64, out: &mut Vec<Happened<O, P>>) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let mut step = Step { folder: &self.folder, wall_ms, out };
            let flushed = slot.flush(&mut step);
            if slot.durability == Durability::Disk {
                slot.ask_for_sync(&mut step);
            }
            self.note(flushed, out);
        }
        self.touched = touched;
    }

    /// Closes all logs, so that the next start can trust their files once the last round has synced
    /// them; whether all went in order.
    pub fn close(&mut self, wall_ms: i64, out: &mut Vec<Happened<O, P>>) -> bool {
        self.finish(wall_ms, out);
        let mut in_order = true;
        // In an order of their own, so that the same jobs leave the same files.
        let mut slots: Vec<_> = self.slots.values_mut().collect();
        slots.sort_by_key(|slot| slot.of.key());
        for slot in slots {
            if let Err(error) = slot.log.prepare_close() {
                tracing::warn!(topic = %slot.of.topic(), "not closed in order: {error}");
                in_order = false;
            }
            slot.ask_for_sync(&mut Step { folder: &self.folder, wall_ms, out });
        }
        in_order && !self.fenced
    }

    fn note(&mut self, done: Result<(), LogError>, out: &mut Vec<Happened<O, P>>) {
        if let Err(error) = done {
            self.fenced = true;
            out.push(Happened::Failed(error));
        }
    }

    /// Panics when an invariant of a log is broken.
    pub fn check(&self) {
        self.slots.values().for_each(|slot| slot.log.check());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use broker_core::ids::{LeaderEpoch, Offset};
    use broker_log::LogConfig;
    use bytes::Bytes;
    use client_protocol::records::{BatchBuilder, Record, assign_offsets};
    use client_protocol::{PartitionId, TopicId};
    use coordinator_disk::RealDisk;

    #[derive(Clone, Debug, PartialEq)]
    struct Of(TopicPartition);

    impl Owner for Of {
        fn key(&self) -> TopicPartition {
            self.0
        }

        fn topic(&self) -> &str {
            "t"
        }
    }

    fn key() -> TopicPartition {
        TopicPartition { topic: TopicId::from_bytes([1; 16]), partition: PartitionId::new(0) }
    }

    fn led(base_offset: i64) -> Bytes {
        let mut batch = BatchBuilder::new(1 << 10);
        let value = Some(Bytes::from_static(b"a"));
        assert!(batch.push(&Record { timestamp_ms: 1, value, ..Default::default() }));
        let mut bytes = bytes::BytesMut::from(&batch.build(None).unwrap()[..]);
        assign_offsets(&mut bytes, Offset::new(base_offset), LeaderEpoch::new(0)).unwrap();
        bytes.freeze()
    }

    #[test]
    fn fenced_directory_takes_nothing_from_a_leader() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Folder::open(Arc::new(RealDisk), folder.path(), b"test").unwrap();
        let mut appender: Appender<Of, ()> = Appender::new(Arc::new(opened));
        let (of, epoch, mut out) = (Of(key()), LeaderEpoch::new(0), Vec::new());
        let options = OpenOptions { config: LogConfig::default(), clean: false, log_start: None };
        let mut act = |appender: &mut Appender<Of, ()>, job: LogJob| {
            out.clear();
            appender.do_job(Job::Log(of.clone(), job), 0, &mut out);
            appender.finish(0, &mut out);
            out.iter().any(|happened| matches!(happened, Happened::AppendRefused(..)))
        };
        assert!(!act(&mut appender, LogJob::Open(options, Durability::Memory)));
        assert!(!act(&mut appender, LogJob::Adopt { leader_epoch: epoch, leads: false }));
        appender.fence();
        assert!(act(&mut appender, LogJob::AppendFetched(epoch, led(0))));
        assert!(act(&mut appender, LogJob::Truncate(epoch, Offset::ZERO)));
        assert!(act(&mut appender, LogJob::RestartAt(epoch, Offset::new(7))));
        let log = appender.log(key()).unwrap();
        assert_eq!(log.end_offset(), 0);
    }

    fn file_names(folder: &std::path::Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(folder.join("t-0")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn fenced_directory_is_not_compacted_and_no_file_is_put_in_place() {
        for is_fenced in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let opened = Folder::open(Arc::new(RealDisk), folder.path(), b"test").unwrap();
            let mut appender: Appender<Of, ()> = Appender::new(Arc::new(opened));
            let (of, epoch) = (Of(key()), LeaderEpoch::new(0));
            let config = LogConfig { compact: true, segment_bytes: 200, ..LogConfig::default() };
            let options = OpenOptions { config, clean: false, log_start: None };
            let mut plans = Vec::new();
            let mut act = |appender: &mut Appender<Of, ()>, job: LogJob| {
                let mut out = Vec::new();
                appender.do_job(Job::Log(of.clone(), job), 1_000, &mut out);
                appender.finish(1_000, &mut out);
                for happened in out {
                    match happened {
                        Happened::ToSync(_, ticket) => {
                            ticket.sync(&RealDisk).unwrap();
                            ticket.view.publish_durable(ticket.generation, ticket.end);
                        }
                        Happened::ToClean(_, plan) => plans.push(plan),
                        _ => {}
                    }
                }
                plans.pop()
            };
            act(&mut appender, LogJob::Open(options, Durability::Disk));
            act(&mut appender, LogJob::Adopt { leader_epoch: epoch, leads: false });
            for offset in 0..20 {
                act(&mut appender, LogJob::AppendFetched(epoch, led(offset)));
            }
            let plan = act(&mut appender, LogJob::Clean(Offset::new(20))).expect("due");
            let cleaned = plan.run().unwrap();
            let before = file_names(folder.path());
            if is_fenced {
                appender.fence();
            }
            let (swapped, rest) = std::sync::mpsc::sync_channel(1);
            act(&mut appender, LogJob::SwapCleaned(Box::new(cleaned), swapped));
            // Whoever waits for it hears of the end, one way or the other.
            assert_eq!(rest.try_recv().is_err(), is_fenced);
            assert_eq!(file_names(folder.path()) == before, is_fenced);
            act(&mut appender, LogJob::GiveUpCleaning { for_good: false });
            for offset in 20..40 {
                act(&mut appender, LogJob::AppendFetched(epoch, led(offset)));
            }
            let again = act(&mut appender, LogJob::Clean(Offset::new(40)));
            assert_eq!(again.is_none(), is_fenced);
        }
    }
}
