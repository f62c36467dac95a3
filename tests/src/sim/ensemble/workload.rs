//! What clients ask: a mix of everything, on few nodes, so that they get in each other's way.
//!
//! Called by: `client`. Calls: `locker`, for those that follow its recipe, and `operator`.
//! Invariant: what is written names its writer and is never the same twice.

use bytes::Bytes;
use coordinator_protocol::{
    Acl, AddWatchMode, AddWatchRequest, CheckRequest, CreateMode, CreateRequest, DeleteRequest,
    MultiOp, MultiReadOp, PathWatch, Request, SessionOptionsRequest, SetDataRequest,
    SubscribeRequest, WatchKind, WatchKindRequest, Zxid,
};

use super::client::{Action, Client};
use super::schedule::{MS, Time};

/// Nodes that all clients write.
const KEYS: u64 = 5;

impl Client {
    /// Asks one thing, or a few at once, and decides when it asks again.
    pub(super) fn ask(&mut self, now: Time, actions: &mut Vec<Action>) {
        if self.locker.is_some() {
            match self.random.chance(1, 80) {
                true => self.give_up(now, actions),
                false => self.take_step(now, actions),
            }
            return;
        }
        if self.operator.is_some() {
            return self.operate(now, actions);
        }
        let pause = match self.random.below(10) {
            0 => self.random.below(400 * MS),
            1..=3 => 0,
            _ => self.random.below(30 * MS),
        };
        self.ask_at = now + pause * self.pace;
        match self.random.below(100) {
            0..=19 => self.send_set(now, actions),
            20..=34 => self.send_create(now, actions),
            35..=42 => self.send_delete(now, actions),
            43..=52 => self.send_multi(now, actions),
            53..=74 => self.send_read(now, actions),
            75..=84 => self.send_synced_read(now, actions),
            85..=88 => self.send_watch(now, actions),
            89..=93 => self.send_subscribe(now, actions),
            94..=96 => self.send_options(now, actions),
            97 => self.send(now, Request::CloseSession, actions),
            _ => self.give_up(now, actions),
        }
    }

    /// What nobody else writes.
    pub(super) fn unique(&mut self) -> Option<Bytes> {
        self.written += 1;
        Some(Bytes::from(format!("{}-{}", self.name, self.written)))
    }

    fn key(&mut self) -> String {
        format!("/k{}", self.random.below(KEYS))
    }

    fn version(&mut self) -> i32 {
        if self.random.chance(3, 4) { -1 } else { self.random.below(5) as i32 }
    }

    fn create(&mut self) -> CreateRequest {
        let own = self.name.clone();
        let (path, mode) = match self.random.below(6) {
            0 => (self.key(), CreateMode::Persistent),
            1 => (format!("/{own}-e{}", self.random.below(3)), CreateMode::Ephemeral),
            2 => ("/q".to_owned(), CreateMode::Persistent),
            3 => ("/q/e-".to_owned(), CreateMode::EphemeralSequential),
            4 => (self.key(), CreateMode::Ephemeral),
            _ => ("/q/s-".to_owned(), CreateMode::PersistentSequential),
        };
        CreateRequest { path, data: self.unique(), acl: Acl::open(), flags: mode.code() }
    }

    fn set(&mut self) -> SetDataRequest {
        SetDataRequest { path: self.key(), data: self.unique(), version: self.version() }
    }

    fn delete(&mut self) -> DeleteRequest {
        let queued = self.random.below(self.queue.len() as u64 + 1) as usize;
        let path = match self.queue.get(queued) {
            Some(name) if self.random.chance(2, 3) => format!("/q/{name}"),
            _ => self.key(),
        };
        DeleteRequest { path, version: self.version() }
    }

    fn send_set(&mut self, now: Time, actions: &mut Vec<Action>) {
        let set = self.set();
        self.send(now, Request::SetData(set), actions);
    }

