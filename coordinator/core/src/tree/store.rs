//! All znodes, by path.
//!
//! Called by: `state` (reads, and writes through `transaction`), `subscription` (walks).
//! Calls: `node`.
//! Invariant: every node but the root has a parent whose `children` name it; `ephemerals` lists
//! exactly the nodes with an owner; ephemeral nodes have no children.
//! It does not know sessions beyond their ids, nor the log.
//!
//! Paths are allocated once and shared by the index, the parent's children and every change that
//! names them. The index is only looked up, never iterated: its order means nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, Permissions, SessionId, Zxid};

use super::children::{self, Children};
use super::index::Index;
use super::node::{Node, NodeView};
use super::path::parent;
use super::quota::{self, Quotas, Usage};

/// Access lists remembered for sharing: few differ, and those that do come in runs.
const SHARED_ACLS_MAX: usize = 16;

/// Where the ensemble's membership is read; nobody writes it through the tree.
pub(crate) const CONFIG_PATH: &str = "/zookeeper/config";

/// Nodes that exist from the start and cannot be deleted.
const SYSTEM_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", CONFIG_PATH];

/// The znodes.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) nodes: Index,
    pub(super) ephemerals: BTreeMap<SessionId, BTreeSet<Arc<str>>>,
    /// Containers and TTL nodes.
    going: BTreeSet<Arc<str>>,
    /// Bytes of all paths and data.
    pub(super) bytes: u64,
    shared_acls: VecDeque<Arc<[Acl]>>,
    pub(super) quotas: Quotas,
}

