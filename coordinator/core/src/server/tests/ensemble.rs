//! Members in one process: virtual time, ordered streams, a disk that keeps what was synced.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, ErrorCode, OpCode, Reader, Record, ReplyHeader, Request,
    RequestHeader, Response, SessionId, SessionPassword, SubscriptionEvent, WatcherEvent, Xid,
    Zxid,
};

use crate::consensus::{HardState, LogEntry, PersistWrite, Restored, SnapshotImage};
use crate::server::{AuditRecord, Config, Effect, Event, Server};
use crate::{ConnectionId, Millis, Now, ServerId};

/// One way of a message between members.
const HOP_MS: u64 = 1;

/// What one member's disk holds.
#[derive(Clone, Default)]
struct Disk {
    hard_state: HardState,
    snapshot: Option<SnapshotImage>,
    entries: Vec<LogEntry>,
}

impl Disk {
    fn write(&mut self, write: PersistWrite) {
        if let Some(image) = write.install {
            self.snapshot = Some(image);
            self.entries.clear();
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(write.entries);
        if let Some(index) = write.discard_to {
            self.entries.retain(|entry| entry.index > index);
        }
    }
}

struct Member {
    server: Option<Server>,
    disk: Disk,
    /// Raised by a crash: what was under way for the old life is void.
    life: u64,
    frozen: bool,
    /// What happened while it was frozen.
    waiting: Vec<Due>,
}

enum Due {
    Event { to: ServerId, life: u64, event: Event },
    Synced { at: ServerId, life: u64, write: PersistWrite, event: Event },
    Saved { at: ServerId, life: u64, image: SnapshotImage, keep_image: bool },
}

/// What a client got.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Connected(ConnectResponse),
    Reply(Xid, Zxid, Result<Response, ErrorCode>),
    Notified(Zxid, WatcherEvent),
    Told(SubscriptionEvent),
    Closed,
}

/// One socket of a client.
pub struct Client {
    pub server: ServerId,
    pub got: Vec<Got>,
    asked: BTreeMap<Xid, OpCode>,
    connected: bool,
    next_xid: Xid,
}

/// All of it.
pub struct Ensemble {
    pub now: Millis,
    members: BTreeMap<ServerId, Member>,
    due: BTreeMap<(Millis, u64), Due>,
    sequence: u64,
    /// Pairs that hear one another.
    links: BTreeSet<(ServerId, ServerId)>,
    /// Pairs that no new link comes about between.
    pub apart: BTreeSet<(ServerId, ServerId)>,
    /// Whom each member's settings name.
    named: BTreeMap<ServerId, Vec<ServerId>>,
    /// Whom each member dials and lets in.
    known: BTreeMap<ServerId, BTreeSet<ServerId>>,
    pub clients: BTreeMap<ConnectionId, Client>,
    next_connection: u64,
    configure: fn(&mut Config),
    /// How long a sync takes.
    pub sync_ms: u64,
    /// What a sync takes on some members instead.
    pub slow_ms: BTreeMap<ServerId, u64>,
    pub halted: Vec<(ServerId, &'static str)>,
    pub audited: Vec<(ServerId, AuditRecord)>,
    /// How long a snapshot takes to be written, and messages to some.
    pub save_ms: u64,
    pub far_ms: BTreeMap<ServerId, u64>,
    /// Who was told to hurry with a snapshot.
    pub hurried: Vec<ServerId>,
}

pub fn member(id: u64) -> ServerId {
    ServerId::new(id).unwrap()
}

impl Ensemble {
    pub fn new(size: u64) -> Self {
        Self::with(size, |_| {})
    }

    /// Starts `size` members and lets their streams come up.
    pub fn with(size: u64, configure: fn(&mut Config)) -> Self {
        Self::empty(configure).populated(size)
    }

    /// The same, with disks that need so long from the start.
    pub fn with_syncs_of(size: u64, sync_ms: u64) -> Self {
        Self { sync_ms, ..Self::empty(|_| {}) }.populated(size)
    }

