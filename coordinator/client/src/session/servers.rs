//! Which server to try next, and how long to wait before.
//!
//! Called by: `driver`. Calls: nothing; the random numbers are arguments.
//! Invariant: all servers are tried before any is tried again, and only then there is a pause.

use std::time::Duration;

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The rotation over the servers.
#[derive(Debug)]
pub(crate) struct Servers {
    addresses: Vec<String>,
    next: usize,
    failed_in_a_row: usize,
}

impl Servers {
    /// Starts at a place that `random` chooses, so that clients spread over the servers.
    pub(crate) fn new(addresses: Vec<String>, random: u64) -> Self {
        let count = u64::try_from(addresses.len()).unwrap_or(u64::MAX).max(1);
        let next = usize::try_from(random % count).unwrap_or(0);
        Self { addresses, next, failed_in_a_row: 0 }
    }

    /// The server to try now; `None` if there are no servers at all.
    pub(crate) fn next(&mut self) -> Option<&str> {
        let index = self.next % self.addresses.len().max(1);
        self.next = index + 1;
        self.addresses.get(index).map(String::as_str)
    }

    /// A server took the session: the next failure is the first one again.
    pub(crate) fn succeeded(&mut self) {
        self.failed_in_a_row = 0;
    }

    /// A server could not be reached or did not take the session. Returns how long to pause before
    /// the next: nothing inside a round, then up to a second, between half of it and all by `random`.
    pub(crate) fn failed(&mut self, random: u64) -> Duration {
        self.failed_in_a_row += 1;
        let servers = self.addresses.len().max(1);
        if !self.failed_in_a_row.is_multiple_of(servers) {
            return Duration::ZERO;
        }
        let rounds = u32::try_from(self.failed_in_a_row / servers).unwrap_or(u32::MAX);
        let doubled = PAUSE_MIN.saturating_mul(1 << rounds.saturating_sub(1).min(10));
        let pause = doubled.min(PAUSE_MAX);
        let jitter = u32::try_from(random % 1000).unwrap_or(0);
        pause / 2 + pause / 2 * jitter / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_tried_before_the_first_pause() {
        let mut servers = Servers::new(vec!["a".into(), "b".into(), "c".into()], 7);
        assert_eq!(servers.next(), Some("b"));
        assert_eq!(servers.failed(0), Duration::ZERO);
        assert_eq!(servers.next(), Some("c"));
        assert_eq!(servers.failed(0), Duration::ZERO);
        assert_eq!(servers.next(), Some("a"));
        assert_eq!(servers.failed(0), Duration::from_millis(10));
        assert_eq!(servers.next(), Some("b"));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_start_anew_after_a_success() {
        let mut servers = Servers::new(vec!["a".into()], 0);
        let pauses: Vec<u128> = (0..9).map(|_| servers.failed(999).as_millis()).collect();
        assert_eq!(pauses, [19, 39, 79, 159, 319, 639, 999, 999, 999]);
        servers.succeeded();
        assert_eq!(servers.failed(0), Duration::from_millis(10));
        assert_eq!(Servers::new(Vec::new(), 3).next(), None);
    }
}
