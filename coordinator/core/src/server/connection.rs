//! One client connection: its handshake, its session, and its requests in order.
//!
//! Called by the other files of `server/`. Calls: nothing. Invariant: requests leave the pipeline
//! only at its front; `by_session` and `by_origin` name live connections only, one per session.
//! It does not know the tree, consensus or frames.

use std::collections::{BTreeMap, VecDeque};

use coordinator_protocol::{
    ClientInfo, ConnectRequest, DecodeError, ErrorCode, OpCode, Request, RequestHeader, Response,
    SessionId, SessionPassword, Xid,
};

use super::limits::{PENDING_BYTES_MAX, PENDING_REQUESTS_MAX, PENDING_REQUESTS_RESUME};
use crate::consensus::ReadId;
use crate::state::{Command, OpResult, WriteOp};
use crate::{ConnectionId, Millis};

/// A connection of this server.
#[derive(Debug)]
pub(super) struct Connection {
    /// Makes it unique over restarts, see `state::Origin`.
    pub(super) origin: u64,
    pub(super) phase: Phase,
    /// Unanswered requests, oldest first.
    pub(super) pipeline: VecDeque<Pending>,
    /// Syncs in `pipeline`.
    syncs: usize,
    /// Weight of the requests in `pipeline`, or of the early ones.
    pub(super) pending_bytes: usize,
    /// What the shell was told last; it does not read before the handshake is answered.
    pub(super) reading: bool,
    /// Bytes given to it in the step with this number.
    sent_in_step: (u64, usize),
    /// Whether the shell has much unsent.
    pub(super) backlogged: bool,
    /// An answer waits for events of its subscriptions.
    pub(super) held: bool,
    /// Shown credentials.
    pub(super) identities: Vec<ClientInfo>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Handshake(Box<Handshake>),
    Open(Session),
}

/// What a connection is before its session is its own.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) request: ConnectRequest,
    /// For a new session.
    pub(super) password: SessionPassword,
    pub(super) received: Millis,
    /// The connection is closed if it is not open by then.
    pub(super) deadline: Millis,
    /// What was proposed; `None` while this server is behind what the client has seen.
    pub(super) command: Option<Command>,
    /// Requests that came before the answer.
    pub(super) early: Vec<EarlyRequest>,
}

/// A request that came before the handshake was answered.
pub(super) type EarlyRequest = (RequestHeader, Result<Request, DecodeError>);

/// The session that a connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) generation: u64,
    pub(super) timeout_ms: u32,
    /// Number of the last write that came by this connection.
    pub(super) last_sequence: u64,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) xid: Xid,
    pub(super) op: OpCode,
    pub(super) received: Millis,
    /// Its weight until it is answered.
    pub(super) bytes: usize,
    pub(super) step: Step,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Waits for its place in the log.
    Write(PendingWrite),
    /// Decided; waits for its turn.
    Written(Result<OpResult, ErrorCode>),
    /// To be read when its turn comes.
    Read(Request),
    /// Waits for a read index, then for the log to be applied up to it.
    Sync { path: String, read: ReadId, index: Option<u64> },
    /// An answer that waits for its turn.
    Answer(Result<Response, ErrorCode>),
}

#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) sequence: u64,
    pub(super) op: WriteOp,
    /// False while a sync stands before it: the sync must not see it.
    pub(super) sent: bool,
}

impl Connection {
    pub(super) fn new(origin: u64, handshake: Handshake) -> Self {
        Self {
            origin,
            phase: Phase::Handshake(Box::new(handshake)),
            pipeline: VecDeque::new(),
            syncs: 0,
            pending_bytes: 0,
            reading: false,
            sent_in_step: (0, 0),
            backlogged: false,
            held: false,
            identities: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Open(session) => Some(session),
            Phase::Handshake(_) => None,
        }
    }

    pub(super) fn handshake(&self) -> Option<&Handshake> {
        match &self.phase {
            Phase::Open(_) => None,
            Phase::Handshake(handshake) => Some(handshake),
        }
    }

    /// Adds a request at the end.
    pub(super) fn push(&mut self, pending: Pending) {
        self.pending_bytes = self.pending_bytes.saturating_add(pending.bytes);
        if matches!(pending.step, Step::Sync { .. }) {
            self.syncs = self.syncs.saturating_add(1);
        }
        self.pipeline.push_back(pending);
    }

