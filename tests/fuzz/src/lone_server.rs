//! A server that stands alone, and one client of it, without sockets, clocks or files.
//!
//! Called by: targets that speak to a server, and those that want what one has stored. Calls: the coordinator's core.
//! Invariant: what it is told is durable at once, and time passes only while something waits for it.

use coordinator_core::consensus::{LogEntry, PersistWrite, Restored, SnapshotImage};
use coordinator_core::digest_md5::Secret;
use coordinator_core::server::{Config, Effect, Event, SaslConfig, Server};
use coordinator_core::state::State;
use coordinator_core::{ConnectionId, Millis, Now, ServerId};
use coordinator_protocol::{
    ConnectRequest, Request, RequestHeader, SessionId, SessionPassword, Zxid,
};

/// Deadlines that pass before a lone server leads, and before one request is answered; more is a server that turns in circles.
const DEADLINES_MAX: usize = 1_000;
const CLIENT: ConnectionId = ConnectionId::new(1);

/// What the client got, and what was stored.
pub struct LoneServer {
    server: Server,
    now: Millis,
    /// Frames for the client, with their lengths.
    pub got: Vec<bytes::Bytes>,
    /// Whether the client's connection was closed.
    pub closed: bool,
    /// All that was to be written, in order.
    pub writes: Vec<PersistWrite>,
}

/// A new session's.
pub fn hello() -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: Zxid::ZERO,
        timeout_ms: 30_000,
        session: SessionId::NONE,
        password: SessionPassword::zeros(),
        read_only: Some(false),
    }
}

impl LoneServer {
    /// It leads already.
    pub fn new() -> LoneServer {
        let id = ServerId::new(1).expect("a server's id");
        let mut config = Config::new(id, vec![id]);
        config.super_digest = Some("super:xQJmxLMiHGwaqBvst5y6rkB6HQs=".to_owned());
        config.audit = true;
        let users = [("bob".to_owned(), Secret::new("bob", "builder"))].into();
        config.sasl = SaslConfig { users, ..SaslConfig::default() };
        let server = Server::new(config, Restored::default()).expect("a new server");
        let mut lone = LoneServer {
            server,
            now: Millis::new(1_000),
            got: Vec::new(),
            closed: false,
            writes: Vec::new(),
        };
        lone.step(Event::Tick);
        lone.pass_until(|lone| lone.server.status().confirmed);
        lone
    }

    /// The client says hello and waits for the answer.
    pub fn connect(&mut self, request: ConnectRequest) {
        let (address, certificate) = ("127.0.0.1".to_owned(), None);
        self.step(Event::Connect {
            connection: CLIENT,
            address,
            certificate,
            request,
            entropy: [7; 24],
        });
        self.pass_until(|lone| lone.closed || !lone.got.is_empty());
    }

    /// The client sends what `decode_request` gave.
    pub fn ask(
        &mut self,
        header: RequestHeader,
        request: Result<Request, coordinator_protocol::DecodeError>,
    ) {
        if !self.closed {
            self.step(Event::Request { connection: CLIENT, header, request });
        }
    }

    /// Checks every table of it.
    pub fn check(&self) {
        self.server.check();
    }

    pub fn state(&self) -> &State {
        self.server.state()
    }

    /// The log.
    pub fn entries(&self) -> impl Iterator<Item = &LogEntry> {
        self.writes.iter().flat_map(|write| &write.entries)
    }

    fn pass_until(&mut self, is_done: impl Fn(&LoneServer) -> bool) {
        for _ in 0..DEADLINES_MAX {
            if is_done(self) {
                return;
            }
            let due = self.server.next_deadline().expect("it has not halted");
            self.now = self.now.max(due);
            self.step(Event::Tick);
        }
        panic!("nothing came of {DEADLINES_MAX} deadlines");
    }

    fn step(&mut self, event: Event) {
        let mut events = vec![event];
        for _ in 0..DEADLINES_MAX {
            let mut effects = Vec::new();
            let now = Now { mono: self.now, wall_ms: 1_700_000_000_000 };
            self.server.step_all(events.drain(..), now, &mut effects);
            for effect in effects {
                events.extend(self.carry_out(effect));
            }
            // What is not finished goes on at once.
            let is_due = self.server.next_deadline().is_some_and(|due| due <= self.now);
            if events.is_empty() && is_due {
                events.push(Event::Tick);
            }
            if events.is_empty() {
                return;
            }
        }
        panic!("it never comes to an end");
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Respond { frame, .. } => self.got.push(frame),
            Effect::Close { .. } => self.closed = true,
            Effect::Persist { id, write } => {
                self.writes.push(write);
                return Some(Event::Persisted { id });
            }
            Effect::SaveSnapshot { state, keep_image, .. } => {
                let (index, term) = (state.index(), state.term());
                let image = SnapshotImage { index, term, data: state.encode() };
                let index = image.index;
                let image = keep_image.then_some(image);
                return Some(Event::SnapshotSaved { index, image });
            }
            Effect::Halt { reason } => panic!("the server halted: {reason}"),
            Effect::Reading { .. }
            | Effect::SendPeer { .. }
            | Effect::HurrySnapshot
            | Effect::Audit { .. }
            | Effect::Members { .. } => {}
        }
        None
    }
}

/// What a member of three says to the others while it asks for their votes, gets none, and asks again.
pub fn messages_of_a_start() -> Vec<Vec<u8>> {
    let ids: Vec<ServerId> = (1..=3).filter_map(ServerId::new).collect();
    let mut server =
        Server::new(Config::new(ids[0], ids.clone()), Restored::default()).expect("a new server");
    let mut now = Millis::new(1_000);
    let mut events = vec![Event::Tick];
    events.extend(ids[1..].iter().map(|peer| Event::PeerUp { peer: *peer }));
    let mut told = Vec::new();
    for _ in 0..DEADLINES_MAX {
        let mut effects = Vec::new();
        server.step_all(events.drain(..), Now { mono: now, wall_ms: 1 }, &mut effects);
        for effect in effects {
            match effect {
                Effect::SendPeer { bytes, .. } => told.push(bytes.to_vec()),
                Effect::Persist { id, .. } => events.push(Event::Persisted { id }),
                _ => {}
            }
        }
        if events.is_empty() {
            now = server.next_deadline().map_or(now, |due| due.max(now));
            events.push(Event::Tick);
        }
    }
    told
}
