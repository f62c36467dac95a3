//! The latest changes, for subscribers that are a little behind.
//!
//! Called by: `table`. Calls: `past`.
//! Invariant: holds every change with `begins < zxid <= last`.
//! It does not know who reads it.
//!
//! ```text
//!   forgotten | begins | oldest write .. newest write | last >= newest
//! ```

use std::collections::VecDeque;
use std::collections::vec_deque;

use coordinator_protocol::Zxid;

use super::past::{Changes, Past, Position, Text};
use crate::tree::{Change, ChangeKind};

/// Bytes that the history keeps, access lists among them, beside its limit on the number of changes. The newest write is
/// kept whatever its size.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;

/// A stretch that has more than that is full.
const STRETCH_BYTES_MAX: usize = 64 << 10;
/// And one with more room for what the last change of a stretch takes beyond that.
const STRETCH_ROOM: usize = STRETCH_BYTES_MAX + (4 << 10);
/// Long data counts for that, as there may be little else of it.
const STRETCH_APART_MAX: usize = 64;
/// Access lists, too: they stay until the whole stretch is forgotten.
const STRETCH_LISTS_MAX: usize = 1 << 20;

/// Consecutive writes.
#[derive(Debug)]
struct Stretch {
    text: Text,
    writes: VecDeque<Write>,
    /// Where the first of `writes` begins: what lies before it is forgotten.
    start: Position,
    /// Whether a node got another access list in one of them.
    has_lists: bool,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    zxid: Zxid,
    changes: u32,
    end: Position,
}

#[derive(Debug)]
pub(super) struct History {
    begins: Zxid,
    last: Zxid,
    /// None without a write.
    stretches: VecDeque<Stretch>,
    change_count: usize,
    changes_max: usize,
    bytes: usize,
}

impl History {
    /// Begins after `zxid`: earlier changes are not known.
    pub(super) fn new(zxid: Zxid, changes_max: usize) -> Self {
        Self {
            begins: zxid,
            last: zxid,
            stretches: VecDeque::new(),
            change_count: 0,
            changes_max,
            bytes: 0,
        }
    }

    /// Adds a write; forgets the oldest ones beyond the limits.
    pub(super) fn push(&mut self, zxid: Zxid, changes: &[Change]) {
        assert!(zxid > self.last || changes.is_empty(), "{zxid} comes after {}", self.last);
        self.last = self.last.max(zxid);
        if changes.is_empty() {
            return;
        }
        if self.stretches.back().is_none_or(Stretch::is_full) {
            self.stretches.back_mut().into_iter().for_each(Stretch::shrink);
            self.stretches.push_back(Stretch::new());
        }
        let Some(stretch) = self.stretches.back_mut() else { return };
        self.bytes += stretch.push(zxid, changes);
        self.change_count += changes.len();
        while self.change_count > self.changes_max || self.bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = self.stretches.front_mut() else { break };
            // The newest write stays.
            let Some((forgotten, bytes)) = oldest.forget(self.last) else { break };
            self.begins = forgotten.zxid;
            self.change_count -= count(forgotten.changes);
            self.bytes -= bytes;
            if oldest.writes.is_empty() {
                self.stretches.pop_front();
            }
        }
    }

    /// Whether all changes after `zxid` are here.
    pub(super) fn covers(&self, zxid: Zxid) -> bool {
        zxid >= self.begins
    }

    /// Whether a subscriber of `path` that knows everything up to `zxid` can be told the rest by what is
    /// here: changes that were made before a new access list may not be theirs to read after it.
    pub(super) fn can_resume(&self, path: &str, zxid: Zxid) -> bool {
        let is_new_list =
            |past: Past<'_>| past.kind == ChangeKind::AclChanged && past.is_within(path);
        let mut stretches = self.stretches.iter().filter(|stretch| stretch.has_lists);
        self.covers(zxid)
            && !stretches
                .any(|stretch| stretch.after(zxid).flat_map(|(_, past)| past).any(is_new_list))
    }

    /// How many changes there are after `zxid`.
    pub(super) fn count_after(&self, zxid: Zxid) -> usize {
        let stretches = self.stretches.iter().rev();
        let later = stretches.take_while(|stretch| stretch.last() > Some(zxid));
        later.map(|stretch| stretch.count_after(zxid)).sum()
    }

    /// The last write that was added, with or without changes.
    pub(super) fn last(&self) -> Zxid {
        self.last
    }

    /// Writes with changes, after `zxid`.
    pub(super) fn after(&self, zxid: Zxid) -> After<'_> {
        let known = |stretch: &Stretch| stretch.last() <= Some(zxid);
        let start = self.stretches.partition_point(known);
        let mut stretches = self.stretches.range(start..);
        let stretch = stretches.next().map(|stretch| (stretch, stretch.position_after(zxid)));
        After { stretches, stretch }
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        let (mut before, mut count) = (self.begins, 0);
        for (zxid, changes) in self.after(self.begins) {
            assert!(before < zxid, "{before} before {zxid}");
            before = zxid;
            let changes = changes.count();
            assert!(changes > 0);
            count += changes;
        }
        assert!(before <= self.last, "{before} after the last, {}", self.last);
        assert_eq!(count, self.change_count);
        assert!(self.stretches.iter().all(|stretch| !stretch.writes.is_empty()));
        let writes = self.stretches.iter().map(|stretch| stretch.writes.len()).sum::<usize>();
        let bytes = self.stretches.iter().map(|stretch| stretch.bytes()).sum::<usize>();
        assert_eq!(bytes, self.bytes);
        assert!(writes <= 1 || self.change_count <= self.changes_max);
        assert!(writes <= 1 || self.bytes <= HISTORY_BYTES_MAX);
    }
}

