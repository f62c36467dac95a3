//! Limits of a connection, and the memory that the requests of all connections may hold together.
//!
//! Called by: `connection`, `listener`. Invariant: bytes of frames in flight never exceed the
//! budget; a frame larger than the whole budget takes all of it rather than waiting for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests of one connection that may wait for their answers; then reading stops.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 512;
/// Bytes of request frames that one connection may have in flight; then reading stops.
pub const REQUEST_BYTES_IN_FLIGHT_MAX: usize = 16 << 20;
/// Bytes of finished answers that may wait behind a slower one; then reading stops.
pub const ANSWER_BYTES_WAITING_MAX: usize = 16 << 20;
/// How long a peer may refuse to take a single byte of an answer before it is dropped.
pub const SEND_STALL_MAX: Duration = Duration::from_secs(60);
/// Granularity of the budget, so that a semaphore's permits can count large budgets.
const UNIT_BYTES: usize = 1024;

/// Limits that settings decide.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest request frame, length prefix excluded (socket.request.max.bytes).
    pub request_bytes_max: usize,
    /// A connection without a request for this long is closed (connections.max.idle.ms).
    pub idle_max: Duration,
    /// Connections of one listener (max.connections); later ones are closed at once.
    pub connections_max: usize,
    /// Bytes of frames that all connections of a listener may have in flight.
    pub in_flight_bytes_max: usize,
}

/// The shared byte budget.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    units_max: u32,
}

impl Budget {
    /// A budget of `bytes_max` bytes (at least one unit).
    pub fn new(bytes_max: usize) -> Self {
        let units_max = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX >> 4).max(1);
        let units_max = units_max.min(u32::MAX >> 4);
        Self { units: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// Waits until `bytes` fit. Cancel-safe: dropping the future takes nothing.
    pub async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = self.units_for(bytes);
        Arc::clone(&self.units).acquire_many_owned(units).await.expect("the budget never closes")
    }

    /// Takes `bytes` if they fit now.
    pub fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(self.units_for(bytes)).ok()
    }

    fn units_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_gives_to_the_limit_and_not_beyond() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let first = budget.try_take(9 * UNIT_BYTES).expect("fits");
        let second = budget.try_take(UNIT_BYTES).expect("fits exactly");
        assert!(budget.try_take(1).is_none());
        drop(first);
        assert!(budget.try_take(9 * UNIT_BYTES).is_some());
        drop(second);
    }

    #[test]
    fn frame_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(4 * UNIT_BYTES);
        let all = budget.try_take(1 << 30).expect("clamped");
        assert!(budget.try_take(1).is_none());
        drop(all);
    }
}
