//! Bringing a follower up by snapshot: both ends of a transfer, and what the engine hears of it.
//!
//! Called by the engine's inputs. Calls `transfer`. Invariant: the engine is told how each transfer
//! that it began ended; it takes a snapshot only when that is whole and checked. It does not know
//! what a snapshot holds.

use raft::SnapshotStatus;
use raft::eraftpb::{Message, MessageType};

use super::engine::Consensus;
use super::log_store::snapshot_head;
use super::output::{Body, ConsensusMessage, Output};
use super::transfer::{self, Chunk, ChunkReceived, Outgoing, Progress};
use crate::{Millis, ServerId};

impl Consensus {
    /// The engine wants `to` to get the offered snapshot.
    pub(super) fn begin_transfer(
        &mut self,
        to: ServerId,
        message: &Message,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        self.outgoing.retain(|transfer| transfer.to != to);
        let head = message.get_snapshot().get_metadata();
        let offered = self.node.store().offered().filter(|image| image.index == head.index);
        let Some(image) = offered.cloned() else {
            self.node.report_snapshot(to.get(), SnapshotStatus::Failure);
            return;
        };
        let mut transfer = Outgoing::new(to, message.term, image, self.chunk_bytes, now);
        send_window(&mut transfer, out);
        self.outgoing.push(transfer);
    }

    /// A follower tells how much it has.
    pub(super) fn on_chunk_received(
        &mut self,
        from: ServerId,
        answer: &ChunkReceived,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Some(at) = self.outgoing.iter().position(|transfer| transfer.to == from) else {
            return;
        };
        let Some(transfer) = self.outgoing.get_mut(at) else { return };
        if transfer.on_received(answer, now) {
            let index = transfer.index();
            self.outgoing.remove(at);
            self.hold_log_sent(index, now);
            self.node.report_snapshot(from.get(), SnapshotStatus::Finish);
            self.withdraw_if_unused();
        } else {
            send_window(transfer, out);
        }
    }

    /// A piece of a snapshot came from the leader.
    pub(super) fn on_chunk(&mut self, from: ServerId, chunk: Chunk, out: &mut Vec<Output>) {
        let head = (chunk.term, chunk.index, chunk.index_term);
        if chunk.term < self.term() || chunk.index <= self.commit_index() {
            return;
        }
        self.heard.hear(chunk.term, chunk.index);
        let (answer, image) = match transfer::receive(&mut self.incoming, from, chunk) {
            Progress::Ignored => return,
            Progress::More(answer) => (answer, None),
            Progress::Whole(answer, image) => (answer, Some(image)),
        };
        let message = ConsensusMessage(Body::ChunkReceived(answer));
        out.push(Output::Send { to: from, message });
        let Some(image) = image else { return };
        if self.queue.is_installing() {
            return;
        }
        let (term, index, index_term) = head;
        self.received = Some(image);
        // A snapshot that does not say who its members are is of an ensemble whose settings do.
        let members = self.members_in(self.received.as_ref());
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgSnapshot);
        message.from = from.get();
        message.to = self.id.get();
        message.term = term;
        message.set_snapshot(snapshot_head(index, index_term, &members));
        if self.node.step(message).is_err() {
            self.received = None;
        }
        self.follow_members();
    }

    /// Gives up transfers and tells the engine, which tries again later.
    pub(super) fn outgoing_failed(&mut self, failed: impl Fn(&Outgoing) -> bool) {
        let lost: Vec<ServerId> =
            self.outgoing.iter().filter(|transfer| failed(transfer)).map(|t| t.to).collect();
        if lost.is_empty() {
            return;
        }
        self.outgoing.retain(|transfer| !lost.contains(&transfer.to));
        for to in lost {
            self.node.report_snapshot(to.get(), SnapshotStatus::Failure);
        }
        self.withdraw_if_unused();
    }

    /// Frees the offered snapshot where nobody is being sent it.
    pub(super) fn withdraw_if_unused(&mut self) {
        if self.outgoing.is_empty() {
            self.node.mut_store().withdraw();
        }
    }
}

fn send_window(transfer: &mut Outgoing, out: &mut Vec<Output>) {
    while let Some(chunk) = transfer.next_chunk() {
        let last = chunk.is_last();
        let message = ConsensusMessage(Body::Chunk(chunk));
        out.push(Output::Send { to: transfer.to, message });
        if last {
            break;
        }
    }
}
