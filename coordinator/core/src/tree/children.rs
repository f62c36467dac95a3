//! The names of one node's children, in ascending order.
//!
//! Called by: `index`, `store`. Calls: nothing.
//! Invariant: names ascend without repetition; no chunk is empty.
//! It does not know nodes.
//!
//! Names stand side by side in chunks, so that a search among them stays within a few pages of memory. A clone
//! shares the chunks: what is frozen for a snapshot costs a pointer for each, and a change after that copies the one
//! chunk which it is in, however many children there are.

use std::slice;
use std::sync::Arc;

/// Names in one chunk.
const CHUNK_MAX: usize = 256;
/// A chunk of several names takes no more with which it would have more bytes than this.
const CHUNK_BYTES_MAX: usize = 16 << 10;

/// Names in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Children {
    count: usize,
    chunks: Vec<Arc<Chunk>>,
}

/// One name behind the other.
#[derive(Clone, Debug, Default)]
struct Chunk {
    names: String,
    /// Where each name ends.
    ends: Vec<u32>,
}

impl Children {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { chunks: self.chunks.iter(), current: None, left: self.count }
    }

    /// Those behind `name`, ascending, or from it on if it `counts`, whether or not it is there.
    pub(super) fn iter_from(&self, name: &str, counts: bool) -> Iter<'_> {
        let at = self.chunk_of(name).unwrap_or(0);
        let (before, rest) = self.chunks.split_at(at);
        let Some((chunk, behind)) = rest.split_first() else { return self.iter() };
        let skipped = match chunk.search(name) {
            Ok(place) => place + usize::from(!counts),
            Err(place) => place,
        };
        let left = self.count - before.iter().map(|chunk| chunk.len()).sum::<usize>() - skipped;
        Iter { chunks: behind.iter(), current: Some((chunk, skipped)), left }
    }

    /// Adds a name; one that is there already stays alone.
    pub(super) fn insert(&mut self, name: &str) {
        let Some((at, place)) = self.place_for(name) else { return };
        self.count += 1;
        let is_last = at + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(at) else {
            return self.chunks.push(Arc::new(Chunk::of(name)));
        };
        let chunk = Arc::make_mut(chunk);
        if !chunk.is_full(name) {
            return chunk.insert(place, name);
        }
        // Names often ascend: then the chunks before the last one are full, and keep nothing in reserve.
        if is_last && place == chunk.len() {
            chunk.shrink();
            return self.chunks.push(Arc::new(Chunk::of(name)));
        }
        let mut upper = chunk.split_off(chunk.len() / 2);
        match place.checked_sub(chunk.len()) {
            Some(place) => upper.insert(place, name),
            None => chunk.insert(place, name),
        }
        self.chunks.insert(at + 1, Arc::new(upper));
    }

    /// Takes a name out, if it is there.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(at) = self.chunk_of(name) else { return };
        let Ok(place) = self.chunks[at].search(name) else { return };
        self.count -= 1;
        let chunk = Arc::make_mut(&mut self.chunks[at]);
        chunk.remove(place);
        let (left, bytes) = (chunk.len(), chunk.names.len());
        if left == 0 {
            self.chunks.remove(at);
        } else if let Some(next) = self.chunks.get(at + 1)
            && left + next.len() <= CHUNK_MAX / 2
            && bytes + next.names.len() <= CHUNK_BYTES_MAX / 2
        {
            let next = self.chunks.remove(at + 1);
            Arc::make_mut(&mut self.chunks[at]).append(&next);
        }
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        assert!(self.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        assert_eq!(self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), self.count);
        assert!(self.iter().zip(self.iter().skip(1)).all(|(a, b)| a < b), "children out of order");
    }

    /// The chunk that a new name belongs into, and the place there; none when it is there already. The chunk is that
    /// behind the last when there are none.
    fn place_for(&self, name: &str) -> Option<(usize, usize)> {
        let last = self.chunks.last();
        if let Some(last) = last.filter(|last| last.last().is_some_and(|last| last < name)) {
            return Some((self.chunks.len() - 1, last.len()));
        }
        let Some(at) = self.chunk_of(name) else { return Some((0, 0)) };
        self.chunks[at].search(name).err().map(|place| (at, place))
    }

    /// The chunk that holds `name`, or is the place for it; none when there are no chunks.
    fn chunk_of(&self, name: &str) -> Option<usize> {
        let begins_above = |chunk: &Arc<Chunk>| chunk.name(0).is_some_and(|first| first <= name);
        let above = self.chunks.partition_point(begins_above);
        (!self.chunks.is_empty()).then(|| above.saturating_sub(1))
    }
}

