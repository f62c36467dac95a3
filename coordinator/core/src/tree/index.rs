//! All nodes by path, for looking up.
//!
//! Called by: `store`, `transaction`, `record`. Calls: nothing.
//! Invariant: a clone keeps what was there when it was made.
//! It does not know parents and children.
//!
//! Nodes lie in shards, by a hash of their path. A clone shares the shards and the nodes, so that it takes
//! the same short time for any number of nodes; whoever changes a node after that copies its shard, once,
//! and the node. Nothing is iterated: the order means nothing.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::node::Node;

/// A million nodes make a thousand in each.
const SHARD_BITS: u32 = 10;

/// Looked up only; hashes the same way on every server.
type Shard = HashMap<Arc<str>, Arc<Node>, BuildHasherDefault<DefaultHasher>>;

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    shards: Vec<Arc<Shard>>,
    count: usize,
}

impl Default for Index {
    fn default() -> Self {
        let none = Arc::new(Shard::default());
        Self { shards: vec![none; 1 << SHARD_BITS], count: 0 }
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
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        self.shards[shard_of(path)].get(path).map(|node| &**node)
    }

    /// The same, with its path as it is shared.
    pub(super) fn get_key_value(&self, path: &str) -> Option<(&Arc<str>, &Node)> {
        self.shards[shard_of(path)].get_key_value(path).map(|(path, node)| (path, &**node))
    }

    /// Whether there is a node at `path`.
    pub(super) fn contains_key(&self, path: &str) -> bool {
        self.shards[shard_of(path)].contains_key(path)
    }

    /// The node at `path`, to be changed.
    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        let shard = &mut self.shards[shard_of(path)];
        // A path that is not there copies nothing.
        shard.contains_key(path).then_some(())?;
        Arc::make_mut(shard).get_mut(path).map(Arc::make_mut)
    }

    /// Adds a node; false if there is one already.
    pub(super) fn insert(&mut self, path: Arc<str>, node: Arc<Node>) -> bool {
        let shard = Arc::make_mut(&mut self.shards[shard_of(&path)]);
        let is_new = shard.insert(path, node).is_none();
        self.count += usize::from(is_new);
        is_new
    }

    /// Takes a node out.
    pub(super) fn remove_entry(&mut self, path: &str) -> Option<(Arc<str>, Arc<Node>)> {
        let shard = &mut self.shards[shard_of(path)];
        shard.contains_key(path).then_some(())?;
        let removed = Arc::make_mut(shard).remove_entry(path)?;
        self.count -= 1;
        Some(removed)
    }
}

/// By the whole path: any part of it may be the same in all nodes of a kind. FNV-1a, eight bytes at a time, mixed
/// once more because the highest bits choose.
fn shard_of(path: &str) -> usize {
    let fold = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = path.as_bytes().as_chunks::<8>();
    let hash = words.iter().map(|word| u64::from_le_bytes(*word)).fold(
        0xcbf2_9ce4_8422_2325,
        |hash, word| {
            let hash = fold(hash, word);
            hash ^ (hash >> 29)
        },
    );
    let hash = rest.iter().fold(hash, |hash, byte| fold(hash, u64::from(*byte)));
    let shard = (hash ^ (hash >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - SHARD_BITS);
    usize::try_from(shard).expect("fewer bits than a pointer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_spread(name: impl Fn(u32) -> String) {
        let mut counts = vec![0; 1 << SHARD_BITS];
        (0..100_000).for_each(|number| counts[shard_of(&name(number))] += 1);
        let most = counts.iter().max().unwrap();
        assert!(*most < 250, "{}: a shard has {most} of 100,000", name(0));
    }

    #[test]
    fn names_that_count_up_are_spread() {
        assert_spread(|number| format!("/bench/node-{number:010}"));
        assert_spread(|number| format!("/{number}"));
        assert_spread(|number| format!("/brokers/topics/t{number}"));
        assert_spread(|number| format!("/brokers/topics/t{number}/partitions"));
        assert_spread(|number| format!("/brokers/topics/t{number}/partitions/0"));
        assert_spread(|number| format!("/brokers/topics/t{number}/partitions/0/state"));
        assert_spread(|number| format!("/brokers/topics/one/partitions/{number}/state"));
        assert_spread(|number| format!("/locks/{number}/lock"));
        assert_eq!(shard_of("/"), shard_of("/"));
    }
}
