//! Whether what a leader sent may be taken in.
//!
//! Called by: whoever fetches, before the records go to the log's thread; the simulator. Calls:
//! the codec of records. Invariant: what passes are whole batches with right checksums that
//! continue the log, none of them written by a later leader than the one that was asked. Does not
//! know how fetching is done.

use broker_core::ids::{LeaderEpoch, Offset};
use client_protocol::records::{BatchError, Batches, validate_fetched};

/// Why fetched records are dropped; the same position is to be asked for again.
#[derive(Debug, thiserror::Error)]
pub enum FetchedError {
    /// Damaged on the way or at the leader.
    #[error("fetched records are damaged: {0}")]
    Damaged(#[from] BatchError),
    /// The leader lost its office, cut its log and took in its successor's records while this
    /// answer was on its way out of the file. Taken in, they would hide what diverges below.
    #[error("fetched records are of a later leader than the one that was asked")]
    LaterLeader,
}

/// Bytes of the whole batches at the beginning of `records`, which were asked for from the log's
/// end on, under `asked`; `last_epoch` is that of the log's last batch.
///
/// # Errors
/// [`FetchedError`].
pub fn check_fetched(
    records: &[u8],
    (end, last_epoch): (Offset, Option<LeaderEpoch>),
    asked: LeaderEpoch,
) -> Result<usize, FetchedError> {
    let (length, _) = validate_fetched(records, end, last_epoch)?;
    let later = |epoch: LeaderEpoch| epoch > asked;
    if Batches::new(records).flatten().any(|b| b.header.leader_epoch.is_some_and(later)) {
        return Err(FetchedError::LaterLeader);
    }
    Ok(length)
}
