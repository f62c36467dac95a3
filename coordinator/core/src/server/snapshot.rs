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

/// Between two that are taken to make room on the disk, whatever became of the first.
const ROOM_PAUSE_MS: u64 = 5_000;
/// Such a one has to free so much more than it takes.
const ROOM_GAIN_BYTES_MIN: u64 = 1 << 20;
/// And so much has to be free beside what it takes, for the log and for what the estimate leaves out.
const ROOM_SPARE_BYTES: u64 = 2 << 20;

/// What of the disk the next snapshot would free, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Freeable {
    /// Bytes of the log behind the last one that was saved, and of those up to the one that is on its way.
    log: u64,
    log_saving: u64,
    /// Bytes of the two that are there, the older one first.
    kept: [u64; 2],
}

impl Freeable {
    fn bytes(self) -> u64 {
        let [older, latest] = self.kept;
        self.log.saturating_add(older).saturating_add(latest)
    }

    /// One of so many bytes is there now, and those before, if they stay.
    fn saved(&mut self, bytes: u64, makes_room: bool) {
        let [_, latest] = self.kept;
        self.kept = [if makes_room { 0 } else { latest }, bytes];
        self.log = self.log.saturating_sub(self.log_saving);
    }
}

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
    /// Of the disk.
    freeable: Freeable,
    /// Whether the one on its way leaves no other on the disk.
    makes_room: bool,
    /// Until when none is taken to make room.
    no_room_before: Millis,
    /// Size of the last one: a large state is not written anew for every few changes.
    image_bytes: u64,
}

impl SnapshotPlan {
    pub(super) fn new((last_index, bytes): (u64, u64), last_zxid: Zxid) -> Self {
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
            freeable: Freeable { kept: [0, bytes], ..Freeable::default() },
            makes_room: false,
            no_room_before: Millis::ZERO,
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
        self.freeable.log = self.freeable.log.saturating_add(bytes as u64);
    }

    pub(super) fn installed(&mut self, (index, bytes): (u64, u64), zxid: Zxid) {
        self.freeable.log_saving = self.freeable.log;
        self.freeable.saved(bytes, false);
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
        // What cannot be written whole would only take what room there is, and be removed again.
        if !due || plan.saving.is_some() || self.room.is_low() && !self.has_room_for_snapshot() {
            return;
        }
        self.take_snapshot();
    }

    /// The disk has little room: takes a snapshot where that frees more than it takes. Clients may still delete, and what
    /// they deleted stands in the log and in older snapshots until then.
    pub(super) fn make_room(&mut self) {
        let (plan, now) = (&self.snapshots, self.now.mono);
        let is_new = self.state.applied_index() > plan.last_index;
        let waits = plan.saving.is_some() || now < plan.no_room_before || now < plan.not_before;
        let takes = self.state.bytes_estimate().saturating_add(ROOM_GAIN_BYTES_MIN);
        if !self.room.is_low() || !is_new || waits || plan.freeable.bytes() <= takes {
            return;
        }
        if self.has_room_for_snapshot() {
            self.snapshots.no_room_before = now.plus_ms(ROOM_PAUSE_MS);
            self.take_snapshot();
        }
    }

    fn has_room_for_snapshot(&self) -> bool {
        let wanted = self.state.bytes_estimate().saturating_add(ROOM_SPARE_BYTES);
        self.room.free_bytes().is_none_or(|free| free >= wanted)
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
        let makes_room = self.room.is_low();
        self.snapshots.makes_room = makes_room;
        self.snapshots.freeable.log_saving = self.snapshots.freeable.log;
        if keep_image {
            self.consensus.hold_log(index);
        }
        self.effects.push(Effect::SaveSnapshot { state, keep_image, makes_room });
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
        let (bytes, makes_room) = (self.snapshots.image_bytes, self.snapshots.makes_room);
        self.snapshots.freeable.saved(bytes, makes_room);
        self.consensus.on_snapshot_saved(index);
        if makes_room || self.room.is_low() {
            self.consensus.discard_now(&mut self.outputs);
        }
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
