//! Snapshots on their way to followers that are too far behind, in bounded chunks.
//!
//! Called by `consensus/mod.rs`. Calls: nothing. Invariant: at most [`WINDOW_CHUNKS`] chunks of a
//! transfer are unanswered; what is received is whole, in order and matches its checksum before
//! anybody sees it; nothing is allocated from a declared length. It does not know the engine.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::SnapshotImage;
use crate::{Millis, ServerId};

/// Chunks that may be unanswered.
const WINDOW_CHUNKS: u64 = 4;
/// A transfer without an answer for this long has failed.
const IDLE_MS_MAX: u64 = 5_000;
/// Largest snapshot that is accepted from a leader.
const SNAPSHOT_BYTES_MAX: u64 = 8 << 30;
/// Largest chunk that is accepted.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// A piece of a snapshot. Position, length and checksum of the whole stand in each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// The leader's term.
    pub(super) term: u64,
    /// Log index of the snapshot.
    pub(super) index: u64,
    /// Term of the entry at `index`.
    pub(super) index_term: u64,
    total_bytes: u64,
    crc: u32,
    offset: u64,
    data: Bytes,
}

impl Chunk {
    /// Whether the snapshot ends with this piece.
    pub(super) fn is_last(&self) -> bool {
        self.offset.saturating_add(self.data.len() as u64) >= self.total_bytes
    }
}

/// How much of a snapshot has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunkReceived {
    index: u64,
    /// Exclusive end of what was received without a gap.
    end_offset: u64,
}

/// One transfer, on the leader.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Who gets it.
    pub(super) to: ServerId,
    term: u64,
    image: SnapshotImage,
    crc: u32,
    chunk_bytes: usize,
    sent: usize,
    received: usize,
    fails_at: Millis,
}

impl Outgoing {
    pub(super) fn new(
        to: ServerId,
        term: u64,
        image: SnapshotImage,
        chunk_bytes: usize,
        now: Millis,
    ) -> Self {
        let crc = crc32fast::hash(&image.data);
        let fails_at = now.plus_ms(IDLE_MS_MAX);
        Self { to, term, image, crc, chunk_bytes, sent: 0, received: 0, fails_at }
    }

    /// Log index of the snapshot.
    pub(super) fn index(&self) -> u64 {
        self.image.index
    }

    /// So much of it is there.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received as u64
    }

    /// The next chunk, if the window allows one. An empty snapshot is one empty chunk.
    pub(super) fn next_chunk(&mut self) -> Option<Chunk> {
        let total = self.image.data.len();
        let unanswered = self.sent.saturating_sub(self.received) as u64;
        if (self.sent >= total && total > 0)
            || unanswered >= WINDOW_CHUNKS.saturating_mul(self.chunk_bytes as u64)
        {
            return None;
        }
        let start = self.sent;
        let end = start.saturating_add(self.chunk_bytes).min(total);
        self.sent = end;
        Some(Chunk {
            term: self.term,
            index: self.image.index,
            index_term: self.image.term,
            total_bytes: total as u64,
            crc: self.crc,
            offset: start as u64,
            data: self.image.data.slice(start..end),
        })
    }

    /// Takes an answer; true when the follower has all of it.
    pub(super) fn on_received(&mut self, answer: &ChunkReceived, now: Millis) -> bool {
        if answer.index != self.image.index {
            return false;
        }
        let end = usize::try_from(answer.end_offset).unwrap_or(usize::MAX);
        if end > self.received && end <= self.sent {
            self.received = end;
            self.fails_at = now.plus_ms(IDLE_MS_MAX);
        }
        self.received >= self.image.data.len()
    }

    pub(super) fn has_failed(&self, now: Millis) -> bool {
        now >= self.fails_at
    }
}

/// One transfer, on the follower.
#[derive(Debug)]
pub(super) struct Incoming {
    from: ServerId,
    head: Chunk,
    buffer: Vec<u8>,
}

