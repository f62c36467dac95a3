//! A few dozen nodes whose hashes are alike, side by side in one piece of memory.
//!
//! Called by: `index`. Calls: `node`.
//! Invariant: `places` ends ascend, and the last is the length of `texts`; each place's tag is its node's, and what is
//! beside the node is kept, once for all nodes here that share it.
//!
//! ```text
//! places | tag, end, kept | tag, end, kept | ..
//! texts  | text of the first node | text of the second | ..
//! ```
//!
//! Of a node without long data that costs 8 bytes beside its text. A copy takes one move of some kilobytes. A search
//! looks at each tag; there are few. Who chooses paths so that their hashes are alike only fills the crowd, where each
//! is found by its path.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::node::{Beside, Node, NodeRef};

/// Memory for texts and places grows by so many: less means more copies, more means more unused. Pieces whose sizes are
/// multiples of one number take each other's place.
const TEXTS_STEP: usize = 256;
const PLACES_STEP: usize = 8;

/// More nodes than that, several times what a shard has, stand in the crowd.
const PLACES_MAX: usize = 256;

/// The nodes of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    places: Vec<Place>,
    texts: Vec<u8>,
    /// What is beside the texts; `None` is free.
    kept: Vec<Option<Kept>>,
    /// Nodes by their paths, as there were too many; mostly none.
    crowd: Option<Box<Crowd>>,
}

/// By path.
type Crowd = BTreeMap<Box<[u8]>, Arc<Node>>;

/// Of one node.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where its text ends.
    end: u32,
    /// Bits of its hash.
    tag: u16,
    /// What is beside it, in `kept`.
    kept: u16,
}

#[derive(Clone, Debug)]
struct Kept {
    beside: Beside,
    /// How many nodes have it.
    nodes: u32,
}

impl Nodes {
    /// None yet, with room for half of those that another has.
    pub(super) fn for_half_of(other: &Nodes) -> Self {
        let mut half = Self::default();
        grow(&mut half.texts, other.texts.len() / 2, TEXTS_STEP);
        grow(&mut half.places, other.places.len() / 2, PLACES_STEP);
        half
    }

