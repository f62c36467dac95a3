//! The tree as ZooKeeper keeps it, changed as ZooKeeper changes it when it reads its log at start.
//!
//! Called by: `import`, `snapshot` (fills it). Calls: nothing.
//! Invariant: a snapshot is written while changes go on, so it may hold some of what its log tells again: creating what
//! is there, and changing or deleting what is gone, is no error. Every node but the root has its parent.
//! Does not know: files, a member's state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::Acl;

use super::transaction::{Change, Create, Operation, Transaction};

/// What stands in the place of a container's owner.
const CONTAINER_OWNER: i64 = i64::MIN;
/// The byte that stands in front of a TTL node's time, where others have their owner.
const TTL_BYTE: i64 = 0xff;
const TTL_SHIFT: u32 = 56;

/// A znode's numbers, as ZooKeeper stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredStat {
    /// Created by.
    pub czxid: i64,
    /// Written last by.
    pub mzxid: i64,
    /// When it was created.
    pub ctime_ms: i64,
    /// When it was written last.
    pub mtime_ms: i64,
    /// Writes.
    pub version: i32,
    /// Children ever created.
    pub cversion: i32,
    /// Changes of the access list.
    pub aversion: i32,
    /// A session, or the mark of a container or TTL node; 0 of all others.
    pub ephemeral_owner: i64,
    /// Children changed last by.
    pub pzxid: i64,
}

impl StoredStat {
    /// Whether the node goes with a session.
    pub fn is_ephemeral(&self) -> bool {
        let owner = self.ephemeral_owner;
        owner != 0 && owner != CONTAINER_OWNER && (owner >> TTL_SHIFT) & 0xff != TTL_BYTE
    }
}

/// One znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// `None` is null.
    pub data: Option<Bytes>,
    /// Shared.
    pub acl: Arc<[Acl]>,
    /// Its numbers.
    pub stat: StoredStat,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Znodes {
    /// By path; the root is `/`. Ascending order puts parents before children.
    pub nodes: BTreeMap<String, Znode>,
    /// Open sessions.
    pub sessions: BTreeSet<i64>,
    /// The last transaction inside.
    pub last_zxid: i64,
    /// When it was made.
    pub wall_ms: i64,
    acls: BTreeSet<Arc<[Acl]>>,
    /// Paths by session.
    ephemerals: BTreeMap<i64, BTreeSet<String>>,
}

impl Znodes {
    /// What ZooKeeper begins with.
    pub fn new() -> Znodes {
        let mut znodes = Znodes::empty();
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            let acl = znodes.share(Acl::open());
            let data = Some(Bytes::new());
            znodes.insert(path.to_owned(), Znode { data, acl, stat: StoredStat::default() });
        }
        znodes
    }

    /// Nothing, for a snapshot to fill.
    pub fn empty() -> Znodes {
        Znodes {
            nodes: BTreeMap::new(),
            sessions: BTreeSet::new(),
            last_zxid: 0,
            wall_ms: 0,
            acls: BTreeSet::new(),
            ephemerals: BTreeMap::new(),
        }
    }

    /// Puts a node in its place. Its parent's own numbers are the caller's matter.
    pub fn insert(&mut self, path: String, node: Znode) {
        if node.stat.is_ephemeral() {
            let owned = self.ephemerals.entry(node.stat.ephemeral_owner).or_default();
            owned.insert(path.clone());
        }
        self.nodes.insert(path, node);
    }

    /// The list, once for all nodes that have it.
    pub fn share(&mut self, acl: Vec<Acl>) -> Arc<[Acl]> {
        let acl: Arc<[Acl]> = acl.into();
        match self.acls.get(&acl) {
            Some(shared) => shared.clone(),
            None => {
                self.acls.insert(acl.clone());
                acl
            }
        }
    }

    /// Does what the transaction did.
    pub fn apply(&mut self, transaction: Transaction) {
        let Transaction { session, zxid, time_ms, operation } = transaction;
        self.last_zxid = zxid;
        self.wall_ms = self.wall_ms.max(time_ms);
        match operation {
            Operation::CreateSession => {
                self.sessions.insert(session);
            }
            Operation::CloseSession { paths } => self.close_session(session, &paths, zxid),
            Operation::Nothing => {}
            Operation::Changes(changes) => {
                for change in changes {
                    self.change(change, (session, zxid, time_ms));
                }
            }
        }
    }

    /// Ends every session; their ephemerals go by `zxid`. Returns how many of each there were.
    pub fn close_sessions(&mut self, zxid: i64) -> (u64, u64) {
        let owned = std::mem::take(&mut self.ephemerals);
        let ephemerals: BTreeSet<String> = owned.into_values().flatten().collect();
        for path in &ephemerals {
            self.delete(path, zxid);
        }
        let sessions = std::mem::take(&mut self.sessions);
        (sessions.len() as u64, ephemerals.len() as u64)
    }

    fn change(&mut self, change: Change, by: (i64, i64, i64)) {
        let (_, zxid, time_ms) = by;
        match change {
            Change::Create(create) => self.create(create, by),
            Change::Delete { path } => self.delete(&path, zxid),
            Change::SetData { path, data, version } => {
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.data = data;
                    node.stat = StoredStat { mzxid: zxid, mtime_ms: time_ms, version, ..node.stat };
                }
            }
            Change::SetAcl { path, acl, version } => {
                let acl = self.share(acl);
                if let Some(node) = self.nodes.get_mut(&path) {
                    node.acl = acl;
                    node.stat.aversion = version;
                }
            }
        }
    }

    fn create(&mut self, create: Create, by: (i64, i64, i64)) {
        let (session, zxid, time_ms) = by;
        let Some(above) = parent(&create.path) else { return };
        let Some(parent) = self.nodes.get_mut(above) else { return };
        // Also when the node is there already: the snapshot may have the child and not yet the count.
        let cversion = create.parent_cversion.unwrap_or(parent.stat.cversion.wrapping_add(1));
        if cversion > parent.stat.cversion {
            parent.stat.cversion = cversion;
            parent.stat.pzxid = zxid;
        }
        if self.nodes.contains_key(&create.path) {
            return;
        }
        let stat = StoredStat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: time_ms,
            mtime_ms: time_ms,
            ephemeral_owner: create.owner(session),
            ..StoredStat::default()
        };
        let acl = self.share(create.acl);
        self.insert(create.path, Znode { data: create.data, acl, stat });
    }

    fn delete(&mut self, path: &str, zxid: i64) {
        let Some(node) = self.nodes.remove(path) else { return };
        if let Some(owned) = self.ephemerals.get_mut(&node.stat.ephemeral_owner) {
            owned.remove(path);
        }
        if let Some(parent) = parent(path).and_then(|above| self.nodes.get_mut(above)) {
            parent.stat.pzxid = parent.stat.pzxid.max(zxid);
        }
    }

    fn close_session(&mut self, session: i64, paths: &[String], zxid: i64) {
        self.sessions.remove(&session);
        let owned = self.ephemerals.remove(&session).unwrap_or_default();
        for path in paths.iter().chain(&owned) {
            self.delete(path, zxid);
        }
    }
}

/// The path above; none of the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => path.get(..at),
    }
}

impl Create {
    /// What stands in the place of the node's owner.
    fn owner(&self, session: i64) -> i64 {
        match (self.is_container, self.ttl_ms, self.is_ephemeral) {
            (true, _, _) => CONTAINER_OWNER,
            (_, Some(ttl_ms), _) => (TTL_BYTE << TTL_SHIFT) | ttl_ms,
            (_, _, true) => session,
            (_, _, false) => 0,
        }
    }
}