    fn empty(configure: fn(&mut Config)) -> Self {
        Self {
            now: Millis::new(1_000),
            members: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            links: BTreeSet::new(),
            apart: BTreeSet::new(),
            named: BTreeMap::new(),
            known: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_connection: 1,
            configure,
            sync_ms: 2,
            slow_ms: BTreeMap::new(),
            halted: Vec::new(),
            audited: Vec::new(),
            far_ms: BTreeMap::new(),
            save_ms: 20,
            hurried: Vec::new(),
        }
    }

    fn populated(mut self, size: u64) -> Self {
        for id in 1..=size {
            self.place(self::member(id), (1..=size).map(self::member).collect());
        }
        for id in 1..=size {
            self.start(self::member(id));
        }
        self
    }

    /// A machine with an empty disk, whose settings name these.
    pub fn place(&mut self, id: ServerId, named: Vec<ServerId>) {
        let (server, disk, waiting) = (None, Disk::default(), Vec::new());
        let life = self.members.get(&id).map_or(0, |before| before.life + 1);
        self.members.insert(id, Member { server, disk, life, frozen: false, waiting });
        self.named.insert(id, named);
    }

    /// A member's process dials these from now on; who proves to belong here is let in by everybody.
    fn introduce(&mut self, id: ServerId, known: BTreeSet<ServerId>) {
        self.known.insert(id, known);
        let others: Vec<ServerId> = self.members.keys().copied().filter(|o| *o != id).collect();
        for (from, to) in others.into_iter().flat_map(|other| [(id, other), (other, id)]) {
            let knows = self.known.get(&from).is_some_and(|known| known.contains(&to));
            let up = |id: &ServerId| self.members[id].server.is_some();
            let linked = self.links.contains(&(from, to));
            let apart = self.apart.contains(&(from, to)) || self.apart.contains(&(to, from));
            if knows && !linked && !apart && up(&from) && up(&to) {
                self.links.insert((from, to));
                self.later(from, HOP_MS, Event::PeerUp { peer: to });
            } else if !knows && linked {
                self.links.remove(&(from, to));
                self.later(from, HOP_MS, Event::PeerLost { peer: to });
            }
        }
    }

    /// The network around a member is whole again: it links up with those that know it.
    pub fn mend(&mut self, a: ServerId) {
        if let Some(known) = self.known.get(&a).cloned() {
            self.introduce(a, known);
        }
    }

    pub fn start(&mut self, id: ServerId) {
        let ids = self.named[&id].clone();
        let mut config = Config::new(id, ids.clone());
        config.seed = id.get() * 7;
        (self.configure)(&mut config);
        config.validate().unwrap();
        let member = self.members.get_mut(&id).unwrap();
        let Disk { hard_state, snapshot, entries } = member.disk.clone();
        member.server =
            Some(Server::new(config, Restored { hard_state, snapshot, entries }).unwrap());
        member.life += 1;
        self.introduce(id, ids.into_iter().collect());
        self.step(id, Event::Tick);
    }

    /// Puts a snapshot in the place of all that a stopped member has on its disk.
    pub fn begin_from(&mut self, id: ServerId, (index, term): (u64, u64), data: Bytes) {
        let snapshot = Some(SnapshotImage { index, term, data });
        let hard_state = HardState { term, commit: index, ..HardState::default() };
        self.members.get_mut(&id).unwrap().disk =
            Disk { hard_state, snapshot, entries: Vec::new() };
    }

    pub fn connect_peers(&mut self, a: ServerId, b: ServerId) {
        self.links.insert((a, b));
        self.links.insert((b, a));
        for (to, peer) in [(a, b), (b, a)] {
            self.later(to, HOP_MS, Event::PeerUp { peer });
        }
    }

    pub fn cut_peers(&mut self, a: ServerId, b: ServerId, noticed: bool) {
        for (to, peer) in [(a, b), (b, a)] {
            if self.links.remove(&(to, peer)) && noticed {
                self.later(to, HOP_MS, Event::PeerLost { peer });
            }
        }
    }

    /// What one sends to the other vanishes, or arrives again. Nobody is told.
    pub fn lose_silently(&mut self, from: ServerId, to: ServerId, lost: bool) {
        match lost {
            true => self.links.remove(&(from, to)),
            false => self.links.insert((from, to)),
        };
    }

