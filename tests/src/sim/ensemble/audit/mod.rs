//! What clients saw, against what the ensemble agreed on.
//!
//! ```text
//! writes         acknowledged writes are in the log, once, as answered; real time is respected
//! reads          answers are those of the state at their zxid; synced ones are fresh
//! watches        every event that was due came before what would reveal its change, no other
//! subscriptions  snapshots are exact, changes complete and in order
//! locks          who writes under the lock holds it
//! expiry         sessions end when their silence lasted long enough
//! ```
//!
//! Called by: `run`, at the end. Calls: nothing of the code under test; `model` answers as it should have.
//! Invariant: nothing that was acknowledged is lost or changed. It does not know servers.

mod expiry;
mod locks;
mod reads;
mod subscriptions;
mod watches;
mod writes;

use std::collections::BTreeMap;

use coordinator_core::state::{Command, Outcome};
use coordinator_core::tree::Change;
use coordinator_protocol::{SessionId, Zxid};

use super::client::Conversation;
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
}

/// The committed log, sorted for looking things up.
struct Facts<'a> {
    decided: &'a [Decided],
    /// Position in `decided` of each write.
    writes: BTreeMap<(SessionId, u64, u64), usize>,
    /// Session and generation that each connection was given, by server (from 0) and origin.
    opened: BTreeMap<(usize, u64), (SessionId, u64)>,
    /// All changes, in order.
    changes: Vec<&'a Change>,
}

/// Panics when a rule is broken.
pub(super) fn audit(world: &World, profile: Profile) -> Audited {
    let facts = Facts::new(&world.ledger.decided);
    let mut audited = Audited::default();
    writes::audit(&facts, world, &mut audited);
    reads::audit(&facts, world, &mut audited);
    locks::audit(&facts, &mut audited);
    for talk in world.talks.values() {
        watches::audit(&facts, talk, &mut audited);
        subscriptions::audit(&facts, talk, &mut audited);
    }
    expiry::audit(&facts, world, profile, &mut audited);
    audited
}

impl<'a> Facts<'a> {
    fn new(decided: &'a [Decided]) -> Self {
        let mut facts = Self {
            decided,
            writes: BTreeMap::new(),
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
                    assert!(matches!(decided.command, Command::Write { .. }));
                    facts.writes.insert((*session, *generation, *sequence), position);
                    continue;
                }
                Outcome::Refused { .. }
                | Outcome::Ignored { .. }
                | Outcome::Expired(_)
                | Outcome::DueRemoved(_)
                | Outcome::Reconfiguring { .. }
                | Outcome::MembersMoved
                | Outcome::ExpiryRefused { .. } => continue,
            };
            let server = usize::try_from(origin.server.get() - 1).expect("small");
            let before = facts.opened.insert((server, origin.connection), session);
            assert!(before.is_none_or(|before| before == session), "one origin, two sessions");
        }
        facts
    }

    /// The position of a connection's write in the log, if it was decided.
    fn write_of(&self, talk: &Conversation, sequence: u64) -> Option<usize> {
        let (session, generation) = self.opened.get(&(talk.server, talk.origin))?;
        self.writes.get(&(*session, *generation, sequence)).copied()
    }

    /// Changes with `after < zxid <= until`.
    fn changes_between(&self, after: Zxid, until: Zxid) -> &[&'a Change] {
        let start = self.changes.partition_point(|change| change.zxid <= after);
        let end = self.changes.partition_point(|change| change.zxid <= until);
        &self.changes[start..end.max(start)]
    }
}
