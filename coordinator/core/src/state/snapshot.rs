//! The state as bytes, and back: what a server saves, and sends to one that is behind.
//!
//! Called by: the server. Calls: the envelope, `tree::record`.
//! Invariant: equal states give equal bytes; bytes that were changed, cut or made by hand are
//! refused, or give a state that passes `State::check`.
//! It does not know files.
//!
//! ```text
//! | length | head: position, zxids, counts | length | chunk of sessions and nodes | length | ...
//! ```
//! Each length is 4 bytes, little-endian, and followed by one envelope of that many bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use coordinator_disk::envelope::{self, EnvelopeError, Schema};
use coordinator_protocol::{SessionId, Zxid};
use serde::{Deserialize, Serialize};

use super::machine::{ENDED_SESSIONS_MAX, SESSIONS_MAX, State};
use super::membership::Membership;
use super::session::Session;
use super::zxid::ZxidClock;
use super::{SNAPSHOT_CHUNK_KIND, SNAPSHOT_HEAD_KIND};
use crate::members::MemberIds;
use crate::tree::{FrozenTree, NodeRecord, RecordError, Tree, TreeBuilder};

/// A chunk is closed when it has at least this many bytes of paths and data.
const CHUNK_BYTES: usize = 1 << 20;
/// A chunk is closed when it has this many sessions or nodes.
const CHUNK_ITEMS_MAX: usize = 10_000;

/// Of a session's or node's fixed fields with a common access list, encoded.
const ITEM_BYTES_ESTIMATE: usize = 96;

const HEAD: Schema = Schema { kind: SNAPSHOT_HEAD_KIND, version: 2 };
/// The form that has the members behind all else; written where there are any.
const HEAD_3: Schema = Schema { kind: SNAPSHOT_HEAD_KIND, version: 3 };
const CHUNK: Schema = Schema { kind: SNAPSHOT_CHUNK_KIND, version: 2 };

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    index: u64,
    zxids: ZxidClock,
    wall_ms: i64,
    ended: VecDeque<SessionId>,
    session_count: u64,
    node_count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct HeadWithMembers {
    head: Head,
    membership: Membership,
}

