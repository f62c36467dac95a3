//! Nodes as a snapshot keeps them.
//!
//! Called by: `state::snapshot`. Calls: `store`.
//! Invariant: a tree made from records passes `Tree::check`, or the records are refused.
//! It does not know the envelope around them.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Zxid};
use serde::{Deserialize, Serialize};

use super::children::Children;
use super::node::Node;
use super::path::{parent, validate_path};
use super::store::{FrozenTree, Tree, is_system};

/// One node. Records come in the order of `Tree::subtree("/")`: parents first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    path: Arc<str>,
    data: Option<Bytes>,
    acl: Arc<[Acl]>,
    czxid: Zxid,
    mzxid: Zxid,
    pzxid: Zxid,
    ctime_ms: i64,
    mtime_ms: i64,
    version: i32,
    cversion: i32,
    aversion: i32,
    ephemeral_owner: SessionId,
}

/// The numbers of a node that comes from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeNumbers {
    /// Created by.
    pub czxid: Zxid,
    /// Written last by.
    pub mzxid: Zxid,
    /// Children changed last by.
    pub pzxid: Zxid,
    /// When it was created, ms since 1970.
    pub ctime_ms: i64,
    /// When it was written last, ms since 1970.
    pub mtime_ms: i64,
    /// Writes.
    pub version: i32,
    /// Children ever created; the Stat's counts otherwise.
    pub cversion: i32,
    /// Changes of the access list.
    pub aversion: i32,
    /// As stored: `SessionId::NONE` for a persistent node.
    pub ephemeral_owner: SessionId,
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
        let NodeNumbers { czxid, mzxid, pzxid, ctime_ms, mtime_ms, .. } = numbers;
        let NodeNumbers { version, cversion, aversion, ephemeral_owner, .. } = numbers;
        NodeRecord {
            path,
            data,
            acl,
            czxid,
            mzxid,
            pzxid,
            ctime_ms,
            mtime_ms,
            version,
            cversion,
            aversion,
            ephemeral_owner,
        }
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
        self.nodes().map(|(path, view)| {
            let node = view.node();
            NodeRecord {
                path: path.clone(),
                data: node.data.clone(),
                acl: node.acl.clone(),
                czxid: node.czxid,
                mzxid: node.mzxid,
                pzxid: node.pzxid,
                ctime_ms: node.ctime_ms,
                mtime_ms: node.mtime_ms,
                version: node.version,
                cversion: node.cversion,
                aversion: node.aversion,
                ephemeral_owner: node.ephemeral_owner,
            }
        })
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
        let mut tree = Self::empty();
        for record in records {
            tree.take_record(record, last)?;
        }
        let system = tree.nodes.len() >= 4
            && ["/zookeeper/quota", "/zookeeper/config"]
                .iter()
                .all(|path| is_system(path) && tree.contains(path));
        if system { Ok(tree) } else { Err(RecordError::Incomplete) }
    }

    fn take_record(&mut self, record: NodeRecord, last: Zxid) -> Result<(), RecordError> {
        let path = record.path;
        if validate_path(&path).is_err() {
            return Err(RecordError::Path(path));
        }
        if self.contains(&path) {
            return Err(RecordError::Repeated(path));
        }
        let fits = match parent(&path) {
            None => self.nodes.is_empty() && record.ephemeral_owner.is_none(),
            Some(above) => self.nodes.get(above).is_some_and(|above| !above.is_ephemeral()),
        };
        if !fits {
            return Err(RecordError::Orphan(path));
        }
        let newest = record.mzxid.max(record.pzxid);
        if record.czxid > record.mzxid || record.czxid > record.pzxid || newest > last {
            return Err(RecordError::Zxids(path));
        }
        let acl = self.share_acl(record.acl.to_vec());
        let node = Node {
            data: record.data,
            acl,
            children: Children::default(),
            czxid: record.czxid,
            mzxid: record.mzxid,
            pzxid: record.pzxid,
            ctime_ms: record.ctime_ms,
            mtime_ms: record.mtime_ms,
            version: record.version,
            cversion: record.cversion,
            aversion: record.aversion,
            ephemeral_owner: record.ephemeral_owner,
        };
        self.attach(path, Arc::new(node));
        Ok(())
    }
}
