//! Readys whose writes are on their way to the disk, and what each of them holds back.
//!
//! Called by the engine. Calls: nothing. Invariant: Readys are released in the order in which they
//! were made, each only when its own write and all earlier ones are durable. It does not know what
//! is written.

use std::collections::VecDeque;

use raft::eraftpb::Message;

use super::record::{HardState, PersistId, SnapshotImage};

/// One Ready that is not released yet.
pub(super) struct Held {
    /// The last write that must be durable first.
    pub(super) after: PersistId,
    /// The engine's number of the Ready.
    pub(super) number: u64,
    /// Votes and acknowledgements that promise what is being written.
    pub(super) messages: Vec<Message>,
    /// A received snapshot that takes the place of the state once durable.
    pub(super) install: Option<SnapshotImage>,
    /// The term and vote as of this Ready.
    pub(super) hard: HardState,
    /// Bytes of the entries in its write.
    pub(super) bytes: u64,
}

/// Readys in the order in which they were made.
pub(super) struct PersistQueue {
    last_id: PersistId,
    durable: PersistId,
    held: VecDeque<Held>,
    /// Bytes of entries in `held`.
    held_bytes: u64,
    /// The last term and vote that are durable.
    hard: HardState,
}

impl PersistQueue {
    /// Nothing is on its way; `hard` is what the disk holds.
    pub(super) fn new(hard: HardState) -> Self {
        let none = PersistId::default();
        Self { last_id: none, durable: none, held: VecDeque::new(), held_bytes: 0, hard }
    }

    /// The id for the next write.
    pub(super) fn next_id(&mut self) -> PersistId {
        self.last_id = self.last_id.next();
        self.last_id
    }

    /// The last write given out: a Ready without a write of its own waits for this one.
    pub(super) fn last_id(&self) -> PersistId {
        self.last_id
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.held_bytes = self.held_bytes.saturating_add(held.bytes);
        self.held.push_back(held);
    }

    /// Bytes of entries that are not durable yet.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether this term and vote are on disk.
    pub(super) fn holds_vote(&self, hard: &HardState) -> bool {
        (self.hard.term, self.hard.vote) == (hard.term, hard.vote)
    }

    /// Everything up to `id` is durable.
    pub(super) fn persisted(&mut self, id: PersistId) {
        assert!(
            id <= self.last_id,
            "persisted {id:?} was never written, last is {:?}",
            self.last_id
        );
        self.durable = self.durable.max(id);
    }

    /// The next Ready to release, if its writes are durable.
    pub(super) fn release(&mut self) -> Option<Held> {
        if self.held.front()?.after > self.durable {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(held.bytes);
        self.hard = held.hard;
        Some(held)
    }

    /// Whether a received snapshot is on its way to the disk.
    pub(super) fn is_installing(&self) -> bool {
        self.held.iter().any(|held| held.install.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(after: PersistId, number: u64) -> Held {
        let hard = HardState { term: number, ..HardState::default() };
        Held { after, number, messages: Vec::new(), install: None, hard, bytes: 10 }
    }

    #[test]
    fn vote_and_bytes_are_those_of_what_was_released() {
        let mut queue = PersistQueue::new(HardState { term: 0, vote: 2, commit: 0 });
        let first = queue.next_id();
        queue.hold(held(first, 1));
        let second = queue.next_id();
        queue.hold(held(second, 2));
        assert!(queue.holds_vote(&HardState { term: 0, vote: 2, commit: 9 }));
        assert_eq!(queue.held_bytes(), 20);
        queue.persisted(first);
        assert!(queue.release().is_some() && queue.release().is_none());
        assert!(queue.holds_vote(&HardState { term: 1, ..HardState::default() }));
        assert!(!queue.holds_vote(&HardState { term: 2, ..HardState::default() }));
        assert!(!queue.holds_vote(&HardState { term: 1, vote: 1, commit: 0 }));
        assert_eq!(queue.held_bytes(), 10);
    }

    #[test]
    fn readys_are_released_in_order_and_never_early() {
        let mut queue = PersistQueue::new(HardState::default());
        queue.hold(held(queue.last_id(), 1));
        let first = queue.next_id();
        queue.hold(held(first, 2));
        queue.hold(held(queue.last_id(), 3));
        let second = queue.next_id();
        queue.hold(held(second, 4));
        let released = |queue: &mut PersistQueue| -> Vec<u64> {
            std::iter::from_fn(|| queue.release().map(|held| held.number)).collect()
        };
        assert_eq!(released(&mut queue), vec![1]);
        queue.persisted(first);
        assert_eq!(released(&mut queue), vec![2, 3]);
        queue.persisted(second);
        assert_eq!(released(&mut queue), vec![4]);
    }
}
