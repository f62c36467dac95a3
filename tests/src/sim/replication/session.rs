//! A process's coordinator session: opening, keeping, registration and election.
//!
//! Called by: `process`, `world`. Calls: broker-core's registration and image feed. Invariant (safety.md B1): what a start intends is recorded
//! in the directory, synced, before it registers; requests leave in order; after a broken connection the outcome of a controller's write is
//! told only when the new connection has answered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use broker_core::controller::{Effect as ControllerEffect, Seat, Sitter};
use broker_core::hosting::Telling;
use broker_core::ids::{self, BrokerEpoch, DirectoryId, Incarnation, Millis, Zxid};
use broker_core::image::{BrokerRegistration, Endpoint};
use broker_core::registration::{DirectoryRecord, Held, Next, Refusal, Registrant};
use broker_core::store::{Ask, Nodes, WriteOutcome};
use coordinator_disk::envelope::{self, Schema};
use coordinator_disk::{Disk, small_file};
use coordinator_protocol::SessionId;

use super::message::{CoordinatorReply, CoordinatorRequest, FromCoordinator, Outbox};
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
    /// The registration's, and whether it writes.
    Register {
        writes: bool,
    },
    /// That of the way into office and out of it.
    Stand {
        writes: bool,
    },
    /// That of producer ids.
    ProducerIds {
        writes: bool,
    },
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
    registrant: Option<Registrant>,
    /// Partitions have begun under this session's registration: until then nothing is served, whatever is heard.
    pub(super) is_registered: bool,
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
            registrant: None,
            is_registered: false,
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
        let mut effects = Vec::new();
        self.seat.tick(Millis::new(now / MS), 0, &mut effects);
        self.do_controller(effects, now, out);
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
                self.begin_registration(session, now, out);
            }
            (Purpose::Attach, _) => self.attached(zxid, now, out),
            (Purpose::Register { .. }, CoordinatorReply::Nodes(nodes)) => {
                self.registration_found(&nodes, now, out);
            }
            (Purpose::Register { .. }, CoordinatorReply::Multi(result)) => {
                let outcome = outcome(result, zxid);
                self.on_registration(now, out, |registrant| registrant.written(outcome));
            }
            (Purpose::Stand { .. }, CoordinatorReply::Nodes(nodes)) => {
                self.on_seat(now, out, |seat, effects| seat.found(&nodes, zxid, effects));
            }
            (Purpose::Stand { .. }, CoordinatorReply::Multi(result)) => {
                let outcome = outcome(result, zxid);
                self.on_seat(now, out, |seat, effects| seat.written(outcome, effects));
            }
            (Purpose::ProducerIds { .. }, CoordinatorReply::Nodes(nodes)) => {
                self.ids_found(&nodes, out);
            }
            (Purpose::ProducerIds { .. }, CoordinatorReply::Multi(result)) => {
                self.ids_written(outcome(result, zxid), out);
            }
            (Purpose::Write(id), CoordinatorReply::Multi(result)) => {
                let outcome = outcome(result, zxid);
                self.written(id, outcome, now, out);
            }
            (Purpose::Ping, _) => {}
            (purpose, reply) => unreachable!("{purpose:?} answered by {reply:?}"),
        }
        if self.session.is_registered {
            self.fence.contact(Millis::new(asked / MS));
        }
    }

    fn on_seat(
        &mut self,
        now: Time,
        out: &mut Outbox,
        act: impl FnOnce(&mut Seat, &mut Vec<ControllerEffect>),
    ) {
        let mut effects = Vec::new();
        act(&mut self.seat, &mut effects);
        self.do_controller(effects, now, out);
    }

    fn written(&mut self, id: u64, outcome: WriteOutcome, now: Time, out: &mut Outbox) {
        self.on_seat(now, out, |seat, effects| {
            seat.controller_mut().write_done(id, outcome, effects);
        });
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
                Purpose::Register { writes: false } => {
                    self.on_registration(now, out, |registrant| registrant.begin());
                }
                Purpose::Register { writes: true } => {
                    let unknown = WriteOutcome::Unknown { zxid };
                    self.on_registration(now, out, |registrant| registrant.written(unknown));
                }
                Purpose::Stand { writes: false } => self.seat.put_off(),
                Purpose::Stand { writes: true } => {
                    let unknown = WriteOutcome::Unknown { zxid };
                    self.on_seat(now, out, |seat, effects| seat.written(unknown, effects));
                }
                Purpose::ProducerIds { writes: false } => self.stop_taking(),
                Purpose::ProducerIds { writes: true } => {
                    self.ids_written(WriteOutcome::Unknown { zxid }, out);
                }
                Purpose::Open | Purpose::Attach | Purpose::Ping => {}
            }
        }
    }

    fn session_expired(&mut self, now: Time, out: &mut Outbox) {
        self.on_seat(now, out, Seat::session_over);
        self.fence.session_lost();
        self.session.is_registered = false;
        self.session.registrant = None;
        self.stop_taking();
        self.telling = Telling::default();
        self.open_session(out);
    }

    fn begin_registration(&mut self, session: SessionId, now: Time, out: &mut Outbox) {
        let endpoint = Endpoint {
            listener: "INTERNAL".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "simulated".to_owned(),
            port: 1,
        };
        let registration =
            BrokerRegistration { endpoints: vec![endpoint], rack: None, timestamp_ms: 0 };
        let session = ids::SessionId::new(session.get());
        let registrant = Registrant::new(self.id, session, registration.encode());
        self.session.registrant = Some(registrant);
        self.on_registration(now, out, |registrant| registrant.begin());
    }

    fn registration_found(&mut self, nodes: &Nodes, now: Time, out: &mut Outbox) {
        let held = Held {
            directories: [(self.session.directory, self.session.record)].into(),
            // A process that registers again continues itself.
            boot_changed: self.session.boot_changed && self.started.is_none(),
        };
        let Some(registrant) = &mut self.session.registrant else { return };
        match registrant.found(nodes, &held) {
            Ok(next) => self.on_registration(now, out, |_| next),
            // Another directory than this one is registered: until its session is over nobody else may be.
            Err(Refusal::Second(_)) => self.fail("another broker with this number", out),
            Err(Refusal::Identity(reason)) => {
                panic!("{} has an identity like this: {reason}", self.id)
            }
        }
    }

    fn on_registration(
        &mut self,
        now: Time,
        out: &mut Outbox,
        act: impl FnOnce(&mut Registrant) -> Next,
    ) {
        let Some(registrant) = &mut self.session.registrant else { return };
        let mut next = act(registrant);
        while let Next::Record(record) = next {
            if let Err(error) = self.session.write_record(record) {
                return self.fail(error, out);
            }
            let Some(registrant) = &mut self.session.registrant else { return };
            next = registrant.recorded();
        }
        match next {
            Next::Record(_) => unreachable!("done above"),
            Next::Ask(ask) => {
                let purpose = Purpose::Register { writes: matches!(ask, Ask::Write(_)) };
                self.ask(purpose, ask.into(), out);
            }
            Next::Registered(epoch) => self.registered(epoch, now, out),
        }
    }

    fn registered(&mut self, epoch: BrokerEpoch, now: Time, out: &mut Outbox) {
        self.session.registrant = None;
        let session = self.session.id.expect("it was opened");
        self.epoch = Some(epoch);
        self.started.get_or_insert(epoch.zxid());
        if self.telling.registered(epoch).is_some() {
            self.begin(now, out);
        }
        let session = ids::SessionId::new(session.get());
        let sitter = Sitter { broker: self.id, session, epoch };
        self.on_seat(now, out, |seat, effects| seat.registered(sitter, effects));
    }
}

fn outcome(result: Result<(), usize>, zxid: Zxid) -> WriteOutcome {
    match result {
        Ok(()) => WriteOutcome::Done { zxid },
        Err(at) => WriteOutcome::Conflict { at, zxid },
    }
}
