//! A process's coordinator session: opening, keeping, registration and election.
//!
//! Called by: `process`, `world`. Calls: broker-core's registration and image feed. Invariant (safety.md B1): what a start intends is recorded
//! in the directory, synced, before it registers; requests leave in order; after a broken connection the outcome of a controller's write is
//! told only when the new connection has answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use broker_core::controller::{Effect as ControllerEffect, Election, Op, WriteOutcome};
use broker_core::ids::{BrokerEpoch, ControllerEpoch, DirectoryId, Incarnation, Millis, Zxid};
use broker_core::image::{BrokerRegistration, Endpoint, Identity, StoredIdentity, json, path};
use broker_core::registration::{DirectoryRecord, Found, Plan, plan};
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, small_file};
use coordinator_protocol::SessionId;

use super::message::{
    CoordinatorReply, CoordinatorRequest, FromCoordinator, Node, Outbox, StoreOp,
};
use super::process::{Process, TICK};
use super::storage::{DATA, text};
use crate::sim::disk::SimulatedDisk;
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::random::Random;

/// Why something was asked.
#[derive(Debug, Clone)]
pub enum Purpose {
    Open,
    Attach,
    Ping,
    ReadIdentity,
    Register(Box<Plan>),
    ReadEpoch,
    Elect(ControllerEpoch, i32),
    GiveUpOffice,
    /// The controller's write of this number.
    Write(u64),
}

/// The coordinator session of a process, and what its directory says of itself.
pub struct Session {
    pub id: Option<SessionId>,
    /// The connection may be used.
    pub is_attached: bool,
    waiting: BTreeMap<u64, (Purpose, Time)>,
    /// Asked while there was no connection.
    unsent: Vec<(u64, CoordinatorRequest)>,
    now: Time,
    disk: SimulatedDisk,
    directory: DirectoryId,
    record: Option<DirectoryRecord>,
    boot_changed: bool,
    /// The boot that the directory names: the former one until a registration has told of the change.
    boot: String,
    registering: bool,
    /// This session holds a registration: until then nothing is served, whatever is heard.
    is_registered: bool,
    electing: bool,
}

const IDENTITY: Schema = Schema { kind: 0x5301, version: 1 };

/// What a directory says of itself: its id, the confirmed and the intended incarnation, the machine's boot.
type Told = (String, u64, u64, String);

fn record_path() -> PathBuf {
    Path::new(DATA).join("identity")
}

impl Session {
    /// Reads what the directory says of itself.
    ///
    /// # Errors
    /// The disk's, and damage: what the directory may be trusted with is unknown.
    pub fn begin(
        disk: &SimulatedDisk,
        was_clean: bool,
        random: &mut Random,
    ) -> Result<Self, String> {
        let boot = disk.boot_id().map_err(text)?;
        let told = small_file::read(disk, &record_path()).map_err(text)?;
        let told = told.map(|bytes| envelope::decode::<Told>(IDENTITY, &bytes)).transpose();
        let (directory, record, boot_changed, boot) = match told.map_err(text)? {
            Some((directory, confirmed, intended, former_boot)) => {
                let (confirmed, intended) =
                    (Incarnation::new(confirmed), Incarnation::new(intended));
                let record = DirectoryRecord { confirmed, intended };
                let changed = former_boot != boot && !was_clean;
                let boot = if changed { former_boot } else { boot };
                let directory = DirectoryId::parse(&directory).ok_or("no directory's id")?;
                (directory, Some(record), changed, boot)
            }
            None => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&random.number().to_le_bytes());
                (DirectoryId::new(bytes), None, false, boot)
            }
        };
        Ok(Self {
            id: None,
            is_attached: false,
            waiting: BTreeMap::new(),
            unsent: Vec::new(),
            now: 0,
            disk: disk.clone(),
            directory,
            record,
            boot_changed,
            boot,
            registering: false,
            is_registered: false,
            electing: false,
        })
    }

    /// No registration has to tell any more that the machine was started anew.
    pub fn has_told_of_boot(&self) -> bool {
        self.disk.boot_id().is_ok_and(|boot| boot == self.boot)
    }

    fn write_record(&mut self, record: DirectoryRecord) -> Result<(), String> {
        self.record = Some(record);
        if record.confirmed == record.intended {
            self.boot = self.disk.boot_id().map_err(text)?;
        }
        let (confirmed, intended) = (record.confirmed.get(), record.intended.get());
        let told: Told = (self.directory.to_string(), confirmed, intended, self.boot.clone());
        let bytes = envelope::encode(IDENTITY, &told).map_err(text)?;
        small_file::replace(&self.disk, &record_path(), &bytes).map_err(text)
    }
}

