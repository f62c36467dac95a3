//! When the ensemble last proved to be there: what a broker looks at before it acts as a leader.
//!
//! Called by: `session` (writes), [`crate::Client::last_contact`] and
//! [`crate::Client::session_timeout`] (read), from any thread.
//! Invariant: it never goes back, and it is the time at which an answered question was *asked*, so it
//! is never later than the moment at which the ensemble counted the session as alive.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Contact {
    base: Instant,
    after_base_ms: AtomicU64,
    timeout_ms: AtomicU64,
}

impl Contact {
    pub(crate) fn new(base: Instant, timeout: Duration) -> Self {
        let contact =
            Self { base, after_base_ms: AtomicU64::new(0), timeout_ms: AtomicU64::new(0) };
        contact.set_timeout(timeout);
        contact
    }

    /// The session time-out that the server gave.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn answered(&self, asked_at: Instant) {
        let after = asked_at.saturating_duration_since(self.base).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.after_base_ms.fetch_max(after, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.base + Duration::from_millis(self.after_base_ms.load(Ordering::Relaxed))
    }
}
