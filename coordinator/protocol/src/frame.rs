//! Frames: a 4-byte big-endian length and that many bytes.
//!
//! Called by: the sockets of the server and of the client. Calls: `jute`.
//! Invariant: a frame is handed on whole or not at all, and one above the limit never reaches memory.
//! It does not know what is inside.

use crate::jute::{Record, Writer};
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The default of ZooKeeper's `jute.maxbuffer`: the largest frame that is taken from a client, in bytes, without the
/// length prefix. What a server sends may be larger, and so may what sets watches again.
pub const FRAME_BYTES_MAX: usize = 0xf_ffff;

const PREFIX_BYTES: usize = 4;

/// Why the connection can go on no further: what follows cannot be found any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("negative frame length {length}")]
    Negative {
        /// What the wire said.
        length: i32,
    },
    /// The frame is larger than the reader takes.
    #[error("frame of {length} bytes, at most {limit} are taken")]
    TooLong {
        /// What the wire said.
        length: usize,
        /// The reader's limit.
        limit: usize,
    },
}

/// Takes one whole frame (without its length prefix) off the front of `buffer`; `Ok(None)` means that
/// more bytes are needed. A frame of `limit` bytes is taken, one of `limit + 1` is not.
///
/// # Errors
/// [`FrameError`]: close the connection.
pub fn decode_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(*prefix);
    let Ok(length) = usize::try_from(length) else { return Err(FrameError::Negative { length }) };
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if buffer.len().saturating_sub(PREFIX_BYTES) < length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Builds one frame: records are added, the length prefix is put in at the end.
#[derive(Debug)]
pub struct FrameWriter {
    writer: Writer,
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameWriter {
    /// A frame with nothing inside.
    #[must_use]
    pub fn new() -> Self {
        let mut writer = Writer::new();
        0i32.encode(&mut writer);
        Self { writer }
    }

    /// Adds a record.
    pub fn put(&mut self, record: &impl Record) {
        record.encode(&mut self.writer);
    }

    /// The place of the records, for what is no [`Record`].
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The whole frame with its length prefix.
    #[must_use]
    pub fn finish(self) -> Bytes {
        let mut buffer = self.writer.into_buffer();
        let length = buffer.len().saturating_sub(PREFIX_BYTES);
        let length = i32::try_from(length).expect("we never build a frame of 2 GiB");
        if let Some(prefix) = buffer.first_chunk_mut::<PREFIX_BYTES>() {
            *prefix = length.to_be_bytes();
        }
        buffer.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_frame_needs_more_bytes() {
        let mut frame = FrameWriter::new();
        frame.put(&7i32);
        let frame = frame.finish();
        for length in 0..frame.len() {
            let mut buffer = BytesMut::from(&frame[..length]);
            assert_eq!(decode_frame(&mut buffer, 16), Ok(None));
            assert_eq!(buffer.len(), length);
        }
        let mut buffer = BytesMut::from(&frame[..]);
        buffer.extend_from_slice(&[0, 0]);
        assert_eq!(decode_frame(&mut buffer, 16), Ok(Some(Bytes::from_static(&[0, 0, 0, 7]))));
        assert_eq!(buffer.len(), 2);
    }

    #[test]
    fn frame_at_the_limit_is_taken_and_one_above_is_not() {
        let mut at = BytesMut::from(&[0, 0, 0, 2, 1, 1][..]);
        assert_eq!(decode_frame(&mut at, 2), Ok(Some(Bytes::from_static(&[1, 1]))));
        let mut above = BytesMut::from(&[0, 0, 0, 3][..]);
        let error = FrameError::TooLong { length: 3, limit: 2 };
        assert_eq!(decode_frame(&mut above, 2), Err(error));
        let mut negative = BytesMut::from(&[0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(decode_frame(&mut negative, 2), Err(FrameError::Negative { length: -1 }));
    }
}
