//! A leader's office goes to another member on purpose.
//!
//! Called by `server/` (an operator asks, the process ends) and by the engine (a slow disk). Calls the
//! engine. Invariant: the office goes to a member whose stream works, and only once that member has
//! every entry of this leader; the engine gives it up after an election time-out, and until then takes
//! no proposals. It does not know who asked.

use super::engine::Consensus;
use super::output::Output;
use crate::{Millis, ServerId};

/// Why a member stops that a leader counts on for what it does not have. A leader that was elected without it counts on nothing.
pub(super) const LOG_IS_LOST: &str = "the log on disk lost entries that were acknowledged. What was here comes back from \
    the others: keep this server stopped while ALL of them run, move leadership once (`tidegate coordinator transfer`), then \
    start it again, and stop none of them until it is ready";

impl Consensus {
    /// To whom this leader is handing its office.
    #[must_use]
    pub fn heir(&self) -> Option<ServerId> {
        self.node.raft.lead_transferee.and_then(ServerId::new)
    }

    /// Hands a leader's office to `to`, or to the most advanced peer that can be reached. Does nothing
    /// where there is no such peer, or on others than the leader.
    pub fn hand_over(&mut self, to: Option<ServerId>, now: Millis, out: &mut Vec<Output>) {
        if !self.is_leader() {
            return;
        }
        let matched = |peer: &ServerId| {
            self.node.raft.prs().get(peer.get()).map_or(0, |progress| progress.matched)
        };
        let heir = match to {
            Some(to) => self.peers_up.get(&to).copied(),
            None => self.peers_up.intersection(&self.members.voters).copied().max_by_key(matched),
        };
        if let Some(heir) = heir {
            self.node.transfer_leader(heir.get());
        }
        self.after_input(now, out);
    }
}
