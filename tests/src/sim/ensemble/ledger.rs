//! What the ensemble agreed on, put together from outside: the committed log and its meaning.
//!
//! Called by: `world`, after each step of a server. Calls: the state machine, to which servers are held, and `model`, to which
//! the state machine is.
//! Invariant (asserted): a term has one leader, who has all that was committed before and takes nothing back; a server votes for
//! one in a term; logs that have an entry are equal up to it; servers commit the same entries; a server's state is what its
//! committed entries make of nothing; what they make of it is what the rules say; a write takes effect once.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::consensus::{EntryKind, LogEntry, PersistWrite, members_after};
use coordinator_core::server::{Mode, Server};
use coordinator_core::state::{AppliedCommand, Command, Entry, Outcome, State};
use coordinator_protocol::SessionId;

use super::model::{Members, Model};
use super::schedule::{MS, SECOND, Time};
use super::storage::Storage;

/// After so many entries all that was agreed on is compared with the model, not only what the last of them did.
const COMPARE_EVERY: u64 = 512;

/// A server that is no member any more may answer for so long: until it knows that nobody follows it (safety.md A7).
const LEAVES_WITHIN: Time = 2 * SECOND + 100 * MS;

/// A server that stood still hears so late of who leads.
const HEARD_WITHIN: Time = 6 * SECOND;

/// One command of the committed log.
#[derive(Debug)]
pub struct Decided {
    /// The term of the leader that put it into the log.
    pub term: u64,
    /// When the first server had it in its log.
    pub logged: Time,
    /// When the first server committed it.
    pub at: Time,
    /// What was asked.
    pub command: Command,
    /// What came of it.
    pub applied: AppliedCommand,
}

/// The committed log.
#[derive(Debug)]
pub struct Ledger {
    /// Who led each term, and since when.
    leaders: BTreeMap<u64, (usize, Time)>,
    /// By server and term.
    votes: BTreeMap<(usize, u64), u64>,
    /// When a report of sessions from one server to another was lost without a sign.
    unreported: BTreeMap<(usize, usize), Vec<Time>>,
    /// Position i holds index i + 1.
    committed: Vec<(LogEntry, Entry)>,
    /// The term in which the entry there was seen committed, at the latest.
    committed_in: Vec<u64>,
    /// By term and index: what was seen of it in logs.
    logged: BTreeMap<(u64, u64), Logged>,
    reference: State,
    model: Model,
    /// In log order.
    pub decided: Vec<Decided>,
    written: BTreeSet<(SessionId, u64, u64)>,
    servers: Vec<Observed>,
    /// A state before its first entry.
    fresh: State,
    /// Who votes before the log says it, from 0.
    founders: usize,
    /// Who voted before the last change of that.
    voted: BTreeSet<u64>,
    /// The entry that changed it.
    changed_at: u64,
    /// When each server, from 0, lost its part; not those that have one.
    left: BTreeMap<usize, Time>,
    /// See [`Self::take_gained`].
    gained: Vec<(usize, u64)>,
}

/// An entry of a log.
#[derive(Debug, Clone, Copy)]
struct Logged {
    /// When the first server had it.
    at: Time,
    /// How many entries were committed then.
    committed: u64,
    /// How many of them that server, its leader, knew to be.
    known: u64,
    /// Of it and all before it, as far back as is known.
    digest: u64,
}

/// What was seen of one server in its present life.
#[derive(Debug)]
struct Observed {
    committed: u64,
    /// The term that it was last seen to lead.
    led: u64,
    /// The committed log applied as far as the server says it has.
    shadow: State,
}

