//! What all members should have alike, and do not: how large a request may be.
//!
//! Called by the step (links, ticks) and `peer` (what others say). Calls `notices`. Invariant: it is only told of, in the log of
//! each side: every server closes its own clients by its own limit, and takes from other members whatever they took. Who
//! has what all have unless told says nothing until another is heard of. It does not know settings' names.

use std::collections::BTreeMap;

use coordinator_disk::envelope::{self, Schema};
use coordinator_protocol::FRAME_BYTES_MAX;
use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::notices::Notice;
use super::step::Server;
use crate::ServerId;

/// Of its own, so that members of a build that does not know these messages drop them and understand all others.
const SCHEMA: Schema = Schema { kind: 0x06, version: 1 };

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct AlikeWord {
    request_bytes_max: u64,
}

/// What is known of the others.
#[derive(Debug, Default)]
pub(super) struct Alike {
    /// Whose largest request is another than this server's, since their link came up.
    others: BTreeMap<ServerId, u64>,
    /// As people have heard of it.
    told: BTreeMap<ServerId, u64>,
}

/// A word on what is alike, read and written again.
pub(super) fn rewritten_alike_word(bytes: &[u8]) -> Option<Vec<u8>> {
    let word = envelope::decode::<AlikeWord>(SCHEMA, bytes).ok()?;
    envelope::encode(SCHEMA, &word).ok()
}

impl Server {
    /// This server's link to the peer begins anew.
    pub(super) fn greet_with_limits(&mut self, peer: ServerId) {
        if self.config.request_bytes_max != FRAME_BYTES_MAX {
            self.tell_limits_to(peer);
        }
    }

    /// What another member said, if it is of this kind; whether it was.
    pub(super) fn on_alike_message(&mut self, from: ServerId, bytes: &[u8]) -> bool {
        let Ok(word) = envelope::decode::<AlikeWord>(SCHEMA, bytes) else { return false };
        let own = self.config.request_bytes_max;
        if word.request_bytes_max == own as u64 {
            self.alike.others.remove(&from);
            return true;
        }
        self.alike.others.insert(from, word.request_bytes_max);
        if own == FRAME_BYTES_MAX {
            // The others have said so when their links began.
            self.tell_limits_to(from);
        }
        true
    }

    /// Whoever comes again says it again.
    pub(super) fn forget_limits_of(&mut self, peer: ServerId) {
        self.alike.others.remove(&peer);
        self.alike.told.remove(&peer);
    }

    /// Has people hear of what is new, all of it in one notice, as soon as there may be one.
    pub(super) fn tend_alike(&mut self) {
        let Alike { others, told } = &self.alike;
        let is_new = |(peer, bytes): (&ServerId, &u64)| told.get(peer) != Some(bytes);
        if !others.iter().any(is_new) {
            return;
        }
        let others = others.clone();
        let own = (self.config.id, self.config.request_bytes_max as u64);
        let notice =
            Notice::UnlikeLimits { own, others: others.iter().map(|(id, n)| (*id, *n)).collect() };
        if self.has_place_for(&notice) {
            self.note(notice);
            self.alike.told = others;
        }
    }

    fn tell_limits_to(&mut self, to: ServerId) {
        let word = AlikeWord { request_bytes_max: self.config.request_bytes_max as u64 };
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
        let word = AlikeWord { request_bytes_max: 0x0102 };
        let bytes = envelope::encode(SCHEMA, &word).unwrap();
        assert_eq!(&bytes[..8], b"TGEV\x06\x00\x01\x00");
        assert_eq!(&bytes[envelope::HEADER_BYTES..], [0xfb, 0x02, 0x01]);
        assert_eq!(rewritten_alike_word(&bytes), Some(bytes));
    }
}
