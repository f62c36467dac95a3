//! The latest changes, for subscribers that are a little behind.
//!
//! Called by: `table`. Calls: nothing.
//! Invariant: holds every change with `begins < zxid <= last`.
//! It does not know who reads it.
//!
//! ```text
//!   forgotten | begins | oldest batch .. newest batch | last >= newest
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use coordinator_protocol::Zxid;

use crate::tree::{Change, ChangeKind};

/// Bytes of paths and data that the history keeps, beside its limit on the number of changes.
/// The newest write is kept whatever its size.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// Changes of one write.
#[derive(Debug)]
struct Batch {
    zxid: Zxid,
    changes: Vec<Change>,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct History {
    begins: Zxid,
    last: Zxid,
    batches: VecDeque<Batch>,
    change_count: usize,
    changes_max: usize,
    bytes: usize,
}

impl History {
    /// Begins after `zxid`: earlier changes are not known.
    pub(super) fn new(zxid: Zxid, changes_max: usize) -> Self {
        Self {
            begins: zxid,
            last: zxid,
            batches: VecDeque::new(),
            change_count: 0,
            changes_max,
            bytes: 0,
        }
    }

    /// Adds a write; forgets the oldest ones beyond the limits.
    pub(super) fn push(&mut self, zxid: Zxid, changes: &[Change]) {
        assert!(zxid > self.last || changes.is_empty(), "{zxid} comes after {}", self.last);
        self.last = self.last.max(zxid);
        if changes.is_empty() {
            return;
        }
        let bytes = changes.iter().map(bytes_of).sum();
        self.batches.push_back(Batch { zxid, changes: changes.to_vec(), bytes });
        self.change_count += changes.len();
        self.bytes += bytes;
        while self.batches.len() > 1
            && (self.change_count > self.changes_max || self.bytes > HISTORY_BYTES_MAX)
        {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.begins = oldest.zxid;
            self.change_count -= oldest.changes.len();
            self.bytes -= oldest.bytes;
        }
    }

    /// Whether all changes after `zxid` are here.
    pub(super) fn covers(&self, zxid: Zxid) -> bool {
        zxid >= self.begins
    }

    /// Whether a subscriber of `path` that knows everything up to `zxid` can be told the rest by what is
    /// here: changes that were made before a new access list may not be theirs to read after it.
    pub(super) fn can_resume(&self, path: &str, zxid: Zxid) -> bool {
        let mut later = self.after(zxid).flat_map(|(_, changes)| changes);
        let is_new_list =
            |change: &Change| change.kind == ChangeKind::AclChanged && change.is_within(path);
        self.covers(zxid) && !later.any(is_new_list)
    }

    /// The last write that was added, with or without changes.
    pub(super) fn last(&self) -> Zxid {
        self.last
    }

    /// Writes with changes, after `zxid`.
    pub(super) fn after(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, &[Change])> {
        let start = self.batches.partition_point(|batch| batch.zxid <= zxid);
        self.batches.range(start..).map(|batch| (batch.zxid, batch.changes.as_slice()))
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        let mut before = self.begins;
        for batch in &self.batches {
            assert!(before < batch.zxid, "{before} before {}", batch.zxid);
            assert!(!batch.changes.is_empty());
            assert!(batch.changes.iter().all(|change| change.zxid == batch.zxid));
            before = batch.zxid;
        }
        assert!(before <= self.last, "{before} after the last, {}", self.last);
        let changes = self.batches.iter().map(|batch| batch.changes.len()).sum::<usize>();
        assert_eq!(changes, self.change_count);
        assert_eq!(self.batches.iter().map(|batch| batch.bytes).sum::<usize>(), self.bytes);
        assert!(self.batches.len() <= 1 || self.change_count <= self.changes_max);
        assert!(self.batches.len() <= 1 || self.bytes <= HISTORY_BYTES_MAX);
    }
}

fn bytes_of(change: &Change) -> usize {
    size_of::<Change>() + change.path.len() + change.data.as_ref().map_or(0, Bytes::len)
}
