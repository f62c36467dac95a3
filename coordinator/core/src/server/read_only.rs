//! Without a quorum: reads for clients that asked for that, if this server may.
//!
//! Called by the step's ticks, `request` and `quorum`. Calls `handshake`. Invariant (safety.md A7 governs all others):
//! only a client whose handshake said that it wants to read only is answered without a quorum, of a state that was
//! committed and may be old, never older than what it has seen; nothing that it says reaches the log, nor did its
//! handshake; all such connections are closed once a quorum is heard of. It does not know why there is none.
//!
//! Their sessions are of generation 0, which no session of the log has: those that came with a session of the log hold
//! it here only, and new ones are this server's own and mean nothing elsewhere.

use std::collections::BTreeMap;

use coordinator_protocol::{ConnectRequest, SessionId, SessionPassword};

use super::connection::{Handshake, Session};
use super::limits::LOCAL_SESSIONS_MAX;
use super::step::Server;
use crate::{ConnectionId, Millis};

/// Of sessions that are not of the log.
const GENERATION: u64 = 0;

/// What a server without a quorum knows of its clients.
#[derive(Debug, Default)]
pub(super) struct ReadOnly {
    /// When this process began.
    began: Option<Millis>,
    is_on: bool,
    /// Sessions of its own, so that their clients can come back.
    local: BTreeMap<SessionId, SessionPassword>,
}

impl Session {
    /// Whether it may read only.
    pub(super) fn is_read_only(&self) -> bool {
        self.generation == GENERATION
    }
}

impl Server {
    /// Whether clients that asked for it are served without a quorum at this moment.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.is_on
    }

    /// Connections whose session is not the ensemble's.
    pub(super) fn local_session_count(&self) -> usize {
        let sessions = self.connections.iter().filter_map(|(_, held)| held.session());
        sessions.filter(|session| session.is_read_only()).count()
    }

    /// Begins or ends to serve without a quorum, and looks after those who are served so.
    pub(super) fn tend_read_only(&mut self) {
        if !self.config.read_only_mode {
            return;
        }
        let (now, limit_ms) = (self.now.mono, self.config.unconfirmed_ms_max);
        let began = *self.read_only.began.get_or_insert(now);
        // One that left the ensemble knows nothing of it any more.
        let is_cut_off =
            !self.is_confirmed_within(limit_ms) && now.since(began) >= limit_ms && self.is_member();
        self.read_only.is_on = is_cut_off;
        if is_cut_off {
            self.open_read_only();
            self.close_read_only(true);
        } else {
            self.close_read_only(false);
        }
        // Those that had no leader to go to may have one.
        self.propose_handshakes();
    }

    /// Whether this handshake stays out of the log for now: what was sent to a leader may come into the log at any later
    /// time, and its client cannot be served without it any more.
    pub(super) fn may_come_to_read(&self, request: &ConnectRequest) -> bool {
        self.config.read_only_mode
            && request.read_only == Some(true)
            && (self.read_only.is_on || self.link.has_no_end())
    }

    /// Closes connections that read only: those of silent clients, or all.
    fn close_read_only(&mut self, only_silent: bool) {
        let served = self
            .connections
            .iter()
            .filter(|(_, held)| held.session().is_some_and(Session::is_read_only));
        let served: Vec<ConnectionId> = served.map(|(id, _)| id).collect();
        for id in served {
            if !only_silent || self.is_silent(id) {
                self.close(id);
            }
        }
        if !only_silent {
            self.read_only.local.clear();
        }
    }

    /// Answers handshakes that wait, want no more than that, and were not sent to a leader.
    fn open_read_only(&mut self) {
        let waits = |handshake: &Handshake| {
            let stays_out =
                handshake.command.is_none() || planted!(self.config.planted, ReadBesideHandshake);
            let is_seen = handshake.request.last_zxid_seen <= self.state.last_zxid()
                || planted!(self.config.planted, ReadBehind);
            stays_out && is_seen && handshake.request.read_only == Some(true)
        };
        let waiting =
            self.connections.iter().filter(|(_, held)| held.handshake().is_some_and(waits));
        let waiting: Vec<ConnectionId> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            match self.read_only_session(id) {
                Some(session) => self.accept_handshake(id, session),
                // It may live where this server cannot see it.
                None => self.close(id),
            }
        }
    }

    /// The session that the client names, if it proves to be its own here, or a new one.
    fn read_only_session(&mut self, id: ConnectionId) -> Option<Session> {
        let connection = self.connections.get(id)?;
        let (origin, handshake) = (connection.origin, connection.handshake()?);
        let (request, fresh) = (&handshake.request, handshake.password.clone());
        let (wanted, shown) = (request.session, request.password.clone());
        let timeout_ms = self.clamp_timeout(request.timeout_ms);
        let id = if wanted.is_none() {
            let id = self.new_session_id(origin);
            if self.read_only.local.len() >= LOCAL_SESSIONS_MAX {
                self.read_only.local.pop_first();
            }
            self.read_only.local.insert(id, fresh);
            id
        } else {
            let known = self.state.session(wanted).map(|found| &found.password);
            let known = known.or_else(|| self.read_only.local.get(&wanted));
            known.filter(|known| **known == shown)?;
            if let Some(before) = self.connections.of_session(wanted) {
                self.close(before);
            }
            wanted
        };
        Some(Session { id, generation: GENERATION, timeout_ms, last_sequence: 0 })
    }

    /// Whether a session of this server's own ends: nobody else has to hear of it.
    pub(super) fn ends_locally(&mut self, session: &Session) -> bool {
        session.is_read_only() && self.read_only.local.remove(&session.id).is_some()
    }
}
