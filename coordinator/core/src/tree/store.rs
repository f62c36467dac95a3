//! All znodes, by path.
//!
//! Called by: `state` (reads, and writes through `transaction`), `subscription` (walks).
//! Calls: `node`.
//! Invariant: every node but the root has a parent whose family names it; `ephemerals` lists
//! exactly the nodes with an owner; ephemeral nodes have no children.
//! It does not know sessions beyond their ids, nor the log.
//!
//! The index is only looked up, never iterated: its order means nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use coordinator_protocol::{Acl, Permissions, SessionId, Zxid};

use super::children;
use super::index::{Family, Index};
use super::node::{Node, NodeNumbers, NodeRef, NodeView};
use super::path::parent;
use super::quota::{self, OverSoftLimit, Quotas, Usage};

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
            let numbers = NodeNumbers {
                // ZooKeeper sets this list with version -1 when it makes the node.
                aversion: if read_only { -1 } else { 0 },
                ..NodeNumbers::new(Zxid::ZERO, 0, SessionId::NONE)
            };
            let acl = tree.share_acl(acl);
            tree.attach(Node::new(path, Some(b""), acl, &numbers).as_ref());
        }
        tree
    }

    /// Leaves no text of the servers' in `/zookeeper/config`, for those that go on without what it tells of.
    pub fn clear_config(&mut self) {
        if let Some(node) = self.nodes.get(CONFIG_PATH) {
            let empty = Node::new(CONFIG_PATH, Some(b""), node.acl().clone(), &node.numbers());
            self.replace(empty.as_ref());
        }
    }

    /// The node at `path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<NodeView<'_>> {
        self.nodes.view(path)
    }

    /// Whether there is a node at `path`.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.get(path).is_some()
    }

    /// Names of the children of `path` in ascending order, or nothing when it does not exist.
    #[must_use]
    pub fn children(&self, path: &str) -> Option<Names<'_>> {
        let (_, family) = self.nodes.with_family(path)?;
        Some(Names(family.map(|family| family.children.iter())))
    }

    /// The same, of those behind the name `after` only, and that begin with `prefix`.
    pub fn children_page(
        &self,
        path: &str,
        after: &str,
        prefix: &str,
    ) -> Option<impl Iterator<Item = &str>> {
        let (_, family) = self.nodes.with_family(path)?;
        let (start, counts) = if after < prefix { (prefix, true) } else { (after, false) };
        let names = Names(family.map(|family| family.children.iter_from(start, counts)));
        let prefix = prefix.to_owned();
        Some(names.take_while(move |name| name.starts_with(&prefix)))
    }

    /// `path`'s node and all below it, each after its parent, children in ascending order; empty
    /// when `path` does not exist.
    #[must_use]
    pub fn subtree(&self, path: &str) -> Subtree<'_> {
        Subtree::new(&self.nodes, path)
    }

    /// All nodes as of now. Takes the same short time however many there are.
    #[must_use]
    pub fn freeze(&self) -> FrozenTree {
        FrozenTree { nodes: self.nodes.clone(), bytes: self.bytes }
    }

    /// How many nodes there are below `path`, or nothing when it does not exist.
    #[must_use]
    pub fn descendant_count(&self, path: &str) -> Option<usize> {
        let (_, family) = self.nodes.with_family(path)?;
        if quota::is_counted(path) {
            return usize::try_from(family.map_or(0, |family| family.below.count)).ok();
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
            if self.is_due(path, wall_ms) {
                due.push(path.clone());
            }
            if count >= look.count_max || due.len() >= look.due_max {
                return Due { paths: due, go_on_behind: Some(path.clone()) };
            }
        }
        Due { paths: due, go_on_behind: None }
    }

    /// Whether the container or TTL node at `path` is kept by nothing any more.
    pub(super) fn is_due(&self, path: &str, wall_ms: i64) -> bool {
        let found = self.nodes.with_family(path);
        found
            .is_some_and(|(view, family)| family.is_none() && view.node().numbers().is_due(wall_ms))
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

    /// A soft limit that what is at `path` has a part in passing, if there is one: of the highest such subtree.
    #[must_use]
    pub fn over_soft_limit(&self, path: &str) -> Option<OverSoftLimit> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut limited = quota::counted_above(path).chain([path]);
        limited.find_map(|top| self.quotas.get(top)?.over_soft(top, self.usage_at(top)))
    }

    /// The node at `path`, of the upper levels, and what lies below it.
    fn usage_at(&self, path: &str) -> Usage {
        let Some((view, family)) = self.nodes.with_family(path) else { return Usage::default() };
        usage_of(view.node()).plus(family.map_or(Usage::default(), |family| family.below))
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
        for view in self.subtree("/") {
            let (path, numbers) = (view.path(), view.node().numbers());
            for above in quota::counted_above(path) {
                let sum = sums.entry(above).or_default();
                *sum = sum.plus(usage_of(view.node()));
            }
            count += 1;
            bytes += size_of(view.node());
            let family = self.nodes.family(path);
            if let Some(family) = family {
                family.children.check();
                assert!(!family.children.is_empty(), "a family of nobody at {path}");
            }
            assert!(numbers.czxid <= numbers.mzxid, "{path}: written before it was created");
            assert!(numbers.czxid <= numbers.pzxid, "{path}: children before it was created");
            if numbers.goes_by_itself() {
                going_count += 1;
                assert!(self.going.contains(path), "{path} would never go");
            }
            if numbers.is_ephemeral() {
                ephemeral_count += 1;
                assert!(family.is_none(), "ephemeral {path} has children");
                let owned = self.ephemerals.get(&numbers.ephemeral_owner);
                assert!(owned.is_some_and(|paths| paths.contains(path)), "{path} has no owner");
            }
        }
        assert_eq!(count, self.nodes.len(), "nodes that the root does not reach");
        assert_eq!(bytes, self.bytes, "bytes counted");
        assert_eq!(going_count, self.going.len(), "containers and TTL nodes listed");
        assert_eq!(ephemeral_count, self.ephemeral_count(), "ephemerals listed");
        assert!(self.ephemerals.values().all(|paths| !paths.is_empty()), "an owner of nothing");
        assert!(self.shared_acls.len() <= SHARED_ACLS_MAX);
        for path in self.subtree("/").map(|view| view.path()).filter(|path| quota::is_counted(path))
        {
            let below = sums.get(path).copied().unwrap_or_default();
            let counted = self.nodes.family(path).map_or(Usage::default(), |family| family.below);
            assert_eq!(counted, below, "what is below {path}");
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

    /// Adds a node. The parent's own numbers are the caller's matter.
    pub(super) fn attach(&mut self, node: NodeRef<'_>) {
        let (path, numbers) = (node.path(), node.numbers());
        self.bytes += size_of(node);
        let usage = usage_of(node);
        if numbers.is_ephemeral() {
            self.ephemerals.entry(numbers.ephemeral_owner).or_default().insert(path.into());
        }
        if numbers.goes_by_itself() {
            self.going.insert(path.into());
        }
        if let Some(above) = parent(path) {
            self.nodes.add_child(above, name_of(path));
        }
        let former = self.nodes.put(node);
        assert!(former.is_none(), "a node was attached over another");
        self.count_above(path, |below| below.plus(usage));
        self.heed_limits(path);
    }

    /// Takes a node without children out. The parent's own numbers are the caller's matter.
    pub(super) fn detach(&mut self, path: &str) -> Node {
        let node = self.nodes.remove(path).expect("the caller found the node");
        assert!(self.nodes.family(path).is_none(), "{path} was detached from its children");
        let numbers = node.as_ref().numbers();
        self.bytes -= size_of(node.as_ref());
        self.count_above(path, |below| below.minus(usage_of(node.as_ref())));
        self.heed_limits(path);
        if let Some(above) = parent(path) {
            self.nodes.remove_child(above, name_of(path));
        }
        self.going.remove(path);
        if let Some(owned) = self.ephemerals.get_mut(&numbers.ephemeral_owner) {
            owned.remove(path);
            if owned.is_empty() {
                self.ephemerals.remove(&numbers.ephemeral_owner);
            }
        }
        node
    }

    /// Puts a node of the same owner in the place of another, and returns that.
    pub(super) fn replace(&mut self, node: NodeRef<'_>) -> Node {
        let former = self.nodes.put(node).expect("the caller found the node");
        self.bytes = self.bytes + size_of(node) - size_of(former.as_ref());
        let (before, after) = (usage_of(former.as_ref()), usage_of(node));
        if before != after {
            self.count_above(node.path(), |below| below.minus(before).plus(after));
        }
        self.heed_limits(node.path());
        former
    }

    /// What lies below the nodes above `path` changes.
    fn count_above(&mut self, path: &str, change: impl Fn(Usage) -> Usage) {
        for above in quota::counted_above(path) {
            if let Some(family) = self.nodes.family_mut(above) {
                family.below = change(family.below);
            }
        }
    }

    /// The node at `path` came, went or changed: if it holds limits, they count from now on.
    fn heed_limits(&mut self, path: &str) {
        let Some(limited) = quota::limited_by(path) else { return };
        let Some(node) = self.nodes.get(path) else { return self.quotas.remove(limited) };
        let limits = quota::parse_limits(node.data().unwrap_or_default());
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
fn usage_of(node: NodeRef<'_>) -> Usage {
    Usage { count: 1, bytes: node.data_bytes() as u64 }
}

/// Whether a node may never be deleted.
pub(super) fn is_system(path: &str) -> bool {
    SYSTEM_PATHS.contains(&path)
}

/// What a node counts for in `Tree::bytes`.
fn size_of(node: NodeRef<'_>) -> u64 {
    (node.path_bytes().len() + node.data_bytes()) as u64
}

/// The last part of a path.
fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
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
        Subtree::new(&self.nodes, "/")
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
pub struct Names<'a>(Option<children::Iter<'a>>);

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0.as_mut()?.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.0.as_ref().map_or(0, ExactSizeIterator::len);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Names<'_> {}

/// A node and everything below it, each after its parent.
#[derive(Clone, Debug)]
pub struct Subtree<'a> {
    nodes: &'a Index,
    /// The path of the node that comes next, as far as it is known.
    path: String,
    is_begun: bool,
    /// How much of the path is the parent's, and its other children, for each level down to the last node; bounded by
    /// the tree's depth.
    below: Vec<(usize, children::Iter<'a>)>,
}

impl<'a> Subtree<'a> {
    fn new(nodes: &'a Index, top: &str) -> Self {
        Self { nodes, path: top.to_owned(), is_begun: false, below: Vec::new() }
    }

    /// Makes `path` that of the next node.
    fn go_on(&mut self) -> Option<()> {
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some(());
        }
        loop {
            let (parent_bytes, names) = self.below.last_mut()?;
            if let Some(name) = names.next() {
                self.path.truncate(*parent_bytes);
                self.path.push('/');
                self.path.push_str(name);
                return Some(());
            }
            self.below.pop();
        }
    }
}

impl<'a> Iterator for Subtree<'a> {
    type Item = NodeView<'a>;

    fn next(&mut self) -> Option<NodeView<'a>> {
        self.go_on()?;
        // Nothing is below a top that is not there.
        let (view, family) = self.nodes.with_family(&self.path)?;
        if let Some(Family { children, .. }) = family {
            let parent_bytes = if self.path == "/" { 0 } else { self.path.len() };
            self.below.push((parent_bytes, children.iter()));
        }
        Some(view)
    }
}
