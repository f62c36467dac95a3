//! Room for frames above the usual size while they are read.
//!
//! Called by: connections, when such a frame begins. Calls: nothing.
//! Invariant: all such frames that are being read have no more bytes than there is room for, whoever sends them and however
//! large one may be; one that does not come to its end in time, or of which nothing comes for a while, gives its room up.
//! Does not know: what is in them.

use std::net::IpAddr;
use std::time::Duration;

use coordinator_protocol::SET_WATCHES_BYTES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::seldom::Seldom;

/// Frames of the greatest size that are read at a time; of smaller ones there are more.
pub const LARGEST_FRAMES_MAX: usize = 4;
/// Room is given out in parts of so many bytes.
const PART_BYTES: usize = 64 << 10;
/// A frame has the time of its beginning once more for so many bytes: who sends half a megabyte each second is in time.
const BYTES_PER_TIME: usize = 16 << 20;

/// How long a frame is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For all of it; a very large one has more.
    pub whole: Duration,
    /// For the next byte.
    pub silence: Duration,
}

/// All room.
pub struct LargeFrames {
    parts: Semaphore,
    patience: Patience,
    given_up: Seldom,
}

/// One frame's, given back when it is dropped.
pub struct LargeFrame<'a> {
    until: Instant,
    silence: Duration,
    _room: SemaphorePermit<'a>,
}

impl LargeFrame<'_> {
    /// When more of it has to be there.
    pub fn due(&self) -> Instant {
        self.until.min(Instant::now() + self.silence)
    }
}

impl LargeFrames {
    /// Room for [`LARGEST_FRAMES_MAX`] of the largest frames.
    pub fn new(patience: Patience) -> LargeFrames {
        let parts = LARGEST_FRAMES_MAX * SET_WATCHES_BYTES_MAX.div_ceil(PART_BYTES);
        LargeFrames { parts: Semaphore::new(parts), patience, given_up: Seldom::default() }
    }

    /// Waits for room for a frame of so many bytes, behind those who asked before. No frame is larger than all room.
    pub async fn take(&self, bytes: usize) -> Option<LargeFrame<'_>> {
        let parts = u32::try_from(bytes.div_ceil(PART_BYTES)).ok()?;
        let room = self.parts.acquire_many(parts).await.ok()?;
        let times = u32::try_from(bytes.div_ceil(BYTES_PER_TIME)).unwrap_or(u32::MAX);
        let Patience { whole, silence } = self.patience;
        let until = Instant::now() + whole.saturating_mul(times);
        Some(LargeFrame { until, silence, _room: room })
    }

    /// More of a frame was due and is not there.
    pub fn tell_late(&self, from: IpAddr) {
        debug!(%from, "a large request does not come to its end");
        if let Some(requests) = self.given_up.count() {
            warn!(
                %from, requests,
                "a large request does not come to its end: its connection is closed, because others wait for its room, one of so \
                 many since the last such line"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(whole: Duration, silence: Duration) -> LargeFrames {
        LargeFrames::new(Patience { whole, silence })
    }

    #[tokio::test]
    async fn room_is_shared_by_bytes_and_given_back() {
        let frames = with(Duration::from_secs(1), Duration::from_secs(1));
        let mut taken = Vec::new();
        for _ in 1..LARGEST_FRAMES_MAX {
            taken.push(frames.take(SET_WATCHES_BYTES_MAX).await);
        }
        for _ in 0..2 {
            taken.push(frames.take(SET_WATCHES_BYTES_MAX / 2).await);
        }
        let waits = tokio::time::timeout(Duration::from_millis(5), frames.take(1));
        assert!(waits.await.is_err());
        taken.pop();
        assert!(frames.take(SET_WATCHES_BYTES_MAX / 2).await.is_some());
    }

    #[tokio::test]
    async fn larger_frames_have_more_time() {
        let time = Duration::from_secs(1_000);
        let frames = with(time, 9 * time);
        for (bytes, times) in [(1, 1), (BYTES_PER_TIME, 1), (BYTES_PER_TIME + 1, 2)] {
            let until = Instant::now() + time * times;
            let given = frames.take(bytes).await.unwrap().due();
            assert!(until <= given && given < until + time, "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn next_byte_is_due_before_the_end() {
        let (whole, silence) = (Duration::from_secs(1_000), Duration::from_secs(5));
        let (frames, began) = (with(whole, silence), Instant::now());
        let due = frames.take(1).await.unwrap().due();
        assert!(began + silence <= due && due < began + whole);
    }
}
