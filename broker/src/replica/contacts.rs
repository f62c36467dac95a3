//! Which brokers this one has just lost contact with.
//!
//! Called by: the fetchers (what they see), Metadata (what it tells). A killed leader's sockets close
//! at once, a little before its registration ends: a client that asks meanwhile is better told that
//! there is no leader, as it then asks again soon, than sent back to the dead one. Invariant: a
//! suspicion ends by itself after [`SUSPICION_MAX`], so that a wrong one costs little. Decides
//! nothing about leaders.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client_protocol::BrokerId;

/// How long a lost connection says something about a broker: five times the grace that the
/// coordinator gives.
const SUSPICION_MAX: Duration = Duration::from_secs(1);

/// Contacts that were lost and not found again.
#[derive(Debug, Default)]
pub struct Contacts {
    lost: Mutex<BTreeMap<BrokerId, Instant>>,
}

impl Contacts {
    /// Whether a connection to `broker` broke a moment ago and none has come about since.
    pub fn is_lost(&self, broker: BrokerId) -> bool {
        self.lock().get(&broker).is_some_and(|at| at.elapsed() < SUSPICION_MAX)
    }

    /// An established connection to `broker` was closed by its side.
    pub(super) fn lost(&self, broker: BrokerId) {
        self.lock().insert(broker, Instant::now());
    }

    /// A connection to `broker` came about.
    pub(super) fn found(&self, broker: BrokerId) {
        self.lock().remove(&broker);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Instant>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_contact_is_suspected_until_found_or_long_ago() {
        let (contacts, broker) = (Contacts::default(), BrokerId::new(2));
        assert!(!contacts.is_lost(broker));
        contacts.lost(broker);
        assert!(contacts.is_lost(broker));
        contacts.found(broker);
        assert!(!contacts.is_lost(broker));
        let long_ago = Instant::now().checked_sub(SUSPICION_MAX).expect("the machine is older");
        contacts.lock().insert(broker, long_ago);
        assert!(!contacts.is_lost(broker));
    }
}
