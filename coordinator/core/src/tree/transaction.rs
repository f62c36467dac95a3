//! The only way to write the tree: operations under one zxid, kept all or taken back all.
//!
//! Called by: `state::machine`. Calls: `store`.
//! Invariant: after `rollback` the tree is what it was before; a later operation of the same
//! transaction sees the earlier ones.
//! What the writer's identities may not do is refused. It does not know sessions beyond their ids.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{
    Acl, CreateMode, CreateRequest, CreateTtlRequest, ErrorCode, Permissions, SessionId,
    SetAclRequest, Stat, Zxid,
};

use super::access::{self, Identity};
use super::change::{Change, ChangeKind};
use super::node::{CONTAINER, Node, NodeNumbers, ttl_mark};
use super::path::{parent, validate_path};
use super::quota::{self, Usage};
use super::store::{CONFIG_PATH, Tree, is_system};

/// Bytes of access lists that one transaction may add, each counted that differs from the one before it: in
/// a request an entry takes a few bytes where it stands for all that its writer has shown, and a multi has
/// many lists. What else is shared does not matter: it is not the same on all servers.
pub const ADDED_ACL_BYTES_MAX: usize = 4 << 20;
/// Of an entry beside its texts. A number of its own, not what it takes here: it decides what is applied, and has
/// to be the same in every build.
pub(super) const ACL_ENTRY_BYTES: usize = 64;

/// What all operations of a transaction are stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Greater than that of every earlier transaction.
    pub zxid: Zxid,
    /// For ctime and mtime.
    pub wall_ms: i64,
    /// A bug put in on purpose.
    #[cfg(planted)]
    pub planted: Option<crate::planted::Planted>,
}

/// A write in progress. Dropping it keeps what was done; an error of one operation changes
/// nothing by itself.
#[derive(Debug)]
pub struct Transaction<'a> {
    tree: &'a mut Tree,
    stamp: Stamp,
    /// The writer's.
    identities: &'a [Identity],
    changes: Vec<Change>,
    undo: Vec<Undo>,
    /// The last access list that it gave to a node.
    last_acl: Option<Arc<[Acl]>>,
    /// Of access lists.
    added_acl_bytes: usize,
}

/// How to take one operation back.
#[derive(Debug)]
enum Undo {
    /// Takes the node out again; the parent's numbers were these.
    Create { path: Arc<str>, parent: NodeNumbers },
    /// Puts the node back; the parent's numbers were these.
    Delete { node: Node, parent: NodeNumbers },
    /// The node was this.
    Replace(Node),
}

impl<'a> Transaction<'a> {
    /// Begins to write `tree`, as someone who may do what everybody may.
    pub fn new(tree: &'a mut Tree, stamp: Stamp) -> Self {
        let (changes, undo) = (Vec::new(), Vec::new());
        let (last_acl, added_acl_bytes) = (None, 0);
        Self { tree, stamp, identities: &[], changes, undo, last_acl, added_acl_bytes }
    }

    /// Goes on as a writer with these identities.
    #[must_use]
    pub fn by(self, identities: &'a [Identity]) -> Self {
        Self { identities, ..self }
    }

    /// What was changed, in order.
    #[must_use]
    pub fn commit(self) -> Vec<Change> {
        self.changes
    }

    /// Takes everything back.
    pub fn rollback(mut self) {
        if planted!(self.stamp.planted, KeepFailedMulti) {
            return;
        }
        while let Some(undo) = self.undo.pop() {
            self.take_back(undo);
        }
    }

    /// create and create2: the path with its sequence number, and the new node's Stat. The checks
    /// come in ZooKeeper's order, since the first one that fails is the answer.
    ///
    /// # Errors
    /// `BadArguments` (flags, a TTL node without its time, path, a quota too deep), `InvalidAcl` (also for too much of them
    /// in one transaction), `NoNode` (parent), `NoAuth` (to create there), `NodeExists`,
    /// `NoChildrenForEphemerals`, `QuotaExceeded`.
    pub fn create(
        &mut self,
        owner: SessionId,
        request: &CreateRequest,
    ) -> Result<(Arc<str>, Stat), ErrorCode> {
        let mode = CreateMode::from_code(request.flags).ok_or(ErrorCode::BadArguments)?;
        let ephemeral_owner = match mode {
            CreateMode::Persistent | CreateMode::PersistentSequential => SessionId::NONE,
            CreateMode::Ephemeral | CreateMode::EphemeralSequential => owner,
            CreateMode::Container => CONTAINER,
            CreateMode::PersistentTtl | CreateMode::PersistentSequentialTtl => {
                return Err(ErrorCode::BadArguments);
            }
        };
        self.create_owned((mode, ephemeral_owner), request)
    }

