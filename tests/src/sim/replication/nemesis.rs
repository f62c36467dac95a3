//! What goes wrong: one fault after another, drawn from the seed.
//!
//! Called by: `world`. Calls: `world`'s means of breaking things. Invariant: at most one directory is wiped in a run, so that what two replicas
//! acknowledged is still somewhere.

use broker_core::ids::BrokerId;

use super::world::{Event, World};
use crate::sim::ensemble::schedule::{MS, SECOND, Time};

impl World {
    /// Breaks something and plans the next fault.
    pub(super) fn strike(&mut self) {
        let every = self.settings.fault_every;
        let next = self.faults.below(2 * every);
        self.schedule.after(next, Event::Nemesis);
        let id = BrokerId::new(1 + i32::try_from(self.faults.below(3)).expect("small"));
        let short = self.faults.chance(1, 2);
        let time = if short { self.faults.below(300 * MS) } else { self.faults.below(8 * SECOND) };
        match self.faults.below(12) {
            0 | 1 => self.kill(id, time),
            2 | 3 if self.settings.power_cuts => self.cut_power(id, time),
            4 if self.settings.power_cuts => self.cut_all_power(time),
            5 => self.pause(id, time),
            6 => self.cut_link(id, time),
            7 => self.isolate(id, time),
            8 => self.expire_session(id),
            9 => self.shut_down(id, time),
            10 if self.settings.wipes && !self.wiped_any => self.wipe(id, time),
            11 => self.pause(id, time),
            _ => self.cut_link(id, time / 4),
        }
    }

    fn cut_all_power(&mut self, time: Time) {
        for id in 1..=self.settings.brokers {
            let wait = time / 4 + self.faults.below(SECOND);
            self.cut_power(BrokerId::new(id), wait);
        }
    }
}
