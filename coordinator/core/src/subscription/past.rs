//! Changes side by side in one piece of memory, in which what repeats takes little room.
//!
//! Called by: `history`. Calls: nothing.
//! Invariant: what is read is what was written. It does not know when changes are forgotten.
//!
//! ```text
//! text   | length of the rest | flags 1 | number of the lists | path | data, if it is short | Stat | next change ..
//! ```
//!
//! Numbers are 7 bits to a byte, the lowest first, and those of a Stat are told as differences to others that are
//! mostly the same. Who looks for a path reads no further than that.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Stat, Zxid};

use crate::tree::{Change, ChangeKind, is_within};

/// Longer data stands apart, shared with others.
const DATA_IN_TEXT_MAX: usize = 512;
/// How far to look back for the same lists: as many as nodes share without looking far.
const LISTS_SEARCHED: usize = 16;

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
    /// Pairs of a node's and its parent's list.
    lists: Vec<Lists>,
    /// What the lists may take, whoever else has them.
    list_bytes: usize,
    /// The change that is being written.
    next: Vec<u8>,
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
    /// Bytes of the lists that were new.
    pub(super) list_bytes: usize,
}

/// One change, where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) zxid: Zxid,
    pub(super) kind: ChangeKind,
    path: &'a [u8],
    data: Option<Data<'a>>,
    lists: &'a Lists,
    /// Its Stat.
    rest: &'a [u8],
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
        let (text, apart) = (self.text.len(), self.apart.len());
        Position { text, apart, list_bytes: self.list_bytes }
    }

    /// Bytes from one place to a later one, and what stands apart for them.
    pub(super) fn bytes_between(&self, from: Position, to: Position) -> usize {
        let apart = self.apart[from.apart..to.apart].iter().map(Bytes::len);
        to.text - from.text + (to.list_bytes - from.list_bytes) + apart.sum::<usize>()
    }

    /// Adds a change at the end.
    pub(super) fn push(&mut self, change: &Change) {
        let kind = match change.kind {
            ChangeKind::Created => 0,
            ChangeKind::DataChanged => 1,
            ChangeKind::Deleted => 2,
            ChangeKind::AclChanged => 3,
        };
        let is_apart = change.data.as_ref().is_some_and(|data| data.len() > DATA_IN_TEXT_MAX);
        let data = if change.data.is_some() { HAS_DATA } else { 0 };
        let lists = self.keep_lists(change);
        let next = &mut self.next;
        next.clear();
        next.push(kind | data | if is_apart { DATA_APART } else { 0 });
        put(next, lists as u64);
        put_bytes(next, change.path.as_bytes());
        match &change.data {
            Some(data) if is_apart => self.apart.push(data.clone()),
            Some(data) => put_bytes(next, data),
            None => {}
        }
        put_stat(next, change.zxid, &change.stat);
        put(&mut self.text, self.next.len() as u64);
        self.text.extend_from_slice(&self.next);
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
        self.next = Vec::new();
    }

    /// Where the change's lists are.
    fn keep_lists(&mut self, change: &Change) -> usize {
        let (own, parents) = (&change.acl, &change.parent_acl);
        let is_same = |held: &Lists| Arc::ptr_eq(&held.0, own) && Arc::ptr_eq(&held.1, parents);
        let first = self.lists.len().saturating_sub(LISTS_SEARCHED);
        if let Some(at) = self.lists[first..].iter().rposition(is_same) {
            return first + at;
        }
        let bytes = |entry: &Acl| size_of::<Acl>() + entry.scheme.len() + entry.id.len();
        self.list_bytes += size_of::<Lists>();
        self.list_bytes += own.iter().chain(parents.iter()).map(bytes).sum::<usize>();
        self.lists.push((own.clone(), parents.clone()));
        self.lists.len() - 1
    }
}

impl<'a> Past<'a> {
    /// As it was pushed.
    pub(super) fn to_change(self) -> Change {
        Change {
            zxid: self.zxid,
            path: self.path().into(),
            kind: self.kind,
            data: self.data(),
            acl: self.lists.0.clone(),
            parent_acl: self.lists.1.clone(),
            stat: self.stat(),
        }
    }

