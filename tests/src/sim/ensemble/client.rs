//! A client with a session, as client libraries are: pings after a third of the time-out, gives a
//! server up after two thirds, goes to another one, sets its watches again.
//!
//! Called by: `world`. Calls: `workload` for what to ask.
//! Invariant: replies come in the order of requests (asserted on arrival); what is sent and heard
//! is written down in a `Conversation`, for `audit`.
//! It does not know servers beyond their number, nor what the right answers are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use coordinator_protocol::{
    AddWatchMode, ConnectRequest, ConnectResponse, ErrorCode, EventType, PathWatch, Reader, Record,
    ReplyHeader, Request, Response, SessionId, SessionPassword, SetWatchesRequest,
    SubscriptionEvent, SubscriptionEventKind, WatcherEvent, Xid, Zxid,
};

use super::locker::Locker;
use super::operator::Operator;
use super::puppet::Puppet;
use super::schedule::{MS, Time};
use crate::sim::random::Random;

/// What a client wants done.
#[derive(Debug)]
pub enum Action {
    /// Open a connection to this server.
    Dial(usize, ConnectRequest),
    /// Send on the open one.
    Send(Xid, Request),
    /// Close it from this side.
    HangUp,
}

/// One connection, from its handshake to its end.
#[derive(Debug)]
pub struct Conversation {
    /// The number that the simulator gave the connection.
    pub connection: u64,
    /// With which server.
    pub server: usize,
    /// The number that the server's log entries give it.
    pub origin: u64,
    /// The session that was asked for.
    pub asked: SessionId,
    /// The zxid that the client had seen before.
    pub seen: Zxid,
    /// The session that was given.
    pub opened: Option<SessionId>,
    /// It is for reads only: the server has no quorum.
    pub read_only: bool,
    /// Frames, the handshake's being 0, that the server sent while it was told to send only what it must.
    pub unordered: Vec<u64>,
    /// When the server handled what was sent, as far as it did.
    pub handled: Vec<Time>,
    /// What was sent, in order, the handshake left out.
    pub sent: Vec<Sent>,
    /// What was heard, in order, the handshake left out.
    pub heard: Vec<Heard>,
}

/// A request.
#[derive(Debug)]
pub struct Sent {
    /// When it left the client.
    pub at: Time,
    /// What.
    pub request: Request,
    /// Whether its server gives it a number among the session's writes, unless it is refused for want of room.
    pub is_write: bool,
}

/// A frame from the server.
#[derive(Debug)]
pub enum Heard {
    /// The answer to `sent[request]`.
    Reply {
        /// When it came.
        at: Time,
        /// Which request.
        request: usize,
        /// The header's zxid.
        zxid: Zxid,
        /// The header's error, or the body.
        outcome: Result<Response, ErrorCode>,
    },
    /// A watch fired.
    Watch(Zxid, EventType, String),
    /// A subscription's event.
    Event(SubscriptionEvent),
}

/// The connection, as the client sees it.
#[derive(Debug)]
pub(super) enum Line {
    Down { dial_at: Time },
    Dialling { connection: u64, since: Time },
    Open { connection: u64 },
}

