//! Changes side by side in one piece of memory, in which what repeats takes little room.
//!
//! Called by: `history`. Calls: nothing.
//! Invariant: what is read is what was written. It does not know when changes are forgotten.
//!
//! ```text
//! text   | flags 1 | number of the lists | Stat | path | data, if it is short | next change ..
//! ```
//!
//! Numbers are 7 bits to a byte, the lowest first, and those of a Stat are told as differences to others that are
//! mostly the same.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Stat, Zxid};

use crate::tree::{Change, ChangeKind, is_within};

/// Longer data stands apart, shared with others.
const DATA_IN_TEXT_MAX: usize = 512;

/// The lowest bits of the flags are the kind.
const KIND: u8 = 0b11;
const HAS_DATA: u8 = 1 << 2;
const DATA_APART: u8 = 1 << 3;

/// The changes of some consecutive writes.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: Vec<u8>,
    /// Long data, in the order of the changes.
    apart: Vec<Bytes>,
    /// Pairs of a node's and its parent's list; a pair is not repeated right behind itself.
    lists: Vec<Lists>,
}

/// A node's and its parent's.
type Lists = (Arc<[Acl]>, Arc<[Acl]>);

/// A place in a `Text`, between two changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Bytes.
    pub(super) text: usize,
    /// Pieces of long data.
    pub(super) apart: usize,
}

/// One change, where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) zxid: Zxid,
    pub(super) kind: ChangeKind,
    pub(super) path: &'a str,
    data: Option<Data<'a>>,
    lists: &'a Lists,
    pub(super) stat: Stat,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    InText(&'a [u8]),
    Apart(&'a Bytes),
}

/// The changes of one write, in order.
#[derive(Clone, Debug)]
pub(super) struct Changes<'a> {
    of: &'a Text,
    zxid: Zxid,
    next: Position,
    left: u32,
}

impl Text {
    /// A text with room for so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// The end.
    pub(super) fn end(&self) -> Position {
        Position { text: self.text.len(), apart: self.apart.len() }
    }

    /// Bytes from one place to a later one, and what stands apart for them.
    pub(super) fn bytes_between(&self, from: Position, to: Position) -> usize {
        let apart = self.apart[from.apart..to.apart].iter().map(Bytes::len);
        to.text - from.text + apart.sum::<usize>()
    }

    /// Adds a change at the end.
    pub(super) fn push(&mut self, change: &Change) {
        let lists = (change.acl.clone(), change.parent_acl.clone());
        let is_same =
            |last: &Lists| Arc::ptr_eq(&last.0, &lists.0) && Arc::ptr_eq(&last.1, &lists.1);
        if !self.lists.last().is_some_and(is_same) {
            self.lists.push(lists);
        }
        let is_apart = change.data.as_ref().is_some_and(|data| data.len() > DATA_IN_TEXT_MAX);
        let kind = match change.kind {
            ChangeKind::Created => 0,
            ChangeKind::DataChanged => 1,
            ChangeKind::Deleted => 2,
            ChangeKind::AclChanged => 3,
        };
        let data = if change.data.is_some() { HAS_DATA } else { 0 };
        self.text.push(kind | data | if is_apart { DATA_APART } else { 0 });
        self.put(self.lists.len() as u64 - 1);
        self.put_stat(change.zxid, &change.stat);
        self.put_bytes(change.path.as_bytes());
        match &change.data {
            Some(data) if is_apart => self.apart.push(data.clone()),
            Some(data) => self.put_bytes(data),
            None => {}
        }
    }

