//! Room on the disks: clients' writes are refused before a disk is full, because a full one ends its server.
//!
//! Called by the step (measures of the disk, ticks), `peer` (what others say, links that begin), `request` (may this be
//! written?) and `audit`. Calls consensus. Invariant: the leader decides for all: it refuses while its own disk has little
//! room, or while so many others have that no quorum without them is there; what it says counts in its own term only.
//! A word about little room is said again and again and runs out by itself, so that neither a lost link nor a lost
//! message leaves anybody with another opinion for longer than [`WORD_LASTS_MS`]. What is refused was not sent to anybody;
//! sessions begin, move and end all the while, and nodes can be deleted. It does not know files.
//!
//! ```text
//!   free   0 ......... low mark ......... low mark * 3/2 .........
//!          refused from here down <|      |> served again from here up
//! ```
//! The low mark is the setting and the bytes of the tree, which the next snapshot takes.

use std::collections::BTreeMap;

use coordinator_disk::envelope::{self, Schema};
use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::step::Server;
use crate::state::{TreeOp, WriteOp};
use crate::{Millis, ServerId};

/// Of its own, so that members of a build that does not know these messages drop them and understand all others.
const SCHEMA: Schema = Schema { kind: 0x05, version: 2 };
/// Between two words of one who has little room, or refuses writes.
const WORD_PAUSE_MS: u64 = 1_000;
/// What was said so long ago counts no more: three words may be lost.
const WORD_LASTS_MS: u64 = 4_000;

/// What members tell one another of their room. Who says nothing has enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct RoomWord {
    /// The sender's.
    term: u64,
    /// Whether the sender's disk has little room.
    is_low: bool,
    /// Whether the sender leads in that term and refuses writes.
    is_refused: bool,
}

/// What is known of the room on all disks.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// On this server's disk when it was last measured.
    free_bytes: Option<u64>,
    /// Whether that is too little.
    is_low: bool,
    /// What others said last, and when that came.
    heard: BTreeMap<ServerId, (RoomWord, Millis)>,
    /// On a leader: the term in which it decided last, and whether it refuses writes.
    decided: (u64, bool),
    /// When all others were told last.
    told: Millis,
}

impl Room {
    /// Whether this server's own disk has little room.
    pub(super) fn is_low(&self) -> bool {
        self.is_low
    }

    /// What was free on it when it was last measured.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.free_bytes
    }

    /// What this one said, if it still counts.
    fn word_of(&self, peer: ServerId, now: Millis) -> Option<RoomWord> {
        let (word, at) = self.heard.get(&peer)?;
        (now.since(*at) < WORD_LASTS_MS).then_some(*word)
    }
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

/// A word on room, read and written again.
pub(super) fn rewritten_room_word(bytes: &[u8]) -> Option<Vec<u8>> {
    let word = envelope::decode::<RoomWord>(SCHEMA, bytes).ok()?;
    envelope::encode(SCHEMA, &word).ok()
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
            self.tell_room();
            self.decide_on_room();
        }
        if is_low {
            // That of a snapshot from before too: where writes are refused, none may come that would bring it along.
            self.consensus.discard_now(&mut self.outputs);
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

    /// Decides anew, as time passes, and says again what others must not forget.
    pub(super) fn tend_room(&mut self) {
        self.decide_on_room();
        self.make_room();
        let now = self.now.mono;
        self.room.heard.retain(|_, (_, at)| now.since(*at) < WORD_LASTS_MS);
        let word = self.room_word();
        if (word.is_low || word.is_refused) && now.since(self.room.told) >= WORD_PAUSE_MS {
            self.tell_room();
        }
    }

    /// On a leader: decides anew, and tells the others when that changes. Others do as they are told.
    fn decide_on_room(&mut self) {
        if !self.consensus.is_leader() {
            return;
        }
        let term = self.consensus.term();
        let refused = self.room.is_low || self.needs_a_low_member();
        // Nobody refuses in the name of a new leader.
        let known = self.room.decided == (term, true);
        self.room.decided = (term, refused);
        if refused != known {
            self.tell_room();
        }
    }

    /// What another member said, if it is of this kind.
    pub(super) fn on_room_message(&mut self, from: ServerId, bytes: &[u8]) {
        let Ok(word) = envelope::decode::<RoomWord>(SCHEMA, bytes) else { return };
        self.room.heard.insert(from, (word, self.now.mono));
        self.decide_on_room();
    }

    /// This server's link to the peer begins anew: words may be lost that were sent over the one before. What the peer
    /// says comes over a link of its own.
    pub(super) fn greet_with_room(&mut self, peer: ServerId) {
        if self.room.free_bytes.is_some() {
            self.tell_room_to(peer, self.room_word());
        }
    }

    fn refuses_writes(&self) -> bool {
        let term = self.consensus.term();
        if self.consensus.is_leader() {
            return self.room.decided == (term, true);
        }
        // A term has one leader, known at the moment or not.
        let said = |peer: &ServerId| self.room.word_of(*peer, self.now.mono);
        let mut words = self.room.heard.keys().filter_map(said);
        words.any(|word| word.is_refused && word.term == term)
    }

    /// Whether nothing can be agreed on without a member that has little room.
    fn needs_a_low_member(&self) -> bool {
        let is_low = |member: ServerId| {
            self.room.word_of(member, self.now.mono).is_some_and(|word| word.is_low)
        };
        if !self.room.heard.keys().any(|member| is_low(*member)) {
            return false;
        }
        let members = &self.consensus.members().voters;
        let has_room = |member: &&ServerId| {
            **member == self.config.id || self.consensus.is_peer_up(**member) && !is_low(**member)
        };
        members.iter().filter(has_room).count() <= members.len() / 2
    }

    fn low_mark_bytes(&self) -> u64 {
        match self.config.disk_free_bytes_min {
            0 => 0,
            bytes => bytes.saturating_add(self.state.tree().bytes()),
        }
    }

    fn room_word(&self) -> RoomWord {
        let is_refused = self.consensus.is_leader() && self.refuses_writes();
        RoomWord { term: self.consensus.term(), is_low: self.room.is_low, is_refused }
    }

    fn tell_room(&mut self) {
        self.room.told = self.now.mono;
        let word = self.room_word();
        let members = self.consensus.members();
        let all: Vec<ServerId> = members.voters.union(&members.learners).copied().collect();
        for peer in all {
            if peer != self.config.id {
                self.tell_room_to(peer, word);
            }
        }
    }

    fn tell_room_to(&mut self, to: ServerId, word: RoomWord) {
        // Of a few bytes: only a message beyond the envelope's size fails.
        if let Ok(bytes) = envelope::encode(SCHEMA, &word) {
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
        for (is_low, is_refused) in [(false, false), (true, false), (false, true)] {
            let word = RoomWord { term: 7, is_low, is_refused };
            let bytes = envelope::encode(SCHEMA, &word).unwrap();
            assert_eq!(&bytes[..8], b"TGEV\x05\x00\x02\x00");
            assert_eq!(bytes[envelope::HEADER_BYTES..], [7, is_low.into(), is_refused.into()]);
            assert_eq!(envelope::decode::<RoomWord>(SCHEMA, &bytes), Ok(word));
        }
    }
}
