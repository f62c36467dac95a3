//! The last offset of each key of the dirty part.
//!
//! Called by: `pass`. Calls: nothing.
//! Invariant: at most the given number of keys, which bounds the memory whatever the log holds. Keys
//! are told apart by 128 bits of two hashes under secrets of their own: nobody who writes records can
//! choose two keys that are taken for one.

use std::collections::HashMap;
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
    /// Knows no key yet, and takes up to `keys_max`.
    pub fn new(keys_max: usize) -> Self {
        let secrets = (RandomState::new(), RandomState::new());
        Self { secrets, latest: HashMap::new(), keys_max }
    }

    /// Whether so many keys, all of them new, would be more than it takes.
    pub fn lacks_room_for(&self, more: usize) -> bool {
        self.latest.len().saturating_add(more) > self.keys_max
    }

    /// Number of keys known.
    pub fn len(&self) -> usize {
        self.latest.len()
    }

    /// Notes a record; records come in the order of their offsets.
    pub fn note(&mut self, key: &[u8], offset: i64) {
        self.latest.insert(self.name(key), offset);
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
        keys.note(b"a", 1);
        keys.note(b"b", 2);
        keys.note(b"a", 3);
        assert_eq!(
            (keys.latest(b"a"), keys.latest(b"b"), keys.latest(b"")),
            (Some(3), Some(2), None)
        );
    }

    #[test]
    fn room_is_counted_in_keys() {
        let mut keys = KeyOffsets::new(2);
        keys.note(b"a", 1);
        assert!(!keys.lacks_room_for(1));
        assert!(keys.lacks_room_for(2));
    }
}