    /// The `count` changes from `from` on, of the write `zxid`.
    pub(super) fn changes(&self, zxid: Zxid, from: Position, count: u32) -> Changes<'_> {
        Changes { of: self, zxid, next: from, left: count }
    }

    /// Forgets the long data from one place to a later one.
    pub(super) fn forget_apart(&mut self, from: Position, to: Position) {
        self.apart[from.apart..to.apart].fill(Bytes::new());
    }

    /// Keeps nothing in reserve.
    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.apart.shrink_to_fit();
        self.lists.shrink_to_fit();
    }

    fn put(&mut self, mut number: u64) {
        while number > 0x7f {
            self.text.push(low_bits(number) | 0x80);
            number >>= 7;
        }
        self.text.push(low_bits(number));
    }

    /// A number that is mostly `like`.
    fn put_like(&mut self, number: i64, like: i64) {
        let more = number.wrapping_sub(like);
        // Small numbers of both signs become small.
        self.put(((more << 1) ^ (more >> 63)).cast_unsigned());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u64);
        self.text.extend_from_slice(bytes);
    }

    fn put_stat(&mut self, zxid: Zxid, stat: &Stat) {
        self.put_like(stat.mzxid.get(), zxid.get());
        self.put_like(stat.czxid.get(), stat.mzxid.get());
        self.put_like(stat.pzxid.get(), stat.czxid.get());
        self.put_like(stat.ctime_ms, 0);
        self.put_like(stat.mtime_ms, stat.ctime_ms);
        self.put_like(stat.ephemeral_owner.get(), 0);
        for number in
            [stat.version, stat.cversion, stat.aversion, stat.data_length, stat.num_children]
        {
            self.put_like(i64::from(number), 0);
        }
    }
}

impl<'a> Past<'a> {
    /// As it was pushed.
    pub(super) fn to_change(self) -> Change {
        Change {
            zxid: self.zxid,
            path: self.path.into(),
            kind: self.kind,
            data: self.data(),
            acl: self.lists.0.clone(),
            parent_acl: self.lists.1.clone(),
            stat: self.stat,
        }
    }

    /// Whether the node is `top` or below it.
    pub(super) fn is_within(self, top: &str) -> bool {
        is_within(self.path, top)
    }

    /// Its data after the change.
    pub(super) fn data(self) -> Option<Bytes> {
        self.data.map(|data| match data {
            Data::InText(data) => Bytes::copy_from_slice(data),
            Data::Apart(data) => data.clone(),
        })
    }

    /// Who may hear of it.
    pub(super) fn acl(self) -> &'a Arc<[Acl]> {
        &self.lists.0
    }
}

