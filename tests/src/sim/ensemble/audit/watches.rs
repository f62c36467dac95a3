//! Every watch event that was due came before the first answer that could reveal its change, once
//! and in order, and no other came.
//!
//! The connection's watches are followed by a naive copy of the rules: a list, searched for each
//! change. Between two answers exactly the events must come that the changes between their zxids
//! fire.

use std::collections::{BTreeMap, VecDeque};

use coordinator_core::tree::{Change, ChangeKind, parent};
use coordinator_protocol::{
    AddWatchMode, EventType, PathWatch, Request, Response, SetWatchesRequest, Zxid,
};

use super::{Audited, Facts};
use crate::sim::ensemble::client::{Conversation, Heard};

type Event = (Zxid, EventType, String);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Data,
    Child,
    Persistent,
    Recursive,
}

/// What a connection watches, as a list.
#[derive(Default)]
struct Naive(Vec<(String, Kind)>);

pub(super) fn audit(facts: &Facts<'_>, talk: &Conversation, audited: &mut Audited) {
    let mut watched = Naive::default();
    let mut came: VecDeque<Event> = VecDeque::new();
    let mut seen = Zxid::ZERO;
    for heard in &talk.heard {
        match heard {
            Heard::Watch(zxid, event, path) => {
                came.push_back((*zxid, *event, path.clone()));
                audited.events += 1;
            }
            Heard::Event(_) => {}
            Heard::Reply { request, zxid, outcome, .. } => {
                for change in facts.changes_between(seen, *zxid) {
                    watched.expect(change, &mut came, talk);
                }
                seen = *zxid;
                let request = &talk.sent[*request].request;
                if let Request::SetWatches2(set) = request {
                    let once = watched.set(set, facts, *zxid);
                    let found: Vec<Event> = came.drain(..).collect();
                    check_missed(&found, &once, &Away { set, facts, now: *zxid });
                }
                watched.answered(request, outcome.as_ref().ok());
                assert!(came.is_empty(), "events that nothing fired: {came:?}");
            }
        }
    }
    // The connection ended: what came is a beginning of what was due. Events of a setWatches whose
    // answer did not come cannot be told from others.
    let answered = talk.heard.iter().filter(|heard| matches!(heard, Heard::Reply { .. })).count();
    if talk.sent.iter().skip(answered).any(|sent| matches!(sent.request, Request::SetWatches2(_))) {
        return;
    }
    let rest = facts.changes_between(seen, Zxid::new(i64::MAX));
    let mut due = rest.iter();
    while !came.is_empty() {
        let change = due.next().unwrap_or_else(|| panic!("events that nothing fired: {came:?}"));
        for event in watched.fire(change) {
            if let Some(first) = came.pop_front() {
                assert_eq!(first, event, "an event out of turn");
            }
        }
    }
}

/// What was set again, and when it was answered.
struct Away<'a> {
    set: &'a SetWatchesRequest,
    facts: &'a Facts<'a>,
    now: Zxid,
}

/// First what the persistent watches missed, change by change, or node by node where the server does not know
/// the changes any more; then what the others missed.
fn check_missed(found: &[Event], once: &[Event], away: &Away<'_>) {
    let is = |lasting: Vec<Event>| found.iter().eq(lasting.iter().chain(once));
    assert!(
        is(away.by_changes()) || is(away.by_nodes()),
        "what setWatches finds missed: {found:?}, not {:?} or {:?} and {once:?}",
        away.by_changes(),
        away.by_nodes(),
    );
}

impl Away<'_> {
    fn by_changes(&self) -> Vec<Event> {
        let mut lasting = Naive::default();
        let Self { set, facts, now } = self;
        set.persistent_watches.iter().for_each(|path| lasting.add(path, Kind::Persistent));
        set.persistent_recursive_watches.iter().for_each(|path| lasting.add(path, Kind::Recursive));
        let changes = facts.changes_between(set.relative_zxid, *now);
        changes.iter().flat_map(|change| lasting.fire(change)).collect()
    }

    fn by_nodes(&self) -> Vec<Event> {
        let Self { set, facts, now } = self;
        let (nodes, since) = (Nodes::at(facts, *now), set.relative_zxid);
        let mut missed = Vec::new();
        let tops = set.persistent_recursive_watches.iter().map(|path| (path, true));
        for (path, is_top) in set.persistent_watches.iter().map(|path| (path, false)).chain(tops) {
            let mut tell = |event| missed.push((*now, event, path.clone()));
            let Some(mzxid) = nodes.modified.get(&**path) else {
                tell(EventType::NodeDeleted);
                continue;
            };
            let (czxid, pzxid) = (nodes.created[&**path], nodes.children_changed[&**path]);
            if czxid > since {
                tell(EventType::NodeCreated);
            } else if *mzxid > since || is_top {
                tell(EventType::NodeDataChanged);
            }
            if pzxid > since.max(czxid) && !is_top {
                tell(EventType::NodeChildrenChanged);
            }
        }
        missed
    }
}

impl Naive {
    fn expect(&mut self, change: &Change, came: &mut VecDeque<Event>, talk: &Conversation) {
        for event in self.fire(change) {
            let first = came.pop_front();
            assert_eq!(first, Some(event), "connection {}: an event is due", talk.connection);
        }
    }

    fn has(&self, path: &str, kinds: &[Kind]) -> bool {
        self.0.iter().any(|(watched, kind)| watched == path && kinds.contains(kind))
    }

    fn use_up(&mut self, path: &str, used: Kind) {
        self.0.retain(|(watched, kind)| watched != path || *kind != used);
    }

