//! How often what strangers do is worth a line in the log.
//!
//! Called by: those who send somebody away. Calls: nothing.
//! Invariant: at most one line each second, however many knock; none of them goes uncounted.
//! Does not know: what the line says.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// One kind of line.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Counts what happens now. When it is time for a line: how often it has happened since the last one.
    pub fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.untold += 1;
        let is_early = |told: Instant| now.saturating_duration_since(told) < PAUSE;
        if state.told_at.is_some_and(is_early) {
            return None;
        }
        state.told_at = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_due_once_in_a_while_and_counts_what_came_between() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |ms: u64| seldom.count_at(start + Duration::from_millis(ms));
        assert_eq!(
            [at(0), at(1), at(999), at(1000), at(1001)],
            [Some(1), None, None, Some(3), None]
        );
        assert_eq!(at(9_000), Some(2));
    }
}
