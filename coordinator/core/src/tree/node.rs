//! One znode, and the Stat that clients see of it.
//!
//! Called by: `index`, `store`, `transaction`, `record`. Calls: nothing.
//! Invariant: `cversion` counts creates of children only; the Stat's counts creates and deletes,
//! which is `2 * stored - children`, as in ZooKeeper.
//! It does not know its children.
//!
//! A node is never changed: another takes its place. So its path, its numbers and its data are one text, and numbers that
//! say nothing new take no room:
//!
//! ```text
//! | flags 1 | length of the path 1 or 4 | czxid 8 | ctime 8 | what the flags name | path | data |
//! ```
//!
//! The texts of many nodes lie side by side (`shard`). A path or data of more than a few hundred bytes stands apart from
//! them: each child that comes or goes gives its parent other numbers, and must copy neither what the parent holds nor
//! what its neighbours do.

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

/// A longer path stands apart, and so does longer data.
const TEXT_PART_MAX: usize = 256;

/// What begins every node.
const HEAD_BYTES: usize = 1 + 1 + 8 + 8;
/// Its mzxid and mtime stand there: it was written since it was created.
const WRITTEN: u8 = 1;
/// Its pzxid stands there.
const HAD_CHILDREN: u8 = 1 << 1;
/// Its three versions stand there, as one of them is not 0.
const VERSIONED: u8 = 1 << 2;
/// Its owner stands there.
const OWNED: u8 = 1 << 3;
/// It has data in its text, if only of no length.
const DATA: u8 = 1 << 4;
/// The length of its path takes 4 bytes.
const LONG_PATH: u8 = 1 << 5;

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

/// What is stored of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// As the module says.
    text: Vec<u8>,
    beside: Beside,
}

/// The same where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeRef<'a> {
    text: &'a [u8],
    beside: &'a Beside,
}

/// What a node shares with others, or with those that it takes the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Only the access list: the rest is in the text.
    Acl(Arc<[Acl]>),
    Apart(Arc<Apart>),
}

/// What is too long for the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    acl: Arc<[Acl]>,
    /// `None`: in the text.
    path: Option<Arc<str>>,
    /// `None`: in the text, if there is any.
    data: Option<Bytes>,
}

/// A node as readers get it.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    node: NodeRef<'a>,
    child_count: usize,
}

