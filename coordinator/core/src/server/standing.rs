//! Where a server stands in the ensemble, in few words: for the log and for `/ready`.
//!
//! Called by the shell after each step. Calls consensus. Invariant: reading it changes nothing, and costs little.
//! It does not know what is made of it.

use super::limits::READY_LAG_ENTRIES;
use super::status::{Lack, Mode};
use super::step::Server;
use crate::ServerId;
use crate::consensus::HeardCommits;

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
    /// The same.
    pub member: bool,
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
            member: self.is_member(),
            heir: self.consensus.heir(),
            transfers_asked: self.transfers.asked(),
        }
    }

    /// What it has to apply before clients should come here. Whoever is in contact with a leader may still have nothing: a
    /// restart of the next server would then leave the ensemble without a quorum that has the log. It has enough when it has
    /// applied something of its leader's term, what was committed when it first heard from that, and later nearly
    /// everything: while others write it always lacks some.
    pub(super) fn lack(&self) -> Option<Lack> {
        let applied = self.state.applied_index();
        let heard = self.consensus.commits_heard();
        let is_of_term = self.state.applied_term() == self.consensus.term();
        let has_enough = heard.is_some_and(|HeardCommits { first, last, .. }| {
            applied >= first && applied.saturating_add(READY_LAG_ENTRIES) >= last
        });
        let committed = heard.map(|heard| heard.last).filter(|last| *last > applied);
        (!is_of_term || !has_enough).then_some(Lack { applied, committed })
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