impl<'a> Changes<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.of.text[self.next.text..]
    }

    fn take_byte(&mut self) -> u8 {
        let byte = self.rest()[0];
        self.next.text += 1;
        byte
    }

    fn take(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.take_byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    fn take_like(&mut self, like: i64) -> i64 {
        let number = self.take();
        like.wrapping_add((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn take_count(&mut self) -> i32 {
        i32::try_from(self.take_like(0)).expect("`put_stat` wrote an i32")
    }

    fn take_bytes(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.take()).expect("it is in memory");
        let bytes = &self.rest()[..length];
        self.next.text += length;
        bytes
    }

    fn take_stat(&mut self) -> Stat {
        let mzxid = self.take_like(self.zxid.get());
        let czxid = self.take_like(mzxid);
        let pzxid = self.take_like(czxid);
        let ctime_ms = self.take_like(0);
        let mtime_ms = self.take_like(ctime_ms);
        Stat {
            czxid: Zxid::new(czxid),
            mzxid: Zxid::new(mzxid),
            pzxid: Zxid::new(pzxid),
            ctime_ms,
            mtime_ms,
            ephemeral_owner: SessionId::new(self.take_like(0)),
            version: self.take_count(),
            cversion: self.take_count(),
            aversion: self.take_count(),
            data_length: self.take_count(),
            num_children: self.take_count(),
        }
    }

    fn take_data(&mut self, flags: u8) -> Option<Data<'a>> {
        if flags & HAS_DATA == 0 {
            return None;
        }
        if flags & DATA_APART == 0 {
            return Some(Data::InText(self.take_bytes()));
        }
        self.next.apart += 1;
        Some(Data::Apart(&self.of.apart[self.next.apart - 1]))
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Past<'a>;

    fn next(&mut self) -> Option<Past<'a>> {
        self.left = self.left.checked_sub(1)?;
        let flags = self.take_byte();
        let kind = match flags & KIND {
            0 => ChangeKind::Created,
            1 => ChangeKind::DataChanged,
            2 => ChangeKind::Deleted,
            _ => ChangeKind::AclChanged,
        };
        let lists = &self.of.lists[usize::try_from(self.take()).expect("it is in memory")];
        let stat = self.take_stat();
        let path = std::str::from_utf8(self.take_bytes()).expect("`push` had it from a str");
        let data = self.take_data(flags);
        Some(Past { zxid: self.zxid, kind, path, data, lists, stat })
    }
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).expect("7 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_written() {
        let lists: [Arc<[Acl]>; 2] = [Acl::open().into(), [].into()];
        let kinds = [
            ChangeKind::Created,
            ChangeKind::DataChanged,
            ChangeKind::Deleted,
            ChangeKind::AclChanged,
        ];
        let texts = [None, Some(0), Some(1), Some(DATA_IN_TEXT_MAX), Some(DATA_IN_TEXT_MAX + 1)];
        let far = [0, 1, -1, 300, i64::MIN, i64::MAX, 1 << 40];
        let few = [0, 1, -1, i32::MIN, i32::MAX];
        let zxid = Zxid::new(1 << 33);
        let change = |case: usize| Change {
            zxid,
            path: format!("/{}", "ü".repeat(case % 200)).into(),
            kind: kinds[case % kinds.len()],
            data: texts[case % texts.len()].map(|bytes| vec![7; bytes].into()),
            acl: lists[case / 3 % 2].clone(),
            parent_acl: lists[case / 5 % 2].clone(),
            stat: Stat {
                czxid: Zxid::new(far[case % far.len()]),
                mzxid: Zxid::new(far[case / 2 % far.len()]),
                pzxid: Zxid::new(far[case / 3 % far.len()]),
                ctime_ms: far[case / 4 % far.len()],
                mtime_ms: far[case / 5 % far.len()],
                ephemeral_owner: SessionId::new(far[case / 6 % far.len()]),
                version: few[case % few.len()],
                cversion: few[case / 2 % few.len()],
                aversion: few[case / 3 % few.len()],
                data_length: few[case / 4 % few.len()],
                num_children: few[case / 5 % few.len()],
            },
        };
        let changes: Vec<Change> = (0..1_000).map(change).collect();
        let mut text = Text::default();
        let mut ends = vec![text.end()];
        for change in &changes {
            text.push(change);
            ends.push(text.end());
        }
        text.shrink();
        let read = text.changes(zxid, ends[0], 1_000).map(Past::to_change);
        assert!(read.eq(changes.iter().cloned()));
        let some = text.changes(zxid, ends[500], 2).map(Past::to_change);
        assert!(some.eq(changes[500..502].iter().cloned()));
        text.forget_apart(ends[0], ends[500]);
        let (before, behind) = (
            text.changes(zxid, ends[0], 500).filter_map(|past| past.data().map(|data| data.len())),
            text.changes(zxid, ends[500], 500)
                .filter_map(|past| past.data().map(|data| data.len())),
        );
        assert_eq!(before.max(), Some(DATA_IN_TEXT_MAX));
        assert_eq!(behind.max(), Some(DATA_IN_TEXT_MAX + 1));
    }

    /// What the memory of a coordinator with many changes hangs on.
    #[test]
    fn create_takes_few_bytes_beside_its_texts() {
        let zxid = Zxid::new(1 << 40);
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: 1_700_000_000_000,
            mtime_ms: 1_700_000_000_000,
            data_length: 100,
            ..Stat::default()
        };
        let acl: Arc<[Acl]> = Acl::open().into();
        let (parent_acl, data) = (acl.clone(), Some(vec![7; 100].into()));
        let kind = ChangeKind::Created;
        let mut text = Text::default();
        text.push(&Change { zxid, path: "/a".into(), kind, data, acl, parent_acl, stat });
        assert_eq!(text.end().text, 21 + "/a".len() + 100);
    }
}
