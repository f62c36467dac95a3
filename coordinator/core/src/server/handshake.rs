//! How connections open: new sessions and moves are log entries.
//!
//! Called by the step. Calls `link` (commands to the leader). Invariant: nobody who has seen a
//! newer zxid than this server applied is answered; no handshake waits longer than its deadline.
//! It does not know passwords' truth: that is decided at apply.

use coordinator_protocol::{ConnectRequest, ConnectResponse, SessionId, SessionPassword};

use super::connection::{Connection, Handshake, Phase, Session};
use super::effect::Effect;
use super::identity;
use super::limits::NodeBounds;
use super::sasl;
use super::step::Server;
use crate::ConnectionId;
use crate::state::{Command, Origin};
use crate::tree::Identities;

/// Clients give a server about a second before they try another.
const ATTACH_AGAIN_MS: u64 = 500;

impl Server {
    pub(super) fn on_connect(
        &mut self,
        (id, identities): (ConnectionId, Identities),
        request: ConnectRequest,
        entropy: &[u8; 24],
    ) {
        let (password, rest) = entropy.split_at(SessionPassword::BYTES);
        let origin = rest.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let known =
            self.connections.get(id).is_some() || self.connections.of_origin(origin).is_some();
        if known || !self.is_member() {
            self.effects.push(Effect::Close { connection: id });
            return;
        }
        let handshake = Handshake {
            request,
            password: SessionPassword::new(password.to_vec()),
            received: self.now.mono,
            deadline: self.now.mono.plus_ms(self.config.handshake_wait_ms),
            command: None,
            early: Vec::new(),
        };
        let heard = self.lived();
        let has_users = !self.config.sasl.users.is_empty();
        let nonce = if has_users { sasl::nonce(entropy) } else { String::new() };
        self.watches.come_from(id, identity::client(&identities));
        let shown = (identities, nonce);
        let bounds = NodeBounds::of(self.config.request_bytes_max);
        let mut connection = Connection::new(origin, handshake, shown, heard, bounds);
        connection.established_wall_ms = self.now.wall_ms;
        self.connections.insert(id, connection);
        self.count_received(id);
        self.syncs.fence(id);
        self.propose_handshakes();
    }

    /// Lets handshakes go on whose clients have seen nothing that this server has not applied, and which may not be
    /// answered without the log soon.
    pub(super) fn propose_handshakes(&mut self) {
        if !self.syncs.has_fenced() {
            return;
        }
        for id in self.syncs.take_fenced() {
            let Some(connection) = self.connections.get(id) else { continue };
            let origin = Origin { server: self.config.id, connection: connection.origin };
            let Some(handshake) = connection.handshake() else { continue };
            let is_ahead = handshake.request.last_zxid_seen > self.state.last_zxid();
            if is_ahead || self.may_come_to_read(&handshake.request) {
                self.syncs.fence(id);
                continue;
            }
            let (request, password) = (&handshake.request, handshake.password.clone());
            let timeout_ms = self.clamp_timeout(request.timeout_ms);
            let command = if request.session.is_none() {
                let session = self.new_session_id(origin.connection);
                if !self.claim_session(id, session) {
                    // Without a word, as ZooKeeper sends away who has too many connections: the client tries another server.
                    self.close(id);
                    continue;
                }
                Command::CreateSession { session, password, timeout_ms, origin }
            } else {
                let (session, password) = (request.session, request.password.clone());
                let follows = self.state.session(session).map_or(0, |found| found.generation);
                Command::Attach { session, password, timeout_ms, follows, origin }
            };
            self.link.push(command.clone());
            if let Some(connection) = self.connections.get_mut(id)
                && let Phase::Handshake(handshake) = &mut connection.phase
            {
                handshake.command = Some(command);
            }
        }
    }

    /// The session moved between the client's request and its place in the log. Either this server
    /// lagged behind, or the client has gone elsewhere meanwhile and must not lose its session there:
    /// a client that waits on does not wait for long.
    pub(super) fn attach_again(&mut self, id: ConnectionId) {
        let now = self.now.mono;
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Phase::Handshake(handshake) = &mut connection.phase else { return };
        if now.since(handshake.received) >= ATTACH_AGAIN_MS {
            self.close(id);
            return;
        }
        handshake.command = None;
        self.syncs.fence(id);
    }

    /// Tells a client that its session is over, and lets it go.
    pub(super) fn refuse_handshake(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let Some(handshake) = connection.handshake() else { return };
        let frame = ConnectResponse::session_is_over(handshake.request.read_only).encode_frame();
        self.respond(id, frame);
        self.close(id);
    }

    /// The session of this handshake is the connection's own.
    pub(super) fn accept_handshake(&mut self, id: ConnectionId, session: Session) {
        let Some(connection) = self.connections.get(id) else { return };
        let Some(handshake) = connection.handshake() else { return };
        let password = match handshake.request.session.is_none() {
            true => handshake.password.clone(),
            false => handshake.request.password.clone(),
        };
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: i32::try_from(session.timeout_ms).unwrap_or(i32::MAX),
            session: session.id,
            password,
            read_only: handshake.request.read_only.map(|_| session.is_read_only()),
        };
        let received = handshake.received;
        self.respond(id, response.encode_frame());
        self.count_handshake(id, received);
        let lived = self.lived();
        if let Some(connection) = self.connections.get_mut(id) {
            connection.heard = lived;
        }
        let early_bytes = self.connections.get(id).map_or(0, |held| held.pending_bytes);
        self.counters.pending_bytes = self.counters.pending_bytes.saturating_sub(early_bytes);
        for (header, request) in self.connections.open(id, session) {
            self.on_request(id, header, request);
        }
        self.regulate_reading(id);
    }

    /// Closes connections whose handshake could not be answered in time: the client tries another
    /// server.
    pub(super) fn close_late_handshakes(&mut self) {
        let now = self.now.mono;
        let late = |connection: &Connection| {
            connection.handshake().is_some_and(|handshake| handshake.deadline <= now)
        };
        let late: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, held)| late(held)).map(|(id, _)| id).collect();
        for id in late {
            self.close(id);
        }
    }

    pub(super) fn clamp_timeout(&self, wanted_ms: i32) -> u32 {
        let wanted = u32::try_from(wanted_ms).unwrap_or(0);
        wanted.clamp(self.config.session_timeout_ms_min, self.config.session_timeout_ms_max)
    }

    /// The server id in the high byte, then 40 bits of wall time and 16 secret bits. Neither the
    /// marks of containers (the lowest number) nor of TTL nodes (0xff in front) can come out.
    pub(super) fn new_session_id(&mut self, entropy: u64) -> SessionId {
        let time = u64::from_be_bytes(self.now.wall_ms.to_be_bytes()) & 0xff_ffff_ffff;
        let low = ((time << 16) | (entropy & 0xffff)).max(1);
        let id = self.link.next_session(|last| low.max(last.saturating_add(1)));
        let value = (self.config.id.get() << 56) | (id & 0x00ff_ffff_ffff_ffff);
        SessionId::new(i64::from_be_bytes(value.to_be_bytes()))
    }
}
