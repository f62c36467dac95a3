//! A subtree as of one zxid, to be sent in chunks while the tree goes on.
//!
//! Called by: `table`. Calls: `tree` (reads).
//! Invariant: nothing in it changes after it was taken; long data is shared with the tree.
//! It does not know who receives it: subscribers that ask for the same one share it.

use std::sync::Arc;

use bytes::Bytes;
use coordinator_protocol::{Acl, Item, ItemKind, Stat, Zxid};

use crate::tree::{Identity, Tree, may_read};

/// A chunk is closed when it has at least this many bytes of paths and data.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// A chunk is closed when it has this many nodes.
pub(super) const CHUNK_ITEMS_MAX: usize = 512;

/// A node as it was.
#[derive(Debug)]
struct Kept {
    path: Arc<str>,
    data: Option<Bytes>,
    acl: Arc<[Acl]>,
    stat: Stat,
}

#[derive(Debug)]
pub(super) struct Cut {
    zxid: Zxid,
    nodes: Vec<Kept>,
}

impl Cut {
    /// The subtree at `path` as it is, which is as of `zxid`.
    pub(super) fn take(tree: &Tree, path: &str, zxid: Zxid) -> Self {
        let walk = tree.subtree(path);
        let nodes = walk.map(|node| Kept {
            path: node.path().into(),
            data: node.data(),
            acl: node.acl().clone(),
            stat: node.stat(),
        });
        Self { zxid, nodes: nodes.collect() }
    }

    /// The write it was taken after.
    pub(super) fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The next chunk from position `next` on, and the position after it; nothing at the end. Nodes
    /// that `reader` may not read are left out.
    pub(super) fn chunk(&self, next: usize, reader: &[Identity]) -> Option<(Vec<Item>, usize)> {
        let mut items = Vec::new();
        let (mut bytes, mut after) = (0, next);
        for Kept { path, data, acl, stat } in self.nodes.get(next..)?.iter().take(CHUNK_ITEMS_MAX) {
            after += 1;
            if !may_read(acl, reader) {
                continue;
            }
            bytes += path.len() + data.as_ref().map_or(0, Bytes::len);
            items.push(Item {
                kind: ItemKind::Present,
                path: path.to_string(),
                data: data.clone(),
                stat: *stat,
            });
            if bytes >= CHUNK_BYTES {
                break;
            }
        }
        (after > next).then_some((items, after))
    }
}
