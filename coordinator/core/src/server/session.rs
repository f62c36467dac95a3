//! What outcomes in the log do to the connections of this server and to the leader's timers.
//!
//! Called by `apply`, after notifications. Calls `pipeline`, `handshake`, `office`. Invariant: a
//! session has at most one connection in the ensemble that is answered: the one of its latest
//! generation. It does not know the tree.

use coordinator_protocol::{ErrorCode, SessionId};

use super::connection::Session;
use super::step::Server;
use crate::ConnectionId;
use crate::state::{Attached, Created, Ended, Ignored, OpResult, Origin, Outcome, SESSIONS_MAX};

impl Server {
    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Created(created) => self.on_created(created),
            Outcome::Attached(attached) => self.on_attached(attached),
            Outcome::Refused { origin, reason, .. } => self.on_refused(origin, reason),
            Outcome::Written { session, generation, sequence, result } => {
                self.on_written(session, (generation, sequence), result);
            }
            Outcome::Ignored { session, generation, why, .. } => {
                self.on_ignored(session, generation, why);
            }
            Outcome::Expired(ended) => self.on_ended(ended, None),
            Outcome::DueRemoved(_) => {}
            Outcome::MembersMoved => self.changing.stale = true,
            Outcome::Reconfiguring { session, generation, sequence } => {
                self.changing.stale = true;
                self.on_reconfiguring(session, generation, sequence);
            }
            Outcome::ExpiryRefused { session, .. } => {
                self.office.expiry_refused(session, self.now.mono);
            }
        }
    }

    fn on_created(&mut self, created: Created) {
        let Created { session, origin, generation, timeout_ms } = created;
        self.begin_session(
            Session { id: session, generation, timeout_ms, last_sequence: 0 },
            origin,
        );
    }

    /// The session moved: whatever held it here before is closed, unless this repeats the move.
    fn on_attached(&mut self, attached: Attached) {
        let Attached { session, origin, generation, timeout_ms, .. } = attached;
        if let Some(id) = self.connections.of_session(session) {
            let connection = self.connections.get(id);
            if connection.is_some_and(|held| self.origin_of(held.origin) != origin) {
                self.close(id);
            }
        }
        self.begin_session(
            Session { id: session, generation, timeout_ms, last_sequence: 0 },
            origin,
        );
    }

    fn begin_session(&mut self, session: Session, origin: Origin) {
        self.presence.moved(session.id, session.generation);
        if planted!(self.config.planted, ExpireReattached) && session.generation > 1 {
            self.office.keep_counting(session.id, session.generation);
        }
        self.office.begin_session(
            session.id,
            session.generation,
            session.timeout_ms,
            self.now.mono,
        );
        let Some(id) = self.mine(origin) else {
            if origin.server == self.config.id
                && self.presence.take_lost_handshake(origin.connection)
            {
                self.presence.lose(session.id, session.generation);
                self.report_loss(session.id);
            }
            return;
        };
        let opens = self.connections.get(id).is_some_and(|held| held.session().is_none());
        if opens {
            self.accept_handshake(id, session);
        }
    }

    fn on_refused(&mut self, origin: Origin, reason: ErrorCode) {
        let Some(id) = self.mine(origin) else {
            if origin.server == self.config.id {
                self.presence.take_lost_handshake(origin.connection);
            }
            return;
        };
        match reason {
            ErrorCode::SessionMoved => self.attach_again(id),
            // There are too many: that is no reason to call one over that never began.
            ErrorCode::ThrottledOp => {
                self.note_refused_session(id, SESSIONS_MAX);
                self.close(id);
            }
            _ => self.refuse_handshake(id),
        }
    }

    fn on_written(
        &mut self,
        session: SessionId,
        (generation, sequence): (u64, u64),
        result: Result<OpResult, ErrorCode>,
    ) {
        let ended = match &result {
            Ok(OpResult::SessionClosed(ended)) => Some(*ended),
            _ => None,
        };
        self.changing.stale |= matches!(&result, Ok(OpResult::Reconfigured { .. }))
            || matches!(&result, Err(ErrorCode::NewConfigNoQuorum));
        let options_set = matches!(&result, Ok(OpResult::OptionsSet));
        let answering = self.connection_of(session, generation);
        if let Some(id) = answering
            && let Some(connection) = self.connections.get_mut(id)
        {
            let place = connection.decide(sequence, result);
            self.link.answered(place);
            self.run_pipeline(id);
        }
        if options_set {
            self.change_grace(session);
            self.report_loss(session);
        }
        if let Some(ended) = ended {
            self.on_ended(ended, answering);
        }
    }

    /// A change of the members has begun: its write is not sent again, and answered when the change ends.
    fn on_reconfiguring(&mut self, session: SessionId, generation: u64, sequence: u64) {
        let Some(id) = self.connection_of(session, generation) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        let place = connection.await_members(sequence);
        self.link.answered(place);
        self.run_pipeline(id);
    }

    /// A write was passed over. If it is one that waits here, the connection cannot go on as it is.
    fn on_ignored(&mut self, session: SessionId, generation: u64, why: Ignored) {
        let Some(id) = self.connection_of(session, generation) else { return };
        match why {
            Ignored::Duplicate => {}
            Ignored::OutOfOrder => self.link.ask_to_resend(self.now.mono),
            Ignored::Moved | Ignored::NoSession => self.close(id),
        }
    }

    /// A session is no more. `answering` closes itself once its answer is out.
    fn on_ended(&mut self, ended: Ended, answering: Option<ConnectionId>) {
        self.presence.forget(ended.session);
        self.claims.forget(ended.session);
        self.office.end_session(ended.session);
        if let Some(id) = self.connections.of_session(ended.session)
            && answering != Some(id)
        {
            self.close(id);
        }
    }

    /// The connection here that holds this generation of the session.
    fn connection_of(&self, session: SessionId, generation: u64) -> Option<ConnectionId> {
        let id = self.connections.of_session(session)?;
        let held = self.connections.get(id)?.session()?;
        (held.generation == generation).then_some(id)
    }

    fn mine(&self, origin: Origin) -> Option<ConnectionId> {
        if origin.server != self.config.id {
            return None;
        }
        self.connections.of_origin(origin.connection)
    }

    fn origin_of(&self, connection: u64) -> Origin {
        Origin { server: self.config.id, connection }
    }
}