impl Ledger {
    /// Nothing is agreed on.
    pub fn new(servers: usize, founders: usize, fresh: State) -> Self {
        let observed = || Observed { committed: 0, led: 0, shadow: fresh.clone() };
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            unreported: BTreeMap::new(),
            committed: Vec::new(),
            committed_in: Vec::new(),
            logged: BTreeMap::new(),
            reference: fresh.clone(),
            model: Model::new(),
            decided: Vec::new(),
            written: BTreeSet::new(),
            servers: (0..servers).map(|_| observed()).collect(),
            fresh,
            founders,
            voted: (1..=founders as u64).collect(),
            changed_at: 0,
            left: (founders..servers).map(|server| (server, 0)).collect(),
            gained: Vec::new(),
        }
    }

    /// A server begins a new life, in the term that its disk has.
    pub fn restart(&mut self, server: usize, term: u64) {
        self.servers[server] = Observed { committed: 0, led: 0, shadow: self.fresh.clone() };
        // An only voter leads a term before its own vote is on the disk: when that is lost, so is all that it wrote
        // in the term, and nobody but the disk was told of it. It may lead the term once more. Where others vote, the
        // vote that they are asked for is durable first, and no term comes again.
        if self.quorums()[0] == BTreeSet::from([server as u64 + 1]) {
            let committed_in = self.committed_in.last().copied().unwrap_or(0);
            assert!(
                term >= committed_in,
                "server {server} forgets term {committed_in}, of what it committed"
            );
            self.leaders.retain(|led, _| *led <= term);
            self.logged.retain(|(of, _), _| *of <= term);
        }
    }

    /// A server is about to write to its log.
    pub fn log(&mut self, id: usize, write: &PersistWrite, storage: &Storage, now: Time) {
        let Some(first) = write.entries.first() else { return };
        let behind = write.install.as_ref().map(|image| (image.term, image.index));
        let before = behind.filter(|(_, index)| index + 1 == first.index).or_else(|| {
            let index = first.index.checked_sub(1)?;
            storage.term_at(index).map(|term| (term, index))
        });
        let before = match before {
            Some((_, 0)) => Some(0),
            Some(before) => self.logged.get(&before).map(|logged| logged.digest),
            None => None,
        };
        // Behind what a former life has discarded nothing can be said.
        let Some(mut digest) = before else { return };
        let (committed, known) = (self.entry_count(), self.servers[id].committed);
        for entry in &write.entries {
            digest = chain(digest, entry);
            let found = self.logged.entry((entry.term, entry.index));
            let first = *found.or_insert(Logged { at: now, committed, known, digest });
            assert!(
                first.digest == digest,
                "server {id} has another log up to {} of term {} than others",
                entry.index,
                entry.term,
            );
        }
    }

    /// A server that leads `term` already is about to write: it takes nothing back.
    pub fn check_appends(&self, id: usize, term: u64, (write, storage): (&PersistWrite, &Storage)) {
        let (Some(first), true) = (write.entries.first(), self.servers[id].led == term) else {
            return;
        };
        let last = storage.last_index();
        assert!(first.index > last, "leader {id} of term {term} overwrites its log up to {last}");
    }

    /// A server that has no part gets an empty disk.
    pub fn wipe(&mut self, id: usize) {
        assert!(!self.has_part(id), "server {id} has a part");
        self.votes.retain(|(server, _), _| *server != id);
    }

    /// The members, as the log has them.
    pub fn members(&self) -> &Members {
        self.model.members()
    }

    /// Whether a server, from 0, has a part in consensus.
    pub fn has_part(&self, server: usize) -> bool {
        match self.members().voters().is_empty() {
            true => server < self.founders,
            false => self.members().has(server as u64 + 1),
        }
    }

    /// Whether a server, from 0, votes.
    pub fn has_vote(&self, server: usize) -> bool {
        self.quorums()[0].contains(&(server as u64 + 1))
    }

    /// Whether the members have a part by the log.
    pub fn is_founded(&self) -> bool {
        !self.members().voters().is_empty()
    }

    /// Who votes, and who did before the last change.
    pub fn quorums(&self) -> [BTreeSet<u64>; 2] {
        let voters = self.members().voters();
        let now = if voters.is_empty() { &self.voted } else { voters };
        [now.clone(), self.voted.clone()]
    }

    /// Of one of these a majority has the last committed entry: of who votes, or of who did before the last change, if the
    /// entry's leader did not know yet that the change was committed.
    pub fn quorums_of(&self, term: u64, index: u64) -> impl Iterator<Item = BTreeSet<u64>> {
        let known = self.logged.get(&(term, index)).map_or(0, |logged| logged.known);
        let counted = if known < self.changed_at { 2 } else { 1 };
        self.quorums().into_iter().take(counted)
    }

    /// Whether a server may answer clients.
    pub fn may_answer(&self, server: usize, now: Time) -> bool {
        self.left.get(&server).is_none_or(|left| *left > 0 && now <= left + LEAVES_WITHIN)
    }

    /// Whether a server has led at a time between these, as far as anybody could know: of a leader others may hear late.
    pub fn has_led(&self, server: usize, (from, to): (Time, Time)) -> bool {
        let is_over = |term: u64| {
            let mut later = self.leaders.range(term + 1..).map(|(_, (_, since))| *since);
            later.any(|since| since + HEARD_WITHIN < from)
        };
        let mut led = self.leaders.iter().filter(|(_, (leader, _))| *leader == server);
        led.any(|(term, (_, since))| *since <= to && !is_over(*term))
    }

    /// A server's vote of a term is on its disk. Whether that is new.
    pub fn vote(&mut self, id: usize, (term, given): (u64, u64)) -> bool {
        if given == 0 {
            return false;
        }
        let before = self.votes.insert((id, term), given);
        assert!(before.is_none_or(|vote| vote == given), "server {id} votes twice in term {term}");
        before.is_none()
    }

    /// Servers, from 0, whose votes were committed since the last time, each with what was committed when they were given.
    pub fn take_gained(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.gained)
    }

    /// A server's report of sessions that it heard was lost without a sign.
    pub fn unreported(&mut self, from: usize, to: usize, now: Time) {
        self.unreported.entry((from, to)).or_default().push(now);
    }

    /// Whether the leader of `term` missed a report of `server`, from `from` to `to`.
    pub fn missed_report(&self, server: usize, term: u64, (from, to): (Time, Time)) -> bool {
        let (leader, _) = self.leaders[&term];
        self.unreported.get(&(server, leader)).is_some_and(|times| {
            let first = times.partition_point(|time| *time < from);
            times.get(first).is_some_and(|time| *time <= to)
        })
    }

    /// When the leader of `term` took office.
    pub fn office_since(&self, term: u64) -> Time {
        self.leaders.get(&term).expect("a committed entry's leader was seen").1
    }

    /// Looks at a server after a step. `compare` also compares its whole state.
    pub fn observe(
        &mut self,
        id: usize,
        server: &Server,
        storage: &Storage,
        (now, compare): (Time, bool),
    ) {
        let status = server.status();
        if matches!(status.mode, Mode::Leader | Mode::Standalone)
            && self.servers[id].led != status.term
        {
            let (leader, _) = *self.leaders.entry(status.term).or_insert((id, now));
            assert_eq!(leader, id, "two leaders in term {}", status.term);
            self.check_complete(id, status.term, storage);
            self.servers[id].led = status.term;
        }
        for index in self.servers[id].committed + 1..=status.commit_index {
            self.commit(index, storage.entry(index), (status.term, now));
        }
        let committed = self.servers[id].committed;
        assert!(status.commit_index >= committed, "the commit index of {id} went back");
        self.servers[id].committed = status.commit_index;
        if compare {
            self.compare(id, server);
        }
    }

    /// Whether a server's state is what the log up to its applied index makes.
    pub fn compare(&mut self, id: usize, server: &Server) {
        let shadow = &mut self.servers[id].shadow;
        let applied = server.state().applied_index();
        let from = usize::try_from(shadow.applied_index()).expect("small");
        let to = usize::try_from(applied).expect("small");
        assert!(from <= to, "server {id} applied {from} and then {to}");
        for (raw, entry) in &self.committed[from..to] {
            apply(shadow, raw, entry);
        }
        if shadow != server.state() {
            panic!(
                "server {id} differs from the log at {applied}:\n{shadow:?}\n{:?}",
                server.state()
            );
        }
        server.check_tables();
    }

    /// Whether all that was agreed on is what the rules make of the log.
    pub fn compare_agreed(&self) {
        self.model.compare(&self.reference);
    }

    /// The state after everything committed.
    pub fn reference(&self) -> &State {
        &self.reference
    }

    /// Entries committed.
    pub fn entry_count(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Term and index of the last one.
    pub fn last_committed(&self) -> Option<(u64, u64)> {
        self.committed.last().map(|(raw, _)| (raw.term, raw.index))
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// The log's entries, and what is in them.
    pub fn entries(&self) -> impl Iterator<Item = &(LogEntry, Entry)> {
        self.committed.iter()
    }

    /// A new leader has all that was committed in earlier terms: it has the last of it, and what stands before that is equal in
    /// all logs that have it.
    fn check_complete(&self, id: usize, term: u64, storage: &Storage) {
        let earlier = self.committed_in.iter().rposition(|committed_in| *committed_in < term);
        let Some(position) = earlier else { return };
        let index = position as u64 + 1;
        if self.servers[id].committed.max(storage.base_index()) > index {
            return;
        }
        let expected = Some(self.committed[position].0.term);
        let found = storage.term_at(index);
        assert_eq!(found, expected, "leader {id} of term {term} lacks committed entry {index}");
    }

    /// This entry of consensus was committed, before which these voted, and so much was committed when it was proposed.
    fn change_parts(&mut self, index: u64, (before, given): (BTreeSet<u64>, u64), now: Time) {
        let voters = self.model.members().voters();
        if !before.is_empty() && before != *voters {
            let gained = voters.difference(&before).map(|id| (*id as usize - 1, given));
            self.gained.extend(gained);
            self.voted = before;
            self.changed_at = index;
        }
        for server in 0..self.servers.len() {
            match self.has_part(server) {
                true => drop(self.left.remove(&server)),
                false => drop(self.left.entry(server).or_insert(now)),
            }
        }
    }

    fn commit(&mut self, index: u64, raw: Option<&LogEntry>, (term, now): (u64, Time)) {
        let position = usize::try_from(index - 1).expect("small");
        if let Some((known, _)) = self.committed.get(position) {
            if let Some(raw) = raw {
                assert_eq!(known, raw, "two servers committed different entries at {index}");
            }
            return;
        }
        let raw = raw.expect("the first server to commit an entry has it in its log").clone();
        let entry = match raw.data.is_empty() || raw.kind == EntryKind::Members {
            true => Entry::default(),
            false => Entry::decode(&raw.data).expect("a committed entry can be read"),
        };
        let logged = self.logged.get(&(raw.term, index)).map_or(now, |logged| logged.at);
        let before = self.members().voters().clone();
        self.model.begin_entry(&raw, &entry);
        if raw.kind == EntryKind::Members {
            let given = self.logged.get(&(raw.term, index)).map_or(0, |logged| logged.committed);
            self.change_parts(index, (before, given), now);
            apply(&mut self.reference, &raw, &entry);
            self.committed.push((raw, entry));
            self.committed_in.push(term);
            return;
        }
        self.reference.begin_entry(raw.term, index, entry.wall_ms);
        for command in &entry.commands {
            let applied = self.reference.apply_command(command);
            self.model.follow(command, &applied);
            if let Outcome::Written { session, generation, sequence, .. } = &applied.outcome {
                let first = self.written.insert((*session, *generation, *sequence));
                assert!(first, "a write took effect twice: {command:?}");
            }
            let (term, command) = (raw.term, command.clone());
            self.decided.push(Decided { term, logged, at: now, command, applied });
        }
        self.reference.end_entry();
        if index.is_multiple_of(COMPARE_EVERY) {
            self.compare_agreed();
        }
        self.committed.push((raw, entry));
        self.committed_in.push(term);
    }
}

/// The state with one more entry.
fn apply(state: &mut State, raw: &LogEntry, entry: &Entry) {
    if raw.kind == EntryKind::Normal {
        state.apply(raw.term, raw.index, entry);
        return;
    }
    let before = state.membership().map(|membership| membership.ids.clone());
    let after = members_after(before.unwrap_or_default(), &raw.data).expect("a member's step");
    state.apply_members(raw.term, raw.index, after);
}

/// The digest of a log with one more entry (in the manner of FNV-1a, eight bytes at a time).
fn chain(before: u64, entry: &LogEntry) -> u64 {
    let mut digest = before ^ 0xcbf2_9ce4_8422_2325;
    let mut word = |word: u64| {
        digest = (digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    };
    word(entry.term);
    word(entry.index);
    if entry.kind == EntryKind::Members {
        word(1);
    }
    for chunk in entry.data.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word(u64::from_le_bytes(bytes));
    }
    word(entry.data.len() as u64);
    digest
}
