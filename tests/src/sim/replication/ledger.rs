//! What was sent, acknowledged, committed and seen.
//!
//! Called by: `world` after each step, `run` at the end. Calls: nothing.
//! Invariants (asserted): one process leads a partition in an epoch; a high watermark and a log start never go back within a process; what
//! lies below any high watermark is the same on every replica, for ever; whatever is committed on a disk topic is durable on every
//! registered in-sync replica; a consumer sees committed values only; what was acknowledged with acks=all is there.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::ids::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use bytes::Bytes;
use client_protocol::ProducerId;
use client_protocol::records::{BatchError, Batches};

use super::client::value_of;
use super::compacted::Compacted;
use super::process::Process;
use crate::sim::ensemble::schedule::Time;

/// An acknowledged batch.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub key: TopicPartition,
    pub base_offset: i64,
    pub values: Vec<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<u64, TopicPartition>,
    idempotent: BTreeSet<u64>,
    acknowledged: Vec<Acknowledged>,
    /// By partition and offset: the value, and the epoch that wrote it.
    committed: BTreeMap<TopicPartition, BTreeMap<i64, (u64, i32)>>,
    /// Up to where it may reach, where nobody could be read who has it.
    unread: BTreeMap<TopicPartition, Offset>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), (BrokerId, u64)>,
    marks: BTreeMap<(BrokerId, u64, TopicPartition), (Offset, Offset)>,
    /// Up to where replicas removed what retention let them.
    trimmed: BTreeMap<TopicPartition, Offset>,
    pub consumed: u64,
    /// Partitions that had a leader who may have lacked committed records. What is promised of them after that is one leader in an epoch, the
    /// same log everywhere in the end, and that somebody leads.
    unclean: BTreeSet<TopicPartition>,
    /// Partitions that had a leader whose log lost committed records and could not tell. Of them no more is promised.
    lost_unseen: BTreeSet<TopicPartition>,
    /// Ids that were given to producers.
    producer_ids: BTreeSet<i64>,
    /// Of topics that are compacted: what may be missing.
    compacted: Option<Compacted>,
}

/// Offset, value and epoch of a record.
pub type Entry = (i64, u64, i32);

/// What each record says, after the checksums were looked at.
///
/// # Errors
/// The first batch that is damaged.
pub fn entries(records: &Bytes) -> Result<Vec<Entry>, BatchError> {
    let mut entries = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch?;
        batch.check_crc()?;
        let epoch = batch.header.leader_epoch.map_or(-1, |epoch| epoch.get());
        for record in batch.records()? {
            let record = record?;
            entries.push((record.offset.get(), value_of(&record), epoch));
        }
    }
    Ok(entries)
}

/// Where to go on after these (exclusive): their last batch may end behind its last record, or have none left. None when they are damaged.
pub fn end_of(records: &Bytes) -> Option<i64> {
    let last = Batches::new(records).last()?.ok()?;
    Some(last.header.end_offset()?.get())
}

/// All of a replica's records from `from` below `to`.
///
/// # Errors
/// What is damaged or cannot be read.
pub fn read_all(
    process: &Process,
    key: TopicPartition,
    from: Offset,
    to: Offset,
) -> Result<Vec<Entry>, String> {
    let Some(log) = process.directory.log(key) else { return Ok(Vec::new()) };
    let mut position = from.get().max(log.view().ends().log_start);
    let mut all = Vec::new();
    while position < to.get() {
        let records = process.directory.read(key, Offset::new(position), to, 1 << 20);
        let records = records.map_err(|error| format!("{error:?}"))?;
        let read = entries(&records).map_err(|error| error.to_string())?;
        let Some(end) = end_of(&records) else {
            // Compaction may have left nothing up to there.
            if process.settings.compaction.is_some() {
                break;
            }
            return Err(format!("nothing can be read at {position}"));
        };
        all.extend(read.into_iter().filter(|&(offset, ..)| offset >= position));
        position = end;
    }
    Ok(all)
}

impl Ledger {
    /// Of a topic whose tombstones stay for so long.
    pub fn compacted(delete_retention_ms: i64) -> Self {
        Self { compacted: Some(Compacted::new(delete_retention_ms)), ..Self::default() }
    }