/// A client.
#[derive(Debug)]
pub struct Client {
    pub(super) random: Random,
    /// Distinguishes what it writes from what others write.
    pub(super) name: String,
    pub(super) written: u64,
    servers: usize,
    /// The only server that it dials, if it does not choose.
    pub(super) home: Option<usize>,
    pub(super) line: Line,
    session: Option<(SessionId, SessionPassword)>,
    /// The time-out it asks for, and holds itself to.
    pub(super) timeout: Time,
    last_zxid: Zxid,
    next_xid: Xid,
    waiting: VecDeque<(Xid, usize)>,
    last_sent: Time,
    last_heard: Time,
    pub(super) one_shot: BTreeMap<String, BTreeSet<OneShot>>,
    pub(super) persistent: BTreeMap<String, AddWatchMode>,
    /// Subscriptions of this connection: path and how far they are complete.
    pub(super) subscriptions: BTreeMap<i32, (String, Zxid)>,
    /// How far former subscriptions were complete, by path.
    pub(super) resume: BTreeMap<String, Zxid>,
    pub(super) next_subscription: i32,
    /// Names seen under `/q`.
    pub(super) queue: Vec<String>,
    /// When it asks next.
    pub(super) ask_at: Time,
    /// What is asked next, before anything else.
    pub(super) prepared: VecDeque<Request>,
    /// What pulls it, if it does not move by itself.
    pub(super) puppet: Option<Puppet>,
    /// The recipe it follows, if it does not ask at random.
    pub(super) locker: Option<Locker>,
    /// What it knows of the members, if it changes them.
    pub(super) operator: Option<Operator>,
    /// Reads will do where there is no quorum.
    pub(super) may_only_read: bool,
    /// Asks nothing new.
    pub quiet: bool,
    /// Its pauses are so many times longer.
    pub pace: u64,
    /// Stands still: the process is stopped.
    pub paused_until: Time,
}

/// Kinds of one-shot watch that a client remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OneShot {
    /// The node was there.
    Data,
    /// It was not.
    Exists,
    /// Its children.
    Children,
}

impl Client {
    /// A client that has not dialled yet.
    pub fn new(number: u64, servers: usize, timeout: Time, mut random: Random) -> Self {
        let dial_at = random.below(500 * MS);
        Self {
            random,
            name: format!("c{number}"),
            written: 0,
            servers,
            home: None,
            line: Line::Down { dial_at },
            session: None,
            timeout,
            last_zxid: Zxid::ZERO,
            next_xid: Xid::FIRST,
            waiting: VecDeque::new(),
            last_sent: 0,
            last_heard: 0,
            one_shot: BTreeMap::new(),
            persistent: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            resume: BTreeMap::new(),
            next_subscription: 1,
            queue: Vec::new(),
            ask_at: 0,
            prepared: VecDeque::new(),
            puppet: None,
            locker: None,
            operator: None,
            may_only_read: false,
            quiet: false,
            pace: 1,
            paused_until: 0,
        }
    }

    /// Whether its session is answered and nothing is asked.
    pub fn is_idle(&self) -> bool {
        matches!(self.line, Line::Open { .. })
            && self.waiting.is_empty()
            && self.prepared.is_empty()
            && self.locker.as_ref().is_none_or(Locker::is_at_rest)
    }

    /// Whether it asks something as soon as its pause is over.
    fn wants_to_ask(&self) -> bool {
        match &self.locker {
            Some(locker) => {
                let is_done = self.quiet && locker.is_at_rest();
                self.waiting.is_empty() && !locker.waits() && !is_done
            }
            None => !self.quiet && (self.operator.is_none() || self.waiting.is_empty()),
        }
    }

    /// Time passed: dials, pings, gives up, or asks something. The time of the next call.
    pub fn wake(&mut self, now: Time, actions: &mut Vec<Action>) -> Time {
        match self.line {
            Line::Down { dial_at } if dial_at <= now => self.dial(now, actions),
            Line::Down { dial_at } => return dial_at,
            Line::Dialling { since, .. } if now >= since + self.timeout => {
                self.give_up(now, actions)
            }
            Line::Dialling { since, .. } => return since + self.timeout,
            Line::Open { .. } if now >= self.last_heard + self.timeout * 2 / 3 => {
                self.give_up(now, actions);
            }
            Line::Open { .. } => {
                if let Some(request) = self.prepared.pop_front() {
                    self.send(now, request, actions);
                } else if now >= self.ask_at && self.wants_to_ask() && self.waiting.len() < 12 {
                    self.ask(now, actions);
                } else if now >= self.last_sent + self.timeout / 3 {
                    self.send(now, Request::Ping, actions);
                }
            }
        }
        self.next_wake(now)
    }

