//! Clients whose requests come from outside: sessions of brokers, in a world that has both.
//!
//! Called by: the replication simulation. Calls: `client`, `world`.
//! Invariant: a puppet keeps its session as every client does (dials, pings, gives a server up, comes back with what it has seen), and tells
//! in order what it hears; a request without an answer when its connection ends is told by the end of the connection.
//! It does not know what is asked, nor why.

use std::collections::VecDeque;

use coordinator_core::state::State;
use coordinator_core::tree::{Change, ChangeKind};
use coordinator_protocol::{ErrorCode, Request, Response, SessionId, SubscriptionEvent, Zxid};

use super::audit::{self, Audited};
use super::client::{Action, Client, Line};
use super::run::Profile;
use super::schedule::Time;
use super::sockets::Inward;
use super::world::World;
use crate::sim::decisions::Decisions;
use crate::sim::fault::Struck;

/// What a puppet heard.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A server has the session.
    Opened {
        /// Which.
        session: SessionId,
        /// It is the one that the puppet had before.
        again: bool,
    },
    /// The answer to a request.
    Replied {
        /// The request's number.
        number: u64,
        /// The header's zxid.
        zxid: Zxid,
        /// The header's error, or the body.
        outcome: Result<Response, ErrorCode>,
    },
    /// A subscription's event.
    Told(SubscriptionEvent),
    /// The connection is gone; what was not answered may or may not have happened.
    Down,
    /// The session is over. The puppet opens another.
    Over,
}

/// The strings of one client.
#[derive(Debug, Default)]
pub struct Puppet {
    /// Numbers of what was sent and not answered; none for its own pings.
    pub(super) numbers: VecDeque<Option<u64>>,
    pub(super) heard: Vec<Heard>,
}

impl Client {
    /// Turns a client into a puppet that sleeps.
    pub(super) fn tie(&mut self, timeout: Time) {
        self.puppet = Some(Puppet::default());
        self.quiet = true;
        self.timeout = timeout;
        self.line = Line::Down { dial_at: Time::MAX };
    }

    fn tell(&mut self, heard: Heard) {
        if let Some(puppet) = &mut self.puppet {
            puppet.heard.push(heard);
        }
    }

    pub(super) fn tell_opened(&mut self, session: SessionId, again: bool) {
        self.tell(Heard::Opened { session, again });
    }

    pub(super) fn tell_over(&mut self) {
        self.tell(Heard::Over);
    }

    pub(super) fn tell_event(&mut self, event: &SubscriptionEvent) {
        if self.puppet.is_some() {
            self.tell(Heard::Told(event.clone()));
        }
    }

    pub(super) fn tell_down(&mut self) {
        if let Some(puppet) = &mut self.puppet {
            puppet.numbers.clear();
        }
        self.tell(Heard::Down);
    }

    pub(super) fn tell_reply(&mut self, zxid: Zxid, outcome: &Result<Response, ErrorCode>) {
        let Some(puppet) = &mut self.puppet else { return };
        if let Some(number) = puppet.numbers.pop_front().expect("sent") {
            puppet.heard.push(Heard::Replied { number, zxid, outcome: outcome.clone() });
        }
    }

    fn dial_at(&mut self, time: Time) {
        self.line = Line::Down { dial_at: time };
    }
}

impl World {
    /// Sends a puppet's request, if it has a connection.
    pub fn pull(&mut self, puppet: usize, number: u64, request: Request) {
        if !matches!(self.clients[puppet].line, Line::Open { .. }) {
            return;
        }
        let mut actions = Vec::new();
        let now = self.schedule.now();
        self.clients[puppet].send(now, request, &mut actions);
        let strings = self.clients[puppet].puppet.as_mut().expect("a puppet");
        *strings.numbers.back_mut().expect("just sent") = Some(number);
        self.act(puppet, actions);
        self.wake_client_at(puppet, now);
    }

    /// What a puppet has heard since the last time.
    pub fn take_heard(&mut self, puppet: usize) -> Vec<Heard> {
        let strings = self.clients[puppet].puppet.as_mut().expect("a puppet");
        std::mem::take(&mut strings.heard)
    }

