//! All nodes by path, and the families: who has children, and what is below.
//!
//! Called by: `store`, `transaction`, `record`. Calls: `node`, `children`.
//! Invariant: a clone keeps what was there when it was made; a family is there as long as it has children.
//!
//! Nodes lie in blocks, and in shards of a block, by a hash of their path. A clone shares the blocks, so that it takes
//! the same short time for any number of nodes; whoever changes a node after that copies the block's list of shards and
//! one shard, once. The more nodes a block has, the more shards, so that a shard stays small. The order of a shard's nodes
//! means nothing.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use hashbrown::HashTable;

use super::children::Children;
use super::node::{Node, NodeRef, NodeView};
use super::quota::Usage;
use super::shard::Nodes;

/// A power of two.
const BLOCKS: usize = 1 << 10;
/// A block whose shards have more nodes than that, on average, gets twice as many of them.
const SHARD_NODES_MAX: usize = 48;
/// More shards than that a block never has: there are places in a hash for no more.
const SHARDS_MAX: usize = 1 << 12;

/// All nodes.
#[derive(Clone, Debug)]
pub(super) struct Index {
    blocks: Vec<Arc<Block>>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Block {
    /// A power of two.
    shards: Vec<Arc<Shard>>,
    count: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    nodes: Nodes,
    families: HashTable<Arc<Family>>,
}

/// What a node with children has beside itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    path: Box<str>,
    pub(super) children: Children,
    /// Of all nodes below, not only of the children; kept for the upper levels of the tree only.
    pub(super) below: Usage,
}

impl Default for Index {
    fn default() -> Self {
        let none = Arc::new(Block { shards: vec![Arc::default()], count: 0 });
        Self { blocks: vec![none; BLOCKS], count: 0 }
    }
}

impl Index {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The node at `path`.
    pub(super) fn get(&self, path: &str) -> Option<NodeRef<'_>> {
        let hash = hash_of(path.as_bytes());
        self.shard(hash).nodes.get(hash, path)
    }

    /// The same, as readers get it.
    pub(super) fn view(&self, path: &str) -> Option<NodeView<'_>> {
        self.with_family(path).map(|(view, _)| view)
    }

    /// The same, with its family if it has one.
    pub(super) fn with_family(&self, path: &str) -> Option<(NodeView<'_>, Option<&Family>)> {
        let hash = hash_of(path.as_bytes());
        let shard = self.shard(hash);
        let node = shard.nodes.get(hash, path)?;
        let family = shard.family(hash, path);
        let count = family.map_or(0, |family| family.children.len());
        Some((NodeView::new(node, count), family))
    }

    /// Who is below `path`; none when nobody is.
    pub(super) fn family(&self, path: &str) -> Option<&Family> {
        let hash = hash_of(path.as_bytes());
        self.shard(hash).family(hash, path)
    }

    /// Puts a node in its place, and returns what was there.
    pub(super) fn put(&mut self, node: NodeRef<'_>) -> Option<Node> {
        let hash = hash_of(node.path_bytes());
        let block = self.block_mut(hash);
        let former = block.shard_mut(hash).nodes.put(hash, node);
        if former.is_none() {
            block.count += 1;
            block.divide_if_full();
            self.count += 1;
        }
        former
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, path: &str) -> Option<Node> {
        let hash = hash_of(path.as_bytes());
        // A path that is not there copies nothing.
        self.shard(hash).nodes.get(hash, path)?;
        let block = self.block_mut(hash);
        let node = block.shard_mut(hash).nodes.remove(hash, path)?;
        block.count -= 1;
        self.count -= 1;
        Some(node)
    }

    /// Who is below `path`, to be changed; none when nobody is.
    pub(super) fn family_mut(&mut self, path: &str) -> Option<&mut Family> {
        let hash = hash_of(path.as_bytes());
        self.shard(hash).family(hash, path)?;
        let families = &mut self.block_mut(hash).shard_mut(hash).families;
        families.find_mut(hash, |family| *family.path == *path).map(Arc::make_mut)
    }

    /// `path` has a child of this name.
    pub(super) fn add_child(&mut self, path: &str, name: &str) {
        let hash = hash_of(path.as_bytes());
        let families = &mut self.block_mut(hash).shard_mut(hash).families;
        let new = || {
            let (children, below) = (Children::default(), Usage::default());
            Arc::new(Family { path: path.into(), children, below })
        };
        let hasher = |family: &Arc<Family>| hash_of(family.path.as_bytes());
        let entry = families.entry(hash, |family| *family.path == *path, hasher);
        Arc::make_mut(entry.or_insert_with(new).into_mut()).children.insert(name);
    }

    /// `path` has no child of this name any more.
    pub(super) fn remove_child(&mut self, path: &str, name: &str) {
        let Some(family) = self.family_mut(path) else { return };
        family.children.remove(name);
        if !family.children.is_empty() {
            return;
        }
        assert_eq!(family.below, Usage::default(), "something is left below");
        let hash = hash_of(path.as_bytes());
        let families = &mut self.block_mut(hash).shard_mut(hash).families;
        if let Ok(found) = families.find_entry(hash, |family| *family.path == *path) {
            found.remove();
        }
    }

    fn shard(&self, hash: u64) -> &Shard {
        let block = &self.blocks[block_of(hash)];
        &block.shards[block.shard_of(hash)]
    }

    fn block_mut(&mut self, hash: u64) -> &mut Block {
        Arc::make_mut(&mut self.blocks[block_of(hash)])
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.blocks.iter().flat_map(|block| &block.shards).map(|shard| &**shard)
    }
}

