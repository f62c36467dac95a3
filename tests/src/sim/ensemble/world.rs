//! The simulated world: servers, wires, disks and clients on one thread and one clock.
//!
//! Called by: `run`. Calls: everything else here.
//! Invariant: each event is handled at its time, whole; every choice comes from the seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_core::consensus::SnapshotImage;
use coordinator_core::server::{Config, Effect, Event, Mode};
use coordinator_core::{ConnectionId, ServerId};
use coordinator_protocol::{ConnectRequest, Request, RequestHeader, SessionId, Xid};

use super::client::{Action, Client, Conversation};
use super::ledger::Ledger;
use super::links::Links;
use super::member::Member;
use super::network::{Pipe, delay};
use super::schedule::{MS, SECOND, Schedule, Time};
use super::settings::Settings;
use super::trace::Trace;
use crate::sim::decisions::Decisions;
use crate::sim::fault::Faults;
use crate::sim::random::Random;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Happening {
    /// Something inside one life of a server.
    Server { server: usize, life: u64, what: Inside },
    /// A message between servers arrives.
    PeerBytes { from: usize, to: usize, epoch: u64, bytes: Bytes },
    /// An end of a broken link learns of it.
    PeerNotice { server: usize, peer: usize, epoch: u64 },
    /// Two servers try to connect.
    Reconnect { pair: (usize, usize) },
    /// Something arrives at the server's end of a client's connection.
    Inward { connection: u64, what: Inward },
    /// Something arrives at the client's end.
    Outward { connection: u64, what: Outward },
    /// A client's time has come.
    ClientWake { client: usize, number: u64 },
    /// Something breaks, or is mended.
    Nemesis(super::nemesis::Deed),
}

/// What happens inside a server.
#[derive(Debug)]
pub(super) enum Inside {
    Tick(u64),
    DiskDone,
    SnapshotDone,
}

/// What a client sends.
#[derive(Debug)]
pub(super) enum Inward {
    Connect(ConnectRequest, [u8; 24]),
    Request(Xid, Request),
    Closed { by_peer: bool },
}

/// What a client hears.
#[derive(Debug)]
pub(super) enum Outward {
    Frame(Bytes),
    Closed,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) client: usize,
    pub(super) server: usize,
    pub(super) life: u64,
    pub(super) to_server: Pipe<Inward>,
    pub(super) to_client: Pipe<Outward>,
    /// The server has not closed it, and was not told that it is closed.
    pub(super) server_open: bool,
    pub(super) client_open: bool,
    /// What is on its way is lost.
    pub(super) broken: bool,
}

/// Whether this answers a request or a ping of an open session.
fn is_answer(effect: &Effect) -> bool {
    let Effect::Respond { frame, .. } = effect else { return false };
    let xid = frame.get(4..8).map(|xid| i32::from_be_bytes(xid.try_into().expect("four")));
    xid.is_some_and(|xid| xid > 0 || xid == Xid::PING.get())
}

fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Respond { .. } => "ensemble Respond",
        Effect::Close { .. } => "ensemble Close",
        Effect::Reading { .. } => "ensemble Reading",
        Effect::SendPeer { .. } => "ensemble SendPeer",
        Effect::Persist { .. } => "ensemble Persist",
        Effect::SaveSnapshot { .. } => "ensemble SaveSnapshot",
        Effect::Halt { .. } => "ensemble Halt",
    }
}

/// Everything.
pub struct World {
    pub(super) settings: Settings,
    pub(super) schedule: Schedule<Happening>,
    pub(super) trace: Trace,
    pub(super) members: Vec<Member>,
    pub(super) links: Links,
    pub(super) clients: Vec<Client>,
    pub(super) wakes: Vec<u64>,
    pub(super) sockets: BTreeMap<u64, Socket>,
    /// Which connection each client uses.
    pub(super) lines: Vec<Option<u64>>,
    pub(super) talks: BTreeMap<u64, Conversation>,
    /// When running servers heard of each session's client.
    pub(super) heard: BTreeMap<SessionId, Vec<Time>>,
    /// When a server handled that the client's side had closed a socket: by the server, from 0,
    /// and the socket's number in the log.
    pub(super) lost: BTreeMap<(usize, u64), Time>,
    pub(super) ledger: Ledger,
    pub(super) arsenal: Faults,
    pub(super) decided: Decisions,
    pub(super) network: Random,
    pub(super) disorder: Random,
    pub(super) disk: Random,
    pub(super) births: Random,
    pub(super) nemesis: Random,
    pub(super) steps: u64,
}

