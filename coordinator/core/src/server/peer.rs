//! Messages between members: one versioned envelope for all of them.
//!
//! Called by the step (in) and by all that sends (out). Calls consensus, `proposals`, `office`.
//! Invariant: what cannot be decoded, or comes from a stranger, changes nothing. It does not know
//! sockets; streams are ordered, and what is sent over a broken one is lost.

use bytes::Bytes;
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use coordinator_protocol::SessionId;
use serde::{Deserialize, Serialize};

use super::alike::rewritten_alike_word;
use super::effect::Effect;
use super::room::rewritten_room_word;
use super::step::Server;
use crate::ServerId;
use crate::consensus::ConsensusMessage;
use crate::members::Members;
use crate::state::Command;

const SCHEMA: Schema = Schema { kind: 0x04, version: 2 };
/// The form that has [`PeerMessage::Transfer`] and changes of the members, and is otherwise the same. A message goes out in the first
/// form that has it: members of the build before understand all others while an ensemble is upgraded.
const SCHEMA_3: Schema = Schema { kind: 0x04, version: 3 };
/// The form that has [`PeerMessage::Members`], likewise.
const SCHEMA_4: Schema = Schema { kind: 0x04, version: 4 };

/// What one member tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PeerMessage {
    /// For the consensus engine.
    Consensus(ConsensusMessage),
    /// Commands for the leader's queue, in order.
    Forward(Vec<Command>),
    /// Sessions that were heard from, with how long ago, in milliseconds.
    Touched(Vec<(SessionId, u64)>),
    /// Sessions whose socket was closed by the client's side, with their generation.
    Lost(Vec<(SessionId, u64)>),
    /// The leader dropped commands of this server for want of room, and has room now.
    Resend,
    /// An operator wants this member to lead, or the most suitable one.
    Transfer(Option<ServerId>),
    /// Who has a part and where, as of an entry of the log; the first thing that is said on a link.
    Members(u64, Members),
}

impl PeerMessage {
    fn schema(&self) -> Schema {
        match self {
            Self::Consensus(message) if message.brings_members() => SCHEMA_3,
            Self::Forward(commands) if commands.iter().any(Command::is_of_members) => SCHEMA_3,
            Self::Consensus(_)
            | Self::Forward(_)
            | Self::Touched(_)
            | Self::Lost(_)
            | Self::Resend => SCHEMA,
            Self::Transfer(_) => SCHEMA_3,
            Self::Members(..) => SCHEMA_4,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        envelope::encode(self.schema(), self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        match envelope::decode(SCHEMA, bytes) {
            Err(EnvelopeError::Schema { found: SCHEMA_3, .. }) => envelope::decode(SCHEMA_3, bytes),
            Err(EnvelopeError::Schema { found: SCHEMA_4, .. }) => envelope::decode(SCHEMA_4, bytes),
            decoded => decoded,
        }
    }
}

/// What one member told another, read and written again; `None` for bytes that say nothing. All that tests of another crate
/// need to know of these messages.
#[must_use]
pub fn rewritten_message(bytes: &[u8]) -> Option<Vec<u8>> {
    match PeerMessage::decode(bytes) {
        Ok(message) => message.encode().ok(),
        Err(_) => rewritten_room_word(bytes).or_else(|| rewritten_alike_word(bytes)),
    }
}

impl Server {
    pub(super) fn send_peer(&mut self, to: ServerId, message: &PeerMessage) {
        // Only a message beyond the envelope's size fails, and all of them are cut far below.
        if let Ok(bytes) = message.encode() {
            self.effects.push(Effect::SendPeer { to, bytes: bytes.into() });
        }
    }

    pub(super) fn send_consensus(&mut self, to: ServerId, message: ConsensusMessage) {
        self.send_peer(to, &PeerMessage::Consensus(message));
    }

    pub(super) fn on_peer_message(&mut self, from: ServerId, bytes: &Bytes) {
        if from == self.config.id {
            return;
        }
        let decoded = PeerMessage::decode(bytes);
        if let Ok(PeerMessage::Members(index, servers)) = decoded {
            // Who missed that others joined does not know them, and has to hear it from them.
            return self.on_members_told(index, servers);
        }
        if !self.consensus.is_acquainted_with(from) {
            return;
        }
        let Ok(message) = decoded else {
            if !self.on_alike_message(from, bytes) {
                self.on_room_message(from, bytes);
            }
            return;
        };
        let now = self.now.mono;
        match message {
            PeerMessage::Consensus(message) => {
                self.consensus.on_message(from, message, now, &mut self.outputs);
            }
            PeerMessage::Forward(commands) => {
                for command in commands {
                    self.queue_command(from, command);
                }
            }
            PeerMessage::Touched(touched) => {
                for (session, age_ms) in touched {
                    self.office.touch(session, age_ms, now);
                }
            }
            PeerMessage::Lost(lost) => {
                for (session, generation) in lost {
                    self.begin_grace(session, generation);
                }
            }
            PeerMessage::Resend => {
                if self.consensus.leader() == Some(from) {
                    self.link.resend_at_once();
                }
            }
            PeerMessage::Members(..) => {}
            PeerMessage::Transfer(to) => self.consensus.hand_over(to, now, &mut self.outputs),
        }
    }

    pub(super) fn on_peer_up(&mut self, peer: ServerId) {
        if !self.consensus.is_acquainted_with(peer) || peer == self.config.id {
            return;
        }
        self.link.broke(peer);
        self.consensus.on_peer_up(peer, self.now.mono, &mut self.outputs);
        self.greet_with_members(peer);
        self.greet_with_room(peer);
        self.greet_with_limits(peer);
    }

    pub(super) fn on_peer_lost(&mut self, peer: ServerId) {
        self.forget_limits_of(peer);
        self.link.broke(peer);
        self.consensus.on_peer_lost(peer, self.now.mono, &mut self.outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::Member;

    /// Members of different versions exchange these bytes: a change is a new schema version.
    #[test]
    fn golden_bytes_stay() {
        let session = SessionId::new(0x0102);
        let check_in = |version: u8, message: PeerMessage, payload: &[u8]| {
            let bytes = envelope::encode(message.schema(), &message).unwrap();
            assert_eq!(&bytes[..6], b"TGEV\x04\x00");
            assert_eq!(&bytes[6..8], [version, 0]);
            assert_eq!(&bytes[envelope::HEADER_BYTES..], payload, "{message:?}");
            assert_eq!(PeerMessage::decode(&bytes), Ok(message));
        };
        let check = |message, payload: &[u8]| check_in(2, message, payload);
        let expire = Command::Expire { session, generation: 7 };
        check(PeerMessage::Forward(vec![expire]), &[1, 1, 3, 0xfb, 0x04, 0x02, 7]);
        check(PeerMessage::Touched(vec![(session, 9)]), &[2, 1, 0xfb, 0x04, 0x02, 9]);
        check(PeerMessage::Lost(vec![(session, 1)]), &[3, 1, 0xfb, 0x04, 0x02, 1]);
        check(PeerMessage::Resend, &[4]);
        check_in(3, PeerMessage::Transfer(None), &[5, 0]);
        check_in(3, PeerMessage::Transfer(ServerId::new(3)), &[5, 1, 3]);
        let one = (ServerId::new(1).unwrap(), Member::parse("a:1:2").unwrap());
        let members = PeerMessage::Members(9, [one].into());
        check_in(4, members, &[6, 9, 1, 1, 1, b'a', 1, 2, 0, 0]);
    }
}
