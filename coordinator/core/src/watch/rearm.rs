//! setWatches and setWatches2: a client that reconnected names the watches it had.
//!
//! Called by: the server. Calls: `table`, `tree` (reads).
//! Invariant: for each path either the watch is registered again or its event is returned.
//! It does not know what happened in between: it compares what there is with what was seen.
//! Persistent watches are registered again without an event: what they missed is the matter of `missed`.

use std::sync::Arc;

use coordinator_protocol::{ErrorCode, EventType, SetWatchesRequest, WatchKind, Zxid};

use super::table::{Notification, Watches};
use crate::ids::ConnectionId;
use crate::tree::{Tree, validate_path};

impl Watches {
    /// Registers what still holds and returns what was missed, in the order of the request.
    /// `last` is the last zxid applied to `tree`.
    ///
    /// # Errors
    /// `BadArguments` for a path that is not valid, `QuotaExceeded` when there would be too many
    /// (as for `watch_data`, but for `RESTORED_FACTOR` times the limits of a client and of all). Nothing is registered then: the client must not go on as if its
    /// watches were set.
    pub fn set_watches(
        &mut self,
        connection: ConnectionId,
        request: &SetWatchesRequest,
        tree: &Tree,
        last: Zxid,
    ) -> Result<Vec<Notification>, ErrorCode> {
        wanted(request).try_for_each(|(path, _)| validate_path(path))?;
        if !self.has_room_for(connection, wanted(request)) {
            return Err(ErrorCode::QuotaExceeded);
        }
        let mut missed = Vec::new();
        let mut tell = |event, path: &str| {
            let acl = tree.get(path).map(|node| node.acl().clone());
            missed.push(Notification { connection, event, path: Arc::from(path), zxid: last, acl });
        };
        for path in &request.data_watches {
            match tree.get(path).map(|node| node.stat().mzxid) {
                None => tell(EventType::NodeDeleted, path),
                Some(mzxid) if mzxid > request.relative_zxid => {
                    tell(EventType::NodeDataChanged, path);
                }
                Some(_) => self.restore(connection, path, WatchKind::Data)?,
            }
        }
        for path in &request.exist_watches {
            match tree.contains(path) {
                true => tell(EventType::NodeCreated, path),
                false => self.restore(connection, path, WatchKind::Data)?,
            }
        }
        for path in &request.child_watches {
            match tree.get(path).map(|node| node.stat().pzxid) {
                None => tell(EventType::NodeDeleted, path),
                Some(pzxid) if pzxid > request.relative_zxid => {
                    tell(EventType::NodeChildrenChanged, path);
                }
                Some(_) => self.restore(connection, path, WatchKind::Children)?,
            }
        }
        for path in &request.persistent_watches {
            self.restore(connection, path, WatchKind::Persistent)?;
        }
        for path in &request.persistent_recursive_watches {
            self.restore(connection, path, WatchKind::PersistentRecursive)?;
        }
        Ok(missed)
    }
}

fn wanted(request: &SetWatchesRequest) -> impl Iterator<Item = (&String, WatchKind)> {
    let lists = [
        (&request.data_watches, WatchKind::Data),
        (&request.exist_watches, WatchKind::Data),
        (&request.child_watches, WatchKind::Children),
        (&request.persistent_watches, WatchKind::Persistent),
        (&request.persistent_recursive_watches, WatchKind::PersistentRecursive),
    ];
    lists.into_iter().flat_map(|(paths, kind)| paths.iter().map(move |path| (path, kind)))
}
