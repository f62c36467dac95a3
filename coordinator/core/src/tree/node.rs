//! One znode, and the Stat that clients see of it.
//!
//! Called by: `index`, `store`, `transaction`, `record`. Calls: nothing.
//! Invariant: `cversion` counts creates of children only; the Stat's counts creates and deletes,
//! which is `2 * stored - children`, as in ZooKeeper.
//! It does not know its children.
//!
//! A node is never changed: another takes its place. So its path, its numbers and its data stand in one piece of memory,
//! and numbers that say nothing new take no room:
//!
//! ```text
//! | flags 1 | length of the path 4 | czxid 8 | ctime 8 | what the flags name | path | data |
//! ```
//!
//! Data of more than a few hundred bytes stands apart: each child that comes or goes gives its parent other numbers, and
//! must not copy what the parent holds.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, SessionId, Stat, Zxid};
use serde::{Deserialize, Serialize};

/// Longest time that a TTL node can be given: 40 bits of milliseconds.
const TTL_MS_MAX: i64 = 0xff_ffff_ffff;
/// In the place of a TTL node's owner, above its time.
const TTL_MARK: i64 = -0x0100_0000_0000_0000;
/// In the place of a container's owner.
pub(super) const CONTAINER: SessionId = SessionId::new(i64::MIN);

/// More data than that stands apart.
const DATA_BESIDE_MAX: usize = 512;

/// What begins every node.
const HEAD_BYTES: usize = 1 + 4 + 8 + 8;
/// Its mzxid and mtime stand there: it was written since it was created.
const WRITTEN: u8 = 1;
/// Its pzxid stands there.
const HAD_CHILDREN: u8 = 1 << 1;
/// Its three versions stand there, as one of them is not 0.
const VERSIONED: u8 = 1 << 2;
/// Its owner stands there.
const OWNED: u8 = 1 << 3;
/// It has data, if only of no length.
const DATA: u8 = 1 << 4;

/// The mark of a node that stays for so long; `None` when it cannot be given that time.
pub(super) fn ttl_mark(ttl_ms: i64) -> Option<SessionId> {
    (1..=TTL_MS_MAX).contains(&ttl_ms).then(|| SessionId::new(TTL_MARK | ttl_ms))
}

/// The numbers of a node, in the order in which snapshots keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNumbers {
    /// Created by.
    pub czxid: Zxid,
    /// Written last by.
    pub mzxid: Zxid,
    /// Children changed last by.
    pub pzxid: Zxid,
    /// When it was created, ms since 1970.
    pub ctime_ms: i64,
    /// When it was written last, ms since 1970.
    pub mtime_ms: i64,
    /// Writes.
    pub version: i32,
    /// Children ever created under it; the Stat's counts otherwise.
    pub cversion: i32,
    /// Changes of the access list.
    pub aversion: i32,
    /// `SessionId::NONE` for a persistent node; of a container or TTL node the mark that ZooKeeper puts
    /// here, which no session has for its id.
    pub ephemeral_owner: SessionId,
}

impl NodeNumbers {
    /// Of a node that is new.
    pub(super) fn new(zxid: Zxid, wall_ms: i64, ephemeral_owner: SessionId) -> Self {
        Self {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: wall_ms,
            mtime_ms: wall_ms,
            version: 0,
            cversion: 0,
            aversion: 0,
            ephemeral_owner,
        }
    }

    /// Whether it goes with a session.
    pub(super) fn is_ephemeral(&self) -> bool {
        !self.ephemeral_owner.is_none() && !self.goes_by_itself()
    }

    /// Whether it is a container or TTL node.
    pub(super) fn goes_by_itself(&self) -> bool {
        self.ephemeral_owner == CONTAINER || self.ttl_ms().is_some()
    }

