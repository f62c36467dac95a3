//! What a request yields: an answer made of bytes and file ranges, now or later.
//!
//! Called by: `api` (builds answers), `net` (sends them). Invariant: a [`Response`] is a whole frame;
//! one request yields exactly one [`Dispatch`]. Knows neither Kafka nor sockets, so that `api` and
//! `net` need not know each other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use coordinator_disk::File;

/// A run of bytes of a response.
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// `length` bytes of `file` from byte `position`, sent without a copy through user space where
    /// the kernel can. The file must not shrink below `position + length` while this is held.
    File {
        /// The open file.
        file: Arc<dyn File>,
        /// First byte to send.
        position: u64,
        /// Bytes to send.
        length: usize,
    },
}

impl Piece {
    /// Bytes that this piece puts on the wire.
    pub fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File { length, .. } => *length,
        }
    }
}

/// A whole response frame, its 4-byte length included, in wire order.
#[derive(Default)]
pub struct Response {
    pieces: Vec<Piece>,
}

impl Response {
    /// A response that is in memory as a whole.
    pub fn from_bytes(frame: Bytes) -> Self {
        Self { pieces: vec![Piece::Bytes(frame)] }
    }

    /// A response made of `pieces`, in wire order.
    pub fn from_pieces(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    /// Bytes of memory that this response holds (file ranges hold none).
    pub fn bytes_held(&self) -> usize {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::File { .. } => 0,
            })
            .sum()
    }

    /// Consumes the response into its pieces.
    pub fn into_pieces(self) -> Vec<Piece> {
        self.pieces
    }
}

/// How a request ends.
pub enum Answer {
    /// Send this frame.
    Respond(Response),
    /// The request wants no answer (acks=0).
    Nothing,
    /// Close the connection once every earlier answer has left; the reason goes to the debug log.
    Close(&'static str),
}

/// An answer that becomes ready later. Dropping it gives the request up.
pub type LaterAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What dispatching one frame yielded.
pub enum Dispatch {
    /// The answer is known already.
    Now(Answer),
    /// The request has been taken in (its order against later frames is fixed); the answer follows.
    Later(LaterAnswer),
}

impl Dispatch {
    /// Responds with `frame` at once.
    pub fn respond(frame: Bytes) -> Self {
        Self::Now(Answer::Respond(Response::from_bytes(frame)))
    }

    /// Closes the connection after the answers before this one.
    pub fn close(reason: &'static str) -> Self {
        Self::Now(Answer::Close(reason))
    }
}
