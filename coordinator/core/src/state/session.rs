//! One session's record in the replicated state.
//!
//! Called by: `machine` (writes it), the server (reads it). Calls: nothing.
//! Invariant: `sequence` counts the writes applied in this generation, without gaps.
//! It does not know the session's timer, which the leader keeps, nor its ephemerals, which the
//! tree keeps.

use coordinator_protocol::{SessionId, SessionPassword};
use serde::{Deserialize, Serialize};

use super::entry::Origin;

/// A session as all servers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Secret random bytes: who knows them may attach.
    pub password: SessionPassword,
    /// The negotiated time-out.
    pub timeout_ms: u32,
    /// 1 at creation, one more with each attach.
    pub generation: u64,
    /// The last write applied in this generation; 0 = none yet.
    pub sequence: u64,
    /// The connection that owns it.
    pub origin: Origin,
    /// Expire this long after the peer closed the socket; `None` = only by time-out.
    pub fast_death_grace_ms: Option<u32>,
}

impl Session {
    /// Makes `origin` the owner under the next generation and returns the one before.
    pub(super) fn move_to(&mut self, origin: Origin, timeout_ms: u32) -> Origin {
        let previous = std::mem::replace(&mut self.origin, origin);
        self.generation += 1;
        self.sequence = 0;
        self.timeout_ms = timeout_ms;
        previous
    }

    /// Whether the numbers can have come about by `move_to` and writes.
    pub(super) fn is_sound(&self) -> bool {
        !self.id.is_none() && self.generation >= 1
    }
}