    /// createTTL: a node that goes when it was not written for its time and has no children.
    ///
    /// # Errors
    /// As `create`; `BadArguments` for a time that is not within 1 ms and 2^40 - 1 ms.
    pub fn create_ttl(
        &mut self,
        request: &CreateTtlRequest,
    ) -> Result<(Arc<str>, Stat), ErrorCode> {
        let CreateTtlRequest { path, data, acl, flags, ttl_ms } = request.clone();
        let mode = CreateMode::from_code(flags).ok_or(ErrorCode::BadArguments)?;
        let has_time =
            matches!(mode, CreateMode::PersistentTtl | CreateMode::PersistentSequentialTtl);
        let mark = ttl_mark(ttl_ms).filter(|_| has_time).ok_or(ErrorCode::BadArguments)?;
        self.create_owned((mode, mark), &CreateRequest { path, data, acl, flags })
    }

    /// Removes a container or TTL node that nothing keeps any more, at the stamp's time.
    ///
    /// # Errors
    /// `NoNode`; `BadVersion` when it stays.
    pub fn remove_due(&mut self, path: &str) -> Result<(), ErrorCode> {
        self.tree.nodes.get(path).ok_or(ErrorCode::NoNode)?;
        if !self.tree.is_due(path, self.stamp.wall_ms) {
            return Err(ErrorCode::BadVersion);
        }
        self.detach(path);
        Ok(())
    }

