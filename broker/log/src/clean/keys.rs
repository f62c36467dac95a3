//! The last offset of each key of the dirty part.
//!
//! Called by: `pass`. Calls: nothing.
//! Invariant: at most the given number of keys, which bounds the memory whatever the log holds. Keys
//! are told apart by 128 bits of two hashes under secrets of their own: nobody who writes records can
//! choose two keys that are taken for one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

/// Memory that one key takes, bytes, with the room that a table keeps free.
pub const KEY_ENTRY_BYTES: usize = 56;

/// See the module.
pub struct KeyOffsets {
    secrets: (RandomState, RandomState),
    latest: HashMap<(u64, u64), i64>,
    keys_max: usize,
}

impl KeyOffsets {
    /// Knows no key yet, and takes up to `keys_max`, but one at least, or nothing would ever be
    /// cleaned.
    pub fn new(keys_max: usize) -> Self {
        let secrets = (RandomState::new(), RandomState::new());
        Self { secrets, latest: HashMap::new(), keys_max: keys_max.max(1) }
    }

    /// Number of keys known.
    pub fn len(&self) -> usize {
        self.latest.len()
    }

    /// Notes a record; records come in the order of their offsets. `false` when there is no room for
    /// its key: then nothing was noted.
    pub fn note(&mut self, key: &[u8], offset: i64) -> bool {
        let is_full = self.latest.len() >= self.keys_max;
        match self.latest.entry(self.name(key)) {
            Entry::Occupied(mut known) => {
                known.insert(offset);
            }
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(new) => {
                new.insert(offset);
            }
        }
        true
    }

    /// Offset of the last record noted of a key.
    pub fn latest(&self, key: &[u8]) -> Option<i64> {
        self.latest.get(&self.name(key)).copied()
    }

    fn name(&self, key: &[u8]) -> (u64, u64) {
        (self.secrets.0.hash_one(key), self.secrets.1.hash_one(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_a_key_counts() {
        let mut keys = KeyOffsets::new(3);
        for (key, offset) in [(b"a", 1), (b"b", 2), (b"a", 3)] {
            assert!(keys.note(key, offset));
        }
        assert_eq!(
            (keys.latest(b"a"), keys.latest(b"b"), keys.latest(b"")),
            (Some(3), Some(2), None)
        );
    }

    #[test]
    fn there_is_room_for_so_many_keys_and_no_more() {
        for (keys_max, room) in [(0, 1), (1, 1), (2, 2)] {
            let mut keys = KeyOffsets::new(keys_max);
            for key in 0..room {
                assert!(keys.note(&[key], 1));
            }
            assert!(!keys.note(&[room], 2));
            assert!(keys.note(&[0], 3), "it is known");
            assert_eq!((keys.len(), keys.latest(&[room])), (usize::from(room), None));
            assert_eq!(keys.latest(&[0]), Some(3));
        }
    }
}
