//! Brokers and the real ensemble: each process's session is one of the ensemble's clients.
//!
//! Called by: `world`, for what processes ask and for what their sessions hear. Calls: the ensemble's simulation.
//! Invariant: a process hears what its session heard, in that order, when it is awake; a life never hears what was meant for a former one.
//! It does not know why anything is asked.

use std::collections::BTreeMap;

use broker_core::ids::{BrokerId, ControllerEpoch, SessionId, Zxid};
use broker_core::ids::{PartitionEpoch, PartitionId};
use broker_core::image::{
    FeedEvent, Item, ItemKind, PartitionState, Stat, StoredState, json, path,
};
use broker_core::store::{Node, Op};
use bytes::Bytes;
use coordinator_protocol::{
    Acl, CheckRequest, CreateMode, CreateRequest, DeleteRequest, ErrorCode, ItemKind as WireKind,
    MultiOp, MultiReadOp, MultiReadResult, MultiResult, PathWatch, Request, Response,
    SessionOptionsRequest, SetDataRequest, SubscribeRequest, SubscriptionEvent,
    SubscriptionEventKind as Kind,
};

use super::message::{CoordinatorReply, CoordinatorRequest, FromCoordinator};
use super::world::{Event, FAST_DEATH, Machine, TOPIC, World};
use crate::sim::ensemble::Heard;
use crate::sim::ensemble::schedule::{MS, SECOND, Time};

/// Subscriptions and options are no requests of the process: their answers are not told.
const OWN: u64 = 0;
/// The znodes that brokers expect to be there.
const FOLDERS: [&str; 11] = [
    "/brokers",
    "/brokers/ids",
    "/brokers/topics",
    "/config",
    "/config/topics",
    "/config/brokers",
    "/admin",
    "/admin/delete_topics",
    "/tidegate",
    "/tidegate/brokers",
    "/isr_change_notification",
];

/// A machine's session.
#[derive(Debug, Default)]
pub struct Strings {
    /// The process's request for a session.
    opening: Option<u64>,
    /// What was asked to be read, by request.
    reads: BTreeMap<u64, Vec<String>>,
    /// How far the subscription is complete.
    complete: coordinator_protocol::Zxid,
}

/// The client that belongs to a broker.
pub(super) fn puppet(id: BrokerId) -> usize {
    usize::try_from(id.get() - 1).expect("from 1")
}

fn create(path: &str, data: &[u8], mode: CreateMode) -> CreateRequest {
    let data = Some(Bytes::copy_from_slice(data));
    CreateRequest { path: path.to_owned(), data, acl: Acl::open(), flags: mode.code() }
}

fn operation(op: Op) -> MultiOp {
    match op {
        Op::CreateEphemeral { path, data } => {
            MultiOp::Create2(create(&path, &data, CreateMode::Ephemeral))
        }
        Op::Create { path, data } => MultiOp::Create(create(&path, &data, CreateMode::Persistent)),
        Op::Check { path, version } => MultiOp::Check(CheckRequest { path, version }),
        Op::SetData { path, data, version } => {
            MultiOp::SetData(SetDataRequest { path, data: Some(data.into()), version })
        }
        Op::Delete { path, version } => {
            MultiOp::Delete(DeleteRequest { path, version: version.unwrap_or(-1) })
        }
    }
}

fn node(data: Option<Bytes>, stat: &coordinator_protocol::Stat) -> Node {
    let owner = stat.ephemeral_owner;
    Node {
        data: data.map(Vec::from).unwrap_or_default(),
        version: stat.version,
        czxid: Zxid::new(stat.czxid.get()),
        mzxid: Zxid::new(stat.mzxid.get()),
        owner: (!owner.is_none()).then(|| SessionId::new(owner.get())),
    }
}

fn stat(stat: &coordinator_protocol::Stat) -> Stat {
    Stat {
        czxid: Zxid::new(stat.czxid.get()),
        mzxid: Zxid::new(stat.mzxid.get()),
        version: stat.version,
    }
}