    /// Whether nothing keeps a node without children any more: it is a container that had some, or its
    /// time is over since it was written last.
    pub(super) fn is_due(&self, wall_ms: i64) -> bool {
        match self.ttl_ms() {
            Some(ttl_ms) => wall_ms.saturating_sub(self.mtime_ms) > ttl_ms,
            None => self.ephemeral_owner == CONTAINER && self.cversion != 0,
        }
    }

    fn ttl_ms(&self) -> Option<i64> {
        let owner = self.ephemeral_owner.get();
        (owner & !TTL_MS_MAX == TTL_MARK).then_some(owner & TTL_MS_MAX)
    }
}

/// What is stored of a znode. A clone shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// As the module says.
    text: Arc<[u8]>,
    beside: Beside,
}

/// What a node shares with others, or with those that it takes the place of. No larger than the list alone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Beside {
    /// Only the access list: the data, if there is any, is in the text.
    Acl(Arc<[Acl]>),
    Large(Arc<Large>),
}

#[derive(Debug, PartialEq, Eq)]
struct Large {
    acl: Arc<[Acl]>,
    data: Bytes,
}

/// A node as readers get it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    node: &'a Node,
    child_count: usize,
}

impl Node {
    /// A node; data `None` is ZooKeeper's null.
    pub(super) fn new(
        path: &str,
        data: Option<&[u8]>,
        acl: Arc<[Acl]>,
        numbers: &NodeNumbers,
    ) -> Node {
        let large = data.filter(|data| data.len() > DATA_BESIDE_MAX);
        match large.map(Bytes::copy_from_slice) {
            Some(data) => {
                let text = lay_out(path, Some(b""), numbers);
                Node { text, beside: Beside::Large(Arc::new(Large { acl, data })) }
            }
            None => Node { text: lay_out(path, data, numbers), beside: Beside::Acl(acl) },
        }
    }

    /// The same with other numbers.
    pub(super) fn with_numbers(&self, numbers: &NodeNumbers) -> Node {
        let text = lay_out(self.path(), self.data_in_text(), numbers);
        Node { text, beside: self.beside.clone() }
    }

    /// The same with another access list and other numbers.
    pub(super) fn with_acl(&self, acl: Arc<[Acl]>, numbers: &NodeNumbers) -> Node {
        let beside = match &self.beside {
            Beside::Acl(_) => Beside::Acl(acl),
            Beside::Large(large) => {
                Beside::Large(Arc::new(Large { acl, data: large.data.clone() }))
            }
        };
        Node { text: lay_out(self.path(), self.data_in_text(), numbers), beside }
    }

    /// Its numbers.
    pub(super) fn numbers(&self) -> NodeNumbers {
        let mut fields = Fields(&self.text);
        let [flags] = fields.take();
        let _path_bytes: [u8; 4] = fields.take();
        let (czxid, ctime_ms) = (fields.zxid(), i64::from_le_bytes(fields.take()));
        let mut numbers = NodeNumbers::new(czxid, ctime_ms, SessionId::NONE);
        if flags & WRITTEN != 0 {
            numbers.mzxid = fields.zxid();
            numbers.mtime_ms = i64::from_le_bytes(fields.take());
        }
        if flags & HAD_CHILDREN != 0 {
            numbers.pzxid = fields.zxid();
        }
        if flags & VERSIONED != 0 {
            numbers.version = i32::from_le_bytes(fields.take());
            numbers.cversion = i32::from_le_bytes(fields.take());
            numbers.aversion = i32::from_le_bytes(fields.take());
        }
        if flags & OWNED != 0 {
            numbers.ephemeral_owner = SessionId::new(i64::from_le_bytes(fields.take()));
        }
        numbers
    }

    /// Its whole path, as bytes.
    pub(super) fn path_bytes(&self) -> &[u8] {
        let (start, end) = self.path_range();
        &self.text[start..end]
    }

    /// Its whole path.
    pub(super) fn path(&self) -> &str {
        std::str::from_utf8(self.path_bytes()).expect("it was made of a str")
    }

