//! The replicated log since the last snapshot, in memory, as the engine reads it.
//!
//! Called by the engine (raft's `Storage`) and by `consensus/mod.rs`. Calls: nothing. Invariant:
//! entries are contiguous from `first_index`; `first_index - 1 <= snapshot index`; what stands
//! here is either durable or on its way there (`Persist`). It does not know what entries mean.
//!
//! ```text
//!   | anchor (index, term) | first entry ...... last entry |
//!            anchor <= snapshot.index
//! ```

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, EntryType, HardState as RaftHardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::message::raft_entry;
use super::record::{HardState, Restored, SnapshotImage};
use crate::ServerId;
use crate::members::MemberIds;

/// Position of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
    index: u64,
    term: u64,
}

/// The log in memory, and the snapshot that is being handed to followers, if any.
pub(super) struct LogStore {
    /// Who has a part as of the anchor at start; kept up with what is applied.
    members: MemberIds,
    initial: HardState,
    /// The entry before the first one kept.
    anchor: Position,
    entries: VecDeque<Entry>,
    entry_bytes: u64,
    /// Snapshot for followers that need one; dropped when nobody does.
    outgoing: Option<SnapshotImage>,
    offered_members: MemberIds,
    /// Set by the engine through a shared reference: some follower needs a snapshot.
    wanted: Cell<bool>,
}

