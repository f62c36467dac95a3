//! What the ensemble should have agreed on: the committed log's meaning, by a second reading of the rules.
//!
//! Called by: `ledger`, once for each committed command; `audit::reads`. Calls: nothing of the code under test; it only takes
//! the log's commands, and states results in the same terms, so that they can be compared.
//! Invariant: nothing is shared with what it is compared with: maps of plain values, changed one at a time.

mod members;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coordinator_core::consensus::{EntryKind, LogEntry};
use coordinator_core::state::{
    AppliedCommand, Attached, Command, Created, Ended, Entry, Ignored, MultiOutcome, OpResult,
    Origin, Outcome, State, TreeOp, WriteOp,
};
use coordinator_core::tree::Identity;
use coordinator_protocol::{ErrorCode, ReconfigRequest, SessionId, SessionPassword, Zxid};

pub use members::Members;
pub use nodes::{Changed, Nodes};

use nodes::Stamp;

/// The scheme of whoever stands above all access lists.
const SUPER: &str = "super";

/// A session.
#[derive(Debug, Clone)]
struct Known {
    password: SessionPassword,
    timeout_ms: u32,
    generation: u64,
    /// Writes of this generation.
    written: u64,
    origin: Origin,
    grace_ms: Option<u32>,
}

/// Sessions, nodes and members.
#[derive(Debug, Clone)]
pub struct Model {
    /// Of the entry that was begun last.
    index: u64,
    term: u64,
    epoch: u32,
    counter: u32,
    wall_ms: i64,
    sessions: BTreeMap<SessionId, Known>,
    ended: BTreeSet<SessionId>,
    nodes: Nodes,
    members: Members,
}

impl Model {
    /// Before the first entry.
    pub fn new() -> Self {
        Self {
            index: 0,
            term: 0,
            epoch: 0,
            counter: 0,
            wall_ms: 0,
            sessions: BTreeMap::new(),
            ended: BTreeSet::new(),
            nodes: Nodes::new(),
            members: Members::default(),
        }
    }

    /// An entry's commands follow; one of consensus has none, and takes effect at once.
    pub fn begin_entry(&mut self, raw: &LogEntry, entry: &Entry) {
        self.index += 1;
        assert_eq!(raw.index, self.index, "entries follow one another");
        if raw.term > self.term {
            (self.term, self.epoch, self.counter) = (raw.term, self.epoch + 1, 0);
        }
        match raw.kind {
            EntryKind::Normal => self.wall_ms = entry.wall_ms,
            EntryKind::Members => self.members.step(&raw.data),
        }
    }

    /// The members.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The next command takes effect: what comes of it, and what changes.
    pub fn apply(&mut self, command: &Command) -> (Outcome, Vec<Changed>) {
        let outcome = match command {
            Command::CreateSession { session, password, timeout_ms, origin } => {
                self.create_session(*session, password, (*timeout_ms, *origin))
            }
            Command::Attach { session, password, timeout_ms, follows, origin } => {
                self.attach(*session, password, (*timeout_ms, *follows, *origin))
            }
            Command::Write { session, generation, sequence, op, identities } => {
                let (session, generation, sequence) = (*session, *generation, *sequence);
                match (self.why_ignored(session, generation, sequence), op) {
                    (Some(why), _) => Outcome::Ignored { session, generation, sequence, why },
                    (None, WriteOp::Reconfig(request)) => {
                        self.reconfigure((session, generation, sequence), request, identities)
                    }
                    (None, op) => {
                        let result = self.write(session, op);
                        Outcome::Written { session, generation, sequence, result }
                    }
                }
            }
            Command::Expire { session, generation } => {
                let (session, generation) = (*session, *generation);
                let known = self.sessions.get(&session);
                match known.is_some_and(|known| known.generation == generation) {
                    true => Outcome::Expired(self.end(session)),
                    false => Outcome::ExpiryRefused { session, generation },
                }
            }
            Command::FoundMembers { servers } => {
                let version = self.stamp().zxid;
                if self.members.found(members::texts(servers), version) {
                    let _stat = self.write_config();
                }
                Outcome::MembersMoved
            }
            Command::AdvanceMembers { change, to } => match self.members.advance(*change, *to) {
                Some(ended) => self.end_change(ended),
                None => Outcome::MembersMoved,
            },
            Command::RemoveDue { path } => {
                let gone = self.nodes.remove_due(self.stamp(), path);
                self.counter += u32::from(gone);
                Outcome::DueRemoved(gone)
            }
        };
        (outcome, self.nodes.keep())
    }

