//! A tree of nodes so simple that it is plainly right.
//!
//! Called by: the model's commands; `audit::reads`, for what a read should have seen. Calls: nothing of the code under test.
//! Invariant: what an operation changed since `keep` can be taken back whole, by putting back what was there. Counters are as
//! the documentation of Stat words them. Access lists, quotas and TTL nodes are unknown to it: the workloads have none.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_core::tree::{ChangeKind, Tree};
use coordinator_protocol::{Acl, CreateRequest, ErrorCode, SessionId, SetDataRequest, Stat, Zxid};

/// In the place of a container's owner, as ZooKeeper has it.
const CONTAINER: SessionId = SessionId::new(i64::MIN);
const CONFIG: &str = "/zookeeper/config";

/// What a write is stamped with.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Of the write.
    pub zxid: Zxid,
    /// The time of what it writes.
    pub wall_ms: i64,
}

/// A node. Its children are where all nodes are.
#[derive(Debug, Clone)]
struct Plain {
    data: Option<Bytes>,
    created: Stamp,
    modified: Stamp,
    /// When a child last came or went.
    pzxid: Zxid,
    version: i32,
    /// Children that ever came.
    creates: i32,
    /// Children that came and went.
    cversion: i32,
    owner: SessionId,
}

/// What an operation did to a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The node.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its data after that, if it is still there.
    pub data: Option<Bytes>,
    /// Its Stat after that; for a deleted one the last it had.
    pub stat: Stat,
}

/// All nodes.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// By parent, then by name.
    folders: BTreeMap<String, BTreeMap<String, Plain>>,
    /// What there was where something was put since `keep`, in order.
    former: Vec<(String, Option<Plain>)>,
    changes: Vec<Changed>,
}

impl Nodes {
    /// Those of a new ensemble.
    pub fn new() -> Self {
        let mut nodes = Self { folders: BTreeMap::new(), former: Vec::new(), changes: Vec::new() };
        let never = Stamp { zxid: Zxid::ZERO, wall_ms: 0 };
        // Children that nobody created are counted as if they had only gone.
        for (path, cversion) in
            [("/", -1), ("/zookeeper", -2), ("/zookeeper/quota", 0), (CONFIG, 0)]
        {
            let node = Plain { cversion, ..plain(never, Some(Bytes::new()), SessionId::NONE) };
            nodes.put(path, Some(node));
        }
        let _made = nodes.keep();
        nodes
    }

