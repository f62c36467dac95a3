//! What this server tells the leader about the sessions that its connections hold.
//!
//! Called by `request` (touches, lost sockets), `session` and the end of each step. Invariant: a
//! loss is kept and told to each new leader until the session moves or ends; only a socket that
//! the client's side closed is a loss (safety.md A6); a request is answered only within the time-out
//! after the one before, and told in time for the leader to know of it. It does not know timers.

use std::collections::BTreeMap;

use coordinator_protocol::SessionId;

use super::limits::{LOSSES_MAX, LOST_HANDSHAKES_MAX, TOUCHED_PER_MESSAGE_MAX};
use super::peer::PeerMessage;
use super::step::Server;
use crate::{ConnectionId, Millis};

/// Between two reports of touched sessions. A report says how long ago each was heard, so this
/// does not delay expiries; a session that was silent for long is reported at once, so that it does
/// not hasten them either.
const REPORT_MS: u64 = 100;

/// A handshake that was proposed and not applied for this long will hardly ever be.
const LOST_HANDSHAKE_MS: u64 = 60_000;

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// When each session was last heard, since the last report.
    touched: BTreeMap<SessionId, Millis>,
    report_at: Option<Millis>,
    /// Generation of each session whose socket was lost here.
    lost: BTreeMap<SessionId, u64>,
    /// Origins of connections that were lost before they were open, and when.
    lost_handshakes: BTreeMap<u64, Millis>,
}

impl Presence {
    /// The session was heard. `at_once`: its time is running out.
    pub(super) fn touch(&mut self, session: SessionId, at_once: bool, now: Millis) {
        self.touched.insert(session, now);
        if at_once {
            self.report_at = Some(now);
        }
        self.report_at.get_or_insert(now.plus_ms(REPORT_MS));
    }

    pub(super) fn lose(&mut self, session: SessionId, generation: u64) {
        if self.lost.len() < LOSSES_MAX {
            self.lost.insert(session, generation);
        }
    }

    /// A connection was lost while its session was on its way to it.
    pub(super) fn lose_handshake(&mut self, origin: u64, now: Millis) {
        if self.lost_handshakes.len() >= LOST_HANDSHAKES_MAX {
            self.lost_handshakes.retain(|_, lost| now.since(*lost) < LOST_HANDSHAKE_MS);
        }
        if self.lost_handshakes.len() < LOST_HANDSHAKES_MAX {
            self.lost_handshakes.insert(origin, now);
        }
    }

    pub(super) fn take_lost_handshake(&mut self, origin: u64) -> bool {
        self.lost_handshakes.remove(&origin).is_some()
    }

    /// The session moved to this generation; what was lost of it since stays lost.
    pub(super) fn moved(&mut self, session: SessionId, generation: u64) {
        if self.lost.get(&session).is_some_and(|lost| *lost != generation) {
            self.lost.remove(&session);
        }
        self.touched.remove(&session);
    }

    /// The session ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.lost.remove(&session);
        self.touched.remove(&session);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.report_at
    }
}

impl Server {
    /// This process's clock, without the time that it stood still: it could hear nobody then.
    pub(super) fn lived(&self) -> Millis {
        Millis::new(self.now.mono.get().saturating_sub(self.stalled_ms))
    }

    /// Whether nothing was heard of this connection's client for its whole time-out: its session may
    /// be expiring at this moment, and must not be answered by this connection.
    pub(super) fn is_silent(&self, id: ConnectionId) -> bool {
        let lived = self.lived();
        self.connections.get(id).is_some_and(|connection| {
            connection.session().is_some_and(|session| {
                lived.since(connection.heard) >= u64::from(session.timeout_ms)
            })
        })
    }

    /// The client of this connection was heard. False if it was silent for too long before.
    pub(super) fn hear(&mut self, id: ConnectionId) -> bool {
        if self.is_silent(id) {
            return false;
        }
        let (lived, now) = (self.lived(), self.now.mono);
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(session) = connection.session().copied() else { return true };
        let silent_ms = lived.since(connection.heard);
        connection.heard = lived;
        let at_once = silent_ms >= u64::from(session.timeout_ms) / 2;
        if session.is_read_only() {
            return true;
        }
        self.presence.touch(session.id, at_once, now);
        true
    }

    /// What this connection's client said was left unread until now: it counts as heard, unless it was
    /// left so for too long.
    pub(super) fn hear_unread(&mut self, id: ConnectionId) {
        if self.is_silent(id) {
            self.close(id);
            return;
        }
        let (lived, now) = (self.lived(), self.now.mono);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let silent = connection.heard != lived;
        connection.heard = lived;
        if let Some(session) = connection.session().copied().filter(|_| silent)
            && !session.is_read_only()
        {
            self.presence.touch(session.id, true, now);
        }
    }

    /// Tells the leader which sessions were heard; a leader takes its own down directly.
    pub(super) fn flush_presence(&mut self) {
        let now = self.now.mono;
        let is_leader = self.consensus.is_leader();
        if !is_leader && self.presence.report_at.is_none_or(|at| at > now) {
            return;
        }
        self.presence.report_at = None;
        let leader = self.consensus.leader();
        if !is_leader && !leader.is_some_and(|leader| self.consensus.is_peer_up(leader)) {
            if !self.presence.touched.is_empty() {
                self.presence.report_at = Some(now.plus_ms(REPORT_MS));
            }
            return;
        }
        let touched = std::mem::take(&mut self.presence.touched);
        if is_leader {
            for (session, heard) in touched {
                self.office.touch(session, now.since(heard), now);
            }
            return;
        }
        let Some(leader) = leader else { return };
        let touched: Vec<(SessionId, u64)> =
            touched.into_iter().map(|(session, heard)| (session, now.since(heard))).collect();
        for part in touched.chunks(TOUCHED_PER_MESSAGE_MAX) {
            self.send_peer(leader, &PeerMessage::Touched(part.to_vec()));
        }
    }

    /// Tells the leader of a lost session, if it is one that chose to die fast.
    pub(super) fn report_loss(&mut self, session: SessionId) {
        let Some(generation) = self.reportable(session) else { return };
        self.report_losses(vec![(session, generation)]);
    }

    /// Tells a new leader of all of them: it counts each grace anew.
    pub(super) fn report_all_losses(&mut self) {
        let state = &self.state;
        self.presence.lost.retain(|session, generation| {
            state.session(*session).is_some_and(|record| record.generation == *generation)
        });
        let lost: Vec<SessionId> = self.presence.lost.keys().copied().collect();
        let lost: Vec<(SessionId, u64)> = lost
            .into_iter()
            .filter_map(|session| Some((session, self.reportable(session)?)))
            .collect();
        self.report_losses(lost);
    }

    fn reportable(&self, session: SessionId) -> Option<u64> {
        let generation = *self.presence.lost.get(&session)?;
        let record = self.state.session(session)?;
        let chosen = record.fast_death_grace_ms.is_some() && record.generation == generation;
        chosen.then_some(generation)
    }

    fn report_losses(&mut self, lost: Vec<(SessionId, u64)>) {
        match self.consensus.leader() {
            Some(leader) if leader == self.config.id => {
                for (session, generation) in lost {
                    self.begin_grace(session, generation);
                }
            }
            Some(leader) => {
                for part in lost.chunks(TOUCHED_PER_MESSAGE_MAX) {
                    self.send_peer(leader, &PeerMessage::Lost(part.to_vec()));
                }
            }
            None => {}
        }
    }
}
