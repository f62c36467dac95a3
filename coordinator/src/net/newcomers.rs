//! Who has come and not proved yet who they are, and which of them makes room for the next.
//!
//! Called by: the listeners of clients and of members, and the tasks of their sockets. Calls: nothing.
//! Invariant: room is made by whoever has held up their own proof for longest, of the network that has the most of
//! such; never by somebody whom this server keeps waiting, nor by anybody who has proved themselves.
//! Does not know: sockets, what a proof is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::tls::Attendance;

/// Everybody who has not proved themselves yet, at one listener.
#[derive(Clone, Default)]
pub struct Newcomers(Arc<Mutex<Room>>);

/// One newcomer's place, given back when it is dropped.
pub struct Ticket {
    number: u64,
    room: Newcomers,
    sent_away: Arc<Notify>,
}

#[derive(Default)]
struct Room {
    next: u64,
    /// By number, which grows with the time of arrival.
    newcomers: BTreeMap<u64, Newcomer>,
    /// Those who have to speak now, by their network.
    silent: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// How many of `silent` each network has.
    counts: BTreeSet<(usize, IpAddr)>,
}

struct Newcomer {
    network: IpAddr,
    sent_away: Arc<Notify>,
}

impl Newcomers {
    /// Gives a place to somebody who has connected from `address`, and has to speak now.
    pub fn enter(&self, address: IpAddr) -> Ticket {
        let sent_away = Arc::new(Notify::new());
        let number = self.room().enter(network(address), Arc::clone(&sent_away));
        Ticket { number, room: self.clone(), sent_away }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.room().newcomers.len()
    }

    /// Sends one away; false when this server keeps all of them waiting, or nobody is there.
    pub fn make_room(&self) -> bool {
        self.room().send_one_away()
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Ends the time as a newcomer, by a proof; false for one who was sent away before.
    pub fn admit(self) -> bool {
        self.room.room().remove(self.number)
    }

    /// Returns when this newcomer is to go. Cancel-safe.
    pub async fn sent_away(&self) {
        self.sent_away.notified().await;
    }
}

impl Attendance for Ticket {
    fn attend(&self, on: bool) {
        let mut room = self.room.room();
        if on {
            room.unlist(self.number);
        } else {
            room.list(self.number);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.room.room().remove(self.number);
    }
}

impl Room {
    fn enter(&mut self, network: IpAddr, sent_away: Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.newcomers.insert(number, Newcomer { network, sent_away });
        self.list(number);
        number
    }

    fn send_one_away(&mut self) -> bool {
        let largest = self.counts.last().and_then(|(_, network)| self.silent.get(network));
        let Some(number) = largest.and_then(BTreeSet::first).copied() else { return false };
        self.unlist(number);
        if let Some(newcomer) = self.newcomers.remove(&number) {
            newcomer.sent_away.notify_one();
        }
        true
    }

    fn remove(&mut self, number: u64) -> bool {
        self.unlist(number);
        self.newcomers.remove(&number).is_some()
    }

    fn list(&mut self, number: u64) {
        let Some(newcomer) = self.newcomers.get(&number) else { return };
        let network = newcomer.network;
        self.change(network, |numbers| numbers.insert(number));
    }

    fn unlist(&mut self, number: u64) {
        let Some(newcomer) = self.newcomers.get(&number) else { return };
        let network = newcomer.network;
        self.change(network, |numbers| numbers.remove(&number));
    }

    fn change(&mut self, network: IpAddr, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let numbers = self.silent.entry(network).or_default();
        let before = numbers.len();
        change(numbers);
        let after = numbers.len();
        self.counts.remove(&(before, network));
        if after == 0 {
            self.silent.remove(&network);
        } else {
            self.counts.insert((after, network));
        }
    }
}

/// What one stranger can have many addresses of counts as one: of IPv6 that is half an address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_sent_away(ticket: Ticket) -> bool {
        !ticket.admit()
    }

    #[test]
    fn oldest_of_the_largest_network_makes_room() {
        let newcomers = Newcomers::default();
        let lone = newcomers.enter(address("10.0.0.9"));
        // All of one network, though no two addresses are the same.
        let many: Vec<Ticket> =
            (1..4).map(|low| newcomers.enter(address(&format!("fe80:1:2:3::{low}")))).collect();
        let last = newcomers.enter(address("10.0.0.8"));
        assert_eq!(newcomers.count(), 5);
        assert!(newcomers.make_room() && newcomers.make_room());
        assert_eq!(newcomers.count(), 3);
        let gone: Vec<bool> = many.into_iter().map(is_sent_away).collect();
        assert_eq!(gone, [true, true, false]);
        assert!(!is_sent_away(lone) && !is_sent_away(last));
        assert_eq!(newcomers.count(), 0);
    }

    #[test]
    fn who_waits_for_this_server_or_is_in_stays() {
        let newcomers = Newcomers::default();
        assert!(!newcomers.make_room(), "nobody is there");
        let (waiting, inside) = (newcomers.enter(address("::1")), newcomers.enter(address("::1")));
        assert!(inside.admit());
        waiting.attend(true);
        assert!(!newcomers.make_room());
        waiting.attend(false);
        assert!(newcomers.make_room());
        // What comes too late changes nothing.
        waiting.attend(true);
        waiting.attend(false);
        assert!(!newcomers.make_room());
        assert!(is_sent_away(waiting));
        drop(newcomers.enter(address("::1")));
        let room = newcomers.room();
        assert!(room.newcomers.is_empty() && room.silent.is_empty() && room.counts.is_empty());
    }

    #[tokio::test]
    async fn who_is_sent_away_hears_of_it() {
        let newcomers = Newcomers::default();
        let ticket = newcomers.enter(address("127.0.0.1"));
        assert!(newcomers.make_room());
        ticket.sent_away().await;
    }
}
