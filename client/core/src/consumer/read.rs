//! Takes the records out of a Fetch answer without copying them.
//!
//! *Called by* the consumer's shell, outside of any lock, because it unpacks and computes checksums. *Calls* `pack`.
//!
//! Invariant: what is given out begins at the offset asked for, leaves nothing out but control batches and what aborted
//! transactions wrote, and every record in it was looked at: iterating over it cannot fail.

use std::collections::BTreeSet;

use bytes::Bytes;
use client_protocol::messages::LeaderIdAndEpoch;
use client_protocol::messages::fetch::{AbortedTransaction, FetchPartitionResponse};
use client_protocol::messages::{FetchRequest, FetchResponse};
use client_protocol::records::{Batch, BatchError, BatchHeader, Batches, RecordRef, RecordsIter};
use client_protocol::{ErrorCode, LeaderEpoch, Offset, ProducerId, Records};

use crate::metadata::TopicPartition;
use client_protocol::pack::{UnpackError, unpack};

/// Where to read on, and the leader epoch of the last record before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset of the next record.
    pub offset: Offset,
    /// The epoch of the record before it, where one was read.
    pub epoch: Option<LeaderEpoch>,
}

/// Why records that were fetched cannot be given out. Not retriable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Its records are.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Some records of one partition that follow each other. Cheap to clone: the records lie in shared memory.
#[derive(Clone, Debug)]
pub struct Chunk {
    header: BatchHeader,
    records: Bytes,
    from: Offset,
}

impl Chunk {
    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = RecordRef<'_>> {
        let from = self.from;
        let records = RecordsIter::new(&self.header, &self.records);
        records.map_while(Result::ok).filter(move |record| record.offset >= from)
    }

    /// The memory of the records, into which a part of a record can be sliced to keep it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.records
    }

    /// How many bytes its records take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.len()
    }

    /// The batch that it is of.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
}

/// The answer about one partition.
#[derive(Clone, Debug)]
pub struct PartitionAnswer {
    /// The partition.
    pub partition: TopicPartition,
    /// Whether it could be read.
    pub code: ErrorCode,
    /// The leader, when the broker asked is not.
    pub leader: LeaderIdAndEpoch,
    /// Up to where records are committed (exclusive).
    pub high_watermark: Option<Offset>,
    /// The first record there is.
    pub log_start: Option<Offset>,
    /// The records.
    pub chunks: Vec<Chunk>,
    /// The epochs of what was read, each with the first offset.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// After them; `None` when nothing was read.
    pub next: Option<Position>,
    /// Why nothing was read, though something is there.
    pub error: Option<ReadError>,
}

/// Takes an answer apart. `frame` is what it was decoded from, `request` what it answers.
#[must_use]
pub fn read(request: &FetchRequest, answer: FetchResponse, frame: &Bytes) -> Vec<PartitionAnswer> {
    let mut partitions = Vec::new();
    for topic in answer.responses {
        let asked = request.topics.iter().find(|asked| asked.topic == topic.topic);
        let Some(asked) = asked else { continue };
        let name: std::sync::Arc<str> = topic.topic.as_str().into();
        for answer in topic.partitions {
            let index = answer.partition_index;
            let asked = asked.partitions.iter().find(|asked| asked.partition == index);
            let Some(asked) = asked else { continue };
            let partition = TopicPartition { topic: name.clone(), partition: index };
            let is_committed_only = request.isolation_level == 1;
            partitions.push(read_partition(
                partition,
                &answer,
                frame,
                (asked.fetch_offset, is_committed_only),
            ));
        }
    }
    partitions
}

fn read_partition(
    partition: TopicPartition,
    answer: &FetchPartitionResponse,
    frame: &Bytes,
    (from, is_committed_only): (Offset, bool),
) -> PartitionAnswer {
    let mut read = PartitionAnswer {
        partition,
        code: answer.error_code,
        leader: answer.current_leader.clone(),
        high_watermark: answer.high_watermark,
        log_start: answer.log_start_offset,
        chunks: Vec::new(),
        epochs: Vec::new(),
        next: None,
        error: None,
    };
    if !answer.error_code.is_none() {
        return read;
    }
    let bytes = match &answer.records {
        Some(Records::InFrame(range)) => {
            let is_inside = range.start <= range.end && range.end <= frame.len();
            if is_inside { frame.slice(range.start..range.end) } else { Bytes::new() }
        }
        Some(Records::Inline(bytes)) => bytes.clone(),
        Some(Records::Spliced(_)) | None => Bytes::new(),
    };
    let aborted = answer.aborted_transactions.as_deref().unwrap_or_default();
    let mut aborted = is_committed_only.then(|| Aborted::new(aborted));
    let mut position = Position { offset: from, epoch: None };
    for batch in Batches::new(&bytes) {
        let taken = batch.map_err(ReadError::from).and_then(|batch| {
            let records = bytes.slice_ref(batch.payload());
            take(&batch, records, &mut position, (&mut aborted, &mut read))
        });
        if let Err(error) = taken {
            // What stands before it is given out first; the next fetch meets it again.
            if read.next.is_none() {
                read.error = Some(error);
            }
            break;
        }
        if position.offset > from {
            read.next = Some(position);
        }
    }
    read
}

fn take(
    batch: &Batch<'_>,
    records: Bytes,
    position: &mut Position,
    (aborted, read): (&mut Option<Aborted>, &mut PartitionAnswer),
) -> Result<(), ReadError> {
    let header = batch.header;
    let (Some(last), Some(end)) = (header.last_offset(), header.end_offset()) else {
        return Err(BatchError::Record.into());
    };
    // A fetch begins with the batch that holds the offset, or after compaction perhaps with one before it.
    if end <= position.offset {
        return Ok(());
    }
    batch.check_crc()?;
    let is_aborted = match aborted {
        Some(aborted) => aborted.covers(batch, last),
        None => false,
    };
    if !header.is_control() && !is_aborted {
        let records = unpack(header.compression(), &records)?;
        RecordsIter::new(&header, &records).try_for_each(|record| record.map(|_| ()))?;
        read.chunks.push(Chunk { header, records, from: position.offset });
    }
    if let Some(epoch) = header.leader_epoch
        && read.epochs.last().is_none_or(|(last, _)| *last < epoch)
    {
        read.epochs.push((epoch, position.offset.max(header.base_offset)));
    }
    *position = Position { offset: end, epoch: header.leader_epoch };
    Ok(())
}

/// Which producers' transactional batches are to be left out at the moment.
struct Aborted {
    /// By ascending first offset, reversed: the next one is the last.
    to_come: Vec<(Offset, ProducerId)>,
    open: BTreeSet<ProducerId>,
}

impl Aborted {
    fn new(transactions: &[AbortedTransaction]) -> Self {
        let mut to_come: Vec<_> =
            transactions.iter().map(|t| (t.first_offset, t.producer_id)).collect();
        to_come.sort_by_key(|(first, _)| std::cmp::Reverse(*first));
        Self { to_come, open: BTreeSet::new() }
    }

    fn covers(&mut self, batch: &Batch<'_>, last: Offset) -> bool {
        while let Some((_, producer)) = self.to_come.pop_if(|(first, _)| *first <= last) {
            self.open.insert(producer);
        }
        let Some(producer) = batch.header.producer_id else { return false };
        if batch.header.is_control() {
            // Commit or abort: the transaction ends here either way.
            self.open.remove(&producer);
            return false;
        }
        batch.header.is_transactional() && self.open.contains(&producer)
    }
}
