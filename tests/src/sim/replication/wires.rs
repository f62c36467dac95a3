//! What lies between: the network, which loses, doubles and delays, and the connections to the coordinator.
//!
//! Called by: `world`. Calls: the processes, through `world`'s step. Invariant: a coordinator connection is in order both ways, a change is told
//! on it before a reply that could reveal it, and a broken one carries nothing any more, though what it carried may still be served until a
//! newer one is attached.

use broker_core::ids::{BrokerId, Zxid};
use broker_core::image::FeedEvent;

use super::coordinator::SessionId;
use super::message::{Address, CoordinatorReply, CoordinatorRequest, FromCoordinator, Message};
use super::world::{BOOKMARK_EVERY, Event, World};
use crate::sim::ensemble::schedule::{MS, Time};
use crate::sim::fault::Fault;

impl World {
    pub fn send(&mut self, from: Address, to: Address, message: Message) {
        let cut = self.isolated.get(&(from, to)).is_some_and(|&until| until > self.schedule.now());
        let (lost, doubled, late) = (self.settings.lost, self.settings.doubled, self.settings.late);
        let is_lost = !self.calm && self.network.chance(lost, 1_000);
        if cut || (is_lost && self.arsenal.strikes(Fault::LoseMessage)) {
            return;
        }
        let is_doubled = !self.calm && self.network.chance(doubled, 1_000);
        let is_doubled = is_doubled && self.arsenal.strikes(Fault::DoubleMessage);
        for _ in 0..=usize::from(is_doubled) {
            let is_late = !self.calm && self.network.chance(late, 1_000);
            let is_late = is_late && self.arsenal.strikes(Fault::DelayMessage);
            let delay = if is_late {
                self.network.below(700 * MS)
            } else {
                50 + self.network.below(2 * MS)
            };
            let message = message.clone();
            self.schedule.after(delay, Event::Message { from, to, message });
        }
    }

    pub(super) fn deliver(&mut self, from: Address, to: Address, message: Message) {
        match (to, message) {
            (Address::Broker(id), message) => {
                let life = self.machines[&id].life;
                self.step(id, life, |process, now, out| process.receive(from, message, now, out));
            }
            (Address::Producer(index), Message::Produced { number, error, base_offset }) => {
                self.produced(index, number, error, base_offset);
            }
            (Address::Consumer(index), Message::Consumed { number, error, log_start, records }) => {
                self.consumed(index, number, (error, log_start), &records);
            }
            (to, message) => unreachable!("{message:?} to {to:?}"),
        }
    }

    pub(super) fn coordinator_delay(&mut self) -> Time {
        let is_late = !self.calm && self.network.chance(self.settings.late, 1_000);
        if is_late { self.network.below(400 * MS) } else { 100 + self.network.below(2 * MS) }
    }

    pub(super) fn asked(
        &mut self,
        (id, life, connection): (BrokerId, u64, u64),
        session: Option<SessionId>,
        number: u64,
        request: CoordinatorRequest,
    ) {
        let now = self.schedule.now();
        let reply = match (request, session) {
            (CoordinatorRequest::Open, _) => {
                CoordinatorReply::Opened(self.coordinator.open_session(connection, now))
            }
            (CoordinatorRequest::Attach(session), _) => {
                match self.coordinator.session_mut(session) {
                    Some(open) => {
                        open.connection = open.connection.max(connection);
                        open.last_heard = now;
                        CoordinatorReply::Attached
                    }
                    None => CoordinatorReply::Expired,
                }
            }
            (request, Some(session)) => match self.coordinator.session_mut(session) {
                // What an older connection sent is void once a newer one is attached.
                Some(open) if open.connection != connection => return,
                Some(open) => {
                    open.last_heard = now;
                    self.serve(session, request)
                }
                None => CoordinatorReply::Expired,
            },
            (_, None) => return,
        };
        let zxid = self.coordinator.zxid();
        let delay = self.coordinator_delay();
        let machine = self.machines.get_mut(&id).expect("there");
        machine.last_replied = (now + delay).max(machine.last_replied + 1);
        let replied = Event::Replied { id, life, connection, number, zxid, reply };
        self.schedule.at(machine.last_replied, replied);
    }

