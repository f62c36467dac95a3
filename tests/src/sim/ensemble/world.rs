//! The simulated world: servers, wires, disks and clients on one thread and one clock.
//!
//! Called by: `run`. Calls: everything else here.
//! Invariant: each event is handled at its time, whole; every choice comes from the seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coordinator_core::consensus::{PersistId, SnapshotImage};
use coordinator_core::server::{Effect, Event, Mode, Status};
use coordinator_protocol::{SessionId, Xid};

use super::client::{Action, Client, Conversation};
use super::ledger::Ledger;
use super::links::Links;
use super::machines;
use super::member::Member;
use super::schedule::{MS, SECOND, Schedule, Time};
use super::settings::Settings;
use super::sockets::{Inward, Outward, Socket};
use super::trace::Trace;
use crate::sim::decisions::Decisions;
use crate::sim::fault::Faults;
use crate::sim::random::Random;

/// Of so many entries one is looked for on the disks when it is committed: that reads whole logs.
const DURABLE_EVERY: u64 = 300;
/// How long nothing is written before the log says of its end that it was synced.
const MARK_AFTER: Time = 500 * MS;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Happening {
    /// Something inside one life of a server.
    Server { server: usize, life: u64, what: Inside },
    /// A message between servers arrives.
    PeerBytes { from: usize, to: usize, epoch: u64, bytes: Bytes },
    /// An end of a broken link learns of it.
    PeerNotice { server: usize, peer: usize, epoch: u64 },
    /// Two servers try to connect.
    Reconnect { pair: (usize, usize) },
    /// Something arrives at the server's end of a client's connection.
    Inward { connection: u64, what: Inward },
    /// A server's process dials those that it knows, and nobody else.
    Introduce { server: usize },
    /// A server goes on reading.
    Read { connection: u64 },
    /// Something arrives at the client's end.
    Outward { connection: u64, what: Outward },
    /// A client's time has come.
    ClientWake { client: usize, number: u64 },
    /// Something breaks, or is mended.
    Nemesis(super::nemesis::Deed),
}

/// What happens inside a server.
#[derive(Debug)]
pub(super) enum Inside {
    Tick(u64),
    DiskDone,
    DiskIdle,
    SnapshotDone,
}

fn backlog_of(event: &Event) -> Option<(u64, bool)> {
    match event {
        Event::Backlogged { connection, backlogged } => Some((connection.get(), *backlogged)),
        _ => None,
    }
}

/// Whether this answers a request or a ping of an open session, which is not for reads only.
fn is_answer(effect: &Effect, readers: &BTreeSet<u64>) -> bool {
    let Effect::Respond { frame, connection } = effect else { return false };
    if readers.contains(&connection.get()) {
        return false;
    }
    let xid = frame.get(4..8).map(|xid| i32::from_be_bytes(xid.try_into().expect("four")));
    xid.is_some_and(|xid| xid > 0 || xid == Xid::PING.get())
}

/// A7: no quorum, no answers. A server that halts in a step has answered before it, and does nothing after it.
fn check_answers(id: usize, effects: &[Effect], (status, readers): (&Status, &BTreeSet<u64>)) {
    let is_halt = |effect: &Effect| matches!(effect, Effect::Halt { .. });
    if let Some(halt) = effects.iter().position(is_halt) {
        let after = &effects[halt + 1..];
        assert!(after.is_empty(), "server {id} halts, and then: {after:?}");
        assert_eq!(status.mode, Mode::Halted, "server {id} goes on after it halted");
        return;
    }
    // Who leaves the members in this step served them until then.
    let leaves = |effect: &Effect| matches!(effect, Effect::Members { serves: false, .. });
    let left = effects.iter().position(leaves).map_or(0, |left| left + 1);
    let answers = effects[left..].iter().any(|effect| is_answer(effect, readers));
    assert!(!answers || status.confirmed, "server {id} answers without a leader: {status:?}");
}

fn name_of(effect: &Effect) -> Option<&'static str> {
    let name = match effect {
        Effect::Respond { .. } => "ensemble Respond",
        Effect::Close { .. } => "ensemble Close",
        Effect::Reading { .. } => "ensemble Reading",
        Effect::SendPeer { .. } => "ensemble SendPeer",
        Effect::Persist { .. } => "ensemble Persist",
        Effect::SaveSnapshot { .. } => "ensemble SaveSnapshot",
        // Of hundreds of runs none need have a follower that asks in these milliseconds.
        Effect::HurrySnapshot => return None,
        Effect::Audit { .. } => "ensemble Audit",
        Effect::Members { .. } => "ensemble Members",
        Effect::Halt { .. } => "ensemble Halt",
    };
    Some(name)
}

