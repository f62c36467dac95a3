//! Who belongs to the ensemble, by a second reading of the rules.
//!
//! Called by: the model's commands, and for entries of consensus. Calls: nothing of the code under test.
//! Invariant: one change at a time; what clients see of the servers changes when a change has come to all of them.
//! It does not know addresses: a server is its text.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::state::{AdvanceTo, ChangePhase, State};
use coordinator_protocol::{ErrorCode, ReconfigRequest, SessionId, Zxid};

/// Servers by number, as they are written behind `server.N=`.
pub type Texts = BTreeMap<u64, String>;

/// The write that asked for a change: session, generation, number.
pub type Asked = (SessionId, u64, u64);

#[derive(Debug, Clone)]
struct Change {
    /// The entry that it began with.
    number: u64,
    target: Texts,
    phase: ChangePhase,
    asked: Asked,
}

/// The members.
#[derive(Debug, Clone, Default)]
pub struct Members {
    is_founded: bool,
    servers: Texts,
    version: Zxid,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    change: Option<Change>,
}

/// What a change came to.
#[derive(Debug)]
pub struct Ended {
    pub asked: Asked,
    /// The servers from now on, if they are others.
    pub result: Result<Texts, ErrorCode>,
}

fn votes(text: &str) -> bool {
    !text.contains(":observer")
}

/// Who votes and who does not.
fn parts(servers: &Texts) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (voters, learners): (Vec<_>, Vec<_>) = servers.iter().partition(|(_, text)| votes(text));
    let ids = |part: Vec<(&u64, &String)>| part.into_iter().map(|(id, _)| *id).collect();
    (ids(voters), ids(learners))
}

fn parts_of(text: &Option<String>) -> impl Iterator<Item = &str> {
    let all = text.as_deref().unwrap_or_default().split([',', '\n']);
    all.filter(|part| !part.is_empty())
}

/// `server.N=text`
fn server(line: &str) -> (u64, String) {
    let (name, text) = line.split_once('=').expect("operators write well");
    let number = name.strip_prefix("server.").and_then(|number| number.parse().ok());
    (number.expect("operators write well"), text.to_owned())
}

impl Members {
    /// The first servers are these, unless that is known.
    pub fn found(&mut self, servers: Texts, version: Zxid) -> bool {
        let is_first = !std::mem::replace(&mut self.is_founded, true);
        if is_first {
            self.agree_on(servers, version);
        }
        is_first
    }

    /// The servers are these from now on.
    pub fn agree_on(&mut self, servers: Texts, version: Zxid) {
        (self.servers, self.version) = (servers, version);
    }

    /// Whether the log has named any.
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// Who votes; nobody before the ensemble is founded.
    pub fn voters(&self) -> &BTreeSet<u64> {
        &self.voters
    }

    /// Whether a server has a part in consensus.
    pub fn has(&self, id: u64) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Whether a server is one of those that clients see, or of those that are to be.
    pub fn names(&self, id: u64) -> bool {
        let target = self.change.as_ref().is_some_and(|change| change.target.contains_key(&id));
        self.servers.contains_key(&id) || target
    }

    /// Whether a change is under way.
    pub fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// What clients read of it.
    pub fn text(&self) -> String {
        let lines = self.servers.iter().map(|(id, text)| format!("server.{id}={text}\n"));
        lines.chain([format!("version={:x}", self.version.get())]).collect()
    }

    /// An entry of consensus: one server's part changes, or all are named.
    pub fn step(&mut self, data: &[u8]) {
        match data {
            [0, count, all @ ..] => {
                let (voters, learners) = all.split_at(usize::from(*count));
                let ids = |part: &[u8]| part.iter().map(|id| u64::from(*id)).collect();
                (self.voters, self.learners) = (ids(voters), ids(learners));
            }
            [part, id] => {
                let id = u64::from(*id);
                let had = self.voters.contains(&id) || self.learners.contains(&id);
                assert!(*part == 1 || had, "{id} begins with something else than to learn");
                self.voters.remove(&id);
                self.learners.remove(&id);
                match part {
                    1 => drop(self.learners.insert(id)),
                    2 => drop(self.voters.insert(id)),
                    3 => {}
                    other => panic!("no part of a server: {other}"),
                }
            }
            other => panic!("no change of the members: {other:?}"),
        }
    }