impl World {
    /// A world where all servers start and all clients dial.
    pub fn new(seed: u64, settings: Settings, print: bool) -> Self {
        let mut root = Random::new(seed);
        let mut stream = || Random::new(root.number());
        let mut births = stream();
        let ids: Vec<ServerId> =
            (1..=settings.servers as u64).map(|id| ServerId::new(id).expect("small")).collect();
        let member = |id: &ServerId| {
            let config = settings.configure(Config::new(*id, ids.clone()));
            Member::new(config, settings.segment_bytes, &mut births)
        };
        let mut members: Vec<Member> = ids.iter().map(member).collect();
        let mut drift = Random::new(seed ^ 0x0064_7269_6674);
        if settings.faults {
            members.iter_mut().for_each(|member| member.drift_ppm = drift.below(200));
        }
        let (network, disk, nemesis) = (stream(), stream(), stream());
        let client = |number: u64| {
            let mut random = stream();
            let timeout = settings.timeout(&mut random);
            let mut client = Client::new(number, settings.servers, timeout, random);
            if number < settings.puppets as u64 {
                client.tie(settings.puppet_timeout);
            }
            client
        };
        let clients: Vec<Client> = (0..settings.clients as u64).map(client).collect();
        let mut world = Self {
            schedule: Schedule::new(),
            trace: Trace::new(print),
            links: Links::new(settings.servers),
            wakes: vec![0; clients.len()],
            lines: vec![None; clients.len()],
            sockets: BTreeMap::new(),
            talks: BTreeMap::new(),
            heard: BTreeMap::new(),
            lost: BTreeMap::new(),
            ledger: Ledger::new(settings.servers, settings.state()),
            arsenal: Faults::without(&settings.without),
            decided: Decisions::default(),
            members,
            clients,
            settings,
            network,
            disorder: Random::new(seed ^ 0x6469_736f_7264),
            disk,
            births,
            nemesis,
            steps: 0,
        };
        for server in 0..world.members.len() {
            world.start_server(server);
        }
        for client in 0..world.clients.len() {
            world.wake_client_at(client, 0);
        }
        world
    }

    /// Lets everything happen that is due by `end`.
    pub fn run_until(&mut self, end: Time) {
        while let Some(happening) = self.schedule.next_until(end) {
            self.happen(happening);
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.schedule.now()
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Server { server, life, what } => {
                if self.members[server].life == life {
                    self.inside(server, what);
                }
            }
            Happening::PeerBytes { from, to, epoch, bytes } => {
                self.peer_bytes(from, to, (epoch, bytes));
            }
            Happening::PeerNotice { server, peer, epoch } => self.peer_notice(server, peer, epoch),
            Happening::Reconnect { pair } => self.reconnect(pair),
            Happening::Inward { connection, what } => self.inward(connection, what),
            Happening::Outward { connection, what } => self.outward(connection, what),
            Happening::ClientWake { client, number } => {
                if self.wakes[client] == number {
                    self.wake_client(client);
                }
            }
            Happening::Nemesis(deed) => self.strike(deed),
        }
    }

    fn inside(&mut self, server: usize, what: Inside) {
        let member = &mut self.members[server];
        match what {
            Inside::Tick(number) => {
                if member.tick.is_some_and(|(expected, _)| expected == number) {
                    member.tick = None;
                    self.deliver(server, Event::Tick);
                }
            }
            Inside::DiskDone => self.disk_done(server),
            Inside::SnapshotDone => match member.storage.finish_saving() {
                Ok(image) => self.deliver(server, Event::SnapshotSaved { image }),
                Err((index, _)) => self.deliver(server, Event::SnapshotFailed { index }),
            },
        }
    }