    pub(super) fn serve(
        &mut self,
        session: SessionId,
        request: CoordinatorRequest,
    ) -> CoordinatorReply {
        match request {
            CoordinatorRequest::Read(paths) => {
                let found = paths.into_iter().filter_map(|path| {
                    let node = self.coordinator.node(&path)?.clone();
                    Some((path, node))
                });
                CoordinatorReply::Nodes(found.collect())
            }
            CoordinatorRequest::Multi(ops) => {
                let result = self.coordinator.multi(session, &ops);
                self.check_members();
                self.announce();
                CoordinatorReply::Multi(result.map(|_| ()))
            }
            CoordinatorRequest::Ping | CoordinatorRequest::Open | CoordinatorRequest::Attach(_) => {
                CoordinatorReply::Pong
            }
        }
    }

    pub(super) fn replied(
        &mut self,
        (id, life, connection): (BrokerId, u64, u64),
        number: u64,
        zxid: Zxid,
        reply: CoordinatorReply,
    ) {
        let machine = &self.machines[&id];
        if machine.connection != connection || machine.life != life {
            return;
        }
        let begins = matches!(reply, CoordinatorReply::Opened(_) | CoordinatorReply::Attached);
        if begins {
            self.subscribe(id, life);
        }
        // A8: a change is told before a reply that could reveal it.
        self.feed(id, connection, self.coordinator.index_after(zxid), None);
        self.step(id, life, |process, now, out| {
            process.coordinator_says(FromCoordinator::Reply { number, zxid, reply }, now, out);
        });
    }

    /// Resumes the subscription, or begins it with a snapshot.
    pub(super) fn subscribe(&mut self, id: BrokerId, life: u64) {
        let machine = &self.machines[&id];
        let resume = machine.process.as_ref().and_then(|process| process.feed.resume_from());
        let cursor = match resume.filter(|_| self.network.chance(1, 2)) {
            Some(zxid) => self.coordinator.index_after(zxid),
            None => {
                let zxid = self.coordinator.zxid();
                let mut events = vec![FeedEvent::SnapshotBegin { zxid }];
                for items in self.coordinator.snapshot().chunks(3) {
                    events.push(FeedEvent::SnapshotChunk { items: items.to_vec() });
                }
                events.push(FeedEvent::SnapshotEnd { zxid });
                for event in events {
                    self.step(id, life, |process, now, out| {
                        process.coordinator_says(FromCoordinator::Feed(event), now, out);
                    });
                }
                self.coordinator.history_len()
            }
        };
        self.machines.get_mut(&id).expect("there").cursor = Some(cursor);
    }

    /// Tells all subscribers of what is new, each in its time.
    pub(super) fn announce(&mut self) {
        let up_to = self.coordinator.history_len();
        let machines: Vec<_> = self.machines.iter().map(|(&id, m)| (id, m.connection)).collect();
        for (id, connection) in machines {
            let delay = self.coordinator_delay();
            self.schedule.after(delay, Event::Feed { id, connection, up_to, bookmark: None });
        }
    }

    pub(super) fn bookmarks(&mut self) {
        self.schedule.after(BOOKMARK_EVERY, Event::Bookmarks);
        let now = self.schedule.now();
        let silent =
            self.coordinator.silent_since(now.saturating_sub(self.settings.session_timeout));
        for session in silent {
            self.coordinator.expire(session);
            self.announce();
        }
        let (up_to, zxid) = (self.coordinator.history_len(), self.coordinator.zxid());
        let machines: Vec<_> = self.machines.iter().map(|(&id, m)| (id, m.connection)).collect();
        for (id, connection) in machines {
            let delay = self.coordinator_delay();
            let bookmark = Some(zxid);
            self.schedule.after(delay, Event::Feed { id, connection, up_to, bookmark });
        }
    }

    pub(super) fn feed(
        &mut self,
        id: BrokerId,
        connection: u64,
        up_to: usize,
        bookmark: Option<Zxid>,
    ) {
        let machine = self.machines.get_mut(&id).expect("there");
        let (life, is_current) = (machine.life, machine.connection == connection);
        let Some(cursor) = machine.cursor.filter(|_| is_current && machine.link_is_up) else {
            return;
        };
        machine.cursor = Some(cursor.max(up_to));
        let mut events = Vec::new();
        for index in cursor..up_to {
            let (zxid, items) = self.coordinator.change(index);
            events.push(FeedEvent::Changes { zxid, items });
        }
        events.extend(bookmark.map(|zxid| FeedEvent::Bookmark { zxid }));
        for event in events {
            self.step(id, life, |process, now, out| {
                process.coordinator_says(FromCoordinator::Feed(event), now, out);
            });
        }
    }
}
