//! What clients saw, against what the ensemble agreed on.
//!
//! ```text
//! writes         acknowledged writes are in the log, once, as answered; real time is respected
//! reads          answers are those of the state at their zxid; synced ones are fresh
//! watches        every event that was due came before what would reveal its change, no other
//! subscriptions  snapshots are exact, changes complete and in order
//! locks          who writes under the lock holds it
//! expiry         sessions end when their silence lasted long enough
//! read_only      what is answered without a quorum is none but reads, and leaves no trace in the log
//! room           only what takes room is refused, and only around the time at which a disk has little
//! members        the servers are those that operators were told of
//! ```
//!
//! Called by: `run`, at the end. Calls: nothing of the code under test; `model` answers as it should have.
//! Invariant: nothing that was acknowledged is lost or changed. It does not know servers.

mod expiry;
mod locks;
mod members;
mod read_only;
mod reads;
mod room;
mod subscriptions;
mod watches;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::state::{Command, Outcome, WriteOp};
use coordinator_core::tree::Change;
use coordinator_protocol::{ErrorCode, SessionId, Zxid};

use super::client::{Conversation, Heard};
use super::ledger::Decided;
use super::run::Profile;
use super::world::World;

/// How much was compared: a run that compares nothing proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audited {
    /// Acknowledged writes.
    pub writes: u64,
    /// Answered reads.
    pub reads: u64,
    /// Of them, those behind a sync.
    pub synced_reads: u64,
    /// Watch events.
    pub events: u64,
    /// Changes told to subscribers.
    pub changes: u64,
    /// Subscription snapshots.
    pub snapshots: u64,
    /// Writes under the lock.
    pub held: u64,
    /// Expired sessions.
    pub expiries: u64,
    /// Of them, those of which it is not known whether they came early: the leader missed a report of the session's server.
    pub unchecked_expiries: u64,
    /// Of all, those after a lost socket.
    pub graces: u64,
    /// Writes that were refused for want of room.
    pub refused: u64,
    /// Answers without a quorum.
    pub read_only: u64,
    /// Changes of the members that came to their end.
    pub reconfigs: u64,
    /// Moves of leadership that operators were told are done.
    pub transfers: u64,
}

/// The committed log, sorted for looking things up.
struct Facts<'a> {
    decided: &'a [Decided],
    /// Position in `decided` of each write: of a change of the members where it ended.
    writes: BTreeMap<(SessionId, u64, u64), usize>,
    /// Where each change of the members was asked for.
    begun: BTreeMap<(SessionId, u64, u64), usize>,
    /// Position in `decided` of what each connection sent, and what was refused for want of room.
    placed: BTreeMap<(u64, usize), usize>,
    refused: BTreeSet<(u64, usize)>,
    /// Session and generation that each connection was given, by server (from 0) and origin.
    opened: BTreeMap<(usize, u64), (SessionId, u64)>,
    /// All changes, in order.
    changes: Vec<&'a Change>,
}

/// Panics when a rule is broken.
pub(super) fn audit(world: &World, profile: Profile) -> Audited {
    let mut facts = Facts::new(&world.ledger.decided);
    for talk in world.talks.values() {
        facts.place(talk, world.settings.low_disks);
    }
    let mut audited = Audited::default();
    writes::audit(&facts, world, &mut audited);
    reads::audit(&facts, world, &mut audited);
    locks::audit(&facts, &mut audited);
    for talk in world.talks.values() {
        watches::audit(&facts, talk, &mut audited);
        subscriptions::audit(&facts, talk, &mut audited);
    }
    expiry::audit(&facts, world, profile, &mut audited);
    members::audit(&facts, world, &mut audited);
    room::audit(world, &mut audited);
    read_only::audit(&facts, world, &mut audited);
    audited
}