    /// A puppet's process starts: it dials for a new session.
    pub fn awaken(&mut self, puppet: usize) {
        let now = self.schedule.now();
        self.clients[puppet].dial_at(now);
        self.wake_client_at(puppet, now);
    }

    /// A puppet's process is gone. If its `machine` is too, nobody closes its socket.
    pub fn fell(&mut self, puppet: usize, machine: bool) {
        let now = self.schedule.now();
        if machine
            && let Some(connection) = self.lines[puppet].take()
            && let Some(socket) = self.sockets.get_mut(&connection)
        {
            socket.client_open = false;
        }
        let mut actions = Vec::new();
        self.clients[puppet].die(now, &mut actions);
        if !machine {
            self.act(puppet, actions);
        }
        self.sleep(puppet);
    }

    /// A puppet ends its session and goes.
    pub fn dismiss(&mut self, puppet: usize) {
        let now = self.schedule.now();
        let mut actions = Vec::new();
        if matches!(self.clients[puppet].line, Line::Open { .. }) {
            self.clients[puppet].send(now, Request::CloseSession, &mut actions);
            self.act(puppet, actions);
        }
        self.fell(puppet, false);
    }

    /// The network keeps a puppet from all servers until then.
    pub fn keep_away(&mut self, puppet: usize, until: Time) {
        let now = self.schedule.now();
        let mut actions = Vec::new();
        self.clients[puppet].give_up(now, &mut actions);
        actions.retain(|action| !matches!(action, Action::HangUp));
        if let Some(connection) = self.lines[puppet].take() {
            if let Some(socket) = self.sockets.get_mut(&connection) {
                (socket.client_open, socket.broken) = (false, true);
            }
            self.send_inward(connection, Inward::Closed { by_peer: false });
        }
        self.clients[puppet].dial_at(until);
        self.wake_client_at(puppet, until);
    }

    /// A puppet's process stands still until then.
    pub fn freeze(&mut self, puppet: usize, until: Time) {
        let client = &mut self.clients[puppet];
        client.paused_until = client.paused_until.max(until);
    }

    /// A puppet's process goes on.
    pub fn thaw(&mut self, puppet: usize) {
        let now = self.schedule.now();
        let client = &mut self.clients[puppet];
        if client.paused_until > now {
            client.paused_until = now;
            self.wake_client_at(puppet, now);
        }
    }

    fn sleep(&mut self, puppet: usize) {
        let client = &mut self.clients[puppet];
        client.dial_at(Time::MAX);
        client.paused_until = 0;
        if let Some(strings) = &mut client.puppet {
            *strings = Puppet::default();
        }
        self.wakes[puppet] += 1;
    }

    /// When something happens next.
    pub fn next_time(&self) -> Option<Time> {
        self.schedule.next_time()
    }

    /// Lets the next thing happen that is due by `time`, and moves the clock there when there is none.
    pub fn step_to(&mut self, time: Time) {
        if let Some(happening) = self.schedule.next_until(time) {
            self.happen(happening);
        }
    }

    /// Moves the clock on, not past anything that happens.
    pub fn advance(&mut self, time: Time) {
        self.schedule.advance(time);
    }

    /// What the servers did.
    pub fn decisions(&self) -> &Decisions {
        &self.decided
    }

    /// Faults by kind.
    pub fn struck(&self) -> Struck {
        self.arsenal.struck(self.members.iter().map(|member| member.storage.refusals()))
    }

    /// The state after everything that was committed.
    pub fn agreed(&self) -> &State {
        self.ledger.reference()
    }

    /// When a node went the last time.
    pub fn went_at(&self, path: &str) -> Option<Time> {
        let went = |change: &Change| change.kind == ChangeKind::Deleted && *change.path == *path;
        let decided = self.ledger.decided.iter().rev();
        decided.into_iter().find(|decided| decided.applied.changes.iter().any(went)).map(|it| it.at)
    }

    /// Compares what clients saw, puppets among them, with what was agreed on. Panics when a rule is broken.
    pub fn judge(&self) -> Audited {
        audit::audit(self, Profile::Chaos)
    }

    /// Equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.trace.digest()
    }
}
