//! One client connection: its handshake, its session, and its requests in order.
//!
//! Called by the other files of `server/`. Calls: nothing. Invariant: requests leave the pipeline
//! only at its front; `by_session` and `by_origin` name live connections only, one per session.
//! It does not know the tree, consensus or frames.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use coordinator_protocol::{
    ConnectRequest, DecodeError, ErrorCode, OpCode, Request, RequestHeader, Response, SessionId,
    SessionPassword, Xid,
};

use super::limits::{NodeBounds, PENDING_BYTES_MAX, PENDING_REQUESTS_MAX, PENDING_REQUESTS_RESUME};
use super::set_watches::Unset;
use super::traffic::ConnectionTraffic;
use crate::consensus::ReadId;
use crate::state::{Command, OpResult, WriteOp};
use crate::tree::Identities;
use crate::{ConnectionId, Millis};

/// A connection of this server.
#[derive(Debug)]
pub(super) struct Connection {
    /// Makes it unique over restarts, see `state::Origin`.
    pub(super) origin: u64,
    bounds: NodeBounds,
    pub(super) phase: Phase,
    /// Unanswered requests, oldest first.
    pub(super) pipeline: VecDeque<Pending>,
    /// Syncs and large reads in `pipeline`.
    barriers: usize,
    /// Other reads in `pipeline`.
    reads: usize,
    /// Writes in `pipeline` that were sent and are not decided...
    writes_out: usize,
    /// ...and that are not sent yet.
    writes_held: usize,
    /// Answers and notifications that wait for events of its subscriptions, in order.
    stash: VecDeque<Bytes>,
    /// Bytes of `stash`.
    stash_bytes: usize,
    /// Weight of the requests in `pipeline`, or of the early ones, and of `stash`.
    pub(super) pending_bytes: usize,
    /// What the shell was told last; it does not read before the handshake is answered.
    pub(super) reading: bool,
    /// Bytes given to it in the step with this number.
    sent_in_step: (u64, usize),
    /// Whether the shell has much unsent.
    pub(super) backlogged: bool,
    /// The oldest request could be answered, and waits for room, for events or for the next step.
    pub(super) held: bool,
    /// When the client was last heard, on the clock of [`super::step::Server::lived`].
    pub(super) heard: Millis,
    /// What the client has shown to be.
    pub(super) identities: Identities,
    /// What a proof by SASL has to answer.
    pub(super) nonce: String,
    /// Wall time at which it came.
    pub(super) established_wall_ms: i64,
    /// What came and went since the last reset.
    pub(super) traffic: ConnectionTraffic,
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
    /// The same; its answer may be as large as those of all reads that may stand before a write.
    LargeRead(Request),
    /// Watches to be set again in parts when their turn comes.
    SetWatches(Unset),
    /// Waits for a read index, then for the log to be applied up to it.
    Sync { then: AfterSync, read: ReadId, index: Option<u64> },
    /// A change of the members that has begun: the number of its write.
    Reconfig(u64),
    /// Waits until leadership has moved: a transfer's number.
    Transfer(u64),
    /// An answer that waits for its turn.
    Answer(Result<Response, ErrorCode>),
}

/// What is answered when this server has applied what a quorum knew.
#[derive(Debug)]
pub(super) enum AfterSync {
    /// sync: its path.
    Path(String),
    /// A read of a server whose reads are linearizable.
    Read(Request),
}

