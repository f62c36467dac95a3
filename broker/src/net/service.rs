//! The seam between a connection and whoever answers its requests.
//!
//! Called by: `connection` and `listener`; implemented by the server's start. Invariant: answers
//! leave in dispatch order, whatever the order in which they become ready. Does not know Kafka: a
//! frame is bytes.

use std::net::SocketAddr;

use bytes::BytesMut;

use crate::response::Dispatch;

/// The owner of a listener's requests.
pub trait Service: Send + Sync + 'static {
    /// State that lives as long as one connection.
    type Session: Send + 'static;

    /// A connection from `peer` to the bound address `local` was accepted.
    fn open(&self, peer: SocketAddr, local: SocketAddr) -> Self::Session;

    /// Takes in one frame (without its length). Runs on the reactor, in the order of the frames:
    /// must not block. What needs order (an append) is submitted before this returns.
    fn dispatch(&self, session: &mut Self::Session, frame: BytesMut) -> Dispatch;
}
