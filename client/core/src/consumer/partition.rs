//! One partition that is read.
//!
//! *Called by* `consumer`. Decides nothing.
//!
//! ```text
//! consumed (what the caller has) <= position (what was read) <= high watermark
//! ```

use client_protocol::Offset;

use super::epochs::Epochs;
use super::read::Position;
use super::{CheckedEpoch, RequestId};

/// What is to be done for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Somebody else says where to begin.
    Elsewhere,
    /// The offset at a timestamp is to be found.
    Find(i64),
    /// It is read.
    Reading,
    /// It waits for the caller to say where to go on.
    Stopped,
}

#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// Another one after each seek: answers to what was asked before are stale.
    pub(super) version: u64,
    pub(super) phase: Phase,
    pub(super) is_paused: bool,
    pub(super) position: Option<Position>,
    pub(super) consumed: Option<Position>,
    /// Of what was read.
    pub(super) epochs: Epochs,
    /// The log was cut before `position`: here at the latest, and at the end of this epoch, which is asked for.
    pub(super) narrowed: Option<Position>,
    /// The leader epoch under which `position` is known to be part of the log.
    pub(super) checked: CheckedEpoch,
    /// The leader's log knows nothing as old as what was read: it was removed, or cut. The next answer tells by where the log starts.
    pub(super) is_doubted: bool,
    /// A leader said that its log starts above the position.
    pub(super) is_removed: bool,
    /// The leader's log has not what is to be read; before that is acted on the caller gets what was read before.
    pub(super) waits_for_caller: bool,
    pub(super) under_way: Option<RequestId>,
    pub(super) buffered_bytes: usize,
    pub(super) retry_at_ms: u64,
    pub(super) failures: u32,
    pub(super) high_watermark: Option<Offset>,
    /// Since when it has been to be read without an answer.
    pub(super) unanswered_since_ms: Option<u64>,
}

impl Partition {
    pub(super) fn new(version: u64, phase: Phase, position: Option<Position>) -> Self {
        Self {
            version,
            phase,
            is_paused: false,
            position,
            consumed: position,
            epochs: Epochs::default(),
            narrowed: None,
            checked: None,
            is_doubted: false,
            is_removed: false,
            waits_for_caller: false,
            under_way: None,
            buffered_bytes: 0,
            retry_at_ms: 0,
            failures: 0,
            high_watermark: None,
            unanswered_since_ms: None,
        }
    }
}
