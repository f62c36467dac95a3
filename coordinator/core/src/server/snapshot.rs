//! When to take a snapshot, and what becomes of it.
//!
//! Called by `apply` and the step. Calls `state` (freeze) and consensus. Invariant: one snapshot
//! is on its way to the disk at a time; the log is cut only behind one that is there. It does not
//! know files.

use coordinator_protocol::Zxid;

use super::effect::Effect;
use super::step::Server;
use crate::Millis;
use crate::consensus::SnapshotImage;

/// One for a follower that could not be written is tried again after so long: the follower asks at every heartbeat, and each
/// try writes the whole state to a disk that may be full. Twice as long after each further one...
const AGAIN_MS_MIN: u64 = 1_000;
/// ...up to this.
const AGAIN_MS_MAX: u64 = 60_000;

/// Counts towards the next snapshot.
#[derive(Debug)]
pub(super) struct SnapshotPlan {
    /// Of the last one saved or installed.
    last_index: u64,
    /// Last zxid in that; nothing before there is one.
    last_zxid: Option<Zxid>,
    /// On its way to the disk.
    saving: Option<u64>,
    /// Last zxid in that.
    saving_zxid: Option<Zxid>,
    /// A follower waits for one.
    wanted: bool,
    /// An operator waits for one that begins after the one that is on its way.
    asked: bool,
    /// Those in a row that could not be written, and until when none is begun for a follower.
    failures: u32,
    not_before: Millis,
    entries: u64,
    bytes: u64,
    /// Size of the last one: a large state is not written anew for every few changes.
    image_bytes: u64,
}

impl SnapshotPlan {
    pub(super) fn new(last_index: u64, last_zxid: Zxid) -> Self {
        Self {
            last_index,
            last_zxid: (last_index > 0).then_some(last_zxid),
            saving: None,
            saving_zxid: None,
            wanted: false,
            asked: false,
            failures: 0,
            not_before: Millis::ZERO,
            entries: 0,
            bytes: 0,
            image_bytes: 0,
        }
    }

    pub(super) fn last_index(&self) -> u64 {
        self.last_index
    }

    /// About as many bytes as the last one has that this server took; 0 before.
    pub(super) fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    pub(super) fn last_zxid(&self) -> Option<Zxid> {
        self.last_zxid
    }

    #[cfg(test)]
    pub(super) fn saving(&self) -> Option<u64> {
        self.saving
    }

    #[cfg(test)]
    pub(super) fn wanted(&self) -> bool {
        self.wanted
    }

    /// An entry of this size was applied.
    pub(super) fn applied(&mut self, bytes: usize) {
        self.entries = self.entries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(super) fn installed(&mut self, index: u64, zxid: Zxid) {
        self.last_index = index;
        self.last_zxid = Some(zxid);
        self.begin_anew();
    }

    /// It could not be written; as many entries pass before the next try, or a while where a follower waits.
    fn failed(&mut self, index: u64, now: Millis) {
        if self.saving != Some(index) {
            return;
        }
        self.saving = None;
        // Who still waits asks again.
        self.wanted = false;
        let doubled = AGAIN_MS_MIN.checked_shl(self.failures).unwrap_or(AGAIN_MS_MAX);
        self.failures = self.failures.saturating_add(1).min(u64::BITS / 2);
        self.not_before = now.plus_ms(doubled.min(AGAIN_MS_MAX));
    }

    fn begin_anew(&mut self) {
        self.entries = 0;
        self.bytes = 0;
    }
}

impl Server {
    pub(super) fn snapshot_if_due(&mut self) {
        let plan = &self.snapshots;
        let due = plan.entries >= self.config.snapshot_entries
            || plan.bytes >= self.config.snapshot_bytes.max(plan.image_bytes);
        if !due || plan.saving.is_some() {
            return;
        }
        self.take_snapshot();
    }

    /// An operator wants one.
    pub(super) fn on_take_snapshot(&mut self) {
        if self.snapshots.saving.is_some() {
            self.snapshots.asked = true;
        } else if self.state.applied_index() > 0 {
            self.take_snapshot();
        }
    }

    pub(super) fn on_snapshot_failed(&mut self, index: u64) {
        self.snapshots.failed(index, self.now.mono);
        self.consensus.let_log_go();
        self.take_asked_snapshot();
    }

    fn take_asked_snapshot(&mut self) {
        if self.snapshots.saving.is_none() && std::mem::take(&mut self.snapshots.asked) {
            self.take_snapshot();
        }
    }

    /// Only where a follower waits its bytes are given back: they are as many as the state has.
    fn take_snapshot(&mut self) {
        let state = self.state.freeze();
        let index = state.index();
        let keep_image = self.snapshots.wanted && self.consensus.is_leader();
        self.snapshots.saving = Some(index);
        self.snapshots.saving_zxid = Some(state.last_zxid());
        self.snapshots.image_bytes = state.bytes_estimate();
        self.snapshots.begin_anew();
        if keep_image {
            self.consensus.hold_log(index);
        }
        self.effects.push(Effect::SaveSnapshot { state, keep_image });
    }

    pub(super) fn on_snapshot_saved(&mut self, index: u64, image: Option<SnapshotImage>) {
        if self.snapshots.saving != Some(index) {
            return;
        }
        self.snapshots.saving = None;
        self.snapshots.failures = 0;
        self.snapshots.not_before = Millis::ZERO;
        if index >= self.snapshots.last_index {
            self.snapshots.last_index = index;
            self.snapshots.last_zxid = self.snapshots.saving_zxid;
        }
        if let Some(image) = image.filter(|_| self.snapshots.wanted) {
            self.snapshots.wanted = false;
            self.consensus.offer_snapshot(image, self.now.mono);
        }
        self.consensus.on_snapshot_saved(index);
        // A follower that asked while one without its bytes was written gets the next, as an operator does.
        self.snapshots.asked |= self.snapshots.wanted;
        self.take_asked_snapshot();
    }

    /// Who is not in office brings nobody up: followers ask who is.
    pub(super) fn forget_wanted_snapshot(&mut self) {
        self.snapshots.wanted = false;
    }

    /// A follower is too far behind for the log. It gets the next snapshot that is on the disk: the
    /// encoding of a large state would hold up everybody here, and is done beside the core.
    pub(super) fn offer_snapshot(&mut self) {
        if self.snapshots.saving.is_none() && self.now.mono < self.snapshots.not_before {
            return;
        }
        let is_new = !std::mem::replace(&mut self.snapshots.wanted, true);
        if self.snapshots.saving.is_none() {
            self.take_snapshot();
        } else if is_new {
            // Its own begins when that one ends, which may be written slowly while nobody waits.
            self.effects.push(Effect::HurrySnapshot);
        }
    }
}