impl Beside {
    /// Whether both are the same piece of memory.
    pub(super) fn is_shared_with(&self, other: &Beside) -> bool {
        match (self, other) {
            (Beside::Acl(one), Beside::Acl(other)) => Arc::ptr_eq(one, other),
            (Beside::Apart(one), Beside::Apart(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Node {
    /// A node; data `None` is ZooKeeper's null.
    pub(super) fn new(
        path: &str,
        data: Option<&[u8]>,
        acl: Arc<[Acl]>,
        numbers: &NodeNumbers,
    ) -> Node {
        let apart_path = (path.len() > TEXT_PART_MAX).then(|| path.into());
        let apart_data = data.filter(|data| data.len() > TEXT_PART_MAX).map(Bytes::copy_from_slice);
        let path_in_text = if apart_path.is_some() { "" } else { path };
        let data_in_text = data.filter(|_| apart_data.is_none());
        let text = lay_out(path_in_text, data_in_text, numbers);
        let beside = match (apart_path, apart_data) {
            (None, None) => Beside::Acl(acl),
            (path, data) => Beside::Apart(Arc::new(Apart { acl, path, data })),
        };
        Node { text, beside }
    }

    /// The same where it lies.
    pub(super) fn as_ref(&self) -> NodeRef<'_> {
        NodeRef { text: &self.text, beside: &self.beside }
    }
}

impl<'a> NodeRef<'a> {
    /// A node with this text, which another node had.
    pub(super) fn new(text: &'a [u8], beside: &'a Beside) -> Self {
        Self { text, beside }
    }

    /// Its text and what is beside it.
    pub(super) fn parts(self) -> (&'a [u8], &'a Beside) {
        (self.text, self.beside)
    }

    /// A node like it.
    pub(super) fn to_node(self) -> Node {
        Node { text: self.text.to_vec(), beside: self.beside.clone() }
    }

    /// The same with other numbers.
    pub(super) fn with_numbers(self, numbers: &NodeNumbers) -> Node {
        let text = lay_out(self.path_in_text(), self.data_in_text(), numbers);
        Node { text, beside: self.beside.clone() }
    }

    /// The same with another access list and other numbers.
    pub(super) fn with_acl(self, acl: Arc<[Acl]>, numbers: &NodeNumbers) -> Node {
        let beside = match self.beside {
            Beside::Acl(_) => Beside::Acl(acl),
            Beside::Apart(apart) => {
                let (path, data) = (apart.path.clone(), apart.data.clone());
                Beside::Apart(Arc::new(Apart { acl, path, data }))
            }
        };
        Node { text: lay_out(self.path_in_text(), self.data_in_text(), numbers), beside }
    }

    /// Its numbers.
    pub(super) fn numbers(self) -> NodeNumbers {
        let (flags, mut fields) = self.fields();
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
    pub(super) fn path_bytes(self) -> &'a [u8] {
        if let Beside::Apart(apart) = self.beside
            && let Some(path) = &apart.path
        {
            return path.as_bytes();
        }
        let (start, end) = self.path_range();
        &self.text[start..end]
    }

    /// Its whole path.
    pub(super) fn path(self) -> &'a str {
        std::str::from_utf8(self.path_bytes()).expect("it was made of a str")
    }

    /// Its data; `None` is ZooKeeper's null.
    pub(super) fn data(self) -> Option<&'a [u8]> {
        self.data_apart().map_or_else(|| self.data_in_text(), |data| Some(data))
    }

    /// The same to be kept; what stands apart is shared.
    pub(super) fn shared_data(self) -> Option<Bytes> {
        let in_text = || self.data_in_text().map(Bytes::copy_from_slice);
        self.data_apart().cloned().or_else(in_text)
    }

    fn data_apart(self) -> Option<&'a Bytes> {
        match self.beside {
            Beside::Acl(_) => None,
            Beside::Apart(apart) => apart.data.as_ref(),
        }
    }

    /// How many bytes of data.
    pub(super) fn data_bytes(self) -> usize {
        self.data().map_or(0, <[u8]>::len)
    }

    /// The access list; nodes share it.
    pub(super) fn acl(self) -> &'a Arc<[Acl]> {
        match self.beside {
            Beside::Acl(acl) => acl,
            Beside::Apart(apart) => &apart.acl,
        }
    }

    /// The Stat that clients see of it with so many children.
    pub(super) fn stat(self, child_count: usize) -> Stat {
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
            // ZooKeeper keeps its mark of a container or TTL node to itself, too.
            ephemeral_owner: if numbers.goes_by_itself() {
                SessionId::NONE
            } else {
                numbers.ephemeral_owner
            },
            data_length: count(self.data_bytes()),
            num_children,
            pzxid: numbers.pzxid,
        }
    }

    fn path_in_text(self) -> &'a str {
        let (start, end) = self.path_range();
        std::str::from_utf8(&self.text[start..end]).expect("it was made of a str")
    }

    fn data_in_text(self) -> Option<&'a [u8]> {
        let (_, end) = self.path_range();
        (self.text[0] & DATA != 0).then(|| &self.text[end..])
    }

    fn path_range(self) -> (usize, usize) {
        let flags = self.text[0];
        let start = head_bytes(flags);
        let mut length = Fields(&self.text[1..]);
        let path_bytes = match flags & LONG_PATH {
            0 => u32::from(u8::from_le_bytes(length.take())),
            _ => u32::from_le_bytes(length.take()),
        };
        (start, start + usize::try_from(path_bytes).expect("it is in memory"))
    }

    /// The flags, and what follows the length of the path.
    fn fields(self) -> (u8, Fields<'a>) {
        let flags = self.text[0];
        let length = if flags & LONG_PATH != 0 { 4 } else { 1 };
        (flags, Fields(&self.text[1 + length..]))
    }
}

