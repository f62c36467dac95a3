//! Room on the disks: clients' writes are refused before a disk is full, because a full one ends its server.
//!
//! Called by the step (measures, ticks), `peer` (what others say) and `request` (may this be written?). Calls
//! consensus. Invariant: the leader decides for all: it refuses while its own disk has little room, or while so many
//! others have that no quorum without them is there. A member that has little room alone holds up nobody. What is
//! refused was not sent to anybody; sessions begin, move and end all the while, and nodes can be deleted. It does
//! not know files.
//!
//! ```text
//!   free   0 ......... low mark ......... low mark * 3/2 .........
//!          refused from here down <|      |> served again from here up
//! ```
//! The low mark is the setting and the bytes of the tree, which the next snapshot takes.

use std::collections::BTreeSet;

use coordinator_disk::envelope::{self, Schema};
use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::step::Server;
use crate::ServerId;
use crate::state::{TreeOp, WriteOp};

/// Of its own, so that members of a build that does not know these messages drop them and understand all others.
const SCHEMA: Schema = Schema { kind: 0x05, version: 1 };

/// What members tell one another of their room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum RoomMessage {
    /// Whether the sender's disk has little room.
    Low(bool),
    /// From a leader: whether writes are refused.
    Refused(bool),
}

/// What is known of the room on all disks.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// On this server's disk when it was last measured.
    free_bytes: Option<u64>,
    /// Whether that is too little.
    is_low: bool,
    /// Others who said that they have little.
    low_members: BTreeSet<ServerId>,
    /// On a leader: what it told the others last, and in which term.
    told: (u64, bool),
    /// Who said last, as a leader, that writes are refused.
    refused_by: Option<ServerId>,
}

/// For the log of the shell, and for `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskRoom {
    /// Free bytes of this server's disk, if they were measured.
    pub free_bytes: Option<u64>,
    /// Below as many its room is little; 0 if it never is.
    pub low_mark_bytes: u64,
    /// Whether it is, and has not grown enough since.
    pub is_low: bool,
    /// Whether this server refuses clients' writes because of its own disk or others'.
    pub refuses_writes: bool,
}

impl Server {
    /// A reading for the log of the shell; cheap.
    #[must_use]
    pub fn disk_room(&self) -> DiskRoom {
        DiskRoom {
            free_bytes: self.room.free_bytes,
            low_mark_bytes: self.low_mark_bytes(),
            is_low: self.room.is_low,
            refuses_writes: self.refuses_writes(),
        }
    }

    /// The disk was measured.
    pub(super) fn on_disk_room(&mut self, free_bytes: u64) {
        self.room.free_bytes = Some(free_bytes);
        let low_mark = self.low_mark_bytes();
        let high_mark = low_mark.saturating_add(low_mark / 2);
        let is_low = free_bytes < if self.room.is_low { high_mark } else { low_mark };
        if is_low != self.room.is_low {
            self.room.is_low = is_low;
            self.tell_room(&RoomMessage::Low(is_low));
            self.decide_on_room();
        }
    }

    /// Whether what the client asks for has to wait for room. What is part of a session, and what makes nodes fewer,
    /// has not: it takes a few bytes of what the mark keeps free, and is how room comes back.
    pub(super) fn has_no_room_for(&self, op: &WriteOp) -> bool {
        let is_small = |op: &TreeOp| matches!(op, TreeOp::Delete(_) | TreeOp::Check(_));
        let passes = match op {
            WriteOp::Tree(op) => is_small(op),
            WriteOp::Multi(ops) => ops.iter().all(is_small),
            // Another server may be what is missing.
            WriteOp::CloseSession | WriteOp::SessionOptions { .. } | WriteOp::Reconfig(_) => true,
        };
        !passes && self.refuses_writes()
    }

