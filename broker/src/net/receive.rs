//! Cuts request frames out of recycled buffers.
//!
//! Called by: `connection`. Invariant: a frame is handed out as the only handle to its bytes, so
//! its owner may patch them in place; memory grows with the bytes that arrived (or with frames
//! that this peer has sent before), never with a declared length alone. Nothing is zeroed.
//!
//! ```text
//! allocation: [ frame handed out | frame handed out | bytes (partial frame) | spare ]
//! ```

use std::collections::VecDeque;

use bytes::buf::Limit;
use bytes::{Buf, BufMut, BytesMut};

/// Length prefix of a frame.
const PREFIX_BYTES: usize = 4;
/// Capacity of a buffer for small frames.
const CHUNK_BYTES: usize = 64 << 10;
/// Spare room under which the next buffer is taken rather than reading in crumbs.
const SPARE_BYTES_MIN: usize = 4 << 10;
/// A peer that sends frames above this gets each in its own buffer, read exactly to its end.
const LARGE_FRAME_BYTES: usize = 48 << 10;
/// First read where large frames are expected: what it reads past a frame's end is copied.
const FIRST_READ_BYTES: usize = 8 << 10;
/// Buffers kept for reuse while their frames are still in use elsewhere.
const SPENT_BUFFERS_MAX: usize = 8;

/// Why a peer's bytes cannot be a frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is zero or negative.
    #[error("frame length {0} is not positive")]
    NotPositive(i32),
    /// The length is above the limit.
    #[error("frame length {length} is above the limit {limit}")]
    TooLong {
        /// What the peer declared.
        length: i32,
        /// socket.request.max.bytes.
        limit: usize,
    },
}

/// The receive side of one connection.
pub struct ReceiveBuffer {
    bytes: BytesMut,
    /// Empty handles to allocations whose frames may still be in use; reclaimed when they are not.
    spent: VecDeque<BytesMut>,
    /// Decaying maximum of the whole frames (with prefix) that this peer has sent.
    frame_bytes_seen: usize,
    frame_bytes_max: usize,
}