    /// Kills a process: its sockets close, what was not synced is gone.
    pub fn crash(&mut self, id: ServerId) {
        let member = self.members.get_mut(&id).unwrap();
        member.server = None;
        member.life += 1;
        let peers: Vec<ServerId> =
            self.members.keys().copied().filter(|peer| *peer != id).collect();
        for peer in peers {
            self.cut_peers(id, peer, true);
        }
        for client in self.clients.values_mut().filter(|client| client.server == id) {
            if !client.got.contains(&Got::Closed) {
                client.got.push(Got::Closed);
            }
        }
    }

    /// A process that gets no time; its sockets stay open.
    pub fn freeze(&mut self, id: ServerId, frozen: bool) {
        let member = self.members.get_mut(&id).unwrap();
        member.frozen = frozen;
        for due in std::mem::take(&mut member.waiting) {
            self.push(0, due);
        }
    }

    /// Gives a frozen process time to handle the first `count` things that happened; the rest
    /// still waits in its sockets.
    pub fn thaw_for(&mut self, id: ServerId, count: usize) {
        let member = self.members.get_mut(&id).unwrap();
        member.frozen = false;
        let rest = member.waiting.split_off(count.min(member.waiting.len()));
        for due in std::mem::replace(&mut member.waiting, rest) {
            self.happen(due);
        }
    }

    pub fn server(&self, id: ServerId) -> &Server {
        self.members[&id].server.as_ref().unwrap()
    }

    /// What is in the log on this member's disk.
    pub fn logged_entries(&self, id: ServerId) -> Vec<LogEntry> {
        self.members[&id].disk.entries.clone()
    }

    pub fn server_mut(&mut self, id: ServerId) -> &mut Server {
        self.members.get_mut(&id).unwrap().server.as_mut().unwrap()
    }

    pub fn leader(&self) -> Option<ServerId> {
        let leads = |member: &Member| {
            member.server.as_ref().is_some_and(|server| {
                matches!(
                    server.status().mode,
                    crate::server::Mode::Leader | crate::server::Mode::Standalone
                )
            })
        };
        let mut leaders: Vec<ServerId> =
            self.members.iter().filter(|(_, m)| leads(m) && !m.frozen).map(|(id, _)| *id).collect();
        leaders.sort_by_key(|id| self.server(*id).status().term);
        leaders.pop()
    }

    pub fn await_leader(&mut self) -> ServerId {
        self.run_until("a leader", |ensemble| {
            ensemble.leader().is_some_and(|id| {
                let status = ensemble.server(id).status();
                status.commit_index >= 1
                    && ensemble.server(id).state().applied_term() == status.term
            })
        });
        self.leader().unwrap()
    }

    fn wall(&self) -> Now {
        Now { mono: self.now, wall_ms: 1_700_000_000_000 + i64::try_from(self.now.get()).unwrap() }
    }

    fn later(&mut self, to: ServerId, delay_ms: u64, event: Event) {
        let life = self.members[&to].life;
        self.push(delay_ms, Due::Event { to, life, event });
    }

    fn push(&mut self, delay_ms: u64, due: Due) {
        self.sequence += 1;
        self.due.insert((self.now.plus_ms(delay_ms), self.sequence), due);
    }