/// Equal when they hold the same nodes and families, however they are laid.
impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        let families =
            |index: &Index| index.shards().map(|shard| shard.families.len()).sum::<usize>();
        let has_all = |shard: &Shard| {
            shard.nodes.iter().all(|node| other.get(node.path()) == Some(node))
                && shard.families.iter().all(|held| other.family(&held.path) == Some(held))
        };
        self.count == other.count && families(self) == families(other) && self.shards().all(has_all)
    }
}

impl Eq for Index {}

impl Block {
    fn shard_of(&self, hash: u64) -> usize {
        part(hash, 42) & (self.shards.len() - 1)
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard {
        let at = self.shard_of(hash);
        Arc::make_mut(&mut self.shards[at])
    }

    /// Twice as many shards, if these have too much in them.
    fn divide_if_full(&mut self) {
        let count = self.shards.len();
        if self.count <= count * SHARD_NODES_MAX || count == SHARDS_MAX {
            return;
        }
        let divide = |shard: &Arc<Shard>| Shard {
            nodes: Nodes::for_half_of(&shard.nodes),
            families: HashTable::new(),
        };
        // Those of a shard come to its place and to the one that is so many behind.
        let mut divided: Vec<Shard> = self.shards.iter().chain(&self.shards).map(divide).collect();
        let place = |hash: u64| part(hash, 42) & (2 * count - 1);
        for shard in self.shards.drain(..) {
            for node in shard.nodes.iter() {
                let hash = hash_of(node.path_bytes());
                divided[place(hash)].nodes.add(hash, node);
            }
            for family in &shard.families {
                let hash = hash_of(family.path.as_bytes());
                let hasher = |family: &Arc<Family>| hash_of(family.path.as_bytes());
                divided[place(hash)].families.insert_unique(hash, family.clone(), hasher);
            }
        }
        self.shards = divided.into_iter().map(Arc::new).collect();
    }
}

impl Shard {
    fn family(&self, hash: u64, path: &str) -> Option<&Family> {
        self.families.find(hash, |family| *family.path == *path).map(|family| &**family)
    }
}

fn hash_of(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(path);
    hasher.finish()
}

/// By bits between those that a table takes for itself, which are the lowest and the highest.
fn block_of(hash: u64) -> usize {
    part(hash, 32) & (BLOCKS - 1)
}

/// Bits of a hash from `low` on.
fn part(hash: u64, low: u32) -> usize {
    usize::try_from((hash >> low) & 0xffff).expect("16 bits")
}

#[cfg(test)]
mod tests {
    use coordinator_protocol::{Acl, SessionId, Zxid};