    /// The node at `path`.
    pub(super) fn get(&self, hash: u64, path: &str) -> Option<NodeRef<'_>> {
        let found = self.find(hash, path.as_bytes()).map(|at| self.at(at));
        let in_crowd = || Some(self.crowd.as_ref()?.get(path.as_bytes())?.as_ref().as_ref());
        found.or_else(in_crowd)
    }

    /// Puts a node in its place, and returns what was there.
    pub(super) fn put(&mut self, hash: u64, node: NodeRef<'_>) -> Option<Node> {
        let Some(at) = self.find(hash, node.path_bytes()) else {
            let in_crowd = self.crowd.as_mut().and_then(|crowd| crowd.get_mut(node.path_bytes()));
            let Some(held) = in_crowd else {
                self.add(hash, node);
                return None;
            };
            return Some(Arc::unwrap_or_clone(std::mem::replace(held, Arc::new(node.to_node()))));
        };
        let former = self.at(at).to_node();
        let (text, beside) = node.parts();
        self.exchange_text(at, text);
        let kept = self.keep(beside);
        let unkept = std::mem::replace(&mut self.places[at].kept, kept);
        self.unkeep(unkept);
        Some(former)
    }

    /// Adds a node that is not there yet.
    pub(super) fn add(&mut self, hash: u64, node: NodeRef<'_>) {
        if self.places.len() == PLACES_MAX {
            let crowd = self.crowd.get_or_insert_default();
            crowd.insert(node.path_bytes().into(), Arc::new(node.to_node()));
            return;
        }
        let (text, beside) = node.parts();
        let kept = self.keep(beside);
        grow(&mut self.texts, text.len(), TEXTS_STEP);
        self.texts.extend_from_slice(text);
        grow(&mut self.places, 1, PLACES_STEP);
        self.places.push(Place { end: offset(self.texts.len()), tag: tag_of(hash), kept });
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, hash: u64, path: &str) -> Option<Node> {
        let Some(at) = self.find(hash, path.as_bytes()) else {
            return self.crowd.as_mut()?.remove(path.as_bytes()).map(Arc::unwrap_or_clone);
        };
        let node = self.at(at).to_node();
        self.exchange_text(at, &[]);
        let place = self.places.remove(at);
        if self.places.capacity() > 2 * self.places.len() + PLACES_STEP {
            self.places.shrink_to(self.places.len().next_multiple_of(PLACES_STEP));
        }
        self.unkeep(place.kept);
        Some(node)
    }

    /// All of them; the order means nothing.
    pub(super) fn iter(&self) -> impl Iterator<Item = NodeRef<'_>> {
        let crowd = self.crowd.iter().flat_map(|crowd| crowd.values());
        (0..self.places.len()).map(|at| self.at(at)).chain(crowd.map(|node| node.as_ref().as_ref()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    fn find(&self, hash: u64, path: &[u8]) -> Option<usize> {
        let tag = tag_of(hash);
        let mut alike = self.places.iter().enumerate().filter(|(_, place)| place.tag == tag);
        alike.find_map(|(at, _)| (self.at(at).path_bytes() == path).then_some(at))
    }

    fn at(&self, at: usize) -> NodeRef<'_> {
        let kept = self.kept[usize::from(self.places[at].kept)].as_ref();
        let kept = kept.expect("what a node has beside it is kept");
        NodeRef::new(&self.texts[self.range(at)], &kept.beside)
    }

    fn range(&self, at: usize) -> Range<usize> {
        let start = at.checked_sub(1).map_or(0, |before| self.places[before].end);
        position(start)..position(self.places[at].end)
    }

    /// Gives a node another text; those behind it move.
    fn exchange_text(&mut self, at: usize, text: &[u8]) {
        let Range { start, end } = self.range(at);
        let (new_end, all) = (start + text.len(), self.texts.len());
        if new_end > end {
            grow(&mut self.texts, new_end - end, TEXTS_STEP);
            self.texts.resize(all + (new_end - end), 0);
        }
        if new_end != end {
            self.texts.copy_within(end..all, new_end);
            self.texts.truncate(all - end + new_end);
            for place in &mut self.places[at..] {
                place.end = offset(position(place.end) - end + new_end);
            }
        }
        self.texts[start..new_end].copy_from_slice(text);
        if self.texts.capacity() > 2 * self.texts.len() + TEXTS_STEP {
            self.texts.shrink_to(self.texts.len().next_multiple_of(TEXTS_STEP));
        }
    }

    /// Where `beside` is kept, for one node more.
    fn keep(&mut self, beside: &Beside) -> u16 {
        let is_same = |kept: &Option<Kept>| {
            kept.as_ref().is_some_and(|kept| kept.beside.is_shared_with(beside))
        };
        let at = self.kept.iter().position(is_same);
        let at = at.or_else(|| self.kept.iter().position(Option::is_none));
        let at = at.unwrap_or_else(|| {
            self.kept.reserve_exact(1);
            self.kept.push(None);
            self.kept.len() - 1
        });
        let new = || Kept { beside: beside.clone(), nodes: 0 };
        self.kept[at].get_or_insert_with(new).nodes += 1;
        u16::try_from(at).expect("at most PLACES_MAX")
    }

    /// One node less has it.
    fn unkeep(&mut self, at: u16) {
        let place = &mut self.kept[usize::from(at)];
        let Some(kept) = place else { return };
        kept.nodes -= 1;
        if kept.nodes == 0 {
            *place = None;
        }
        while self.kept.last().is_some_and(Option::is_none) {
            self.kept.pop();
        }
    }
}

/// Makes room for so many more, in steps.
fn grow<T>(memory: &mut Vec<T>, more: usize, step: usize) {
    let length = memory.len() + more;
    if memory.capacity() < length {
        memory.reserve_exact(length.next_multiple_of(step) - memory.len());
    }
}

fn tag_of(hash: u64) -> u16 {
    u16::try_from(hash & 0xffff).expect("16 bits")
}

fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("PLACES_MAX texts, none of them long")
}