impl Process {
    /// Asks the coordinator something, now or as soon as there is a connection.
    pub(super) fn ask(&mut self, purpose: Purpose, request: CoordinatorRequest, out: &mut Outbox) {
        let number = self.next_number();
        let at_once = matches!(purpose, Purpose::Open | Purpose::Attach);
        self.session.waiting.insert(number, (purpose, self.session.now));
        if self.session.is_attached || at_once {
            out.requests.push((number, request));
        } else {
            self.session.unsent.push((number, request));
        }
    }

    pub(super) fn open_session(&mut self, out: &mut Outbox) {
        self.session.id = None;
        self.session.is_attached = false;
        self.session.waiting.clear();
        self.session.unsent.clear();
        self.ask(Purpose::Open, CoordinatorRequest::Open, out);
    }

    /// The connection broke.
    pub fn disconnected(&mut self) {
        self.session.is_attached = false;
    }

    /// The session has a new connection: the first answer on it says that the old one's time is over.
    pub fn reconnect(&mut self, out: &mut Outbox) {
        self.session.is_attached = false;
        self.ask(Purpose::Attach, CoordinatorRequest::Attach, out);
    }

    pub(super) fn tick_session(&mut self, now: Time, ticks: u64, out: &mut Outbox) {
        self.session.now = now;
        let every = (self.settings.session_timeout / 4 / TICK).max(1);
        if self.session.is_attached && ticks.is_multiple_of(every) {
            self.ask(Purpose::Ping, CoordinatorRequest::Ping, out);
        }
        self.consider_election(out);
    }

    /// Something came on the coordinator connection.
    pub fn coordinator_says(&mut self, event: FromCoordinator, now: Time, out: &mut Outbox) {
        self.session.now = now;
        match event {
            FromCoordinator::Feed(event) => {
                if let Some(applied) = self.feed.apply(event) {
                    self.apply_image(&applied, now, out);
                }
            }
            FromCoordinator::Over => self.session_expired(now, out),
            FromCoordinator::Reply { number, zxid, reply } => {
                if let Some((purpose, asked)) = self.session.waiting.remove(&number) {
                    self.replied((purpose, asked), (zxid, reply), now, out);
                }
            }
        }
    }

