//! Whether there is a connection, and when to try again.
//!
//! *Called by* `consumer`. *Calls* nothing. Knows keys, not addresses.

use std::collections::BTreeMap;

/// What is known of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down { retry_at_ms: u64, failures: u32 },
    Connecting { failures: u32 },
    Up,
}

/// What to do about a connection that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Use it.
    Up,
    /// Open it; it counts as being opened from now on.
    Open,
    /// It is being opened.
    Wait,
    /// Not before this time.
    At(u64),
}

/// Connections by key.
#[derive(Clone, Debug)]
pub(crate) struct Links<K> {
    links: BTreeMap<K, Link>,
    backoff_ms: u64,
    backoff_max_ms: u64,
}

impl<K: Ord + Copy> Links<K> {
    pub(crate) fn new(backoff_ms: u64, backoff_max_ms: u64) -> Self {
        Self { links: BTreeMap::new(), backoff_ms, backoff_max_ms }
    }

    pub(crate) fn is_up(&self, key: K) -> bool {
        self.links.get(&key) == Some(&Link::Up)
    }

    pub(crate) fn need(&mut self, key: K, now_ms: u64) -> Need {
        let failures = match self.links.get(&key) {
            Some(Link::Up) => return Need::Up,
            Some(Link::Connecting { .. }) => return Need::Wait,
            Some(Link::Down { retry_at_ms, .. }) if *retry_at_ms > now_ms => {
                return Need::At(*retry_at_ms);
            }
            Some(Link::Down { failures, .. }) => *failures,
            None => 0,
        };
        self.links.insert(key, Link::Connecting { failures });
        Need::Open
    }

    pub(crate) fn up(&mut self, key: K) {
        self.links.insert(key, Link::Up);
    }

    /// It could not be opened, or ended.
    pub(crate) fn down(&mut self, key: K, now_ms: u64) {
        let failures = match self.links.get(&key) {
            Some(Link::Connecting { failures } | Link::Down { failures, .. }) => {
                failures.saturating_add(1)
            }
            Some(Link::Up) | None => 1,
        };
        let doublings = failures.saturating_sub(1).min(16);
        let wait_ms = self.backoff_ms.saturating_mul(1 << doublings).min(self.backoff_max_ms);
        let retry_at_ms = now_ms.saturating_add(wait_ms);
        self.links.insert(key, Link::Down { retry_at_ms, failures });
    }

    /// Forgets those that `is_gone` names; whether there were any.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&K) -> bool) -> bool {
        let before = self.links.len();
        self.links.retain(|key, _| !is_gone(key));
        self.links.len() < before
    }

    /// What failed may be tried at once.
    pub(crate) fn hurry(&mut self, is_meant: impl Fn(&K) -> bool) {
        for (_, link) in self.links.iter_mut().filter(|(key, _)| is_meant(key)) {
            if let Link::Down { retry_at_ms, .. } = link {
                *retry_at_ms = 0;
            }
        }
    }
}
