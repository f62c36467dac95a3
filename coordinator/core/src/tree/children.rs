//! The children of one node, in ascending order, and how much there is below it.
//!
//! Called by: `store`. Calls: nothing.
//! Invariant: paths ascend without repetition; no chunk is empty or has more than [`CHUNK_MAX`] of them.
//! It does not know nodes.
//!
//! A clone shares the chunks: what is frozen for a snapshot costs a pointer for each, and a change after
//! that copies the one chunk which it is in, however many children there are.

use std::slice;
use std::sync::Arc;

use super::quota::Usage;

/// Paths in one chunk.
const CHUNK_MAX: usize = 256;

/// Paths in ascending order. A node without children has nothing but this one word for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Children(Option<Box<Chunks>>);

#[derive(Clone, Debug, Default)]
struct Chunks {
    count: usize,
    chunks: Vec<Arc<Vec<Arc<str>>>>,
    /// Of all nodes below, not only of the children; whoever has children has this.
    below: Usage,
}

impl Children {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.count)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> Iter<'_> {
        let chunks = self.0.as_ref().map_or(&[][..], |held| &held.chunks);
        Iter { chunks: chunks.iter(), current: [].iter(), left: self.len() }
    }

    /// What is below the node, itself not counted; kept for the upper levels of the tree only.
    pub(super) fn below(&self) -> Usage {
        self.0.as_ref().map_or(Usage::default(), |held| held.below)
    }

    /// There is so much below it from now on. Only where there are children.
    pub(super) fn set_below(&mut self, below: Usage) {
        match &mut self.0 {
            Some(held) => held.below = below,
            None => assert_eq!(below, Usage::default(), "something below a node without children"),
        }
    }

    /// Those behind `path`, ascending, or from it on if it `counts`, whether or not it is there.
    pub(super) fn iter_from(&self, path: &str, counts: bool) -> Iter<'_> {
        let Some(held) = &self.0 else { return self.iter() };
        let is_before = |one: &Arc<str>| if counts { **one < *path } else { **one <= *path };
        let at = held.chunk_of(path).unwrap_or(0);
        let (before, rest) = held.chunks.split_at(at);
        let Some((chunk, behind)) = rest.split_first() else { return self.iter() };
        let skipped = chunk.partition_point(is_before);
        let left = held.count - before.iter().map(|chunk| chunk.len()).sum::<usize>() - skipped;
        Iter { chunks: behind.iter(), current: chunk[skipped..].iter(), left }
    }

    /// Adds a path; one that is there already stays alone.
    pub(super) fn insert(&mut self, path: Arc<str>) {
        let held = self.0.get_or_insert_default();
        let Some(at) = held.chunk_of(&path) else {
            held.chunks.push(Arc::new(vec![path]));
            held.count = 1;
            return;
        };
        let is_last = at + 1 == held.chunks.len();
        let chunk = Arc::make_mut(&mut held.chunks[at]);
        let Err(place) = chunk.binary_search(&path) else { return };
        held.count += 1;
        if chunk.len() < CHUNK_MAX {
            chunk.insert(place, path);
            return;
        }
        // Names often ascend: then the chunks before the last one are full.
        let mut upper = if is_last && place == chunk.len() {
            Vec::with_capacity(CHUNK_MAX / 4)
        } else {
            chunk.split_off(CHUNK_MAX / 2)
        };
        match place.checked_sub(chunk.len()) {
            Some(place) => upper.insert(place, path),
            None => chunk.insert(place, path),
        }
        held.chunks.insert(at + 1, Arc::new(upper));
    }

    /// Takes a path out, if it is there.
    pub(super) fn remove(&mut self, path: &str) {
        let Some(held) = &mut self.0 else { return };
        let Some(at) = held.chunk_of(path) else { return };
        let Ok(place) = held.chunks[at].binary_search_by(|one| (**one).cmp(path)) else { return };
        held.count -= 1;
        if held.count == 0 {
            assert_eq!(held.below, Usage::default(), "something is left below");
            self.0 = None;
            return;
        }
        let chunk = Arc::make_mut(&mut held.chunks[at]);
        chunk.remove(place);
        let left = chunk.len();
        if left == 0 {
            held.chunks.remove(at);
        } else if let Some(next) = held.chunks.get(at + 1)
            && left + next.len() <= CHUNK_MAX / 2
        {
            let next = held.chunks.remove(at + 1);
            Arc::make_mut(&mut held.chunks[at]).extend(next.iter().cloned());
        }
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        let Some(held) = &self.0 else { return };
        assert!(held.count > 0, "an empty list is kept");
        assert!(held.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(held.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), held.count);
        assert!(self.iter().zip(self.iter().skip(1)).all(|(a, b)| a < b), "children out of order");
    }
}

