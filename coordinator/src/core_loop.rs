//! The one task that owns the core.
//!
//! Called by: `server`. Calls: the core, and with its effects the outboxes and the storage.
//! Invariant: effects are carried out in the order in which the core gave them, before the next round. What came
//! together is one round: its requests share log entries, its writes one sync, its frames one send per socket.
//! Does not know: bytes on sockets, files, why the core wants what it wants.

mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coordinator_core::server::{DiskRoom, Effect, Event, Measures, Server as Core, Status};
use coordinator_core::{ConnectionId, ServerId};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use crate::admin::{Known, Wanted};
use crate::asked_snapshots::{Answer, AskedSnapshots};
use crate::audit::AuditLog;
use crate::clock::Clock;
use crate::disk_room;
use crate::link_lines::LinkLines;
use crate::net::Outbox;
use crate::notices;
use crate::peers;
use crate::roster::Roster;
use crate::standing::StandingWatch;
use crate::storage::{Storage, Wish};

/// Inputs that wait for the core; whoever has more waits.
pub const INPUTS_MAX: usize = 1024;
/// Inputs taken in one round, before effects are carried out and sockets flushed.
const ROUND_INPUTS_MAX: usize = 256;
/// Unsent bytes above which the core is told that a connection is backlogged; below none it goes on.
const BACKLOG_BYTES: usize = 1 << 20;
/// A step that takes longer is worth a line in the log.
const STEP_SLOW: Duration = Duration::from_millis(100);

/// What other tasks tell the core's.
pub enum Input {
    /// A client's socket is there; its events follow.
    Opened {
        /// Its name.
        connection: ConnectionId,
        /// Its way out.
        outbox: Arc<Outbox>,
    },
    /// A client's socket is gone; the last of its inputs.
    Ended {
        /// Its name.
        connection: ConnectionId,
        /// Whether the peer ended it.
        by_peer: bool,
    },
    /// Everything that a backlogged connection had is sent.
    Drained(ConnectionId),
    /// A link to a peer works.
    PeerUp {
        /// The peer.
        peer: ServerId,
        /// The way there.
        outbox: Arc<Outbox>,
    },
    /// The link to a peer ended.
    PeerLost(ServerId),
    /// Anything else that the core wants to hear.
    Event(Event),
    /// A question about the core's state.
    Status(oneshot::Sender<Status>),
    /// An operator wants a snapshot.
    Snapshot(Answer),
    /// The same as `Status`, with all that is counted.
    Measures(oneshot::Sender<(Status, Measures)>),
    /// The same, with lists.
    Survey(Wanted, oneshot::Sender<Box<Known>>),
    /// An operator has statistics begin anew.
    Reset(Reset, oneshot::Sender<()>),
}

/// Which statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The server's.
    Server,
    /// Those of each connection.
    Connections,
}

/// The sending side: bounded, so that a flood waits in its sockets.
pub type Inputs = mpsc::Sender<Input>;

/// Why the task came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopEnd {
    /// It was asked to.
    Stopped,
    /// The core can never vote again in this life.
    Halted(&'static str),
}

/// The core and everything its effects go to.
pub struct CoreLoop {
    core: Core,
    clock: Clock,
    storage: Storage,
    connections: BTreeMap<ConnectionId, Client>,
    peers: BTreeMap<ServerId, Arc<Outbox>>,
    /// Connections and peers that got something in this round.
    touched_connections: BTreeSet<ConnectionId>,
    touched_peers: BTreeSet<ServerId>,
    /// Events of this round, not yet given to the core.
    round: Vec<Event>,
    effects: Vec<Effect>,
    halted: Option<&'static str>,
    audit: Option<AuditLog>,
    asked: AskedSnapshots,
    /// What the log was told of last.
    room: DiskRoom,
    standing: StandingWatch,
    link_lines: LinkLines,
    /// Where the other members are, for links.
    roster: Roster,
}

struct Client {
    outbox: Arc<Outbox>,
    backlogged: bool,
    /// Asked of the system once: a list of clients would ask as often as it has entries.
    remote: Option<SocketAddr>,
}

impl CoreLoop {
    /// A loop around `core` that writes through `storage`.
    pub fn new(core: Core, clock: Clock, storage: Storage, roster: Roster) -> CoreLoop {
        CoreLoop {
            core,
            clock,
            storage,
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            touched_connections: BTreeSet::new(),
            touched_peers: BTreeSet::new(),
            round: Vec::new(),
            effects: Vec::new(),
            halted: None,
            audit: None,
            asked: AskedSnapshots::default(),
            room: DiskRoom::default(),
            standing: StandingWatch::new(Instant::now()),
            link_lines: LinkLines::default(),
            roster,
        }
    }

    /// Writes what the core tells for an audit log.
    #[must_use]
    pub fn with_audit(self, audit: Option<AuditLog>) -> CoreLoop {
        CoreLoop { audit, ..self }
    }

