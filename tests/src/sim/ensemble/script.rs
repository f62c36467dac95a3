//! A run in which somebody wrote down what goes wrong, and when: for interleavings that a seed meets too rarely.
//!
//! Called by: tests. Calls: `world`, as the nemesis does, and at the end what every run ends with.
//! Invariant: nothing breaks but what the script breaks, and the same script gives the same run. The rules are those of
//! all runs; beside them, whatever a client was told is done has to be on every server in the end (asserted).
//! It does not know which failure is told.

use std::collections::{BTreeMap, BTreeSet};

use coordinator_core::server::{Mode, Status};
use coordinator_protocol::{Acl, CreateMode, CreateRequest, EventType, PathWatch, Request};

use super::audit::{self, Audited};
use super::client::{Heard as Said, Line};
use super::puppet::Heard;
use super::run::{Profile, come_to_rest};
use super::schedule::{MS, SECOND, Time};
use super::settings::Settings;
use super::storage::Crash;
use super::world::World;
use crate::sim::disk::SimulatedDisk;
use crate::sim::random::Random;

/// What a script waits for comes within this, or not at all.
const PATIENCE: Time = 60 * SECOND;
/// Within this after its end all servers are equal.
const REST: Time = 30 * SECOND;

/// A world to which somebody says what happens. Servers count from 0; each has one client, which talks to nobody else.
pub struct Script {
    world: World,
    /// What was asked for: the path of a new node, by number.
    asked: BTreeMap<u64, String>,
    done: BTreeSet<String>,
}