    /// The next command takes effect, as it did for the ensemble.
    pub fn follow(&mut self, command: &Command, applied: &AppliedCommand) {
        let (outcome, changes) = self.apply(command);
        assert_eq!(applied.outcome, outcome, "agreed, and what should have been, of {command:?}");
        assert_eq!(applied.zxid, self.last_zxid(), "agreed: zxid of {command:?}");
        let told = applied.changes.iter().map(|change| {
            assert_eq!(change.zxid, applied.zxid, "agreed: {change:?} of another write");
            let (path, data) = (change.path.to_string(), change.data.clone());
            Changed { path, kind: change.kind, data, stat: change.stat }
        });
        let told: Vec<Changed> = told.collect();
        assert_eq!(told, changes, "agreed changes, and what they should have been, of {command:?}");
    }

    /// Whether `state` is the same.
    pub fn compare(&self, state: &State) {
        self.nodes.compare(state.tree());
        self.members.compare(state);
        assert_eq!(state.last_zxid(), self.last_zxid(), "agreed: last zxid");
        assert_eq!(state.sessions().len(), self.sessions.len(), "agreed: sessions");
        let mut owned = 0;
        for (id, known) in &self.sessions {
            let found = state.session(*id).unwrap_or_else(|| panic!("agreed: {id} is missing"));
            let numbers = (found.timeout_ms, found.generation, found.sequence);
            let expected = (known.timeout_ms, known.generation, known.written);
            assert_eq!(numbers, expected, "agreed: time-out, generation, writes of {id}");
            assert_eq!(found.origin, known.origin, "agreed: whose {id} is");
            assert_eq!(found.fast_death_grace_ms, known.grace_ms, "agreed: grace of {id}");
            assert!(found.password == known.password, "agreed: password of {id}");
            let paths = self.nodes.owned(*id);
            let listed = state.tree().ephemerals_of(*id).map(|path| &**path);
            assert!(listed.eq(paths.iter().map(String::as_str)), "agreed: nodes of {id}");
            owned += paths.len();
        }
        assert_eq!(state.tree().ephemeral_count(), owned, "agreed: ephemerals");
    }

    /// The last zxid given.
    pub fn last_zxid(&self) -> Zxid {
        Zxid::from_parts(self.epoch, self.counter)
    }

