//! How many sessions each client has made here.
//!
//! Called by `handshake`, before a session is proposed, and by `session`, when one is over. Calls nothing. Invariant: of the
//! sessions that live and were made here for one client, by its certificate or address, there are at most as many as the setting
//! says; what never came to life does not count for long. Each server counts its own, since it started: sessions have no
//! client in the log. It does not know who is a client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coordinator_protocol::SessionId;

use super::audit::bounded;
use super::identity;
use super::notices::Notice;
use super::step::Server;
use crate::{ConnectionId, Millis};

/// Between two looks for sessions of a client at its limit that never came to life.
const SWEEP_PAUSE_MS: u64 = 10_000;
/// So many more than twice what lived at the last look are looked through, whoever's they are.
const SWEEP_CLAIMS_MIN: usize = 10_000;

/// Sessions that were proposed here.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_client: BTreeMap<Arc<str>, BTreeSet<SessionId>>,
    clients: BTreeMap<SessionId, Arc<str>>,
    swept: Option<Millis>,
    /// How many there were after the last look through all.
    left: usize,
}

impl Claims {
    fn count(&self, client: &str) -> usize {
        self.by_client.get(client).map_or(0, BTreeSet::len)
    }

    fn add(&mut self, client: Arc<str>, session: SessionId) {
        self.by_client.entry(client.clone()).or_default().insert(session);
        self.clients.insert(session, client);
    }

    /// A session is over, or will never be.
    pub(super) fn forget(&mut self, session: SessionId) {
        let Some(client) = self.clients.remove(&session) else { return };
        let Some(sessions) = self.by_client.get_mut(&client) else { return };
        sessions.remove(&session);
        if sessions.is_empty() {
            self.by_client.remove(&client);
        }
    }

    /// Those of a client, or all.
    fn sessions(&self, client: Option<&str>) -> Vec<SessionId> {
        match client {
            Some(client) => self.by_client.get(client).into_iter().flatten().copied().collect(),
            None => self.clients.keys().copied().collect(),
        }
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        let count: usize = self.by_client.values().map(BTreeSet::len).sum();
        assert_eq!(count, self.clients.len());
        assert!(self.by_client.values().all(|sessions| !sessions.is_empty()));
    }
}

impl Server {
    /// Whether the client of this connection may have one more session; counts it if so.
    pub(super) fn claim_session(&mut self, id: ConnectionId, session: SessionId) -> bool {
        let limit = self.config.sessions_per_client_max;
        let Some(held) = self.connections.get(id).filter(|_| limit > 0) else { return true };
        let client = identity::client(&held.identities);
        let now = self.now.mono;
        let may_look = self.claims.swept.is_none_or(|last| now.since(last) >= SWEEP_PAUSE_MS);
        if self.claims.clients.len() > 2 * self.claims.left + SWEEP_CLAIMS_MIN {
            self.sweep_claims(None);
            self.claims.left = self.claims.clients.len();
        } else if self.claims.count(&client) >= limit && may_look {
            self.claims.swept = Some(now);
            self.sweep_claims(Some(&client));
        }
        if self.claims.count(&client) >= limit {
            self.note_refused_session(id, limit);
            return false;
        }
        self.claims.add(client, session);
        true
    }

    /// A session cannot be had, by this client or at all.
    pub(super) fn note_refused_session(&mut self, id: ConnectionId, limit: usize) {
        let counted = &mut self.counters.counted;
        counted.refused_sessions = counted.refused_sessions.saturating_add(1);
        let Some(held) = self.connections.get(id) else { return };
        let client = bounded(&identity::client(&held.identities));
        self.note(Notice::SessionRefused { client, limit });
    }

    /// Forgets sessions that are over unheard, with a snapshot, and those whose proposal was lost with its connection.
    fn sweep_claims(&mut self, client: Option<&str>) {
        let handshakes = self.connections.iter().filter_map(|(_, held)| held.handshake());
        let proposed: BTreeSet<SessionId> =
            handshakes.filter_map(|handshake| handshake.command.as_ref()?.new_session()).collect();
        for session in self.claims.sessions(client) {
            if self.state.session(session).is_none() && !proposed.contains(&session) {
                self.claims.forget(session);
            }
        }
    }
}
