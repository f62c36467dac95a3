//! What goes wrong, and its mending.
//!
//! Called by: `world` (at its times) and `run` (to heal everything). Calls: `world`, `links`.
//! Invariant: everything that is broken is mended by `heal`.

use coordinator_core::ConnectionId;
use coordinator_core::server::{Event, Mode};

use super::member::Member;
use super::network::Disorder;
use super::schedule::{MS, SECOND, Time};
use super::sockets::{Inward, Outward};
use super::storage::Crash;
use super::world::{Happening, World};
use crate::sim::fault::Fault;

/// What happens to files while nobody looks.
const DAMAGE: [Fault; 3] = [Fault::FlipBit, Fault::LoseSector, Fault::ReadError];

/// One thing that goes wrong or is mended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// Choose something, and when to choose again.
    Choose,
    Start(usize),
    Resume(usize),
    Unblock,
    FastDisk(usize),
    FreeDisk(usize),
    /// Choose a disk that has little room.
    LowDisk,
    HighDisk(usize),
    /// Look for a machine to be made anew.
    Muster,
    /// A machine loses power.
    Cut(usize),
    Unbacklog(u64),
    Unclog(u64),
}

impl World {
    /// Begins to break things.
    pub fn unleash(&mut self) {
        if self.settings.faults {
            self.schedule.after(SECOND, Happening::Nemesis(Deed::Choose));
        }
        if self.settings.low_disks {
            self.schedule.after(SECOND, Happening::Nemesis(Deed::LowDisk));
        }
        if self.settings.operators > 0 {
            self.schedule.after(SECOND, Happening::Nemesis(Deed::Muster));
        }
    }

    /// Mends everything and breaks nothing more.
    pub fn heal(&mut self) {
        self.low_disks.1 = Some(self.schedule.now());
        self.settings.faults = false;
        self.settings.slow_network = false;
        self.settings.disorder = Disorder::default();
        self.unblock_all();
        let lines: Vec<u64> = self.lines.iter().flatten().copied().collect();
        lines.into_iter().for_each(|connection| self.unclog(connection));
        for server in 0..self.members.len() {
            self.members[server].slow_disk = false;
            self.members[server].storage.mend();
            self.strike(Deed::Resume(server));
            self.place(server);
            self.strike(Deed::Start(server));
            if self.settings.low_disks {
                self.strike(Deed::HighDisk(server));
            }
        }
    }

    pub(super) fn strike(&mut self, deed: Deed) {
        match deed {
            Deed::Choose => {
                if self.settings.faults {
                    self.choose();
                    let pause = 50 * MS + self.nemesis.below(1500 * MS);
                    self.schedule.after(pause, Happening::Nemesis(Deed::Choose));
                }
            }
            Deed::Start(server) => self.start_server(server),
            Deed::Resume(server) => self.resume_server(server),
            Deed::Unblock => self.unblock_all(),
            Deed::FastDisk(server) => self.members[server].slow_disk = false,
            Deed::FreeDisk(server) => self.members[server].storage.mend(),
            Deed::LowDisk => self.lower_disk(),
            Deed::Muster => self.muster(),
            Deed::Cut(server) => self.cut_only_voter(server),
            Deed::HighDisk(server) => self.measure_room(server, u64::MAX),
            Deed::Unbacklog(connection) => self.backlog(connection, false),
            Deed::Unclog(connection) => self.unclog(connection),
        }
    }

