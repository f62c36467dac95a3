//! Who belongs to the ensemble, as the log says, and a change of that under way.
//!
//! Called by: the machine (commands and the engine's own entries), the server (drives a change). Calls `members`.
//! Invariant: one change at a time; servers and version change together, when consensus has come to the new
//! members whole; a change that cannot go on is given up, and what was exchanged is exchanged back. It
//! does not know who leads, and not who is up.
//!
//! ```text
//! reconfig ---> CatchUp ----> Exchange -----> finished: servers, version, /zookeeper/config
//!                  |            |               ^
//!                  |            '-> TurnedBack -+ as before; refused with NewConfigNoQuorum
//!                  '------> GivenUp ------------'
//! ```

use coordinator_protocol::{ErrorCode, ReconfigRequest, SessionId, Zxid};
use serde::{Deserialize, Serialize};

use crate::ServerId;
use crate::members::{MEMBERS_MAX, Member, MemberIds, Members, Role, SERVERS_MAX, parse_line};

/// The servers and what is to become of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// As agreed last.
    pub servers: Members,
    /// The write that agreed on them.
    pub version: Zxid,
    /// Who has a part in consensus, as of the last entry; nobody until it is told of the first members.
    pub ids: MemberIds,
    /// What is under way.
    pub change: Option<MembershipChange>,
}

/// A change under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChange {
    /// The log entry that began it.
    pub id: u64,
    /// The servers that it is to come to.
    pub target: Members,
    /// How far it is.
    pub phase: ChangePhase,
    /// Whose write it is...
    pub session: SessionId,
    /// ...over which connection of the session...
    pub generation: u64,
    /// ...and which of its writes.
    pub sequence: u64,
}

/// How far a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangePhase {
    /// New servers get what the others have; nobody's vote has changed.
    CatchUp,
    /// Votes are given and taken, one server at a time.
    Exchange,
    /// New servers did not catch up; those that have no vote go again.
    GivenUp,
    /// The exchange could not go on; votes are given and taken to be again as they were.
    TurnedBack,
}

impl Membership {
    /// The first members of an ensemble; consensus is told of them next.
    pub(super) fn found(servers: Members, version: Zxid) -> Self {
        Self { servers, version, ids: MemberIds::default(), change: None }
    }

    /// Whether the change under way has come to its members.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        self.change
            .as_ref()
            .is_some_and(|change| change.phase != ChangePhase::CatchUp && self.ids == self.wanted())
    }

    /// Who is to have a part.
    #[must_use]
    pub fn wanted(&self) -> MemberIds {
        let target = self.change.as_ref().filter(|one| one.phase != ChangePhase::TurnedBack);
        MemberIds::of(target.map_or(&self.servers, |change| &change.target))
    }

    /// Every server that has or will have a part, with its address.
    #[must_use]
    pub fn known(&self) -> Members {
        let mut known = self.servers.clone();
        if let Some(change) = &self.change {
            known.extend(change.target.iter().map(|(id, member)| (*id, member.clone())));
        }
        known
    }

    /// Whether this server may serve: it is a member, and is not about to leave.
    #[must_use]
    pub fn serves(&self, id: ServerId) -> bool {
        let leaves = self.change.as_ref().is_some_and(|change| {
            change.phase == ChangePhase::Exchange && !change.target.contains_key(&id)
        });
        let founded = !self.ids.voters.is_empty();
        !founded || (self.ids.contains(id) && (!leaves || self.ids.voters.contains(&id)))
    }

    /// The servers that `request` asks for, in ZooKeeper's order of checks; `None` if only ids are out of range.
    ///
    /// # Errors
    /// `ReconfigInProgress`, `BadVersion`, `BadArguments`.
    pub(super) fn target_of(
        &self,
        request: &ReconfigRequest,
    ) -> Result<Option<Members>, ErrorCode> {
        if self.change.is_some() || self.ids.voters.is_empty() {
            return Err(ErrorCode::ReconfigInProgress);
        }
        if request.config_id != -1 && request.config_id != self.version.get() {
            return Err(ErrorCode::BadVersion);
        }
        let target = match &request.new_members {
            Some(text) => exchange(text),
            None => self.adapt(request),
        };
        let Some(target) = target.ok_or(ErrorCode::BadArguments)? else { return Ok(None) };
        let voters = target.values().filter(|member| member.role() == Role::Participant).count();
        // As ZooKeeper's: it has no way back from fewer than two to an ensemble.
        let fits = (2..=MEMBERS_MAX).contains(&voters) && target.len() <= SERVERS_MAX;
        if fits { Ok(Some(target)) } else { Err(ErrorCode::BadArguments) }
    }

    fn adapt(&self, request: &ReconfigRequest) -> Option<Option<Members>> {
        let mut target = self.servers.clone();
        for id in list(request.leaving_servers.as_deref()) {
            // Who is not there need not leave.
            ServerId::new(id.parse().ok()?).and_then(|id| target.remove(&id));
        }
        let joining = list(request.joining_servers.as_deref());
        join_all(target, joining)
    }
}

fn exchange(text: &str) -> Option<Option<Members>> {
    let lines = text.split([',', '\n']).map(str::trim);
    let servers = lines.filter(|line| !line.is_empty() && !line.starts_with("version="));
    join_all(Members::new(), servers)
}

/// `None` for what is wrong, and within it for ids that are none here.
fn join_all<'a>(
    mut target: Members,
    lines: impl Iterator<Item = &'a str>,
) -> Option<Option<Members>> {
    let mut in_range = true;
    for line in lines {
        in_range &= join(&mut target, line)?;
    }
    Some(in_range.then_some(target))
}

fn list(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// False for an id that is none here.
fn join(target: &mut Members, line: &str) -> Option<bool> {
    let (id, member): (u64, Member) = parse_line(line)?;
    let Some(id) = ServerId::new(id) else { return Some(false) };
    let clashes = target.iter().any(|(other, known)| *other != id && member.collides(known));
    // ZooKeeper wants all three ports. And others have to find one that votes.
    if clashes
        || (member.is_nowhere() && member.role() == Role::Participant)
        || member.client_address().is_none()
        || target.len() > SERVERS_MAX
    {
        return None;
    }
    target.insert(id, member);
    Some(true)
}
