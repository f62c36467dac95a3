//! What each operation becomes: a write for the log, a read, a wait, or an answer at once.
//!
//! Called by the step. Calls `pipeline`. Invariant: every request is answered, in its turn; what
//! is not understood is answered by a code and the session lives on. It does not know the tree.

use bytes::Bytes;
use coordinator_protocol::{
    AuthRequest, CreateMode, CreateRequest, DecodeError, ErrorCode, OpCode, Request, RequestHeader,
    Response, TransferRequest,
};

use super::connection::{AfterSync, Connection, Pending, PendingWrite, Phase, Session, Step};
use super::effect::Effect;
use super::limits::{
    EARLY_BYTES_MAX, EARLY_REQUESTS_MAX, PENDING_BYTES_ALL_MAX, PENDING_REQUESTS_HARD_MAX,
    READ_BYTES_MAX, SET_WATCHES_AT_ONCE_MAX, SET_WATCHES_HELD_BYTES,
};
use super::set_watches::{self, Unset};
use super::step::Server;
use super::weight::request_bytes;
use crate::ConnectionId;
use crate::state::{TreeOp, WriteOp};

/// A request sorted by what has to happen with it.
enum Sorted {
    Write(WriteOp),
    Read(Request),
    Sync(String),
    Transfer(TransferRequest),
    Answer(Result<Response, ErrorCode>),
    Auth(AuthRequest),
    Sasl(Option<Bytes>),
}

impl Server {
    pub(super) fn on_request(
        &mut self,
        id: ConnectionId,
        header: RequestHeader,
        request: Result<Request, DecodeError>,
    ) {
        self.count_received(id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let session = match &mut connection.phase {
            Phase::Open(session) => *session,
            Phase::Handshake(handshake) => {
                let bytes = request_bytes(&request);
                let early_bytes = connection.pending_bytes.saturating_add(bytes);
                if handshake.early.len() < EARLY_REQUESTS_MAX && early_bytes <= EARLY_BYTES_MAX {
                    handshake.early.push((header, request));
                    connection.pending_bytes = early_bytes;
                    self.counters.pending_bytes = self.counters.pending_bytes.saturating_add(bytes);
                } else {
                    self.close(id);
                }
                return;
            }
        };
        if connection.pipeline.len() >= PENDING_REQUESTS_HARD_MAX
            || !(session.is_read_only() || self.may_answer(session.timeout_ms))
            || !self.hear(id)
        {
            self.close(id);
            return;
        }
        let bytes = request_bytes(&request);
        if bytes > SET_WATCHES_HELD_BYTES && self.counters.pending_bytes >= PENDING_BYTES_ALL_MAX {
            // Others of its size wait already; its client comes again. What is smaller stops being read instead.
            self.close(id);
            return;
        }
        let sorted = if self.must_prove_first(id, header.op) {
            Sorted::Answer(Err(ErrorCode::SessionClosedRequireSaslAuth))
        } else if session.is_read_only() {
            self.sort_read_only(&session, request)
        } else {
            self.sort(request)
        };
        self.enqueue(id, header, bytes, sorted);
        self.run_pipeline(id);
    }

    fn sort(&self, request: Result<Request, DecodeError>) -> Sorted {
        match request {
            Ok(Request::Reconfig(request)) => match self.sort_reconfig(request) {
                Ok(write) => Sorted::Write(write),
                Err(code) => Sorted::Answer(Err(code)),
            },
            other => sort(other),
        }
    }

    fn enqueue(&mut self, id: ConnectionId, header: RequestHeader, bytes: usize, sorted: Sorted) {
        let step = match sorted {
            Sorted::Write(op) if self.has_no_room_for(&op) => {
                self.audit_refused(id, &op);
                if planted!(self.config.planted, WriteWhatIsRefused) {
                    let _ = self.begin_write(id, op);
                }
                Step::Answer(Err(ErrorCode::QuotaExceeded))
            }
            Sorted::Write(op) => match self.begin_write(id, op) {
                Some(write) => Step::Write(write),
                None => return,
            },
            Sorted::Read(Request::SetWatches(watches) | Request::SetWatches2(watches))
                if set_watches::cost(&watches) > SET_WATCHES_AT_ONCE_MAX =>
            {
                Step::SetWatches(Unset::new(watches))
            }
            Sorted::Read(request)
                if self.config.linearizable_reads
                    && reads_state(&request)
                    && !self.reads_only(id) =>
            {
                self.ask_quorum(id, AfterSync::Read(request))
            }
            Sorted::Read(request) => match self.may_be_large(id, &request) {
                true => Step::LargeRead(request),
                false => Step::Read(request),
            },
            Sorted::Sync(path) => self.ask_quorum(id, AfterSync::Path(path)),
            Sorted::Transfer(request) => self.begin_transfer(id, &request),
            Sorted::Answer(answer) => Step::Answer(answer),
            Sorted::Auth(auth) => Step::Answer(self.authenticate(id, auth)),
            Sorted::Sasl(token) => Step::Answer(self.exchange(id, token)),
        };
        let received = self.now.mono;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.push(Pending { xid: header.xid, op: header.op, received, bytes, step });
            self.counters.pending_bytes = self.counters.pending_bytes.saturating_add(bytes);
        }
        self.settle();
        self.regulate_reading(id);
    }