/// How far to look for nodes that are due to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Nodes looked at.
    pub count_max: usize,
    /// Nodes found.
    pub due_max: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// In ascending order.
    pub paths: Vec<Arc<str>>,
    /// Where the look ended before there was nothing left.
    pub go_on_behind: Option<Arc<str>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// The tree of a new ensemble: `/`, `/zookeeper`, `/zookeeper/quota` and `/zookeeper/config`.
    #[must_use]
    pub fn new() -> Self {
        let mut tree = Self::empty();
        for path in SYSTEM_PATHS {
            let read_only = path == CONFIG_PATH;
            let mut acl = Acl::open();
            if read_only {
                acl.iter_mut().for_each(|entry| entry.permissions = Permissions::READ);
            }
            let node = Node {
                data: Some(Bytes::new()),
                acl: tree.share_acl(acl),
                children: Children::default(),
                czxid: Zxid::ZERO,
                mzxid: Zxid::ZERO,
                pzxid: Zxid::ZERO,
                ctime_ms: 0,
                mtime_ms: 0,
                version: 0,
                cversion: 0,
                // ZooKeeper sets this list with version -1 when it makes the node.
                aversion: if read_only { -1 } else { 0 },
                ephemeral_owner: SessionId::NONE,
            };
            tree.attach(Arc::from(path), Arc::new(node));
        }
        tree
    }

    /// Leaves no text of the servers' in `/zookeeper/config`, for those that go on without what it tells of.
    pub fn clear_config(&mut self) {
        if let Some((path, _)) = self.nodes.get_key_value(CONFIG_PATH) {
            let path = path.clone();
            self.replace_data(&path, Some(Bytes::new()));
        }
    }

    /// The node at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<NodeView<'_>> {
        self.nodes.get(path).map(NodeView::new)
    }

    /// Whether there is a node at `path`.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// Names of the children of `path` in ascending order, or nothing when it does not exist.
    #[must_use]
    pub fn children(&self, path: &str) -> Option<Names<'_>> {
        let node = self.nodes.get(path)?;
        let prefix_bytes = if path == "/" { 1 } else { path.len() + 1 };
        Some(Names { paths: node.children.iter(), prefix_bytes })
    }

    /// The same, of those behind the name `after` only, and that begin with `prefix`.
    pub fn children_page(
        &self,
        path: &str,
        after: &str,
        prefix: &str,
    ) -> Option<impl Iterator<Item = &str>> {
        let node = self.nodes.get(path)?;
        let prefix_bytes = if path == "/" { 1 } else { path.len() + 1 };
        let (start, counts) = if after < prefix { (prefix, true) } else { (after, false) };
        let top = if path == "/" { "" } else { path };
        let paths = node.children.iter_from(&format!("{top}/{start}"), counts);
        let prefix = prefix.to_owned();
        Some(Names { paths, prefix_bytes }.take_while(move |name| name.starts_with(&prefix)))
    }

    /// `path`'s node and all below it, each after its parent, children in ascending order; empty
    /// when `path` does not exist.
    #[must_use]
    pub fn subtree(&self, path: &str) -> Subtree<'_> {
        let top = self.nodes.get_key_value(path).map(|(path, _)| path);
        Subtree { nodes: &self.nodes, top, below: Vec::new() }
    }

    /// All nodes as of now. Takes the same short time however many there are.
    #[must_use]
    pub fn freeze(&self) -> FrozenTree {
        FrozenTree { nodes: self.nodes.clone(), bytes: self.bytes }
    }

    /// How many nodes there are below `path`, or nothing when it does not exist.
    #[must_use]
    pub fn descendant_count(&self, path: &str) -> Option<usize> {
        let node = self.nodes.get(path)?;
        if quota::is_counted(path) {
            return usize::try_from(node.children.below().count).ok();
        }
        Some(self.subtree(path).count() - 1)
    }

    /// Ephemerals of `session` in ascending order of their paths.
    pub fn ephemerals_of(&self, session: SessionId) -> impl Iterator<Item = &Arc<str>> {
        self.ephemerals.get(&session).into_iter().flatten()
    }

    /// Sessions that own ephemerals, with their number, in ascending order of ids.
    pub fn ephemeral_owners(&self) -> impl Iterator<Item = (SessionId, usize)> {
        self.ephemerals.iter().map(|(session, paths)| (*session, paths.len()))
    }

    /// Looks at the containers and TTL nodes behind `after`, at most `look.count_max` of them, for those that
    /// nothing keeps any more, at most `look.due_max`; with them the path to go on behind, or nothing when there
    /// is none left to look at.
    #[must_use]
    pub fn due_to_go(&self, wall_ms: i64, after: Option<&str>, look: Look) -> Due {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut due = Vec::new();
        let range = self.going.range::<str, _>((start, Bound::Unbounded));
        for (count, path) in (1..).zip(range) {
            if self.nodes.get(path).is_some_and(|node| node.is_due(wall_ms)) {
                due.push(path.clone());
            }
            if count >= look.count_max || due.len() >= look.due_max {
                return Due { paths: due, go_on_behind: Some(path.clone()) };
            }
        }
        Due { paths: due, go_on_behind: None }
    }

    /// What there is at and below the path whose usage the node at `path` shows; nothing if it shows none.
    #[must_use]
    pub fn quota_usage(&self, path: &str) -> Option<Usage> {
        let limited = quota::counted_by(path)?;
        self.quotas.get(limited).map(|_| self.usage_at(limited))
    }

    /// Whether `path` may get so much more.
    pub(super) fn has_room(&self, path: &str, more: Usage) -> bool {
        if self.quotas.is_empty() {
            return true;
        }
        quota::counted_above(path).chain([path]).all(|limited| {
            let limits = self.quotas.get(limited);
            limits.is_none_or(|limits| limits.allow(self.usage_at(limited), more))
        })
    }

    /// The node at `path`, of the upper levels, and what lies below it.
    fn usage_at(&self, path: &str) -> Usage {
        let node = self.nodes.get(path);
        node.map_or(Usage::default(), |node| usage_of(node).plus(node.children.below()))
    }

    /// Nodes, the root included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Ephemeral nodes.
    #[must_use]
    pub fn ephemeral_count(&self) -> usize {
        self.ephemerals.values().map(BTreeSet::len).sum()
    }

    /// Bytes of all paths and data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Asserts what always holds. Walks the whole tree.
    pub fn check(&self) {
        let (mut count, mut bytes, mut ephemeral_count, mut going_count) = (0, 0, 0, 0);
        let mut sums: BTreeMap<&str, Usage> = BTreeMap::new();
        for (path, view) in self.subtree("/") {
            let node = view.node();
            for above in quota::counted_above(path) {
                let sum = sums.entry(above).or_default();
                *sum = sum.plus(usage_of(node));
            }
            count += 1;
            bytes += size_of(path, node);
            node.children.check();
            for child in &node.children {
                assert_eq!(parent(child), Some(&**path), "{child} is listed under {path}");
                assert!(self.contains(child), "{child} is listed but missing");
            }
            assert!(node.czxid <= node.mzxid, "{path}: {} > {}", node.czxid, node.mzxid);
            assert!(node.czxid <= node.pzxid, "{path}: {} > {}", node.czxid, node.pzxid);
            if node.goes_by_itself() {
                going_count += 1;
                assert!(self.going.contains(path), "{path} would never go");
            }
            if node.is_ephemeral() {
                ephemeral_count += 1;
                assert!(node.children.is_empty(), "ephemeral {path} has children");
                let owned = self.ephemerals.get(&node.ephemeral_owner);
                assert!(owned.is_some_and(|paths| paths.contains(path)), "{path} has no owner");
            }
        }
        assert_eq!(count, self.nodes.len(), "nodes that the root does not reach");
        assert_eq!(bytes, self.bytes, "bytes counted");
        assert_eq!(going_count, self.going.len(), "containers and TTL nodes listed");
        assert_eq!(ephemeral_count, self.ephemeral_count(), "ephemerals listed");
        assert!(self.ephemerals.values().all(|paths| !paths.is_empty()), "an owner of nothing");
        assert!(self.shared_acls.len() <= SHARED_ACLS_MAX);
        for (path, view) in self.subtree("/").filter(|(path, _)| quota::is_counted(path)) {
            let below = sums.get(&**path).copied().unwrap_or_default();
            assert_eq!(view.node().children.below(), below, "what is below {path}");
        }
        assert!(SYSTEM_PATHS.iter().all(|path| self.contains(path)), "a system node is missing");
    }

    /// No nodes at all, for a snapshot to fill.
    pub(super) fn empty() -> Self {
        Self {
            nodes: Index::default(),
            ephemerals: BTreeMap::new(),
            going: BTreeSet::new(),
            bytes: 0,
            shared_acls: VecDeque::new(),
            quotas: Quotas::default(),
        }
    }

    /// Puts a node in its place. The parent's own numbers are the caller's matter.
    pub(super) fn attach(&mut self, path: Arc<str>, node: Arc<Node>) {
        self.bytes += size_of(&path, &node);
        let usage = usage_of(&node);
        if node.is_ephemeral() {
            self.ephemerals.entry(node.ephemeral_owner).or_default().insert(path.clone());
        }
        if node.goes_by_itself() {
            self.going.insert(path.clone());
        }
        if let Some(above) = parent(&path).and_then(|above| self.nodes.get_mut(above)) {
            above.children.insert(path.clone());
        }
        let is_new = self.nodes.insert(path.clone(), node);
        assert!(is_new, "a node was attached over another");
        self.count_above(&path, |below| below.plus(usage));
        self.heed_limits(&path);
    }

    /// Takes a node without children out. The parent's own numbers are the caller's matter.
    pub(super) fn detach(&mut self, path: &str) -> (Arc<str>, Arc<Node>) {
        let (path, node) = self.nodes.remove_entry(path).expect("the caller found the node");
        assert!(node.children.is_empty(), "{path} was detached from its children");
        self.bytes -= size_of(&path, &node);
        self.count_above(&path, |below| below.minus(usage_of(&node)));
        self.heed_limits(&path);
        if let Some(above) = parent(&path).and_then(|above| self.nodes.get_mut(above)) {
            above.children.remove(&path);
        }
        self.going.remove(&path);
        if let Some(owned) = self.ephemerals.get_mut(&node.ephemeral_owner) {
            owned.remove(&path);
            if owned.is_empty() {
                self.ephemerals.remove(&node.ephemeral_owner);
            }
        }
        (path, node)
    }

    /// Exchanges the data of the node at `path`, which exists, and returns what was there.
    pub(super) fn replace_data(&mut self, path: &str, data: Option<Bytes>) -> Option<Bytes> {
        let node = self.nodes.get_mut(path).expect("the caller found the node");
        let before = usage_of(node);
        self.bytes += data.as_ref().map_or(0, Bytes::len) as u64;
        let former = std::mem::replace(&mut node.data, data);
        self.bytes -= former.as_ref().map_or(0, Bytes::len) as u64;
        let after = usage_of(node);
        if before != after {
            self.count_above(path, |below| below.minus(before).plus(after));
        }
        self.heed_limits(path);
        former
    }

    /// What lies below the nodes above `path` changes.
    fn count_above(&mut self, path: &str, change: impl Fn(Usage) -> Usage) {
        for above in quota::counted_above(path) {
            if let Some(node) = self.nodes.get_mut(above) {
                node.children.set_below(change(node.children.below()));
            }
        }
    }

    /// The node at `path` came, went or changed: if it holds limits, they count from now on.
    fn heed_limits(&mut self, path: &str) {
        let Some(limited) = quota::limited_by(path) else { return };
        let Some(node) = self.nodes.get(path) else { return self.quotas.remove(limited) };
        let limits = quota::parse_limits(node.data.as_deref().unwrap_or_default());
        self.quotas.set(limited, limits);
    }

    /// The list, shared with other nodes if one of them was given the same lately.
    pub(super) fn share_acl(&mut self, acl: Vec<Acl>) -> Arc<[Acl]> {
        if let Some(shared) = self.shared_acls.iter().find(|shared| ***shared == *acl) {
            return shared.clone();
        }
        if self.shared_acls.len() == SHARED_ACLS_MAX {
            self.shared_acls.pop_back();
        }
        let shared: Arc<[Acl]> = acl.into();
        self.shared_acls.push_front(shared.clone());
        shared
    }
}

