//! The leader's queue: commands of all servers, batched into log entries.
//!
//! Called by `link` and `peer` (to fill it), by the end of each step (to flush it). Calls
//! consensus. Invariant: commands leave in the order in which they came; at most
//! `proposals_in_flight_max` entries are proposed and not applied, so that what comes meanwhile
//! shares the next one. It does not know what commands do.

use std::collections::VecDeque;

use super::limits::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, PROPOSAL_QUEUE_MAX};
use super::step::Server;
use super::weight::command_bytes;
use crate::state::{Command, Entry};

/// Commands that wait, and entries that are on their way.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    queue: VecDeque<Command>,
    /// Log indexes.
    in_flight: VecDeque<u64>,
}

impl Proposals {
    /// Adds a command, or drops it when too many wait: its origin sends it again.
    pub(super) fn push(&mut self, command: Command) {
        if self.queue.len() < PROPOSAL_QUEUE_MAX {
            self.queue.push_back(command);
        }
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
        self.in_flight.clear();
    }

    fn take_batch(&mut self) -> Vec<Command> {
        let mut bytes = 0usize;
        let mut batch = Vec::new();
        while let Some(command) = self.queue.front() {
            bytes = bytes.saturating_add(command_bytes(command));
            if !batch.is_empty() && (bytes > BATCH_BYTES_MAX || batch.len() >= BATCH_COMMANDS_MAX) {
                break;
            }
            batch.extend(self.queue.pop_front());
        }
        batch
    }

    fn put_back(&mut self, batch: Vec<Command>) {
        for command in batch.into_iter().rev() {
            self.queue.push_front(command);
        }
    }
}

impl Server {
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
            match self.consensus.propose(data, self.now.mono, &mut self.outputs) {
                Ok(index) => self.proposals.in_flight.push_back(index),
                Err(_) => {
                    self.proposals.put_back(entry.commands);
                    break;
                }
            }
            self.settle();
        }
    }
}