    /// What a client that may read only asks for.
    fn sort_read_only(
        &mut self,
        session: &Session,
        request: Result<Request, DecodeError>,
    ) -> Sorted {
        match sort(request) {
            Sorted::Write(WriteOp::CloseSession) if self.ends_locally(session) => {
                Sorted::Answer(Ok(Response::Empty))
            }
            Sorted::Write(_) | Sorted::Sync(_) => Sorted::Answer(Err(ErrorCode::NotReadOnly)),
            sorted => sorted,
        }
    }

    fn reads_only(&self, id: ConnectionId) -> bool {
        let session = self.connections.get(id).and_then(Connection::session);
        session.is_some_and(Session::is_read_only)
    }

    /// Waits for everything that is committed now, by a quorum's word.
    fn ask_quorum(&mut self, id: ConnectionId, then: AfterSync) -> Step {
        let read = self.consensus.read_index(self.now.mono, &mut self.outputs);
        self.syncs.wait(read, id);
        let known = planted!(self.config.planted, SyncWithoutQuorum);
        let index = known.then(|| self.state.applied_index());
        Step::Sync { then, read, index }
    }

    /// Whether the answer to a read that has to wait may be larger than the largest node. A list may grow
    /// until it is read, but only by what is written meanwhile.
    fn may_be_large(&self, id: ConnectionId, request: &Request) -> bool {
        let waits = self.connections.get(id).is_some_and(|held| !held.pipeline.is_empty());
        match request {
            Request::MultiRead(_) => true,
            Request::GetChildren(read) | Request::GetChildren2(read) if waits => {
                let names = self.state.tree().children(&read.path);
                is_long(names.into_iter().flatten().map(str::len))
            }
            Request::GetEphemerals(_) if waits => {
                let session = self.connections.get(id).and_then(Connection::session);
                let owned = session.map(|session| self.state.tree().ephemerals_of(session.id));
                is_long(owned.into_iter().flatten().map(|path| path.len()))
            }
            _ => false,
        }
    }

    /// Numbers a write, and sends it to the leader unless something stands before it that it must wait for.
    fn begin_write(&mut self, id: ConnectionId, op: WriteOp) -> Option<PendingWrite> {
        let connection = self.connections.get_mut(id)?;
        let sent = connection.may_send().then(|| self.link.number());
        let Phase::Open(session) = &mut connection.phase else { return None };
        session.last_sequence = session.last_sequence.saturating_add(1);
        let identities = connection.identities.clone();
        let write = PendingWrite { sequence: session.last_sequence, identities, op, sent };
        if sent.is_some() {
            self.link.push(session.command(&write));
        }
        Some(write)
    }

    pub(super) fn on_backlogged(&mut self, id: ConnectionId, backlogged: bool) {
        if !backlogged && self.is_silent(id) {
            self.close(id);
        }
        if let Some(connection) = self.connections.get_mut(id) {
            connection.backlogged = backlogged;
            self.release_held(id);
            self.regulate_reading(id);
        }
    }

    /// Stops or resumes reading from a connection, by how much of it waits.
    pub(super) fn regulate_reading(&mut self, id: ConnectionId) {
        let all_full = self.counters.pending_bytes >= super::limits::PENDING_BYTES_ALL_MAX;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some(on) = connection.reading_change(all_full) {
            connection.reading = on;
            self.effects.push(Effect::Reading { connection: id, on });
            if on {
                self.hear_unread(id);
            }
        }
    }

    /// The socket is gone.
    pub(super) fn on_disconnected(&mut self, id: ConnectionId, by_peer: bool) {
        let Some(connection) = self.forget_connection(id) else { return };
        if !by_peer {
            return;
        }
        match connection.session() {
            Some(session) if session.is_read_only() => {}
            Some(session) => {
                self.presence.lose(session.id, session.generation);
                self.report_loss(session.id);
            }
            None => self.presence.lose_handshake(connection.origin, self.now.mono),
        }
    }

    /// Closes a connection from this side: never a sign that the client died.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.forget_connection(id) else { return };
        self.effects.push(Effect::Close { connection: id });
        if planted!(self.config.planted, CountOwnClose)
            && let Some(session) = connection.session().filter(|session| !session.is_read_only())
        {
            self.presence.lose(session.id, session.generation);
            self.report_loss(session.id);
        }
    }

    fn forget_connection(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(id)?;
        self.watches.disconnect(id);
        self.subscriptions.disconnect(id);
        self.syncs.forget(id);
        self.unfinished.remove(&id);
        self.rearming.forget(id);
        self.counters.pending_bytes =
            self.counters.pending_bytes.saturating_sub(connection.pending_bytes);
        Some(connection)
    }
}