    fn disk_done(&mut self, server: usize) {
        let ids = match self.members[server].storage.finish() {
            Ok(ids) => ids,
            Err((id, _)) => return self.deliver(server, Event::PersistFailed { id }),
        };
        // Before that nobody was told of the vote.
        self.ledger.vote(server, self.members[server].storage.vote());
        let each = self.disk.chance(1, 2);
        let first = if each { 0 } else { ids.len() - 1 };
        for id in &ids[first..] {
            self.deliver(server, Event::Persisted { id: *id });
        }
        self.begin_writing(server);
        self.tempt_voter(server);
    }

    /// Starts to write what waits, if the disk is free.
    fn begin_writing(&mut self, server: usize) {
        let member = &mut self.members[server];
        if member.server.is_some() && member.storage.begin() {
            let usual = 100 + self.disk.below(2 * MS);
            let stalls = member.slow_disk && self.disk.chance(1, 100);
            let longest = if stalls { 5 * SECOND } else { 300 * MS };
            let slow = if member.slow_disk { self.disk.below(longest) } else { 0 };
            let what = Inside::DiskDone;
            let happening = Happening::Server { server, life: member.life, what };
            self.schedule.after(usual + slow, happening);
        }
    }

    /// Gives an event to a server now, or when it goes on.
    pub(super) fn deliver(&mut self, server: usize, event: Event) {
        let member = &mut self.members[server];
        if member.paused {
            member.inbox.push(event);
        } else if member.server.is_some() {
            self.step(server, vec![event]);
        }
    }

    /// One step of a server, and everything that is checked after it.
    pub(super) fn step(&mut self, id: usize, events: Vec<Event>) {
        let now = self.schedule.now();
        self.steps += 1;
        for event in &events {
            self.note_event(id, event);
        }
        let member = &mut self.members[id];
        let local = member.now(now);
        let Some(server) = &mut member.server else { return };
        let mut effects = Vec::new();
        server.step_all(events, local, &mut effects);
        server.check();
        let answers = effects.iter().any(is_answer);
        let status = server.status();
        // A7: no quorum, no answers.
        assert!(!answers || status.confirmed, "server {id} answers without a leader: {status:?}");
        let leads = matches!(status.mode, Mode::Leader | Mode::Standalone);
        for effect in effects {
            if let (true, Effect::Persist { write, .. }) = (leads, &effect) {
                let write = (write, &self.members[id].storage);
                self.ledger.check_appends(id, status.term, write);
            }
            self.carry_out(id, effect);
        }
        self.schedule_tick(id);
        let member = &self.members[id];
        if let Some(server) = &member.server {
            let compare = self.steps.is_multiple_of(64);
            self.ledger.observe(id, server, &member.storage, (now, compare));
        }
    }

    fn note_event(&mut self, id: usize, event: &Event) {
        let now = self.schedule.now();
        if let Event::Disconnected { connection, by_peer: true } = event {
            let talk = self.talks.get(&connection.get()).expect("it dialled");
            self.lost.entry((id, talk.origin)).or_insert(now);
        }
        let (name, numbers, bytes): (&str, [u64; 2], &[u8]) = match event {
            Event::Connect { connection, .. } => ("connect", [connection.get(), 0], &[]),
            Event::Request { connection, header, .. } => {
                let op = u64::from(header.op.code().unsigned_abs());
                ("request", [connection.get(), op], &[])
            }
            Event::Disconnected { connection, by_peer } => {
                ("disconnected", [connection.get(), u64::from(*by_peer)], &[])
            }
            Event::Backlogged { connection, backlogged } => {
                ("backlogged", [connection.get(), u64::from(*backlogged)], &[])
            }
            Event::PeerMessage { from, bytes } => ("peer message", [from.get(), 0], bytes),
            Event::PeerUp { peer } => ("peer up", [peer.get(), 0], &[]),
            Event::PeerLost { peer } => ("peer lost", [peer.get(), 0], &[]),
            Event::Persisted { id } => ("persisted", [id.0, 0], &[]),
            Event::PersistFailed { id } => ("persist failed", [id.0, 0], &[]),
            Event::SnapshotSaved { image } => ("snapshot saved", [image.index, 0], &[]),
            Event::SnapshotFailed { index } => ("snapshot failed", [*index, 0], &[]),
            Event::Tick => ("tick", [0, 0], &[]),
            Event::Resign => ("resign", [0, 0], &[]),
        };
        self.trace.note(now, name, &[id as u64 + 1, numbers[0], numbers[1]], bytes);
    }