    /// Runs until `stop` says so or the core halts; then closes every connection and ends the storage.
    pub async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut stored: mpsc::UnboundedReceiver<Event>,
        mut stop: oneshot::Receiver<()>,
    ) -> LoopEnd {
        self.round.push(Event::Tick);
        self.finish_round();
        let end = loop {
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            // Every arm only receives or waits: all are cancel-safe.
            tokio::select! {
                biased;
                Some(event) = stored.recv() => self.take_stored(event),
                _ = &mut stop => break LoopEnd::Stopped,
                Some(input) = inputs.recv() => self.take(input),
                () = sleep_until(deadline) => self.round.push(Event::Tick),
            }
            for _ in 0..ROUND_INPUTS_MAX {
                if let Ok(event) = stored.try_recv() {
                    self.take_stored(event);
                } else if let Ok(input) = inputs.try_recv() {
                    self.take(input);
                } else {
                    break;
                }
            }
            self.finish_round();
            if let Some(reason) = self.halted {
                error!(reason, "this server can no longer take part");
                break LoopEnd::Halted(reason);
            }
        };
        for client in self.connections.values() {
            client.outbox.close();
        }
        self.storage.stop();
        if let Some(audit) = self.audit {
            audit.stop();
        }
        end
    }

    /// What the storage says; operators may wait for it.
    fn take_stored(&mut self, event: Event) {
        match &event {
            Event::SnapshotSaved { index, .. } => {
                let storage = &self.storage;
                self.asked.end(*index, || storage.snapshot_file(*index));
            }
            Event::SnapshotFailed { index } => {
                self.asked.end(*index, || Err("it cannot be written, see the log".to_owned()));
            }
            _ => {}
        }
        self.round.push(event);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Opened { connection, outbox } => {
                let remote = outbox.socket().remote();
                let client = Client { outbox, backlogged: false, remote };
                self.connections.insert(connection, client);
            }
            Input::Ended { connection, by_peer } => {
                if self.connections.remove(&connection).is_some() {
                    self.round.push(Event::Disconnected { connection, by_peer });
                }
            }
            Input::Drained(connection) => {
                if let Some(client) = self.connections.get_mut(&connection)
                    && std::mem::take(&mut client.backlogged)
                {
                    self.round.push(Event::Backlogged { connection, backlogged: false });
                }
            }
            Input::PeerUp { peer, outbox } => {
                self.link_lines.tell(peer, true);
                self.peers.insert(peer, outbox);
                self.round.push(Event::PeerUp { peer });
            }
            Input::PeerLost(peer) => {
                // A dialler that ends tells of links that it may not have had.
                if self.peers.remove(&peer).is_some() {
                    self.link_lines.tell(peer, false);
                }
                self.round.push(Event::PeerLost { peer });
            }
            Input::Event(event) => self.round.push(event),
            Input::Status(answer) => {
                // Whoever asked may have gone meanwhile.
                let _ = answer.send(self.core.status());
            }
            Input::Snapshot(answer) => {
                if self.asked.wait(self.core.state().applied_index(), answer) {
                    self.round.push(Event::TakeSnapshot);
                }
            }
            Input::Measures(answer) => {
                let _ = answer.send((self.core.status(), self.core.measures()));
            }
            Input::Survey(wanted, answer) => {
                let _ = answer.send(Box::new(self.survey(wanted)));
            }
            Input::Reset(which, answer) => {
                self.reset(which);
                let _ = answer.send(());
            }
        }
    }

    /// Gives the round's events to the core, its effects to sockets and disk.
    fn finish_round(&mut self) {
        loop {
            self.step();
            self.storage.submit();
            self.flush();
            // Only connections that became backlogged just now, each once, make another turn.
            if self.round.is_empty() {
                return;
            }
        }
    }

    fn step(&mut self) {
        let count = self.round.len();
        let began = Instant::now();
        self.core.step_all(self.round.drain(..), self.clock.now(), &mut self.effects);
        let took = began.elapsed();
        if took > STEP_SLOW {
            warn!(events = count, ?took, "the core was slow: nobody was answered meanwhile");
        }
        if cfg!(debug_assertions) {
            self.core.check();
        }
        let room = self.core.disk_room();
        disk_room::tell(std::mem::replace(&mut self.room, room), room);
        self.core.take_notices().into_iter().for_each(notices::tell);
        let standing = self.core.standing();
        if standing.confirmed || !standing.member {
            self.roster.compare();
        }
        for line in self.standing.look(standing, began) {
            line.tell(|| self.core.links());
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Respond { connection, frame } => {
                if let Some(client) = self.connections.get(&connection) {
                    client.outbox.push(frame);
                    self.touched_connections.insert(connection);
                }
            }
            Effect::Close { connection } => {
                if let Some(client) = self.connections.remove(&connection) {
                    debug!(%connection, "closing");
                    client.outbox.close();
                }
            }
            Effect::Reading { connection, on } => {
                if let Some(client) = self.connections.get(&connection) {
                    client.outbox.set_reading(on);
                }
            }
            Effect::SendPeer { to, bytes } => {
                if let Some(outbox) = self.peers.get(&to) {
                    peers::push_frame(outbox, bytes);
                    self.touched_peers.insert(to);
                }
            }
            Effect::Persist { id, write } => self.storage.persist(id, write),
            Effect::SaveSnapshot { state, keep_image, makes_room } => {
                self.asked.begin(state.index(), state.last_zxid());
                self.storage.save_snapshot(state, Wish { keep_image, makes_room });
            }
            Effect::HurrySnapshot => self.storage.hurry_snapshot(),
            Effect::Audit { record } => {
                if let Some(audit) = &self.audit {
                    audit.put(record);
                }
            }
            Effect::Members { servers, serves } => self.roster.take(&servers, serves),
            Effect::Halt { reason } => self.halted = Some(reason),
        }
    }

    /// Sends what the sockets take; their own tasks send the rest.
    fn flush(&mut self) {
        for peer in std::mem::take(&mut self.touched_peers) {
            if let Some(outbox) = self.peers.get(&peer) {
                outbox.flush();
            }
        }
        for connection in std::mem::take(&mut self.touched_connections) {
            if let Some(client) = self.connections.get_mut(&connection) {
                let unsent = client.outbox.flush();
                if unsent.bytes > BACKLOG_BYTES && !client.backlogged {
                    client.backlogged = true;
                    self.round.push(Event::Backlogged { connection, backlogged: true });
                }
            }
        }
    }
}

/// Waits for `at`; for ever without one.
async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
