//! The thread that writes a snapshot.
//!
//! Called by: [`super::Storage`]. Calls: `snapshot`.
//! Invariant: one snapshot is written at a time, beside the core's task and the log's thread, and reported once.
//! Does not know: why it is taken.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use coordinator_core::consensus::SnapshotImage;
use coordinator_core::server::Event;
use coordinator_core::state::FrozenState;
use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::pace::{Hurry, Pace};
use super::snapshot::{self, Manner};
use super::snapshot_file::{Packing, Position};
use super::{Place, SnapshotTimes};

/// How this server's own snapshots are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotSettings {
    /// At most so many bytes a second; 0 for no limit.
    pub bytes_per_second: u64,
    /// How they are packed.
    pub packing: Packing,
}

/// What is wanted of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// Its bytes are given back.
    pub keep_image: bool,
    /// Those before it go.
    pub makes_room: bool,
}

/// What a snapshot's thread is given.
#[derive(Clone)]
pub struct Saver {
    pub(super) place: Place,
    pub(super) settings: SnapshotSettings,
    pub(super) times: Arc<SnapshotTimes>,
}

impl Saver {
    /// Encodes and writes a snapshot: megabytes must hold up nobody.
    pub fn start(
        &self,
        (state, wish): (FrozenState, Wish),
        hurry: &Hurry,
        events: &UnboundedSender<Event>,
    ) -> Option<JoinHandle<()>> {
        let (saver, told, index) = (self.clone(), events.clone(), state.index());
        // A follower waits for it, and the log grows in memory until it is there.
        let bytes_per_second = if wish.keep_image { 0 } else { self.settings.bytes_per_second };
        let pace = Pace::new(bytes_per_second, hurry.clone());
        let save = move || {
            let _ = told.send(saver.save(state, wish, &pace));
        };
        // Packing takes some on the stack.
        let thread = std::thread::Builder::new().name("snapshot".into()).stack_size(1 << 20);
        match thread.spawn(save) {
            Ok(thread) => Some(thread),
            Err(error) => {
                warn!(%error, index, "no thread to write the snapshot");
                self.times.add_failure();
                let _ = events.send(Event::SnapshotFailed { index });
                None
            }
        }
    }

    fn save(&self, state: FrozenState, wish: Wish, pace: &Pace) -> Event {
        let began = Instant::now();
        let Position { index, term } = Position { index: state.index(), term: state.term() };
        let (packing, makes_room) = (self.settings.packing, wish.makes_room);
        let manner = Manner { packing, pace: Some(pace), makes_room };
        let mut kept = wish.keep_image.then(Vec::new);
        // Encoded as it is written: a large state is never in memory a second time, but for a follower.
        let mut parts = state.parts().inspect(|part| {
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(part);
            }
        });
        let written = snapshot::write(&self.place, Position { index, term }, &mut parts, &manner);
        drop(parts);
        drop(state);
        match written {
            Ok(bytes) => {
                self.times.add(began.elapsed(), bytes);
                let image = kept.map(|data| SnapshotImage { index, term, data: data.into() });
                Event::SnapshotSaved { index, image }
            }
            Err(error) => {
                warn!(%error, index, "the snapshot cannot be written; the log is kept");
                self.times.add_failure();
                Event::SnapshotFailed { index }
            }
        }
    }
}