    /// On a leader: decides anew, and tells the others when that changes. Others do as they are told.
    pub(super) fn decide_on_room(&mut self) {
        if !self.consensus.is_leader() {
            return;
        }
        let term = self.consensus.term();
        let refused = self.room.is_low || self.needs_a_low_member();
        // Nobody refuses in the name of a new leader.
        let known = self.room.told == (term, true);
        self.room.told = (term, refused);
        if refused != known {
            self.tell_room(&RoomMessage::Refused(refused));
        }
    }

    /// What another member said, if it is of this kind.
    pub(super) fn on_room_message(&mut self, from: ServerId, bytes: &[u8]) {
        let Ok(message) = envelope::decode::<RoomMessage>(SCHEMA, bytes) else { return };
        match message {
            RoomMessage::Low(true) => {
                self.room.low_members.insert(from);
            }
            RoomMessage::Low(false) => {
                self.room.low_members.remove(&from);
            }
            RoomMessage::Refused(true) => self.room.refused_by = Some(from),
            RoomMessage::Refused(false) => self.forget_refusal(from),
        }
        self.decide_on_room();
    }

    /// The stream with this peer begins anew: neither side knows anything of the other.
    pub(super) fn greet_with_room(&mut self, peer: ServerId) {
        self.forget_room_of(peer);
        if self.room.is_low {
            self.tell_room_to(peer, &RoomMessage::Low(true));
        }
        if self.consensus.is_leader() && self.refuses_writes() {
            self.tell_room_to(peer, &RoomMessage::Refused(true));
        }
    }

    pub(super) fn forget_room_of(&mut self, peer: ServerId) {
        self.room.low_members.remove(&peer);
        self.forget_refusal(peer);
    }

    fn forget_refusal(&mut self, by: ServerId) {
        if self.room.refused_by == Some(by) {
            self.room.refused_by = None;
        }
    }

    fn refuses_writes(&self) -> bool {
        if self.consensus.is_leader() {
            return self.room.told == (self.consensus.term(), true);
        }
        self.room.refused_by.is_some() && self.room.refused_by == self.consensus.leader()
    }

    /// Whether nothing can be agreed on without a member that has little room.
    fn needs_a_low_member(&self) -> bool {
        if self.room.low_members.is_empty() {
            return false;
        }
        let members = &self.consensus.members().voters;
        let has_room = |member: &&ServerId| {
            **member == self.config.id
                || self.consensus.is_peer_up(**member) && !self.room.low_members.contains(*member)
        };
        members.iter().filter(has_room).count() <= members.len() / 2
    }

    fn low_mark_bytes(&self) -> u64 {
        match self.config.disk_free_bytes_min {
            0 => 0,
            bytes => bytes.saturating_add(self.state.tree().bytes()),
        }
    }

    fn tell_room(&mut self, message: &RoomMessage) {
        let members = self.consensus.members();
        let all: Vec<ServerId> = members.voters.union(&members.learners).copied().collect();
        for peer in all {
            if peer != self.config.id {
                self.tell_room_to(peer, message);
            }
        }
    }

    fn tell_room_to(&mut self, to: ServerId, message: &RoomMessage) {
        // Of a few bytes: only a message beyond the envelope's size fails.
        if let Ok(bytes) = envelope::encode(SCHEMA, message) {
            self.effects.push(Effect::SendPeer { to, bytes: bytes.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members of different versions exchange these bytes: a change is a new schema version.
    #[test]
    fn golden_bytes_stay() {
        for (message, payload) in [
            (RoomMessage::Low(true), [0, 1]),
            (RoomMessage::Low(false), [0, 0]),
            (RoomMessage::Refused(true), [1, 1]),
        ] {
            let bytes = envelope::encode(SCHEMA, &message).unwrap();
            assert_eq!(&bytes[..8], b"TGEV\x05\x00\x01\x00");
            assert_eq!(bytes[envelope::HEADER_BYTES..], payload, "{message:?}");
            assert_eq!(envelope::decode::<RoomMessage>(SCHEMA, &bytes), Ok(message));
        }
    }
}