impl ReceiveBuffer {
    /// An empty buffer for frames of at most `frame_bytes_max` bytes, prefix excluded.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            spent: VecDeque::new(),
            frame_bytes_seen: 0,
            frame_bytes_max,
        }
    }

    /// Cuts the next whole frame, without its prefix; `None` if more bytes are needed.
    ///
    /// # Errors
    /// The prefix cannot be a frame's: the connection must close.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let Some(total) = self.frame_total()? else { return Ok(None) };
        if self.bytes.len() < total {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(total);
        frame.advance(PREFIX_BYTES);
        self.frame_bytes_seen = total.max(self.frame_bytes_seen - self.frame_bytes_seen / 8);
        Ok(Some(frame))
    }

    /// Bytes that arrived and are not cut yet.
    pub fn partial_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Room for the next read.
    ///
    /// # Errors
    /// As [`Self::next_frame`].
    pub fn spare(&mut self) -> Result<Limit<&mut BytesMut>, FrameError> {
        let total = self.frame_total()?;
        let wanted = match total {
            Some(total) if total > LARGE_FRAME_BYTES => total - self.bytes.len(),
            _ if self.frame_bytes_seen > LARGE_FRAME_BYTES => FIRST_READ_BYTES,
            _ => CHUNK_BYTES,
        };
        let spare = self.bytes.capacity() - self.bytes.len();
        if spare < wanted.min(SPARE_BYTES_MIN) {
            self.grow(total);
        }
        Ok((&mut self.bytes).limit(wanted))
    }

    /// Gives memory back while the peer is quiet.
    pub fn release(&mut self) {
        self.spent.clear();
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.frame_bytes_seen = 0;
        }
    }

    /// Moves the partial frame into a buffer with room for `total`, or as much of it as this peer
    /// has earned.
    fn grow(&mut self, total: Option<usize>) {
        let arrived = self.bytes.len();
        let earned = self.frame_bytes_seen.max(2 * arrived).max(CHUNK_BYTES);
        let capacity =
            total.map_or(earned, |total| total.min(earned)).max(arrived + SPARE_BYTES_MIN);
        if self.bytes.try_reclaim(capacity - arrived) {
            return;
        }
        let mut fresh = self.recycled(capacity);
        fresh.extend_from_slice(&self.bytes);
        let mut old = std::mem::replace(&mut self.bytes, fresh);
        old.clear();
        if self.spent.len() < SPENT_BUFFERS_MAX {
            self.spent.push_back(old);
        }
    }

    fn recycled(&mut self, capacity: usize) -> BytesMut {
        for _ in 0..self.spent.len() {
            let Some(mut buffer) = self.spent.pop_front() else { break };
            if buffer.try_reclaim(capacity) {
                return buffer;
            }
            self.spent.push_back(buffer);
        }
        if self.spent.len() == SPENT_BUFFERS_MAX {
            // All are in use or too small: keep the newer half, so that sizes can adapt.
            self.spent.drain(..SPENT_BUFFERS_MAX / 2);
        }
        BytesMut::with_capacity(capacity)
    }

    /// Whole length of the frame at the front, prefix included, once the prefix is there.
    fn frame_total(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let Some(bytes) = usize::try_from(length).ok().filter(|bytes| *bytes > 0) else {
            return Err(FrameError::NotPositive(length));
        };
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLong { length, limit: self.frame_bytes_max });
        }
        Ok(Some(bytes + PREFIX_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(buffer: &mut ReceiveBuffer, mut wire: &[u8]) -> Result<Vec<BytesMut>, FrameError> {
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = buffer.next_frame()? {
                frames.push(frame);
            }
            if wire.is_empty() {
                return Ok(frames);
            }
            let mut spare = buffer.spare()?;
            let step = wire.len().min(spare.remaining_mut()).min(5_000);
            assert!(step > 0, "spare must offer room");
            spare.put_slice(&wire[..step]);
            wire = &wire[step..];
        }
    }

    fn frame(length: usize, fill: u8) -> Vec<u8> {
        let mut wire = i32::try_from(length).expect("small").to_be_bytes().to_vec();
        wire.resize(length + 4, fill);
        wire
    }

    #[test]
    fn frames_of_all_sizes_come_back_whole_and_in_order() {
        let mut buffer = ReceiveBuffer::new(1 << 20);
        let lengths = [1, 4, 70_000, 3, 49_151, 1 << 20, 1 << 20, 5, 65_536, 100];
        let wire: Vec<u8> =
            lengths.iter().zip(1u8..).flat_map(|(length, fill)| frame(*length, fill)).collect();
        let frames = receive(&mut buffer, &wire).expect("valid");
        assert_eq!(frames.len(), lengths.len());
        for ((frame, length), fill) in frames.iter().zip(lengths).zip(1u8..) {
            assert_eq!(frame.len(), length);
            assert!(frame.iter().all(|byte| *byte == fill));
        }
    }

    #[test]
    fn forged_lengths_are_refused_and_the_limit_itself_is_not() {
        for (length, error) in [
            (0, FrameError::NotPositive(0)),
            (-1, FrameError::NotPositive(-1)),
            (i32::MIN, FrameError::NotPositive(i32::MIN)),
            (101, FrameError::TooLong { length: 101, limit: 100 }),
            (i32::MAX, FrameError::TooLong { length: i32::MAX, limit: 100 }),
        ] {
            let mut buffer = ReceiveBuffer::new(100);
            let outcome = receive(&mut buffer, &length.to_be_bytes());
            assert_eq!(outcome.expect_err("refused"), error);
        }
        let mut buffer = ReceiveBuffer::new(100);
        assert_eq!(receive(&mut buffer, &frame(100, 7)).expect("at the limit").len(), 1);
    }

    #[test]
    fn declared_length_alone_reserves_little() {
        let mut buffer = ReceiveBuffer::new(100 << 20);
        let declared = (100i32 << 20).to_be_bytes();
        assert!(receive(&mut buffer, &declared).expect("partial").is_empty());
        buffer.spare().expect("room");
        assert!(buffer.bytes.capacity() <= CHUNK_BYTES, "{}", buffer.bytes.capacity());
    }

    #[test]
    fn buffers_of_dropped_frames_are_reused() {
        let mut buffer = ReceiveBuffer::new(1 << 20);
        let wire = frame(500_000, 1);
        let mut addresses = std::collections::BTreeSet::new();
        for round in 0..64 {
            let frames = receive(&mut buffer, &wire).expect("valid");
            if round >= 4 {
                addresses.insert(frames[0].as_ptr() as usize);
            }
        }
        assert!(addresses.len() <= 3, "{} allocations", addresses.len());
    }
}
