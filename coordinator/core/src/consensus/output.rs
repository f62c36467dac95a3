//! What the engine wants done and tells, in order.
//!
//! Called by the engine, which pushes these; taken apart by `server/`. Invariant: `Apply` comes in
//! log order without gaps but for an `Install`, and only for what is committed and durable here.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::contact::Proof;
use super::message::RaftMessage;
use super::read_index::ReadId;
use super::record::{PersistId, PersistWrite, SnapshotImage};
use super::transfer::{Chunk, ChunkReceived};
use crate::ServerId;
use crate::members::MemberIds;

/// Something to be done or known, in the order of the list.
#[derive(Debug)]
pub enum Output {
    /// Send to another member.
    Send {
        /// To whom.
        to: ServerId,
        /// The message.
        message: ConsensusMessage,
    },
    /// Make durable; `Consensus::on_persisted` releases what waits for it.
    Persist {
        /// Consecutive.
        id: PersistId,
        /// What to write.
        write: PersistWrite,
    },
    /// This entry is committed: apply it. Empty data: nothing but the start of a term.
    Apply {
        /// Its position.
        index: u64,
        /// Its term.
        term: u64,
        /// What was proposed.
        data: Bytes,
    },
    /// This entry is committed, and who has a part in consensus is this from here on.
    ApplyMembers {
        /// Its position.
        index: u64,
        /// Its term.
        term: u64,
        /// All of them.
        ids: MemberIds,
    },
    /// The state is replaced by this snapshot, which is durable here.
    Install {
        /// The state as of its index.
        image: SnapshotImage,
    },
    /// Once applied up to `index`, what the request wanted to read is there.
    ReadReady {
        /// The request.
        id: ReadId,
        /// Log position to wait for.
        index: u64,
    },
    /// A follower needs a snapshot: call `Consensus::offer_snapshot`.
    SnapshotWanted,
    /// This server can never vote again.
    Halt {
        /// For people.
        reason: &'static str,
    },
}

/// What members say to one another about consensus. Opaque outside of this module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusMessage(pub(super) Body);

impl ConsensusMessage {
    /// Whether it brings a change of the members, which members of an older build cannot read.
    pub(crate) fn brings_members(&self) -> bool {
        matches!(&self.0, Body::Raft { message, .. } if message.brings_members())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body {
    /// A message of the engine, and what it proves of contact.
    Raft { message: RaftMessage, proof: Proof },
    /// A piece of a snapshot.
    Chunk(Chunk),
    /// An answer to pieces.
    ChunkReceived(ChunkReceived),
}

/// Why a proposal was not taken. The data is worth proposing again, here or at the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another server leads, or none.
    #[error("this server does not lead")]
    NotLeader,
    /// This leader hands over its office at the moment.
    #[error("the leader hands over its office")]
    HandingOver,
    /// Another change of the members is on its way, or this one cannot be told.
    #[error("another change of the members is on its way")]
    Changing,
}
