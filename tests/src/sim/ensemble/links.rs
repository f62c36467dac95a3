//! Connections between servers.
//!
//! Called by: `world` and `nemesis`. Calls: `network`.
//! Invariant: a server hears of a link in turns: up, lost, up; messages of a link's former epoch
//! never arrive. Who does not know the other end does not send, and hears it all the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use coordinator_core::ServerId;
use coordinator_core::server::Event;
use coordinator_disk::envelope;

use super::network::{Disorder, Pipe, delay};
use super::schedule::{MS, SECOND, Time};
use super::world::{Happening, World};
use crate::sim::fault::Fault;

/// One pair of servers.
#[derive(Debug, Default)]
struct Link {
    /// Raised when it breaks.
    epoch: u64,
    up: bool,
    /// What each end was told last: the epoch it believes up.
    told: [Option<u64>; 2],
    /// From the lower to the higher server, and back.
    pipes: [Pipe<Bytes>; 2],
}

/// All pairs.
#[derive(Debug)]
pub(super) struct Links {
    links: BTreeMap<(usize, usize), Link>,
}

impl Links {
    pub(super) fn new(servers: usize) -> Self {
        let pairs = (0..servers).flat_map(|b| (0..b).map(move |a| (a, b)));
        Self { links: pairs.map(|pair| (pair, Link::default())).collect() }
    }

    pub(super) fn pairs(&self) -> Vec<(usize, usize)> {
        self.links.keys().copied().collect()
    }

    /// Whether two servers are connected.
    pub(super) fn is_up(&self, a: usize, b: usize) -> bool {
        self.links.get(&(a.min(b), a.max(b))).is_some_and(|link| link.up)
    }

    fn between(&mut self, a: usize, b: usize) -> &mut Link {
        self.links.get_mut(&(a.min(b), a.max(b))).expect("all pairs exist")
    }
}

/// Which of a link's two ends or directions belongs to `server` as the sender.
fn side(server: usize, peer: usize) -> usize {
    usize::from(server > peer)
}

/// Whether this tells a leader of sessions that were heard: the kind stands behind the envelope's header.
fn is_report(bytes: &Bytes) -> bool {
    const TOUCHED: u8 = 2;
    bytes.get(envelope::HEADER_BYTES) == Some(&TOUCHED)
}

fn id(server: usize) -> ServerId {
    ServerId::new(server as u64 + 1).expect("small")
}

impl World {
    pub(super) fn send_peer(&mut self, from: usize, to: usize, bytes: Bytes) {
        let now = self.schedule.now();
        let took = delay(&mut self.network, self.settings.slow_network);
        let link = self.links.between(from, to);
        let end = side(from, to);
        if !link.up || link.told[end] != Some(link.epoch) {
            return;
        }
        let epoch = link.epoch;
        let Disorder { lost, doubled, reordered } = self.settings.disorder;
        if self.disorder.chance(lost, 1000) && self.arsenal.strikes(Fault::LoseMessage) {
            if is_report(&bytes) {
                self.ledger.unreported(from, to, now);
            }
            return;
        }
        let doubled =
            self.disorder.chance(doubled, 1000) && self.arsenal.strikes(Fault::DoubleMessage);
        for _ in 0..=usize::from(doubled) {
            let aside =
                self.disorder.chance(reordered, 1000) && self.arsenal.strikes(Fault::DelayMessage);
            let (pipe, bytes) = (&mut link.pipes[end], bytes.clone());
            let sent = match aside {
                true => pipe.send_aside(now, self.disorder.below(300 * MS), bytes),
                false => pipe.send(now, took, bytes),
            };
            if let Some((time, bytes)) = sent {
                self.schedule.at(time, Happening::PeerBytes { from, to, epoch, bytes });
            }
        }
    }

    pub(super) fn peer_bytes(&mut self, from: usize, to: usize, (epoch, bytes): (u64, Bytes)) {
        let link = self.links.between(from, to);
        if link.up && link.epoch == epoch {
            self.deliver(to, Event::PeerMessage { from: id(from), bytes });
        }
    }

