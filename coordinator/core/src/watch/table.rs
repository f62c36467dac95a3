//! The watch registrations of this server.
//!
//! Called by: the server; `rearm`. Calls: nothing.
//! Invariant: `by_connection` lists exactly the paths of `by_path`; no registration is empty.
//! It does not know which nodes exist: a watch may wait for one to be created.
//!
//! One table holds ZooKeeper's two. A change of a node itself concerns data, persistent and
//! recursive watches on it and recursive ones above it; a change of its children concerns child
//! and persistent watches; its deletion concerns all, each connection once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coordinator_protocol::{Acl, AddWatchMode, ErrorCode, EventType, WatchKind, Zxid};

use crate::ids::ConnectionId;
use crate::tree::{Change, ChangeKind, ancestors, parent};

/// Paths that one connection may watch; one more is refused with -127.
pub const WATCHED_PATHS_MAX: usize = 1_000_000;
/// Bytes of those paths, with an allowance for each; likewise.
pub const WATCHED_BYTES_MAX: usize = 64 << 20;
/// What a registration takes beside its path.
const REGISTRATION_BYTES: usize = 32;

/// An event for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Who is told.
    pub connection: ConnectionId,
    /// What happened.
    pub event: EventType,
    /// To which node.
    pub path: Arc<str>,
    /// The write that did it; for what `set_watches` finds missed, the last write applied.
    pub zxid: Zxid,
    /// Who may hear of it: the node's access list when it happened; `None` for everybody, when the node
    /// is gone and its list with it.
    pub acl: Option<Arc<[Acl]>>,
}

/// Which kinds of watch one connection has on one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Modes(u8);

impl Modes {
    const NONE: Self = Self(0);
    /// One-shot: getData, exists.
    const DATA: Self = Self(1);
    /// One-shot: getChildren.
    const CHILD: Self = Self(2);
    const PERSISTENT: Self = Self(4);
    const RECURSIVE: Self = Self(8);
    const ALL: Self = Self(15);

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// All watches of this server's connections.
#[derive(Debug, Default)]
pub struct Watches {
    by_path: BTreeMap<Arc<str>, BTreeMap<ConnectionId, Modes>>,
    by_connection: BTreeMap<ConnectionId, Watched>,
    /// Registrations with `RECURSIVE`: while there are none, nobody above a node is asked.
    recursive_count: usize,
}

/// What one connection watches.
#[derive(Debug, Default)]
struct Watched {
    paths: BTreeSet<Arc<str>>,
    /// Weight of `paths`.
    bytes: usize,
}

impl Watched {
    /// Whether paths of this number and weight can be added.
    fn has_room(&self, paths: usize, bytes: usize) -> bool {
        self.paths.len().saturating_add(paths) <= WATCHED_PATHS_MAX
            && self.bytes.saturating_add(bytes) <= WATCHED_BYTES_MAX
    }
}

impl Watches {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A one-shot watch of getData (the node exists) or exists (whether or not it does).
    ///
    /// # Errors
    /// `ThrottledOp` when the connection watches `WATCHED_PATHS_MAX` paths, or they have
    /// `WATCHED_BYTES_MAX` bytes.
    pub fn watch_data(&mut self, connection: ConnectionId, path: &str) -> Result<(), ErrorCode> {
        self.register(connection, path, Modes::DATA)
    }

    /// A one-shot watch of getChildren; the node exists.
    ///
    /// # Errors
    /// As `watch_data`.
    pub fn watch_children(
        &mut self,
        connection: ConnectionId,
        path: &str,
    ) -> Result<(), ErrorCode> {
        self.register(connection, path, Modes::CHILD)
    }

    /// addWatch, whether or not the node exists.
    ///
    /// # Errors
    /// As `watch_data`.
    pub fn add(
        &mut self,
        connection: ConnectionId,
        path: &str,
        mode: AddWatchMode,
    ) -> Result<(), ErrorCode> {
        let modes = match mode {
            AddWatchMode::Persistent => Modes::PERSISTENT,
            AddWatchMode::PersistentRecursive => Modes::RECURSIVE,
        };
        self.register(connection, path, modes)
    }

    /// checkWatches
    #[must_use]
    pub fn contains(&self, connection: ConnectionId, path: &str, kind: WatchKind) -> bool {
        self.modes(connection, path).meets(modes_of(kind))
    }