/// A node's text.
fn lay_out(path: &str, data: Option<&[u8]>, numbers: &NodeNumbers) -> Vec<u8> {
    let NodeNumbers { czxid, mzxid, pzxid, ctime_ms, mtime_ms, .. } = *numbers;
    let NodeNumbers { version, cversion, aversion, ephemeral_owner, .. } = *numbers;
    let named = |flag, is_named| if is_named { flag } else { 0 };
    let short_path = u8::try_from(path.len());
    let flags = named(WRITTEN, (mzxid, mtime_ms) != (czxid, ctime_ms))
        | named(HAD_CHILDREN, pzxid != czxid)
        | named(VERSIONED, (version, cversion, aversion) != (0, 0, 0))
        | named(OWNED, !ephemeral_owner.is_none())
        | named(DATA, data.is_some())
        | named(LONG_PATH, short_path.is_err());
    let data = data.unwrap_or_default();
    let mut text = Vec::with_capacity(head_bytes(flags) + path.len() + data.len());
    text.push(flags);
    match short_path {
        Ok(path_bytes) => text.push(path_bytes),
        Err(_) => {
            let path_bytes = u32::try_from(path.len()).expect("a longer path stands apart");
            text.extend_from_slice(&path_bytes.to_le_bytes());
        }
    }
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
    text
}

/// How far the path is from the beginning.
fn head_bytes(flags: u8) -> usize {
    let of = |flag, bytes| if flags & flag != 0 { bytes } else { 0 };
    let numbers = of(WRITTEN, 16) + of(HAD_CHILDREN, 8) + of(VERSIONED, 12) + of(OWNED, 8);
    HEAD_BYTES + of(LONG_PATH, 3) + numbers
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
    pub(super) fn new(node: NodeRef<'a>, child_count: usize) -> Self {
        Self { node, child_count }
    }

    pub(super) fn node(self) -> NodeRef<'a> {
        self.node
    }

    /// The whole path.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.node.path()
    }

    /// The data; only much of it is shared, little is copied. `None` is ZooKeeper's null.
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
            let long = vec![7; TEXT_PART_MAX + 1];
            let texts =
                [None, Some(&b""[..]), Some(&[0, 255, b'/'][..]), Some(&long[1..]), Some(&long)];
            let paths = ["/".to_owned(), "/ü/b".to_owned()].into_iter();
            let paths =
                paths.chain([255, 256, TEXT_PART_MAX, TEXT_PART_MAX + 1].map(|n| "/".repeat(n)));
            for (path, data) in paths.flat_map(|path| texts.map(|data| (path.clone(), data))) {
                let owned = Node::new(&path, data, acl.clone(), &numbers);
                let node = owned.as_ref();
                assert_eq!(node.numbers(), numbers);
                assert_eq!(node.path(), path);
                assert_eq!(node.data(), data);
                assert_eq!(node.shared_data().as_deref(), data);
                assert_eq!(node.data_bytes(), data.map_or(0, <[u8]>::len));
                assert_eq!(node.acl(), &acl);
                assert_eq!(node.to_node(), owned);
                assert_eq!(node.with_numbers(&numbers), owned);
                assert_eq!(node.with_acl(acl.clone(), &numbers), owned);
                let none: Arc<[Acl]> = [].into();
                let other = node.with_acl(none.clone(), &numbers);
                assert_eq!((other.as_ref().acl(), other.as_ref().data()), (&none, data));
                assert_eq!(other.as_ref().path(), path);
            }
        }
    }

    #[test]
    fn text_has_18_bytes_beside_path_and_data_and_no_long_ones() {
        let numbers = NodeNumbers::new(Zxid::new(1 << 40), 1 << 40, SessionId::NONE);
        let bytes_of = |path: &str, data: &[u8]| {
            Node::new(path, Some(data), Acl::open().into(), &numbers).text.len()
        };
        assert_eq!(bytes_of("/a", b"data"), HEAD_BYTES + "/a".len() + "data".len());
        assert_eq!(HEAD_BYTES, 18);
        let long = "/".repeat(TEXT_PART_MAX + 1);
        assert_eq!(bytes_of(&long, long.as_bytes()), HEAD_BYTES);
    }
}
