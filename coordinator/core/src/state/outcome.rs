//! What came of an applied command.
//!
//! Called by: `machine` (makes them); the server (tells watchers and subscribers, then answers).
//! Calls: nothing.
//! Invariant: a command that changed nothing has no zxid of its own: its `zxid` is the last one.
//! It does not know who waits for the answer.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{ErrorCode, SessionId, Stat, Zxid};

use super::entry::Origin;
use crate::tree::Change;

/// What came of one entry: one item for each command, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The entry's place in the log.
    pub index: u64,
    /// In the order of the entry's commands.
    pub commands: Vec<AppliedCommand>,
}

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// The zxid given to this command, or the last one given when it changed nothing.
    pub zxid: Zxid,
    /// The answer.
    pub outcome: Outcome,
    /// What watchers and subscribers must hear before anyone hears `outcome`, in order. All
    /// carry `zxid`.
    pub changes: Vec<Change>,
}

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session exists, at generation 1. Also the answer to a repeated create.
    Created(Created),
    /// The session belongs to a new connection. Also the answer to a repeated attach.
    Attached(Attached),
    /// No such session, or the wrong password (-112), or too many sessions (-127): the client's
    /// connection is answered with time-out 0 and closed. Or the session moved meanwhile (-118): it
    /// lives, and the client may ask again.
    Refused {
        /// The session asked for.
        session: SessionId,
        /// Whose request it was.
        origin: Origin,
        /// Why.
        reason: ErrorCode,
    },
    /// A write was decided: the answer of (session, generation, sequence).
    Written {
        /// The session.
        session: SessionId,
        /// Its connection generation.
        generation: u64,
        /// The write's number within the generation.
        sequence: u64,
        /// An error changed nothing and used no zxid.
        result: Result<OpResult, ErrorCode>,
    },
    /// A write was passed over. The state is as it was.
    Ignored {
        /// The session.
        session: SessionId,
        /// The generation the write named.
        generation: u64,
        /// The write's number within the generation.
        sequence: u64,
        /// Why.
        why: Ignored,
    },
    /// The session expired.
    Expired(Ended),
    /// The expiry named an older generation or a session that is gone. The state is as it was.
    ExpiryRefused {
        /// The session.
        session: SessionId,
        /// The generation the expiry named.
        generation: u64,
    },
    /// A container or TTL node was looked at: true if it is gone.
    DueRemoved(bool),
    /// A change of the members has begun; the write is decided when it ends.
    Reconfiguring {
        /// The session.
        session: SessionId,
        /// Its connection generation.
        generation: u64,
        /// The write's number within the generation.
        sequence: u64,
    },
    /// The ensemble's members are founded, or a change of them went on, if that was not known.
    MembersMoved,
}

/// Facts of a created session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The session.
    pub session: SessionId,
    /// Who asked.
    pub origin: Origin,
    /// Always 1.
    pub generation: u64,
    /// The time-out.
    pub timeout_ms: u32,
}

/// Facts of a session that moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The session.
    pub session: SessionId,
    /// Who asked, and owns it now.
    pub origin: Origin,
    /// Whom it belonged to: its server closes that connection. Equal to `origin` for a repeated
    /// attach.
    pub previous: Origin,
    /// The new generation; writes count from 1 again.
    pub generation: u64,
    /// The time-out.
    pub timeout_ms: u32,
}

/// Facts of a session that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The session.
    pub session: SessionId,
    /// Whom it belonged to: its server closes that connection.
    pub origin: Origin,
    /// Its last generation.
    pub generation: u64,
}

/// Why a write was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It was applied before; its answer went out then, on the server that asked.
    Duplicate,
    /// An earlier write of the session is missing: the origin sends all of them again, in order.
    OutOfOrder,
    /// The session has moved to another connection.
    Moved,
    /// The session has ended.
    NoSession,
}

/// What a successful write answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// create
    Created {
        /// With the sequence number, if one was asked for.
        path: Arc<str>,
    },
    /// create2
    Created2 {
        /// With the sequence number, if one was asked for.
        path: Arc<str>,
        /// The new node's.
        stat: Stat,
    },
    /// delete
    Deleted,
    /// setData
    DataSet {
        /// After the change.
        stat: Stat,
    },
    /// setACL
    AclSet {
        /// After the change.
        stat: Stat,
    },
    /// check
    Checked {
        /// The node's.
        stat: Stat,
    },
    /// multi, whether it took place or not: the reply's header carries no error either way.
    Multi(MultiOutcome),
    /// closeSession: the session is gone and its ephemerals with it.
    SessionClosed(Ended),
    /// sessionOptions
    OptionsSet,
    /// reconfig: the configuration's text.
    Reconfigured {
        /// What `/zookeeper/config` holds.
        data: Bytes,
        /// Its Stat.
        stat: Stat,
    },
}

/// What came of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiOutcome {
    /// All took place, in order.
    Done(Vec<OpResult>),
    /// Nothing took place. One code per operation: 0 before the one that failed, its error, and
    /// -2 after it.
    Failed(Vec<ErrorCode>),
}