/// Behind those that do a little of everything come those with a recipe, and the operators.
fn give_parts(clients: &mut [Client], settings: &Settings) {
    let (workers, others) = clients.split_at_mut(settings.clients);
    workers[..settings.readers].iter_mut().for_each(|client| client.may_only_read = true);
    let (lockers, operators) = others.split_at_mut(settings.lockers);
    lockers.iter_mut().for_each(Client::want_locks);
    operators.iter_mut().for_each(|operator| operator.want_members(settings.machines()));
}

/// Everything.
pub struct World {
    pub(super) settings: Settings,
    pub(super) schedule: Schedule<Happening>,
    pub(super) trace: Trace,
    pub(super) members: Vec<Member>,
    pub(super) links: Links,
    pub(super) clients: Vec<Client>,
    pub(super) wakes: Vec<u64>,
    pub(super) sockets: BTreeMap<u64, Socket>,
    /// Which connection each client uses.
    pub(super) lines: Vec<Option<u64>>,
    pub(super) talks: BTreeMap<u64, Conversation>,
    /// When running servers heard of each session's client.
    pub(super) heard: BTreeMap<SessionId, Vec<Time>>,
    /// When a server handled that the client's side had closed a socket: by the server, from 0,
    /// and the socket's number in the log.
    pub(super) lost: BTreeMap<(usize, u64), Time>,
    pub(super) ledger: Ledger,
    pub(super) arsenal: Faults,
    pub(super) decided: Decisions,
    pub(super) network: Random,
    pub(super) disorder: Random,
    pub(super) disk: Random,
    pub(super) births: Random,
    pub(super) nemesis: Random,
    pub(super) room: Random,
    pub(super) muster: Random,
    /// Connections that were opened for reads only.
    pub(super) readers: BTreeSet<u64>,
    /// When a disk had little room first, and since when all have enough for good.
    pub(super) low_disks: (Option<Time>, Option<Time>),
    pub(super) steps: u64,
}

impl World {
    /// A world where all servers start and all clients dial.
    pub fn new(seed: u64, settings: Settings, print: bool) -> Self {
        let mut root = Random::new(seed);
        let mut stream = || Random::new(root.number());
        let mut births = stream();
        let mut members = machines::all(&settings, &mut births);
        let mut drift = Random::new(seed ^ 0x0064_7269_6674);
        if settings.faults {
            members.iter_mut().for_each(|member| member.drift_ppm = drift.below(200));
        }
        let (network, disk, nemesis) = (stream(), stream(), stream());
        let client = |number: u64| {
            let mut random = stream();
            let timeout = settings.timeout(&mut random);
            let mut client = Client::new(number, settings.machines(), timeout, random);
            client.pace = settings.pace;
            if number < settings.puppets as u64 {
                client.tie(settings.puppet_timeout);
            }
            client
        };
        let count = settings.clients + settings.lockers + settings.operators;
        let mut clients: Vec<Client> = (0..count as u64).map(client).collect();
        give_parts(&mut clients, &settings);
        let mut world = Self {
            schedule: Schedule::new(),
            trace: Trace::new(print),
            links: Links::new(settings.machines()),
            wakes: vec![0; clients.len()],
            lines: vec![None; clients.len()],
            sockets: BTreeMap::new(),
            talks: BTreeMap::new(),
            heard: BTreeMap::new(),
            lost: BTreeMap::new(),
            ledger: Ledger::new(settings.machines(), settings.servers, settings.state()),
            arsenal: Faults::without(&settings.without),
            decided: Decisions::default(),
            members,
            clients,
            settings,
            network,
            disorder: Random::new(seed ^ 0x6469_736f_7264),
            disk,
            births,
            nemesis,
            room: Random::new(seed ^ 0x6672_6565),
            muster: Random::new(seed ^ 0x6d75_7374),
            readers: BTreeSet::new(),
            low_disks: (None, None),
            steps: 0,
        };
        for server in 0..world.members.len() {
            world.start_server(server);
        }
        for client in 0..world.clients.len() {
            world.wake_client_at(client, 0);
        }
        world
    }

