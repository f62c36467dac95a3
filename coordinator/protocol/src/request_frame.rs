//! Frames of requests: how large one may be depends on what it asks for.
//!
//! Called by: the server's sockets, once a session is open. Calls: `frame`.
//! Invariant: a frame above the usual limit is taken only if it sets watches again, and then up to a limit of its own.
//! It does not know what is inside, beyond the operation.

use bytes::{Bytes, BytesMut};

use crate::frame::{FRAME_BYTES_MAX, FrameError, decode_frame};
use crate::op_code::OpCode;

/// The largest setWatches or setWatches2 that is taken, in bytes, without the length prefix. Clients collect their watches
/// one by one, and some name them all in one request when they reconnect: what is refused then is refused for
/// ever, at every server. As much as one connection may watch.
pub const SET_WATCHES_BYTES_MAX: usize = 64 << 20;

/// Length prefix, xid and operation.
const HEAD_BYTES: usize = 12;

/// [`decode_request_frame_within`] the limit that servers have by default, [`FRAME_BYTES_MAX`].
///
/// # Errors
/// [`FrameError`]: close the connection.
pub fn decode_request_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    decode_request_frame_within(buffer, FRAME_BYTES_MAX)
}

/// Takes the frame of one request off the front of `buffer`, as [`decode_frame`] does: up to `limit` bytes, and up to
/// [`SET_WATCHES_BYTES_MAX`] where they set watches again.
///
/// # Errors
/// [`FrameError`]: close the connection.
pub fn decode_request_frame_within(
    buffer: &mut BytesMut,
    limit: usize,
) -> Result<Option<Bytes>, FrameError> {
    match length_above(buffer, limit) {
        None => decode_frame(buffer, limit),
        Some(length) if length > SET_WATCHES_BYTES_MAX => {
            Err(FrameError::TooLong { length, limit: SET_WATCHES_BYTES_MAX.max(limit) })
        }
        Some(length) => match operation(buffer) {
            None => Ok(None),
            Some(OpCode::SetWatches | OpCode::SetWatches2) => {
                decode_frame(buffer, SET_WATCHES_BYTES_MAX)
            }
            Some(_) => Err(FrameError::TooLong { length, limit }),
        },
    }
}

/// How long the frame at the front is, or says that it will be, if that is above [`FRAME_BYTES_MAX`]: few of them should be read
/// at a time.
#[must_use]
pub fn large_frame_bytes(buffer: &[u8]) -> Option<usize> {
    length_above(buffer, FRAME_BYTES_MAX)
}

fn length_above(buffer: &[u8], limit: usize) -> Option<usize> {
    let length = i32::from_be_bytes(*buffer.first_chunk()?);
    usize::try_from(length).ok().filter(|length| *length > limit)
}

fn operation(buffer: &[u8]) -> Option<OpCode> {
    let head: &[u8; HEAD_BYTES] = buffer.first_chunk()?;
    let (_, code) = head.split_last_chunk()?;
    Some(OpCode::from_code(i32::from_be_bytes(*code)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Xid;
    use crate::request::{Request, SetWatchesRequest, encode_request};

    fn set_watches(bytes: usize) -> BytesMut {
        // Header, relative zxid, five counts, and the length of the only path.
        let path = "x".repeat(bytes - 8 - 8 - 5 * 4 - 4);
        let watches = SetWatchesRequest { data_watches: vec![path], ..Default::default() };
        let frame = encode_request(Xid::SET_WATCHES, &Request::SetWatches2(watches));
        assert_eq!(frame.len(), 4 + bytes);
        BytesMut::from(&frame[..])
    }

    #[test]
    fn watches_are_set_again_by_a_frame_up_to_a_limit_of_their_own() {
        for bytes in [FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, SET_WATCHES_BYTES_MAX] {
            let frame = decode_request_frame(&mut set_watches(bytes)).unwrap().unwrap();
            assert_eq!(frame.len(), bytes);
        }
        let length = SET_WATCHES_BYTES_MAX + 1;
        let error = FrameError::TooLong { length, limit: SET_WATCHES_BYTES_MAX };
        assert_eq!(decode_request_frame(&mut set_watches(length)), Err(error));
    }

    #[test]
    fn any_other_request_has_the_usual_limit() {
        let mut above = set_watches(FRAME_BYTES_MAX + 1);
        above[8..12].copy_from_slice(&OpCode::SetData.code().to_be_bytes());
        let length = FRAME_BYTES_MAX + 1;
        let error = FrameError::TooLong { length, limit: FRAME_BYTES_MAX };
        assert_eq!(decode_request_frame(&mut above), Err(error));
        let mut at = set_watches(FRAME_BYTES_MAX);
        at[8..12].copy_from_slice(&OpCode::SetData.code().to_be_bytes());
        assert!(decode_request_frame(&mut at).unwrap().is_some());
    }

    #[test]
    fn limit_of_other_requests_may_be_another_and_watches_keep_theirs() {
        let set_data = |bytes: usize| {
            let mut frame = set_watches(bytes);
            frame[8..12].copy_from_slice(&OpCode::SetData.code().to_be_bytes());
            frame
        };
        for limit in [1_024, 3 << 20] {
            let at = decode_request_frame_within(&mut set_data(limit), limit);
            assert_eq!(at.unwrap().unwrap().len(), limit);
            let above = decode_request_frame_within(&mut set_data(limit + 1), limit);
            assert_eq!(above, Err(FrameError::TooLong { length: limit + 1, limit }));
            let watches = decode_request_frame_within(&mut set_watches(4 << 20), limit);
            assert_eq!(watches.unwrap().unwrap().len(), 4 << 20);
        }
    }

    #[test]
    fn large_frame_that_is_not_whole_needs_more_bytes() {
        let whole = set_watches(FRAME_BYTES_MAX + 1);
        for length in [0, 3, 4, 11, 12, FRAME_BYTES_MAX, whole.len() - 1] {
            let mut buffer = BytesMut::from(&whole[..length]);
            assert_eq!(decode_request_frame(&mut buffer), Ok(None), "{length} bytes");
            assert_eq!(large_frame_bytes(&buffer), (length >= 4).then_some(FRAME_BYTES_MAX + 1));
        }
        let mut negative = BytesMut::from(&[0xff; 12][..]);
        assert_eq!(decode_request_frame(&mut negative), Err(FrameError::Negative { length: -1 }));
    }
}
