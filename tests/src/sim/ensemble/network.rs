//! The wires: ordered streams that can be slow, stand still, or break.
//!
//! Called by: `world`. Calls: nothing.
//!
//! The model is TCP's. Between two processes there is at most one connection; in each direction
//! what arrives is a prefix of what was sent, in order, each message after a delay of its own.
//! Nothing is duplicated or reordered inside a connection, so the model never does that to clients.
//! Between servers it may ([`Disorder`]): Raft asks for no order, and what a seed calls a link may be a
//! row of connections, each with something of its own still on its way.
//! A direction can stand still (a partition, of one direction or both): messages wait, nobody
//! notices. A connection can break: what is on its way is lost, and each end learns of it at a time
//! of its own, or only when a new connection comes, as after a power cut.

use super::schedule::{MS, Time};
use crate::sim::random::Random;

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe<T> {
    last_arrival: Time,
    held: Option<Vec<T>>,
}

impl<T> Pipe<T> {
    /// An empty, flowing one.
    pub fn new() -> Self {
        Self { last_arrival: 0, held: None }
    }

    /// Sends: the message and when it arrives, or nothing when it waits.
    pub fn send(&mut self, now: Time, delay: Time, message: T) -> Option<(Time, T)> {
        if let Some(held) = &mut self.held {
            held.push(message);
            return None;
        }
        self.last_arrival = (now + delay).max(self.last_arrival);
        Some((self.last_arrival, message))
    }

    /// Sends without waiting for what was sent before.
    pub fn send_aside(&mut self, now: Time, delay: Time, message: T) -> Option<(Time, T)> {
        let arrival = self.last_arrival;
        self.last_arrival = 0;
        let sent = self.send(now, delay, message);
        self.last_arrival = arrival;
        sent
    }

    /// Lets what is sent from now on wait.
    pub fn block(&mut self) {
        self.held.get_or_insert_with(Vec::new);
    }

    /// Lets it flow again and gives what has waited.
    pub fn unblock(&mut self) -> Vec<T> {
        self.held.take().unwrap_or_default()
    }

    /// A new connection: nothing waits.
    pub fn renew(&mut self, now: Time) {
        self.last_arrival = now;
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    /// Whether messages wait.
    pub fn is_blocked(&self) -> bool {
        self.held.is_some()
    }
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What may become of a message between servers: of a thousand, so many are lost, doubled, or
/// arrive in no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disorder {
    /// Never arrive, and nobody is told.
    pub lost: u64,
    /// Arrive twice.
    pub doubled: u64,
    /// Are overtaken.
    pub reordered: u64,
}

/// How long a message takes: mostly a fraction of a millisecond, sometimes much longer.
pub fn delay(random: &mut Random, slow: bool) -> Time {
    let usual = 50 + random.below(400);
    if slow && random.chance(1, 50) {
        return usual + random.below(200 * MS);
    }
    if slow && random.chance(1, 10) { usual + random.below(10 * MS) } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_whatever_their_delay() {
        let mut pipe = Pipe::new();
        assert_eq!(pipe.send(0, 100, 'a'), Some((100, 'a')));
        assert_eq!(pipe.send(10, 5, 'b'), Some((100, 'b')));
        pipe.block();
        assert_eq!(pipe.send(20, 5, 'c'), None);
        assert_eq!(pipe.unblock(), ['c']);
        assert_eq!(pipe.send(200, 5, 'd'), Some((205, 'd')));
        assert_eq!(pipe.send(210, 90, 'e'), Some((300, 'e')));
        assert_eq!(pipe.send_aside(220, 5, 'f'), Some((225, 'f')));
        assert_eq!(pipe.send(230, 5, 'g'), Some((300, 'g')));
    }
}