    /// removeWatches: whether there was one.
    pub fn remove(&mut self, connection: ConnectionId, path: &str, kind: WatchKind) -> bool {
        let before = self.modes(connection, path);
        let after = before.without(modes_of(kind));
        if after != before {
            self.set_modes(connection, path, before, after);
        }
        after != before
    }

    /// Forgets a connection.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        for path in self.by_connection.remove(&connection).unwrap_or_default().paths {
            let Some(watchers) = self.by_path.get_mut(&path) else { continue };
            if watchers.remove(&connection).is_some_and(|modes| modes.meets(Modes::RECURSIVE)) {
                self.recursive_count -= 1;
            }
            if watchers.is_empty() {
                self.by_path.remove(&path);
            }
        }
    }

    /// Whom a change concerns, in ascending order of connections for each event; one-shot watches
    /// that fire are gone. Call it for each change, in order, before anyone can read its result.
    pub fn collect(&mut self, change: &Change, notifications: &mut Vec<Notification>) {
        let (event, concerned) = match change.kind {
            ChangeKind::Created => (EventType::NodeCreated, Modes::ALL.without(Modes::CHILD)),
            ChangeKind::DataChanged => {
                (EventType::NodeDataChanged, Modes::ALL.without(Modes::CHILD))
            }
            ChangeKind::Deleted => (EventType::NodeDeleted, Modes::ALL),
            ChangeKind::AclChanged => return,
        };
        let mut hit = self.fire(&change.path, concerned);
        if self.recursive_count > 0 {
            for above in ancestors(&change.path) {
                let watchers = self.by_path.get(above).into_iter().flatten();
                let recursive = watchers.filter(|(_, modes)| modes.meets(Modes::RECURSIVE));
                hit.extend(recursive.map(|(connection, _)| *connection));
            }
        }
        push(notifications, hit, (event, &change.path, &change.acl), change.zxid);
        if change.kind == ChangeKind::DataChanged {
            return;
        }
        if let Some(above) = parent(&change.path) {
            let Some((above, _)) = self.by_path.get_key_value(above) else { return };
            let above = above.clone();
            let hit = self.fire(&above, Modes::CHILD.with(Modes::PERSISTENT));
            let event = EventType::NodeChildrenChanged;
            push(notifications, hit, (event, &above, &change.parent_acl), change.zxid);
        }
    }

    /// Registrations: pairs of connection and path.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_connection.values().map(|watched| watched.paths.len()).sum()
    }

    /// Paths that someone watches.
    #[must_use]
    pub fn path_count(&self) -> usize {
        self.by_path.len()
    }

    /// Connections that watch something, each with its paths, ascending.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, &BTreeSet<Arc<str>>)> {
        self.by_connection.iter().map(|(connection, watched)| (*connection, &watched.paths))
    }

    /// Paths that someone watches, each with everybody who does, ascending.
    pub fn pairs(&self) -> impl Iterator<Item = (&Arc<str>, ConnectionId)> {
        let all = self.by_path.iter();
        all.flat_map(|(path, watchers)| watchers.keys().map(move |id| (path, *id)))
    }

    /// Asserts what always holds. Walks everything.
    pub fn check(&self) {
        let mut count = 0;
        let mut recursive_count = 0;
        for (path, watchers) in &self.by_path {
            assert!(!watchers.is_empty(), "nobody watches {path}");
            for (connection, modes) in watchers {
                count += 1;
                recursive_count += usize::from(modes.meets(Modes::RECURSIVE));
                assert!(*modes != Modes::NONE, "an empty watch of {path}");
                let watched = self.by_connection.get(connection);
                let listed = watched.is_some_and(|watched| watched.paths.contains(path));
                assert!(listed, "{path} is not listed");
            }
        }
        assert_eq!(count, self.count(), "paths that a connection does not watch");
        assert_eq!(recursive_count, self.recursive_count);
        for watched in self.by_connection.values() {
            assert!(!watched.paths.is_empty() && watched.has_room(0, 0));
            assert_eq!(watched.paths.iter().map(|path| weight(path)).sum::<usize>(), watched.bytes);
        }
    }

    fn register(
        &mut self,
        connection: ConnectionId,
        path: &str,
        modes: Modes,
    ) -> Result<(), ErrorCode> {
        let before = self.modes(connection, path);
        if before == Modes::NONE && !self.has_room(connection, 1, weight(path)) {
            return Err(ErrorCode::ThrottledOp);
        }
        self.set_modes(connection, path, before, before.with(modes));
        Ok(())
    }

    fn modes(&self, connection: ConnectionId, path: &str) -> Modes {
        let watchers = self.by_path.get(path);
        watchers.and_then(|watchers| watchers.get(&connection)).copied().unwrap_or(Modes::NONE)
    }

    fn set_modes(&mut self, connection: ConnectionId, path: &str, before: Modes, after: Modes) {
        self.recursive_count += usize::from(after.meets(Modes::RECURSIVE));
        self.recursive_count -= usize::from(before.meets(Modes::RECURSIVE));
        if after == Modes::NONE {
            self.forget(connection, path);
            return;
        }
        let known = self.by_path.get_key_value(path).map(|(path, _)| path.clone());
        let path: Arc<str> = known.unwrap_or_else(|| path.into());
        let watched = self.by_connection.entry(connection).or_default();
        if watched.paths.insert(path.clone()) {
            watched.bytes += weight(&path);
        }
        self.by_path.entry(path).or_default().insert(connection, after);
    }

    fn forget(&mut self, connection: ConnectionId, path: &str) {
        if let Some(watchers) = self.by_path.get_mut(path) {
            watchers.remove(&connection);
            if watchers.is_empty() {
                self.by_path.remove(path);
            }
        }
        if let Some(watched) = self.by_connection.get_mut(&connection) {
            if watched.paths.remove(path) {
                watched.bytes -= weight(path);
            }
            if watched.paths.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }

    /// Whether all of `paths` could be registered, whichever of them will be.
    pub(super) fn has_room_for<'a>(
        &self,
        connection: ConnectionId,
        paths: impl Iterator<Item = &'a String>,
    ) -> bool {
        let new: BTreeSet<&str> = paths
            .map(String::as_str)
            .filter(|path| self.modes(connection, path) == Modes::NONE)
            .collect();
        self.has_room(connection, new.len(), new.iter().map(|path| weight(path)).sum())
    }

    fn has_room(&self, connection: ConnectionId, paths: usize, bytes: usize) -> bool {
        match self.by_connection.get(&connection) {
            Some(watched) => watched.has_room(paths, bytes),
            None => Watched::default().has_room(paths, bytes),
        }
    }

    /// Connections with one of the `concerned` modes on `path`; their one-shot ones among them
    /// are used up.
    fn fire(&mut self, path: &str, concerned: Modes) -> BTreeSet<ConnectionId> {
        let Some(watchers) = self.by_path.get(path) else { return BTreeSet::new() };
        let used = Modes::DATA.with(Modes::CHILD);
        let used = Modes(used.0 & concerned.0);
        let met = watchers.iter().filter(|(_, modes)| modes.meets(concerned));
        let hit: Vec<(ConnectionId, Modes)> = met.map(|(id, modes)| (*id, *modes)).collect();
        for (connection, modes) in &hit {
            if modes.meets(used) {
                self.set_modes(*connection, path, *modes, modes.without(used));
            }
        }
        hit.into_iter().map(|(connection, _)| connection).collect()
    }
}

fn weight(path: &str) -> usize {
    path.len().saturating_add(REGISTRATION_BYTES)
}

fn modes_of(kind: WatchKind) -> Modes {
    match kind {
        WatchKind::Children => Modes::CHILD,
        WatchKind::Data => Modes::DATA,
        WatchKind::Any => Modes::ALL,
        WatchKind::Persistent => Modes::PERSISTENT,
        WatchKind::PersistentRecursive => Modes::RECURSIVE,
    }
}

fn push(
    notifications: &mut Vec<Notification>,
    connections: BTreeSet<ConnectionId>,
    (event, path, acl): (EventType, &Arc<str>, &Arc<[Acl]>),
    zxid: Zxid,
) {
    let told = |connection| {
        let (path, acl) = (path.clone(), Some(acl.clone()));
        Notification { connection, event, path, zxid, acl }
    };
    notifications.extend(connections.into_iter().map(told));
}
