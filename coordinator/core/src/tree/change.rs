//! What one write did to one node.
//!
//! Called by: `transaction` (makes them); `watch` and `subscription` (tell them). Calls: nothing.
//! It does not know who listens.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, Stat, Zxid};

/// What happened to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// Its data was replaced.
    DataChanged,
    /// It is gone.
    Deleted,
    /// Others may hear of it now. No watch fires, as in ZooKeeper; subscribers above it begin anew.
    AclChanged,
}

/// One node's change. A write has one for each node it touched, in the order it touched them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The write's zxid.
    pub zxid: Zxid,
    /// The node.
    pub path: Arc<str>,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its data after the change; `None` for null, and for a deleted node; of a new
    /// access list nobody is told more than that.
    pub data: Option<Bytes>,
    /// Who may hear of it: the node's access list; for a deleted node the last one it had.
    pub acl: Arc<[Acl]>,
    /// Who may hear that its parent has other children: the parent's access list; the root's own.
    pub parent_acl: Arc<[Acl]>,
    /// Its Stat after the change; for a deleted node the last one it had.
    pub stat: Stat,
}

impl Change {
    /// Whether the node is `top` or below it.
    #[must_use]
    pub fn is_within(&self, top: &str) -> bool {
        is_within(&self.path, top)
    }
}

/// Whether a node is `top` or below it.
#[must_use]
pub(crate) fn is_within(path: &str, top: &str) -> bool {
    match path.strip_prefix(top) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || top == "/",
        None => false,
    }
}
