//! What the ensemble agreed on, put together from outside: the committed log and its meaning.
//!
//! Called by: `world`, after each step of a server. Calls: the state machine, as a reference.
//! Invariant (asserted): a term has one leader; a server votes for one in a term; servers commit the same entries; a server's state
//! is what its committed entries make of nothing; a write takes effect once.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::consensus::LogEntry;
use coordinator_core::server::{Mode, Server};
use coordinator_core::state::{AppliedCommand, Command, Entry, Outcome, State};
use coordinator_protocol::SessionId;

use super::schedule::Time;
use super::storage::Storage;

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
    /// When an entry of this term and index was first seen in a log.
    logged: BTreeMap<(u64, u64), Time>,
    reference: State,
    /// In log order.
    pub decided: Vec<Decided>,
    written: BTreeSet<(SessionId, u64, u64)>,
    servers: Vec<Observed>,
    /// A state before its first entry.
    fresh: State,
}

/// What was seen of one server in its present life.
#[derive(Debug)]
struct Observed {
    committed: u64,
    /// The committed log applied as far as the server says it has.
    shadow: State,
}

impl Ledger {
    /// Nothing is agreed on.
    pub fn new(servers: usize, fresh: State) -> Self {
        let observed = || Observed { committed: 0, shadow: fresh.clone() };
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            unreported: BTreeMap::new(),
            committed: Vec::new(),
            logged: BTreeMap::new(),
            reference: fresh.clone(),
            decided: Vec::new(),
            written: BTreeSet::new(),
            servers: (0..servers).map(|_| observed()).collect(),
            fresh,
        }
    }

    /// A server begins a new life.
    pub fn restart(&mut self, server: usize) {
        self.servers[server] = Observed { committed: 0, shadow: self.fresh.clone() };
    }

    /// A server writes an entry to its log.
    pub fn log(&mut self, entry: &LogEntry, now: Time) {
        self.logged.entry((entry.term, entry.index)).or_insert(now);
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
        if matches!(status.mode, Mode::Leader | Mode::Standalone) {
            let (leader, _) = *self.leaders.entry(status.term).or_insert((id, now));
            assert_eq!(leader, id, "two leaders in term {}", status.term);
        }
        for index in self.servers[id].committed + 1..=status.commit_index {
            self.commit(index, storage.entry(index), now);
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
        server.state().check();
    }

    /// The state after everything committed.
    pub fn reference(&self) -> &State {
        &self.reference
    }

    /// Entries committed.
    pub fn entry_count(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    /// The log's entries with their terms.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.committed.iter().map(|(raw, entry)| (raw.term, entry))
    }

    fn commit(&mut self, index: u64, raw: Option<&LogEntry>, now: Time) {
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
        let logged = self.logged.get(&(raw.term, index)).copied().unwrap_or(now);
        self.reference.begin_entry(raw.term, index, entry.wall_ms);
        for command in &entry.commands {
            let applied = self.reference.apply_command(command);
            if let Outcome::Written { session, generation, sequence, .. } = &applied.outcome {
                let first = self.written.insert((*session, *generation, *sequence));
                assert!(first, "a write took effect twice: {command:?}");
            }
            let (term, command) = (raw.term, command.clone());
            self.decided.push(Decided { term, logged, at: now, command, applied });
        }
        self.reference.end_entry();
        self.committed.push((raw, entry));
    }
}
