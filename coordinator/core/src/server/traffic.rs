//! What is counted of requests and answers until an operator resets it: of this server, and of one connection.
//!
//! Called by `request`, `reply`, `pipeline`, `handshake`; read by `status` and `survey`. Calls nothing. Invariant: to count
//! is a few additions; what metrics are told since start is counted elsewhere and never falls. It does not know
//! the names under which it is shown.

use coordinator_protocol::{OpCode, Xid, Zxid};

use super::connection::Connection;
use super::step::Server;
use crate::{ConnectionId, Millis};

/// Times from request to answer, ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// The shortest; 0 before the first.
    pub min: u64,
    /// The longest.
    pub max: u64,
    /// All together.
    pub sum: u64,
    /// How many.
    pub count: u64,
}

impl Latency {
    fn add(&mut self, took_ms: u64) {
        self.min = if self.count == 0 { took_ms } else { self.min.min(took_ms) };
        self.max = self.max.max(took_ms);
        self.sum = self.sum.saturating_add(took_ms);
        self.count = self.count.saturating_add(1);
    }
}

/// Bytes of one kind of thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Of the last, the smallest and the largest; nothing before the first.
    pub last_min_max: Option<(usize, usize, usize)>,
}

impl Sizes {
    pub(super) fn add(&mut self, bytes: usize) {
        let (_, min, max) = self.last_min_max.unwrap_or((bytes, bytes, bytes));
        self.last_min_max = Some((bytes, min.min(bytes), max.max(bytes)));
    }
}

/// What came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Handshakes and requests.
    pub received: u64,
    /// Frames: answers and notifications.
    pub sent: u64,
    /// Of answers.
    pub latency: Latency,
}

/// The same of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionTraffic {
    /// What came and went.
    pub counted: Traffic,
    /// The last request that was answered.
    pub last: Option<LastAnswer>,
    /// The last number of a request, of those that clients count.
    pub last_xid: Option<Xid>,
}

/// An answer that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastAnswer {
    /// To what.
    pub op: OpCode,
    /// The zxid that it stated.
    pub zxid: Zxid,
    /// When, on the process's clock.
    pub at: Millis,
    /// How long that took, ms.
    pub latency_ms: u64,
}

/// An answer to be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) xid: Xid,
    pub(super) op: OpCode,
    /// When it was asked for.
    pub(super) received: Millis,
}

impl ConnectionTraffic {
    fn answered(&mut self, xid: Xid, last: LastAnswer) {
        self.counted.latency.add(last.latency_ms);
        self.last = Some(last);
        // Those below are pings and the like, which every client numbers alike.
        if xid.get() >= 0 {
            self.last_xid = Some(xid);
        }
    }
}

impl Server {
    /// Something came from a client.
    pub(super) fn count_received(&mut self, id: ConnectionId) {
        let counters = &mut self.counters;
        counters.received = counters.received.saturating_add(1);
        counters.traffic.received = counters.traffic.received.saturating_add(1);
        if let Some(held) = self.connections.get_mut(id) {
            let received = &mut held.traffic.counted.received;
            *received = received.saturating_add(1);
        }
    }

    /// A frame is given to a client.
    pub(super) fn count_sent(&mut self, id: ConnectionId, bytes: usize) {
        let counters = &mut self.counters;
        counters.sent = counters.sent.saturating_add(1);
        counters.traffic.sent = counters.traffic.sent.saturating_add(1);
        if let Some(held) = self.connections.get_mut(id) {
            held.note_sent(self.step_number, bytes);
            let sent = &mut held.traffic.counted.sent;
            *sent = sent.saturating_add(1);
        }
    }

    /// A request is answered.
    pub(super) fn count_answer(&mut self, id: ConnectionId, answered: Answered, bytes: usize) {
        let Answered { op, received, .. } = answered;
        let took = self.now.mono.since(received);
        let counters = &mut self.counters;
        counters.counted.answered(op, took);
        counters.latency_ms_min = Some(counters.latency_ms_min.map_or(took, |min| min.min(took)));
        counters.latency_ms_max = counters.latency_ms_max.max(took);
        counters.latency_ms_sum = counters.latency_ms_sum.saturating_add(took);
        counters.latency_count = counters.latency_count.saturating_add(1);
        counters.traffic.latency.add(took);
        counters.answer_sizes.add(bytes);
        self.note_answer(id, answered);
    }

    /// A handshake is answered: of the connection alone, as metrics tell of requests.
    pub(super) fn count_handshake(&mut self, id: ConnectionId, received: Millis) {
        let answered = Answered { xid: Xid::new(0), op: OpCode::CreateSession, received };
        self.note_answer(id, answered);
    }

    fn note_answer(&mut self, id: ConnectionId, answered: Answered) {
        let Answered { xid, op, received } = answered;
        let (at, zxid) = (self.now.mono, self.state.last_zxid());
        if let Some(held) = self.connections.get_mut(id) {
            held.traffic.answered(xid, LastAnswer { op, zxid, at, latency_ms: at.since(received) });
        }
    }

    /// Counts this server's requests and answers from nothing again, for words and commands.
    pub fn reset_traffic(&mut self) {
        let counters = &mut self.counters;
        counters.traffic = Traffic::default();
        counters.answer_sizes = Sizes::default();
        counters.proposal_sizes = Sizes::default();
    }

    /// The same of each connection.
    pub fn reset_connection_traffic(&mut self) {
        self.connections.each_mut(|held: &mut Connection| {
            held.traffic = ConnectionTraffic::default();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_and_longest_begin_with_the_first() {
        let mut latency = Latency::default();
        for took in [7, 3, 9] {
            latency.add(took);
        }
        assert_eq!(latency, Latency { min: 3, max: 9, sum: 19, count: 3 });
        let mut sizes = Sizes::default();
        assert_eq!(sizes.last_min_max, None);
        for bytes in [7, 3, 9, 5] {
            sizes.add(bytes);
        }
        assert_eq!(sizes.last_min_max, Some((5, 3, 9)));
    }
}
