//! The replicated state, changed by entries in log order.
//!
//! Called by: the server (applies committed entries; reads). Calls: `tree`, `zxid`, `session`.
//! Invariant: what `apply` does depends on the state and the entry alone; an entry is applied
//! once; every owner of an ephemeral is a session.
//! It does not know which entries are committed, who waits for an answer, nor any timer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use coordinator_protocol::{ErrorCode, SessionId, SessionPassword, Zxid};

use super::entry::{Command, Entry, Origin, TreeOp, WriteOp};
use super::membership::Membership;
use super::outcome::{
    Applied, AppliedCommand, Attached, Created, Ended, Ignored, MultiOutcome, OpResult, Outcome,
};
use super::session::Session;
use super::zxid::ZxidClock;
use crate::tree::{Change, Identity, Stamp, Transaction, Tree};

/// Sessions of an ensemble; one more is refused with -127.
pub const SESSIONS_MAX: usize = 1_000_000;

/// Ids of ended sessions that are remembered, so that a repeated create cannot bring one back.
pub(super) const ENDED_SESSIONS_MAX: usize = 4096;

/// Sessions and znodes as of one position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The last entry that was applied whole; 0 = none.
    pub(super) index: u64,
    /// Whether the entry after it is being applied.
    pub(super) begun: bool,
    pub(super) zxids: ZxidClock,
    /// The time stamp of the entry being applied.
    pub(super) wall_ms: i64,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// Latest last; as many as `ENDED_SESSIONS_MAX`.
    pub(super) ended: VecDeque<SessionId>,
    pub(super) tree: Tree,
    /// None while the settings of each server say who the members are.
    pub(super) membership: Option<Membership>,
    #[cfg(planted)]
    pub(super) planted: Option<crate::planted::Planted>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state of a new ensemble, before its first entry.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: 0,
            begun: false,
            zxids: ZxidClock::default(),
            wall_ms: 0,
            sessions: BTreeMap::new(),
            ended: VecDeque::new(),
            tree: Tree::new(),
            membership: None,
            #[cfg(planted)]
            planted: None,
        }
    }

    /// Puts a bug in.
    #[cfg(planted)]
    #[must_use]
    pub fn planted_with(self, planted: Option<crate::planted::Planted>) -> Self {
        Self { planted, ..self }
    }

    /// Applies the whole entry at `index`: `begin_entry`, each command, `end_entry`.
    pub fn apply(&mut self, term: u64, index: u64, entry: &Entry) -> Applied {
        self.begin_entry(term, index, entry.wall_ms);
        let commands = entry.commands.iter().map(|command| self.apply_command(command)).collect();
        self.end_entry();
        Applied { index, commands }
    }

    /// Moves on to the entry at `index`. Entries without commands (a leader's first one) go
    /// through here as well: indexes leave no gap.
    ///
    /// A server that answers after each `apply_command`, instead of after the whole entry, lets a
    /// read that was sent between two writes see exactly the state between them.
    pub fn begin_entry(&mut self, term: u64, index: u64, wall_ms: i64) {
        assert!(!self.begun, "entry {} was not ended", self.index + 1);
        assert_eq!(index, self.index + 1, "entries are applied one after the other");
        self.begun = true;
        self.zxids.enter_term(term);
        self.wall_ms = wall_ms;
    }

    /// The last command of the entry was applied: only now `applied_index` says so. Whoever waits
    /// for an index waits for all of its commands.
    pub fn end_entry(&mut self) {
        assert!(self.begun, "no entry was begun after {}", self.index);
        self.begun = false;
        self.index += 1;
    }

    /// Applies the next command of the entry begun last.
    pub fn apply_command(&mut self, command: &Command) -> AppliedCommand {
        assert!(self.begun, "no entry was begun after {}", self.index);
        let mut changes = Vec::new();
        let outcome = match command {
            Command::RemoveDue { path } => self.remove_due(path, &mut changes),
            Command::CreateSession { session, password, timeout_ms, origin } => {
                self.create_session(*session, password, *timeout_ms, *origin)
            }
            Command::Attach { session, password, timeout_ms, follows, origin } => {
                self.attach(*session, password, (*timeout_ms, *follows), *origin)
            }
            Command::FoundMembers { servers } => self.found_members(servers, &mut changes),
            Command::AdvanceMembers { change, to } => {
                self.advance_members(*change, *to, &mut changes)
            }
            Command::Write { session, generation, sequence, identities, op } => {
                let (session, generation, sequence) = (*session, *generation, *sequence);
                match self.admit(session, generation, sequence) {
                    Err(why) => Outcome::Ignored { session, generation, sequence, why },
                    Ok(()) => match op {
                        WriteOp::Reconfig(request) => {
                            self.reconfigure((session, generation, sequence), identities, request)
                        }
                        _ => {
                            let result = self.write((session, identities), op, &mut changes);
                            Outcome::Written { session, generation, sequence, result }
                        }
                    },
                }
            }
            Command::Expire { session, generation } => {
                match self.session(*session).is_some_and(|found| found.generation == *generation) {
                    true => Outcome::Expired(self.end_session(*session, &mut changes)),
                    false => Outcome::ExpiryRefused { session: *session, generation: *generation },
                }
            }
        };
        AppliedCommand { zxid: self.last_zxid(), outcome, changes }
    }

    /// The last zxid given.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.zxids.last()
    }

    /// The last entry applied whole; 0 = none.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.index
    }

    /// The term of the last entry begun.
    #[must_use]
    pub fn applied_term(&self) -> u64 {
        self.zxids.term()
    }

    /// The znodes.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A live session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All live sessions, in ascending order of ids.
    pub fn sessions(&self) -> impl ExactSizeIterator<Item = &Session> {
        self.sessions.values()
    }

    /// Asserts what always holds. Walks everything.
    pub fn check(&self) {
        assert!(self.zxids.is_sound(), "{:?}", self.zxids);
        self.tree.check();
        assert!(self.sessions.len() <= SESSIONS_MAX);
        assert!(self.ended.len() <= ENDED_SESSIONS_MAX);
        for (id, session) in &self.sessions {
            assert_eq!(*id, session.id);
            assert!(session.is_sound(), "{session:?}");
        }
        let ended: BTreeSet<SessionId> = self.ended.iter().copied().collect();
        assert_eq!(ended.len(), self.ended.len(), "a session ended twice");
        assert!(ended.iter().all(|id| !self.sessions.contains_key(id)), "an ended session lives");
        for (owner, _) in self.tree.ephemeral_owners() {
            assert!(self.sessions.contains_key(&owner), "ephemerals of {owner}, which is gone");
        }
    }

    fn create_session(
        &mut self,
        id: SessionId,
        password: &SessionPassword,
        timeout_ms: u32,
        origin: Origin,
    ) -> Outcome {
        let created = Created { session: id, origin, generation: 1, timeout_ms };
        let refuse = |reason| Outcome::Refused { session: id, origin, reason };
        if let Some(found) = self.sessions.get(&id) {
            let repeated = found.generation == 1 && found.origin == origin;
            return if repeated {
                Outcome::Created(Created { timeout_ms: found.timeout_ms, ..created })
            } else {
                refuse(ErrorCode::SessionExpired)
            };
        }
        if id.is_none() || self.ended.contains(&id) {
            return refuse(ErrorCode::SessionExpired);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return refuse(ErrorCode::ThrottledOp);
        }
        self.zxids.advance();
        self.sessions.insert(
            id,
            Session {
                id,
                password: password.clone(),
                timeout_ms,
                generation: 1,
                sequence: 0,
                origin,
                fast_death_grace_ms: None,
            },
        );
        Outcome::Created(created)
    }

    fn attach(
        &mut self,
        id: SessionId,
        password: &SessionPassword,
        (timeout_ms, follows): (u32, u64),
        origin: Origin,
    ) -> Outcome {
        let refuse = |reason| Outcome::Refused { session: id, origin, reason };
        let Some(session) = self.sessions.get_mut(&id) else {
            return refuse(ErrorCode::SessionExpired);
        };
        if session.password != *password {
            return refuse(ErrorCode::SessionExpired);
        }
        if session.origin != origin
            && session.generation != follows
            && !planted!(self.planted, AcceptStaleReconnect)
        {
            return refuse(ErrorCode::SessionMoved);
        }
        let numbered = session.sequence;
        let previous = match session.origin == origin {
            true => origin,
            false => session.move_to(origin, timeout_ms),
        };
        if planted!(self.planted, DeduplicateByXid) {
            session.sequence = numbered;
        }
        Outcome::Attached(Attached {
            session: id,
            origin,
            previous,
            generation: session.generation,
            timeout_ms: session.timeout_ms,
        })
    }

    /// Whether this is the session's next write; takes note of its number if so.
    fn admit(&mut self, id: SessionId, generation: u64, sequence: u64) -> Result<(), Ignored> {
        let session = self.sessions.get_mut(&id).ok_or(Ignored::NoSession)?;
        if session.generation != generation && !planted!(self.planted, AcceptStaleWrite) {
            return Err(Ignored::Moved);
        }
        if sequence <= session.sequence && !planted!(self.planted, ApplyTwice) {
            return Err(Ignored::Duplicate);
        }
        if sequence > session.sequence + 1 {
            return Err(Ignored::OutOfOrder);
        }
        session.sequence = sequence;
        Ok(())
    }

    fn write(
        &mut self,
        (id, identities): (SessionId, &[Identity]),
        op: &WriteOp,
        changes: &mut Vec<Change>,
    ) -> Result<OpResult, ErrorCode> {
        match op {
            WriteOp::Tree(op) => {
                let mut transaction = self.transaction().by(identities);
                let result = run(&mut transaction, id, op)?;
                *changes = transaction.commit();
                self.zxids.advance();
                Ok(result)
            }
            WriteOp::Multi(ops) => Ok(OpResult::Multi(self.multi((id, identities), ops, changes))),
            WriteOp::CloseSession => Ok(OpResult::SessionClosed(self.end_session(id, changes))),
            WriteOp::SessionOptions { fast_death_grace_ms } => {
                let session = self.sessions.get_mut(&id).expect("admitted");
                session.fast_death_grace_ms = *fast_death_grace_ms;
                self.zxids.advance();
                Ok(OpResult::OptionsSet)
            }
            // It is answered when it ends.
            WriteOp::Reconfig(_) => Err(ErrorCode::SystemError),
        }
    }

    fn multi(
        &mut self,
        (id, identities): (SessionId, &[Identity]),
        ops: &[TreeOp],
        changes: &mut Vec<Change>,
    ) -> MultiOutcome {
        let mut transaction = self.transaction().by(identities);
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            match run(&mut transaction, id, op) {
                Ok(result) => results.push(result),
                Err(error) => {
                    transaction.rollback();
                    return MultiOutcome::Failed(failed_codes(ops.len(), results.len(), error));
                }
            }
        }
        *changes = transaction.commit();
        self.zxids.advance();
        MultiOutcome::Done(results)
    }

    fn remove_due(&mut self, path: &str, changes: &mut Vec<Change>) -> Outcome {
        let mut transaction = self.transaction();
        let gone = transaction.remove_due(path).is_ok();
        *changes = transaction.commit();
        if gone {
            self.zxids.advance();
        }
        Outcome::DueRemoved(gone)
    }

    /// Ends a live session: it and its ephemerals go under one zxid.
    fn end_session(&mut self, id: SessionId, changes: &mut Vec<Change>) -> Ended {
        let keep = planted!(self.planted, KeepEphemerals);
        let mut transaction = self.transaction();
        if !keep {
            transaction.delete_ephemerals(id);
        }
        *changes = transaction.commit();
        self.zxids.advance();
        let session = self.sessions.remove(&id).expect("the caller found the session");
        if self.ended.len() == ENDED_SESSIONS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
        Ended { session: id, origin: session.origin, generation: session.generation }
    }

    /// A write under the zxid that `advance` gives next. Whoever keeps the write advances.
    pub(super) fn transaction(&mut self) -> Transaction<'_> {
        let stamp = Stamp {
            zxid: self.zxids.peek(),
            wall_ms: self.wall_ms,
            #[cfg(planted)]
            planted: self.planted,
        };
        Transaction::new(&mut self.tree, stamp)
    }
}

