//! The fake's state: what requests do to it, and who is told.

use bytes::Bytes;
use coordinator_protocol::{
    CreateMode, CreateRequest, DeleteRequest, ErrorCode, EventType, Item, ItemKind, MultiOp,
    MultiResult, PathWatch, Request, Response, SessionId, SetDataRequest, SetWatchesRequest, Stat,
    SubscribeRequest, SubscriptionEvent, SubscriptionEventKind as Kind, WatcherEvent, Xid, Zxid,
    encode_event, encode_reply, encode_subscription_event,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

pub type Out = mpsc::UnboundedSender<Bytes>;
type Outcome = Result<Response, ErrorCode>;

#[derive(Clone, Copy, PartialEq)]
enum Watched {
    Data,
    Children,
}

#[derive(Default)]
pub struct Tree {
    pub swallow: bool,
    pub sessions: BTreeMap<SessionId, Option<i32>>,
    sessions_made: i64,
    zxid: i64,
    nodes: BTreeMap<String, (Option<Bytes>, Stat)>,
    /// Changes of the write that is being done.
    changes: Vec<Item>,
    history: Vec<(i64, Vec<Item>)>,
    history_from: i64,
    watches: Vec<(Watched, String, Out)>,
    subscriptions: Vec<(SubscribeRequest, Out)>,
}

impl Tree {
    pub fn open_session(&mut self, session: SessionId) -> Option<SessionId> {
        if session.is_none() {
            self.sessions_made += 1;
            let session = SessionId::new(self.sessions_made);
            self.sessions.insert(session, None);
            return Some(session);
        }
        self.sessions.contains_key(&session).then_some(session)
    }

    pub fn end_sessions(&mut self, ends: impl Fn(SessionId) -> bool) {
        self.sessions.retain(|session, _| !ends(*session));
        let owned = |(path, (_, stat)): (&String, &(Option<Bytes>, Stat))| {
            (!stat.ephemeral_owner.is_none() && ends(stat.ephemeral_owner)).then(|| path.clone())
        };
        let paths: Vec<String> = self.nodes.iter().filter_map(owned).collect();
        for path in paths {
            self.delete(&DeleteRequest { path, version: -1 }).unwrap();
        }
        self.publish();
    }

    pub fn forget_history(&mut self) {
        self.history.clear();
        self.history_from = self.zxid;
    }

    pub fn handle(&mut self, xid: Xid, request: Request, session: SessionId, out: &Out) {
        let outcome = self.outcome(&request, session, out);
        self.publish();
        let reply = outcome.as_ref().map_err(|code| *code);
        // The client may be gone.
        let _ = out.send(encode_reply(xid, Zxid::new(self.zxid), reply));
        if let (Request::Subscribe(subscribe), Ok(_)) = (request, outcome) {
            self.start_subscription(subscribe, out);
        }
    }

    fn outcome(&mut self, request: &Request, session: SessionId, out: &Out) -> Outcome {
        match request {
            Request::Create2(create) => {
                let (path, stat) = self.create(create, session)?;
                Ok(Response::PathStat(path, stat))
            }
            Request::Delete(delete) => self.delete(delete).map(|()| Response::Empty),
            Request::SetData(set) => self.set_data(set).map(Response::Stat),
            Request::Multi(ops) => Ok(Response::Multi(self.multi(ops, session))),
            Request::Exists(read) => {
                self.watch(read, Watched::Data, out);
                self.node(&read.path).map(|(_, stat)| Response::Stat(stat))
            }
            Request::GetData(read) => {
                let (data, stat) = self.node(&read.path)?;
                self.watch(read, Watched::Data, out);
                Ok(Response::DataStat(data, stat))
            }
            Request::GetChildren2(read) => {
                let (_, stat) = self.node(&read.path)?;
                self.watch(read, Watched::Children, out);
                Ok(Response::NamesStat(self.children(&read.path), stat))
            }
            Request::SetWatches2(set) => {
                self.set_watches(set, out);
                Ok(Response::Empty)
            }
            Request::SessionOptions(options) => {
                self.sessions.insert(session, Some(options.fast_death_grace_ms));
                Ok(Response::Empty)
            }
            Request::CloseSession => {
                self.end_sessions(|ends| ends == session);
                Ok(Response::Empty)
            }
            Request::Sync(path) => Ok(Response::Path(path.clone())),
            Request::Ping | Request::Subscribe(_) | Request::Unsubscribe(_) => Ok(Response::Empty),
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    fn node(&self, path: &str) -> Result<(Option<Bytes>, Stat), ErrorCode> {
        self.nodes.get(path).cloned().ok_or(ErrorCode::NoNode)
    }

    fn children(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        let names = self.nodes.keys().filter_map(|child| child.strip_prefix(&prefix));
        names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    /// The zxid of the write under way.
    fn next(&self) -> Zxid {
        Zxid::new(self.zxid + 1)
    }

    fn create(
        &mut self,
        create: &CreateRequest,
        session: SessionId,
    ) -> Result<(String, Stat), ErrorCode> {
        let mode = CreateMode::from_code(create.flags).ok_or(ErrorCode::BadArguments)?;
        let parent = create.path.rsplit_once('/').map(|(parent, _)| parent).unwrap_or_default();
        if self.nodes.contains_key(&create.path) {
            return Err(ErrorCode::NodeExists);
        }
        if !parent.is_empty() && !self.nodes.contains_key(parent) {
            return Err(ErrorCode::NoNode);
        }
        let owner = if mode.is_ephemeral() { session } else { SessionId::NONE };
        let stat = Stat {
            czxid: self.next(),
            mzxid: self.next(),
            ephemeral_owner: owner,
            ..Stat::default()
        };
        self.nodes.insert(create.path.clone(), (create.data.clone(), stat));
        self.changed(ItemKind::Created, &create.path, create.data.clone(), stat);
        Ok((create.path.clone(), stat))
    }

    fn delete(&mut self, delete: &DeleteRequest) -> Result<(), ErrorCode> {
        self.check(&delete.path, delete.version)?;
        if !self.children(&delete.path).is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        let (data, stat) = self.nodes.remove(&delete.path).unwrap();
        self.changed(ItemKind::Deleted, &delete.path, data, stat);
        Ok(())
    }

    fn set_data(&mut self, set: &SetDataRequest) -> Result<Stat, ErrorCode> {
        self.check(&set.path, set.version)?;
        let mzxid = self.next();
        let (data, stat) = self.nodes.get_mut(&set.path).unwrap();
        data.clone_from(&set.data);
        stat.version += 1;
        stat.mzxid = mzxid;
        let stat = *stat;
        self.changed(ItemKind::DataChanged, &set.path, set.data.clone(), stat);
        Ok(stat)
    }

    fn check(&self, path: &str, version: i32) -> Result<(), ErrorCode> {
        let (_, stat) = self.node(path)?;
        if version != -1 && version != stat.version {
            return Err(ErrorCode::BadVersion);
        }
        Ok(())
    }

    fn multi(&mut self, ops: &[MultiOp], session: SessionId) -> Vec<MultiResult> {
        let before = self.nodes.clone();
        let mut results = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.one_of_multi(op, session) {
                Ok(result) => results.push(result),
                Err(code) => {
                    self.nodes = before;
                    self.changes.clear();
                    let code_at = |at| match usize::cmp(&at, &index) {
                        std::cmp::Ordering::Less => ErrorCode::Ok,
                        std::cmp::Ordering::Equal => code,
                        std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency,
                    };
                    return (0..ops.len()).map(|at| MultiResult::Error(code_at(at))).collect();
                }
            }
        }
        results
    }

    fn one_of_multi(&mut self, op: &MultiOp, session: SessionId) -> Result<MultiResult, ErrorCode> {
        Ok(match op {
            MultiOp::Create(create) => MultiResult::Create(self.create(create, session)?.0),
            MultiOp::Delete(delete) => {
                self.delete(delete)?;
                MultiResult::Delete
            }
            MultiOp::SetData(set) => MultiResult::SetData(self.set_data(set)?),
            MultiOp::Check(check) => {
                self.check(&check.path, check.version)?;
                MultiResult::Check
            }
            MultiOp::Create2(_) | MultiOp::CreateContainer(_) | MultiOp::CreateTtl(_) => {
                return Err(ErrorCode::Unimplemented);
            }
        })
    }

    fn changed(&mut self, kind: ItemKind, path: &str, data: Option<Bytes>, stat: Stat) {
        self.changes.push(Item { kind, path: path.to_owned(), data, stat });
    }

    /// Ends the write under way, if anything was changed: watches fire, subscribers hear of it.
    fn publish(&mut self) {
        let items = std::mem::take(&mut self.changes);
        if items.is_empty() {
            return;
        }
        self.zxid += 1;
        for item in &items {
            let event = match item.kind {
                ItemKind::Present | ItemKind::Created => EventType::NodeCreated,
                ItemKind::DataChanged => EventType::NodeDataChanged,
                ItemKind::Deleted => EventType::NodeDeleted,
            };
            self.fire(Watched::Data, &item.path, event);
            if event != EventType::NodeDataChanged {
                let parent = item.path.rsplit_once('/').unwrap().0;
                self.fire(Watched::Children, parent, EventType::NodeChildrenChanged);
            }
        }
        for (subscribe, out) in &self.subscriptions {
            self.send_changes(subscribe, self.zxid, &items, out);
        }
        self.history.push((self.zxid, items));
    }

    fn watch(&mut self, read: &PathWatch, watched: Watched, out: &Out) {
        if read.watch {
            self.watches.push((watched, read.path.clone(), out.clone()));
        }
    }

    fn fire(&mut self, watched: Watched, path: &str, event: EventType) {
        let fires = |watch: &mut (Watched, String, Out)| watch.0 == watched && watch.1 == path;
        for (_, path, out) in self.watches.extract_if(.., fires) {
            let _ = out.send(encode_event(Zxid::new(self.zxid), &WatcherEvent::new(event, path)));
        }
    }

    /// Data watches only: what the tests use across a reconnect.
    fn set_watches(&mut self, set: &SetWatchesRequest, out: &Out) {
        for path in &set.data_watches {
            let event = match self.nodes.get(path) {
                None => EventType::NodeDeleted,
                Some((_, stat)) if stat.mzxid > set.relative_zxid => EventType::NodeDataChanged,
                Some(_) => {
                    self.watches.push((Watched::Data, path.clone(), out.clone()));
                    continue;
                }
            };
            let event = WatcherEvent::new(event, path.clone());
            let _ = out.send(encode_event(Zxid::new(self.zxid), &event));
        }
    }

    fn start_subscription(&mut self, subscribe: SubscribeRequest, out: &Out) {
        let send = |kind, items| self.send_event(&subscribe, kind, self.zxid, items, out);
        let from = subscribe.from_zxid.get();
        if from == 0 || from < self.history_from {
            send(Kind::SnapshotBegin, Vec::new());
            for (path, (data, stat)) in &self.nodes {
                if is_inside(path, &subscribe.path) {
                    let (kind, path, data) = (ItemKind::Present, path.clone(), data.clone());
                    send(Kind::SnapshotChunk, vec![Item { kind, path, data, stat: *stat }]);
                }
            }
            send(Kind::SnapshotEnd, Vec::new());
        } else {
            for (zxid, items) in self.history.iter().filter(|(zxid, _)| *zxid > from) {
                self.send_changes(&subscribe, *zxid, items, out);
            }
        }
        send(Kind::Bookmark, Vec::new());
        self.subscriptions.push((subscribe, out.clone()));
    }

    fn send_changes(&self, subscribe: &SubscribeRequest, zxid: i64, items: &[Item], out: &Out) {
        let inside = |item: &&Item| is_inside(&item.path, &subscribe.path);
        let items: Vec<Item> = items.iter().filter(inside).cloned().collect();
        if !items.is_empty() {
            self.send_event(subscribe, Kind::Changes, zxid, items, out);
        }
    }

    fn send_event(
        &self,
        subscribe: &SubscribeRequest,
        kind: Kind,
        zxid: i64,
        items: Vec<Item>,
        out: &Out,
    ) {
        let (subscription, zxid) = (subscribe.subscription, Zxid::new(zxid));
        let event = SubscriptionEvent { subscription, kind, zxid, items };
        let _ = out.send(encode_subscription_event(&event));
    }
}

fn is_inside(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