fn item(item: coordinator_protocol::Item) -> Item {
    let kind = match item.kind {
        WireKind::Present => ItemKind::Present,
        WireKind::Created => ItemKind::Created,
        WireKind::DataChanged => ItemKind::Changed,
        WireKind::Deleted => ItemKind::Deleted,
    };
    let data = item.data.map(Vec::from).unwrap_or_default();
    Item { kind, path: item.path, data, stat: stat(&item.stat) }
}

/// When an ephemeral was created, by its own word.
fn created_at(response: &Response) -> Option<coordinator_protocol::Zxid> {
    let Response::Multi(results) = response else { return None };
    results.iter().find_map(|result| match result {
        MultiResult::Create2(_, stat) => Some(stat.czxid),
        _ => None,
    })
}

fn reply(response: Response, reads: Option<Vec<String>>) -> CoordinatorReply {
    match response {
        Response::Empty => CoordinatorReply::Pong,
        Response::Stat(_) => CoordinatorReply::Attached,
        Response::Multi(results) => {
            let failed = |result: &MultiResult| {
                !matches!(
                    result,
                    MultiResult::Error(ErrorCode::Ok | ErrorCode::RuntimeInconsistency)
                )
            };
            let is_failure = results.iter().any(|result| matches!(result, MultiResult::Error(_)));
            let at = results.iter().position(failed).filter(|_| is_failure);
            CoordinatorReply::Multi(at.map_or(Ok(()), Err))
        }
        Response::MultiRead(results) => {
            let nodes = reads.expect("asked").into_iter().zip(results);
            let found = nodes.filter_map(|(path, result)| match result {
                MultiReadResult::GetData(data, found) => Some((path, node(data, &found))),
                _ => None,
            });
            CoordinatorReply::Nodes(found.collect())
        }
        other => panic!("nobody asked for {other:?}"),
    }
}

impl World {
    /// Creates what brokers expect to be there, and starts them when it is.
    pub(super) fn found(&mut self, heard: Heard) {
        let founder = self.machines.len();
        match heard {
            Heard::Opened { .. } => {
                let folders = FOLDERS.map(|path| create(path, b"", CreateMode::Persistent));
                let epoch = json::encode_controller_epoch(ControllerEpoch::new(0));
                let epoch = create(path::CONTROLLER_EPOCH, &epoch, CreateMode::Persistent);
                for (number, request) in (1..).zip(folders.into_iter().chain([epoch])) {
                    self.ensemble.pull(founder, number, Request::Create(request));
                }
            }
            Heard::Replied { number, outcome, .. } => {
                let there = matches!(outcome, Ok(_) | Err(ErrorCode::NodeExists));
                assert!(there, "the layout cannot be created: {outcome:?}");
                if number > FOLDERS.len() as u64 && !self.founded {
                    self.founded = true;
                    self.ensemble.dismiss(founder);
                    let ids: Vec<_> = self.machines.keys().copied().collect();
                    for id in ids {
                        self.schedule.after(0, Event::Start { id, life: 0 });
                    }
                }
            }
            Heard::Told(_) | Heard::Down | Heard::Over => {}
        }
    }

    /// Hands what sessions heard to their processes, each when it is awake.
    pub(super) fn listen(&mut self) {
        let founder = self.machines.len();
        if !self.founded {
            for heard in self.ensemble.take_heard(founder) {
                self.found(heard);
            }
        }
        for (&id, &Machine { life, .. }) in &self.machines {
            for heard in self.ensemble.take_heard(puppet(id)) {
                self.schedule.after(0, Event::Heard { id, life, heard });
            }
        }
        let last = self.ensemble.agreed().last_zxid();
        if self.agreed_to != last {
            let former = std::mem::replace(&mut self.agreed_to, last);
            self.check_members();
            self.check_writer(former);
        }
    }

