//! What a server wants done: the only way in which the core touches the world.
//!
//! Called by every file of `server/`, which push these; carried out by the shell and the
//! simulator in the order given. Invariant: an effect that needs durability is only emitted after
//! the event that proves it; nothing here waits. It does not know how effects are carried out.

use bytes::Bytes;

use super::audit::AuditRecord;
use crate::consensus::{PersistId, PersistWrite};
use crate::members::Members;
use crate::state::FrozenState;
use crate::{ConnectionId, ServerId};

/// Something to be done by the shell, in the order of the list.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a whole frame (4-byte length included) to a client: replies, notifications and
    /// subscription events alike. Frames of one connection keep their order.
    Respond {
        /// To whom.
        connection: ConnectionId,
        /// The frame.
        frame: Bytes,
    },
    /// Send what was given before, then close the socket. The core has forgotten the connection.
    Close {
        /// Which connection.
        connection: ConnectionId,
    },
    /// Stop (`false`) or go on (`true`) reading from this socket: back-pressure. Requests already
    /// read may still be given.
    Reading {
        /// Which connection.
        connection: ConnectionId,
        /// Whether to read.
        on: bool,
    },
    /// Send to another member over the ordered stream; dropped if there is none.
    SendPeer {
        /// To whom.
        to: ServerId,
        /// The message, without framing.
        bytes: Bytes,
    },
    /// Write to the log, and sync, in the order of ids. Answered by `Persisted` (several may be
    /// answered by the last one) or `PersistFailed`.
    Persist {
        /// Consecutive, from 1.
        id: PersistId,
        /// What to write.
        write: PersistWrite,
    },
    /// Encode the state and write it as a snapshot file (temporary name, sync, rename, sync of the
    /// directory), best on a thread of its own: it may be large. Not ordered against `Persist`.
    /// Answered by `SnapshotSaved` or `SnapshotFailed`.
    SaveSnapshot {
        /// What to write.
        state: FrozenState,
        /// Whether to give its bytes back, for a follower. They take as much memory as the file has bytes.
        keep_image: bool,
        /// The disk has little room: no earlier snapshot stays once this one is there.
        makes_room: bool,
    },
    /// A follower waits for the snapshot that is being written: from now on as fast as the disk takes it. Of no meaning
    /// where none is.
    HurrySnapshot,
    /// Write this to the audit log, if there is room for it: nobody waits.
    Audit {
        /// What was done or not.
        record: Box<AuditRecord>,
    },
    /// The servers of the ensemble are these, this one and those that are about to join or to leave included: links go to
    /// and come from all of them. Given only where the log says who they are; before, settings do.
    Members {
        /// With their addresses.
        servers: Members,
        /// Whether this server is one that may serve clients.
        serves: bool,
    },
    /// The server can never vote or answer again in this life; the process should end and say
    /// why. All connections were closed before.
    Halt {
        /// For people.
        reason: &'static str,
    },
}
