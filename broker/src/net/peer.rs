//! An outgoing connection to another broker: requests out, responses back, one kind of frame each.
//!
//! Called by: follower fetchers, forwarding to the controller. Invariant: responses are matched to
//! requests in order; after an error the connection is of no use and must be dropped. Does not
//! know what is asked.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client_protocol::messages::{Message, Request};
use client_protocol::{
    CorrelationId, DecodeError, EncodeError, Reader, decode_response_header, encode_request,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::receive::{FrameError, ReceiveBuffer};

/// Requests that may wait for their responses on one connection.
pub const PEER_REQUESTS_IN_FLIGHT_MAX: usize = 16;

/// Why a peer could not be asked. All but `Encode` are worth another try on a new connection.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The socket failed or the peer closed it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer's length is forged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The answer cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer belongs to another request.
    #[error("the answer has correlation id {got}, expected {expected}")]
    OutOfOrder {
        /// In the answer.
        got: CorrelationId,
        /// Of the oldest request.
        expected: CorrelationId,
    },
    /// The request does not fit its version: a bug here.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl PeerError {
    /// The peer, or the system below it, closed an established connection.
    pub fn is_hang_up(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(self, Self::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
    }
}

/// A response, with the frame that its records lie in.
pub struct PeerResponse<M> {
    /// The decoded body; byte ranges in it count in `frame`.
    pub body: M,
    /// The frame: the only handle to its bytes.
    pub frame: BytesMut,
}

/// One connection to one broker.
pub struct PeerConnection {
    stream: TcpStream,
    receive: ReceiveBuffer,
    client_id: String,
    next_correlation_id: i32,
    expected: VecDeque<(CorrelationId, i16)>,
}

impl PeerConnection {
    /// Connects to `host:port` within `timeout`; `client_id` names us in the peer's logs, and
    /// answers may have up to `response_bytes_max` bytes.
    ///
    /// # Errors
    /// Nobody there, or not in time.
    pub async fn connect(
        (host, port): (&str, u16),
        client_id: String,
        response_bytes_max: usize,
        timeout: Duration,
    ) -> Result<Self, PeerError> {
        let connecting = TcpStream::connect((host, port));
        let stream = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| PeerError::TimedOut(timeout))??;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            receive: ReceiveBuffer::new(response_bytes_max),
            client_id,
            next_correlation_id: 0,
            expected: VecDeque::new(),
        })
    }

    /// Requests whose answers have not come.
    pub fn in_flight(&self) -> usize {
        self.expected.len()
    }

    /// Sends a request. Not cancel-safe: a dropped send leaves half a frame, so drop the connection.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), PeerError> {
        assert!(self.expected.len() < PEER_REQUESTS_IN_FLIGHT_MAX, "the caller counts them");
        let correlation_id = CorrelationId::new(self.next_correlation_id);
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = encode_request(correlation_id, Some(&self.client_id), version, request)?;
        assert!(frame.splices.is_empty(), "requests to peers carry no records");
        let bytes: Bytes = frame.bytes;
        self.stream.write_all(&bytes).await?;
        self.expected.push_back((correlation_id, version));
        Ok(())
    }

    /// Waits for the answer to the oldest request. Cancel-safe: what has arrived is kept.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn receive<M: Message>(&mut self) -> Result<PeerResponse<M>, PeerError> {
        let frame = loop {
            if let Some(frame) = self.receive.next_frame()? {
                break frame;
            }
            self.stream.readable().await?;
            let mut spare = self.receive.spare()?;
            match self.stream.try_read_buf(&mut spare) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        };
        let Some((expected, version)) = self.expected.pop_front() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "nothing was asked").into());
        };
        let mut reader = Reader::new(&frame);
        let got = decode_response_header(&mut reader, M::KEY, version)?;
        if got != expected {
            return Err(PeerError::OutOfOrder { got, expected });
        }
        let body = M::decode(&mut reader, version)?;
        Ok(PeerResponse { body, frame })
    }

    /// Sends a request and waits for its answer, both within `timeout`.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<PeerResponse<R::Response>, PeerError> {
        let exchange = async {
            self.send(request, version).await?;
            self.receive().await
        };
        tokio::time::timeout(timeout, exchange).await.map_err(|_| PeerError::TimedOut(timeout))?
    }
}