    /// An end learns that the link of `epoch` is no more.
    pub(super) fn peer_notice(&mut self, server: usize, peer: usize, epoch: u64) {
        let link = self.links.between(server, peer);
        let end = side(server, peer);
        if link.told[end] == Some(epoch) && link.epoch != epoch {
            link.told[end] = None;
            self.deliver(server, Event::PeerLost { peer: id(peer) });
        }
    }

    /// Breaks a link. Each end that lives hears of it soon, or if not `noticed` late.
    /// Whether there was one.
    pub(super) fn break_link(&mut self, (a, b): (usize, usize), noticed: bool) -> bool {
        let link = self.links.between(a, b);
        if !link.up {
            return false;
        }
        let epoch = link.epoch;
        link.up = false;
        link.epoch += 1;
        for (server, peer) in [(a, b), (b, a)] {
            let soon = 50 + self.network.below(3 * MS);
            let late = SECOND + self.network.below(8 * SECOND);
            let after = if noticed { soon } else { late };
            self.schedule.after(after, Happening::PeerNotice { server, peer, epoch });
        }
        self.retry((a, b));
        true
    }

    /// A server's process is gone: its links are.
    pub(super) fn break_links_of(&mut self, server: usize, noticed: bool) {
        for (a, b) in self.links.pairs() {
            if a == server || b == server {
                self.links.between(a, b).told[side(server, a + b - server)] = None;
                self.break_link((a, b), noticed);
            }
        }
    }

    pub(super) fn retry(&mut self, pair: (usize, usize)) {
        let after: Time = 5 * MS + self.network.below(150 * MS);
        self.schedule.after(after, Happening::Reconnect { pair });
    }

    pub(super) fn reconnect(&mut self, (a, b): (usize, usize)) {
        let now = self.schedule.now();
        let both_run = self.members[a].is_running() && self.members[b].is_running();
        let knows = [self.members[a].knows.contains(&b), self.members[b].knows.contains(&a)];
        let link = self.links.between(a, b);
        if link.up {
            return;
        }
        if !both_run || link.pipes.iter().any(Pipe::is_blocked) {
            self.retry((a, b));
            return;
        }
        link.up = true;
        let epoch = link.epoch;
        let told = std::mem::replace(&mut link.told, knows.map(|knows| knows.then_some(epoch)));
        link.pipes.iter_mut().for_each(|pipe| pipe.renew(now));
        for (server, peer) in [(a, b), (b, a)] {
            if told[side(server, peer)].is_some() {
                self.deliver(server, Event::PeerLost { peer: id(peer) });
            }
        }
        for (server, peer) in [(a, b), (b, a)] {
            if knows[side(server, peer)] {
                self.deliver(server, Event::PeerUp { peer: id(peer) });
            }
        }
    }

    /// A server's process dials those that it knows now, and lets go of the others. Whoever proves to belong here is let in by
    /// everybody.
    pub(super) fn introduce(&mut self, server: usize) {
        if self.members[server].server.is_none() {
            return;
        }
        for other in (0..self.members.len()).filter(|other| *other != server) {
            let knows = self.members[server].knows.contains(&other);
            let end = side(server, other);
            let link = self.links.between(server, other);
            let (epoch, told) = (link.epoch, link.told[end]);
            if !link.up || knows == (told == Some(epoch)) {
                continue;
            }
            if !knows {
                self.break_link((server.min(other), server.max(other)), true);
                continue;
            }
            link.told[end] = Some(epoch);
            if told.is_some() {
                self.deliver(server, Event::PeerLost { peer: id(other) });
            }
            self.deliver(server, Event::PeerUp { peer: id(other) });
        }
    }

    /// Lets messages from one server to another wait.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.links.between(from, to).pipes[side(from, to)].block();
    }

    /// Ends all partitions.
    pub(super) fn unblock_all(&mut self) {
        for (a, b) in self.links.pairs() {
            for (from, to) in [(a, b), (b, a)] {
                let link = self.links.between(from, to);
                let epoch = link.epoch;
                for bytes in link.pipes[side(from, to)].unblock() {
                    let now = self.schedule.now();
                    let took = delay(&mut self.network, false);
                    let link = self.links.between(from, to);
                    if let Some((time, bytes)) = link.pipes[side(from, to)].send(now, took, bytes) {
                        self.schedule.at(time, Happening::PeerBytes { from, to, epoch, bytes });
                    }
                }
            }
        }
    }
}