    /// Somebody asks for a change with entry `number`.
    pub fn ask(
        &mut self,
        (number, asked): (u64, Asked),
        request: &ReconfigRequest,
        is_super: bool,
    ) -> Result<(), ErrorCode> {
        if !self.is_founded {
            return Err(ErrorCode::ReconfigDisabled);
        }
        if self.change.is_some() || self.voters.is_empty() {
            return Err(ErrorCode::ReconfigInProgress);
        }
        if request.config_id != -1 && request.config_id != self.version.get() {
            return Err(ErrorCode::BadVersion);
        }
        let mut target = match request.new_members {
            Some(_) => Texts::new(),
            None => self.servers.clone(),
        };
        for id in parts_of(&request.leaving_servers) {
            target.remove(&id.parse().expect("operators write well"));
        }
        target.extend(parts_of(&request.joining_servers).map(server));
        target.extend(parts_of(&request.new_members).map(server));
        if !(2..=9).contains(&parts(&target).0.len()) {
            return Err(ErrorCode::BadArguments);
        }
        if !is_super {
            return Err(ErrorCode::NoAuth);
        }
        self.change = Some(Change { number, target, phase: ChangePhase::CatchUp, asked });
        Ok(())
    }

    /// The change that began with entry `number` goes on: what it came to, if that ends it.
    pub fn advance(&mut self, number: u64, to: AdvanceTo) -> Option<Ended> {
        let change = self.change.as_mut().filter(|change| change.number == number)?;
        match (change.phase, to) {
            (ChangePhase::CatchUp, AdvanceTo::Exchange) => change.phase = ChangePhase::Exchange,
            (ChangePhase::CatchUp, AdvanceTo::GivenUp) => {
                change.phase = ChangePhase::GivenUp;
                change.target.clone_from(&self.servers);
            }
            (ChangePhase::Exchange, AdvanceTo::TurnedBack) => {
                change.phase = ChangePhase::TurnedBack;
            }
            (phase, AdvanceTo::Finished) => {
                let is_undone = matches!(phase, ChangePhase::GivenUp | ChangePhase::TurnedBack);
                let wanted = if is_undone { &self.servers } else { &change.target };
                let (voters, learners) = parts(wanted);
                let is_there = voters == self.voters && learners == self.learners;
                if phase == ChangePhase::CatchUp || !is_there {
                    return None;
                }
                let Change { target, asked, .. } = self.change.take()?;
                let result = if is_undone { Err(ErrorCode::NewConfigNoQuorum) } else { Ok(target) };
                return Some(Ended { asked, result });
            }
            (_, AdvanceTo::Exchange | AdvanceTo::GivenUp | AdvanceTo::TurnedBack) => {}
        }
        None
    }

    /// Whether `state` has the same.
    pub fn compare(&self, state: &State) {
        let Some(found) = state.membership() else {
            assert!(!self.is_founded, "agreed: nobody founded anything");
            return;
        };
        let ids = |ids: &BTreeSet<coordinator_core::ServerId>| {
            ids.iter().map(|id| id.get()).collect::<BTreeSet<u64>>()
        };
        let found_parts = (ids(&found.ids.voters), ids(&found.ids.learners));
        assert_eq!(found_parts, (self.voters.clone(), self.learners.clone()), "agreed: parts");
        assert_eq!(texts(&found.servers), self.servers, "agreed: servers");
        assert_eq!(found.version, self.version, "agreed: version of the servers");
        let theirs = found.change.as_ref().map(|one| (one.id, texts(&one.target), one.phase));
        let ours = self.change.as_ref().map(|one| (one.number, one.target.clone(), one.phase));
        assert_eq!(theirs, ours, "agreed: the change under way");
    }
}

/// The log's servers as texts.
pub fn texts(servers: &coordinator_core::members::Members) -> Texts {
    servers.iter().map(|(id, member)| (id.get(), member.to_string())).collect()
}
