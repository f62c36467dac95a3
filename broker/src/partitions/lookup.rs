//! Looking up offsets: by position, by timestamp, by leader epoch.
//!
//! Called by: the ListOffsets and OffsetForLeaderEpoch handlers. Calls: `partition`, the published
//! logs. Invariant: what is answered is below the high watermark, or the high watermark itself;
//! reads of the disk run on the blocking pool. Does not know the wire.

use std::sync::Arc;

use broker_core::ids::{LeaderEpoch, Offset, TopicPartition};
use broker_core::partition::EpochEnd;
use broker_log::{LogView, TimestampMatch};
use client_protocol::ErrorCode;
use client_protocol::records::Batch;

use super::registry::Partitions;

/// Largest batch that is read into memory to find one record in it.
const BATCH_BYTES_MAX: u32 = 64 << 20;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first offset of the log.
    Earliest,
    /// The end of what is committed (exclusive).
    Latest,
    /// The record with the greatest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, milliseconds since 1970 UTC.
    Timestamp(i64),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    /// The offset; `None` when no record is that young.
    pub offset: Option<Offset>,
    /// Timestamp of the record; `None` at either end of the log.
    pub timestamp_ms: Option<i64>,
    /// Epoch of the record, or of the last one before the end.
    pub leader_epoch: Option<LeaderEpoch>,
}

impl Partitions {
    /// Looks up one offset at the leader. Searches by time may wait for the disk.
    ///
    /// # Errors
    /// The code to answer.
    pub async fn list_offset(
        &self,
        partition: TopicPartition,
        current_leader_epoch: Option<LeaderEpoch>,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        let partition = self.partition(partition)?;
        let not_leader = ErrorCode::NotLeaderOrFollower;
        let view = partition.view().cloned().ok_or(not_leader)?;
        let latest = || partition.read_core(|core| core.latest_offset(current_leader_epoch));
        let at_end = |offset: Offset, epoch: Option<i32>| OffsetFound {
            offset: Some(offset),
            timestamp_ms: None,
            leader_epoch: epoch.map(LeaderEpoch::new),
        };
        match query {
            OffsetQuery::Earliest => {
                let earliest =
                    partition.read_core(|core| core.earliest_offset(current_leader_epoch));
                let offset = earliest.ok_or(not_leader)??;
                Ok(at_end(offset, view.epoch_of(offset.get())))
            }
            OffsetQuery::Latest => {
                let offset = latest().ok_or(not_leader)??;
                Ok(at_end(offset, view.latest_epoch()))
            }
            OffsetQuery::MaxTimestamp => {
                let limit = latest().ok_or(not_leader)??;
                let Some((timestamp, _)) = view.max_timestamp() else { return Ok(NOTHING) };
                search(view, timestamp, limit).await
            }
            OffsetQuery::Timestamp(timestamp) => {
                let limit = latest().ok_or(not_leader)??;
                search(view, timestamp, limit).await
            }
        }
    }

    /// Where an epoch ends in the leader's log; `Ok(None)` when the log knows none so old.
    ///
    /// # Errors
    /// The code to answer.
    pub fn offset_for_leader_epoch(
        &self,
        partition: TopicPartition,
        current_leader_epoch: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
    ) -> Result<Option<EpochEnd>, ErrorCode> {
        let partition: Arc<_> = self.partition(partition)?;
        let end = partition.read_core(|core| core.epoch_end(current_leader_epoch, epoch));
        end.ok_or(ErrorCode::NotLeaderOrFollower)?
    }
}

const NOTHING: OffsetFound = OffsetFound { offset: None, timestamp_ms: None, leader_epoch: None };

async fn search(view: LogView, timestamp: i64, limit: Offset) -> Result<OffsetFound, ErrorCode> {
    let searched = tokio::task::spawn_blocking(move || {
        let found = view.find_by_timestamp(timestamp).map_err(|_| ErrorCode::KafkaStorageError)?;
        found.map(|found| record_at(&found, timestamp)).transpose()
    });
    let found = searched.await.map_err(|_| ErrorCode::UnknownServerError)??;
    let below = |found: &OffsetFound| found.offset.is_some_and(|offset| offset < limit);
    Ok(found.filter(below).unwrap_or(NOTHING))
}

/// The first record of a batch at or after the time. Of a compressed batch it is the first record
/// of all, whose own time may be a little earlier: a reader gets some records too many, none too
/// few.
fn record_at(found: &TimestampMatch, timestamp: i64) -> Result<OffsetFound, ErrorCode> {
    let batch_epoch = LeaderEpoch::new(found.batch.leader_epoch);
    let whole = OffsetFound {
        offset: Some(Offset::new(found.batch.base_offset)),
        timestamp_ms: Some(found.batch.max_timestamp),
        leader_epoch: Some(batch_epoch),
    };
    if found.slice.length > BATCH_BYTES_MAX {
        return Ok(whole);
    }
    let mut bytes = vec![0; found.slice.length as usize];
    let read = found.slice.file.read_exact_at(found.slice.position, &mut bytes);
    read.map_err(|_| ErrorCode::KafkaStorageError)?;
    let batch = Batch::first(&bytes).map_err(|_| ErrorCode::CorruptMessage)?;
    let Ok(records) = batch.records() else { return Ok(whole) };
    let record = records.flatten().find(|record| record.timestamp_ms >= timestamp);
    Ok(record.map_or(whole, |record| OffsetFound {
        offset: Some(record.offset),
        timestamp_ms: Some(record.timestamp_ms),
        leader_epoch: Some(batch_epoch),
    }))
}
