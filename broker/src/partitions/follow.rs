//! The follower's side: where to fetch next, and taking in what the leader sent.
//!
//! Called by: the fetchers. Calls: `partition`. Invariant: fetched batches are checked once, here,
//! on the fetcher's thread: checksums, offsets, epochs; what is handed on are whole batches that
//! continue the log. Does not know how fetching is done.

use broker_core::ids::{LeaderEpoch, TopicPartition};
use broker_core::partition::{FetchAnswer, FetchPosition};
use bytes::Bytes;
use client_protocol::ErrorCode;

use super::registry::Partitions;
use super::worker::{FetchedError, check_fetched};

impl Partitions {
    /// What to ask the leader for next; `None` while the partition is not followed or its log is
    /// being changed. When that is done, [`super::Outlet::report_progress`] or
    /// [`super::Outlet::fetch_from`] tells.
    pub fn fetch_position(&self, partition: TopicPartition) -> Option<FetchPosition> {
        let partition = self.partition(partition).ok()?;
        partition.read_core(broker_core::partition::Partition::fetch_position)?
    }

    /// The leader answered for one partition, with `records` as they came. Records that cannot be
    /// used are dropped, and the same position is to be asked for again.
    ///
    /// # Errors
    /// CORRUPT_MESSAGE when the records were damaged on the way or at the leader: to be logged,
    /// and asked for again after a pause.
    pub fn fetch_answered(
        &self,
        partition: TopicPartition,
        answer: &FetchAnswer,
        records: &Bytes,
    ) -> Result<(), ErrorCode> {
        let Ok(partition) = self.partition(partition) else { return Ok(()) };
        // One that comes late, from a former leader or for another position, is compared with nothing: the log has gone on.
        let awaited = partition.read_core(|core| {
            let followed = core.following().map(|(_, epoch)| epoch);
            followed == Some(answer.leader_epoch) && core.positions().end == answer.fetch_offset
        });
        if awaited != Some(true) {
            return Ok(());
        }
        let last_epoch = partition.read_core(|core| core.positions().epochs.last()).flatten();
        let whole = self.check_fetched(answer, last_epoch, records);
        let (length, outcome) = match whole {
            Ok(length) => (length, Ok(())),
            Err(error) => (0, Err(error)),
        };
        let records = records.slice(..length.min(records.len()));
        let answer = FetchAnswer { has_records: !records.is_empty(), ..*answer };
        partition.with_core(Some(&records), |core, effects| {
            core.fetch_answered(&answer, effects);
        });
        outcome
    }

    fn check_fetched(
        &self,
        answer: &FetchAnswer,
        last_epoch: Option<LeaderEpoch>,
        records: &Bytes,
    ) -> Result<usize, ErrorCode> {
        if !answer.has_records || records.is_empty() {
            return Ok(0);
        }
        let position = (answer.fetch_offset, last_epoch);
        check_fetched(records, position, answer.leader_epoch).map_err(|error| {
            match error {
                FetchedError::Damaged(_) => tracing::warn!("{error}"),
                FetchedError::LaterLeader => tracing::debug!("{error}"),
            }
            ErrorCode::CorruptMessage
        })
    }
}
