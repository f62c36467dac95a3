//! What lies between brokers and their clients: a network that loses, doubles and delays.
//!
//! Called by: `world`. Calls: the processes, through `world`'s step. Invariant: what is lost is lost without a sign. It does not know the
//! ensemble, which has wires of its own.

use super::message::{Address, Message};
use super::topics::NOBODY;
use super::wire::Frame;
use super::world::{Event, World};
use crate::sim::ensemble::schedule::MS;
use crate::sim::fault::Fault;

/// Of a thousand messages, so many are cut off with their connection.
const CUT: u64 = 3;

impl World {
    pub fn send(&mut self, from: Address, to: Address, message: Message) {
        if let (Address::Broker(from), Address::Native) = (from, to) {
            return self.native_is_answered(from, message);
        }
        let message = match message {
            Message::Told { number, told } => return self.reader_is_told(number, told),
            message => message,
        };
        let cut = self.isolated.get(&(from, to)).is_some_and(|&until| until > self.schedule.now());
        let (lost, doubled, late) = (self.settings.lost, self.settings.doubled, self.settings.late);
        let is_lost = !self.calm && self.network.chance(lost, 1_000);
        if cut || (is_lost && self.arsenal.strikes(Fault::LoseMessage)) {
            return;
        }
        let is_doubled = !self.calm && self.network.chance(doubled, 1_000);
        let is_doubled = is_doubled && self.arsenal.strikes(Fault::DoubleMessage);
        let frame = Frame::encode(message);
        self.trace.take(frame.bytes());
        for _ in 0..=usize::from(is_doubled) {
            let is_late = !self.calm && self.network.chance(late, 1_000);
            let is_late = is_late && self.arsenal.strikes(Fault::DelayMessage);
            let delay = if is_late {
                self.network.below(700 * MS)
            } else {
                50 + self.network.below(2 * MS)
            };
            let is_cut = !self.calm && self.network.chance(CUT, 1_000);
            if is_cut && self.arsenal.strikes(Fault::CutFrame) {
                frame.is_cut_at(self.network.number());
                self.schedule.after(delay, Event::Cut { to });
                self.schedule.after(delay, Event::Cut { to: from });
                continue;
            }
            let frame = frame.clone();
            self.schedule.after(delay, Event::Frame { from, to, frame });
        }
    }

    /// A connection broke within a frame: one end has less than that, and both may go on at once. Brokers find out by themselves.
    pub(super) fn is_cut(&mut self, end: Address) {
        match end {
            NOBODY
            | Address::Native
            | Address::Reader
            | Address::Consumer(_)
            | Address::Broker(_) => {}
            Address::Producer(index) => self.producer_is_cut(index),
        }
    }

    pub(super) fn deliver(&mut self, from: Address, to: Address, frame: &Frame) {
        let message = frame.decode();
        let now = self.schedule.now();
        self.trace.say(now, || format!("  {message:?}"));
        match (to, message) {
            (NOBODY, _) => {}
            (Address::Broker(_), Message::Alter { request, .. })
                if self.grows_before(from, &request) =>
            {
                // Meanwhile records come that the others have and this replica has not.
                let grows = self.topics.below(200 * MS);
                self.schedule.after(grows, Event::Grow);
                let delay = grows + self.topics.below(50 * MS);
                self.schedule.after(delay, Event::Frame { from, to, frame: frame.clone() });
            }
            (Address::Broker(id), message) => {
                let life = self.machines[&id].life;
                self.step(id, life, |process, now, out| process.receive(from, message, now, out));
            }
            (Address::Producer(index), Message::Produced { number, error, base_offset }) => {
                let Address::Broker(from) = from else { unreachable!("brokers answer") };
                self.produced(index, from, (number, error, base_offset));
            }
            (Address::Consumer(index), Message::Consumed(answer)) => {
                let Address::Broker(from) = from else { unreachable!("brokers answer") };
                self.consumed(index, &answer, from);
            }
            (to, message) => unreachable!("{message:?} to {to:?}"),
        }
    }
}