/// What a node counts for in quotas.
fn usage_of(node: &Node) -> Usage {
    Usage { count: 1, bytes: node.data.as_ref().map_or(0, Bytes::len) as u64 }
}

/// Whether a node may never be deleted.
pub(super) fn is_system(path: &str) -> bool {
    SYSTEM_PATHS.contains(&path)
}

/// What a node counts for in `Tree::bytes`.
fn size_of(path: &str, node: &Node) -> u64 {
    (path.len() + node.data.as_ref().map_or(0, Bytes::len)) as u64
}

/// Equal when they hold the same nodes; what is remembered for sharing does not count.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.ephemerals == other.ephemerals
    }
}

impl Eq for Tree {}

/// All nodes as of one moment; shares with the tree what was not changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenTree {
    nodes: Index,
    bytes: u64,
}

impl FrozenTree {
    /// All nodes, each after its parent.
    pub(super) fn nodes(&self) -> Subtree<'_> {
        let top = self.nodes.get_key_value("/").map(|(path, _)| path);
        Subtree { nodes: &self.nodes, top, below: Vec::new() }
    }

    /// How many nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of all paths and data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Names of a node's children, ascending.
#[derive(Clone, Debug)]
pub struct Names<'a> {
    paths: children::Iter<'a>,
    prefix_bytes: usize,
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let path = self.paths.next()?;
        Some(path.get(self.prefix_bytes..).expect("a child's path is longer than its parent's"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.paths.size_hint()
    }
}

impl ExactSizeIterator for Names<'_> {}

/// A node and everything below it, each after its parent.
#[derive(Clone, Debug)]
pub struct Subtree<'a> {
    nodes: &'a Index,
    top: Option<&'a Arc<str>>,
    /// One iterator for each level of the path to the last node; bounded by the tree's depth.
    below: Vec<children::Iter<'a>>,
}

impl<'a> Iterator for Subtree<'a> {
    type Item = (&'a Arc<str>, NodeView<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let path = match self.top.take() {
            Some(top) => top,
            None => loop {
                match self.below.last_mut()?.next() {
                    Some(path) => break path,
                    None => self.below.pop(),
                };
            },
        };
        let node = self.nodes.get(path).expect("a listed child exists");
        if !node.children.is_empty() {
            self.below.push(node.children.iter());
        }
        Some((path, NodeView::new(node)))
    }
}