    /// Its data; `None` is ZooKeeper's null.
    pub(super) fn data(&self) -> Option<&[u8]> {
        match &self.beside {
            Beside::Acl(_) => self.data_in_text(),
            Beside::Large(large) => Some(&large.data),
        }
    }

    /// The same, sharing the node's memory.
    pub(super) fn shared_data(&self) -> Option<Bytes> {
        if let Beside::Large(large) = &self.beside {
            return Some(large.data.clone());
        }
        let (_, end) = self.path_range();
        let share = || match self.text.len() - end {
            0 => Bytes::new(),
            _ => Bytes::from_owner(self.text.clone()).slice(end..),
        };
        (self.text[0] & DATA != 0).then(share)
    }

    /// How many bytes of data.
    pub(super) fn data_bytes(&self) -> usize {
        self.data().map_or(0, <[u8]>::len)
    }

    fn data_in_text(&self) -> Option<&[u8]> {
        let (_, end) = self.path_range();
        (self.text[0] & DATA != 0).then(|| &self.text[end..])
    }

    /// The access list; nodes share it.
    pub(super) fn acl(&self) -> &Arc<[Acl]> {
        match &self.beside {
            Beside::Acl(acl) => acl,
            Beside::Large(large) => &large.acl,
        }
    }

    /// The Stat that clients see of it with so many children.
    pub(super) fn stat(&self, child_count: usize) -> Stat {
        let numbers = self.numbers();
        let num_children = count(child_count);
        Stat {
            czxid: numbers.czxid,
            mzxid: numbers.mzxid,
            ctime_ms: numbers.ctime_ms,
            mtime_ms: numbers.mtime_ms,
            version: numbers.version,
            cversion: numbers.cversion.wrapping_mul(2).wrapping_sub(num_children),
            aversion: numbers.aversion,
            ephemeral_owner: numbers.ephemeral_owner,
            data_length: count(self.data_bytes()),
            num_children,
            pzxid: numbers.pzxid,
        }
    }

    fn path_range(&self) -> (usize, usize) {
        let mut fields = Fields(&self.text);
        let [flags] = fields.take();
        let start = head_bytes(flags);
        let path_bytes = u32::from_le_bytes(fields.take());
        (start, start + usize::try_from(path_bytes).expect("it is in memory"))
    }
}

/// A node's text.
fn lay_out(path: &str, data: Option<&[u8]>, numbers: &NodeNumbers) -> Arc<[u8]> {
    let NodeNumbers { czxid, mzxid, pzxid, ctime_ms, mtime_ms, .. } = *numbers;
    let NodeNumbers { version, cversion, aversion, ephemeral_owner, .. } = *numbers;
    let named = |flag, is_named| if is_named { flag } else { 0 };
    let flags = named(WRITTEN, (mzxid, mtime_ms) != (czxid, ctime_ms))
        | named(HAD_CHILDREN, pzxid != czxid)
        | named(VERSIONED, (version, cversion, aversion) != (0, 0, 0))
        | named(OWNED, !ephemeral_owner.is_none())
        | named(DATA, data.is_some());
    let path_bytes = u32::try_from(path.len()).expect("bounded by a frame");
    let data = data.unwrap_or_default();
    let mut text = Vec::with_capacity(head_bytes(flags) + path.len() + data.len());
    text.push(flags);
    text.extend_from_slice(&path_bytes.to_le_bytes());
    text.extend_from_slice(&czxid.get().to_le_bytes());
    text.extend_from_slice(&ctime_ms.to_le_bytes());
    if flags & WRITTEN != 0 {
        text.extend_from_slice(&mzxid.get().to_le_bytes());
        text.extend_from_slice(&mtime_ms.to_le_bytes());
    }
    if flags & HAD_CHILDREN != 0 {
        text.extend_from_slice(&pzxid.get().to_le_bytes());
    }
    if flags & VERSIONED != 0 {
        for number in [version, cversion, aversion] {
            text.extend_from_slice(&number.to_le_bytes());
        }
    }
    if flags & OWNED != 0 {
        text.extend_from_slice(&ephemeral_owner.get().to_le_bytes());
    }
    text.extend_from_slice(path.as_bytes());
    text.extend_from_slice(data);
    text.into()
}