/// Reads a head in either form.
fn read_head(bytes: &[u8]) -> Result<(Head, Option<Membership>), SnapshotError> {
    match envelope::decode::<HeadWithMembers>(HEAD_3, bytes) {
        Ok(HeadWithMembers { head, membership }) => Ok((head, Some(membership))),
        Err(EnvelopeError::Schema { found: HEAD, .. }) => {
            Ok((envelope::decode(HEAD, bytes)?, None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Who has a part in consensus as of the snapshot in `bytes`; `None` when it does not say: also while consensus has not
/// been told of the first members yet, who are those of the settings until then.
#[must_use]
pub fn members_of_snapshot(bytes: &[u8]) -> Option<MemberIds> {
    let (head, _) = split(bytes).ok()?;
    let ids = read_head(head).ok()?.1.map(|membership| membership.ids);
    ids.filter(|ids| !ids.voters.is_empty())
}

#[derive(Debug, Deserialize)]
enum Chunk {
    Sessions(Vec<Session>),
    Nodes(Vec<NodeRecord>),
}

/// The same as [`Chunk`], in the same order, without owning the items.
#[derive(Serialize)]
enum ChunkView<'a> {
    Sessions(&'a [Session]),
    Nodes(&'a [NodeRecord]),
}

/// Why bytes are not a snapshot. None of them goes away by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes end too early.
    #[error("snapshot cut short")]
    Short,
    /// One of its envelopes cannot be read.
    #[error("snapshot: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Its nodes are not a tree.
    #[error("snapshot: {0}")]
    Tree(#[from] RecordError),
    /// Its parts contradict each other.
    #[error("snapshot: {0}")]
    Contradiction(&'static str),
}

/// The state as of one moment, for encoding somewhere else. Freezing shares all nodes: its time does not grow with
/// their number, and whoever changes a node after it pays for a copy of a small part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenState {
    index: u64,
    term: u64,
    zxids: ZxidClock,
    wall_ms: i64,
    ended: VecDeque<SessionId>,
    sessions: Vec<Session>,
    tree: FrozenTree,
    membership: Option<Membership>,
}

fn bytes_estimate(items: usize, bytes: u64) -> u64 {
    (items * ITEM_BYTES_ESTIMATE) as u64 + bytes
}

impl FrozenState {
    /// What a member begins with that takes over the nodes of another system, as of its zxid `last`: log position 1 of
    /// term 1, without sessions. Parents come before their children.
    ///
    /// # Errors
    /// [`SnapshotError::Contradiction`] when no zxid can follow, [`SnapshotError::Tree`] when the nodes do not fit.
    pub fn imported(
        last: Zxid,
        wall_ms: i64,
        nodes: Vec<NodeRecord>,
    ) -> Result<FrozenState, SnapshotError> {
        let continued = ZxidClock::continuing(last);
        let zxids = continued.ok_or(SnapshotError::Contradiction("no zxid can follow its last"))?;
        let (ended, sessions) = (VecDeque::new(), Vec::new());
        let tree = Tree::from_records(nodes, zxids.last())?.freeze();
        let (term, membership) = (zxids.term(), None);
        Ok(FrozenState { index: 1, term, zxids, wall_ms, ended, sessions, tree, membership })
    }

    /// The last log index whose effects are inside.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Term of the entry at [`Self::index`].
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The last zxid given.
    #[must_use]
    pub fn last_zxid(&self) -> Zxid {
        self.zxids.last()
    }

    /// About as many bytes as [`Self::encode`] gives.
    #[must_use]
    pub fn bytes_estimate(&self) -> u64 {
        bytes_estimate(self.tree.node_count() + self.sessions.len(), self.tree.bytes())
    }

    /// The bytes of a snapshot; equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.parts().for_each(|part| bytes.extend_from_slice(&part));
        bytes.into()
    }

    /// What [`Self::encode`] gives, one part behind the other, none of them before it is asked for: of a large state about a
    /// mebibyte is in memory at a time.
    pub fn parts(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let sessions = self.sessions.chunks(CHUNK_ITEMS_MAX);
        let sessions = sessions.map(|chunk| part(CHUNK, &ChunkView::Sessions(chunk)));
        let mut records = self.tree.records();
        let nodes = std::iter::from_fn(move || {
            let mut chunk = Vec::new();
            let mut chunk_bytes = 0;
            for record in records.by_ref() {
                chunk_bytes += record.variable_bytes();
                chunk.push(record);
                if chunk_bytes >= CHUNK_BYTES || chunk.len() >= CHUNK_ITEMS_MAX {
                    break;
                }
            }
            (!chunk.is_empty()).then(|| part(CHUNK, &ChunkView::Nodes(&chunk)))
        });
        std::iter::once_with(|| self.head()).chain(sessions).chain(nodes)
    }

    fn head(&self) -> Vec<u8> {
        let head = Head {
            index: self.index,
            zxids: self.zxids,
            wall_ms: self.wall_ms,
            ended: self.ended.clone(),
            session_count: self.sessions.len() as u64,
            node_count: self.tree.node_count() as u64,
        };
        match self.membership.clone() {
            Some(membership) => part(HEAD_3, &HeadWithMembers { head, membership }),
            None => part(HEAD, &head),
        }
    }
}

impl State {
    /// The same sessions and nodes as the beginning of another history: its zxids are greater than any that this one can
    /// have come to, so that whoever followed this one sees that it has to begin anew. Its members are those that
    /// settings name, and no text tells of others. `None` when no epoch is left, and of a state in which nothing was ever written.
    #[must_use]
    pub fn set_apart(mut self) -> Option<Self> {
        self.tree.clear_config();
        Some(Self { zxids: self.zxids.apart()?, membership: None, ..self })
    }

    /// About as many bytes as a snapshot of it has.
    #[must_use]
    pub fn bytes_estimate(&self) -> u64 {
        bytes_estimate(self.tree.node_count() + self.sessions.len(), self.tree.bytes())
    }

    /// The whole state as of now.
    #[must_use]
    pub fn freeze(&self) -> FrozenState {
        FrozenState {
            index: self.index,
            term: self.applied_term(),
            zxids: self.zxids,
            wall_ms: self.wall_ms,
            ended: self.ended.clone(),
            sessions: self.sessions.values().cloned().collect(),
            tree: self.tree.freeze(),
            membership: self.membership.clone(),
        }
    }

    /// The whole state as bytes.
    #[must_use]
    pub fn encode_snapshot(&self) -> Bytes {
        self.freeze().encode()
    }

    /// The state in `bytes`. Data inside is copied: it does not keep `bytes` alive.
    ///
    /// # Errors
    /// Bytes that `encode_snapshot` did not make.
    pub fn decode_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (head, mut rest) = split(bytes)?;
        let (head, membership) = read_head(head)?;
        let mut sessions: Vec<Session> = Vec::new();
        let (mut tree, mut node_count) = (TreeBuilder::new(head.zxids.last()), 0_u64);
        while !rest.is_empty() {
            let (chunk, after) = split(rest)?;
            rest = after;
            match envelope::decode(CHUNK, chunk)? {
                Chunk::Sessions(more) => sessions.extend(more),
                Chunk::Nodes(more) => {
                    node_count += more.len() as u64;
                    more.into_iter().try_for_each(|record| tree.add(record))?;
                }
            }
        }
        if sessions.len() as u64 != head.session_count || node_count != head.node_count {
            return Err(SnapshotError::Contradiction("its counts differ from its content"));
        }
        let state = State {
            index: head.index,
            begun: false,
            zxids: head.zxids,
            wall_ms: head.wall_ms,
            ended: head.ended,
            tree: tree.finish()?,
            membership,
            sessions: sessions.into_iter().map(|session| (session.id, session)).collect(),
            #[cfg(planted)]
            planted: None,
        };
        state.refuse_contradictions(head.session_count)?;
        Ok(state)
    }

    /// What `check` asserts of sessions, as an error: these bytes may come from anywhere.
    fn refuse_contradictions(&self, session_count: u64) -> Result<(), SnapshotError> {
        let fits = |holds: bool, what| {
            if holds { Ok(()) } else { Err(SnapshotError::Contradiction(what)) }
        };
        fits(self.zxids.is_sound(), "its zxid cannot have been given")?;
        fits(self.sessions.len() as u64 == session_count, "a session comes twice")?;
        fits(self.sessions.len() <= SESSIONS_MAX, "it has too many sessions")?;
        fits(self.ended.len() <= ENDED_SESSIONS_MAX, "it has too many ended sessions")?;
        let ended: std::collections::BTreeSet<_> = self.ended.iter().copied().collect();
        fits(ended.len() == self.ended.len(), "a session ended twice")?;
        fits(ended.iter().all(|id| !self.sessions.contains_key(id)), "an ended session lives")?;
        for session in self.sessions.values() {
            fits(session.is_sound(), "a session's numbers contradict each other")?;
        }
        let mut owners = self.tree.ephemeral_owners();
        fits(owners.all(|(owner, _)| self.sessions.contains_key(&owner)), "an owner is missing")
    }
}

/// An envelope behind its length.
fn part<T: Serialize>(schema: Schema, value: &T) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    envelope::encode_into(schema, value, &mut bytes).expect(
        "a chunk is cut far below the envelope's limit, and one node is bounded by a frame",
    );
    let length = u32::try_from(bytes.len() - 4).expect("bounded by the envelope");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The first envelope, and what follows it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), SnapshotError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(SnapshotError::Short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| SnapshotError::Short)?;
    rest.split_at_checked(length).ok_or(SnapshotError::Short)
}
