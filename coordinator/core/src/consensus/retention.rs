//! How much of the log stays in memory: what members that lag may still need of it.
//!
//! Called by the engine's inputs and the server (snapshots). Calls the log store. Invariant: what is not applied stays, and
//! what the snapshot that a follower is about to get does not hold. Beyond that memory is bounded, however far apart
//! snapshots are; the disk keeps all that no snapshot has. It does not know files.
//!
//! ```text
//!          | entries_kept, bytes_kept | snapshot | ........ since ........ | last entry
//!                 | bytes_kept and bytes_kept_since, snapshot or not         |
//! ```

use super::engine::Consensus;
use super::output::Output;
use super::record::PersistWrite;
use crate::Millis;

/// How long entries wait for a follower that has just got a snapshot, or is about to ask for it again; and the snapshot itself,
/// while nobody fetches it.
const HELD_MS: u64 = 10_000;

/// Entries behind a snapshot that are kept for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldLog {
    /// The last index in the snapshot.
    index: u64,
    /// `None` while the snapshot is being written.
    until: Option<Millis>,
}

impl Consensus {
    /// A snapshot at `index` is being written, and a follower is to get it.
    pub fn hold_log(&mut self, index: u64) {
        self.held_log = Some(HeldLog { index, until: None });
    }

    /// That snapshot is there, for a follower to get.
    pub(super) fn hold_log_offered(&mut self, index: u64, now: Millis) {
        self.held_log = Some(HeldLog { index, until: Some(now.plus_ms(HELD_MS)) });
    }

    /// A follower has got it, and asks next for what comes behind it.
    pub(super) fn hold_log_sent(&mut self, index: u64, now: Millis) {
        if self.held_log.is_none_or(|held| held.until.is_some()) {
            self.hold_log_offered(index, now);
        }
    }

    /// No follower gets the snapshot that was being written.
    pub fn let_log_go(&mut self) {
        self.held_log = None;
    }

    pub(super) fn let_log_go_in_time(&mut self, now: Millis) {
        self.held_log = self.held_log.filter(|held| held.until.is_none_or(|until| now < until));
        if self.held_log.is_none() {
            // It takes as much memory as the state has bytes, and without the log behind it is soon of no use.
            self.withdraw_if_unused();
        }
    }

    /// A snapshot at `index` is durable: the log may lose what lies well before it.
    pub fn on_snapshot_saved(&mut self, index: u64) {
        let index = index.min(self.applied);
        let mut upto = index.saturating_sub(self.entries_kept);
        // Entries may be large: memory for members that lag is bounded by bytes as well.
        upto = upto.max(self.node.store().first_within(index, self.bytes_kept).saturating_sub(1));
        let upto = upto.min(self.needed_behind());
        self.node.mut_store().discard_to(upto);
        self.discard_to = Some(index);
    }

    /// The disk has little room: what the last snapshot has need not wait for the next write, which may never come.
    pub fn discard_now(&mut self, out: &mut Vec<Output>) {
        let Some(index) = self.discard_to.take().filter(|_| !self.halted) else { return };
        let id = self.queue.next_id();
        let (discard_to, makes_room) = (Some(index), true);
        let write = PersistWrite { discard_to, makes_room, ..PersistWrite::default() };
        out.push(Output::Persist { id, write });
    }

    /// After entries were applied.
    pub(super) fn bound_log(&mut self) {
        let bytes_max = self.bytes_kept.saturating_add(self.bytes_kept_since);
        if self.node.store().entry_bytes() > bytes_max {
            let upto = self.applied.min(self.needed_behind());
            self.node.mut_store().discard_over(bytes_max, upto);
        }
    }

    #[cfg(test)]
    pub(crate) fn offers_snapshot(&self) -> bool {
        self.node.store().offered().is_some()
    }

    /// The entries behind this index must stay.
    fn needed_behind(&self) -> u64 {
        let held = self.held_log.map(|held| held.index);
        let needed = self.outgoing.iter().map(|transfer| transfer.index()).chain(held);
        needed.min().unwrap_or(u64::MAX)
    }
}
