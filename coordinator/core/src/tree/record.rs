//! Nodes as a snapshot keeps them.
//!
//! Called by: `state::snapshot`. Calls: `store`.
//! Invariant: a tree made from records passes `Tree::check`, or the records are refused.
//! It does not know the envelope around them.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, Zxid};
use serde::{Deserialize, Serialize};

use super::node::{Node, NodeNumbers};
use super::path::{parent, validate_path};
use super::store::{FrozenTree, Tree, is_system};

/// One node. Records come in the order of `Tree::subtree("/")`: parents first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    path: Arc<str>,
    data: Option<Bytes>,
    acl: Arc<[Acl]>,
    numbers: NodeNumbers,
}

/// Records that no tree can have made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A path that no node may have.
    #[error("node {0:?} has no valid path")]
    Path(Arc<str>),
    /// The same path twice.
    #[error("node {0} comes twice")]
    Repeated(Arc<str>),
    /// A node before its parent, without one, or below an ephemeral one.
    #[error("node {0} has no parent that may have children")]
    Orphan(Arc<str>),
    /// Zxids that contradict each other, or lie after the snapshot.
    #[error("node {0} has zxids out of order")]
    Zxids(Arc<str>),
    /// A node that always exists does not.
    #[error("the nodes of the system are not complete")]
    Incomplete,
}

impl NodeRecord {
    /// A node of another system. Whether it fits is seen by [`Tree::from_records`].
    #[must_use]
    pub fn new(path: Arc<str>, data: Option<Bytes>, acl: Arc<[Acl]>, numbers: NodeNumbers) -> Self {
        NodeRecord { path, data, acl, numbers }
    }

    /// The node's path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes that vary; for cutting chunks.
    #[must_use]
    pub fn variable_bytes(&self) -> usize {
        let acl = self.acl.iter().map(|entry| entry.scheme.len() + entry.id.len() + 16);
        self.path.len() + self.data.as_ref().map_or(0, Bytes::len) + acl.sum::<usize>()
    }
}

impl FrozenTree {
    /// All nodes, parents first.
    pub fn records(&self) -> impl Iterator<Item = NodeRecord> {
        self.nodes().map(|view| {
            let node = view.node();
            let (data, acl) = (node.shared_data(), node.acl().clone());
            NodeRecord::new(node.path().into(), data, acl, node.numbers())
        })
    }
}

/// A tree that is made from records, one by one.
#[derive(Debug)]
pub struct TreeBuilder {
    tree: Tree,
    last: Zxid,
}

impl TreeBuilder {
    /// Begins a tree as of `last`.
    #[must_use]
    pub fn new(last: Zxid) -> Self {
        Self { tree: Tree::empty(), last }
    }

    /// Puts the next node in its place.
    ///
    /// # Errors
    /// A record that `records` did not give there.
    pub fn add(&mut self, record: NodeRecord) -> Result<(), RecordError> {
        let NodeRecord { path, data, acl, numbers } = record;
        if validate_path(&path).is_err() {
            return Err(RecordError::Path(path));
        }
        if self.tree.contains(&path) {
            return Err(RecordError::Repeated(path));
        }
        let fits = match parent(&path) {
            None => self.tree.nodes.is_empty() && numbers.ephemeral_owner.is_none(),
            Some(above) => {
                self.tree.nodes.get(above).is_some_and(|above| !above.numbers().is_ephemeral())
            }
        };
        if !fits {
            return Err(RecordError::Orphan(path));
        }
        let newest = numbers.mzxid.max(numbers.pzxid);
        let is_ordered = numbers.czxid <= numbers.mzxid && numbers.czxid <= numbers.pzxid;
        if !is_ordered || newest > self.last {
            return Err(RecordError::Zxids(path));
        }
        let acl = self.tree.share_acl(acl.to_vec());
        self.tree.attach(Node::new(&path, data.as_deref(), acl, &numbers).as_ref());
        Ok(())
    }

    /// The tree of all of them.
    ///
    /// # Errors
    /// [`RecordError::Incomplete`]
    pub fn finish(self) -> Result<Tree, RecordError> {
        let tree = self.tree;
        let system = tree.nodes.len() >= 4
            && ["/zookeeper/quota", "/zookeeper/config"]
                .iter()
                .all(|path| is_system(path) && tree.contains(path));
        if system { Ok(tree) } else { Err(RecordError::Incomplete) }
    }
}

impl Tree {
    /// The tree of these records, as of `last`.
    ///
    /// # Errors
    /// Records that `records` did not give.
    pub fn from_records(
        records: impl IntoIterator<Item = NodeRecord>,
        last: Zxid,
    ) -> Result<Self, RecordError> {
        let mut builder = TreeBuilder::new(last);
        records.into_iter().try_for_each(|record| builder.add(record))?;
        builder.finish()
    }
}
