//! What is asked of the coordinator, and how it ends.
//!
//! *Called by* the controller and the registration, which ask; the shell and the simulator ask the ensemble and tell them. It does not know the
//! coordinator's wire.

use std::collections::BTreeMap;

use crate::ids::{SessionId, Zxid};

/// One operation of a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// The node has this version.
    Check {
        /// Path.
        path: String,
        /// Version.
        version: i32,
    },
    /// Create a persistent node.
    Create {
        /// Path.
        path: String,
        /// Data.
        data: Vec<u8>,
    },
    /// Create a node that goes with the session.
    CreateEphemeral {
        /// Path.
        path: String,
        /// Data.
        data: Vec<u8>,
    },
    /// Write a node that has this version.
    SetData {
        /// Path.
        path: String,
        /// Data.
        data: Vec<u8>,
        /// Version.
        version: i32,
    },
    /// Delete a node.
    Delete {
        /// Path.
        path: String,
        /// The version that it must have; none: any.
        version: Option<i32>,
    },
}

/// How a multi ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteOutcome {
    /// All of it is written.
    Done {
        /// Of one that creates an ephemeral, that node's czxid; else the reply's, which may be a later one.
        zxid: Zxid,
    },
    /// Nothing is written because of the operation at this index.
    Conflict {
        /// Index in the multi's operations.
        at: usize,
        /// The reply's zxid.
        zxid: Zxid,
    },
    /// The connection broke before the reply. Tell it when a new connection of the same session has answered a `sync`: what the old
    /// connection sent is applied at or before that zxid, or never.
    Unknown {
        /// The sync's zxid.
        zxid: Zxid,
    },
}

/// A node that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its data.
    pub data: Vec<u8>,
    /// Version of the data.
    pub version: i32,
    /// When it was created.
    pub czxid: Zxid,
    /// When its data was written.
    pub mzxid: Zxid,
    /// Whose ephemeral it is.
    pub owner: Option<SessionId>,
}

/// What was found, by path. What is not there is not in it.
pub type Nodes = BTreeMap<String, Node>;

/// Something to be asked of the ensemble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// The nodes at these paths, with nothing older than this moment: a `sync` goes before.
    Read(Vec<String>),
    /// One multi.
    Write(Vec<Op>),
}