    fn create_owned(
        &mut self,
        (mode, ephemeral_owner): (CreateMode, SessionId),
        request: &CreateRequest,
    ) -> Result<(Arc<str>, Stat), ErrorCode> {
        let parent_path = parent_of_request(&request.path)?;
        let acl = access::resolve(&request.acl, self.identities)?;
        let (above, family) = self.tree.nodes.with_family(parent_path).ok_or(ErrorCode::NoNode)?;
        if parent_path == CONFIG_PATH {
            return Err(ErrorCode::NoAuth);
        }
        self.demand(Permissions::CREATE, above.acl())?;
        let parent_numbers = above.node().numbers();
        let suffix = match planted!(self.stamp.planted, ReuseSequenceSuffix) {
            true => family.map_or(0, |family| i32::try_from(family.children.len()).unwrap_or(0)),
            false => parent_numbers.cversion,
        };
        let path: Arc<str> = if mode.is_sequential() {
            format!("{}{suffix:010}", request.path).into()
        } else {
            request.path.as_str().into()
        };
        validate_path(&path)?;
        if quota::is_too_deep(&path) {
            return Err(ErrorCode::BadArguments);
        }
        if self.tree.contains(&path) {
            return Err(ErrorCode::NodeExists);
        }
        if parent_numbers.is_ephemeral() {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let bytes = request.data.as_ref().map_or(0, Bytes::len) as u64;
        self.demand_room(&path, Usage { count: 1, bytes })?;
        let acl = self.add_acl(acl)?;
        let stamp = &self.stamp;
        let numbers = NodeNumbers::new(stamp.zxid, stamp.wall_ms, ephemeral_owner);
        let node = Node::new(&path, request.data.as_deref(), acl, &numbers);
        let stat = self.attach(path.clone(), node, request.data.clone());
        Ok((path, stat))
    }

    /// delete
    ///
    /// # Errors
    /// `BadArguments` (path, system node), `NoAuth` (to delete there), `NoNode`, `BadVersion`,
    /// `NotEmpty`. Who may not delete there is not told what is there.
    pub fn delete(&mut self, path: &str, version: i32) -> Result<(), ErrorCode> {
        let parent_path = parent_of_request(path)?;
        if is_system(path) {
            return Err(ErrorCode::BadArguments);
        }
        let above = self.tree.nodes.get(parent_path).ok_or(ErrorCode::NoNode)?;
        self.demand(Permissions::DELETE, above.acl())?;
        let (view, family) = self.tree.nodes.with_family(path).ok_or(ErrorCode::NoNode)?;
        expect_version(version, view.node().numbers().version)?;
        if family.is_some() {
            return Err(ErrorCode::NotEmpty);
        }
        self.detach(path);
        Ok(())
    }

    /// setData: the Stat after it.
    ///
    /// # Errors
    /// `BadArguments` (path), `NoNode`, `NoAuth`, `QuotaExceeded`, `BadVersion`.
    pub fn set_data(
        &mut self,
        path: &str,
        data: Option<Bytes>,
        version: i32,
    ) -> Result<Stat, ErrorCode> {
        validate_path(path)?;
        let node = self.tree.nodes.get(path).ok_or(ErrorCode::NoNode)?;
        if path == CONFIG_PATH {
            return Err(ErrorCode::NoAuth);
        }
        self.demand(Permissions::WRITE, node.acl())?;
        let length = data.as_ref().map_or(0, Bytes::len);
        let bytes = length.saturating_sub(node.data_bytes()) as u64;
        self.demand_room(path, Usage { count: 0, bytes })?;
        let numbers = node.numbers();
        expect_version(version, numbers.version)?;
        let written = Node::new(
            path,
            data.as_deref(),
            node.acl().clone(),
            &NodeNumbers {
                mzxid: self.stamp.zxid,
                mtime_ms: self.stamp.wall_ms,
                version: next_version(numbers.version),
                ..numbers
            },
        );
        Ok(self.replace(written, (ChangeKind::DataChanged, data)))
    }

    /// The servers' own write of `/zookeeper/config`: the Stat after it. Its version stays -1, as in ZooKeeper.
    pub fn write_config(&mut self, data: Bytes) -> Stat {
        let Some(node) = self.tree.nodes.get(CONFIG_PATH) else { return Stat::default() };
        let numbers = NodeNumbers {
            mzxid: self.stamp.zxid,
            mtime_ms: self.stamp.wall_ms,
            version: -1,
            ..node.numbers()
        };
        let written = Node::new(CONFIG_PATH, Some(&data), node.acl().clone(), &numbers);
        self.replace(written, (ChangeKind::DataChanged, Some(data)))
    }

    /// setACL: the Stat after it.
    ///
    /// # Errors
    /// `BadArguments` (path), `InvalidAcl` (also for too much in one transaction), `NoNode`, `NoAuth`,
    /// `BadVersion` (of the list).
    pub fn set_acl(&mut self, request: &SetAclRequest) -> Result<Stat, ErrorCode> {
        let path = request.path.as_str();
        validate_path(path)?;
        let acl = access::resolve(&request.acl, self.identities)?;
        let node = self.tree.nodes.get(path).ok_or(ErrorCode::NoNode)?.to_node();
        let node = node.as_ref();
        let numbers = node.numbers();
        self.demand(Permissions::ADMIN, node.acl())?;
        expect_version(request.version, numbers.aversion)?;
        let acl = self.add_acl(acl)?;
        let numbers = NodeNumbers { aversion: next_version(numbers.aversion), ..numbers };
        let listed = node.with_acl(acl, &numbers);
        Ok(self.replace(listed, (ChangeKind::AclChanged, None)))
    }

    /// check: the Stat of the node at this version.
    ///
    /// # Errors
    /// `BadArguments` (path), `NoNode`, `NoAuth` (to read it), `BadVersion`.
    pub fn check(&self, path: &str, version: i32) -> Result<Stat, ErrorCode> {
        validate_path(path)?;
        let view = self.tree.nodes.view(path).ok_or(ErrorCode::NoNode)?;
        self.demand(Permissions::READ, view.acl())?;
        let stat = view.stat();
        expect_version(version, stat.version)?;
        Ok(stat)
    }

    /// Removes everything that `session` owns, in ascending order of paths.
    pub fn delete_ephemerals(&mut self, session: SessionId) {
        let paths: Vec<Arc<str>> = self.tree.ephemerals_of(session).cloned().collect();
        for path in paths {
            self.detach(&path);
        }
    }

    /// The list for a node, shared if possible.
    ///
    /// # Errors
    /// `InvalidAcl`: this transaction adds too much of them.
    fn add_acl(&mut self, acl: Vec<Acl>) -> Result<Arc<[Acl]>, ErrorCode> {
        if let Some(last) = self.last_acl.as_ref().filter(|last| ***last == *acl) {
            return Ok(last.clone());
        }
        let bytes = |entry: &Acl| entry.scheme.len() + entry.id.len() + ACL_ENTRY_BYTES;
        self.added_acl_bytes += acl.iter().map(bytes).sum::<usize>();
        if self.added_acl_bytes > ADDED_ACL_BYTES_MAX {
            return Err(ErrorCode::InvalidAcl);
        }
        let shared = self.tree.share_acl(acl);
        self.last_acl = Some(shared.clone());
        Ok(shared)
    }

    fn demand_room(&self, path: &str, more: Usage) -> Result<(), ErrorCode> {
        if self.tree.has_room(path, more) { Ok(()) } else { Err(ErrorCode::QuotaExceeded) }
    }

    fn demand(&self, permission: i32, acl: &[Acl]) -> Result<(), ErrorCode> {
        let allowed = access::is_allowed(acl, permission, self.identities);
        if allowed { Ok(()) } else { Err(ErrorCode::NoAuth) }
    }

    /// The new node's Stat.
    fn attach(&mut self, path: Arc<str>, node: Node, data: Option<Bytes>) -> Stat {
        let (stat, acl) = (node.as_ref().stat(0), node.as_ref().acl().clone());
        self.tree.attach(node.as_ref());
        let zxid = self.stamp.zxid;
        let parent = self.renumber_parent(&path, |numbers| {
            numbers.cversion = numbers.cversion.wrapping_add(1);
            numbers.pzxid = zxid;
        });
        let (kind, parent_acl) = (ChangeKind::Created, parent.as_ref().acl().clone());
        let parent = parent.as_ref().numbers();
        self.undo.push(Undo::Create { path: path.clone(), parent });
        self.changes.push(Change { zxid, path, kind, data, acl, parent_acl, stat });
        stat
    }

    fn detach(&mut self, path: &str) {
        let node = self.tree.detach(path);
        let (stat, acl) = (node.as_ref().stat(0), node.as_ref().acl().clone());
        let zxid = self.stamp.zxid;
        let keeps = planted!(self.stamp.planted, DeleteBehindParent);
        let parent = self.renumber_parent(path, |numbers| {
            numbers.pzxid = if keeps { numbers.pzxid } else { zxid };
        });
        let (kind, parent_acl) = (ChangeKind::Deleted, parent.as_ref().acl().clone());
        self.undo.push(Undo::Delete { node, parent: parent.as_ref().numbers() });
        let path = path.into();
        self.changes.push(Change { zxid, path, kind, data: None, acl, parent_acl, stat });
    }

    /// Puts a node in the place of the one that is there: its Stat.
    fn replace(&mut self, node: Node, (kind, data): (ChangeKind, Option<Bytes>)) -> Stat {
        let node = node.as_ref();
        let (path, acl): (Arc<str>, _) = (node.path().into(), node.acl().clone());
        let former = self.tree.replace(node);
        self.undo.push(Undo::Replace(former));
        let stat = self.tree.nodes.view(&path).expect("it was just put there").stat();
        let above = parent(&path).and_then(|above| self.tree.nodes.get(above));
        let parent_acl = above.map_or_else(|| acl.clone(), |above| above.acl().clone());
        let zxid = self.stamp.zxid;
        self.changes.push(Change { zxid, path, kind, data, acl, parent_acl, stat });
        stat
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Create { path, parent } => {
                self.tree.detach(&path);
                self.renumber_parent(&path, |numbers| *numbers = parent);
            }
            Undo::Delete { node, parent } => {
                self.tree.attach(node.as_ref());
                self.renumber_parent(node.as_ref().path(), |numbers| *numbers = parent);
            }
            Undo::Replace(former) => {
                self.tree.replace(former.as_ref());
            }
        }
    }

    /// Gives the parent of `path` other numbers, and returns it as it was.
    fn renumber_parent(&mut self, path: &str, change: impl FnOnce(&mut NodeNumbers)) -> Node {
        let above = parent(path).and_then(|above| self.tree.nodes.get(above));
        let above = above.expect("only the root has no parent, and it is never created or deleted");
        let mut numbers = above.numbers();
        change(&mut numbers);
        let renumbered = above.with_numbers(&numbers);
        self.tree.replace(renumbered.as_ref())
    }
}

/// The parent that a create or delete names: the part before the last `/`, which may end the path
/// when a sequence number is still to come.
fn parent_of_request(path: &str) -> Result<&str, ErrorCode> {
    let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    Ok(if slash == 0 { "/" } else { &path[..slash] })
}

fn expect_version(expected: i32, found: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == found { Ok(()) } else { Err(ErrorCode::BadVersion) }
}

/// Versions wrap, and leave out -1, which means "any".
fn next_version(version: i32) -> i32 {
    match version.wrapping_add(1) {
        -1 => 0,
        next => next,
    }
}