    /// The term of the last entry.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The nodes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    fn stamp(&self) -> Stamp {
        let zxid = Zxid::from_parts(self.epoch, self.counter + 1);
        Stamp { zxid, wall_ms: self.wall_ms }
    }

    fn create_session(
        &mut self,
        session: SessionId,
        password: &SessionPassword,
        (timeout_ms, origin): (u32, Origin),
    ) -> Outcome {
        let refused = Outcome::Refused { session, origin, reason: ErrorCode::SessionExpired };
        let timeout_ms = match self.sessions.get(&session) {
            Some(known) if known.generation == 1 && known.origin == origin => known.timeout_ms,
            Some(_) => return refused,
            None if self.ended.contains(&session) => return refused,
            None => {
                let (password, generation, written) = (password.clone(), 1, 0);
                let known =
                    Known { password, timeout_ms, generation, written, origin, grace_ms: None };
                self.sessions.insert(session, known);
                self.counter += 1;
                timeout_ms
            }
        };
        Outcome::Created(Created { session, origin, generation: 1, timeout_ms })
    }

    fn attach(
        &mut self,
        session: SessionId,
        password: &SessionPassword,
        (timeout_ms, follows, origin): (u32, u64, Origin),
    ) -> Outcome {
        let refused = |reason| Outcome::Refused { session, origin, reason };
        let known = self.sessions.get_mut(&session).filter(|known| known.password == *password);
        let Some(known) = known else { return refused(ErrorCode::SessionExpired) };
        let previous = known.origin;
        if previous != origin {
            if known.generation != follows {
                return refused(ErrorCode::SessionMoved);
            }
            known.generation += 1;
            (known.origin, known.timeout_ms, known.written) = (origin, timeout_ms, 0);
        }
        let (generation, timeout_ms) = (known.generation, known.timeout_ms);
        Outcome::Attached(Attached { session, origin, previous, generation, timeout_ms })
    }

    /// Why a write is passed over; otherwise it is counted.
    fn why_ignored(&mut self, id: SessionId, generation: u64, sequence: u64) -> Option<Ignored> {
        let Some(known) = self.sessions.get_mut(&id) else { return Some(Ignored::NoSession) };
        if known.generation != generation {
            return Some(Ignored::Moved);
        }
        if sequence <= known.written {
            return Some(Ignored::Duplicate);
        }
        if sequence != known.written + 1 {
            return Some(Ignored::OutOfOrder);
        }
        known.written = sequence;
        None
    }

    fn write(&mut self, session: SessionId, op: &WriteOp) -> Result<OpResult, ErrorCode> {
        let result = match op {
            WriteOp::CloseSession => return Ok(OpResult::SessionClosed(self.end(session))),
            WriteOp::SessionOptions { fast_death_grace_ms } => {
                let known = self.sessions.get_mut(&session).expect("it writes");
                known.grace_ms = *fast_death_grace_ms;
                OpResult::OptionsSet
            }
            WriteOp::Reconfig(_) => panic!("it is decided when it ends"),
            WriteOp::Tree(op) => self.operate(session, op)?,
            WriteOp::Multi(ops) => match self.multi(session, ops) {
                Ok(results) => OpResult::Multi(MultiOutcome::Done(results)),
                Err(codes) => return Ok(OpResult::Multi(MultiOutcome::Failed(codes))),
            },
        };
        self.counter += 1;
        Ok(result)
    }

    fn reconfigure(
        &mut self,
        (session, generation, sequence): members::Asked,
        request: &ReconfigRequest,
        identities: &[Identity],
    ) -> Outcome {
        let is_super = identities.iter().any(|identity| identity.scheme == SUPER);
        let asked = (session, generation, sequence);
        match self.members.ask((self.index, asked), request, is_super) {
            Ok(()) => Outcome::Reconfiguring { session, generation, sequence },
            Err(code) => Outcome::Written { session, generation, sequence, result: Err(code) },
        }
    }

    fn end_change(&mut self, ended: members::Ended) -> Outcome {
        let (session, generation, sequence) = ended.asked;
        let result = ended.result.map(|servers| {
            self.members.agree_on(servers, self.stamp().zxid);
            self.write_config()
        });
        Outcome::Written { session, generation, sequence, result }
    }

    /// Clients see the servers.
    fn write_config(&mut self) -> OpResult {
        let data = Bytes::from(self.members.text());
        let stat = self.nodes.set_config(self.stamp(), data.clone());
        self.counter += 1;
        OpResult::Reconfigured { data, stat }
    }

    /// All or nothing: what each came to, or why nothing took place.
    fn multi(
        &mut self,
        session: SessionId,
        ops: &[TreeOp],
    ) -> Result<Vec<OpResult>, Vec<ErrorCode>> {
        let mut results = Vec::new();
        for op in ops {
            match self.operate(session, op) {
                Ok(result) => results.push(result),
                Err(error) => {
                    self.nodes.take_back();
                    let mut codes = vec![ErrorCode::Ok; results.len()];
                    codes.push(error);
                    codes.resize(ops.len(), ErrorCode::RuntimeInconsistency);
                    return Err(codes);
                }
            }
        }
        Ok(results)
    }

    fn operate(&mut self, session: SessionId, op: &TreeOp) -> Result<OpResult, ErrorCode> {
        let (at, nodes) = (self.stamp(), &mut self.nodes);
        match op {
            TreeOp::Create(request) => {
                let (path, _) = nodes.create(at, session, request)?;
                Ok(OpResult::Created { path: path.into() })
            }
            TreeOp::Create2(request) => {
                let (path, stat) = nodes.create(at, session, request)?;
                Ok(OpResult::Created2 { path: path.into(), stat })
            }
            TreeOp::Delete(request) => {
                nodes.delete(at, &request.path, request.version)?;
                Ok(OpResult::Deleted)
            }
            TreeOp::SetData(request) => Ok(OpResult::DataSet { stat: nodes.set(at, request)? }),
            TreeOp::Check(request) => {
                Ok(OpResult::Checked { stat: nodes.check(&request.path, request.version)? })
            }
            TreeOp::SetAcl(_) | TreeOp::CreateTtl(_) => panic!("the model does not know {op:?}"),
        }
    }

    /// A session ends, and its nodes go, all at once.
    fn end(&mut self, session: SessionId) -> Ended {
        self.nodes.delete_owned(self.stamp(), session);
        self.counter += 1;
        self.ended.insert(session);
        let known = self.sessions.remove(&session).expect("the caller found it");
        Ended { session, origin: known.origin, generation: known.generation }
    }
}