    /// A process asks something.
    pub(super) fn ask_ensemble(&mut self, id: BrokerId, number: u64, request: CoordinatorRequest) {
        let strings = &mut self.machines.get_mut(&id).expect("there").strings;
        let request = match request {
            CoordinatorRequest::Open => {
                strings.opening = Some(number);
                return;
            }
            // Its answer shows that the session has moved: what the old connection left open is decided.
            CoordinatorRequest::Attach => {
                Request::Exists(PathWatch { path: "/".to_owned(), watch: false })
            }
            CoordinatorRequest::Ping => Request::Ping,
            CoordinatorRequest::Read(paths) => {
                let read = |path: &String| {
                    MultiReadOp::GetData(PathWatch { path: path.clone(), watch: false })
                };
                let ops = paths.iter().map(read).collect();
                strings.reads.insert(number, paths);
                self.ensemble.pull(puppet(id), OWN, Request::Sync("/".to_owned()));
                Request::MultiRead(ops)
            }
            CoordinatorRequest::Multi(ops) => {
                let stands = |op: &Op| matches!(op, Op::CreateEphemeral { path, .. } if path == path::CONTROLLER);
                if ops.iter().any(stands) && !self.calm && self.offices.chance(1, 4) {
                    let delay = self.offices.below(10 * MS);
                    self.schedule.after(delay, Event::BreakElection(id));
                }
                Request::Multi(ops.into_iter().map(operation).collect())
            }
        };
        self.ensemble.pull(puppet(id), number, request);
    }

    /// A process's session heard something.
    pub(super) fn heard(&mut self, id: BrokerId, life: u64, heard: Heard) {
        if self.machines[&id].life != life || self.machines[&id].process.is_none() {
            return;
        }
        match heard {
            Heard::Opened { session, again } => {
                self.set_up(id, again);
                if again {
                    self.step(id, life, |process, _, out| process.reconnect(out));
                    return;
                }
                let strings = &mut self.machines.get_mut(&id).expect("there").strings;
                let number = strings.opening.take().expect("a process begins by asking for one");
                let (zxid, reply) = (Zxid::default(), CoordinatorReply::Opened(session));
                self.say(id, life, FromCoordinator::Reply { number, zxid, reply });
            }
            Heard::Replied { number: OWN, .. } => {}
            Heard::Replied { number, zxid, outcome } => {
                let strings = &mut self.machines.get_mut(&id).expect("there").strings;
                let reads = strings.reads.remove(&number);
                let response = outcome.unwrap_or_else(|error| panic!("{id} is told {error:?}"));
                // Where an answer comes late, its own zxid is that of what was seen before it.
                let zxid = created_at(&response).unwrap_or(zxid);
                let (zxid, reply) = (Zxid::new(zxid.get()), reply(response, reads));
                self.say(id, life, FromCoordinator::Reply { number, zxid, reply });
            }
            Heard::Told(event) => self.tell(id, life, event),
            Heard::Down => {
                self.machines.get_mut(&id).expect("there").strings.reads.clear();
                self.step(id, life, |process, _, _| process.disconnected());
            }
            Heard::Over => self.say(id, life, FromCoordinator::Over),
        }
    }

    fn say(&mut self, id: BrokerId, life: u64, event: FromCoordinator) {
        self.step(id, life, |process, now, out| process.coordinator_says(event, now, out));
    }

    /// What a session wants of each server that takes it: to die fast, and to hear of everything.
    fn set_up(&mut self, id: BrokerId, again: bool) {
        let grace = i32::try_from(FAST_DEATH / MS).expect("short");
        let options = SessionOptionsRequest { fast_death_grace_ms: grace };
        let resume = again || self.network.chance(1, 2);
        let machine = self.machines.get_mut(&id).expect("there");
        let process = machine.process.as_ref().expect("awake");
        let from = process.feed.resume_from().filter(|_| resume).map_or(0, |zxid| zxid.get());
        machine.strings.complete = coordinator_protocol::Zxid::new(from);
        let subscribe = SubscribeRequest {
            subscription: 1,
            path: "/".to_owned(),
            from_zxid: machine.strings.complete,
        };
        self.ensemble.pull(puppet(id), OWN, Request::SessionOptions(options));
        self.ensemble.pull(puppet(id), OWN, Request::Subscribe(subscribe));
    }