    fn choose(&mut self) {
        let server = self.nemesis.below(self.members.len() as u64) as usize;
        let client = self.nemesis.below(self.clients.len() as u64) as usize;
        let pairs = self.links.pairs();
        let pair = pairs.get(self.nemesis.below(pairs.len() as u64) as usize).copied();
        let choice = self.nemesis.below(100);
        let now = self.schedule.now();
        self.trace.note(now, "nemesis", &[choice, server as u64 + 1, client as u64], &[]);
        let fault = match choice {
            0..=11 => Fault::Kill,
            12..=21 => Fault::PowerCut,
            22..=31 => Fault::Pause,
            32..=43 => Fault::Partition,
            44..=53 => Fault::BreakLink,
            54..=59 => Fault::ResetLine,
            60..=64 => Fault::Unseat,
            65..=67 => Fault::SlowDisk,
            68..=69 => DAMAGE[self.nemesis.below(3) as usize],
            70..=71 => Fault::FailSync,
            72 => Fault::FullDisk,
            73 => Fault::JumpClock,
            74..=77 => Fault::Resign,
            78..=83 => Fault::PauseClient,
            84..=87 => Fault::ClogLine,
            88..=92 => Fault::KillClient,
            93..=96 => Fault::Backlog,
            _ => Fault::PowerCutOfAll,
        };
        let moves_itself = client >= self.settings.puppets;
        let applies = moves_itself || !matches!(fault, Fault::PauseClient | Fault::KillClient);
        let is_due = applies && !DAMAGE.contains(&fault) && self.arsenal.is_on(fault);
        if is_due && self.inflict(fault, (server, client), pair) {
            self.arsenal.note(fault);
        }
        if DAMAGE.contains(&fault) {
            self.damage(server, fault);
        }
    }

    /// A server dies, and a part of what it knew to be synced goes bad before it is back.
    fn damage(&mut self, server: usize, fault: Fault) {
        let storage = &mut self.members[server].storage;
        match storage.mark() {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.disk_failed(server),
        }
        self.crash_server(server, Crash::Kill);
        let is_damaged = self.arsenal.is_on(fault)
            && self.members[server].storage.damage(fault, &mut self.nemesis);
        // Whether a file that cannot be read is read at all, its disk tells.
        if is_damaged && fault != Fault::ReadError {
            self.arsenal.note(fault);
        }
    }

    /// Whether it has struck: it met somebody. What a disk refuses later, the disk tells.
    fn inflict(
        &mut self,
        fault: Fault,
        (server, client): (usize, usize),
        pair: Option<(usize, usize)>,
    ) -> bool {
        let (runs, moves) =
            (self.members[server].server.is_some(), self.members[server].is_running());
        let has_line = self.lines[client].is_some();
        match fault {
            Fault::Kill => self.crash_server(server, Crash::Kill),
            Fault::PowerCut => self.crash_server(server, Crash::Power),
            Fault::Pause => {
                self.pause_server(server);
                return moves;
            }
            Fault::Partition => {
                self.partition(server);
                return self.members.len() > 1;
            }
            Fault::BreakLink => {
                let noticed = self.nemesis.chance(3, 4);
                let Some(pair) = pair else { return false };
                return self.break_link(pair, noticed);
            }
            Fault::ResetLine => {
                self.reset_line(client);
                return has_line;
            }
            Fault::ClogLine => return self.clog_line(client),
            Fault::Unseat => return self.unseat(),
            Fault::SlowDisk => self.slow_down_disk(server),
            Fault::FailSync => {
                self.members[server].storage.fail_sync();
                return false;
            }
            Fault::FullDisk => {
                self.fill_disk(server);
                return false;
            }
            Fault::JumpClock => self.members[server].jump(&mut self.nemesis),
            Fault::Resign => {
                let leads = self.leader() == Some(server);
                self.deliver(server, Event::Resign);
                return leads && moves;
            }
            Fault::PauseClient => {
                self.pause_client(client);
                return true;
            }
            Fault::KillClient => {
                self.kill_client(client);
                return true;
            }
            Fault::Backlog => {
                self.backlog_line(client);
                return has_line;
            }
            Fault::PowerCutOfAll => {
                let any_runs = self.members.iter().any(|member| member.server.is_some());
                for server in 0..self.members.len() {
                    self.crash_server(server, Crash::Power);
                }
                return any_runs;
            }
            other => unreachable!("{other:?} is not one of the ensemble's"),
        }
        runs
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |member: &Member| {
            member.server.as_ref().is_some_and(|server| server.status().mode == Mode::Leader)
        };
        self.members.iter().position(leads)
    }

