//! What persistent watches missed while their client was away.
//!
//! Called by: the server, for setWatches2. Calls: `tree` (reads).
//! Invariant: what is told happened after the zxid that the client knew by replies, in order; what it was told by
//! notifications meanwhile, it is told again. Where that is not known any more, each watched node that may have changed
//! is told as changed.
//! It does not know the registrations. ZooKeeper tells nothing here: a client that reconnects has to read everything
//! again to be sure.

use std::collections::BTreeSet;
use std::sync::Arc;

use coordinator_protocol::{Acl, EventType, SetWatchesRequest, Zxid};

use super::table::Notification;
use crate::ids::ConnectionId;
use crate::tree::{Change, ChangeKind, Tree, ancestors, parent};

/// Whose watches, and what they know.
#[derive(Clone, Copy, Debug)]
pub struct Missed<'a> {
    /// Who is told.
    pub connection: ConnectionId,
    /// What it set again.
    pub request: &'a SetWatchesRequest,
}

impl Missed<'_> {
    /// By the changes that were made meanwhile.
    #[must_use]
    pub fn of_changes(self, changes: impl Iterator<Item = Change>) -> Vec<Notification> {
        let set = |paths: &'_ [String]| paths.iter().cloned().collect::<BTreeSet<String>>();
        let single = set(&self.request.persistent_watches);
        let recursive = set(&self.request.persistent_recursive_watches);
        let mut missed = Vec::new();
        if single.is_empty() && recursive.is_empty() {
            return missed;
        }
        for change in changes {
            let event = match change.kind {
                ChangeKind::Created => EventType::NodeCreated,
                ChangeKind::DataChanged => EventType::NodeDataChanged,
                ChangeKind::Deleted => EventType::NodeDeleted,
                ChangeKind::AclChanged => continue,
            };
            let path = &*change.path;
            let is_below =
                || std::iter::once(path).chain(ancestors(path)).any(|top| recursive.contains(top));
            if single.contains(path) || (!recursive.is_empty() && is_below()) {
                let acl = Some(change.acl.clone());
                missed.push(self.tell((event, change.path.clone()), change.zxid, acl));
            }
            let above = parent(path).filter(|above| single.contains(*above));
            if let Some(above) = above.filter(|_| event != EventType::NodeDataChanged) {
                let event = (EventType::NodeChildrenChanged, Arc::from(above));
                missed.push(self.tell(event, change.zxid, Some(change.parent_acl.clone())));
            }
        }
        missed
    }

    /// When the changes are not known any more: what the nodes themselves show, as of `last`. Of a whole subtree its
    /// top stands for all: look again.
    #[must_use]
    pub fn unknown(self, tree: &Tree, last: Zxid) -> Vec<Notification> {
        let known = self.request.relative_zxid;
        let mut missed = Vec::new();
        let paths = &self.request.persistent_watches;
        let tops = &self.request.persistent_recursive_watches;
        let all =
            paths.iter().map(|path| (path, false)).chain(tops.iter().map(|path| (path, true)));
        for (path, is_top) in all {
            let mut tell =
                |event, acl| missed.push(self.tell((event, Arc::from(path.as_str())), last, acl));
            let Some(node) = tree.get(path) else {
                tell(EventType::NodeDeleted, None);
                continue;
            };
            let (stat, acl) = (node.stat(), Some(node.acl().clone()));
            if stat.czxid > known {
                tell(EventType::NodeCreated, acl.clone());
            } else if stat.mzxid > known || is_top {
                tell(EventType::NodeDataChanged, acl.clone());
            }
            if stat.pzxid > known.max(stat.czxid) && !is_top {
                tell(EventType::NodeChildrenChanged, acl);
            }
        }
        missed
    }

    fn tell(
        self,
        (event, path): (EventType, Arc<str>),
        zxid: Zxid,
        acl: Option<Arc<[Acl]>>,
    ) -> Notification {
        Notification { connection: self.connection, event, path, zxid, acl }
    }
}
