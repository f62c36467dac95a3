//! Room for frames above the usual size while they are read.
//!
//! Called by: connections, when such a frame begins. Calls: nothing.
//! Invariant: all such frames that are being read have no more bytes than there is room for, whoever sends them and however
//! large one may be; one that does not come to its end in time gives its room up.
//! Does not know: what is in them.

use std::time::Duration;

use coordinator_protocol::SET_WATCHES_BYTES_MAX;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Frames of the greatest size that are read at a time; of smaller ones there are more.
pub const LARGEST_FRAMES_MAX: usize = 4;
/// Room is given out in parts of so many bytes.
const PART_BYTES: usize = 64 << 10;
/// A frame has the time of its beginning once more for so many bytes: who sends half a megabyte each second is in time.
const BYTES_PER_TIME: usize = 16 << 20;

/// All room.
pub struct LargeFrames {
    parts: Semaphore,
    time: Duration,
}

/// One frame's, given back when it is dropped.
pub struct LargeFrame<'a> {
    /// When it has to be whole.
    pub until: Instant,
    _room: SemaphorePermit<'a>,
}

impl LargeFrames {
    /// Room for [`LARGEST_FRAMES_MAX`] of the largest frames, each of whose parts may take `time`.
    pub fn new(time: Duration) -> LargeFrames {
        let parts = LARGEST_FRAMES_MAX * SET_WATCHES_BYTES_MAX.div_ceil(PART_BYTES);
        LargeFrames { parts: Semaphore::new(parts), time }
    }

    /// Waits for room for a frame of so many bytes, behind those who asked before. No frame is larger than all room.
    pub async fn take(&self, bytes: usize) -> Option<LargeFrame<'_>> {
        let parts = u32::try_from(bytes.div_ceil(PART_BYTES)).ok()?;
        let room = self.parts.acquire_many(parts).await.ok()?;
        let times = u32::try_from(bytes.div_ceil(BYTES_PER_TIME)).unwrap_or(u32::MAX);
        Some(LargeFrame { until: Instant::now() + self.time.saturating_mul(times), _room: room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_shared_by_bytes_and_given_back() {
        let frames = LargeFrames::new(Duration::from_secs(1));
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
        let frames = LargeFrames::new(time);
        for (bytes, times) in [(1, 1), (BYTES_PER_TIME, 1), (BYTES_PER_TIME + 1, 2)] {
            let until = Instant::now() + time * times;
            let given = frames.take(bytes).await.unwrap().until;
            assert!(until <= given && given < until + time, "{bytes} bytes");
        }
    }
}