    fn next_wake(&self, now: Time) -> Time {
        match self.line {
            Line::Down { dial_at } => dial_at,
            Line::Dialling { since, .. } => since + self.timeout,
            Line::Open { .. } => {
                let ping = self.last_sent + self.timeout / 3;
                let silence = self.last_heard + self.timeout * 2 / 3;
                let ask = match (self.prepared.is_empty(), self.wants_to_ask()) {
                    (false, _) => now,
                    (true, false) => Time::MAX,
                    (true, true) => self.ask_at.max(now + MS),
                };
                ping.min(silence).min(ask).max(now + 1)
            }
        }
    }

    /// Sends a request at once.
    pub(super) fn send(&mut self, now: Time, request: Request, actions: &mut Vec<Action>) {
        let xid = request.special_xid().unwrap_or_else(|| {
            let xid = self.next_xid;
            self.next_xid = xid.next();
            xid
        });
        self.last_sent = now;
        if let Some(puppet) = &mut self.puppet {
            puppet.numbers.push_back(None);
        }
        actions.push(Action::Send(xid, request));
    }

    /// The connection that the last `Dial` made.
    pub fn dialled(&mut self, now: Time, connection: u64) {
        self.line = Line::Dialling { connection, since: now };
    }

    /// Writes a request down.
    pub fn note_sent(&mut self, now: Time, xid: Xid, request: Request, talk: &mut Conversation) {
        let is_write = is_write(&request);
        self.waiting.push_back((xid, talk.sent.len()));
        talk.sent.push(Sent { at: now, request, is_write });
    }

    /// A frame came on `connection`.
    pub fn on_frame(
        &mut self,
        now: Time,
        frame: &Bytes,
        talk: &mut Conversation,
        actions: &mut Vec<Action>,
    ) {
        let frame = frame.slice(4..);
        match self.line {
            Line::Dialling { connection, .. } if connection == talk.connection => {
                self.last_heard = now;
                self.on_handshake(now, frame, talk, actions);
            }
            Line::Open { connection } if connection == talk.connection => {
                self.last_heard = now;
                self.on_message(now, frame, talk, actions);
            }
            Line::Down { .. } | Line::Dialling { .. } | Line::Open { .. } => {}
        }
    }

    /// The server or the network closed `connection`.
    pub fn on_closed(&mut self, now: Time, closed: u64) {
        let current = match self.line {
            Line::Down { .. } => return,
            Line::Dialling { connection, .. } | Line::Open { connection } => connection,
        };
        if current == closed {
            self.down(now);
        }
    }

    /// Leaves the server for another one, keeping the session.
    pub fn give_up(&mut self, now: Time, actions: &mut Vec<Action>) {
        if !matches!(self.line, Line::Down { .. }) {
            actions.push(Action::HangUp);
            self.down(now);
        }
    }

    /// The process is killed, and another one starts in its place with nothing.
    pub fn die(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.give_up(now, actions);
        self.begin_anew();
    }