impl Chunk {
    fn of(name: &str) -> Chunk {
        let mut chunk = Chunk::default();
        chunk.insert(0, name);
        chunk
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_full(&self, name: &str) -> bool {
        self.len() >= CHUNK_MAX
            || (self.len() > 1 && self.names.len() + name.len() > CHUNK_BYTES_MAX)
    }

    fn start(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn name(&self, place: usize) -> Option<&str> {
        let end = *self.ends.get(place)? as usize;
        self.names.get(self.start(place)..end)
    }

    fn last(&self) -> Option<&str> {
        self.name(self.len().checked_sub(1)?)
    }

    /// Where `name` is, or where it would be.
    fn search(&self, name: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let found = self.name(middle).expect("below the number of names");
            match found.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn insert(&mut self, place: usize, name: &str) {
        let start = self.start(place);
        let bytes = u32::try_from(name.len()).expect("bounded by a frame");
        self.names.insert_str(start, name);
        for end in &mut self.ends[place..] {
            *end += bytes;
        }
        let end = u32::try_from(start).expect("a chunk is small, or one name") + bytes;
        self.ends.insert(place, end);
    }

    fn remove(&mut self, place: usize) {
        let start = self.start(place);
        let end = self.ends.remove(place) as usize;
        self.names.replace_range(start..end, "");
        let bytes = u32::try_from(end - start).expect("a part of the chunk");
        for end in &mut self.ends[place..] {
            *end -= bytes;
        }
    }

    fn split_off(&mut self, place: usize) -> Chunk {
        let start = self.start(place);
        let names = self.names.split_off(start);
        let start = u32::try_from(start).expect("a place in the chunk");
        let ends = self.ends.split_off(place).into_iter().map(|end| end - start).collect();
        self.shrink();
        Chunk { names, ends }
    }

    fn append(&mut self, next: &Chunk) {
        let start = u32::try_from(self.names.len()).expect("a chunk is small");
        self.names.push_str(&next.names);
        self.ends.extend(next.ends.iter().map(|end| end + start));
    }

    fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl<'a> IntoIterator for &'a Children {
    type Item = &'a str;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Equal when they hold the same names, however they are cut.
impl PartialEq for Children {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Children {}

impl ExactSizeIterator for Iter<'_> {}

/// Names in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    chunks: slice::Iter<'a, Arc<Chunk>>,
    /// The chunk that is gone through, and the place in it.
    current: Option<(&'a Chunk, usize)>,
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            if let Some((chunk, place)) = &mut self.current
                && let Some(name) = chunk.name(*place)
            {
                *place += 1;
                self.left -= 1;
                return Some(name);
            }
            self.current = Some((self.chunks.next()?, 0));
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

    fn name(number: u64) -> String {
        // Some are long, and some are not one byte a letter.
        match number % 7 {
            0 => format!("{number:06}{}", "ü".repeat(300)),
            _ => format!("{number:06}"),
        }
    }

    fn assert_same(children: &Children, model: &BTreeSet<String>) {
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
            let name = name((random >> 33) % 3_000);
            // It grows, shrinks to nothing, and grows again.
            let grows = (round / 5_000).is_multiple_of(2);
            if grows != (random >> 20).is_multiple_of(8) {
                children.insert(&name);
                model.insert(name);
            } else {
                children.remove(&name);
                model.remove(&name);
            }
            if round.is_multiple_of(500) {
                assert_same(&children, &model);
            }
        }
        for name in model.clone() {
            children.remove(&name);
            children.remove(&name);
            model.remove(&name);
        }
        assert_same(&children, &model);
        assert!(children.is_empty() && children.iter().next().is_none());
    }

    #[test]
    fn iteration_begins_anywhere() {
        let mut children = Children::default();
        assert_eq!(children.iter_from("000001", true).count(), 0);
        (0..2_000).step_by(2).for_each(|number| children.insert(&name(number)));
        let first = |from: &str, counts| {
            let mut rest = children.iter_from(from, counts);
            let left = rest.len();
            assert_eq!(rest.clone().count(), left);
            (rest.next().map(str::to_owned), left)
        };
        let at = |number: u64| Some(name(number));
        assert_eq!(first("", true), (at(0), 1_000));
        assert_eq!(first(&name(0), false), (at(2), 999));
        for number in [254, 255, 256, 510, 511, 512, 1_000] {
            let even = number + number % 2;
            assert_eq!(first(&name(number), true), (at(even), 1_000 - even as usize / 2));
            let next = number + 2 - number % 2;
            assert_eq!(first(&name(number), false), (at(next), 1_000 - next as usize / 2));
        }
        assert_eq!(first(&name(1_998), true), (at(1_998), 1));
        assert_eq!(first(&name(1_998), false), (None, 0));
        assert_eq!(first("q", true), (None, 0));
    }

    #[test]
    fn ascending_and_descending_names_fill_their_chunks() {
        let name = |number: u32| format!("{number:06}");
        let mut ascending = Children::default();
        (0..1_000).for_each(|number| ascending.insert(&name(number)));
        let mut descending = Children::default();
        (0..1_000).rev().for_each(|number| descending.insert(&name(number)));
        assert_eq!(ascending, descending);
        ascending.check();
        descending.check();
        assert_eq!(ascending.chunks.len(), 1_000_usize.div_ceil(CHUNK_MAX));
        let full = &ascending.chunks[0];
        assert_eq!(full.names.capacity(), full.names.len());
    }

    #[test]
    fn names_of_any_length_stay_in_small_chunks() {
        let mut children = Children::default();
        for number in 0..20 {
            children.insert(&format!("{number:02}{}", "x".repeat(10_000)));
            children.insert(&format!("{number:02}{}", "y".repeat(100_000)));
        }
        children.check();
        assert!(children.chunks.iter().all(|chunk| chunk.len() <= 2));
    }

    #[test]
    fn clone_stays_as_it_was_and_a_change_copies_one_chunk() {
        let name = |number: u32| format!("{number:06}");
        let mut children = Children::default();
        (0..1_000).for_each(|number| children.insert(&name(number)));
        let frozen = children.clone();
        children.remove(&name(600));
        children.insert(&name(5_000));
        assert_eq!(frozen.len(), 1_000);
        assert!(frozen.iter().eq((0..1_000).map(name).collect::<Vec<_>>().iter()));
        let shared = frozen
            .chunks
            .iter()
            .filter(|chunk| children.chunks.iter().any(|other| Arc::ptr_eq(chunk, other)))
            .count();
        assert_eq!(shared, frozen.chunks.len() - 2);
    }
}
