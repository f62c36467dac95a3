//! Draining the engine: its Readys become outputs, in the order that keeps them safe.
//!
//! Called by the engine's inputs. Calls the log store and the persist queue. Invariant: of each
//! Ready the leader's messages go first (they may overtake the sync of its entries, not that of its
//! term and vote), then what is committed and durable is given out, then the write is asked for; votes and acknowledgements of entries wait
//! in the persist queue until the write and all earlier ones are durable. Answers to heartbeats,
//! which speak of the term alone, wait for a new term only. Many Readys may be on their way. It does not know why the engine made a Ready.

use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{Ready, StateRole};

use super::election::Phase;
use super::engine::Consensus;
use super::message::{self, log_entry};
use super::output::{Body, ConsensusMessage, Output};
use super::persist_queue::Held;
use super::record::{HardState, PersistWrite, SnapshotImage};
use crate::{Millis, ServerId};

impl Consensus {
    /// To be called at the end of each input.
    pub(super) fn after_input(&mut self, now: Millis, out: &mut Vec<Output>) {
        while !self.halted && self.node.has_ready() {
            let was_leading = self.led_term == self.term() && self.is_leader();
            self.drain_one(now, out);
            if self.is_leader() && !was_leading {
                self.reads.forget_round();
            }
        }
        let calm_term = self.led_term.max(self.first_term);
        let begun = self.term().saturating_sub(calm_term);
        self.election.count_lost(begun.saturating_sub(1));
        let phase = self.phase();
        if phase == Phase::Settled {
            self.led_term = self.term();
        }
        self.election.observe(phase, now);
        self.set_jitter();
        if self.node.store().take_wanted() {
            out.push(Output::SnapshotWanted);
        }
    }

    /// Puts our draw in the place of the engine's, which comes from the thread's generator.
    pub(super) fn set_jitter(&mut self) {
        let raft = &mut self.node.raft;
        let min = raft.election_timeout();
        let ticks = self.election.timeout_ticks(raft.term, min, min.saturating_mul(2));
        raft.set_randomized_election_timeout(ticks);
    }

    fn drain_one(&mut self, now: Millis, out: &mut Vec<Output>) {
        let mut ready = self.node.ready();
        if let Some(soft) = ready.ss() {
            if soft.raft_state == StateRole::Leader {
                self.contact.begin_leading();
            } else {
                self.contact.end_leading(now);
            }
            if soft.raft_state != StateRole::Leader {
                self.outgoing.clear();
                self.node.mut_store().withdraw();
                self.let_log_go();
            }
        }
        let of_office = ready.take_messages();
        let (write, install) = self.take_write(&mut ready);
        for read in ready.take_read_states() {
            for id in self.reads.confirm(&read.request_ctx) {
                out.push(Output::ReadReady { id, index: read.index });
            }
        }
        let committed = ready.take_committed_entries();
        let mut messages = self.send_unpromising(ready.take_persisted_messages(), now, out);
        messages.extend(self.send_of_office(of_office, now, out));
        let number = ready.number();
        let bytes = write.as_ref().map_or(0, PersistWrite::entry_bytes);
        self.node.advance_append_async(ready);
        self.give_out(committed, out);
        if self.vote_pending_since.is_none() && !self.queue.holds_vote(&self.hard) {
            self.vote_pending_since = Some(now);
        }
        let after = match write {
            Some(write) => {
                let id = self.queue.next_id();
                if planted!(self.planted, AcknowledgeBeforeSync) {
                    self.queue.persisted(id);
                }
                out.push(Output::Persist { id, write });
                id
            }
            None => self.queue.last_id(),
        };
        self.queue.hold(Held { after, number, messages, install, hard: self.hard, bytes });
        self.release(now, out);
        // Reads that came during a round share the next one.
        self.begin_read_round(now);
    }

