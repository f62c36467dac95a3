//! One znode, and the Stat that clients see of it.
//!
//! Called by: `store`, `transaction`. Calls: nothing.
//! Invariant: `cversion` counts creates of children only; the Stat's counts creates and deletes,
//! which is `2 * stored - children`, as in ZooKeeper.
//! It does not know its own path.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Stat, Zxid};

/// What is stored of a znode. Paths and access lists are shared, so that a node without children
/// takes little more than its own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `None` is ZooKeeper's null.
    pub(super) data: Option<Bytes>,
    /// Shared by all nodes with the same list.
    pub(super) acl: Arc<[Acl]>,
    /// Whole paths of the children, shared with the tree's index.
    pub(super) children: BTreeSet<Arc<str>>,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) ctime_ms: i64,
    pub(super) mtime_ms: i64,
    pub(super) version: i32,
    /// Children ever created under it.
    pub(super) cversion: i32,
    pub(super) aversion: i32,
    /// `SessionId::NONE` for a persistent node.
    pub(super) ephemeral_owner: SessionId,
}

/// A node as readers get it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    node: &'a Node,
}

impl Node {
    /// The Stat that clients see.
    pub(super) fn stat(&self) -> Stat {
        let num_children = count(self.children.len());
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: self.ephemeral_owner,
            data_length: count(self.data.as_ref().map_or(0, Bytes::len)),
            num_children,
            pzxid: self.pzxid,
        }
    }

    pub(super) fn is_ephemeral(&self) -> bool {
        !self.ephemeral_owner.is_none()
    }
}

impl<'a> NodeView<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        Self { node }
    }

    pub(super) fn node(self) -> &'a Node {
        self.node
    }

    /// The data; `None` is ZooKeeper's null. A clone shares the bytes.
    #[must_use]
    pub fn data(&self) -> Option<&'a Bytes> {
        self.node.data.as_ref()
    }

    /// The Stat.
    #[must_use]
    pub fn stat(&self) -> Stat {
        self.node.stat()
    }

    /// The access list; nodes share it.
    #[must_use]
    pub fn acl(&self) -> &'a Arc<[Acl]> {
        &self.node.acl
    }
}

/// Sizes are bounded far below by frames and memory; the wire has 32 bits for them.
fn count(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}