    fn send_create(&mut self, now: Time, actions: &mut Vec<Action>) {
        let create = self.create();
        let request = match self.random.below(8) {
            0 => Request::CreateContainer(CreateRequest { flags: 4, ..create }),
            1..=3 => Request::Create(create),
            _ => Request::Create2(create),
        };
        self.send(now, request, actions);
    }

    fn send_delete(&mut self, now: Time, actions: &mut Vec<Action>) {
        let delete = self.delete();
        self.send(now, Request::Delete(delete), actions);
    }

    fn send_multi(&mut self, now: Time, actions: &mut Vec<Action>) {
        let count = self.random.below(5);
        let mut ops = Vec::new();
        for _ in 0..count {
            let op = match self.random.below(6) {
                0 => MultiOp::Check(CheckRequest { path: self.key(), version: self.version() }),
                1 => MultiOp::Delete(self.delete()),
                2 => MultiOp::Create(self.create()),
                3 => MultiOp::Create2(self.create()),
                _ => MultiOp::SetData(self.set()),
            };
            ops.push(op);
        }
        self.send(now, Request::Multi(ops), actions);
    }

    fn read(&mut self) -> Request {
        let path = match self.random.below(4) {
            0 => "/q".to_owned(),
            1 => "/".to_owned(),
            _ => self.key(),
        };
        let read = PathWatch { path, watch: self.random.chance(1, 2) };
        match self.random.below(7) {
            0..=1 => Request::Exists(read),
            2..=3 => Request::GetData(read),
            4 => Request::MultiRead(vec![
                MultiReadOp::GetData(PathWatch { path: self.key(), watch: false }),
                MultiReadOp::GetChildren(PathWatch { path: "/q".to_owned(), watch: false }),
            ]),
            5 => Request::GetEphemerals("/".to_owned()),
            _ => Request::GetChildren2(read),
        }
    }

    fn send_read(&mut self, now: Time, actions: &mut Vec<Action>) {
        let read = self.read();
        self.send(now, read, actions);
    }

    fn send_synced_read(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.send(now, Request::Sync("/".to_owned()), actions);
        self.send_read(now, actions);
    }

    fn send_watch(&mut self, now: Time, actions: &mut Vec<Action>) {
        let path = if self.random.chance(1, 3) { "/".to_owned() } else { self.key() };
        let held = self.persistent.contains_key(&path) || self.one_shot.contains_key(&path);
        let request = if held && self.random.chance(1, 2) {
            let kind = WatchKind::Any;
            Request::RemoveWatches(WatchKindRequest { path, kind })
        } else if self.persistent.contains_key(&path) {
            Request::CheckWatches(WatchKindRequest { path, kind: WatchKind::Any })
        } else {
            let mode = match self.random.below(2) {
                0 => AddWatchMode::Persistent,
                _ => AddWatchMode::PersistentRecursive,
            };
            Request::AddWatch(AddWatchRequest { path, mode })
        };
        self.send(now, request, actions);
    }

    fn send_subscribe(&mut self, now: Time, actions: &mut Vec<Action>) {
        if let Some(held) = self.subscriptions.keys().next().copied()
            && self.random.chance(1, 3)
        {
            if let Some((path, zxid)) = self.subscriptions.remove(&held) {
                self.resume.insert(path, zxid);
            }
            self.send(now, Request::Unsubscribe(held), actions);
            return;
        }
        let path = ["/", "/q", "/k0"][self.random.below(3) as usize].to_owned();
        let from_zxid = match self.random.chance(3, 4) {
            true => self.resume.get(&path).copied().unwrap_or(Zxid::ZERO),
            false => Zxid::ZERO,
        };
        let subscription = self.next_subscription;
        self.next_subscription += 1;
        let subscribe = SubscribeRequest { subscription, path, from_zxid };
        self.send(now, Request::Subscribe(subscribe), actions);
    }

    fn send_options(&mut self, now: Time, actions: &mut Vec<Action>) {
        let fast_death_grace_ms = if self.random.chance(2, 3) { 200 } else { -1 };
        let options = SessionOptionsRequest { fast_death_grace_ms };
        self.send(now, Request::SessionOptions(options), actions);
    }
}
