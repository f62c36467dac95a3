//! Cuts a byte stream into frames, and holds one that is ready to send.
//!
//! *Called by* the connections of broker and client. *Calls* `writer`.
//!
//! A frame is a 4-byte length (i32, not counting itself) and that many bytes. Positions in a decoded frame
//! count from the byte after the length; positions in an [`EncodedFrame`] count from the length's first byte.

use bytes::{Buf, Bytes, BytesMut};

use crate::writer::{EncodeError, Splice, Writer};

/// Bytes of the length in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// The largest request a broker takes unless told otherwise (`socket.request.max.bytes`).
pub const FRAME_BYTES_MAX: usize = 100 << 20;

/// The smallest frame that can be a request: key, version, correlation id.
pub const FRAME_BYTES_MIN: usize = 8;

/// The declared length is impossible: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {declared} bytes, allowed are {min} to {max}")]
pub struct FrameError {
    /// The length that was declared.
    pub declared: i32,
    /// The smallest allowed.
    pub min: usize,
    /// The largest allowed.
    pub max: usize,
}

/// The length of the frame that `stream` begins with, without the four bytes themselves; `Ok(None)` when fewer
/// than four bytes are there. For a request pass [`FRAME_BYTES_MIN`]; a response has at least 4 bytes.
///
/// # Errors
/// [`FrameError`] for a length outside `min..=max`.
pub fn frame_length(stream: &[u8], min: usize, max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = stream.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let declared = i32::from_be_bytes(*prefix);
    match usize::try_from(declared) {
        Ok(length) if (min..=max).contains(&length) => Ok(Some(length)),
        _ => Err(FrameError { declared, min, max }),
    }
}

/// Takes the first whole frame off `stream`, without its length; `Ok(None)` when more bytes are needed.
///
/// The frame stays in the memory it was received into and is the only handle on it, so that records can be
/// patched in place.
///
/// # Errors
/// [`FrameError`] for a length outside `min..=max`.
pub fn split_frame(
    stream: &mut BytesMut,
    min: usize,
    max: usize,
) -> Result<Option<BytesMut>, FrameError> {
    let Some(length) = frame_length(stream, min, max)? else { return Ok(None) };
    if stream.len().saturating_sub(LENGTH_BYTES) < length {
        return Ok(None);
    }
    stream.advance(LENGTH_BYTES);
    Ok(Some(stream.split_to(length)))
}

/// A frame ready to send, its length in front: `bytes`, with records of the caller's between them.
///
/// ```text
/// bytes:   [length header field field | field field | field]
/// splices:                            ^ records     ^ records   (position counts in `bytes`)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedFrame {
    /// All that the codec wrote.
    pub bytes: Bytes,
    /// Where records of the caller's go, ascending; empty for a frame that is sent as it is.
    pub splices: Vec<Splice>,
}

impl EncodedFrame {
    /// Writes the length in front of what the writer holds.
    pub(crate) fn from_writer(writer: Writer) -> Result<Self, EncodeError> {
        let length = writer.length().saturating_sub(LENGTH_BYTES);
        let prefix = i32::try_from(length).map_err(|_| EncodeError::TooLong(length))?;
        let (mut bytes, splices) = writer.into_parts();
        if let Some(front) = bytes.first_chunk_mut::<LENGTH_BYTES>() {
            *front = prefix.to_be_bytes();
        }
        Ok(Self { bytes: bytes.freeze(), splices })
    }

    /// Bytes on the socket: the length in front, and the records spliced in.
    #[must_use]
    pub fn length(&self) -> usize {
        let spliced = self.splices.iter().map(|splice| splice.length).sum::<usize>();
        self.bytes.len().saturating_add(spliced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_length_is_checked_at_its_limits() {
        let check = |declared: i32, expected: Result<Option<usize>, ()>| {
            let result = frame_length(&declared.to_be_bytes(), 8, 100).map_err(|_| ());
            assert_eq!(result, expected, "{declared}");
        };
        check(8, Ok(Some(8)));
        check(100, Ok(Some(100)));
        for declared in [i32::MIN, -1, 0, 1, 7, 101, i32::MAX] {
            check(declared, Err(()));
        }
        assert_eq!(frame_length(&[0, 0, 0], 8, 100), Ok(None));
    }

    #[test]
    fn frames_are_split_off_whole() {
        let mut stream = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\x03cd"[..]);
        assert_eq!(split_frame(&mut stream, 1, 9).unwrap().unwrap(), &b"ab"[..]);
        assert_eq!(split_frame(&mut stream, 1, 9), Ok(None));
        stream.extend_from_slice(b"e");
        assert_eq!(split_frame(&mut stream, 1, 9).unwrap().unwrap(), &b"cde"[..]);
        assert_eq!(split_frame(&mut stream, 1, 9), Ok(None));
    }
}
