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

use coordinator_protocol::{
    Acl, AddWatchMode, ErrorCode, EventType, SET_WATCHES_BYTES_MAX, SET_WATCHES_PATHS_MAX,
    WatchKind, Zxid,
};

use crate::ids::ConnectionId;
use crate::tree::{Change, ChangeKind, ancestors, parent};

/// Paths that one connection may watch, at most; one more is refused with -125, as what is over a quota.
pub const WATCHED_PATHS_MAX: usize = SET_WATCHES_PATHS_MAX;
/// Bytes of those paths, once for each kind of watch; likewise. As many as one request can set again, beside what else is in it.
pub const WATCHED_BYTES_MAX: usize = SET_WATCHES_BYTES_MAX - 64;
/// Of the watches of all connections; likewise.
pub const WATCHED_BYTES_ALL_MAX: usize = 1 << 30;
/// Watches that clients had elsewhere may be set again up to so many times what a client and all may have: when a server
/// dies the others are given its clients, who come again and again for as long as their watches are refused.
pub const RESTORED_FACTOR: usize = 2;
/// What a path takes in such a request beside its text.
const PATH_LENGTH_BYTES: usize = 4;

/// How many watches there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Paths of one connection.
    pub per_connection: usize,
    /// Pairs of connection and path of one client, by its certificate or address.
    pub per_client: usize,
    /// Those of all.
    pub all: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { per_connection: WATCHED_PATHS_MAX, per_client: usize::MAX, all: usize::MAX }
    }
}

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

    /// How many kinds these are.
    const fn count(self) -> usize {
        self.0.count_ones() as usize
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
    limits: WatchLimits,
    /// All registrations.
    all: Counted,
    /// Who is behind a connection, where that is known.
    clients: BTreeMap<ConnectionId, Arc<str>>,
    /// Registrations of those who have any.
    by_client: BTreeMap<Arc<str>, usize>,
}

/// Why a watch is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is new.
    New,
    /// Its client had it before it reconnected, and says so.
    Restored,
}

impl Claim {
    /// How many times the limits of a client and of all it may fill.
    fn factor(self) -> usize {
        match self {
            Self::New => 1,
            Self::Restored => RESTORED_FACTOR,
        }
    }
}

/// How much is registered, or would be more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    /// Pairs of connection and path.
    paths: usize,
    /// Weight of the watches.
    bytes: usize,
}

impl Counted {
    fn fits(self, more: Self, paths_max: usize, bytes_max: usize) -> bool {
        let adds =
            |held: usize, more: usize, max: usize| more == 0 || held.saturating_add(more) <= max;
        adds(self.paths, more.paths, paths_max) && adds(self.bytes, more.bytes, bytes_max)
    }
}

/// What one connection watches.
#[derive(Debug, Default)]
struct Watched {
    paths: BTreeSet<Arc<str>>,
    /// Weight of `paths`.
    bytes: usize,
}

impl Watched {
    fn counted(&self) -> Counted {
        Counted { paths: self.paths.len(), bytes: self.bytes }
    }
}

