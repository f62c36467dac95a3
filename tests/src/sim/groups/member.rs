//! One client of the group: joins, shares out or gets work, says that it lives, commits, leaves, forgets.
//!
//! Called by: `world`. Calls: nothing. Invariant: at most one request of it is on its way that it waits
//! for; an answer to a request that it gave up is not looked at. It believes what it is told and nothing
//! else, as a real client does: two that believe alike are the coordinator's fault.

use std::collections::BTreeMap;

use broker_core::group::{Join, Request, Response};
use bytes::Bytes;
use client_protocol::messages::consumer_protocol::{Assignment, TopicPartitions};
use client_protocol::messages::join_group::JoinGroupProtocol;
use client_protocol::messages::leave_group::MemberIdentity;
use client_protocol::messages::offset_commit::{OffsetCommitPartition, OffsetCommitTopic};
use client_protocol::messages::sync_group::SyncGroupAssignment;
use client_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest,
};
use client_protocol::{ErrorCode, Offset, PartitionId};

use crate::sim::random::Random;

/// The group that all are in.
pub const GROUP: &str = "group";
/// The topic that they read.
pub const TOPIC: &str = "topic";
/// Its partitions.
pub const PARTITIONS: i32 = 6;
/// After this long a member's request counts as lost; a JoinGroup may take longer.
pub const REQUEST_TIMEOUT_MS: u64 = 5_000;
/// The same for a JoinGroup: a rebalance takes its time.
pub const JOIN_TIMEOUT_MS: u64 = 25_000;

/// What a member is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Not started, or stopped.
    Out,
    /// To join, or join again.
    Join,
    /// To get its work.
    Sync,
    /// To work.
    Work,
}

/// See the module.
#[derive(Debug)]
pub struct Member {
    /// Which client.
    pub number: usize,
    /// Set for a static member.
    pub instance: Option<String>,
    /// Whether others of its group speak one assignor only: it prefers that.
    pub is_mixed: bool,
    /// What it is about to do.
    pub aim: Aim,
    /// Its id, once it has one.
    pub id: String,
    /// The generation that it is in.
    pub generation: i32,
    /// What it believes to own.
    pub owned: Vec<i32>,
    /// The request that it waits for.
    pub waits_for: Option<u64>,
    /// What the leader hands in.
    work: Vec<SyncGroupAssignment>,
}

impl Member {
    /// A client that has not started.
    pub fn new(number: usize, is_static: bool, is_mixed: bool) -> Member {
        Member {
            number,
            instance: is_static.then(|| format!("instance-{number}")),
            is_mixed,
            aim: Aim::Out,
            id: String::new(),
            generation: -1,
            owned: Vec::new(),
            waits_for: None,
            work: Vec::new(),
        }
    }

    /// Its process ended: it knows nothing any more.
    pub fn forget(&mut self) {
        let is_static = self.instance.is_some();
        *self = Member::new(self.number, is_static, self.is_mixed);
    }

    /// What it sends next, if it is in the group or wants to be; `next_offset` gives each commit an
    /// offset of its own.
    pub fn request(&mut self, random: &mut Random, next_offset: &mut i64) -> Option<Request> {
        match self.aim {
            Aim::Out => None,
            Aim::Join => Some(Request::Join(Box::new(self.join(random)))),
            Aim::Sync => Some(Request::Sync(SyncGroupRequest {
                group_id: GROUP.to_owned(),
                generation_id: self.generation,
                member_id: self.id.clone(),
                group_instance_id: self.instance.clone(),
                assignments: self.work.clone(),
                ..Default::default()
            })),
            Aim::Work if self.owned.is_empty() || random.chance(1, 2) => {
                Some(Request::Heartbeat(HeartbeatRequest {
                    group_id: GROUP.to_owned(),
                    generation_id: self.generation,
                    member_id: self.id.clone(),
                    group_instance_id: self.instance.clone(),
                }))
            }
            Aim::Work => Some(Request::OffsetCommit(self.commit(random, next_offset))),
        }
    }

    /// Its goodbye; a static member goes without.
    pub fn goodbye(&self) -> Option<Request> {
        let known = !self.id.is_empty() && self.instance.is_none();
        known.then(|| {
            let who = MemberIdentity { member_id: self.id.clone(), ..Default::default() };
            let group_id = GROUP.to_owned();
            Request::Leave(LeaveGroupRequest { group_id, members: vec![who], ..Default::default() })
        })
    }