    fn replied(
        &mut self,
        (purpose, asked): (Purpose, Time),
        (zxid, reply): (Zxid, CoordinatorReply),
        now: Time,
        out: &mut Outbox,
    ) {
        match (purpose, reply) {
            (Purpose::Open, CoordinatorReply::Opened(session)) => {
                self.session.id = Some(session);
                self.session.is_attached = true;
                self.read_identity(out);
            }
            (Purpose::Attach, _) => self.attached(zxid, now, out),
            (Purpose::ReadIdentity, CoordinatorReply::Nodes(nodes)) => self.register(&nodes, out),
            (Purpose::Register(plan), CoordinatorReply::Multi(Ok(()))) => {
                self.registered(&plan, zxid, now, out);
            }
            (Purpose::Register(_), _) => self.read_identity(out),
            (Purpose::ReadEpoch, CoordinatorReply::Nodes(nodes)) => self.elect(&nodes, out),
            (Purpose::Elect(epoch, epoch_version), CoordinatorReply::Multi(result)) => {
                self.session.electing = false;
                if result.is_ok() {
                    let mut effects = Vec::new();
                    let election = Election { epoch, epoch_version, zxid };
                    self.controller.elected(election, &mut effects);
                    self.do_controller(effects, now, out);
                }
            }
            (Purpose::GiveUpOffice, _) => self.session.electing = false,
            (Purpose::Write(id), CoordinatorReply::Multi(result)) => {
                let outcome = match result {
                    Ok(()) => WriteOutcome::Done { zxid },
                    Err(at) => WriteOutcome::Conflict { at, zxid },
                };
                self.written(id, outcome, now, out);
            }
            (Purpose::Ping, _) => {}
            (purpose, reply) => unreachable!("{purpose:?} answered by {reply:?}"),
        }
        if self.session.is_registered {
            self.fence.contact(Millis::new(asked / MS));
        }
    }

    fn written(&mut self, id: u64, outcome: WriteOutcome, now: Time, out: &mut Outbox) {
        let mut effects = Vec::<ControllerEffect>::new();
        self.controller.write_done(id, outcome, &mut effects);
        self.do_controller(effects, now, out);
    }

    /// A new connection carries the session: what the old one left open is decided by now, one way or the other.
    fn attached(&mut self, zxid: Zxid, now: Time, out: &mut Outbox) {
        self.session.is_attached = true;
        let unsent = std::mem::take(&mut self.session.unsent);
        let is_unsent = |number: &u64| unsent.iter().any(|(n, _)| n == number);
        let open: Vec<u64> =
            self.session.waiting.keys().copied().filter(|n| !is_unsent(n)).collect();
        out.requests.extend(unsent.iter().cloned());
        for number in open {
            let Some((purpose, _)) = self.session.waiting.remove(&number) else { continue };
            match purpose {
                Purpose::Write(id) => self.written(id, WriteOutcome::Unknown { zxid }, now, out),
                Purpose::ReadIdentity | Purpose::Register(_) => self.read_identity(out),
                Purpose::ReadEpoch | Purpose::Elect(..) | Purpose::GiveUpOffice => {
                    self.session.electing = false;
                }
                Purpose::Open | Purpose::Attach | Purpose::Ping => {}
            }
        }
    }

    fn session_expired(&mut self, now: Time, out: &mut Outbox) {
        let mut effects = Vec::new();
        self.controller.deposed(&mut effects);
        self.do_controller(effects, now, out);
        self.fence.session_lost();
        self.session.is_registered = false;
        self.session.electing = false;
        self.open_session(out);
    }

    fn read_identity(&mut self, out: &mut Outbox) {
        self.session.registering = true;
        let paths = vec![
            path::identity(self.id),
            path::broker(self.id),
            path::CONTROLLER.to_owned(),
            path::CONTROLLER_EPOCH.to_owned(),
        ];
        self.ask(Purpose::ReadIdentity, CoordinatorRequest::Read(paths), out);
    }

