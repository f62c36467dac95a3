//! The first frame of each side: opening a session or attaching to it again.
//!
//! Called by: `coordinator` and `coordinator-client`, once per connection.
//! Invariant: the answer carries the read-only flag exactly if the request did; clients older than
//! 3.4 send none and cannot read one.
//! It does not know whether the session exists.

use crate::frame::FrameWriter;
use crate::ids::{SessionId, Zxid};
use crate::jute::{DecodeError, Reader, Record, Writer};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What proves that a client owns a session. It is a secret: it shows in no log.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct SessionPassword(Bytes);

impl SessionPassword {
    /// The length of the passwords that servers make, in bytes.
    pub const BYTES: usize = 16;

    /// A password of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// What a client sends when it has none yet, and a server when the session is over.
    #[must_use]
    pub fn zeros() -> Self {
        Self(Bytes::from_static(&[0; Self::BYTES]))
    }

    /// The secret itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Takes the same time wherever the first difference is.
impl PartialEq for SessionPassword {
    fn eq(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        self.0.len() == other.0.len() && differences == 0
    }
}

impl Eq for SessionPassword {}

impl fmt::Debug for SessionPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionPassword(..)")
    }
}

impl Record for SessionPassword {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self(Option::<Bytes>::decode(reader)?.unwrap_or_default()))
    }

    fn encode(&self, writer: &mut Writer) {
        Some(self.0.clone()).encode(writer);
    }
}

/// The client's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// 0.
    pub protocol_version: i32,
    /// The last write that the client knows of: a server that is behind it must not take it.
    pub last_zxid_seen: Zxid,
    /// The session time-out that the client would like, in milliseconds.
    pub timeout_ms: i32,
    /// The session to attach to, or [`SessionId::NONE`] for a new one.
    pub session: SessionId,
    /// What proves that the session is the client's.
    pub password: SessionPassword,
    /// Whether a server without a quorum will do; `None` when the client is too old to say.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Reads it from a frame's content.
    ///
    /// # Errors
    /// Any [`DecodeError`]: close the connection.
    pub fn decode_frame(frame: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        Ok(Self {
            protocol_version: i32::decode(&mut reader)?,
            last_zxid_seen: Zxid::decode(&mut reader)?,
            timeout_ms: i32::decode(&mut reader)?,
            session: SessionId::decode(&mut reader)?,
            password: SessionPassword::decode(&mut reader)?,
            read_only: decode_flag(&mut reader)?,
        })
    }

    /// The whole frame with its length prefix.
    #[must_use]
    pub fn encode_frame(&self) -> Bytes {
        let mut frame = FrameWriter::new();
        frame.put(&self.protocol_version);
        frame.put(&self.last_zxid_seen);
        frame.put(&self.timeout_ms);
        frame.put(&self.session);
        frame.put(&self.password);
        if let Some(flag) = self.read_only {
            frame.put(&flag);
        }
        frame.finish()
    }
}

/// The server's first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// 0.
    pub protocol_version: i32,
    /// The session time-out that holds, in milliseconds; 0 when the session is over.
    pub timeout_ms: i32,
    /// The session; [`SessionId::NONE`] when it is over.
    pub session: SessionId,
    /// What to show at the next attach.
    pub password: SessionPassword,
    /// Whether the server is without a quorum; `None` exactly if the request had `None`.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// What tells a client that its session is over; the server closes the connection after it.
    #[must_use]
    pub fn session_is_over(read_only: Option<bool>) -> Self {
        Self {
            protocol_version: 0,
            timeout_ms: 0,
            session: SessionId::NONE,
            password: SessionPassword::zeros(),
            read_only: read_only.map(|_| false),
        }
    }

    /// Whether the server says that the session is over.
    #[must_use]
    pub fn is_session_over(&self) -> bool {
        self.timeout_ms <= 0
    }

    /// Reads it from a frame's content.
    ///
    /// # Errors
    /// Any [`DecodeError`]: close the connection.
    pub fn decode_frame(frame: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        Ok(Self {
            protocol_version: i32::decode(&mut reader)?,
            timeout_ms: i32::decode(&mut reader)?,
            session: SessionId::decode(&mut reader)?,
            password: SessionPassword::decode(&mut reader)?,
            read_only: decode_flag(&mut reader)?,
        })
    }

    /// The whole frame with its length prefix.
    #[must_use]
    pub fn encode_frame(&self) -> Bytes {
        let mut frame = FrameWriter::new();
        frame.put(&self.protocol_version);
        frame.put(&self.timeout_ms);
        frame.put(&self.session);
        frame.put(&self.password);
        if let Some(flag) = self.read_only {
            frame.put(&flag);
        }
        frame.finish()
    }
}

/// The one optional field of the protocol: it is there if the frame has not ended before it.
fn decode_flag(reader: &mut Reader) -> Result<Option<bool>, DecodeError> {
    if reader.left() == 0 { Ok(None) } else { bool::decode(reader).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_flag_is_the_last_byte_or_absent() {
        for (read_only, length) in [(None, 44), (Some(false), 45), (Some(true), 45)] {
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: Zxid::new(9),
                timeout_ms: 30_000,
                session: SessionId::new(5),
                password: SessionPassword::new(&b"0123456789abcdef"[..]),
                read_only,
            };
            let frame = request.encode_frame().slice(4..);
            assert_eq!(frame.len(), length);
            assert_eq!(ConnectRequest::decode_frame(frame), Ok(request));
            let over = ConnectResponse::session_is_over(read_only);
            let frame = over.encode_frame().slice(4..);
            assert_eq!(frame.len(), length - 8);
            assert_eq!(ConnectResponse::decode_frame(frame), Ok(over));
        }
    }

    #[test]
    fn passwords_are_equal_only_whole_and_never_shown() {
        let password = SessionPassword::new(&b"secret"[..]);
        assert_eq!(password, SessionPassword::new(&b"secret"[..]));
        assert_ne!(password, SessionPassword::new(&b"secre"[..]));
        assert_ne!(password, SessionPassword::new(&b"secreT"[..]));
        assert_eq!(format!("{password:?}"), "SessionPassword(..)");
    }
}