    /// Steps a member and carries out its effects.
    pub fn step(&mut self, id: ServerId, event: Event) {
        let now = self.wall();
        let member = self.members.get_mut(&id).unwrap();
        let Some(server) = member.server.as_mut() else { return };
        let mut effects = Vec::new();
        server.step(event, now, &mut effects);
        server.check();
        for effect in effects {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: ServerId, effect: Effect) {
        let life = self.members[&id].life;
        match effect {
            Effect::Respond { connection, frame } => {
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.receive(frame);
                }
            }
            Effect::Close { connection } => {
                if let Some(client) = self.clients.get_mut(&connection) {
                    client.got.push(Got::Closed);
                }
            }
            Effect::Reading { .. } => {}
            Effect::SendPeer { to, bytes } => {
                if self.links.contains(&(id, to)) {
                    let hop_ms = self.far_ms.get(&to).copied().unwrap_or(HOP_MS);
                    self.later(to, hop_ms, Event::PeerMessage { from: id, bytes });
                }
            }
            Effect::Persist { id: persist, write } => {
                let event = Event::Persisted { id: persist };
                let sync_ms = *self.slow_ms.get(&id).unwrap_or(&self.sync_ms);
                self.push(sync_ms, Due::Synced { at: id, life, write, event });
            }
            Effect::SaveSnapshot { state, keep_image, .. } => {
                let (index, term, data) = (state.index(), state.term(), state.encode());
                let image = SnapshotImage { index, term, data };
                self.push(self.save_ms, Due::Saved { at: id, life, image, keep_image });
            }
            Effect::HurrySnapshot => self.hurried.push(id),
            Effect::Audit { record } => self.audited.push((id, *record)),
            Effect::Members { servers, .. } => self.introduce(id, servers.into_keys().collect()),
            Effect::Halt { reason } => self.halted.push((id, reason)),
        }
    }

    fn next_tick(&self) -> Option<(Millis, ServerId)> {
        let awake = self.members.iter().filter(|(_, member)| !member.frozen);
        awake.filter_map(|(id, member)| Some((member.server.as_ref()?.next_deadline()?, *id))).min()
    }

    /// Lets exactly so much time pass.
    pub fn run_exactly_ms(&mut self, duration_ms: u64) {
        let end = self.now.plus_ms(duration_ms);
        let next = |ensemble: &Self| {
            let due = ensemble.due.first_key_value().map(|((at, _), _)| *at);
            let tick = ensemble.next_tick().map(|(at, _)| at);
            due.into_iter().chain(tick).min()
        };
        while next(self).is_some_and(|at| at <= end) {
            self.advance();
        }
        self.now = end;
    }

    /// Moves to the next thing that happens.
    fn advance(&mut self) {
        let next_due = self.due.first_key_value().map(|((at, _), _)| *at);
        let next_tick = self.next_tick();
        match (next_due, next_tick) {
            (Some(due), Some((tick, id))) if tick < due => self.tick(id, tick),
            (None, Some((tick, id))) => self.tick(id, tick),
            (Some(due), _) => {
                self.now = self.now.max(due);
                let (_, due) = self.due.pop_first().unwrap();
                self.happen(due);
            }
            (None, None) => panic!("nothing will ever happen: {:?}", self.halted),
        }
    }

    fn tick(&mut self, id: ServerId, at: Millis) {
        self.now = self.now.max(at);
        self.step(id, Event::Tick);
    }

    fn happen(&mut self, due: Due) {
        let (at, life) = match &due {
            Due::Event { to, life, .. } => (*to, *life),
            Due::Synced { at, life, .. } | Due::Saved { at, life, .. } => (*at, *life),
        };
        if self.members[&at].life != life {
            return;
        }
        if self.members[&at].frozen {
            self.members.get_mut(&at).unwrap().waiting.push(due);
            return;
        }
        match due {
            Due::Event { to, event, .. } => {
                if let Event::PeerMessage { from, .. } = &event
                    && !self.links.contains(&(*from, to))
                {
                    return;
                }
                self.step(to, event);
            }
            Due::Synced { write, event, .. } => {
                self.members.get_mut(&at).unwrap().disk.write(write);
                self.step(at, event);
            }
            Due::Saved { image, keep_image, .. } => {
                let index = image.index;
                let saved = keep_image.then(|| image.clone());
                let disk = &mut self.members.get_mut(&at).unwrap().disk;
                if disk.snapshot.as_ref().is_none_or(|kept| kept.index < index) {
                    disk.snapshot = Some(image);
                }
                self.step(at, Event::SnapshotSaved { index, image: saved });
            }
        }
    }

    pub fn run_ms(&mut self, duration_ms: u64) {
        let end = self.now.plus_ms(duration_ms);
        while self.now < end {
            self.advance();
        }
    }

    pub fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now.plus_ms(90_000);
        while !done(self) {
            assert!(self.now < end, "waited in vain for {what}");
            self.advance();
        }
    }