    fn register(&mut self, nodes: &BTreeMap<String, Node>, out: &mut Outbox) {
        let (identity_path, broker_path) = (path::identity(self.id), path::broker(self.id));
        let stored = nodes.get(&identity_path).map(|node| StoredIdentity {
            identity: Identity::decode(&node.data).expect("ours"),
            version: node.stat.version,
            mzxid: node.stat.mzxid,
        });
        // A process that registers again continues itself.
        let found = Found {
            directories: [(self.session.directory, self.session.record)].into(),
            boot_changed: self.session.boot_changed && self.started.is_none(),
            registered: false,
        };
        let plan = plan(stored.as_ref(), &found).expect("nobody else has this number");
        if let Err(error) = self.session.write_record(plan.record) {
            return self.fail(error, out);
        }
        let data = plan.identity.encode();
        let mut ops = vec![StoreOp::Core(match plan.expected_version {
            Some(version) => Op::SetData { path: identity_path, data, version },
            None => Op::Create { path: identity_path, data },
        })];
        if let Some(old) = nodes.get(&broker_path) {
            ops.push(StoreOp::Core(Op::Delete { path: broker_path.clone() }));
            let held = nodes.get(path::CONTROLLER).is_some_and(|node| node.owner == old.owner);
            if let Some(epoch) = nodes.get(path::CONTROLLER_EPOCH).filter(|_| held) {
                let path = path::CONTROLLER_EPOCH.to_owned();
                ops.push(StoreOp::Core(Op::Check { path, version: epoch.stat.version }));
                ops.push(StoreOp::Core(Op::Delete { path: path::CONTROLLER.to_owned() }));
            }
        }
        let endpoint = Endpoint {
            listener: "INTERNAL".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "simulated".to_owned(),
            port: 1,
        };
        let registration =
            BrokerRegistration { endpoints: vec![endpoint], rack: None, timestamp_ms: 0 };
        ops.push(StoreOp::CreateEphemeral { path: broker_path, data: registration.encode() });
        self.ask(Purpose::Register(Box::new(plan)), CoordinatorRequest::Multi(ops), out);
    }

    fn registered(&mut self, plan: &Plan, zxid: Zxid, now: Time, out: &mut Outbox) {
        self.session.registering = false;
        let intended = plan.record.intended;
        let record = DirectoryRecord { confirmed: intended, intended };
        if let Err(error) = self.session.write_record(record) {
            return self.fail(error, out);
        }
        self.epoch = Some(BrokerEpoch::new(zxid.get()));
        self.session.is_registered = true;
        self.started.get_or_insert(zxid);
        self.apply_metadata(now, out);
        self.consider_election(out);
    }

    /// Stands for election when nobody is controller; gives up an office that this process holds without knowing how it got it.
    pub(super) fn consider_election(&mut self, out: &mut Outbox) {
        let session = &self.session;
        let registered = self.epoch.is_some_and(|epoch| self.image.complete_to() >= epoch.zxid());
        if session.electing || session.registering || !session.is_attached || !registered {
            return;
        }
        match self.image.controller() {
            None if !self.controller.is_elected() => {
                self.session.electing = true;
                let paths = vec![path::CONTROLLER_EPOCH.to_owned()];
                self.ask(Purpose::ReadEpoch, CoordinatorRequest::Read(paths), out);
            }
            Some(node) if node.broker == self.id && !self.controller.is_elected() => {
                self.session.electing = true;
                let ops = vec![StoreOp::Core(Op::Delete { path: path::CONTROLLER.to_owned() })];
                self.ask(Purpose::GiveUpOffice, CoordinatorRequest::Multi(ops), out);
            }
            Some(_) | None => {}
        }
    }

    fn elect(&mut self, nodes: &BTreeMap<String, Node>, out: &mut Outbox) {
        let former = nodes.get(path::CONTROLLER_EPOCH).map(|node| {
            let epoch = json::decode_controller_epoch(&node.data).expect("ours");
            (epoch.get(), node.stat.version)
        });
        let epoch = ControllerEpoch::new(former.map_or(1, |(epoch, _)| epoch + 1));
        let data = json::encode_controller_epoch(epoch);
        let path = path::CONTROLLER_EPOCH.to_owned();
        let (raise, version) = match former {
            Some((_, version)) => (Op::SetData { path, data, version }, version + 1),
            None => (Op::Create { path, data }, 0),
        };
        let controller = StoreOp::CreateEphemeral {
            path: path::CONTROLLER.to_owned(),
            data: json::encode_controller(self.id, 0),
        };
        let ops = vec![controller, StoreOp::Core(raise)];
        self.ask(Purpose::Elect(epoch, version), CoordinatorRequest::Multi(ops), out);
    }
}
