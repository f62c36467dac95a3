//! The replicated state machine: sessions and the tree, changed by entries and by nothing else.
//!
//! ```text
//! entry      what one log entry holds: commands, and the time stamp they all get
//! outcome    what came of a command: the result, and the changes in order
//! machine    State: apply and read
//! session    one session's record: generation, sequence, options
//! zxid       how zxids are given out
//! snapshot   State to bytes and back
//! ```

mod entry;
mod machine;
mod membership;
mod outcome;
mod reconfig;
mod session;
mod snapshot;
mod zxid;

pub use entry::{AdvanceTo, Command, Entry, EntryError, Origin, TreeOp, WriteOp};
pub use machine::{SESSIONS_MAX, State};
pub use membership::{ChangePhase, Membership, MembershipChange};
pub use outcome::{
    Applied, AppliedCommand, Attached, Created, Ended, Ignored, MultiOutcome, OpResult, Outcome,
};
pub use session::Session;
pub use snapshot::{FrozenState, SnapshotError, members_of_snapshot};

/// Envelope kinds of the state machine (0x01..=0x0f); a number is never used for another type.
const ENTRY_KIND: u16 = 0x01;
const SNAPSHOT_HEAD_KIND: u16 = 0x02;
const SNAPSHOT_CHUNK_KIND: u16 = 0x03;

#[cfg(test)]
mod tests;
