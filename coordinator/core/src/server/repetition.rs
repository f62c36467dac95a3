//! Which commands a leader has queued in its term: what is sent to it again is dropped here.
//!
//! Called by `proposals` (for what comes) and `apply` (for what is decided). Calls nothing.
//! Invariant: a command is called repeated only if the same one was queued in this term behind all
//! writes of its session from `first` on, so that its place in the log is sure: whatever its origin
//! sends from an earlier number on, because the log showed a gap, is taken again. It does not know
//! the queue.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_protocol::SessionId;

use super::limits::{QUEUED_HANDSHAKES_MAX, QUEUED_SESSIONS_MAX};
use crate::state::{Command, Origin};

/// Commands queued in one term.
#[derive(Debug, Default)]
pub(super) struct Repetitions {
    term: u64,
    sessions: BTreeMap<SessionId, Queued>,
    /// Connections whose create or attach is queued and not applied.
    handshakes: BTreeSet<Origin>,
}

/// Writes of one generation of a session, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Queued {
    generation: u64,
    /// Inclusive, as is `last`.
    first: u64,
    last: u64,
}

impl Repetitions {
    /// A leader of a new term knows of nothing: what an earlier one queued may be lost.
    pub(super) fn enter_term(&mut self, term: u64) {
        if self.term != term {
            self.clear();
            self.term = term;
        }
    }

    pub(super) fn clear(&mut self) {
        self.sessions.clear();
        self.handshakes.clear();
    }

    /// Whether this command is on its way already.
    pub(super) fn contains(&self, command: &Command) -> bool {
        match command {
            Command::CreateSession { origin, .. } | Command::Attach { origin, .. } => {
                self.handshakes.contains(origin)
            }
            Command::Write { session, generation, sequence, .. } => {
                self.sessions.get(session).is_some_and(|queued| {
                    queued.generation == *generation
                        && (queued.first..=queued.last).contains(sequence)
                })
            }
            // The leader makes these itself.
            Command::Expire { .. }
            | Command::RemoveDue { .. }
            | Command::FoundMembers { .. }
            | Command::AdvanceMembers { .. } => false,
        }
    }

    /// This command was queued.
    pub(super) fn note(&mut self, command: &Command) {
        match command {
            Command::CreateSession { origin, .. } | Command::Attach { origin, .. } => {
                if self.handshakes.len() < QUEUED_HANDSHAKES_MAX {
                    self.handshakes.insert(*origin);
                }
            }
            Command::Write { session, generation, sequence, .. } => {
                self.note_write(*session, *generation, *sequence);
            }
            Command::Expire { .. }
            | Command::RemoveDue { .. }
            | Command::FoundMembers { .. }
            | Command::AdvanceMembers { .. } => {}
        }
    }

    /// The create or attach of this connection is applied.
    pub(super) fn handshake_applied(&mut self, origin: Origin) {
        self.handshakes.remove(&origin);
    }

    /// Whether a write of this generation is queued behind the one of this number.
    pub(super) fn has_more(&self, session: SessionId, generation: u64, sequence: u64) -> bool {
        let queued = self.sessions.get(&session).filter(|queued| queued.generation == generation);
        queued.is_some_and(|queued| queued.last > sequence)
    }

    /// The session is not among the living.
    pub(super) fn forget_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    fn note_write(&mut self, session: SessionId, generation: u64, sequence: u64) {
        let anew = Queued { generation, first: sequence, last: sequence };
        let room = self.sessions.len() < QUEUED_SESSIONS_MAX;
        match self.sessions.get_mut(&session) {
            Some(queued)
                if queued.generation == generation
                    && queued.last.checked_add(1) == Some(sequence) =>
            {
                queued.last = sequence;
            }
            Some(queued) => *queued = anew,
            None if room => {
                self.sessions.insert(session, anew);
            }
            // Not known as queued: its repetitions are dropped at apply.
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::WriteOp;

    fn write(generation: u64, sequence: u64) -> Command {
        let op = WriteOp::CloseSession;
        Command::Write {
            session: SessionId::new(1),
            generation,
            sequence,
            identities: [].into(),
            op,
        }
    }

    fn take(repetitions: &mut Repetitions, generation: u64, sequences: &[u64]) -> Vec<u64> {
        let mut taken = Vec::new();
        for sequence in sequences {
            let command = write(generation, *sequence);
            if !repetitions.contains(&command) {
                repetitions.note(&command);
                taken.push(*sequence);
            }
        }
        taken
    }

    #[test]
    fn only_what_was_queued_without_a_gap_is_a_repetition() {
        let mut repetitions = Repetitions::default();
        repetitions.enter_term(3);
        assert_eq!(take(&mut repetitions, 1, &[5, 6, 7, 5, 6, 7, 8]), [5, 6, 7, 8]);
        assert_eq!(take(&mut repetitions, 1, &[10]), [10], "9 was lost on its way");
        assert_eq!(take(&mut repetitions, 1, &[9, 10, 11]), [9, 10, 11], "10 stands before 9");
        assert_eq!(take(&mut repetitions, 1, &[4, 5]), [4, 5], "the log lacks 4");
        assert_eq!(take(&mut repetitions, 2, &[1, 2, 1]), [1, 2], "the session moved");
        repetitions.enter_term(3);
        assert_eq!(take(&mut repetitions, 2, &[1, 2]), [0; 0]);
        repetitions.enter_term(4);
        assert_eq!(take(&mut repetitions, 2, &[1, 2]), [1, 2], "another term");
        repetitions.forget_session(SessionId::new(1));
        assert!(repetitions.sessions.is_empty());
    }

    #[test]
    fn handshake_is_known_until_it_is_applied() {
        let mut repetitions = Repetitions::default();
        let origin = Origin { server: crate::ServerId::new(2).unwrap(), connection: 9 };
        let (session, password) =
            (SessionId::new(1), coordinator_protocol::SessionPassword::zeros());
        let attach = Command::Attach { session, password, timeout_ms: 4_000, follows: 1, origin };
        assert!(!repetitions.contains(&attach));
        repetitions.note(&attach);
        assert!(repetitions.contains(&attach));
        repetitions.handshake_applied(origin);
        assert!(!repetitions.contains(&attach));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut repetitions = Repetitions::default();
        for session in 1..=i64::try_from(QUEUED_SESSIONS_MAX).unwrap() + 1 {
            repetitions.note_write(SessionId::new(session), 1, 1);
        }
        assert_eq!(repetitions.sessions.len(), QUEUED_SESSIONS_MAX);
        repetitions.note_write(SessionId::new(1), 1, 2);
        assert!(repetitions.contains(&write(1, 2)), "those that are known go on");
    }
}
