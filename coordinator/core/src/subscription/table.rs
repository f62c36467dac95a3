//! Where each subscriber stands, and what it is sent next.
//!
//! Called by: the server. Calls: `history`, `cut`.
//! Invariant: `by_path` lists exactly the subscriptions of `by_connection`; a connection is in
//! `ready` exactly if one of its subscriptions is not `Live`, and in `owed` exactly if one of those
//! was told that it is complete: its subscriber counts on a change before any reply that could
//! reveal it (safety.md A8). One that is being sent a snapshot, or that resumes and has not had its
//! bookmark yet, knows that it is incomplete, and may be served after others.
//! What a subscriber may not read is left out; who may is another question after a new access list, and
//! everyone over it gets a snapshot. It does not know how full a connection is: `take` is
//! called for those with room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use coordinator_protocol::{
    ErrorCode, Item, ItemKind, SubscribeRequest, SubscriptionEvent, SubscriptionEventKind, Zxid,
};

use super::cut::Cut;
use super::history::History;
use super::past::Past;
use crate::ids::ConnectionId;
use crate::tree::{Change, ChangeKind, Identity, Tree, ancestors, may_read, validate_path};

/// Subscriptions of one connection; one more is refused with -127.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 64;

/// An event for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Who is told.
    pub connection: ConnectionId,
    /// What.
    pub event: SubscriptionEvent,
}

/// All subscriptions of this server's connections, and the history they read.
#[derive(Debug)]
pub struct Subscriptions {
    history: History,
    changes_max: usize,
    by_connection: BTreeMap<ConnectionId, BTreeMap<i32, Subscription>>,
    by_path: BTreeMap<Arc<str>, BTreeSet<(ConnectionId, i32)>>,
    /// Connections for which `take` has something...
    ready: BTreeSet<ConnectionId>,
    /// ...and that is what a subscriber counts on.
    owed: BTreeSet<ConnectionId>,
    /// The latest cut of each path, as long as someone is still being sent it.
    cuts: BTreeMap<Arc<str>, Weak<Cut>>,
}

#[derive(Debug)]
struct Subscription {
    path: Arc<str>,
    /// The subscriber was told that it has everything up to here.
    told: Zxid,
    /// It was told that it has everything, and not since that it is sent a snapshot.
    complete: bool,
    /// It was unsubscribed while something was owed: that is sent yet, before the answers that it stands before.
    ends: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A snapshot is to be taken.
    Fresh,
    /// A snapshot is under way: complete as of `zxid` when `next` reaches the cut's end.
    Snapshot { cut: Arc<Cut>, zxid: Zxid, next: usize },
    /// Changes after `after` are to be sent; then a bookmark, if the subscriber waits for a word.
    Behind { after: Zxid, bookmark: bool },
    /// Everything was sent up to the history's end.
    Live,
}

impl Subscriptions {
    /// No subscriptions, and a history that begins after `loaded`: the last zxid of the state that
    /// was loaded. It keeps at most `changes_max` changes.
    #[must_use]
    pub fn new(loaded: Zxid, changes_max: usize) -> Self {
        Self {
            history: History::new(loaded, changes_max),
            changes_max,
            by_connection: BTreeMap::new(),
            by_path: BTreeMap::new(),
            ready: BTreeSet::new(),
            owed: BTreeSet::new(),
            cuts: BTreeMap::new(),
        }
    }

    /// The state was replaced by one as of `loaded`: the history begins anew, everyone gets a
    /// snapshot.
    pub fn reset(&mut self, loaded: Zxid) {
        self.history = History::new(loaded, self.changes_max);
        self.cuts.clear();
        for subscriptions in self.by_connection.values_mut() {
            subscriptions.values_mut().for_each(|subscription| subscription.phase = Phase::Fresh);
        }
        let connections: Vec<ConnectionId> = self.by_connection.keys().copied().collect();
        connections.into_iter().for_each(|connection| self.sort(connection));
    }

