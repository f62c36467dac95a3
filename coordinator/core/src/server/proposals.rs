//! The leader's queue: commands of all servers, batched into log entries.
//!
//! Called by `link` and `peer` (to fill it), by the end of each step (to flush it). Calls
//! consensus. Invariant: commands leave in the order in which they came; at most
//! `proposals_in_flight_max` entries are proposed and not applied, so that what comes meanwhile
//! shares the next one; who sent something that found no room is asked for it when there is room
//! again. It does not know what commands do.

use std::collections::{BTreeSet, VecDeque};

use coordinator_protocol::SessionId;

use super::limits::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, PROPOSAL_QUEUE_BYTES_MAX, PROPOSAL_QUEUE_MAX,
};
use super::peer::PeerMessage;
use super::repetition::Repetitions;
use super::step::Server;
use super::weight::command_bytes;
use crate::ServerId;
use crate::state::{AppliedCommand, Command, Entry, Ignored, OpResult, Outcome};

/// Commands that wait, and entries that are on their way.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    queue: VecDeque<Command>,
    /// Weight of `queue`.
    queued_bytes: usize,
    /// Log indexes.
    in_flight: VecDeque<u64>,
    repetitions: Repetitions,
    /// Members whose commands found no room: they send again when they are asked to. Until then
    /// nothing of theirs is taken, because an earlier command is missing.
    refused: BTreeSet<ServerId>,
}

impl Proposals {
    /// Adds a command that `from` sent in this term, unless it is on its way already. Drops it when
    /// too many wait.
    pub(super) fn push(&mut self, term: u64, from: ServerId, command: Command) {
        self.repetitions.enter_term(term);
        if self.refused.contains(&from) || self.repetitions.contains(&command) {
            return;
        }
        let bytes = self.queued_bytes.saturating_add(command_bytes(&command));
        if self.queue.len() >= PROPOSAL_QUEUE_MAX || bytes > PROPOSAL_QUEUE_BYTES_MAX {
            self.refused.insert(from);
            return;
        }
        self.repetitions.note(&command);
        self.queue.push_back(command);
        self.queued_bytes = bytes;
    }

    /// Whether writes of this generation of a session, behind that of this number, are on their way.
    pub(super) fn has_more(&self, session: SessionId, generation: u64, sequence: u64) -> bool {
        self.repetitions.has_more(session, generation, sequence)
    }

    /// What an applied command says of those that may come again.
    pub(super) fn decided(&mut self, applied: &AppliedCommand) {
        match &applied.outcome {
            Outcome::Created(created) => self.repetitions.handshake_applied(created.origin),
            Outcome::Attached(attached) => self.repetitions.handshake_applied(attached.origin),
            Outcome::Refused { origin, .. } => self.repetitions.handshake_applied(*origin),
            Outcome::Ignored { session, why: Ignored::NoSession, .. } => {
                self.repetitions.forget_session(*session);
            }
            Outcome::Expired(ended) => self.repetitions.forget_session(ended.session),
            Outcome::Written { result: Ok(OpResult::SessionClosed(ended)), .. } => {
                self.repetitions.forget_session(ended.session);
            }
            Outcome::Ignored { .. }
            | Outcome::Written { .. }
            | Outcome::ExpiryRefused { .. }
            | Outcome::DueRemoved(_)
            | Outcome::Reconfiguring { .. }
            | Outcome::MembersMoved => {}
        }
    }

    /// Commands that wait, their weight, and entries that are on their way.
    pub(super) fn depths(&self) -> (usize, usize, usize) {
        (self.queue.len(), self.queued_bytes, self.in_flight.len())
    }

    /// Members to ask for what found no room, once half of it is free.
    fn take_refused(&mut self) -> BTreeSet<ServerId> {
        let roomy = self.queue.len() <= PROPOSAL_QUEUE_MAX / 2
            && self.queued_bytes <= PROPOSAL_QUEUE_BYTES_MAX / 2;
        if roomy { std::mem::take(&mut self.refused) } else { BTreeSet::new() }
    }

    /// Everything up to `index` is applied.
    pub(super) fn applied(&mut self, index: u64) {
        while self.in_flight.front().is_some_and(|proposed| *proposed <= index) {
            self.in_flight.pop_front();
        }
    }

