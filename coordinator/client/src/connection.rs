//! One socket to one server: frames in, bytes out.
//!
//! Called by: `driver`. Calls: the network.
//! Invariant: reading is cancel-safe; a frame that was not returned is still in the buffer.
//! It does not know what the frames mean, after the handshake.

use crate::tls::{Stream, Tls, TlsFailure, host_of};
use bytes::{Bytes, BytesMut};
use coordinator_protocol::{ConnectResponse, DecodeError, FrameError, decode_frame};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout_at};

/// The largest frame that is taken from a server, in bytes: a listing of very many children, or a
/// chunk of a subscription.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a server cannot be reached, or no more.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no encrypted connection: {0}")]
    Tls(TlsFailure),
    #[error("the server closed the connection")]
    ClosedByServer,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The handshake was sent and may still be answered. Whoever holds the session must not close
    /// this before it has another connection.
    #[error("no answer to the handshake within {0:?}")]
    Unanswered(Duration, Box<Connection>),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the handshake cannot be read: {0}")]
    Handshake(#[from] DecodeError),
}

impl ConnectionError {
    /// Whether the server went without a word.
    pub(crate) fn is_hang_up(&self) -> bool {
        match self {
            Self::ClosedByServer => true,
            // So it looks where it had not read what was sent to it.
            Self::Io(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) reader: FrameReader,
    pub(crate) writer: WriteHalf<Stream>,
}

/// The handshake's answer, and when the question was asked.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) response: ConnectResponse,
    pub(crate) asked_at: Instant,
}

impl Connection {
    /// Connects to `address` and shakes hands, all within `limit`.
    pub(crate) async fn open(
        address: &str,
        tls: Option<&Tls>,
        request: Bytes,
        limit: Duration,
    ) -> Result<(Self, Shaken), ConnectionError> {
        let opened = Self::open_any(address, tls, request, limit).await;
        // A server that does not like our certificate says so only when it should answer.
        let failure = |error: &ConnectionError| match (error, tls) {
            (ConnectionError::Io(error), Some(tls)) => TlsFailure::of(error, host_of(address), tls),
            _ => None,
        };
        opened.map_err(|error| failure(&error).map_or(error, ConnectionError::Tls))
    }

    async fn open_any(
        address: &str,
        tls: Option<&Tls>,
        request: Bytes,
        limit: Duration,
    ) -> Result<(Self, Shaken), ConnectionError> {
        let until = Instant::now() + limit;
        let stream = match timeout_at(until, Stream::connect(address, tls)).await {
            Ok(connected) => connected?,
            Err(_) => return Err(ConnectionError::TimedOut(limit)),
        };
        let (reader, writer) = tokio::io::split(stream);
        let reader = FrameReader { half: reader, buffer: BytesMut::new() };
        let mut connection = Self { reader, writer };
        let shaken = timeout_at(until, connection.shake_hands(&request)).await;
        match shaken {
            Ok(shaken) => Ok((connection, shaken?)),
            Err(_) => Err(ConnectionError::Unanswered(limit, Box::new(connection))),
        }
    }

    async fn shake_hands(&mut self, request: &[u8]) -> Result<Shaken, ConnectionError> {
        let asked_at = Instant::now();
        self.writer.write_all(request).await?;
        let response = ConnectResponse::decode_frame(self.reader.next().await?)?;
        Ok(Shaken { response, asked_at })
    }
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct FrameReader {
    half: ReadHalf<Stream>,
    buffer: BytesMut,
}

impl FrameReader {
    /// The next frame's content. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Bytes, ConnectionError> {
        loop {
            if let Some(frame) = decode_frame(&mut self.buffer, ANSWER_BYTES_MAX)? {
                return Ok(frame);
            }
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(ConnectionError::ClosedByServer);
            }
        }
    }
}