fn position(offset: u32) -> usize {
    usize::try_from(offset).expect("it is in memory")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coordinator_protocol::{Acl, SessionId, Zxid};

    use super::super::node::NodeNumbers;
    use super::*;

    fn node(path: &str, data: &[u8], acl: &Arc<[Acl]>) -> Node {
        let numbers = NodeNumbers::new(Zxid::new(1), 0, SessionId::NONE);
        Node::new(path, Some(data), acl.clone(), &numbers)
    }

    /// Many changes in an order without a pattern, beside a map of what should be there.
    #[test]
    fn nodes_are_what_was_put_there_last() {
        let acls: [Arc<[Acl]>; 3] = std::array::from_fn(|_| Acl::open().into());
        let mut nodes = Nodes::default();
        let mut expected = std::collections::BTreeMap::new();
        let mut state = 1_u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..20_000 {
            let number = draw(40);
            // Several nodes share a tag.
            let (path, hash) = (format!("/n{number}"), number % 7);
            if draw(3) == 0 {
                assert_eq!(nodes.remove(hash, &path), expected.remove(&number));
            } else {
                let bytes = usize::try_from(draw(700)).unwrap();
                let acl = &acls[usize::try_from(draw(3)).unwrap()];
                let new = node(&path, &vec![7; bytes], acl);
                assert_eq!(nodes.put(hash, new.as_ref()), expected.insert(number, new));
            }
            assert_eq!(nodes.len(), expected.len());
            let kept = nodes.kept.iter().flatten().map(|kept| kept.nodes).sum::<u32>();
            assert_eq!(usize::try_from(kept).unwrap(), expected.len());
            assert!(nodes.kept.len() <= 40 + 1, "{} kept", nodes.kept.len());
        }
        for number in 0..40 {
            let found = nodes.get(number % 7, &format!("/n{number}"));
            assert_eq!(found.map(NodeRef::to_node).as_ref(), expected.get(&number));
        }
        assert!(nodes.iter().all(|node| expected.values().any(|held| held.as_ref() == node)));
    }

    /// As someone would have it who chooses paths by their hashes.
    #[test]
    fn any_number_of_nodes_is_found() {
        let acl: Arc<[Acl]> = Acl::open().into();
        let mut nodes = Nodes::default();
        let path = |number: usize| format!("/{number}");
        let many = 3 * PLACES_MAX;
        for number in 0..many {
            assert_eq!(nodes.put(5, node(&path(number), b"first", &acl).as_ref()), None);
        }
        let frozen = nodes.clone();
        for number in 0..many {
            let former = nodes.put(5, node(&path(number), b"second", &acl).as_ref()).unwrap();
            assert_eq!(former.as_ref().data(), Some(&b"first"[..]));
        }
        assert_eq!((nodes.len(), nodes.places.len()), (many, PLACES_MAX));
        for number in (0..many).rev() {
            assert_eq!(nodes.get(5, &path(number)).unwrap().data(), Some(&b"second"[..]));
            assert_eq!(frozen.get(5, &path(number)).unwrap().data(), Some(&b"first"[..]));
            assert_eq!(nodes.remove(5, &path(number)).unwrap().as_ref().path(), path(number));
            assert_eq!(nodes.get(5, &path(number)), None);
        }
        assert_eq!((nodes.len(), frozen.len()), (0, many));
    }

    #[test]
    fn shared_list_is_kept_once_and_memory_is_not_left_over() {
        let acl: Arc<[Acl]> = Acl::open().into();
        let mut nodes = Nodes::default();
        for number in 0..48 {
            nodes.add(number, node(&format!("/{number}"), &[7; 100], &acl).as_ref());
        }
        assert_eq!((nodes.kept.len(), Arc::strong_count(&acl)), (1, 2));
        let (used, taken) = (nodes.texts.len(), nodes.texts.capacity());
        assert!(taken - used < TEXTS_STEP, "{taken} bytes for {used}");
        for number in 0..48 {
            assert!(nodes.remove(number, &format!("/{number}")).is_some());
        }
        assert_eq!((nodes.kept.len(), nodes.texts.len(), Arc::strong_count(&acl)), (0, 0, 1));
    }
}
