//! A modelled coordinator: znodes in one order, sessions, and each change kept for subscribers.
//!
//! Called by: `world`. Calls: nothing.
//! Invariant (safety.md A): one zxid per successful write, a multi is all or nothing, an expiry removes all ephemerals in one zxid, and
//! a write of an older connection of a session is void once a newer one is attached. It does not know delays; the world adds them.

use std::collections::BTreeMap;

use broker_core::controller::Op;
use broker_core::ids::Zxid;
use broker_core::image::{Item, ItemKind, Stat, path};

use crate::sim::ensemble::schedule::Time;

/// Number of a session.
pub type SessionId = u64;

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    pub data: Vec<u8>,
    pub stat: Stat,
    pub owner: Option<SessionId>,
}

/// One operation of a multi beyond the controller's own.
#[derive(Debug, Clone)]
pub enum StoreOp {
    Core(Op),
    CreateEphemeral { path: String, data: Vec<u8> },
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Number of the connection that is attached.
    pub connection: u64,
    pub last_heard: Time,
}

/// The coordinator.
#[derive(Debug, Default)]
pub struct Coordinator {
    nodes: BTreeMap<String, Node>,
    zxid: i64,
    sessions: BTreeMap<SessionId, Session>,
    last_session: SessionId,
    /// All changes, oldest first.
    history: Vec<(Zxid, Vec<Item>)>,
}

impl Coordinator {
    /// The last zxid given.
    pub fn zxid(&self) -> Zxid {
        Zxid::new(self.zxid)
    }

    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub fn session_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session)
    }

    /// How many changes there are; an index into them.
    pub fn history_len(&self) -> usize {
        self.history.len()
    }

    /// A change by index.
    pub fn change(&self, index: usize) -> (Zxid, Vec<Item>) {
        self.history[index].clone()
    }

    /// Index of the first change after `zxid`.
    pub fn index_after(&self, zxid: Zxid) -> usize {
        self.history.partition_point(|(at, _)| *at <= zxid)
    }

    /// All nodes as a snapshot's items.
    pub fn snapshot(&self) -> Vec<Item> {
        let item = |(path, node): (&String, &Node)| Item {
            kind: ItemKind::Present,
            path: path.clone(),
            data: node.data.clone(),
            stat: node.stat,
        };
        self.nodes.iter().map(item).collect()
    }

    /// A new session.
    pub fn open_session(&mut self, connection: u64, now: Time) -> SessionId {
        self.zxid += 1;
        self.last_session += 1;
        self.sessions.insert(self.last_session, Session { connection, last_heard: now });
        self.last_session
    }

    /// Ends a session; its ephemerals go in one zxid.
    pub fn expire(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_none() {
            return;
        }
        self.zxid += 1;
        let owned: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.owner == Some(session))
            .map(|(path, _)| path.clone())
            .collect();
        let items: Vec<Item> = owned.iter().map(|path| deleted(path)).collect();
        for path in owned {
            self.nodes.remove(&path);
        }
        if !items.is_empty() {
            self.history.push((self.zxid(), items));
        }
    }

    /// Sessions not heard of since `before`.
    pub fn silent_since(&self, before: Time) -> Vec<SessionId> {
        let silent = self.sessions.iter().filter(|(_, session)| session.last_heard < before);
        silent.map(|(&id, _)| id).collect()
    }

    /// All or nothing; on failure the index of the operation that does not hold.
    pub fn multi(&mut self, session: SessionId, ops: &[StoreOp]) -> Result<Zxid, usize> {
        let before = self.nodes.clone();
        self.zxid += 1;
        let mut items = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            if !self.apply(session, op, &mut items) {
                self.nodes = before;
                self.zxid -= 1;
                return Err(at);
            }
        }
        if !items.is_empty() {
            self.history.push((self.zxid(), items));
        }
        Ok(self.zxid())
    }

    fn apply(&mut self, session: SessionId, op: &StoreOp, items: &mut Vec<Item>) -> bool {
        match op {
            StoreOp::CreateEphemeral { path, data } => {
                self.create(path, data, Some(session), items)
            }
            StoreOp::Core(Op::Create { path, data }) => self.create(path, data, None, items),
            StoreOp::Core(Op::Check { path, version }) => {
                let matches = |node: &Node| *version < 0 || node.stat.version == *version;
                self.nodes.get(path).is_some_and(matches)
            }
            StoreOp::Core(Op::SetData { path, data, version }) => {
                let zxid = self.zxid();
                let holder = self.nodes.get(path::CONTROLLER).and_then(|node| node.owner);
                let Some(node) = self.nodes.get_mut(path) else { return false };
                if *version >= 0 && node.stat.version != *version {
                    return false;
                }
                if let path::Node::State(..) = path::parse(path) {
                    let alone = holder.is_none_or(|holder| holder == session);
                    assert!(alone, "{session} writes {path}, and {holder:?} is controller");
                }
                node.stat.version += 1;
                node.stat.mzxid = zxid;
                node.data.clone_from(data);
                let (kind, data) = (ItemKind::Changed, data.clone());
                items.push(Item { kind, path: path.clone(), data, stat: node.stat });
                true
            }
            StoreOp::Core(Op::Delete { path }) => {
                let below = format!("{path}/");
                if self.nodes.keys().any(|other| other.starts_with(&below)) {
                    return false;
                }
                items.push(deleted(path));
                self.nodes.remove(path).is_some()
            }
        }
    }

    fn create(
        &mut self,
        path: &str,
        data: &[u8],
        owner: Option<SessionId>,
        items: &mut Vec<Item>,
    ) -> bool {
        if self.nodes.contains_key(path) {
            return false;
        }
        let stat = Stat { czxid: self.zxid(), mzxid: self.zxid(), version: 0 };
        let item =
            Item { kind: ItemKind::Created, path: path.to_owned(), data: data.to_vec(), stat };
        items.push(item);
        self.nodes.insert(path.to_owned(), Node { data: data.to_vec(), stat, owner });
        true
    }
}

fn deleted(path: &str) -> Item {
    let stat = Stat::default();
    Item { kind: ItemKind::Deleted, path: path.to_owned(), data: Vec::new(), stat }
}

impl Coordinator {
    /// The nodes that every cluster begins with are of no interest here; parents are not checked.
    pub fn seed_parents(&mut self) {
        self.zxid = 1;
    }

    /// The state of a partition.
    pub fn state(
        &self,
        topic: &str,
        partition: broker_core::ids::PartitionId,
    ) -> Option<broker_core::image::PartitionState> {
        let node = self.nodes.get(&broker_core::image::path::state(topic, partition))?;
        Some(broker_core::image::PartitionState::decode(&node.data).expect("ours"))
    }
}