impl Watches {
    /// No watches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No watches, and no more than these later.
    #[must_use]
    pub fn within(limits: WatchLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Who is behind a connection that has no watches yet.
    pub fn come_from(&mut self, connection: ConnectionId, client: Arc<str>) {
        self.clients.insert(connection, client);
    }

    /// A one-shot watch of getData (the node exists) or exists (whether or not it does).
    ///
    /// # Errors
    /// `QuotaExceeded` when the connection, its client or all together watch as many paths as they may, or these have
    /// as many bytes.
    pub fn watch_data(&mut self, connection: ConnectionId, path: &str) -> Result<(), ErrorCode> {
        self.register(connection, path, Modes::DATA, Claim::New)
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
        self.register(connection, path, Modes::CHILD, Claim::New)
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
        self.register(connection, path, modes, Claim::New)
    }

    /// A watch that the connection's client had before.
    pub(super) fn restore(
        &mut self,
        connection: ConnectionId,
        path: &str,
        kind: WatchKind,
    ) -> Result<(), ErrorCode> {
        self.register(connection, path, modes_of(kind), Claim::Restored)
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
        let gone = self.by_connection.remove(&connection).unwrap_or_default();
        self.all.paths -= gone.paths.len();
        self.all.bytes -= gone.bytes;
        self.count_client(connection, |count| count - gone.paths.len());
        self.clients.remove(&connection);
        for path in gone.paths {
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
        self.all.paths
    }

    /// Paths that this connection watches.
    #[must_use]
    pub fn count_of(&self, connection: ConnectionId) -> usize {
        self.by_connection.get(&connection).map_or(0, |watched| watched.paths.len())
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
        let mut bytes: BTreeMap<ConnectionId, usize> = BTreeMap::new();
        let mut by_client: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for (path, watchers) in &self.by_path {
            assert!(!watchers.is_empty(), "nobody watches {path}");
            for (connection, modes) in watchers {
                count += 1;
                recursive_count += usize::from(modes.meets(Modes::RECURSIVE));
                assert!(*modes != Modes::NONE, "an empty watch of {path}");
                let watched = self.by_connection.get(connection);
                let listed = watched.is_some_and(|watched| watched.paths.contains(path));
                assert!(listed, "{path} is not listed");
                *bytes.entry(*connection).or_default() += weight(path, *modes);
                if let Some(client) = self.clients.get(connection) {
                    *by_client.entry(client.clone()).or_default() += 1;
                }
            }
        }
        assert_eq!(count, self.count(), "paths that a connection does not watch");
        assert_eq!(recursive_count, self.recursive_count);
        assert_eq!(by_client, self.by_client);
        let mut all = Counted::default();
        for (connection, watched) in &self.by_connection {
            assert!(!watched.paths.is_empty() && watched.paths.len() <= self.limits.per_connection);
            assert!(watched.bytes <= WATCHED_BYTES_MAX);
            assert_eq!(bytes.get(connection), Some(&watched.bytes));
            all.paths += watched.paths.len();
            all.bytes += watched.bytes;
        }
        assert_eq!(all, self.all);
        let times = |limit: usize| limit.saturating_mul(RESTORED_FACTOR);
        assert!(self.all.paths <= times(self.limits.all));
        assert!(self.all.bytes <= times(WATCHED_BYTES_ALL_MAX));
    }

    fn register(
        &mut self,
        connection: ConnectionId,
        path: &str,
        modes: Modes,
        claim: Claim,
    ) -> Result<(), ErrorCode> {
        let before = self.modes(connection, path);
        let more = Counted {
            paths: usize::from(before == Modes::NONE),
            bytes: weight(path, modes.without(before)),
        };
        if !self.has_room(connection, more, claim) {
            return Err(ErrorCode::QuotaExceeded);
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
        self.all.bytes += weight(path, after);
        self.all.bytes -= weight(path, before);
        if after == Modes::NONE {
            self.forget(connection, path, before);
            return;
        }
        let known = self.by_path.get_key_value(path).map(|(path, _)| path.clone());
        let path: Arc<str> = known.unwrap_or_else(|| path.into());
        let watched = self.by_connection.entry(connection).or_default();
        watched.bytes += weight(&path, after);
        watched.bytes -= weight(&path, before);
        if watched.paths.insert(path.clone()) {
            self.all.paths += 1;
            self.count_client(connection, |count| count + 1);
        }
        self.by_path.entry(path).or_default().insert(connection, after);
    }

    /// Changes the count of who is behind the connection.
    fn count_client(&mut self, connection: ConnectionId, change: impl FnOnce(usize) -> usize) {
        let Some(client) = self.clients.get(&connection) else { return };
        match change(self.by_client.get(client).copied().unwrap_or(0)) {
            0 => drop(self.by_client.remove(client)),
            count => drop(self.by_client.insert(client.clone(), count)),
        }
    }

    fn forget(&mut self, connection: ConnectionId, path: &str, before: Modes) {
        if let Some(watchers) = self.by_path.get_mut(path) {
            watchers.remove(&connection);
            if watchers.is_empty() {
                self.by_path.remove(path);
            }
        }
        if let Some(watched) = self.by_connection.get_mut(&connection) {
            let is_gone = watched.paths.remove(path);
            if is_gone {
                watched.bytes -= weight(path, before);
            }
            if watched.paths.is_empty() {
                self.by_connection.remove(&connection);
            }
            if is_gone {
                self.all.paths -= 1;
                self.count_client(connection, |count| count - 1);
            }
        }
    }

    /// Whether all of `wanted` could be restored, whichever of them will be.
    pub(super) fn has_room_for<'a>(
        &self,
        connection: ConnectionId,
        wanted: impl Iterator<Item = (&'a String, WatchKind)>,
    ) -> bool {
        let mut new: BTreeMap<&str, Modes> = BTreeMap::new();
        for (path, kind) in wanted {
            let all = new.entry(path).or_insert(Modes::NONE);
            *all = all.with(modes_of(kind));
        }
        let mut more = Counted::default();
        for (path, modes) in new {
            let before = self.modes(connection, path);
            more.paths += usize::from(before == Modes::NONE);
            more.bytes = more.bytes.saturating_add(weight(path, modes.without(before)));
        }
        self.has_room(connection, more, Claim::Restored)
    }

    fn has_room(&self, connection: ConnectionId, more: Counted, claim: Claim) -> bool {
        let times = |limit: usize| limit.saturating_mul(claim.factor());
        let held = self.by_connection.get(&connection).map(Watched::counted).unwrap_or_default();
        let client = self.clients.get(&connection).and_then(|client| self.by_client.get(client));
        let of_client = Counted { paths: client.copied().unwrap_or(0), bytes: 0 };
        held.fits(more, self.limits.per_connection.min(WATCHED_PATHS_MAX), WATCHED_BYTES_MAX)
            && of_client.fits(more, times(self.limits.per_client), usize::MAX)
            && self.all.fits(more, times(self.limits.all), times(WATCHED_BYTES_ALL_MAX))
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

/// What watches of these kinds on a path take of a request that sets them again.
fn weight(path: &str, modes: Modes) -> usize {
    path.len().saturating_add(PATH_LENGTH_BYTES).saturating_mul(modes.count())
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