    pub(super) fn start_server(&mut self, server: usize) {
        if self.members[server].server.is_some() || !self.members[server].is_placed {
            return;
        }
        let now = self.schedule.now();
        self.know_by_settings(server);
        // On every other machine, what a failed sync should have written is never written, and shown all the same.
        let forgets = self.settings.faults && server % 2 == 1;
        let forgets = forgets && self.arsenal.is_on(Fault::DropPages);
        self.members[server].storage.disk().drop_unsynced_at_failure(forgets);
        if !self.members[server].start(&mut self.births) {
            self.schedule.after(SECOND / 2, Happening::Nemesis(Deed::Start(server)));
            return;
        }
        let begun = self.members[server].server.as_ref().expect("it was started");
        self.ledger.restart(server, begun.status().term);
        self.trace.note(now, "start", &[server as u64 + 1], &[]);
        self.begin_slowly(server);
        self.deliver(server, Event::Tick);
        for pair in self.links.pairs() {
            if pair.0 == server || pair.1 == server {
                self.retry(pair);
            }
        }
        let life = self.members[server].life;
        let former: Vec<u64> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.server == server && socket.life != life)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in former {
            self.schedule.after(MS, Happening::Outward { connection, what: Outward::Closed });
        }
    }

    /// A server that has just given its vote to another dies with it, now and then, and is soon
    /// back to be asked again.
    pub(super) fn tempt_voter(&mut self, server: usize) {
        let given = self.members[server].storage.take_vote_given();
        if given
            && self.settings.faults
            && self.settings.voters_die
            && self.nemesis.chance(2, 3)
            && self.arsenal.strikes(Fault::VoterDies)
        {
            let power = self.nemesis.chance(1, 2);
            self.go_down(server, if power { Crash::Power } else { Crash::Kill });
            let restart = 1 + self.nemesis.below(50 * MS);
            self.schedule.after(restart, Happening::Nemesis(Deed::Start(server)));
        }
    }

    /// The leader loses everyone for a moment, and two others who may take its place do not hear
    /// each other.
    fn unseat(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let others: Vec<usize> = (0..self.members.len()).filter(|other| *other != leader).collect();
        for pair in others.windows(2) {
            self.block(pair[0], pair[1]);
            self.block(pair[1], pair[0]);
        }
        self.break_links_of(leader, true);
        let heal = 50 * MS + self.nemesis.below(5 * SECOND);
        self.schedule.after(heal, Happening::Nemesis(Deed::Unblock));
        true
    }

    pub(super) fn crash_server(&mut self, server: usize, how: Crash) {
        if self.members[server].server.is_none() {
            return;
        }
        self.go_down(server, how);
        let restart = 10 * MS + self.nemesis.below(3 * SECOND);
        self.schedule.after(restart, Happening::Nemesis(Deed::Start(server)));
    }

    pub(super) fn go_down(&mut self, server: usize, how: Crash) {
        let member = &mut self.members[server];
        member.stop();
        member.storage.crash(how, &mut self.disk);
        let noticed = how == Crash::Kill;
        self.break_links_of(server, noticed);
        let its: Vec<u64> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.server == server && socket.client_open)
            .map(|(connection, _)| *connection)
            .collect();
        if noticed {
            for connection in its {
                self.schedule.after(MS, Happening::Outward { connection, what: Outward::Closed });
            }
        }
    }

    /// The server says that it cannot go on: its process ends.
    pub(super) fn halted(&mut self, server: usize) {
        self.go_down(server, Crash::Kill);
        let restart = SECOND + self.nemesis.below(3 * SECOND);
        self.schedule.after(restart, Happening::Nemesis(Deed::Start(server)));
    }

    fn pause_server(&mut self, server: usize) {
        let member = &mut self.members[server];
        if member.is_running() {
            member.paused = true;
            let long: Time = if self.nemesis.chance(1, 3) { 5 * SECOND } else { 500 * MS };
            let resume = 20 * MS + self.nemesis.below(long);
            self.schedule.after(resume, Happening::Nemesis(Deed::Resume(server)));
        }
    }

    fn resume_server(&mut self, server: usize) {
        let member = &mut self.members[server];
        if !member.paused {
            return;
        }
        member.paused = false;
        let mut events = std::mem::take(&mut member.inbox);
        events.insert(0, Event::Tick);
        if self.nemesis.chance(1, 2) {
            self.step(server, events);
            return;
        }
        for event in events {
            self.deliver(server, event);
        }
    }

    /// Cuts a server off: to, from, or both, from one or all others.
    fn partition(&mut self, server: usize) {
        let ways = self.nemesis.below(3);
        let all = self.nemesis.chance(2, 3);
        let others: Vec<usize> = (0..self.members.len()).filter(|other| *other != server).collect();
        let first = self.nemesis.below(others.len() as u64) as usize;
        for (position, other) in others.into_iter().enumerate() {
            if all || position == first {
                if ways != 0 {
                    self.block(server, other);
                }
                if ways != 1 {
                    self.block(other, server);
                }
            }
        }
        let heal = 50 * MS + self.nemesis.below(5 * SECOND);
        self.schedule.after(heal, Happening::Nemesis(Deed::Unblock));
    }

    /// A client's connection is reset by the network.
    fn reset_line(&mut self, client: usize) {
        let Some(connection) = self.lines[client] else { return };
        let by_peer = self.nemesis.chance(1, 2);
        if let Some(socket) = self.sockets.get_mut(&connection) {
            socket.broken = true;
        }
        self.send_inward(connection, Inward::Closed { by_peer });
        self.send_outward(connection, Outward::Closed);
    }

    /// A client and its server do not hear each other, or one of them not the other, for up to twice the session's time-out.
    fn clog_line(&mut self, client: usize) -> bool {
        let Some(connection) = self.lines[client] else { return false };
        let ways = self.nemesis.below(3);
        let over = 50 * MS + self.nemesis.below(2 * self.clients[client].timeout);
        let Some(socket) = self.sockets.get_mut(&connection) else { return false };
        if ways != 0 {
            socket.to_server.block();
        }
        if ways != 1 {
            socket.to_client.block();
        }
        self.schedule.after(over, Happening::Nemesis(Deed::Unclog(connection)));
        true
    }

    fn fill_disk(&mut self, server: usize) {
        self.members[server].storage.fill(self.nemesis.below(2_000));
        let freed = 100 * MS + self.nemesis.below(4 * SECOND);
        self.schedule.after(freed, Happening::Nemesis(Deed::FreeDisk(server)));
    }

    /// One of the disks has little room for some time, and then another, so that at times several have.
    fn lower_disk(&mut self) {
        if !self.settings.faults {
            return;
        }
        let server = self.room.below(self.members.len() as u64) as usize;
        let over = 100 * MS + self.room.below(4 * SECOND);
        let pause = 100 * MS + self.room.below(5 * SECOND);
        if self.arsenal.is_on(Fault::LowDisk) {
            if self.members[server].server.is_some() {
                self.arsenal.note(Fault::LowDisk);
            }
            self.low_disks.0.get_or_insert(self.schedule.now());
            self.measure_room(server, 0);
            self.schedule.after(over, Happening::Nemesis(Deed::HighDisk(server)));
        }
        self.schedule.after(pause, Happening::Nemesis(Deed::LowDisk));
    }

    fn measure_room(&mut self, server: usize, free_bytes: u64) {
        self.deliver(server, Event::DiskRoom { free_bytes });
    }

    fn slow_down_disk(&mut self, server: usize) {
        self.members[server].slow_disk = true;
        let mended = 100 * MS + self.nemesis.below(4 * SECOND);
        self.schedule.after(mended, Happening::Nemesis(Deed::FastDisk(server)));
    }

    fn pause_client(&mut self, client: usize) {
        let now = self.schedule.now();
        self.clients[client].paused_until = now + 200 * MS + self.nemesis.below(6 * SECOND);
    }

    pub(super) fn kill_client(&mut self, client: usize) {
        let now = self.schedule.now();
        let mut actions = Vec::new();
        self.clients[client].die(now, &mut actions);
        self.act(client, actions);
        self.wake_client_at(client, now);
    }

    fn backlog_line(&mut self, client: usize) {
        if let Some(connection) = self.lines[client] {
            self.backlog(connection, true);
            let over = 10 * MS + self.nemesis.below(2 * SECOND);
            self.schedule.after(over, Happening::Nemesis(Deed::Unbacklog(connection)));
        }
    }

    fn backlog(&mut self, connection: u64, backlogged: bool) {
        let Some(socket) = self.sockets.get(&connection) else { return };
        let (server, life) = (socket.server, socket.life);
        if socket.server_open && self.members[server].life == life {
            let connection = ConnectionId::new(connection);
            self.deliver(server, Event::Backlogged { connection, backlogged });
        }
    }
}