impl LogStore {
    /// The log as storage gave it back. Entries that do not continue the snapshot or one another
    /// are a broken promise of storage.
    pub(super) fn restore(members: MemberIds, restored: &Restored) -> Result<Self, &'static str> {
        let base = restored.snapshot.as_ref().map_or_else(Position::default, |image| Position {
            index: image.index,
            term: image.term,
        });
        let mut store = Self {
            members,
            initial: restored.hard_state,
            anchor: base,
            entries: VecDeque::new(),
            entry_bytes: 0,
            outgoing: None,
            offered_members: MemberIds::default(),
            wanted: Cell::new(false),
        };
        for entry in &restored.entries {
            if entry.index == base.index && entry.term != base.term {
                // The log of before an installed snapshot, which a crash kept from being dropped.
                break;
            }
            if entry.index <= base.index {
                continue;
            }
            if entry.index != store.last().index.saturating_add(1) {
                return Err("the restored log has a gap");
            }
            if entry.term < store.last().term {
                return Err("terms fall in the restored log");
            }
            store.push(raft_entry(entry.clone()));
        }
        // The commit index is written lazily and may also be behind an installed snapshot.
        let last = store.last();
        if store.initial.commit > last.index {
            return Err("the restored log ends before its commit index");
        }
        store.initial.commit = store.initial.commit.max(base.index);
        // A change of the members is proposed only when the one before it was applied, and who has the later entry was told
        // so; the commit index on disk may be of before. Without this a server would begin with members of two changes ago,
        // whose quorum need not have a server of today's.
        let mut changes = store.entries.iter().rev().filter(|entry| is_of_members(entry));
        if let Some(before_last) = changes.nth(1) {
            store.initial.commit = store.initial.commit.max(before_last.index);
        }
        store.initial.term = store.initial.term.max(last.term);
        if store.initial.term > restored.hard_state.term {
            store.initial.vote = 0;
        }
        Ok(store)
    }

    fn push(&mut self, entry: Entry) {
        self.entry_bytes = self.entry_bytes.saturating_add(entry.data.len() as u64);
        self.entries.push_back(entry);
    }

    fn last(&self) -> Position {
        self.entries
            .back()
            .map_or(self.anchor, |entry| Position { index: entry.index, term: entry.term })
    }

    fn first(&self) -> u64 {
        self.anchor.index.saturating_add(1)
    }

    /// Offset of `index` in `entries`; `index` must be at least `first()`.
    fn offset(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX)
    }

    /// Appends, replacing everything from the first new index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.first() <= first.index && first.index <= self.last().index.saturating_add(1),
            "append at {} to a log of {}..={}",
            first.index,
            self.first(),
            self.last().index
        );
        let keep = self.offset(first.index);
        while self.entries.len() > keep {
            if let Some(dropped) = self.entries.pop_back() {
                self.entry_bytes = self.entry_bytes.saturating_sub(dropped.data.len() as u64);
            }
        }
        for entry in entries {
            self.push(entry.clone());
        }
    }

    /// Forgets the log: it goes on after an installed snapshot.
    pub(super) fn install(&mut self, index: u64, term: u64) {
        self.anchor = Position { index, term };
        self.entries.clear();
        self.entry_bytes = 0;
        self.outgoing = None;
    }

    /// Forgets entries up to and including `index`.
    pub(super) fn discard_to(&mut self, index: u64) {
        while let Some(entry) = self.entries.front() {
            if entry.index > index {
                break;
            }
            self.anchor = Position { index: entry.index, term: entry.term };
            self.entry_bytes = self.entry_bytes.saturating_sub(entry.data.len() as u64);
            self.entries.pop_front();
        }
    }

    /// Forgets the oldest entries, at most up to and including `index`, until the rest has no more bytes than this.
    pub(super) fn discard_over(&mut self, bytes_max: u64, index: u64) {
        while self.entry_bytes > bytes_max
            && let Some(first) = self.entries.front().map(|entry| entry.index)
            && first <= index
        {
            self.discard_to(first);
        }
    }

    /// Term of the entry at `index`, if it is still known.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.anchor.index {
            return Some(self.anchor.term);
        }
        if index < self.first() {
            return None;
        }
        self.entries.get(self.offset(index)).map(|entry| entry.term)
    }

    /// Bytes of the entries kept.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// The least index from which on the entries up to `index` have at most `bytes` of data together.
    pub(super) fn first_within(&self, index: u64, bytes: u64) -> u64 {
        let behind = usize::try_from(self.last().index.saturating_sub(index)).unwrap_or(usize::MAX);
        let mut sum = 0_u64;
        let mut first = index.saturating_add(1);
        for entry in self.entries.iter().rev().skip(behind) {
            sum = sum.saturating_add(entry.data.len() as u64);
            if sum > bytes {
                break;
            }
            first = entry.index;
        }
        first
    }

    /// First index kept.
    pub(super) fn first_kept(&self) -> u64 {
        self.first()
    }

    /// Last index kept.
    pub(super) fn last_kept(&self) -> u64 {
        self.last().index
    }

    /// Whether the engine asked for a snapshot since the last call.
    pub(super) fn take_wanted(&self) -> bool {
        self.wanted.replace(false)
    }

    /// Offers a snapshot to followers that ask; it says who its members are, or they are those of now.
    pub(super) fn offer(&mut self, image: SnapshotImage, members: MemberIds) {
        self.outgoing = Some(image);
        self.offered_members = members;
    }

    /// The offered snapshot.
    pub(super) fn offered(&self) -> Option<&SnapshotImage> {
        self.outgoing.as_ref()
    }

    /// Frees the offered snapshot.
    pub(super) fn withdraw(&mut self) {
        self.outgoing = None;
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let HardState { term, vote, commit } = self.initial;
        let hard = RaftHardState { term, vote, commit, ..RaftHardState::default() };
        Ok(RaftState::new(hard, conf_state(&self.members)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last().index.saturating_add(1) {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let mut taken = Vec::new();
        for entry in self.entries.range(self.offset(low)..self.offset(high)) {
            bytes = bytes.saturating_add(entry.data.len() as u64).saturating_add(ENTRY_OVERHEAD);
            if bytes > limit && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.anchor.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Only what the snapshot covers is told; its bytes travel in chunks of our own.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let usable = self
            .outgoing
            .as_ref()
            .filter(|image| image.index >= request_index && image.index >= self.anchor.index)
            // Of before it joined: the engine there would not take it.
            .filter(|_| ServerId::new(to).is_some_and(|to| self.offered_members.contains(to)));
        let Some(image) = usable else {
            self.wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        Ok(snapshot_head(image.index, image.term, &self.offered_members))
    }
}

fn is_of_members(entry: &Entry) -> bool {
    entry.entry_type != EntryType::EntryNormal
}

/// What an entry costs beside its data when messages are cut to size.
const ENTRY_OVERHEAD: u64 = 32;

/// The engine's view of a snapshot: its position and members, without data.
pub(super) fn snapshot_head(index: u64, term: u64, members: &MemberIds) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let head = snapshot.mut_metadata();
    head.index = index;
    head.term = term;
    head.set_conf_state(conf_state(members));
    snapshot
}

/// The members in the engine's form.
pub(super) fn conf_state(members: &MemberIds) -> ConfState {
    let numbers = |ids: &BTreeSet<ServerId>| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
    let mut state = ConfState::default();
    state.set_voters(numbers(&members.voters));
    state.set_learners(numbers(&members.learners));
    state
}

/// The members that the engine tells of.
pub(super) fn member_ids(state: &ConfState) -> MemberIds {
    let ids = |numbers: &[u64]| numbers.iter().copied().filter_map(ServerId::new).collect();
    MemberIds { voters: ids(state.get_voters()), learners: ids(state.get_learners()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{EntryKind, LogEntry};

    #[test]
    fn all_changes_of_members_but_the_last_are_known_to_be_committed() {
        let entry = |index, kind| LogEntry { index, term: 1, kind, data: vec![1, 4].into() };
        let commit_with = |changes: &[u64]| {
            let kind = |index: u64| match changes.contains(&index) {
                true => EntryKind::Members,
                false => EntryKind::Normal,
            };
            let entries = (1..=9).map(|index| entry(index, kind(index))).collect();
            let hard_state = HardState { commit: 3, ..HardState::default() };
            let restored = Restored { entries, hard_state, ..Restored::default() };
            let store = LogStore::restore(MemberIds::default(), &restored).unwrap();
            store.initial.commit
        };
        assert_eq!(commit_with(&[]), 3);
        assert_eq!(commit_with(&[8]), 3, "it may be taken back");
        assert_eq!(commit_with(&[1, 8]), 3);
        assert_eq!(commit_with(&[4, 8]), 4);
        assert_eq!(commit_with(&[4, 6, 8]), 6);
    }

    #[test]
    fn entries_within_a_number_of_bytes_are_counted_backwards_from_an_index() {
        let entry =
            |index| LogEntry { index, term: 1, kind: EntryKind::Normal, data: vec![0; 10].into() };
        let restored = Restored { entries: (1..=8).map(entry).collect(), ..Restored::default() };
        let store = LogStore::restore(MemberIds::default(), &restored).unwrap();
        assert_eq!(store.first_within(8, 1_000), 1);
        assert_eq!(store.first_within(6, 29), 5);
        assert_eq!(store.first_within(6, 30), 4);
        assert_eq!(store.first_within(6, 9), 7);
    }
}
