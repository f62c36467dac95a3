//! One member of a group.
//!
//! *Called by* `state` and the files of the requests. Invariant: a member that waits for an answer
//! (`join` or `sync`) is not expired for silence, apart from a newcomer's long wait. Does not know
//! its group.

use bytes::Bytes;

use super::message::Ticket;
use super::record::MemberValue;
use super::settings::MEMBER_ENTRY_BYTES;
use crate::ids::Millis;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// What it can do, preferred first, with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// The JoinGroup that waits.
    pub join: Option<Ticket>,
    /// The SyncGroup that waits.
    pub sync: Option<Ticket>,
    /// When its silence ends its membership.
    pub expires: Millis,
    /// It joined this generation and has not asked for its work.
    pub must_sync: bool,
    /// It was in no generation yet.
    pub newcomer: bool,
}

impl Member {
    /// How it is stored, with its metadata for `protocol`.
    pub fn to_value(&self, protocol: &str) -> MemberValue {
        MemberValue {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
        }
    }

    /// From what was stored; its session begins at `now`.
    pub fn from_value(value: MemberValue, protocol: &str, now: Millis) -> Self {
        let mut member = Self {
            id: value.member_id,
            instance_id: value.instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            session_timeout_ms: value.session_timeout_ms,
            protocols: vec![(protocol.to_owned(), value.subscription)],
            assignment: value.assignment,
            join: None,
            sync: None,
            expires: now,
            must_sync: false,
            newcomer: false,
        };
        member.heard(now);
        member
    }

    /// A sign of life.
    pub fn heard(&mut self, now: Millis) {
        self.expires = now.plus(u64::try_from(self.session_timeout_ms).unwrap_or(0));
    }

    /// When it is to be taken out for silence; `None` while an answer is owed to it.
    pub fn deadline(&self) -> Option<Millis> {
        let owed = self.join.is_some() || self.sync.is_some();
        (!owed || self.newcomer && self.join.is_some()).then_some(self.expires)
    }

    /// What the leader must know of it for `protocol`; empty when it does not know that.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        let known = self.protocols.iter().find(|(name, _)| name == protocol);
        known.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Bytes that clients made it hold.
    pub fn bytes(&self) -> usize {
        let protocols =
            self.protocols.iter().map(|(name, data)| name.len().saturating_add(data.len()));
        protocols.fold(self.id.len(), usize::saturating_add)
    }

    /// About how much memory it takes, apart from its work.
    pub fn held_bytes(&self) -> usize {
        let instance = self.instance_id.as_ref().map_or(0, String::len);
        let names = [instance, self.client_id.len(), self.client_host.len(), MEMBER_ENTRY_BYTES];
        names.into_iter().fold(self.bytes(), usize::saturating_add)
    }
}
