//! What is asked of a shard, what it answers, and what it wants done.
//!
//! *Called by* the broker's group room and the simulator. *Calls* the wire's messages. Invariant: a
//! request that was handed in is answered once by its ticket, or dropped with the whole shard.
//! Does not know connections or versions: what differs by version is settled before and after.

use client_protocol::ErrorCode;
use client_protocol::messages::describe_groups::DescribedGroup;
use client_protocol::messages::leave_group::MemberResponse;
use client_protocol::messages::list_groups::ListedGroup;
use client_protocol::messages::offset_commit::{
    OffsetCommitPartitionResponse, OffsetCommitTopicResponse,
};
use client_protocol::messages::offset_delete::{
    OffsetDeletePartitionResponse, OffsetDeleteTopicResponse,
};
use client_protocol::messages::offset_fetch::{OffsetFetchGroup, OffsetFetchGroupResponse};
use client_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::record::LogRecord;
use crate::ids::Millis;

/// Both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// What timers run on.
    pub mono: Millis,
    /// What is written into records: milliseconds since 1970 UTC.
    pub wall_ms: i64,
}

/// Which request an answer belongs to. Given by whoever asks, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Names a write of the shard; later writes have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

/// A JoinGroup with what the group wants to know besides.
#[derive(Clone, PartialEq, Debug)]
pub struct Join {
    /// The request.
    pub request: JoinGroupRequest,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Random bytes, from which a new member's id is made.
    pub entropy: [u8; 16],
    /// A new member has to come back with the id it is given (KIP-394).
    pub member_id_required: bool,
    /// The client knows that a leader may be told to leave the assignment as it is (KIP-814).
    pub knows_skip_assignment: bool,
}

/// What can be asked of a shard.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// Become a member.
    Join(Box<Join>),
    /// Hand out, or get, the work of a generation.
    Sync(SyncGroupRequest),
    /// A member lives.
    Heartbeat(HeartbeatRequest),
    /// Members go. `members` is filled whatever the version.
    Leave(LeaveGroupRequest),
    /// Remember offsets.
    OffsetCommit(OffsetCommitRequest),
    /// Tell offsets.
    OffsetFetch(OffsetFetchGroup),
    /// Forget offsets.
    OffsetDelete(OffsetDeleteRequest),
    /// All groups.
    List(ListGroupsRequest),
    /// One group by its id.
    Describe(String),
    /// Forget a group by its id.
    Delete(String),
}

/// What a shard answers.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// To [`Request::Join`].
    Join(JoinGroupResponse),
    /// To [`Request::Sync`].
    Sync(SyncGroupResponse),
    /// To [`Request::Heartbeat`].
    Heartbeat(ErrorCode),
    /// To [`Request::Leave`].
    Leave(LeaveGroupResponse),
    /// To [`Request::OffsetCommit`].
    OffsetCommit(OffsetCommitResponse),
    /// To [`Request::OffsetFetch`].
    OffsetFetch(OffsetFetchGroupResponse),
    /// To [`Request::OffsetDelete`].
    OffsetDelete(OffsetDeleteResponse),
    /// To [`Request::List`].
    List(Result<Vec<ListedGroup>, ErrorCode>),
    /// To [`Request::Describe`].
    Describe(DescribedGroup),
    /// To [`Request::Delete`].
    Delete(ErrorCode),
}

/// What a shard wants done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Answer a request.
    Respond {
        /// Which.
        ticket: Ticket,
        /// With what.
        response: Response,
    },
    /// Append the records as one batch, under the leader epoch that the shard was loaded under, and
    /// say by [`super::Shard::settled`] when all in-sync replicas have them, or that it failed.
    Write {
        /// Which.
        write: WriteId,
        /// At least one.
        records: Vec<LogRecord>,
    },
}

impl Request {
    /// The group it is about; `None` for a list of all.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Join(join) => Some(&join.request.group_id),
            Self::Sync(request) => Some(&request.group_id),
            Self::Heartbeat(request) => Some(&request.group_id),
            Self::Leave(request) => Some(&request.group_id),
            Self::OffsetCommit(request) => Some(&request.group_id),
            Self::OffsetFetch(request) => Some(&request.group_id),
            Self::OffsetDelete(request) => Some(&request.group_id),
            Self::List(_) => None,
            Self::Describe(group) | Self::Delete(group) => Some(group),
        }
    }

    /// The answer that refuses the whole request.
    #[must_use]
    pub fn refused(&self, error_code: ErrorCode) -> Response {
        match self {
            Self::Join(join) => {
                Response::Join(join_refused(error_code, join.request.member_id.clone()))
            }
            Self::Sync(_) => Response::Sync(sync_refused(error_code)),
            Self::Heartbeat(_) => Response::Heartbeat(error_code),
            Self::Leave(request) => Response::Leave(leave_refused(request, error_code)),
            Self::OffsetCommit(request) => {
                Response::OffsetCommit(commit_answer(request, |_, _| error_code))
            }
            Self::OffsetFetch(group) => Response::OffsetFetch(OffsetFetchGroupResponse {
                group_id: group.group_id.clone(),
                topics: Vec::new(),
                error_code,
            }),
            Self::OffsetDelete(_) => {
                Response::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() })
            }
            Self::List(_) => Response::List(Err(error_code)),
            Self::Describe(group) => Response::Describe(DescribedGroup {
                error_code,
                group_id: group.clone(),
                ..Default::default()
            }),
            Self::Delete(_) => Response::Delete(error_code),
        }
    }
}

/// A JoinGroup that made nobody a member.
pub(super) fn join_refused(error_code: ErrorCode, member_id: String) -> JoinGroupResponse {
    JoinGroupResponse { error_code, member_id, ..Default::default() }
}

/// A SyncGroup without work.
pub(super) fn sync_refused(error_code: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code, ..Default::default() }
}

fn leave_refused(request: &LeaveGroupRequest, error_code: ErrorCode) -> LeaveGroupResponse {
    let members = request.members.iter().map(|member| MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: ErrorCode::None,
    });
    LeaveGroupResponse { error_code, members: members.collect(), ..Default::default() }
}

/// The answer to a commit, each partition with what `outcome` says of (topic, partition).
pub(super) fn commit_answer(
    request: &OffsetCommitRequest,
    outcome: impl Fn(&str, i32) -> ErrorCode,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| OffsetCommitTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitPartitionResponse {
                partition_index: partition.partition_index,
                error_code: outcome(&topic.name, partition.partition_index.get()),
            })
            .collect(),
    });
    OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
}

/// The answer to a deletion of offsets; see [`commit_answer`].
pub(super) fn delete_answer(
    request: &OffsetDeleteRequest,
    outcome: impl Fn(&str, i32) -> ErrorCode,
) -> OffsetDeleteResponse {
    let topics = request.topics.iter().map(|topic| OffsetDeleteTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetDeletePartitionResponse {
                partition_index: partition.partition_index,
                error_code: outcome(&topic.name, partition.partition_index.get()),
            })
            .collect(),
    });
    OffsetDeleteResponse { topics: topics.collect(), ..Default::default() }
}