    /// Sends what a leader says while its own disk is still busy with it, and gives back what has to wait. An only voter
    /// leads before its vote is on the disk, and may lead the same term again after a power cut, with another log: those who
    /// have no vote would keep what they had of the first.
    fn send_of_office(
        &mut self,
        messages: Vec<Message>,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> Vec<Message> {
        if !self.queue.holds_vote(&self.hard) {
            return messages;
        }
        for message in messages {
            self.send(message, now, out);
        }
        Vec::new()
    }

    /// Sends what promises nothing about an entry, a term or a vote that is not on disk, and gives back
    /// the rest: a follower whose disk is slow is there all the same, and its leader must know.
    fn send_unpromising(
        &mut self,
        messages: Vec<Message>,
        now: Millis,
        out: &mut Vec<Output>,
    ) -> Vec<Message> {
        let durable = self.queue.holds_vote(&self.hard);
        let mut promises = Vec::new();
        for message in messages {
            let unpromising = match message.msg_type {
                MessageType::MsgHeartbeatResponse => durable && message.term == self.hard.term,
                MessageType::MsgReadIndex => true,
                _ => false,
            };
            if unpromising {
                self.send(message, now, out);
            } else {
                promises.push(message);
            }
        }
        promises
    }

    /// Moves what the Ready wants written into the log store, and says what must reach the disk. A
    /// commit index alone is not worth a write: it goes along with the next.
    fn take_write(&mut self, ready: &mut Ready) -> (Option<PersistWrite>, Option<SnapshotImage>) {
        let mut write = PersistWrite::default();
        if let Some(hard) = ready.hs() {
            let hard = HardState { term: hard.term, vote: hard.vote, commit: hard.commit };
            write.sync = hard.term != self.hard.term || hard.vote != self.hard.vote;
            self.hard = hard;
        }
        if !ready.snapshot().is_empty() {
            let head = ready.snapshot().get_metadata();
            let image = self.received.take().filter(|image| image.index == head.index);
            let image = image.expect("the engine only takes snapshots that were received whole");
            self.node.mut_store().install(image.index, image.term);
            // What stood in the log is in it, or never was agreed on.
            self.founding = None;
            write.install = Some(image);
            write.sync = true;
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            self.node.mut_store().append(&entries);
            write.entries = entries.into_iter().map(log_entry).collect();
            for entry in &write.entries {
                self.note_appended((entry.index, entry.kind), &entry.data);
            }
            write.sync = true;
        }
        if !write.sync {
            return (None, None);
        }
        // Not further than what is durable already: a torn write may keep this and lose the entries.
        let commit = self.hard.commit.min(self.node.raft.raft_log.persisted);
        write.hard_state = Some(HardState { commit, ..self.hard });
        write.discard_to = self.discard_to.take();
        let install = write.install.clone();
        (Some(write), install)
    }

    fn give_out(&mut self, committed: Vec<raft::eraftpb::Entry>, out: &mut Vec<Output>) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        for entry in committed {
            assert!(
                entry.index == self.applied.saturating_add(1),
                "committed entry {} after {}",
                entry.index,
                self.applied
            );
            self.applied = entry.index;
            let (index, term) = (entry.index, entry.term);
            if entry.entry_type == EntryType::EntryNormal {
                out.push(Output::Apply { index, term, data: entry.data });
                continue;
            }
            match self.apply_change(&entry.context) {
                Some(ids) => out.push(Output::ApplyMembers { index, term, ids }),
                // Every member would do the same with it; going on would split their quorums.
                None => return self.halt("a committed change of the members cannot be read", out),
            }
        }
        self.node.advance_apply_to(last);
        self.bound_log();
    }

    /// Lets go of every Ready whose writes are durable.
    pub(super) fn release(&mut self, now: Millis, out: &mut Vec<Output>) {
        while let Some(held) = self.queue.release() {
            self.node.on_persist_ready(held.number);
            if let Some(image) = held.install {
                self.applied = image.index;
                self.node.advance_apply_to(image.index);
                out.push(Output::Install { image });
            }
            for message in held.messages {
                self.send(message, now, out);
            }
        }
        if self.queue.holds_vote(&self.hard)
            && let Some(since) = self.vote_pending_since.take()
        {
            self.election.vote_kept(now.since(since), now);
        }
    }

    pub(super) fn send(&mut self, message: Message, now: Millis, out: &mut Vec<Output>) {
        let Some(to) = ServerId::new(message.to) else { return };
        if message.msg_type == MessageType::MsgSnapshot {
            self.begin_transfer(to, &message, now, out);
            return;
        }
        let proof = self.contact.proof(to, message.term == self.term(), now);
        if let Some(message) = message::outgoing(message) {
            let message = message.with_leaders_commit(self.commit_index());
            let message = ConsensusMessage(Body::Raft { message, proof });
            out.push(Output::Send { to, message });
        }
    }
}