    /// subscribe: what it leads to is in the next `take`, which must come after the reply.
    ///
    /// # Errors
    /// `BadArguments` when the path is not valid or the number is in use; `ThrottledOp` when the
    /// connection has `SUBSCRIPTIONS_PER_CONNECTION_MAX`.
    pub fn subscribe(
        &mut self,
        connection: ConnectionId,
        request: &SubscribeRequest,
    ) -> Result<(), ErrorCode> {
        validate_path(&request.path)?;
        if self.is_ending(connection, request.subscription) {
            self.remove(connection, request.subscription);
        }
        if let Some(subscriptions) = self.by_connection.get(&connection) {
            if subscriptions.contains_key(&request.subscription) {
                return Err(ErrorCode::BadArguments);
            }
            if subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
                return Err(ErrorCode::ThrottledOp);
            }
        }
        let from = request.from_zxid;
        let resumes = from > Zxid::ZERO && self.history.can_resume(&request.path, from);
        let phase = match resumes {
            true => Phase::Behind { after: from, bookmark: true },
            false => Phase::Fresh,
        };
        let path: Arc<str> = request.path.as_str().into();
        let told = if resumes { from } else { Zxid::ZERO };
        let subscription =
            Subscription { path: path.clone(), told, complete: false, ends: false, phase };
        let subscriptions = self.by_connection.entry(connection).or_default();
        subscriptions.insert(request.subscription, subscription);
        self.by_path.entry(path).or_default().insert((connection, request.subscription));
        self.sort(connection);
        Ok(())
    }

    /// All changes after `zxid`, in order; nothing when not all are known any more, or there are more than
    /// `count_max`.
    #[must_use]
    pub fn changes_after(
        &self,
        zxid: Zxid,
        count_max: usize,
    ) -> Option<impl Iterator<Item = Change>> {
        let is_known = self.history.covers(zxid) && self.history.count_after(zxid) <= count_max;
        let changes = || self.history.after(zxid).flat_map(|(_, changes)| changes);
        is_known.then(|| changes().map(Past::to_change))
    }

    /// unsubscribe: whether there was one. What its subscriber counts on is sent all the same: answers to earlier
    /// requests, which could reveal it, are held until then.
    pub fn unsubscribe(&mut self, connection: ConnectionId, subscription: i32) -> bool {
        let subscriptions = self.by_connection.get_mut(&connection);
        let found = subscriptions.and_then(|found| found.get_mut(&subscription));
        let Some(found) = found.filter(|found| !found.ends) else { return false };
        if found.is_owed() {
            found.ends = true;
        } else {
            self.remove(connection, subscription);
        }
        true
    }

    fn is_ending(&self, connection: ConnectionId, subscription: i32) -> bool {
        let subscriptions = self.by_connection.get(&connection);
        subscriptions.and_then(|found| found.get(&subscription)).is_some_and(|found| found.ends)
    }

    fn remove(&mut self, connection: ConnectionId, subscription: i32) {
        let Some(subscriptions) = self.by_connection.get_mut(&connection) else { return };
        let Some(gone) = subscriptions.remove(&subscription) else { return };
        if subscriptions.is_empty() {
            self.by_connection.remove(&connection);
        }
        self.sort(connection);
        self.forget_path(&gone.path, (connection, subscription));
    }

    /// Forgets a connection.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        for (id, gone) in self.by_connection.remove(&connection).unwrap_or_default() {
            self.forget_path(&gone.path, (connection, id));
        }
        self.sort(connection);
    }

    /// Takes note of an applied command; those without changes too, for the bookmarks.
    pub fn record(&mut self, zxid: Zxid, changes: &[Change]) {
        let before = self.history.last();
        self.history.push(zxid, changes);
        if self.by_path.is_empty() {
            return;
        }
        for change in changes {
            let above = ancestors(&change.path);
            for path in std::iter::once(&*change.path).chain(above) {
                for (connection, id) in self.by_path.get(path).into_iter().flatten() {
                    let subscriptions = self.by_connection.get_mut(connection);
                    let found = subscriptions.and_then(|found| found.get_mut(id));
                    let subscription = found.expect("by_path lists only what there is");
                    subscription.phase = match &subscription.phase {
                        _ if change.kind == ChangeKind::AclChanged => Phase::Fresh,
                        Phase::Live => Phase::Behind { after: before, bookmark: false },
                        Phase::Fresh | Phase::Snapshot { .. } | Phase::Behind { .. } => continue,
                    };
                    self.ready.insert(*connection);
                    if subscription.complete {
                        self.owed.insert(*connection);
                    }
                }
            }
        }
    }

    /// Connections for which `take` has something.
    pub fn ready(&self) -> impl Iterator<Item = ConnectionId> {
        self.ready.iter().copied()
    }

    /// Those of them for which `take_owed` has something.
    pub fn owed(&self) -> impl Iterator<Item = ConnectionId> {
        self.owed.iter().copied()
    }

    /// Whether a reply to this connection could reveal what its subscriber counts on hearing first.
    #[must_use]
    pub fn is_owed(&self, connection: ConnectionId) -> bool {
        self.owed.contains(&connection)
    }

    /// What the connection is sent next, in order, what it counts on before all else: at most about
    /// `bytes_max` bytes, but at least one event if there is one. Afterwards it is still `ready` if
    /// there is more. `tree` is as of the last write recorded.
    pub fn take(
        &mut self,
        reader: (ConnectionId, &[Identity]),
        tree: &Tree,
        bytes_max: usize,
    ) -> Vec<SubscriptionEvent> {
        self.take_of(reader, tree, bytes_max, |subscription| !subscription.is_live())
    }

    /// As `take`, but nothing else than what the connection counts on.
    pub fn take_owed(
        &mut self,
        reader: (ConnectionId, &[Identity]),
        tree: &Tree,
        bytes_max: usize,
    ) -> Vec<SubscriptionEvent> {
        self.take_of(reader, tree, bytes_max, Subscription::is_owed)
    }

    fn take_of(
        &mut self,
        (connection, identities): (ConnectionId, &[Identity]),
        tree: &Tree,
        bytes_max: usize,
        due: impl Fn(&Subscription) -> bool,
    ) -> Vec<SubscriptionEvent> {
        let mut events = Events { list: Vec::new(), bytes: 0, bytes_max };
        let Some(subscriptions) = self.by_connection.get_mut(&connection) else {
            return events.list;
        };
        let mut source =
            Source { history: &self.history, cuts: &mut self.cuts, tree, reader: identities };
        while !events.is_full() {
            let owed = subscriptions.iter().find(|(_, subscription)| subscription.is_owed());
            let next = owed.or_else(|| subscriptions.iter().find(|(_, found)| due(found)));
            let Some(id) = next.map(|(id, _)| *id) else { break };
            let Some(subscription) = subscriptions.get_mut(&id) else { break };
            subscription.advance(id, &mut source, &mut events);
        }
        let over = subscriptions.iter().filter(|(_, found)| found.ends && !found.is_owed());
        let over: Vec<i32> = over.map(|(id, _)| *id).collect();
        over.into_iter().for_each(|id| self.remove(connection, id));
        self.sort(connection);
        events.list
    }

    /// "Complete up to the last write" for each subscriber that has everything and was not told so
    /// yet, on connections with room. Call it from time to time.
    pub fn bookmarks(&mut self, has_room: impl Fn(ConnectionId) -> bool) -> Vec<Delivery> {
        let last = self.history.last();
        let mut deliveries = Vec::new();
        for (connection, subscriptions) in &mut self.by_connection {
            if !has_room(*connection) {
                continue;
            }
            for (id, subscription) in subscriptions {
                if subscription.is_live() && subscription.told < last {
                    subscription.told = last;
                    let event = event(*id, SubscriptionEventKind::Bookmark, last);
                    deliveries.push(Delivery { connection: *connection, event });
                }
            }
        }
        deliveries
    }

    /// Open subscriptions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_connection.values().map(BTreeMap::len).sum()
    }

    /// Asserts what always holds. Walks everything.
    pub fn check(&self) {
        self.history.check();
        let mut count = 0;
        for (connection, subscriptions) in &self.by_connection {
            assert!(!subscriptions.is_empty());
            assert!(subscriptions.len() <= SUBSCRIPTIONS_PER_CONNECTION_MAX);
            let all_live = subscriptions.values().all(Subscription::is_live);
            assert_eq!(self.ready.contains(connection), !all_live, "ready: {connection}");
            let owed = subscriptions.values().any(Subscription::is_owed);
            assert_eq!(self.owed.contains(connection), owed, "owed: {connection}");
            for (id, subscription) in subscriptions {
                count += 1;
                let listed = self.by_path.get(&subscription.path);
                assert!(listed.is_some_and(|listed| listed.contains(&(*connection, *id))));
            }
        }
        assert_eq!(self.by_path.values().map(BTreeSet::len).sum::<usize>(), count);
        assert!(self.by_path.values().all(|listed| !listed.is_empty()));
        assert!(self.ready.iter().all(|connection| self.by_connection.contains_key(connection)));
        assert!(self.owed.iter().all(|connection| self.by_connection.contains_key(connection)));
    }

    /// Puts a connection into `ready` and `owed`, or takes it out.
    fn sort(&mut self, connection: ConnectionId) {
        let subscriptions = self.by_connection.get(&connection);
        let any = |which: fn(&Subscription) -> bool| {
            subscriptions.is_some_and(|found| found.values().any(which))
        };
        for (set, belongs) in [
            (&mut self.ready, any(|subscription| !subscription.is_live())),
            (&mut self.owed, any(Subscription::is_owed)),
        ] {
            if belongs {
                set.insert(connection);
            } else {
                set.remove(&connection);
            }
        }
    }

    fn forget_path(&mut self, path: &str, subscriber: (ConnectionId, i32)) {
        if let Some(listed) = self.by_path.get_mut(path) {
            listed.remove(&subscriber);
            if listed.is_empty() {
                self.by_path.remove(path);
                self.cuts.remove(path);
            }
        }
    }
}

