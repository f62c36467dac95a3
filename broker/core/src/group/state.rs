//! One group: its phase, generation, members and committed offsets.
//!
//! *Called by* the shard and the files of the requests. *Calls* `member`, `record`. Invariant:
//! [`Group::check`]. Does not know the log: what is in `offsets` is committed, everything else is
//! what the group is at this moment.
//!
//! ```text
//!            join                 all joined, or time is up      leader's work is in the log
//!   Empty ---------> Preparing -----------------------> Completing -----------------> Stable
//!     ^                 |  ^                                |                            |
//!     +-----------------+  +------ join, leave, silence ----+----------------------------+
//!        nobody is left
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::messages::JoinGroupResponse;
use client_protocol::messages::join_group::JoinGroupMember;

use super::member::Member;
use super::message::WriteId;
use super::offsets::Offsets;
use super::record::{GroupRecord, GroupValue};
use super::settings::{GROUP_METADATA_BYTES_MAX, MEMBER_ENTRY_BYTES};
use crate::ids::Millis;

/// Where a group stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// No members.
    Empty,
    /// Waits for its members to join.
    Preparing {
        /// Who has not joined by then is left behind.
        deadline: Millis,
        /// The wait of a group that was empty.
        initial: Option<Initial>,
    },
    /// Waits for the leader's work, and for its way into the log.
    Completing {
        /// Who has not asked for work by then goes.
        deadline: Millis,
        /// The work is on its way into the log.
        write: Option<WriteId>,
    },
    /// Everybody has, or can get, the work of this generation.
    Stable,
}

/// How much longer an empty group may wait for more members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Initial {
    pub remaining_ms: u64,
    /// Somebody came since the deadline was set.
    pub newcomer: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub id: String,
    pub phase: Phase,
    pub generation: i32,
    /// `None` for a group that never had members.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When it came into its phase, milliseconds since 1970 UTC.
    pub since_ms: i64,
    pub members: BTreeMap<String, Member>,
    /// Instance id to member id.
    pub statics: BTreeMap<String, String>,
    /// Ids that were given out and not used yet, with the time until which they hold.
    pub pending: BTreeMap<String, Millis>,
    pub offsets: Offsets,
    /// Commits and deletions of offsets on their way into the log: the group stays until their
    /// clients are answered.
    pub commits: usize,
    /// The log has, or will have, a record of its members.
    pub stored: bool,
    /// Its tombstones are on their way.
    pub deleting: bool,
    /// What the shard has counted of [`Group::held_bytes`].
    pub counted: usize,
    /// Where the shard has it in its timers.
    pub timer: Option<Millis>,
}

