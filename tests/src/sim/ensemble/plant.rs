//! Bugs put in on purpose, around the servers: the simulation is worth what it finds of them.
//!
//! Called by: tests, through `run`. Asked by: `storage`, `world`.
//! Each is what an implementer could have done wrong.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// Writes are reported as synced before they are.
    AckBeforeSync,
    /// Votes do not reach the disk.
    ForgetVote,
    /// A watch event is lost now and then.
    LoseEvent,
    /// A watch event leaves after the answer that it belongs before.
    LateEvent,
    /// A subscriber misses a write now and then.
    LoseChange,
    /// A session's answers are lost while the server goes on with it.
    LoseReply,
}
