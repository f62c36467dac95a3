//! Records on their way into the log, in their order, and what happens when they are in it.
//!
//! *Called by* the files of the requests (push), the shard (settle). *Calls* nothing. Invariant:
//! writes are finished in the order in which they were pushed, whatever the order in which the log
//! tells of them: the state follows the log. Does not know groups.

use std::collections::VecDeque;

use client_protocol::ErrorCode;
use client_protocol::messages::{OffsetCommitResponse, OffsetDeleteResponse};

use super::message::{Effect, Ticket, WriteId};
use super::record::{GroupRecord, LogRecord};
use super::settings::{WRITE_BYTES_MAX, WRITES_MAX};
use crate::ids::Millis;

/// What follows once a write is in the log of all in-sync replicas, or failed.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Nothing but the state it leaves.
    Nothing,
    /// Answer a commit. `None` once its client was told that the outcome is unknown.
    Commit { ticket: Option<Ticket>, response: OffsetCommitResponse },
    /// Hand out the work of the group's generation.
    Sync { generation: i32 },
    /// Tell a static member that came back that it goes on.
    Rejoined { member: String, knows_skip_assignment: bool, former: String },
    /// Answer a deletion of offsets.
    OffsetDelete { ticket: Ticket, response: OffsetDeleteResponse },
    /// Answer a deletion of the group.
    Delete { ticket: Option<Ticket> },
}

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub id: WriteId,
    pub group: String,
    pub records: Vec<GroupRecord>,
    pub then: Then,
    /// When the client is told that the outcome is unknown.
    pub deadline: Option<Millis>,
    settled: Option<Result<(), ErrorCode>>,
    bytes: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes {
    queue: VecDeque<Write>,
    next: u64,
    /// Of all in the queue.
    bytes: usize,
}

impl Writes {
    /// How many are on their way.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// There is room for one more, of so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= WRITE_BYTES_MAX;
        self.queue.len() < WRITES_MAX && (fits || self.queue.is_empty())
    }

    /// Sends `records`, which encode to `encoded`, on their way.
    pub fn push(&mut self, write: NewWrite, effects: &mut Vec<Effect>) -> WriteId {
        let id = WriteId(self.next);
        self.next = self.next.saturating_add(1);
        let NewWrite { group, records, encoded, bytes, then, deadline } = write;
        self.bytes = self.bytes.saturating_add(bytes);
        self.queue.push_back(Write { id, group, records, then, deadline, settled: None, bytes });
        effects.push(Effect::Write { write: id, records: encoded });
        id
    }

    /// Notes what became of a write. One that is not known was dropped already.
    pub fn settle(&mut self, id: WriteId, result: Result<(), ErrorCode>) {
        // The queue's numbers have no gaps.
        let first = self.queue.front().map_or(0, |write| write.id.0);
        let at = id.0.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        if let Some(write) = at.and_then(|at| self.queue.get_mut(at)) {
            write.settled = Some(result);
        }
    }

    /// The oldest write, if its outcome is known.
    pub fn pop_settled(&mut self) -> Option<(Write, Result<(), ErrorCode>)> {
        let result = self.queue.front()?.settled?;
        let write = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(write.bytes);
        Some((write, result))
    }

    /// When the next client is to be told that the outcome is unknown.
    pub fn deadline(&self) -> Option<Millis> {
        self.queue.iter().find_map(|write| write.deadline)
    }

    /// Commits whose clients have waited too long; each is given once.
    pub fn overdue(&mut self, now: Millis) -> Vec<(Ticket, OffsetCommitResponse)> {
        let mut overdue = Vec::new();
        // Deadlines rise with the order, as all wait equally long.
        for write in &mut self.queue {
            match write.deadline {
                Some(deadline) if deadline > now => break,
                Some(_) => write.deadline = None,
                None => continue,
            }
            if let Then::Commit { ticket, response } = &mut write.then
                && let Some(ticket) = ticket.take()
            {
                overdue.push((ticket, response.clone()));
            }
        }
        overdue
    }
}

/// A write that is to be pushed.
pub(super) struct NewWrite {
    pub group: String,
    pub records: Vec<GroupRecord>,
    pub encoded: Vec<LogRecord>,
    /// About how many `encoded` are.
    pub bytes: usize,
    pub then: Then,
    pub deadline: Option<Millis>,
}

/// The bytes of `records`, and about how many they are in a batch; `None` when one cannot be
/// encoded.
pub(super) fn encode(records: &[GroupRecord]) -> Option<(Vec<LogRecord>, usize)> {
    /// Lengths and deltas around a record, at most.
    const FRAME_BYTES: usize = 32;
    let encoded: Option<Vec<LogRecord>> = records.iter().map(GroupRecord::encode).collect();
    let encoded = encoded?;
    let bytes = encoded.iter().map(|record| {
        let value = record.value.as_ref().map_or(0, |value| value.len());
        record.key.len().saturating_add(value).saturating_add(FRAME_BYTES)
    });
    let bytes = bytes.fold(0, usize::saturating_add);
    Some((encoded, bytes))
}