    fn carry_out(&mut self, id: usize, effect: Effect) {
        let now = self.schedule.now();
        self.decided.note(name_of(&effect));
        match effect {
            Effect::Respond { connection, frame } => {
                self.trace.note(now, "  respond", &[connection.get()], &frame);
                self.send_outward(connection.get(), Outward::Frame(frame));
            }
            Effect::Close { connection } => {
                self.trace.note(now, "  close", &[connection.get()], &[]);
                self.send_outward(connection.get(), Outward::Closed);
                if let Some(socket) = self.sockets.get_mut(&connection.get()) {
                    socket.server_open = false;
                }
            }
            Effect::Reading { connection, on } => {
                self.trace.note(now, "  reading", &[connection.get(), u64::from(on)], &[]);
            }
            Effect::SendPeer { to, bytes } => {
                self.trace.note(now, "  send peer", &[to.get()], &bytes);
                let to = usize::try_from(to.get() - 1).expect("small");
                self.send_peer(id, to, bytes);
            }
            Effect::Persist { id: number, write } => {
                self.trace.note(now, "  persist", &[number.0, write.entries.len() as u64], &[]);
                let storage = &self.members[id].storage;
                self.ledger.log(id, &write, storage, now);
                self.members[id].storage.persist(number, write);
                self.begin_writing(id);
            }
            Effect::SaveSnapshot { state } => {
                let (index, term, data) = (state.index(), state.term(), state.encode());
                let image = SnapshotImage { index, term, data };
                self.trace.note(now, "  snapshot", &[image.index], &image.data);
                let member = &mut self.members[id];
                member.storage.begin_saving(image);
                let what = Inside::SnapshotDone;
                let happening = Happening::Server { server: id, life: member.life, what };
                self.schedule.after(MS + self.disk.below(50 * MS), happening);
            }
            Effect::Halt { reason } => {
                self.trace.note(now, "  halt", &[id as u64 + 1], reason.as_bytes());
                self.halted(id);
            }
        }
    }

    fn schedule_tick(&mut self, id: usize) {
        let now = self.schedule.now();
        let member = &mut self.members[id];
        let Some(deadline) = member.server.as_ref().and_then(|server| server.next_deadline())
        else {
            return;
        };
        let time = member.time_of(deadline).max(now + 1);
        if member.tick.is_some_and(|(_, scheduled)| scheduled == time) {
            return;
        }
        let number = self.steps;
        member.tick = Some((number, time));
        let what = Inside::Tick(number);
        self.schedule.at(time, Happening::Server { server: id, life: member.life, what });
    }

    fn inward(&mut self, connection: u64, what: Inward) {
        let now = self.schedule.now();
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        let server = socket.server;
        let alive = self.members[server].server.is_some();
        let closing = matches!(what, Inward::Closed { .. });
        if !alive
            || self.members[server].life != socket.life
            || !socket.server_open
            || (socket.broken && !closing)
        {
            return;
        }
        let id = ConnectionId::new(connection);
        let event = match what {
            Inward::Connect(request, entropy) => Event::Connect {
                connection: id,
                address: String::new(),
                certificate: None,
                request,
                entropy,
            },
            Inward::Request(xid, request) => {
                if let Some(session) = self.talks.get(&connection).and_then(|talk| talk.opened) {
                    self.heard.entry(session).or_default().push(now);
                }
                let header = RequestHeader { xid, op: request.op() };
                Event::Request { connection: id, header, request: Ok(request) }
            }
            Inward::Closed { by_peer } => {
                socket.server_open = false;
                Event::Disconnected { connection: id, by_peer }
            }
        };
        self.deliver(server, event);
    }