    /// A producer sends these for the first time.
    pub fn sent(&mut self, key: TopicPartition, values: &[u64], idempotent: bool) {
        for &value in values {
            self.sent.insert(value, key);
            if idempotent {
                self.idempotent.insert(value);
            }
        }
    }

    /// A replica's high watermark moved: what lies below is what lies there everywhere. Only on a `suspect` disk may it be damaged: then nothing
    /// is known of it yet, which is what false says.
    pub fn committed(
        &mut self,
        process: &Process,
        key: TopicPartition,
        (from, to): (Offset, Offset),
        (suspect, now): (bool, Time),
    ) -> bool {
        assert!(from <= to, "{}: {key:?}: high watermark back from {from} to {to}", process.id);
        let read = match process.directory.peek(|| read_all(process, key, from, to)) {
            Ok(read) => read,
            Err(_) if suspect => return false,
            Err(error) => panic!("{}: {key:?}: {error}", process.id),
        };
        self.know(process, key, &read, now);
        true
    }

    /// The same, of a replica on a damaged disk, as a sound one has it: what is left of the damaged log may end within a batch of the other.
    pub fn committed_elsewhere(
        &mut self,
        sound: &Process,
        key: TopicPartition,
        (from, to): (Offset, Offset),
        now: Time,
    ) {
        let end = sound.directory.log(key).map_or(to, |log| Offset::new(log.view().ends().end));
        let read = sound.directory.peek(|| read_all(sound, key, from, end.max(to)));
        let mut read = read.unwrap_or_else(|error| panic!("{}: {key:?}: {error}", sound.id));
        read.retain(|&(offset, ..)| offset < to.get());
        self.know(sound, key, &read, now);
    }

    fn know(&mut self, process: &Process, key: TopicPartition, read: &[Entry], now: Time) {
        let known = self.committed.entry(key).or_default();
        for &(offset, value, epoch) in read {
            if let Some(compacted) = &mut self.compacted {
                compacted.committed(key, (offset, value, epoch), now);
                compacted.held(process.id, key, (offset, value, epoch));
            }
            let former = *known.entry(offset).or_insert((value, epoch));
            assert_eq!(
                former,
                (value, epoch),
                "{}: {key:?} offset {offset}: committed was {former:x?}",
                process.id
            );
        }
    }

    /// A damaged disk is all that can tell at present what is committed up to there.
    pub fn committed_unread(&mut self, key: TopicPartition, to: Offset) {
        let former = self.unread.entry(key).or_default();
        *former = to.max(*former);
    }

    /// Committed records that are not among these, which were read from `from` up to `to` (exclusive). Panics when one should be.
    pub fn missing(
        &self,
        key: TopicPartition,
        (from, to): (i64, i64),
        read: &[Entry],
        (now, who): (Time, &str),
    ) -> Vec<i64> {
        let Some(known) = self.committed.get(&key).filter(|_| from < to) else { return Vec::new() };
        let is_there = |offset| read.binary_search_by_key(&offset, |entry| entry.0).is_ok();
        let missing = known.range(from..to).filter(|&(&offset, _)| !is_there(offset));
        let judged = missing.map(|(&offset, &(value, _))| {
            let Some(compacted) = &self.compacted else {
                panic!("{who}: {key:?} offset {offset}: {value:x} is missing");
            };
            compacted.missed(key, (offset, value), now, who);
            offset
        });
        judged.collect()
    }

    /// A replica's whole log at rest, which begins at `start`: of a topic that is compacted nothing went but what may.
    pub fn replayed(
        &self,
        key: TopicPartition,
        log: &[Entry],
        (start, end): (i64, i64),
        (now, id): (Time, BrokerId),
    ) {
        let Some(compacted) = &self.compacted else { return };
        if !self.is_unclean(key) {
            self.missing(key, (start, end), log, (now, &id.to_string()));
            compacted.replayed(key, log, start, (now, id));
        }
    }

    /// A broker's logs may have lost what they had.
    pub fn forgotten(&mut self, id: BrokerId) {
        if let Some(compacted) = &mut self.compacted {
            compacted.forgotten(id);
        }
    }