    /// create, by `session`: the path with its number, and the new node's Stat.
    pub fn create(
        &mut self,
        at: Stamp,
        session: SessionId,
        request: &CreateRequest,
    ) -> Result<(String, Stat), ErrorCode> {
        assert_eq!(request.acl, Acl::open(), "the model knows no access lists");
        let above = parent_of(&request.path);
        let mut parent = self.get(above).ok_or(ErrorCode::NoNode)?.clone();
        let number = parent.creates;
        let (owner, path) = match request.flags {
            0 => (SessionId::NONE, request.path.clone()),
            1 => (session, request.path.clone()),
            2 => (SessionId::NONE, format!("{}{number:010}", request.path)),
            3 => (session, format!("{}{number:010}", request.path)),
            4 => (CONTAINER, request.path.clone()),
            other => panic!("the model knows no nodes of kind {other}"),
        };
        if self.get(&path).is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if parent.owner != SessionId::NONE && parent.owner != CONTAINER {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        parent.creates += 1;
        parent.cversion += 1;
        parent.pzxid = at.zxid;
        self.put(above, Some(parent));
        self.put(&path, Some(plain(at, request.data.clone(), owner)));
        let stat = self.note(&path, ChangeKind::Created);
        Ok((path, stat))
    }

    /// delete
    pub fn delete(&mut self, at: Stamp, path: &str, version: i32) -> Result<(), ErrorCode> {
        assert!(!path.starts_with("/zookeeper"), "the model does not know what may not go");
        self.check(path, version)?;
        if self.names(path).next().is_some() {
            return Err(ErrorCode::NotEmpty);
        }
        self.note(path, ChangeKind::Deleted);
        self.put(path, None);
        let above = parent_of(path);
        let mut parent = self.get(above).expect("a node has a parent").clone();
        parent.cversion += 1;
        parent.pzxid = at.zxid;
        self.put(above, Some(parent));
        Ok(())
    }

    /// setData: the Stat after it.
    pub fn set(&mut self, at: Stamp, request: &SetDataRequest) -> Result<Stat, ErrorCode> {
        assert_ne!(request.path, CONFIG, "the model does not know what may not be written");
        self.check(&request.path, request.version)?;
        let mut node = self.get(&request.path).expect("it was checked").clone();
        node.data.clone_from(&request.data);
        node.version += 1;
        node.modified = at;
        self.put(&request.path, Some(node));
        Ok(self.note(&request.path, ChangeKind::DataChanged))
    }

    /// The servers are written: the Stat after it.
    pub fn set_config(&mut self, at: Stamp, data: Bytes) -> Stat {
        let former = self.get(CONFIG).expect("it is always there").clone();
        let node = Plain { data: Some(data), modified: at, version: -1, ..former };
        self.put(CONFIG, Some(node));
        self.note(CONFIG, ChangeKind::DataChanged)
    }

    /// check: the Stat of what is there at this version.
    pub fn check(&self, path: &str, version: i32) -> Result<Stat, ErrorCode> {
        let node = self.get(path).ok_or(ErrorCode::NoNode)?;
        match version == -1 || version == node.version {
            true => Ok(self.stat(path, node)),
            false => Err(ErrorCode::BadVersion),
        }
    }

    /// A container that had children and has none goes; whether it did.
    pub fn remove_due(&mut self, at: Stamp, path: &str) -> bool {
        let is_due = |node: &Plain| node.owner == CONTAINER && node.creates > 0;
        self.get(path).is_some_and(is_due) && self.delete(at, path, -1).is_ok()
    }

    /// A session's nodes go with it.
    pub fn delete_owned(&mut self, at: Stamp, session: SessionId) {
        for path in self.owned(session) {
            self.delete(at, &path, -1).expect("ephemerals have no children");
        }
    }

    /// What was done stays; what it was, in order.
    pub fn keep(&mut self) -> Vec<Changed> {
        self.former.clear();
        std::mem::take(&mut self.changes)
    }

    /// Nothing of it was done.
    pub fn take_back(&mut self) {
        for (path, node) in std::mem::take(&mut self.former).into_iter().rev() {
            self.put(&path, node);
        }
        let _undone = self.keep();
    }

    /// A session's nodes, in ascending order.
    pub fn owned(&self, session: SessionId) -> Vec<String> {
        let all = self
            .folders
            .iter()
            .flat_map(|(folder, nodes)| nodes.iter().map(move |(name, node)| (folder, name, node)));
        let owned = all.filter(|(_, _, node)| node.owner == session);
        let mut paths: Vec<String> =
            owned.map(|(folder, name, _)| format!("{folder}/{name}")).collect();
        paths.sort_unstable();
        paths
    }

    /// Names of the children of `path`, in ascending order.
    pub fn names(&self, path: &str) -> impl Iterator<Item = &str> {
        let children = self.folders.get(if path == "/" { "" } else { path });
        children.into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// Data and Stat of a node.
    pub fn read(&self, path: &str) -> Option<(Option<&Bytes>, Stat)> {
        self.get(path).map(|node| (node.data.as_ref(), self.stat(path, node)))
    }

    /// Whether `tree` has the same nodes.
    pub fn compare(&self, tree: &Tree) {
        let mut count = 0;
        for (folder, nodes) in &self.folders {
            for (name, node) in nodes {
                count += 1;
                let path = if folder == ABOVE { "/" } else { &format!("{folder}/{name}") };
                let found = tree.get(path).unwrap_or_else(|| panic!("agreed: {path} is missing"));
                assert_eq!(found.stat(), self.stat(path, node), "agreed: Stat of {path}");
                assert_eq!(found.data(), node.data, "agreed: data of {path}");
                let names = tree.children(path).expect("it is there");
                assert!(names.eq(self.names(path)), "agreed: children of {path}");
            }
        }
        assert_eq!(tree.node_count(), count, "agreed: nodes that should not be there");
    }

    fn get(&self, path: &str) -> Option<&Plain> {
        let (folder, name) = split(path);
        self.folders.get(folder)?.get(name)
    }

    fn put(&mut self, path: &str, node: Option<Plain>) {
        let (folder, name) = split(path);
        let nodes = self.folders.entry(folder.to_owned()).or_default();
        let former = match node {
            Some(node) => nodes.insert(name.to_owned(), node),
            None => nodes.remove(name),
        };
        self.former.push((path.to_owned(), former));
    }

    fn note(&mut self, path: &str, kind: ChangeKind) -> Stat {
        let node = self.get(path).expect("it was put there, or is about to go");
        let stat = self.stat(path, node);
        let data = node.data.clone().filter(|_| kind != ChangeKind::Deleted);
        self.changes.push(Changed { path: path.to_owned(), kind, data, stat });
        stat
    }

    fn stat(&self, path: &str, node: &Plain) -> Stat {
        let children = self.folders.get(if path == "/" { "" } else { path });
        let length = node.data.as_ref().map_or(0, Bytes::len);
        Stat {
            czxid: node.created.zxid,
            mzxid: node.modified.zxid,
            ctime_ms: node.created.wall_ms,
            mtime_ms: node.modified.wall_ms,
            version: node.version,
            cversion: node.cversion,
            aversion: if path == CONFIG { -1 } else { 0 },
            ephemeral_owner: if node.owner == CONTAINER { SessionId::NONE } else { node.owner },
            data_length: i32::try_from(length).expect("small"),
            num_children: i32::try_from(children.map_or(0, BTreeMap::len)).expect("small"),
            pzxid: node.pzxid,
        }
    }
}

/// Where the root is: no path of a node.
const ABOVE: &str = "above";

/// Where a node is, and its name there.
fn split(path: &str) -> (&str, &str) {
    match path {
        "/" => (ABOVE, ""),
        path => path.rsplit_once('/').expect("paths begin with a slash"),
    }
}

fn parent_of(path: &str) -> &str {
    match split(path).0 {
        "" => "/",
        above => above,
    }
}

fn plain(at: Stamp, data: Option<Bytes>, owner: SessionId) -> Plain {
    let (version, creates, cversion) = (0, 0, 0);
    let pzxid = at.zxid;
    Plain { data, created: at, modified: at, pzxid, version, creates, cversion, owner }
}
