//! What consensus asks storage to keep, and what storage gives back after a restart.
//!
//! Called by the engine, which fills these, by the shell and the simulator, which write and
//! restore them. Invariant: the log is contiguous: `snapshot index < entries, one by one`.
//! It does not know files, and not what the data means.
//!
//! ```text
//!   ... discarded ...   | snapshot.index | first entry .. last entry |
//!                         <= applied <= commit <= last entry
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Name of one write to the log; consecutive, from 1 in each life of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PersistId(pub u64);

impl PersistId {
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The part of a voter's state that must survive: who it may vote for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term this server has seen.
    pub term: u64,
    /// Who got its vote in `term`; 0 for nobody.
    pub vote: u64,
    /// A log index known to be committed. May lag behind what is committed.
    pub commit: u64,
}

/// What kind of entry a log position holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Opaque bytes for the state machine; empty at the start of a term.
    Normal,
    /// A change of who has a part in consensus, in the engine's own form.
    Members,
}

/// One position of the replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position, from 1.
    pub index: u64,
    /// Term of the leader that made it. Never falls along the log.
    pub term: u64,
    /// What `data` is.
    pub kind: EntryKind,
    /// Opaque to consensus and storage.
    pub data: Bytes,
}

/// The whole state machine as of one log position.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotImage {
    /// The last log index whose effects are inside.
    pub index: u64,
    /// Term of the entry at `index`.
    pub term: u64,
    /// The state's own encoding; it carries its own checksum.
    pub data: Bytes,
}

impl std::fmt::Debug for SnapshotImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SnapshotImage {{ index: {}, term: {}, bytes: {} }}",
            self.index,
            self.term,
            self.data.len()
        )
    }
}

/// One write to the log. The parts are to be written in the order of the fields and are durable
/// together: after a crash either a prefix of the parts is there, or all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PersistWrite {
    /// A snapshot received from the leader: keep it durably, then forget the whole log; the log
    /// goes on at `snapshot.index + 1`. Until it is durable the old log must stay.
    pub install: Option<SnapshotImage>,
    /// Replaces the stored hard state.
    pub hard_state: Option<HardState>,
    /// To append, contiguous. The first index may be at or below the last one stored: everything
    /// stored from that index on is replaced (truncate, then append).
    pub entries: Vec<LogEntry>,
    /// Entries up to and including this index are no longer needed: a snapshot at or above it is
    /// saved. Space may be freed at any later time.
    pub discard_to: Option<u64>,
    /// The disk has little room: free all that `discard_to` lets go at once, and reserve nothing ahead.
    pub makes_room: bool,
    /// Whether `Persisted` must wait for a sync. When false, `Persisted` may be given after the
    /// write (but still in order, so after the syncs of smaller ids).
    pub sync: bool,
}

/// What an entry costs in memory beside its data, about.
const ENTRY_OVERHEAD: u64 = 64;

impl PersistWrite {
    /// What the entries take in memory.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| ENTRY_OVERHEAD.saturating_add(entry.data.len() as u64))
            .sum()
    }
}

/// What storage found at start.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// The latest hard state; default for a new server.
    pub hard_state: HardState,
    /// The latest whole snapshot, if any.
    pub snapshot: Option<SnapshotImage>,
    /// The log after the snapshot, contiguous. Entries at or below its index are passed over.
    pub entries: Vec<LogEntry>,
}