    /// A consumer saw these; the first must be where it wanted to go on, or later only if the log starts later. What a `suspect` disk gave it
    /// when the rest could not be read counts from now on.
    pub fn consumed(
        &mut self,
        key: TopicPartition,
        records: &[Entry],
        (suspect, now): (bool, Time),
    ) {
        if self.is_unclean(key) {
            self.consumed += records.len() as u64;
            return;
        }
        let known = self.committed.entry(key).or_default();
        for &(offset, value, epoch) in records {
            self.consumed += 1;
            if suspect {
                known.entry(offset).or_insert((value, epoch));
                if let Some(compacted) = &mut self.compacted {
                    compacted.committed(key, (offset, value, epoch), now);
                }
            }
            assert_eq!(
                known.get(&offset),
                Some(&(value, epoch)),
                "{key:?} offset {offset}: a consumer saw {value:x} in epoch {epoch}"
            );
        }
    }

    /// acks=all is answered now: it has to be committed already. On a `suspect` disk it may not have been readable since.
    pub fn acknowledged(&mut self, acknowledged: Acknowledged, suspect: bool) {
        let Acknowledged { key, base_offset, ref values } = acknowledged;
        let known = self.committed.get(&key);
        for (offset, &value) in (base_offset..).zip(values) {
            let found = known.and_then(|known| known.get(&offset)).map(|&(value, _)| value);
            let is_held = found == Some(value) || (suspect && found.is_none());
            assert!(
                is_held || self.is_unclean(key),
                "{key:?} offset {offset}: {value:x} is acknowledged, committed is {found:x?}"
            );
        }
        self.acknowledged.push(acknowledged);
    }

    /// The end of a run: a replica holds what was committed, no more and no less, from where its log starts.
    pub fn audit_log(&self, key: TopicPartition, (start, end): (Offset, Offset), log: &[Entry]) {
        let Some(known) = self.committed.get(&key).filter(|_| !self.is_unclean(key)) else {
            return;
        };
        let last = known.last_key_value().map_or(-1, |(&offset, _)| offset);
        assert!(last < end.get(), "{key:?}: {last} was committed, and the log ends at {end}");
        let there: BTreeMap<i64, (u64, i32)> =
            log.iter().map(|&(offset, value, epoch)| (offset, (value, epoch))).collect();
        for (offset, committed) in known.range(start.get()..) {
            let found = there.get(offset);
            assert_eq!(found, Some(committed), "{key:?} offset {offset}: not what was committed");
        }
    }

    /// A replica removed what lies below, as retention wants it: of what is committed.
    pub fn trimmed(&mut self, key: TopicPartition, start: Offset) {
        let unread = self.unread.get(&key).copied().unwrap_or_default();
        let committed = self.committed_end(key).max(unread);
        assert!(
            start <= committed || self.is_unclean(key),
            "{key:?}: what lies below {start} was removed, and {committed} is the end of what is committed"
        );
        let former = self.trimmed.entry(key).or_default();
        *former = start.max(*former);
    }

    /// Where a partition's log starts at the latest: nothing else than retention removes anything.
    pub fn log_start(&self, key: TopicPartition) -> Offset {
        self.trimmed.get(&key).copied().unwrap_or_default()
    }

    /// After each step of a process.
    pub fn check(&mut self, process: &Process, life: u64) {
        for (&key, core) in process.replicas.iter() {
            if let Some(epoch) = core.leading() {
                let leader = *self.leaders.entry((key, epoch)).or_insert((process.id, life));
                assert_eq!(leader, (process.id, life), "two leaders of {key:?} in epoch {epoch}");
                let (start, trimmed) = (core.positions().start, self.log_start(key));
                assert!(
                    start <= trimmed || self.is_unclean(key),
                    "{}: {key:?} starts at {start}, and nothing was removed but what lies below {trimmed}",
                    process.id
                );
            }
            let marks = (core.positions().start, core.high_watermark());
            let former = self.marks.insert((process.id, life, key), marks).unwrap_or(marks);
            if self.is_unclean(key) {
                continue;
            }
            assert!(former.0 <= marks.0, "{}: {key:?}: log start back {former:?}", process.id);
            assert!(former.1 <= marks.1, "{}: {key:?}: watermark back {former:?}", process.id);
        }
    }