    use super::super::node::NodeNumbers;
    use super::*;

    fn node(path: &str, zxid: i64) -> Node {
        let numbers = NodeNumbers::new(Zxid::new(zxid), 0, SessionId::NONE);
        Node::new(path, None, Acl::open().into(), &numbers)
    }

    fn path(number: u32) -> String {
        format!("/brokers/topics/t{number}/partitions/0/state")
    }

    #[test]
    fn shards_stay_small_and_everything_is_found() {
        let mut index = Index::default();
        for number in 0..100_000 {
            assert_eq!(index.put(node(&path(number), 1).as_ref()), None);
            index.add_child(&path(number % 1_000), "child");
        }
        assert_eq!(index.len(), 100_000);
        let most = index.shards().map(|shard| shard.nodes.len()).max();
        assert!(most < Some(2 * SHARD_NODES_MAX + 20), "{most:?} in a shard");
        assert!((0..100_000).all(|number| index.get(&path(number)).is_some()));
        let (view, family) = index.with_family(&path(999)).unwrap();
        assert_eq!((view.stat().num_children, family.unwrap().children.len()), (1, 1));
        assert_eq!(index.with_family(&path(1_000)).unwrap().1, None);
        assert!(index.get(&path(100_000)).is_none() && index.family("/").is_none());
        for number in 0..100_000 {
            assert_eq!(index.remove(&path(number)).unwrap().as_ref().path(), path(number));
            index.remove_child(&path(number), "child");
        }
        assert!(index.is_empty() && index.remove(&path(1)).is_none());
        assert_eq!(index, Index::default());
    }

    #[test]
    fn clone_keeps_what_was_there() {
        let mut index = Index::default();
        (0..10_000).for_each(|number| assert_eq!(index.put(node(&path(number), 1).as_ref()), None));
        index.add_child("/", "one");
        let frozen = index.clone();
        assert_eq!(frozen, index);
        index.put(node(&path(1), 2).as_ref());
        assert_ne!(frozen, index);
        index.put(node(&path(1), 1).as_ref());
        assert_eq!(frozen, index);
        index.add_child("/", "two");
        assert_ne!(frozen, index);
        index.remove_child("/", "two");
        assert_eq!(frozen, index);
        index.remove(&path(2));
        index.put(node("/new", 1).as_ref());
        assert_ne!(frozen, index);
        assert_eq!(frozen.get(&path(2)), Some(node(&path(2), 1).as_ref()));
        assert!(frozen.get("/new").is_none());
    }

    /// What a change copies after a freeze: a block's list and one shard, nothing else.
    #[test]
    fn change_after_a_clone_copies_one_shard() {
        let mut index = Index::default();
        (0..100_000)
            .for_each(|number| assert_eq!(index.put(node(&path(number), 1).as_ref()), None));
        let frozen = index.clone();
        index.put(node(&path(7), 2).as_ref());
        let differs = |(a, b): (&Arc<Block>, &Arc<Block>)| !Arc::ptr_eq(a, b);
        let blocks: Vec<_> =
            frozen.blocks.iter().zip(&index.blocks).filter(|&pair| differs(pair)).collect();
        let [(former, now)] = blocks[..] else { panic!("{} blocks", blocks.len()) };
        let copied = former.shards.iter().zip(&now.shards).filter(|(a, b)| !Arc::ptr_eq(a, b));
        assert_eq!(copied.count(), 1);
    }
}
