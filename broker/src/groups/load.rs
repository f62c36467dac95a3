//! Reads a partition of `__consumer_offsets` to its end.
//!
//! Called by: `task`, before a shard answers. Calls: `partitions` (as a consumer reads). Invariant:
//! what is replayed is committed, and nothing that the log held when the leadership began is left
//! out: the end is taken first, and waited for until it is committed.
//! Does not know what the records mean.
//!
//! The whole log is read, about a second for each few hundred megabytes. Compaction keeps it to the
//! last word on each group and offset, and as much again, and the segment that is being written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_core::group::{GroupRecord, Shard};
use broker_core::ids::TopicPartition;
use client_protocol::records::{Batch, Batches};
use client_protocol::{ErrorCode, LeaderEpoch, Offset};
use tokio::task::spawn_blocking;
use tracing::{debug, error};

use crate::partitions::{FetchPartition, FetchRequest, Partitions, Reader};
use crate::response::Piece;

/// Bytes that are read at a time; a larger batch is read whole.
const CHUNK_BYTES: u32 = 4 << 20;
/// How long a read waits for records to be committed before it looks again whether it still leads.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long to wait before asking again whether the partition has become leader: its log may be
/// opening.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until this broker leads under `epoch`, and yields the end of the log (exclusive). Does not
/// end if that never comes; dropping it is fine.
pub(super) async fn leadership(
    partitions: &Partitions,
    key: TopicPartition,
    epoch: LeaderEpoch,
) -> Offset {
    loop {
        match partitions.leading(key) {
            Some((leading, end)) if leading == epoch => return end,
            Some(_) | None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// What is to be loaded.
#[derive(Clone, Copy)]
pub(super) struct LogPart {
    /// Which partition.
    pub key: TopicPartition,
    /// Led here under this epoch.
    pub epoch: LeaderEpoch,
    /// Up to here (exclusive).
    pub end: Offset,
    /// What is wrong with it was told at an earlier try.
    pub is_known: bool,
}

/// Partitions whose log is damaged, as of the last try to load it: at most one entry for each.
#[derive(Default)]
pub(super) struct Damaged(Mutex<BTreeSet<TopicPartition>>);

impl Damaged {
    /// Whether it was damaged the last time.
    pub fn is_known(&self, key: TopicPartition) -> bool {
        self.entries().contains(&key)
    }

    /// It is.
    pub fn note(&self, key: TopicPartition) {
        self.entries().insert(key);
    }

    /// It is not any more.
    pub fn forget(&self, key: TopicPartition) {
        self.entries().remove(&key);
    }

    fn entries(&self) -> MutexGuard<'_, BTreeSet<TopicPartition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replays the log into `shard`, from its first record on.
///
/// # Errors
/// The leadership is lost, or the log cannot be read; CORRUPT_MESSAGE for a batch that is damaged.
pub(super) async fn replay(
    partitions: &Arc<Partitions>,
    log: LogPart,
    mut shard: Shard,
) -> Result<Shard, ErrorCode> {
    let LogPart { key, epoch, end, .. } = log;
    let mut next = Offset::ZERO;
    while next < end {
        let fetched = partitions.fetch(FetchRequest {
            reader: Reader::Consumer,
            wait_max: WAIT_MAX,
            bytes_min: 1,
            bytes_max: CHUNK_BYTES,
            partitions: vec![FetchPartition {
                partition: key,
                fetch_offset: next,
                current_leader_epoch: Some(epoch),
                last_fetched_epoch: None,
                durable_end: None,
                bytes_max: CHUNK_BYTES,
            }],
        });
        let fetched = fetched.await.pop().ok_or(ErrorCode::UnknownServerError)?;
        match (fetched.error, fetched.log_start) {
            (ErrorCode::None, _) => {}
            // The log begins later than that.
            (ErrorCode::OffsetOutOfRange, Some(start)) if start > next => {
                next = start;
                continue;
            }
            (error, _) => return Err(error),
        }
        let Some(records) = fetched.records else { continue };
        let read = spawn_blocking(move || {
            let bytes = read(&records)?;
            let after = replay_batches(&bytes, next, log, &mut shard)?;
            Ok::<_, ErrorCode>((shard, after))
        });
        (shard, next) = read.await.map_err(|_| ErrorCode::UnknownServerError)??;
    }
    Ok(shard)
}

fn read(piece: &Piece) -> Result<Vec<u8>, ErrorCode> {
    match piece {
        Piece::Bytes(bytes) => Ok(bytes.to_vec()),
        Piece::File { file, position, length } => {
            let mut bytes = vec![0; *length];
            let read = file.read_exact_at(*position, &mut bytes);
            read.map(|()| bytes).map_err(|_| ErrorCode::KafkaStorageError)
        }
    }
}

/// Replays the batches in `bytes` from offset `next` on; yields the offset after the last.
///
/// # Errors
/// CORRUPT_MESSAGE when there are bytes, and no batch in front of them that leads on: to read them
/// again would be in vain.
pub(super) fn replay_batches(
    bytes: &[u8],
    next: Offset,
    log: LogPart,
    shard: &mut Shard,
) -> Result<Offset, ErrorCode> {
    let mut after = next;
    // One that is damaged is the first of the next chunk.
    for batch in Batches::new(bytes).map_while(Result::ok) {
        // What still parses may say something else than what was committed.
        if let Err(why) = batch.check_crc() {
            if after == next {
                tell(log, after, &format!("a batch of groups is damaged: {why}"));
                return Err(ErrorCode::CorruptMessage);
            }
            break;
        }
        if !batch.header.is_control() {
            replay_batch(&batch, next, log, shard);
        }
        after = batch.header.end_offset().unwrap_or(after).max(after);
    }
    if after == next && !bytes.is_empty() {
        tell(log, after, "a batch of groups is damaged");
        return Err(ErrorCode::CorruptMessage);
    }
    Ok(after)
}

/// Tells what a human must look at, once.
fn tell(log: LogPart, offset: Offset, what: &str) {
    let partition = log.key.partition;
    match log.is_known {
        true => debug!(%partition, %offset, "{what}"),
        false => error!(%partition, %offset, "{what}"),
    }
}

fn replay_batch(batch: &Batch<'_>, from: Offset, log: LogPart, shard: &mut Shard) {
    let skipped = |offset: Offset, why: &str| {
        tell(log, offset, &format!("a record of groups is left out: {why}"));
    };
    let records = match batch.records() {
        Ok(records) => records,
        Err(why) => return skipped(batch.header.base_offset, &why.to_string()),
    };
    for record in records {
        match record {
            Ok(record) if record.offset < from => {}
            Ok(record) => match GroupRecord::decode(record.key.unwrap_or_default(), record.value) {
                Ok(understood) => shard.replay(understood),
                Err(why) => skipped(record.offset, &why.to_string()),
            },
            Err(why) => skipped(batch.header.base_offset, &why.to_string()),
        }
    }
}
