//! Whether two servers say they are the same member.
//!
//! Called by: both ends of links. Calls: nothing.
//! Invariant: a link that takes the place of one that works is nothing to tell of, many in a short time are, once in a
//! while: a host that lost its power comes back before its links are known to be dead.
//! Does not know: who is right.

use std::time::{Duration, Instant};

/// So many links that took another's place...
const MANY: u32 = 3;
/// ...within this time are of two servers.
const SHORT: Duration = Duration::from_secs(10);
/// Between two lines about it.
pub const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Links of one member that took the place of working ones.
#[derive(Debug, Default)]
pub struct Contested {
    since: Option<Instant>,
    count: u32,
    told_at: Option<Instant>,
}

impl Contested {
    /// One more. Whether it is time for a line.
    pub fn taken_over(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > SHORT) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count >= MANY && self.is_due(now)
    }

    /// Whether it is time for a line, where one link is proof enough.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_early = |told: Instant| now.saturating_duration_since(told) < TOLD_AGAIN;
        if self.told_at.is_some_and(is_early) {
            return false;
        }
        self.told_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_of_one_id_are_told_of_once_in_a_while_and_one_that_comes_again_is_not() {
        let start = Instant::now();
        let told = |seconds: &[u64]| {
            let mut contested = Contested::default();
            let at = |second: &&u64| contested.taken_over(start + Duration::from_secs(**second));
            seconds.iter().filter(at).copied().collect::<Vec<u64>>()
        };
        assert_eq!(told(&[0, 1, 20, 21, 40]), [0; 0]);
        let all: Vec<u64> = (0..130).collect();
        assert_eq!(told(&all), [2, 62, 123]);
    }
}