    fn join(&self, random: &mut Random) -> Join {
        let mut entropy = [0; 16];
        entropy[..8].copy_from_slice(&random.number().to_be_bytes());
        let names: &[&str] = match random.chance(1, 8) {
            true => &["range"],
            false if self.is_mixed => &["range", "sticky"],
            false => &["sticky", "range"],
        };
        let protocols = names.iter().map(|name| JoinGroupProtocol {
            name: (*name).to_owned(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x05topic\0\0\0\0"),
        });
        Join {
            request: JoinGroupRequest {
                group_id: GROUP.to_owned(),
                session_timeout_ms: 6_000,
                rebalance_timeout_ms: 10_000,
                member_id: self.id.clone(),
                group_instance_id: self.instance.clone(),
                protocol_type: "consumer".to_owned(),
                protocols: protocols.collect(),
                reason: None,
            },
            client_id: format!("client-{}", self.number),
            client_host: "/127.0.0.1".to_owned(),
            entropy,
            member_id_required: random.chance(3, 4),
            knows_skip_assignment: random.chance(1, 2),
        }
    }

    fn commit(&self, random: &mut Random, next_offset: &mut i64) -> OffsetCommitRequest {
        let own = random.below(self.owned.len() as u64);
        let partition = self.owned[usize::try_from(own).expect("a small number")];
        *next_offset += 1;
        let partitions = vec![OffsetCommitPartition {
            partition_index: PartitionId::new(partition),
            committed_offset: Offset::new(*next_offset),
            ..Default::default()
        }];
        OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            topics: vec![OffsetCommitTopic { name: TOPIC.to_owned(), partitions }],
            ..Default::default()
        }
    }

    /// Takes an answer in.
    pub fn hear(&mut self, response: &Response) {
        match response {
            Response::Join(joined) => self.hear_join(joined),
            Response::Sync(synced) => match synced.error_code {
                ErrorCode::None => {
                    self.aim = Aim::Work;
                    self.owned = decode(&synced.assignment);
                }
                error => self.hear_error(error),
            },
            Response::Heartbeat(error) => self.hear_error(*error),
            Response::OffsetCommit(response) => {
                self.hear_error(response.topics[0].partitions[0].error_code);
            }
            _ => {}
        }
    }

    fn hear_join(&mut self, joined: &JoinGroupResponse) {
        match joined.error_code {
            ErrorCode::None => {
                self.id.clone_from(&joined.member_id);
                self.generation = joined.generation_id;
                self.aim = Aim::Sync;
                let shares = joined.leader == self.id && !joined.skip_assignment;
                self.work = if shares { share(joined) } else { Vec::new() };
            }
            ErrorCode::MemberIdRequired => self.id.clone_from(&joined.member_id),
            error => self.hear_error(error),
        }
    }

    fn hear_error(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => self.rejoin(),
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                self.id.clear();
                self.rejoin();
            }
            // Nothing was wrong, or it goes elsewhere and asks again.
            _ => {}
        }
    }

    fn rejoin(&mut self) {
        self.owned.clear();
        self.generation = -1;
        self.aim = Aim::Join;
    }
}

/// Every partition to one member, in turn.
fn share(joined: &JoinGroupResponse) -> Vec<SyncGroupAssignment> {
    let mut shares: BTreeMap<&str, Vec<PartitionId>> =
        joined.members.iter().map(|member| (member.member_id.as_str(), Vec::new())).collect();
    let members: Vec<&str> = shares.keys().copied().collect();
    for partition in 0..PARTITIONS {
        let turn = usize::try_from(partition).expect("a small number") % members.len();
        let share = shares.get_mut(members[turn]).expect("a member");
        share.push(PartitionId::new(partition));
    }
    let work = shares.into_iter().map(|(member, partitions)| {
        let topic = TOPIC.to_owned();
        let assigned_partitions = vec![TopicPartitions { topic, partitions }];
        let share = Assignment { assigned_partitions, user_data: None };
        let assignment = share.encode().expect("short names");
        SyncGroupAssignment { member_id: member.to_owned(), assignment }
    });
    work.collect()
}

/// The partitions of a share.
pub fn decode(share: &[u8]) -> Vec<i32> {
    let share = Assignment::decode(share).expect("a leader wrote it");
    let partitions = share.assigned_partitions.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.get()).collect()
}
