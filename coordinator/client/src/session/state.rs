//! The session's state and what frames, calls and time do to it.
//!
//! Called by: `driver`. Calls: `watches`, `subscriptions`, `contact`.
//! Invariants: answers belong to `pending` in order, because a server answers in request order; a call
//! is in exactly one of `waiting` and `pending` until it is answered; what a reconnect has to set up
//! again stands in `out` before any call of a user.
//! It does not know sockets or which server it talks to.

use crate::config::{Config, Credentials};
use crate::contact::Contact;
use crate::error::Error;
use crate::session::call::{Call, Hook, Reply};
use crate::session::subscriptions::Subscriptions;
use crate::session::watches::{OneShot, Watches};
use bytes::{Bytes, BytesMut};
use coordinator_protocol::{
    AuthRequest, ConnectRequest, ConnectResponse, DecodeError, ErrorCode, Reader, Record,
    ReplyHeader, Request, Response, SessionId, SessionOptionsRequest, SessionPassword,
    SubscriptionEvent, WatcherEvent, Xid, Zxid, encode_request,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

/// How many calls may wait or be under way; above it the driver takes no more, and so callers wait.
const CALLS_MAX: usize = 1000;
/// How many bytes may wait for the socket before the driver takes no more calls.
const OUT_BYTES_MAX: usize = 4 << 20;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No server has taken the session yet, or none has it now; the client is trying.
    Connecting,
    /// A server has the session.
    Connected {
        /// Which session.
        session: SessionId,
    },
    /// The ensemble has ended the session. The client is of no more use.
    Expired,
    /// The client was closed.
    Closed,
}

/// Why a connection is given up. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Broken {
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server's frame cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    #[error("the server answered xid {got} where {expected:?} was due")]
    OutOfOrder { got: Xid, expected: Option<Xid> },
    #[error("the server did not set the watches again: {0}")]
    Watches(ErrorCode),
    #[error("the server refused the credentials: {0}")]
    Credentials(ErrorCode),
}

#[derive(Debug)]
struct Pending {
    xid: Xid,
    sent_at: Instant,
    call: Call,
}

/// What stands while a server has the session.
#[derive(Debug)]
struct Open {
    next_xid: Xid,
    last_heard: Instant,
    last_ping: Instant,
    ping_unanswered_since: Option<Instant>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    config: Config,
    id: SessionId,
    password: SessionPassword,
    timeout: Duration,
    /// Every event of a watch up to this write has been handed on.
    last_zxid: Zxid,
    /// The newest write that was seen in any way: no server that is behind it may take the session.
    seen_zxid: Zxid,
    open: Option<Open>,
    /// Set while the session's options are not known to be with the ensemble.
    options_due: bool,
    pending: VecDeque<Pending>,
    waiting: VecDeque<Call>,
    watches: Watches,
    subscriptions: Subscriptions,
    state: watch::Sender<SessionState>,
    contact: Arc<Contact>,
    /// Why no server is reached, as far as that is known.
    obstacle: Option<Error>,
    out: BytesMut,
}

impl Session {
    pub(crate) fn new(
        config: Config,
        state: watch::Sender<SessionState>,
        contact: Arc<Contact>,
    ) -> Self {
        Self {
            id: SessionId::NONE,
            password: SessionPassword::zeros(),
            timeout: config.session_timeout,
            last_zxid: Zxid::ZERO,
            seen_zxid: Zxid::ZERO,
            open: None,
            options_due: config.fast_death_grace.is_some(),
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            watches: Watches::default(),
            subscriptions: Subscriptions::default(),
            state,
            contact,
            obstacle: None,
            out: BytesMut::new(),
            config,
        }
    }