/// Where events come from.
struct Source<'a> {
    history: &'a History,
    cuts: &'a mut BTreeMap<Arc<str>, Weak<Cut>>,
    tree: &'a Tree,
    /// Who is told.
    reader: &'a [Identity],
}

impl Source<'_> {
    /// The subtree as of the history's end: the one that others are being sent, if nothing in it
    /// has changed since, or a new one.
    fn cut(&mut self, path: &Arc<str>) -> Arc<Cut> {
        let shared = self.cuts.get(path).and_then(Weak::upgrade).filter(|cut| {
            let mut later = self.history.after(cut.zxid()).flat_map(|(_, changes)| changes);
            let covers = self.history.covers(cut.zxid());
            covers && !later.any(|past| past.is_within(path))
        });
        shared.unwrap_or_else(|| {
            let cut = Arc::new(Cut::take(self.tree, path, self.history.last()));
            self.cuts.insert(path.clone(), Arc::downgrade(&cut));
            cut
        })
    }
}

/// Events being collected, up to a limit.
struct Events {
    list: Vec<SubscriptionEvent>,
    bytes: usize,
    bytes_max: usize,
}

impl Events {
    fn is_full(&self) -> bool {
        !self.list.is_empty() && self.bytes >= self.bytes_max
    }

    fn push(&mut self, event: SubscriptionEvent) {
        let of_item =
            |item: &Item| 96 + item.path.len() + item.data.as_ref().map_or(0, |d| d.len());
        self.bytes += 40 + event.items.iter().map(of_item).sum::<usize>();
        self.list.push(event);
    }
}

