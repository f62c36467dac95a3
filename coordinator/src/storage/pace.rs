//! A limit to how fast a snapshot is written.
//!
//! Called by: the snapshot's thread. Calls: the clock.
//! Invariant: at any time no more was written than the rate allows since the beginning, but for one part; who waits wakes
//! up when somebody waits for the snapshot or the server ends.
//! Does not know: what is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Of a pause at a time: so long who hurries may wait for it.
const NAP_MAX: Duration = Duration::from_millis(100);

/// Told when the rest should be written without waiting.
#[derive(Debug, Clone, Default)]
pub struct Hurry(Arc<AtomicBool>);

impl Hurry {
    /// From now on.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts what is written since it was made.
pub struct Pace {
    bytes_per_second: u64,
    began: Instant,
    hurry: Hurry,
}

impl Pace {
    /// At most so many bytes a second; 0 for no limit.
    pub fn new(bytes_per_second: u64, hurry: Hurry) -> Pace {
        Pace { bytes_per_second, began: Instant::now(), hurry }
    }

    /// Waits until `bytes` in all may have been written.
    pub fn wait(&self, bytes: u64) {
        let due = due_after(bytes, self.bytes_per_second);
        while !self.hurry.is_on() {
            let left = due.saturating_sub(self.began.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP_MAX));
        }
    }
}

/// How long so many bytes take.
fn due_after(bytes: u64, bytes_per_second: u64) -> Duration {
    let micros = u128::from(bytes).saturating_mul(1_000_000);
    let micros = micros.checked_div(u128::from(bytes_per_second)).unwrap_or(0);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_as_long_as_the_rate_says() {
        assert_eq!(due_after(150 << 20, 32 << 20), Duration::from_micros(4_687_500));
        assert_eq!(due_after(150 << 20, 0), Duration::ZERO);
        assert_eq!(due_after(u64::MAX, 1), Duration::from_micros(u64::MAX));
        let began = Instant::now();
        let pace = Pace::new(1_000, Hurry::default());
        pace.wait(30);
        assert!(began.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn who_is_told_to_hurry_does_not_wait_for_the_rest() {
        let hurry = Hurry::default();
        let pace = Pace::new(1, hurry.clone());
        let waits = std::thread::spawn(move || pace.wait(1 << 40));
        hurry.begin();
        waits.join().unwrap();
    }
}