    /// This server leads no more: origins send again to the next leader.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.in_flight.clear();
        self.repetitions.clear();
        self.refused.clear();
    }

    fn take_batch(&mut self) -> Vec<Command> {
        let mut bytes = 0usize;
        let mut batch = Vec::new();
        while let Some(command) = self.queue.front() {
            let weight = command_bytes(command);
            bytes = bytes.saturating_add(weight);
            if !batch.is_empty() && (bytes > BATCH_BYTES_MAX || batch.len() >= BATCH_COMMANDS_MAX) {
                break;
            }
            self.queued_bytes = self.queued_bytes.saturating_sub(weight);
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    fn put_back(&mut self, batch: Vec<Command>) {
        for command in batch.into_iter().rev() {
            self.queued_bytes = self.queued_bytes.saturating_add(command_bytes(&command));
            self.queue.push_front(command);
        }
    }
}

impl Server {
    /// Queues a command that came from `from`, if this server leads.
    pub(super) fn queue_command(&mut self, from: ServerId, command: Command) {
        if self.consensus.is_leader() {
            self.proposals.push(self.consensus.term(), from, command);
        }
    }

    /// Proposes what waits, as far as entries may be on their way.
    pub(super) fn flush_proposals(&mut self) {
        if !self.consensus.is_leader() {
            self.proposals.clear();
            return;
        }
        while self.proposals.in_flight.len() < self.config.proposals_in_flight_max {
            let commands = self.proposals.take_batch();
            if commands.is_empty() {
                break;
            }
            let entry = Entry { wall_ms: self.now.wall_ms, commands };
            let Ok(data) = entry.encode() else {
                // Requests are bounded by frames far below what an entry can hold.
                self.halt("a log entry cannot be encoded");
                return;
            };
            let bytes = data.len();
            match self.consensus.propose(data, self.now.mono, &mut self.outputs) {
                Ok(index) => {
                    self.proposals.in_flight.push_back(index);
                    self.counters.proposal_sizes.add(bytes);
                }
                Err(_) => {
                    self.proposals.put_back(entry.commands);
                    break;
                }
            }
            self.settle();
        }
        for member in self.proposals.take_refused() {
            if member == self.config.id {
                self.link.resend_at_once();
            } else {
                self.send_peer(member, &PeerMessage::Resend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use coordinator_protocol::{SessionId, SetDataRequest};

    use super::*;
    use crate::state::{TreeOp, WriteOp};

    const A: ServerId = ServerId::new(1).unwrap();
    const B: ServerId = ServerId::new(2).unwrap();

    /// One of them weighs a little more than `bytes`; they share their memory.
    fn write(sequence: u64, data: &Bytes) -> Command {
        let set = SetDataRequest { path: String::new(), data: Some(data.clone()), version: -1 };
        let op = WriteOp::Tree(TreeOp::SetData(set));
        Command::Write {
            session: SessionId::new(1),
            generation: 1,
            sequence,
            identities: [].into(),
            op,
        }
    }

    #[test]
    fn queue_is_bounded_by_bytes_and_gives_room_back() {
        let data = Bytes::from(vec![0; 8 << 20]);
        let mut proposals = Proposals::default();
        let fit = PROPOSAL_QUEUE_BYTES_MAX / command_bytes(&write(1, &data));
        for sequence in 1..=fit as u64 + 5 {
            proposals.push(1, A, write(sequence, &data));
        }
        assert_eq!(proposals.queue.len(), fit);
        assert!(proposals.take_refused().is_empty(), "no room yet");
        let batch = proposals.take_batch();
        assert_eq!(batch.len(), 1, "one command may be larger than a batch");
        proposals.put_back(batch);
        assert_eq!(proposals.take_batch(), [write(1, &data)]);
        proposals.push(1, A, write(100, &data));
        assert_eq!(proposals.queue.len(), fit - 1, "what came before it is missing");
        proposals.push(1, B, write(101, &data));
        proposals.push(1, B, write(102, &data));
        assert_eq!(proposals.queue.len(), fit);
        while !proposals.take_batch().is_empty() {}
        assert_eq!(proposals.queued_bytes, 0);
        assert_eq!(proposals.take_refused(), BTreeSet::from([A, B]));
        proposals.push(1, A, write(fit as u64 + 1, &data));
        assert_eq!(proposals.queue.len(), 1);
    }

    #[test]
    fn queue_is_bounded_by_the_number_of_commands() {
        let mut proposals = Proposals::default();
        for sequence in 0..=PROPOSAL_QUEUE_MAX as u64 {
            proposals.push(1, A, write(sequence, &Bytes::new()));
        }
        assert_eq!(proposals.queue.len(), PROPOSAL_QUEUE_MAX);
    }
}
