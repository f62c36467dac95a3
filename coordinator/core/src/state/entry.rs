//! What one entry of the replicated log holds.
//!
//! Called by: the server (proposes entries) and `machine` (applies them). Calls: the envelope.
//! Invariant: an entry carries everything that apply needs, time included, so that every server
//! comes to the same result. It does not know whether its commands are valid: that is decided at
//! apply, in log order.

use bytes::Bytes;
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use coordinator_protocol::{
    CheckRequest, CreateMode, CreateRequest, CreateTtlRequest, DeleteRequest, MultiOp,
    ReconfigRequest, SessionId, SessionPassword, SetAclRequest, SetDataRequest,
};
use serde::{Deserialize, Serialize};

use super::ENTRY_KIND;
use crate::ids::ServerId;
use crate::members::Members;
use crate::tree::Identities;

/// One log entry: commands that are applied one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's wall clock when it proposed: the ctime and mtime of what is written.
    pub wall_ms: i64,
    /// Applied in this order.
    pub commands: Vec<Command>,
}

/// Which connection of which server a session belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The server that holds the connection.
    pub server: ServerId,
    /// The server's number for it, unique over the server's restarts too.
    pub connection: u64,
}

/// One change to the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A new session, at generation 1. Applied twice with the same origin it is one session.
    CreateSession {
        /// Chosen by the origin: its server id in the high byte.
        session: SessionId,
        /// Secret random bytes.
        password: SessionPassword,
        /// The negotiated time-out.
        timeout_ms: u32,
        /// Who asks, and is answered.
        origin: Origin,
    },
    /// A session moves to another connection: its generation goes up by one. One that was on its way
    /// while the session moved elsewhere is refused: its client has gone there.
    Attach {
        /// The session.
        session: SessionId,
        /// What the client sent.
        password: SessionPassword,
        /// The newly negotiated time-out.
        timeout_ms: u32,
        /// The generation that the origin knew of when it was asked; 0 = none.
        follows: u64,
        /// Who asks, and is answered.
        origin: Origin,
    },
    /// A write of a session. Applied once, in the order of `sequence`.
    Write {
        /// The session.
        session: SessionId,
        /// The generation of the connection it came by; any other is skipped.
        generation: u64,
        /// 1 for a generation's first write, then without gaps.
        sequence: u64,
        /// What the client had shown to be when it asked.
        identities: Identities,
        /// What to write.
        op: WriteOp,
    },
    /// The leader's timer ran out.
    Expire {
        /// The session.
        session: SessionId,
        /// The generation whose silence was measured; any other is left alone.
        generation: u64,
    },
    /// The leader saw that nothing keeps a container or TTL node any more; looked at again when it is
    /// applied, by the entry's clock.
    RemoveDue {
        /// The node.
        path: String,
    },
    /// The servers that the first leader's settings name are from now on what the log says. Does nothing the second
    /// time.
    FoundMembers {
        /// With their addresses.
        servers: Members,
    },
    /// The leader saw that a change of the members can go on.
    AdvanceMembers {
        /// Which change; any other is left alone.
        change: u64,
        /// To where.
        to: AdvanceTo,
    },
}

impl Command {
    /// The session that it makes, if it makes one.
    pub(crate) fn new_session(&self) -> Option<SessionId> {
        match self {
            Self::CreateSession { session, .. } => Some(*session),
            _ => None,
        }
    }

    pub(crate) fn is_of_members(&self) -> bool {
        match self {
            Self::FoundMembers { .. } | Self::AdvanceMembers { .. } => true,
            Self::Write { op, .. } => matches!(op, WriteOp::Reconfig(_)),
            Self::CreateSession { .. }
            | Self::Attach { .. }
            | Self::Expire { .. }
            | Self::RemoveDue { .. } => false,
        }
    }
}

/// Where a change of the members goes on to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdvanceTo {
    /// All have caught up.
    Exchange,
    /// They have not, in time.
    GivenUp,
    /// Consensus has the members.
    Finished,
    /// The exchange cannot go on: back to the servers of before.
    TurnedBack,
}

/// What a session may write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOp {
    /// One change of the tree.
    Tree(TreeOp),
    /// Several changes of the tree under one zxid, all or none.
    Multi(Vec<TreeOp>),
    /// The session ends and its ephemerals go, under one zxid.
    CloseSession,
    /// The session's choices.
    SessionOptions {
        /// Expire this long after the peer closed the socket; `None` = only by time-out.
        fast_death_grace_ms: Option<u32>,
    },
    /// Other members. It is answered when they are there.
    Reconfig(ReconfigRequest),
}

/// One change of the tree, as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeOp {
    /// Answers with the path.
    Create(CreateRequest),
    /// Answers with the path and the Stat.
    Create2(CreateRequest),
    /// Remove a node without children.
    Delete(DeleteRequest),
    /// Replace a node's data.
    SetData(SetDataRequest),
    /// Replace a node's access list.
    SetAcl(SetAclRequest),
    /// Changes nothing: fails unless the node is there at this version.
    Check(CheckRequest),
    /// A node with a time; answers with the path and the Stat.
    CreateTtl(CreateTtlRequest),
}

impl From<MultiOp> for TreeOp {
    fn from(op: MultiOp) -> Self {
        let flagged = |request, mode: CreateMode| CreateRequest { flags: mode.code(), ..request };
        match op {
            MultiOp::Create(request) => Self::Create(request),
            MultiOp::Create2(request) => Self::Create2(request),
            MultiOp::CreateContainer(request) => {
                Self::Create2(flagged(request, CreateMode::Container))
            }
            MultiOp::CreateTtl(request) => Self::CreateTtl(request),
            MultiOp::Delete(request) => Self::Delete(request),
            MultiOp::SetData(request) => Self::SetData(request),
            MultiOp::Check(request) => Self::Check(request),
        }
    }
}

/// Why bytes are not an entry, or an entry cannot become bytes. Never worth a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log entry: {0}")]
pub struct EntryError(#[from] EnvelopeError);

const SCHEMA: Schema = Schema { kind: ENTRY_KIND, version: 2 };
/// The form that has changes of the members, and is otherwise the same. Entries without any stay in the older form: the
/// build before reads them, as long as nobody changes members.
const SCHEMA_3: Schema = Schema { kind: ENTRY_KIND, version: 3 };

impl Entry {
    /// The bytes that the log holds and that travel between servers.
    ///
    /// # Errors
    /// Only when the entry is larger than an envelope may be: propose fewer commands.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        let schema = match self.commands.iter().any(Command::is_of_members) {
            true => SCHEMA_3,
            false => SCHEMA,
        };
        let mut bytes = envelope::encode(schema, self)?;
        // The log keeps it: what was held in reserve to write it would be a third of the log's memory.
        bytes.shrink_to_fit();
        Ok(Bytes::from(bytes))
    }

    /// The entry in `bytes`. The data inside is copied: it does not keep `bytes` alive.
    ///
    /// # Errors
    /// Bytes that `encode` did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        match envelope::decode(SCHEMA, bytes) {
            Err(EnvelopeError::Schema { found: SCHEMA_3, .. }) => {
                Ok(envelope::decode(SCHEMA_3, bytes)?)
            }
            decoded => Ok(decoded?),
        }
    }
}