    /// Lets everything happen that is due by `end`.
    pub fn run_until(&mut self, end: Time) {
        while let Some(happening) = self.schedule.next_until(end) {
            self.happen(happening);
        }
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.schedule.now()
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Server { server, life, what } => {
                if self.members[server].life == life {
                    self.inside(server, what);
                }
            }
            Happening::PeerBytes { from, to, epoch, bytes } => {
                self.peer_bytes(from, to, (epoch, bytes));
            }
            Happening::PeerNotice { server, peer, epoch } => self.peer_notice(server, peer, epoch),
            Happening::Reconnect { pair } => self.reconnect(pair),
            Happening::Introduce { server } => self.introduce(server),
            Happening::Inward { connection, what } => self.inward(connection, what),
            Happening::Read { connection } => self.read_on(connection),
            Happening::Outward { connection, what } => self.outward(connection, what),
            Happening::ClientWake { client, number } => {
                if self.wakes[client] == number {
                    self.wake_client(client);
                }
            }
            Happening::Nemesis(deed) => self.strike(deed),
        }
    }

    fn inside(&mut self, server: usize, what: Inside) {
        let member = &mut self.members[server];
        match what {
            Inside::Tick(number) => {
                if member.tick.is_some_and(|(expected, _)| expected == number) {
                    member.tick = None;
                    self.deliver(server, Event::Tick);
                }
            }
            Inside::DiskDone if member.disk_held => member.write_due = true,
            Inside::DiskDone => self.disk_done(server),
            Inside::DiskIdle => self.disk_idle(server),
            Inside::SnapshotDone => match member.storage.finish_saving() {
                Ok((index, image)) => self.deliver(server, Event::SnapshotSaved { index, image }),
                Err((index, _)) => self.deliver(server, Event::SnapshotFailed { index }),
            },
        }
    }

    pub(super) fn disk_done(&mut self, server: usize) {
        let now = self.schedule.now();
        self.members[server].wrote_at = now;
        self.expect_idle(server, now + MARK_AFTER);
        let ids = match self.members[server].storage.finish() {
            Ok(ids) => ids,
            Err((id, _)) => return self.deliver(server, Event::PersistFailed { id }),
        };
        // Before that nobody was told of the vote.
        if self.ledger.vote(server, self.members[server].storage.vote()) {
            self.check_voter(server);
        }
        let each = self.disk.chance(1, 2);
        let first = if each { 0 } else { ids.len() - 1 };
        for id in &ids[first..] {
            self.deliver(server, Event::Persisted { id: *id });
        }
        self.begin_writing(server);
        self.tempt_voter(server);
    }

    /// When nothing was written for a while, the log is told to say that it was synced.
    fn disk_idle(&mut self, server: usize) {
        let now = self.schedule.now();
        let member = &mut self.members[server];
        member.idles = false;
        let due = member.wrote_at + MARK_AFTER;
        if due > now {
            self.expect_idle(server, due);
        } else if member.disk_held {
            self.expect_idle(server, now + MARK_AFTER);
        } else if member.storage.mark().is_err() {
            self.disk_failed(server);
        }
    }

    /// Outside of any write that was asked for.
    pub(super) fn disk_failed(&mut self, server: usize) {
        self.deliver(server, Event::PersistFailed { id: PersistId::default() });
    }

    fn expect_idle(&mut self, server: usize, time: Time) {
        let member = &mut self.members[server];
        if !member.idles {
            member.idles = true;
            let what = Inside::DiskIdle;
            self.schedule.at(time, Happening::Server { server, life: member.life, what });
        }
    }

    /// Starts to write what waits, if the disk is free.
    pub(super) fn begin_writing(&mut self, server: usize) {
        let member = &mut self.members[server];
        if member.server.is_some() && !member.disk_held && member.storage.begin() {
            let usual = 100 + self.disk.below(2 * MS);
            let stalls = member.slow_disk && self.disk.chance(1, 100);
            let longest = if stalls { 5 * SECOND } else { 300 * MS };
            let slow = if member.slow_disk { self.disk.below(longest) } else { 0 };
            let what = Inside::DiskDone;
            let happening = Happening::Server { server, life: member.life, what };
            self.schedule.after(usual + slow, happening);
        }
    }

    /// Gives an event to a server now, or when it goes on.
    pub(super) fn deliver(&mut self, server: usize, event: Event) {
        let member = &mut self.members[server];
        if member.paused {
            member.inbox.push(event);
        } else if member.server.is_some() {
            self.step(server, vec![event]);
        }
    }

    /// One step of a server, and everything that is checked after it.
    pub(super) fn step(&mut self, id: usize, mut events: Vec<Event>) {
        let now = self.schedule.now();
        self.steps += 1;
        // What is answered in the same step as it halts cannot be judged: of half of those steps it is one of its own.
        let is_failure = |event: &Event| matches!(event, Event::PersistFailed { .. });
        if let (Some(at @ 1..), true) =
            (events.iter().position(is_failure), self.steps.is_multiple_of(2))
        {
            let rest = events.split_off(at);
            self.step(id, events);
            if self.members[id].server.is_some() {
                self.step(id, rest);
            }
            return;
        }
        for event in &events {
            self.note_event(id, event);
        }
        let backlogs: Vec<(u64, bool)> = events.iter().filter_map(backlog_of).collect();
        let several = events.len() > 1;
        backlogs.iter().for_each(|(connection, on)| self.note_backlog(*connection, *on || several));
        let member = &mut self.members[id];
        let local = member.now(now);
        let Some(server) = &mut member.server else { return };
        let mut effects = Vec::new();
        let voters = server.voters().clone();
        server.step_all(events, local, &mut effects);
        server.check();
        let status = server.status();
        // Whom those confirmed who voted until this step may answer in it what they made sure of, and nothing after it.
        let votes_on = *server.voters() == voters;
        self.note_readers(&effects);
        if votes_on || status.mode == Mode::Halted {
            check_answers(id, &effects, (&status, &self.readers));
        }
        let answers = effects.iter().any(|effect| is_answer(effect, &self.readers));
        assert!(
            !answers || self.ledger.may_answer(id, now),
            "server {id} answers, and is no member"
        );
        let leads = matches!(status.mode, Mode::Leader | Mode::Standalone);
        for effect in effects {
            if let (true, Effect::Persist { write, .. }) = (leads, &effect) {
                let write = (write, &self.members[id].storage);
                self.ledger.check_appends(id, status.term, write);
            }
            self.carry_out(id, effect);
        }
        backlogs.iter().for_each(|(connection, on)| self.note_backlog(*connection, *on));
        self.schedule_tick(id);
        let member = &self.members[id];
        if let Some(server) = &member.server {
            let compare = self.steps.is_multiple_of(256);
            let before = self.ledger.entry_count();
            self.ledger.observe(id, server, &member.storage, (now, compare));
            if before / DURABLE_EVERY != self.ledger.entry_count() / DURABLE_EVERY {
                self.check_durable();
            }
            self.check_gained();
        }
    }

    /// What was just committed is on the disks of a majority, by the disks' own word.
    fn check_durable(&self) {
        let Some((term, index)) = self.ledger.last_committed() else { return };
        let has_it = |id: &&u64| {
            let server = usize::try_from(**id - 1).expect("small");
            self.members[server].storage.has_durably(term, index)
        };
        let quorums = self.ledger.quorums_of(term, index);
        let having: Vec<(usize, BTreeSet<u64>)> =
            quorums.map(|voters| (voters.iter().filter(has_it).count(), voters)).collect();
        assert!(
            having.iter().any(|(count, voters)| *count > voters.len() / 2),
            "entry {index} of term {term} is committed, and on these disks: {having:?}"
        );
    }

    fn note_event(&mut self, id: usize, event: &Event) {
        let now = self.schedule.now();
        match event {
            Event::Disconnected { connection, by_peer: true } => {
                let talk = self.talks.get(&connection.get()).expect("it dialled");
                self.lost.entry((id, talk.origin)).or_insert(now);
            }
            Event::Request { connection, .. } => {
                let talk = self.talks.get_mut(&connection.get()).expect("it dialled");
                talk.handled.push(now);
            }
            _ => {}
        }
        let (name, numbers, bytes): (&str, [u64; 2], &[u8]) = match event {
            Event::Connect { connection, .. } => ("connect", [connection.get(), 0], &[]),
            Event::Request { connection, header, .. } => {
                let op = u64::from(header.op.code().unsigned_abs());
                ("request", [connection.get(), op], &[])
            }
            Event::Disconnected { connection, by_peer } => {
                ("disconnected", [connection.get(), u64::from(*by_peer)], &[])
            }
            Event::Backlogged { connection, backlogged } => {
                ("backlogged", [connection.get(), u64::from(*backlogged)], &[])
            }
            Event::PeerMessage { from, bytes } => ("peer message", [from.get(), 0], bytes),
            Event::PeerUp { peer } => ("peer up", [peer.get(), 0], &[]),
            Event::PeerLost { peer } => ("peer lost", [peer.get(), 0], &[]),
            Event::Persisted { id } => ("persisted", [id.0, 0], &[]),
            Event::PersistFailed { id } => ("persist failed", [id.0, 0], &[]),
            Event::SnapshotSaved { index, .. } => ("snapshot saved", [*index, 0], &[]),
            Event::SnapshotFailed { index } => ("snapshot failed", [*index, 0], &[]),
            Event::DiskRoom { free_bytes } => ("disk room", [*free_bytes, 0], &[]),
            Event::TakeSnapshot => ("take snapshot", [0, 0], &[]),
            Event::Tick => ("tick", [0, 0], &[]),
            Event::Resign => ("resign", [0, 0], &[]),
        };
        self.trace.note(now, name, &[id as u64 + 1, numbers[0], numbers[1]], bytes);
    }

    fn carry_out(&mut self, id: usize, effect: Effect) {
        let now = self.schedule.now();
        if let Some(name) = name_of(&effect) {
            self.decided.note(name);
        }
        match effect {
            Effect::Respond { connection, frame } => {
                self.trace.note(now, "  respond", &[connection.get()], &frame);
                self.send_outward(connection.get(), Outward::Frame(frame));
            }
            Effect::Close { connection } => {
                self.trace.note(now, "  close", &[connection.get()], &[]);
                self.send_outward(connection.get(), Outward::Closed);
                if let Some(socket) = self.sockets.get_mut(&connection.get()) {
                    socket.server_open = false;
                }
            }
            Effect::Reading { connection, on } => {
                self.trace.note(now, "  reading", &[connection.get(), u64::from(on)], &[]);
                if let Some(socket) = self.sockets.get_mut(&connection.get()) {
                    socket.reading = on;
                    let connection = connection.get();
                    self.schedule.at(now, Happening::Read { connection });
                }
            }
            Effect::SendPeer { to, bytes } => {
                self.trace.note(now, "  send peer", &[to.get()], &bytes);
                let to = usize::try_from(to.get() - 1).expect("small");
                self.send_peer(id, to, bytes);
            }
            Effect::Persist { id: number, write } => {
                self.trace.note(now, "  persist", &[number.0, write.entries.len() as u64], &[]);
                let storage = &self.members[id].storage;
                self.ledger.log(id, &write, storage, now);
                let is_filled = write.install.is_some() || !write.entries.is_empty();
                self.members[id].filled = self.members[id].filled.or(is_filled.then_some(now));
                self.members[id].storage.persist(number, write);
                self.begin_writing(id);
            }
            Effect::SaveSnapshot { state, keep_image, .. } => {
                let (index, term, data) = (state.index(), state.term(), state.encode());
                let image = SnapshotImage { index, term, data };
                self.trace.note(now, "  snapshot", &[image.index], &image.data);
                let member = &mut self.members[id];
                member.storage.begin_saving(image, keep_image);
                let what = Inside::SnapshotDone;
                let happening = Happening::Server { server: id, life: member.life, what };
                self.schedule.after(MS + self.disk.below(50 * MS), happening);
            }
            // They take a few simulated milliseconds at most.
            Effect::HurrySnapshot => self.trace.note(now, "  hurry", &[id as u64 + 1], &[]),
            // No server of the simulation has an audit log.
            Effect::Audit { .. } => {}
            Effect::Members { servers, serves } => {
                self.trace.note(now, "  members", &[servers.len() as u64, u64::from(serves)], &[]);
                self.know(id, &servers);
            }
            Effect::Halt { reason } => {
                self.trace.note(now, "  halt", &[id as u64 + 1], reason.as_bytes());
                self.halted(id);
            }
        }
    }

    fn schedule_tick(&mut self, id: usize) {
        let now = self.schedule.now();
        let member = &mut self.members[id];
        let Some(deadline) = member.server.as_ref().and_then(|server| server.next_deadline())
        else {
            return;
        };
        let time = member.time_of(deadline).max(now + 1);
        if member.tick.is_some_and(|(_, scheduled)| scheduled == time) {
            return;
        }
        let number = self.steps;
        member.tick = Some((number, time));
        let what = Inside::Tick(number);
        self.schedule.at(time, Happening::Server { server: id, life: member.life, what });
    }

    fn wake_client(&mut self, client: usize) {
        let now = self.schedule.now();
        let resumes = self.clients[client].paused_until;
        if resumes > now {
            self.wake_client_at(client, resumes);
            return;
        }
        let mut actions = Vec::new();
        let next = self.clients[client].wake(now, &mut actions);
        self.act(client, actions);
        self.wake_client_at(client, next.max(now + 1));
    }

    pub(super) fn wake_client_at(&mut self, client: usize, time: Time) {
        self.wakes[client] += 1;
        let number = self.wakes[client];
        self.schedule.at(time, Happening::ClientWake { client, number });
    }

    pub(super) fn act(&mut self, client: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(server, request) => self.dial(client, server, request),
                Action::Send(xid, request) => self.send_request(client, xid, request),
                Action::HangUp => self.hang_up(client),
            }
        }
    }
}
