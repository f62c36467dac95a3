//! Decisions into large multi batches, and what a conflict means.
//!
//! *Called by* the tenure. Invariants (C2): each multi checks `/controller_epoch` first, then the identity of every broker whose membership the
//! decision rests on, and writes each state at the version that was decided on; a partition under way is decided on again only when the image
//! is complete up to the reply's zxid. A conflicting partition is taken out and the rest sent again at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{BrokerId, PartitionEpoch, PartitionId, TopicPartition, Zxid};
use crate::image::{PartitionState, path};
use crate::store::{Op, WriteOutcome};

use super::alter::WaitingAlter;
use super::message::{Effect, WriteId};
use super::tenure::{Controller, Office};
use super::topic::{MULTI_BYTES_MAX, TopicWork, multi_bytes, too_large};

/// State nodes in one multi, at most: about 200 KiB of paths and JSON.
pub const MULTI_STATES_MAX: usize = 1_000;

/// One state node to write.
#[derive(Clone, Debug)]
pub(super) struct StateWrite {
    pub(super) key: TopicPartition,
    pub(super) topic: Arc<str>,
    pub(super) partition: PartitionId,
    pub(super) expected: PartitionEpoch,
    pub(super) state: PartitionState,
    /// Whose identity must still be the one that was looked at, with its version then: a later version may know of a loss.
    pub(super) rests_on: Vec<(BrokerId, i32)>,
    /// The AlterPartition item that asked for it.
    pub(super) alter: Option<WaitingAlter>,
}

/// A multi under way.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    States { identities: usize, writes: Vec<StateWrite> },
    Topic(Box<TopicWork>),
}

/// Why a partition is not decided on now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Busy {
    /// A write is under way.
    Sent,
    /// The image does not show the write's result yet.
    Until(Zxid),
}

fn state_ops(epoch_check: Op, writes: &[StateWrite]) -> (Vec<Op>, usize) {
    let identities: BTreeSet<(BrokerId, i32)> =
        writes.iter().flat_map(|write| write.rests_on.iter().copied()).collect();
    let mut ops = vec![epoch_check];
    for &(id, version) in &identities {
        ops.push(Op::Check { path: path::identity(id), version });
    }
    for write in writes {
        ops.push(Op::SetData {
            path: path::state(&write.topic, write.partition),
            data: write.state.encode(),
            version: write.expected.get(),
        });
    }
    (ops, identities.len())
}

impl Office {
    fn next_write_id(&mut self) -> WriteId {
        self.last_write = self.last_write.saturating_add(1);
        self.last_write
    }

    pub(super) fn epoch_check(&self) -> Op {
        Op::Check { path: path::CONTROLLER_EPOCH.to_owned(), version: self.election.epoch_version }
    }

    /// Sends the states in as few multis as the limit allows.
    pub(super) fn send_states(&mut self, writes: Vec<StateWrite>, effects: &mut Vec<Effect>) {
        let mut rest = writes;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(MULTI_STATES_MAX));
            let (ops, identities) = state_ops(self.epoch_check(), &rest);
            for write in &rest {
                self.busy.insert(write.key, Busy::Sent);
            }
            let id = self.next_write_id();
            self.pending.insert(id, Pending::States { identities, writes: rest });
            effects.push(Effect::Write { id, ops });
            rest = later;
        }
    }

    /// Sends a topic's creation, growth or deletion; one that the coordinator would refuse by its size,
    /// and close the connection, is refused here.
    pub(super) fn send_topic(&mut self, work: TopicWork, ops: Vec<Op>, effects: &mut Vec<Effect>) {
        if multi_bytes(&ops) > MULTI_BYTES_MAX {
            return self.answer_topic(work, Some(too_large()), effects);
        }
        let id = self.next_write_id();
        self.pending.insert(id, Pending::Topic(Box::new(work)));
        effects.push(Effect::Write { id, ops });
    }

    fn settle_state(&mut self, write: StateWrite, zxid: Zxid) {
        self.busy.insert(write.key, Busy::Until(zxid));
        self.dirty.insert(write.key);
        if let Some(alter) = write.alter {
            self.alters.entry(write.key).or_default().push_front(alter);
        }
    }

    fn states_done(&mut self, writes: Vec<StateWrite>, zxid: Zxid, effects: &mut Vec<Effect>) {
        for mut write in writes {
            if let Some(alter) = write.alter.take() {
                self.answer_alter(&alter, client_protocol::ErrorCode::None, effects);
            }
            self.settle_state(write, zxid);
        }
    }

    /// The operation at `at` found another version: C2.
    fn states_conflict(
        &mut self,
        (identities, mut writes): (usize, Vec<StateWrite>),
        (at, zxid): (usize, Zxid),
        effects: &mut Vec<Effect>,
    ) {
        let first_state = identities.saturating_add(1);
        match at.checked_sub(first_state).filter(|&index| index < writes.len()) {
            Some(index) => {
                let conflicting = writes.remove(index);
                self.settle_state(conflicting, zxid);
                self.send_states(writes, effects);
            }
            // A broker on which the decisions rest has registered anew: all of them are made again.
            None => {
                for write in writes {
                    self.settle_state(write, zxid);
                }
            }
        }
    }
}

impl Controller {
    /// A multi ended.
    pub fn write_done(&mut self, id: WriteId, outcome: WriteOutcome, effects: &mut Vec<Effect>) {
        let Some(office) = &mut self.office else { return };
        let Some(pending) = office.pending.remove(&id) else { return };
        if let WriteOutcome::Conflict { at: 0, .. } = outcome {
            // Another controller raised the epoch: nothing of this is written. It is answered like the rest.
            if let Pending::Topic(work) = pending {
                office.topic_written(*work, outcome, effects);
            }
            self.resign(effects);
            return;
        }
        match pending {
            Pending::States { identities, writes } => match outcome {
                WriteOutcome::Done { zxid } => office.states_done(writes, zxid, effects),
                WriteOutcome::Conflict { at, zxid } => {
                    office.states_conflict((identities, writes), (at, zxid), effects);
                }
                WriteOutcome::Unknown { zxid } => {
                    for write in writes {
                        office.settle_state(write, zxid);
                    }
                }
            },
            Pending::Topic(work) => office.topic_written(*work, outcome, effects),
        }
        self.work(effects);
    }
}
