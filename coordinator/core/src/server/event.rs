//! What happens to a server: everything that can make it do something.
//!
//! Called by the shell (`coordinator/src`) and the simulator, which build these; taken apart by
//! [`super::Server::step`]. Invariant: an event carries data, never a handle: connections, peers
//! and writes are named by ids. It does not know sockets, files or clocks.

use bytes::Bytes;
use coordinator_protocol::{ConnectRequest, DecodeError, Request, RequestHeader};

use crate::consensus::{PersistId, SnapshotImage};
use crate::{ConnectionId, ServerId};

/// Something that happened outside of the core.
///
/// Events of one connection must be given in the order in which they happened on its socket;
/// messages of one peer in the order in which that peer sent them.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client sent its handshake. `connection` is new and never used again by this process.
    /// Nothing more is to be read from it before [`super::Effect::Reading`] says so.
    Connect {
        /// Name of the connection in all later events and effects.
        connection: ConnectionId,
        /// Where the client comes from: an IP address as text, without its port.
        address: String,
        /// The subject of the certificate that it has proved to be its own, if it has shown one.
        certificate: Option<String>,
        /// The decoded handshake.
        request: ConnectRequest,
        /// Fresh secret random bytes: 16 for the password of a new session, 8 that make the
        /// connection unique over restarts.
        entropy: [u8; 24],
    },
    /// A client sent a request. If it was read before the handshake was answered, it waits.
    Request {
        /// Where it came from.
        connection: ConnectionId,
        /// Its header.
        header: RequestHeader,
        /// What `coordinator_protocol::decode_request` made of its body.
        request: Result<Request, DecodeError>,
    },
    /// The socket is gone. Not to be given after [`super::Effect::Close`] for the same connection
    /// (it is ignored then).
    Disconnected {
        /// Which connection.
        connection: ConnectionId,
        /// True if the end-of-file or reset came from the peer (safety.md A6); false for all
        /// closing done by this process, time-outs of the shell included.
        by_peer: bool,
    },
    /// The shell crossed a mark of its outbound buffer for this connection: `true` when more than
    /// its high mark is unsent, `false` when it fell below the low mark again.
    Backlogged {
        /// Which connection.
        connection: ConnectionId,
        /// True: do not produce more than must be; false: go on.
        backlogged: bool,
    },
    /// A message of another member of the ensemble, whose identity the shell has checked.
    PeerMessage {
        /// Who sent it.
        from: ServerId,
        /// What [`super::Effect::SendPeer`] carried there.
        bytes: Bytes,
    },
    /// The ordered stream with this peer works (again). Everything sent to it before is lost or
    /// was delivered; nothing of it will come later.
    PeerUp {
        /// Which peer.
        peer: ServerId,
    },
    /// The ordered stream with this peer ended: end-of-file, reset, or given up. A process that is
    /// killed shows itself this way at once, and the ensemble elects without waiting.
    PeerLost {
        /// Which peer.
        peer: ServerId,
    },
    /// The write of this [`super::Effect::Persist`], and all with smaller ids, are on disk.
    Persisted {
        /// The greatest id that is durable.
        id: PersistId,
    },
    /// A write or its sync failed. The server stops being a voter for good.
    PersistFailed {
        /// The id that failed.
        id: PersistId,
    },
    /// The snapshot of [`super::Effect::SaveSnapshot`] is on disk under its final name.
    SnapshotSaved {
        /// Log index of the snapshot.
        index: u64,
        /// What was written, where the effect asked for it.
        image: Option<SnapshotImage>,
    },
    /// The snapshot could not be written. The log is kept, a later one is tried.
    SnapshotFailed {
        /// Log index of the snapshot.
        index: u64,
    },
    /// The disk of log and snapshots was measured.
    DiskRoom {
        /// Bytes that this process may still write to it.
        free_bytes: u64,
    },
    /// An operator wants a snapshot of what is applied now. If one is on its way, another follows it.
    TakeSnapshot,
    /// Time passed: [`super::Server::next_deadline`] is due. Harmless at any other time.
    Tick,
    /// The process is asked to end: a leader hands its office to the most advanced follower.
    /// Connections stay; the shell closes them when it ends.
    Resign,
}
