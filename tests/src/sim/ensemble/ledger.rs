//! What the ensemble agreed on, put together from outside: the committed log and its meaning.
//!
//! Called by: `world`, after each step of a server. Calls: the state machine, to which servers are held, and `model`, to which
//! the state machine is.
//! Invariant (asserted): a term has one leader, who has all that was committed before and takes nothing back; a server votes for
//! one in a term; logs that have an entry are equal up to it; servers commit the same entries; a server's state is what its
//! committed entries make of nothing; what they make of it is what the rules say; a write takes effect once.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::consensus::{LogEntry, PersistWrite};
use coordinator_core::server::{Mode, Server};
use coordinator_core::state::{AppliedCommand, Command, Entry, Outcome, State};
use coordinator_protocol::SessionId;

use super::model::Model;
use super::schedule::Time;
use super::storage::Storage;

/// After so many entries all that was agreed on is compared with the model, not only what the last of them did.
const COMPARE_EVERY: u64 = 512;

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
}

/// An entry of a log.
#[derive(Debug, Clone, Copy)]
struct Logged {
    /// When the first server had it.
    at: Time,
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
    pub fn new(servers: usize, fresh: State) -> Self {
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
        }
    }

    /// A server begins a new life, in the term that its disk has.
    pub fn restart(&mut self, server: usize, term: u64) {
        self.servers[server] = Observed { committed: 0, led: 0, shadow: self.fresh.clone() };
        // The only member leads a term before its own vote is on the disk: when that is lost, so is all that it wrote
        // in the term, and nobody but the disk was told of it. It may lead the term once more. Where others vote, the
        // vote that they are asked for is durable first, and no term comes again.
        if self.servers.len() == 1 {
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
        for entry in &write.entries {
            digest = chain(digest, entry);
            let found = self.logged.entry((entry.term, entry.index));
            let known = *found.or_insert(Logged { at: now, digest });
            assert!(
                known.digest == digest,
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

    /// A server's vote of a term is on its disk.
    pub fn vote(&mut self, id: usize, (term, given): (u64, u64)) {
        if given != 0 {
            let vote = *self.votes.entry((id, term)).or_insert(given);
            assert_eq!(vote, given, "server {id} votes twice in term {term}");
        }
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
            shadow.apply(raw.term, raw.index, entry);
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

    /// The log's entries with their terms.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.committed.iter().map(|(raw, entry)| (raw.term, entry))
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

    fn commit(&mut self, index: u64, raw: Option<&LogEntry>, (term, now): (u64, Time)) {
        let position = usize::try_from(index - 1).expect("small");
        if let Some((known, _)) = self.committed.get(position) {
            if let Some(raw) = raw {
                assert_eq!(known, raw, "two servers committed different entries at {index}");
            }
            return;
        }
        let raw = raw.expect("the first server to commit an entry has it in its log").clone();
        let entry = match raw.data.is_empty() {
            true => Entry::default(),
            false => Entry::decode(&raw.data).expect("a committed entry can be read"),
        };
        let logged = self.logged.get(&(raw.term, index)).map_or(now, |logged| logged.at);
        self.reference.begin_entry(raw.term, index, entry.wall_ms);
        self.model.begin_entry(raw.term, entry.wall_ms);
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

/// The digest of a log with one more entry (in the manner of FNV-1a, eight bytes at a time).
fn chain(before: u64, entry: &LogEntry) -> u64 {
    let mut digest = before ^ 0xcbf2_9ce4_8422_2325;
    let mut word = |word: u64| {
        digest = (digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    };
    word(entry.term);
    word(entry.index);
    for chunk in entry.data.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word(u64::from_le_bytes(bytes));
    }
    word(entry.data.len() as u64);
    digest
}