impl Step {
    /// Whether a write behind it is sent only when this is answered.
    fn is_barrier(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::LargeRead(_) | Self::SetWatches(_))
    }

    /// Of a write that was sent and is not decided its place among all that was sent.
    fn place(&self) -> Option<u64> {
        match self {
            Self::Write(write) => write.sent,
            Self::Sync { .. }
            | Self::Transfer(_)
            | Self::Reconfig(_)
            | Self::Written(_)
            | Self::Read(_)
            | Self::LargeRead(_)
            | Self::SetWatches(_)
            | Self::Answer(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct PendingWrite {
    pub(super) sequence: u64,
    /// Of its connection when it came.
    pub(super) identities: Identities,
    pub(super) op: WriteOp,
    /// Its place among all that this server sent to a leader. None while a sync or a large read stands before it,
    /// or reads that wait for more than earlier writes: they must not see it.
    pub(super) sent: Option<u64>,
}

impl Connection {
    pub(super) fn new(
        origin: u64,
        handshake: Handshake,
        (identities, nonce): (Identities, String),
        heard: Millis,
        bounds: NodeBounds,
    ) -> Self {
        Self {
            origin,
            bounds,
            heard,
            phase: Phase::Handshake(Box::new(handshake)),
            pipeline: VecDeque::new(),
            barriers: 0,
            reads: 0,
            writes_out: 0,
            writes_held: 0,
            stash: VecDeque::new(),
            stash_bytes: 0,
            pending_bytes: 0,
            reading: false,
            sent_in_step: (0, 0),
            backlogged: false,
            held: false,
            identities,
            nonce,
            established_wall_ms: 0,
            traffic: ConnectionTraffic::default(),
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
        if let Some(count) = self.count_of(&pending.step) {
            *count = count.saturating_add(1);
        }
        self.pipeline.push_back(pending);
    }

    /// Takes the oldest request, which must not be a write that waits.
    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.pipeline.pop_front()?;
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.bytes);
        if let Some(count) = self.count_of(&pending.step) {
            *count = count.saturating_sub(1);
        }
        Some(pending)
    }

    /// Takes the pings out of their turn.
    pub(super) fn take_pings(&mut self) -> VecDeque<Pending> {
        let pipeline = std::mem::take(&mut self.pipeline);
        let (pings, rest): (VecDeque<_>, VecDeque<_>) =
            pipeline.into_iter().partition(|pending| pending.op == OpCode::Ping);
        self.pipeline = rest;
        let bytes = pings.iter().fold(0_usize, |sum, ping| sum.saturating_add(ping.bytes));
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        pings
    }

    fn count_of(&mut self, step: &Step) -> Option<&mut usize> {
        match step {
            step if step.is_barrier() => Some(&mut self.barriers),
            Step::Sync { .. } | Step::LargeRead(_) | Step::SetWatches(_) => None,
            Step::Read(_) => Some(&mut self.reads),
            Step::Write(write) if write.sent.is_some() => Some(&mut self.writes_out),
            Step::Write(_) => Some(&mut self.writes_held),
            Step::Written(_) | Step::Reconfig(_) | Step::Transfer(_) | Step::Answer(_) => None,
        }
    }

    /// Whether a write that comes now may be sent at once. What is answered behind it in any case,
    /// because it must not see it, is bounded by this.
    pub(super) fn may_send(&self) -> bool {
        let reads_fit =
            self.reads <= self.bounds.reads_before_write && (self.reads == 0 || !self.held);
        self.barriers == 0 && self.writes_held == 0 && reads_fit
    }

    /// Whether a write is on its way that what stands before it must not see.
    pub(super) fn has_writes_out(&self) -> bool {
        self.writes_out > 0
    }

    /// Writes that may be sent now, in order: up to the next sync or large read, and behind no more reads than may
    /// stand before one. Each is given its place by `number`.
    pub(super) fn take_sendable(&mut self, mut number: impl FnMut() -> u64) -> Vec<Command> {
        let mut commands = Vec::new();
        let Some(session) = self.session().copied().filter(|_| self.writes_held > 0) else {
            return commands;
        };
        let mut reads = 0usize;
        for pending in &mut self.pipeline {
            match &mut pending.step {
                step if step.is_barrier() => break,
                Step::Read(_) => reads = reads.saturating_add(1),
                Step::Write(write) if write.sent.is_none() => {
                    if reads > self.bounds.reads_before_write || (reads > 0 && self.held) {
                        break;
                    }
                    write.sent = Some(number());
                    self.writes_held = self.writes_held.saturating_sub(1);
                    self.writes_out = self.writes_out.saturating_add(1);
                    commands.push(session.command(write));
                }
                Step::Sync { .. }
                | Step::LargeRead(_)
                | Step::SetWatches(_)
                | Step::Write(_)
                | Step::Written(_)
                | Step::Transfer(_)
                | Step::Reconfig(_)
                | Step::Answer(_) => {}
            }
        }
        commands
    }

    /// Keeps a frame until the events that it must not overtake are out; false if that would be more
    /// than it may keep.
    pub(super) fn stash(&mut self, frame: Bytes) -> bool {
        let bytes = self.stash_bytes.saturating_add(frame.len());
        let fits = bytes <= self.bounds.stash_bytes;
        if fits {
            self.stash_bytes = bytes;
            self.pending_bytes = self.pending_bytes.saturating_add(frame.len());
            self.stash.push_back(frame);
        }
        fits
    }

    /// Whether frames wait: all that follow wait behind them.
    pub(super) fn has_stash(&self) -> bool {
        !self.stash.is_empty()
    }

    /// The frames that waited.
    pub(super) fn take_stash(&mut self) -> VecDeque<Bytes> {
        let bytes = std::mem::take(&mut self.stash_bytes);
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        std::mem::take(&mut self.stash)
    }

    /// Stores the outcome of a write, if it waits here; returns its place among all that was sent.
    pub(super) fn decide(
        &mut self,
        sequence: u64,
        result: Result<OpResult, ErrorCode>,
    ) -> Option<u64> {
        let waits = |pending: &&mut Pending| match &pending.step {
            Step::Write(write) => write.sequence == sequence,
            Step::Reconfig(number) => *number == sequence,
            _ => false,
        };
        let pending = self.pipeline.iter_mut().find(waits)?;
        let before = std::mem::replace(&mut pending.step, Step::Written(result));
        if let Some(count) = self.count_of(&before) {
            *count = count.saturating_sub(1);
        }
        before.place()
    }

    /// A write has begun what takes a while; returns its place among all that was sent.
    pub(super) fn await_members(&mut self, sequence: u64) -> Option<u64> {
        let waits = |pending: &&mut Pending| matches!(&pending.step, Step::Write(write) if write.sequence == sequence);
        let pending = self.pipeline.iter_mut().find(waits)?;
        let before = std::mem::replace(&mut pending.step, Step::Reconfig(sequence));
        if let Some(count) = self.count_of(&before) {
            *count = count.saturating_sub(1);
        }
        before.place()
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
            Step::Write(write) if write.sent.is_some() => {
                session.map(|session| session.command(write))
            }
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

    /// The place of the oldest write that was sent and is not answered.
    pub(super) fn oldest_place(&self) -> Option<u64> {
        self.pipeline.iter().find_map(|pending| pending.step.place())
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
        self.session()?;
        match self.reading {
            true if full => Some(false),
            false if roomy => Some(true),
            _ => None,
        }
    }
}

impl Connection {
    /// Asserts what always holds.
    fn check(&self) {
        if self.session().is_none() {
            return;
        }
        let bytes: usize = self.pipeline.iter().map(|pending| pending.bytes).sum();
        let stash: usize = self.stash.iter().map(Bytes::len).sum();
        assert_eq!(bytes.saturating_add(stash), self.pending_bytes);
        assert_eq!(stash, self.stash_bytes);
        assert!(stash <= self.bounds.stash_bytes);
        let count = |which: fn(&Step) -> bool| {
            self.pipeline.iter().filter(|pending| which(&pending.step)).count()
        };
        assert_eq!(count(Step::is_barrier), self.barriers);
        assert_eq!(count(|step| matches!(step, Step::Read(_))), self.reads);
        assert_eq!(
            count(|step| matches!(step, Step::Write(write) if write.sent.is_some())),
            self.writes_out
        );
        assert_eq!(
            count(|step| matches!(step, Step::Write(write) if write.sent.is_none())),
            self.writes_held
        );
    }
}

impl Session {
    pub(super) fn command(&self, write: &PendingWrite) -> Command {
        Command::Write {
            session: self.id,
            generation: self.generation,
            sequence: write.sequence,
            identities: write.identities.clone(),
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

    pub(super) fn each_mut(&mut self, change: impl FnMut(&mut Connection)) {
        self.by_id.values_mut().for_each(change);
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        for (session, id) in &self.by_session {
            let holder = self.by_id.get(id).and_then(Connection::session);
            assert_eq!(holder.map(|held| held.id), Some(*session), "{session} is held by nobody");
        }
        assert_eq!(self.by_origin.len(), self.by_id.len(), "an origin is used twice");
        for connection in self.by_id.values() {
            connection.check();
        }
    }
}