    fn outward(&mut self, connection: u64, what: Outward) {
        let now = self.schedule.now();
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        if !socket.client_open || (socket.broken && matches!(what, Outward::Frame(_))) {
            return;
        }
        let client = socket.client;
        let mut actions = Vec::new();
        match what {
            Outward::Closed => {
                socket.client_open = false;
                self.clients[client].on_closed(now, connection);
            }
            Outward::Frame(frame) => {
                let talk = self.talks.get_mut(&connection).expect("it dialled");
                let head = &frame[4..frame.len().min(20)];
                self.trace.say(now, || format!("c{client} hears on {connection}: {head:02x?}"));
                self.clients[client].on_frame(now, &frame, talk, &mut actions);
            }
        }
        self.act(client, actions);
        self.wake_client_at(client, now);
    }

    fn wake_client(&mut self, client: usize) {
        let now = self.schedule.now();
        let resumes = self.clients[client].paused_until;
        if resumes > now {
            self.wake_client_at(client, resumes);
            return;
        }
        let mut actions = Vec::new();
        let next = self.clients[client].wake(now, &mut actions);
        self.act(client, actions);
        self.wake_client_at(client, next.max(now + 1));
    }

    pub(super) fn wake_client_at(&mut self, client: usize, time: Time) {
        self.wakes[client] += 1;
        let number = self.wakes[client];
        self.schedule.at(time, Happening::ClientWake { client, number });
    }

    pub(super) fn act(&mut self, client: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(server, request) => self.dial(client, server, request),
                Action::Send(xid, request) => self.send_request(client, xid, request),
                Action::HangUp => self.hang_up(client),
            }
        }
    }

    fn send_request(&mut self, client: usize, xid: Xid, request: Request) {
        let now = self.schedule.now();
        let Some(connection) = self.lines[client] else { return };
        let talk = self.talks.get_mut(&connection).expect("it dialled");
        self.trace.say(now, || format!("c{client} asks {request:?}"));
        self.clients[client].note_sent(now, xid, request.clone(), talk);
        self.send_inward(connection, Inward::Request(xid, request));
    }

    fn hang_up(&mut self, client: usize) {
        let Some(connection) = self.lines[client].take() else { return };
        if let Some(socket) = self.sockets.get_mut(&connection) {
            socket.client_open = false;
        }
        self.send_inward(connection, Inward::Closed { by_peer: true });
    }

    fn dial(&mut self, client: usize, server: usize, request: ConnectRequest) {
        let now = self.schedule.now();
        let connection = self.talks.len() as u64 + 1;
        self.trace.note(now, "dial", &[client as u64, server as u64 + 1, connection], &[]);
        let mut entropy = [0; 24];
        for chunk in entropy.chunks_mut(8) {
            chunk.copy_from_slice(&self.births.number().to_be_bytes());
        }
        let origin = u64::from_be_bytes(entropy[16..].try_into().expect("eight bytes"));
        let talk = Conversation {
            connection,
            server,
            origin,
            asked: request.session,
            seen: request.last_zxid_seen,
            opened: None,
            backlogged: false,
            sent: Vec::new(),
            heard: Vec::new(),
        };
        self.talks.insert(connection, talk);
        let socket = Socket {
            client,
            server,
            life: self.members[server].life,
            to_server: Pipe::new(),
            to_client: Pipe::new(),
            server_open: true,
            client_open: true,
            broken: false,
        };
        self.sockets.insert(connection, socket);
        self.lines[client] = Some(connection);
        self.clients[client].dialled(now, connection);
        if self.members[server].server.is_some() {
            self.send_inward(connection, Inward::Connect(request, entropy));
        } else {
            let refused = Happening::Outward { connection, what: Outward::Closed };
            self.schedule.after(MS, refused);
        }
    }

    pub(super) fn send_inward(&mut self, connection: u64, what: Inward) {
        let now = self.schedule.now();
        let took = delay(&mut self.network, self.settings.slow_network);
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        if let Some((time, what)) = socket.to_server.send(now, took, what) {
            self.schedule.at(time, Happening::Inward { connection, what });
        }
    }

    pub(super) fn send_outward(&mut self, connection: u64, what: Outward) {
        let now = self.schedule.now();
        let took = delay(&mut self.network, self.settings.slow_network);
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        if let Some((time, what)) = socket.to_client.send(now, took, what) {
            self.schedule.at(time, Happening::Outward { connection, what });
        }
    }
}