/// Writes with their changes, in order.
#[derive(Clone, Debug)]
pub(super) struct After<'a> {
    stretches: vec_deque::Iter<'a, Stretch>,
    /// The one that it is in, and which write of it comes next.
    stretch: Option<(&'a Stretch, usize)>,
}

impl<'a> Iterator for After<'a> {
    type Item = (Zxid, Changes<'a>);

    fn next(&mut self) -> Option<(Zxid, Changes<'a>)> {
        loop {
            let (stretch, at) = self.stretch?;
            if at < stretch.writes.len() {
                self.stretch = Some((stretch, at + 1));
                return Some(stretch.write(at));
            }
            self.stretch = self.stretches.next().map(|stretch| (stretch, 0));
        }
    }
}

impl Stretch {
    fn new() -> Self {
        let text = Text::with_room(STRETCH_ROOM);
        Self { text, writes: VecDeque::new(), start: Position::default(), has_lists: false }
    }

    fn is_full(&self) -> bool {
        let Position { text, apart, list_bytes } = self.text.end();
        text >= STRETCH_BYTES_MAX || apart >= STRETCH_APART_MAX || list_bytes >= STRETCH_LISTS_MAX
    }

    fn shrink(&mut self) {
        self.text.shrink();
        self.writes.shrink_to_fit();
    }

    fn last(&self) -> Option<Zxid> {
        self.writes.back().map(|last| last.zxid)
    }

    /// How many bytes it takes.
    fn push(&mut self, zxid: Zxid, changes: &[Change]) -> usize {
        let start = self.text.end();
        changes.iter().for_each(|change| self.text.push(change));
        self.has_lists |= changes.iter().any(|change| change.kind == ChangeKind::AclChanged);
        let end = self.text.end();
        let changes = u32::try_from(changes.len()).expect("bounded by a frame");
        self.writes.push_back(Write { zxid, changes, end });
        self.text.bytes_between(start, end) + size_of::<Write>()
    }

    /// Forgets the oldest write, unless it is `last`: how many bytes it took.
    fn forget(&mut self, last: Zxid) -> Option<(Write, usize)> {
        let oldest = self.writes.front().filter(|oldest| oldest.zxid != last)?;
        let (oldest, start) = (*oldest, self.start);
        let bytes = self.text.bytes_between(start, oldest.end) + size_of::<Write>();
        self.text.forget_apart(start, oldest.end);
        self.writes.pop_front();
        self.start = oldest.end;
        Some((oldest, bytes))
    }

    fn bytes(&self) -> usize {
        let bytes = self.text.bytes_between(self.start, self.text.end());
        bytes + self.writes.len() * size_of::<Write>()
    }

    /// Which write is the first after `zxid`.
    fn position_after(&self, zxid: Zxid) -> usize {
        self.writes.partition_point(|write| write.zxid <= zxid)
    }

    fn count_after(&self, zxid: Zxid) -> usize {
        self.writes.range(self.position_after(zxid)..).map(|write| count(write.changes)).sum()
    }

    fn after(&self, zxid: Zxid) -> impl Iterator<Item = (Zxid, Changes<'_>)> {
        (self.position_after(zxid)..self.writes.len()).map(|at| self.write(at))
    }

    fn write(&self, at: usize) -> (Zxid, Changes<'_>) {
        let Write { zxid, changes, .. } = self.writes[at];
        (zxid, self.text.changes(zxid, self.start_of(at), changes))
    }

    fn start_of(&self, at: usize) -> Position {
        at.checked_sub(1).map_or(self.start, |before| self.writes[before].end)
    }
}

fn count(changes: u32) -> usize {
    usize::try_from(changes).expect("they are in memory")
}