impl<'a> Facts<'a> {
    fn new(decided: &'a [Decided]) -> Self {
        let mut facts = Self {
            decided,
            writes: BTreeMap::new(),
            begun: BTreeMap::new(),
            placed: BTreeMap::new(),
            refused: BTreeSet::new(),
            opened: BTreeMap::new(),
            changes: decided.iter().flat_map(|decided| &decided.applied.changes).collect(),
        };
        for (position, decided) in decided.iter().enumerate() {
            let (origin, session) = match &decided.applied.outcome {
                Outcome::Created(created) => {
                    (created.origin, (created.session, created.generation))
                }
                Outcome::Attached(attached) => {
                    (attached.origin, (attached.session, attached.generation))
                }
                Outcome::Written { session, generation, sequence, .. } => {
                    let number = (*session, *generation, *sequence);
                    let is_write = matches!(decided.command, Command::Write { .. });
                    assert!(is_write || facts.begun.contains_key(&number), "nobody's write");
                    facts.writes.insert(number, position);
                    continue;
                }
                Outcome::Reconfiguring { session, generation, sequence } => {
                    facts.begun.insert((*session, *generation, *sequence), position);
                    continue;
                }
                Outcome::Refused { .. }
                | Outcome::Ignored { .. }
                | Outcome::Expired(_)
                | Outcome::DueRemoved(_)
                | Outcome::MembersMoved
                | Outcome::ExpiryRefused { .. } => continue,
            };
            let server = usize::try_from(origin.server.get() - 1).expect("small");
            let before = facts.opened.insert((server, origin.connection), session);
            assert!(before.is_none_or(|before| before == session), "one origin, two sessions");
        }
        facts
    }

    /// The position of what a connection sent in the log, if it is a write and was decided.
    fn write_of(&self, talk: &Conversation, index: usize) -> Option<usize> {
        self.placed.get(&(talk.connection, index)).copied()
    }

    /// Finds each write of this connection in the log. Its server numbers them in the order in which they came, and gives
    /// no number to one that it refuses for want of room. Of those without an answer nobody knows whether they
    /// were: each is the next that is as it was asked for.
    fn place(&mut self, talk: &Conversation, low_disks: bool) {
        let Some((session, generation)) = self.opened.get(&(talk.server, talk.origin)).copied()
        else {
            return;
        };
        let mut answers = BTreeMap::new();
        for heard in &talk.heard {
            if let Heard::Reply { request, outcome, .. } = heard {
                answers.insert(*request, outcome);
            }
        }
        let mut sequence = 1;
        for (index, sent) in talk.sent.iter().enumerate().filter(|(_, sent)| sent.is_write) {
            let answer = answers.get(&index);
            if answer.is_some_and(|answer| matches!(answer, Err(ErrorCode::QuotaExceeded))) {
                assert!(low_disks, "{:?} was refused for want of room", sent.request);
                self.refused.insert((talk.connection, index));
                continue;
            }
            let number = (session, generation, sequence);
            let position = self.writes.get(&number).copied();
            let asked = self.begun.get(&number).copied().or(position);
            let fits = asked.is_some_and(|asked| {
                writes::operation(&sent.request).as_ref() == Some(self.operation_at(asked))
            });
            if low_disks && answer.is_none() && !fits {
                continue;
            }
            assert!(asked.is_none() || fits, "the log has another write than {:?}", sent.request);
            sequence += 1;
            if let Some(position) = position {
                self.placed.insert((talk.connection, index), position);
            }
        }
        let more = self.writes.contains_key(&(session, generation, sequence));
        assert!(!more, "the log has a write of {session:?} that nobody asked for");
    }

    /// What was asked for there.
    fn operation_at(&self, position: usize) -> &WriteOp {
        match &self.decided[position].command {
            Command::Write { op, .. } => op,
            other => panic!("{other:?} is not a write"),
        }
    }

    /// Whether a write was refused for want of room.
    fn is_refused(&self, talk: &Conversation, index: usize) -> bool {
        self.refused.contains(&(talk.connection, index))
    }

    /// Changes with `after < zxid <= until`.
    fn changes_between(&self, after: Zxid, until: Zxid) -> &[&'a Change] {
        let start = self.changes.partition_point(|change| change.zxid <= after);
        let end = self.changes.partition_point(|change| change.zxid <= until);
        &self.changes[start..end.max(start)]
    }
}
