//! One znode, and the Stat that clients see of it.
//!
//! Called by: `store`, `transaction`. Calls: nothing.
//! Invariant: `cversion` counts creates of children only; the Stat's counts creates and deletes,
//! which is `2 * stored - children`, as in ZooKeeper.
//! It does not know its own path.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Stat, Zxid};

use super::children::Children;

/// Longest time that a TTL node can be given: 40 bits of milliseconds.
const TTL_MS_MAX: i64 = 0xff_ffff_ffff;
/// In the place of a TTL node's owner, above its time.
const TTL_MARK: i64 = -0x0100_0000_0000_0000;
/// In the place of a container's owner.
pub(super) const CONTAINER: SessionId = SessionId::new(i64::MIN);

/// The mark of a node that stays for so long; `None` when it cannot be given that time.
pub(super) fn ttl_mark(ttl_ms: i64) -> Option<SessionId> {
    (1..=TTL_MS_MAX).contains(&ttl_ms).then(|| SessionId::new(TTL_MARK | ttl_ms))
}

/// What is stored of a znode. Paths and access lists are shared, so that a node without children
/// takes little more than its own numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `None` is ZooKeeper's null.
    pub(super) data: Option<Bytes>,
    /// Shared by all nodes with the same list.
    pub(super) acl: Arc<[Acl]>,
    /// Whole paths of the children, shared with the tree's index.
    pub(super) children: Children,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) pzxid: Zxid,
    pub(super) ctime_ms: i64,
    pub(super) mtime_ms: i64,
    pub(super) version: i32,
    /// Children ever created under it.
    pub(super) cversion: i32,
    pub(super) aversion: i32,
    /// `SessionId::NONE` for a persistent node; of a container or TTL node the mark that ZooKeeper puts
    /// here, which no session has for its id.
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

    /// Whether it goes with a session.
    pub(super) fn is_ephemeral(&self) -> bool {
        !self.ephemeral_owner.is_none() && !self.goes_by_itself()
    }

    /// Whether it is a container or TTL node.
    pub(super) fn goes_by_itself(&self) -> bool {
        self.ephemeral_owner == CONTAINER || self.ttl_ms().is_some()
    }

    /// Whether nothing keeps it any more: it is a container that had children and has none, or its
    /// time is over since it was written last and it has none either.
    pub(super) fn is_due(&self, wall_ms: i64) -> bool {
        let is_over = match self.ttl_ms() {
            Some(ttl_ms) => wall_ms.saturating_sub(self.mtime_ms) > ttl_ms,
            None => self.ephemeral_owner == CONTAINER && self.cversion != 0,
        };
        is_over && self.children.is_empty()
    }

    fn ttl_ms(&self) -> Option<i64> {
        let owner = self.ephemeral_owner.get();
        (owner & !TTL_MS_MAX == TTL_MARK).then_some(owner & TTL_MS_MAX)
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