impl Chunks {
    /// The chunk that holds `path`, or is the place for it; none when there are no chunks.
    fn chunk_of(&self, path: &str) -> Option<usize> {
        let begins_above =
            |chunk: &Arc<Vec<Arc<str>>>| chunk.first().is_some_and(|first| **first <= *path);
        let above = self.chunks.partition_point(begins_above);
        (!self.chunks.is_empty()).then(|| above.saturating_sub(1))
    }
}

impl<'a> IntoIterator for &'a Children {
    type Item = &'a Arc<str>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Equal when they hold the same paths, however they are cut.
impl PartialEq for Children {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Children {}

impl ExactSizeIterator for Iter<'_> {}

/// Paths in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    chunks: slice::Iter<'a, Arc<Vec<Arc<str>>>>,
    current: slice::Iter<'a, Arc<str>>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<str>;

    fn next(&mut self) -> Option<&'a Arc<str>> {
        loop {
            if let Some(path) = self.current.next() {
                self.left -= 1;
                return Some(path);
            }
            self.current = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(number: u64) -> Arc<str> {
        format!("/p/{number:06}").into()
    }

    fn assert_same(children: &Children, model: &BTreeSet<Arc<str>>) {
        children.check();
        assert_eq!(children.len(), model.len());
        assert!(children.iter().eq(model.iter()));
        assert_eq!(children.iter().size_hint(), (model.len(), Some(model.len())));
    }

    #[test]
    fn any_order_of_inserts_and_removals_agrees_with_a_set() {
        let (mut children, mut model) = (Children::default(), BTreeSet::new());
        let mut random = 7_u64;
        for round in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let path = name((random >> 33) % 3_000);
            // It grows, shrinks to nothing, and grows again.
            let grows = (round / 5_000).is_multiple_of(2);
            if grows != (random >> 20).is_multiple_of(8) {
                children.insert(path.clone());
                model.insert(path);
            } else {
                children.remove(&path);
                model.remove(&path);
            }
            if round.is_multiple_of(500) {
                assert_same(&children, &model);
            }
        }
        for path in model.clone() {
            children.remove(&path);
            children.remove(&path);
            model.remove(&path);
        }
        assert_same(&children, &model);
        assert!(children.is_empty() && children.iter().next().is_none());
    }

    #[test]
    fn iteration_begins_anywhere() {
        let mut children = Children::default();
        assert_eq!(children.iter_from("/p/000001", true).count(), 0);
        (0..2_000).step_by(2).for_each(|number| children.insert(name(number)));
        let first = |from: &str, counts| {
            let mut rest = children.iter_from(from, counts);
            let left = rest.len();
            assert_eq!(rest.clone().count(), left);
            (rest.next().map(|path| path.to_string()), left)
        };
        let at = |number: u64| Some(name(number).to_string());
        assert_eq!(first("/", true), (at(0), 1_000));
        assert_eq!(first(&name(0), false), (at(2), 999));
        for number in [254, 255, 256, 510, 511, 512, 1_000] {
            let even = number + number % 2;
            assert_eq!(first(&name(number), true), (at(even), 1_000 - even as usize / 2));
            let next = number + 2 - number % 2;
            assert_eq!(first(&name(number), false), (at(next), 1_000 - next as usize / 2));
        }
        assert_eq!(first(&name(1_998), true), (at(1_998), 1));
        assert_eq!(first(&name(1_998), false), (None, 0));
        assert_eq!(first("/q", true), (None, 0));
    }

    #[test]
    fn ascending_and_descending_names_fill_their_chunks() {
        let mut ascending = Children::default();
        (0..1_000).for_each(|number| ascending.insert(name(number)));
        let mut descending = Children::default();
        (0..1_000).rev().for_each(|number| descending.insert(name(number)));
        assert_eq!(ascending, descending);
        ascending.check();
        descending.check();
        assert_eq!(ascending.0.as_ref().unwrap().chunks.len(), 1_000_usize.div_ceil(CHUNK_MAX));
    }

    #[test]
    fn clone_stays_as_it_was_and_a_change_copies_one_chunk() {
        let mut children = Children::default();
        (0..1_000).for_each(|number| children.insert(name(number)));
        let frozen = children.clone();
        children.remove(&name(600));
        children.insert(name(5_000));
        assert_eq!(frozen.len(), 1_000);
        assert!(frozen.iter().eq((0..1_000).map(name).collect::<Vec<_>>().iter()));
        let chunks = |children: &Children| children.0.as_ref().unwrap().chunks.clone();
        let shared = chunks(&frozen)
            .iter()
            .filter(|chunk| chunks(&children).iter().any(|other| Arc::ptr_eq(chunk, other)))
            .count();
        assert_eq!(shared, chunks(&frozen).len() - 2);
    }
}