impl Subscription {
    fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Whether its subscriber counts on what it is to be sent.
    fn is_owed(&self) -> bool {
        self.complete && !self.is_live()
    }

    /// Sends one piece of what is due.
    fn advance(&mut self, id: i32, source: &mut Source<'_>, events: &mut Events) {
        let phase = std::mem::replace(&mut self.phase, Phase::Live);
        self.phase = match phase {
            Phase::Live => Phase::Live,
            Phase::Fresh => {
                let zxid = source.history.last();
                events.push(event(id, SubscriptionEventKind::SnapshotBegin, zxid));
                self.complete = false;
                Phase::Snapshot { cut: source.cut(&self.path), zxid, next: 0 }
            }
            Phase::Snapshot { cut, zxid, next } => match cut.chunk(next, source.reader) {
                Some((items, next)) if items.is_empty() => Phase::Snapshot { cut, zxid, next },
                Some((items, next)) => {
                    let chunk = event(id, SubscriptionEventKind::SnapshotChunk, zxid);
                    events.push(SubscriptionEvent { items, ..chunk });
                    Phase::Snapshot { cut, zxid, next }
                }
                None => {
                    events.push(event(id, SubscriptionEventKind::SnapshotEnd, zxid));
                    self.told = zxid;
                    self.complete = true;
                    Phase::Behind { after: zxid, bookmark: false }
                }
            },
            Phase::Behind { after, .. } if !source.history.covers(after) => Phase::Fresh,
            Phase::Behind { after, bookmark } => {
                self.send_changes(id, source, events, (after, bookmark))
            }
        };
    }

    /// Sends the next write that concerns the subtree.
    fn send_changes(
        &mut self,
        id: i32,
        source: &Source<'_>,
        events: &mut Events,
        (after, bookmark): (Zxid, bool),
    ) -> Phase {
        for (zxid, changes) in source.history.after(after.max(self.told)) {
            let within = changes
                .filter(|past| past.is_within(&self.path) && may_read(past.acl(), source.reader));
            let items: Vec<Item> = within.filter_map(item).collect();
            if !items.is_empty() {
                let changes = event(id, SubscriptionEventKind::Changes, zxid);
                events.push(SubscriptionEvent { items, ..changes });
                self.told = zxid;
                return Phase::Behind { after: zxid, bookmark };
            }
        }
        let last = source.history.last().max(self.told);
        if bookmark {
            events.push(event(id, SubscriptionEventKind::Bookmark, last));
            self.told = last;
            self.complete = true;
        }
        Phase::Live
    }
}

fn event(subscription: i32, kind: SubscriptionEventKind, zxid: Zxid) -> SubscriptionEvent {
    SubscriptionEvent { subscription, kind, zxid, items: Vec::new() }
}

/// What a subscriber is told of a change; of a new access list only by a snapshot.
fn item(past: Past<'_>) -> Option<Item> {
    let kind = match past.kind {
        ChangeKind::Created => ItemKind::Created,
        ChangeKind::DataChanged => ItemKind::DataChanged,
        ChangeKind::Deleted => ItemKind::Deleted,
        ChangeKind::AclChanged => return None,
    };
    Some(Item { kind, path: past.path().to_owned(), data: past.data(), stat: past.stat() })
}