    fn is_below_recursive(&self, path: &str) -> bool {
        self.0.iter().any(|(top, kind)| {
            let below = top == "/" || path.strip_prefix(&**top).is_some_and(|r| r.starts_with('/'));
            *kind == Kind::Recursive && (top == path || below)
        })
    }

    fn fire(&mut self, change: &Change) -> Vec<Event> {
        let path = &*change.path;
        let mut events = Vec::new();
        let (event, gone) = match change.kind {
            ChangeKind::Created => (EventType::NodeCreated, false),
            ChangeKind::DataChanged => (EventType::NodeDataChanged, false),
            ChangeKind::Deleted => (EventType::NodeDeleted, true),
            ChangeKind::AclChanged => return events,
        };
        if self.has(path, &[Kind::Data, Kind::Persistent])
            || self.is_below_recursive(path)
            || (gone && self.has(path, &[Kind::Child]))
        {
            events.push((change.zxid, event, path.to_owned()));
        }
        self.use_up(path, Kind::Data);
        if gone {
            self.use_up(path, Kind::Child);
        }
        let above = parent(path).filter(|_| change.kind != ChangeKind::DataChanged);
        if let Some(above) = above {
            if self.has(above, &[Kind::Child, Kind::Persistent]) {
                let event = EventType::NodeChildrenChanged;
                events.push((change.zxid, event, above.to_owned()));
            }
            self.use_up(above, Kind::Child);
        }
        events
    }

    fn add(&mut self, path: &str, kind: Kind) {
        if !self.has(path, &[kind]) {
            self.0.push((path.to_owned(), kind));
        }
    }

    fn answered(&mut self, request: &Request, response: Option<&Response>) {
        let watch = |read: &PathWatch| read.watch.then(|| read.path.clone());
        match (request, response) {
            // exists watches an absent node too.
            (Request::Exists(read), _) => {
                watch(read).iter().for_each(|path| self.add(path, Kind::Data));
            }
            (Request::GetData(read), Some(_)) => {
                watch(read).iter().for_each(|path| self.add(path, Kind::Data));
            }
            (Request::GetChildren2(read), Some(_)) => {
                watch(read).iter().for_each(|path| self.add(path, Kind::Child));
            }
            (Request::AddWatch(add), Some(_)) => match add.mode {
                AddWatchMode::Persistent => self.add(&add.path, Kind::Persistent),
                AddWatchMode::PersistentRecursive => self.add(&add.path, Kind::Recursive),
            },
            (Request::RemoveWatches(watch), response) => {
                let had = self.0.len();
                self.0.retain(|(path, _)| *path != watch.path);
                assert_eq!(self.0.len() < had, response.is_some(), "whether there was a watch");
            }
            (Request::CheckWatches(watch), response) => {
                let found = self.0.iter().any(|(path, _)| *path == watch.path);
                assert_eq!(found, response.is_some(), "whether there is a watch");
            }
            _ => {}
        }
    }

    /// setWatches2: registers what still holds and gives what was missed.
    fn set(&mut self, request: &SetWatchesRequest, facts: &Facts<'_>, now: Zxid) -> Vec<Event> {
        let nodes = Nodes::at(facts, now);
        let mut missed = Vec::new();
        let since = request.relative_zxid;
        for path in &request.data_watches {
            match nodes.modified.get(&**path) {
                None => missed.push((now, EventType::NodeDeleted, path.clone())),
                Some(mzxid) if *mzxid > since => {
                    missed.push((now, EventType::NodeDataChanged, path.clone()));
                }
                Some(_) => self.add(path, Kind::Data),
            }
        }
        for path in &request.exist_watches {
            match nodes.modified.contains_key(&**path) {
                true => missed.push((now, EventType::NodeCreated, path.clone())),
                false => self.add(path, Kind::Data),
            }
        }
        for path in &request.child_watches {
            match nodes.children_changed.get(&**path) {
                None => missed.push((now, EventType::NodeDeleted, path.clone())),
                Some(pzxid) if *pzxid > since => {
                    missed.push((now, EventType::NodeChildrenChanged, path.clone()));
                }
                Some(_) => self.add(path, Kind::Child),
            }
        }
        request.persistent_watches.iter().for_each(|path| self.add(path, Kind::Persistent));
        for path in &request.persistent_recursive_watches {
            self.add(path, Kind::Recursive);
        }
        missed
    }
}

/// Which nodes there are, and when they and their children changed last.
struct Nodes<'a> {
    created: BTreeMap<&'a str, Zxid>,
    modified: BTreeMap<&'a str, Zxid>,
    children_changed: BTreeMap<&'a str, Zxid>,
}

impl<'a> Nodes<'a> {
    fn at(facts: &Facts<'a>, now: Zxid) -> Self {
        let system = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];
        let from_start = || system.into_iter().map(|path| (path, Zxid::ZERO)).collect();
        let (created, modified) = (from_start(), from_start());
        let mut nodes = Self { created, modified, children_changed: from_start() };
        for change in facts.changes_between(Zxid::ZERO, now) {
            let path: &'a str = &change.path;
            let above = parent(path).filter(|_| changes_children(change.kind));
            if let Some(above) = above {
                nodes.children_changed.insert(above, change.zxid);
            }
            match change.kind {
                ChangeKind::Created => {
                    nodes.created.insert(path, change.zxid);
                    nodes.modified.insert(path, change.zxid);
                    nodes.children_changed.insert(path, change.zxid);
                }
                ChangeKind::DataChanged => {
                    nodes.modified.insert(path, change.zxid);
                }
                ChangeKind::Deleted => {
                    nodes.created.remove(path);
                    nodes.modified.remove(path);
                    nodes.children_changed.remove(path);
                }
                ChangeKind::AclChanged => {}
            }
        }
        nodes
    }
}

fn changes_children(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Created | ChangeKind::Deleted)
}
