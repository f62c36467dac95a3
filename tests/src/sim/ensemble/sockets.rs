//! Clients' connections: requests on their way in, frames on their way out.
//!
//! Called by: `world`, `nemesis`, `puppet`. Calls: `network`, the clients.
//! Invariant: each direction keeps its order; a server that does not read gets nothing, and all of it once it does again.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use coordinator_core::ConnectionId;
use coordinator_core::server::{Effect, Event};
use coordinator_protocol::{
    ConnectRequest, ConnectResponse, Request, RequestHeader, Xid, decode_request_frame,
    encode_request,
};

use super::client::Conversation;
use super::network::{Pipe, delay};
use super::schedule::MS;
use super::world::{Happening, World};

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
    /// The server reads from it.
    pub(super) reading: bool,
    /// What came while it did not.
    unread: VecDeque<Inward>,
    /// The server sends only what it must.
    backlogged: bool,
    /// Frames that the server has sent.
    frames: u64,
}

impl Socket {
    /// Whether the server reads all that comes.
    pub(super) fn is_read(&self) -> bool {
        self.reading && self.unread.is_empty()
    }
}

/// Whether a server takes the request's frame; of those that clients send here, only one kind can be too large.
fn fits(xid: Xid, request: &Request) -> bool {
    let mut frame = BytesMut::from(&encode_request(xid, request)[..]);
    matches!(decode_request_frame(&mut frame), Ok(Some(_)))
}

impl World {
    pub(super) fn inward(&mut self, connection: u64, what: Inward) {
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
        if matches!(what, Inward::Request(..)) && !(socket.reading && socket.unread.is_empty()) {
            socket.unread.push_back(what);
            return;
        }
        self.handle_inward(connection, what);
    }

    /// What came while a server did not read is read, one after the other, as long as it does.
    pub(super) fn read_on(&mut self, connection: u64) {
        let now = self.schedule.now();
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        let server = &self.members[socket.server];
        let is_there = server.life == socket.life && socket.server_open && !socket.broken;
        if !is_there || !socket.reading {
            return;
        }
        if let Some(what) = socket.unread.pop_front() {
            self.schedule.at(now, Happening::Read { connection });
            self.handle_inward(connection, what);
        }
    }

    fn handle_inward(&mut self, connection: u64, what: Inward) {
        let now = self.schedule.now();
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        let server = socket.server;
        let id = ConnectionId::new(connection);
        if let Inward::Request(xid, request @ Request::SetWatches2(_)) = &what
            && !fits(*xid, request)
        {
            socket.server_open = false;
            self.send_outward(connection, Outward::Closed);
            let refused = Event::Disconnected { connection: id, by_peer: false };
            return self.deliver(server, refused);
        }
        let event = match what {
            Inward::Connect(request, entropy) => {
                // Until it says otherwise.
                socket.reading = false;
                Event::Connect {
                    connection: id,
                    address: String::new(),
                    certificate: None,
                    request,
                    entropy,
                }
            }
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

    pub(super) fn outward(&mut self, connection: u64, what: Outward) {
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

    /// Takes note of handshakes that are answered for reads only.
    pub(super) fn note_readers(&mut self, effects: &[Effect]) {
        if self.settings.readers == 0 {
            return;
        }
        let mut opened = BTreeSet::new();
        for effect in effects {
            let Effect::Respond { connection, frame } = effect else { continue };
            let connection = connection.get();
            let is_first = self.sockets.get(&connection).is_some_and(|socket| socket.frames == 0);
            if is_first && opened.insert(connection) {
                let response = ConnectResponse::decode_frame(frame.slice(4..));
                if response.expect("a handshake's answer").read_only == Some(true) {
                    self.readers.insert(connection);
                }
            }
        }
    }

    pub(super) fn note_backlog(&mut self, connection: u64, backlogged: bool) {
        if let Some(socket) = self.sockets.get_mut(&connection) {
            socket.backlogged = backlogged;
        }
    }

    pub(super) fn send_request(&mut self, client: usize, xid: Xid, request: Request) {
        let now = self.schedule.now();
        let Some(connection) = self.lines[client] else { return };
        let talk = self.talks.get_mut(&connection).expect("it dialled");
        self.trace.say(now, || format!("c{client} asks {request:?}"));
        self.clients[client].note_sent(now, xid, request.clone(), talk);
        self.send_inward(connection, Inward::Request(xid, request));
    }

    pub(super) fn hang_up(&mut self, client: usize) {
        let Some(connection) = self.lines[client].take() else { return };
        if let Some(socket) = self.sockets.get_mut(&connection) {
            socket.client_open = false;
        }
        self.send_inward(connection, Inward::Closed { by_peer: true });
    }

    pub(super) fn dial(&mut self, client: usize, chosen: usize, request: ConnectRequest) {
        let now = self.schedule.now();
        let server = self.lead_to_member(chosen);
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
            read_only: false,
            unordered: Vec::new(),
            handled: Vec::new(),
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
            reading: true,
            unread: VecDeque::new(),
            backlogged: false,
            frames: 0,
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

    /// What waits in both directions goes on its way.
    pub(super) fn unclog(&mut self, connection: u64) {
        let now = self.schedule.now();
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        for what in socket.to_server.unblock() {
            let took = delay(&mut self.network, false);
            if let Some((time, what)) = socket.to_server.send(now, took, what) {
                self.schedule.at(time, Happening::Inward { connection, what });
            }
        }
        for what in socket.to_client.unblock() {
            let took = delay(&mut self.network, false);
            if let Some((time, what)) = socket.to_client.send(now, took, what) {
                self.schedule.at(time, Happening::Outward { connection, what });
            }
        }
    }

    pub(super) fn send_outward(&mut self, connection: u64, what: Outward) {
        let now = self.schedule.now();
        let took = delay(&mut self.network, self.settings.slow_network);
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        if matches!(what, Outward::Frame(_)) {
            if let (true, Some(talk)) = (socket.backlogged, self.talks.get_mut(&connection)) {
                talk.unordered.push(socket.frames);
            }
            socket.frames += 1;
        }
        if let Some((time, what)) = socket.to_client.send(now, took, what) {
            self.schedule.at(time, Happening::Outward { connection, what });
        }
    }
}