    /// A life of a broker cut what was committed, as only one does that says so, or that follows whoever lacked it: its watermark begins there.
    pub fn repaired(&mut self, (id, life): (BrokerId, u64), key: TopicPartition, end: Offset) {
        if let Some((start, high_watermark)) = self.marks.get_mut(&(id, life, key)) {
            *start = end.min(*start);
            *high_watermark = end.min(*high_watermark);
        }
    }

    /// A leader was elected that may lack committed records, as the topic allows (D6).
    pub fn elected_uncleanly(&mut self, key: TopicPartition) {
        self.unclean.insert(key);
    }

    /// A producer was given this id: two with the same would be taken for one, and what one sends for what the other has sent already.
    pub fn gave_id(&mut self, id: ProducerId) {
        assert!(self.producer_ids.insert(id.get()), "producer id {id} is given twice");
    }

    /// A leader has lost what was durable, as no log can know.
    pub fn lost_unseen(&mut self, key: TopicPartition) {
        self.lost_unseen.insert(key);
    }

    /// Whether one or the other happened.
    pub fn is_unclean(&self, key: TopicPartition) -> bool {
        self.unclean.contains(&key) || self.lost_unseen.contains(&key)
    }

    /// Partitions to which it did.
    pub fn unclean_count(&self) -> u64 {
        self.unclean.len() as u64
    }

    /// Whether a value's producer is idempotent.
    pub fn is_idempotent(&self, value: u64) -> bool {
        self.idempotent.contains(&value)
    }

    /// The end of everything committed.
    pub fn committed_end(&self, key: TopicPartition) -> Offset {
        let last = self.committed.get(&key).and_then(|offsets| offsets.last_key_value());
        last.map_or(Offset::ZERO, |(&offset, _)| Offset::new(offset + 1))
    }

    /// The same, and the epoch of the last record; none when nothing is committed.
    pub fn last_committed(&self, key: TopicPartition) -> Option<(Offset, i32)> {
        let (&offset, &(_, epoch)) = self.committed.get(&key)?.last_key_value()?;
        Some((Offset::new(offset + 1), epoch))
    }

    /// Batches acknowledged with acks=all.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// How many offsets are committed.
    pub fn committed_count(&self) -> u64 {
        self.committed.values().map(|offsets| offsets.len() as u64).sum()
    }

    /// The end of a run: everything that was acknowledged is committed where it was said to be, once, in order.
    pub fn audit(&self, key: TopicPartition, log_start: Offset) {
        if self.is_unclean(key) {
            return;
        }
        let empty = BTreeMap::new();
        let known = self.committed.get(&key).unwrap_or(&empty);
        for acknowledged in self.acknowledged.iter().filter(|a| a.key == key) {
            for (offset, &value) in (acknowledged.base_offset..).zip(&acknowledged.values) {
                if offset >= log_start.get() {
                    let found = known.get(&offset).map(|&(value, _)| value);
                    assert_eq!(found, Some(value), "{key:?}: acknowledged at {offset}: {value:x}");
                }
            }
        }
        let mut last_of: BTreeMap<u64, u64> = BTreeMap::new();
        let mut last_epoch = 0;
        for (offset, &(value, epoch)) in known {
            assert_eq!(self.sent.get(&value), Some(&key), "{offset}: nobody sent {value:x} here");
            assert!(last_epoch <= epoch, "{key:?} offset {offset}: epochs fall");
            last_epoch = epoch;
            // A follower that fell behind the log start begins anew without what the removed records said of producers: a retry of a
            // removed batch is then taken for a new one, as in Kafka.
            if self.idempotent.contains(&value) && *offset >= log_start.get() {
                let former = last_of.insert(value >> 32, value);
                let in_order = former.is_none_or(|former| former < value);
                assert!(in_order, "{key:?} offset {offset}: {value:x} after {former:x?}");
            }
        }
    }
}
