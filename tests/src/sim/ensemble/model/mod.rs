//! What the ensemble should have agreed on: the committed log's meaning, by a second reading of the rules.
//!
//! Called by: `ledger`, once for each committed command; `audit::reads`. Calls: nothing of the code under test; it only takes
//! the log's commands, and states results in the same terms, so that they can be compared.
//! Invariant: nothing is shared with what it is compared with: maps of plain values, changed one at a time.

mod nodes;

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::state::{
    AppliedCommand, Attached, Command, Created, Ended, Ignored, MultiOutcome, OpResult, Origin,
    Outcome, State, TreeOp, WriteOp,
};
use coordinator_protocol::{ErrorCode, SessionId, SessionPassword, Zxid};

pub use nodes::{Changed, Nodes};

use nodes::Stamp;

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

/// Sessions and nodes.
#[derive(Debug, Clone)]
pub struct Model {
    term: u64,
    epoch: u32,
    counter: u32,
    wall_ms: i64,
    sessions: BTreeMap<SessionId, Known>,
    ended: BTreeSet<SessionId>,
    nodes: Nodes,
}

impl Model {
    /// Before the first entry.
    pub fn new() -> Self {
        Self {
            term: 0,
            epoch: 0,
            counter: 0,
            wall_ms: 0,
            sessions: BTreeMap::new(),
            ended: BTreeSet::new(),
            nodes: Nodes::new(),
        }
    }

    /// An entry's commands follow.
    pub fn begin_entry(&mut self, term: u64, wall_ms: i64) {
        if term > self.term {
            (self.term, self.epoch, self.counter) = (term, self.epoch + 1, 0);
        }
        self.wall_ms = wall_ms;
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
            Command::Write { session, generation, sequence, op, .. } => {
                let (session, generation, sequence) = (*session, *generation, *sequence);
                match self.why_ignored(session, generation, sequence) {
                    Some(why) => Outcome::Ignored { session, generation, sequence, why },
                    None => {
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
            Command::FoundMembers { .. } | Command::AdvanceMembers { .. } => {
                panic!("these servers do not let members be changed")
            }
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
            WriteOp::Reconfig(_) => panic!("the workload has none"),
            WriteOp::Tree(op) => self.operate(session, op)?,
            WriteOp::Multi(ops) => match self.multi(session, ops) {
                Ok(results) => OpResult::Multi(MultiOutcome::Done(results)),
                Err(codes) => return Ok(OpResult::Multi(MultiOutcome::Failed(codes))),
            },
        };
        self.counter += 1;
        Ok(result)
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