impl Script {
    /// All servers start. `change` may change [`Settings::scripted`].
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::scripted();
        change(&mut settings);
        let mut world = World::new(0, settings, false);
        for (server, client) in world.clients.iter_mut().enumerate() {
            client.home = Some(server);
        }
        Self { world, asked: BTreeMap::new(), done: BTreeSet::new() }
    }

    /// The leader, once all follow it, and then the others.
    pub fn ranked(&mut self) -> [usize; 3] {
        self.run_until("all follow a leader", |script| {
            let follow = |server| script.status(server).is_some_and(|status| status.confirmed);
            script.world.leader().is_some() && (0..3).all(follow)
        });
        let leader = self.world.leader().expect("just seen");
        [leader, (leader + 1) % 3, (leader + 2) % 3]
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        self.world.step_to(self.world.now() + PATIENCE);
        for client in 0..self.world.clients.len() {
            for heard in self.world.take_heard(client) {
                if let Heard::Replied { number, outcome: Ok(_), .. } = heard {
                    self.done.insert(self.asked[&number].clone());
                }
            }
        }
    }

    /// Lets time pass.
    pub fn run_ms(&mut self, ms: u64) {
        let end = self.world.now() + ms * MS;
        while self.world.next_time().is_some_and(|next| next <= end) {
            self.step();
        }
        self.world.advance(end);
    }

    /// Lets things happen until the first after which it is so. Panics when it takes too long.
    pub fn run_until(&mut self, what: &str, is_so: impl Fn(&Script) -> bool) {
        let end = self.world.now() + PATIENCE;
        while !is_so(self) {
            assert!(self.world.now() < end, "it does not come to this: {what}");
            self.step();
        }
    }

    /// Asks a server for a new node with so many bytes; the client connects first.
    pub fn create(&mut self, server: usize, path: &str, bytes: usize) {
        self.connect(server);
        self.ask(server, path, bytes);
    }

    /// Asks a server for a new node if its client is connected.
    pub fn ask(&mut self, server: usize, path: &str, bytes: usize) {
        let number = self.asked.len() as u64;
        self.asked.insert(number, path.to_owned());
        let flags = CreateMode::Persistent as i32;
        let (path, data, acl) = (path.to_owned(), Some(vec![b'x'; bytes].into()), Acl::open());
        self.world.pull(server, number, Request::Create(CreateRequest { path, data, acl, flags }));
    }

    /// Asks for a new node and waits until the client is told that it is there.
    pub fn create_for_certain(&mut self, server: usize, path: &str, bytes: usize) {
        self.create(server, path, bytes);
        self.run_until("the node is there", |script| script.is_done(path));
    }

    /// Asks a server whether a node is there, and to be told when it comes; the client connects first.
    pub fn watch(&mut self, server: usize, path: &str) {
        self.connect(server);
        let number = self.asked.len() as u64;
        self.asked.insert(number, String::new());
        let request = Request::Exists(PathWatch { path: path.to_owned(), watch: true });
        self.world.pull(server, number, request);
    }

    /// Whether a client waits for nothing.
    pub fn is_answered(&self, client: usize) -> bool {
        self.world.clients[client].is_idle()
    }

    /// Lets a client that loses its connection go to another server with its session.
    pub fn send_home(&mut self, client: usize, server: usize) {
        self.world.clients[client].home = Some(server);
    }

    /// How often any client was told of a node that is new.
    pub fn told_of(&self, path: &str) -> usize {
        let heard = self.world.talks.values().flat_map(|talk| &talk.heard);
        let is_it = |heard: &&Said| matches!(heard, Said::Watch(_, EventType::NodeCreated, at) if at == path);
        heard.filter(is_it).count()
    }

    /// Whether a client was told that this node is there.
    pub fn is_done(&self, path: &str) -> bool {
        self.done.contains(path)
    }

    /// Whether any server has committed this node.
    pub fn is_agreed(&self, path: &str) -> bool {
        self.world.agreed().tree().contains(path)
    }

    /// What a server says of itself while its process is there.
    pub fn status(&self, server: usize) -> Option<Status> {
        Some(self.world.members[server].server.as_ref()?.status())
    }

    /// Whether a server is the leader, as it believes.
    pub fn leads(&self, server: usize) -> bool {
        self.status(server).is_some_and(|status| status.mode == Mode::Leader)
    }

    /// Whom a server has voted for last, by its disk.
    pub fn voted_for(&self, server: usize) -> Option<usize> {
        let (_, vote) = self.world.members[server].storage.vote();
        usize::try_from(vote).ok()?.checked_sub(1)
    }

    /// Whether a server's state has all that is committed.
    pub fn is_current(&self, server: usize) -> bool {
        let committed = self.world.ledger.entry_count();
        self.status(server).is_some_and(|status| status.applied_index == committed)
    }

    /// Whether a server and another hear each other.
    pub fn is_up(&self, server: usize, other: usize) -> bool {
        self.world.links.is_up(server, other)
    }

    /// The process is killed: what was written is still there.
    pub fn kill(&mut self, server: usize) {
        self.world.go_down(server, Crash::Kill);
    }

    /// The machine loses power, and with it all that was not synced.
    pub fn cut_power(&mut self, server: usize) {
        self.world.go_down(server, Crash::Blackout);
    }

    /// The machine loses power within what is being written, some operations further on: of what was not synced, parts are left, as
    /// `seed` has it.
    pub fn cut_power_within_write(&mut self, server: usize, seed: u64) {
        self.world.disk = Random::new(seed);
        self.world.go_down(server, Crash::Power);
    }

    /// Starts the process, or tries again and again while its disk is full. Panics when it refuses its files.
    pub fn start(&mut self, server: usize) {
        self.world.start_server(server);
    }

    /// No server hears this one, nor is heard by it, until [`Script::join_all`].
    pub fn cut_off(&mut self, server: usize) {
        for other in (0..self.world.members.len()).filter(|other| *other != server) {
            self.world.block(server, other);
            self.world.block(other, server);
            self.world.break_link((server.min(other), server.max(other)), true);
        }
    }

    /// All servers hear each other.
    pub fn join_all(&mut self) {
        self.world.unblock_all();
    }

    /// The disk completes nothing more, until [`Script::release_disk`] or the end of the process.
    pub fn hold_disk(&mut self, server: usize) {
        self.world.members[server].disk_held = true;
    }

    /// The disk goes on.
    pub fn release_disk(&mut self, server: usize) {
        self.world.release_disk(server);
    }

    /// The next sync of the process fails.
    pub fn fail_sync(&mut self, server: usize) {
        self.world.members[server].storage.fail_sync();
    }

    /// Only so many bytes more fit on the disk, until [`Script::mend_disk`].
    pub fn fill_disk(&mut self, server: usize, bytes: u64) {
        self.world.members[server].storage.fill(bytes);
    }

    /// The disk has room, and no sync fails.
    pub fn mend_disk(&mut self, server: usize) {
        self.world.members[server].storage.mend();
    }

    /// Whether entries are on their way to a server's disk.
    pub fn writes_entries(&self, server: usize) -> bool {
        self.world.members[server].storage.writes_entries()
    }

    /// A server's disk.
    pub fn disk(&self, server: usize) -> &SimulatedDisk {
        self.world.members[server].storage.disk()
    }

    /// Another disk is in a machine whose process is down.
    pub fn replace_disk(&mut self, server: usize, disk: SimulatedDisk) {
        self.world.members[server].storage.replace_disk(disk);
    }

    /// Mends everything. All servers have to come to rest with the same state, in which nothing is missing that anybody was told of.
    pub fn finish(mut self) -> Audited {
        self.world.heal();
        for server in 0..self.world.members.len() {
            self.release_disk(server);
        }
        for client in 0..self.world.clients.len() {
            self.world.clients[client].home = None;
            if self.is_asleep(client) {
                self.world.awaken(client);
            }
        }
        let end = self.world.now() + REST;
        come_to_rest(&mut self.world, end);
        for (id, member) in self.world.members.iter().enumerate() {
            let tree = member.server.as_ref().expect("all were started").state().tree();
            for path in &self.done {
                assert!(
                    tree.contains(path),
                    "server {id} lacks {path}, of which a client was told"
                );
            }
        }
        audit::audit(&self.world, Profile::Chaos)
    }

    fn connect(&mut self, client: usize) {
        if self.is_asleep(client) {
            self.world.awaken(client);
        }
        self.run_until("the client is connected", |script| {
            matches!(script.world.clients[client].line, Line::Open { .. })
        });
    }

    fn is_asleep(&self, client: usize) -> bool {
        matches!(self.world.clients[client].line, Line::Down { dial_at: Time::MAX })
    }
}

impl World {
    /// A disk that was held goes on with what was being written.
    fn release_disk(&mut self, server: usize) {
        let member = &mut self.members[server];
        member.disk_held = false;
        if std::mem::take(&mut member.write_due) {
            self.disk_done(server);
        } else {
            self.begin_writing(server);
        }
    }
}
