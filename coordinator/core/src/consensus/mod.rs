//! The seam to the consensus engine: the only module that sees the `raft` crate.
//!
//! ```text
//! engine       Consensus: inputs in, outputs out, in order
//! ready        draining the engine
//! persist_queue  what waits for which write
//! catch_up     both ends of a snapshot's way to a follower
//! output       what the engine wants done and tells
//! record       what storage keeps: hard state, entries, snapshots
//! message      the engine's messages in our own form
//! log_store    the log in memory, as the engine reads it
//! contact      when a quorum was last heard of (safety.md A7)
//! election     our own jitter, and campaigning at once after a closed socket
//! membership   who has a part, and how one more or less gets it
//! hand_over    an office that goes to another member on purpose
//! progress     how far the others are
//! retention    how much of the log stays in memory
//! read_index   rounds for linearizable reads
//! transfer     snapshots in chunks
//! votes        asking again for votes that were not heard of
//! ```
//!
//! Called by `server/`. Invariant: it replicates opaque bytes; nothing is acknowledged, voted or
//! given out as committed before it is durable here where the protocol needs it (safety.md A1).
//! It does not know sessions, the tree, clients or what an entry means.

mod catch_up;
mod contact;
mod election;
mod engine;
mod hand_over;
mod log_store;
mod membership;
mod message;
mod output;
mod persist_queue;
mod progress;
mod read_index;
mod ready;
mod record;
mod retention;
mod transfer;
mod votes;

pub use engine::{Consensus, HELD_BYTES_MAX, RestoreError};
pub use membership::{MemberStep, members_after};
pub use output::{ConsensusMessage, Output, ProposeError};
pub use progress::{HeardCommits, Reached};
pub use read_index::ReadId;
pub use record::{
    EntryKind, HardState, LogEntry, PersistId, PersistWrite, Restored, SnapshotImage,
};
