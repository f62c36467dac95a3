//! A client that takes a lock as the well-known recipe has it: its own sequential ephemeral node, and a watch on the one before it.
//!
//! ```text
//! Create -> Find -> lowest? ----------------> Hold -> ... -> Release -> Rest
//!             ^  \                  its writes only while its node is there
//!             |   `-> Watch the one before -> Wait
//!             +------ it went -----------------'
//! ```
//!
//! Called by: `client`. Calls: nothing. Invariant: it believes what the ensemble told it, and nothing else; after a connection that
//! broke it looks for its node by name, for the answer to its creation may be what was lost, except while it waits: then it trusts
//! its watch. `audit::locks` judges what it wrote. It does not know other clients.

use coordinator_protocol::{
    Acl, CheckRequest, CreateMode, CreateRequest, DeleteRequest, ErrorCode, EventType, MultiOp,
    PathWatch, Request, Response, SetDataRequest, WatcherEvent,
};

use super::client::{Action, Client};
use super::schedule::{MS, SECOND, Time};

/// Where the nodes of those who want the lock are.
pub(super) const LOCK: &str = "/lock";
/// What only its holder writes.
pub(super) const HELD: &str = "/held";
/// Digits of a sequential node's number.
const DIGITS: usize = 10;

/// What it does next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Wants nothing.
    Rest,
    Create,
    Find,
    /// Watch this node.
    Watch(String),
    /// Until the watch fires.
    Wait(String),
    /// So many writes more.
    Hold(u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Locker {
    step: Step,
    /// Distinguishes its nodes from those of its former sessions.
    round: u64,
    own: String,
}

impl Locker {
    pub(super) fn new() -> Self {
        Self { step: Step::Rest, round: 0, own: String::new() }
    }

    /// Whether it neither has nor wants the lock.
    pub(super) fn is_at_rest(&self) -> bool {
        self.step == Step::Rest
    }

    /// Whether nothing is to be asked before something is heard.
    pub(super) fn waits(&self) -> bool {
        matches!(self.step, Step::Wait(_))
    }

    pub(super) fn lost_connection(&mut self) {
        if !matches!(self.step, Step::Rest | Step::Wait(_)) {
            self.step = Step::Find;
        }
    }

    /// Its session is over, and with it its node.
    pub(super) fn begin_anew(&mut self) {
        self.step = Step::Rest;
    }

    pub(super) fn on_watch(&mut self, event: &WatcherEvent) {
        if event.event == EventType::NodeDeleted
            && matches!(&self.step, Step::Wait(path) if *path == event.path)
        {
            self.step = Step::Find;
        }
    }
}

/// The number of a sequential node.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.get(name.len().checked_sub(DIGITS)?..)?.parse().ok()
}

impl Client {
    /// Makes it one that takes locks.
    pub(super) fn want_locks(&mut self) {
        self.locker = Some(Locker::new());
    }

    /// What its recipe asks for now; it asks one thing at a time.
    pub(super) fn take_step(&mut self, now: Time, actions: &mut Vec<Action>) {
        let quiet = self.quiet;
        let Some(locker) = &mut self.locker else { return };
        if locker.step == Step::Rest {
            if quiet {
                return;
            }
            locker.round += 1;
            locker.step = Step::Create;
        }
        let (step, own, round) = (locker.step.clone(), locker.own.clone(), locker.round);
        let request = match step {
            Step::Rest | Step::Wait(_) => return,
            Step::Create => {
                let path = format!("{LOCK}/{}-{round}-", self.name);
                let flags = CreateMode::EphemeralSequential.code();
                Request::Create(CreateRequest {
                    path,
                    data: self.unique(),
                    acl: Acl::open(),
                    flags,
                })
            }
            Step::Find => Request::GetChildren2(PathWatch { path: LOCK.to_owned(), watch: false }),
            Step::Watch(path) => Request::Exists(PathWatch { path, watch: true }),
            Step::Hold(0) => Request::Delete(DeleteRequest { path: own, version: -1 }),
            Step::Hold(_) => Request::Multi(vec![
                MultiOp::Check(CheckRequest { path: own, version: -1 }),
                MultiOp::SetData(SetDataRequest {
                    path: HELD.to_owned(),
                    data: self.unique(),
                    version: -1,
                }),
            ]),
        };
        self.send(now, request, actions);
    }

    /// What an answer means for its recipe.
    pub(super) fn take_answer(
        &mut self,
        now: Time,
        request: &Request,
        outcome: &Result<Response, ErrorCode>,
    ) {
        if self.locker.is_none() {
            return;
        }
        let writes = 1 + self.random.below(3);
        let rest = self.random.below(SECOND);
        let think = self.random.below(20 * MS) * self.pace;
        let prefix =
            format!("{}-{}-", self.name, self.locker.as_ref().map_or(0, |locker| locker.round));
        self.ask_at = now + think;
        let Some(locker) = &mut self.locker else { return };
        locker.step = match (request, outcome) {
            (Request::Create(create), _) if create.path == LOCK || create.path == HELD => return,
            (Request::Create(_), Ok(Response::Path(path))) => {
                locker.own.clone_from(path);
                Step::Find
            }
            (Request::Create(_), Err(ErrorCode::NoNode)) => {
                let flags = CreateMode::Persistent.code();
                let make = |path: &str| {
                    let (path, acl) = (path.to_owned(), Acl::open());
                    Request::Create(CreateRequest { path, data: None, acl, flags })
                };
                self.prepared.extend([make(HELD), make(LOCK)]);
                Step::Create
            }
            (Request::GetChildren2(_), Ok(Response::NamesStat(names, _))) => {
                match before(names, &prefix) {
                    None => Step::Create,
                    Some((own, place)) => {
                        locker.own = format!("{LOCK}/{own}");
                        place.map_or(Step::Hold(writes), |place| {
                            Step::Watch(format!("{LOCK}/{place}"))
                        })
                    }
                }
            }
            (Request::GetChildren2(_), Err(ErrorCode::NoNode)) => Step::Create,
            (Request::Exists(_), Ok(_)) => match &locker.step {
                Step::Watch(path) => Step::Wait(path.clone()),
                other => other.clone(),
            },
            (Request::Exists(_), Err(ErrorCode::NoNode)) => Step::Find,
            (Request::Multi(_), Ok(_)) => match locker.step {
                Step::Hold(left) => Step::Hold(left - 1),
                _ => return,
            },
            (Request::Delete(_), Ok(_) | Err(ErrorCode::NoNode)) => {
                self.ask_at = now + rest * self.pace;
                Step::Rest
            }
            // Another look, or the same write again: no place in the line was lost.
            (_, Err(ErrorCode::QuotaExceeded)) => locker.step.clone(),
            (Request::Ping | Request::SetWatches2(_), _) => return,
            (request, outcome) => panic!("{request:?} of a lock was answered {outcome:?}"),
        };
    }
}

/// The own node among those of all, and the one right before it.
fn before<'a>(names: &'a [String], prefix: &str) -> Option<(&'a str, Option<&'a str>)> {
    let own = names.iter().find(|name| name.starts_with(prefix))?;
    let number = number_of(own);
    let lower = names.iter().filter(|name| number_of(name) < number);
    Some((own, lower.max_by_key(|name| number_of(name)).map(String::as_str)))
}
