//! Where a server stands in the ensemble, in few words: for the log and for `/ready`.
//!
//! Called by the shell after each step. Calls consensus. Invariant: reading it changes nothing, and costs little.
//! It does not know what is made of it.

use super::status::Mode;
use super::step::Server;
use crate::ServerId;

/// Who leads, and whether there is a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// This server's part.
    pub mode: Mode,
    /// Who leads, as far as known.
    pub leader: Option<ServerId>,
    /// Consensus term.
    pub term: u64,
    /// As in [`super::Status`].
    pub confirmed: bool,
    /// Whom this leader is handing its office to.
    pub heir: Option<ServerId>,
    /// How often clients of this server asked for leadership to be moved.
    pub transfers_asked: u64,
}

/// The other members who vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Those whose stream works.
    pub up: Vec<ServerId>,
    /// The others.
    pub missing: Vec<ServerId>,
}

impl Server {
    /// Where it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            mode: self.mode(),
            leader: self.consensus.leader(),
            term: self.consensus.term(),
            confirmed: self.is_confirmed(),
            heir: self.consensus.heir(),
            transfers_asked: self.transfers.asked(),
        }
    }

    /// Whom it reaches.
    #[must_use]
    pub fn links(&self) -> Links {
        let voters = self.consensus.members().voters.iter().copied();
        let others = voters.filter(|id| *id != self.config.id);
        let (up, missing) = others.partition(|id| self.consensus.is_peer_up(*id));
        Links { up, missing }
    }
}