    /// Opens a socket and shakes hands; does not wait.
    pub fn dial(&mut self, server: ServerId, request: ConnectRequest) -> ConnectionId {
        let id = ConnectionId::new(self.next_connection);
        self.next_connection += 1;
        let client = Client {
            server,
            got: Vec::new(),
            asked: BTreeMap::new(),
            connected: false,
            next_xid: Xid::FIRST,
        };
        self.clients.insert(id, client);
        let mut entropy = [0; 24];
        entropy[0..8].copy_from_slice(&(id.get() * 31).to_be_bytes());
        entropy[16..24].copy_from_slice(&id.get().to_be_bytes());
        self.step(
            server,
            Event::Connect {
                connection: id,
                address: Self::ADDRESS.into(),
                certificate: None,
                request,
                entropy,
            },
        );
        id
    }

    /// Where clients come from.
    pub const ADDRESS: &'static str = "10.1.2.3";

    /// A new session, waited for.
    pub fn connect(&mut self, server: ServerId, timeout_ms: i32) -> ConnectionId {
        let id = self.dial(server, connect_request(timeout_ms));
        self.run_until("a session", |ensemble| !ensemble.clients[&id].got.is_empty());
        assert!(self.clients[&id].response().timeout_ms > 0, "refused");
        id
    }

    pub fn send(&mut self, id: ConnectionId, request: Request) -> Xid {
        let client = self.clients.get_mut(&id).unwrap();
        let xid = request.special_xid().unwrap_or(client.next_xid);
        client.next_xid = client.next_xid.next();
        client.asked.insert(xid, request.op());
        let (server, header) = (client.server, RequestHeader { xid, op: request.op() });
        self.step(server, Event::Request { connection: id, header, request: Ok(request) });
        xid
    }

    /// Sends and waits for the answer.
    pub fn ask(&mut self, id: ConnectionId, request: Request) -> Result<Response, ErrorCode> {
        let xid = self.send(id, request);
        self.run_until("an answer", |ensemble| ensemble.clients[&id].reply(xid).is_some());
        self.clients[&id].reply(xid).unwrap()
    }

    pub fn hang_up(&mut self, id: ConnectionId, by_peer: bool) {
        let server = self.clients[&id].server;
        self.step(server, Event::Disconnected { connection: id, by_peer });
    }
}

impl Client {
    fn receive(&mut self, frame: Bytes) {
        let body = frame.slice(4..);
        if !self.connected {
            self.connected = true;
            self.got.push(Got::Connected(ConnectResponse::decode_frame(body).unwrap()));
            return;
        }
        let mut reader = Reader::new(body);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        if header.xid == Xid::NOTIFICATION {
            let event = WatcherEvent::decode(&mut reader).unwrap();
            self.got.push(Got::Notified(header.zxid, event));
        } else if header.xid == Xid::SUBSCRIPTION {
            self.got.push(Got::Told(SubscriptionEvent::decode(&mut reader).unwrap()));
        } else {
            let op = self.asked[&header.xid];
            let result = match header.error {
                ErrorCode::Ok => Ok(Response::decode(op, &mut reader).unwrap()),
                code => Err(code),
            };
            self.got.push(Got::Reply(header.xid, header.zxid, result));
        }
    }

    /// An answer will come to something that was not sent by `Ensemble::send`.
    pub fn expect(&mut self, xid: Xid, op: OpCode) {
        self.asked.insert(xid, op);
    }

    pub fn response(&self) -> &ConnectResponse {
        match &self.got[0] {
            Got::Connected(response) => response,
            other => panic!("not connected: {other:?}"),
        }
    }

    pub fn session(&self) -> SessionId {
        self.response().session
    }

    pub fn reply(&self, xid: Xid) -> Option<Result<Response, ErrorCode>> {
        self.got.iter().rev().find_map(|got| match got {
            Got::Reply(at, _, result) if *at == xid => Some(result.clone()),
            _ => None,
        })
    }

    pub fn is_closed(&self) -> bool {
        self.got.contains(&Got::Closed)
    }
}

pub fn connect_request(timeout_ms: i32) -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms,
        session: SessionId::NONE,
        password: SessionPassword::zeros(),
        read_only: Some(false),
    }
}
