//! Reads the machine's two clocks for the core.
//!
//! Called by: the core's task. Calls: std. Invariant: the monotonic time never goes back.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordinator_core::{Millis, Now};

/// Monotonic time since the process's start, and wall time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Now { mono: Millis::new(mono), wall_ms }
    }

    /// When the monotonic clock will show `at`.
    pub fn instant(&self, at: Millis) -> Instant {
        let day = Duration::from_secs(24 * 3600);
        let since = Duration::from_millis(at.get());
        // The end of time is no instant: a day ahead is asked again when it comes.
        self.start.checked_add(since).unwrap_or_else(|| Instant::now() + day)
    }
}