    fn dial(&mut self, now: Time, actions: &mut Vec<Action>) {
        let chosen = self.random.below(self.servers as u64) as usize;
        let server = self.home.unwrap_or(chosen);
        let (session, password) = match &self.session {
            Some((session, password)) => (*session, password.clone()),
            None => (SessionId::NONE, SessionPassword::zeros()),
        };
        // Older clients do not send it.
        let says_no = self.random.chance(1, 2).then_some(false);
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: i32::try_from(self.timeout / MS).expect("seconds"),
            session,
            password,
            read_only: if self.may_only_read { Some(true) } else { says_no },
        };
        self.line = Line::Dialling { connection: 0, since: now };
        actions.push(Action::Dial(server, request));
    }

    fn down(&mut self, now: Time) {
        let dial_at = now + 5 * MS + self.random.below(100 * MS);
        self.line = Line::Down { dial_at };
        self.tell_down();
        if let Some(locker) = &mut self.locker {
            locker.lost_connection();
        }
        self.waiting.clear();
        self.prepared.clear();
        self.next_xid = Xid::FIRST;
        for (path, zxid) in std::mem::take(&mut self.subscriptions).into_values() {
            self.resume.insert(path, zxid);
        }
    }

    /// Forgets the session and all that goes with it. What was seen stays seen.
    fn begin_anew(&mut self) {
        self.session = None;
        self.one_shot.clear();
        self.persistent.clear();
        if let Some(locker) = &mut self.locker {
            locker.begin_anew();
        }
    }

    fn on_handshake(
        &mut self,
        now: Time,
        frame: Bytes,
        talk: &mut Conversation,
        actions: &mut Vec<Action>,
    ) {
        let response = ConnectResponse::decode_frame(frame).expect("a handshake's answer");
        if response.is_session_over() {
            assert!(!talk.asked.is_none(), "a new session was refused");
            self.tell_over();
            self.begin_anew();
            self.down(now);
            return;
        }
        assert!(talk.asked.is_none() || talk.asked == response.session);
        self.session = Some((response.session, response.password));
        self.timeout = Time::try_from(response.timeout_ms).expect("positive") * MS;
        talk.opened = Some(response.session);
        talk.read_only = response.read_only == Some(true);
        assert!(self.may_only_read || !talk.read_only, "a client may only read, and wants more");
        self.line = Line::Open { connection: talk.connection };
        self.tell_opened(response.session, !talk.asked.is_none());
        self.last_sent = now;
        self.ask_at = now;
        self.log_in(now, actions);
        if let Some(request) = self.watches_to_set() {
            self.send(now, request, actions);
        }
    }

    fn watches_to_set(&self) -> Option<Request> {
        if self.one_shot.is_empty() && self.persistent.is_empty() {
            return None;
        }
        let of = |kind: OneShot| {
            let held = self.one_shot.iter().filter(|(_, kinds)| kinds.contains(&kind));
            held.map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        let lasting = |mode: AddWatchMode| {
            let held = self.persistent.iter().filter(|(_, held)| **held == mode);
            held.map(|(path, _)| path.clone()).collect::<Vec<_>>()
        };
        Some(Request::SetWatches2(SetWatchesRequest {
            relative_zxid: self.last_zxid,
            data_watches: of(OneShot::Data),
            exist_watches: of(OneShot::Exists),
            child_watches: of(OneShot::Children),
            persistent_watches: lasting(AddWatchMode::Persistent),
            persistent_recursive_watches: lasting(AddWatchMode::PersistentRecursive),
        }))
    }

    fn on_message(
        &mut self,
        now: Time,
        frame: Bytes,
        talk: &mut Conversation,
        actions: &mut Vec<Action>,
    ) {
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).expect("a header");
        if header.xid == Xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut reader).expect("an event");
            self.on_watch(&event);
            if let Some(locker) = &mut self.locker {
                locker.on_watch(&event);
            }
            talk.heard.push(Heard::Watch(header.zxid, event.event, event.path));
        } else if header.xid == Xid::SUBSCRIPTION {
            let event = SubscriptionEvent::decode(&mut reader).expect("an event");
            self.on_event(&event);
            self.tell_event(&event);
            talk.heard.push(Heard::Event(event));
        } else {
            let request = self.answered_by(header.xid, talk);
            let sent = &talk.sent[request].request;
            let outcome = match header.error {
                ErrorCode::Ok => Ok(Response::decode(sent.op(), &mut reader).expect("a body")),
                error => Err(error),
            };
            assert!(header.zxid >= self.last_zxid, "the session saw {} before", self.last_zxid);
            self.last_zxid = header.zxid;
            self.tell_reply(header.zxid, &outcome);
            self.on_reply(now, sent, &outcome, actions);
            self.take_answer(now, sent, &outcome);
            self.take_told(sent, &outcome);
            talk.heard.push(Heard::Reply { at: now, request, zxid: header.zxid, outcome });
        }
    }

    /// Which request an answer is for: the oldest; but pings pass what may wait for members or a leader.
    fn answered_by(&mut self, answered: Xid, talk: &Conversation) -> usize {
        let (xid, request) = *self.waiting.front().expect("a reply nobody waits for");
        let is_long =
            matches!(talk.sent[request].request, Request::Reconfig(_) | Request::TransferLeader(_));
        let place = match is_long && answered == Xid::PING {
            true => self.waiting.iter().position(|(xid, _)| *xid == answered),
            false => Some(0).filter(|_| answered == xid),
        };
        let place = place.unwrap_or_else(|| panic!("{answered:?} is answered, and {xid:?} waits"));
        self.waiting.remove(place).expect("just found").1
    }

    fn on_reply(
        &mut self,
        now: Time,
        request: &Request,
        outcome: &Result<Response, ErrorCode>,
        actions: &mut Vec<Action>,
    ) {
        match (request, outcome) {
            (Request::Exists(read), Ok(_)) => self.remember(read, OneShot::Data),
            (Request::Exists(read), Err(ErrorCode::NoNode)) => self.remember(read, OneShot::Exists),
            (Request::GetData(read), Ok(_)) => self.remember(read, OneShot::Data),
            (Request::GetChildren2(read), Ok(Response::NamesStat(names, _))) => {
                self.remember(read, OneShot::Children);
                if read.path == "/q" {
                    self.queue.clone_from(names);
                }
            }
            (Request::AddWatch(add), Ok(_)) => {
                self.persistent.insert(add.path.clone(), add.mode);
            }
            (Request::RemoveWatches(watch), Ok(_)) => {
                self.persistent.remove(&watch.path);
                self.one_shot.remove(&watch.path);
            }
            (Request::Subscribe(subscribe), Ok(_)) => {
                let complete = (subscribe.path.clone(), subscribe.from_zxid);
                self.subscriptions.insert(subscribe.subscription, complete);
            }
            (Request::CloseSession, Ok(_)) => {
                actions.push(Action::HangUp);
                self.begin_anew();
                self.down(now);
            }
            _ => {}
        }
    }

    fn remember(&mut self, read: &PathWatch, kind: OneShot) {
        if read.watch {
            self.one_shot.entry(read.path.clone()).or_default().insert(kind);
        }
    }

    fn on_watch(&mut self, event: &WatcherEvent) {
        let used: &[OneShot] = match event.event {
            EventType::NodeChildrenChanged => &[OneShot::Children],
            EventType::NodeDeleted => &[OneShot::Data, OneShot::Exists, OneShot::Children],
            _ => &[OneShot::Data, OneShot::Exists],
        };
        if let Some(kinds) = self.one_shot.get_mut(&event.path) {
            kinds.retain(|kind| !used.contains(kind));
            if kinds.is_empty() {
                self.one_shot.remove(&event.path);
            }
        }
    }

    fn on_event(&mut self, event: &SubscriptionEvent) {
        let complete = match event.kind {
            SubscriptionEventKind::SnapshotBegin | SubscriptionEventKind::SnapshotChunk => return,
            SubscriptionEventKind::SnapshotEnd
            | SubscriptionEventKind::Changes
            | SubscriptionEventKind::Bookmark => event.zxid,
        };
        if let Some((_, known)) = self.subscriptions.get_mut(&event.subscription) {
            *known = complete;
        }
    }
}

/// Whether a server numbers this request among the session's writes.
pub fn is_write(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_)
            | Request::Create2(_)
            | Request::CreateContainer(_)
            | Request::Delete(_)
            | Request::SetData(_)
            | Request::Check(_)
            | Request::Multi(_)
            | Request::CloseSession
            | Request::SessionOptions(_)
            | Request::Reconfig(_)
    )
}