    fn tell(&mut self, id: BrokerId, life: u64, event: SubscriptionEvent) {
        let strings = &mut self.machines.get_mut(&id).expect("there").strings;
        let zxid = Zxid::new(event.zxid.get());
        let items = || event.items.iter().cloned().map(item).collect();
        let known = event.zxid <= strings.complete;
        let event = match event.kind {
            Kind::SnapshotBegin => {
                strings.complete = coordinator_protocol::Zxid::ZERO;
                FeedEvent::SnapshotBegin { zxid }
            }
            Kind::SnapshotChunk => FeedEvent::SnapshotChunk { items: items() },
            Kind::SnapshotEnd => {
                strings.complete = event.zxid;
                FeedEvent::SnapshotEnd { zxid }
            }
            Kind::Changes | Kind::Bookmark if known => return,
            Kind::Changes => {
                strings.complete = event.zxid;
                FeedEvent::Changes { zxid, items: items() }
            }
            Kind::Bookmark => {
                strings.complete = event.zxid;
                FeedEvent::Bookmark { zxid }
            }
        };
        self.say(id, life, FromCoordinator::Feed(event));
    }

    /// The state of a partition, as the ensemble agreed on it.
    pub fn state(&self, partition: PartitionId) -> Option<StoredState> {
        let node = self.ensemble.agreed().tree().get(&path::state(TOPIC, partition))?;
        let state = PartitionState::decode(&node.data().expect("ours")).expect("ours");
        let found = node.stat();
        let partition_epoch = PartitionEpoch::new(found.version);
        Some(StoredState { state, partition_epoch, written: Zxid::new(found.mzxid.get()) })
    }

    /// What was written since `former`, and after a controller took office, was written by that one.
    fn check_writer(&self, former: coordinator_protocol::Zxid) {
        let tree = self.ensemble.agreed().tree();
        let Some(office) = tree.get(path::CONTROLLER_EPOCH) else { return };
        for partition in (0..self.settings.partitions).map(PartitionId::new) {
            let Some(node) = tree.get(&path::state(TOPIC, partition)) else { continue };
            let written = node.stat().mzxid;
            if written <= former || written <= office.stat().mzxid {
                continue;
            }
            let epoch = json::decode_controller_epoch(&office.data().expect("ours")).expect("ours");
            let state = PartitionState::decode(&node.data().expect("ours")).expect("ours");
            let writer = state.controller_epoch;
            assert!(
                writer == epoch,
                "{partition}: written under {writer}, while {epoch} was in office"
            );
        }
    }

    /// A client's request is taken in only by a broker that is registered, or has not been for no longer than it may hear nothing of the
    /// coordinator (B6).
    pub(super) fn check_contact(&self, id: BrokerId) {
        let process = self.machines[&id].process.as_ref().expect("stepped");
        let path = path::broker(id);
        let found = self.ensemble.agreed().tree().get(&path).map(|node| node.stat().czxid.get());
        if found.is_some() && found == process.epoch.map(|epoch| epoch.zxid().get()) {
            return;
        }
        let Some(went_at) = self.ensemble.went_at(&path) else { return };
        let (now, may_last) = (self.schedule.now(), self.settings.session_timeout + SECOND / 5);
        assert!(
            now < went_at + may_last,
            "{id}: serves clients {} ms after it was registered last",
            (now - went_at) / MS
        );
    }

    /// How long a session's silence must last to end it for certain.
    pub(super) fn silence(&self) -> Time {
        self.settings.session_timeout + 1_000 * MS
    }
}