/// How far the path is from the beginning.
fn head_bytes(flags: u8) -> usize {
    let of = |flag, bytes| if flags & flag != 0 { bytes } else { 0 };
    HEAD_BYTES + of(WRITTEN, 16) + of(HAD_CHILDREN, 8) + of(VERSIONED, 12) + of(OWNED, 8)
}

/// What is left of a node's bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.0.split_first_chunk().expect("`Node::new` wrote it");
        self.0 = rest;
        *first
    }

    fn zxid(&mut self) -> Zxid {
        Zxid::new(i64::from_le_bytes(self.take()))
    }
}

impl<'a> NodeView<'a> {
    pub(super) fn new(node: &'a Node, child_count: usize) -> Self {
        Self { node, child_count }
    }

    pub(super) fn node(self) -> &'a Node {
        self.node
    }

    /// The whole path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.node.path()
    }

    /// The data, without a copy; `None` is ZooKeeper's null.
    #[must_use]
    pub fn data(&self) -> Option<Bytes> {
        self.node.shared_data()
    }

    /// The Stat.
    #[must_use]
    pub fn stat(&self) -> Stat {
        self.node.stat(self.child_count)
    }

    /// The access list; nodes share it.
    #[must_use]
    pub fn acl(&self) -> &'a Arc<[Acl]> {
        self.node.acl()
    }
}

/// Sizes are bounded far below by frames and memory; the wire has 32 bits for them.
fn count(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of numbers that take room and that do not.
    #[test]
    fn what_is_put_in_comes_out() {
        let acl: Arc<[Acl]> = Acl::open().into();
        for case in 0..64_i64 {
            let is = |bit: i64| (case >> bit) & 1;
            let version = |bit: i64| i32::try_from(is(bit)).unwrap() * i32::MIN;
            let numbers = NodeNumbers {
                czxid: Zxid::new(7),
                mzxid: Zxid::new(7 + is(0)),
                pzxid: Zxid::new(7 + (is(1) << 40)),
                ctime_ms: -1,
                mtime_ms: -1 - is(2),
                version: version(3),
                cversion: version(4),
                aversion: -version(3).wrapping_add(version(4)).signum(),
                ephemeral_owner: SessionId::new(is(5) * i64::MIN),
            };
            let long = vec![7; DATA_BESIDE_MAX + 1];
            let short = &long[1..];
            for data in [None, Some(&b""[..]), Some(&[0, 255, b'/'][..]), Some(short), Some(&long)]
            {
                let node = Node::new("/ü/b", data, acl.clone(), &numbers);
                assert_eq!(node.numbers(), numbers);
                assert_eq!(node.path(), "/ü/b");
                assert_eq!(node.data(), data);
                assert_eq!(node.shared_data().as_deref(), data);
                assert_eq!(node.data_bytes(), data.map_or(0, <[u8]>::len));
                assert_eq!(node.acl(), &acl);
                assert_eq!(node.with_numbers(&numbers), node);
                assert_eq!(node.with_acl(acl.clone(), &numbers), node);
                let none: Arc<[Acl]> = [].into();
                let other = node.with_acl(none.clone(), &numbers);
                assert_eq!((other.acl(), other.data()), (&none, data));
            }
        }
    }

    #[test]
    fn new_node_takes_21_bytes_beside_its_texts() {
        let numbers = NodeNumbers::new(Zxid::new(1 << 40), 1 << 40, SessionId::NONE);
        let node = Node::new("/a", Some(b"data"), Acl::open().into(), &numbers);
        assert_eq!(node.text.len(), HEAD_BYTES + "/a".len() + "data".len());
        assert_eq!(size_of::<Node>(), 32);
    }
}