impl Group {
    pub fn new(id: &str, since_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            since_ms,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            offsets: Offsets::default(),
            commits: 0,
            stored: false,
            deleting: false,
            counted: 0,
            timer: None,
        }
    }

    /// Takes what was stored; everybody's session begins at `now`.
    pub fn restore(&mut self, value: GroupValue, now: Millis) {
        let protocol = value.protocol.clone().unwrap_or_default();
        let members = value.members.into_iter().map(|member| {
            let member = Member::from_value(member, &protocol, now);
            (member.id.clone(), member)
        });
        self.members = members.collect();
        self.statics = self.members.values().filter_map(named).collect();
        self.phase = if self.members.is_empty() { Phase::Empty } else { Phase::Stable };
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        self.protocol = value.protocol.filter(|_| !self.members.is_empty());
        self.leader = value.leader.filter(|leader| self.members.contains_key(leader));
        self.since_ms = value.state_timestamp_ms;
        self.stored = true;
    }

    /// Kafka's name of the phase.
    pub fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// Nothing would be lost if it were not there.
    pub fn is_void(&self) -> bool {
        self.phase == Phase::Empty
            && !self.stored
            && self.offsets.is_empty()
            && self.pending.is_empty()
            && self.commits == 0
    }

    /// The record of its members as they are.
    pub fn to_record(&self) -> GroupRecord {
        let protocol = self.protocol.as_deref();
        let value = GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms: self.since_ms,
            members: self
                .members
                .values()
                .map(|member| member.to_value(protocol.unwrap_or_default()))
                .collect(),
        };
        GroupRecord::Group { group: self.id.clone(), value: Some(value) }
    }

    /// When time alone will change something.
    pub fn next_deadline(&self) -> Option<Millis> {
        let phase = match self.phase {
            Phase::Preparing { deadline, .. } | Phase::Completing { deadline, write: None } => {
                Some(deadline)
            }
            Phase::Completing { write: Some(_), .. } | Phase::Empty | Phase::Stable => None,
        };
        let members = self.members.values().filter_map(Member::deadline);
        members.chain(self.pending.values().copied()).chain(phase).min()
    }

    /// How long the slowest member may take to join again; at least 1 ms.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        u64::try_from(longest.unwrap_or(0)).unwrap_or(0).max(1)
    }

    /// Bytes that its members made it hold.
    pub fn member_bytes(&self) -> usize {
        self.members.values().map(Member::bytes).fold(0, usize::saturating_add)
    }

    /// About how much memory its members, their work and the ids that were given out take.
    pub fn held_bytes(&self) -> usize {
        let members = self.members.values();
        let members =
            members.map(|member| member.held_bytes().saturating_add(member.assignment.len()));
        let pending = self.pending.keys().map(|id| id.len().saturating_add(MEMBER_ENTRY_BYTES));
        members.chain(pending).fold(0, usize::saturating_add)
    }

    /// A member with these protocols can work with the others, apart from `except`.
    pub fn accepts(
        &self,
        protocol_type: &str,
        protocols: &[(String, Bytes)],
        except: Option<&str>,
    ) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        let others = || self.members.values().filter(|member| Some(member.id.as_str()) != except);
        // A sole member may change what it can do, but not what kind of group this is.
        if !self.members.is_empty() && self.protocol_type.as_deref() != Some(protocol_type) {
            return false;
        }
        let known = |member: &Member, name: &str| member.protocols.iter().any(|(n, _)| n == name);
        protocols.iter().any(|(name, _)| others().all(|member| known(member, name)))
    }

    /// There is room for the bytes that a member brings in place of all that `former` brought.
    pub fn has_room(&self, brought: usize, former: Option<&str>) -> bool {
        let former = former.and_then(|id| self.members.get(id)).map_or(0, Member::bytes);
        let others = self.member_bytes().saturating_sub(former);
        others.saturating_add(brought) <= GROUP_METADATA_BYTES_MAX
    }

    /// The protocol that all know and most prefer; `None` without members.
    pub fn chosen_protocol(&self) -> Option<String> {
        let mut common: Option<BTreeSet<&str>> = None;
        for member in self.members.values() {
            let names = member.protocols.iter().map(|(name, _)| name.as_str()).collect();
            common = Some(match common {
                Some(common) => common.intersection(&names).copied().collect(),
                None => names,
            });
        }
        let common = common?;
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut preferred = member.protocols.iter().map(|(name, _)| name.as_str());
            if let Some(choice) = preferred.find(|name| common.contains(name)) {
                let count = votes.entry(choice).or_default();
                *count = count.saturating_add(1);
            }
        }
        // Of equals the first by name, so that every coordinator would choose alike.
        let best = votes.iter().max_by(|a, b| a.1.cmp(b.1).then_with(|| b.0.cmp(a.0)));
        best.map(|(name, _)| (*name).to_owned())
    }

    /// Says whether `member_id` may speak for the member, which may be a static one.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID when another took the instance's place.
    pub fn identify(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance_id {
            match self.statics.get(instance) {
                Some(holder) if holder == member_id => {}
                Some(_) => return Err(ErrorCode::FencedInstanceId),
                None => return Err(ErrorCode::UnknownMemberId),
            }
        }
        let known = self.members.contains_key(member_id);
        known.then_some(()).ok_or(ErrorCode::UnknownMemberId)
    }

    /// What a member of the present generation is told; the leader hears of all members.
    pub fn join_response(&self, member_id: &str) -> JoinGroupResponse {
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member_id { self.all_members() } else { Vec::new() };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            members,
            ..Default::default()
        }
    }

    /// All members as the leader is told of them.
    pub fn all_members(&self) -> Vec<JoinGroupMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|member| JoinGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        members.collect()
    }

    /// Panics when the invariant is broken.
    pub fn check(&self) {
        let id = &self.id;
        for (member_id, member) in &self.members {
            assert_eq!(member_id, &member.id, "{id}: a member under another id");
            assert!(!self.pending.contains_key(member_id), "{id}: {member_id} is pending too");
            let sync_owed = matches!(self.phase, Phase::Completing { .. });
            assert!(member.sync.is_none() || sync_owed, "{id}: {member_id} waits for no work");
        }
        let named: BTreeMap<_, _> = self.members.values().filter_map(named).collect();
        assert_eq!(named, self.statics, "{id}: instances and members differ");
        match self.phase {
            Phase::Empty => assert!(self.members.is_empty(), "{id}: empty with members"),
            Phase::Stable | Phase::Completing { .. } => {
                assert!(!self.members.is_empty(), "{id}: no member in generation");
                assert!(self.protocol.is_some(), "{id}: no protocol in generation");
                let leader = self.leader.as_ref().expect("a generation has a leader");
                assert!(self.members.contains_key(leader), "{id}: the leader is no member");
            }
            Phase::Preparing { .. } => {}
        }
        self.offsets.check();
    }
}

fn named(member: &Member) -> Option<(String, String)> {
    member.instance_id.clone().map(|instance| (instance, member.id.clone()))
}
