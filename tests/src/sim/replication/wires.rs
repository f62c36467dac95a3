//! What lies between brokers and their clients: a network that loses, doubles and delays.
//!
//! Called by: `world`. Calls: the processes, through `world`'s step. Invariant: what is lost is lost without a sign. It does not know the
//! ensemble, which has wires of its own.

use super::message::{Address, Message};
use super::world::{Event, World};
use crate::sim::ensemble::schedule::MS;
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
                let Address::Broker(from) = from else { unreachable!("brokers answer") };
                self.consumed(index, number, (error, log_start), (&records, from));
            }
            (to, message) => unreachable!("{message:?} to {to:?}"),
        }
    }
}