/// Whether names of these lengths make more than a read may answer that is not called large.
fn is_long(lengths: impl Iterator<Item = usize>) -> bool {
    let mut left = READ_BYTES_MAX;
    for length in lengths {
        match left.checked_sub(length.saturating_add(size_of::<i32>())) {
            Some(rest) => left = rest,
            None => return true,
        }
    }
    false
}

fn sort(request: Result<Request, DecodeError>) -> Sorted {
    let request = match request {
        Ok(request) => request,
        Err(_) => return Sorted::Answer(Err(ErrorCode::MarshallingError)),
    };
    match request {
        Request::Create(create) => tree(TreeOp::Create(create)),
        Request::Create2(create) => tree(TreeOp::Create2(create)),
        Request::CreateContainer(create) => {
            let flags = CreateMode::Container.code();
            tree(TreeOp::Create2(CreateRequest { flags, ..create }))
        }
        Request::CreateTtl(create) => tree(TreeOp::CreateTtl(create)),
        Request::Delete(delete) => tree(TreeOp::Delete(delete)),
        Request::SetData(set) => tree(TreeOp::SetData(set)),
        Request::SetAcl(set) => tree(TreeOp::SetAcl(set)),
        Request::Check(check) => tree(TreeOp::Check(check)),
        Request::Multi(ops) => {
            Sorted::Write(WriteOp::Multi(ops.into_iter().map(TreeOp::from).collect()))
        }
        Request::SessionOptions(options) => Sorted::Write(WriteOp::SessionOptions {
            fast_death_grace_ms: u32::try_from(options.fast_death_grace_ms).ok(),
        }),
        Request::CloseSession => Sorted::Write(WriteOp::CloseSession),
        Request::Sync(path) => Sorted::Sync(path),
        Request::TransferLeader(request) => Sorted::Transfer(request),
        Request::Ping => Sorted::Answer(Ok(Response::Empty)),
        Request::Auth(auth) => Sorted::Auth(auth),
        Request::Exists(_)
        | Request::GetData(_)
        | Request::GetAcl(_)
        | Request::GetChildren(_)
        | Request::GetChildren2(_)
        | Request::CheckWatches(_)
        | Request::RemoveWatches(_)
        | Request::GetEphemerals(_)
        | Request::GetAllChildrenNumber(_)
        | Request::GetChildrenPage(_)
        | Request::AddWatch(_)
        | Request::Subscribe(_)
        | Request::Unsubscribe(_)
        | Request::WhoAmI
        | Request::DescribeEnsemble
        | Request::SetWatches(_)
        | Request::SetWatches2(_)
        | Request::MultiRead(_) => Sorted::Read(request),
        // Its server looks at it first.
        Request::Reconfig(request) => Sorted::Write(WriteOp::Reconfig(request)),
        Request::Sasl(token) => Sorted::Sasl(token),
        Request::DeleteContainer(_) | Request::Unknown(_) => {
            Sorted::Answer(Err(ErrorCode::Unimplemented))
        }
    }
}

/// Whether a request reads what others write.
fn reads_state(request: &Request) -> bool {
    matches!(
        request,
        Request::Exists(_)
            | Request::GetData(_)
            | Request::GetAcl(_)
            | Request::GetChildren(_)
            | Request::GetChildren2(_)
            | Request::GetEphemerals(_)
            | Request::GetAllChildrenNumber(_)
            | Request::GetChildrenPage(_)
            | Request::MultiRead(_)
    )
}

fn tree(op: TreeOp) -> Sorted {
    Sorted::Write(WriteOp::Tree(op))
}

/// Whether an answer ends its connection: also when watches could not be set again, because clients do
/// not look at that answer, and would wait for events that never come.
pub(super) fn ends_connection(op: OpCode, error: Option<ErrorCode>) -> bool {
    match op {
        OpCode::CloseSession => true,
        OpCode::Auth | OpCode::Sasl | OpCode::SetWatches | OpCode::SetWatches2 => error.is_some(),
        _ => error == Some(ErrorCode::SessionClosedRequireSaslAuth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_as_many_bytes_as_a_read_may_answer_are_not_long_and_one_more_is() {
        let entry = 16;
        let fit = READ_BYTES_MAX / entry;
        let lengths = |count: usize| std::iter::repeat_n(entry - size_of::<i32>(), count);
        assert!(!is_long(lengths(fit)));
        assert!(is_long(lengths(fit).chain([0])));
        assert!(is_long(std::iter::once(READ_BYTES_MAX - size_of::<i32>() + 1)));
        assert!(is_long(std::iter::once(usize::MAX)));
    }
}
