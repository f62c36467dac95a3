//! What goes wrong: one fault after another, drawn from the seed.
//!
//! Called by: `world`. Calls: `world`'s means of breaking things. Invariant: at most one directory is wiped in a run, so that what two replicas
//! acknowledged is still somewhere.

use broker_core::ids::BrokerId;

use super::world::{Event, World};
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::fault::Fault;

impl World {
    /// Breaks something and plans the next fault.
    pub(super) fn strike(&mut self) {
        let every = self.settings.fault_every;
        let next = self.faults.below(2 * every);
        self.schedule.after(next, Event::Nemesis);
        let id = BrokerId::new(1 + i32::try_from(self.faults.below(3)).expect("small"));
        let short = self.faults.chance(1, 2);
        let time = if short { self.faults.below(300 * MS) } else { self.faults.below(8 * SECOND) };
        let fault = match self.faults.below(12) {
            0 | 1 => Fault::Kill,
            2 | 3 if self.settings.power_cuts => Fault::PowerCut,
            4 if self.settings.power_cuts => Fault::PowerCutOfAll,
            5 | 11 => Fault::Pause,
            7 => Fault::Partition,
            8 => Fault::ExpireSession,
            9 => Fault::ShutDown,
            10 if self.settings.wipes && !self.wiped_any => Fault::Wipe,
            _ => Fault::ResetLine,
        };
        if !self.arsenal.strikes(fault) {
            return;
        }
        match fault {
            Fault::Kill => self.kill(id, time),
            Fault::PowerCut => self.cut_power(id, time),
            Fault::PowerCutOfAll => self.cut_all_power(time),
            Fault::Pause => self.pause(id, time),
            Fault::Partition => self.isolate(id, time),
            Fault::ExpireSession => self.expire_session(id),
            Fault::ShutDown => self.shut_down(id, time),
            Fault::Wipe => self.wipe(id, time),
            _ => self.cut_link(id, time / 2),
        }
    }

    fn cut_all_power(&mut self, time: Time) {
        for id in 1..=self.settings.brokers {
            let wait = time / 4 + self.faults.below(SECOND);
            self.cut_power(BrokerId::new(id), wait);
        }
    }
}
