//! What a member, its coordinator and its caller say to each other.
//!
//! *Called by* the shell and everything in `group`. Decides nothing; the wire's messages are `client-protocol`'s.

use std::sync::Arc;

use client_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use client_protocol::{BrokerId, ErrorCode};

use crate::consumer::read::Position;
use crate::metadata::TopicPartition;

/// A request to the group coordinator; [`Ask::Find`] goes to any broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Who is it?
    Find(FindCoordinatorRequest),
    /// Answered when the others have joined: may take the rebalance time-out.
    Join(JoinGroupRequest),
    /// Answered when the leader has shared out: may take the rebalance time-out.
    Sync(SyncGroupRequest),
    /// The member lives.
    Heartbeat(HeartbeatRequest),
    /// The member goes.
    Leave(LeaveGroupRequest),
    /// Keep offsets.
    Commit(OffsetCommitRequest),
    /// Which offsets were kept?
    Committed(OffsetFetchRequest),
}

/// What answers an [`Ask`] of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Ask::Find`].
    Find(FindCoordinatorResponse),
    /// To [`Ask::Join`].
    Join(JoinGroupResponse),
    /// To [`Ask::Sync`].
    Sync(SyncGroupResponse),
    /// To [`Ask::Heartbeat`].
    Heartbeat(HeartbeatResponse),
    /// To [`Ask::Leave`].
    Leave(LeaveGroupResponse),
    /// To [`Ask::Commit`].
    Commit(OffsetCommitResponse),
    /// To [`Ask::Committed`].
    Committed(OffsetFetchResponse),
}

/// Where the group coordinator listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coordinator {
    /// The broker.
    pub broker: BrokerId,
    /// `host:port`.
    pub address: String,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask, then say [`super::Member::answered`].
    Ask {
        /// Names it.
        number: u64,
        /// Whom; `None` for any broker.
        to: Option<Coordinator>,
        /// What.
        body: Ask,
    },
    /// Find out how many partitions these topics have.
    WatchTopics(Vec<Arc<str>>),
    /// Something the caller must hear of, in this order.
    Tell(Notice),
    /// Where reading of partitions goes on, as the group remembers.
    Committed(Vec<(TopicPartition, Option<Position>)>),
    /// A commit has come to its end.
    CommitDone {
        /// As given to [`super::Member::commit`].
        token: u64,
        /// Whether the group remembers it.
        result: Result<(), GroupError>,
    },
}

/// What happened to the member's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// These are to be read from now on.
    Assigned(Vec<TopicPartition>),
    /// These are to be let go: commit what is to be committed, then say [`super::Member::let_go`].
    Revoked {
        /// Names the revocation.
        number: u64,
        /// What is to be let go.
        partitions: Vec<TopicPartition>,
    },
    /// These belong to others already: nothing about them can be committed any more.
    Lost(Vec<TopicPartition>),
    /// The member is out, and does not try to come back by itself.
    Out(GroupError),
}

/// Why the group says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group coordinator's answer.
    #[error("group {group}: {code}")]
    Refused {
        /// The group.
        group: String,
        /// The answer.
        code: ErrorCode,
    },
    /// It could not be asked in time.
    #[error("group {group}: not done in time: {reason}")]
    Late {
        /// The group.
        group: String,
        /// What was in the way last.
        reason: String,
    },
}

impl GroupError {
    /// The group coordinator's answer, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Late { .. } => None,
        }
    }
}