fn run(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    op: &TreeOp,
) -> Result<OpResult, ErrorCode> {
    Ok(match op {
        TreeOp::Create(request) => {
            let (path, _) = transaction.create(session, request)?;
            OpResult::Created { path }
        }
        TreeOp::Create2(request) => {
            let (path, stat) = transaction.create(session, request)?;
            OpResult::Created2 { path, stat }
        }
        TreeOp::Delete(request) => {
            transaction.delete(&request.path, request.version)?;
            OpResult::Deleted
        }
        TreeOp::SetData(request) => {
            let data = request.data.clone();
            OpResult::DataSet { stat: transaction.set_data(&request.path, data, request.version)? }
        }
        TreeOp::CreateTtl(request) => {
            let (path, stat) = transaction.create_ttl(request)?;
            OpResult::Created2 { path, stat }
        }
        TreeOp::SetAcl(request) => OpResult::AclSet { stat: transaction.set_acl(request)? },
        TreeOp::Check(request) => {
            OpResult::Checked { stat: transaction.check(&request.path, request.version)? }
        }
    })
}

/// 0 before the operation that failed, its error, and -2 after it.
fn failed_codes(count: usize, failed: usize, error: ErrorCode) -> Vec<ErrorCode> {
    let code = |index: usize| match index.cmp(&failed) {
        std::cmp::Ordering::Less => ErrorCode::Ok,
        std::cmp::Ordering::Equal => error,
        std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
    };
    (0..count).map(code).collect()
}