    /// What to send first on a new connection.
    pub(crate) fn connect_request(&self) -> Bytes {
        let timeout_ms = i32::try_from(self.config.session_timeout.as_millis()).unwrap_or(i32::MAX);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.seen_zxid,
            timeout_ms,
            session: self.id,
            password: self.password.clone(),
            read_only: Some(false),
        };
        request.encode_frame()
    }

    /// The server's answer to `connect_request`, which was sent at `asked_at`. `false`: the session
    /// is over, and all that waited for it has been told.
    pub(crate) fn on_connected(
        &mut self,
        response: ConnectResponse,
        asked_at: Instant,
        now: Instant,
    ) -> bool {
        if response.is_session_over() {
            self.end(SessionState::Expired, &Error::SessionExpired);
            return false;
        }
        self.id = response.session;
        self.password = response.password;
        self.timeout = Duration::from_millis(u64::try_from(response.timeout_ms).unwrap_or(0));
        self.open = Some(Open {
            next_xid: Xid::FIRST,
            last_heard: now,
            last_ping: now,
            ping_unanswered_since: None,
        });
        self.contact.set_timeout(self.timeout);
        self.contact.answered(asked_at);
        self.out.clear();
        self.set_up_again(now);
        self.state.send_replace(SessionState::Connected { session: self.id });
        self.send_waiting(now);
        true
    }

    /// What the new server has to know before it gets calls.
    fn set_up_again(&mut self, now: Instant) {
        for Credentials { scheme, secret } in &self.config.credentials {
            let (scheme, auth) = (scheme.clone(), Some(Bytes::from(secret.clone())));
            let request = Request::Auth(AuthRequest { auth_type: 0, scheme, auth });
            self.out.extend_from_slice(&encode_request(Xid::AUTH, &request));
        }
        if let (true, Some(grace)) = (self.options_due, self.config.fast_death_grace) {
            let fast_death_grace_ms = i32::try_from(grace.as_millis()).unwrap_or(i32::MAX);
            let options = SessionOptionsRequest { fast_death_grace_ms };
            self.send_own(Request::SessionOptions(options), Hook::Options, now);
        }
        for request in self.watches.rearm(self.last_zxid) {
            let frame = encode_request(Xid::SET_WATCHES, &Request::SetWatches2(request));
            self.out.extend_from_slice(&frame);
        }
        self.watches.reconnected();
        for request in self.subscriptions.resume() {
            let hook = Hook::Resume(request.subscription);
            self.send_own(Request::Subscribe(request), hook, now);
        }
    }

    fn send_own(&mut self, request: Request, hook: Hook, now: Instant) {
        self.send(Call { request, hook, answer: None, made_at: now }, now);
    }

    /// A user's call: sent at once if a server has the session, else kept.
    pub(crate) fn on_call(&mut self, call: Call, now: Instant) {
        match *self.state.borrow() {
            SessionState::Expired => return call.fail(Error::SessionExpired),
            SessionState::Closed => return call.fail(Error::Closed),
            SessionState::Connecting | SessionState::Connected { .. } => {}
        }
        self.waiting.push_back(call);
        self.send_waiting(now);
    }

    /// Whether more calls may come.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.len() + self.waiting.len() < CALLS_MAX && self.out.len() < OUT_BYTES_MAX
    }

    fn send_waiting(&mut self, now: Instant) {
        while self.open.is_some() {
            let Some(call) = self.waiting.pop_front() else { return };
            self.send(call, now);
        }
    }

    fn send(&mut self, call: Call, now: Instant) {
        let Some(open) = &mut self.open else { return self.waiting.push_back(call) };
        let xid = open.next_xid;
        open.next_xid = xid.next();
        self.out.extend_from_slice(&encode_request(xid, &call.request));
        self.pending.push_back(Pending { xid, sent_at: now, call });
    }

    /// One frame of the server.
    ///
    /// # Errors
    /// [`Broken`]: give the connection up.
    pub(crate) fn on_frame(&mut self, frame: Bytes, now: Instant) -> Result<(), Broken> {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader)?;
        if let Some(open) = &mut self.open {
            open.last_heard = now;
        }
        self.seen_zxid = self.seen_zxid.max(header.zxid);
        match header.xid {
            Xid::PING => self.on_pong(header.zxid),
            Xid::SET_WATCHES if !header.error.is_ok() => return Err(Broken::Watches(header.error)),
            Xid::AUTH if !header.error.is_ok() => return Err(Broken::Credentials(header.error)),
            Xid::SET_WATCHES | Xid::AUTH => {}
            Xid::NOTIFICATION => {
                // It does not raise `last_zxid`: more events of the same write may follow.
                self.watches.fire(WatcherEvent::decode(&mut reader)?, header.zxid);
            }
            Xid::SUBSCRIPTION => self.on_subscription(SubscriptionEvent::decode(&mut reader)?, now),
            _ => self.on_reply(header, reader)?,
        }
        Ok(())
    }

    fn on_pong(&mut self, zxid: Zxid) {
        self.last_zxid = self.last_zxid.max(zxid);
        let asked_at = self.open.as_mut().and_then(|open| open.ping_unanswered_since.take());
        if let Some(asked_at) = asked_at {
            self.contact.answered(asked_at);
        }
    }

    fn on_subscription(&mut self, event: SubscriptionEvent, now: Instant) {
        if let Some(number) = self.subscriptions.take(event) {
            self.send_own(Request::Unsubscribe(number), Hook::None, now);
        }
    }

    fn on_reply(&mut self, header: ReplyHeader, mut reader: Reader) -> Result<(), Broken> {
        let expected = self.pending.front().map(|pending| pending.xid);
        if expected != Some(header.xid) {
            return Err(Broken::OutOfOrder { got: header.xid, expected });
        }
        let Some(Pending { sent_at, call, .. }) = self.pending.pop_front() else { return Ok(()) };
        self.contact.answered(sent_at);
        self.last_zxid = self.last_zxid.max(header.zxid);
        let result = if header.error.is_ok() {
            Response::decode(call.request.op(), &mut reader)
                .map(|response| Reply { zxid: header.zxid, response })
                .map_err(Error::Answer)
        } else {
            Err(Error::Refused(header.error))
        };
        self.complete(call, result);
        Ok(())
    }

    fn complete(&mut self, call: Call, result: Result<Reply, Error>) {
        let absent = matches!(result, Err(Error::Refused(ErrorCode::NoNode)));
        let path = watched_path(&call.request);
        match (call.hook, &result) {
            (Hook::OneShot(OneShot::Data, sender), Ok(_)) => {
                self.watches.add_one_shot(OneShot::Data, path, sender);
            }
            (Hook::OneShot(OneShot::Exist, sender), Ok(_)) => {
                self.watches.add_one_shot(OneShot::Data, path, sender);
            }
            (Hook::OneShot(OneShot::Exist, sender), Err(_)) if absent => {
                self.watches.add_one_shot(OneShot::Exist, path, sender);
            }
            (Hook::OneShot(OneShot::Children, sender), Ok(_)) => {
                self.watches.add_one_shot(OneShot::Children, path, sender);
            }
            (Hook::Persistent(mode, sender), Ok(_)) => {
                self.watches.add_persistent(mode, path, sender);
            }
            (Hook::Subscribe(number, sink), Ok(_)) => self.subscriptions.add(number, path, sink),
            (Hook::Resume(number), Err(error)) => self.subscriptions.end(number, error.clone()),
            // An ensemble that does not know options keeps the session to its time-out.
            (Hook::Options, _) => self.options_due = false,
            (
                Hook::None
                | Hook::OneShot(..)
                | Hook::Persistent(..)
                | Hook::Subscribe(..)
                | Hook::Resume(_),
                _,
            ) => {}
        }
        if let Some(answer) = call.answer {
            // The caller may have stopped waiting.
            let _ = answer.send(result);
        }
    }

    /// The connection is gone. Calls under way that ask for nothing but an answer wait again, in
    /// order and before those that wait already; of writes the outcome is unknown.
    pub(crate) fn on_lost(&mut self, now: Instant) {
        self.open = None;
        self.out.clear();
        let mut again = VecDeque::new();
        for Pending { mut call, .. } in std::mem::take(&mut self.pending) {
            if call.is_own() {
                continue;
            }
            if call.is_repeatable() {
                call.made_at = now;
                again.push_back(call);
            } else {
                call.fail(Error::ConnectionLoss);
            }
        }
        again.append(&mut self.waiting);
        self.waiting = again;
        if matches!(*self.state.borrow(), SessionState::Connected { .. }) {
            self.state.send_replace(SessionState::Connecting);
        }
    }

    /// Time has passed: pings when one is due, fails calls that waited too long.
    ///
    /// # Errors
    /// [`Broken::Silent`]: give the connection up.
    pub(crate) fn on_tick(&mut self, now: Instant) -> Result<(), Broken> {
        let third = self.timeout / 3;
        if let Some(open) = &mut self.open {
            let silent = now.saturating_duration_since(open.last_heard);
            if silent >= third * 2 {
                return Err(Broken::Silent(silent));
            }
            if now.saturating_duration_since(open.last_ping) >= third {
                open.last_ping = now;
                open.ping_unanswered_since.get_or_insert(now);
                self.out.extend_from_slice(&encode_request(Xid::PING, &Request::Ping));
            }
            return Ok(());
        }
        let queue_timeout = self.config.queue_timeout;
        let overdue = |call: &Call| now.saturating_duration_since(call.made_at) >= queue_timeout;
        while self.waiting.front().is_some_and(overdue) {
            if let Some(call) = self.waiting.pop_front() {
                call.fail(self.obstacle.clone().unwrap_or(Error::Unavailable));
            }
        }
        Ok(())
    }

    /// Why no server is reached, where that is known: calls that waited too long end in it. Whether it is of another kind
    /// than before: servers take turns, and fail alike. That one hung up says less than what TLS has to say of another.
    pub(crate) fn set_obstacle(&mut self, obstacle: Option<Error>) -> bool {
        let is_lasting =
            |error: &Error| matches!(error, Error::Tls { why, .. } if why.is_lasting());
        let is_hang_up = |error: &Error| match error {
            Error::HungUp { .. } => true,
            Error::Tls { why, .. } => !why.is_lasting(),
            _ => false,
        };
        if self.obstacle.as_ref().is_some_and(is_lasting)
            && obstacle.as_ref().is_some_and(is_hang_up)
        {
            return false;
        }
        let kind = |error: &Option<Error>| match error {
            Some(Error::Tls { why, .. }) => Some(Some(std::mem::discriminant(why))),
            Some(_) => Some(None),
            None => None,
        };
        let is_new = kind(&self.obstacle) != kind(&obstacle);
        self.obstacle = obstacle;
        is_new
    }

    /// Has all calls that wait end now, as if they had waited too long.
    pub(crate) fn refuse_waiting(&mut self) {
        for call in std::mem::take(&mut self.waiting) {
            call.fail(self.obstacle.clone().unwrap_or(Error::Unavailable));
        }
    }

    /// When `on_tick` has something to do at the latest.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        let third = self.timeout / 3;
        match &self.open {
            Some(open) => Some((open.last_ping + third).min(open.last_heard + third * 2)),
            None => self.waiting.front().map(|call| call.made_at + self.config.queue_timeout),
        }
    }

    /// Bytes for the server; what is taken from the front has been sent.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// The session is over: everybody who waits for anything is told.
    pub(crate) fn end(&mut self, state: SessionState, error: &Error) {
        self.open = None;
        self.state.send_replace(state);
        let pending = std::mem::take(&mut self.pending).into_iter().map(|pending| pending.call);
        for call in pending.chain(std::mem::take(&mut self.waiting)) {
            call.fail(error.clone());
        }
        self.subscriptions.end_all(error);
        self.watches.clear();
    }
}

/// The path that a watching request names.
fn watched_path(request: &Request) -> String {
    match request {
        Request::Exists(read)
        | Request::GetData(read)
        | Request::GetChildren(read)
        | Request::GetChildren2(read) => read.path.clone(),
        Request::AddWatch(add) => add.path.clone(),
        Request::Subscribe(subscribe) => subscribe.path.clone(),
        _ => String::new(),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