    /// The node.
    pub(super) fn path(self) -> &'a str {
        std::str::from_utf8(self.path).expect("`push` had it from a str")
    }

    /// Whether the node is `top` or below it.
    pub(super) fn is_within(self, top: &str) -> bool {
        self.path.starts_with(top.as_bytes()) && is_within(self.path(), top)
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

    /// Its Stat after the change.
    pub(super) fn stat(self) -> Stat {
        Rest(self.rest).stat(self.zxid)
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Past<'a>;

    fn next(&mut self) -> Option<Past<'a>> {
        self.left = self.left.checked_sub(1)?;
        let all = &self.of.text[self.next.text..];
        let mut rest = Rest(all);
        let change = rest.bytes();
        self.next.text += all.len() - rest.0.len();
        let mut rest = Rest(change);
        let flags = rest.byte();
        let kind = match flags & KIND {
            0 => ChangeKind::Created,
            1 => ChangeKind::DataChanged,
            2 => ChangeKind::Deleted,
            _ => ChangeKind::AclChanged,
        };
        let lists = &self.of.lists[rest.length()];
        let path = rest.bytes();
        let data = if flags & DATA_APART != 0 {
            self.next.apart += 1;
            Some(Data::Apart(&self.of.apart[self.next.apart - 1]))
        } else {
            (flags & HAS_DATA != 0).then(|| Data::InText(rest.bytes()))
        };
        Some(Past { zxid: self.zxid, kind, path, data, lists, rest: rest.0 })
    }
}

fn put(text: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        text.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    text.push(low_bits(number));
}

/// A number that is mostly `like`.
fn put_like(text: &mut Vec<u8>, number: i64, like: i64) {
    let more = number.wrapping_sub(like);
    // Small numbers of both signs become small.
    put(text, ((more << 1) ^ (more >> 63)).cast_unsigned());
}

fn put_bytes(text: &mut Vec<u8>, bytes: &[u8]) {
    put(text, bytes.len() as u64);
    text.extend_from_slice(bytes);
}

fn put_stat(text: &mut Vec<u8>, zxid: Zxid, stat: &Stat) {
    put_like(text, stat.mzxid.get(), zxid.get());
    put_like(text, stat.czxid.get(), stat.mzxid.get());
    put_like(text, stat.pzxid.get(), stat.czxid.get());
    put_like(text, stat.ctime_ms, 0);
    put_like(text, stat.mtime_ms, stat.ctime_ms);
    put_like(text, stat.ephemeral_owner.get(), 0);
    let counts = [stat.version, stat.cversion, stat.aversion, stat.data_length, stat.num_children];
    counts.into_iter().for_each(|count| put_like(text, i64::from(count), 0));
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).expect("7 bits")
}

/// What is left to read; `Text::push` wrote it.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> u8 {
        let byte = self.0[0];
        self.0 = &self.0[1..];
        byte
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    fn length(&mut self) -> usize {
        usize::try_from(self.number()).expect("it is in memory")
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = self.length();
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn like(&mut self, like: i64) -> i64 {
        let number = self.number();
        like.wrapping_add((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn count(&mut self) -> i32 {
        i32::try_from(self.like(0)).expect("`put_stat` wrote an i32")
    }

    fn stat(mut self, zxid: Zxid) -> Stat {
        let mzxid = self.like(zxid.get());
        let czxid = self.like(mzxid);
        let pzxid = self.like(czxid);
        let ctime_ms = self.like(0);
        let mtime_ms = self.like(ctime_ms);
        Stat {
            czxid: Zxid::new(czxid),
            mzxid: Zxid::new(mzxid),
            pzxid: Zxid::new(pzxid),
            ctime_ms,
            mtime_ms,
            ephemeral_owner: SessionId::new(self.like(0)),
            version: self.count(),
            cversion: self.count(),
            aversion: self.count(),
            data_length: self.count(),
            num_children: self.count(),
        }
    }
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

    #[test]
    fn lists_are_kept_once_and_counted() {
        let (one, other): (Arc<[Acl]>, Arc<[Acl]>) = (Acl::open().into(), [].into());
        let mut text = Text::default();
        let change = |acl: &Arc<[Acl]>| Change {
            zxid: Zxid::new(1),
            path: "/a".into(),
            kind: ChangeKind::AclChanged,
            data: None,
            acl: acl.clone(),
            parent_acl: one.clone(),
            stat: Stat::default(),
        };
        for _ in 0..100 {
            text.push(&change(&one));
            text.push(&change(&other));
        }
        assert_eq!(text.lists.len(), 2);
        let before = text.end().list_bytes;
        let long = Acl { id: "x".repeat(10_000), ..Acl::open().remove(0) };
        text.push(&change(&[long].into()));
        assert!(text.end().list_bytes > before + 10_000);
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
        assert_eq!(text.end().text, 22 + "/a".len() + 100);
    }
}