/// What came of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to say: the chunk does not continue anything.
    Ignored,
    /// Tell the leader.
    More(ChunkReceived),
    /// Tell the leader; the snapshot is whole.
    Whole(ChunkReceived, SnapshotImage),
}

/// Takes a chunk into the transfer in `slot`; a first chunk begins a new one.
pub(super) fn receive(slot: &mut Option<Incoming>, from: ServerId, chunk: Chunk) -> Progress {
    if chunk.total_bytes > SNAPSHOT_BYTES_MAX || chunk.data.len() > CHUNK_BYTES_MAX {
        *slot = None;
        return Progress::Ignored;
    }
    let data = chunk.data.clone();
    if chunk.offset == 0 {
        *slot = Some(Incoming {
            from,
            head: Chunk { data: Bytes::new(), ..chunk.clone() },
            buffer: Vec::new(),
        });
    }
    let Some(incoming) = slot.as_mut() else { return Progress::Ignored };
    let continues = incoming.from == from
        && incoming.head == Chunk { offset: 0, data: Bytes::new(), ..chunk.clone() }
        && incoming.buffer.len() as u64 == chunk.offset;
    if !continues {
        return Progress::Ignored;
    }
    incoming.buffer.extend_from_slice(&data);
    let received = ChunkReceived { index: chunk.index, end_offset: incoming.buffer.len() as u64 };
    if (incoming.buffer.len() as u64) < chunk.total_bytes {
        return Progress::More(received);
    }
    let bytes = slot.take().map(|done| done.buffer).unwrap_or_default();
    if bytes.len() as u64 != chunk.total_bytes || crc32fast::hash(&bytes) != chunk.crc {
        return Progress::Ignored;
    }
    let image =
        SnapshotImage { index: chunk.index, term: chunk.index_term, data: Bytes::from(bytes) };
    Progress::Whole(received, image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: u64) -> ServerId {
        ServerId::new(id).unwrap()
    }

    fn image(bytes: usize) -> SnapshotImage {
        let data: Vec<u8> = (0..bytes).map(|i| u8::try_from(i % 251).unwrap()).collect();
        SnapshotImage { index: 7, term: 2, data: data.into() }
    }

    #[test]
    fn snapshot_arrives_whole_within_the_window() {
        for bytes in [0, 1, 10, 11, 95] {
            let image = image(bytes);
            let mut outgoing = Outgoing::new(server(2), 3, image.clone(), 10, Millis::ZERO);
            let mut slot = None;
            let mut window = std::collections::VecDeque::new();
            let mut whole = None;
            while whole.is_none() {
                while let Some(chunk) = outgoing.next_chunk() {
                    window.push_back(chunk);
                    if bytes == 0 {
                        break;
                    }
                }
                assert!(window.len() as u64 <= WINDOW_CHUNKS);
                match receive(&mut slot, server(1), window.pop_front().unwrap()) {
                    Progress::More(answer) => {
                        assert!(!outgoing.on_received(&answer, Millis::ZERO));
                    }
                    Progress::Whole(answer, got) => {
                        assert!(outgoing.on_received(&answer, Millis::ZERO));
                        whole = Some(got);
                    }
                    Progress::Ignored => panic!("a chunk in order was ignored"),
                }
            }
            assert_eq!(whole, Some(image));
        }
    }

    #[test]
    fn damaged_or_reordered_chunks_make_no_snapshot() {
        let mut outgoing = Outgoing::new(server(2), 3, image(20), 10, Millis::ZERO);
        let first = outgoing.next_chunk().unwrap();
        let mut second = outgoing.next_chunk().unwrap();
        let mut slot = None;
        assert_eq!(receive(&mut slot, server(1), second.clone()), Progress::Ignored);
        assert!(matches!(receive(&mut slot, server(1), first.clone()), Progress::More(_)));
        assert_eq!(receive(&mut slot, server(3), second.clone()), Progress::Ignored);
        second.data = Bytes::from_static(b"0123456789");
        assert_eq!(receive(&mut slot, server(1), second), Progress::Ignored);
        assert!(slot.is_none());
    }
}