    /// Takes the oldest request, which must not be a write that waits.
    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.pipeline.pop_front()?;
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.bytes);
        if matches!(pending.step, Step::Sync { .. }) {
            self.syncs = self.syncs.saturating_sub(1);
        }
        Some(pending)
    }

    /// Whether a sync is still waiting.
    pub(super) fn has_sync(&self) -> bool {
        self.syncs > 0
    }

    /// Stores the outcome of a write; false if no such write waits.
    pub(super) fn decide(&mut self, sequence: u64, result: Result<OpResult, ErrorCode>) -> bool {
        let waits = |pending: &&mut Pending| matches!(&pending.step, Step::Write(write) if write.sequence == sequence);
        let Some(pending) = self.pipeline.iter_mut().find(waits) else { return false };
        pending.step = Step::Written(result);
        true
    }

    /// Counts what it is given in this step.
    pub(super) fn note_sent(&mut self, step: u64, bytes: usize) {
        let before = self.sent_in(step);
        self.sent_in_step = (step, before.saturating_add(bytes));
    }

    /// Bytes given to it in this step so far.
    pub(super) fn sent_in(&self, step: u64) -> usize {
        if self.sent_in_step.0 == step { self.sent_in_step.1 } else { 0 }
    }

    /// Writes that were sent to a leader and not decided yet, as commands, in order.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = Command> {
        let session = self.session().copied();
        let handshake = self.handshake().and_then(|handshake| handshake.command.clone());
        let writes = self.pipeline.iter().filter_map(move |pending| match &pending.step {
            Step::Write(write) if write.sent => session.map(|session| session.command(write)),
            _ => None,
        });
        handshake.into_iter().chain(writes)
    }

    /// When the oldest command came that was sent and is not answered.
    pub(super) fn oldest_command(&self) -> Option<Millis> {
        if let Some(handshake) = self.handshake() {
            return handshake.command.as_ref().map(|_| handshake.received);
        }
        let first = self.pipeline.iter().find(|pending| matches!(pending.step, Step::Write(_)))?;
        Some(first.received)
    }

    /// Whether reading should stop or may go on; `None` to leave it as it is.
    pub(super) fn reading_change(&self, all_full: bool) -> Option<bool> {
        let waiting = self.pipeline.len();
        let full = waiting >= PENDING_REQUESTS_MAX
            || self.pending_bytes >= PENDING_BYTES_MAX
            || self.backlogged
            || (all_full && waiting > 0);
        let roomy = waiting <= PENDING_REQUESTS_RESUME
            && self.pending_bytes <= PENDING_BYTES_MAX / 2
            && !self.backlogged
            && (!all_full || waiting == 0);
        if self.session().is_none() {
            return None;
        }
        match self.reading {
            true if full => Some(false),
            false if roomy => Some(true),
            _ => None,
        }
    }
}

impl Session {
    pub(super) fn command(&self, write: &PendingWrite) -> Command {
        Command::Write {
            session: self.id,
            generation: self.generation,
            sequence: write.sequence,
            op: write.op.clone(),
        }
    }
}

/// All connections of this server, also by session and origin.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_id: BTreeMap<ConnectionId, Connection>,
    by_session: BTreeMap<SessionId, ConnectionId>,
    by_origin: BTreeMap<u64, ConnectionId>,
}

impl Connections {
    pub(super) fn insert(&mut self, id: ConnectionId, connection: Connection) {
        self.by_origin.insert(connection.origin, id);
        self.by_id.insert(id, connection);
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.by_id.get_mut(&id)
    }

    /// The connection that holds this session here.
    pub(super) fn of_session(&self, session: SessionId) -> Option<ConnectionId> {
        self.by_session.get(&session).copied()
    }

    pub(super) fn of_origin(&self, origin: u64) -> Option<ConnectionId> {
        self.by_origin.get(&origin).copied()
    }

    /// A handshake succeeded; returns the requests that came before, which weigh nothing any more.
    pub(super) fn open(&mut self, id: ConnectionId, session: Session) -> Vec<EarlyRequest> {
        let Some(connection) = self.by_id.get_mut(&id) else { return Vec::new() };
        self.by_session.insert(session.id, id);
        connection.pending_bytes = 0;
        match std::mem::replace(&mut connection.phase, Phase::Open(session)) {
            Phase::Handshake(handshake) => handshake.early,
            Phase::Open(_) => Vec::new(),
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.by_id.remove(&id)?;
        self.by_origin.remove(&connection.origin);
        if let Some(session) = connection.session()
            && self.by_session.get(&session.id) == Some(&id)
        {
            self.by_session.remove(&session.id);
        }
        Some(connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.by_id.iter().map(|(id, connection)| (*id, connection))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        for (session, id) in &self.by_session {
            let holder = self.by_id.get(id).and_then(Connection::session);
            assert_eq!(holder.map(|held| held.id), Some(*session), "{session} is held by nobody");
        }
        assert_eq!(self.by_origin.len(), self.by_id.len(), "an origin is used twice");
        for connection in self.by_id.values() {
            if connection.session().is_some() {
                let bytes = connection.pipeline.iter().map(|pending| pending.bytes);
                assert_eq!(bytes.sum::<usize>(), connection.pending_bytes);
            }
        }
    }
}
